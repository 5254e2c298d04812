//! `cargo xtask dist`: the Debian package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::demo::appliance;
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// Builds the release and packs it; returns the package's file.
///
/// # Errors
/// It does not build, or as [`pack`].
pub fn run() -> Result<PathBuf> {
    appliance::build()?;
    pack(None)
}

/// Packs the release that [`appliance::build`] has made. `version` is the package's, the workspace's if none is given.
///
/// # Errors
/// cargo-deb fails; the message has the end of its output.
pub fn pack(version: Option<&str>) -> Result<PathBuf> {
    let directory = workspace::target_dir().join("dist");
    let documents = directory.join("documents");
    fs::create_dir_all(&documents).with_context(|| format!("cannot create {}", documents.display()))?;
    process::output(Command::new(appliance::program()).arg("generate-documents").arg(&documents))?;
    let mut step = Step::begin("cargo deb");
    let log = workspace::scratch("setup")?.join("deb.log");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["deb", "--package", "relay-userspace", "--no-build"]);
    let name = format!("branchline_{}.deb", version.unwrap_or(env!("CARGO_PKG_VERSION")));
    // One with a version of its own is a test's, and not to be taken for the package.
    let package = if version.is_some() { workspace::scratch("lab")? } else { directory }.join(name);
    command.arg("--output").arg(&package);
    if let Some(version) = version {
        // A version of its own is for tests: it need not be small.
        command.args(["--deb-version", version, "--fast"]);
    }
    process::with_progress(&mut command, &log, &mut step, |line| Some(line.trim().to_owned()))?;
    Ok(package)
}
