//! Streams with known faults, and a plain RFC 3550 receiver to compare with.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const CLOCK: u32 = 8000;
const FRAME_NS: u64 = 20_000_000;
const FRAME_TICKS: u32 = 160;

fn header(ssrc: u32, sequence: u16, timestamp: u32) -> RtpHeader {
    RtpHeader {
        flags: 0x80,
        marker_and_type: 0,
        sequence: sequence.to_be_bytes(),
        timestamp: timestamp.to_be_bytes(),
        ssrc: ssrc.to_be_bytes(),
    }
}

/// Feeds packets at a steady pace, by their place in the stream.
fn feed(stats: &mut FlowStats, ssrc: u32, first: u16, places: impl IntoIterator<Item = u32>) {
    for (tick, place) in places.into_iter().enumerate() {
        let header = header(ssrc, first.wrapping_add(place as u16), place.wrapping_mul(FRAME_TICKS));
        stats.record_rtp(&header, 1_000_000_000 + tick as u64 * FRAME_NS, clock_ticks(CLOCK));
    }
}

#[test]
fn streams_with_known_faults_are_counted_as_such() {
    /// Expected, lost, duplicates, reordered.
    type Counts = (u64, u64, u32, u32);
    let rows: [(&str, u16, Vec<u32>, Counts); 8] = [
        // description, first sequence number, places in order of arrival, (expected, lost, duplicates, reordered)
        ("an unbroken stream", 1, (0..100).collect(), (100, 0, 0, 0)),
        ("the sequence number wraps", 65_500, (0..100).collect(), (100, 0, 0, 0)),
        ("three are lost", 1, (0..100).filter(|p| ![10, 11, 50].contains(p)).collect(), (100, 3, 0, 0)),
        ("one comes twice", 1, vec![0, 1, 2, 2, 3], (4, 0, 1, 0)),
        ("two change places", 1, vec![0, 1, 3, 2, 4], (5, 0, 0, 1)),
        ("a late one that is then repeated", 1, vec![0, 1, 3, 2, 2, 4], (5, 0, 1, 1)),
        ("the first was overtaken by the second", 5, vec![1, 0, 2], (3, 0, 0, 1)),
        ("a gap longer than the window", 1, vec![0, 1, 200, 201], (202, 198, 0, 0)),
    ];
    for (description, first, places, expected) in rows {
        let mut stats = FlowStats::ZERO;
        feed(&mut stats, 7, first, places);
        assert_eq!(
            (stats.expected(), stats.lost(), stats.duplicates, stats.reordered),
            expected,
            "{description}"
        );
        assert_eq!(stats.restarts, 0, "{description}");
    }
}

#[test]
fn runs_of_lost_packets_are_counted_whatever_arrives_late() {
    let rows: [(&str, Vec<u32>, u32); 7] = [
        ("an unbroken stream", (0..10).collect(), 0),
        ("one run of three", vec![0, 1, 5, 6], 1),
        ("two runs", vec![0, 2, 3, 6, 7], 2),
        ("two change places: nothing is lost", vec![0, 1, 3, 2, 4], 0),
        ("one late of a run of three, at its end", vec![0, 4, 3, 5], 1),
        ("one late of a run of three, in its middle", vec![0, 4, 2, 5], 2),
        ("the first was overtaken", vec![1, 0, 2, 3], 0),
    ];
    for (description, places, expected) in rows {
        let mut stats = FlowStats::ZERO;
        feed(&mut stats, 7, 65_530, places);
        assert_eq!(stats.gaps, expected, "{description}");
    }
}

#[test]
fn talk_spurts_and_comfort_noise_are_counted() {
    let mut stats = FlowStats::ZERO;
    let (marked, noise) = (0x80, COMFORT_NOISE);
    for (place, kind) in (0u16..).zip([marked, 0, noise, marked, 0, noise, noise]) {
        let packet = RtpHeader { marker_and_type: kind, ..header(7, place, u32::from(place) * FRAME_TICKS) };
        stats.record_rtp(&packet, 1_000_000_000 + u64::from(place) * FRAME_NS, clock_ticks(CLOCK));
    }
    assert_eq!((stats.markers, stats.comfort_noise, stats.payload_type), (2, 3, COMFORT_NOISE));
}

#[test]
fn a_new_source_keeps_the_loss_of_the_old_one() {
    let mut stats = FlowStats::ZERO;
    feed(&mut stats, 1, 100, [0, 1, 3]);
    feed(&mut stats, 2, 9, [0, 1, 2, 4]);
    assert_eq!((stats.expected(), stats.lost(), stats.restarts, stats.ssrc), (9, 2, 1, 2));
}

