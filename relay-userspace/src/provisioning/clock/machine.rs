//! What becomes of a datagram to the NTP port.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::kernel::{KernelClock, Leap};
use crate::{
    config::Unsynchronised,
    provisioning::rate::{Admission, Allowance, Rates},
};

/// Bytes of the header, which is the whole of a packet without authentication (RFC 5905 section 7.3).
const PACKET: usize = 48;
/// Versions that are answered.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
/// Modes (RFC 5905 figure 10).
const CLIENT: u8 = 3;
const SERVER: u8 = 4;
/// The leap indicator of a clock that is not synchronised.
const ALARM: u8 = 3;
/// Seconds from 1900, NTP's beginning, to 1970 (RFC 5905 figure 4).
const TO_1970: u64 = 2_208_988_800;
/// About a microsecond: what it takes to read the clock, as a power of two of seconds.
const PRECISION: i8 = -20;
/// The stratum of a host's clock that is its own reference, by the convention of NTP servers.
const LOCAL_STRATUM: u8 = 10;
/// The reference of a clock that is its own (127.127.1.1, the local clock by NTP's convention), and of one that this
/// host disciplines by a source that the kernel does not tell (127.0.0.1).
const LOCAL_REFERENCE: [u8; 4] = [127, 127, 1, 1];
const HOST_REFERENCE: [u8; 4] = [127, 0, 0, 1];
/// Kiss codes (RFC 5905 figure 13).
const INIT: [u8; 4] = *b"INIT";
const RATE: [u8; 4] = *b"RATE";
/// A client's burst of eight with two seconds in between, twice (RFC 5905 section 13).
const EACH: Allowance = Allowance { burst: 16, interval: Duration::from_secs(4) };
/// One kiss in so much time.
const KISSES: Allowance = Allowance { burst: 1, interval: Duration::from_secs(16) };
/// All phones together.
const ALL: Allowance = Allowance { burst: 2000, interval: Duration::from_millis(1) };
/// Askers that are told apart.
const ASKERS: usize = 4000;

/// A time as NTP writes it: seconds since 1900 and their fraction, 32 bits each, beginning again in 2036.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// That of a system's time.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        Self((since.as_secs().wrapping_add(TO_1970) << 32) | fraction)
    }
}

/// What a datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A request that is answered with the time.
    Answered,
    /// A request that is answered while the clock is not synchronised.
    Alarm,
    /// Its sender asks too fast and is told so.
    Kissed,
    /// Its sender asks too fast and has been told so.
    TooFast,
    /// It is a packet of another mode.
    OtherMode,
    /// It is shorter than a packet, or of a version that does not exist.
    Malformed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::Alarm, Self::Kissed, Self::TooFast, Self::OtherMode, Self::Malformed];

    /// The metrics' label.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Alarm => "alarm",
            Self::Kissed => "kissed",
            Self::TooFast => "too_fast",
            Self::OtherMode => "other_mode",
            Self::Malformed => "malformed",
        }
    }
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What it was.
    pub outcome: Outcome,
    /// Its version, if it is a packet.
    pub version: u8,
    /// The answer.
    pub payload: Option<[u8; PACKET]>,
}

/// The host's clock at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalClock {
    /// When the datagram arrived.
    pub received: SystemTime,
    /// When the answer leaves.
    pub now: SystemTime,
    /// What the kernel knows of the clock.
    pub kernel: KernelClock,
}

/// The state machine: it takes requests and the clock and returns answers.
#[derive(Debug)]
pub struct Server {
    stratum: u8,
    unsynchronised: Unsynchronised,
    rates: Rates<IpAddr>,
    kisses: Rates<IpAddr>,
    /// The last error that the kernel told, and when the clock was last seen to be corrected.
    corrected: Option<(Duration, SystemTime)>,
}

impl Server {
    /// `stratum` is told while the clock is synchronised.
    #[must_use]
    pub fn new(stratum: u8, unsynchronised: Unsynchronised) -> Self {
        Self {
            stratum,
            unsynchronised,
            rates: Rates::new(EACH, ALL, ASKERS),
            kisses: Rates::new(KISSES, ALL, ASKERS),
            corrected: None,
        }
    }

