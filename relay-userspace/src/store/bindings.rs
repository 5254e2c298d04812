//! Phones' bindings: a call to a phone finds it right after a restart.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// A binding as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBinding {
    /// The token in the Contact that the server has.
    pub token: u64,
    /// User and host of the address of record.
    pub aor: String,
    /// The user alone.
    pub user: String,
    /// The phone's own Contact URI.
    pub contact: String,
    /// The name of the phone's network.
    pub network: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where the phone was seen.
    pub source: String,
    /// The registration's Call-ID.
    pub call_id: String,
    /// The last REGISTER's CSeq number.
    pub cseq: u32,
    /// What the phone says it is.
    pub user_agent: Option<String>,
    /// When it was granted first, in seconds since 1970.
    pub registered_unix: i64,
    /// When it ends.
    pub expires_unix: i64,
}

impl Store {
    /// Replaces all bindings by these.
    ///
    /// # Errors
    /// The database.
    pub fn put_bindings(&self, bindings: &[StoredBinding]) -> Result<(), StoreError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM binding", [])?;
            {
                let mut insert = transaction
                    .prepare("INSERT INTO binding(token, expires_unix, record) VALUES (?1, ?2, ?3)")?;
                for binding in bindings {
                    let record = serde_json::to_string(binding).unwrap_or_default();
                    insert.execute(params![
                        format!("{:016x}", binding.token),
                        binding.expires_unix,
                        record
                    ])?;
                }
            }
            transaction.commit()
        })
    }

    /// The bindings that have not ended at `now_unix`. A record that cannot be read, of another version, is left out.
    ///
    /// # Errors
    /// The database.
    pub fn bindings(&self, now_unix: i64) -> Result<Vec<StoredBinding>, StoreError> {
        self.with(|db| {
            let mut query =
                db.prepare("SELECT record FROM binding WHERE expires_unix > ?1 ORDER BY token")?;
            let rows = query.query_map([now_unix], |row| row.get::<_, String>(0))?;
            let records = rows.collect::<Result<Vec<_>, _>>()?;
            Ok(records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect())
        })
    }

    /// A random number that is the same in every run: what must be recognised after a restart is made with it.
    ///
    /// # Errors
    /// The database, or that it was sealed with another key.
    pub fn lasting_secret(&self, name: &str) -> Result<[u64; 2], StoreError> {
        let context = format!("setting:{name}");
        let found: Option<Vec<u8>> = self.with(|db| {
            use rusqlite::OptionalExtension as _;
            db.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()
        })?;
        let bytes: [u8; 16] = match found {
            Some(sealed) => {
                let opened = self.secrets().open_sealed(&context, &sealed)?;
                opened.as_slice().try_into().map_err(|_| super::SealError::Broken)?
            }
            None => {
                let bytes: [u8; 16] = rand::random();
                let sealed = self.secrets().seal(&context, &bytes)?;
                self.with(|db| {
                    db.execute("INSERT INTO setting(name, value) VALUES (?1, ?2)", params![name, sealed])
                })?;
                bytes
            }
        };
        let (first, second) = bytes.split_at(8);
        let number = |part: &[u8]| part.try_into().map_or(0, u64::from_be_bytes);
        Ok([number(first), number(second)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn bindings_and_the_secret_of_their_tokens_outlive_the_process() {
        let directory = Directory::new("bindings");
        let binding = |token, expires_unix| StoredBinding {
            token,
            aor: "200@example.com".to_owned(),
            user: "200".to_owned(),
            contact: "sip:200@192.0.2.11".to_owned(),
            network: "office".to_owned(),
            transport: "udp".to_owned(),
            source: "192.0.2.11:5060".to_owned(),
            call_id: "c".to_owned(),
            cseq: 7,
            user_agent: Some("Phone/1".to_owned()),
            registered_unix: 100,
            expires_unix,
        };
        let store = Store::open(directory.path()).unwrap();
        let secret = store.lasting_secret("registrar").unwrap();
        store.put_bindings(&[binding(1, 500), binding(2, 500)]).unwrap();
        store.put_bindings(&[binding(2, 500), binding(u64::MAX, 900)]).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.lasting_secret("registrar").unwrap(), secret);
        assert_eq!(store.bindings(499).unwrap(), [binding(2, 500), binding(u64::MAX, 900)]);
        assert_eq!(store.bindings(500).unwrap(), [binding(u64::MAX, 900)]);
    }
}
