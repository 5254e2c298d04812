//! What survives a restart: an embedded database and the key that seals the secrets in it.
//!
//! Everything is in the state directory, which only the daemon's user may enter; traces of calls are in a file of their own. Rooms that keep something here have
//! a table of their own and speak to it through [`Store::with`]; they write off the packet and transaction paths.
//! Passwords and private keys are stored sealed ([`Secrets`]): a copy of the database alone gives nothing away.

mod administrators;
mod api_tokens;
mod bindings;
mod calls;
mod certificates;
mod database;
mod entries;
mod epoch;
mod known;
mod secrets;
#[cfg(test)]
pub(crate) mod tests_support;
mod traces;
mod versions;

pub use administrators::Administrator;
pub use api_tokens::{ApiToken, Scope};
pub use bindings::StoredBinding;
pub use calls::{CallChange, KeptCall};
pub use certificates::SeenCertificate;
pub use database::{Store, StoreError};
pub use entries::{Entry, KeptDigest};
pub use epoch::Epoch;
pub use known::StoredPhone;
pub use secrets::{SealError, Secrets};
pub use traces::{StoredTrace, TraceStore};
pub use versions::ConfigurationVersion;

/// Bytes of a protocol as they are kept: as text, which records are made of; none for those that are no text.
#[must_use]
pub fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
