//! cargo-deb, which makes the Debian package.

use std::process::Command;

use anyhow::Result;

use super::{Found, cargo_install};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// The version that packages are made with.
const VERSION: &str = "3.8.0";
/// Crates that building it compiles, roughly: only for the progress line.
const CRATES: u32 = 120;

/// Builds and installs cargo-deb unless it is on the path.
pub(super) fn ensure(step: &mut Step) -> Result<Found> {
    if let Ok(version) = process::output(Command::new("cargo-deb").arg("--version")) {
        return Ok(Found::Present(version.trim().to_owned()));
    }
    step.announce("building it, a minute");
    let log = workspace::scratch("setup")?.join("cargo-deb.log");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["install", "cargo-deb", "--version", VERSION, "--locked"]);
    cargo_install::run(&mut command, &log, step, CRATES)?;
    Ok(Found::Installed(process::output(Command::new("cargo-deb").arg("--version"))?.trim().to_owned()))
}
