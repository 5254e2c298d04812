//! How a packet leaves once it is decided where to: as a whole frame, which is all that XDP has, or as a packet of the
//! network stack, which TC has.
//!
//! The rewrite of the headers is the same for both ([`crate::relay::Headers`]). What differs is who keeps the link
//! layer: in a frame it is bytes like any others, and a longer or shorter header moves the frame's beginning. The stack
//! keeps a tag beside its packet, knows of which family the packet is and how much of its checksum is still to be
//! computed, and some of its devices have no link layer at all; it has to be told of each change by its own helpers.

use crate::{
    checksum::Delta,
    headers::{
        ETHERNET_LENGTH, ETHERTYPE_VLAN, Ethernet, IPV4_LENGTH, IPV6_LENGTH, TAGGED_LENGTH, Udp, VlanTag,
    },
    reason::Reason,
    relay::{Environment, Headers},
    tables::{Flow, Link, NextHop},
};

/// The two halves of a next hop that were found to be known, as they were then: they may change meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    /// Whom the packet goes to.
    pub destination: Link,
    /// Whom it comes from.
    pub source: Link,
}

impl Links {
    #[inline(always)]
    const fn ethernet(self, ethertype: [u8; 2]) -> Ethernet {
        Ethernet { destination: self.destination.address(), source: self.source.address(), ethertype }
    }
}

/// A frame whose beginning can be moved.
pub trait Frame: Environment {
    /// Makes the frame longer in front by so many bytes, whose content means nothing, or shorter; false and nothing
    /// changed if there is no room.
    fn resize(&mut self, by: i32) -> bool;
}

/// A packet of the network stack. What is borrowed of it before any of these is gone afterwards.
pub trait Packet: Environment {
    /// Makes room for an IP header of the other family in the place of the one that is there, and tells the stack;
    /// false if it refuses.
    fn change_family(&mut self, to_ipv6: bool) -> bool;
    /// Makes room for an Ethernet header in front of a packet without any; false if the stack refuses.
    fn put_ethernet(&mut self) -> bool;
    /// Has the packet leave with this tag, or without any; false if the stack refuses.
    fn set_tag(&mut self, tag: Option<[u8; 2]>) -> bool;
    /// Brings the UDP checksum at `offset` up to date. What is not yet computed, because a device was to do it, covers
    /// the addresses only. A checksum of zero stays; false if the stack refuses.
    fn change_checksum(&mut self, offset: usize, addresses: Delta, ports: Delta) -> bool;
}

/// The tag that packets of a flow leave with on a next hop.
#[inline(always)]
const fn tag(flow: &Flow, hop: &NextHop) -> Option<[u8; 2]> {
    let [high, low] = hop.tag;
    if hop.is_tagged() { Some([high | flow.priority, low]) } else { None }
}

/// Has a frame leave whose IP header stands at `IP`.
///
/// # Errors
/// [`Reason::SendFailed`] if there is no room in front for longer headers.
#[inline(always)]
pub fn as_frame<const IP: usize, H: Headers, F: Frame>(
    frame: &mut F,
    flow: &Flow,
    hop: &NextHop,
    links: Links,
) -> Result<(), Reason> {
    let same_family = flow.leaves_as_ipv6() == H::IPV6;
    let tag = tag(flow, hop);
    if same_family && tag.is_some() == (IP == TAGGED_LENGTH) {
        // The way that almost every packet goes: nothing moves.
        frame.write::<H>(IP).ok_or(Reason::Truncated)?.rewrite(flow);
        if let Some(control) = tag {
            frame.write::<VlanTag>(ETHERNET_LENGTH).ok_or(Reason::Truncated)?.control = control;
        }
        let ethernet: &mut Ethernet = frame.write(0).ok_or(Reason::Truncated)?;
        ethernet.destination = links.destination.address();
        ethernet.source = links.source.address();
        return Ok(());
    }
    let came = (IP + size_of::<H>()) as i32;
    let headers = frame.read::<H>(IP).ok_or(Reason::Truncated)?;
    if same_family {
        let mut rewritten = *headers;
        rewritten.rewrite(flow);
        put(frame, came, links, tag, rewritten)
    } else {
        let translated = headers.translated(flow);
        put(frame, came, links, tag, translated)
    }
}

