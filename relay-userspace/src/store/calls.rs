//! Calls that stand, so that a daemon that starts anew goes on with them.
//!
//! What a record says is its writer's business; here it is bytes, sealed because there are media keys among them.

use rusqlite::params;

use super::{Store, StoreError};

/// What has become of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallChange {
    /// Its name, which no other call has.
    pub name: String,
    /// What is to be kept of it; none if it has ended.
    pub record: Option<Vec<u8>>,
}

/// Whose secret a record is.
fn context(name: &str) -> String {
    format!("call:{name}")
}

impl Store {
    /// Takes what has changed, all of it or nothing.
    ///
    /// # Errors
    /// The database.
    pub fn put_calls(&self, changes: &[CallChange]) -> Result<(), StoreError> {
        let mut sealed = Vec::with_capacity(changes.len());
        for change in changes {
            let seal = |record: &Vec<u8>| self.secrets().seal(&context(&change.name), record);
            sealed.push((&change.name, change.record.as_ref().map(seal).transpose()?));
        }
        self.with(|db| {
            let transaction = db.transaction()?;
            {
                let mut put = transaction
                    .prepare_cached("INSERT OR REPLACE INTO live_call(name, record) VALUES (?1, ?2)")?;
                let mut remove = transaction.prepare_cached("DELETE FROM live_call WHERE name = ?1")?;
                for (name, record) in &sealed {
                    match record {
                        Some(record) => put.execute(params![name, record])?,
                        None => remove.execute([name])?,
                    };
                }
            }
            transaction.commit()
        })
    }

    /// All calls that stood when last something was written: name and record. Those that cannot be opened, because the
    /// key is another one, are left out.
    ///
    /// # Errors
    /// The database.
    pub fn calls(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sealed: Vec<(String, Vec<u8>)> = self.with(|db| {
            let mut query = db.prepare("SELECT name, record FROM live_call ORDER BY name")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let open = |(name, record): (String, Vec<u8>)| {
            let record = self.secrets().open_sealed(&context(&name), &record).ok()?;
            Some((name, record.to_vec()))
        };
        Ok(sealed.into_iter().filter_map(open).collect())
    }

    /// Forgets all calls.
    ///
    /// # Errors
    /// The database.
    pub fn forget_calls(&self) -> Result<(), StoreError> {
        self.with(|db| db.execute("DELETE FROM live_call", []).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn calls_that_stand_outlive_the_process_and_those_that_ended_do_not() {
        let directory = Directory::new("calls");
        let put = |name: &str, record: &[u8]| CallChange { name: name.into(), record: Some(record.into()) };
        let end = |name: &str| CallChange { name: name.into(), record: None };
        let store = Store::open(directory.path()).unwrap();
        store.put_calls(&[put("a", b"1"), put("b", b"2"), end("never was")]).unwrap();
        store.put_calls(&[end("a"), put("b", b"3"), put("c\0x", b"4")]).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        let expected = [("b".to_owned(), b"3".to_vec()), ("c\0x".to_owned(), b"4".to_vec())];
        assert_eq!(store.calls().unwrap(), expected);
        store.forget_calls().unwrap();
        assert_eq!(store.calls().unwrap(), []);
    }
}
