//! Captures from the pages: begun on the page of a call, listed and taken away on the page Diagnostics.

use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
};
use ipnet::IpNet;
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
    capture::{CaptureError, CaptureView, Keys, Sealing, Target, Wanted},
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
    let given = |name: &str| Some(fields.get(name)).filter(|value| !value.is_empty());
    let call_id = fields.get("call_id").to_owned();
    // A phone by its address-of-record, or whatever is an address or a prefix.
    let (phone, address) = match given("who").map(str::trim) {
        Some(who) if who.parse::<IpNet>().is_ok() => (None, Some(who)),
        who => (who, None),
    };
    let back = if call_id.is_empty() {
        PAGE.to_owned()
    } else {
        format!("/sessions/call?id={}", words::encode(&call_id))
    };
    let keys = if fields.get("keys").is_empty() { Keys::Masked } else { Keys::Kept };
    let sealing = (!fields.get("seal").is_empty()).then_some(Sealing::Sealed);
    let started = match Target::of(given("call_id"), phone, address) {
        Ok(target) => {
            let recipients = Vec::new();
            let wanted = Wanted { target, recipients, keys, seconds: None, mib: None, sealing };
            ask(&web, move |appliance| appliance.start_capture(&wanted)).await
        }
        Err(_) => Err(CaptureError::Refused("name a phone or an address".to_owned()).into()),
    };
    let by = signed.session.name.clone();
    let result = started.map(|name| {
        info!(by, capture = name, "capture begun on the pages");
        "The capture has begun.".to_owned()
    });
    done(&web, &signed, result)?;
    Ok(Redirect::to(&back).into_response())
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
    let known = list(&web, None).await?.into_iter().find(|capture| capture.name == name);
    let file = known.map_or_else(|| format!("{name}.pcapng"), |capture| capture.file);
    Ok(attachment(&file, "application/x-pcapng", response))
}
