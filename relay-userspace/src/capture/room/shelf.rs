//! Where captures lie: beside each file a description in JSON, so that the list survives the daemon. Names are made here
//! and lead nowhere else: what is no such name is no capture.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use super::{super::recording::End, CaptureError};

/// Characters of a Call-ID in a file's name.
const MOST_NAME: usize = 64;
/// Bytes of the longest description of a capture.
const MOST_DESCRIPTION: u64 = 64 << 10;
/// Only the daemon's user.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// When a capture began, in its name.
const MOMENT: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What is kept beside each file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) call_id: String,
    pub(super) started_unix: i64,
    /// Of what, in words.
    #[serde(default)]
    pub(super) target: String,
    pub(super) encrypted: bool,
    #[serde(default)]
    pub(super) recipients: Vec<String>,
    #[serde(default)]
    pub(super) with_srtp_keys: bool,
    #[serde(default)]
    pub(super) ended_unix: Option<i64>,
    #[serde(default)]
    pub(super) end: Option<End>,
    #[serde(default)]
    pub(super) packets: u64,
    #[serde(default)]
    pub(super) dropped: u64,
    #[serde(default)]
    pub(super) bytes: u64,
}

impl Description {
    /// Whether it is sealed with the appliance's key.
    pub(super) fn sealed(&self) -> bool {
        self.encrypted && self.recipients.is_empty()
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct Shelf(PathBuf);

impl Shelf {
    /// Opens it; it is made if it is not there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
        Ok(Self(directory.to_owned()))
    }

    pub(super) fn known(&self, name: &str) -> Result<Description, CaptureError> {
        let missing = || CaptureError::NotFound(format!("there is no capture {name:?}"));
        if !is_name(name) {
            return Err(missing());
        }
        read_description(&self.description_path(name)).ok_or_else(missing)
    }

    pub(super) fn file_error(&self, error: &io::Error) -> CaptureError {
        CaptureError::File(format!("{}: {error}", self.0.display()))
    }

    pub(super) fn content_path(&self, name: &str, description: &Description) -> PathBuf {
        let coat = match (description.encrypted, description.recipients.is_empty()) {
            (_, false) => ".age",
            (true, true) => ".sealed",
            (false, true) => "",
        };
        self.0.join(format!("{name}.pcapng{coat}"))
    }

    pub(super) fn description_path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    pub(super) fn draft_path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.draft"))
    }

    /// A name that no other capture has.
    pub(super) fn new_name(&self, call_id: &str, now: OffsetDateTime) -> String {
        let safe = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        let call: String = call_id
            .chars()
            .take(MOST_NAME)
            .map(|character| if safe(character) { character } else { '_' })
            .collect();
        let name = format!("{}-{call}", now.format(MOMENT).unwrap_or_default());
        let mut candidates =
            std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
        candidates.find(|candidate| !self.description_path(candidate).exists()).unwrap_or(name)
    }

    pub(super) fn describe(&self, name: &str, description: &Description) -> io::Result<()> {
        let (path, draft) = (self.description_path(name), self.draft_path(name));
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(&draft)?;
            serde_json::to_writer(file, description)?;
            fs::rename(&draft, path)
        };
        write().inspect_err(|_| {
            // A full disk gets back what the attempt took.
            let _ = fs::remove_file(&draft);
        })
    }

    pub(super) fn on_disk(&self) -> io::Result<Vec<(String, Description)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            if let Some(description) = read_description(&entry.path()).filter(|_| is_name(name)) {
                found.push((name.to_owned(), description));
            }
        }
        Ok(found)
    }

    /// Bytes of the files of captures that are to be counted.
    pub(super) fn bytes(&self, counts: impl Fn(&str) -> bool) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let stem = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
            if counts(stem) {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(bytes)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 2 * MOST_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn read_description(path: &Path) -> Option<Description> {
    let length = fs::metadata(path).ok()?.len();
    if length > MOST_DESCRIPTION {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
