//! HEP, the form in which Homer takes messages: version 3, over UDP.
//!
//! A packet is `HEP3`, its length, and chunks of vendor, type, length and value, all numbers in network byte order.
//! Vendor 0 has the generic chunks, of which these are what SIP needs. Pure: a message in, bytes out. Format: "The
//! Hepv3 Network Protocol Specification", revision 12, sections 2 and 4.

use std::net::{IpAddr, SocketAddr};

use crate::{net::Transport, pcapng::MOST_PAYLOAD};

const MAGIC: &[u8] = b"HEP3";
/// The magic and the packet's length.
const HEAD: usize = MAGIC.len() + size_of::<u16>();
/// Vendor, type and length of a chunk.
const CHUNK_HEAD: usize = 3 * size_of::<u16>();

/// Types of generic chunks (section 4.1).
mod chunk {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const SOURCE_IPV4: u16 = 3;
    pub(super) const DESTINATION_IPV4: u16 = 4;
    pub(super) const SOURCE_IPV6: u16 = 5;
    pub(super) const DESTINATION_IPV6: u16 = 6;
    pub(super) const SOURCE_PORT: u16 = 7;
    pub(super) const DESTINATION_PORT: u16 = 8;
    pub(super) const SECONDS: u16 = 9;
    pub(super) const MICROSECONDS: u16 = 10;
    pub(super) const KIND: u16 = 11;
    pub(super) const AGENT: u16 = 12;
    pub(super) const KEY: u16 = 14;
    pub(super) const PAYLOAD: u16 = 15;
    pub(super) const CORRELATION: u16 = 17;
}

/// Address families as Linux numbers them, which is what Homer reads.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Protocols (IANA). TLS is told as the TCP that carries it.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The payload is SIP (section 4.2).
const SIP: u8 = 1;

/// A message for Homer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// When, in microseconds since 1970.
    pub unix_us: u64,
    /// What carried it.
    pub transport: Transport,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// By what its messages belong together.
    pub call_id: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

/// A packet for Homer; none if it would be longer than a datagram, or its addresses are of two families. `agent` says
/// who captured it; a key is sent if there is one.
#[must_use]
pub fn packet(message: &Message<'_>, agent: u32, key: Option<&str>) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD + message.payload.len() + 256);
    bytes.extend(MAGIC);
    bytes.extend([0, 0]);
    let mut add = |kind: u16, value: &[u8]| -> Option<()> {
        let length = u16::try_from(CHUNK_HEAD + value.len()).ok()?;
        for number in [0, kind, length] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(value);
        Some(())
    };
    let (source, destination) = (message.source.ip().to_canonical(), message.destination.ip().to_canonical());
    let family = if source.is_ipv4() { IPV4 } else { IPV6 };
    let protocol = if message.transport == Transport::Udp { UDP } else { TCP };
    add(chunk::FAMILY, &[family])?;
    add(chunk::PROTOCOL, &[protocol])?;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            add(chunk::SOURCE_IPV4, &source.octets())?;
            add(chunk::DESTINATION_IPV4, &destination.octets())?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            add(chunk::SOURCE_IPV6, &source.octets())?;
            add(chunk::DESTINATION_IPV6, &destination.octets())?;
        }
        _ => return None,
    }
    let (seconds, microseconds) = (message.unix_us / 1_000_000, message.unix_us % 1_000_000);
    add(chunk::SOURCE_PORT, &message.source.port().to_be_bytes())?;
    add(chunk::DESTINATION_PORT, &message.destination.port().to_be_bytes())?;
    // Seconds wrap in 2106; so does the format.
    add(chunk::SECONDS, &(seconds as u32).to_be_bytes())?;
    add(chunk::MICROSECONDS, &(microseconds as u32).to_be_bytes())?;
    add(chunk::KIND, &[SIP])?;
    add(chunk::AGENT, &agent.to_be_bytes())?;
    if let Some(key) = key {
        add(chunk::KEY, key.as_bytes())?;
    }
    if !message.call_id.is_empty() {
        add(chunk::CORRELATION, message.call_id)?;
    }
    add(chunk::PAYLOAD, message.payload)?;
    let length = u16::try_from(bytes.len()).ok().filter(|length| usize::from(*length) <= MOST_PAYLOAD)?;
    bytes.get_mut(MAGIC.len()..HEAD)?.copy_from_slice(&length.to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_as_the_specification_has_it() {
        let message = Message {
            unix_us: 0x6000_0000 * 1_000_000 + 0x0102,
            transport: Transport::Udp,
            source: "10.61.0.11:5060".parse().unwrap(),
            destination: "10.61.0.1:8060".parse().unwrap(),
            call_id: b"a@b",
            payload: b"BYE",
        };
        let ipv4: &[u8] = b"HEP3\0\x77\
            \0\0\0\x01\0\x07\x02\0\0\0\x02\0\x07\x11\
            \0\0\0\x03\0\x0A\x0A\x3D\0\x0B\0\0\0\x04\0\x0A\x0A\x3D\0\x01\
            \0\0\0\x07\0\x08\x13\xC4\0\0\0\x08\0\x08\x1F\x7C\
            \0\0\0\x09\0\x0A\x60\0\0\0\0\0\0\x0A\0\x0A\0\0\x01\x02\
            \0\0\0\x0B\0\x07\x01\0\0\0\x0C\0\x0A\0\0\x07\xD1\
            \0\0\0\x0E\0\x08pw\0\0\0\x11\0\x09a@b\0\0\0\x0F\0\x09BYE";
        assert_eq!(packet(&message, 2001, Some("pw")).unwrap(), ipv4);

        let other = Message {
            transport: Transport::Tls,
            source: "[fd00::b]:40000".parse().unwrap(),
            destination: "[fd00::1]:8061".parse().unwrap(),
            call_id: b"",
            ..message
        };
        let ipv6: &[u8] = b"HEP3\0\x7E\
            \0\0\0\x01\0\x07\x0A\0\0\0\x02\0\x07\x06\
            \0\0\0\x05\0\x16\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0B\
            \0\0\0\x06\0\x16\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
            \0\0\0\x07\0\x08\x9C\x40\0\0\0\x08\0\x08\x1F\x7D\
            \0\0\0\x09\0\x0A\x60\0\0\0\0\0\0\x0A\0\x0A\0\0\x01\x02\
            \0\0\0\x0B\0\x07\x01\0\0\0\x0C\0\x0A\0\0\0\x01\0\0\0\x0F\0\x09BYE";
        assert_eq!(packet(&other, 1, None).unwrap(), ipv6);
    }

    #[test]
    fn what_fits_no_datagram_is_not_sent() {
        let payload = vec![b'a'; MOST_PAYLOAD];
        let mut message = Message {
            unix_us: 1,
            transport: Transport::Tcp,
            source: "10.61.0.11:5060".parse().unwrap(),
            destination: "10.61.0.1:8060".parse().unwrap(),
            call_id: b"a",
            payload: &payload,
        };
        assert_eq!(packet(&message, 1, None), None);
        message.payload = &payload[..MOST_PAYLOAD - 200];
        assert!(packet(&message, 1, None).is_some());
        message.destination = "[fd00::1]:8060".parse().unwrap();
        assert_eq!(packet(&message, 1, None), None, "two families");
    }
}
