//! Branchline: an appliance for the remote office that relays phone calls between the office's phones and
//! the central SIP servers. Userspace reads SIP and decides; the kernel carries the media.
//!
//! Imports run downwards only, and a state machine does no I/O: it takes an input and the time and
//! returns what is to be sent or installed.
//!
//! | floor | room | its one job |
//! |---|---|---|
//! | 0 | [`net`] | names of networks and addresses |
//! | 0 | [`splice`] | edits of bytes that keep all others |
//! | 1 | [`sdp`] | session descriptions: read and edited by splicing |
//! | 1 | [`sip`] | SIP messages and transactions |
//! | 2 | [`media`] | media sessions: offer and answer in, flows out |
//! | 2 | [`registrar`] | the phones' bindings, learned from relayed registrations |
//! | 3 | [`proxy`] | where each SIP message goes and what becomes of it on the way |
//!
//! `docs/life-of-a-call.md` follows one INVITE and its first RTP packet through these rooms.
#![deny(unsafe_code)]

pub mod config;
pub mod datapath;
pub mod media;
pub mod net;
pub mod proxy;
pub mod registrar;
pub mod sdp;
pub mod sip;
pub mod splice;
