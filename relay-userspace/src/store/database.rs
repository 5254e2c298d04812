//! The database file, its tables, and how older files are brought up to date.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;
use tracing::warn;

use super::{SealError, Secrets};

/// The database's name in the state directory.
const FILE: &str = "branchline.db";
/// Only the daemon's user.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// What each version of the schema adds to the one before. A step that was released is never changed.
const STEPS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory or a file in it.
    #[error("{path}: {what}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The database.
    #[error("{path}: {error}")]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "{path}: its schema has version {found}, this program knows {known}: install the newer version again"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A secret.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A database file, with its tables up to date.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens a file in a directory that is there; `steps` is what each version of its schema adds to the one before.
    pub(super) fn open(path: PathBuf, steps: &[&str]) -> Result<Self, StoreError> {
        let mut connection = Connection::open(&path).map_err(|error| failed(&path, error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(PRIVATE_FILE)).map_err(|error| {
            StoreError::File { path: path.clone(), what: "its permissions cannot be set", error }
        })?;
        match prepare(&mut connection, &path, steps) {
            Err(StoreError::Database { error, .. }) if has_no_room(&error) => {
                warn!(%error, path = %path.display(), "there is no room for the database's index: the disk is full; it is kept in memory until the next start");
                drop(connection);
                connection = Connection::open(&path).map_err(|error| failed(&path, error))?;
                // The index of the write-ahead log is then in memory and not in a file beside the database
                // (SQLite, "Write-Ahead Logging", section 8). Who else wants to open the database has to wait.
                connection
                    .pragma_update(None, "locking_mode", "EXCLUSIVE")
                    .map_err(|error| failed(&path, error))?;
                prepare(&mut connection, &path, steps)?;
            }
            prepared => prepared?,
        }
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    /// Runs statements on it.
    pub(super) fn with<T>(
        &self,
        statements: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        statements(&mut connection).map_err(|error| failed(&self.path, error))
    }
}

/// The database and the key to the secrets in it.
#[derive(Debug)]
pub struct Store {
    database: Database,
    secrets: Secrets,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// What cannot be made, opened or brought up to date, with its path.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory).map_err(|error| {
            let what = "the state directory cannot be made";
            StoreError::File { path: directory.to_owned(), what, error }
        })?;
        let secrets = Secrets::open(directory)?;
        Ok(Self { database: Database::open(directory.join(FILE), STEPS)?, secrets })
    }

    /// Runs statements on the database. Blocking: for a few rows at a time, never for each packet or message.
    ///
    /// # Errors
    /// What SQLite says, with the file's path.
    pub fn with<T>(
        &self,
        statements: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.database.with(statements)
    }

    /// The key to what is stored sealed.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// Whether a disk that is full can be the reason.
fn has_no_room(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    StoreError::Database { path: path.to_owned(), error }
}

fn prepare(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    // The version that this program writes.
    let known = steps.len() as u32;
    let mut update = || -> rusqlite::Result<Result<(), u32>> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found > known {
            return Ok(Err(found));
        }
        for (number, step) in (1u32..).zip(steps).skip(found as usize) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()?;
        }
        Ok(Ok(()))
    };
    match update() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(found)) => Err(StoreError::Newer { path: path.to_owned(), found, known }),
        Err(error) => Err(failed(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn what_is_written_is_there_after_opening_again() {
        let directory = Directory::new("store");
        let put = |store: &Store| {
            store.with(|db| db.execute("INSERT INTO setting(name, value) VALUES ('a', x'01')", [])).unwrap();
        };
        put(&Store::open(directory.path()).unwrap());
        let store = Store::open(directory.path()).unwrap();
        let value: Vec<u8> = store
            .with(|db| db.query_row("SELECT value FROM setting WHERE name = 'a'", [], |row| row.get(0)))
            .unwrap();
        assert_eq!(value, [1]);
        let mode =
            |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(FILE), PRIVATE_FILE);
        assert_eq!(mode("."), PRIVATE_DIRECTORY);
    }

    #[test]
    fn a_newer_schema_and_a_file_that_is_no_database_are_refused_with_their_path() {
        let directory = Directory::new("newer");
        let store = Store::open(directory.path()).unwrap();
        store.with(|db| db.pragma_update(None, "user_version", 99)).unwrap();
        drop(store);
        let error = Store::open(directory.path()).unwrap_err().to_string();
        let expected =
            format!("branchline.db: its schema has version 99, this program knows {}:", STEPS.len());
        assert!(error.contains(&expected), "{error}");
        fs::write(directory.path().join(FILE), "no database at all, but long enough to be looked at")
            .unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("branchline.db: file is not a database"), "{error}");
    }
}
