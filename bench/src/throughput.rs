//! How many packets a second each contender carries, and what a packet costs: all contenders in turn, round after round.
//!
//! Each round asks every contender three things: what arrives when more is sent than can be carried, the highest rate at
//! which no more than one packet in 100,000 is lost (found by bisection, as RFC 2544 section 26.1 does), and what a packet
//! costs at one common rate, which most of them carry.

use std::time::Duration;

use anyhow::Result;

use crate::contender::{Contender, InPlace, Trial};
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::testbed::Testbed;
use crate::traffic::{Floor, Load, Rate};

/// What is measured how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Rounds over all contenders.
    pub rounds: usize,
    /// Time of one run.
    pub time: Duration,
    /// Calls, which is streams.
    pub calls: usize,
    /// Bytes of a frame.
    pub frame: usize,
    /// Who takes part; the floor first.
    pub contenders: Vec<Contender>,
    /// Halvings of the interval in which the highest rate without loss is looked for.
    pub bisections: usize,
}

/// One packet in so many may be lost.
pub(crate) const TOLERANCE: f64 = 1e-5;
/// 1,000 calls, one way.
pub(crate) const COMMON_RATE: f64 = 50_000.0;
/// Packets that a network card gathers before it interrupts, at full load.
pub(crate) const TOGETHER: u32 = 32;
/// Whose highest rate is not looked for: it is nothing but another floor.
const NOT_SEARCHED: Contender = Contender::Floor(Floor::Readdressed);

impl Plan {
    /// How many runs there are in all.
    #[must_use]
    pub(crate) fn runs(&self) -> usize {
        let of_one = |contender: &Contender| 1 + Search::runs(self.bisections_of(*contender));
        self.rounds * self.contenders.iter().map(of_one).sum::<usize>()
    }

    fn bisections_of(&self, contender: Contender) -> usize {
        if contender == NOT_SEARCHED { 0 } else { self.bisections }
    }

    fn load(&self, rate: Rate) -> Load {
        Load { frame: self.frame, together: TOGETHER, ..Load::new(rate, self.time) }
    }
}

/// Measures.
///
/// # Errors
/// A contender does not start, its accounts do not add up, or the run was interrupted.
pub(crate) fn run(bed: &Testbed, plan: &Plan, record: &mut Record, progress: &mut Progress) -> Result<()> {
    for round in 1..=plan.rounds {
        for contender in &plan.contenders {
            let name = contender.name();
            let what = format!("{} bytes, round {round} of {}: {name}", plan.frame, plan.rounds);
            progress.says(&what);
            let in_place = InPlace::put(bed, *contender, plan.calls)?;
            let mut keep = |measure, trial: &Trial| {
                record.keep(round, *contender, plan.calls, measure, trial);
                progress.step(&what);
            };
            let common = in_place.measure(plan.load(Rate::PerSecond(COMMON_RATE)))?;
            keep(Measure::Common, &common);
            let search = Search {
                steps: Steps::OfOneLength,
                bisections: plan.bisections_of(*contender),
                tolerance: TOLERANCE,
            };
            let load = |rate| plan.load(rate);
            search.run(&in_place, load, |held, trial| {
                let measure = match held {
                    None => Measure::Saturation,
                    Some(true) => Measure::SearchHeld,
                    Some(false) => Measure::SearchLost,
                };
                keep(measure, trial);
            })?;
        }
    }
    Ok(())
}

/// What the halves of an interval have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// Packets a second; from none on.
    OfOneLength,
    /// The factor between their ends; from a part of the highest rate on.
    OfOneSize,
}

/// A search for the highest rate that is held, by bisection (RFC 2544 section 26.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    /// Where an interval is halved.
    pub steps: Steps,
    /// How often.
    pub bisections: usize,
    /// One packet in so many may be lost.
    pub tolerance: f64,
}

impl Search {
    /// How many runs it takes.
    #[must_use]
    pub(crate) const fn runs(bisections: usize) -> usize {
        bisections + 1
    }

    /// Searches below what arrives of a flood. Each run is given to `keep`, with whether its rate was held, or nothing for the
    /// flood. Returns the most packets a second that arrived in a run that was held, if one was.
    ///
    /// # Errors
    /// The accounts do not add up, or the run was interrupted.
    pub(crate) fn run(
        self,
        in_place: &InPlace<'_>,
        load: impl Fn(Rate) -> Load,
        mut keep: impl FnMut(Option<bool>, &Trial),
    ) -> Result<Option<f64>> {
        let saturated = in_place.measure(load(Rate::Unlimited))?;
        keep(None, &saturated);
        // What arrives of a flood is a rate that a contender carries at most, or nearly: some carry less of more.
        let mut high = saturated.rate() * HEADROOM;
        if in_place.contender.is_a_process() {
            high = high.max(COMMON_RATE * PROCESS_REACH);
        }
        let mut low = match self.steps {
            Steps::OfOneLength => 0.0,
            Steps::OfOneSize => high / REACH,
        };
        let mut best: Option<f64> = None;
        for _ in 0..self.bisections {
            let rate = match self.steps {
                Steps::OfOneLength => f64::midpoint(low, high),
                Steps::OfOneSize => (low * high).sqrt(),
            };
            let trial = in_place.measure(load(Rate::PerSecond(rate)))?;
            let held = trial.was_held(self.tolerance);
            // A rate that the generator did not reach was not tried: what it reached is what was held.
            if held && trial.ran.sent as f64 >= REACHED * rate * trial.ran.time.as_secs_f64() {
                low = rate;
            } else {
                high = rate;
            }
            if held {
                best = Some(best.unwrap_or_default().max(trial.rate()));
            }
            keep(Some(held), &trial);
        }
        Ok(best)
    }
}

/// The search begins so much above what arrived of a flood.
const HEADROOM: f64 = 1.1;
/// A generator that sends this part of a rate has reached it.
pub(crate) const REACHED: f64 = 0.95;
/// A process that is flooded may get next to nothing done; it is tried up to so many times the common rate.
const PROCESS_REACH: f64 = 4.0;
/// The lowest rate that is looked at, as a part of the highest, where steps have a factor in common.
const REACH: f64 = 64.0;
