//! What generator and sink (`src/traffic/main.rs`) and those who measure with them agree on, the bench and the daemon's
//! trial of its hardware: the layouts of maps, and how a packet is known again.
//!
//! The generator writes every header of every packet anew, so that nothing of what the contender did to the last packet
//! in the same memory is left. A packet tells its stream by the SSRC, which relays hand on as it is.
//!
//! Structures are of whole words without padding, and in the machine's byte order unless they say otherwise.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Streams that there can be.
pub const MAX_STREAMS: u32 = 131_072;
/// The first byte of every SSRC of the bench; the others are the stream's number.
pub const SSRC_MARK: u32 = 0xB1 << 24;
/// The bits of an SSRC that are the stream's number.
pub const SSRC_STREAM: u32 = (1 << 24) - 1;
/// Bytes from the start of a frame to the payload of UDP: Ethernet, IPv4 without options, UDP.
pub const UDP_PAYLOAD: usize = 14 + 20 + 8;
/// Bytes of the RTP header without contributors or extension (RFC 3550 section 5.1).
pub const RTP_HEADER: usize = 12;
/// Bytes of the time stamp behind the RTP header: the monotonic clock in nanoseconds, in the machine's byte order.
pub const STAMP: usize = 8;
/// The shortest frame of RTP that the generator sends.
pub const SHORTEST: usize = UDP_PAYLOAD + RTP_HEADER + STAMP;

/// Sub-buckets of a power of two in the histogram of delays: a bucket is some 6 % wide.
pub const FINE: u32 = 16;
/// Buckets of the histogram of delays: 40 powers of two of nanoseconds, which is 18 minutes.
pub const BUCKETS: u32 = 40 * FINE;

/// A stream: from where to where, and how far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stream {
    /// In the order of the wire, as all addresses and ports here.
    pub source: [u8; 4],
    /// Where its packets go.
    pub destination: [u8; 4],
    /// From which port.
    pub source_port: [u8; 2],
    /// To which port.
    pub destination_port: [u8; 2],
    /// Packets that have been sent of it; the lower half is the next sequence number.
    pub sent: u32,
}

/// What the generator is to send, and what the sink is to expect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Order {
    /// Nanoseconds from one packet to the next; 0: as fast as it goes.
    pub interval_ns: u64,
    /// Nanoseconds after the first packet in which packets are sent.
    pub time_ns: u64,
    /// Streams that take turns: the first so many.
    pub streams: u32,
    /// One of [`Content`].
    pub content: u32,
    /// Whether to write and read time stamps: 0 or 1.
    pub stamped: u32,
    /// Sum of the payload's words behind what the generator writes, for UDP's checksum.
    pub payload_sum: u32,
    /// Bytes of a frame.
    pub frame: u32,
    /// The type-of-service byte that is expected at the sink; more than a byte: any.
    pub type_of_service: u32,
    /// Packets that may be sent at once to catch up with the rate.
    pub burst: u32,
    /// Packets that are to be sent in all; the generator is silent afterwards.
    pub limit: u32,
    /// Ethernet destination and source.
    pub link: [u8; 12],
    /// Packets that are sent together, as a network card hands over what it has gathered.
    pub together: u32,
    /// One of [`Arrival`].
    pub arrival: u32,
    /// Nothing: the structure is of whole words of eight bytes.
    pub unused: u32,
}

/// How packets of RTP are to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Arrival {
    /// With the payload that was sent.
    Same = 0,
    /// As SRTP: the payload is encrypted, and [`SRTP_TAG`] bytes follow it.
    Sealed = 1,
}

/// Bytes that `AES_CM_128_HMAC_SHA1_80` adds to a packet (RFC 4568 section 6.2).
pub const SRTP_TAG: usize = 10;

/// What frames carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Content {
    /// RTP, payload type 0.
    Rtp = 0,
    /// What the frame was given with: only the headers up to UDP are written.
    Datagram = 1,
}

/// How far the generator is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Progress {
    /// When the next packet is due, by the monotonic clock; only with a rate.
    pub due_ns: u64,
    /// Packets sent.
    pub sent: u64,
    /// When the first was sent, by the monotonic clock.
    pub first_ns: u64,
    /// When the time was looked at last.
    pub last_ns: u64,
    /// Whose turn it is.
    pub turn: u32,
    /// Packets that are still to be sent of those that go together.
    pub left: u32,
}

/// What the sink has counted. One CPU writes it at a time: each has its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Received {
    /// The bench's packets.
    pub packets: u64,
    /// Those with another type of service than expected.
    pub wrong_service: u64,
    /// Those whose UDP checksum is wrong; of those that should be encrypted, those that are not.
    pub wrong_content: u64,
    /// Those that came when a later one of their stream had come.
    pub late: u64,
    /// Packets that are nobody's, passed to the stack.
    pub foreign: u64,
    /// By how many nanoseconds packets took longer or shorter than the one before them in their stream, all together:
    /// the sum of |D| of RFC 3550 section 6.4.1. Only with time stamps.
    pub variation_ns: u64,
    /// Pairs of packets that this is the sum of.
    pub variations: u64,
}

impl Received {
    /// What came after an earlier look at the same counters.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            wrong_service: self.wrong_service - earlier.wrong_service,
            wrong_content: self.wrong_content - earlier.wrong_content,
            late: self.late - earlier.late,
            foreign: self.foreign - earlier.foreign,
            variation_ns: self.variation_ns - earlier.variation_ns,
            variations: self.variations - earlier.variations,
        }
    }
}

/// What the sink knows of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Heard {
    /// Packets that came.
    pub packets: u32,
    /// The sequence number that is next.
    pub next: u32,
    /// How long the last one took, in nanoseconds; only with time stamps.
    pub delay_ns: u64,
}

/// The bucket of a delay in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn bucket(delay_ns: u64) -> u32 {
    let value = if delay_ns < FINE as u64 { FINE as u64 } else { delay_ns };
    let power = 63 - value.leading_zeros();
    // `FINE` is the fourth power of two.
    let fine = ((value >> (power - 4)) & (FINE as u64 - 1)) as u32;
    let bucket = (power - 4) * FINE + fine;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The smallest delay of a bucket in nanoseconds.
#[must_use]
pub const fn smallest(bucket: u32) -> u64 {
    let (power, fine) = (bucket / FINE, bucket % FINE);
    ((FINE + fine) as u64) << power
}

/// Folds a sum of words into the ones' complement sum of 16 bits (RFC 1071).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let sum = (sum & 0xFFFF) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_where_the_one_before_ends() {
        assert_eq!(bucket(0), 0);
        for index in 1..BUCKETS {
            let begin = smallest(index);
            assert_eq!((bucket(begin - 1), bucket(begin)), (index - 1, index), "{begin} ns");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_sum_is_folded_as_rfc_1071_does() {
        // Its section 3: the words 0001 f203 f4f5 f6f7 give ddf2.
        assert_eq!(fold(0x0001 + 0xF203 + 0xF4F5 + 0xF6F7), 0xDDF2);
    }
}
