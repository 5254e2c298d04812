//! Passwords: Argon2id (RFC 9106) with a limit on how many are hashed at a time, for each takes 19 MiB.
//!
//! That memory is kept and used again: given back each time, it would stay with the allocator once for each thread that
//! ever hashed, and whoever guesses passwords would decide how much that is.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{self, Output, ParamsString, PasswordHash, SaltString},
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
    /// The memory of hashes that are done, at most one for each turn.
    rooms: Arc<Mutex<Vec<Room>>>,
    /// Of a password that nobody knows: what is checked for a name that there is not, so that it takes as long.
    nobody: String,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            rooms: Arc::default(),
            nobody: Room::default().hash(&format!("{:032x}", rand::random::<u128>())),
        }
    }
}

impl Passwords {
    /// The hash of a password in PHC form.
    ///
    /// # Errors
    /// Too many at a time.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Busy> {
        self.in_turn(move |room| room.hash(&password)).await
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
        let right = self.in_turn(move |room| room.is_right(&password, &against).unwrap_or(false)).await?;
        Ok(exists && right)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Room) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let turn = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(Busy)?;
        let rooms = Arc::clone(&self.rooms);
        let result = tokio::task::spawn_blocking(move || {
            let free = rooms.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut room = free.unwrap_or_default();
            let result = work(&mut room);
            room.0.fill(Block::default());
            rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
            drop(turn);
            result
        });
        result.await.map_err(|_| Busy)
    }
}

/// The memory of one hash at a time.
#[derive(Debug, Default)]
struct Room(Vec<Block>);

impl Room {
    fn output(
        &mut self,
        argon: &Argon2<'_>,
        password: &str,
        salt: &[u8],
        length: usize,
    ) -> password_hash::Result<Output> {
        self.0.resize(argon.params().block_count(), Block::default());
        Output::init_with(length, |out| {
            Ok(argon.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut self.0[..])?)
        })
    }

    /// An empty text for what cannot fail with a salt of this length; it verifies nothing.
    fn hash(&mut self, password: &str) -> String {
        let bytes = rand::random::<[u8; SALT]>();
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let mut hashed = || -> password_hash::Result<String> {
            let salt = SaltString::encode_b64(&bytes)?;
            let output = self.output(&argon, password, &bytes, Params::DEFAULT_OUTPUT_LEN)?;
            let hash = PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: ParamsString::try_from(argon.params())?,
                salt: Some(salt.as_salt()),
                hash: Some(output),
            };
            Ok(hash.to_string())
        };
        hashed().unwrap_or_default()
    }

    /// Whether a password has this hash, with its own parameters; outputs are compared in constant time.
    fn is_right(&mut self, password: &str, against: &str) -> password_hash::Result<bool> {
        let hash = PasswordHash::new(against)?;
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else { return Ok(false) };
        let mut bytes = [0; 64];
        let salt = salt.decode_b64(&mut bytes)?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon = Argon2::new(Algorithm::try_from(hash.algorithm)?, version, Params::try_from(&hash)?);
        Ok(self.output(&argon, password, salt, expected.len())? == expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_checks_take_the_memory_of_as_many_as_there_are_at_a_time() {
        let passwords = Arc::new(Passwords::default());
        for _ in 0..4 {
            let checks: Vec<_> = (0..3)
                .map(|_| {
                    let passwords = Arc::clone(&passwords);
                    tokio::spawn(async move { passwords.verify(secret("a guess"), None).await })
                })
                .collect();
            for check in checks {
                assert_eq!(check.await.unwrap(), Ok(false));
            }
        }
        let rooms = passwords.rooms.lock().unwrap();
        assert!(rooms.len() <= AT_A_TIME, "{}", rooms.len());
        for room in rooms.iter() {
            assert_eq!(room.0.len(), Params::DEFAULT.block_count());
            assert!(room.0.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)), "wiped");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_library() {
        use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
        let own = Room::default().hash("a password");
        let parsed = PasswordHash::new(&own).unwrap();
        Argon2::default().verify_password(b"a password", &parsed).unwrap();
        let salt = SaltString::encode_b64(b"sixteen bytes...").unwrap();
        let theirs = Argon2::default().hash_password(b"a password", &salt).unwrap().to_string();
        assert_eq!(Room::default().is_right("a password", &theirs), Ok(true));
        assert_eq!(Room::default().is_right("another one", &theirs), Ok(false));
        assert!(Room::default().is_right("a password", "no hash").is_err());
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
