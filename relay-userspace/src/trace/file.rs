//! A trace as a file that Wireshark and sngrep read: each message as one UDP datagram, whatever carried it.

use crate::{
    datapath::PacketCopy,
    net::{NetworkId, Transport},
    pcapng::{enhanced_packet, frame, interface_description, section_header},
};

use super::Traced;

/// The file. What TCP and TLS carried is in clear and as UDP, with a comment that says so; a message that is longer
/// than a datagram is cut.
#[must_use]
pub fn pcapng(call_id: &str, messages: &[Traced]) -> Vec<u8> {
    let application = concat!("branchline ", env!("CARGO_PKG_VERSION"));
    let comment = format!(
        "Trace of Call-ID {call_id}. Ethernet, IP and UDP headers were made anew around each message; SIP over TCP and \
         TLS is shown as UDP, with a comment."
    );
    let mut networks: Vec<&str> = Vec::new();
    for message in messages {
        if !networks.contains(&message.network.as_str()) {
            networks.push(&message.network);
        }
    }
    let mut bytes = section_header(application, &comment);
    for network in &networks {
        bytes.extend(interface_description(network));
    }
    for message in messages {
        let position = networks.iter().position(|network| *network == message.network);
        let Some(interface) = position.and_then(|position| u16::try_from(position).ok()) else { continue };
        let remark = match message.transport {
            Transport::Udp => None,
            Transport::Tcp => Some("SIP over TCP, shown as UDP"),
            Transport::Tls => Some("SIP over TLS, shown as UDP in clear"),
            Transport::LegacyTls => Some("SIP over TLS of old phones, shown as UDP in clear"),
            Transport::Ws => Some("SIP over WebSocket, shown as UDP"),
            Transport::Wss => Some("SIP over WebSocket in TLS, shown as UDP in clear"),
        };
        let copy = PacketCopy {
            unix_ns: message.unix_us.saturating_mul(1000),
            network: NetworkId(interface),
            way: message.direction,
            source: message.source(),
            destination: message.destination(),
            type_of_service: 0,
            payload: message.bytes(),
            remark: remark.map(str::to_owned),
        };
        if let Some((frame, original)) = frame(&copy) {
            let (interface, at) = (u32::from(interface), copy.unix_ns);
            bytes.extend(enhanced_packet(interface, at, copy.way, &frame, original, remark));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests_support::call;

    #[test]
    fn a_file_has_an_interface_for_each_network_and_a_packet_for_each_message() {
        let messages = call();
        let bytes = pcapng("c@lab", &messages);
        let mut kinds = Vec::new();
        let mut rest = &bytes[..];
        while let Some(head) = rest.get(..8) {
            let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            kinds.push(word(0));
            rest = &rest[word(4) as usize..];
        }
        assert_eq!(kinds[..3], [0x0A0D_0D0A, 1, 1]);
        assert_eq!(kinds[3..], vec![6; messages.len()]);
        for message in &messages {
            let found =
                bytes.windows(message.message.len()).filter(|part| *part == message.message.as_bytes());
            assert!(found.count() > 0, "{message:?}");
        }
    }
}
