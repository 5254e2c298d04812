//! What a packet costs when thousands of streams take turns: more than what a core keeps at hand.

use std::time::Duration;

use anyhow::Result;
use xtask::lab::interrupt;

use crate::appliance::Way;
use crate::contender::{Contender, InPlace};
use crate::memory::GIVEN_BACK;
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::testbed::Testbed;
use crate::throughput::TOGETHER;
use crate::traffic::{Load, Rate};

/// How many streams, which is calls; each call has four flows.
pub(crate) const COUNTS: [usize; 2] = [1, 100_000];
/// A rate that is carried with any number of them.
pub(crate) const RATE: f64 = 400_000.0;

/// How many runs there are in all.
#[must_use]
pub(crate) const fn runs(rounds: usize) -> usize {
    rounds * COUNTS.len() * 2
}

/// Puts a contender in place, and lets the appliance give back the memory that its start and setting streams up took: it would
/// do so while packets pass, and no packet costs that.
///
/// # Errors
/// As [`InPlace::put`].
pub(crate) fn put(bed: &Testbed, contender: Contender, streams: usize) -> Result<InPlace<'_>> {
    let in_place = InPlace::put(bed, contender, streams)?;
    if matches!(contender, Contender::Ours(_)) {
        interrupt::sleep(GIVEN_BACK)?;
    }
    Ok(in_place)
}

/// Measures, with the floor beside it: the generator and the sink have as many streams to look after.
///
/// # Errors
/// As [`crate::throughput::run`].
pub(crate) fn run(
    bed: &Testbed,
    rounds: usize,
    time: Duration,
    record: &mut Record,
    progress: &mut Progress,
) -> Result<()> {
    for round in 1..=rounds {
        for streams in COUNTS {
            for contender in [Contender::FLOOR, Contender::Ours(Way::Native)] {
                let what = format!("round {round} of {rounds}: {streams} streams by {}", contender.name());
                progress.says(&what);
                let in_place = put(bed, contender, streams)?;
                let load = Load { together: TOGETHER, ..Load::new(Rate::PerSecond(RATE), time) };
                let trial = in_place.measure(load)?;
                record.keep(round, contender, streams, Measure::Streams, &trial);
                progress.step(&what);
            }
        }
    }
    Ok(())
}
