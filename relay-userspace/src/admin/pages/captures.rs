//! Captures from the pages: begun on the page of a call, listed and taken away on the page Diagnostics.

use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
};
use tracing::info;

use super::{
    frame::{PageError, attachment},
    words,
};
use crate::{
    admin::{
        access::Notice,
        captures::{CaptureFailure, ask, content},
        guard::{Fields, Signed},
        state::Web,
    },
    capture::{CaptureError, CaptureView, Sealing, Wanted},
};

/// Where captures are listed.
const PAGE: &str = "/diagnostics#captures";

impl From<CaptureFailure> for PageError {
    fn from(failure: CaptureFailure) -> Self {
        match failure {
            CaptureFailure::Capture(CaptureError::NotFound(_)) => Self::NotFound,
            CaptureFailure::Capture(error) => Self::Capture(error),
            CaptureFailure::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// The captures; of one call, or all.
pub(super) async fn list(web: &Web, call_id: Option<&str>) -> Result<Vec<CaptureView>, PageError> {
    let mut captures = ask(web, |appliance| appliance.captures()).await?;
    captures.retain(|capture| call_id.is_none_or(|wanted| capture.call_id == wanted));
    Ok(captures)
}

fn done(web: &Web, signed: &Signed, result: Result<String, CaptureFailure>) -> Result<(), PageError> {
    let notice = match result {
        Ok(words) => Notice::Done(words),
        Err(CaptureFailure::Failure(failure)) => return Err(failure.into()),
        Err(failure) => Notice::Failed(format!("Not done: {failure}.")),
    };
    web.sessions().leave_notice(&signed.id, notice);
    Ok(())
}

pub(super) async fn start(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let call_id = fields.get("call_id").to_owned();
    let sealing = (!fields.get("seal").is_empty()).then_some(Sealing::Sealed);
    let wanted = Wanted { call_id: call_id.clone(), seconds: None, mib: None, sealing };
    let started = ask(&web, move |appliance| appliance.start_capture(&wanted)).await;
    let by = signed.session.name.clone();
    let result = started.map(|name| {
        info!(by, capture = name, "capture begun on the pages");
        "The call is being captured.".to_owned()
    });
    done(&web, &signed, result)?;
    Ok(Redirect::to(&format!("/sessions/call?id={}", words::encode(&call_id))).into_response())
}

pub(super) async fn stop(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(name): Path<String>,
) -> Result<Response, PageError> {
    let stopped = ask(&web, move |appliance| appliance.stop_capture(&name)).await;
    done(&web, &signed, stopped.map(|()| "The capture is stopped.".to_owned()))?;
    Ok(Redirect::to(PAGE).into_response())
}

pub(super) async fn remove(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(name): Path<String>,
) -> Result<Response, PageError> {
    let (wanted, by) = (name.clone(), signed.session.name.clone());
    let removed = ask(&web, move |appliance| appliance.remove_capture(&wanted)).await;
    let result = removed.map(|()| {
        info!(by, capture = name, "capture removed");
        "The capture is removed.".to_owned()
    });
    done(&web, &signed, result)?;
    Ok(Redirect::to(PAGE).into_response())
}

pub(super) async fn download(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(name): Path<String>,
) -> Result<Response, PageError> {
    let response = content(&web, name.clone()).await?;
    info!(by = signed.session.name, capture = name, "capture taken away");
    Ok(attachment(&format!("{name}.pcapng"), "application/x-pcapng", response))
}
