//! What a REFER asks for. RFC 3515, RFC 3891 (Replaces), RFC 3892 (Referred-By), RFC 4488 (Refer-Sub).

use crate::{
    proxy::{measure::DropReason, request::Refuse},
    sip::wire::{HeaderName, Message, NameAddr, Scheme, scan},
};

/// Longest Replaces and Referred-By that are handed on, in bytes.
const LONGEST: usize = 1024;

/// A transfer that somebody asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whom to call: a URI without headers.
    pub(super) uri: String,
    /// The dialog that the new one takes the place of, as it stands in Replaces.
    pub(super) replaces: Option<String>,
    /// Who asks, as it says itself.
    pub(super) referred_by: Option<String>,
    /// Whether it wants to be told nothing.
    pub(super) silent: bool,
}

fn refuse(status: u16, reason: &'static str) -> Refuse {
    Refuse::because(status, DropReason::ReferRefused, reason)
}

fn values<'m>(
    message: &'m Message,
    long: &'static str,
    compact: &'static str,
) -> impl Iterator<Item = &'m [u8]> {
    message
        .headers()
        .filter(move |header| {
            header.spelling.eq_ignore_ascii_case(long.as_bytes())
                || header.spelling.eq_ignore_ascii_case(compact.as_bytes())
        })
        .map(|header| header.value)
}

/// One line of printable text.
fn line(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (text.len() <= LONGEST && !text.chars().any(char::is_control)).then_some(text)
}

/// `%3B` and the like undone.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    Some(out)
}

impl Asked {
    /// What a REFER asks for, or why that cannot be done.
    pub(super) fn of(message: &Message) -> Result<Self, Refuse> {
        const KNOWN: [&[u8]; 3] = [b"norefersub", b"replaces", b"timer"];
        let unknown = message
            .values(HeaderName::Require)
            .find(|option| !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(option)));
        if let Some(option) = unknown {
            let mut refusal = refuse(420, "Bad Extension");
            refusal.add(&format!("Unsupported: {}\r\n", String::from_utf8_lossy(option)));
            return Err(refusal);
        }
        let mut targets = values(message, "Refer-To", "r");
        let (Some(value), None) = (targets.next(), targets.next()) else {
            return Err(refuse(400, "One Refer-To Needed"));
        };
        let target = NameAddr::parse(value).ok_or_else(|| refuse(400, "Malformed Refer-To"))?;
        let uri = target.parsed_uri().ok_or_else(|| refuse(400, "Malformed Refer-To"))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips | Scheme::Tel) {
            return Err(refuse(416, "Unsupported URI Scheme"));
        }
        let method = uri.params.value("method").unwrap_or(b"INVITE");
        if !method.eq_ignore_ascii_case(b"INVITE") {
            return Err(refuse(501, "Only Calls Are Transferred"));
        }
        let mut replaces = None;
        let headers = uri.headers.strip_prefix(b"?").unwrap_or_default();
        for header in headers.split(|byte| *byte == b'&') {
            let Some(at) = header.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = header.split_at(at);
            // Other headers are the transferor's wish alone (RFC 3261 section 19.1.5): they are left out.
            if name.eq_ignore_ascii_case(b"Replaces") {
                let value = unescaped(value.get(1..).unwrap_or_default()).and_then(|value| line(&value));
                let value = value.filter(|value| value.is_ascii() && !value.contains(' '));
                replaces = Some(value.ok_or_else(|| refuse(400, "Malformed Replaces"))?);
            }
        }
        let without = uri.raw.len() - uri.headers.len();
        let mut raw = uri.raw.get(..without).unwrap_or_default().to_vec();
        if let Some(param) = uri.params.get("method")
            && let Some(place) = crate::splice::offset_in(uri.raw, param.whole)
        {
            raw.drain(place);
        }
        let uri = line(&raw).ok_or_else(|| refuse(400, "Malformed Refer-To"))?;
        let silent = values(message, "Refer-Sub", "Refer-Sub")
            .next()
            .is_some_and(|value| scan::trim(value).to_ascii_lowercase().starts_with(b"false"));
        Ok(Self {
            uri,
            replaces,
            referred_by: values(message, "Referred-By", "b").next().and_then(line),
            silent,
        })
    }
}

/// Call-ID and tags of a Replaces: the tag of who gets it first.
pub(super) fn dialog_of(replaces: &str) -> Option<(&[u8], &[u8], &[u8])> {
    let (call_id, params) = replaces.split_once(';')?;
    let params = replaces.get(call_id.len()..).filter(|_| !params.is_empty())?;
    let params = crate::sip::wire::Params(params.as_bytes());
    Some((call_id.as_bytes(), params.value("to-tag")?, params.value("from-tag")?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn asked(headers: &str) -> Result<Asked, String> {
        let text = format!(
            "REFER sip:a@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@b>;tag=2\nCall-ID: x\nCSeq: 7 REFER\n{headers}Content-Length: 0\n\n"
        );
        let message = Message::parse(&Bytes::from(text.replace('\n', "\r\n"))).unwrap();
        Asked::of(&message).map_err(|refuse| format!("{refuse:?}"))
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_cannot_be_done_is_refused() {
        let plain = |uri: &str| Asked { uri: uri.into(), replaces: None, referred_by: None, silent: false };
        let rows = [
            ("a number", "Refer-To: <sip:300@example.com>\n", Ok(plain("sip:300@example.com"))),
            ("compact", "r: sip:300@example.com\n", Ok(plain("sip:300@example.com"))),
            ("tel", "Refer-To: <tel:+49711>\n", Ok(plain("tel:+49711"))),
            ("a method", "Refer-To: <sip:3@b;method=INVITE;x=1>\n", Ok(plain("sip:3@b;x=1"))),
            (
                "another dialog",
                "Refer-To: <sip:3@b?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&Route=%3Csip:x%3E>\nReferred-By: <sip:9@b>\nRefer-Sub: false\n",
                Ok(Asked {
                    uri: "sip:3@b".into(),
                    replaces: Some("a@b;to-tag=1;from-tag=2".into()),
                    referred_by: Some("<sip:9@b>".into()),
                    silent: true,
                }),
            ),
            ("more than is known here", "Require: tdialog\nRefer-To: <sip:3@b>\n", Err("420")),
            ("nothing", "", Err("400")),
            ("two", "Refer-To: <sip:3@b>\nRefer-To: <sip:4@b>\n", Err("400")),
            ("nonsense", "Refer-To: <<>>\n", Err("400")),
            ("a page", "Refer-To: <http://example.com/>\n", Err("416")),
            ("another method", "Refer-To: <sip:3@b;method=BYE>\n", Err("501")),
            ("a line more", "Refer-To: <sip:3@b?Replaces=a%0D%0AX:y>\n", Err("400")),
            ("half an escape", "Refer-To: <sip:3@b?Replaces=a%4>\n", Err("400")),
        ];
        for (description, headers, expected) in rows {
            match (asked(headers), expected) {
                (Ok(asked), Ok(expected)) => assert_eq!(asked, expected, "{description}"),
                (Err(refused), Err(status)) => {
                    assert!(refused.contains(&format!("status: {status}")), "{description}: {refused}");
                }
                (result, _) => panic!("{description}: {result:?}"),
            }
        }
        assert_eq!(dialog_of("a@b;to-tag=1;from-tag=2"), Some((&b"a@b"[..], &b"1"[..], &b"2"[..])));
        assert_eq!(dialog_of("a@b;to-tag=1"), None);
    }
}
