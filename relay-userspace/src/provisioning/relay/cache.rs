//! Copies of files on disk, sealed: configurations hold passwords.
//!
//! A copy is one file, named by the hash of its path: a sealed description (headers, validators, for whom), then the
//! content in chunks of 64 KiB, each sealed with the file, its own number and whether it is the last as context, so
//! that chunks can be neither moved, mixed nor cut off, and a large file is never in memory as a whole. It is written
//! under another name and renamed when it is whole. Invariant: the sizes of all files, those being written included,
//! stay below the limit; the copy that was used longest ago gives way.

mod description;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

pub(super) use description::Description;
use prometheus::IntGauge;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::store::{SealError, Secrets, Store};

/// Bytes of content in one chunk.
pub(super) const CHUNK: u64 = 64 << 10;
/// What sealing adds: a nonce of 24 bytes and a tag of 16 (XChaCha20-Poly1305).
const SEALED: u64 = 40;
/// Begins every file; its last digit is the version of what follows.
const MAGIC: [u8; 8] = *b"BLCACHE1";
/// Bytes of the longest description.
const MOST_DESCRIPTION: u32 = 64 << 10;
/// Most copies.
const MOST_COPIES: usize = 10_000;
/// Only the daemon's user.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Ends the name of a file that is being written.
const DRAFT: &str = ".draft";

