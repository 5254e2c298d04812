//! A private apt: its own source list, lists and cache, so that the system's stay as they are.
//!
//! The source is derived from the one the system has for the main Debian archive: same address, same keyring,
//! another suite. Signatures are checked by apt as always; nothing here turns that off.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::ui::Step;

/// Where the system's own sources are written down: one file, and one directory of files.
const SOURCES_FILE: &str = "/etc/apt/sources.list";
const SOURCES_DIR: &str = "/etc/apt/sources.list.d";
/// Suites of the Debian archive end in one of these when they are not the main one.
const SIDE_SUITES: &[&str] = &["-security", "-updates", "-backports", "-proposed-updates"];

/// The system's source for the main Debian archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    /// The address apt fetches from.
    uri: String,
    /// The keyring that signs it, when the source names one; otherwise apt's trusted keys are used.
    signed_by: Option<String>,
}

impl Archive {
    /// Finds it among the system's apt sources.
    pub(crate) fn of_the_system() -> Result<Self> {
        let mut files = vec![PathBuf::from(SOURCES_FILE)];
        if let Ok(entries) = fs::read_dir(SOURCES_DIR) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let found = match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => Self::in_deb822(&text),
                Some("list") => Self::in_one_line_format(&text),
                _ => None,
            };
            if let Some(archive) = found {
                return Ok(archive);
            }
        }
        bail!("no source for the main Debian archive in {SOURCES_FILE} or {SOURCES_DIR}")
    }

    /// Its address.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Reads stanzas of `Field: value` lines (sources.list(5), "deb822-style format").
    fn in_deb822(text: &str) -> Option<Self> {
        let without_comments: Vec<&str> =
            text.lines().map(|line| if line.starts_with('#') { "#" } else { line }).collect();
        without_comments.split(|line| line.trim().is_empty()).find_map(|stanza| {
            let field = |name: &str| {
                stanza
                    .iter()
                    .filter_map(|line| line.split_once(':'))
                    .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value.trim()))
            };
            let disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
            let binary = field("Types")?.split_whitespace().any(|kind| kind == "deb");
            let main = field("Suites")?.split_whitespace().any(is_main_suite);
            let uri = field("URIs")?.split_whitespace().find(|uri| is_main_archive(uri))?;
            let signed_by = field("Signed-By").filter(|path| path.starts_with('/'));
            (binary && main && !disabled)
                .then(|| Self { uri: uri.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }

    /// Reads lines of `deb [options] uri suite components` (sources.list(5), "one-line-style format").
    fn in_one_line_format(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let line = line.split('#').next()?.trim();
            let rest = line.strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            (is_main_archive(uri) && is_main_suite(suite))
                .then(|| Self { uri: uri.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }
}

/// A mirror may have any host name; the archive's last directory is `debian` by convention on all of them.
fn is_main_archive(uri: &str) -> bool {
    uri.trim_end_matches('/').rsplit('/').next() == Some("debian")
}

fn is_main_suite(suite: &str) -> bool {
    !SIDE_SUITES.iter().any(|side| suite.ends_with(side))
}

/// An apt of our own in a directory, reading one suite of the archive.
pub(crate) struct PrivateApt {
    dir: PathBuf,
    suite: String,
}

impl PrivateApt {
    /// Makes its directories and its source list.
    pub(crate) fn create(dir: &Path, archive: &Archive, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "download"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let signed_by =
            archive.signed_by.as_ref().map_or_else(String::new, |path| format!("[signed-by={path}] "));
        let source = format!("deb {signed_by}{} {suite} main\n", archive.uri);
        let list = dir.join("sources.list");
        fs::write(&list, source).with_context(|| format!("cannot write {}", list.display()))?;
        // apt downloads as the user _apt, who has to reach and write these.
        for path in [dir.to_path_buf(), dir.join("download")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { dir: dir.to_path_buf(), suite: suite.to_owned() })
    }

    /// Fetches the suite's package lists, their signature checked.
    pub(crate) fn update(&self, step: &mut Step) -> Result<()> {
        let log = self.dir.join("update.log");
        let mut command = self.command("apt-get");
        command.args(["update", "--error-on=any"]);
        let suite = &self.suite;
        process::with_progress(&mut command, &log, step, |line| Some(format!("lists of {suite}: {line}")))
    }

    /// The newest version of a package that begins with `prefix`, if the suite has one.
    pub(crate) fn version_of(&self, package: &str, prefix: &str) -> Result<Option<String>> {
        let said = process::output(self.command("apt-cache").args(["madison", package]))?;
        Ok(version_in_madison(&said, prefix))
    }

    /// What apt knows of a package: a description for each version, the newest first.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        process::output(self.command("apt-cache").args(["show", package]))
    }

    /// Downloads one version of a package, its hash checked against the signed lists, and unpacks it.
    pub(crate) fn unpack(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let download = self.dir.join("download");
        let mut command = self.command("apt-get");
        process::output(command.current_dir(&download).args(["download", &format!("{package}={version}")]))?;
        let package_file = fs::read_dir(&download)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download left no .deb in {}", download.display()))?;
        let unpacked = process::output(Command::new("dpkg-deb").arg("-x").arg(&package_file).arg(into));
        fs::remove_file(&package_file)?;
        unpacked.map(drop)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for (option, path) in [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        }
        command
    }
}

/// Lines of `package | version | source`, newest first.
fn version_in_madison(said: &str, prefix: &str) -> Option<String> {
    said.lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| {
            version
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(uri: &str, signed_by: Option<&str>) -> Option<Archive> {
        Some(Archive { uri: uri.to_owned(), signed_by: signed_by.map(str::to_owned) })
    }

    #[test]
    fn the_main_archive_is_found_in_stanzas() {
        let text = "Types: deb\n# a note\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\
                    Components: main\n\n\nTypes: deb deb-src\nURIs: http://mirror.example/pub/debian/\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n";
        let expected = archive("http://mirror.example/pub/debian/", Some("/usr/share/keyrings/a.gpg"));
        assert_eq!(Archive::in_deb822(text), expected);
    }

    #[test]
    fn a_disabled_stanza_and_other_archives_are_passed_over() {
        for (description, text) in [
            ("disabled", "Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: trixie\n"),
            ("source only", "Types: deb-src\nURIs: http://m.example/debian\nSuites: trixie\n"),
            ("updates only", "Types: deb\nURIs: http://m.example/debian\nSuites: trixie-updates\n"),
            ("another archive", "Types: deb\nURIs: http://m.example/node\nSuites: nodistro\n"),
        ] {
            assert_eq!(Archive::in_deb822(text), None, "{description}");
        }
    }

    #[test]
    fn the_main_archive_is_found_in_lines() {
        for (description, text, expected) in [
            (
                "plain",
                "deb http://m.example/debian bookworm main\n",
                archive("http://m.example/debian", None),
            ),
            (
                "options",
                "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian trixie main # note\n",
                archive("http://m.example/debian", Some("/k.gpg")),
            ),
            ("commented out", "# deb http://m.example/debian bookworm main\n", None),
            ("security", "deb http://m.example/debian-security bookworm-security main\n", None),
        ] {
            assert_eq!(Archive::in_one_line_format(text), expected, "{description}");
        }
    }

    #[test]
    fn the_version_has_to_be_the_release_and_not_one_that_begins_like_it() {
        let said = " rust-src | 1.95.01+x | http://m.example/debian sid/main\n \
                    rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://m.example/debian trixie-backports/main\n";
        assert_eq!(version_in_madison(said, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(version_in_madison(said, "1.96.0"), None);
    }
}
