//! The configuration: whole, by single keys, and its earlier versions.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Problem,
    access::{Body, Caller},
};
use crate::{
    admin::{
        apply::{self, parse},
        state::Web,
    },
    config::{
        edit::{Change, edit},
        keys::{self, Effect, Value},
    },
    control::ReloadedView,
};

/// The configuration file.
#[derive(Debug, Serialize)]
pub(super) struct Configuration {
    file: String,
    /// Names exactly this text.
    version: String,
    text: String,
    /// Why it is not valid, if it was broken by hand.
    error: Option<String>,
    keys: Vec<KeyView>,
}

/// A key outside of networks.
#[derive(Debug, Serialize)]
struct KeyView {
    key: &'static str,
    value: serde_json::Value,
    /// Whether a new value takes effect only with the next start.
    restart: bool,
}

/// A whole text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whole {
    text: String,
    version: Option<String>,
}

/// Single keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Single {
    values: BTreeMap<String, serde_json::Value>,
    version: Option<String>,
}

/// Which version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Number {
    number: i64,
}

/// An earlier version.
#[derive(Debug, Serialize)]
pub(super) struct Version {
    number: i64,
    applied_unix: i64,
    applied_by: String,
}

/// Its text.
#[derive(Debug, Serialize)]
pub(super) struct Text {
    number: i64,
    text: String,
}

fn to_json(value: Value) -> serde_json::Value {
    match value {
        Value::Absent => serde_json::Value::Null,
        Value::Text(text) => text.into(),
        Value::Number(number) => number.into(),
        Value::Flag(flag) => flag.into(),
        Value::List(items) => items.into(),
    }
}

fn from_json(value: &serde_json::Value) -> Option<Value> {
    Some(match value {
        serde_json::Value::Null => Value::Absent,
        serde_json::Value::Bool(flag) => Value::Flag(*flag),
        serde_json::Value::Number(number) => Value::Number(number.as_u64()?),
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => {
            Value::List(items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        serde_json::Value::Object(_) => return None,
    })
}

pub(super) async fn read(State(web): State<Web>) -> Result<Json<Configuration>, Problem> {
    let current = apply::current(&web).await?;
    let (keys, error) = match parse(&web, &current.text) {
        Err(error) => (Vec::new(), Some(error.to_string())),
        Ok(config) => {
            let view = |key: &keys::Key<_>| KeyView {
                key: key.name,
                value: to_json((key.value)(&config)),
                restart: key.effect == Effect::Restart,
            };
            (keys::KEYS.iter().map(view).collect(), None)
        }
    };
    let file = web.appliance().configuration_file().display().to_string();
    Ok(Json(Configuration { file, version: current.version, text: current.text, error, keys }))
}

pub(super) async fn replace(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(whole): Body<Whole>,
) -> Result<Json<ReloadedView>, Problem> {
    Ok(Json(apply::apply(&web, whole.text, whole.version.as_deref(), &caller.0).await?))
}

pub(super) async fn set(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(single): Body<Single>,
) -> Result<Json<ReloadedView>, Problem> {
    let mut changes = Vec::new();
    for (key, value) in &single.values {
        if keys::find(key).is_none() {
            return Err(Problem::field(key, "there is no such key; networks are changed in the whole text"));
        }
        let value = from_json(value).ok_or_else(|| Problem::field(key, "this is no value of a key"))?;
        changes.push(Change::Set { key: key.clone(), value });
    }
    let current = apply::current(&web).await?;
    let text = edit(&current.text, &changes).map_err(apply::ApplyError::from)?;
    let expected = single.version.unwrap_or(current.version);
    Ok(Json(apply::apply(&web, text, Some(&expected), &caller.0).await?))
}

pub(super) async fn versions(State(web): State<Web>) -> Result<Json<Vec<Version>>, Problem> {
    let versions = web.store(|store| store.configuration_versions()).await?;
    let view = |version: crate::store::ConfigurationVersion| Version {
        number: version.number,
        applied_unix: version.applied_unix,
        applied_by: version.applied_by,
    };
    Ok(Json(versions.into_iter().map(view).collect()))
}

async fn text_of(web: &Web, number: i64) -> Result<String, Problem> {
    let text = web.store(move |store| store.configuration_text(number)).await?;
    text.ok_or_else(|| Problem::not_found("There is no such version, or it is forgotten."))
}

pub(super) async fn version(State(web): State<Web>, Path(number): Path<i64>) -> Result<Json<Text>, Problem> {
    Ok(Json(Text { number, text: text_of(&web, number).await? }))
}

pub(super) async fn restart(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, Problem> {
    info!(by = caller.0, "restart asked for");
    web.restart_soon().await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn restore(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Number>,
) -> Result<Json<ReloadedView>, Problem> {
    let text = text_of(&web, wanted.number).await?;
    Ok(Json(apply::apply(&web, text, None, &caller.0).await?))
}
