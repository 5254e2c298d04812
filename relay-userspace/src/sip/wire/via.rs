//! The Via header. RFC 3261 20.42, RFC 3581 (`rport`).

use std::net::{IpAddr, SocketAddr};

use super::{
    scan::{self, Params},
    uri::{self, DEFAULT_PORT},
};

/// What a branch of RFC 3261 begins with (section 8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// One Via value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// All of it.
    pub value: &'a [u8],
    /// `UDP`, `TCP`, ...
    pub transport: &'a [u8],
    /// Host and port as written.
    pub sent_by: &'a [u8],
    /// The host; an IPv6 reference without its brackets.
    pub host: &'a [u8],
    /// The port when written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads `SIP/2.0/UDP host:port;params`, white space around slashes and colon allowed.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let slash = value.iter().position(|byte| *byte == b'/')?;
        let name = scan::trim(value.get(..slash)?);
        let rest = value.get(slash + 1..)?;
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        let version = scan::trim(rest.get(..slash)?);
        let mut rest = rest.get(slash + 1..)?;
        // Of another version, so that a request of that version can be told so (RFC 4475 3.1.2.16).
        if !name.eq_ignore_ascii_case(b"SIP") || !scan::is_token(version) {
            return None;
        }
        while let [first, after @ ..] = rest
            && scan::is_space(*first)
        {
            rest = after;
        }
        let end = rest.iter().position(|byte| scan::is_space(*byte))?;
        let (transport, rest) = rest.split_at_checked(end)?;
        if !scan::is_token(transport) {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len());
        let (sent_by, params) = rest.split_at_checked(end)?;
        let sent_by = scan::trim(sent_by);
        let (host, port) = uri::split_host_port(sent_by)?;
        Some(Self { value, transport, sent_by, host, port, params: Params(params) })
    }

    /// The branch; `None` for peers of RFC 2543.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.value("branch").filter(|branch| !branch.is_empty())
    }

    /// Whether the branch is one of RFC 3261, unique by itself: something has to follow the cookie (RFC 4475 3.2.1).
    #[must_use]
    pub fn has_magic_cookie(&self) -> bool {
        self.branch()
            .and_then(|branch| branch.split_at_checked(MAGIC_COOKIE.len()))
            .is_some_and(|(head, own)| head.eq_ignore_ascii_case(MAGIC_COOKIE) && !own.is_empty())
    }

    /// Where the response to a request with this Via on top, that came from `source`, goes: RFC 3581 4 with
    /// `rport`, RFC 3261 18.2.2 without. A `maddr` is not followed: it would let a request aim responses at others.
    #[must_use]
    pub fn reply_to(&self, source: SocketAddr) -> SocketAddr {
        if self.params.has("rport") {
            return source;
        }
        SocketAddr::new(source.ip(), self.port.unwrap_or(DEFAULT_PORT))
    }

    /// Whether `received` has to be added: the host is not the address the request came from, or `rport` asks
    /// for it (RFC 3261 18.2.1, RFC 3581 4).
    #[must_use]
    pub fn needs_received(&self, source: IpAddr) -> bool {
        self.params.has("rport") || uri::parse_ip(self.host) != Some(source)
    }
}
