//! What was lost in front of the appliance while calls talked, and the stalls of its receiving thread in the same run beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::held::{Held, Run};
use crate::stalls::{Cause, Stall};

/// Packets that found the queue full in some stalls, by the record.
fn beyond<'s>(run: &Run, stalls: impl Iterator<Item = &'s Stall>) -> f64 {
    // The sum of no such numbers is minus nothing.
    stalls.map(|stall| stall.beyond(run.asked())).fold(0.0, |sum, beyond| sum + beyond)
}

/// Runs that lost something or had a stall, as a table in Markdown with what it means.
#[must_use]
pub(super) fn table(held: &Held) -> String {
    let mut rows = String::new();
    for run in &held.runs {
        let Ok(stalls) = &run.stalls else { continue };
        let before = run.lost()[0];
        if before == 0 && stalls.is_empty() {
            continue;
        }
        let longest = stalls.iter().map(Stall::length).max().unwrap_or_default();
        // Writing to a string cannot fail. So below.
        let _ = write!(
            rows,
            "| {} | {} | {before} | {:.0} | {} | {:.2} |",
            run.calls,
            run.round,
            beyond(run, stalls.iter()),
            stalls.len(),
            longest.as_secs_f64() * 1000.0,
        );
        for cause in Cause::ALL {
            let of_it = || stalls.iter().filter(|stall| stall.cause() == cause);
            let _ = match of_it().count() {
                0 => write!(rows, " - |"),
                count => write!(rows, " {:.0} in {count} |", beyond(run, of_it())),
            };
        }
        rows.push('\n');
    }
    let mut text = String::new();
    if !rows.is_empty() {
        text += "### What was lost before the appliance\n\nBeside it the stalls of the thread that receives, by the kernel's record \
                 of the same run: times in which it took nothing from its queue, and which were longer than 256 packets last. What \
                 came in them beyond that found no room. `stalls.csv` has each.\n\n\
                 | calls | round | lost before the appliance | no room in stalls | stalls | longest, ms |";
        for cause in Cause::ALL {
            let _ = write!(text, " {cause} |");
        }
        text += "\n|---|---|---|---|---|---|";
        text += &"---|".repeat(Cause::ALL.len());
        text.push('\n');
        text += &rows;
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in held.runs.iter().filter_map(|run| run.stalls.as_ref().err()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let all = held.runs.len();
    for (reason, runs) in reasons {
        let _ = writeln!(
            text,
            "\nStalls of the thread that receives were not recorded in {runs} of {all} runs: {reason}"
        );
    }
    text
}

/// Every stall as comma-separated values.
#[must_use]
pub(super) fn csv(held: &Held) -> String {
    let mut text = String::from("calls,round,at_us,length_us,asleep_us,waited_us,running_us,cause,no_room\n");
    for run in &held.runs {
        for stall in run.stalls.iter().flatten() {
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{:.0}",
                run.calls,
                run.round,
                stall.at.as_micros(),
                stall.length().as_micros(),
                stall.asleep.as_micros(),
                stall.waited.as_micros(),
                stall.running.as_micros(),
                stall.cause(),
                stall.beyond(run.asked()),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::held::tests::{held, run};
    use super::*;
    use crate::stalls::Holder;

    #[test]
    fn stalls_stand_beside_what_was_lost_in_the_same_run() {
        let waited = |micros, holder| Stall {
            at: Duration::from_millis(7),
            asleep: Duration::from_micros(20),
            waited: Duration::from_micros(micros),
            running: Duration::from_micros(4),
            holder,
            told: Holder::Nobody,
        };
        let mut lossy = run(10_000, 1_000_000, [999_000, 0], 999_000);
        lossy.stalls =
            Ok(vec![waited(732, Holder::Kernel), waited(332, Holder::Other), waited(432, Holder::Other)]);
        let quiet = run(10_000, 1_000_000, [1_000_000, 0], 1_000_000);
        let held = held(vec![quiet, lossy]);
        let table = table(&held);
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| 10000")).collect();
        assert_eq!(rows, ["| 10000 | 1 | 1000 | 800 | 3 | 0.76 | - | - | - | - | 500 in 1 | 300 in 2 | - |"]);
        assert!(csv(&held).ends_with("10000,1,7000,456,20,432,4,waited for another process,200\n"));
    }

    #[test]
    fn what_was_not_recorded_is_said_once() {
        let mut unrecorded = run(1000, 100_000, [100_000, 0], 100_000);
        assert_eq!(table(&held(vec![unrecorded.clone()])), "", "nothing lost");
        unrecorded.stalls = Err("no tracefs".to_owned());
        let said = table(&held(vec![unrecorded.clone(), unrecorded]));
        assert_eq!(
            said,
            "\nStalls of the thread that receives were not recorded in 2 of 2 runs: no tracefs\n"
        );
    }
}
