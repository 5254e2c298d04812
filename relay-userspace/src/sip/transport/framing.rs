//! From a stream of bytes to whole messages. RFC 3261 section 18.3: Content-Length says where a message ends.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use thiserror::Error;

use crate::sip::wire::{limits, scan};

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message with its body.
    Message(Bytes),
    /// A double CRLF between messages: the peer wants to see a single one (RFC 5626 section 3.5.1).
    Ping,
}

/// Why the end of a message cannot be known; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// Headers or body are longer than any message may be.
    #[error("a message is longer than {} bytes", limits::MESSAGE)]
    TooLarge,
    /// There are two, or one is not a number.
    #[error("a Content-Length cannot be read")]
    ContentLength,
}

/// The bytes of a stream that are not a message yet.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Bytes in which the end of the headers was looked for already.
    searched: usize,
}

impl Framer {
    /// Where bytes from the stream are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a part of a message has come and its rest has not.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole thing; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FramingError`]: nothing more can be read from this stream.
    pub fn frame(&mut self) -> Result<Option<Frame>, FramingError> {
        if self.searched == 0 {
            // Line ends between messages are keep-alives, or mean nothing.
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.buffer.advance(4);
                return Ok(Some(Frame::Ping));
            }
            while self.buffer.starts_with(b"\r\n")
                && self.buffer.len() > 2
                && !self.buffer.starts_with(b"\r\n\r")
            {
                self.buffer.advance(2);
            }
            if b"\r\n\r\n".starts_with(&self.buffer) {
                return Ok(None);
            }
        }
        let Some((head_end, body)) = self.end_of_head() else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > limits::MESSAGE { Err(FramingError::TooLarge) } else { Ok(None) };
        };
        let length = content_length(self.buffer.get(..head_end).unwrap_or_default())?;
        let whole = body
            .checked_add(length)
            .filter(|whole| *whole <= limits::MESSAGE)
            .ok_or(FramingError::TooLarge)?;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        self.searched = 0;
        // A copy: a message is kept for as long as its transaction, and must not keep the buffer that it was read into.
        let message = Bytes::copy_from_slice(self.buffer.get(..whole).unwrap_or_default());
        self.buffer.advance(whole);
        Ok(Some(Frame::Message(message)))
    }

    /// Where the headers end and where the body begins. LF alone ends lines too, as it does in datagrams.
    fn end_of_head(&self) -> Option<(usize, usize)> {
        let from = self.searched.saturating_sub(3);
        end_of_head(self.buffer.get(from..)?).map(|(end, body)| (from + end, from + body))
    }
}

fn end_of_head(bytes: &[u8]) -> Option<(usize, usize)> {
    let crlf = memmem::find(bytes, b"\r\n\r\n").map(|at| (at, at + 4));
    let lf = memmem::find(bytes, b"\n\n").map(|at| (at, at + 2));
    match (crlf, lf) {
        (Some(crlf), Some(lf)) => Some(crlf.min(lf)),
        (one, other) => one.or(other),
    }
}

/// A whole message as a stream takes it: with a Content-Length, which a datagram may do without (RFC 3261 section 20.14).
/// One that has it is as it was.
#[must_use]
pub fn with_length(message: Bytes) -> Bytes {
    let Some((end, body)) = end_of_head(&message) else { return message };
    let (head, rest) = message.split_at(end);
    if !matches!(announced(head), Ok(None)) {
        return message;
    }
    let line_end: &[u8] = if rest.starts_with(b"\r\n") { b"\r\n" } else { b"\n" };
    let header = format!("Content-Length: {}", message.len() - body);
    [head, line_end, header.as_bytes(), rest].concat().into()
}

/// The length of the body; without the header there is none.
fn content_length(head: &[u8]) -> Result<usize, FramingError> {
    Ok(announced(head)?.unwrap_or(0) as usize)
}

/// What Content-Length says.
fn announced(head: &[u8]) -> Result<Option<u32>, FramingError> {
    let mut found = None;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        let name = scan::trim(name);
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let length = scan::number(scan::trim(value)).ok_or(FramingError::ContentLength)?;
        if found.replace(length).is_some_and(|other| other != length) {
            return Err(FramingError::ContentLength);
        }
    }
    Ok(found)
}
