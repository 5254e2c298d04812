//! Answers to DHCPINFORM: where a phone's firmware and configuration are (RFC 2131 section 4.3.5, RFC 2132).
//!
//! The office has its own DHCP server for addresses. This one never leases: DISCOVER, REQUEST, DECLINE and RELEASE
//! are noted as a phone's sign of life and otherwise left alone, so that the office's server works as if this one
//! were not there. Invariants: an answer goes only to a client's own address or to the relay agent that stands
//! between, and never carries an address, a lease time or anything else that the office's server decides.

mod machine;
mod service;
#[cfg(test)]
mod tests;

pub use machine::{Dropped, Event, Reaction, Reply, Responder, Settings};
pub use service::Service;
