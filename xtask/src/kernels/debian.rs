//! Debian's kernels: which there are, and how one gets here.
//!
//! They come from the archive that the system's own apt uses, by other suites of it, their hashes checked by apt. The
//! packages are unpacked, the few modules that a guest needs are taken out, and the rest is removed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::modules;
use crate::process;
use crate::setup::apt::{Archive, PrivateApt};
use crate::ui::Step;
use crate::workspace;

/// The package that depends on the newest kernel of a suite. Not the flavour for clouds: that lacks 9p.
const NEWEST: &str = "linux-image-amd64";
/// What begins the names of the packages that a kernel consists of; which of them there are has changed over time.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// Ends them.
const FLAVOUR: &str = "-amd64";
/// Written last: the release of the kernel beside it.
const STAMP: &str = "release";

/// What is expected of the appliance on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// Everything works.
    Works,
    /// The kernel is too old for its programs; the table says what the kernel says.
    TooOld,
}

/// A line of kernels.
#[derive(Debug)]
pub(super) struct Line {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// Suites of the archive that have it, the best first.
    suites: &'static [&'static str],
    /// What is expected on it.
    pub(super) expectation: Expectation,
}

/// The lines, the oldest first: Debian's stable releases, and the newest kernel there is.
const LINES: [Line; 4] = [
    Line { name: "5.10", suites: &["bullseye"], expectation: Expectation::TooOld },
    Line { name: "6.1", suites: &["bookworm"], expectation: Expectation::Works },
    Line { name: "6.12", suites: &["trixie"], expectation: Expectation::Works },
    Line { name: "newest", suites: &["trixie-backports", "sid"], expectation: Expectation::Works },
];

/// The lines of these names; all when there are none.
///
/// # Errors
/// There is no such line.
pub(super) fn named(names: &[String]) -> Result<Vec<&'static Line>> {
    if names.is_empty() {
        return Ok(LINES.iter().collect());
    }
    let known = LINES.map(|line| line.name).join(", ");
    let find = |name: &String| {
        let line = LINES.iter().find(|line| line.name == name);
        line.with_context(|| format!("no kernel \"{name}\" is known; there are {known}"))
    };
    names.iter().map(find).collect()
}

/// A kernel, ready to be booted.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// The file that QEMU boots.
    pub(super) image: PathBuf,
    /// The modules' files, in the order in which they load.
    pub(super) modules: Vec<PathBuf>,
    /// Where all of it is.
    pub(super) dir: PathBuf,
}

/// Looks whether the line's kernel is here, and fetches it otherwise.
pub(super) fn ensure(line: &Line, step: &mut Step) -> Result<Kernel> {
    let dir = workspace::scratch("kernels")?.join(line.name);
    if !dir.join(STAMP).is_file() {
        fetch(line, &dir, step)
            .with_context(|| format!("Debian's kernel {} cannot be fetched", line.name))?;
    }
    let release = fs::read_to_string(dir.join(STAMP))?.trim().to_owned();
    let mut modules: Vec<PathBuf> =
        fs::read_dir(dir.join("modules"))?.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    Ok(Kernel { release, image: dir.join("vmlinuz"), modules, dir })
}

