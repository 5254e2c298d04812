//! How long packets take from the generator to the sink, by time stamps on one clock, at parts of what each contender
//! carries. What a contender adds is what it takes beyond the floor at the same rate.

use std::time::Duration;

use anyhow::Result;

use crate::contender::{Contender, InPlace};
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::testbed::Testbed;
use crate::traffic::{Delays, Load, Rate};

/// Parts of the capacity, in percent.
pub(crate) const PERCENTS: [u32; 3] = [1, 50, 90];

/// Measures one round; `capacities` are packets a second without loss, as the throughput's search has found them.
///
/// # Errors
/// As [`crate::throughput::run`].
pub(crate) fn run(
    bed: &Testbed,
    round: usize,
    calls: usize,
    time: Duration,
    capacities: &[(Contender, f64)],
    record: &mut Record,
    progress: &mut Progress,
) -> Result<()> {
    for (contender, capacity) in capacities {
        let what = format!("round {round}: {}", contender.name());
        progress.says(&what);
        let in_place = InPlace::put(bed, *contender, calls)?;
        for percent in PERCENTS {
            let load = Load {
                delays: Delays::Measured,
                ..Load::new(Rate::PerSecond(capacity * f64::from(percent) / 100.0), time)
            };
            let trial = in_place.measure(load)?;
            record.keep(round, *contender, calls, Measure::Delay(percent), &trial);
            progress.step(&what);
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
