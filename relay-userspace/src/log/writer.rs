//! The way of lines to the disk: a bounded queue, a thread of its own, a file for each day. A disk that takes no more
//! is told once on standard error, and each failed write is counted.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_appender::{
    non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard},
    rolling::{Builder, Rotation},
};

use super::files::{PREFIX, SUFFIX};

/// Lines that wait; more are lost and counted.
const QUEUE: usize = 8192;
/// The daemon's user and group.
const MODE: u32 = 0o750;

/// Opens the files of a directory, which is made if it is not there.
pub(super) fn open(
    directory: &Path,
    failures: &Arc<AtomicU64>,
) -> Result<(NonBlocking, WorkerGuard), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(MODE).create(directory).map_err(|error| wrong(&error))?;
    let files = Builder::new()
        .rotation(Rotation::DAILY)
        .filename_prefix(PREFIX)
        .filename_suffix(SUFFIX)
        .build(directory)
        .map_err(|error| wrong(&error))?;
    let watched = Watched { inner: files, failing: false, failures: Arc::clone(failures) };
    Ok(NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true).finish(watched))
}

/// A writer whose failures are counted, and told once.
struct Watched<W> {
    inner: W,
    failing: bool,
    failures: Arc<AtomicU64>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last line may have been written in part: it must not make one line with this.
        let ended = if self.failing { self.inner.write_all(b"\n") } else { Ok(()) };
        match ended.and_then(|()| self.inner.write_all(bytes)) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    eprintln!("branchline: log files are written again");
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    // The log itself cannot say it.
                    eprintln!(
                        "branchline: log files cannot be written: {error}; lines are lost until they can"
                    );
                }
            }
        }
        // A line that was lost is not tried again: the next ones wait behind it.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_counted_and_does_not_stop_the_writer() {
        let failures = Arc::new(AtomicU64::new(0));
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut watched = Watched { inner: full, failing: false, failures: Arc::clone(&failures) };
        for expected in 1..=3 {
            assert_eq!(watched.write(b"a line\n").unwrap(), 7);
            assert_eq!((failures.load(Ordering::Relaxed), watched.failing), (expected, true));
        }
    }

    /// A disk that takes so many bytes, and then no more until there is room.
    struct Small {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            self.room -= length;
            self.taken.extend(&bytes[..length]);
            if length == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(length) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_first_line_after_a_full_disk_is_a_line_of_its_own() {
        let small = Small { taken: Vec::new(), room: 8 };
        let mut watched = Watched { inner: small, failing: false, failures: Arc::default() };
        watched.write_all(b"one\n").unwrap();
        watched.write_all(b"two and a half\n").unwrap();
        watched.inner.room = 100;
        watched.write_all(b"three\n").unwrap();
        watched.write_all(b"four\n").unwrap();
        assert_eq!(String::from_utf8(watched.inner.taken).unwrap(), "one\ntwo \nthree\nfour\n");
    }
}
