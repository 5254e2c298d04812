//! `cargo xtask test`: every test of the workspace, then those that need root and real peers, one at a time.
//!
//! A test that needs root, namespaces or peers is marked `#[ignore = "needs root..."]`, so that plain `cargo test`
//! works for everybody. Here they run too, serially: they share two processors and measure times.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::setup::{self, Group};
use crate::ui;
use crate::workspace;

/// How many tests passed, failed, and were not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    /// Reads libtest's closing line, `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn read(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| -> Option<u64> {
            counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Runs them, and ends with `N passed, N failed`.
///
/// # Errors
/// The set-up is not complete, a test failed, or something did not build.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    setup::run(Group::Test)?;
    ui::heading("Tests of the workspace");
    let (everywhere, first) = cargo_test(filter, &[])?;
    ui::heading("Tests with root, namespaces and real peers, one at a time");
    let (mut count, second) = cargo_test(filter, &["--ignored", "--test-threads=1"])?;
    // The second run's own "ignored" are none; the first run's are what the second has run.
    count.add(Count { ignored: 0, ..everywhere });
    println!("\n{} passed, {} failed ({:.0} s)", count.passed, count.failed, started.elapsed().as_secs_f64());
    if !first || !second || count.failed > 0 {
        bail!("not every test passed");
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it says, and counts. The second value is whether cargo was content.
fn cargo_test(filter: Option<&str>, for_the_tests: &[&str]) -> Result<(Count, bool)> {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["test", "--workspace", "--no-fail-fast"]);
    command.args(filter).arg("--").args(for_the_tests).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    let mut count = Count::default();
    for line in child.stdout.take().into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
        let line = line?;
        if let Some(part) = Count::read(&line) {
            count.add(part);
        }
        println!("{line}");
    }
    Ok((count, child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn the_closing_line_of_libtest_is_counted() {
        let line = "test result: FAILED. 31 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(Count::read(line), Some(Count { passed: 31, failed: 2, ignored: 4 }));
        assert_eq!(Count::read("test a ... ok"), None);
    }
}
