//! Traces of calls that have ended, in a file of their own: it may be lost or removed, and nothing but they is gone; and
//! what is written to it keeps nobody from the database of what stands.
//!
//! What a record says is its writer's business. Invariant: rows take no more than the limit that comes with each write;
//! the oldest give way. The file keeps the size that it had once, and uses it again; it is made smaller when much is
//! let go of at once.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rusqlite::{Row, Transaction, params};

use super::{StoreError, database::Database};

/// The file's name in the state directory.
const FILE: &str = "traces.db";
/// What each version of the schema adds to the one before.
const STEPS: &[&str] = &[include_str!("schema/traces-1.sql")];
/// Bytes of a row besides its texts and its record; estimated, with its part of the indices.
const ROW: usize = 160;
/// Parts of one trace that are read: one for each daemon that the call has seen.
const MOST_PARTS: usize = 16;
/// Bytes that are let go of at once for which the file is made smaller.
const WORTH_IT: u64 = 8 << 20;

/// A trace, or the part of it that one daemon has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTrace {
    /// The Call-ID.
    pub call_id: String,
    /// The method of the first request.
    pub method: String,
    /// Who began it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// When it began, in microseconds since 1970.
    pub begun_unix_us: u64,
    /// When the last message passed.
    pub last_unix_us: u64,
    /// Messages in the record.
    pub messages: u64,
    /// Messages that are not.
    pub left_out: u64,
    /// The last response.
    pub status: Option<String>,
    /// The messages; empty in lists.
    pub record: Vec<u8>,
}

impl StoredTrace {
    fn bytes(&self) -> u64 {
        let texts = [&self.call_id, &self.method, &self.from, &self.to];
        let texts: usize = texts.into_iter().chain(&self.status).map(String::len).sum();
        (ROW + texts + self.record.len()) as u64
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(Self {
            call_id: row.get(0)?,
            method: row.get(1)?,
            from: row.get(2)?,
            to: row.get(3)?,
            begun_unix_us: number(row.get(4)?),
            last_unix_us: number(row.get(5)?),
            messages: number(row.get(6)?),
            left_out: number(row.get(7)?),
            status: row.get(8)?,
            record: row.get(9)?,
        })
    }
}

/// The columns of a trace, without its record.
const COLUMNS: &str =
    "call_id, method, from_address, to_address, begun_unix_us, last_unix_us, messages, left_out, status";

/// The file of traces.
#[derive(Debug)]
pub struct TraceStore {
    database: Database,
    bytes: AtomicU64,
}

impl TraceStore {
    /// Opens the file in a directory that is there.
    ///
    /// # Errors
    /// It cannot be opened or brought up to date; with its path.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let database = Database::open(directory.join(FILE), STEPS)?;
        let bytes: i64 = database
            .with(|db| db.query_row("SELECT coalesce(sum(bytes), 0) FROM trace", [], |row| row.get(0)))?;
        Ok(Self { database, bytes: AtomicU64::new(u64::try_from(bytes).unwrap_or(0)) })
    }

    /// Bytes that all rows take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes traces, all of them or none, and lets go of the oldest rows beyond so many bytes.
    ///
    /// # Errors
    /// The database.
    pub fn put(&self, traces: &[StoredTrace], limit: u64) -> Result<(), StoreError> {
        self.database.with(|db| {
            let transaction = db.transaction()?;
            let mut bytes = self.bytes();
            for trace in traces {
                insert(&transaction, trace)?;
                bytes += trace.bytes();
            }
            let before = bytes;
            while bytes > limit {
                let oldest =
                    "DELETE FROM trace WHERE number = (SELECT min(number) FROM trace) RETURNING bytes";
                let mut statement = transaction.prepare_cached(oldest)?;
                let Some(freed) = statement.query_map([], |row| row.get::<_, i64>(0))?.next().transpose()?
                else {
                    break;
                };
                bytes = bytes.saturating_sub(u64::try_from(freed).unwrap_or(0));
            }
            transaction.commit()?;
            self.bytes.store(bytes, Ordering::Relaxed);
            if before - bytes >= WORTH_IT {
                db.execute_batch("VACUUM")?;
            }
            Ok(())
        })
    }

    /// The parts of a trace, the oldest first.
    ///
    /// # Errors
    /// The database.
    pub fn of(&self, call_id: &str) -> Result<Vec<StoredTrace>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS}, record FROM trace WHERE call_id = ?1 ORDER BY number DESC LIMIT {MOST_PARTS}"
        );
        let mut parts: Vec<StoredTrace> = self.database.with(|db| {
            let mut statement = db.prepare_cached(&query)?;
            let rows = statement.query_map([call_id], StoredTrace::read)?;
            rows.collect()
        })?;
        parts.reverse();
        Ok(parts)
    }

    /// The traces in which something was said last, without their records, the last one first; up to so many.
    ///
    /// # Errors
    /// The database.
    pub fn last(&self, most: usize) -> Result<Vec<StoredTrace>, StoreError> {
        let query = format!("SELECT {COLUMNS}, x'' FROM trace ORDER BY last_unix_us DESC LIMIT ?1");
        self.database.with(|db| {
            let mut statement = db.prepare_cached(&query)?;
            let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], StoredTrace::read)?;
            rows.collect()
        })
    }
}

