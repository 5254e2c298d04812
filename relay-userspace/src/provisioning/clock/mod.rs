//! Time for the phones: an SNTP server that says how far it is to be trusted (RFC 4330, RFC 5905).
//!
//! Phones with TLS can neither check certificates nor register without time, and the central time servers are behind
//! the WAN. The appliance tells its host's time, with leap indicator, stratum and dispersion as the kernel knows
//! them: a clock that nobody sets is not passed off as right. Invariants: an answer is never longer than its
//! request; only client requests (mode 3) are answered; who asks too fast is told so once (kiss-o'-death `RATE`) and
//! then ignored.

mod kernel;
mod machine;
mod service;
#[cfg(test)]
mod tests;

pub use kernel::KernelClock;
pub use machine::{Answer, LocalClock, Outcome, Server, Timestamp};
pub use service::Service;
