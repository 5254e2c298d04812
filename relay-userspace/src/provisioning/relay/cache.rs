//! Copies of files on disk, sealed: configurations hold passwords.
//!
//! A copy is one file, named by the hash of its path: a sealed description (headers, validators, for whom), then the
//! content in chunks of 64 KiB, each sealed with the file, its own number and whether it is the last as context, so
//! that chunks can be neither moved, mixed nor cut off, and a large file is never in memory as a whole. It is written
//! under another name and renamed when it is whole. Invariant: the sizes of all files, those being written included,
//! stay below the limit; the copy that was used longest ago gives way.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
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

/// What is known of a copy beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    /// Path and query.
    pub(super) target: String,
    /// The server that it came from.
    pub(super) server: String,
    /// The response's headers, as far as they are passed on.
    headers: Vec<(String, Vec<u8>)>,
    /// When it was stored, in seconds since 1970.
    pub(super) stored_unix: u64,
    /// The only phone that it is for, where the server said `private`.
    owner: Option<IpAddr>,
    /// The request's headers that it depends on (`Vary`), with their values then.
    vary: Vec<(String, Option<Vec<u8>>)>,
    /// Random: tells this copy's chunks from those of an older one.
    edition: u64,
}

impl Description {
    /// Of a response, if it may be kept: what the server does not want kept, and what depends on more than a request's
    /// headers, is not.
    pub(super) fn of(
        target: &str,
        server: &str,
        phone: IpAddr,
        request: &HeaderMap,
        response: &HeaderMap,
        now: SystemTime,
    ) -> Option<Self> {
        let directives = |name: &str| {
            response
                .get_all(header::CACHE_CONTROL)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|directive| {
                    let directive = directive.split('=').next().unwrap_or_default();
                    directive.trim().eq_ignore_ascii_case(name)
                })
        };
        if directives("no-store") {
            return None;
        }
        let mut vary = Vec::new();
        for name in
            response.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','))
        {
            // `*` is no name.
            let name = HeaderName::from_bytes(name.trim_ascii()).ok().filter(|name| name.as_str() != "*")?;
            let value = request.get(&name).map(|value| value.as_bytes().to_vec());
            vary.push((name.as_str().to_owned(), value));
        }
        Some(Self {
            target: target.to_owned(),
            server: server.to_owned(),
            headers: response
                .iter()
                // A session's cookie is the first phone's alone.
                .filter(|(name, _)| ![header::SET_COOKIE, header::CONTENT_LENGTH, header::AGE].contains(name))
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            stored_unix: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            owner: directives("private").then_some(phone),
            vary,
            edition: rand::random(),
        })
    }

    /// Whether it answers this phone's request.
    pub(super) fn is_for(&self, phone: IpAddr, request: &HeaderMap) -> bool {
        self.owner.is_none_or(|owner| owner == phone)
            && self
                .vary
                .iter()
                .all(|(name, value)| request.get(name).map(HeaderValue::as_bytes) == value.as_deref())
    }

    /// The response's headers.
    pub(super) fn headers(&self) -> HeaderMap {
        self.headers
            .iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?))
            })
            .collect()
    }

    fn header(&self, wanted: &HeaderName) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == wanted.as_str())?;
        std::str::from_utf8(value).ok()
    }

    /// Its entity tag.
    pub(super) fn etag(&self) -> Option<&str> {
        self.header(&header::ETAG)
    }

    /// Its date.
    pub(super) fn modified(&self) -> Option<&str> {
        self.header(&header::LAST_MODIFIED)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::tests_support::Directory;

    const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 61, 0, 11));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 61, 0, 12));

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn describe(
        request: &[(&'static str, &'static str)],
        response: &[(&'static str, &'static str)],
    ) -> Option<Description> {
        let (request, response) = (headers(request), headers(response));
        Description::of("/a.cfg", "http://10.62.0.10", PHONE, &request, &response, SystemTime::now())
    }

    fn open(directory: &Directory, most_bytes: u64) -> Arc<Cache> {
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let gauge = IntGauge::new("cache", "cache").unwrap();
        Arc::new(Cache::open(&directory.path().join("provisioning"), most_bytes, store, gauge).unwrap())
    }

    fn put(cache: &Arc<Cache>, target: &str, content: &[u8], length: Option<u64>) -> io::Result<()> {
        let description =
            Description { target: target.to_owned(), ..describe(&[], &[("etag", "\"1\"")]).unwrap() };
        let mut draft = cache.begin(Key::of(target), description, length)?;
        for piece in content.chunks(10_000) {
            draft.write(piece)?;
        }
        draft.finish(length)
    }

    fn content(cache: &Cache, target: &str) -> Option<Vec<u8>> {
        let copy = cache.get(Key::of(target))?;
        let read = |number| copy.read(cache.secrets(), number).unwrap();
        let content: Vec<u8> = (0..chunks(copy.length)).flat_map(read).collect();
        assert_eq!(content.len() as u64, copy.length);
        Some(content)
    }

    fn files(directory: &Directory) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory.path().join("provisioning")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_is_stored_comes_back_whole_after_a_restart_and_is_not_readable_in_the_file() {
        let directory = Directory::new("cache");
        let sizes = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000];
        let make = |size: usize| -> Vec<u8> { (0..size).map(|at| (at * 7 % 251) as u8).collect() };
        for size in sizes {
            for length in [None, Some(size as u64)] {
                let cache = open(&directory, 1 << 20);
                let target = format!("/{size}-{length:?}");
                put(&cache, &target, &make(size), length).unwrap();
                drop(cache);
                let cache = open(&directory, 1 << 20);
                assert_eq!(content(&cache, &target), Some(make(size)), "{target}");
                let index = cache.lock();
                let on_disk: u64 =
                    files(&directory).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
                assert_eq!(index.bytes, on_disk, "{target}");
            }
        }
        let cache = open(&directory, 1 << 20);
        put(&cache, "/secret.cfg", b"password=swordfish", Some(18)).unwrap();
        for file in files(&directory) {
            let bytes = fs::read(&file).unwrap();
            assert!(!bytes.windows(9).any(|window| window == b"swordfish" || window == b"secret.cf"));
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
        }
    }

    #[test]
    fn a_draft_that_is_not_finished_leaves_nothing() {
        let directory = Directory::new("draft");
        let cache = open(&directory, 1 << 20);
        let error = put(&cache, "/a", b"short", Some(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!((files(&directory).len(), cache.lock().bytes), (0, 0));
        let mut draft = cache.begin(Key::of("/a"), describe(&[], &[]).unwrap(), None).unwrap();
        draft.write(b"half").unwrap();
        std::mem::forget(draft);
        assert_eq!(files(&directory).len(), 1, "as after a crash");
        drop(open(&directory, 1 << 20));
        assert_eq!(files(&directory).len(), 0);
    }

    #[test]
    fn the_copy_used_longest_ago_gives_way_and_what_is_too_large_is_refused() {
        let directory = Directory::new("lru");
        let cache = open(&directory, 250_000);
        for target in ["/a", "/b"] {
            put(&cache, target, &[1; 100_000], Some(100_000)).unwrap();
        }
        assert!(content(&cache, "/a").is_some());
        put(&cache, "/c", &[2; 100_000], None).unwrap();
        let there = ["/a", "/b", "/c"].map(|target| content(&cache, target).is_some());
        assert_eq!(there, [true, false, true]);
        for length in [Some(300_000), None] {
            let error = put(&cache, "/d", &[3; 300_000], length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{length:?}");
        }
        assert!(cache.lock().bytes <= 250_000);
        put(&cache, "/a", &[4; 10], Some(10)).unwrap();
        drop(open(&directory, 1000));
        assert_eq!(files(&directory).len(), 1, "a lower limit holds after a restart");
    }

    #[test]
    fn damage_is_found_and_the_copy_removed() {
        let directory = Directory::new("damage");
        let cache = open(&directory, 1 << 20);
        let target = "/a";
        let damage = |change: &dyn Fn(&mut Vec<u8>)| {
            put(&cache, target, &[5; 150_000], Some(150_000)).unwrap();
            let path = cache.path(Key::of(target));
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let copy = cache.get(Key::of(target))?;
            let all: io::Result<Vec<_>> =
                (0..chunks(copy.length)).map(|number| copy.read(cache.secrets(), number)).collect();
            Some(all.is_ok())
        };
        type Change = Box<dyn Fn(&mut Vec<u8>)>;
        let rows: [(&str, Change, Option<bool>); 6] = [
            ("nothing", Box::new(|_| ()), Some(true)),
            ("another version", Box::new(|bytes| bytes[7] = b'9'), None),
            ("its description", Box::new(|bytes| bytes[50] ^= 1), None),
            ("its content", Box::new(|bytes| bytes[80_000] ^= 1), Some(false)),
            ("its end cut off", Box::new(|bytes| bytes.truncate(100_000)), Some(false)),
            (
                "cut off between chunks",
                Box::new(|bytes| {
                    let last = 150_000 - 2 * CHUNK as usize + SEALED as usize;
                    bytes.truncate(bytes.len() - last);
                }),
                Some(false),
            ),
        ];
        for (description, change, expected) in rows {
            assert_eq!(damage(&change), expected, "{description}");
        }
    }

    #[test]
    fn a_copy_is_only_for_those_that_the_server_meant() {
        type Rows = &'static [(&'static str, &'static str)];
        let rows: [(&str, Rows, Rows, Option<[bool; 3]>); 7] = [
            ("anybody", &[], &[], Some([true, true, true])),
            ("private", &[], &[("cache-control", "max-age=0, Private")], Some([true, false, true])),
            ("not to be stored", &[], &[("cache-control", "no-store")], None),
            ("always revalidated anyway", &[], &[("cache-control", "no-cache")], Some([true, true, true])),
            (
                "by the phone's model",
                &[("user-agent", "A")],
                &[("vary", "User-Agent")],
                Some([true, true, false]),
            ),
            ("by a header that is not there", &[], &[("vary", "X-Model")], Some([true, true, true])),
            ("by anything", &[], &[("vary", "*")], None),
        ];
        for (description, request, response, expected) in rows {
            let stored = describe(request, response);
            let same = headers(request);
            let other = headers(&[("user-agent", "B")]);
            let is_for = stored.map(|stored| {
                [stored.is_for(PHONE, &same), stored.is_for(OTHER, &same), stored.is_for(PHONE, &other)]
            });
            assert_eq!(is_for, expected, "{description}");
        }
    }
}