fn insert(transaction: &Transaction<'_>, trace: &StoredTrace) -> rusqlite::Result<()> {
    let put = format!(
        "INSERT INTO trace({COLUMNS}, bytes, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    );
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    transaction.prepare_cached(&put)?.execute(params![
        trace.call_id,
        trace.method,
        trace.from,
        trace.to,
        number(trace.begun_unix_us),
        number(trace.last_unix_us),
        number(trace.messages),
        number(trace.left_out),
        trace.status,
        number(trace.bytes()),
        trace.record,
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    fn trace(call_id: &str, last_unix_us: u64, bytes: usize) -> StoredTrace {
        StoredTrace {
            call_id: call_id.to_owned(),
            method: "INVITE".to_owned(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            begun_unix_us: 1,
            last_unix_us,
            messages: 2,
            left_out: 0,
            status: Some("200 OK".to_owned()),
            record: vec![7; bytes],
        }
    }

    #[test]
    fn traces_outlive_the_process_and_the_oldest_give_way() {
        let directory = Directory::new("traces");
        let store = TraceStore::open(directory.path()).unwrap();
        let row = trace("x", 0, 1000).bytes();
        store.put(&[trace("a", 10, 1000), trace("b", 30, 1000)], 3 * row).unwrap();
        store.put(&[trace("a", 20, 1000)], 3 * row).unwrap();
        drop(store);
        let store = TraceStore::open(directory.path()).unwrap();
        assert_eq!(store.bytes(), 3 * row);
        assert_eq!(store.of("a").unwrap(), [trace("a", 10, 1000), trace("a", 20, 1000)]);
        let last = |most| -> Vec<(String, u64)> {
            let last = store.last(most).unwrap();
            assert!(last.iter().all(|trace| trace.record.is_empty()));
            last.into_iter().map(|trace| (trace.call_id, trace.last_unix_us)).collect()
        };
        assert_eq!(last(2), [("b".to_owned(), 30), ("a".to_owned(), 20)]);
        store.put(&[trace("c", 40, 1000)], 3 * row).unwrap();
        assert_eq!(store.of("a").unwrap(), [trace("a", 20, 1000)], "the oldest row is gone");
        store.put(&[], row).unwrap();
        assert_eq!(last(9), [("c".to_owned(), 40)]);
        assert_eq!(store.bytes(), row);
        store.put(&[trace("d", 50, 4000)], row).unwrap();
        assert_eq!(
            (last(9).len(), store.bytes()),
            (0, 0),
            "one that is larger than all that there is room for"
        );
    }

    #[test]
    fn a_file_becomes_smaller_when_much_is_let_go_of() {
        let directory = Directory::new("traces-large");
        let store = TraceStore::open(directory.path()).unwrap();
        let large: Vec<StoredTrace> = (0..12).map(|at| trace("a", at, 1 << 20)).collect();
        store.put(&large, 64 << 20).unwrap();
        store.put(&[], 1 << 20).unwrap();
        store.database.with(|db| db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
        let length = std::fs::metadata(directory.path().join(FILE)).unwrap().len();
        assert!(length < 2 << 20, "{length}");
    }
}
