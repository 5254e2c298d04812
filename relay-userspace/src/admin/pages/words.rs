//! Numbers and times as people read them. They take values and references alike: templates have now one, now the other.

use std::borrow::Borrow;

use time::{OffsetDateTime, macros::format_description};

/// Seconds as `m:ss`, or `h:mm:ss`.
pub(super) fn clock(seconds: impl Borrow<f64>) -> String {
    // Negative and absurd values become zero and the largest one.
    let seconds = *seconds.borrow() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Seconds in the largest two units.
pub(super) fn span(seconds: impl Borrow<u64>) -> String {
    let seconds = *seconds.borrow();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let unit = |number: u64, name: &str| format!("{number} {name}{}", if number == 1 { "" } else { "s" });
    match (days, hours, minutes) {
        (0, 0, 0) => unit(seconds, "second"),
        (0, 0, _) => unit(minutes, "minute"),
        (0, _, 0) => unit(hours, "hour"),
        (0, ..) => format!("{}, {}", unit(hours, "hour"), unit(minutes, "minute")),
        (_, 0, _) => unit(days, "day"),
        _ => format!("{}, {}", unit(days, "day"), unit(hours, "hour")),
    }
}

/// A time, UTC.
pub(super) fn moment(unix: impl Borrow<i64>) -> String {
    OffsetDateTime::from_unix_timestamp(*unix.borrow())
        .ok()
        .and_then(|at| {
            at.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC")).ok()
        })
        .unwrap_or_else(|| "never".to_owned())
}

/// The same from milliseconds.
pub(super) fn moment_ms(unix_ms: impl Borrow<u64>) -> String {
    moment(i64::try_from(unix_ms.borrow() / 1000).unwrap_or(i64::MAX))
}

/// A count with its thousands apart.
pub(super) fn count(number: impl Borrow<u64>) -> String {
    let digits = number.borrow().to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            // A narrow space that does not break (U+202F).
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A part of a whole in per cent; a dash where there is no whole.
pub(super) fn percent(part: impl Borrow<u64>, whole: impl Borrow<u64>) -> String {
    let (part, whole) = (*part.borrow(), *whole.borrow());
    if whole == 0 {
        return "\u{2013}".to_owned();
    }
    let value = part as f64 * 100.0 / whole as f64;
    if value > 0.0 && value < 0.1 { "<0.1 %".to_owned() } else { format!("{value:.1} %") }
}

/// A text, or a dash where there is none.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "\u{2013}" } else { text }
}

/// A long name, shortened to its beginning.
pub(super) fn short(name: &str) -> String {
    /// Characters that are enough to tell calls apart.
    const MOST: usize = 18;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['\u{2026}']).collect()
}

/// A number with so many digits behind the point and its unit; a dash where there is none.
pub(super) fn number(value: &Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or_else(|| "\u{2013}".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

/// Per cent encoding of everything but unreserved characters (RFC 3986 section 2).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_told_as_people_read_them() {
        for (seconds, expected) in [(0.0, "0:00"), (61.9, "1:01"), (3661.0, "1:01:01"), (-5.0, "0:00")] {
            assert_eq!(clock(seconds), expected);
        }
        for (seconds, expected) in [
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3600, "1 hour"),
            (3720, "1 hour, 2 minutes"),
            (86_400, "1 day"),
            (180_000, "2 days, 2 hours"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        assert_eq!(moment(1_000_000_000), "2001-09-09 01:46:40 UTC");
        for (number, expected) in [(7, "7"), (1234, "1\u{202f}234"), (1_234_567, "1\u{202f}234\u{202f}567")] {
            assert_eq!(count(number), expected);
        }
        for (part, whole, expected) in
            [(0, 0, "\u{2013}"), (0, 9, "0.0 %"), (1, 9999, "<0.1 %"), (1, 4, "25.0 %")]
        {
            assert_eq!(percent(part, whole), expected);
        }
        assert_eq!(short("1-4711@10.61.0.11"), "1-4711@10.61.0.11");
        assert_eq!(short("a84b4c76e66710@pc33.atlanta.example.com"), "a84b4c76e66710@pc\u{2026}");
        assert_eq!(encode("a b/\r\n\u{e4}"), "a%20b%2F%0D%0A%C3%A4");
    }
}
