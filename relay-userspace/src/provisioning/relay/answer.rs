//! Answers to phones: the appliance's own, a server's, and those from a copy.

use std::{sync::Arc, time::SystemTime};

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::{
    body::{Stream, empty, full},
    cache::{Cache, Copy},
    conditional::{Selection, select},
    growing::Growing,
};
use crate::metrics::names;

/// RFC 7234 section 5.5.1: what is told with a copy that could not be checked.
const STALE: HeaderValue = HeaderValue::from_static("110 branchline \"Response is Stale\"");

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A server.
    Upstream,
    /// The cache, after a server said that nothing has changed, or a fetch that was under way.
    Cache,
    /// The cache, while no server can be reached.
    Stale,
    /// The appliance: a refusal or an error.
    Own,
}

impl Source {
    /// The metrics' label.
    pub(super) fn as_label(self) -> &'static str {
        match self {
            Self::Upstream => names::provisioning::UPSTREAM,
            Self::Cache => names::provisioning::CACHE,
            Self::Stale => names::provisioning::STALE,
            Self::Own => names::provisioning::OWN,
        }
    }
}

/// An answer and where it came from.
pub(super) struct Answer {
    pub(super) response: Response<Stream>,
    pub(super) source: Source,
}

impl Answer {
    /// The appliance's own.
    pub(super) fn own(status: StatusCode, sentence: &'static str) -> Self {
        let mut response = Response::new(full(sentence));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Self { response, source: Source::Own }
    }

    /// From a copy that is whole.
    pub(super) fn whole(cache: &Arc<Cache>, copy: Copy, request: &HeaderMap, source: Source) -> Self {
        Self::copied(cache, &Growing::whole(copy), request, source)
    }

    /// From a copy: all of it, a part, or nothing but that it has not changed.
    pub(super) fn copied(cache: &Arc<Cache>, growing: &Growing, request: &HeaderMap, source: Source) -> Self {
        let (description, length) = (&growing.copy.description, growing.copy.length);
        let mut response = Response::new(empty());
        *response.headers_mut() = description.headers();
        if source == Source::Stale {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            response.headers_mut().insert(header::WARNING, STALE);
            response
                .headers_mut()
                .insert(header::AGE, HeaderValue::from(now.saturating_sub(description.stored_unix)));
        }
        let range = match select(request, description.etag(), description.modified(), length) {
            Selection::Whole => Some(0..length),
            Selection::Part(first, last) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                content_range(response.headers_mut(), &format!("bytes {first}-{last}/{length}"));
                Some(first..last + 1)
            }
            Selection::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                None
            }
            Selection::OutOfRange => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                content_range(response.headers_mut(), &format!("bytes */{length}"));
                None
            }
        };
        if let Some(range) = range {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            *response.body_mut() = growing.content(cache, range);
        }
        Self { response, source }
    }
}

fn content_range(headers: &mut HeaderMap, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(header::CONTENT_RANGE, value);
    }
}

/// The metrics' label: a phone can make up methods.
pub(super) fn method_label(method: &Method) -> &str {
    let is_relayed = [Method::GET, Method::HEAD, Method::PUT, Method::POST].contains(method);
    if is_relayed { method.as_str() } else { names::provisioning::OTHER_METHOD }
}

/// The metrics' label: the codes that mean something here, and the classes of the others.
pub(super) fn status_label(status: StatusCode) -> &'static str {
    const TOLD_APART: [(u16, &str); 17] = [
        (200, "200"),
        (201, "201"),
        (204, "204"),
        (206, "206"),
        (304, "304"),
        (400, "400"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (413, "413"),
        (414, "414"),
        (416, "416"),
        (500, "500"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
    ];
    let code = status.as_u16();
    if let Some((_, label)) = TOLD_APART.iter().find(|(told, _)| *told == code) {
        return label;
    }
    match code / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
