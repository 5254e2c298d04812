//! The quality of the calls: what is seen of them goes to the room of quality every few seconds and at their end, and its
//! figures to the views, the metrics and the log.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use relay_ebpf::FlowKind;
use tracing::info;

use crate::{
    datapath::{Engine, FlowReport},
    media::{Sessions, StreamReport},
    net::NetworkId,
    quality::{
        Book, DirectionQuality, Figures, Finding, Heard, Place, Seen, Sight, StreamQuality, Verdict, Watch,
        assess,
    },
};

/// Ended calls whose figures are remembered: as many as the proxy remembers.
const REMEMBERED: usize = 1_000;

/// What is known of a stream besides its packets.
#[derive(Debug)]
pub(super) struct StreamFacts {
    report: StreamReport,
    /// What each party's RTCP said.
    heard: [Option<Heard>; 2],
}

impl StreamFacts {
    /// Of every stream of a session.
    pub(super) fn of(sessions: &Sessions, book: &Book, call: &[u8]) -> Vec<Self> {
        let streams = sessions.query(call).map(|session| session.streams).unwrap_or_default();
        let heard = |[rtp, rtcp]: [SocketAddr; 2]| book.heard(rtcp).or_else(|| book.heard(rtp)).cloned();
        streams.into_iter().map(|report| Self { heard: report.ends.map(heard), report }).collect()
    }
}

/// What is kept of a stream between two looks, and shown in lists: of thousands, so it is no more than that.
#[derive(Debug)]
struct Looked {
    /// The local ends of its RTP: whose watch it is.
    ends: [SocketAddr; 2],
    watch: Watch,
    /// The lower of its directions' scores.
    mos: Option<f64>,
}

/// What a look at a stream has shown.
#[derive(Debug)]
pub(super) struct Look {
    kind: String,
    pub(super) verdict: Verdict,
    worst: Verdict,
    /// From the party of the first offer, and to it.
    pub(super) found: [Found; 2],
}

impl Look {
    /// As it is shown.
    pub(super) fn quality(&self) -> StreamQuality {
        let directions: Vec<DirectionQuality> = self.found.iter().map(direction).collect();
        StreamQuality {
            kind: self.kind.clone(),
            verdict: self.verdict,
            worst: self.worst,
            what: words(self.verdict, &directions),
            directions,
        }
    }
}

/// What was found of a direction, for the symptoms.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) network: Arc<str>,
    pub(super) to_network: Arc<str>,
    pub(super) report: FlowReport,
    pub(super) figures: Figures,
}

/// A call as it was last looked at.
#[derive(Debug, Default)]
struct Call {
    answered: Option<Instant>,
    streams: Vec<Looked>,
}

/// All calls' figures.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The networks' names.
    networks: Vec<Arc<str>>,
    calls: HashMap<Vec<u8>, Call>,
    /// Those of calls that have ended, the oldest first.
    ended: VecDeque<(Vec<u8>, Vec<StreamQuality>)>,
    /// Those that nobody has entered into the metrics yet.
    finished: Vec<StreamQuality>,
}

impl Ledger {
    pub(super) fn new(networks: &[String]) -> Self {
        let networks = networks.iter().map(|name| name.as_str().into()).collect();
        Self { networks, calls: HashMap::new(), ended: VecDeque::new(), finished: Vec::new() }
    }

    /// Looks at a call, at each of its streams.
    pub(super) fn look(
        &mut self,
        now: Instant,
        engine: &Engine,
        call: &[u8],
        answered: Option<Instant>,
        facts: Vec<StreamFacts>,
    ) -> Vec<Look> {
        let mut known = self.calls.remove(call).unwrap_or_default();
        known.answered = answered.or(known.answered);
        let (mut streams, mut found) = (Vec::with_capacity(facts.len()), Vec::with_capacity(facts.len()));
        for facts in facts {
            let ends = facts.report.ends.map(|[rtp, _]| rtp);
            let [Some(a), Some(b)] = ends.map(|rtp| engine.report(rtp)) else { continue };
            if a.spec.kind != FlowKind::Rtp {
                continue;
            }
            let before = known.streams.iter().position(|looked| looked.ends == ends);
            let watch = before.map(|index| known.streams.swap_remove(index).watch).unwrap_or_default();
            let (looked, look) = self.look_at_stream(now, known.answered, facts, [a, b], watch);
            found.push(look);
            streams.push(looked);
        }
        known.streams = streams;
        self.calls.insert(call.to_vec(), known);
        found
    }

