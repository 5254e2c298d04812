//! What every request passes before a handler sees it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Form, FromRequest as _, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use hyper::body::Body as _;
use tokio::time::timeout;

use super::{
    access::Session,
    pages::{self, PageError},
    rest::Problem,
    state::Web,
};
use crate::metrics::names;

/// Bytes of a request's body: a configuration file, with room.
const BODY: usize = 256 * 1024;
/// Time for a request's body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fields of a form.
const FIELDS: usize = 1024;
/// The session's cookie. The prefix binds it to this host, its root path and TLS (RFC 6265bis section 4.1.3.2).
pub(super) const COOKIE: &str = "__Host-branchline";
/// The field and the header that carry a session's token.
pub(super) const CSRF_FIELD: &str = "csrf";
const CSRF_HEADER: &str = "x-csrf-token";
/// Nothing but the appliance's own scripts, styles and pictures, and in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source(pub(super) IpAddr);

/// A form's fields, in order; empty for a request without one.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The first field of this name, or nothing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All fields of this name, in lines.
    pub(super) fn lines(&self, name: &str) -> String {
        let values: Vec<&str> =
            self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        values.join("\n")
    }
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) id: String,
    pub(super) session: Session,
}

/// Headers of every response, and its count.
pub(super) async fn headers(State(web): State<Web>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let [done, elsewhere, refused, failed] = names::web::CLASSES;
    web.answered(match response.status().as_u16() {
        100..300 => done,
        300..400 => elsewhere,
        400..500 => refused,
        _ => failed,
    });
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Browsers name a form's origin only under a policy that lets them: `no-referrer` makes it `null`.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Takes the whole body, within its limit and its time, before anything is done for the request.
pub(super) async fn whole_body(State(web): State<Web>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let refused = |status, words: &str| {
        web.refused(names::web::BODY);
        let problem = Problem::new(status, words);
        if parts.uri.path().starts_with(super::rest::ROOT) {
            problem.into_response()
        } else {
            (status, format!("{words}\n")).into_response()
        }
    };
    // Who announces too much is told at once, and not after having sent it.
    if body.size_hint().lower() > BODY as u64 {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 256 KiB");
    }
    let bytes = match timeout(PATIENCE, to_bytes(body, BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is not whole, or longer than 256 KiB");
        }
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 seconds"),
    };
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// Before there is an administrator, nobody gets further.
pub(super) async fn needs_administrator(
    State(web): State<Web>,
    request: Request,
    next: Next,
) -> Result<Response, PageError> {
    if web.has_administrator().await? {
        return Ok(next.run(request).await);
    }
    web.refused(names::web::NO_ADMINISTRATOR);
    Ok(pages::not_set_up())
}

/// Reads a form, and refuses one that another site has sent.
pub(super) async fn own_forms(State(web): State<Web>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return next.run(request).await;
    }
    if !is_same_origin(request.headers(), request.uri()) {
        web.refused(names::web::FOREIGN_FORM);
        return PageError::ForeignForm.into_response();
    }
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts.clone(), body);
    let fields = if request.headers().contains_key(header::CONTENT_TYPE) {
        let Ok(Form(fields)) = Form::<Vec<(String, String)>>::from_request(request, &()).await else {
            return PageError::NoForm.into_response();
        };
        if fields.len() > FIELDS {
            return PageError::NoForm.into_response();
        }
        Fields(fields)
    } else {
        Fields::default()
    };
    request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(fields);
    next.run(request).await
}

/// Whether the browser says that the request comes from one of our own pages. Every browser names the origin of what
/// is posted (Fetch standard, "append a request `Origin` header").
fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).or_else(|| uri.authority().map(|authority| authority.as_str()));
    let (Some(origin), Some(host)) = (text(header::ORIGIN), host) else { return false };
    origin.strip_prefix("https://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// Only for those who are signed in. What changes something carries the session's token, besides.
pub(super) async fn signed(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let Some(signed) = session(&web, request.headers()) else {
        return sign_in_first(&request);
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let field = request.extensions().get::<Fields>().map_or("", |fields| fields.get(CSRF_FIELD));
        if !signed.session.csrf.is(field) && !has_token(&signed, request.headers()) {
            web.refused(names::web::FOREIGN_FORM);
            return PageError::ForeignForm.into_response();
        }
    }
    request.extensions_mut().insert(signed);
    next.run(request).await
}

/// Whether a request carries its session's token as a header.
pub(super) fn has_token(signed: &Signed, headers: &HeaderMap) -> bool {
    headers
        .get(CSRF_HEADER)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|token| signed.session.csrf.is(token))
}

/// The session of a request's cookie.
pub(super) fn session(web: &Web, headers: &HeaderMap) -> Option<Signed> {
    let id = cookie(headers)?;
    let session = web.sessions().resume(Instant::now(), id)?;
    Some(Signed { id: id.to_owned(), session })
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn sign_in_first(request: &Request) -> Response {
    // A live view that goes on after the session has ended: a redirection would be taken for its content.
    if request.uri().path().starts_with("/events/") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let target = if request.method() == Method::GET {
        request.uri().path_and_query().map_or("/", |target| target.as_str())
    } else {
        "/"
    };
    let place = format!("/sign-in?next={}", pages::encode(target));
    if request.headers().contains_key("hx-request") {
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        if let Ok(place) = HeaderValue::from_str(&place) {
            response.headers_mut().insert("hx-redirect", place);
        }
        return response;
    }
    Redirect::to(&place).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pages_own_origin_may_send_forms() {
        let rows = [
            ("our own", Some("https://10.61.0.1:8443"), "10.61.0.1:8443", true),
            ("another case", Some("https://Branch.example:8443"), "branch.example:8443", true),
            ("another host", Some("https://evil.example"), "10.61.0.1:8443", false),
            ("another port", Some("https://10.61.0.1"), "10.61.0.1:8443", false),
            ("without TLS", Some("http://10.61.0.1:8443"), "10.61.0.1:8443", false),
            ("ours as a prefix", Some("https://10.61.0.1:8443.evil.example"), "10.61.0.1:8443", false),
            ("an opaque one", Some("null"), "10.61.0.1:8443", false),
            ("none", None, "10.61.0.1:8443", false),
        ];
        for (description, origin, host, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_same_origin(&headers, &Uri::from_static("/sign-in")), expected, "{description}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others_and_by_its_whole_name() {
        for (cookies, expected) in [
            ("__Host-branchline=abc", Some("abc")),
            ("a=b; __Host-branchline=abc; c=d", Some("abc")),
            ("__Host-branchline2=abc", None),
            ("x__Host-branchline=abc", None),
            ("__Host-branchline", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_static(cookies));
            assert_eq!(cookie(&headers), expected, "{cookies}");
        }
    }
}
