//! `cargo xtask test`: every test of the workspace, one at a time.
//!
//! Those that need root, namespaces or peers say so when they fail; nothing is left out. They run serially: they
//! share the processors with their own phones, and each is named while it runs.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::demo::appliance;
use crate::lab::machine;
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
    if filter.is_none() {
        // The package's test wants both; made inside it, they would be silent minutes.
        ui::heading("What the tests stand on");
        appliance::build()?;
        machine::prepare()?;
    }
    ui::heading(
        "Tests of the workspace: units, properties, packets, and calls between real peers in namespaces",
    );
    let (count, content) = cargo_test(filter)?;
    println!("\n{} passed, {} failed ({:.0} s)", count.passed, count.failed, started.elapsed().as_secs_f64());
    if !content || count.failed > 0 || count.ignored > 0 {
        bail!("not every test passed");
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it says as it says it, and counts. The second value is whether cargo was content.
fn cargo_test(filter: Option<&str>) -> Result<(Count, bool)> {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["test", "--workspace", "--no-fail-fast"]);
    command.args(filter).args(["--", "--test-threads=1"]).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    if let Some(mut pipe) = child.stdout.take() {
        // Not by lines: the name of the test that runs has no line end yet.
        loop {
            let length = pipe.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            let mut out = std::io::stdout().lock();
            out.write_all(&buffer[..length])?;
            out.flush()?;
            said.extend_from_slice(&buffer[..length]);
        }
    }
    let mut count = Count::default();
    String::from_utf8_lossy(&said).lines().filter_map(Count::read).for_each(|part| count.add(part));
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
