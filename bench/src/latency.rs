//! How long packets take from the generator to the sink, by time stamps on one clock, at parts of what each contender carries
//! of packets that come one at a time. What a contender adds is what it takes beyond the floor, at the same rate in the same
//! round.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use relay_ebpf::traffic::Arrival;

use crate::appliance::Way;
use crate::contender::{Contender, InPlace};
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::report::Spread;
use crate::testbed::Testbed;
use crate::throughput::{Search, Steps};
use crate::traffic::{Delays, Floor, Load, Rate};

/// Parts of the capacity, in percent.
pub(crate) const PERCENTS: [u32; 3] = [1, 50, 90];
/// One packet in so many may be lost of what a contender carries. More than where the highest rate is looked for: a part of it is
/// taken, which is not to hang on whether some other process had the core for a moment.
const TOLERANCE: f64 = 1e-3;
/// Halvings of the interval in which that rate is looked for: to 14 % of it.
const BISECTIONS: usize = 5;
/// Rounds of the search; its median counts.
const SEARCHES: usize = 3;
/// Time of one of its runs.
const SEARCH_TIME: Duration = Duration::from_millis(200);

/// What is measured how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Rounds over all contenders.
    pub rounds: usize,
    /// Time of one run.
    pub time: Duration,
    /// Calls, which is streams.
    pub calls: usize,
    /// Who takes part; the floor first.
    contenders: Vec<Contender>,
}

impl Plan {
    /// For those of some contenders whose delays can be measured, and tell something that others' do not.
    #[must_use]
    pub(crate) fn new(rounds: usize, time: Duration, calls: usize, of: &[Contender]) -> Self {
        let contenders = of.iter().copied().filter(|it| {
            // What is encrypted has no time stamp that could be read.
            it.arrival() == Arrival::Same
                && !matches!(it, Contender::Floor(Floor::Readdressed) | Contender::Ours(Way::UserspacePorts))
        });
        Self { rounds, time, calls, contenders: contenders.collect() }
    }

    /// How many runs there are in all.
    #[must_use]
    pub(crate) fn runs(&self) -> usize {
        let all = self.contenders.len();
        let beside = all.saturating_sub(1);
        self.searches() * all * Search::runs(BISECTIONS) + self.rounds * PERCENTS.len() * (all + beside)
    }

    fn searches(&self) -> usize {
        self.rounds.min(SEARCHES)
    }

    /// One packet at a time, with a time stamp.
    const fn load(rate: Rate, time: Duration) -> Load {
        Load { delays: Delays::Measured, ..Load::new(rate, time) }
    }
}

/// Measures: first what each carries, then delays, the floor's at the same rates behind each contender's.
///
/// # Errors
/// As [`crate::throughput::run`].
pub(crate) fn run(bed: &Testbed, plan: &Plan, record: &mut Record, progress: &mut Progress) -> Result<()> {
    let mut carried: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 1..=plan.searches() {
        for contender in &plan.contenders {
            let what = format!("what it carries, round {round}: {}", contender.name());
            progress.says(&what);
            let in_place = InPlace::put(bed, *contender, plan.calls)?;
            let search = Search { steps: Steps::OfOneSize, bisections: BISECTIONS, tolerance: TOLERANCE };
            let found = search.run(
                &in_place,
                |rate| Plan::load(rate, SEARCH_TIME),
                |held, trial| {
                    let measure = match held {
                        Some(held) => Measure::DelaySearch { held },
                        None => Measure::DelaySaturation,
                    };
                    record.keep(round, *contender, plan.calls, measure, trial);
                    progress.step(&what);
                },
            )?;
            carried.entry(contender.name()).or_default().extend(found);
        }
    }
    for round in 1..=plan.rounds {
        for contender in &plan.contenders {
            let name = contender.name();
            let what = format!("round {round}: {name}");
            progress.says(&what);
            let carries = carried.get(name).and_then(|rates| Spread::of(rates.clone()));
            let carries = carries.with_context(|| {
                format!("{name} holds none of the rates of packets one at a time that were tried")
            })?;
            let mut measure = |who: Contender, measure: fn(u32, Contender) -> Measure| -> Result<()> {
                let in_place = InPlace::put(bed, who, plan.calls)?;
                for percent in PERCENTS {
                    let rate = Rate::PerSecond(carries.median * f64::from(percent) / 100.0);
                    let trial = in_place.measure(Plan::load(rate, plan.time))?;
                    record.keep(round, who, plan.calls, measure(percent, *contender), &trial);
                    progress.step(&what);
                }
                Ok(())
            };
            measure(*contender, |percent, _| Measure::Delay(percent))?;
            if *contender != Contender::FLOOR {
                measure(Contender::FLOOR, |percent, beside| Measure::FloorDelay { percent, beside })?;
            }
        }
    }
    Ok(())
}

/// The delay in nanoseconds below which this part of the packets were.
#[must_use]
pub(crate) fn quantile(buckets: &[u64], part: f64) -> f64 {
    let all: u64 = buckets.iter().sum();
    let wanted = (all as f64 * part).ceil() as u64;
    let mut seen = 0;
    for (bucket, count) in (0u32..).zip(buckets) {
        seen += count;
        if seen >= wanted && all > 0 {
            return f64::midpoint(
                relay_ebpf::traffic::smallest(bucket) as f64,
                relay_ebpf::traffic::smallest(bucket + 1) as f64,
            );
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_in_the_bucket_that_has_it() {
        let mut buckets = vec![0; relay_ebpf::traffic::BUCKETS as usize];
        for (delay, count) in [(1000, 90), (5000, 9), (70_000, 1)] {
            buckets[relay_ebpf::traffic::bucket(delay) as usize] += count;
        }
        for (part, delay) in [(0.5, 1000.0), (0.9, 1000.0), (0.99, 5000.0), (0.999, 70_000.0)] {
            let found = quantile(&buckets, part);
            assert!((found - delay).abs() < delay * 0.07, "{part}: {found}");
        }
        assert!(quantile(&vec![0; 640], 0.5) < 1.0);
    }
}
