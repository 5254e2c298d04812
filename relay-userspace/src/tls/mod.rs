//! TLS: the appliance's own certificate, whose certificates it believes, and the settings of both ends.
//!
//! A certificate of a server that no authority vouches for is never believed silently: the connection fails, the
//! certificate is remembered with the reason ([`Trust`]), and a deliberate act of an operator pins exactly that
//! certificate. RFC 8446, 5280, 5922.

mod authorities;
mod client;
mod describe;
mod error;
mod identity;
mod legacy;
mod own;
mod server;
#[cfg(test)]
mod tests;
mod trust;

pub use authorities::Authorities;
pub use client::client_config;
pub use describe::{Described, Party, describe, names_of};
pub use error::TlsError;
pub use identity::Identity;
pub use legacy::LegacyAcceptor;
pub use own::own_files;
pub use server::server_config;
pub use trust::{Fingerprint, Seen, Trust};
