//! `cargo install`, showing how far it is.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::ui::Step;

/// Runs a `cargo install` and shows which crate it is at and how many are done, of about `crates`.
pub(super) fn run(command: &mut Command, log: &Path, step: &mut Step, crates: u32) -> Result<()> {
    let mut compiled = 0_u32;
    process::with_progress(command, log, step, |line| {
        let line = line.trim_start();
        let (verb, rest) = line.split_once(' ')?;
        match verb {
            "Compiling" => {
                compiled += 1;
                Some(format!("crate {compiled} of about {crates}: {rest}"))
            }
            "Updating" | "Downloading" | "Downloaded" => Some(line.to_owned()),
            _ => None,
        }
    })
}
