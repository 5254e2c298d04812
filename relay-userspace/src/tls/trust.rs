//! Servers' certificates that no authority vouches for: those that an operator trusts, and those that were met.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// Certificates that were met and not looked at yet. Each server shows one; hundreds are an attack.
const MOST_SEEN: usize = 64;

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Reads 64 hexadecimal digits, with or without colons.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != bytes.len() * 2 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Lower-case hexadecimal.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate that was met and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Who showed it: the name or address that was connected to.
    pub server: String,
    /// The chain, the server's certificate first, DER.
    pub chain: Vec<Vec<u8>>,
    /// Why it is not believed.
    pub why: String,
}

/// Which certificates an operator trusts, and which were met.
#[derive(Debug, Default)]
pub struct Trust {
    trusted: Mutex<HashSet<Fingerprint>>,
    seen: Mutex<VecDeque<Seen>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trust {
    /// Replaces the trusted certificates.
    pub fn set(&self, trusted: impl IntoIterator<Item = Fingerprint>) {
        *locked(&self.trusted) = trusted.into_iter().collect();
    }

    /// Whether a certificate is trusted by an operator.
    #[must_use]
    pub fn is_trusted(&self, fingerprint: Fingerprint) -> bool {
        locked(&self.trusted).contains(&fingerprint)
    }

    /// Takes the certificates that were met since the last time.
    #[must_use]
    pub fn take_seen(&self) -> Vec<Seen> {
        locked(&self.seen).drain(..).collect()
    }

    pub(super) fn met(&self, server: String, chain: &[&CertificateDer<'_>], why: String) {
        let Some(leaf) = chain.first() else { return };
        let fingerprint = Fingerprint::of(leaf);
        let mut seen = locked(&self.seen);
        seen.retain(|known| known.fingerprint != fingerprint || known.server != server);
        if seen.len() == MOST_SEEN {
            seen.pop_front();
        }
        let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
        seen.push_back(Seen { fingerprint, server, chain, why });
    }
}