    /// Takes a datagram.
    pub fn receive(&mut self, now: Instant, source: IpAddr, datagram: &[u8], clock: LocalClock) -> Answer {
        let nothing = |outcome, version| Answer { outcome, version, payload: None };
        let (Some(&[first, _, poll]), Some(originate)) = (datagram.first_chunk::<3>(), originate(datagram))
        else {
            return nothing(Outcome::Malformed, 0);
        };
        let (version, mode) = (first >> 3 & 7, first & 7);
        if !VERSIONS.contains(&version) {
            return nothing(Outcome::Malformed, version);
        }
        if mode != CLIENT {
            return nothing(Outcome::OtherMode, version);
        }
        let (told, outcome) = match self.rates.admit(now, source) {
            Admission::Admitted => self.tell(clock),
            Admission::Crowded => return nothing(Outcome::TooFast, version),
            Admission::TooFast if self.kisses.admit(now, source) == Admission::Admitted => {
                (Told { reference: RATE, ..Told::UNSYNCHRONISED }, Outcome::Kissed)
            }
            Admission::TooFast => return nothing(Outcome::TooFast, version),
        };
        let mut packet = [0; PACKET];
        packet[0] = told.leap << 6 | version << 3 | SERVER;
        packet[1] = told.stratum;
        packet[2] = poll;
        packet[3] = PRECISION.cast_unsigned();
        // The root delay stays zero: the kernel's largest error has half of it in it already.
        packet[8..12].copy_from_slice(&told.dispersion.to_be_bytes());
        packet[12..16].copy_from_slice(&told.reference);
        packet[16..24].copy_from_slice(&told.corrected.0.to_be_bytes());
        packet[24..32].copy_from_slice(&originate);
        packet[32..40].copy_from_slice(&Timestamp::of(clock.received).0.to_be_bytes());
        packet[40..48].copy_from_slice(&Timestamp::of(clock.now).0.to_be_bytes());
        Answer { outcome, version, payload: Some(packet) }
    }

    /// What is told of the clock.
    fn tell(&mut self, clock: LocalClock) -> (Told, Outcome) {
        match (clock.kernel, self.unsynchronised) {
            (KernelClock::Synchronised { most_error, leap }, _) => {
                // The error grows steadily until the clock is corrected; the kernel does not tell when that was.
                let corrected = match self.corrected {
                    Some((before, at)) if most_error >= before => at,
                    _ => clock.now,
                };
                self.corrected = Some((most_error, corrected));
                let told = Told {
                    leap: match leap {
                        Leap::None => 0,
                        Leap::Insert => 1,
                        Leap::Delete => 2,
                    },
                    stratum: self.stratum,
                    dispersion: short(most_error),
                    reference: HOST_REFERENCE,
                    corrected: Timestamp::of(corrected),
                };
                (told, Outcome::Answered)
            }
            (KernelClock::Unsynchronised, Unsynchronised::Alarm) => {
                self.corrected = None;
                (Told::UNSYNCHRONISED, Outcome::Alarm)
            }
            (KernelClock::Unsynchronised, Unsynchronised::Local) => {
                self.corrected = None;
                let told = Told {
                    leap: 0,
                    stratum: LOCAL_STRATUM,
                    // A clock that is its own reference does not differ from it.
                    dispersion: 0,
                    reference: LOCAL_REFERENCE,
                    corrected: Timestamp::of(clock.now),
                };
                (told, Outcome::Answered)
            }
        }
    }
}

/// What an answer says of the clock.
struct Told {
    leap: u8,
    stratum: u8,
    dispersion: u32,
    reference: [u8; 4],
    corrected: Timestamp,
}

impl Told {
    /// Stratum 16 is written as 0, with a kiss code for a reference (RFC 5905 section 7.3).
    const UNSYNCHRONISED: Self =
        Self { leap: ALARM, stratum: 0, dispersion: 0, reference: INIT, corrected: Timestamp(0) };
}

/// The client's transmit timestamp, which is copied as it is (RFC 4330 section 5); none if this is no packet.
fn originate(datagram: &[u8]) -> Option<[u8; 8]> {
    datagram.get(PACKET - 8..PACKET)?.try_into().ok()
}

/// NTP's short format: seconds and their fraction, 16 bits each.
fn short(time: Duration) -> u32 {
    let sixteenths = (time.as_micros() << 16) / 1_000_000;
    u32::try_from(sixteenths).unwrap_or(u32::MAX)
}
