//! Branchline: an appliance for the remote office that relays phone calls between the office's phones and
//! the central SIP servers. Userspace reads SIP and decides; the kernel carries the media.
//!
//! Imports run downwards only, and a state machine does no I/O: it takes an input and the time and
//! returns what is to be sent or installed.
//!
//! | floor | room | its one job |
//! |---|---|---|
//! | 0 | [`net`] | names of networks and addresses |
//! | 2 | [`media`] | media sessions: offer and answer in, flows out |
//!
//! `docs/life-of-a-call.md` follows one INVITE and its first RTP packet through these rooms.
#![deny(unsafe_code)]

pub mod datapath;
pub mod media;
pub mod net;
