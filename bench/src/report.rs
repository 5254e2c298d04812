//! The report: tables from the raw data, in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::appliance::Way;
use crate::contender::{Contender, Media};
use crate::latency::{PERCENTS, quantile};
use crate::record::{Line, Measure, Record};
use crate::streams;
use crate::traffic::Floor;

/// Median, smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of figures; none of none.
    #[must_use]
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[half]
        } else {
            f64::midpoint(figures[half - 1], figures[half])
        };
        Some(Self { median, min, max })
    }

    pub(crate) fn ratio(self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

/// What is read of a run.
pub(crate) type Figure = fn(&Line) -> f64;

/// Packets a second that arrived.
pub(crate) fn rate(line: &Line) -> f64 {
    line.trial.rate()
}

/// Nanoseconds of CPU for each packet.
pub(crate) fn cost(line: &Line) -> f64 {
    line.trial.cpu_ns()
}

/// The part of what was sent that did not arrive.
pub(crate) fn lost(line: &Line) -> f64 {
    line.trial.ran.lost() as f64 / line.trial.ran.sent.max(1) as f64
}

/// Part of the forwarding core's time.
pub(crate) fn busy(line: &Line) -> f64 {
    line.trial.busy()
}

/// The run of a round that counts: of the search, the fastest that was held.
fn of_round(record: &Record, frame: usize, contender: Contender, measure: Measure) -> BTreeMap<usize, &Line> {
    let mut found: BTreeMap<usize, &Line> = BTreeMap::new();
    let fitting = record.lines.iter().filter(|line| {
        line.contender == contender && line.measure == measure && line.trial.load.frame == frame
    });
    for line in fitting {
        let best = found.entry(line.round).or_insert(line);
        if rate(line) > rate(best) {
            *best = line;
        }
    }
    found
}

/// A figure over the rounds.
#[must_use]
pub(crate) fn spread(
    record: &Record,
    frame: usize,
    contender: Contender,
    measure: Measure,
    figure: Figure,
) -> Option<Spread> {
    Spread::of(of_round(record, frame, contender, measure).values().map(|line| figure(line)).collect())
}

/// A figure as a multiple of another contender's in the same round, over the rounds.
#[must_use]
pub(crate) fn ratios(
    record: &Record,
    frame: usize,
    [contender, to]: [Contender; 2],
    measure: Measure,
    figure: Figure,
) -> Option<Spread> {
    let own = of_round(record, frame, contender, measure);
    let other = of_round(record, frame, to, measure);
    Spread::of(
        own.iter().filter_map(|(round, line)| Some(figure(line) / figure(other.get(round)?))).collect(),
    )
}

/// The highest rate held, over the rounds: none at all in those in which none of the rates that were tried was.
#[must_use]
pub(crate) fn held(record: &Record, frame: usize, contender: Contender) -> Option<Spread> {
    let held = of_round(record, frame, contender, Measure::SearchHeld);
    let lost = of_round(record, frame, contender, Measure::SearchLost);
    let rounds: BTreeSet<usize> = held.keys().chain(lost.keys()).copied().collect();
    Spread::of(rounds.iter().map(|round| held.get(round).map_or(0.0, |line| rate(line))).collect())
}

fn shown(spread: Option<Spread>, show: impl Fn(Spread) -> String) -> String {
    spread.map_or_else(|| "-".to_owned(), show)
}

fn contenders(record: &Record) -> Vec<Contender> {
    Contender::ALL.into_iter().filter(|it| record.lines.iter().any(|line| line.contender == *it)).collect()
}

/// Packets a second, and what a packet costs.
#[must_use]
pub(crate) fn throughput(record: &Record, frame: usize) -> String {
    let mut text = String::from(
        "| contender | arrives at saturation, packets/s | x floor | core busy | highest rate held, packets/s | \
         CPU ns per packet: at saturation | x floor | at the highest rate held | at 50,000/s | x floor | lost at 50,000/s |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for contender in contenders(record) {
        let pair = [contender, Contender::FLOOR];
        let at = |measure, figure| spread(record, frame, contender, measure, figure);
        let whole = |spread: Spread| format!("{:.0}", spread.median);
        let with_ends = |it: Spread| format!("{:.0} ({:.0}-{:.0})", it.median, it.min, it.max);
        let with_most = |it: Spread| format!("{:.3} % (at most {:.3})", it.median * 100.0, it.max * 100.0);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            contender.name(),
            shown(at(Measure::Saturation, rate), whole),
            shown(ratios(record, frame, pair, Measure::Saturation, rate), Spread::ratio),
            shown(at(Measure::Saturation, busy), |it| format!("{:.0} %", it.median * 100.0)),
            shown(held(record, frame, contender), with_ends),
            shown(at(Measure::Saturation, cost), whole),
            shown(ratios(record, frame, pair, Measure::Saturation, cost), Spread::ratio),
            shown(at(Measure::SearchHeld, cost), whole),
            shown(at(Measure::Common, cost), whole),
            shown(ratios(record, frame, pair, Measure::Common, cost), Spread::ratio),
            shown(at(Measure::Common, lost), with_most),
        );
    }
    text
}

