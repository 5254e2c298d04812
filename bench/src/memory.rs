//! What a call takes of memory in media room and engine: what the process holds with calls, beyond what it held before.
//! The daemon's share for signalling is not in it, nor are the kernel's tables, which are made in full at the start.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::appliance::Way;
use crate::contender::{Contender, InPlace};
use crate::testbed::Testbed;

/// How many calls.
pub(crate) const COUNTS: [usize; 3] = [1_000, 10_000, 50_000];

/// What was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Calls, each with four flows, one of which has had packets.
    pub calls: usize,
    /// Resident memory before there was a call, and with all of them, in KiB.
    pub kib: [u64; 2],
}

impl Held {
    fn bytes_per_call(self) -> u64 {
        let [before, after] = self.kib;
        after.saturating_sub(before) * 1024 / self.calls.max(1) as u64
    }
}

/// Looks at each number of calls, in a process of its own.
///
/// # Errors
/// The appliance does not start, or refuses a call.
pub(crate) fn run(bed: &Testbed, mut says: impl FnMut(&str)) -> Result<Vec<Held>> {
    let mut all = Vec::new();
    for calls in COUNTS {
        says(&format!("{calls} calls"));
        let in_place = InPlace::put(bed, Contender::Ours(Way::Native), calls)?;
        let state = in_place.state()?.context("the appliance does not answer")?;
        all.push(Held { calls, kib: [state.resident_before_kib, state.resident_kib] });
    }
    Ok(all)
}

/// As a table in Markdown.
#[must_use]
pub(crate) fn table(all: &[Held]) -> String {
    let mut text =
        String::from("| calls | KiB before | KiB with them | bytes per call |\n|---|---|---|---|\n");
    for held in all {
        let [before, after] = held.kib;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {before} | {after} | {} |", held.calls, held.bytes_per_call());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_nobodys() {
        assert_eq!(Held { calls: 1000, kib: [10_000, 14_000] }.bytes_per_call(), 4096);
    }
}
