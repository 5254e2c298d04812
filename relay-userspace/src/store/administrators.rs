//! Administrators: who may sign in to the pages.

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};

/// Most administrators.
const MOST: u32 = 100;

/// One administrator, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// The name to sign in with.
    pub name: String,
    /// When the password was last set, in seconds since 1970.
    pub changed_unix: i64,
}

impl Store {
    /// All administrators, by name.
    ///
    /// # Errors
    /// The database.
    pub fn administrators(&self) -> Result<Vec<Administrator>, StoreError> {
        self.with(|db| {
            let mut query = db.prepare("SELECT name, changed_unix FROM administrator ORDER BY name")?;
            let rows = query
                .query_map([], |row| Ok(Administrator { name: row.get(0)?, changed_unix: row.get(1)? }))?;
            rows.collect()
        })
    }

    /// The hash of an administrator's password, in PHC form.
    ///
    /// # Errors
    /// The database.
    pub fn administrator_password(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.with(|db| {
            db.query_row("SELECT password FROM administrator WHERE name = ?1", [name], |row| row.get(0))
                .optional()
        })
    }

    /// Adds an administrator, or sets the password of the one of this name. Says whether there was room.
    ///
    /// # Errors
    /// The database.
    pub fn put_administrator(&self, name: &str, password: &str, now_unix: i64) -> Result<bool, StoreError> {
        self.with(|db| {
            db.execute(
                "INSERT INTO administrator(name, password, changed_unix)
                 SELECT ?1, ?2, ?3
                 WHERE (SELECT count(*) FROM administrator) < ?4
                    OR EXISTS (SELECT 1 FROM administrator WHERE name = ?1)
                 ON CONFLICT(name) DO UPDATE SET
                     password = excluded.password, changed_unix = excluded.changed_unix",
                params![name, password, now_unix, MOST],
            )
        })
        .map(|changed| changed > 0)
    }

    /// Gives an administrator another name; says whether that was possible: there is one, and the name is free.
    ///
    /// # Errors
    /// The database.
    pub fn rename_administrator(&self, old: &str, new: &str) -> Result<bool, StoreError> {
        self.with(|db| {
            db.execute("UPDATE OR IGNORE administrator SET name = ?2 WHERE name = ?1", params![old, new])
        })
        .map(|changed| changed > 0)
    }

    /// Removes an administrator, unless it is the last; says whether one was removed.
    ///
    /// # Errors
    /// The database.
    pub fn remove_administrator(&self, name: &str) -> Result<bool, StoreError> {
        self.with(|db| {
            db.execute(
                "DELETE FROM administrator WHERE name = ?1 AND (SELECT count(*) FROM administrator) > 1",
                [name],
            )
        })
        .map(|changed| changed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn administrators_are_added_changed_renamed_and_the_last_one_stays() {
        let directory = Directory::new("administrators");
        let store = Store::open(directory.path()).unwrap();
        assert!(store.put_administrator("ann", "one", 100).unwrap());
        assert!(store.put_administrator("ann", "two", 200).unwrap());
        assert_eq!(store.administrator_password("ann").unwrap().as_deref(), Some("two"));
        assert_eq!(store.administrator_password("bob").unwrap(), None);
        assert!(!store.remove_administrator("ann").unwrap(), "the last one");
        assert!(store.put_administrator("bob", "three", 300).unwrap());
        assert!(!store.rename_administrator("ann", "bob").unwrap(), "a name that is taken");
        assert!(store.rename_administrator("ann", "eve").unwrap());
        assert!(store.remove_administrator("bob").unwrap());
        let expected = Administrator { name: "eve".to_owned(), changed_unix: 200 };
        assert_eq!(store.administrators().unwrap(), [expected]);
    }

    #[test]
    fn there_is_a_limit_but_a_password_can_still_be_set() {
        let directory = Directory::new("many-administrators");
        let store = Store::open(directory.path()).unwrap();
        for number in 0..MOST {
            assert!(store.put_administrator(&number.to_string(), "x", 0).unwrap());
        }
        assert!(!store.put_administrator("one more", "x", 0).unwrap());
        assert!(store.put_administrator("0", "y", 0).unwrap());
    }
}
