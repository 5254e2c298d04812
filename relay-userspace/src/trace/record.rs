//! A trace as the store has it: JSON, deflated, because the messages of a call repeat each other.

use std::io::{self, Read as _, Write as _};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use thiserror::Error;

use super::Traced;

/// Bytes that a record becomes at most: what is in the store was bounded when it was written.
const MOST: u64 = 64 << 20;

/// Why a record cannot be read.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    /// It is not what was written.
    #[error("the record is not whole: {0}")]
    Deflate(#[from] io::Error),
    /// It is of another version.
    #[error("the record cannot be read: {0}")]
    Form(#[from] serde_json::Error),
}

/// The record of these messages.
///
/// # Errors
/// None that a value in memory can have.
pub(super) fn write(messages: &[Traced]) -> Result<Vec<u8>, RecordError> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&serde_json::to_vec(messages)?)?;
    Ok(encoder.finish()?)
}

/// The messages of a record.
///
/// # Errors
/// It is damaged, or of another version.
pub(super) fn read(record: &[u8]) -> Result<Vec<Traced>, RecordError> {
    let mut text = Vec::new();
    DeflateDecoder::new(record).take(MOST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests_support::call;

    #[test]
    fn a_record_is_smaller_than_its_messages_and_says_the_same() {
        let messages = call();
        let record = write(&messages).unwrap();
        let plain: usize = messages.iter().map(|message| message.message.len()).sum();
        assert!(record.len() * 3 < plain, "{} of {plain} bytes", record.len());
        assert_eq!(read(&record).unwrap(), messages);
        assert!(read(&record[..record.len() / 2]).is_err());
        assert!(read(b"nonsense").is_err());
    }
}