/// Puts the headers that a frame leaves with in the place of those that it came with, which were `came` bytes.
///
/// Inlined, though it is long: headers that went through memory here would lie on the stack as the kernel does not
/// want them aligned there.
#[inline(always)]
fn put<O: Headers, F: Frame>(
    frame: &mut F,
    came: i32,
    links: Links,
    tag: Option<[u8; 2]>,
    headers: O,
) -> Result<(), Reason> {
    let Some(control) = tag else {
        let leaves = (ETHERNET_LENGTH + size_of::<O>()) as i32;
        if leaves != came && !frame.resize(leaves - came) {
            return Err(Reason::SendFailed);
        }
        *frame.write::<O>(ETHERNET_LENGTH).ok_or(Reason::Truncated)? = headers;
        *frame.write::<Ethernet>(0).ok_or(Reason::Truncated)? = links.ethernet(O::ETHERTYPE);
        return Ok(());
    };
    let leaves = (TAGGED_LENGTH + size_of::<O>()) as i32;
    if leaves != came && !frame.resize(leaves - came) {
        return Err(Reason::SendFailed);
    }
    *frame.write::<O>(TAGGED_LENGTH).ok_or(Reason::Truncated)? = headers;
    *frame.write::<VlanTag>(ETHERNET_LENGTH).ok_or(Reason::Truncated)? =
        VlanTag { control, ethertype: O::ETHERTYPE };
    *frame.write::<Ethernet>(0).ok_or(Reason::Truncated)? = links.ethernet(ETHERTYPE_VLAN);
    Ok(())
}

/// Has a packet of the stack leave whose IP header stands at `IP`: behind an Ethernet header, or at its beginning if it
/// came by a device without link layer.
///
/// # Errors
/// [`Reason::SendFailed`] if the stack refuses one of the changes; the packet may then be changed in part, and is
/// dropped.
#[inline(always)]
pub fn as_packet<const IP: usize, H: Headers, P: Packet>(
    packet: &mut P,
    flow: &Flow,
    hop: &NextHop,
    links: Links,
) -> Result<(), Reason> {
    let leaves_as_ipv6 = flow.leaves_as_ipv6();
    let headers = packet.write::<H>(IP).ok_or(Reason::Truncated)?;
    let (checksum, ports) = (headers.udp().checksum, flow.ports(headers.udp().destination));
    let (ethertype, ip_length) = if leaves_as_ipv6 == H::IPV6 {
        headers.rewrite(flow);
        (H::ETHERTYPE, H::IP_LENGTH)
    } else {
        let translated = headers.translated(flow);
        if !packet.change_family(leaves_as_ipv6) {
            return Err(Reason::SendFailed);
        }
        *packet.write::<H::Other>(IP).ok_or(Reason::SendFailed)? = translated;
        (H::Other::ETHERTYPE, if leaves_as_ipv6 { IPV6_LENGTH } else { IPV4_LENGTH })
    };
    // The rewrite took the checksum for a whole one; the stack knows whether it is.
    let udp: &mut Udp = packet.write(IP + ip_length).ok_or(Reason::SendFailed)?;
    udp.checksum = checksum;
    let at = IP + ip_length + core::mem::offset_of!(Udp, checksum);
    if !packet.change_checksum(at, flow.udp_delta.without(ports), ports) {
        return Err(Reason::SendFailed);
    }
    if !hop.has_link_layer() {
        // The stack takes an Ethernet header off by itself; a tag it would put back.
        return if packet.set_tag(None) { Ok(()) } else { Err(Reason::SendFailed) };
    }
    if IP == 0 && !packet.put_ethernet() {
        return Err(Reason::SendFailed);
    }
    *packet.write::<Ethernet>(0).ok_or(Reason::SendFailed)? = links.ethernet(ethertype);
    if packet.set_tag(tag(flow, hop)) { Ok(()) } else { Err(Reason::SendFailed) }
}
