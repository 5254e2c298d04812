//! Messages of a call for this room's tests: a phone, the appliance, a server.

use super::{Traced, message::TracedBytes};
use crate::{datapath::Way, net::Transport};

/// A message at so many microseconds; of `office` or `centre`, with their addresses.
pub(super) fn traced(unix_us: u64, direction: Way, network: &str, message: &str) -> Traced {
    let (remote, local) = if network == "office" {
        ("10.61.0.11:5060", "10.61.0.1:8060")
    } else {
        ("10.62.0.10:5060", "10.62.0.1:8060")
    };
    let TracedBytes { text, base64 } = TracedBytes::of(message.as_bytes());
    Traced {
        unix_us,
        network: network.to_owned(),
        transport: Transport::Udp,
        direction,
        remote: remote.parse().unwrap(),
        local: local.parse().unwrap(),
        message: text,
        message_base64: base64,
    }
}

/// A message with what each must have; `start` is its first line, `more` further headers, empty line and body.
pub(super) fn message(start: &str, cseq: &str, to_tag: &str, via: &str, more: &str) -> String {
    let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "{start}\r\nVia: {via}\r\nFrom: \"Ann\" <sip:1001@lab>;tag=f\r\nTo: <sip:9001@lab>{tag}\r\nCall-ID: c@lab\r\n\
         CSeq: {cseq}\r\n{more}"
    )
}

/// The Via of the phone, and with that of the appliance above it.
pub(super) const PHONE: &str = "SIP/2.0/UDP 10.61.0.11;branch=z9hG4bKp";
pub(super) const OURS: &str =
    "SIP/2.0/UDP 10.62.0.1:8060;branch=z9hG4bKb\r\nVia: SIP/2.0/UDP 10.61.0.11;branch=z9hG4bKp";

/// A call that is answered, and ended by the phone.
pub(super) fn call() -> Vec<Traced> {
    let end = "Content-Length: 0\r\n\r\n";
    let offer = |host: &str| {
        let body = format!("v=0\r\no=a 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n");
        format!("Contact: <sip:a@{host}>\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let invite = "INVITE sip:9001@lab SIP/2.0";
    let rows = [
        (0, Way::In, "office", message(invite, "1 INVITE", "", PHONE, &offer("10.61.0.11"))),
        (210, Way::Out, "office", message("SIP/2.0 100 Trying", "1 INVITE", "", PHONE, end)),
        (480, Way::Out, "centre", message(invite, "1 INVITE", "", OURS, &offer("10.62.0.1"))),
        (500_480, Way::Out, "centre", message(invite, "1 INVITE", "", OURS, &offer("10.62.0.1"))),
        (500_900, Way::In, "centre", message("SIP/2.0 100 Trying", "1 INVITE", "", OURS, end)),
        (731_000, Way::In, "centre", message("SIP/2.0 200 OK", "1 INVITE", "t", OURS, &offer("10.62.0.10"))),
        (731_400, Way::Out, "office", message("SIP/2.0 200 OK", "1 INVITE", "t", PHONE, &offer("10.61.0.1"))),
        (740_000, Way::In, "office", message("ACK sip:a@10.61.0.1 SIP/2.0", "1 ACK", "t", PHONE, end)),
        (740_200, Way::Out, "centre", message("ACK sip:a@10.62.0.10 SIP/2.0", "1 ACK", "t", OURS, end)),
        (2_000_000, Way::In, "office", message("BYE sip:a@10.61.0.1 SIP/2.0", "2 BYE", "t", PHONE, end)),
        (2_000_300, Way::Out, "centre", message("BYE sip:a@10.62.0.10 SIP/2.0", "2 BYE", "t", OURS, end)),
        (2_001_000, Way::In, "centre", message("SIP/2.0 200 OK", "2 BYE", "t", OURS, end)),
        (2_001_200, Way::Out, "office", message("SIP/2.0 200 OK", "2 BYE", "t", PHONE, end)),
    ];
    rows.iter()
        .map(|(at, way, network, text)| traced(1_790_000_000_000_000 + at, *way, network, text))
        .collect()
}
