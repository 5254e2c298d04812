//! Who may come in: the one-time link, passwords, sessions, and the limit on wrong attempts.
//!
//! [`Sessions`], [`Attempts`] and [`SetupLink`] are machines without clocks: the time goes in with each call. All
//! are bounded: a stranger can make none of them grow beyond its limit.

mod attempts;
mod passwords;
mod secret;
mod sessions;
mod setup_link;

pub use attempts::Attempts;
pub use passwords::{Busy, Passwords, Weak, acceptable_name, acceptable_password};
pub use secret::Secret;
pub use sessions::{Notice, Session, Sessions};
pub use setup_link::SetupLink;
