//! The records that the daemon and the kernel share, each with the rule by which it may change.
//!
//! | table | index | record | how it changes |
//! |---|---|---|---|
//! | local addresses | 0 | [`LocalAddresses`] | only while no flow is installed |
//! | ports | place of the local address × 65,536 + port | [`PortEntry`] | one 64-bit store |
//! | flows | slot | [`Flow`] | written only while no port entry leads to it, but for `rate`, which is the kernel's |
//! | statistics | the flow's `stats` | [`crate::FlowStats`] | by the datapath that carries the flow |
//! | next hops | the flow's `next_hop` | [`NextHop`] | 64-bit stores |
//! | SIP's limits | 0 | [`crate::guard::Limits`] | at any time |
//! | sources' rules | prefix of an IPv6 or mapped IPv4 address | [`crate::guard::SourceRule`] | at any time |
//! | refused sources | [`RefusedSource`] | [`RefusedPackets`] | by the kernel, when it refuses; it makes room by itself |
//!
//! A flow that is published is never written again: a change writes a fresh slot and turns the port entry
//! to it with one store, so a packet under way meets the old flow or the new one, whole. The old slot
//! rests before it is used again; should a packet be later than that rest, the generations differ.
//!
//! Addresses and ports are byte arrays as on the wire; counts and indices are in the machine's own order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{checksum::Delta, headers::Ipv6Address};

/// Version of every layout in this module and of [`crate::FlowStats`]; part of the path of pinned maps.
pub const LAYOUT_VERSION: u32 = 5;
/// Local media addresses that the kernel looks for: each takes 512 KiB of port entries.
pub const MAX_LOCAL_ADDRESSES: usize = 16;
/// Ports of an address.
pub const PORTS: u32 = 1 << 16;
/// Flows that the kernel holds unless configured otherwise: 10,000 calls of four flows, and as many more
/// resting or being changed.
pub const DEFAULT_FLOWS: u32 = 1 << 16;
/// Flows of the program bench that packets go to in turn: every port of two addresses.
pub const BENCH_FLOWS: u32 = 2 * PORTS;
/// Sockets that a packet can be steered to: one for each CPU and family.
pub const MAX_RELAY_SOCKETS: u32 = 128;
/// The place of the first of those for IPv6, behind as many for IPv4.
pub const IPV6_SOCKETS: u32 = MAX_RELAY_SOCKETS / 2;
/// Prefixes of sources that can have a rule: phones that are known, servers, and who is denied.
pub const MAX_SOURCE_RULES: u32 = 16_384;
/// Sources of packets for SIP that have a bucket; the one that was heard longest ago gives way.
pub const MAX_BUCKETS: u32 = 16_384;
/// Next hops: neighbours that media goes to. On one office network there are hundreds at most.
pub const MAX_NEXT_HOPS: u32 = 4096;
/// Interfaces that a packet can leave by.
pub const MAX_INTERFACES: u32 = 64;

/// The appliance's own media addresses. Places in the table of ports are counted through: first the IPv4 addresses,
/// then the IPv6 ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LocalAddresses {
    /// The IPv4 addresses; unused places hold 0.0.0.0, whose ports never have flows.
    pub ipv4: [[u8; 4]; MAX_LOCAL_ADDRESSES],
    /// The IPv6 addresses; unused places hold `::`.
    pub ipv6: [Ipv6Address; MAX_LOCAL_ADDRESSES],
    /// The place of the first IPv6 address.
    pub first_ipv6: u32,
    /// 1 if packets that are not media are to be judged by [`crate::guard`], 0 if not.
    pub guarded: u32,
}

impl LocalAddresses {
    /// The place of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, address: [u8; 4]) -> Option<u32> {
        let wanted = u32::from_ne_bytes(address);
        let mut place = 0;
        while place < MAX_LOCAL_ADDRESSES {
            let candidate = u32::from_ne_bytes(self.ipv4[place]);
            if candidate == wanted {
                return Some(place as u32);
            }
            // The list has no gaps: most appliances have two addresses, and stop here.
            if candidate == 0 {
                return None;
            }
            place += 1;
        }
        None
    }

    /// The place of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub fn place_ipv6(&self, address: &Ipv6Address) -> Option<u32> {
        let mut place = 0;
        while place < MAX_LOCAL_ADDRESSES {
            let candidate = &self.ipv6[place];
            if candidate.is_unspecified() {
                return None;
            }
            if candidate.is(address) {
                return Some(self.first_ipv6 + place as u32);
            }
            place += 1;
        }
        None
    }
}

/// The index of an address's port in the table of ports.
#[inline(always)]
#[must_use]
pub const fn port_index(place: u32, port: [u8; 2]) -> u32 {
    place * PORTS + u16::from_be_bytes(port) as u32
}

