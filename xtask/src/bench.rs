//! `cargo xtask bench`: measurements, each a benchmark of the package that it measures.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::process;
use crate::setup::{self, Group};
use crate::workspace;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Nanoseconds per packet of the XDP program, by `BPF_PROG_TEST_RUN`.
    Program,
}

/// Runs a measurement; its output is the benchmark's own.
///
/// # Errors
/// The set-up is not complete, or the benchmark fails.
pub fn run(what: What) -> Result<()> {
    setup::run(Group::Build)?;
    let name = match what {
        What::Program => "program",
    };
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["bench", "--package", "relay-userspace", "--bench", name]);
    let status = command.status().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::show(&command));
    }
    Ok(())
}
