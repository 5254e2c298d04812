//! `a=crypto` attributes: the keys of SRTP in a session description (RFC 4568).
//!
//! Only what the appliance can do by the letter is read: one key, inline, without session parameters that weaken the
//! suite or change how keys are derived. Whatever else a line says, it is passed over as one that is not for us, and the
//! [`Unusable`] says why, without the key.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;
use zeroize::Zeroizing;

use super::parse::words;
use crate::srtp::{KeyError, MasterKey, Suite};

/// The key method of RFC 4568 section 6.1.
const INLINE: &[u8] = b"inline:";
/// Digits of a tag (RFC 4568 section 9.1).
const TAG_DIGITS: usize = 9;
/// The longest lifetime: 2^48 packets of SRTP (RFC 3711 section 9.2).
const MOST_PACKETS: u64 = 1 << 48;
/// The smallest window that a party may ask for (RFC 4568 section 6.3.6).
const LEAST_WINDOW: u64 = 64;

/// Why a line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unusable {
    /// Not tag, suite and key.
    #[error("malformed")]
    Malformed,
    /// A suite that is not ours.
    #[error("suite {0:?} is not supported")]
    Suite(String),
    /// A key that is not of the suite, or an identifier that is none.
    #[error("{0}")]
    Key(KeyError),
    /// Several keys, which the sender may change between.
    #[error("several keys in one line are not supported")]
    SeveralKeys,
    /// A lifetime of no packets, or of more than there can be.
    #[error("the key's lifetime is out of range")]
    Lifetime,
    /// A session parameter that is refused: one that takes protection away, derives keys anew, or is not known.
    #[error("session parameter {0} is not supported")]
    Parameter(String),
}

/// A key that a party sends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// What the answer chooses it by.
    pub tag: u32,
    /// The key.
    pub key: MasterKey,
}

impl Crypto {
    /// Reads an attribute's value: `1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4`.
    ///
    /// # Errors
    /// Why this line cannot be used; others may.
    pub fn parse(value: &[u8]) -> Result<Self, Unusable> {
        let mut words = words(value);
        let tag = words.next().filter(|tag| tag.len() <= TAG_DIGITS).and_then(decimal);
        let tag = tag.and_then(|tag| u32::try_from(tag).ok()).ok_or(Unusable::Malformed)?;
        let suite = words.next().ok_or(Unusable::Malformed)?;
        let suite = Suite::named(suite).ok_or_else(|| Unusable::Suite(text(suite)))?;
        let key = words.next().ok_or(Unusable::Malformed)?;
        words.try_for_each(parameter)?;
        if key.contains(&b';') {
            return Err(Unusable::SeveralKeys);
        }
        let (method, key) = key.split_at_checked(INLINE.len()).ok_or(Unusable::Malformed)?;
        if !method.eq_ignore_ascii_case(INLINE) {
            return Err(Unusable::Malformed);
        }
        let mut parts = key.split(|byte| *byte == b'|');
        let bytes = STANDARD.decode(parts.next().unwrap_or_default()).map_err(|_| Unusable::Malformed)?;
        let mut key = MasterKey::new(suite, Zeroizing::new(bytes)).map_err(Unusable::Key)?;
        let (mut lifetime, mut identifier) = (None, None);
        for part in parts {
            let place = if part.contains(&b':') { &mut identifier } else { &mut lifetime };
            // Lifetime, then identifier, each at most once (RFC 4568 section 9.2).
            if place.replace(part).is_some() || (!part.contains(&b':') && identifier.is_some()) {
                return Err(Unusable::Malformed);
            }
        }
        if let Some(lifetime) = lifetime {
            check_lifetime(lifetime)?;
        }
        if let Some(identifier) = identifier {
            key = key.with_identifier(identifier_bytes(identifier)?).map_err(Unusable::Key)?;
        }
        Ok(Self { tag, key })
    }

    /// The attribute's value with the key: a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(STANDARD.encode(self.key.expose()));
        Zeroizing::new(format!("{} {} inline:{}", self.tag, self.key.suite().name(), *key))
    }
}

/// A key's lifetime in packets. It binds its sender; the appliance, which only reads with the key, has none to keep.
fn check_lifetime(lifetime: &[u8]) -> Result<(), Unusable> {
    let packets = match lifetime.strip_prefix(b"2^") {
        Some(power) => decimal(power).and_then(|power| 1u64.checked_shl(u32::try_from(power).ok()?)),
        None => decimal(lifetime),
    };
    match packets {
        None => Err(Unusable::Malformed),
        Some(packets) if (1..=MOST_PACKETS).contains(&packets) => Ok(()),
        Some(_) => Err(Unusable::Lifetime),
    }
}

/// `1:4`: the identifier 1 in 4 bytes (RFC 4568 section 6.1).
fn identifier_bytes(identifier: &[u8]) -> Result<Vec<u8>, Unusable> {
    let colon = identifier.iter().position(|byte| *byte == b':').ok_or(Unusable::Malformed)?;
    let (value, length) = identifier.split_at(colon);
    let length = length.get(1..).and_then(decimal).and_then(|length| usize::try_from(length).ok());
    let length =
        length.filter(|length| (1..=128).contains(length)).ok_or(Unusable::Key(KeyError::Identifier))?;
    let value = decimal(value).ok_or(Unusable::Malformed)?.to_be_bytes();
    let mut bytes = vec![0; length];
    let taken = length.min(value.len());
    let (more, low) = value.split_at(value.len() - taken);
    if more.iter().any(|byte| *byte != 0) {
        return Err(Unusable::Key(KeyError::Identifier));
    }
    if let Some(end) = bytes.get_mut(length - taken..) {
        end.copy_from_slice(low);
    }
    Ok(bytes)
}

