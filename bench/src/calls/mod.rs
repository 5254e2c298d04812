//! Calls that stand, set up by real signalling through the real daemon: how many talk at once, what the daemon takes of
//! memory for each, how long a new one takes to be set up meanwhile, and what a reload, a restart or a crash costs them.
//!
//! | module | its one job |
//! |---|---|
//! | `standing` | SIPp's calls, and where their media goes |
//! | `held` | a ladder of calls that talk, and memory |
//! | `losses` | what they lost, and what held up who receives |
//! | `latency`, `wire` | set-up times, from captures |
//! | `restart` | reload, restart, `kill -9` |

mod held;
mod latency;
mod losses;
mod restart;
mod standing;
mod wire;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::Target;
use crate::testbed::Testbed;

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many calls talk.
    ladder: &'static [usize],
    /// How often, and for how long.
    rounds: usize,
    time: Duration,
    memory: held::Look,
    /// Whether other processes are kept off the core that forwards while calls talk.
    isolated: bool,
    /// Rounds over all edges, and calls that are timed in each run.
    latency_rounds: usize,
    timed: u32,
    restart_rounds: usize,
}

impl Plan {
    /// All of it.
    #[must_use]
    pub(crate) const fn full(rounds: usize) -> Self {
        Self {
            ladder: &[1_000, 5_000, 10_000],
            rounds,
            time: Duration::from_secs(2),
            memory: held::Look::UntilSettled,
            isolated: false,
            latency_rounds: rounds,
            timed: 150,
            restart_rounds: rounds,
        }
    }

    /// In less than two minutes.
    #[must_use]
    pub(crate) fn quick(rounds: usize) -> Self {
        Self {
            ladder: &[1_000, 10_000],
            rounds,
            time: Duration::from_secs(1),
            memory: held::Look::Briefly,
            isolated: false,
            // Each edge has to be started: three rounds of that take a minute.
            latency_rounds: rounds.min(2),
            timed: 100,
            restart_rounds: rounds.min(2),
        }
    }

    /// The same, with other processes of the machine kept off the core that forwards while calls talk, or not.
    #[must_use]
    pub(crate) const fn isolated(self, isolated: bool) -> Self {
        Self { isolated, ..self }
    }

    /// How many steps [`run`] says.
    #[must_use]
    pub(crate) fn steps(&self) -> usize {
        self.ladder.len() * (self.rounds + 1)
            + latency::steps(self.latency_rounds)
            + restart::steps(self.restart_rounds)
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    held: held::Held,
    latency: Vec<latency::Run>,
    restarts: Vec<restart::Run>,
}

impl Outcome {
    /// Whether nothing of it was measured.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.latency.is_empty() && self.restarts.is_empty()
    }
}

/// Measures one thing after the other. What was measured before one of them failed stays.
///
/// # Errors
/// Who is measured does not start, calls fail, or what was counted does not add up.
pub(crate) fn run(
    bed: &Testbed,
    plan: &Plan,
    outcome: &mut Outcome,
    mut says: impl FnMut(&str),
) -> Result<()> {
    outcome.held = held::run(bed, plan, &mut says)?;
    let carried = outcome.held.carried();
    outcome.latency = latency::run(bed, plan.latency_rounds, plan.timed, carried, &mut says)?;
    outcome.restarts = restart::run(bed, plan.restart_rounds, &mut says)?;
    Ok(())
}

/// The part of the report, in Markdown.
#[must_use]
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = String::from(
        "## Calls that stand\n\n`cargo xtask bench calls`; `held.csv`, `stalls.csv`, `calls-memory.csv`, `set-up.csv` and `restarts.csv` have \
         every run\n\n",
    );
    // Writing to a string cannot fail. So below.
    if !outcome.held.is_empty() {
        let _ = writeln!(
            text,
            "### Calls that talk\n\nSet up by SIP through the daemon, all at the same time. Each call's stream from phone to \
             server has {:.0} packets a second of 214 bytes, as many as both directions of G.711 in 20 ms have; the other \
             direction is silent. {}\n\n{}\n{}\n### Memory of the daemon\n\n{}",
            held::PACKETS_OF_A_CALL,
            held::isolation(&outcome.held),
            held::table(&outcome.held),
            losses::table(&outcome.held),
            held::memory_table(&outcome.held),
        );
    }
    if !outcome.latency.is_empty() {
        let _ = writeln!(
            text,
            "### Set-up of a call\n\nBetween the phone's wire and the server's, 50 calls a second.\n\n{}",
            latency::table(&outcome.latency),
        );
    }
    if !outcome.restarts.is_empty() {
        let _ = writeln!(
            text,
            "### Reload, restart, crash\n\n200 calls, 50 packets a second each. A phone asks the server by OPTIONS every 10 ms: \
             the longest time between two answers is how long signalling was silent.\n\n{}",
            restart::table(&outcome.restarts),
        );
    }
    text
}

/// What is to hold.
#[must_use]
pub(crate) fn targets(outcome: &Outcome) -> Vec<Target> {
    if outcome.held.is_empty() { Vec::new() } else { held::targets(&outcome.held) }
}

/// Writes every run.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(outcome: &Outcome, directory: &Path) -> Result<()> {
    let files = [
        ("held.csv", held::csv(&outcome.held)),
        ("stalls.csv", losses::csv(&outcome.held)),
        ("calls-memory.csv", held::memory_csv(&outcome.held)),
        ("set-up.csv", latency::csv(&outcome.latency)),
        ("restarts.csv", restart::csv(&outcome.restarts)),
    ];
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