/// The name of a copy: the hash of its path and query.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(target: &str) -> Self {
        Self(Sha256::digest(target).into())
    }

    fn parse(name: &str) -> Option<Self> {
        let mut key = [0; 32];
        if name.len() != 64 || !name.is_ascii() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(name.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A copy that is open: it stays readable when it is replaced or removed meanwhile.
#[derive(Debug)]
pub(super) struct Copy {
    file: File,
    key: Key,
    /// What is known of it.
    pub(super) description: Description,
    /// Where its content begins in the file.
    begin: u64,
    /// Bytes of content.
    pub(super) length: u64,
}

/// How many chunks content has; an empty one has an empty chunk.
pub(super) fn chunks(length: u64) -> u64 {
    length.div_ceil(CHUNK).max(1)
}

fn context(key: Key, edition: u64, number: u64, is_last: bool) -> String {
    let end = if is_last { "last" } else { "more" };
    format!("cache:{key}:{edition:016x}:{number}:{end}")
}

fn broken(error: &SealError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Copy {
    /// One chunk's content. Blocking.
    pub(super) fn read(&self, secrets: &Secrets, number: u64) -> io::Result<Vec<u8>> {
        let is_last = number + 1 == chunks(self.length);
        let plain = if is_last { self.length - number * CHUNK } else { CHUNK };
        let mut sealed = vec![0; usize::try_from(plain + SEALED).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut sealed, self.begin + number * (CHUNK + SEALED))?;
        let context = context(self.key, self.description.edition, number, is_last);
        let mut opened = secrets.open_sealed(&context, &sealed).map_err(|error| broken(&error))?;
        Ok(std::mem::take(&mut *opened))
    }
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Key, Entry>,
    /// Bytes of all copies and of what is being written.
    bytes: u64,
    /// Counts uses.
    clock: u64,
}

/// All copies. Its methods block: they are for threads that may.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    store: Arc<Store>,
    most_bytes: u64,
    index: Mutex<Index>,
    bytes_metric: IntGauge,
    failing: AtomicBool,
}

impl Cache {
    /// Opens the directory, and removes what was not finished.
    pub(super) fn open(
        directory: &Path,
        most_bytes: u64,
        store: Arc<Store>,
        bytes_metric: IntGauge,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            match entry.file_name().to_str().and_then(Key::parse) {
                Some(key) if metadata.is_file() => found.push((metadata.modified()?, key, metadata.len())),
                _ if entry.file_name().to_string_lossy().ends_with(DRAFT) => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        found.sort_by_key(|(modified, _, _)| *modified);
        let mut index = Index::default();
        for (_, key, bytes) in found {
            index.clock += 1;
            index.bytes += bytes;
            index.entries.insert(key, Entry { bytes, used: index.clock });
        }
        let cache = Self {
            directory: directory.to_owned(),
            store,
            most_bytes,
            index: Mutex::new(index),
            bytes_metric,
            failing: AtomicBool::new(false),
        };
        // The limit may have been lowered.
        cache.make_room(&mut cache.lock(), 0);
        Ok(cache)
    }

    /// The key that opens the chunks.
    pub(super) fn secrets(&self) -> &Secrets {
        self.store.secrets()
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: Key) -> PathBuf {
        self.directory.join(key.to_string())
    }

    /// Removes what was used longest ago until so many bytes more have room; says whether they have.
    fn make_room(&self, index: &mut Index, bytes: u64) -> bool {
        while index.bytes + bytes > self.most_bytes || index.entries.len() >= MOST_COPIES {
            let oldest = index.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let Some(key) = oldest else { break };
            if let Some(entry) = index.entries.remove(&key) {
                index.bytes -= entry.bytes;
            }
            let _ = fs::remove_file(self.path(key));
        }
        self.bytes_metric.set(i64::try_from(index.bytes).unwrap_or(i64::MAX));
        index.bytes + bytes <= self.most_bytes
    }

    /// Opens a copy. One that cannot be read is removed, as if it were not there.
    pub(super) fn get(&self, key: Key) -> Option<Copy> {
        {
            let mut index = self.lock();
            index.clock += 1;
            let clock = index.clock;
            index.entries.get_mut(&key)?.used = clock;
        }
        match self.read(key) {
            Ok(copy) => {
                // For the order after the next start.
                let _ = copy.file.set_modified(SystemTime::now());
                Some(copy)
            }
            Err(error) => {
                warn!(%error, file = %self.path(key).display(), "a cached file cannot be used and is removed");
                self.remove(key);
                None
            }
        }
    }

    fn read(&self, key: Key) -> io::Result<Copy> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut file = File::open(self.path(key))?;
        let mut head = [0; 12];
        file.read_exact(&mut head)?;
        let (magic, length) = head.split_at(MAGIC.len());
        let length = u32::from_be_bytes(length.try_into().map_err(|_| invalid("no length"))?);
        if magic != MAGIC || length > MOST_DESCRIPTION {
            return Err(invalid("it is of another version"));
        }
        let mut sealed = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact(&mut sealed)?;
        let opened =
            self.secrets().open_sealed(&format!("cache:{key}"), &sealed).map_err(|error| broken(&error))?;
        let description: Description = serde_json::from_slice(&opened)?;
        let begin = head.len() as u64 + u64::from(length);
        let content = file.metadata()?.len().saturating_sub(begin);
        let (whole, rest) = (content / (CHUNK + SEALED), content % (CHUNK + SEALED));
        let length = match rest {
            0 if whole > 0 => whole * CHUNK,
            rest => whole * CHUNK + rest.checked_sub(SEALED).ok_or_else(|| invalid("it is cut short"))?,
        };
        Ok(Copy { file, key, description, begin, length })
    }

    /// Forgets a copy.
    pub(super) fn remove(&self, key: Key) {
        let mut index = self.lock();
        if let Some(entry) = index.entries.remove(&key) {
            index.bytes -= entry.bytes;
            let _ = fs::remove_file(self.path(key));
        }
        self.bytes_metric.set(i64::try_from(index.bytes).unwrap_or(i64::MAX));
    }

    /// Begins a copy. Where the length is known, the disk's blocks are taken at once: a disk that is full is noticed
    /// before anybody depends on the copy.
    pub(super) fn begin(
        self: &Arc<Self>,
        key: Key,
        description: Description,
        length: Option<u64>,
    ) -> io::Result<Draft> {
        let plain = serde_json::to_vec(&description)?;
        let sealed = self.secrets().seal(&format!("cache:{key}"), &plain).map_err(|error| broken(&error))?;
        let size = u32::try_from(sealed.len())
            .ok()
            .filter(|size| *size <= MOST_DESCRIPTION)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its headers are too long"))?;
        let head = [&MAGIC[..], &size.to_be_bytes(), &sealed].concat();
        let begin = head.len() as u64;
        let path = self.directory.join(format!("{key}-{:016x}{DRAFT}", description.edition));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_FILE).open(&path)?;
        let mut draft = Draft {
            cache: Arc::clone(self),
            file,
            path,
            key,
            description,
            begin,
            reserved: 0,
            written: 0,
            number: 0,
            pending: Vec::new(),
        };
        draft.reserve(begin)?;
        draft.file.write_all(&head)?;
        if let Some(length) = length {
            let content = length + chunks(length) * SEALED;
            draft.reserve(content)?;
            let (from, content) = (libc::off_t::try_from(begin), libc::off_t::try_from(content));
            if let (Ok(from), Ok(content)) = (from, content) {
                nix::fcntl::posix_fallocate(&draft.file, from, content)?;
            }
        }
        Ok(draft)
    }

    /// Notes that a copy could not be written; the log says it once.
    pub(super) fn failed(&self, error: &io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(
                %error,
                directory = %self.directory.display(),
                "files cannot be cached; they are relayed all the same"
            );
        }
    }
}

