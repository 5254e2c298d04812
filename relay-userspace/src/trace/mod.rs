//! Traces: every SIP message of a call as it came and as it went, with time, addresses and transport, so that somebody
//! who asks afterwards why a call failed is told what was said and what the appliance changed.
//!
//! Nobody has to begin one: the messages of each Call-ID are kept, of calls, registrations, subscriptions and whatever
//! else has one. Memory is bounded for each Call-ID and in all; what was left out is counted and shown. Secrets are
//! masked before anything is kept ([`crate::sip::secrets`]).
//!
//! - `head` finds the Call-ID of a message without reading the rest of it.
//! - `recorder` keeps what was recorded and decides what is let go of: no I/O and no clock.
//! - `room` is where messages come in: a lock, a push, and everything else later and elsewhere.
//! - `message` and `view` are what is shown, stored and handed out; `record` is the form in which it is stored.
//! - `steps` tells what each message is and from which it was made, `changes` what is different between the two, both
//!   when somebody looks; `ladder` draws it.
//! - `hep` is the form in which Homer takes messages, `file` the one in which Wireshark and sngrep do.
//!
//! Invariant: signalling waits for nothing here, and a message that finds no room is counted, not waited for.

mod changes;
mod file;
mod head;
pub mod hep;
mod ladder;
mod message;
mod record;
mod recorder;
mod room;
mod steps;
#[cfg(test)]
mod tests_support;
mod view;

pub use changes::{Change, Part};
pub use file::pcapng;
pub use ladder::{Detail, ladder};
pub use message::Traced;
pub use recorder::{Counts, Limits};
pub use room::{Export, Exported, Network, Traces};
pub use steps::{Step, steps};
pub use view::{Report, Rung, Summary, TraceView, TracesView};
