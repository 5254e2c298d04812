//! What of a phone's request is passed on, and what is refused.

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{self, HeaderName, HeaderValue},
};

use crate::provisioning::Stage;

/// Characters of the longest path with its query.
const MOST_TARGET: usize = 2048;
/// Endings of firmware files (the phone families' boot loaders and images).
const FIRMWARE: [&str; 8] = [".ld", ".img", ".bin", ".zip", ".rom", ".fw", ".z", ".hex"];
/// Endings of configuration files.
const CONFIGURATION: [&str; 5] = [".cfg", ".xml", ".i3sipcfg", ".ini", ".conf"];
/// Headers of one connection, not of a message (RFC 9110 section 7.6.1), and those that the appliance sets itself:
/// a phone has no proxy before it, so it has none to speak of.
const NOT_PASSED_ON: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("x-forwarded-for"),
    header::FORWARDED,
];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is neither GET, HEAD, PUT nor POST.
    Method,
    /// Its path leads out of where it begins, or has control characters.
    Path,
    /// Its path is too long.
    TooLong,
    /// What it sends is too large.
    TooLarge,
    /// What it sends is too large to be sent again after a server's challenge.
    TooLargeToRepeat,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Method, Self::Path, Self::TooLong, Self::TooLarge, Self::TooLargeToRepeat];

    /// The metrics' label.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Path => "path",
            Self::TooLong => "path_too_long",
            Self::TooLarge => "body_too_large",
            Self::TooLargeToRepeat => "body_too_large_to_repeat",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooLargeToRepeat => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Method => "only GET, HEAD, PUT and POST are relayed\n",
            Self::Path => "a path must not have \"..\" or control characters\n",
            Self::TooLong => "the path is too long\n",
            Self::TooLarge => "the file is too large (key provisioning.upload_mib)\n",
            Self::TooLargeToRepeat => {
                "a file for servers that ask for a password must not have more than 1 MiB\n"
            }
        }
    }
}

/// The path with its query as it is passed on: as it came.
pub(super) fn target(method: &Method, uri: &Uri) -> Result<String, Refusal> {
    if ![Method::GET, Method::HEAD, Method::PUT, Method::POST].contains(method) {
        return Err(Refusal::Method);
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MOST_TARGET {
        return Err(Refusal::TooLong);
    }
    if !target.starts_with('/') {
        return Err(Refusal::Path);
    }
    let decoded = decode(target);
    let path = decode(uri.path());
    // The servers' own reading of a path can differ: what could mean something else anywhere is not passed on.
    // A segment may have parameters after a semicolon (RFC 3986 section 3.3), which some servers drop before they look.
    let leads_out = path
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(|segment| segment.split(|byte| *byte == b';').next() == Some(b".."));
    if leads_out || decoded.iter().any(u8::is_ascii_control) {
        return Err(Refusal::Path);
    }
    Ok(target.to_owned())
}

/// Percent-decoding (RFC 3986 section 2.1), once; what is no escape stays.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high << 4 | low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// The headers of a message that go on to the other side.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| !NOT_PASSED_ON.contains(name) && !named.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The headers of a request to a server.
pub(super) fn to_server(headers: &HeaderMap, phone: std::net::IpAddr) -> HeaderMap {
    /// What the appliance calls itself (RFC 9110 section 7.6.3).
    const VIA: HeaderValue = HeaderValue::from_static("1.1 branchline");
    let mut passed = passed_on(headers);
    // The connection that the request leaves by has its own Host and length.
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        passed.remove(name);
    }
    if let Ok(phone) = HeaderValue::try_from(phone.to_string()) {
        passed.insert("x-forwarded-for", phone);
    }
    passed.append(header::VIA, VIA);
    passed
}

/// What a phone wants, by the name of the file.
pub(super) fn stage(method: &Method, target: &str) -> Stage {
    if method == Method::PUT || method == Method::POST {
        return Stage::FileSent;
    }
    let path = target.split('?').next().unwrap_or_default().to_ascii_lowercase();
    if FIRMWARE.iter().any(|ending| path.ends_with(ending)) {
        Stage::FirmwareAsked
    } else if CONFIGURATION.iter().any(|ending| path.ends_with(ending)) {
        Stage::ConfigurationAsked
    } else {
        Stage::FileAsked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_lead_out_are_refused_and_others_pass_as_they_came() {
        let long = format!("/{}", "x".repeat(MOST_TARGET));
        let rows = [
            ("/0004f2010203.cfg", Ok(())),
            ("/a/./b..c/...?x=../y", Ok(())),
            ("/with%20blank/%C3%A4.cfg?x=%26", Ok(())),
            ("/100%", Ok(())),
            ("/../../etc/passwd", Err(Refusal::Path)),
            ("/a/%2e%2E/b", Err(Refusal::Path)),
            ("/a/..%2fb", Err(Refusal::Path)),
            ("/a/..%5Cb", Err(Refusal::Path)),
            ("/..", Err(Refusal::Path)),
            ("/a%0d%0aX-Injected:%20yes", Err(Refusal::Path)),
            ("/a?b=%0aX", Err(Refusal::Path)),
            ("/a%00.cfg", Err(Refusal::Path)),
            (long.as_str(), Err(Refusal::TooLong)),
        ];
        for (path, expected) in rows {
            let uri: Uri = path.parse().unwrap();
            assert_eq!(target(&Method::GET, &uri), expected.map(|()| path.to_owned()), "{path}");
        }
        for (method, uri, expected) in [
            (Method::GET, "http://elsewhere.example/a?b", Ok("/a?b".to_owned())),
            (Method::CONNECT, "elsewhere.example:443", Err(Refusal::Method)),
            (Method::OPTIONS, "*", Err(Refusal::Method)),
            (Method::DELETE, "/a", Err(Refusal::Method)),
            (Method::GET, "*", Err(Refusal::Path)),
            (Method::GET, "/a/..;x=1/b", Err(Refusal::Path)),
            (Method::GET, "/a/%2e.%3b/b", Err(Refusal::Path)),
        ] {
            assert_eq!(target(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
        }
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "10.61.0.1:8088"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic eA=="),
            ("x-forwarded-for", "203.0.113.99"),
            ("forwarded", "for=203.0.113.99"),
            ("content-length", "5"),
            ("range", "bytes=0-9"),
            ("user-agent", "FileTransport PolycomVVX"),
            ("authorization", "Basic eA=="),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let passed = to_server(&headers, "10.61.0.11".parse().unwrap());
        let mut lines: Vec<String> =
            passed.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "authorization: Basic eA==",
                "range: bytes=0-9",
                "user-agent: FileTransport PolycomVVX",
                "via: 1.1 branchline",
                "x-forwarded-for: 10.61.0.11",
            ]
        );
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        let rows = [
            (Method::GET, "/3111-44600-001.sip.ld", Stage::FirmwareAsked),
            (Method::GET, "/420HD.IMG?x=1", Stage::FirmwareAsked),
            (Method::GET, "/0004f2010203.cfg", Stage::ConfigurationAsked),
            (Method::GET, "/pc.office.example.i3sipcfg", Stage::ConfigurationAsked),
            (Method::GET, "/logo.png", Stage::FileAsked),
            (Method::HEAD, "/x?y=.cfg", Stage::FileAsked),
            (Method::PUT, "/0004f2010203-boot.log", Stage::FileSent),
        ];
        for (method, target, expected) in rows {
            assert_eq!(stage(&method, target), expected, "{method} {target}");
        }
    }
}
