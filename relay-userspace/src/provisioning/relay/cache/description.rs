//! What is known of a copy beside its content, and for whom it is (RFC 9111 sections 3 and 4.1).

use std::{net::IpAddr, time::SystemTime};

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

/// What is known of a copy beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::provisioning::relay) struct Description {
    /// Path and query.
    pub(in crate::provisioning::relay) target: String,
    /// The server that it came from.
    pub(in crate::provisioning::relay) server: String,
    /// The response's headers, as far as they are passed on.
    headers: Vec<(String, Vec<u8>)>,
    /// When it was stored, in seconds since 1970.
    pub(in crate::provisioning::relay) stored_unix: u64,
    /// The only phone that it is for, where the server said `private`.
    owner: Option<IpAddr>,
    /// The request's headers that it depends on (`Vary`), with their values then.
    vary: Vec<(String, Option<Vec<u8>>)>,
    /// Random: tells this copy's chunks from those of an older one.
    pub(in crate::provisioning::relay) edition: u64,
}

impl Description {
    /// Of a response, if it may be kept: what the server does not want kept, and what depends on more than a request's
    /// headers, is not.
    pub(in crate::provisioning::relay) fn of(
        target: &str,
        server: &str,
        phone: IpAddr,
        request: &HeaderMap,
        response: &HeaderMap,
        now: SystemTime,
    ) -> Option<Self> {
        let directives = |name: &str| {
            response
                .get_all(header::CACHE_CONTROL)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|directive| {
                    let directive = directive.split('=').next().unwrap_or_default();
                    directive.trim().eq_ignore_ascii_case(name)
                })
        };
        if directives("no-store") {
            return None;
        }
        let mut vary = Vec::new();
        for name in
            response.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','))
        {
            // `*` is no name.
            let name = HeaderName::from_bytes(name.trim_ascii()).ok().filter(|name| name.as_str() != "*")?;
            let value = request.get(&name).map(|value| value.as_bytes().to_vec());
            vary.push((name.as_str().to_owned(), value));
        }
        Some(Self {
            target: target.to_owned(),
            server: server.to_owned(),
            headers: response
                .iter()
                // A session's cookie is the first phone's alone.
                .filter(|(name, _)| ![header::SET_COOKIE, header::CONTENT_LENGTH, header::AGE].contains(name))
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect(),
            stored_unix: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            owner: directives("private").then_some(phone),
            vary,
            edition: rand::random(),
        })
    }

    /// Whether it answers this phone's request.
    pub(in crate::provisioning::relay) fn is_for(&self, phone: IpAddr, request: &HeaderMap) -> bool {
        self.owner.is_none_or(|owner| owner == phone)
            && self
                .vary
                .iter()
                .all(|(name, value)| request.get(name).map(HeaderValue::as_bytes) == value.as_deref())
    }

    /// The response's headers.
    pub(in crate::provisioning::relay) fn headers(&self) -> HeaderMap {
        self.headers
            .iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?))
            })
            .collect()
    }

    fn header(&self, wanted: &HeaderName) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == wanted.as_str())?;
        std::str::from_utf8(value).ok()
    }

    /// Its entity tag.
    pub(in crate::provisioning::relay) fn etag(&self) -> Option<&str> {
        self.header(&header::ETAG)
    }

    /// Its date.
    pub(in crate::provisioning::relay) fn modified(&self) -> Option<&str> {
        self.header(&header::LAST_MODIFIED)
    }
}
