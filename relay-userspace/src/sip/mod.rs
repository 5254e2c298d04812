//! SIP as a protocol: messages on the wire, transactions, and the connections that carry them.
//!
//! Knows nothing of offices, phones or calls; the rooms above decide. RFC 3261.

pub mod deadlines;
pub mod digest;
mod hop;
mod number;
pub mod secrets;
pub mod stun;
pub mod transaction;
pub mod transport;
pub mod wire;

pub use hop::Hop;
pub use number::Number;
