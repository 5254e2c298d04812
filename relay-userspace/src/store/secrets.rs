//! Sealing: authenticated encryption of what must not be read from a copied database.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce before the sealed bytes. The key is in a file of its own beside the
//! database, readable by the daemon's user alone. The context (whose secret it is) is authenticated with it, so a
//! sealed value cannot be moved to another row.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use thiserror::Error;
use zeroize::Zeroizing;

/// The key's file in the state directory.
const FILE: &str = "secret.key";
/// Bytes of a key of XChaCha20-Poly1305.
const KEY: usize = 32;
/// Bytes of its nonce.
const NONCE: usize = 24;

/// Why something cannot be sealed or opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key's file.
    #[error("{path}: {what}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The key's file is not one.
    #[error("{path}: {why}")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Sealed with another key, for something else, or changed since.
    #[error(
        "a stored secret cannot be opened: it was sealed with another {FILE}, or is damaged; set it again"
    )]
    Broken,
}

/// The key to what is stored sealed.
pub struct Secrets {
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Reads the key in a directory, or makes one.
    ///
    /// # Errors
    /// The file cannot be read or made, is readable by others, or is not a key.
    pub fn open(directory: &Path) -> Result<Self, SealError> {
        let path = directory.join(FILE);
        let wrong = |what: &'static str| {
            let path = path.clone();
            move |error| SealError::File { path, what, error }
        };
        let key = match fs::read(&path) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Zeroizing::new(rand::random::<[u8; KEY]>());
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(wrong("it cannot be made"))?;
                file.write_all(&*key).and_then(|()| file.sync_all()).map_err(|error| {
                    // Half a key would be in the way of the next start, when the disk may have room.
                    let _ = fs::remove_file(&path);
                    wrong("it cannot be written")(error)
                })?;
                Zeroizing::new(key.to_vec())
            }
            Err(error) => return Err(wrong("it cannot be read")(error)),
        };
        let mode = fs::metadata(&path).map_err(wrong("it cannot be looked at"))?.permissions().mode();
        if mode & 0o077 != 0 {
            let why = format!(
                "others may read it (mode {:o}); chmod 600 it, and set the passwords again",
                mode & 0o777
            );
            return Err(SealError::Key { path, why });
        }
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| SealError::Key {
            path: path.clone(),
            why: format!(
                "it has {} bytes instead of {KEY}; restore it, or remove it and set the passwords again",
                key.len()
            ),
        })?;
        Ok(Self { cipher })
    }

    /// Seals `plain`; `context` says whose it is, and is needed to open it.
    ///
    /// # Errors
    /// None but for what no memory holds.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: plain, aad: context.as_bytes() };
        let sealed =
            self.cipher.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| SealError::Broken)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Secrets::seal`] made.
    ///
    /// # Errors
    /// Another key, another context, or damage.
    pub fn open_sealed(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(SealError::Broken)?;
        let payload = Payload { msg: sealed, aad: context.as_bytes() };
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Broken)?;
        Ok(Zeroizing::new(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn a_secret_opens_with_its_key_and_its_context_only() {
        let directory = Directory::new("secrets");
        let secrets = Secrets::open(directory.path()).unwrap();
        let sealed = secrets.seal("1001", b"swordfish").unwrap();
        assert!(!sealed.windows(9).any(|window| window == b"swordfish"));
        let again = Secrets::open(directory.path()).unwrap();
        assert_eq!(**again.open_sealed("1001", &sealed).unwrap(), *b"swordfish");
        assert!(again.open_sealed("1002", &sealed).is_err(), "another context");
        let mut damaged = sealed.clone();
        damaged[30] ^= 1;
        assert!(again.open_sealed("1001", &damaged).is_err(), "damaged");
        assert!(again.open_sealed("1001", &sealed[..10]).is_err(), "cut short");
        let other = Directory::new("other");
        assert!(Secrets::open(other.path()).unwrap().open_sealed("1001", &sealed).is_err(), "another key");
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let directory = Directory::new("key");
        drop(Secrets::open(directory.path()).unwrap());
        let path = directory.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Secrets::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("others may read it (mode 644)"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        let error = Secrets::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("it has 5 bytes instead of 32"), "{error}");
    }
}
