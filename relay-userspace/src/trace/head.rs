//! The Call-ID of a message, and what it is, found without reading the rest.
//!
//! Every message that passes is asked this, also those that the proxy refuses to read: they are the ones that somebody
//! will want to see. So it takes what it finds and judges nothing. RFC 3261 sections 7.3.1, 7.3.3 and 20.8.

use memchr::memchr;

use crate::sip::wire::{limits, scan};

/// The Call-ID; none if there is none that can be kept as a key.
pub(super) fn call_id(message: &[u8]) -> Option<&[u8]> {
    let mut rest = after_line(begin(message))?;
    loop {
        let next = after_line(rest);
        let line = rest.get(..rest.len() - next.map_or(0, <[u8]>::len))?;
        // The empty line: what follows is the body.
        if matches!(line.first(), None | Some(b'\r' | b'\n')) {
            return None;
        }
        if let Some(value) = value_of(line) {
            let mut value = scan::trim(value);
            // Folded before it has begun.
            if value.is_empty()
                && let Some(next) = next.filter(|next| matches!(next.first(), Some(b' ' | b'\t')))
            {
                let end = after_line(next).map_or(next.len(), |after| next.len() - after.len());
                value = scan::trim(next.get(..end)?);
            }
            return Some(value).filter(|value| !value.is_empty() && value.len() <= limits::KEY);
        }
        rest = next?;
    }
}

/// The message without line ends before it (RFC 3261 section 7.5).
fn begin(message: &[u8]) -> &[u8] {
    let ends = message.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    message.get(ends..).unwrap_or_default()
}

/// What follows the first line.
fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(memchr(b'\n', bytes)? + 1..)
}

/// The value of a line, if it is that of a Call-ID.
fn value_of(line: &[u8]) -> Option<&[u8]> {
    let name = match line.first()? {
        b'c' | b'C' => "call-id".len(),
        b'i' | b'I' => "i".len(),
        _ => return None,
    };
    let (name, rest) = line.split_at_checked(name)?;
    if !name.eq_ignore_ascii_case(b"call-id") && !name.eq_ignore_ascii_case(b"i") {
        return None;
    }
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.get(blanks..)?.strip_prefix(b":")
}

/// What a message is, by its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// A request, with its method.
    Request(&'a [u8]),
    /// A response, with its status.
    Response(u16),
}

/// What a message is. Whatever is no response is a request: its first word is what it wants.
pub(super) fn start(message: &[u8]) -> Start<'_> {
    let message = begin(message);
    let first = message.iter().position(|byte| scan::is_space(*byte)).unwrap_or(message.len());
    let (word, rest) = message.split_at_checked(first).unwrap_or((message, &[]));
    if word.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case(b"SIP/")) {
        let status = rest.get(1..4).and_then(scan::number).and_then(|status| u16::try_from(status).ok());
        return Start::Response(status.unwrap_or(0));
    }
    Start::Request(word.get(..word.len().min(LONGEST)).unwrap_or(word))
}

/// Bytes of a method that are shown.
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sip::wire::Message;

    #[test]
    fn the_call_id_is_found_however_it_is_written() {
        for (description, message, expected) in [
            ("long", "INVITE sip:a SIP/2.0\r\nTo: a\r\nCall-ID: a@b\r\n\r\n", Some("a@b")),
            ("compact, in capitals", "SIP/2.0 200 OK\r\nI:a\r\n\r\n", Some("a")),
            ("blanks before the colon", "OPTIONS a SIP/2.0\ncall-id \t: a \n\n", Some("a")),
            ("folded", "BYE a SIP/2.0\r\nCall-ID:\r\n a@b\r\nTo: c\r\n\r\n", Some("a@b")),
            ("no empty line", "BYE a SIP/2.0\r\nCall-ID: a", Some("a")),
            ("another header", "BYE a SIP/2.0\r\nCall-Info: a\r\nIdentity: b\r\n\r\n", None),
            ("empty", "BYE a SIP/2.0\r\nCall-ID: \r\nTo: a\r\n\r\n", None),
            ("in the body", "BYE a SIP/2.0\r\n\r\nCall-ID: a\r\n", None),
            ("one line", "Call-ID: a", None),
            ("nothing", "", None),
        ] {
            let found = call_id(message.as_bytes()).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), expected, "{description}");
        }
    }

    #[test]
    fn what_a_message_is_stands_in_its_first_line() {
        for (message, expected) in [
            ("INVITE sip:a SIP/2.0\r\n", Start::Request(b"INVITE")),
            ("SIP/2.0 183 Session Progress\r\n", Start::Response(183)),
            ("SIP/2.0 abc\r\n", Start::Response(0)),
            ("nonsense", Start::Request(b"nonsense")),
            ("", Start::Request(b"")),
        ] {
            assert_eq!(start(message.as_bytes()), expected, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn of_what_can_be_read_it_is_the_one_that_is_read(parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                Just(b"INVITE sip:a SIP/2.0\r\n".to_vec()),
                Just(b"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCSeq: 1 INVITE\r\n".to_vec()),
                Just(b"Call-ID: a\r\n".to_vec()),
                Just(b"i :\r\n b\r\n".to_vec()),
                Just(b"\r\n".to_vec()),
            ], 0..10)) {
            let bytes = Bytes::from(parts.concat());
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(call_id(&bytes), Some(message.call_id()));
            } else {
                call_id(&bytes);
            }
        }
    }
}
