//! Authentication entries: the credentials with which the appliance answers a server's challenge for a phone.
//!
//! A password is kept, sealed, until servers have taken it and no further realm has been met for a while; then only what
//! stands for it in those realms is kept (H(A1), RFC 7616 section 3.4.2), by every hash function that is known. Invariant: an
//! entry has its password, or what stands for it in at least one realm.

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Store, StoreError};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The registration that it is for: the user part of the address-of-record.
    pub registration_id: String,
    /// The user name in the digest.
    pub user: String,
    /// The password; empty when it is not kept any more.
    pub password: Zeroizing<String>,
    /// What stands for it, by realm and hash function.
    pub digests: Vec<KeptDigest>,
    /// Other address-of-records' user parts (extensions) that it may be used for.
    pub aliases: Vec<String>,
}

/// What stands for a password in one realm and by one hash function. It is as good as the password there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDigest {
    /// The hash function.
    pub algorithm: String,
    /// The realm.
    pub realm: String,
    /// The hash, in hexadecimal.
    pub hash: String,
}

impl std::fmt::Debug for KeptDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptDigest({} {:?})", self.algorithm, self.realm)
    }
}

impl Entry {
    /// The realms in which what stands for its password is kept.
    #[must_use]
    pub fn realms(&self) -> Vec<String> {
        let mut realms: Vec<String> = self.digests.iter().map(|digest| digest.realm.clone()).collect();
        realms.dedup();
        realms
    }

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
        let is_kept = !self.password.is_empty() || !self.digests.is_empty();
        if !is_kept || self.password.chars().count() > LONGEST || self.password.contains(char::is_control) {
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
/// What stands for one password: three hash functions in each of 16 realms.
const MOST_DIGESTS: usize = 48;

impl Store {
    /// All entries, by registration id.
    ///
    /// # Errors
    /// The database, or a password that cannot be opened.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let rows = self.with(|db| {
            let mut query = db.prepare(
                "SELECT registration_id, user, password, aliases, digests FROM authentication_entry
                 ORDER BY registration_id",
            )?;
            let rows = query.query_map([], |row| {
                Ok(Row {
                    registration_id: row.get(0)?,
                    user: row.get(1)?,
                    password: row.get(2)?,
                    aliases: row.get(3)?,
                    digests: row.get(4)?,
                })
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        })?;
        let open = |row: Row| {
            let Row { registration_id, user, password, aliases, digests } = row;
            let context = context(&registration_id);
            let password = self.secrets().open_sealed(&context, &password)?;
            let password = Zeroizing::new(String::from_utf8_lossy(&password).into_owned());
            let digests = match digests {
                Some(sealed) => {
                    let plain = self.secrets().open_sealed(&digests_context(&registration_id), &sealed)?;
                    serde_json::from_slice(&plain).unwrap_or_default()
                }
                None => Vec::new(),
            };
            let aliases =
                aliases.split(SEPARATOR).filter(|alias| !alias.is_empty()).map(str::to_owned).collect();
            Ok(Entry { registration_id, user, password, digests, aliases })
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
        let digests = self.sealed_digests(entry)?;
        self.with(|db| {
            db.execute(
                "INSERT OR REPLACE INTO authentication_entry(registration_id, user, password, aliases, digests, learned_unix)
                 VALUES (?1, ?2, ?3, ?4, ?5,
                         (SELECT learned_unix FROM authentication_entry WHERE registration_id = ?1 AND ?5 IS NOT NULL))",
                params![entry.registration_id, entry.user, sealed, aliases, digests],
            )
        })
        .map(drop)
    }

    /// Keeps what stands for an entry's password in a realm that it has met, if it is new there and of this user name.
    ///
    /// # Errors
    /// The database.
    pub fn add_digests(
        &self,
        registration_id: &str,
        user: &str,
        digests: Vec<KeptDigest>,
        now_unix: i64,
    ) -> Result<(), StoreError> {
        let mut entries = self.entries()?.into_iter();
        let found = entries.find(|entry| entry.registration_id == registration_id && entry.user == user);
        let Some(mut entry) = found else { return Ok(()) };
        let is_known = |digest: &KeptDigest| entry.digests.iter().any(|known| known.realm == digest.realm);
        if entry.password.is_empty() || digests.iter().any(is_known) || entry.digests.len() >= MOST_DIGESTS {
            return Ok(());
        }
        entry.digests.extend(digests);
        let sealed = self.sealed_digests(&entry)?;
        self.with(|db| {
            db.execute(
                "UPDATE authentication_entry SET digests = ?2, learned_unix = ?3 WHERE registration_id = ?1",
                params![registration_id, sealed, now_unix],
            )
        })
        .map(drop)
    }

    /// Forgets the passwords of entries that have met no further realm since then. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub fn forget_passwords(&self, met_before_unix: i64) -> Result<usize, StoreError> {
        let ids: Vec<String> = self.with(|db| {
            let mut query = db.prepare(
                "SELECT registration_id FROM authentication_entry WHERE digests IS NOT NULL AND learned_unix <= ?1",
            )?;
            let ids = query.query_map([met_before_unix], |row| row.get(0))?;
            ids.collect()
        })?;
        let has_password = |entry: &Entry| !entry.password.is_empty() && ids.contains(&entry.registration_id);
        let mut forgotten = 0;
        for mut entry in self.entries()?.into_iter().filter(has_password) {
            entry.password = Zeroizing::default();
            self.put_entry(&entry)?;
            forgotten += 1;
        }
        if forgotten > 0 {
            // What was written before must not stay behind in the log of the database.
            self.with(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))?;
        }
        Ok(forgotten)
    }

