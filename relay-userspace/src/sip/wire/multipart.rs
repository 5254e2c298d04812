//! The session description of a message, alone or within a multipart body. RFC 2046 5.1, RFC 5621.

use std::ops::Range;

use super::{header::HeaderName, message::Message, scan};

/// The media type of a session description.
const SDP: &[u8] = b"application/sdp";
/// Parts looked at in one multipart body: far more than any real one has.
const MAX_PARTS: usize = 64;

/// Where in the message's body its session description lies: all of it for `application/sdp`, the first such part
/// of a `multipart/...` body. `None` when there is none, it is empty, or it is encoded in a way that hides it.
#[must_use]
pub fn sdp_range(message: &Message) -> Option<Range<usize>> {
    let body = message.body();
    if body.is_empty() {
        return None;
    }
    if message.header(HeaderName::ContentEncoding).is_some_and(|h| !h.value.eq_ignore_ascii_case(b"identity"))
    {
        return None;
    }
    let (kind, params) = message.content_type()?;
    if kind.eq_ignore_ascii_case(SDP) {
        return Some(0..body.len());
    }
    if !kind.get(..10).is_some_and(|head| head.eq_ignore_ascii_case(b"multipart/")) {
        return None;
    }
    find_part(body, scan::unquote(params.value("boundary")?), SDP)
}

/// The body with the bytes of `range` replaced.
#[must_use]
pub fn replace(body: &[u8], range: Range<usize>, with: &[u8]) -> Vec<u8> {
    let before = body.get(..range.start).unwrap_or_default();
    let after = body.get(range.end..).unwrap_or_default();
    [before, with, after].concat()
}

/// The content of the first part of that media type.
#[must_use]
pub fn find_part(body: &[u8], boundary: &[u8], kind: &[u8]) -> Option<Range<usize>> {
    if boundary.is_empty() || boundary.len() > 70 {
        return None; // RFC 2046 5.1.1
    }
    let mut at = next_delimiter(body, boundary, 0)?.end;
    for _ in 0..MAX_PARTS {
        let delimiter = next_delimiter(body, boundary, at)?;
        let part = at..delimiter.start;
        if let Some(content) = part_content(body, part, kind) {
            return Some(content);
        }
        if delimiter.last {
            return None;
        }
        at = delimiter.end;
    }
    None
}

struct Delimiter {
    /// Where the line end before it begins: that line end belongs to the delimiter.
    start: usize,
    /// Where the line after it begins.
    end: usize,
    last: bool,
}

fn next_delimiter(body: &[u8], boundary: &[u8], from: usize) -> Option<Delimiter> {
    let mut at = from;
    loop {
        let rest = body.get(at..)?;
        let line_end = memchr::memchr(b'\n', rest).map_or(body.len(), |feed| at + feed + 1);
        let line = body.get(at..line_end)?;
        if let Some(after) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) {
            let last = after.starts_with(b"--");
            let tail = if last { after.get(2..)? } else { after };
            if scan::trim(tail).is_empty() {
                let before = body.get(from..at)?;
                let cut = if before.ends_with(b"\r\n") { 2 } else { usize::from(before.ends_with(b"\n")) };
                return Some(Delimiter { start: at - cut, end: line_end, last });
            }
        }
        if line_end >= body.len() {
            return None;
        }
        at = line_end;
    }
}

/// The content of a part when its Content-Type is `kind` and it is not encoded.
fn part_content(body: &[u8], part: Range<usize>, kind: &[u8]) -> Option<Range<usize>> {
    let mut at = part.start;
    let mut matches = false;
    while at < part.end {
        let rest = body.get(at..part.end)?;
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |feed| feed + 1);
        let line = scan::trim(rest.get(..length)?);
        at += length;
        if line.is_empty() {
            return (matches && at < part.end).then_some(at..part.end);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (scan::trim(line.get(..colon)?), scan::trim(line.get(colon + 1..)?));
        if HeaderName::recognise(name) == HeaderName::ContentType {
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            matches = scan::trim(value.get(..end)?).eq_ignore_ascii_case(kind);
        } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding")
            && !["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain.as_bytes()))
        {
            return None;
        }
    }
    None
}
