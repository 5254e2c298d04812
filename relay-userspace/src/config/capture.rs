//! Diagnostic captures of calls.

use std::path::PathBuf;

use serde::Deserialize;

/// Limits of diagnostic captures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// Where the files are; `captures` in the state directory unless it is given.
    pub directory: Option<PathBuf>,
    /// MiB of one capture.
    pub max_mib: u64,
    /// Seconds of one capture.
    pub max_seconds: u64,
    /// MiB of all captures: beyond, none begins.
    pub total_mib: u64,
    /// Captures at a time.
    pub max_running: usize,
    /// Whether files are sealed unless somebody wants it otherwise.
    pub encrypt: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            directory: None,
            max_mib: 100,
            max_seconds: 600,
            total_mib: 1000,
            max_running: 4,
            encrypt: false,
        }
    }
}

impl Capture {
    /// What is wrong: key and message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        /// A day.
        const MOST_SECONDS: u64 = 86_400;
        /// A TiB.
        const MOST_MIB: u64 = 1 << 20;
        /// Each has a queue of four MiB.
        const MOST_RUNNING: u64 = 64;
        for (key, value, most) in [
            ("capture.max_mib", self.max_mib, MOST_MIB),
            ("capture.max_seconds", self.max_seconds, MOST_SECONDS),
            ("capture.total_mib", self.total_mib, MOST_MIB),
            ("capture.max_running", self.max_running as u64, MOST_RUNNING),
        ] {
            if !(1..=most).contains(&value) {
                return Err((key, format!("{value} is out of range: 1 to {most}")));
            }
        }
        if self.max_mib > self.total_mib {
            let message =
                format!("one capture may take {} MiB, all together only {}", self.max_mib, self.total_mib);
            return Err(("capture.total_mib", message));
        }
        Ok(())
    }
}
