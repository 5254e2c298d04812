//! What each party's RTCP said last, by the local end at which it arrives, and the round-trip times that follow
//! (RFC 3550 section 6.4.1).
//!
//! The appliance stands between the parties, so it measures from its own place: a sender report of one party passes on
//! its way out, and the other party's report block about it comes back with the time it took in between. What remains is
//! the way from the appliance to that party and back.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use super::rtcp::{ReportBlock, VoipMetrics, read};

/// DLSR counts in this many units a second.
const DLSR_UNITS: u64 = 65_536;
/// Local ends that are remembered; one that is not costs its figures.
const REMEMBERED: usize = 65_536;
/// A longer time is a clock's mistake, not a network's.
const LONGEST: Duration = Duration::from_secs(30);
/// Sources that one party's reports are kept about: those of its last reports.
const SOURCES: usize = 4;

/// A sender report that passed.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// The middle 32 bits of its NTP timestamp, which the answer repeats.
    ntp_middle: u32,
    arrived_ns: u64,
}

/// What a party's RTCP said.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    sent: Option<Passed>,
    blocks: Vec<ReportBlock>,
    voip: Vec<VoipMetrics>,
    /// The last round-trip time between it and the appliance.
    pub round_trip: Option<Duration>,
}

impl Heard {
    /// What it said last of a source.
    #[must_use]
    pub fn block(&self, ssrc: u32) -> Option<&ReportBlock> {
        self.blocks.iter().find(|block| block.ssrc == ssrc)
    }

    /// Its VoIP metrics of a source.
    #[must_use]
    pub fn voip(&self, ssrc: u32) -> Option<&VoipMetrics> {
        self.voip.iter().find(|metrics| metrics.ssrc == ssrc)
    }
}

/// What all parties said.
#[derive(Debug, Default)]
pub struct Book {
    heard: HashMap<SocketAddr, Heard>,
}

impl Book {
    /// Takes an RTCP packet that arrived at `local` at `arrived_ns` nanoseconds and left from `pair`, and gives the
    /// round-trip times between the appliance and its sender that its report blocks tell.
    ///
    /// A packet that cannot be read (SRTCP, or a damaged one) gives none.
    pub fn packet(
        &mut self,
        local: SocketAddr,
        pair: SocketAddr,
        arrived_ns: u64,
        packet: &[u8],
    ) -> Vec<Duration> {
        let compound = read(packet);
        let sent = self.heard.get(&pair).and_then(|heard| heard.sent);
        let times: Vec<Duration> =
            compound.blocks.iter().filter_map(|block| round_trip(sent?, arrived_ns, block)).collect();
        if self.heard.len() >= REMEMBERED && !self.heard.contains_key(&local) {
            return times;
        }
        let heard = self.heard.entry(local).or_default();
        heard.sent = compound.ntp_middle.map(|ntp_middle| Passed { ntp_middle, arrived_ns }).or(heard.sent);
        heard.round_trip = times.last().copied().or(heard.round_trip);
        for block in compound.blocks {
            keep(&mut heard.blocks, block, |known| known.ssrc == block.ssrc);
        }
        for metrics in compound.voip {
            keep(&mut heard.voip, metrics, |known| known.ssrc == metrics.ssrc);
        }
        times
    }

    /// What was heard at a local end.
    #[must_use]
    pub fn heard(&self, local: SocketAddr) -> Option<&Heard> {
        self.heard.get(&local)
    }

    /// Forgets a local end.
    pub fn forget(&mut self, local: SocketAddr) {
        self.heard.remove(&local);
    }
}

/// Puts what is about a source in place of what was about it, or of the oldest.
fn keep<T>(kept: &mut Vec<T>, new: T, same: impl Fn(&T) -> bool) {
    kept.retain(|known| !same(known));
    if kept.len() >= SOURCES {
        kept.remove(0);
    }
    kept.push(new);
}

/// The time that a report block tells, if it is about the report that last went to its sender.
fn round_trip(sent: Passed, arrived_ns: u64, block: &ReportBlock) -> Option<Duration> {
    if block.last_report == 0 || block.last_report != sent.ntp_middle {
        return None;
    }
    let elapsed = Duration::from_nanos(arrived_ns.checked_sub(sent.arrived_ns)?);
    let held = Duration::from_nanos(u64::from(block.delay) * 1_000_000_000 / DLSR_UNITS);
    elapsed.checked_sub(held).filter(|time| *time < LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::rtcp::tests::{block, receiver_report},
        *,
    };

    const A: &str = "10.61.0.1:16385";
    const B: &str = "10.62.0.1:16401";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A sender report whose NTP timestamp has these middle bits.
    fn sender_report(middle: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 200, 0, 6, 0, 0, 0, 1];
        packet.extend([0xAA, 0xBB]);
        packet.extend(middle.to_be_bytes());
        packet.extend([0; 14]);
        packet
    }

    /// A receiver report about a sender report that was held for `delay`.
    fn answer(last: u32, delay: u32) -> Vec<u8> {
        let mut about = block(1, 0, 0, 0, 0);
        about[16..20].copy_from_slice(&last.to_be_bytes());
        about[20..24].copy_from_slice(&delay.to_be_bytes());
        receiver_report(&[about])
    }

    #[test]
    fn a_report_that_is_answered_tells_the_round_trip_between_the_appliance_and_who_answers() {
        let mut book = Book::default();
        // It arrives from A at second 10 and goes to B, who answers half a second later; 40 ms were the way.
        assert_eq!(book.packet(at(A), at(B), 10_000_000_000, &sender_report(77)), Vec::<Duration>::new());
        let times = book.packet(at(B), at(A), 10_540_000_000, &answer(77, 32_768));
        assert_eq!(times, [Duration::from_millis(40)]);
        assert_eq!(book.heard(at(B)).unwrap().round_trip, Some(Duration::from_millis(40)));
        assert_eq!(book.heard(at(A)).unwrap().round_trip, None);
    }

    #[test]
    fn an_answer_to_another_report_or_to_none_tells_nothing() {
        let mut book = Book::default();
        book.packet(at(A), at(B), 10_000_000_000, &sender_report(77));
        for (description, last, delay, arrived) in [
            ("to an older report", 76, 0, 10_100_000_000),
            ("before any report was received", 0, 0, 10_100_000_000),
            ("held for longer than it was away", 77, 65_536, 10_100_000_000),
            ("a clock that went back", 77, 0, 9_000_000_000),
            ("minutes later", 77, 0, 100_000_000_000),
        ] {
            let times = book.packet(at(B), at(A), arrived, &answer(last, delay));
            assert_eq!(times, Vec::<Duration>::new(), "{description}");
        }
        book.forget(at(A));
        assert_eq!(book.packet(at(B), at(A), 10_100_000_000, &answer(77, 0)), Vec::<Duration>::new());
    }

    #[test]
    fn the_last_report_about_each_source_is_kept_and_few_sources_are() {
        let mut book = Book::default();
        for ssrc in 0..20 {
            let two = receiver_report(&[block(7, 1, ssrc as i32, ssrc, 0), block(100 + ssrc, 0, 0, 0, 0)]);
            book.packet(at(A), at(B), 1, &two);
        }
        let heard = book.heard(at(A)).unwrap();
        assert_eq!(heard.block(7).map(|block| block.lost), Some(19));
        assert_eq!((heard.blocks.len(), heard.block(100)), (SOURCES, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..160), 0..20)) {
            let mut book = Book::default();
            for (index, packet) in packets.iter().enumerate() {
                book.packet(at(A), at(B), index as u64, packet);
            }
        }
    }
}
