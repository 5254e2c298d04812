//! The packet core: what happens to one media packet, in plain Rust that needs neither a kernel nor an
//! allocator.
//!
//! The kernel programs of this crate (`src/main.rs`) are a thin shell over it; the daemon links it as a
//! library for the layouts of the maps that both sides share, and runs the very same recognition and
//! statistics in its userspace engine. There is no third crate: what both sides must agree on lives here.
//!
//! A packet is read in this order, and each way out has a name in [`Reason`]:
//!
//! 1. [`headers`]: Ethernet, at most one 802.1Q tag, IPv4 without options or IPv6 without extensions, UDP, all as
//!    byte arrays.
//! 2. [`tables`]: the destination's address and port lead to a slot, the slot to a [`Flow`]; a generation
//!    on both sides keeps a late packet from meeting a slot that was given to another call.
//! 3. [`rtp`]: RTP, RTCP, STUN and DTLS are told apart by their first bytes (RFC 7983, RFC 5761).
//! 4. [`stats`]: RFC 3550 loss, duplicates, reordering and jitter, counted on arrival.
//! 5. [`relay`]: the verdict and the rewrite; [`leave`]: the packet as it leaves, as a frame or as the stack's;
//!    [`checksum`] keeps the sums right by RFC 1624 increments.
//!
//! What is not media of a flow is looked at once more by [`guard`], if the host is to be protected from somebody.
//! [`traffic`] is apart from all that: it is for measuring.
//!
//! Invariant: a packet that is not the exact packet a flow expects is never changed.
#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod guard;
pub mod headers;
pub mod leave;
pub mod reason;
pub mod relay;
pub mod rtp;
pub mod stats;
pub mod tables;
pub mod traffic;

pub use reason::{Fate, Reason};
pub use stats::FlowStats;
pub use tables::{Flow, FlowKind, FlowState, LocalAddresses, NextHop, PortEntry};
