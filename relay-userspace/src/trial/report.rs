//! What came of a trial, and how many calls that is.

use serde::Serialize;

/// A codec as calls have it: what a packet carries, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Codec {
    /// Its name.
    pub name: &'static str,
    /// Bytes of a packet's payload.
    pub payload_bytes: u32,
    /// Milliseconds of sound in a packet.
    pub packet_ms: u32,
}

/// Ethernet, IPv4, UDP and RTP headers of a packet.
const HEADER_BYTES: u32 = 14 + 20 + 8 + 12;
/// What else a packet takes of a cable: preamble, check sequence, gap (IEEE 802.3).
const AROUND_BYTES: u32 = 8 + 4 + 12;

/// The codecs of the table. RFC 3551 section 4.5: G.711 and G.722 have 64 kbit/s, G.729 8 kbit/s. Opus varies; for fullband
/// speech RFC 7587 section 3.1.1 recommends 28 to 40 kbit/s.
pub const CODECS: [Codec; 4] = [
    Codec { name: "G.711", payload_bytes: 160, packet_ms: 20 },
    Codec { name: "G.722", payload_bytes: 160, packet_ms: 20 },
    Codec { name: "G.729", payload_bytes: 20, packet_ms: 20 },
    Codec { name: "Opus at 32 kbit/s", payload_bytes: 80, packet_ms: 20 },
];

impl Codec {
    /// Packets a second of a call, both directions together.
    #[must_use]
    pub const fn packets_of_a_call(&self) -> u32 {
        2 * 1000 / self.packet_ms
    }

    /// Bytes of a frame, without its check sequence.
    #[must_use]
    pub const fn frame_bytes(&self) -> u32 {
        HEADER_BYTES + self.payload_bytes
    }

    /// Bits a second that one direction of a call takes of a cable.
    #[must_use]
    pub const fn bits_of_a_direction(&self) -> u64 {
        (self.packets_of_a_call() / 2 * (self.frame_bytes() + AROUND_BYTES) * 8) as u64
    }
}

/// How many calls of a codec are carried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calls {
    /// The codec.
    #[serde(flatten)]
    pub codec: Codec,
    /// Bytes of a frame.
    pub frame_bytes: u32,
    /// Packets a second of a call.
    pub packets_per_second: u32,
    /// Calls at a time, by the rate that was held and by the cable.
    pub calls: u64,
    /// Whether it is the cable that allows no more.
    pub limited_by_cable: bool,
    /// Megabits a second that so many calls take in each direction of an interface.
    pub megabits_each_way: f64,
}

impl Calls {
    /// So many as a rate is, in packets a second, and as a cable takes, in bits a second.
    #[must_use]
    pub fn of(codec: Codec, rate: f64, cable: Option<u64>) -> Self {
        let by_rate = rate as u64 / u64::from(codec.packets_of_a_call());
        let by_cable = cable.map(|bits| bits / codec.bits_of_a_direction());
        let calls = by_cable.map_or(by_rate, |by_cable| by_cable.min(by_rate));
        Self {
            codec,
            frame_bytes: codec.frame_bytes(),
            packets_per_second: codec.packets_of_a_call(),
            calls,
            limited_by_cable: calls < by_rate,
            megabits_each_way: (calls * codec.bits_of_a_direction()) as f64 / 1e6,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived at the sink.
    pub arrived: u64,
    /// Packets that did not.
    pub lost: u64,
    /// For how long, in seconds: until the last had arrived.
    pub seconds: f64,
    /// Packets a second that arrived.
    pub packets_per_second: f64,
    /// Nanoseconds of the forwarding core for each packet that arrived.
    pub cpu_ns_per_packet: f64,
    /// The part of the forwarding core's time that was used, 0 to 1.
    pub busy: f64,
}

/// What allowed no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Generator and sink: the forwarding core had time left, and carries more than was found.
    Generator,
    /// The core that forwards.
    ForwardingCore,
    /// Moments in which a core did something else: queues overflowed although there was time left on the whole.
    Pauses,
}

impl Limit {
    /// A core that is busy for this part of the time has none left: it works off its queue in rounds.
    const FULL: f64 = 0.9;

