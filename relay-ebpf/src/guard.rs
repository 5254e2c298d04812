//! What is done about packets that are not media of a flow: sources that are denied, and floods of the SIP ports.
//!
//! Media never comes here: a flow lets in one exact source, which is all the protection that it needs, and costs it
//! nothing. Everything else that the relay would pass to the host is looked at once more if there are rules for it:
//!
//! 1. The longest prefix of the source that has a rule decides: denied packets are gone, trusted ones pass.
//! 2. What goes to a SIP port, and a fragment or a packet with options, whose port is hidden or hard to find, takes a
//!    token from its source's bucket: an IPv4 address, or an IPv6 network of 64 bits, of which one host can have any
//!    address.
//! 3. So many sources are each within their own limit and together a flood; who is not known as a phone of the office
//!    takes a token from one more bucket, which they all share.
//!
//! Of TCP only the packets that open a connection are counted: the others belong to one that was let in.
//!
//! A bucket is one time stamp, that up to which its source has used its rate (the generic cell rate algorithm of ITU-T
//! I.371, as a leaky bucket).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    headers::{
        ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, IPV4_LENGTH, IPV6_LENGTH,
        Ipv4, Ipv6, Ipv6Address, PROTOCOL_UDP, TAGGED_LENGTH, VlanTag,
    },
    reason::Reason,
    relay::Environment,
    tables::{LocalAddresses, PortEntry, port_index},
};

/// Protocol number of TCP.
const PROTOCOL_TCP: u8 = 6;
/// TCP's flags for a packet that opens a connection, and those that it is told by (RFC 9293 section 3.1).
const SYN: u8 = 0x02;
const SYN_OR_ACK: u8 = 0x12;

/// What is to be done with the packets of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// They are gone.
    Denied = 1,
    /// They pass, however many.
    Trusted = 2,
    /// They are limited by themselves, and not together with others.
    Known = 3,
}

/// A rule for the sources of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SourceRule {
    /// A [`Verdict`] as its number.
    pub verdict: u32,
    /// Zero.
    pub padding: u32,
    /// Packets that were denied by it.
    pub denied: u64,
}

/// A rate of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds for a packet; 0: no limit.
    pub interval_ns: u64,
    /// How far a source may be ahead of its rate.
    pub tolerance_ns: u64,
}

impl Rate {
    /// So many packets a second, and as many at once after a second of silence; 0: no limit.
    #[must_use]
    pub const fn per_second(packets: u32) -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        match packets {
            0 => Self { interval_ns: 0, tolerance_ns: 0 },
            packets => Self { interval_ns: SECOND_NS / packets as u64, tolerance_ns: SECOND_NS },
        }
    }

    /// The rate of a stream that takes so many nanoseconds for a packet.
    #[inline(always)]
    #[must_use]
    pub const fn of_stream(interval_ns: u32) -> Self {
        /// What a jitter buffer of the network may hold back and send at once.
        const TOLERANCE_NS: u64 = 1_000_000_000;
        Self { interval_ns: interval_ns as u64, tolerance_ns: TOLERANCE_NS }
    }

    /// Takes a token from a bucket; false if there is none. The bucket is the time up to which the rate is used.
    #[inline(always)]
    #[must_use]
    pub fn admits(&self, bucket: &mut u64, now_ns: u64) -> bool {
        if self.interval_ns == 0 {
            return true;
        }
        let used = if *bucket > now_ns { *bucket } else { now_ns };
        // In a bucket that another CPU writes in the same moment a token may be lost or won.
        if used - now_ns > self.tolerance_ns {
            return false;
        }
        *bucket = used + self.interval_ns;
        true
    }
}

/// The limits of the SIP ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Limits {
    /// For each source.
    pub source: Rate,
    /// For all sources together that are not known, on each CPU.
    pub unknown: Rate,
}

/// What guarding needs beside what relaying needs.
pub trait Guarded: Environment {
    /// The verdict on a source, as its number; 0 where there is none. What is denied is counted.
    fn verdict(&self, source: &Ipv6Address) -> u32;
    /// The limits of the SIP ports.
    fn limits(&self) -> Option<&Limits>;
    /// Takes a token from the bucket of a source.
    fn take_from_source(&self, rate: &Rate, source: &Ipv6Address, now_ns: u64) -> bool;
    /// Takes a token from the bucket of all that are not known.
    fn take_from_unknown(&self, rate: &Rate, now_ns: u64) -> bool;
}

/// The beginning of a UDP or TCP header: the ports.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}

/// A TCP header as far as its flags.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TcpStart {
    ports: Ports,
    numbers: [u8; 8],
    offset: u8,
    flags: u8,
}

/// The reason with which a frame ends that the relay has not forwarded for `reason`.
#[inline(always)]
pub fn guard<E: Guarded>(env: &E, reason: Reason) -> Reason {
    if !is_for_the_host(reason) || !has_rules(env.local_addresses()) {
        return reason;
    }
    let judged = match env.read::<Ethernet>(0).map(|ethernet| ethernet.ethertype) {
        Some(ETHERTYPE_IPV4) => judge_ipv4::<ETHERNET_LENGTH, E>(env),
        Some(ETHERTYPE_IPV6) => judge_ipv6::<ETHERNET_LENGTH, E>(env),
        Some(ETHERTYPE_VLAN) => match env.read::<VlanTag>(ETHERNET_LENGTH).map(|tag| tag.ethertype) {
            Some(ETHERTYPE_IPV4) => judge_ipv4::<TAGGED_LENGTH, E>(env),
            Some(ETHERTYPE_IPV6) => judge_ipv6::<TAGGED_LENGTH, E>(env),
            _ => None,
        },
        _ => None,
    };
    judged.unwrap_or(reason)
}

