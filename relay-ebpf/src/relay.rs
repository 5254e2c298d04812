//! The verdict on one packet, and the rewrite of those that are forwarded.
//!
//! What the core needs of its surroundings is the [`Environment`]: in the kernel the frame between `data`
//! and `data_end` and the maps, in tests a byte vector and plain tables. The order of the checks is the
//! order of their reasons' meaning: a packet that is not for a flow is never looked at more closely, and
//! one that is not from the flow's source changes nothing but the counter of such packets.
//!
//! The rewrite follows RFC 1812 in what a forwarder owes a packet (TTL, incremental checksum) and RFC 2474
//! and RFC 3168 in the type-of-service byte: DSCP is set, ECN is kept.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    checksum::Delta,
    headers::{
        ECN_BITS, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet, IPV4_LENGTH,
        IPV4_WITHOUT_OPTIONS, Ipv4, Ipv4Udp, PROTOCOL_UDP, UDP_LENGTH, VLAN_LENGTH, VlanTag,
    },
    reason::Reason,
    rtp::{Payload, PayloadStart, RTP_LENGTH, RtpHeader, classify},
    stats::FlowStats,
    tables::{
        Flow, FlowKind, FlowState, LocalAddresses, NextHop, PortEntry, RTCP_COPY, is_sampled, port_index,
    },
};

/// The first version nibble of IPv4, whatever the header's length.
const IPV4_VERSION: u8 = 4;

/// A type that can be borrowed from any bytes of its size.
pub trait Wire: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> Wire for T {}

/// What the core needs of the machine it runs on.
pub trait Environment {
    /// Bytes of the frame.
    fn length(&self) -> usize;
    /// The header at `offset`, unless the frame ends before it does.
    fn read<T: Wire>(&self, offset: usize) -> Option<&T>;
    /// The same, to be changed.
    fn write<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;
    /// The appliance's own addresses.
    fn local_addresses(&self) -> Option<&LocalAddresses>;
    /// The port entry at an index of [`port_index`].
    fn port(&self, index: u32) -> Option<PortEntry>;
    /// The flow in a slot.
    fn flow(&self, slot: u32) -> Option<&Flow>;
    /// A next hop.
    fn next_hop(&self, index: u32) -> Option<&NextHop>;
    /// Changes a flow's statistics.
    fn with_stats(&self, index: u32, change: impl FnOnce(&mut FlowStats));
    /// The monotonic clock in nanoseconds. Reading it costs more than the rewrite: once a packet.
    fn now_ns(&self) -> u64;
    /// Notes how long the program took for a sampled packet.
    fn sample(&self, elapsed_ns: u64);
    /// Copies `length` bytes of RTCP at `offset` to userspace, as well as it can.
    fn copy_rtcp(&self, offset: usize, length: usize, stats: u32, now_ns: u64);
}

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The interface by which it leaves, as the kernel numbers interfaces; or [`NextHop::ALWAYS_REDIRECT`].
    pub interface: u32,
    /// That interface's place in the map of devices.
    pub device: u32,
}

/// Decides on one packet, and rewrites it if it is to be forwarded.
///
/// # Errors
/// The reason why the packet is not forwarded; it is then unchanged.
#[inline(always)]
pub fn relay<E: Environment>(env: &mut E) -> Result<Way, Reason> {
    let ethernet: &Ethernet = env.read(0).ok_or(Reason::Truncated)?;
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => relay_ipv4::<ETHERNET_LENGTH, E>(env),
        ETHERTYPE_VLAN => {
            let tag: &VlanTag = env.read(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
            match tag.ethertype {
                ETHERTYPE_IPV4 => relay_ipv4::<{ ETHERNET_LENGTH + VLAN_LENGTH }, E>(env),
                ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::StackedVlan),
                _ => Err(Reason::NotIpv4),
            }
        }
        ETHERTYPE_QINQ => Err(Reason::StackedVlan),
        _ => Err(Reason::NotIpv4),
    }
}

