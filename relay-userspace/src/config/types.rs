//! Values with a syntax of their own.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use serde::Deserialize;

use crate::net::Transport;

/// Media ports, written as `"16384-32767"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// The first and the last port.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }

    /// Whether two ranges have a port in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl Default for PortRange {
    fn default() -> Self {
        /// The reference products' range.
        const RANGE: RangeInclusive<u16> = 16_384..=32_767;
        Self(RANGE)
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        /// Below are the ports of well-known services.
        const LOWEST: u16 = 1024;
        let wrong =
            |why: &str| format!("{text:?} is not a range of ports: {why}; write for example \"16384-32767\"");
        let (first, last) = text.split_once('-').ok_or_else(|| wrong("there is no '-'"))?;
        let number =
            |part: &str| part.trim().parse::<u16>().map_err(|_| wrong(&format!("{part:?} is not a port")));
        let (first, last) = (number(first)?, number(last)?);
        if first < LOWEST {
            return Err(wrong(&format!("it begins below {LOWEST}")));
        }
        if last < first.saturating_add(3) {
            return Err(wrong("a call needs four ports"));
        }
        Ok(Self(first..=last))
    }
}

/// Final status codes, written as `"480"` or `"500-599"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StatusRange(RangeInclusive<u16>);

impl StatusRange {
    /// What makes the reference products try the next server.
    #[must_use]
    pub fn reference() -> Vec<Self> {
        vec![Self(480..=480), Self(500..=599)]
    }

    /// Whether a status code is among them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl TryFrom<String> for StatusRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if (300..=699).contains(&first) && (first..=699).contains(&last) => {
                Ok(Self(first..=last))
            }
            _ => Err(format!(
                "{text:?} is not a range of final status codes: write for example \"480\" or \"500-599\""
            )),
        }
    }
}

/// A host: an address, or a name that has to be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A domain name, in lower case.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A SIP server, written as a URI (`"sip:sip.example.com;transport=tls"`, `"sips:sip.example.com"`) or as
/// `"203.0.113.10:5060"`.
///
/// A name without a port and without a transport is looked up by its NAPTR records, one without a port by its SRV records,
/// one with a port by its addresses (RFC 3263 section 4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerUri {
    /// Where.
    pub host: Host,
    /// The port, if one is named.
    pub port: Option<u16>,
    /// By what, unless DNS says otherwise.
    pub transport: Transport,
    /// Whether it may.
    pub chosen_by: ChosenBy,
}

/// Who says by which transport a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChosenBy {
    /// The configuration, with a transport, a port or an address.
    Configuration,
    /// The domain, by its NAPTR records; of a server in `sips:` only by those for TLS.
    Domain,
}

impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_domain = self.chosen_by == ChosenBy::Domain;
        let scheme = if by_domain && self.transport == Transport::Tls { "sips" } else { "sip" };
        write!(f, "{scheme}:{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        // UDP is what an address or a port means without more; a name alone means what its domain says.
        let implied =
            self.transport == Transport::Udp && (self.port.is_some() || matches!(self.host, Host::Ip(_)));
        if by_domain || implied { Ok(()) } else { write!(f, ";transport={}", self.transport.as_uri()) }
    }
}

impl TryFrom<String> for ServerUri {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is not a SIP server: {why}; write for example \"sip:sip.example.com;transport=tls\" or \"203.0.113.10:5060\""
            )
        };
        let (secure, rest) = match text.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sips") => (true, rest),
            _ => (false, text.as_str()),
        };
        let (place, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        if place.contains('@') {
            return Err(wrong("a server has no user part"));
        }
        let mut transport = if secure { Transport::Tls } else { Transport::Udp };
        let mut named = false;
        for parameter in parameters.split(';').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !name.eq_ignore_ascii_case("transport") {
                return Err(wrong(&format!("parameter {name:?} means nothing here")));
            }
            transport = Transport::parse(value.as_bytes())
                .filter(|transport| !transport.is_inward())
                .ok_or_else(|| wrong(&format!("{value:?} is not udp, tcp or tls")))?;
            named = true;
            if secure && transport == Transport::Tcp {
                transport = Transport::Tls;
            }
            if secure && transport == Transport::Udp {
                return Err(wrong("sips does not go over UDP"));
            }
        }
        let (host, port) = if let Ok(address) = place.parse::<SocketAddr>() {
            (Host::Ip(address.ip()), Some(address.port()))
        } else if let Ok(ip) = within_brackets(place).unwrap_or(place).parse::<IpAddr>() {
            (Host::Ip(ip), None)
        } else {
            let (name, port) = match place.split_once(':') {
                Some((name, port)) => {
                    (name, Some(port.parse().map_err(|_| wrong(&format!("{port:?} is not a port")))?))
                }
                None => (place, None),
            };
            if !is_domain_name(name) {
                return Err(wrong(&format!("{name:?} is neither an address nor a domain name")));
            }
            (Host::Name(name.to_ascii_lowercase()), port)
        };
        if port == Some(0) {
            return Err(wrong("the port must be 1 to 65535"));
        }
        match host {
            Host::Ip(ip) if ip.is_unspecified() || ip.is_multicast() => Err(wrong("it cannot be sent to")),
            host => {
                let open = matches!(host, Host::Name(_)) && port.is_none() && !named;
                let chosen_by = if open { ChosenBy::Domain } else { ChosenBy::Configuration };
                Ok(Self { host, port, transport, chosen_by })
            }
        }
    }
}