    /// Below this part of what can be carried, by a core that is idle for more than that, loss is not for lack of time.
    const HALF: f64 = 0.5;

    /// By what was carried when more was sent than could be, and at the highest rate that was held.
    #[must_use]
    pub fn of(saturated: &Point, held: Option<&Point>) -> Self {
        let far_below = |held: &Point| {
            held.packets_per_second < Self::HALF * saturated.packets_per_second && held.busy < Self::HALF
        };
        if held.is_none_or(far_below) {
            Self::Pauses
        } else if saturated.busy >= Self::FULL {
            Self::ForwardingCore
        } else {
            Self::Generator
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The interfaces that it was given; none where it made its own.
    pub between: Option<[String; 2]>,
    /// How the program was attached: `native`, `generic`.
    pub mode: String,
    /// Cores of this machine that this process may use.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// The processor.
    pub processor: String,
    /// Streams that took turns.
    pub streams: usize,
    /// Bytes of a frame, without its check sequence.
    pub frame_bytes: u32,
    /// Receive queues of the interface at which packets arrived; one core works on one.
    pub queues: usize,
    /// Megabits a second of the cable, where the interface says.
    pub cable_megabits: Option<u64>,
    /// When more was sent than could be carried.
    pub saturated: Point,
    /// At the highest rate that was held; none if none was.
    pub held: Option<Point>,
    /// What allowed no more.
    pub limit: Limit,
    /// Calls by codec, on one core.
    pub calls: Vec<Calls>,
    /// Runs, and packets of all of them.
    pub runs: u32,
    /// Packets that were sent in all.
    pub packets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_two_directions_of_fifty_packets_a_second() {
        for (codec, frame, calls) in CODECS
            .iter()
            .zip([214, 214, 74, 134])
            .map(|(codec, frame)| (codec, frame, Calls::of(*codec, 1_000_099.0, None)))
        {
            assert_eq!(codec.frame_bytes(), frame, "{}", codec.name);
            assert_eq!((calls.calls, calls.packets_per_second), (10_000, 100), "{}", codec.name);
        }
    }

    #[test]
    fn a_cable_may_allow_fewer_calls_than_the_processor() {
        // 214 bytes and 24 around them, 50 times a second: 95,200 bits each way.
        let calls = Calls::of(CODECS[0], 1_000_000.0, Some(100_000_000));
        assert_eq!((calls.calls, calls.limited_by_cable), (1050, true));
        assert!((calls.megabits_each_way - 99.96).abs() < 0.001, "{}", calls.megabits_each_way);
        let calls = Calls::of(CODECS[0], 10_000.0, Some(100_000_000));
        assert_eq!((calls.calls, calls.limited_by_cable), (100, false));
    }

    #[test]
    fn the_limit_is_named_by_what_was_busy() {
        let point = |packets_per_second, busy| Point {
            sent: 1,
            arrived: 1,
            lost: 0,
            seconds: 1.0,
            packets_per_second,
            cpu_ns_per_packet: 1.0,
            busy,
        };
        for (what, saturated, held, expected) in [
            ("time left", point(1e6, 0.89), Some(point(9e5, 0.8)), Limit::Generator),
            ("none left", point(1e6, 0.9), Some(point(9e5, 0.8)), Limit::ForwardingCore),
            ("lost far below, and idle", point(1e6, 1.0), Some(point(4e5, 0.3)), Limit::Pauses),
            ("lost far below, and busy", point(1e6, 1.0), Some(point(4e5, 0.6)), Limit::ForwardingCore),
            ("lost at every rate", point(1e6, 1.0), None, Limit::Pauses),
        ] {
            assert_eq!(Limit::of(&saturated, held.as_ref()), expected, "{what}");
        }
    }
}
