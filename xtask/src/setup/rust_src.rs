//! The standard library's source, of exactly the pinned release: `-Z build-std=core` compiles it for BPF.
//!
//! rustup adds it where it can download. Elsewhere Debian's package of the same release serves. A copy is made
//! beside its place and renamed into it, so that a set-up that was interrupted leaves no half of a library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Found;
use super::apt::{Archive, PrivateApt};
use super::toolchain::{self, Toolchain};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// Suites of the Debian archive that carry newer Rust than the stable release, the steadiest first.
const SUITES: &[&str] = &["trixie-backports", "forky", "sid"];
/// rustup fails at once where it cannot download, or takes seconds where it can.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);
/// Written beside the library: the release that it is of.
const STAMP: &str = ".branchline-rust-src";

/// Where the source belongs in a toolchain.
struct Place {
    /// `<sysroot>/lib/rustlib/src/rust`
    dir: PathBuf,
}

impl Place {
    fn in_sysroot(sysroot: &Path) -> Self {
        Self { dir: sysroot.join("lib/rustlib/src/rust") }
    }

    fn library(&self) -> PathBuf {
        self.dir.join("library")
    }

    /// Whether a whole library of this release is here.
    fn holds(&self, release: &str) -> bool {
        // `std` comes late in a copy and `core` is what is needed: both, so that no partial copy counts.
        let whole = ["core/src/lib.rs", "std/src/lib.rs", "Cargo.lock"]
            .iter()
            .all(|file| self.library().join(file).is_file());
        if !whole {
            return false;
        }
        match fs::read_to_string(self.dir.join(STAMP)) {
            Ok(stamp) => stamp.trim() == release,
            // Put there by rustup or by hand: the library itself says since when its newest items are stable.
            Err(_) => newest_stable_item(&self.library().join("core/src")).as_deref() == Some(release),
        }
    }

    /// Replaces what is here by a copy of `library`.
    fn install(&self, library: &Path, release: &str) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let fresh = self.dir.join(".library.new");
        let old = self.dir.join(".library.old");
        for path in [&fresh, &old] {
            remove_tree(path)?;
        }
        // `cp` because the unpacked package may lie on another file system, where rename does not reach.
        process::output(Command::new("cp").arg("-a").arg(library).arg(&fresh))?;
        if self.library().exists() {
            fs::rename(self.library(), &old)?;
        }
        fs::rename(&fresh, self.library())?;
        fs::write(self.dir.join(STAMP), format!("{release}\n"))?;
        remove_tree(&old)
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Installs the source unless it is there.
pub(super) fn ensure(step: &mut Step) -> Result<Found> {
    let release = Toolchain::of_the_workspace()?.release;
    let place = Place::in_sysroot(&toolchain::sysroot()?);
    if place.holds(&release) {
        return Ok(Found::Present(release));
    }
    step.announce("asking rustup");
    // It is about what was there before; what rustup installs says itself of which release it is.
    let _ = fs::remove_file(place.dir.join(STAMP));
    let rustup_said = match by_rustup(&release) {
        Ok(()) if place.holds(&release) => return Ok(Found::Installed(format!("{release}, by rustup"))),
        Ok(()) => "rustup added it, but the library is not of this release".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    step.announce("rustup cannot; looking for Debian's package of the same release");
    match by_apt(&release, &place, step) {
        Ok(version) => Ok(Found::Installed(format!("{release}, from Debian's rust-src {version}"))),
        Err(error) => bail!(
            "{error:#}\n(rustup: {})\nBy hand: rustup component add rust-src --toolchain {release}, or put the \
             directory `library` of Rust {release}'s source into {}",
            rustup_said.lines().next().unwrap_or_default(),
            place.dir.display()
        ),
    }
}

fn by_rustup(release: &str) -> Result<()> {
    let mut command = Command::new("rustup");
    command.current_dir(workspace::root()).args(["component", "add", "rust-src", "--toolchain", release]);
    process::output_within(&mut command, RUSTUP_LIMIT).map(drop)
}

fn by_apt(release: &str, place: &Place, step: &mut Step) -> Result<String> {
    if process::find("apt-get").is_none() || process::find("dpkg-deb").is_none() {
        bail!("this system has no apt to get Debian's rust-src {release} by");
    }
    let archive = Archive::of_the_system()?;
    let scratch = workspace::scratch("setup")?.join("apt");
    let mut tried = Vec::new();
    for suite in SUITES {
        let apt = PrivateApt::create(&scratch.join(suite), &archive, suite)?;
        if let Err(error) = apt.update(step) {
            tried.push(format!("{suite}: {error:#}"));
            continue;
        }
        let Some(version) = apt.version_of("rust-src", release)? else {
            tried.push(format!("{suite}: no rust-src {release}"));
            continue;
        };
        step.announce(&format!("unpacking rust-src {version} from {suite}"));
        let unpacked = scratch.join("unpacked");
        remove_tree(&unpacked)?;
        apt.unpack("rust-src", &version, &unpacked)?;
        place.install(&unpacked.join(format!("usr/src/rustc-{release}/library")), release)?;
        remove_tree(&scratch)?;
        return Ok(version);
    }
    bail!("no Debian suite has rust-src {release}:\n  {}", tried.join("\n  "))
}

/// The highest release that an item of this source names as the one since which it is stable.
fn newest_stable_item(source: &Path) -> Option<String> {
    let mut newest = None;
    let mut directories = vec![source.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).ok()?;
                newest = newest.max(text.lines().filter_map(stable_since).max());
            }
        }
    }
    newest.map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"))
}

