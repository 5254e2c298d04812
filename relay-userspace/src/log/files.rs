//! The files of past days: compressed once a day at the configured time, removed when they are old. Days are UTC, as
//! the files' names are.
//!
//! What is due is decided by names and the time alone; a file that is not named as ours are is left alone.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use time::{Date, OffsetDateTime, format_description::FormatItem, macros::format_description};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use crate::config;

/// What a file's name begins with; then comes the day.
pub(super) const PREFIX: &str = "branchline";
/// What it ends with.
pub(super) const SUFFIX: &str = "log";
/// Ends the name of a file that is compressed, and of one that is being compressed.
const COMPRESSED: &str = ".gz";
const DRAFT: &str = ".gz.draft";
/// How often files are looked at: the time of day has minutes.
const TICK: Duration = Duration::from_secs(60);
/// The daemon's user and group, as that of the files.
const MODE: u32 = 0o640;
const DAY: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    /// It is compressed.
    Compress(String),
    /// It is removed.
    Remove(String),
}

/// The day that a file is of, and what follows it in the name.
fn day(name: &str) -> Option<(Date, &str)> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let (day, rest) = rest.split_once('.')?;
    Some((Date::parse(day, DAY).ok()?, rest.strip_prefix(SUFFIX)?))
}

/// What is due, in the order of names.
fn due(names: &BTreeSet<String>, now: OffsetDateTime, settings: &config::Log) -> Vec<Due> {
    let today = now.date();
    let is_time = (now.hour(), now.minute()) >= (settings.compress_at.hour, settings.compress_at.minute);
    let mut due = Vec::new();
    for name in names {
        let Some((date, end)) = day(name) else { continue };
        let age = (today - date).whole_days();
        let kept = i64::try_from(settings.retention_days).unwrap_or(i64::MAX);
        // A draft is of a daemon that ended while it compressed.
        if end == DRAFT || (age > kept && (end.is_empty() || end == COMPRESSED)) {
            due.push(Due::Remove(name.clone()));
        } else if end.is_empty() && age > 0 {
            if names.contains(&format!("{name}{COMPRESSED}")) {
                due.push(Due::Remove(name.clone()));
            } else if settings.compress && (is_time || age > 1) {
                due.push(Due::Compress(name.clone()));
            }
        }
    }
    due
}

/// Does what is due now, and again each minute.
pub(super) async fn keep(directory: PathBuf, settings: impl Fn() -> config::Log) {
    loop {
        let (place, settings) = (directory.clone(), settings());
        let done = spawn_blocking(move || look(&place, &settings)).await;
        if let Ok(Err(error)) = done {
            warn!(%error, directory = %directory.display(), "old log files cannot be kept in order");
        }
        sleep(TICK).await;
    }
}

fn look(directory: &Path, settings: &config::Log) -> io::Result<()> {
    let names: BTreeSet<String> =
        fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    for due in due(&names, OffsetDateTime::now_utc(), settings) {
        match due {
            Due::Compress(name) => {
                compress(directory, &name)?;
                info!(file = name, "log file compressed");
            }
            Due::Remove(name) => {
                fs::remove_file(directory.join(&name))?;
                info!(file = name, "old log file removed");
            }
        }
    }
    Ok(())
}

/// Under another name first: what has the name of a compressed file is whole.
fn compress(directory: &Path, name: &str) -> io::Result<()> {
    let (plain, draft) = (directory.join(name), directory.join(format!("{name}{DRAFT}")));
    let result = (|| {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        let mut encoder = GzEncoder::new(file, Compression::default());
        io::copy(&mut File::open(&plain)?, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        fs::rename(&draft, directory.join(format!("{name}{COMPRESSED}")))
    })();
    if result.is_err() {
        // A full disk gets back what the attempt took.
        let _ = fs::remove_file(&draft);
    }
    result.and_then(|()| fs::remove_file(plain))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use time::macros::datetime;

    use super::*;
    use crate::{config::DayTime, store::tests_support::Directory};

    #[test]
    fn what_is_due_follows_from_names_time_and_settings() {
        let settings = config::Log { retention_days: 7, ..config::Log::default() };
        let uncompressed = config::Log { compress: false, ..settings.clone() };
        let late = config::Log { compress_at: DayTime { hour: 23, minute: 30 }, ..settings.clone() };
        let (early, noon) = (datetime!(2026-11-21 02:59 UTC), datetime!(2026-11-21 12:00 UTC));
        let compress = |name: &str| Due::Compress(name.to_owned());
        let remove = |name: &str| Due::Remove(name.to_owned());
        let yesterday = "branchline.2026-11-20.log";
        type Row<'a> = (&'a str, &'a [&'a str], OffsetDateTime, &'a config::Log, Vec<Due>);
        let rows: [Row<'_>; 11] = [
            ("today's", &["branchline.2026-11-21.log"], noon, &settings, vec![]),
            ("yesterday's, too early", &[yesterday], early, &settings, vec![]),
            ("yesterday's, in time", &[yesterday], noon, &settings, vec![compress(yesterday)]),
            ("yesterday's, later today", &[yesterday], noon, &late, vec![]),
            (
                "one that was missed",
                &["branchline.2026-11-19.log"],
                early,
                &settings,
                vec![compress("branchline.2026-11-19.log")],
            ),
            ("not wanted", &[yesterday], noon, &uncompressed, vec![]),
            ("the last day that is kept", &["branchline.2026-11-14.log.gz"], noon, &settings, vec![]),
            (
                "too old, compressed or not",
                &["branchline.2026-11-12.log", "branchline.2026-11-13.log.gz"],
                early,
                &uncompressed,
                vec![remove("branchline.2026-11-12.log"), remove("branchline.2026-11-13.log.gz")],
            ),
            (
                "compressed, and the daemon ended before it removed the file",
                &[yesterday, "branchline.2026-11-20.log.gz"],
                noon,
                &settings,
                vec![remove(yesterday)],
            ),
            (
                "a draft that was left",
                &["branchline.2026-11-20.log.gz.draft"],
                early,
                &settings,
                vec![remove("branchline.2026-11-20.log.gz.draft")],
            ),
            (
                "others' files",
                &["branchline.2020-13-01.log", "other.2020-01-01.log", "branchline.2020-01-01.log.bak", "x"],
                noon,
                &settings,
                vec![],
            ),
        ];
        for (description, names, now, settings, expected) in rows {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(due(&names, now, settings), expected, "{description}");
        }
    }

    #[test]
    fn a_compressed_file_has_what_the_file_had_and_takes_its_place() {
        let directory = Directory::new("logs");
        let name = "branchline.2026-11-20.log";
        let text = "a line\n".repeat(10_000);
        fs::write(directory.path().join(name), &text).unwrap();
        compress(directory.path(), name).unwrap();
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["branchline.2026-11-20.log.gz"]);
        let file = File::open(directory.path().join(&left[0])).unwrap();
        let mut read = String::new();
        GzDecoder::new(file).read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        assert!(compress(directory.path(), "branchline.2026-11-19.log").is_err(), "it is not there");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }
}
