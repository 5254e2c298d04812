//! SRTP and SRTCP: one party's packets are checked and read with its key, and written for the other with ours.
//!
//! The ciphers, HMAC and GCM are RustCrypto's; the framing of RFC 3711 around them is here, for it has to read master key
//! identifiers and to work in the relay's own buffer: key derivation, packet index, roll-over counter, replay window, tags.
//!
//! A key with its state is an [`Inbound`] (what a party sends) or an [`Outbound`] (what it is sent). Who shares one
//! shares its roll-over counters, so a key that a re-INVITE repeats goes on where it was, and another key begins anew
//! (RFC 4568 section 6.4). Invariants: nothing of a packet counts before its tag was checked; no packet index is
//! taken twice, nor written twice with one key; no key is ever in `Debug`, in an error or in the log.
//!
//! RFC 3711 (SRTP), RFC 6188 (AES-256), RFC 7714 (AES-GCM), RFC 4568 (suites' names and lengths).

mod cipher;
mod index;
mod keys;
mod packet;
mod standing;
#[cfg(test)]
mod tests;

pub use keys::{KeyError, MasterKey, Random, Suite, system_random};
pub use packet::{Content, Inbound, Outbound, Refusal};
pub use standing::KeyRecord;
