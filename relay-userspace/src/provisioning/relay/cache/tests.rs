//! Copies on disk: whole after a restart, unreadable in the file, never more than the limit.

use std::{net::IpAddr, os::unix::fs::PermissionsExt as _};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

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
    let mut description = describe(&[], &[("etag", "\"1\"")]).unwrap();
    target.clone_into(&mut description.target);
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
            let on_disk: u64 = files(&directory).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
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