/// A copy that is being written; dropped before it is finished, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    cache: Arc<Cache>,
    file: File,
    path: PathBuf,
    key: Key,
    description: Description,
    begin: u64,
    /// Bytes that are counted in the index for it.
    reserved: u64,
    /// Bytes of content so far.
    written: u64,
    /// The number of the next chunk.
    number: u64,
    pending: Vec<u8>,
}

impl Draft {
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut index = self.cache.lock();
        if !self.cache.make_room(&mut index, bytes) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "it is larger than the cache (key provisioning.cache_mib)",
            ));
        }
        index.bytes += bytes;
        self.reserved += bytes;
        Ok(())
    }

    /// Adds content, and returns how many chunks are on disk. A full chunk waits until it is known whether it is the
    /// last.
    pub(super) fn write(&mut self, mut content: &[u8]) -> io::Result<u64> {
        let chunk = usize::try_from(CHUNK).map_err(io::Error::other)?;
        while !content.is_empty() {
            if self.pending.len() == chunk {
                self.flush(false)?;
            }
            let (now, later) = content.split_at(content.len().min(chunk - self.pending.len()));
            self.pending.extend_from_slice(now);
            self.written += now.len() as u64;
            content = later;
        }
        Ok(self.number)
    }

    fn flush(&mut self, is_last: bool) -> io::Result<()> {
        let context = context(self.key, self.description.edition, self.number, is_last);
        let sealed = self.cache.secrets().seal(&context, &self.pending).map_err(|error| broken(&error))?;
        let end = self.begin + self.number * (CHUNK + SEALED) + sealed.len() as u64;
        if end > self.reserved {
            self.reserve(end - self.reserved)?;
        }
        self.file.write_all_at(&sealed, self.begin + self.number * (CHUNK + SEALED))?;
        self.pending.clear();
        self.number += 1;
        Ok(())
    }

    /// A reader of what is on disk so far, for content of known length.
    pub(super) fn reader(&self, length: u64) -> io::Result<Copy> {
        Ok(Copy {
            file: File::open(&self.path)?,
            key: self.key,
            description: self.description.clone(),
            begin: self.begin,
            length,
        })
    }

    /// Ends it: from now on it is the copy. `length` is what it has to be, if that is known.
    pub(super) fn finish(mut self, length: Option<u64>) -> io::Result<()> {
        if length.is_some_and(|length| length != self.written) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before its length"));
        }
        self.flush(true)?;
        let cache = Arc::clone(&self.cache);
        let mut index = cache.lock();
        fs::rename(&self.path, cache.path(self.key))?;
        index.clock += 1;
        let entry = Entry { bytes: std::mem::take(&mut self.reserved), used: index.clock };
        if let Some(before) = index.entries.insert(self.key, entry) {
            index.bytes -= before.bytes;
        }
        cache.bytes_metric.set(i64::try_from(index.bytes).unwrap_or(i64::MAX));
        if cache.failing.swap(false, Ordering::Relaxed) {
            info!("files are cached again");
        }
        // Nothing is left for the destructor to remove.
        self.path.clear();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let _ = fs::remove_file(&self.path);
        let mut index = self.cache.lock();
        index.bytes -= self.reserved;
        self.cache.bytes_metric.set(i64::try_from(index.bytes).unwrap_or(i64::MAX));
    }
}
