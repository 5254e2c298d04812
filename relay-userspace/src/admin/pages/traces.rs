//! The messages of a call as a ladder, with what the appliance has changed, and as a file.

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;
use tracing::info;

use super::{
    frame::{Frame, PageError, attachment, show},
    words,
};
use crate::{
    admin::{guard::Signed, state::Web},
    trace::{Detail, TraceView, ladder, pcapng, steps},
};

#[derive(Template)]
#[template(path = "trace.html")]
struct TracePage {
    frame: Frame,
    call_id: String,
    ladder: String,
}

/// Which call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// Its Call-ID.
    id: String,
}

async fn find(web: &Web, call_id: &str) -> Result<TraceView, PageError> {
    let wanted = call_id.to_owned();
    web.work(move |appliance| appliance.trace(&wanted)).await?.ok_or(PageError::NotFound)
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, PageError> {
    let trace = find(&web, &wanted.id).await?;
    info!(by = signed.session.name, call_id = wanted.id, "trace looked at");
    let ladder = ladder(&trace.summary, &trace.messages, &steps(&trace.messages), Detail::Everything);
    let frame = Frame::new(&web, &signed, "Messages", "/sessions");
    Ok(show(&TracePage { frame, call_id: wanted.id, ladder }))
}

pub(super) async fn download(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, PageError> {
    let trace = find(&web, &wanted.id).await?;
    info!(by = signed.session.name, call_id = wanted.id, "trace taken away");
    let content = pcapng(&wanted.id, &trace.messages);
    Ok(attachment("messages.pcapng", "application/x-pcapng", content))
}
