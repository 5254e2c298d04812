//! What of a message is secret: the keys of media, with which who has a file could decrypt what was said, and the answers
//! to challenges, from which a weak password can be guessed offline. They are masked wherever messages are kept or
//! handed on, unless somebody has asked for the keys.
//!
//! Session descriptions carry keys in `a=crypto` (RFC 4568 section 9.1: `inline:` and base64 up to `|` or the next blank),
//! in `a=key-mgmt` (RFC 4567) and in `k=` (RFC 4566 section 5.12); DTLS-SRTP has none in signalling. Authorization and
//! Proxy-Authorization carry `response` (RFC 3261 section 22, RFC 7616 section 3.4), and with Basic or a bearer token
//! nothing but the secret. Invariant: the message keeps its length, so that its Content-Length and everything else that
//! is said of it stay true.

use bytes::Bytes;
use memchr::{memchr2_iter, memmem};

use super::wire::{HeaderName, scan};

/// What stands in place of each character of a secret.
const MASK: u8 = b'*';
/// Before a key, in lower case.
const INLINE: &[u8] = b"inline:";
/// The digest scheme, in lower case; of any other, everything is secret.
const DIGEST: &[u8] = b"digest";
/// The parameter of a digest that is computed from the password, in lower case.
const RESPONSE: &[u8] = b"response";

/// What is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Keys of media.
    MediaKeys,
    /// These, and what is computed from passwords.
    All,
}

/// What credentials are made of.
#[derive(Clone, Copy)]
enum Credentials {
    /// Parameters of which one is secret.
    Digest,
    /// A secret, and nothing else.
    Other,
}

/// The message with its secrets masked; the very same if it has none.
#[must_use]
pub fn masked(message: &Bytes, which: Secrets) -> Bytes {
    let mut copy: Option<Vec<u8>> = None;
    // Those of the line before, which a folded line goes on with.
    let mut credentials: Option<Credentials> = None;
    for (start, end) in lines(message) {
        let Some(line) = message.get(start..end).filter(|line| *line != b"\n") else { continue };
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let value = if folded { Some(0) } else { credentials_in(line) };
        credentials = match (which, folded) {
            (Secrets::MediaKeys, _) => None,
            (Secrets::All, true) => credentials,
            (Secrets::All, false) => value.map(|value| scheme(line, value)),
        };
        if credentials.is_none() && !has_key(line) {
            continue;
        }
        let bytes = copy.get_or_insert_with(|| message.to_vec());
        let Some(line) = bytes.get_mut(start..end) else { continue };
        match credentials {
            None => mask_keys(line),
            Some(Credentials::Digest) => mask_response(line),
            Some(Credentials::Other) => mask_all(line, value.unwrap_or_default(), folded),
        }
    }
    copy.map_or_else(|| message.clone(), Bytes::from)
}

/// Where the lines of a message lie, their ends included.
fn lines(message: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let ends = memchr2_iter(b'\n', b'\r', message).map(|at| at + 1);
    let mut start = 0;
    ends.chain(std::iter::once(message.len())).map(move |end| (std::mem::replace(&mut start, end), end))
}

fn begins(line: &[u8], with: &[u8]) -> bool {
    line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

fn has_key(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'a' | b'A' | b'k' | b'K'))
        && [&b"a=crypto:"[..], b"a=key-mgmt:", b"k="].iter().any(|start| begins(line, start))
}

fn mask_keys(line: &mut [u8]) {
    if begins(line, b"a=crypto:") {
        let lower = line.to_ascii_lowercase();
        for found in memmem::find_iter(&lower, INLINE) {
            for byte in line.iter_mut().skip(found + INLINE.len()) {
                if matches!(byte, b'|' | b' ' | b'\t' | b';' | b'\r' | b'\n') {
                    break;
                }
                *byte = MASK;
            }
        }
        return;
    }
    // `k=method:key`, `a=key-mgmt:method key`: the method stays.
    let after = if begins(line, b"k=") { b':' } else { b' ' };
    let Some(begin) = line.iter().position(|byte| *byte == after) else { return };
    for byte in line.iter_mut().skip(begin + 1).filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        *byte = MASK;
    }
}

