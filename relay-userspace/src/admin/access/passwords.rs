//! Passwords: Argon2id (RFC 9106) with a limit on how many are hashed at a time, for each takes 19 MiB.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

/// Hashes at a time.
const AT_A_TIME: usize = 2;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a password, at least (NIST SP 800-63B section 5.1.1.2 asks for 8).
const SHORTEST: usize = 10;
/// Bytes of a password, at most.
const LONGEST: usize = 256;
/// Characters of a name, at most.
const LONGEST_NAME: usize = 64;
/// Bytes of a salt (RFC 9106 section 3.1).
const SALT: usize = 16;

/// Too many are being checked at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many passwords are being checked; try again in a few seconds")]
pub struct Busy;

/// Why a name or a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Weak {
    /// The name.
    #[error("a name has 1 to 64 letters, digits, dots, dashes, underscores or @")]
    Name,
    /// The password.
    #[error("a password has at least 10 characters and at most 256 bytes")]
    Length,
    /// The password.
    #[error("the password must not be the name")]
    IsName,
}

/// Whether somebody may be called so.
///
/// # Errors
/// What a name is.
pub fn acceptable_name(name: &str) -> Result<(), Weak> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(good) { Ok(()) } else { Err(Weak::Name) }
}

/// Whether a password may be set.
///
/// # Errors
/// What is wrong with it.
pub fn acceptable_password(name: &str, password: &str) -> Result<(), Weak> {
    if password.chars().count() < SHORTEST || password.len() > LONGEST {
        Err(Weak::Length)
    } else if password.eq_ignore_ascii_case(name) {
        Err(Weak::IsName)
    } else {
        Ok(())
    }
}

/// Hashes and checks passwords.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Of a password that nobody knows: what is checked for a name that there is not, so that it takes as long.
    nobody: String,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            nobody: hash(&format!("{:032x}", rand::random::<u128>())),
        }
    }
}

impl Passwords {
    /// The hash of a password in PHC form.
    ///
    /// # Errors
    /// Too many at a time.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Busy> {
        self.in_turn(move || hash(&password)).await
    }

    /// Whether a password has a hash; `None` is that of somebody who is not there, and takes as long.
    ///
    /// # Errors
    /// Too many at a time.
    pub async fn verify(&self, password: Zeroizing<String>, known: Option<String>) -> Result<bool, Busy> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        let (exists, against) = (known.is_some(), known.unwrap_or_else(|| self.nobody.clone()));
        let right = self
            .in_turn(move || {
                PasswordHash::new(&against)
                    .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(exists && right)
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let turn = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(Busy)?;
        let result = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        result.await.map_err(|_| Busy)
    }
}

/// An empty text for what cannot fail with a salt of this length; it verifies nothing.
fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(&rand::random::<[u8; SALT]>());
    salt.and_then(|salt| Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_and_nobody_has_one() {
        let passwords = Passwords::default();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let rows = [
            ("right", "correct horse", Some(hash.clone()), true),
            ("wrong", "correct hors", Some(hash.clone()), false),
            ("too long", &"x".repeat(1000), Some(hash.clone()), false),
            ("no such name", "correct horse", None, false),
            ("a damaged hash", "correct horse", Some("$argon2id$".to_owned()), false),
            ("an empty hash", "", Some(String::new()), false),
        ];
        for (description, password, known, expected) in rows {
            assert_eq!(passwords.verify(secret(password), known).await, Ok(expected), "{description}");
        }
        assert_ne!(
            passwords.hash(secret("correct horse")).await.unwrap(),
            hash,
            "each hash has its own salt"
        );
    }

    #[test]
    fn names_and_passwords_have_rules() {
        for (name, expected) in [
            ("ann", Ok(())),
            ("ann.b@example-1", Ok(())),
            ("", Err(Weak::Name)),
            ("a b", Err(Weak::Name)),
            ("a\r\nb", Err(Weak::Name)),
        ] {
            assert_eq!(acceptable_name(name), expected, "{name:?}");
        }
        for (password, expected) in [
            ("0123456789", Ok(())),
            ("012345678", Err(Weak::Length)),
            ("Administrator", Err(Weak::IsName)),
            (&"x".repeat(257), Err(Weak::Length)),
        ] {
            assert_eq!(acceptable_password("administrator", password), expected, "{password:?}");
        }
    }
}