/// The cost by streams.
#[must_use]
pub(crate) fn streams(record: &Record) -> String {
    let mut text = String::from(
        "| streams | floor, CPU ns per packet | xdp, CPU ns per packet | xdp x its cost of one stream | floor x its cost of one |\n\
         |---|---|---|---|---|\n",
    );
    let [floor, ours] = [Contender::FLOOR, Contender::Ours(Way::Native)];
    for count in streams::COUNTS {
        let figures = |contender| by_round(record, contender, count);
        let ratio = |contender| beside_one(record, contender, count);
        let whole = |spread: Spread| format!("{:.0}", spread.median);
        let _ = writeln!(
            text,
            "| {count} | {} | {} | {} | {} |",
            shown(Spread::of(figures(floor).into_values().collect()), whole),
            shown(Spread::of(figures(ours).into_values().collect()), whole),
            shown(ratio(ours), Spread::ratio),
            shown(ratio(floor), Spread::ratio),
        );
    }
    text
}

/// The cost of a packet with so many streams as a multiple of that with one in the same round.
fn beside_one(record: &Record, contender: Contender, count: usize) -> Option<Spread> {
    let one = by_round(record, contender, streams::COUNTS[0]);
    let own = by_round(record, contender, count);
    Spread::of(own.iter().filter_map(|(round, cost)| Some(cost / one.get(round)?)).collect())
}

/// The cost of a packet in each round with so many streams.
#[must_use]
pub(crate) fn by_round(record: &Record, contender: Contender, count: usize) -> BTreeMap<usize, f64> {
    let lines = record.lines.iter().filter(|line| {
        line.contender == contender && line.measure == Measure::Streams && line.streams == count
    });
    lines.map(|line| (line.round, cost(line))).collect()
}

/// The runs in which a contender's delays at a part of what it carries were measured, by round.
fn delayed(record: &Record, contender: Contender, percent: u32) -> BTreeMap<usize, &Line> {
    by_measure(record, contender, Measure::Delay(percent))
}

fn by_measure(record: &Record, contender: Contender, measure: Measure) -> BTreeMap<usize, &Line> {
    let lines = record.lines.iter().filter(|line| line.contender == contender && line.measure == measure);
    lines.map(|line| (line.round, line)).collect()
}

/// Microseconds of a run; none if they were not measured.
type Micros = fn(&Line) -> Option<f64>;

/// The delay below which a part of the packets were; none if there were too few for one to be beyond it.
fn delay_us(line: &Line, part: f64) -> Option<f64> {
    let beyond = line.trial.ran.received.packets as f64 * (1.0 - part);
    (beyond >= 1.0).then(|| quantile(&line.trial.ran.delays, part) / 1e3)
}

fn jitter_us(line: &Line) -> Option<f64> {
    line.trial.ran.jitter_ns().map(|ns| ns / 1e3)
}

/// What a contender adds at a part of what it carries to what the floor has at the same rate in the same round, over the rounds.
fn added(record: &Record, contender: Contender, percent: u32, micros: Micros) -> Option<Spread> {
    let floor = by_measure(record, Contender::FLOOR, Measure::FloorDelay { percent, beside: contender });
    let own = delayed(record, contender, percent);
    let added = own.iter().filter_map(|(round, line)| Some(micros(line)? - micros(floor.get(round)?)?));
    Spread::of(added.collect())
}

