//! Traces. What is in a message was said by people, or about them: to see it needs a token that may change things.

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use tracing::info;

use super::{Problem, access::Caller};
use crate::{
    admin::state::Web,
    trace::{Report, TraceView, TracesView, pcapng},
};

/// How many.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    last: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { last: 50 }
    }
}

pub(super) async fn list(
    State(web): State<Web>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<TracesView>, Problem> {
    Ok(Json(web.work(move |appliance| appliance.traces(wanted.last)).await?))
}

async fn find(web: &Web, call_id: String) -> Result<TraceView, Problem> {
    let found = web.work(move |appliance| appliance.trace(&call_id)).await?;
    found.ok_or_else(|| Problem::not_found("There is no trace of this Call-ID, or it was let go of."))
}

pub(super) async fn one(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(call_id): Path<String>,
) -> Result<Json<Report>, Problem> {
    let trace = find(&web, call_id.clone()).await?;
    info!(by = caller.0, call_id, "trace looked at by REST");
    Ok(Json(Report::of(trace)))
}

pub(super) async fn file(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(call_id): Path<String>,
) -> Result<Response, Problem> {
    let trace = find(&web, call_id.clone()).await?;
    info!(by = caller.0, call_id, "trace taken away by REST");
    let mut response = pcapng(&call_id, &trace.messages).into_response();
    let kind = HeaderValue::from_static("application/x-pcapng");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
