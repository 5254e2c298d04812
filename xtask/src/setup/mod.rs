//! `cargo xtask setup`: install what is missing, and only that.
//!
//! Every step first looks whether its result is there, by files and by dpkg's status, never by the network, so
//! that a second run takes well under two seconds. A step that cannot do its work (no apt, not root, no such
//! package) says by name what a person has to install.

pub(crate) mod apt;
mod bpf_linker;
mod browser;
mod cargo_deb;
mod cargo_deny;
mod cargo_install;
mod packages;
mod rust_src;
mod toolchain;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::ui::{self, Outcome, Step};

/// What a machine is to be set up for. Each group contains the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Group {
    /// `cargo build`, `cargo clippy`, and the tests that need no peers.
    Build,
    /// `cargo xtask demo`: the laboratory and its phones.
    Demo,
    /// `cargo xtask bench`: what the appliance is measured beside, and what counts instructions.
    Bench,
    /// `cargo xtask test` and `cargo xtask dist`: real peers, Prometheus, and what makes and tries the package.
    Test,
    /// All of it, with cargo-deny.
    All,
}

/// What a step found or did: a detail for its line.
pub(crate) enum Found {
    /// Nothing was missing.
    Present(String),
    /// It was missing and has been installed.
    Installed(String),
}

/// Sets the machine up for a group.
///
/// # Errors
/// One or more steps failed. Every step is tried and printed, so that one run names all that is missing.
pub fn run(group: Group) -> Result<()> {
    let started = Instant::now();
    let name = group.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    ui::heading(&format!("Set-up for {name}"));
    let mut failures = Vec::new();
    // Packages first: bpf-linker is linked against LLVM's.
    step("packages", &mut failures, |step| packages::ensure(group, step));
    step("rust-src", &mut failures, rust_src::ensure);
    step("bpf-linker", &mut failures, bpf_linker::ensure);
    if group >= Group::Test {
        step("cargo-deb", &mut failures, cargo_deb::ensure);
    }
    if group >= Group::Test {
        step("browser tests", &mut failures, browser::ensure);
    }
    if group >= Group::All {
        step("cargo-deny", &mut failures, cargo_deny::ensure);
    }
    if failures.is_empty() {
        ui::heading(&format!("Ready for {name} ({:.1} s).", started.elapsed().as_secs_f64()));
        return Ok(());
    }
    bail!("set-up is not complete:\n\n{}", failures.join("\n\n"))
}

/// The address of the main Debian archive, as the system's apt has it.
///
/// # Errors
/// There is none among its sources.
pub fn main_archive() -> Result<String> {
    apt::Archive::of_the_system().map(|archive| archive.uri().to_owned())
}

/// The release of the rustc that builds this tree, for example `1.95.0`.
///
/// # Errors
/// It is not there, or not the one that `rust-toolchain.toml` pins.
pub fn compiler() -> Result<String> {
    toolchain::Toolchain::of_the_workspace().map(|toolchain| toolchain.release)
}

fn step(title: &str, failures: &mut Vec<String>, ensure: impl FnOnce(&mut Step) -> Result<Found>) {
    let mut step = Step::begin(title);
    match ensure(&mut step) {
        Ok(Found::Present(detail)) => step.end(Outcome::Skipped, &format!("there: {detail}")),
        Ok(Found::Installed(detail)) => step.end(Outcome::Done, &format!("installed: {detail}")),
        Err(error) => {
            step.end(Outcome::Failed, "see below");
            failures.push(format!("{title}: {error:#}"));
        }
    }
}
