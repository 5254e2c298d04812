//! cargo-deny, which checks licences and advisories.

use std::process::Command;

use anyhow::Result;

use super::{Found, cargo_install};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// Crates that building it compiles, roughly: only for the progress line.
const CRATES: u32 = 140;

/// Builds and installs cargo-deny unless it is on the path.
pub(super) fn ensure(step: &mut Step) -> Result<Found> {
    if let Ok(version) = process::output(Command::new("cargo-deny").arg("--version")) {
        return Ok(Found::Present(version.trim().to_owned()));
    }
    step.announce("building it, several minutes");
    let log = workspace::scratch("setup")?.join("cargo-deny.log");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["install", "cargo-deny", "--locked"]);
    cargo_install::run(&mut command, &log, step, CRATES)?;
    Ok(Found::Installed(process::output(Command::new("cargo-deny").arg("--version"))?.trim().to_owned()))
}
