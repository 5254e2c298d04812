//! The report: tables from the raw data, in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use relay_ebpf::traffic::Arrival;

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

/// The highest rate without loss, over the rounds: what the latency's rates are parts of.
#[must_use]
pub(crate) fn capacity(record: &Record, frame: usize, contender: Contender) -> Option<f64> {
    spread(record, frame, contender, Measure::SearchHeld, rate).map(|spread| spread.median)
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
         CPU ns per packet: at saturation | x floor | at the highest rate held | at 50,000/s | x floor |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for contender in contenders(record) {
        let pair = [contender, Contender::FLOOR];
        let at = |measure, figure| spread(record, frame, contender, measure, figure);
        let whole = |spread: Spread| format!("{:.0}", spread.median);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            contender.name(),
            shown(at(Measure::Saturation, rate), whole),
            shown(ratios(record, frame, pair, Measure::Saturation, rate), Spread::ratio),
            shown(at(Measure::Saturation, busy), |it| format!("{:.0} %", it.median * 100.0)),
            shown(at(Measure::SearchHeld, rate), whole),
            shown(at(Measure::Saturation, cost), whole),
            shown(ratios(record, frame, pair, Measure::Saturation, cost), Spread::ratio),
            shown(at(Measure::SearchHeld, cost), whole),
            shown(at(Measure::Common, cost), whole),
            shown(ratios(record, frame, pair, Measure::Common, cost), Spread::ratio),
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

/// The runs in which a contender's delays at a part of its highest rate were measured.
fn delayed(record: &Record, contender: Contender, percent: u32) -> impl Iterator<Item = &Line> {
    let lines = record.lines.iter();
    lines.filter(move |line| line.contender == contender && line.measure == Measure::Delay(percent))
}

/// The delay below which a part of the packets were, in microseconds, over the rounds.
fn delay(record: &Record, contender: Contender, percent: u32, part: f64) -> Option<Spread> {
    let delays = delayed(record, contender, percent).map(|line| quantile(&line.trial.ran.delays, part) / 1e3);
    Spread::of(delays.collect())
}

/// Quantiles of delays and jitter, in microseconds.
#[must_use]
pub(crate) fn latency(record: &Record) -> String {
    const PARTS: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
    let mut text = String::from(
        "| contender | of its highest rate | packets/s | p50, us | p90 | p99 | p99.9 | p50 beyond the floor's | p99 beyond the floor's | \
         jitter, us | beyond the floor's |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let at = |contender, percent, part| delay(record, contender, percent, part);
    let jitter = |contender, percent| {
        let lines = delayed(record, contender, percent);
        Spread::of(lines.filter_map(|line| line.trial.ran.jitter_ns()).map(|ns| ns / 1e3).collect())
    };
    // What encrypts carries no time stamps that could be read.
    for contender in contenders(record).into_iter().filter(|it| it.arrival() == Arrival::Same) {
        for percent in PERCENTS {
            let rate = Spread::of(delayed(record, contender, percent).map(rate).collect());
            let quantiles =
                PARTS.map(|part| shown(at(contender, percent, part), |it| format!("{:.1}", it.median)));
            let more = |pair: Option<(Spread, Spread)>| {
                pair.map_or_else(
                    || "-".to_owned(),
                    |(own, floor)| format!("{:.1}", own.median - floor.median),
                )
            };
            let beyond = |part| more(at(contender, percent, part).zip(at(Contender::FLOOR, percent, part)));
            let _ = writeln!(
                text,
                "| {} | {percent} % | {} | {} | {} | {} | {} | {} |",
                contender.name(),
                shown(rate, |it| format!("{:.0}", it.median)),
                quantiles.join(" | "),
                beyond(0.5),
                beyond(0.99),
                shown(jitter(contender, percent), |it| format!("{:.1}", it.median)),
                more(jitter(contender, percent).zip(jitter(Contender::FLOOR, percent))),
            );
        }
    }
    text
}

/// Something that is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What, of whom, and how much of it.
    pub what: String,
    /// What was found; none if it was not measured.
    pub found: Option<String>,
    /// Whether that is enough.
    pub holds: bool,
}

impl Target {
    /// One whose figure is spread over the rounds; the median decides.
    #[must_use]
    pub(crate) fn of(what: &str, found: Option<Spread>, holds: impl Fn(f64) -> bool) -> Self {
        Self {
            what: what.to_owned(),
            found: found.map(Spread::ratio),
            holds: found.is_some_and(|spread| holds(spread.median)),
        }
    }
}

/// As a table in Markdown.
#[must_use]
pub(crate) fn targets(all: &[Target]) -> String {
    let mut text =
        String::from("| target | here: median (smallest-largest of the rounds) | holds |\n|---|---|---|\n");
    for Target { what, found, holds } in all {
        let verdict = match found {
            Some(_) if *holds => "yes",
            Some(_) => "**no**",
            None => "not measured",
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
        row("xdp: packets a second at saturation, x floor; at least 0.9", [ours, floor], full, rate, |it| {
            it >= 0.9
        }),
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

/// Half of the highest rate, at which delay is judged.
const HALF: u32 = 50;

/// What is to hold of delays.
#[must_use]
pub(crate) fn latency_targets(record: &Record) -> Vec<Target> {
    const MOST_US: f64 = 30.0;
    let p99 = |contender| delay(record, contender, HALF, 0.99).map(|spread| spread.median);
    let ours = Contender::Ours(Way::Native);
    let added = |contender| Some(p99(contender)? - p99(Contender::FLOOR)?);
    let others: Vec<(Contender, f64)> = contenders(record)
        .into_iter()
        .filter(|it| !matches!(it, Contender::Floor(_) | Contender::Ours(_)))
        .filter_map(|it| Some((it, added(it)?)))
        .collect();
    let least = others.into_iter().min_by(|one, other| one.1.total_cmp(&other.1));
    let own = added(ours);
    vec![
        Target {
            what: format!("xdp: p99 of added delay at {HALF} % of its highest rate, us; under {MOST_US}"),
            found: own.map(|us| format!("{us:.1}")),
            holds: own.is_some_and(|us| us < MOST_US),
        },
        Target {
            what: format!("xdp: the same, less than each other product's at {HALF} % of its own"),
            found: own.zip(least).map(|(own, (other, us))| {
                format!("{own:.1}; the least of the others is {us:.1} ({})", other.name())
            }),
            holds: own.zip(least).is_some_and(|(own, (_, us))| own < us),
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
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
