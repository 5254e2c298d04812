//! The headers that a packet had: Ethernet, IP and UDP, made anew around a payload, with right checksums.
//!
//! The payload is what was received or sent, byte for byte; the hardware addresses, the time to live and the
//! identification are made up, because a socket does not tell them.

use std::net::IpAddr;

use etherparse::{Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader, ether_type};

use crate::datapath::{PacketCopy, Way};

/// Most bytes of a payload in a UDP datagram over IPv4 (RFC 768, RFC 791).
pub const MOST_PAYLOAD: usize = 65_507;
/// Locally administered addresses (IEEE 802, bit 1 of the first byte): ours and everybody else's.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// RFC 1700's default.
const TIME_TO_LIVE: u8 = 64;

/// The frame, and its length had the payload not been cut; none if both addresses are not of one family.
#[must_use]
pub fn frame(copy: &PacketCopy) -> Option<(Vec<u8>, usize)> {
    let payload = &copy.payload[..copy.payload.len().min(MOST_PAYLOAD)];
    let (source, destination) = (copy.source, copy.destination);
    let (source_mac, destination_mac) = if copy.way == Way::In { (OTHER, OWN) } else { (OWN, OTHER) };
    let mut ethernet =
        Ethernet2Header { source: source_mac, destination: destination_mac, ether_type: ether_type::IPV4 };
    let mut bytes = Vec::with_capacity(payload.len() + 64);
    let length = u16::try_from(UdpHeader::LEN + payload.len()).ok()?;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip =
                Ipv4Header::new(length, TIME_TO_LIVE, IpNumber::UDP, from.octets(), to.octets()).ok()?;
            ip.dscp = (copy.type_of_service >> 2).try_into().ok()?;
            ip.ecn = (copy.type_of_service & 3).try_into().ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            let udp = UdpHeader::with_ipv4_checksum(source.port(), destination.port(), &ip, payload).ok()?;
            ethernet.write(&mut bytes).ok()?;
            ip.write(&mut bytes).ok()?;
            udp.write(&mut bytes).ok()?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ethernet.ether_type = ether_type::IPV6;
            let ip = Ipv6Header {
                traffic_class: copy.type_of_service,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length,
                next_header: IpNumber::UDP,
                hop_limit: TIME_TO_LIVE,
                source: from.octets(),
                destination: to.octets(),
            };
            let udp = UdpHeader::with_ipv6_checksum(source.port(), destination.port(), &ip, payload).ok()?;
            ethernet.write(&mut bytes).ok()?;
            ip.write(&mut bytes).ok()?;
            udp.write(&mut bytes).ok()?;
        }
        _ => return None,
    }
    let headers = bytes.len();
    bytes.extend(payload);
    Some((bytes, headers + copy.payload.len()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::net::NetworkId;

    #[test]
    fn a_frame_has_the_headers_that_the_packet_had_with_right_checksums() {
        let mut copy = PacketCopy {
            unix_ns: 0,
            network: NetworkId(0),
            way: Way::In,
            source: "10.61.0.11:4000".parse().unwrap(),
            destination: "10.61.0.1:16384".parse().unwrap(),
            type_of_service: 0xB9,
            payload: Bytes::from_static(b"rtp!"),
            remark: None,
        };
        let (bytes, original) = frame(&copy).unwrap();
        // The IPv4 checksum is that of RFC 1071 over these bytes, computed by hand.
        let expected = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0\x45\xB9\0\x20\0\0\x40\0\x40\x11\
                         \x25\x8A\x0A\x3D\0\x0B\x0A\x3D\0\x01\x0F\xA0\x40\0\0\x0C\xB4\x17rtp!";
        assert_eq!(bytes[..24], expected[..24]);
        assert_eq!(bytes[26..40], expected[26..40]);
        assert_eq!((&bytes[42..], original), (&b"rtp!"[..], 46));
        let sum = |words: &[u8]| {
            let sum: u32 =
                words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
            (sum & 0xFFFF) + (sum >> 16)
        };
        assert_eq!(sum(&bytes[14..34]), 0xFFFF, "the IPv4 header's checksum");
        let pseudo = [&bytes[26..34], &[0, 17, 0, 12], &bytes[34..]].concat();
        assert_eq!(sum(&pseudo), 0xFFFF, "the UDP checksum");

        copy.payload = Bytes::from(vec![1; MOST_PAYLOAD + 10]);
        let (bytes, original) = frame(&copy).unwrap();
        assert_eq!((bytes.len(), original), (MOST_PAYLOAD + 42, MOST_PAYLOAD + 52));
        copy.destination = "[fd00::1]:16384".parse().unwrap();
        assert!(frame(&copy).is_none(), "two families");
        copy.source = "[fd00::2]:4000".parse().unwrap();
        copy.payload = Bytes::from_static(b"rtp!");
        assert_eq!(frame(&copy).unwrap().0.len(), 14 + 40 + 8 + 4);
    }
}
