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
//! | `session` | which parts are measured, and what is written of them |
//! | `throughput`, `latency`, `profile`, `streams`, `memory`, `flood`, `sip`, `calls` | the parts |
//! | `record`, `report`, `plots` | the raw data, and what is made of it |
//! | `machine`, `pauses`, `other_work` | where it was measured, and how quiet it was there |
//! | `stalls` | when the receiving thread left its queue alone, and why |
//! | `apart` | other processes kept off the core that forwards, when asked for |
//! | `cores`, `progress`, `sdp` | scheduling, lines on the terminal, session descriptions |

mod apart;
mod appliance;
mod calls;
mod contender;
mod cores;
mod flood;
mod latency;
mod machine;
mod memory;
mod other_work;
mod pauses;
mod plots;
mod profile;
mod progress;
mod record;
mod report;
mod sdp;
mod session;
mod sip;
mod stalls;
mod streams;
mod testbed;
mod throughput;
mod traffic;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

use session::Part;

/// As the daemon has it, for media room and engine run in this process when their memory is looked at.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Branchline's bench.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything, and the report.
    All(session::Options),
    /// Packets a second, and CPU for each packet.
    Throughput(session::Options),
    /// How long packets take at parts of what each contender carries.
    Latency(session::Options),
    /// Where the time of a packet goes, by function.
    Profile(session::Options),
    /// The cost of a packet with more and more streams.
    Streams(session::Options),
    /// What a call takes of memory.
    Memory(session::Options),
    /// Calls under a flood of the SIP port.
    Flood(session::Options),
    /// Calls and registrations a second, and CPU for each.
    Sip(session::Options),
    /// Calls that stand: with media, in memory, while others are set up, and over a restart.
    Calls(session::Options),
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
        Command::All(options) => session::run(&options, &Part::ALL),
        Command::Throughput(options) => session::run(&options, &[Part::Throughput]),
        Command::Latency(options) => session::run(&options, &[Part::Latency]),
        Command::Profile(options) => session::run(&options, &[Part::Profile]),
        Command::Streams(options) => session::run(&options, &[Part::Streams]),
        Command::Memory(options) => session::run(&options, &[Part::Memory]),
        Command::Flood(options) => session::run(&options, &[Part::Flood]),
        Command::Sip(options) => session::run(&options, &[Part::Sip]),
        Command::Calls(options) => session::run(&options, &[Part::Calls]),
    }
}
