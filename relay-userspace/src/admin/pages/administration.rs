//! Administrators and tokens: one's own name and password, further administrators, tokens for programs.

use std::net::IpAddr;

use askama::Template;
use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use tracing::info;
use zeroize::Zeroizing;

use super::{
    form::Form,
    frame::{self, Frame, PageError, show_as},
    sections, words,
};
use crate::{
    admin::{
        access::{Notice, Secret, acceptable_name, acceptable_password},
        apply::{self, ApplyError},
        guard::{Fields, Signed, Source},
        state::{Denied, Failure, Web, now_unix},
    },
    store::{Administrator, ApiToken, Scope},
};

/// The page's path.
const PAGE: &str = "/administration";

#[derive(Template)]
#[template(path = "administration.html")]
struct AdministrationPage {
    frame: Frame,
    form: Form,
    administrators: Vec<Administrator>,
    tokens: Vec<ApiToken>,
    /// A token that was just made: shown this once.
    made: Option<(String, String)>,
    own_error: Option<String>,
    add_error: Option<String>,
    token_error: Option<String>,
}

/// What the page says beside what it always does.
#[derive(Default)]
struct Said {
    made: Option<(String, String)>,
    own_error: Option<String>,
    add_error: Option<String>,
    token_error: Option<String>,
}

async fn render(web: &Web, signed: &Signed, status: StatusCode, said: Said) -> Result<Response, PageError> {
    let current = apply::current(web).await?;
    let form = Form::of_file(web, &sections::ADMINISTRATION, &current);
    let (administrators, tokens) =
        web.store(|store| Ok((store.administrators()?, store.api_tokens()?))).await?;
    let frame = Frame::new(web, signed, "Administration", PAGE);
    let Said { made, own_error, add_error, token_error } = said;
    let page =
        AdministrationPage { frame, form, administrators, tokens, made, own_error, add_error, token_error };
    Ok(show_as(status, &page))
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    render(&web, &signed, StatusCode::OK, Said::default()).await
}

fn back(web: &Web, id: &str, words: String) -> Response {
    web.sessions().leave_notice(id, Notice::Done(words));
    Redirect::to(PAGE).into_response()
}

/// A name and a password that were typed, the password twice.
fn wanted(fields: &Fields, name: &str) -> Result<Zeroizing<String>, String> {
    acceptable_name(name).map_err(|weak| weak.to_string())?;
    let password = Zeroizing::new(fields.get("new_password").to_owned());
    acceptable_password(name, &password).map_err(|weak| weak.to_string())?;
    if *password != *fields.get("repeated") {
        return Err("the passwords differ".to_owned());
    }
    Ok(password)
}

/// Whether somebody has typed their own password rightly: what changes who may come in asks for it again.
async fn confirmed(
    web: &Web,
    signed: &Signed,
    source: IpAddr,
    fields: &Fields,
) -> Result<Result<(), String>, PageError> {
    let password = Zeroizing::new(fields.get("password").to_owned());
    match web.check_password(source, &signed.session.name, password).await {
        Ok(()) => Ok(Ok(())),
        Err(Denied::Wrong) => Ok(Err("your present password is wrong".to_owned())),
        Err(Denied::Wait(wait)) => {
            Ok(Err(format!("too many wrong attempts; try again in {} s", wait.as_secs().saturating_add(1))))
        }
        Err(Denied::Failure(failure)) => Err(failure.into()),
    }
}

pub(super) async fn change_own(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(source): Extension<Source>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let (old, new) = (signed.session.name.clone(), fields.get("name").trim().to_owned());
    let error = match acceptable_name(&new) {
        Err(weak) => Some(weak.to_string()),
        Ok(()) => confirmed(&web, &signed, source.0, &fields).await?.err(),
    };
    let refused = |error| Said { own_error: Some(error), ..Said::default() };
    if let Some(error) = error {
        return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await;
    }
    let mut done = Vec::new();
    if !fields.get("new_password").is_empty() {
        let password = match wanted(&fields, &new) {
            Ok(password) => password,
            Err(error) => {
                return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await;
            }
        };
        let hash = web.passwords().hash(password).await.map_err(Failure::from)?;
        let who = old.clone();
        web.store(move |store| store.put_administrator(&who, &hash, now_unix())).await?;
        web.sessions().end_others_of(&old, &signed.id);
        info!(administrator = old, "password changed");
        done.push("Your password is changed; your other sessions have ended.".to_owned());
    }
    if new != old {
        let (from, to) = (old.clone(), new.clone());
        if !web.store(move |store| store.rename_administrator(&from, &to)).await? {
            let error = format!("another administrator is called {new} already");
            return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await;
        }
        web.sessions().rename(&old, &new);
        info!(administrator = old, now = new, "administrator renamed");
        done.push(format!("You are called {new} now."));
    }
    if done.is_empty() {
        done.push("Nothing has changed.".to_owned());
    }
    Ok(back(&web, &signed.id, done.join(" ")))
}