    fn look_at_stream(
        &self,
        now: Instant,
        answered: Option<Instant>,
        facts: StreamFacts,
        [a, b]: [FlowReport; 2],
        mut watch: Watch,
    ) -> (Looked, Look) {
        let StreamFacts { report: stream, heard: [from_a, from_b] } = facts;
        let figures = |flow: &FlowReport, sender: &Option<Heard>, receiver: &Option<Heard>| {
            assess(&Seen {
                stats: &flow.stats,
                clock_rate: flow.spec.clock_rate,
                formats: &stream.formats,
                sender: sender.as_ref(),
                receiver: receiver.as_ref(),
            })
        };
        let figures = [figures(&a, &from_a, &from_b), figures(&b, &from_b, &from_a)];
        let sight = |flow: &FlowReport, figures: &Figures, wish| Sight {
            wish,
            expected: flow.stats.expected(),
            lost: flow.stats.lost(),
            markers: flow.stats.markers,
            comfort_noise: flow.stats.comfort_noise,
            jitter_ms: figures.jitter_ms.unwrap_or_default(),
            beyond_percent: figures.beyond_percent,
        };
        let sights = [sight(&a, &figures[0], stream.wishes[0]), sight(&b, &figures[1], stream.wishes[1])];
        watch.look(now, answered, &sights);
        let findings = watch.findings();
        let names = [self.name(a.spec.from), self.name(b.spec.from)];
        let [figures_a, figures_b] = figures;
        let found = [
            Found {
                finding: findings[0],
                network: names[0].clone(),
                to_network: names[1].clone(),
                report: a,
                figures: figures_a,
            },
            Found {
                finding: findings[1],
                network: names[1].clone(),
                to_network: names[0].clone(),
                report: b,
                figures: figures_b,
            },
        ];
        let scores = found
            .iter()
            .filter_map(|found| score(found.figures.mos_conversational, found.figures.mos_listening));
        let mos = scores.min_by(f64::total_cmp);
        let (verdict, worst) = (watch.verdict(), watch.worst());
        let look = Look { kind: stream.kind, verdict, worst, found };
        (Looked { ends: stream.ends.map(|[rtp, _]| rtp), watch, mos }, look)
    }

    fn name(&self, network: NetworkId) -> Arc<str> {
        self.networks.get(network.index()).cloned().unwrap_or_else(|| network.to_string().into())
    }

    /// Looks at a call for the last time, and keeps what is seen.
    pub(super) fn end(&mut self, now: Instant, engine: &Engine, call: &[u8], facts: Vec<StreamFacts>) {
        let streams: Vec<StreamQuality> =
            self.look(now, engine, call, None, facts).iter().map(Look::quality).collect();
        self.calls.remove(call);
        for stream in &streams {
            info!(target: "branchline::media", call = %String::from_utf8_lossy(call), "{}", line(stream));
        }
        self.finished.extend(streams.iter().cloned());
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((call.to_vec(), streams));
    }

    /// What has ended since this was asked last.
    pub(super) fn take_finished(&mut self) -> Vec<StreamQuality> {
        std::mem::take(&mut self.finished)
    }

    /// Forgets calls that do not stand any more and did not end by [`Ledger::end`].
    pub(super) fn keep_only(&mut self, standing: &HashSet<&[u8]>) {
        self.calls.retain(|call, _| standing.contains(call.as_slice()));
    }

    /// The verdict on a call and its lowest score, as it was last looked at; of one that has ended, the worst verdict.
    pub(super) fn summary(&self, call: &[u8], ended: bool) -> (Option<Verdict>, Option<f64>) {
        let standing = self.calls.get(call).map(|call| {
            let verdict = |looked: &Looked| if ended { looked.watch.worst() } else { looked.watch.verdict() };
            let scores = call.streams.iter().filter_map(|looked| looked.mos);
            (call.streams.iter().map(verdict).max(), scores.min_by(f64::total_cmp))
        });
        standing.unwrap_or_else(|| {
            let streams = self.ended(call);
            let ways = streams.iter().flat_map(|stream| &stream.directions);
            let scores = ways.filter_map(|way| score(way.mos_conversational, way.mos_listening));
            (streams.iter().map(|stream| stream.worst).max(), scores.min_by(f64::total_cmp))
        })
    }

    /// The streams of a call that has ended, as they were looked at last.
    pub(super) fn ended(&self, call: &[u8]) -> &[StreamQuality] {
        let ended = self.ended.iter().rev().find(|(key, _)| key == call);
        ended.map_or(&[], |(_, streams)| streams)
    }
}

/// The score that is shown of a direction: with delay, where that is known.
fn score(conversational: Option<f64>, listening: Option<f64>) -> Option<f64> {
    conversational.or(listening)
}

