//! What a phone needs of its office before it can register: where its files are, the files, the time, and somebody
//! who keeps its log.
//!
//! Four services, each switched on by its own table of the configuration, each on networks of phones only, and a
//! list of what every phone has asked for so far ([`Inventory`]). None of them shares a lock or a task with
//! signalling or media. All memory that a phone can make grow is bounded.
//!
//! | room | its one job | follows |
//! |---|---|---|
//! | [`dhcp`] | answers DHCPINFORM with the provisioning URL | RFC 2131, 2132 |
//! | [`clock`] | tells the time, and how far it is to be trusted | RFC 4330, 5905 |
//! | [`relay`] | firmware and configuration files, with a cache | RFC 9110, 9111, 7616 |
//! | [`syslog`] | keeps the phones' logs | RFC 5424, 3164, 5426 |

pub mod clock;
pub mod dhcp;
mod phones;
mod rate;
pub mod relay;
mod sockets;
pub mod syslog;

pub use phones::{HardwareAddress, Inventory, PhoneActivity, Stage, StageView, Who};
pub use sockets::BindError;