#[test]
fn a_single_stray_number_does_not_restart_the_sequence_and_two_in_a_row_do() {
    let mut stats = FlowStats::ZERO;
    feed(&mut stats, 1, 100, [0, 1, 2, 30_000, 3, 4]);
    assert_eq!((stats.restarts, stats.lost(), stats.expected()), (0, 0, 5));
    feed(&mut stats, 1, 100, [40_000, 40_001, 40_002]);
    assert_eq!((stats.restarts, stats.lost(), stats.expected()), (1, 0, 8));
}

#[test]
fn steady_arrival_has_no_jitter_and_a_known_pattern_has_its_known_jitter() {
    let mut stats = FlowStats::ZERO;
    feed(&mut stats, 1, 0, 0..500);
    assert!(stats.jitter_seconds(CLOCK) < 0.000_2, "{}", stats.jitter_seconds(CLOCK));

    // Each second packet is 5 ms late: each transit differs from the last by 5 ms, so jitter nears 5 ms.
    let mut stats = FlowStats::ZERO;
    for place in 0..500u32 {
        let late = if place % 2 == 1 { 5_000_000 } else { 0 };
        let now = 77_000_000_000_000 + u64::from(place) * FRAME_NS + late;
        stats.record_rtp(&header(1, place as u16, place * FRAME_TICKS), now, clock_ticks(CLOCK));
    }
    let jitter = stats.jitter_seconds(CLOCK);
    assert!((0.004_8..0.005_2).contains(&jitter), "{jitter}");
}

#[test]
fn the_packets_of_a_dtmf_event_share_a_timestamp_and_add_no_jitter() {
    let mut stats = FlowStats::ZERO;
    feed(&mut stats, 1, 0, 0..50);
    for extra in 0..10u16 {
        let now = 1_000_000_000 + (50 + u64::from(extra)) * FRAME_NS;
        stats.record_rtp(&header(1, 50 + extra, 50 * FRAME_TICKS), now, clock_ticks(CLOCK));
    }
    assert!(stats.jitter_seconds(CLOCK) < 0.000_2, "{}", stats.jitter_seconds(CLOCK));
    assert_eq!(stats.lost(), 0);
}

#[test]
fn clock_ticks_are_right_within_ten_parts_in_a_million() {
    for rate in [8_000u32, 16_000, 44_100, 48_000, 90_000] {
        let back = f64::from(clock_ticks(rate)) * 1e9 / (1u64 << 32) as f64;
        assert!((back / f64::from(rate) - 1.0).abs() < 1e-5, "{rate}: {back}");
    }
}

proptest! {
    /// Any arrival order with bounded displacement, any losses, any repeats: the counts are those of a
    /// receiver that remembers everything.
    #[test]
    fn counts_equal_those_of_a_receiver_that_remembers_everything(
        first in any::<u16>(),
        arrivals in prop::collection::vec((0u32..3, 0u32..20), 1..400),
    ) {
        let mut stats = FlowStats::ZERO;
        let mut seen = HashSet::new();
        let (mut place, mut highest, mut lowest) = (100u32, None::<u32>, u32::MAX);
        let (mut duplicates, mut reordered) = (0, 0);
        for (index, (step, back)) in arrivals.into_iter().enumerate() {
            place += step;
            let this = place - back;
            if !seen.insert(this) {
                duplicates += 1;
            } else if highest.is_some_and(|highest| this < highest) {
                reordered += 1;
            }
            highest = Some(highest.map_or(this, |highest| highest.max(this)));
            lowest = lowest.min(this);
            let header = header(9, first.wrapping_add(this as u16), this * FRAME_TICKS);
            stats.record_rtp(&header, index as u64 * FRAME_NS, clock_ticks(CLOCK));
        }
        let expected = u64::from(highest.unwrap() - lowest + 1);
        prop_assert_eq!(stats.expected(), expected);
        prop_assert_eq!(stats.lost(), expected - seen.len() as u64);
        prop_assert_eq!((stats.duplicates, stats.reordered), (duplicates, reordered));
    }

    #[test]
    fn no_sequence_of_headers_overflows_or_panics(
        packets in prop::collection::vec((any::<u32>(), any::<u16>(), any::<u32>(), any::<u64>()), 0..200),
    ) {
        let mut stats = FlowStats::ZERO;
        for (ssrc, sequence, timestamp, now) in packets {
            stats.record_rtp(&header(ssrc % 3, sequence, timestamp), now, clock_ticks(CLOCK));
            prop_assert!(stats.lost() <= stats.expected());
        }
    }
}
