//! Why a datagram is not a SIP message that can be handled.

use std::fmt;

use super::{header::HeaderName, message::Message};

/// What is wrong. The names are those of the message parts of RFC 3261 section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// Larger than [`super::limits::MESSAGE`].
    #[error("message is too large")]
    TooLarge,
    /// The first line is neither a request line nor a status line.
    #[error("not a SIP message")]
    NotSip,
    /// Longer than [`super::limits::START_LINE`].
    #[error("start line is too long")]
    StartLineTooLong,
    /// The request line is not `method SP uri SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// The status line is not `version SP code SP reason`.
    #[error("malformed status line")]
    StatusLine,
    /// Another SIP version than 2.0.
    #[error("unsupported SIP version")]
    Version,
    /// The Request-URI cannot be read.
    #[error("malformed Request-URI")]
    RequestUri,
    /// A header line has no colon.
    #[error("header line without a colon")]
    NoColon,
    /// A header name is empty or not a token.
    #[error("malformed header name")]
    Name,
    /// Longer than [`super::limits::HEADER_LINE`].
    #[error("header line is too long")]
    LineTooLong,
    /// More than [`super::limits::HEADERS`].
    #[error("too many header lines")]
    TooManyHeaders,
    /// A carriage return without a line feed: some readers end the line there, others do not.
    #[error("carriage return without a line feed")]
    BareCarriageReturn,
    /// The head does not end with an empty line.
    #[error("no empty line after the header")]
    NoEmptyLine,
    /// A header that every message needs is not there.
    #[error("missing {} header", .0.as_str())]
    Missing(HeaderName),
    /// A header that may occur once occurs again.
    #[error("repeated {} header", .0.as_str())]
    Repeated(HeaderName),
    /// A header's value cannot be read.
    #[error("malformed {} header", .0.as_str())]
    Malformed(HeaderName),
    /// CSeq names another method than the request line.
    #[error("CSeq method differs from the request method")]
    CSeqMethod,
    /// Content-Length says more than the datagram holds (RFC 3261 18.3).
    #[error("body is shorter than Content-Length")]
    BodyShort,
}

impl Fault {
    /// The status code to answer a request with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooLarge | Self::StartLineTooLong | Self::LineTooLong | Self::TooManyHeaders => 513,
            _ => 400,
        }
    }
}

/// A fault and the byte of the datagram at which it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub fault: Fault,
    /// Offset in bytes from the start of the datagram.
    pub at: usize,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.fault, self.at)
    }
}

impl std::error::Error for ParseError {}

/// A datagram that is not accepted.
#[derive(Debug)]
pub struct Rejected {
    /// Why.
    pub error: ParseError,
    /// The message as far as it could be read, when it is a request of which a response can be built:
    /// Via and Call-ID are good, and From, To and CSeq are there to be copied (RFC 3261 8.2.6).
    pub answerable: Option<Box<Message>>,
}

impl Rejected {
    /// Whether a response can be built.
    #[must_use]
    pub fn can_answer(&self) -> bool {
        self.answerable.is_some()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Rejected {}