/// The same for a packet whose IPv4 header stands at `IP`.
#[inline(always)]
fn relay_ipv4<const IP: usize, E: Environment>(env: &mut E) -> Result<Way, Reason> {
    let Some(headers) = env.read::<Ipv4Udp>(IP) else {
        return Err(short_packet(env.read::<Ipv4>(IP)));
    };
    if headers.ip.version_and_length != IPV4_WITHOUT_OPTIONS {
        return Err(other_header(headers.ip.version_and_length));
    }
    if headers.ip.protocol != PROTOCOL_UDP {
        return Err(Reason::NotUdp);
    }
    let places = env.local_addresses().ok_or(Reason::NoFlow)?;
    let place = places.place(headers.ip.destination).ok_or(Reason::NoFlow)?;
    if headers.ip.is_fragment() {
        return Err(Reason::Fragment);
    }
    let entry = env.port(port_index(place, headers.udp.destination)).ok_or(Reason::NoFlow)?;
    if entry.generation == 0 {
        return Err(Reason::NoFlow);
    }
    let flow = env.flow(entry.slot).ok_or(Reason::NoFlow)?;
    if flow.generation != entry.generation {
        return Err(Reason::StaleSlot);
    }
    if flow.state != FlowState::Forwarding as u8 {
        if flow.state == FlowState::Learning as u8 {
            return Err(Reason::Learning);
        }
        if flow.state != FlowState::Blocked as u8 {
            return Err(Reason::Userspace);
        }
    }
    if headers.ip.source != flow.source_address || headers.udp.source != flow.source_port {
        env.with_stats(flow.stats, |stats| stats.wrong_source = stats.wrong_source.wrapping_add(1));
        return Err(Reason::WrongSource);
    }
    if flow.state == FlowState::Blocked as u8 {
        // Whoever is put on hold and goes on sending is still there.
        let now_ns = env.now_ns();
        env.with_stats(flow.stats, |stats| stats.last_seen_ns = now_ns);
        return Err(Reason::Blocked);
    }

    let total_length = usize::from(u16::from_be_bytes(headers.ip.total_length));
    let udp_length = usize::from(u16::from_be_bytes(headers.udp.length));
    if total_length != udp_length + IPV4_LENGTH || udp_length < UDP_LENGTH {
        return Err(Reason::BadLength);
    }
    if env.length() < IP + total_length {
        return Err(Reason::Truncated);
    }
    if headers.ip.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let payload = IP + IPV4_LENGTH + UDP_LENGTH;
    let payload_length = udp_length - UDP_LENGTH;
    let content = recognise(env, flow.kind, payload, payload_length)?;

    let hop = env.next_hop(flow.next_hop).ok_or(Reason::NextHopUnknown)?;
    let (destination, source) = (hop.destination, hop.source);
    if destination.tail() == 0 {
        return Err(Reason::NextHopUnknown);
    }
    if total_length > usize::from(source.tail()) {
        return Err(Reason::ExceedsMtu);
    }

    let way = Way { interface: hop.interface, device: hop.device };
    let now_ns = env.now_ns();
    let dscp = headers.ip.dscp();
    env.with_stats(flow.stats, |stats| {
        stats.kernel_packets = stats.kernel_packets.wrapping_add(1);
        stats.kernel_bytes = stats.kernel_bytes.wrapping_add(total_length as u64);
        record(env, stats, content, payload, dscp, now_ns, flow.clock_ticks);
    });
    if let Payload::Rtcp = content {
        env.copy_rtcp(payload, payload_length.min(RTCP_COPY), flow.stats, now_ns);
    }

    let rewritten = rewrite(headers, flow);
    *env.write::<Ipv4Udp>(IP).ok_or(Reason::Truncated)? = rewritten;
    let ethernet: &mut Ethernet = env.write(0).ok_or(Reason::Truncated)?;
    ethernet.destination = destination.address();
    ethernet.source = source.address();
    if is_sampled(now_ns) {
        env.sample(env.now_ns().wrapping_sub(now_ns));
    }
    Ok(way)
}

