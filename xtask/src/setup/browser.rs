//! What drives the browser in the tests: the npm packages of `relay-userspace/tests/browser`, at the versions and
//! with the checksums of its lock file, installed below `target/`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Found;
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// Where the tests' package description is in the source tree.
const SOURCE: &str = "relay-userspace/tests/browser";
/// The lock file of what was installed, written last.
const DONE: &str = "installed.json";
/// The files that say what to install.
const FILES: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// Installs what the lock file names, unless just that is installed.
pub(super) fn ensure(step: &mut Step) -> Result<Found> {
    let (source, target) = (workspace::root().join(SOURCE), workspace::scratch("browser")?);
    if is_installed(&source, &target) {
        return Ok(Found::Present("playwright-core".to_owned()));
    }
    if process::find("npm").is_none() {
        bail!("npm is missing: install the package npm, or Node.js with npm another way");
    }
    step.announce("npm ci");
    for file in FILES {
        fs::copy(source.join(file), target.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let mut command = Command::new("npm");
    command.current_dir(&target).arg("ci");
    let log = workspace::scratch("setup")?.join("npm.log");
    process::with_progress(&mut command, &log, step, |line| Some(line.to_owned()))?;
    fs::copy(source.join("package-lock.json"), target.join(DONE)).context("cannot note what is installed")?;
    Ok(Found::Installed("playwright-core".to_owned()))
}

fn is_installed(source: &Path, target: &Path) -> bool {
    let wanted = fs::read(source.join("package-lock.json")).ok();
    wanted.is_some() && wanted == fs::read(target.join(DONE)).ok() && target.join("node_modules").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_pins_by_checksum_and_names_no_registry() {
        let lock = fs::read_to_string(workspace::root().join(SOURCE).join("package-lock.json")).unwrap();
        assert!(lock.contains("\"integrity\": \"sha512-"), "{lock}");
        assert!(!lock.contains("://") && !lock.contains("\"resolved\""), "{lock}");
    }
}