/// The same for a packet that begins with the IP header.
#[inline(always)]
pub fn guard_layer3<E: Guarded>(env: &E, reason: Reason) -> Reason {
    if !is_for_the_host(reason) || !has_rules(env.local_addresses()) {
        return reason;
    }
    let judged = match env.read::<Ipv4>(0).map(|ip| ip.version_and_length >> 4) {
        Some(4) => judge_ipv4::<0, E>(env),
        Some(6) => judge_ipv6::<0, E>(env),
        _ => None,
    };
    judged.unwrap_or(reason)
}

/// Whether a packet that is not forwarded for this reason goes to the host's own programs.
#[inline(always)]
const fn is_for_the_host(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotUdp
            | Reason::NoFlow
            | Reason::IpOptions
            | Reason::Fragment
            | Reason::Learning
            | Reason::BadLength
    )
}

#[inline(always)]
fn has_rules(local: Option<&LocalAddresses>) -> bool {
    local.is_some_and(|local| local.guarded != 0)
}

/// What a packet is, as far as the limits care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// A SIP port, or nobody knows which.
    Signalling,
    /// Anything else.
    Other,
}

#[inline(always)]
fn judge_ipv4<const IP: usize, E: Guarded>(env: &E) -> Option<Reason> {
    let ip: &Ipv4 = env.read(IP)?;
    let place = env.local_addresses()?.place(ip.destination)?;
    let [a, b, c, d] = ip.source;
    let source = Ipv6Address { high: [0; 8], low: [0, 0, 0xFF, 0xFF, a, b, c, d] };
    let plain = ip.version_and_length == crate::headers::IPV4_WITHOUT_OPTIONS && !ip.is_fragment();
    let aim = aim(env, IP + IPV4_LENGTH, place, ip.protocol, plain);
    judge(env, &source, &source, aim)
}

#[inline(always)]
fn judge_ipv6<const IP: usize, E: Guarded>(env: &E) -> Option<Reason> {
    let ip: &Ipv6 = env.read(IP)?;
    let place = env.local_addresses()?.place_ipv6(&ip.destination)?;
    let source = ip.source;
    let network = Ipv6Address { high: source.high, low: [0; 8] };
    let plain = ip.next_header == PROTOCOL_UDP || ip.next_header == PROTOCOL_TCP;
    // Neighbour discovery and the like keep the network itself alive.
    const ICMPV6: u8 = 58;
    let aim = if ip.next_header == ICMPV6 {
        Aim::Other
    } else {
        aim(env, IP + IPV6_LENGTH, place, ip.next_header, plain)
    };
    judge(env, &source, &network, aim)
}

/// Where a packet to one of our addresses goes, whose transport header is at `offset` if it is a `plain` one.
#[inline(always)]
fn aim<E: Guarded>(env: &E, offset: usize, place: u32, protocol: u8, plain: bool) -> Aim {
    if !plain {
        return Aim::Signalling;
    }
    let ports = match protocol {
        PROTOCOL_UDP => env.read::<Ports>(offset),
        PROTOCOL_TCP => match env.read::<TcpStart>(offset) {
            Some(tcp) if tcp.flags & SYN_OR_ACK == SYN => Some(&tcp.ports),
            _ => None,
        },
        _ => None,
    };
    let entry = ports.and_then(|ports| env.port(port_index(place, ports.destination)));
    if entry == Some(PortEntry::GUARDED) { Aim::Signalling } else { Aim::Other }
}

#[inline(always)]
fn judge<E: Guarded>(env: &E, source: &Ipv6Address, bucket: &Ipv6Address, aim: Aim) -> Option<Reason> {
    let verdict = env.verdict(source);
    if verdict == Verdict::Denied as u32 {
        return Some(Reason::Denied);
    }
    if verdict == Verdict::Trusted as u32 || aim == Aim::Other {
        return None;
    }
    let limits = env.limits()?;
    let now_ns = env.now_ns();
    // The shared bucket first: under a flood from many sources the table of buckets is left alone.
    if verdict != Verdict::Known as u32 && !env.take_from_unknown(&limits.unknown, now_ns) {
        return Some(Reason::UnknownRate);
    }
    if env.take_from_source(&limits.source, bucket, now_ns) { None } else { Some(Reason::SourceRate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_rate_and_a_second_of_it_at_once() {
        let rate = Rate::per_second(100);
        let (mut bucket, start) = (0, 5_000_000_000);
        let admitted = (0..1000).filter(|_| rate.admits(&mut bucket, start)).count();
        assert_eq!(admitted, 101, "a second's worth ahead, and the one that is due");
        let later = (1..=1000u64).filter(|ms| rate.admits(&mut bucket, start + ms * 1_000_000)).count();
        assert_eq!(later, 100, "then its rate");
        assert!((0..1000).all(|_| Rate::per_second(0).admits(&mut bucket, start)), "no limit");
    }
}
