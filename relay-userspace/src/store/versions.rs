//! Configurations that were applied: who, when, and the whole text.

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};

/// Versions that are kept.
const KEPT: u32 = 50;

/// One configuration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationVersion {
    /// Its number; later ones are greater.
    pub number: i64,
    /// When it was applied, in seconds since 1970.
    pub applied_unix: i64,
    /// By whom.
    pub applied_by: String,
}

impl Store {
    /// Keeps a configuration's text; nothing is added when it is the last one's. The oldest beyond fifty go.
    ///
    /// # Errors
    /// The database.
    pub fn record_configuration(&self, text: &str, by: &str, now_unix: i64) -> Result<(), StoreError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            let last: Option<String> = transaction
                .query_row("SELECT text FROM configuration_version ORDER BY number DESC LIMIT 1", [], |row| {
                    row.get(0)
                })
                .optional()?;
            if last.as_deref() != Some(text) {
                transaction.execute(
                    "INSERT INTO configuration_version(applied_unix, applied_by, text) VALUES (?1, ?2, ?3)",
                    params![now_unix, by, text],
                )?;
                transaction.execute(
                    "DELETE FROM configuration_version WHERE number NOT IN (
                         SELECT number FROM configuration_version ORDER BY number DESC LIMIT ?1)",
                    [KEPT],
                )?;
            }
            transaction.commit()
        })
    }

    /// The versions, newest first.
    ///
    /// # Errors
    /// The database.
    pub fn configuration_versions(&self) -> Result<Vec<ConfigurationVersion>, StoreError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT number, applied_unix, applied_by FROM configuration_version ORDER BY number DESC",
            )?;
            let rows = query.query_map([], |row| {
                Ok(ConfigurationVersion {
                    number: row.get(0)?,
                    applied_unix: row.get(1)?,
                    applied_by: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The text of a version.
    ///
    /// # Errors
    /// The database.
    pub fn configuration_text(&self, number: i64) -> Result<Option<String>, StoreError> {
        self.with(|db| {
            db.query_row("SELECT text FROM configuration_version WHERE number = ?1", [number], |row| {
                row.get(0)
            })
            .optional()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn versions_are_kept_newest_first_without_repetitions_and_only_so_many() {
        let directory = Directory::new("versions");
        let store = Store::open(directory.path()).unwrap();
        store.record_configuration("a", "file", 1).unwrap();
        store.record_configuration("a", "admin", 2).unwrap();
        store.record_configuration("b", "admin", 3).unwrap();
        let numbers: Vec<_> = store
            .configuration_versions()
            .unwrap()
            .into_iter()
            .map(|version| (version.number, version.applied_unix, version.applied_by))
            .collect();
        assert_eq!(numbers, [(2, 3, "admin".to_owned()), (1, 1, "file".to_owned())]);
        assert_eq!(store.configuration_text(1).unwrap().as_deref(), Some("a"));
        assert_eq!(store.configuration_text(7).unwrap(), None);
        for number in 0..i64::from(KEPT) {
            store.record_configuration(&number.to_string(), "admin", number).unwrap();
        }
        let kept = store.configuration_versions().unwrap();
        assert_eq!((kept.len(), kept.last().map(|version| version.number)), (KEPT as usize, Some(3)));
    }
}
