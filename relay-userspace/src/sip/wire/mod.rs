//! SIP messages as bytes: framing, an index over them, and edits that keep every untouched byte.
//!
//! A [`Message`] owns the datagram it came in and an index of spans into it. Nothing is decoded and written
//! back: [`Editor`] replaces spans and copies the rest, so header order, spelling, folding, unknown parameters
//! and binary bodies come out as they went in. `rsip` is not used, because it loses exactly these when it writes
//! a message back, and its vocabulary is not needed.
//!
//! The parser is lenient where systems in the field are (LF line ends, folding, compact names, white space before
//! the colon, any byte in a header value) and strict where leniency would let two readers disagree about a
//! message: lengths, bare carriage returns, repeated single-value headers. RFC 3261 sections 7, 8.2.6, 18.3, 20
//! and 25; the odd cases follow RFC 4475.

mod address;
mod build;
mod edit;
mod error;
mod header;
mod message;
mod method;
pub mod multipart;
pub mod scan;
mod uri;
mod via;

#[cfg(test)]
mod tests;

pub use address::NameAddr;
pub use build::{Reply, ack_for_failure, cancel, default_reason, respond};
pub use edit::Editor;
pub use error::{Fault, ParseError, Rejected};
pub use header::{Header, HeaderName};
pub use message::{Datagram, Message, StartLine, classify};
pub use method::Method;
pub use scan::{Param, Params};
pub use uri::{DEFAULT_PORT, Scheme, Uri};
pub use via::{MAGIC_COOKIE, Via};

/// Limits on what is parsed at all. Each bounds work and memory before anything is trusted.
pub mod limits {
    /// Bytes in a message: what fits a UDP datagram's length field.
    pub const MESSAGE: usize = 65_535;
    /// Bytes in the start line. Request-URIs with tokens and embedded headers reach some hundreds.
    pub const START_LINE: usize = 4_096;
    /// Header lines in a message. Seventy hops of Via and Record-Route and thirty others fit.
    pub const HEADERS: usize = 256;
    /// Bytes in one header line with its continuation lines. Identity and Authorization reach about 2,000.
    pub const HEADER_LINE: usize = 8_192;
    /// Bytes in a Call-ID, tag or branch: they become keys that are kept.
    pub const KEY: usize = 512;
    /// A CSeq number is below 2**31 (RFC 3261 8.1.1.5).
    pub const CSEQ: u32 = 1 << 31;
}
