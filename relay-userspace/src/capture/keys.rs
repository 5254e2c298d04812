//! The keys of media in signalling: who has the file could decrypt what was said, so they are masked unless somebody has
//! asked for them.
//!
//! Session descriptions carry them in `a=crypto` (RFC 4568 section 9.1: `inline:` and base64 up to `|` or the next blank),
//! in `a=key-mgmt` (RFC 4567) and in `k=` (RFC 4566 section 5.12). Invariant: the message keeps its length, so that its
//! Content-Length and everything else in the file stay true. DTLS-SRTP has no keys in signalling.

use bytes::Bytes;
use memchr::memmem;

/// What stands in place of each character of a key.
const MASK: u8 = b'*';
/// Before a key, in lower case.
const INLINE: &[u8] = b"inline:";

/// The message with its keys masked; the very same if it has none.
pub(super) fn masked(message: &Bytes) -> Bytes {
    let mut copy: Option<Vec<u8>> = None;
    let mut start = 0;
    for line in message.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let end = start + line.len();
        if has_key(line) {
            let bytes = copy.get_or_insert_with(|| message.to_vec());
            if let Some(line) = bytes.get_mut(start..end) {
                mask(line);
            }
        }
        start = end;
    }
    copy.map_or_else(|| message.clone(), Bytes::from)
}

fn begins(line: &[u8], with: &[u8]) -> bool {
    line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

fn has_key(line: &[u8]) -> bool {
    [&b"a=crypto:"[..], b"a=key-mgmt:", b"k="].iter().any(|start| begins(line, start))
}

fn mask(line: &mut [u8]) {
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
            assert_eq!(masked(&Bytes::from_static(message.as_bytes())), expected, "{description}");
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
            ], 0..20)) {
            let message = Bytes::from(parts.concat());
            prop_assert_eq!(masked(&message).len(), message.len());
        }
    }
}