/// Where a local port leads, in one word that is read and written whole. Zero: nowhere.
///
/// Beside the flow's slot and generation it has the place of its statistics, so that both records can be on their way from
/// memory at the same time: with very many flows they are in no cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct PortEntry(u64);

/// Bits of a slot, and of a place in the statistics: as many flows as can be configured.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// The last generation of a flow; after it comes the first, 1.
pub const LAST_GENERATION: u32 = (1 << (u64::BITS - 2 * INDEX_BITS)) - 1;

impl PortEntry {
    /// A port of SIP, which has no flow and is guarded.
    pub const GUARDED: Self = Self(INDEX_MASK);

    /// A port that leads to the flow in a slot, which must have this generation: 1 to [`LAST_GENERATION`].
    #[must_use]
    pub const fn new(slot: u32, stats: u32, generation: u32) -> Self {
        let (slot, stats) = (slot as u64 & INDEX_MASK, stats as u64 & INDEX_MASK);
        Self((generation as u64) << (2 * INDEX_BITS) | stats << INDEX_BITS | slot)
    }

    /// From the word that it is.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// The word that it is.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Index of the flow.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 & INDEX_MASK) as u32
    }

    /// Index of its statistics.
    #[inline(always)]
    #[must_use]
    pub const fn stats(self) -> u32 {
        (self.0 >> INDEX_BITS & INDEX_MASK) as u32
    }

    /// The generation that the flow must have; 0: no flow.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> (2 * INDEX_BITS)) as u32
    }
}

/// What a flow does with the packets that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Pass to userspace, which relays and learns the source.
    Learning = 1,
    /// Check the source, rewrite, forward.
    Forwarding = 2,
    /// Pass to userspace, which carries it for good.
    Userspace = 3,
    /// Check the source, count, drop: this direction has nowhere to go.
    Blocked = 4,
}

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowKind {
    /// RTP, with RTCP on the same port if the parties multiplex it (RFC 5761).
    Rtp = 1,
    /// RTCP alone.
    Rtcp = 2,
    /// Any other UDP payload: nothing is recognised and nothing refused.
    Opaque = 3,
}

/// One direction of one media stream, in one cache line if it is IPv4 on both sides, and two if not.
///
/// `local` is where packets of this flow arrive, `source` where they must come from; they leave from
/// `out_source` to `out_destination`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Flow {
    /// As in the port entry that leads here.
    pub generation: u32,
    /// A [`FlowState`] as its number; any other number is treated as [`FlowState::Userspace`].
    pub state: u8,
    /// A [`FlowKind`] as its number; any other number is treated as [`FlowKind::Opaque`].
    pub kind: u8,
    /// DSCP to set, as it stands in the type-of-service byte: ECN bits zero.
    pub type_of_service: u8,
    /// [`Flow::KEEP_DSCP`], [`Flow::LEAVES_AS_IPV6`] and [`Flow::RTCP_APART`], or zero.
    pub flags: u8,
    /// The source address that packets must have. Unused where the local address is IPv6; so for each.
    pub source_address: [u8; 4],
    /// The source port that packets must have.
    pub source_port: [u8; 2],
    /// The source port that packets leave with.
    pub out_source_port: [u8; 2],
    /// The source address that packets leave with.
    pub out_source_address: [u8; 4],
    /// The address that packets go to.
    pub out_destination_address: [u8; 4],
    /// The port that packets go to.
    pub out_destination_port: [u8; 2],
    /// The 802.1p priority that packets leave with where the next hop wants a tag, in the upper three bits.
    pub priority: u8,
    /// Zero.
    pub reserved: u8,
    /// Index of the next hop.
    pub next_hop: u32,
    /// Index of the statistics.
    pub stats: u32,
    /// Timestamp clock as [`crate::stats::clock_ticks`] gives it.
    pub clock_ticks: u32,
    /// What the rewrite of the addresses does to the IPv4 header checksum.
    pub ip_delta: Delta,
    /// What the rewrite of addresses and ports does to the UDP checksum.
    pub udp_delta: Delta,
    /// With [`Flow::RTCP_APART`]: the slot of the record by which RTCP leaves. It has this flow's generation, no port
    /// leads to it, and it rests together with this one.
    pub rtcp_slot: u32,
    /// Nanoseconds that a packet takes of what the stream may have in a second; 0: no limit.
    pub packet_interval_ns: u32,
    /// The time up to which the stream has used its rate: the kernel's own, 0 at first. It is in the line that every packet
    /// reads, for a table of its own would be one more wait for memory.
    pub rate: u64,
    /// The source address that packets must have, where the local address is IPv6.
    pub source_ipv6: Ipv6Address,
    /// The source address that packets leave with, if they leave as IPv6.
    pub out_source_ipv6: Ipv6Address,
    /// The address that they then go to.
    pub out_destination_ipv6: Ipv6Address,
    /// Fills the second cache line; zero.
    pub padding_ipv6: [u8; 16],
}

