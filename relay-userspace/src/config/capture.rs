//! Diagnostic captures of calls.

use std::path::PathBuf;

use age::x25519::Recipient;
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
    /// Whom files are encrypted to, as age's public keys (`age1...`); the appliance cannot open them then.
    pub recipients: Vec<String>,
}

/// Recipients of one capture.
pub const MOST_RECIPIENTS: usize = 16;

/// Reads a public key of age.
///
/// # Errors
/// It is none; says so.
pub fn age_recipient(text: &str) -> Result<Recipient, String> {
    text.trim().parse().map_err(|why| {
        format!("{text:?} is no recipient of age ({why}): it begins with age1, as `age-keygen` prints it")
    })
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
            recipients: Vec::new(),
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
        if self.recipients.len() > MOST_RECIPIENTS {
            return Err(("capture.recipients", format!("more than {MOST_RECIPIENTS}")));
        }
        for recipient in &self.recipients {
            age_recipient(recipient).map_err(|message| ("capture.recipients", message))?;
        }
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
