//! The last lines of each phone, in memory.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::message::Line;
use crate::provisioning::phones::unix_ms;

/// Lines of one phone.
const MOST_LINES: usize = 500;
/// Phones.
const MOST_PHONES: usize = 500;
/// Bytes of all lines' text.
const MOST_BYTES: usize = 16 << 20;

/// A line of a phone's log, for people and programs. Its texts have control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyslogView {
    /// The phone's IP address.
    pub phone: String,
    /// When the line came, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// `emerg` to `debug`, or `unknown`.
    pub severity: String,
    /// `kern` to `local7`.
    pub facility: Option<String>,
    /// When the phone says that it was written, as RFC 3339 has it.
    pub sent: Option<String>,
    /// What the phone calls itself.
    pub host: Option<String>,
    /// The part of it that speaks.
    pub application: Option<String>,
    /// Structured data, as it came.
    pub data: Option<String>,
    /// The text.
    pub message: String,
}

impl SyslogView {
    pub(super) fn new(now: SystemTime, phone: IpAddr, line: Line) -> Self {
        Self {
            phone: phone.to_string(),
            received_unix_ms: unix_ms(now),
            severity: line.severity.to_owned(),
            facility: line.facility.map(str::to_owned),
            sent: line.sent,
            host: line.host,
            application: line.application,
            data: line.data,
            message: line.text,
        }
    }

    fn bytes(&self) -> usize {
        let texts = [&self.sent, &self.host, &self.application, &self.data];
        size_of::<Self>() + self.message.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

#[derive(Debug, Default)]
struct Shelf {
    lines: VecDeque<SyslogView>,
    bytes: usize,
}

impl Shelf {
    fn drop_oldest(&mut self) -> usize {
        let bytes = self.lines.pop_front().map_or(0, |line| line.bytes());
        self.bytes -= bytes;
        bytes
    }
}

#[derive(Debug, Default)]
struct Shelves {
    phones: HashMap<IpAddr, Shelf>,
    bytes: usize,
}

/// The last lines of all phones. Every method locks for a moment only.
#[derive(Debug, Default)]
pub struct Book {
    shelves: Mutex<Shelves>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, phone: IpAddr, line: SyslogView) {
        let mut shelves = self.lock();
        if !shelves.phones.contains_key(&phone) && shelves.phones.len() >= MOST_PHONES {
            let quietest = shelves
                .phones
                .iter()
                .min_by_key(|(_, shelf)| shelf.lines.back().map_or(0, |line| line.received_unix_ms))
                .map(|(phone, _)| *phone);
            if let Some(shelf) = quietest.and_then(|phone| shelves.phones.remove(&phone)) {
                shelves.bytes -= shelf.bytes;
            }
        }
        let bytes = line.bytes();
        let shelf = shelves.phones.entry(phone).or_default();
        shelf.lines.push_back(line);
        shelf.bytes += bytes;
        let over = if shelf.lines.len() > MOST_LINES { shelf.drop_oldest() } else { 0 };
        shelves.bytes = shelves.bytes + bytes - over;
        while shelves.bytes > MOST_BYTES {
            // Who has written most loses first.
            let Some(fullest) = shelves.phones.values_mut().max_by_key(|shelf| shelf.bytes) else { break };
            let freed = fullest.drop_oldest();
            shelves.bytes -= freed;
        }
    }

    /// The last `lines` lines of a phone, or of all of them, oldest first.
    #[must_use]
    pub fn last(&self, phone: Option<IpAddr>, lines: usize) -> Vec<SyslogView> {
        let shelves = self.lock();
        let tail = |shelf: &Shelf| -> Vec<SyslogView> {
            shelf.lines.iter().skip(shelf.lines.len().saturating_sub(lines)).cloned().collect()
        };
        let mut all: Vec<SyslogView> = match phone {
            Some(phone) => shelves.phones.get(&phone).map(tail).unwrap_or_default(),
            None => shelves.phones.values().flat_map(tail).collect(),
        };
        drop(shelves);
        all.sort_by_key(|line| line.received_unix_ms);
        all.drain(..all.len().saturating_sub(lines));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;

    fn add(book: &Book, phone: u32, second: u64, text: &str) {
        let (phone, now) = (Ipv4Addr::from(phone).into(), UNIX_EPOCH + Duration::from_secs(second));
        book.add(phone, SyslogView::new(now, phone, Line::read(text.as_bytes())));
    }

    fn messages(lines: &[SyslogView]) -> Vec<&str> {
        lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn the_last_lines_are_those_of_one_phone_or_of_all_in_order_of_time() {
        let book = Book::default();
        for (phone, second, text) in [(1, 1, "a"), (2, 2, "b"), (1, 3, "c"), (2, 4, "d")] {
            add(&book, phone, second, text);
        }
        let first = Some(Ipv4Addr::from(1).into());
        for (phone, lines, expected) in [
            (None, 10, &["a", "b", "c", "d"] as &[&str]),
            (None, 3, &["b", "c", "d"]),
            (first, 10, &["a", "c"]),
            (first, 1, &["c"]),
            (first, 0, &[]),
            (Some(Ipv4Addr::from(9).into()), 10, &[]),
        ] {
            assert_eq!(messages(&book.last(phone, lines)), expected, "{phone:?}, {lines} lines");
        }
    }

    #[test]
    fn lines_phones_and_bytes_have_limits() {
        let book = Book::default();
        for number in 0..MOST_LINES + 10 {
            add(&book, 1, number as u64, "x");
        }
        assert_eq!(book.last(None, usize::MAX).len(), MOST_LINES);
        for phone in 0..MOST_PHONES as u32 + 10 {
            add(&book, 1000 + phone, 10_000 + u64::from(phone), "x");
        }
        assert_eq!(book.lock().phones.len(), MOST_PHONES);
        assert!(book.last(Some(Ipv4Addr::from(1).into()), 10).is_empty(), "the quietest has gone");
        let long = "y".repeat(2048);
        for phone in 0..40 {
            for number in 0..MOST_LINES {
                add(&book, 1100 + phone, 20_000 + number as u64, &long);
            }
        }
        let shelves = book.lock();
        assert!(shelves.bytes <= MOST_BYTES);
        assert_eq!(shelves.bytes, shelves.phones.values().map(|shelf| shelf.bytes).sum::<usize>());
        let counted: usize =
            shelves.phones.values().flat_map(|shelf| &shelf.lines).map(SyslogView::bytes).sum();
        assert_eq!(shelves.bytes, counted);
    }
}
