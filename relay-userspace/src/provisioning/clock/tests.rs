//! Requests and a clock in, whole packets out.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Answer, KernelClock, LocalClock, Outcome, Server, Timestamp, kernel::Leap};
use crate::config::Unsynchronised;

const PHONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 11));

/// 2026-01-01 00:00:00.5 UTC.
fn half_past() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_767_225_600, 500_000_000)
}

fn clock(kernel: KernelClock) -> LocalClock {
    LocalClock { received: half_past(), now: half_past() + Duration::from_millis(250), kernel }
}

fn synchronised(milliseconds: u64, leap: Leap) -> KernelClock {
    KernelClock::Synchronised { most_error: Duration::from_millis(milliseconds), leap }
}

/// A request whose transmit timestamp is 1, 2, 3, ... 8.
fn request(first: u8) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = first;
    packet[2] = 6;
    packet[40..].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    packet
}

/// Seconds since 1900 of [`half_past`] are 0xED00_3780 = 3,976,214,400.
const RECEIVED: [u8; 8] = [0xed, 0, 0x37, 0x80, 0x80, 0, 0, 0];
const SENT: [u8; 8] = [0xed, 0, 0x37, 0x80, 0xc0, 0, 0, 0];
const ORIGINATE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn packet(first: u8, stratum: u8, dispersion: [u8; 4], reference: [u8; 4], corrected: [u8; 8]) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[..4].copy_from_slice(&[first, stratum, 6, 0xec]);
    packet[8..12].copy_from_slice(&dispersion);
    packet[12..16].copy_from_slice(&reference);
    packet[16..24].copy_from_slice(&corrected);
    packet[24..32].copy_from_slice(&ORIGINATE);
    packet[32..40].copy_from_slice(&RECEIVED);
    packet[40..].copy_from_slice(&SENT);
    packet
}

#[test]
fn answers_tell_the_time_and_how_far_the_clock_is_to_be_trusted() {
    let half_a_second = [0, 0, 0x80, 0];
    let alarm = KernelClock::Unsynchronised;
    let rows = [
        (
            "version 4, synchronised to half a second",
            0x23,
            synchronised(500, Leap::None),
            Unsynchronised::Alarm,
            Outcome::Answered,
            packet(0x24, 3, half_a_second, [127, 0, 0, 1], SENT),
        ),
        (
            "version 1, and a leap second is added today",
            0x0b,
            synchronised(500, Leap::Insert),
            Unsynchronised::Alarm,
            Outcome::Answered,
            packet(0x4c, 3, half_a_second, [127, 0, 0, 1], SENT),
        ),
        (
            "version 3 with an alarm of the client's own, and a leap second is left out",
            0xdb,
            synchronised(500, Leap::Delete),
            Unsynchronised::Local,
            Outcome::Answered,
            packet(0x9c, 3, half_a_second, [127, 0, 0, 1], SENT),
        ),
        (
            "a clock that nobody sets",
            0x23,
            alarm,
            Unsynchronised::Alarm,
            Outcome::Alarm,
            packet(0xe4, 0, [0; 4], *b"INIT", [0; 8]),
        ),
        (
            "a clock that nobody sets, offered all the same",
            0x23,
            alarm,
            Unsynchronised::Local,
            Outcome::Answered,
            packet(0x24, 10, [0; 4], [127, 127, 1, 1], SENT),
        ),
    ];
    for (description, first, kernel, unsynchronised, outcome, expected) in rows {
        let mut server = Server::new(3, unsynchronised);
        let answer = server.receive(Instant::now(), PHONE, &request(first), clock(kernel));
        let version = first >> 3 & 7;
        assert_eq!(answer, Answer { outcome, version, payload: Some(expected) }, "{description}");
    }
}