/// Where the value begins, if this line has credentials.
fn credentials_in(line: &[u8]) -> Option<usize> {
    // Most lines are told by their first letter.
    if !matches!(line.first(), Some(b'a' | b'A' | b'p' | b'P')) {
        return None;
    }
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::recognise(scan::trim(line.get(..colon)?));
    matches!(name, HeaderName::Authorization | HeaderName::ProxyAuthorization).then_some(colon + 1)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The first word of a line from a place on: where it begins and where it ends.
fn first_word(line: &[u8], from: usize) -> (usize, usize) {
    let begin = from + line.iter().skip(from).take_while(|byte| is_blank(**byte)).count();
    (begin, begin + line.iter().skip(begin).take_while(|byte| scan::is_token_byte(**byte)).count())
}

fn scheme(line: &[u8], value: usize) -> Credentials {
    let (begin, end) = first_word(line, value);
    let is_digest = line.get(begin..end).is_some_and(|word| word.eq_ignore_ascii_case(DIGEST));
    if is_digest { Credentials::Digest } else { Credentials::Other }
}

/// Masks all of a value but the scheme, which a line that goes on with it does not have.
fn mask_all(line: &mut [u8], value: usize, folded: bool) {
    let from = if folded { 0 } else { first_word(line, value).1 };
    for byte in line.iter_mut().skip(from).filter(|byte| !scan::is_space(**byte)) {
        *byte = MASK;
    }
}

/// Masks the value of each parameter `response`.
fn mask_response(line: &mut [u8]) {
    let lower = line.to_ascii_lowercase();
    for found in memmem::find_iter(&lower, RESPONSE) {
        let before = found.checked_sub(1).and_then(|at| lower.get(at));
        if before.is_some_and(|byte| scan::is_token_byte(*byte)) {
            continue; // the end of another parameter's name
        }
        let after = found + RESPONSE.len();
        let gap = lower.iter().skip(after).take_while(|byte| is_blank(**byte)).count();
        if lower.get(after + gap) != Some(&b'=') {
            continue;
        }
        let value = lower.iter().skip(after + gap + 1);
        let gap = gap + 1 + value.take_while(|byte| matches!(byte, b' ' | b'\t' | b'"')).count();
        for byte in line.iter_mut().skip(after + gap) {
            if matches!(byte, b'"' | b',' | b' ' | b'\t' | b'\r' | b'\n') {
                break;
            }
            *byte = MASK;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_masked_and_nothing_else_is_touched() {
        for (description, message, expected) in [
            (
                "none",
                "INVITE sip:a SIP/2.0\r\n\r\na=rtpmap:0 PCMU/8000\r\n",
                "INVITE sip:a SIP/2.0\r\n\r\na=rtpmap:0 PCMU/8000\r\n",
            ),
            (
                "one, with its lifetime",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^20|1:32\r\n",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:****************************************|2^20|1:32\r\n",
            ),
            (
                "two in one line, in capitals, with a session parameter",
                "A=CRYPTO:2 X INLINE:abcd|1:4;inline:efgh|2:4 UNENCRYPTED_SRTP\na=sendrecv\n",
                "A=CRYPTO:2 X INLINE:****|1:4;inline:****|2:4 UNENCRYPTED_SRTP\na=sendrecv\n",
            ),
            (
                "the last line without an end",
                "v=0\r\na=crypto:1 X inline:abcd",
                "v=0\r\na=crypto:1 X inline:****",
            ),
            (
                "older ways",
                "k=base64:abcd\r\na=key-mgmt:mikey AQAF\r\n",
                "k=base64:****\r\na=key-mgmt:mikey ****\r\n",
            ),
            ("words elsewhere", "Subject: inline:abcd\r\n", "Subject: inline:abcd\r\n"),
        ] {
            assert_eq!(
                masked(&Bytes::from_static(message.as_bytes()), Secrets::MediaKeys),
                expected,
                "{description}"
            );
        }
    }

    #[test]
    fn answers_to_challenges_are_masked_and_who_answers_is_not() {
        for (description, message, expected) in [
            (
                "a digest",
                "REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"1001\", nonce=\"n\", response=\"00ff\", cnonce=\"c\"\r\n\r\n",
                "REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"1001\", nonce=\"n\", response=\"****\", cnonce=\"c\"\r\n\r\n",
            ),
            (
                "a digest of a proxy, in capitals, with blanks, without quotes",
                "PROXY-AUTHORIZATION : DIGEST RESPONSE = 00ff,xresponse=1\r\n",
                "PROXY-AUTHORIZATION : DIGEST RESPONSE = ****,xresponse=1\r\n",
            ),
            (
                "a folded one",
                "Authorization: Digest username=\"a\",\r\n response=\"00ff\"\r\nTo: response=\"x\"\r\n",
                "Authorization: Digest username=\"a\",\r\n response=\"****\"\r\nTo: response=\"x\"\r\n",
            ),
            ("another scheme", "Authorization: Basic YTpi\r\n", "Authorization: Basic ****\r\n"),
            (
                "another scheme, folded",
                "Authorization: Bearer\n abc\nFrom: a\n",
                "Authorization: Bearer\n ***\nFrom: a\n",
            ),
            (
                "a challenge says nothing of a password",
                "WWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n",
                "WWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n",
            ),
            ("keys, too", "a=crypto:1 X inline:abcd\r\n", "a=crypto:1 X inline:****\r\n"),
        ] {
            let message = Bytes::from_static(message.as_bytes());
            assert_eq!(masked(&message, Secrets::All), expected, "{description}");
        }
    }

    proptest! {
        #[test]
        fn the_length_stays_whatever_the_bytes(parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                Just(b"\na=crypto:1 inline:".to_vec()),
                Just(b"\r\nk=".to_vec()),
                Just(b"inline:".to_vec()),
                Just(b"\nAuthorization: Digest response=\"".to_vec()),
                Just(b"\r\nproxy-authorization: Basic ".to_vec()),
            ], 0..20)) {
            let message = Bytes::from(parts.concat());
            prop_assert_eq!(masked(&message, Secrets::MediaKeys).len(), message.len());
            prop_assert_eq!(masked(&message, Secrets::All).len(), message.len());
        }
    }
}
