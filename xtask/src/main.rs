//! `cargo xtask`: the command line over the library of the same name.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::setup::{self, Group};

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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup { group } => setup::run(group),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