const _: () = assert!(size_of::<Flow>() == 128);

impl Flow {
    /// Flag: DSCP leaves as it arrived.
    pub const KEEP_DSCP: u8 = 1;

    /// Flag: packets leave as IPv6; as IPv4 otherwise.
    pub const LEAVES_AS_IPV6: u8 = 2;

    /// Flag: the sender multiplexes RTCP with RTP (RFC 5761), and RTCP leaves by a record of its own: with its own
    /// mark, and from and to ports of its own if the other party does not multiplex.
    pub const RTCP_APART: u8 = 4;

    /// Whether packets leave as IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn leaves_as_ipv6(&self) -> bool {
        self.flags & Self::LEAVES_AS_IPV6 != 0
    }

    /// The changes that this flow's rewrite makes to the two checksums, for packets that arrive at this IPv4 address
    /// and port.
    #[must_use]
    pub const fn with_deltas(mut self, local_address: [u8; 4], local_port: [u8; 2]) -> Self {
        let arrives = Delta::NONE.less(self.source_address).less(local_address);
        let addresses = arrives.and(self.leaves());
        // A header of the other family is made anew, not changed.
        self.ip_delta = if self.leaves_as_ipv6() { Delta::NONE } else { addresses.folded() };
        self.udp_delta = addresses.and(self.ports(local_port)).folded();
        self
    }

    /// The same for packets that arrive at an IPv6 address.
    #[must_use]
    pub const fn with_deltas_ipv6(mut self, local_address: Ipv6Address, local_port: [u8; 2]) -> Self {
        let (source, local) = (self.source_ipv6, local_address);
        let arrives = Delta::NONE.less(source.high).less(source.low).less(local.high).less(local.low);
        let leaves = self.leaves();
        self.ip_delta = if self.leaves_as_ipv6() { Delta::NONE } else { leaves.folded() };
        self.udp_delta = arrives.and(leaves).and(self.ports(local_port)).folded();
        self
    }

    const fn leaves(&self) -> Delta {
        if self.leaves_as_ipv6() {
            let (from, to) = (self.out_source_ipv6, self.out_destination_ipv6);
            Delta::NONE.more(from.high).more(from.low).more(to.high).more(to.low)
        } else {
            Delta::NONE.more(self.out_source_address).more(self.out_destination_address)
        }
    }

    /// What the change of the ports does to the UDP checksum.
    #[inline(always)]
    pub(crate) const fn ports(&self, local_port: [u8; 2]) -> Delta {
        let source = Delta::NONE.word(self.source_port, self.out_source_port);
        source.word(local_port, self.out_destination_port)
    }
}

/// A neighbour that flows leave to, and the interface by which.
///
/// The two links are 64-bit words, so that a change of either hardware address is seen whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(32))]
pub struct NextHop {
    /// The neighbour's hardware address, and 1 as the tail once it is known.
    pub destination: Link,
    /// The interface's hardware address, and its MTU as the tail.
    pub source: Link,
    /// Index of the interface by which packets leave, as the kernel numbers interfaces; a packet that came by it is
    /// turned back. [`NextHop::ALWAYS_REDIRECT`] where the driver cannot do that.
    pub interface: u32,
    /// Its place in the map of devices.
    pub device: u32,
    /// The 802.1Q tag that packets leave with: drop eligible and VLAN id; the flow adds its priority.
    pub tag: [u8; 2],
    /// [`NextHop::TAGGED`], [`NextHop::BY_TC`] and [`NextHop::LAYER3`], or zero.
    pub flags: u8,
    /// Zero.
    pub padding: u8,
    /// The interface itself, for the programs that can send by any.
    pub index: u32,
}

const _: () = assert!(size_of::<NextHop>() == 32);

impl NextHop {
    /// In place of an interface: no packet came by it, so that all are redirected.
    pub const ALWAYS_REDIRECT: u32 = 0;
    /// Flag: packets leave with the tag; without any otherwise.
    pub const TAGGED: u8 = 1;
    /// Flag: XDP cannot send by this interface, TC can.
    pub const BY_TC: u8 = 2;
    /// Flag: the interface has no link layer, and its packets begin with the IP header.
    pub const LAYER3: u8 = 4;

    /// Whether packets leave with a tag.
    #[inline(always)]
    #[must_use]
    pub const fn is_tagged(&self) -> bool {
        self.flags & Self::TAGGED != 0
    }