fn fetch(line: &Line, dir: &Path, step: &mut Step) -> Result<()> {
    let archive = Archive::of_the_system()?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    let unpacked = dir.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let mut tried = Vec::new();
    for suite in line.suites {
        let apt = PrivateApt::create(&dir.join("apt"), &archive, suite)?;
        step.announce(&format!("looking in {suite}"));
        match unpack(&apt, &unpacked, step) {
            Ok(release) => {
                take(&unpacked, &release, dir)?;
                fs::remove_dir_all(&unpacked)?;
                fs::remove_dir_all(dir.join("apt"))?;
                // Last, so that an interrupted run leaves nothing that is taken for whole.
                return Ok(fs::write(dir.join(STAMP), format!("{release}\n"))?);
            }
            Err(error) => tried.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("{}", tried.join("\n"))
}

/// Unpacks the suite's newest kernel and says its release.
fn unpack(apt: &PrivateApt, into: &Path, step: &mut Step) -> Result<String> {
    apt.update(step)?;
    let image = parts(&apt.show(NEWEST)?, None)
        .into_iter()
        .find(|part| part.0.starts_with(PARTS[0]))
        .with_context(|| format!("{NEWEST} depends on no kernel"))?;
    let release = image.0.trim_start_matches(PARTS[0]).to_owned();
    let mut packages = parts(&apt.show(&image.0)?, Some(&release));
    packages.push(image);
    for (package, version) in packages {
        step.announce(&format!("fetching {package} {version}"));
        apt.unpack(&package, &version, into)?;
    }
    Ok(release)
}

/// The packages of a kernel, with their versions, that the first description in `apt-cache show`'s answer depends on
/// (deb-control(5)): `Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2), ...`.
fn parts(described: &str, release: Option<&str>) -> Vec<(String, String)> {
    let first = described.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let part = |dependency: &str| {
        let (name, version) = dependency.trim().split_once(" (= ")?;
        let ours = PARTS.iter().find_map(|part| name.strip_prefix(part))?;
        let fits = match release {
            Some(release) => ours == release,
            None => ours.ends_with(FLAVOUR) && ours.starts_with(|first: char| first.is_ascii_digit()),
        };
        fits.then(|| (name.to_owned(), version.trim_end_matches(')').to_owned()))
    };
    first.split(", ").filter_map(part).collect()
}

/// Takes the image and the modules out of the unpacked packages.
fn take(unpacked: &Path, release: &str, dir: &Path) -> Result<()> {
    // Newer packages have their files below /usr, where depmod's `-b` does not look.
    let (new, old) = (unpacked.join("usr/lib"), unpacked.join("lib"));
    if !old.exists() {
        std::os::unix::fs::symlink(&new, &old)?;
    }
    let tree = old.join("modules").join(release);
    let image = [unpacked.join(format!("boot/vmlinuz-{release}")), tree.join("vmlinuz")];
    let image = image.iter().find(|file| file.is_file()).context("the packages have no vmlinuz")?;
    fs::copy(image, dir.join("vmlinuz"))?;
    let depmod = process::find("depmod").context("no depmod; it is in Debian's package kmod")?;
    process::output(Command::new(depmod).arg("-b").arg(unpacked).arg(release))?;
    let index = fs::read_to_string(tree.join("modules.dep")).context("depmod has made no modules.dep")?;
    let target = dir.join("modules");
    fs::create_dir_all(&target)?;
    for (place, module) in modules::in_order(&index, modules::WANTED).iter().enumerate() {
        let source = tree.join(module);
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{place:02}-{}.ko", name.trim_end_matches(".ko"));
        unpack_module(&source, &target.join(name))?;
    }
    Ok(())
}

/// Copies a module, uncompressed: not every kernel loads them otherwise.
fn unpack_module(source: &Path, target: &Path) -> Result<()> {
    if source.extension().is_some_and(|extension| extension == "xz") {
        let file = fs::File::create(target)?;
        let status =
            Command::new("xz").arg("-dc").arg(source).stdout(file).status().context("cannot run xz")?;
        anyhow::ensure!(status.success(), "xz cannot unpack {}", source.display());
        return Ok(());
    }
    fs::copy(source, target).map(drop).with_context(|| format!("cannot copy {}", source.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn a_kernel_s_packages_are_read_from_what_apt_says_of_the_newest() {
        for (description, text, release, expected) in [
            (
                "one package, and an older description behind it",
                "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n\n\
                 Package: linux-image-amd64\nDepends: linux-image-6.1.0-47-amd64 (= 6.1.176-1)\n",
                None,
                pairs(&[("linux-image-6.1.0-56-amd64", "6.1.192-2")]),
            ),
            (
                "several, and others that go with them",
                "Depends: linux-base-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-amd64 (= 7.3.4-1), \
                 linux-modules-amd64 (= 7.3.4-1)\n",
                None,
                pairs(&[("linux-image-7.3.4+deb13-amd64", "7.3.4-1")]),
            ),
            (
                "the parts of one release",
                "Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.3.4-amd64 (= 7.3.4-1), \
                 linux-binary-7.3.4-amd64 (= 7.3.4-1), linux-modules-7.3.4-amd64 (= 7.3.4-1)\n",
                Some("7.3.4-amd64"),
                pairs(&[("linux-binary-7.3.4-amd64", "7.3.4-1"), ("linux-modules-7.3.4-amd64", "7.3.4-1")]),
            ),
            ("none", "Package: linux-image-amd64\n", None, vec![]),
        ] {
            assert_eq!(parts(text, release), expected, "{description}");
        }
    }

    #[test]
    fn lines_are_known_by_name_and_an_unknown_one_is_told_which_there_are() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(named(&[]).unwrap().len(), LINES.len());
        assert_eq!(named(&names(&["6.12", "6.1"])).unwrap()[0].name, "6.12");
        let error = named(&names(&["6.2"])).unwrap_err().to_string();
        assert_eq!(error, "no kernel \"6.2\" is known; there are 5.10, 6.1, 6.12, newest");
    }
}