/// Quantiles of delays and jitter, in microseconds.
#[must_use]
pub(crate) fn latency(record: &Record) -> String {
    const PARTS: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
    let mut text = String::from(
        "| contender | of what it carries | packets/s | core busy | lost | p50, us | p90 | p99 | p99.9 | p50 beyond the floor's | \
         p99 beyond the floor's | jitter, us | beyond the floor's |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let tenths = |spread: Spread| format!("{:.1}", spread.median);
    let with_ends = |it: Spread| format!("{:.1} ({:.1} to {:.1})", it.median, it.min, it.max);
    for contender in contenders(record) {
        for percent in PERCENTS {
            let runs = delayed(record, contender, percent);
            if runs.is_empty() {
                continue;
            }
            let of = |figure: Figure| Spread::of(runs.values().map(|line| figure(line)).collect());
            let quantiles = PARTS.map(|part| {
                let delays = runs.values().filter_map(|line| delay_us(line, part));
                shown(Spread::of(delays.collect()), tenths)
            });
            let beyond = |micros| shown(added(record, contender, percent, micros), with_ends);
            let _ = writeln!(
                text,
                "| {} | {percent} % | {} | {} | {} | {} | {} | {} | {} | {} |",
                contender.name(),
                shown(of(rate), |it| format!("{:.0}", it.median)),
                shown(of(busy), |it| format!("{:.0} %", it.median * 100.0)),
                shown(of(lost), |it| format!("{:.3} %", it.median * 100.0)),
                quantiles.join(" | "),
                beyond(|line| delay_us(line, 0.5)),
                beyond(|line| delay_us(line, 0.99)),
                shown(Spread::of(runs.values().filter_map(|line| jitter_us(line)).collect()), tenths),
                beyond(jitter_us),
            );
        }
    }
    text
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// What was measured does not tell.
    Open,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Something that is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What, of whom, and how much of it.
    pub what: String,
    /// What was found; none if it was not measured.
    pub found: Option<String>,
    /// Whether that is enough.
    pub holds: Verdict,
}

impl Target {
    /// One whose figure is spread over the rounds; the median decides.
    #[must_use]
    pub(crate) fn of(what: &str, found: Option<Spread>, holds: impl Fn(f64) -> bool) -> Self {
        Self {
            what: what.to_owned(),
            found: found.map(Spread::ratio),
            holds: found.is_some_and(|spread| holds(spread.median)).into(),
        }
    }
}

/// As a table in Markdown.
#[must_use]
pub(crate) fn targets(all: &[Target]) -> String {
    let mut text =
        String::from("| target | here: median (smallest-largest of the rounds) | holds |\n|---|---|---|\n");
    for Target { what, found, holds } in all {
        let verdict = match (found, holds) {
            (None, _) => "not measured",
            (_, Verdict::Yes) => "yes",
            (_, Verdict::No) => "**no**",
            (_, Verdict::Open) => "does not tell",
        };
        let _ = writeln!(text, "| {what} | {} | {verdict} |", found.as_deref().unwrap_or("-"));
    }
    text
}

/// What is to hold of throughput.
#[must_use]
pub(crate) fn throughput_targets(record: &Record, frame: usize) -> Vec<Target> {
    let ours = Contender::Ours(Way::Native);
    let relay = Contender::Ours(Way::Userspace);
    let floor = Contender::FLOOR;
    let readdress = Contender::Floor(Floor::Readdressed);
    let (nat, other) = (Contender::Nftables, Contender::Rtpengine(Media::Plain));
    let (sealing, other_sealing) = (Contender::Ours(Way::UserspaceSrtp), Contender::Rtpengine(Media::Sealed));
    let (full, common) = (Measure::Saturation, Measure::Common);
    let row = |what: &str, pair, measure, figure: Figure, holds: fn(f64) -> bool| {
        Target::of(what, ratios(record, frame, pair, measure, figure), holds)
    };
    vec![
        packets_target(record, frame),
        // What a core would carry that has nothing else to do is the other way round what a packet costs.
        row(
            "xdp: packets a second of a full core, by CPU per packet, x floor; at least 0.9",
            [ours, floor],
            full,
            |line| 1.0 / cost(line),
            |it| it >= 0.9,
        ),
        row("xdp: CPU per packet at saturation, x floor; at most 1.2", [ours, floor], full, cost, |it| {
            it <= 1.2
        }),
        row(
            "xdp: the same, x readdress, which looks at the packet; at most 1.2",
            [ours, readdress],
            full,
            cost,
            |it| it <= 1.2,
        ),
        row("rtpengine: CPU per packet at saturation, x xdp; at least 30", [other, ours], full, cost, |it| {
            it >= 30.0
        }),
        row("rtpengine: CPU per packet at 50,000/s, x xdp; at least 30", [other, ours], common, cost, |it| {
            it >= 30.0
        }),
        row("xdp: CPU per packet at saturation, x nftables; less than 0.5", [ours, nat], full, cost, |it| {
            it < 0.5
        }),
        row(
            "userspace: CPU per packet at saturation, x rtpengine; at most 0.5",
            [relay, other],
            full,
            cost,
            |it| it <= 0.5,
        ),
        row(
            "userspace: CPU per packet at 50,000/s, x rtpengine; at most 0.5",
            [relay, other],
            common,
            cost,
            |it| it <= 0.5,
        ),
        row(
            "userspace-srtp: CPU per packet at saturation, x rtpengine-srtp; at most 0.5",
            [sealing, other_sealing],
            full,
            cost,
            |it| it <= 0.5,
        ),
        row(
            "userspace-srtp: CPU per packet at 50,000/s, x rtpengine-srtp; at most 0.5",
            [sealing, other_sealing],
            common,
            cost,
            |it| it <= 0.5,
        ),
    ]
}

/// Packets a second beside the floor's. Where xdp's core is not full, generator and sink on theirs were the limit of both; where
/// the floor's is not, the floor carries more than was seen, and only that xdp has too few can be said.
fn packets_target(record: &Record, frame: usize) -> Target {
    /// A core that is this busy is full, but for what is not accounted for.
    const FULL: f64 = 0.95;
    let pair = [Contender::Ours(Way::Native), Contender::FLOOR];
    let target = Target::of(
        "xdp: packets a second at saturation, x floor; at least 0.9",
        ratios(record, frame, pair, Measure::Saturation, rate),
        |it| it >= 0.9,
    );
    let busy = pair
        .map(|it| spread(record, frame, it, Measure::Saturation, busy).map_or(0.0, |spread| spread.median));
    if busy[0] >= FULL && (busy[1] >= FULL || target.holds == Verdict::No) {
        return target;
    }
    let why = if busy[0] < FULL {
        "generator and sink were the limit"
    } else {
        "the floor carries more than was sent"
    };
    let [own, floor] = busy.map(|busy| busy * 100.0);
    let limit = |found| format!("{found}; {why}: xdp's core is {own:.0} % busy, the floor's {floor:.0} %");
    Target { found: target.found.map(limit), holds: Verdict::Open, ..target }
}

/// Half of what is carried, at which delay is judged.
const HALF: u32 = 50;

/// What is to hold of delays.
#[must_use]
pub(crate) fn latency_targets(record: &Record) -> Vec<Target> {
    const MOST_US: f64 = 30.0;
    let p99 = |contender| added(record, contender, HALF, |line| delay_us(line, 0.99));
    let shown = |it: Spread| format!("{:.1} ({:.1} to {:.1})", it.median, it.min, it.max);
    let others = contenders(record)
        .into_iter()
        .filter(|it| !matches!(it, Contender::Floor(_) | Contender::Ours(_)))
        .filter_map(|it| Some((it, p99(it)?)));
    let least = others.min_by(|one, other| one.1.median.total_cmp(&other.1.median));
    let own = p99(Contender::Ours(Way::Native));
    vec![
        Target {
            what: format!("xdp: p99 of added delay at {HALF} % of what it carries, us; under {MOST_US}"),
            found: own.map(shown),
            holds: own.is_some_and(|own| own.median < MOST_US).into(),
        },
        Target {
            what: format!("xdp: the same, less than each other product's at {HALF} % of its own"),
            found: own.zip(least).map(|(own, (other, us))| {
                format!("{:.1}; the least of the others is {} ({})", own.median, shown(us), other.name())
            }),
            holds: own.zip(least).is_some_and(|(own, (_, us))| own.median < us.median).into(),
        },
    ]
}

/// What is to hold of many streams.
#[must_use]
pub(crate) fn streams_targets(record: &Record) -> Vec<Target> {
    let most = streams::COUNTS[streams::COUNTS.len() - 1];
    let what = format!("xdp: CPU per packet with {most} streams, x that with one; at most 1.3");
    vec![Target::of(&what, beside_one(record, Contender::Ours(Way::Native), most), |it| it <= 1.3)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relay_ebpf::traffic::Received;

    use super::*;
    use crate::contender::Trial;
    use crate::traffic::{G711, Load, Ran, Rate};

    const OURS: Contender = Contender::Ours(Way::Native);

    /// A run of a second in which this was sent and arrived, and the forwarding core was busy for a part of it.
    fn keep(
        record: &mut Record,
        round: usize,
        contender: Contender,
        measure: Measure,
        [sent, arrived]: [u64; 2],
        busy: f64,
    ) {
        let time = Duration::from_secs(1);
        let received = Received { packets: arrived, ..Received::default() };
        let ran = Ran { sent, time, after: Duration::ZERO, received, delays: Vec::new() };
        let load = Load::new(Rate::Unlimited, time);
        let trial = Trial { load, ran, cpu: time.mul_f64(busy), window_ns: 0..1, repeated: 0 };
        record.keep(round, contender, 1, measure, &trial);
    }

    #[test]
    fn a_round_in_which_no_rate_was_held_counts_as_none() {
        let mut record = Record::default();
        keep(&mut record, 1, OURS, Measure::SearchHeld, [100, 100], 0.5);
        keep(&mut record, 1, OURS, Measure::SearchHeld, [300, 300], 0.5);
        keep(&mut record, 1, OURS, Measure::SearchLost, [500, 400], 0.5);
        for round in [2, 3] {
            keep(&mut record, round, OURS, Measure::SearchLost, [200, 100], 0.5);
        }
        assert_eq!(held(&record, G711, OURS), Some(Spread { median: 0.0, min: 0.0, max: 300.0 }));
        assert_eq!(held(&record, G711, Contender::FLOOR), None);
    }

    #[test]
    fn packets_a_second_tell_nothing_where_no_core_is_full() {
        let rows = [
            ("both idle", [0.7, 0.6], [1000, 1000], Verdict::Open),
            ("neither full and fewer packets", [0.8, 0.4], [700, 1000], Verdict::Open),
            ("xdp's core is full", [1.0, 0.6], [700, 1000], Verdict::No),
            ("full, and enough", [1.0, 1.0], [950, 1000], Verdict::Yes),
            ("full, and the floor may have more", [1.0, 0.6], [950, 1000], Verdict::Open),
        ];
        for (description, [own, floor], [arrived, of_floor], verdict) in rows {
            let mut record = Record::default();
            keep(&mut record, 1, OURS, Measure::Saturation, [2000, arrived], own);
            keep(&mut record, 1, Contender::FLOOR, Measure::Saturation, [2000, of_floor], floor);
            let target = packets_target(&record, G711);
            assert_eq!(target.holds, verdict, "{description}: {:?}", target.found);
        }
    }

    #[test]
    fn what_is_added_is_beside_the_floor_at_the_same_rate_in_the_same_round() {
        let mut record = Record::default();
        let busy = |line: &Line| Some(line.trial.busy());
        keep(&mut record, 1, OURS, Measure::Delay(50), [10, 10], 0.5);
        keep(
            &mut record,
            1,
            Contender::FLOOR,
            Measure::FloorDelay { percent: 50, beside: OURS },
            [10, 10],
            0.25,
        );
        // These are another's, and another round's.
        keep(&mut record, 1, Contender::FLOOR, Measure::Delay(50), [10, 10], 0.1);
        keep(
            &mut record,
            1,
            Contender::FLOOR,
            Measure::FloorDelay { percent: 50, beside: Contender::Socket },
            [10, 10],
            0.1,
        );
        keep(&mut record, 2, OURS, Measure::Delay(50), [10, 10], 0.9);
        assert_eq!(added(&record, OURS, 50, busy), Spread::of(vec![0.25]));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
