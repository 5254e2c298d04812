//! What is wrong with a stream, by name: a state machine over what is seen of its two directions every few seconds.
//!
//! Silence is not loss: a sender that suppresses it sends few packets, but their sequence numbers have no holes, each talk
//! spurt begins with a marked packet (RFC 3551 section 4.1), and comfort noise (RFC 3389) may come in between. And what
//! nobody wants is no fault: a direction that is on hold is not missed.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long after the answer, and after a hold, a party should be heard; and how long it may be silent without a word.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// How long one that suppresses silence may be silent: comfort noise is sent now and then, speech comes back.
const SUPPRESSED_FOR: Duration = Duration::from_secs(60);
/// Packets a second below which a sender does not send all the time: packets of 60 ms are 16 a second.
const STEADY: f64 = 12.0;
/// Time between two looks below which a rate says nothing.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
/// Packets before loss is judged over the whole stream, and since the last look.
const ENOUGH: u64 = 200;
const ENOUGH_RECENTLY: u64 = 80;
/// Loss that is heard, in percent, over the whole stream and since the last look.
const AUDIBLE: f64 = 1.0;
const AUDIBLE_RECENTLY: f64 = 3.0;
/// Jitter that phones' buffers do not take, in milliseconds: they begin at 40, and jitter is an average.
const UNEVEN_MS: f64 = 30.0;

/// What is the matter with a stream or with one direction of it, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is too early to tell.
    Starting,
    /// Nobody is meant to send.
    Held,
    /// Nothing.
    Ok,
    /// Few packets, and all of them: the sender sends none while nobody speaks.
    SilenceSuppressed,
    /// Packets come unevenly.
    HighJitter,
    /// Packets are lost.
    Lossy,
    /// One party is not heard.
    OneWayAudio,
    /// Neither party is heard.
    NoAudio,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Held,
        Self::Ok,
        Self::SilenceSuppressed,
        Self::HighJitter,
        Self::Lossy,
        Self::OneWayAudio,
        Self::NoAudio,
    ];

    /// The name in metrics, views and logs.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Held => "held",
            Self::Ok => "ok",
            Self::SilenceSuppressed => "silence_suppressed",
            Self::HighJitter => "high_jitter",
            Self::Lossy => "lossy",
            Self::OneWayAudio => "one_way_audio",
            Self::NoAudio => "no_audio",
        }
    }
}

/// Where packets of a direction are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between the sender and the appliance: it has seen the holes.
    Before,
    /// Between the appliance and the receiver: the receiver reports more loss than passed here.
    Beyond,
}

/// Whether signalling wants a direction to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It does.
    Sound,
    /// It does not: on hold, or one-way by agreement.
    Silence,
}

/// What is seen of one direction at a moment: totals since its beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Whether it is meant to be sent.
    pub wish: Wish,
    /// RTP packets that should have arrived.
    pub expected: u64,
    /// Those that did not.
    pub lost: u64,
    /// Packets with the marker bit.
    pub markers: u32,
    /// Packets of comfort noise.
    pub comfort_noise: u32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// Loss beyond the appliance in percent, if the receiver reports.
    pub beyond_percent: Option<f64>,
}

impl Sight {
    fn received(&self) -> u64 {
        self.expected.saturating_sub(self.lost)
    }

    fn suppresses(&self) -> bool {
        // The first packet of every stream is marked.
        self.comfort_noise > 0 || self.markers > 1
    }
}

/// What is found of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// What. [`Verdict::NoAudio`] and [`Verdict::OneWayAudio`] of a direction: this one is not heard.
    pub verdict: Verdict,
    /// Where, for loss.
    pub place: Option<Place>,
}

impl Finding {
    const fn of(verdict: Verdict) -> Self {
        Self { verdict, place: None }
    }
}

/// One direction over time.
#[derive(Debug, Clone, Copy)]
struct Track {
    last: Option<(Instant, Sight)>,
    /// Since when it is wanted again, after a hold.
    resumed: Option<Instant>,
    /// When packets were last seen to have come.
    progress: Option<Instant>,
    finding: Finding,
}

