//! Calls that stand, so that a daemon that starts anew goes on with them.
//!
//! What a record says is its writer's business; here it is bytes, sealed because there are media keys among them.

use std::fmt;

use rusqlite::{Transaction, params};
use zeroize::Zeroizing;

use super::{Store, StoreError};

/// What has become of a call.
#[derive(Clone, PartialEq, Eq)]
pub struct CallChange {
    /// Its name, which no other call has.
    pub name: String,
    /// What is to be kept of it, a secret; none if it has ended.
    pub record: Option<Zeroizing<Vec<u8>>>,
}

/// A call's name and its record, a secret.
pub type KeptCall = (String, Zeroizing<Vec<u8>>);

impl fmt::Debug for CallChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallChange").field("name", &self.name).finish_non_exhaustive()
    }
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
        let sealed = self.sealed(changes)?;
        self.with(|db| {
            let transaction = db.transaction()?;
            write(&transaction, &sealed)?;
            transaction.commit()
        })
    }

    /// Forgets all calls but these, and takes these, all of it or nothing.
    ///
    /// # Errors
    /// The database.
    pub fn replace_calls(&self, calls: &[CallChange]) -> Result<(), StoreError> {
        let sealed = self.sealed(calls)?;
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM live_call", [])?;
            write(&transaction, &sealed)?;
            transaction.commit()
        })
    }

    fn sealed<'c>(&self, changes: &'c [CallChange]) -> Result<Vec<Sealed<'c>>, StoreError> {
        let seal = |change: &'c CallChange| {
            let record = change.record.as_ref();
            let record =
                record.map(|record| self.secrets().seal(&context(&change.name), record)).transpose()?;
            Ok((change.name.as_str(), record))
        };
        changes.iter().map(seal).collect()
    }

    /// All calls that stood when last something was written: name and record. Those that cannot be opened, because the
    /// key is another one, are left out.
    ///
    /// # Errors
    /// The database.
    pub fn calls(&self) -> Result<Vec<KeptCall>, StoreError> {
        let sealed: Vec<(String, Vec<u8>)> = self.with(|db| {
            let mut query = db.prepare("SELECT name, record FROM live_call ORDER BY name")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let open = |(name, record): (String, Vec<u8>)| {
            let record = self.secrets().open_sealed(&context(&name), &record).ok()?;
            Some((name, record))
        };
        Ok(sealed.into_iter().filter_map(open).collect())
    }
}

/// A call's name and its sealed record.
type Sealed<'c> = (&'c str, Option<Vec<u8>>);

fn write(transaction: &Transaction<'_>, calls: &[Sealed<'_>]) -> rusqlite::Result<()> {
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO live_call(name, record) VALUES (?1, ?2)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM live_call WHERE name = ?1")?;
    for (name, record) in calls {
        match record {
            Some(record) => put.execute(params![name, record])?,
            None => remove.execute([name])?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn calls_that_stand_outlive_the_process_and_those_that_ended_do_not() {
        let directory = Directory::new("calls");
        let put = |name: &str, record: &[u8]| CallChange {
            name: name.into(),
            record: Some(Zeroizing::new(record.into())),
        };
        let end = |name: &str| CallChange { name: name.into(), record: None };
        let store = Store::open(directory.path()).unwrap();
        store.put_calls(&[put("a", b"1"), put("b", b"2"), end("never was")]).unwrap();
        store.put_calls(&[end("a"), put("b", b"3"), put("c\0x", b"4")]).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        let kept = |store: &Store| -> Vec<(String, Vec<u8>)> {
            store.calls().unwrap().into_iter().map(|(name, record)| (name, record.to_vec())).collect()
        };
        assert_eq!(kept(&store), [("b".to_owned(), b"3".to_vec()), ("c\0x".to_owned(), b"4".to_vec())]);
        assert_eq!(format!("{:?}", put("a", b"key")), r#"CallChange { name: "a", .. }"#);
        store.replace_calls(&[put("d", b"5")]).unwrap();
        assert_eq!(kept(&store), [("d".to_owned(), b"5".to_vec())]);
    }
}
