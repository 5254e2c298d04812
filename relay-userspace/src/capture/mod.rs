//! Diagnostic captures: what the parties of a call, or of all calls of a phone or an address, said, SIP, RTP and RTCP, in
//! files that Wireshark reads.
//!
//! Only while somebody troubleshoots: a capture has a limit in time and one in size, there are few at a time, and all
//! files together have a limit. Copies come by taps ([`crate::datapath::Tap`]), whose queues are bounded; what finds no
//! room is counted, shown, and told in the file. A file can be sealed with the appliance's own key, or encrypted to others'
//! (age), and has no keys of media unless somebody asks for them.
//!
//! - `recording` decides what goes into a file and when it is full: no I/O. The bytes are those of [`crate::pcapng`].
//! - `target` says what is captured; keys of media in signalling are masked by [`crate::sip::secrets`].
//! - `file` is the file, sealed, encrypted or neither; `room` runs the captures and keeps the list of them.
//!
//! Invariant: no call is slowed by its capture. Format: draft-ietf-opsawg-pcapng.

mod file;
mod recording;
mod room;
mod target;

pub use room::{CaptureError, CaptureView, Captures, Keys, Network, Part, Sealing, Sighting, Wanted};
pub use target::Target;