impl Track {
    const NEW: Self =
        Self { last: None, resumed: None, progress: None, finding: Finding::of(Verdict::Starting) };

    fn look(&mut self, now: Instant, answered: Option<Instant>, sight: &Sight) {
        let before = self.last.map_or(0, |(_, before)| before.received());
        if sight.received() != before {
            self.progress = Some(now);
        }
        self.finding = match (sight.wish, answered) {
            (Wish::Silence, _) => Finding::of(Verdict::Held),
            (Wish::Sound, None) => Finding::of(Verdict::Starting),
            (Wish::Sound, Some(answered)) => {
                if self.finding.verdict == Verdict::Held {
                    self.resumed = Some(now);
                }
                self.judge(now, self.resumed.map_or(answered, |resumed| resumed.max(answered)), sight)
            }
        };
        // Two looks in quick succession are one: rates over a moment say nothing.
        if self.last.is_none_or(|(at, _)| now.saturating_duration_since(at) >= LONG_ENOUGH) {
            self.last = Some((now, *sight));
        }
    }

    fn judge(&self, now: Instant, wanted: Instant, sight: &Sight) -> Finding {
        let since = self.progress.map_or(wanted, |progress| progress.max(wanted));
        let silent = now.saturating_duration_since(since);
        if sight.received() == 0 || silent >= HEARD_WITHIN {
            let verdict = if silent < HEARD_WITHIN {
                Verdict::Starting
            } else if sight.suppresses() && silent < SUPPRESSED_FOR {
                Verdict::SilenceSuppressed
            } else {
                Verdict::OneWayAudio
            };
            return Finding::of(verdict);
        }
        let percent = |lost: u64, expected: u64| lost as f64 * 100.0 / expected as f64;
        let recent = self.last.filter(|(at, _)| now.saturating_duration_since(*at) >= LONG_ENOUGH);
        let recent = recent.map(|(at, before)| {
            let (lost, expected) =
                (sight.lost.saturating_sub(before.lost), sight.expected.saturating_sub(before.expected));
            (now.saturating_duration_since(at), lost, expected)
        });
        let lossy = (sight.expected >= ENOUGH && percent(sight.lost, sight.expected) >= AUDIBLE)
            || recent.is_some_and(|(_, lost, expected)| {
                expected >= ENOUGH_RECENTLY && percent(lost, expected) >= AUDIBLE_RECENTLY
            });
        if lossy {
            return Finding { verdict: Verdict::Lossy, place: Some(Place::Before) };
        }
        if sight.expected >= ENOUGH && sight.beyond_percent.is_some_and(|beyond| beyond >= AUDIBLE) {
            return Finding { verdict: Verdict::Lossy, place: Some(Place::Beyond) };
        }
        if sight.jitter_ms >= UNEVEN_MS {
            return Finding::of(Verdict::HighJitter);
        }
        let sparse = recent.is_some_and(|(time, lost, expected)| {
            lost == 0 && (expected as f64) < STEADY * time.as_secs_f64()
        });
        Finding::of(if sparse && sight.suppresses() { Verdict::SilenceSuppressed } else { Verdict::Ok })
    }
}

/// A stream over time.
#[derive(Debug, Clone)]
pub struct Watch {
    tracks: [Track; 2],
    verdict: Verdict,
    worst: Verdict,
}

impl Default for Watch {
    fn default() -> Self {
        Self { tracks: [Track::NEW; 2], verdict: Verdict::Starting, worst: Verdict::Starting }
    }
}

impl Watch {
    /// Takes what is seen of both directions now. `answered` is when the call was; none before.
    pub fn look(&mut self, now: Instant, answered: Option<Instant>, sights: &[Sight; 2]) {
        for (track, sight) in self.tracks.iter_mut().zip(sights) {
            track.look(now, answered, sight);
        }
        let verdicts = self.tracks.map(|track| track.finding.verdict);
        let wanted = verdicts.iter().filter(|verdict| **verdict != Verdict::Held).count();
        let missing = verdicts.iter().filter(|verdict| **verdict == Verdict::OneWayAudio).count();
        self.verdict = match (wanted, missing) {
            (1.., missing) if missing == wanted => Verdict::NoAudio,
            _ => verdicts.into_iter().max().unwrap_or(Verdict::Starting),
        };
        self.worst = self.worst.max(self.verdict);
    }