    /// Whether only TC can send by it.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_tc(&self) -> bool {
        self.flags & Self::BY_TC != 0
    }

    /// Whether packets leave with a hardware address.
    #[inline(always)]
    #[must_use]
    pub const fn has_link_layer(&self) -> bool {
        self.flags & Self::LAYER3 == 0
    }
}

/// A hardware address and 16 bits more, in one word that is read and written whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Link(pub u64);

impl Link {
    /// Packs a hardware address and its tail.
    #[must_use]
    pub const fn new(address: [u8; 6], tail: u16) -> Self {
        let [a, b, c, d, e, f] = address;
        let [high, low] = tail.to_be_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, high, low]))
    }

    /// The hardware address.
    #[inline(always)]
    #[must_use]
    pub const fn address(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// What stands beside it.
    #[inline(always)]
    #[must_use]
    pub const fn tail(self) -> u16 {
        self.0 as u16
    }
}

/// How long the program took for a sampled packet: counts by powers of two of nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Latency {
    /// Sum of all samples in nanoseconds.
    pub sum_ns: u64,
    /// Samples below 2^(n+1) ns and not below 2^n; the last takes all above.
    pub buckets: [u64; LATENCY_BUCKETS],
}

/// Buckets of [`Latency`]: up to 2^20 ns, about a millisecond.
pub const LATENCY_BUCKETS: usize = 20;
/// One packet in this many is sampled, whatever its flow; a power of two.
pub const LATENCY_SAMPLING: u64 = 256;

/// Whether a packet that arrived at this time is sampled.
///
/// The time is scattered by a step of splitmix64, so that neither the clock's granularity nor a stream's
/// 20 ms rhythm decides which packets are.
#[inline(always)]
#[must_use]
pub const fn is_sampled(now_ns: u64) -> bool {
    const MULTIPLIER: u64 = 0xBF58_476D_1CE4_E5B9;
    let scattered = (now_ns ^ now_ns >> 30).wrapping_mul(MULTIPLIER);
    (scattered ^ scattered >> 27).wrapping_mul(MULTIPLIER) >> (u64::BITS - LATENCY_SAMPLING.trailing_zeros())
        == 0
}

impl Latency {
    /// The bucket of a sample.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(ns: u64) -> usize {
        let mut bucket = 0;
        // A loop without a table: the kernel's verifier follows it, and it runs once in 256 packets.
        while bucket < LATENCY_BUCKETS - 1 && ns >> (bucket + 1) != 0 {
            bucket += 1;
        }
        bucket
    }
}

/// Refused sources that the kernel remembers, over all flows; the one that was heard longest ago gives way. No call
/// depends on it.
pub const MAX_REFUSED_SOURCES: u32 = 4096;

/// A source whose packets a flow refused: the key of the kernel's table of such sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RefusedSource {
    /// Index of the flow's statistics.
    pub stats: u32,
    /// Port.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
    /// Address; an IPv4 one as IPv6 maps it (RFC 4291 section 2.5.5.2).
    pub address: Ipv6Address,
}

const _: () = assert!(size_of::<RefusedSource>() == 24);

/// What came from a refused source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RefusedPackets {
    /// How many.
    pub packets: u64,
    /// When the first came, on the kernel's monotonic clock, in nanoseconds.
    pub first_ns: u64,
    /// When the last came.
    pub last_ns: u64,
}

/// Bytes of an RTCP packet that are copied to userspace: a sender report with five blocks.
pub const RTCP_COPY: usize = 148;

/// A copy of an RTCP packet that the kernel forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RtcpCopy {
    /// Arrival on the kernel's monotonic clock, in nanoseconds.
    pub arrived_ns: u64,
    /// Index of the flow's statistics.
    pub stats: u32,
    /// Bytes of `payload` that are filled.
    pub length: u32,
    /// The packet's beginning.
    pub payload: [u8; RTCP_COPY],
    /// Fills the record to a multiple of eight; zero.
    pub padding: [u8; 4],
}

const _: () = assert!(size_of::<RtcpCopy>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_entry_holds_the_largest_of_all_three_and_a_guarded_port_has_no_flow() {
        let largest = INDEX_MASK as u32;
        for (slot, stats, generation) in
            [(0, 0, 1), (largest, 0, 1), (0, largest, 1), (5, 6, LAST_GENERATION)]
        {
            let entry = PortEntry::new(slot, stats, generation);
            assert_eq!((entry.slot(), entry.stats(), entry.generation()), (slot, stats, generation));
            assert_eq!(PortEntry::of_word(entry.word()), entry);
        }
        assert_eq!(PortEntry::GUARDED.generation(), 0);
        assert_ne!(PortEntry::GUARDED, PortEntry::default());
    }
}
