//! Answers from a stored copy: whole, in part, or "you have it" (RFC 9110 sections 13 and 14).

use hyper::{HeaderMap, header};

/// What of a copy is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it.
    Whole,
    /// Bytes from the first to the last, both included.
    Part(u64, u64),
    /// Nothing: the phone has this very copy.
    NotModified,
    /// Nothing: it does not have the bytes that were asked for.
    OutOfRange,
}

/// Decides by a GET's headers and the copy's validators and length.
pub(super) fn select(
    request: &HeaderMap,
    etag: Option<&str>,
    modified: Option<&str>,
    length: u64,
) -> Selection {
    let text = |name: header::HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    // Section 13.2.2: If-None-Match decides where it is present, otherwise If-Modified-Since.
    if let Some(list) = text(header::IF_NONE_MATCH) {
        // Section 13.1.2: by weak comparison.
        let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let same = |etag: &str| list.trim() == "*" || list.split(',').any(|tag| plain(tag) == plain(etag));
        if etag.is_some_and(same) {
            return Selection::NotModified;
        }
    } else if let Some(since) = text(header::IF_MODIFIED_SINCE)
        // A client that has the copy repeats its date; other dates are not worth a parser.
        && modified == Some(since)
    {
        return Selection::NotModified;
    }
    let Some(range) = text(header::RANGE) else { return Selection::Whole };
    if let Some(validator) = text(header::IF_RANGE) {
        // Section 13.1.5: by strong comparison; a date has to be the very same.
        let strong = etag.filter(|etag| !etag.starts_with("W/"));
        if strong != Some(validator) && modified != Some(validator) {
            return Selection::Whole;
        }
    }
    part(range, length)
}

/// Section 14.1.2. What is not understood, and several ranges at once, are as if nothing had been asked.
fn part(range: &str, length: u64) -> Selection {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Selection::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let end = length.saturating_sub(1);
    match (first, last) {
        ("", last) => match number(last) {
            None => Selection::Whole,
            Some(0) => Selection::OutOfRange,
            Some(_) if length == 0 => Selection::OutOfRange,
            Some(count) => Selection::Part(length.saturating_sub(count), end),
        },
        (first, last) => match (number(first), if last.is_empty() { Some(end) } else { number(last) }) {
            (Some(first), _) if first >= length => Selection::OutOfRange,
            (Some(first), Some(last)) if first <= last => Selection::Part(first, last.min(end)),
            _ => Selection::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const TAG: &str = "\"abc\"";
    const DATE: &str = "Sat, 21 Nov 2026 10:00:00 GMT";

    #[test]
    fn conditions_and_ranges_are_read_as_the_rfc_has_them() {
        use Selection::{NotModified, OutOfRange, Part, Whole};
        type Row = (&'static str, &'static [(&'static str, &'static str)], Selection);
        let rows: [Row; 22] = [
            ("nothing asked", &[], Whole),
            ("its own tag", &[("if-none-match", TAG)], NotModified),
            ("its own tag, weak, among others", &[("if-none-match", "\"x\", W/\"abc\"")], NotModified),
            ("any tag", &[("if-none-match", "*")], NotModified),
            ("another tag", &[("if-none-match", "\"x\"")], Whole),
            ("its own date", &[("if-modified-since", DATE)], NotModified),
            ("the tag decides", &[("if-none-match", "\"x\""), ("if-modified-since", DATE)], Whole),
            ("the first bytes", &[("range", "bytes=0-9")], Part(0, 9)),
            ("from the middle", &[("range", "bytes=40-")], Part(40, 99)),
            ("beyond the end", &[("range", "bytes=40-400")], Part(40, 99)),
            ("the last bytes", &[("range", "bytes=-10")], Part(90, 99)),
            ("more last bytes than there are", &[("range", "bytes=-1000")], Part(0, 99)),
            ("no last bytes", &[("range", "bytes=-0")], OutOfRange),
            ("after the end", &[("range", "bytes=100-")], OutOfRange),
            ("backwards", &[("range", "bytes=9-3")], Whole),
            ("two parts", &[("range", "bytes=0-1,5-6")], Whole),
            ("another unit", &[("range", "lines=0-1")], Whole),
            ("a sign", &[("range", "bytes=+1-5")], Whole),
            ("more than a number holds", &[("range", "bytes=99999999999999999999-")], Whole),
            ("if it is the same", &[("range", "bytes=0-9"), ("if-range", TAG)], Part(0, 9)),
            ("if it is of the same date", &[("range", "bytes=0-9"), ("if-range", DATE)], Part(0, 9)),
            ("if it is another", &[("range", "bytes=0-9"), ("if-range", "\"x\"")], Whole),
        ];
        for (description, headers, expected) in rows {
            let request: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(select(&request, Some(TAG), Some(DATE), 100), expected, "{description}");
        }
        let mut range = HeaderMap::new();
        range.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        assert_eq!(select(&range, None, None, 0), OutOfRange, "an empty file has no first byte");
        range.insert(header::IF_RANGE, HeaderValue::from_static("W/\"abc\""));
        assert_eq!(select(&range, Some("W/\"abc\""), None, 9), Whole, "a weak tag vouches for no part");
    }
}
