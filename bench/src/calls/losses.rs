//! What was lost in front of the appliance while calls talked, and the stalls of its receiving thread in the same run beside it.

use std::fmt::Write as _;

use super::held::{Held, Run};
use crate::stalls::{Cause, Stall};

/// Packets that found the queue full in some stalls, by the record.
fn beyond<'s>(run: &Run, stalls: impl Iterator<Item = &'s Stall>) -> f64 {
    stalls.map(|stall| stall.beyond(run.asked())).sum()
}

/// Runs that lost something or had a stall, as a table in Markdown with what it means.
#[must_use]
pub(super) fn table(held: &Held) -> String {
    let mut text = String::new();
    let mut rows = String::new();
    for run in &held.runs {
        let before = run.lost()[0];
        let stalls = match &run.stalls {
            Ok(stalls) if before > 0 || !stalls.is_empty() => stalls,
            Ok(_) => continue,
            Err(reason) => {
                // Writing to a string cannot fail. So below.
                let _ = writeln!(
                    rows,
                    "| {} | {} | {before} | not recorded: {} |",
                    run.calls,
                    run.round,
                    reason.replace('|', "/")
                );
                continue;
            }
        };
        let longest = stalls.iter().map(Stall::length).max().unwrap_or_default();
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
    if rows.is_empty() {
        return text;
    }
    text += "### What was lost before the appliance\n\nBeside it the stalls of the thread that receives, by the kernel's record of the \
             same run: times in which it took nothing from its queue, and which were longer than 256 packets last. What came in \
             them beyond that found no room. `stalls.csv` has each.\n\n\
             | calls | round | lost before the appliance | no room in stalls | stalls | longest, ms |";
    for cause in Cause::ALL {
        let _ = write!(text, " {cause} |");
    }
    text += "\n|---|---|---|---|---|---|";
    text += &"---|".repeat(Cause::ALL.len());
    text.push('\n');
    text + &rows
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
