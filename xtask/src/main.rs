//! `cargo xtask`: the command line over the library of the same name.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use xtask::demo::{self, Keep, appliance};
use xtask::kernels::{self, Extent};
use xtask::setup::{self, Group};
use xtask::{bench, dist, test};

/// Branchline's own set-up, build, demo, test and bench commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing on this machine, and only that.
    Setup {
        /// What to set up for; each group contains the ones before it.
        #[arg(long = "for", value_enum, default_value_t = Group::Test)]
        group: Group,
    },
    /// Build the appliance for release, with its kernel programs.
    Build,
    /// Show overlapping calls through the appliance on this machine, and check what the wires saw.
    Demo {
        /// Leave it running, with calls, until Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// How many calls.
        #[arg(long, default_value_t = 20)]
        calls: u32,
        /// How many seconds each call talks.
        #[arg(long, default_value_t = 12)]
        seconds: u64,
    },
    /// Run the appliance from this tree with a configuration file.
    Run {
        /// Arguments of `branchline`, for example `run --config branchline.toml`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Run every test: units, properties, packet fixtures, and calls between real peers in namespaces.
    Test {
        /// Only those whose name contains this.
        filter: Option<String>,
    },
    /// Boot other kernels in QEMU, and print what of the appliance works on each.
    Kernels {
        /// Which: 5.10, 6.1, 6.12, newest. All when there are none.
        lines: Vec<String>,
        /// Try only what differs most between kernels.
        #[arg(long)]
        quick: bool,
    },
    /// Make the Debian package.
    Dist,
    /// Measure.
    Bench {
        /// What to measure.
        #[arg(value_enum, default_value_t = bench::What::All)]
        what: bench::What,
        #[command(flatten)]
        options: bench::Options,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup { group } => setup::run(group),
        Command::Build => setup::run(Group::Build).and_then(|()| appliance::build()),
        Command::Demo { keep, calls, seconds } => demo::run(demo::Options {
            calls,
            talk: Duration::from_secs(seconds),
            keep: if keep { Keep::UntilInterrupted } else { Keep::No },
        }),
        Command::Run { arguments } => appliance::run(&arguments),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Kernels { lines, quick } => {
            let extent = if quick { Extent::Quick } else { Extent::Full };
            kernels::run(&kernels::Options { lines, extent })
        }
        Command::Dist => setup::run(Group::Test).and_then(|()| dist::run()).map(|package| {
            println!("{}", package.display());
        }),
        Command::Bench { what, options } => bench::run(what, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
