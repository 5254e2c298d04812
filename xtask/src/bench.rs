//! `cargo xtask bench`: measurements. That of the kernel program alone is a bench of the package `branchline-guard`, as is
//! what [`instructions`] counts; all others are made by the package `branchline-bench`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::demo::appliance;
use crate::instructions::{self, Baseline};
use crate::process;
use crate::setup::{self, Group};
use crate::workspace;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// All of the following but `program` and `instructions`, and the report.
    All,
    /// Packets a second and CPU for each packet, beside what would be used instead.
    Throughput,
    /// How long packets take, at parts of what each contender carries.
    Latency,
    /// What a packet costs with more and more streams.
    Streams,
    /// What a call takes of memory in media room and engine.
    Memory,
    /// Calls under a flood of the SIP port.
    Flood,
    /// Where the time of a packet goes, by function: samples of the forwarding core.
    Profile,
    /// Calls and registrations a second, and CPU for each, beside Kamailio with rtpengine.
    Sip,
    /// Calls that stand: with media, in memory, while others are set up, and over a restart.
    Calls,
    /// Nanoseconds per packet of the XDP program, by `BPF_PROG_TEST_RUN`.
    Program,
    /// Instructions of userspace's steps, size and verification of the kernel's programs, against the baseline.
    Instructions,
}

/// How it is measured.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Fewer and shorter runs: throughput takes less than two minutes.
    #[arg(long)]
    quick: bool,
    /// Rounds over all contenders: five, or three quick ones.
    #[arg(long)]
    rounds: Option<u8>,
    /// Where the report goes.
    #[arg(long)]
    into: Option<PathBuf>,
    /// Only these contenders of throughput, latency and profile, by their names in the tables, separated by commas, and the
    /// floor.
    #[arg(long)]
    contenders: Option<String>,
    /// Keep all other processes of the machine off the core that forwards while packets are measured; not while SIPp runs.
    #[arg(long)]
    isolate: bool,
    /// Of `instructions`: make what is counted the baseline.
    #[arg(long)]
    renew: bool,
}

/// Runs a measurement; its output is the benchmark's own.
///
/// # Errors
/// The set-up is not complete, or the benchmark fails.
pub fn run(what: What, options: &Options) -> Result<()> {
    let forwards = !matches!(what, What::Program | What::Instructions);
    ensure!(
        forwards || !options.isolate,
        "`program` and `instructions` have no core that forwards: nothing to isolate"
    );
    if what == What::Instructions {
        setup::run(Group::Bench)?;
        return instructions::run(if options.renew { Baseline::Renew } else { Baseline::Compare });
    }
    ensure!(!options.renew, "only `instructions` has a baseline to renew");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root());
    if what == What::Program {
        setup::run(Group::Build)?;
        command.args(["bench", "--package", "branchline-guard", "--bench", "program"]);
    } else {
        setup::run(Group::Bench)?;
        appliance::build()?;
        let name = what.to_possible_value().context("it has no name")?;
        command.args(["run", "--quiet", "--release", "--package", "branchline-bench", "--", name.get_name()]);
        if options.quick {
            command.arg("--quick");
        }
        if let Some(rounds) = options.rounds {
            command.args(["--rounds", &rounds.to_string()]);
        }
        if let Some(directory) = &options.into {
            command.arg("--into").arg(directory);
        }
        if let Some(names) = &options.contenders {
            command.args(["--contenders", names]);
        }
        if options.isolate {
            command.arg("--isolate");
        }
    }
    let status = command.status().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::show(&command));
    }
    Ok(())
}