/// Session parameters: a window may be asked for, ours is large enough or the party's own affair; what begins with `-`
/// may be passed over (RFC 4568 section 6.3.7). All else is refused.
fn parameter(parameter: &[u8]) -> Result<(), Unusable> {
    if parameter.first() == Some(&b'-') {
        return Ok(());
    }
    let window = parameter.split_at_checked(4).filter(|(name, _)| name.eq_ignore_ascii_case(b"WSH="));
    if window.and_then(|(_, size)| decimal(size)).is_some_and(|size| size >= LEAST_WINDOW) {
        return Ok(());
    }
    // A key would be of no use in its place, but who writes one there must not find it in a log.
    let name =
        parameter.split(|byte| !byte.is_ascii_alphabetic() && *byte != b'_').next().unwrap_or_default();
    Err(Unusable::Parameter(text(name)))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text(bytes: &[u8]) -> String {
    /// The longest name of a registered suite or parameter is shorter.
    const MOST: usize = 40;
    String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(bytes)).into_owned()
}

impl fmt::Display for Crypto {
    /// Tag and suite, without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tag, self.key.suite().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    #[test]
    fn a_line_is_read_or_refused_for_a_reason() {
        let long = "A".repeat(40) + "==";
        let rows = [
            ("RFC 4568's own", format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:32"), Ok((1, 32))),
            ("the key alone", format!("7 AES_CM_128_HMAC_SHA1_32 inline:{KEY}"), Ok((7, 0))),
            ("a lifetime", format!("2 aes_cm_128_hmac_sha1_80 INLINE:{KEY}|1048576"), Ok((2, 0))),
            ("an identifier", format!("2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4"), Ok((2, 4))),
            ("a window", format!("2 AES_CM_128_HMAC_SHA1_80 inline:{KEY} WSH=128"), Ok((2, 0))),
            ("an optional parameter", format!("2 AES_CM_128_HMAC_SHA1_80 inline:{KEY} -x=7"), Ok((2, 0))),
            ("no key", "1 AES_CM_128_HMAC_SHA1_80".to_owned(), Err("malformed")),
            ("no tag", format!("AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Err("malformed")),
            (
                "a tag of ten digits",
                format!("1000000000 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
                Err("malformed"),
            ),
            ("another method", format!("1 AES_CM_128_HMAC_SHA1_80 fetch:{KEY}"), Err("malformed")),
            ("no base64", "1 AES_CM_128_HMAC_SHA1_80 inline:%%%%".to_owned(), Err("malformed")),
            (
                "another suite",
                format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"),
                Err("suite \"F8_128_HMAC_SHA1_80\" is not supported"),
            ),
            (
                "a short key",
                format!("1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}"),
                Err("key and salt have 30 bytes, and AES_256_CM_HMAC_SHA1_80 takes 46"),
            ),
            ("a long key", format!("1 AES_CM_128_HMAC_SHA1_80 inline:{long}"), Err("malformed")),
            (
                "two keys",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:1;inline:{KEY}|2:1"),
                Err("several keys in one line are not supported"),
            ),
            (
                "no encryption",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"),
                Err("session parameter UNENCRYPTED_SRTP is not supported"),
            ),
            (
                "no authentication",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNAUTHENTICATED_SRTP"),
                Err("session parameter UNAUTHENTICATED_SRTP is not supported"),
            ),
            (
                "keys derived anew",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=10"),
                Err("session parameter KDR is not supported"),
            ),
            (
                "a window of nothing",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} WSH=1"),
                Err("session parameter WSH is not supported"),
            ),
            (
                "a key of forward error correction",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} FEC_KEY=inline:{KEY}"),
                Err("session parameter FEC_KEY is not supported"),
            ),
            (
                "a lifetime beyond all",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^49"),
                Err("the key's lifetime is out of range"),
            ),
            (
                "an identifier that does not fit",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|256:1"),
                Err("a master key identifier has 1 to 128 bytes"),
            ),
            (
                "an identifier without end",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:129"),
                Err("a master key identifier has 1 to 128 bytes"),
            ),
            (
                "an identifier before the lifetime",
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4|2^20"),
                Err("malformed"),
            ),
        ];
        for (what, line, expected) in rows {
            let found = Crypto::parse(line.as_bytes());
            let found = found.map(|crypto| (crypto.tag, crypto.key.identifier_length()));
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{what}");
        }
    }

    #[test]
    fn a_line_that_was_read_is_written_as_it_was() {
        let line = format!("3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
        let crypto = Crypto::parse(line.as_bytes()).unwrap();
        assert_eq!(*crypto.expose(), line);
        assert_eq!(crypto.to_string(), "3 AES_CM_128_HMAC_SHA1_80");
        assert!(!format!("{crypto:?}").contains(&KEY[..8]));
    }
}
