//! The phones' logs on disk: `<address>.log`, and one full one before it as `<address>.log.1`.
//!
//! Blocking; the receiver's own thread calls it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::SyslogView;
use crate::config;

/// Only the daemon's user.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Most files: two for each of a large office's phones.
const MOST_FILES: usize = 1000;
/// New files after which the directory is looked through.
const NEW_FILES: usize = 100;
/// The directory is looked through after this share of the total has been written.
const SHARE: u64 = 16;
/// And after so much time in any case.
const SWEEP: Duration = Duration::from_secs(3600);

/// The directory of the files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    file_bytes: u64,
    total_bytes: u64,
    retention: Duration,
    written: u64,
    made: usize,
    swept: Option<SystemTime>,
}

impl Files {
    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path, settings: &config::Syslog) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            file_bytes: settings.file_kib << 10,
            total_bytes: settings.total_mib << 20,
            retention: Duration::from_secs(settings.retention_days * 24 * 3600),
            written: 0,
            made: 0,
            swept: None,
        })
    }

    /// Adds a line to a phone's file.
    ///
    /// # Errors
    /// It cannot be written: the disk is full, for example.
    pub fn append(&mut self, now: SystemTime, phone: IpAddr, line: &SyslogView) -> io::Result<()> {
        let since = self.swept.and_then(|swept| now.duration_since(swept).ok());
        if since.is_none_or(|since| since >= SWEEP)
            || self.written >= self.total_bytes / SHARE
            || self.made >= NEW_FILES
        {
            self.sweep(now)?;
        }
        let text = written(now, line);
        let path = self.directory.join(format!("{phone}.log"));
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(_) => {
                self.made += 1;
                0
            }
        };
        let rotated = size > 0 && size + text.len() as u64 > self.file_bytes;
        if rotated {
            fs::rename(&path, self.directory.join(format!("{phone}.log.1")))?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(PRIVATE_FILE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        file.write_all(text.as_bytes()).inspect_err(|_| {
            // Half a line would make one with the next, whenever the disk takes that.
            let _ = file.set_len(if rotated { 0 } else { size });
        })?;
        self.written += text.len() as u64;
        Ok(())
    }

    /// Removes what is too old, and the oldest of what is too much.
    fn sweep(&mut self, now: SystemTime) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = files.len();
        // Room for what may be written until the next time.
        let most = self.total_bytes - self.total_bytes / SHARE;
        for (modified, bytes, path) in files {
            let old = now.duration_since(modified).is_ok_and(|age| age > self.retention);
            if !old && total <= most && count <= MOST_FILES - NEW_FILES {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
            count -= 1;
        }
        (self.written, self.made, self.swept) = (0, 0, Some(now));
        Ok(())
    }
}

/// One line of a file: time of arrival, severity, who speaks, what.
fn written(now: SystemTime, line: &SyslogView) -> String {
    let time = OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_default();
    let mut text = format!("{time} {}", line.severity);
    for part in [&line.host, &line.application].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    text.push_str(": ");
    if let Some(data) = &line.data {
        text.push_str(data);
        text.push(' ');
    }
    text.push_str(&line.message);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _, time::UNIX_EPOCH};

    use super::*;
    use crate::{provisioning::syslog::message::Line, store::tests_support::Directory};

    fn settings(file_kib: u64, total_mib: u64) -> config::Syslog {
        config::Syslog { file_kib, total_mib, retention_days: 7, ..config::Syslog::default() }
    }

    fn phone(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a3d_0000 + number).into()
    }

    fn add(files: &mut Files, now: SystemTime, number: u32, text: &str) {
        let line = SyslogView::new(now, phone(number), Line::read(text.as_bytes()));
        files.append(now, phone(number), &line).unwrap();
    }

    fn names(directory: &Directory) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.path().join("syslog"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn lines_are_appended_to_a_private_file_and_a_full_one_is_kept_once() {
        let directory = Directory::new("syslog");
        let mut files = Files::open(&directory.path().join("syslog"), &settings(16, 64)).unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(1_767_225_600_500);
        add(&mut files, now, 11, "<34>Oct 11 22:14:15 phone app: hello\x07");
        add(&mut files, now, 11, "again");
        let path = directory.path().join("syslog/10.61.0.11.log");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "2026-01-01T00:00:00.5Z crit phone app: hello\\u{7}\n2026-01-01T00:00:00.5Z unknown: again\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
        for _ in 0..40 {
            add(&mut files, now, 11, &"x".repeat(1000));
        }
        assert_eq!(names(&directory), ["10.61.0.11.log", "10.61.0.11.log.1"]);
        for name in names(&directory) {
            assert!(
                fs::metadata(directory.path().join("syslog").join(&name)).unwrap().len() <= 16 << 10,
                "{name}"
            );
        }
    }

    #[test]
    fn files_that_are_too_old_or_too_many_go_oldest_first() {
        let directory = Directory::new("syslog-sweep");
        let mut files = Files::open(&directory.path().join("syslog"), &settings(1024, 1)).unwrap();
        let start = SystemTime::now();
        let age = |number: u32, time: SystemTime| {
            let path = directory.path().join(format!("syslog/{}.log", phone(number)));
            OpenOptions::new().append(true).open(path).unwrap().set_modified(time).unwrap();
        };
        for number in 1..=3 {
            add(&mut files, start, number, "x");
        }
        age(1, start - Duration::from_secs(8 * 24 * 3600));
        add(&mut files, start + SWEEP, 4, "x");
        assert_eq!(names(&directory), ["10.61.0.2.log", "10.61.0.3.log", "10.61.0.4.log"], "too old");
        let path = directory.path().join("syslog/10.61.0.3.log");
        fs::write(path, vec![b'x'; 1 << 20]).unwrap();
        age(2, start - Duration::from_secs(2));
        age(3, start - Duration::from_secs(1));
        add(&mut files, start + 2 * SWEEP, 5, "x");
        assert_eq!(names(&directory), ["10.61.0.4.log", "10.61.0.5.log"], "too much");
        for number in 0..2 * MOST_FILES as u32 {
            add(&mut files, start + 2 * SWEEP, 1000 + number, "x");
            assert!(files.made <= NEW_FILES);
        }
        assert!(names(&directory).len() <= MOST_FILES, "{} files", names(&directory).len());
    }
}
