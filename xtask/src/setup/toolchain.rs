//! What the pinned Rust toolchain is: its release, its LLVM, where it lies.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace;

/// The facts about rustc that the set-up depends on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Release, for example `1.95.0`.
    pub(crate) release: String,
    /// Major version of the LLVM that rustc was built with.
    pub(crate) llvm_major: u32,
}

impl Toolchain {
    /// Asks the rustc that builds this tree, and checks that it is the pinned one.
    pub(crate) fn of_the_workspace() -> Result<Self> {
        let said = process::output(rustc().arg("-vV"))?;
        let toolchain = Self::parse(&said)?;
        let pinned = workspace::pinned_toolchain()?;
        if toolchain.release != pinned {
            bail!(
                "rustc is {}, but rust-toolchain.toml pins {pinned}; install it: rustup toolchain install {pinned}",
                toolchain.release
            );
        }
        Ok(toolchain)
    }

    fn parse(verbose_version: &str) -> Result<Self> {
        let field = |name: &str| {
            verbose_version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .with_context(|| format!("`rustc -vV` has no `{name}` line:\n{verbose_version}"))
        };
        let llvm = field("LLVM version:")?;
        let llvm_major = llvm
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .with_context(|| format!("`rustc -vV`: cannot read the LLVM version `{llvm}`"))?;
        Ok(Self { release: field("release:")?.to_owned(), llvm_major })
    }
}

/// The directory that holds the toolchain's `lib/rustlib`.
pub(crate) fn sysroot() -> Result<PathBuf> {
    let said = process::output(rustc().args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(said.trim()))
}

fn rustc() -> Command {
    let mut command = Command::new("rustc");
    // In the workspace's root, so that rustup reads its rust-toolchain.toml.
    command.current_dir(workspace::root());
    command
}

#[cfg(test)]
mod tests {
    use super::Toolchain;

    #[test]
    fn release_and_llvm_are_read_from_verbose_version() {
        let said =
            "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        let expected = Toolchain { release: "1.95.0".to_owned(), llvm_major: 22 };
        assert_eq!(Toolchain::parse(said).unwrap(), expected);
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Toolchain::parse("release: 1.95.0\n").unwrap_err();
        assert!(error.to_string().contains("LLVM version:"), "{error}");
    }
}