/// Counts one packet, whichever datapath carries it.
#[inline(always)]
fn record<E: Environment>(
    env: &E,
    stats: &mut FlowStats,
    content: Payload,
    payload: usize,
    dscp: u8,
    now_ns: u64,
    clock_ticks: u32,
) {
    stats.last_seen_ns = now_ns;
    stats.dscp = dscp;
    match content {
        Payload::Rtp => {
            if let Some(header) = env.read::<RtpHeader>(payload) {
                stats.record_rtp(header, now_ns, clock_ticks);
            }
        }
        Payload::Rtcp => stats.rtcp_packets = stats.rtcp_packets.wrapping_add(1),
        Payload::Stun | Payload::Dtls | Payload::Other => {}
    }
}

/// Whether the payload is what the flow carries.
#[inline(always)]
fn recognise<E: Environment>(env: &E, kind: u8, payload: usize, length: usize) -> Result<Payload, Reason> {
    if kind != FlowKind::Rtp as u8 && kind != FlowKind::Rtcp as u8 {
        return Ok(Payload::Other);
    }
    // The frame was found to be as long as its headers say, so a payload that is long enough by its
    // length is there; the verifier wants to see it once more.
    let Some(start) = env.read::<PayloadStart>(payload) else { return Err(Reason::TooShort) };
    accept(kind, classify(start.0[0], start.0[1]), length)
}

/// The rule for the content of a flow, shared with the userspace engine: `length` is that of the payload.
///
/// # Errors
/// The reason why a payload of this kind is not carried on a flow of this kind.
#[inline(always)]
pub fn accept(kind: u8, content: Payload, length: usize) -> Result<Payload, Reason> {
    match content {
        Payload::Rtp if kind == FlowKind::Rtcp as u8 => Err(Reason::NotRtp),
        Payload::Rtp if length < RTP_LENGTH => Err(Reason::TooShort),
        Payload::Rtcp if length < size_of::<PayloadStart>() => Err(Reason::TooShort),
        Payload::Rtp | Payload::Rtcp => Ok(content),
        Payload::Stun => Err(Reason::Stun),
        Payload::Dtls => Err(Reason::Dtls),
        Payload::Other if length < size_of::<PayloadStart>() => Err(Reason::TooShort),
        Payload::Other => Err(Reason::NotRtp),
    }
}

/// The headers as they leave: new addresses and ports, DSCP set, TTL decremented, both checksums kept
/// right.
#[inline(always)]
#[must_use]
pub fn rewrite(headers: &Ipv4Udp, flow: &Flow) -> Ipv4Udp {
    let mut new = *headers;
    new.ip.source = flow.out_source_address;
    new.ip.destination = flow.out_destination_address;
    new.ip.ttl = headers.ip.ttl.wrapping_sub(1);
    if flow.flags & Flow::KEEP_DSCP == 0 {
        new.ip.type_of_service = flow.type_of_service | headers.ip.type_of_service & ECN_BITS;
    }
    let changed = Delta::NONE
        .word(
            [headers.ip.version_and_length, headers.ip.type_of_service],
            [new.ip.version_and_length, new.ip.type_of_service],
        )
        .word([headers.ip.ttl, headers.ip.protocol], [new.ip.ttl, new.ip.protocol]);
    new.ip.checksum = flow.ip_delta.and(changed).apply(headers.ip.checksum);

    new.udp.source = flow.out_source_port;
    new.udp.destination = flow.out_destination_port;
    new.udp.checksum = flow.udp_delta.apply_udp(headers.udp.checksum);
    new
}

/// Why a packet too short for IPv4 and UDP is not for us.
#[inline(always)]
fn short_packet(ip: Option<&Ipv4>) -> Reason {
    match ip {
        Some(ip) if ip.version_and_length != IPV4_WITHOUT_OPTIONS => other_header(ip.version_and_length),
        Some(ip) if ip.protocol != PROTOCOL_UDP => Reason::NotUdp,
        _ => Reason::Truncated,
    }
}

/// What a first byte says that is not that of IPv4 without options.
#[inline(always)]
const fn other_header(version_and_length: u8) -> Reason {
    const WORDS: u8 = IPV4_WITHOUT_OPTIONS & 0x0F;
    if version_and_length >> 4 != IPV4_VERSION {
        Reason::NotIpv4
    } else if version_and_length & 0x0F < WORDS {
        Reason::BadLength
    } else {
        Reason::IpOptions
    }
}
