//! SIP as a protocol: messages on the wire and transactions.
//!
//! Knows nothing of offices, phones or calls; the rooms above decide. RFC 3261.

pub mod deadlines;
pub mod transaction;
pub mod wire;
