//! Coming in and going out: the one-time link, signing in, signing out.

use std::time::Instant;

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use serde::Deserialize;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::frame::{self, PageError, show, show_as};
use crate::{
    admin::{
        access::{Notice, acceptable_name, acceptable_password},
        guard::{COOKIE, Fields, Signed, Source},
        state::{Denied, Web, now_unix},
    },
    metrics::names,
};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    name: String,
    next: String,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    token: String,
    name: String,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Next {
    next: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Token {
    token: String,
}

pub(super) async fn sign_in_page(Query(query): Query<Next>) -> Response {
    show(&SignInPage { name: String::new(), next: query.next, error: None })
}

pub(super) async fn sign_in(
    State(web): State<Web>,
    Extension(source): Extension<Source>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let (name, next) = (fields.get("name").trim().to_owned(), fields.get("next").to_owned());
    let password = Zeroizing::new(fields.get("password").to_owned());
    let (status, error) = match web.check_password(source.0, &name, password).await {
        Ok(()) => {
            info!(administrator = name, source = %source.0, "signed in");
            return Ok(with_session(&web, &name, local(&next)));
        }
        Err(Denied::Wrong) => {
            warn!(source = %source.0, "pages: wrong name or password");
            (StatusCode::UNAUTHORIZED, "Name or password are wrong.".to_owned())
        }
        Err(Denied::Wait(wait)) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("Too many wrong attempts. Try again in {} s.", wait.as_secs().saturating_add(1)),
        ),
        Err(Denied::Failure(failure)) => return Err(failure.into()),
    };
    Ok(show_as(status, &SignInPage { name, next, error: Some(error) }))
}

pub(super) async fn sign_out(State(web): State<Web>, Extension(signed): Extension<Signed>) -> Response {
    web.sessions().end(&signed.id);
    let mut response = Redirect::to("/sign-in").into_response();
    set_cookie(&mut response, &format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict"));
    response
}

pub(super) async fn setup_page(State(web): State<Web>, Query(query): Query<Token>) -> Response {
    if !web.setup().is_valid(Instant::now(), &query.token) {
        web.refused(names::web::SETUP_LINK);
        return frame::link_is_void();
    }
    show(&SetupPage { token: query.token, name: "admin".to_owned(), error: None })
}

pub(super) async fn setup(
    State(web): State<Web>,
    Extension(source): Extension<Source>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let (token, name) = (fields.get("token").to_owned(), fields.get("name").trim().to_owned());
    if !web.setup().is_valid(Instant::now(), &token) {
        web.refused(names::web::SETUP_LINK);
        return Ok(frame::link_is_void());
    }
    let password = Zeroizing::new(fields.get("password").to_owned());
    let wrong = acceptable_name(&name)
        .and_then(|()| acceptable_password(&name, &password))
        .err()
        .map(|weak| weak.to_string())
        .or_else(|| (*password != *fields.get("repeated")).then(|| "the passwords differ".to_owned()));
    if let Some(error) = wrong {
        let page = SetupPage { token, name, error: Some(error) };
        return Ok(show_as(StatusCode::UNPROCESSABLE_ENTITY, &page));
    }
    let hash = web.passwords().hash(password).await.map_err(crate::admin::state::Failure::from)?;
    if !web.setup().redeem(Instant::now(), &token) {
        return Ok(frame::link_is_void());
    }
    let who = name.clone();
    if !web.store(move |store| store.put_administrator(&who, &hash, now_unix())).await? {
        let page = SetupPage { token, name, error: Some("there are too many administrators".to_owned()) };
        return Ok(show_as(StatusCode::UNPROCESSABLE_ENTITY, &page));
    }
    // It may be a lost password's new one.
    web.sessions().end_all_of(&name);
    info!(administrator = name, source = %source.0, "administrator set by the one-time link");
    Ok(with_session(&web, &name, "/"))
}

fn with_session(web: &Web, name: &str, target: &str) -> Response {
    let id = {
        let mut sessions = web.sessions();
        let id = sessions.begin(Instant::now(), name);
        sessions.leave_notice(id.as_str(), Notice::Done(format!("Signed in as {name}.")));
        id
    };
    let mut response = Redirect::to(target).into_response();
    set_cookie(
        &mut response,
        &format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict", id.as_str()),
    );
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// A path on this appliance; never another host's address, and nothing that does not belong into a header.
fn local(next: &str) -> &str {
    let path = next.starts_with('/') && !next.starts_with("//");
    if path && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_one_stays_on_the_appliance() {
        for (next, expected) in [
            ("/sessions?q=1", "/sessions?q=1"),
            ("", "/"),
            ("sessions", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(local(next), expected, "{next:?}");
        }
    }
}