/// What stands between square brackets, as an IPv6 address does in a URI (RFC 3986 section 3.2.2).
fn within_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// The beginning of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// In TLS.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A server of files, written as a URL (`"https://provision.example.com:8089/phones"`).
///
/// Requests' paths are appended to its path, which never ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpServer {
    /// Whether it speaks TLS.
    pub scheme: Scheme,
    /// Host, with the port if one is named.
    pub authority: String,
    /// The path before each request's, empty or with a leading slash.
    pub base: String,
}

impl fmt::Display for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.base)
    }
}

impl TryFrom<String> for HttpServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is not a server of files: {why}; write for example \"https://provision.example.com:8089\""
            )
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let (authority, base) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(wrong("a password has no place in a URL; set provisioning.user and password_file"));
        }
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => {
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| wrong(&format!("{port:?} is not a port")))?;
                host
            }
            _ => authority,
        };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match literal {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok() || is_domain_name(host),
        };
        if !is_host {
            return Err(wrong(&format!("{host:?} is neither an address nor a domain name")));
        }
        let base = base.trim_end_matches('/');
        if base.contains(['?', '#']) || !base.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("its path has a query, a fragment or characters that need escaping"));
        }
        if base.split('/').any(|segment| segment == "..") {
            return Err(wrong("its path has \"..\""));
        }
        Ok(Self { scheme, authority: authority.to_ascii_lowercase(), base: base.to_owned() })
    }
}

/// RFC 1035 section 2.3.1 and 2.3.4, with the underscores and leading digits that are in use; the last label is not a
/// number, so that a mistyped address is not taken for a name.
pub(super) fn is_domain_name(name: &str) -> bool {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    name.len() <= 253
        && labels.iter().all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
        })
        && labels.last().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_uris_or_as_addresses() {
        let rows = [
            ("10.62.0.10:5060", "sip:10.62.0.10:5060"),
            ("10.62.0.10", "sip:10.62.0.10"),
            ("sip:10.62.0.10:5070;transport=TCP", "sip:10.62.0.10:5070;transport=tcp"),
            ("sips:Sip.Example.com", "sips:sip.example.com"),
            ("sips:sip.example.com:5061", "sip:sip.example.com:5061;transport=tls"),
            ("sip:example.com;transport=udp", "sip:example.com;transport=udp"),
            ("sip:example.com:5060;transport=udp", "sip:example.com:5060"),
            ("sips:example.com;transport=tcp", "sip:example.com;transport=tls"),
            ("sip:example.com:5061;transport=tls", "sip:example.com:5061;transport=tls"),
            ("example.com", "sip:example.com"),
        ];
        for (text, expected) in rows {
            assert_eq!(ServerUri::try_from(text.to_owned()).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn servers_of_files_are_read_as_urls() {
        let rows = [
            ("http://Provision.Example.com:8088", Ok("http://provision.example.com:8088")),
            ("HTTPS://10.62.0.10/phones/", Ok("https://10.62.0.10/phones")),
            ("http://[fd00::1]:8088/", Ok("http://[fd00::1]:8088")),
            ("provision.example.com", Err("it begins with neither http:// nor https://")),
            ("http://", Err("\"\" is neither an address nor a domain name")),
            ("http://user:word@a.example/", Err("a password has no place in a URL")),
            ("http://a.example:0", Err("\"0\" is not a port")),
            ("http://a.example/x?y", Err("its path has a query")),
            ("http://a.example/a b", Err("characters that need escaping")),
            ("http://a.example/../b", Err("its path has \"..\"")),
            ("http://a example", Err("neither an address nor a domain name")),
        ];
        for (text, expected) in rows {
            match (HttpServer::try_from(text.to_owned()), expected) {
                (Ok(server), Ok(expected)) => assert_eq!(server.to_string(), expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_reason() {
        let rows = [
            ("", "\"\" is neither an address nor a domain name"),
            ("10.62.0", "\"10.62.0\" is neither an address nor a domain name"),
            ("10.62.0.10:0", "the port must be 1 to 65535"),
            ("example.com:sip", "\"sip\" is not a port"),
            ("sip:user@example.com", "a server has no user part"),
            ("sip:example.com;transport=sctp", "\"sctp\" is not udp, tcp or tls"),
            ("sip:example.com;lr", "parameter \"lr\" means nothing here"),
            ("sips:example.com;transport=udp", "sips does not go over UDP"),
            ("0.0.0.0:5060", "it cannot be sent to"),
            ("[::]:5060", "it cannot be sent to"),
            ("exa mple.com", "neither an address nor a domain name"),
        ];
        for (text, expected) in rows {
            let error = ServerUri::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
