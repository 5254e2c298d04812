//! URIs as they stand in SIP messages, borrowed. RFC 3261 19.1; `tel:` RFC 3966, `urn:` RFC 5031.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::scan::{self, Params};
use crate::net::Transport;

/// The scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other.
    Other,
}

/// The default port of SIP over UDP and TCP.
pub const DEFAULT_PORT: u16 = 5060;

/// A URI, taken apart without copying.
///
/// For schemes other than `sip` and `sips`, everything between the scheme and the first `;` is `user`, and `host`
/// is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// All of it.
    pub raw: &'a [u8],
    /// Its scheme.
    pub scheme: Scheme,
    /// The user part, escapes as written.
    pub user: Option<&'a [u8]>,
    /// The password after the user's colon.
    pub password: Option<&'a [u8]>,
    /// Host and port as written: what is replaced when the destination changes.
    pub host_port: &'a [u8],
    /// The host; an IPv6 reference without its brackets.
    pub host: &'a [u8],
    /// The port when written.
    pub port: Option<u16>,
    /// `;a=b` parameters.
    pub params: Params<'a>,
    /// What follows `?`, the question mark included.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Takes a URI apart; `None` when it has no scheme, no host, a bad port, or white space in it.
    #[must_use]
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        if raw.iter().any(|byte| scan::is_space(*byte) || matches!(byte, b'<' | b'>' | b'"')) {
            return None;
        }
        let colon = raw.iter().position(|byte| *byte == b':')?;
        let (name, rest) = (raw.get(..colon)?, raw.get(colon + 1..)?);
        let scheme_ok = name.first().is_some_and(u8::is_ascii_alphabetic)
            && name.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
        if !scheme_ok || rest.is_empty() {
            return None;
        }
        let scheme = if name.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if name.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else {
            let scheme = if name.eq_ignore_ascii_case(b"tel") { Scheme::Tel } else { Scheme::Other };
            let end = rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len());
            let (user, params) = rest.split_at_checked(end)?;
            let empty = rest.get(..0)?;
            return Some(Self {
                raw,
                scheme,
                user: Some(user),
                password: None,
                host_port: empty,
                host: empty,
                port: None,
                params: Params(params),
                headers: empty,
            });
        };
        // The user part may hold `;`, `?` and `=`, so the at sign is looked for first.
        let (user_info, rest) = match rest.iter().position(|byte| *byte == b'@') {
            Some(at) => (Some(rest.get(..at)?), rest.get(at + 1..)?),
            None => (None, rest),
        };
        let (user, password) = match user_info {
            None => (None, None),
            Some(info) => match info.iter().position(|byte| *byte == b':') {
                Some(at) => (Some(info.get(..at)?), Some(info.get(at + 1..)?)),
                None => (Some(info), None),
            },
        };
        let end = rest.iter().position(|byte| matches!(byte, b';' | b'?')).unwrap_or(rest.len());
        let (host_port, rest) = rest.split_at_checked(end)?;
        let (host, port) = split_host_port(host_port)?;
        let query = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
        let (params, headers) = rest.split_at_checked(query)?;
        Some(Self { raw, scheme, user, password, host_port, host, port, params: Params(params), headers })
    }

    /// Whether it is `sip:` or `sips:`.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The host as an address, when it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }

    /// Address and port, when the host is an address; 5060 when no port is written.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port.unwrap_or(DEFAULT_PORT)))
    }

    /// The transport that it names: TLS for `sips:`, also below a WebSocket, else the parameter; `None` when neither
    /// says, or what it says is none of ours.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        let named = self.params.value("transport").and_then(Transport::parse);
        match (self.scheme, named) {
            (Scheme::Sips, Some(Transport::Ws | Transport::Wss)) => Some(Transport::Wss),
            (Scheme::Sips, _) => Some(Transport::Tls),
            (_, named) => named,
        }
    }

    /// Whether two URIs are equivalent by RFC 3261 19.1.4.
    #[must_use]
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        if !self.is_sip() {
            return self.raw.eq_ignore_ascii_case(other.raw);
        }
        let same_part = |a: Option<&[u8]>, b: Option<&[u8]>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => same_unescaped(a, b),
            _ => false,
        };
        same_part(self.user, other.user)
            && same_part(self.password, other.password)
            && match (self.ip(), other.ip()) {
                (Some(a), Some(b)) => a == b,
                _ => self.host.eq_ignore_ascii_case(other.host),
            }
            && self.port == other.port
            && params_agree(self.params, other.params)
            && params_agree(other.params, self.params)
            && same_headers(self.headers, other.headers)
    }
}

/// Every parameter of `a` that must not differ agrees with `b`'s.
fn params_agree(a: Params<'_>, b: Params<'_>) -> bool {
    /// These never match when only one URI has them.
    const STRICT: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
    a.iter().all(|param| {
        let theirs = b.iter().find(|other| other.name.eq_ignore_ascii_case(param.name));
        match theirs {
            None => !STRICT.iter().any(|name| param.name.eq_ignore_ascii_case(name.as_bytes())),
            Some(other) => match (param.value, other.value) {
                (None, None) => true,
                (Some(x), Some(y)) => x.eq_ignore_ascii_case(y),
                _ => false,
            },
        }
    })
}

/// `?a=b&c=d` compared without order.
fn same_headers(a: &[u8], b: &[u8]) -> bool {
    fn parts(headers: &[u8]) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = headers
            .get(1..)
            .unwrap_or_default()
            .split(|byte| *byte == b'&')
            .map(<[u8]>::to_ascii_lowercase)
            .collect();
        parts.sort();
        parts
    }
    a == b || parts(a) == parts(b)
}

/// Compares with case, `%41` being the same as `A` (RFC 3261 19.1.4).
fn same_unescaped(a: &[u8], b: &[u8]) -> bool {
    fn bytes(text: &[u8]) -> impl Iterator<Item = u8> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let byte = *text.get(at)?;
            let hex = |offset: usize| (*text.get(at + offset)? as char).to_digit(16);
            let escaped = if byte == b'%' { hex(1).zip(hex(2)) } else { None };
            match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
                Some(decoded) => {
                    at += 3;
                    Some(decoded)
                }
                None => {
                    at += 1;
                    Some(byte)
                }
            }
        })
    }
    a == b || bytes(a).eq(bytes(b))
}

/// Splits `host[:port]`. The host is any non-empty text: names such as `192.168.0.300` exist.
#[must_use]
pub(super) fn split_host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, after) = if text.first() == Some(&b'[') {
        let end = text.iter().position(|byte| *byte == b']')?;
        let host = text.get(1..end)?;
        std::str::from_utf8(host).ok()?.parse::<Ipv6Addr>().ok()?;
        (host, text.get(end + 1..)?)
    } else {
        let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
        text.split_at_checked(end)?
    };
    let host = scan::trim(host);
    let good = !host.is_empty() && !host.iter().any(|b| matches!(b, b'/' | b'@' | b'%' | b',') || *b <= b' ');
    if !good {
        return None;
    }
    match scan::trim(after) {
        [] => Some((host, None)),
        [b':', port @ ..] => {
            let port = scan::number(scan::trim(port))?;
            Some((host, Some(u16::try_from(port).ok()?)))
        }
        _ => None,
    }
}

/// A host as an IP address, when it is one.
#[must_use]
pub(super) fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(host).ok()?.parse().ok()
}
