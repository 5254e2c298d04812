//! Round-trip times from the RTCP reports that pass (RFC 3550 section 6.4.1).
//!
//! The appliance stands between the parties, so it measures from its own place: a sender report of one
//! party passes on its way out, and the other party's report block about it comes back with the time it
//! took in between. What remains is the way from the appliance to that party and back.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

/// Sender report and receiver report (RFC 3550 section 12.1).
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// Bytes of an RTCP header with its sender's SSRC.
const HEADER: usize = 8;
/// Bytes of a sender report's sender information.
const SENDER_INFORMATION: usize = 20;
/// Bytes of a report block.
const BLOCK: usize = 24;
/// DLSR counts in this many units a second.
const DLSR_UNITS: u64 = 65_536;
/// Flows whose last sender report is remembered; one that is forgotten costs a measurement.
const REMEMBERED: usize = 65_536;
/// A longer time is a clock's mistake, not a network's.
const LONGEST: Duration = Duration::from_secs(30);

/// A sender report that passed.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// The middle 32 bits of its NTP timestamp, which the answer repeats.
    ntp_middle: u32,
    arrived_ns: u64,
}

/// Remembers each flow's last sender report.
#[derive(Debug, Default)]
pub struct RoundTrips {
    reports: HashMap<SocketAddr, Passed>,
}

impl RoundTrips {
    /// Takes an RTCP packet that arrived at `local` at `arrived_ns` nanoseconds and left from `pair`, and
    /// gives the round-trip times between the appliance and its sender that its report blocks tell.
    ///
    /// A packet that cannot be read (SRTCP, or a damaged one) gives none.
    pub fn packet(
        &mut self,
        local: SocketAddr,
        pair: SocketAddr,
        arrived_ns: u64,
        packet: &[u8],
    ) -> Vec<Duration> {
        let mut times = Vec::new();
        let mut rest = packet;
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let length = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
            let (count, kind) = (usize::from(header[0] & 0x1F), header[1]);
            if header[0] >> 6 != 2 {
                break;
            }
            // The copy may end before the packet does: its first reports are whole.
            let report = rest.get(..length).unwrap_or(rest);
            let blocks = match kind {
                SENDER_REPORT => {
                    if let Some(&[a, b, c, d]) = report.get(HEADER + 2..HEADER + 6) {
                        let ntp_middle = u32::from_be_bytes([a, b, c, d]);
                        if self.reports.len() < REMEMBERED || self.reports.contains_key(&local) {
                            self.reports.insert(local, Passed { ntp_middle, arrived_ns });
                        }
                    }
                    report.get(HEADER + SENDER_INFORMATION..)
                }
                RECEIVER_REPORT => report.get(HEADER..),
                _ => None,
            };
            let blocks = blocks.unwrap_or_default().as_chunks::<BLOCK>().0;
            times.extend(blocks.iter().take(count).filter_map(|block| self.time(pair, arrived_ns, block)));
            rest = rest.get(length..).unwrap_or_default();
        }
        times
    }

    /// The time that a report block tells, if it is about the report that last went to its sender.
    fn time(&self, pair: SocketAddr, arrived_ns: u64, block: &[u8; BLOCK]) -> Option<Duration> {
        let last = u32::from_be_bytes([block[16], block[17], block[18], block[19]]);
        let delay = u32::from_be_bytes([block[20], block[21], block[22], block[23]]);
        let passed = self.reports.get(&pair).filter(|passed| last != 0 && passed.ntp_middle == last)?;
        let elapsed = Duration::from_nanos(arrived_ns.checked_sub(passed.arrived_ns)?);
        let held = Duration::from_nanos(u64::from(delay) * 1_000_000_000 / DLSR_UNITS);
        elapsed.checked_sub(held).filter(|time| *time < LONGEST)
    }

    /// Forgets a flow.
    pub fn forget(&mut self, local: SocketAddr) {
        self.reports.remove(&local);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "10.61.0.1:16385";
    const B: &str = "10.62.0.1:16401";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A sender report whose NTP timestamp has these middle bits.
    fn sender_report(middle: u32) -> Vec<u8> {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6, 0, 0, 0, 1];
        packet.extend([0xAA, 0xBB]);
        packet.extend(middle.to_be_bytes());
        packet.extend([0; 14]);
        packet
    }

    /// A receiver report with one block, and a source description behind it.
    fn receiver_report(last: u32, delay: u32) -> Vec<u8> {
        let mut packet = vec![0x81, RECEIVER_REPORT, 0, 7, 0, 0, 0, 2, 0, 0, 0, 1];
        packet.extend([0; 12]);
        packet.extend(last.to_be_bytes());
        packet.extend(delay.to_be_bytes());
        packet.extend([0x81, 202, 0, 1, 0, 0, 0, 2]);
        packet
    }

    #[test]
    fn a_report_that_is_answered_tells_the_round_trip_between_the_appliance_and_who_answers() {
        let mut trips = RoundTrips::default();
        // It arrives from A at second 10 and goes to B, who answers half a second later; 40 ms were the way.
        assert_eq!(trips.packet(at(A), at(B), 10_000_000_000, &sender_report(77)), Vec::<Duration>::new());
        let times = trips.packet(at(B), at(A), 10_540_000_000, &receiver_report(77, 32_768));
        assert_eq!(times, [Duration::from_millis(40)]);
    }

    #[test]
    fn an_answer_to_another_report_or_to_none_tells_nothing() {
        let mut trips = RoundTrips::default();
        trips.packet(at(A), at(B), 10_000_000_000, &sender_report(77));
        for (description, last, delay, arrived) in [
            ("to an older report", 76, 0, 10_100_000_000),
            ("before any report was received", 0, 0, 10_100_000_000),
            ("held for longer than it was away", 77, 65_536, 10_100_000_000),
            ("a clock that went back", 77, 0, 9_000_000_000),
            ("minutes later", 77, 0, 100_000_000_000),
        ] {
            assert_eq!(
                trips.packet(at(B), at(A), arrived, &receiver_report(last, delay)),
                Vec::<Duration>::new(),
                "{description}"
            );
        }
        trips.forget(at(A));
        assert_eq!(
            trips.packet(at(B), at(A), 10_100_000_000, &receiver_report(77, 0)),
            Vec::<Duration>::new()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..160), 0..20)) {
            let mut trips = RoundTrips::default();
            for (index, packet) in packets.iter().enumerate() {
                trips.packet(at(A), at(B), index as u64, packet);
            }
        }
    }
}
