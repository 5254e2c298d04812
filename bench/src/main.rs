//! Branchline's bench: what the appliance carries, what a packet costs, and what becomes of calls under a flood, beside
//! what would be used instead and beside the least that this machine can do. Run by `cargo xtask bench`; needs root.
//!
//! Everything happens in network namespaces that it makes and removes; nothing is sent outside. `docs/bench.md` says what
//! each figure means.
//!
//! | module | its one job |
//! |---|---|
//! | `testbed` | three namespaces in a row, and threads on cores |
//! | `traffic` | generator and sink in the kernel |
//! | `contender` | who stands between them |
//! | `appliance` | the appliance as a process of its own, with calls |
//! | `throughput` | the runs |
//! | `record` | the raw data |
//! | `cores`, `progress`, `sdp` | scheduling, lines on the terminal, session descriptions |

mod appliance;
mod contender;
mod cores;
mod flood;
mod latency;
mod progress;
mod record;
mod sdp;
mod streams;
mod testbed;
mod throughput;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use contender::Contender;
use progress::Progress;
use record::Record;
use testbed::Testbed;
use throughput::Plan;

/// Branchline's bench.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packets a second, and CPU for each packet.
    Throughput {
        /// Fewer and shorter runs: under two minutes.
        #[arg(long)]
        quick: bool,
    },
    /// Calls under a flood of the SIP port.
    Flood,
    /// The cost of a packet with more and more streams.
    Streams {
        /// Fewer and shorter runs.
        #[arg(long)]
        quick: bool,
    },
    /// A contender's process; the bench starts it.
    #[command(hide = true)]
    Appliance(appliance::Arguments),
    /// A contender's process; the bench starts it.
    #[command(hide = true)]
    SocketRelay {
        /// How many streams.
        #[arg(long)]
        calls: usize,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Appliance(arguments) => appliance::run(&arguments),
        Command::SocketRelay { calls } => contender::socket::run(calls),
        Command::Flood => {
            xtask::lab::interrupt::listen();
            let bed = Testbed::create()?;
            let outcomes = flood::run(&bed, |flood| println!("flood: {flood}"))?;
            println!("{}", flood::table(&outcomes));
            Ok(())
        }
        Command::Streams { quick } => {
            xtask::lab::interrupt::listen();
            let (rounds, time) = if quick { (1, Duration::from_millis(300)) } else { (5, Duration::from_secs(1)) };
            let bed = Testbed::create()?;
            let mut record = Record::default();
            let mut progress = Progress::begin("streams", streams::runs(rounds));
            let result = streams::run(&bed, rounds, time, &mut record, &mut progress);
            record.write(&xtask::workspace::scratch("bench")?.join("streams.csv"))?;
            result?;
            progress.end();
            Ok(())
        }
        Command::Throughput { quick } => {
            xtask::lab::interrupt::listen();
            let plan = Plan {
                rounds: if quick { 3 } else { 5 },
                time: if quick { Duration::from_millis(250) } else { Duration::from_secs(1) },
                calls: 1000,
                frame: 214,
                contenders: Contender::ALL.to_vec(),
                bisections: if quick { 4 } else { 7 },
            };
            let bed = Testbed::create()?;
            let mut record = Record::default();
            let mut progress = Progress::begin("throughput", plan.runs());
            let result = throughput::run(&bed, &plan, &mut record, &mut progress);
            record.write(&xtask::workspace::scratch("bench")?.join("throughput.csv"))?;
            result?;
            progress.end();
            Ok(())
        }
    }
}
