//! When the messages of a call passed a wire: a capture by tcpdump, of which no more is read than that.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

/// The file's own header, and what stands before each packet (pcap with nanoseconds, in the machine's byte order).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const MAGIC: u32 = 0xA1B2_3C4D;
/// Ethernet, the shortest IPv4 header, UDP.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// When the messages by which a call is set up passed for the first time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) invite: Option<u64>,
    pub(super) ringing: Option<u64>,
    pub(super) answer: Option<u64>,
}

/// What passed, by Call-ID.
pub(super) type Wire = HashMap<String, Passed>;

/// Reads a capture.
///
/// # Errors
/// It is no capture of Ethernet as tcpdump writes it here.
pub(super) fn read(capture: &[u8]) -> Result<Wire> {
    let word = |at: usize| {
        let bytes = capture.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).context("the capture is cut short")
    };
    ensure!(word(0)? == MAGIC && word(20)? == 1, "no capture of Ethernet with nanoseconds");
    let mut wire = Wire::new();
    let mut at = FILE_HEADER;
    while at < capture.len() {
        let time = u64::from(word(at)?) * 1_000_000_000 + u64::from(word(at + 4)?);
        let length = word(at + 8)? as usize;
        let begin = at + PACKET_HEADER;
        let frame = capture.get(begin..begin + length).context("the capture is cut short")?;
        if let Some(message) = frame.get(ETHERNET + IPV4 + UDP..) {
            note(&mut wire, time, message);
        }
        at = begin + length;
    }
    Ok(wire)
}

/// Notes a message, if it is the first of its kind in its call.
fn note(wire: &mut Wire, time: u64, message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let Some(call) = header("Call-ID:") else { return };
    let of_invite = header("CSeq:").is_some_and(|value| value.ends_with(" INVITE"));
    if !of_invite {
        return;
    }
    let passed = wire.entry(call.to_owned()).or_default();
    let place = if text.starts_with("INVITE ") {
        &mut passed.invite
    } else if text.starts_with("SIP/2.0 180 ") {
        &mut passed.ringing
    } else if text.starts_with("SIP/2.0 200 ") {
        &mut passed.answer
    } else {
        return;
    };
    place.get_or_insert(time);
}

/// How long a call took to be set up, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SetUp {
    /// What the edge had the INVITE and the 180 for: what lies between the phone's wire and the server's.
    pub(crate) ringing: f64,
    /// The same of the 200.
    pub(crate) answer: f64,
    /// From INVITE to 180 on the phone's wire, the server's time included.
    pub(crate) seen: f64,
}

/// What lies between both wires for a call; none if a message of it is on neither, or they are in no order.
pub(super) fn set_up(phone: Passed, server: Passed) -> Option<SetUp> {
    let span = |from: Option<u64>, to: Option<u64>| Some(to?.checked_sub(from?)? as f64 / 1e3);
    Some(SetUp {
        ringing: span(phone.invite, server.invite)? + span(server.ringing, phone.ringing)?,
        answer: span(server.answer, phone.answer)?,
        seen: span(phone.invite, phone.ringing)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(packets: &[(u64, &str)]) -> Vec<u8> {
        let mut file = [MAGIC, 0x0004_0002, 0, 0, 262_144, 1].map(u32::to_ne_bytes).concat();
        for (time, text) in packets {
            let frame = [vec![0; ETHERNET + IPV4 + UDP], text.as_bytes().to_vec()].concat();
            let length = frame.len() as u32;
            let second = 1_000_000_000;
            let header = [(time / second) as u32, (time % second) as u32, length, length];
            file.extend(header.map(u32::to_ne_bytes).concat());
            file.extend(frame);
        }
        file
    }

    fn message(first: &str, cseq: &str) -> String {
        format!("{first}\r\nCall-ID: 1-7@10.61.0.11\r\nCSeq: {cseq}\r\n\r\n")
    }

    #[test]
    fn the_first_message_of_a_kind_counts_and_others_are_left_out() {
        let (invite, ringing) = (message("INVITE sip:1@a SIP/2.0", "1 INVITE"), "SIP/2.0 180 Ringing");
        let file = capture(&[
            (5_000_000_001, &invite),
            (5_500_000_000, &invite),
            (6_000_000_000, &message(ringing, "1 INVITE")),
            (7_000_000_000, &message("SIP/2.0 200 OK", "1 INVITE")),
            (8_000_000_000, &message("SIP/2.0 200 OK", "2 BYE")),
            (9_000_000_000, "\0\0"),
        ]);
        let expected =
            Passed { invite: Some(5_000_000_001), ringing: Some(6_000_000_000), answer: Some(7_000_000_000) };
        assert_eq!(read(&file).unwrap(), Wire::from([("1-7@10.61.0.11".to_owned(), expected)]));
    }

    #[test]
    fn a_capture_that_is_cut_short_is_refused() {
        let file = capture(&[(1, &message("INVITE sip:1@a SIP/2.0", "1 INVITE"))]);
        assert!(read(&file[..file.len() - 1]).is_err());
        assert!(read(b"no capture").is_err());
    }

    #[test]
    fn the_edge_has_what_lies_between_the_wires() {
        let passed = |times: [u64; 3]| {
            let [invite, ringing, answer] = times.map(Some);
            Passed { invite, ringing, answer }
        };
        // 100 us there, 5 ms at the server, 200 us back; 300 us for the answer.
        let phone = passed([1_000_000, 6_300_000, 9_300_000]);
        let server = passed([1_100_000, 6_100_000, 9_000_000]);
        let expected = SetUp { ringing: 300.0, answer: 300.0, seen: 5300.0 };
        assert_eq!(set_up(phone, server), Some(expected));
        assert_eq!(set_up(phone, Passed { ringing: None, ..server }), None);
        assert_eq!(set_up(server, phone), None, "the server has it before the phone has sent it");
    }
}