    fn sealed_digests(&self, entry: &Entry) -> Result<Option<Vec<u8>>, StoreError> {
        if entry.digests.is_empty() {
            return Ok(None);
        }
        let plain = Zeroizing::new(serde_json::to_vec(&entry.digests).unwrap_or_default());
        Ok(Some(self.secrets().seal(&digests_context(&entry.registration_id), &plain)?))
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

/// A row as it is kept.
struct Row {
    registration_id: String,
    user: String,
    password: Vec<u8>,
    aliases: String,
    digests: Option<Vec<u8>>,
}

fn digests_context(registration_id: &str) -> String {
    format!("authentication_entry_digests:{registration_id}")
}

fn context(registration_id: &str) -> String {
    format!("authentication_entry:{registration_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    fn digests(realm: &str) -> Vec<KeptDigest> {
        let of = |algorithm: &str| KeptDigest {
            algorithm: algorithm.to_owned(),
            realm: realm.to_owned(),
            hash: format!("0123456789abcdef-of-{realm}"),
        };
        ["MD5", "SHA-256"].map(of).into()
    }

    #[test]
    fn entries_are_kept_replaced_and_removed_and_their_passwords_are_nowhere_in_the_files() {
        let directory = Directory::new("entries");
        let store = Store::open(directory.path()).unwrap();
        let entry = |password: &str| Entry {
            registration_id: "1001".to_owned(),
            user: "station1001".to_owned(),
            password: Zeroizing::new(password.to_owned()),
            digests: Vec::new(),
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

    #[test]
    fn a_password_goes_when_what_stands_for_it_is_kept_and_no_further_realm_was_met() {
        let directory = Directory::new("digests");
        let store = Store::open(directory.path()).unwrap();
        let entry = |id: &str| Entry {
            registration_id: id.to_owned(),
            user: "station".to_owned(),
            password: Zeroizing::new("swordfish".to_owned()),
            digests: Vec::new(),
            aliases: Vec::new(),
        };
        let learn = |id: &str, realm: &str, at| store.add_digests(id, "station", digests(realm), at);
        store.put_entry(&entry("1001")).unwrap();
        store.put_entry(&entry("1002")).unwrap();
        store.add_digests("1001", "another", digests("pbx"), 100).unwrap();
        assert_eq!(store.entries().unwrap()[0], entry("1001"), "of another user name");
        learn("1001", "pbx", 100).unwrap();
        learn("1001", "pbx", 200).unwrap();
        learn("nobody", "pbx", 100).unwrap();
        assert_eq!(store.forget_passwords(99).unwrap(), 0, "another realm may still be met");
        learn("1001", "other", 150).unwrap();
        assert_eq!(store.forget_passwords(149).unwrap(), 0);
        assert_eq!(store.forget_passwords(150).unwrap(), 1);
        assert_eq!(store.forget_passwords(1000).unwrap(), 0, "once");
        let kept = store.entries().unwrap();
        assert!(kept[0].password.is_empty() && kept[0].check().is_ok());
        let expected: Vec<KeptDigest> = ["pbx", "other"].into_iter().flat_map(digests).collect();
        assert_eq!(kept[0].digests, expected);
        assert_eq!(kept[1], entry("1002"), "no server has taken this one yet");
        store.put_entry(&kept[0]).unwrap();
        assert_eq!(store.entries().unwrap()[0], kept[0], "an edit keeps what there is");
        store.put_entry(&entry("1001")).unwrap();
        assert_eq!(store.entries().unwrap()[0], entry("1001"), "a password that is set begins anew");
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let hash = expected[0].hash.as_bytes();
            assert!(!bytes.windows(hash.len()).any(|window| window == hash), "a digest in clear");
        }
    }

    #[test]
    fn entries_of_an_earlier_version_stay_with_their_passwords() {
        let directory = Directory::new("entries-of-old");
        let secrets = crate::store::Secrets::open(directory.path()).unwrap();
        let old = rusqlite::Connection::open(directory.path().join("branchline.db")).unwrap();
        for step in [include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")]
        {
            old.execute_batch(step).unwrap();
        }
        old.pragma_update(None, "user_version", 3).unwrap();
        let sealed = secrets.seal(&context("1001"), b"swordfish").unwrap();
        old.execute(
            "INSERT INTO authentication_entry(registration_id, user, password, aliases) VALUES ('1001', 'u', ?1, '2001')",
            params![sealed],
        )
        .unwrap();
        drop(old);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.forget_passwords(i64::MAX).unwrap(), 0, "nobody has taken it yet");
        let [entry] = &store.entries().unwrap()[..] else { panic!("one entry") };
        assert_eq!(
            (entry.user.as_str(), entry.password.as_str(), entry.aliases.as_slice()),
            ("u", "swordfish", &["2001".to_owned()][..])
        );
        store.add_digests("1001", "u", digests("pbx"), 1).unwrap();
        assert_eq!(store.entries().unwrap()[0].digests, digests("pbx"));
    }
}