/// Reads `since` of a line such as `#[stable(feature = "x", since = "1.95.0")]`.
fn stable_since(line: &str) -> Option<(u32, u32, u32)> {
    let attribute = line.trim_start();
    if !attribute.starts_with("#[stable(") && !attribute.starts_with("#[rustc_const_stable(") {
        return None;
    }
    let (_, rest) = attribute.split_once("since = \"")?;
    let mut parts = rest.split_once('"')?.0.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed with it.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("branchline-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write_library(dir: &Path, since: &str) {
        for (file, text) in [
            ("core/src/lib.rs", format!("#[stable(feature = \"x\", since = \"{since}\")]\npub mod x;\n")),
            ("std/src/lib.rs", String::new()),
            ("Cargo.lock", String::new()),
        ] {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_library_is_replaced_whole_and_known_by_its_stamp() {
        let temp = Temp::new("rust-src-install");
        let place = Place::in_sysroot(&temp.0);
        let package = temp.0.join("package/library");
        write_library(&package, "1.95.0");
        fs::create_dir_all(place.library().join("core/src")).unwrap();
        fs::write(place.library().join("core/src/left_over.rs"), "").unwrap();
        assert!(!place.holds("1.95.0"), "a part of a library is no library");

        place.install(&package, "1.95.0").unwrap();

        assert!(place.holds("1.95.0"));
        assert!(!place.holds("1.96.0"));
        assert!(!place.library().join("core/src/left_over.rs").exists());
        assert!(!place.dir.join(".library.new").exists() && !place.dir.join(".library.old").exists());
    }

    #[test]
    fn a_library_without_a_stamp_is_known_by_its_newest_stable_item() {
        let temp = Temp::new("rust-src-by-hand");
        let place = Place::in_sysroot(&temp.0);
        write_library(&place.library(), "1.94.0");
        assert!(!place.holds("1.95.0"));
        assert!(place.holds("1.94.0"));
    }

    #[test]
    fn only_stability_attributes_with_a_release_count() {
        for (line, expected) in [
            ("    #[stable(feature = \"a\", since = \"1.95.0\")]", Some((1, 95, 0))),
            ("#[rustc_const_stable(feature = \"a\", since = \"1.9.1\")]", Some((1, 9, 1))),
            ("#[stable(feature = \"a\", since = \"FIXME\")]", None),
            ("#[deprecated(since = \"1.99.0\")]", None),
        ] {
            assert_eq!(stable_since(line), expected, "{line}");
        }
    }
}
