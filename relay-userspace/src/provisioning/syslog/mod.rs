//! The phones' logs: received over UDP, kept by phone (RFC 5424, RFC 3164, RFC 5426).
//!
//! The last lines of each phone are in memory for the command line and the pages, all that fit the limits are in
//! files, one for each phone. Everybody on the office's network can send such lines under any address, so nothing
//! here is believed or executed: lines are shown with control characters escaped, and lines, phones, bytes, files
//! and rates each have a limit. Invariant: a slow or full disk never makes a phone's other requests wait; lines that
//! cannot be kept are counted.

mod book;
mod files;
mod message;
mod service;

pub use book::{Book, SyslogView};
pub use files::Files;
pub use service::{Keeper, Service};
