//! Session descriptions: read into a borrowed view, edited by splicing.
//!
//! A relay has to know a few lines of a description (`c=`, `m=`, some attributes) and must hand on all others as
//! they came: crypto, fmtp, bandwidth, vendor attributes, the line ends. So [`Session`] borrows the body and
//! indexes what a relay needs, and [`Rewriter`] replaces exactly the addresses, ports and lines it is told to.
//!
//! Invariant: parse then rewrite without edits is the same bytes, and every edit touches only its own line.
//! RFC 8866 (syntax), RFC 3605 (`a=rtcp`), RFC 5761 (`a=rtcp-mux`), RFC 3264 (offer/answer), RFC 8839 (ICE lines),
//! RFC 3551 (static payload types), RFC 2543 (hold by an address of zeros).

mod bandwidth;
mod crypto;
mod hold;
mod media;
mod parse;
mod rewrite;
#[cfg(test)]
mod tests;

pub use bandwidth::Of;
pub use crypto::{Crypto, Unusable};
pub use hold::{HoldBy, fitting_answer, hold_by};
pub use media::{Direction, Media, Protocol, Rtcp, RtpMap, static_clock_rate};
pub use parse::{Address, Attribute, Connection, Error, Problem, Session};
pub use rewrite::{Ice, Rewriter, Target};

/// Limits on what is parsed at all.
pub mod limits {
    /// Bytes in a description: more does not fit a UDP datagram.
    pub const BODY: usize = 65_535;
    /// Media descriptions. Audio, video, slides, text, fax and data of a bundle fit twice over.
    pub const MEDIA: usize = 16;
    /// Bytes in a line. Key material and fmtp lines of video codecs stay below 2,000.
    pub const LINE: usize = 4_096;
    /// Lines. A browser's offer has about 150.
    pub const LINES: usize = 2_048;
    /// Payload type mappings kept for one media description: there are 128 payload types.
    pub const RTPMAPS: usize = 128;
}
