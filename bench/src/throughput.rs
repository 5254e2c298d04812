//! How many packets a second each contender carries, and what a packet costs: all contenders in turn, round after round.
//!
//! Each round asks every contender three things: what arrives when more is sent than can be carried, the highest rate at
//! which no more than one packet in 100,000 is lost (found by bisection, as RFC 2544 section 26.1 does), and what a packet
//! costs at one common rate that each of them carries.

use std::time::Duration;

use anyhow::Result;

use crate::contender::{Contender, InPlace, Trial};
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::testbed::Testbed;
use crate::traffic::{Load, Rate};

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
/// What each contender carries: 1,000 calls, one way.
pub(crate) const COMMON_RATE: f64 = 50_000.0;
/// Packets that a network card gathers before it interrupts, at full load.
pub(crate) const TOGETHER: u32 = 32;
/// Runs of a round of one contender besides the bisections.
const OTHER_RUNS: usize = 2;

impl Plan {
    /// How many runs there are in all.
    #[must_use]
    pub(crate) fn runs(&self) -> usize {
        self.rounds * self.contenders.len() * (OTHER_RUNS + self.bisections)
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
            let saturated = in_place.measure(plan.load(Rate::Unlimited))?;
            keep(Measure::Saturation, &saturated);
            // What arrives of a flood is a rate that a contender carries at most, or nearly: some carry less of more.
            let (mut low, mut high) = (0.0, saturated.rate() * HEADROOM);
            if contender.is_a_process() {
                high = high.max(COMMON_RATE * PROCESS_REACH);
            }
            for _ in 0..plan.bisections {
                let rate = f64::midpoint(low, high);
                let trial = in_place.measure(plan.load(Rate::PerSecond(rate)))?;
                let held = trial.was_held(TOLERANCE);
                // A rate that the generator did not reach was not tried: what it reached is what was held.
                if held && trial.ran.sent as f64 >= REACHED * rate * trial.ran.time.as_secs_f64() {
                    low = rate;
                } else {
                    high = rate;
                }
                keep(if held { Measure::SearchHeld } else { Measure::SearchLost }, &trial);
            }
        }
    }
    Ok(())
}

/// The search begins so much above what arrived of a flood.
const HEADROOM: f64 = 1.1;
/// A generator that sends this part of a rate has reached it.
pub(crate) const REACHED: f64 = 0.95;
/// A process that is flooded may get next to nothing done; it is tried up to so many times the common rate.
const PROCESS_REACH: f64 = 8.0;
