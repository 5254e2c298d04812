//! Authentication entries, server certificates and tokens. Passwords go in and never come out.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    Problem,
    access::{Body, Caller},
};
use crate::{
    admin::{
        pages::{EntryTyped, keep_entry, make_token},
        state::Web,
    },
    store::Scope,
    tls::{Described, describe},
};

/// An entry without its password.
#[derive(Debug, Serialize)]
pub(super) struct EntryView {
    registration_id: String,
    user: String,
    aliases: Vec<String>,
    realms: Vec<String>,
    password_kept: bool,
}

/// An entry that is put; without a password, that of the entry that there is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEntry {
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    aliases: Vec<String>,
}

/// A certificate that was met.
#[derive(Debug, Serialize)]
pub(super) struct CertificateView {
    fingerprint: String,
    server: String,
    why: String,
    first_seen_unix: i64,
    last_seen_unix: i64,
    trusted_unix: Option<i64>,
    trusted_by: Option<String>,
    chain: Vec<Described>,
    chain_pem: String,
}

/// A token without its secret.
#[derive(Debug, Serialize)]
pub(super) struct TokenView {
    name: String,
    scope: &'static str,
    created_unix: i64,
    last_used_unix: Option<i64>,
}

/// A token that is to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    scope: String,
}

/// A token that was made, with its secret, this once.
#[derive(Serialize)]
pub(super) struct MadeToken {
    name: String,
    scope: &'static str,
    token: String,
}

pub(super) async fn entries(State(web): State<Web>) -> Result<Json<Vec<EntryView>>, Problem> {
    let entries = web.store(|store| store.entries()).await?;
    let view = |entry: crate::store::Entry| EntryView {
        realms: entry.realms(),
        password_kept: !entry.password.is_empty(),
        registration_id: entry.registration_id,
        user: entry.user,
        aliases: entry.aliases,
    };
    Ok(Json(entries.into_iter().map(view).collect()))
}

pub(super) async fn put_entry(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(registration_id): Path<String>,
    Body(entry): Body<NewEntry>,
) -> Result<StatusCode, Problem> {
    let typed = EntryTyped {
        registration_id: registration_id.clone(),
        user: entry.user,
        password: Zeroizing::new(entry.password),
        aliases: entry.aliases,
    };
    keep_entry(&web, typed).await?.map_err(|wrong| Problem::field(wrong.field, wrong.why))?;
    info!(by = caller.0, registration = registration_id, "authentication entry saved");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_entry(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(registration_id): Path<String>,
) -> Result<StatusCode, Problem> {
    let wanted = registration_id.clone();
    if !web.ask(move |appliance| appliance.remove_entry(&wanted)).await? {
        return Err(Problem::not_found("There is no such entry."));
    }
    info!(by = caller.0, registration = registration_id, "authentication entry removed");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn certificates(State(web): State<Web>) -> Result<Json<Vec<CertificateView>>, Problem> {
    let certificates = web.store(|store| store.certificates()).await?;
    let view = |seen: crate::store::SeenCertificate| CertificateView {
        chain: describe(&seen.chain_pem),
        trusted_unix: seen.trusted.as_ref().map(|(at, _)| *at),
        trusted_by: seen.trusted.map(|(_, by)| by),
        fingerprint: seen.fingerprint,
        server: seen.server,
        why: seen.why,
        first_seen_unix: seen.first_seen_unix,
        last_seen_unix: seen.last_seen_unix,
        chain_pem: seen.chain_pem,
    };
    Ok(Json(certificates.into_iter().map(view).collect()))
}

pub(super) async fn trust(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Result<StatusCode, Problem> {
    let (wanted, by) = (fingerprint.clone(), caller.0.clone());
    if !web.ask(move |appliance| appliance.trust_certificate(&wanted, &by)).await? {
        return Err(Problem::not_found("No server has shown a certificate of this fingerprint."));
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn forget(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(fingerprint): Path<String>,
) -> Result<StatusCode, Problem> {
    let wanted = fingerprint.clone();
    if !web.ask(move |appliance| appliance.forget_certificate(&wanted)).await? {
        return Err(Problem::not_found("No server has shown a certificate of this fingerprint."));
    }
    warn!(by = caller.0, fingerprint, "server certificate forgotten");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn tokens(State(web): State<Web>) -> Result<Json<Vec<TokenView>>, Problem> {
    let tokens = web.store(|store| store.api_tokens()).await?;
    let view = |token: crate::store::ApiToken| TokenView {
        name: token.name,
        scope: token.scope.as_label(),
        created_unix: token.created_unix,
        last_used_unix: token.last_used_unix,
    };
    Ok(Json(tokens.into_iter().map(view).collect()))
}

pub(super) async fn add_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let scope =
        Scope::parse(&wanted.scope).ok_or_else(|| Problem::field("scope", "it is \"read\" or \"write\""))?;
    let secret = make_token(&web, &wanted.name, scope, &caller.0).await?;
    let secret = secret.map_err(|why| Problem::field("name", why))?;
    let made = MadeToken { name: wanted.name, scope: scope.as_label(), token: secret.as_str().to_owned() };
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn remove_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let wanted = name.clone();
    if !web.store(move |store| store.remove_api_token(&wanted)).await? {
        return Err(Problem::not_found("There is no such token."));
    }
    info!(by = caller.0, token = name, "API token removed");
    Ok(StatusCode::NO_CONTENT)
}
