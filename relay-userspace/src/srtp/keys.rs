//! Suites and master keys.

use std::fmt;

use rand::{TryRng as _, rngs::SysRng};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// The longest master key identifier (RFC 4568 section 6.1: 1 to 128 bytes).
const MAX_MKI: usize = 128;

/// A cipher with its authentication, as session descriptions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `AEAD_AES_256_GCM` (RFC 7714).
    AeadAes256Gcm,
    /// `AEAD_AES_128_GCM` (RFC 7714).
    AeadAes128Gcm,
    /// `AES_256_CM_HMAC_SHA1_80` (RFC 6188).
    Aes256CmSha1_80,
    /// `AES_CM_128_HMAC_SHA1_80` (RFC 4568), which everyone has.
    Aes128CmSha1_80,
    /// `AES_256_CM_HMAC_SHA1_32` (RFC 6188).
    Aes256CmSha1_32,
    /// `AES_CM_128_HMAC_SHA1_32` (RFC 4568).
    Aes128CmSha1_32,
}

impl Suite {
    /// In the order in which the appliance prefers them: authenticated encryption first, short tags last.
    pub const PREFERRED: [Self; 6] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::Aes256CmSha1_80,
        Self::Aes128CmSha1_80,
        Self::Aes256CmSha1_32,
        Self::Aes128CmSha1_32,
    ];

    /// The name in session descriptions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::Aes256CmSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Aes256CmSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::Aes128CmSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of that name, in any case of letters.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::PREFERRED.into_iter().find(|suite| name.eq_ignore_ascii_case(suite.name().as_bytes()))
    }

    /// Bytes of the master key.
    #[must_use]
    pub const fn key_length(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::Aes256CmSha1_80 | Self::Aes256CmSha1_32 => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 16,
        }
    }

    /// Bytes of the master salt: 112 bits (RFC 3711 section 8.2), with GCM 96 (RFC 7714 section 12).
    #[must_use]
    pub const fn salt_length(self) -> usize {
        if self.is_gcm() { 12 } else { 14 }
    }

    /// Whether encryption and authentication are one.
    #[must_use]
    pub const fn is_gcm(self) -> bool {
        matches!(self, Self::AeadAes256Gcm | Self::AeadAes128Gcm)
    }

    /// Bytes of the authentication tag of SRTP.
    #[must_use]
    pub const fn rtp_tag(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::Aes256CmSha1_80 | Self::Aes128CmSha1_80 => 10,
            Self::Aes256CmSha1_32 | Self::Aes128CmSha1_32 => 4,
        }
    }

    /// Bytes of the authentication tag of SRTCP: never short (RFC 3711 section 3.4, RFC 4568 section 6.2.2).
    #[must_use]
    pub const fn rtcp_tag(self) -> usize {
        if self.is_gcm() { 16 } else { 10 }
    }
}

/// Why a master key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Of another length than the suite's.
    #[error("key and salt have {found} bytes, and {suite} takes {wanted}")]
    Length {
        /// The suite's name.
        suite: &'static str,
        /// Bytes there.
        found: usize,
        /// Bytes it takes.
        wanted: usize,
    },
    /// An identifier of no length or of too great a one.
    #[error("a master key identifier has 1 to 128 bytes")]
    Identifier,
    /// Kept by another version, or damaged.
    #[error("what was kept of it is no key")]
    Kept,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Where new keys come from: fills the bytes, or says that it cannot.
pub type Random = fn(&mut [u8]) -> Result<(), KeyError>;

/// The system's cryptographic generator (`getrandom(2)`).
///
/// # Errors
/// If it has nothing to give.
pub fn system_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    SysRng.try_fill_bytes(bytes).map_err(|_| KeyError::NoRandomness)
}

/// A master key with its salt. Overwritten when it is dropped; compared in constant time.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    /// The key, then the salt, as they stand in a session description.
    bytes: Zeroizing<Vec<u8>>,
    /// What its packets carry to name it; empty if nothing.
    identifier: Vec<u8>,
}

impl MasterKey {
    /// A key followed by its salt.
    ///
    /// # Errors
    /// If these are not as many bytes as the suite takes.
    pub fn new(suite: Suite, bytes: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let wanted = suite.key_length() + suite.salt_length();
        if bytes.len() != wanted {
            return Err(KeyError::Length { suite: suite.name(), found: bytes.len(), wanted });
        }
        Ok(Self { suite, bytes, identifier: Vec::new() })
    }

    /// The same key, named by an identifier (MKI) in each packet (RFC 3711 section 3.1).
    ///
    /// # Errors
    /// If the identifier is empty or longer than 128 bytes.
    pub fn with_identifier(self, identifier: Vec<u8>) -> Result<Self, KeyError> {
        if identifier.is_empty() || identifier.len() > MAX_MKI {
            return Err(KeyError::Identifier);
        }
        Ok(Self { identifier, ..self })
    }

    /// A new one.
    ///
    /// # Errors
    /// If there are no random bytes.
    pub fn generate(suite: Suite, random: Random) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new(vec![0; suite.key_length() + suite.salt_length()]);
        random(&mut bytes)?;
        Self::new(suite, bytes)
    }

    /// The suite that it is for.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt as a session description has them: a secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.suite.key_length()).unwrap_or_default()
    }

    pub(super) fn salt(&self) -> &[u8] {
        self.bytes.get(self.suite.key_length()..).unwrap_or_default()
    }

    /// Bytes by which its packets name it; 0 if they do not.
    #[must_use]
    pub fn identifier_length(&self) -> usize {
        self.identifier.len()
    }

    pub(super) fn identifier(&self) -> &[u8] {
        &self.identifier
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite
            && self.identifier == other.identifier
            && bool::from(self.bytes.as_slice().ct_eq(&other.bytes))
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}
