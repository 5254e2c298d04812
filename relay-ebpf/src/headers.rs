//! On-wire headers as byte arrays with accessors: Ethernet (IEEE 802.3), one 802.1Q tag, IPv4 (RFC 791),
//! IPv6 (RFC 8200) and UDP (RFC 768). All numbers are in network byte order in memory.
//!
//! None of these types has an alignment or an invalid value, so borrowing one from a packet needs only a
//! check of the length.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xDD];
/// Ethertype of an 802.1Q tag.
pub const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// Ethertype of an outer 802.1ad tag.
pub const ETHERTYPE_QINQ: [u8; 2] = [0x88, 0xA8];
/// Protocol number of UDP, IPv6's next header.
pub const PROTOCOL_UDP: u8 = 17;
/// Next headers of IPv6 that stand before the one that counts (RFC 8200 section 4): hop-by-hop options, routing,
/// destination options.
pub const IPV6_EXTENSIONS: [u8; 3] = [0, 43, 60];
/// IPv6's next header for a fragment.
pub const IPV6_FRAGMENT: u8 = 44;
/// Version 4 and a header of five words: IPv4 without options.
pub const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// The version nibble of IPv6.
pub const IPV6_VERSION: u8 = 6;
/// DSCP is the upper six bits of the type-of-service byte, ECN the lower two (RFC 2474, RFC 3168).
pub const ECN_BITS: u8 = 0x03;
/// DSCP stands above the two ECN bits.
pub const DSCP_SHIFT: u32 = 2;

/// An Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Hardware address of the receiver.
    pub destination: [u8; 6],
    /// Hardware address of the sender.
    pub source: [u8; 6],
    /// What follows.
    pub ethertype: [u8; 2],
}

/// The rest of an 802.1Q tag, behind its ethertype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
    pub control: [u8; 2],
    /// What follows.
    pub ethertype: [u8; 2],
}

/// An IPv4 header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and header length in words.
    pub version_and_length: u8,
    /// DSCP and ECN.
    pub type_of_service: u8,
    /// Bytes of header and payload.
    pub total_length: [u8; 2],
    /// Identification.
    pub identification: [u8; 2],
    /// Flags (3 bits) and fragment offset (13 bits).
    pub fragment: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4 {
    /// Whether this is a fragment: more of them follow, or an offset is set. "Don't fragment" is not.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment[0] & 0x3F != 0 || self.fragment[1] != 0
    }

    /// The differentiated services code point, 0-63.
    #[inline(always)]
    #[must_use]
    pub const fn dscp(&self) -> u8 {
        self.type_of_service >> DSCP_SHIFT
    }
}

/// An IPv6 address as it stands on the wire, in halves that are read and written as words: sixteen bytes in one piece
/// would be copied byte by byte.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv6Address {
    /// The network's half.
    pub high: [u8; 8],
    /// The interface's half.
    pub low: [u8; 8],
}

impl Ipv6Address {
    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.high);
        octets[8..].copy_from_slice(&self.low);
        octets
    }

    /// From its octets.
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self { high: [a, b, c, d, e, f, g, h], low: [i, j, k, l, m, n, o, p] }
    }

    /// Whether this is the same address.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        u64::from_ne_bytes(self.high) == u64::from_ne_bytes(other.high)
            && u64::from_ne_bytes(self.low) == u64::from_ne_bytes(other.low)
    }

    /// Whether this is `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        u64::from_ne_bytes(self.high) | u64::from_ne_bytes(self.low) == 0
    }

    /// Becomes another address.
    #[inline(always)]
    pub const fn set(&mut self, other: &Self) {
        self.high = other.high;
        self.low = other.low;
    }
}

/// An IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_label: [u8; 4],
    /// Bytes behind this header.
    pub payload_length: [u8; 2],
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Address,
    /// Destination address.
    pub destination: Ipv6Address,
}

impl Ipv6 {
    /// The version, 6 for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_class_label[0] >> 4
    }

    /// DSCP and ECN, as IPv4's type-of-service byte has them.
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        self.version_class_label[0] << 4 | self.version_class_label[1] >> 4
    }

    /// The first word with another traffic class: version 6, and the flow label as it was.
    #[inline(always)]
    #[must_use]
    pub const fn with_class(&self, class: u8) -> [u8; 4] {
        let [_, second, third, fourth] = self.version_class_label;
        [IPV6_VERSION << 4 | class >> 4, class << 4 | second & 0x0F, third, fourth]
    }
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// Bytes of header and payload.
    pub length: [u8; 2],
    /// Checksum over pseudo header, header and payload; 0: none.
    pub checksum: [u8; 2],
}

/// IPv4 without options and UDP behind it: what one length check makes readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Udp {
    /// The IPv4 header.
    pub ip: Ipv4,
    /// The UDP header.
    pub udp: Udp,
}

/// IPv6 without extension headers and UDP behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Udp {
    /// The IPv6 header.
    pub ip: Ipv6,
    /// The UDP header.
    pub udp: Udp,
}

/// Bytes of an Ethernet header.
pub const ETHERNET_LENGTH: usize = size_of::<Ethernet>();
/// Bytes of an 802.1Q tag.
pub const VLAN_LENGTH: usize = size_of::<VlanTag>();
/// Where IP stands behind a tag.
pub const TAGGED_LENGTH: usize = ETHERNET_LENGTH + VLAN_LENGTH;
/// Bytes of an IPv4 header without options.
pub const IPV4_LENGTH: usize = size_of::<Ipv4>();
/// Bytes of an IPv6 header without extensions.
pub const IPV6_LENGTH: usize = size_of::<Ipv6>();
/// Bytes of a UDP header.
pub const UDP_LENGTH: usize = size_of::<Udp>();

const _: () = assert!(IPV6_LENGTH == 40);
const _: () = assert!(ETHERNET_LENGTH == 14 && VLAN_LENGTH == 4 && IPV4_LENGTH == 20 && UDP_LENGTH == 8);
