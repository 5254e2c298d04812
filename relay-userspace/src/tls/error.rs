//! What can be wrong with certificates, keys and settings.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file.
    #[error("{path}: {what}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A file's content.
    #[error("{path}: {why}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The settings contradict each other.
    #[error("key {key}: {why}")]
    Settings {
        /// Which key.
        key: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// rustls or rcgen refuse.
    #[error("TLS: {0}")]
    Library(String),
}

impl TlsError {
    pub(super) fn library(error: impl std::fmt::Display) -> Self {
        Self::Library(error.to_string())
    }
}
