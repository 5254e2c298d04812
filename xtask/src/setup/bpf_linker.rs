//! bpf-linker, built against the LLVM of rustc's major version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::toolchain::Toolchain;
use super::{Found, cargo_install};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// The release line that reads the bitcode of this toolchain (see `docs/decisions.md`).
const RELEASE: &str = "0.13";
/// Crates that building it compiles, roughly: only for the progress line.
const CRATES: u32 = 64;

/// Builds and installs bpf-linker unless the right release is on the path.
pub(super) fn ensure(step: &mut Step) -> Result<Found> {
    if let Some(version) = installed() {
        return Ok(Found::Present(version));
    }
    let llvm = Toolchain::of_the_workspace()?.llvm_major;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !prefix.join("bin/llvm-config").is_file() {
        bail!("{} has no bin/llvm-config; install llvm-{llvm}-dev first", prefix.display());
    }
    step.announce(&format!("building it against LLVM {llvm}, a minute or two"));
    let log = workspace::scratch("setup")?.join("bpf-linker.log");
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        // Without it the build looks into /usr/lib64 and finds nothing to link.
        .env("LLVM_PREFIX", &prefix)
        .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"])
        .args(["--version", &format!("^{RELEASE}"), "--features", &format!("llvm-{llvm}")]);
    cargo_install::run(&mut command, &log, step, CRATES)?;
    match installed() {
        Some(version) => Ok(Found::Installed(version)),
        None => bail!(
            "installed, but `bpf-linker --version` finds no {RELEASE}: is cargo's bin directory on PATH?"
        ),
    }
}

/// The version on the path, when it is of the right release line.
fn installed() -> Option<String> {
    let said = process::output(Command::new("bpf-linker").arg("--version")).ok()?;
    of_release(&said).map(str::to_owned)
}

fn of_release(said: &str) -> Option<&str> {
    let version = said.split_whitespace().nth(1)?;
    let rest = version.strip_prefix(RELEASE)?;
    (rest.is_empty() || rest.starts_with('.')).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::of_release;

    #[test]
    fn only_the_release_line_counts() {
        for (said, expected) in [
            ("bpf-linker 0.13.0", Some("0.13.0")),
            ("bpf-linker 0.13", Some("0.13")),
            ("bpf-linker 0.130.1", None),
            ("bpf-linker 0.9.14", None),
            ("", None),
        ] {
            assert_eq!(of_release(said), expected, "{said}");
        }
    }
}
