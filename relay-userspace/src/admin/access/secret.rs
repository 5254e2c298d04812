//! Random secrets that are handed out: session ids, CSRF tokens, API tokens, the one-time link.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Bytes of a secret: 256 bits cannot be guessed, whatever the rate.
const BYTES: usize = 32;

/// A secret in the form in which it is handed out: 43 characters of base64url. Not printed by `Debug`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A new one, from the operating system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>()))
    }

    /// As it is handed out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is it, in a time that does not depend on where they differ.
    #[must_use]
    pub fn is(&self, claimed: &str) -> bool {
        self.0.as_bytes().ct_eq(claimed.as_bytes()).into()
    }

    /// The SHA-256 of what somebody claims to be a secret, in lower-case hexadecimal: under it secrets are kept and
    /// looked up, so that neither a copied table nor the time of a look-up tells anything.
    #[must_use]
    pub fn hash(claimed: &str) -> String {
        Sha256::digest(claimed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
