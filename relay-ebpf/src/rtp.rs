//! What a media payload is, by its first bytes (RFC 7983 for the first, RFC 5761 section 4 for the
//! second), and the fixed RTP header (RFC 3550 section 5.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The upper two bits of RTP's and RTCP's first byte: version 2.
const VERSION_MASK: u8 = 0xC0;
/// Version 2 in its place.
const VERSION_2: u8 = 0x80;
/// First bytes of STUN (RFC 7983 section 7).
const STUN_LAST: u8 = 3;
/// First bytes of DTLS (RFC 7983 section 7).
const DTLS: core::ops::RangeInclusive<u8> = 20..=63;
/// Second bytes that are RTCP packet types when RTP and RTCP share a port (RFC 5761 section 4).
const RTCP_TYPES: core::ops::RangeInclusive<u8> = 192..=223;

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// RTP version 2.
    Rtp,
    /// RTCP version 2.
    Rtcp,
    /// STUN: connectivity checks and keep-alives, for userspace.
    Stun,
    /// DTLS: key agreement, for userspace.
    Dtls,
    /// None of these.
    Other,
}

/// Tells payloads apart by their first two bytes.
#[inline(always)]
#[must_use]
pub fn classify(first: u8, second: u8) -> Payload {
    if first & VERSION_MASK == VERSION_2 {
        if RTCP_TYPES.contains(&second) { Payload::Rtcp } else { Payload::Rtp }
    } else if first <= STUN_LAST {
        Payload::Stun
    } else if DTLS.contains(&first) {
        Payload::Dtls
    } else {
        Payload::Other
    }
}

/// The fixed RTP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RtpHeader {
    /// Version, padding, extension, number of contributing sources.
    pub flags: u8,
    /// Marker (upper bit) and payload type.
    pub marker_and_type: u8,
    /// Sequence number.
    pub sequence: [u8; 2],
    /// Timestamp in units of the payload type's clock.
    pub timestamp: [u8; 4],
    /// Synchronization source.
    pub ssrc: [u8; 4],
}

/// Bytes of the fixed RTP header.
pub const RTP_LENGTH: usize = size_of::<RtpHeader>();
/// Bytes of the smallest RTCP packet, an empty receiver report (RFC 3550 section 6.4.2).
pub const RTCP_LENGTH: usize = 8;

const _: () = assert!(RTP_LENGTH == 12);

/// The first bytes of a payload that is at least as long as the smallest RTCP packet.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PayloadStart(pub [u8; RTCP_LENGTH]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_told_apart_by_their_first_bytes() {
        let rows = [
            ("G.711 RTP", 0x80, 0, Payload::Rtp),
            ("RTP with marker and payload type 8", 0x80, 0x88, Payload::Rtp),
            ("dynamic payload type 127 with marker is RTP, as 255 is no RTCP type", 0x80, 0xFF, Payload::Rtp),
            ("RTP with padding, extension and sources", 0xBF, 96, Payload::Rtp),
            ("sender report", 0x80, 200, Payload::Rtcp),
            ("receiver report with one block", 0x81, 201, Payload::Rtcp),
            ("transport feedback", 0x8F, 205, Payload::Rtcp),
            ("first RTCP type", 0x80, 192, Payload::Rtcp),
            ("last RTCP type", 0x80, 223, Payload::Rtcp),
            ("STUN binding request", 0x00, 0x01, Payload::Stun),
            ("STUN binding response", 0x01, 0x01, Payload::Stun),
            ("DTLS client hello", 22, 0xFE, Payload::Dtls),
            ("version 1", 0x40, 0, Payload::Other),
            ("version 3", 0xC0, 0, Payload::Other),
            ("a line end as keep-alive", 13, 10, Payload::Other),
        ];
        for (description, first, second, expected) in rows {
            assert_eq!(classify(first, second), expected, "{description}");
        }
    }
}
