//! What a call takes of memory in media room and engine: what a process holds with calls, beyond one that has one. The
//! daemon's share for signalling is not in it, nor are the kernel's tables, which are made in full at the start.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::lab::interrupt;

use crate::appliance::Way;
use crate::contender::{Contender, InPlace};
use crate::testbed::Testbed;

/// What setting up took and is needed no more has gone back to the system after this: the allocator keeps it for a second.
pub(crate) const GIVEN_BACK: Duration = Duration::from_secs(3);
/// How many calls.
pub(crate) const COUNTS: [usize; 3] = [1_000, 10_000, 50_000];

/// What was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Calls, each with four flows, one of which has had packets.
    pub calls: usize,
    /// Memory of a process with one call, and with all of them, in KiB.
    pub kib: [u64; 2],
}

impl Held {
    fn bytes_per_call(self) -> u64 {
        let [one, all] = self.kib;
        all.saturating_sub(one) * 1024 / self.calls.saturating_sub(1).max(1) as u64
    }
}

/// Looks at each number of calls, in a process of its own.
///
/// # Errors
/// The appliance does not start, or refuses a call.
pub(crate) fn run(bed: &Testbed, mut says: impl FnMut(&str)) -> Result<Vec<Held>> {
    let mut all = Vec::new();
    let one = held(bed, 1)?;
    for calls in COUNTS {
        says(&format!("{calls} calls"));
        all.push(Held { calls, kib: [one, held(bed, calls)?] });
    }
    Ok(all)
}

fn held(bed: &Testbed, calls: usize) -> Result<u64> {
    let in_place = InPlace::put(bed, Contender::Ours(Way::Native), calls)?;
    interrupt::sleep(GIVEN_BACK)?;
    Ok(in_place.state()?.context("the appliance does not answer")?.resident_kib)
}

/// As a table in Markdown.
#[must_use]
pub(crate) fn table(all: &[Held]) -> String {
    let mut text =
        String::from("| calls | KiB with one | KiB with them | bytes per call |\n|---|---|---|---|\n");
    for held in all {
        let [one, all] = held.kib;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {one} | {all} | {} |", held.calls, held.bytes_per_call());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_with_one_call_is_nobodys() {
        assert_eq!(Held { calls: 1001, kib: [10_000, 14_000] }.bytes_per_call(), 4096);
    }
}