#[test]
fn what_is_no_clients_request_is_not_answered() {
    let rows = [
        ("empty", vec![], Outcome::Malformed, 0),
        ("cut short", request(0x23)[..47].to_vec(), Outcome::Malformed, 0),
        ("version 0", request(0x03), Outcome::Malformed, 0),
        ("version 5", request(0x2b), Outcome::Malformed, 5),
        ("a server's answer", request(0x24), Outcome::OtherMode, 4),
        ("a peer's packet", request(0x21), Outcome::OtherMode, 4),
        ("a broadcast", request(0x25), Outcome::OtherMode, 4),
        ("a control query", request(0x16), Outcome::OtherMode, 2),
        ("a private query, as amplifiers answer", request(0x17), Outcome::OtherMode, 2),
    ];
    for (description, datagram, outcome, version) in rows {
        let mut server = Server::new(3, Unsynchronised::Alarm);
        let answer = server.receive(Instant::now(), PHONE, &datagram, clock(KernelClock::Unsynchronised));
        assert_eq!(answer, Answer { outcome, version, payload: None }, "{description}");
    }
}

#[test]
fn who_asks_too_fast_is_told_so_once_and_then_ignored() {
    let (mut server, start) = (Server::new(3, Unsynchronised::Alarm), Instant::now());
    let mut ask = |who: IpAddr, after: u64| {
        let now = start + Duration::from_secs(after);
        server.receive(now, who, &request(0x23), clock(synchronised(1, Leap::None)))
    };
    let answers: Vec<Answer> = (0..18).map(|_| ask(PHONE, 0)).collect();
    assert!(answers[..16].iter().all(|answer| answer.outcome == Outcome::Answered));
    let kiss = packet(0xe4, 0, [0; 4], *b"RATE", [0; 8]);
    assert_eq!(answers[16], Answer { outcome: Outcome::Kissed, version: 4, payload: Some(kiss) });
    assert_eq!(answers[17], Answer { outcome: Outcome::TooFast, version: 4, payload: None });
    let other = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 12));
    assert_eq!(ask(other, 0).outcome, Outcome::Answered);
    assert_eq!(ask(PHONE, 4).outcome, Outcome::Answered);
}

#[test]
fn the_reference_time_is_when_the_clock_was_last_seen_to_be_corrected() {
    let (mut server, start) = (Server::new(3, Unsynchronised::Alarm), Instant::now());
    let mut reference = |seconds: u64, error: u64| {
        let mut clock = clock(synchronised(error, Leap::None));
        clock.now += Duration::from_secs(seconds);
        let answer = server.receive(start, PHONE, &request(0x23), clock);
        u64::from_be_bytes(answer.payload.unwrap()[16..24].try_into().unwrap()) >> 32
    };
    let first = reference(0, 10);
    // The error grows: nothing has happened. It falls: it was corrected.
    assert_eq!(reference(16, 18) - first, 0);
    assert_eq!(reference(32, 26) - first, 0);
    assert_eq!(reference(48, 9) - first, 48);
    assert_eq!(reference(64, 17) - first, 48);
}

#[test]
fn the_kernels_state_is_read_as_adjtimex_documents_it() {
    let rows = [
        ("undisciplined", libc::TIME_ERROR, libc::STA_UNSYNC, 16_000_000, KernelClock::Unsynchronised),
        ("status says so though the result does not", 0, libc::STA_UNSYNC, 0, KernelClock::Unsynchronised),
        ("refused", -1, 0, 0, KernelClock::Unsynchronised),
        ("disciplined", libc::TIME_OK, libc::STA_PLL, 1000, synchronised(1, Leap::None)),
        ("a leap second comes", libc::TIME_INS, libc::STA_INS, 2000, synchronised(2, Leap::Insert)),
        ("a leap second goes", libc::TIME_DEL, libc::STA_DEL, 0, synchronised(0, Leap::Delete)),
        ("a leap second has been", libc::TIME_WAIT, 0, 0, synchronised(0, Leap::None)),
        ("a negative error", libc::TIME_OK, 0, -5, synchronised(0, Leap::None)),
    ];
    for (description, result, status, error, expected) in rows {
        assert_eq!(KernelClock::of(result, status, error), expected, "{description}");
    }
    // And the real call works, whatever it says on this host.
    let _ = KernelClock::read();
}

#[test]
fn timestamps_begin_in_1900_and_again_in_2036() {
    assert_eq!(Timestamp::of(UNIX_EPOCH), Timestamp(2_208_988_800 << 32));
    let era_1 = UNIX_EPOCH + Duration::from_secs((1 << 32) - 2_208_988_800 + 5);
    assert_eq!(Timestamp::of(era_1), Timestamp(5 << 32));
}
