//! The relay of firmware and configuration files: phones ask here, the central servers are asked for them.
//!
//! Every request goes to a server: an unknown `<mac>.cfg` makes it set up a phone, so a miss is never answered here.
//! What the cache adds: a file that has not changed is not sent over the WAN again, phones that ask for one firmware
//! file at the same time cause one fetch, and while no server can be reached, the last good copy is served and said
//! to be old. Invariants: a file passes in pieces and is never in memory as a whole; what a phone sends never becomes
//! part of a file's name or of another header; a phone gets nothing from the cache that the server gave to another
//! one's credentials. RFC 9110, 9111, 9112, 7616.

mod answer;
mod body;
mod cache;
mod conditional;
mod digest;
mod exchange;
mod flight;
mod growing;
mod names;
mod order;
mod request;
mod server;
mod service;
mod upstream;

pub use digest::Credentials;
pub use request::Refusal;
pub use service::{Listen, Service, Tls};
