//! Authentication entries: the credentials with which the appliance answers a server's challenge for a phone.

use rusqlite::{OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Store, StoreError};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The registration that it is for: the user part of the address-of-record.
    pub registration_id: String,
    /// The user name in the digest.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// Other address-of-records' user parts (extensions) that it may be used for.
    pub aliases: Vec<String>,
}

impl Entry {
    /// Whether it can be used.
    ///
    /// # Errors
    /// A sentence that names the field and says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        /// Characters of the longest name or password.
        const LONGEST: usize = 256;
        /// Aliases of one entry.
        const MOST: usize = 100;
        let names = [("registration id", self.registration_id.as_str()), ("user name", self.user.as_str())];
        let aliases = self.aliases.iter().map(|alias| ("alias", alias.as_str()));
        for (field, value) in names.into_iter().chain(aliases) {
            let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | '"' | '<' | '>');
            if value.is_empty() || value.chars().count() > LONGEST || value.contains(odd) {
                return Err(format!(
                    "{field} {value:?}: it must have 1 to {LONGEST} characters, none of them a blank, a comma, a quote or an angle bracket"
                ));
            }
        }
        if self.password.is_empty()
            || self.password.chars().count() > LONGEST
            || self.password.contains(char::is_control)
        {
            return Err(format!(
                "password: it must have 1 to {LONGEST} characters, none of them a control character"
            ));
        }
        if self.aliases.len() > MOST {
            return Err(format!("aliases: there may be {MOST} at most"));
        }
        Ok(())
    }
}

/// What separates aliases where they are kept.
const SEPARATOR: &str = ",";

impl Store {
    /// All entries, by registration id.
    ///
    /// # Errors
    /// The database, or a password that cannot be opened.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let rows = self.with(|db| {
            let mut query = db.prepare(
                "SELECT registration_id, user, password, aliases FROM authentication_entry ORDER BY registration_id",
            )?;
            let rows = query.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?, row.get::<_, String>(3)?))
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        })?;
        let open = |(registration_id, user, sealed, aliases): (String, String, Vec<u8>, String)| {
            let password = self.secrets().open_sealed(&context(&registration_id), &sealed)?;
            let password = Zeroizing::new(String::from_utf8_lossy(&password).into_owned());
            let aliases =
                aliases.split(SEPARATOR).filter(|alias| !alias.is_empty()).map(str::to_owned).collect();
            Ok(Entry { registration_id, user, password, aliases })
        };
        rows.into_iter().map(open).collect()
    }

    /// Adds an entry, or replaces the one of the same registration id.
    ///
    /// # Errors
    /// The database.
    pub fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let sealed = self.secrets().seal(&context(&entry.registration_id), entry.password.as_bytes())?;
        let aliases = entry.aliases.join(SEPARATOR);
        self.with(|db| {
            db.execute(
                "INSERT OR REPLACE INTO authentication_entry(registration_id, user, password, aliases)
                 VALUES (?1, ?2, ?3, ?4)",
                params![entry.registration_id, entry.user, sealed, aliases],
            )
        })
        .map(drop)
    }

    /// Removes an entry; says whether there was one.
    ///
    /// # Errors
    /// The database.
    pub fn remove_entry(&self, registration_id: &str) -> Result<bool, StoreError> {
        self.with(|db| {
            db.query_row(
                "DELETE FROM authentication_entry WHERE registration_id = ?1 RETURNING 1",
                [registration_id],
                |_| Ok(()),
            )
            .optional()
        })
        .map(|removed| removed.is_some())
    }
}

fn context(registration_id: &str) -> String {
    format!("authentication_entry:{registration_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn entries_are_kept_replaced_and_removed_and_their_passwords_are_nowhere_in_the_files() {
        let directory = Directory::new("entries");
        let store = Store::open(directory.path()).unwrap();
        let entry = |password: &str| Entry {
            registration_id: "1001".to_owned(),
            user: "station1001".to_owned(),
            password: Zeroizing::new(password.to_owned()),
            aliases: vec!["2001".to_owned(), "2002".to_owned()],
        };
        store.put_entry(&entry("swordfish-one")).unwrap();
        store.put_entry(&entry("swordfish-two")).unwrap();
        assert_eq!(store.entries().unwrap(), [entry("swordfish-two")]);
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(9).any(|window| window == b"swordfish"), "a password in clear");
        }
        assert!(store.remove_entry("1001").unwrap());
        assert!(!store.remove_entry("1001").unwrap());
        assert_eq!(store.entries().unwrap(), []);
    }
}
