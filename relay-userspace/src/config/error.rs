//! What is wrong in a configuration file, and where.

use std::{fmt, ops::Range, path::PathBuf};

/// Something wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; none if the mistake is what is not there.
    pub line: Option<usize>,
    /// The key, as `table.key`; empty if it is not about one.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl ConfigError {
    /// An error at a place in the file's text.
    pub(super) fn at(
        file: &std::path::Path,
        text: &str,
        span: Option<&Range<usize>>,
        key: &str,
        message: &str,
    ) -> Self {
        let line = span.map(|span| line_of(text, span.start));
        let key = if key.is_empty() {
            line.map(|line| key_in(text, line)).unwrap_or_default()
        } else {
            key.to_owned()
        };
        Self { file: file.to_owned(), line, key, message: message.trim().replace('\n', " ") }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", key {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The line of an offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// The key that stands in a line, with the table that it stands under.
fn key_in(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let Some(current) = lines.last() else { return String::new() };
    let header = |line: &str| {
        let line = line.trim();
        line.starts_with('[')
            .then(|| line.split(']').next().unwrap_or_default().trim_start_matches('[').trim().to_owned())
    };
    if let Some(table) = header(current) {
        return table;
    }
    let key = current.split('=').next().unwrap_or_default().trim();
    let table = lines.iter().rev().find_map(|line| header(line));
    match table {
        Some(table) if !key.is_empty() => format!("{table}.{key}"),
        Some(table) => table,
        None => key.to_owned(),
    }
}