    /// What is the matter with the stream.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The worst that was the matter with it so far.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.worst
    }

    /// What is the matter with each direction.
    #[must_use]
    pub fn findings(&self) -> [Finding; 2] {
        self.tracks.map(|track| track.finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a made-up direction behaves.
    #[derive(Clone, Copy)]
    struct Script {
        /// Packets sent in a second.
        rate: u64,
        /// Of a hundred packets, those that are lost before the appliance.
        lost: u64,
        /// Marked packets in a second.
        markers: u32,
        comfort_noise: u32,
        jitter_ms: f64,
        beyond: Option<f64>,
        wish: Wish,
    }

    const STEADILY: Script = Script {
        rate: 50,
        lost: 0,
        markers: 0,
        comfort_noise: 0,
        jitter_ms: 1.0,
        beyond: None,
        wish: Wish::Sound,
    };
    const NOTHING: Script = Script { rate: 0, ..STEADILY };
    const HELD: Script = Script { rate: 0, wish: Wish::Silence, ..STEADILY };

    /// Two directions that were answered, looked at every five seconds through parts of so many looks each.
    fn watched(parts: &[(u64, [Script; 2])]) -> Watch {
        let start = Instant::now();
        let mut watch = Watch::default();
        let mut totals = [(0, 0, 0, 0); 2];
        let mut round = 0;
        for (looks, scripts) in parts {
            for _ in 0..*looks {
                round += 1;
                let mut sights = scripts.iter().zip(&mut totals).map(|(script, totals)| {
                    let sent = script.rate * 5;
                    totals.0 += sent;
                    totals.1 += sent * script.lost / 100;
                    totals.2 += script.markers * 5;
                    totals.3 += script.comfort_noise * 5;
                    Sight {
                        wish: script.wish,
                        expected: totals.0,
                        lost: totals.1,
                        markers: totals.2 + u32::from(totals.0 > 0),
                        comfort_noise: totals.3,
                        jitter_ms: script.jitter_ms,
                        beyond_percent: script.beyond,
                    }
                });
                let sights = [sights.next().unwrap(), sights.next().unwrap()];
                watch.look(start + Duration::from_secs(5 * round), Some(start), &sights);
            }
        }
        watch
    }

    #[test]
    fn each_trouble_is_told_from_the_others() {
        let lossy = Script { lost: 4, ..STEADILY };
        let beyond = Script { beyond: Some(5.0), ..STEADILY };
        let quiet = Script { rate: 4, markers: 1, ..STEADILY };
        let noise = Script { rate: 1, comfort_noise: 1, ..STEADILY };
        let uneven = Script { jitter_ms: 45.0, ..STEADILY };
        use Verdict::{Held, HighJitter, Lossy, NoAudio, Ok, OneWayAudio, SilenceSuppressed, Starting};
        type Row<'a> = (&'a str, &'a [(u64, [Script; 2])], Verdict, [Verdict; 2], Verdict);
        let rows: [Row<'_>; 16] = [
            ("both speak", &[(6, [STEADILY; 2])], Ok, [Ok, Ok], Ok),
            ("it has just been answered", &[(1, [NOTHING; 2])], Starting, [Starting; 2], Starting),
            ("nobody ever sends", &[(3, [NOTHING; 2])], NoAudio, [OneWayAudio; 2], NoAudio),
            (
                "the first one never sends",
                &[(3, [NOTHING, STEADILY])],
                OneWayAudio,
                [OneWayAudio, Ok],
                OneWayAudio,
            ),
            (
                "the second one stops",
                &[(4, [STEADILY; 2]), (3, [STEADILY, NOTHING])],
                OneWayAudio,
                [Ok, OneWayAudio],
                OneWayAudio,
            ),
            ("it was silent for a moment", &[(4, [STEADILY; 2]), (1, [STEADILY, NOTHING])], Ok, [Ok, Ok], Ok),
            (
                "it was silent for long and is back",
                &[(4, [STEADILY; 2]), (3, [STEADILY, NOTHING]), (2, [STEADILY; 2])],
                Ok,
                [Ok, Ok],
                OneWayAudio,
            ),
            ("packets are lost on the way here", &[(6, [lossy, STEADILY])], Lossy, [Lossy, Ok], Lossy),
            ("packets are lost behind us", &[(6, [STEADILY, beyond])], Lossy, [Ok, Lossy], Lossy),
            (
                "few packets, marked, none lost",
                &[(6, [quiet, STEADILY])],
                SilenceSuppressed,
                [SilenceSuppressed, Ok],
                SilenceSuppressed,
            ),
            (
                "comfort noise",
                &[(6, [noise, STEADILY])],
                SilenceSuppressed,
                [SilenceSuppressed, Ok],
                SilenceSuppressed,
            ),
            (
                "comfort noise, then a pause",
                &[(6, [noise, STEADILY]), (4, [NOTHING, STEADILY])],
                SilenceSuppressed,
                [SilenceSuppressed, Ok],
                SilenceSuppressed,
            ),
            (
                "comfort noise, then nothing for good",
                &[(6, [noise, STEADILY]), (13, [NOTHING, STEADILY])],
                OneWayAudio,
                [OneWayAudio, Ok],
                OneWayAudio,
            ),
            ("uneven", &[(6, [STEADILY, uneven])], HighJitter, [Ok, HighJitter], HighJitter),
            ("held, both ways", &[(4, [STEADILY; 2]), (9, [HELD; 2])], Held, [Held, Held], Ok),
            (
                "resumed, and one side is not heard again",
                &[(4, [STEADILY; 2]), (9, [HELD; 2]), (4, [STEADILY, NOTHING])],
                OneWayAudio,
                [Ok, OneWayAudio],
                OneWayAudio,
            ),
        ];
        for (description, parts, verdict, findings, worst) in rows {
            let watch = watched(parts);
            let found = watch.findings().map(|finding| finding.verdict);
            assert_eq!((watch.verdict(), found, watch.worst()), (verdict, findings, worst), "{description}");
        }
    }

    #[test]
    fn loss_is_told_with_its_place() {
        let lossy = Script { lost: 4, beyond: Some(0.0), ..STEADILY };
        let beyond = Script { beyond: Some(5.0), ..STEADILY };
        let places = watched(&[(6, [lossy, beyond])]).findings().map(|finding| finding.place);
        assert_eq!(places, [Some(Place::Before), Some(Place::Beyond)]);
    }

    #[test]
    fn loss_that_begins_late_in_a_long_call_is_found_at_once() {
        let lossy = Script { lost: 5, ..STEADILY };
        let watch = watched(&[(700, [STEADILY; 2]), (1, [lossy, STEADILY])]);
        assert_eq!(watch.verdict(), Verdict::Lossy);
    }

    #[test]
    fn music_on_hold_is_one_way_by_agreement_and_missed_when_it_does_not_play() {
        let music = watched(&[(4, [STEADILY; 2]), (5, [STEADILY, HELD])]);
        assert_eq!(music.verdict(), Verdict::Ok);
        let silence = watched(&[(4, [STEADILY; 2]), (5, [NOTHING, HELD])]);
        assert_eq!(silence.verdict(), Verdict::NoAudio, "the one direction that is wanted is missing");
    }

    #[test]
    fn a_call_that_only_rings_is_not_judged() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let nothing = Sight {
            wish: Wish::Sound,
            expected: 0,
            lost: 0,
            markers: 0,
            comfort_noise: 0,
            jitter_ms: 0.0,
            beyond_percent: None,
        };
        for round in 0..20 {
            watch.look(start + Duration::from_secs(5 * round), None, &[nothing; 2]);
        }
        assert_eq!(watch.verdict(), Verdict::Starting);
        watch.look(start + Duration::from_secs(105), Some(start + Duration::from_secs(100)), &[nothing; 2]);
        assert_eq!(watch.verdict(), Verdict::Starting, "answered five seconds ago");
        watch.look(start + Duration::from_secs(110), Some(start + Duration::from_secs(100)), &[nothing; 2]);
        assert_eq!(watch.verdict(), Verdict::NoAudio);
    }
}
