//! Branchline: an appliance for the remote office that relays phone calls between the office's phones and
//! the central SIP servers. Userspace reads SIP and decides; the kernel carries the media.
//!
//! Imports run downwards only, and a state machine does no I/O: it takes an input and the time and
//! returns what is to be sent or installed.
//!
//! | floor | room | its one job |
//! |---|---|---|
//! | 5 | [`cli`] | parse arguments, start or talk to the daemon |
//! | 4 | [`daemon`] | wire the rooms together, own start-up and shutdown |
//! | 3 | [`admin`] | pages and REST for administrators, metrics and health |
//! | 3 | [`control`] | the command line's socket |
//! | 3 | [`provisioning`] | what phones need before they register: DHCP options, files, time, a keeper of logs |
//! | 3 | [`proxy`] | where each SIP message goes and what becomes of it on the way |
//! | 2 | [`capture`] | diagnostic captures of calls |
//! | 2 | [`trace`] | the SIP messages of each call, as they came and as they went |
//! | 2 | [`media`] | media sessions: offer and answer in, flows out |
//! | 2 | [`upstream`] | the central servers: whom to try, whom to probe |
//! | 2 | [`symptoms`] | what is wrong, in words |
//! | 2 | [`quality`] | how good calls sound, and what is wrong with those that do not |
//! | 2 | [`registrar`] | the phones' bindings, learned from relayed registrations |
//! | 2 | [`trial`] | what this hardware carries, measured |
//! | 1 | [`datapath`] | carries the packets of flows, in the kernel or in userspace |
//! | 1 | [`pcapng`] | packets in files that Wireshark reads |
//! | 1 | [`sdp`] | session descriptions: read and edited by splicing |
//! | 1 | [`sip`] | SIP messages and transactions |
//! | 1 | [`srtp`] | encrypted media: one key's packets in, another's out |
//! | 1 | [`store`] | what survives a restart |
//! | 1 | [`tls`] | certificates: the own one, and whose are believed |
//! | 0 | [`config`] | the configuration file |
//! | 0 | [`log`] | the log and its level |
//! | 0 | [`metrics`] | what is counted and timed |
//! | 0 | [`net`] | names of networks, addresses, netlink |
//! | 0 | [`splice`] | edits of bytes that keep all others |
//!
//! `docs/life-of-a-call.md` follows one INVITE and its first RTP packet through these rooms.
#![deny(unsafe_code)]

pub mod admin;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod log;
pub mod media;
pub mod metrics;
pub mod net;
pub mod pcapng;
pub mod provisioning;
pub mod proxy;
pub mod quality;
pub mod registrar;
pub mod sdp;
pub mod sip;
pub mod splice;
pub mod srtp;
pub mod store;
pub mod symptoms;
pub mod tls;
pub mod trace;
pub mod trial;
pub mod upstream;
