//! Phones that servers have registered: whom the office knows when it is on its own, also after a restart.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// A phone as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPhone {
    /// User and host of the address of record.
    pub aor: String,
    /// The user alone.
    pub user: String,
    /// Names of networks, addresses on them from which it was registered, and when last, in seconds since 1970.
    pub addresses: Vec<(String, String, i64)>,
    /// The numbers that servers use for it.
    pub numbers: Vec<String>,
    /// Realm and algorithm of the challenges that it answers itself.
    pub digest: Option<(String, String)>,
    /// When a server last registered it, in seconds since 1970.
    pub seen_unix: i64,
}

impl Store {
    /// Replaces all known phones by these.
    ///
    /// # Errors
    /// The database.
    pub fn put_known_phones(&self, phones: &[StoredPhone]) -> Result<(), StoreError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM known_phone", [])?;
            {
                let mut insert = transaction.prepare(
                    "INSERT OR REPLACE INTO known_phone(aor, seen_unix, record) VALUES (?1, ?2, ?3)",
                )?;
                for phone in phones {
                    let record = serde_json::to_string(phone).unwrap_or_default();
                    insert.execute(params![phone.aor, phone.seen_unix, record])?;
                }
            }
            transaction.commit()
        })
    }

    /// The known phones that were seen after `since_unix`, the one that was seen last at the end.
    ///
    /// # Errors
    /// The database.
    pub fn known_phones(&self, since_unix: i64) -> Result<Vec<StoredPhone>, StoreError> {
        self.with(|db| {
            let mut query =
                db.prepare("SELECT record FROM known_phone WHERE seen_unix > ?1 ORDER BY seen_unix, aor")?;
            let rows = query.query_map([since_unix], |row| row.get::<_, String>(0))?;
            let records = rows.collect::<Result<Vec<_>, _>>()?;
            Ok(records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn known_phones_outlive_the_process_and_old_ones_are_left() {
        let directory = Directory::new("known");
        let phone = |aor: &str, seen_unix| StoredPhone {
            aor: aor.to_owned(),
            user: "200".to_owned(),
            addresses: vec![("office".to_owned(), "192.0.2.11".to_owned(), 90)],
            numbers: vec!["+49711".to_owned()],
            digest: Some(("pbx".to_owned(), "MD5".to_owned())),
            seen_unix,
        };
        let store = Store::open(directory.path()).unwrap();
        store.put_known_phones(&[phone("x@a", 1)]).unwrap();
        store.put_known_phones(&[phone("200@a", 500), phone("201@a", 100)]).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.known_phones(0).unwrap(), [phone("201@a", 100), phone("200@a", 500)]);
        assert_eq!(store.known_phones(100).unwrap(), [phone("200@a", 500)]);
    }
}