fn milliseconds(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn direction(found: &Found) -> DirectionQuality {
    let Found { finding, network, to_network, report, figures } = found;
    let stats = &report.stats;
    let reported = figures.reported;
    let source = report.learned.map(|(source, _)| source).or(report.spec.signalled);
    DirectionQuality {
        network: network.to_string(),
        to_network: to_network.to_string(),
        source: source.map(|source| source.to_string()),
        verdict: finding.verdict,
        what: direction_words(found),
        codec: figures.codec.map(|codec| codec.name.to_owned()),
        expected: stats.expected(),
        received: stats.expected().saturating_sub(stats.lost()),
        lost: stats.lost(),
        duplicates: stats.duplicates,
        reordered: stats.reordered,
        loss_percent: figures.loss_percent,
        burst_ratio: figures.burst_ratio,
        jitter_ms: figures.jitter_ms,
        reported_lost: reported.map(|reported| reported.lost),
        reported_loss_percent: reported.map(|reported| reported.loss_percent),
        reported_recent_loss_percent: reported.map(|reported| reported.recent_loss_percent),
        reported_jitter_ms: reported.map(|reported| reported.jitter_ms),
        reported_discarded_percent: reported.and_then(|reported| reported.discarded_percent),
        reported_mos_listening: reported.and_then(|reported| reported.mos_listening),
        reported_mos_conversational: reported.and_then(|reported| reported.mos_conversational),
        round_trip_ms: figures.round_trip.map(milliseconds),
        one_way_ms: figures.one_way_ms,
        scale: figures.scale().map(|scale| scale.as_label().to_owned()),
        r_factor: figures.rating,
        mos_listening: figures.mos_listening,
        mos_conversational: figures.mos_conversational,
    }
}

/// What is the matter with a direction, with its side.
fn direction_words(found: &Found) -> String {
    let Found { finding, network, to_network, report, figures } = found;
    match (finding.verdict, finding.place) {
        (Verdict::Starting, _) => "too early to tell".to_owned(),
        (Verdict::Held, _) => format!("{network} is not meant to send: hold, or one-way by agreement"),
        (Verdict::Ok, _) => "ok".to_owned(),
        (Verdict::SilenceSuppressed, _) => {
            format!("{network} sends only while somebody speaks; nothing is missing")
        }
        (Verdict::HighJitter, _) => format!(
            "packets from {network} come unevenly: {:.0} ms of jitter",
            figures.jitter_ms.unwrap_or_default()
        ),
        (Verdict::Lossy, Some(Place::Beyond)) => format!(
            "{:.1} % lost between the appliance and {to_network}, as its RTCP reports",
            figures.beyond_percent.unwrap_or_default()
        ),
        (Verdict::Lossy, _) => format!(
            "{:.1} % lost between {network} and the appliance",
            figures.loss_percent.unwrap_or_default()
        ),
        (Verdict::OneWayAudio | Verdict::NoAudio, _) => {
            let mut text = match report.learned.map(|(source, _)| source).or(report.spec.signalled) {
                Some(source) => format!("nothing comes from {network} ({source})"),
                None => format!("nothing comes from {network}"),
            };
            if let Some(refused) = report.refused.first() {
                let _ = write!(
                    text,
                    "; {} packets from {} were refused: it sends from another address than it says",
                    report.refused_packets, refused.source
                );
            } else if report.stats.wrong_source > 0 {
                let _ = write!(text, "; {} packets from elsewhere were dropped", report.stats.wrong_source);
            }
            text
        }
    }
}

/// What is the matter with a stream.
fn words(verdict: Verdict, directions: &[DirectionQuality]) -> String {
    let wrong = directions.iter().filter(|direction| direction.verdict > Verdict::Ok);
    let parts: Vec<&str> = wrong.map(|direction| direction.what.as_str()).collect();
    match verdict {
        Verdict::Ok => "ok".to_owned(),
        Verdict::Starting => "too early to tell".to_owned(),
        Verdict::Held => "on hold".to_owned(),
        Verdict::NoAudio => format!("nobody is heard: {}", parts.join("; ")),
        _ => parts.join("; "),
    }
}

/// A stream in a line of the log.
fn line(stream: &StreamQuality) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut text = format!("{} ended: {}", stream.kind, stream.worst.as_label());
    for way in &stream.directions {
        let _ = write!(
            text,
            "; {} to {}: MOS {} of {} packets, {} % lost, {} % as reported, jitter {} ms, round trip {} ms",
            way.network,
            way.to_network,
            number(score(way.mos_conversational, way.mos_listening), 2),
            way.expected,
            number(way.loss_percent, 1),
            number(way.reported_loss_percent, 1),
            number(way.jitter_ms, 1),
            number(way.round_trip_ms, 1),
        );
    }
    text
}