pub(super) async fn add(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(source): Extension<Source>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let name = fields.get("name").trim().to_owned();
    let refused = |error| Said { add_error: Some(error), ..Said::default() };
    let known = name.clone();
    let result = match wanted(&fields, &name) {
        Err(error) => Err(error),
        Ok(password) => confirmed(&web, &signed, source.0, &fields).await?.map(|()| password),
    };
    let password = match result {
        Ok(password) => password,
        Err(error) => return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await,
    };
    if web.store(move |store| store.administrator_password(&known)).await?.is_some() {
        let error = format!("another administrator is called {name} already");
        return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await;
    }
    let hash = web.passwords().hash(password).await.map_err(Failure::from)?;
    let who = name.clone();
    if !web.store(move |store| store.put_administrator(&who, &hash, now_unix())).await? {
        let error = "there are too many administrators".to_owned();
        return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, refused(error)).await;
    }
    info!(by = signed.session.name, administrator = name, "administrator added");
    Ok(back(&web, &signed.id, format!("{name} may sign in now.")))
}

pub(super) async fn remove(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let name = fields.get("name").to_owned();
    if name == signed.session.name {
        let said = Said { add_error: Some("you cannot remove yourself".to_owned()), ..Said::default() };
        return render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, said).await;
    }
    let who = name.clone();
    if !web.store(move |store| store.remove_administrator(&who)).await? {
        return Err(PageError::NotFound);
    }
    web.sessions().end_all_of(&name);
    info!(by = signed.session.name, administrator = name, "administrator removed");
    Ok(back(&web, &signed.id, format!("{name} is removed and signed out.")))
}

/// Makes a token; says its secret, or why there is none.
pub(in crate::admin) async fn make_token(
    web: &Web,
    name: &str,
    scope: Scope,
    by: &str,
) -> Result<Result<Secret, String>, Failure> {
    if let Err(weak) = acceptable_name(name) {
        return Ok(Err(weak.to_string()));
    }
    let secret = Secret::random();
    let (hash, called) = (Secret::hash(secret.as_str()), name.to_owned());
    if !web.store(move |store| store.add_api_token(&hash, &called, scope, now_unix())).await? {
        return Ok(Err("there is a token of this name already, or there are too many".to_owned()));
    }
    info!(by, token = name, scope = scope.as_label(), "API token made");
    Ok(Ok(secret))
}

pub(super) async fn add_token(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let name = fields.get("name").trim().to_owned();
    let scope = Scope::parse(fields.get("scope")).ok_or(PageError::NoForm)?;
    match make_token(&web, &name, scope, &signed.session.name).await? {
        // Shown in the answer itself and nowhere else: a redirection would have to keep it somewhere.
        Ok(secret) => {
            let made = Some((name, secret.as_str().to_owned()));
            render(&web, &signed, StatusCode::OK, Said { made, ..Said::default() }).await
        }
        Err(error) => {
            let said = Said { token_error: Some(error), ..Said::default() };
            render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, said).await
        }
    }
}

pub(super) async fn restart(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    info!(by = signed.session.name, "restart asked for");
    match web.restart_soon().await {
        Ok(()) => Ok(frame::restarting()),
        Err(ApplyError::Failure(failure)) => Err(failure.into()),
        Err(error) => {
            let words = format!("Not restarted, since it could not start with the file as it is. {error}");
            web.sessions().leave_notice(&signed.id, Notice::Failed(words));
            Ok(Redirect::to("/").into_response())
        }
    }
}

pub(super) async fn remove_token(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let name = fields.get("name").to_owned();
    let who = name.clone();
    if !web.store(move |store| store.remove_api_token(&who)).await? {
        return Err(PageError::NotFound);
    }
    info!(by = signed.session.name, token = name, "API token removed");
    Ok(back(&web, &signed.id, format!("Token {name} is removed; nobody can use it any more.")))
}
