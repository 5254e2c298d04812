//! Captures. What is in them was said by people: to take one away needs a token that may change things.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Problem,
    access::{Body, Caller},
};
use crate::{
    admin::{
        captures::{self, CaptureFailure, ask},
        state::Web,
    },
    capture::{CaptureError, CaptureView, Keys, Sealing, Target, Wanted},
};

/// A capture that is to begin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCapture {
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    recipients: Vec<String>,
    #[serde(default)]
    with_srtp_keys: bool,
    #[serde(default)]
    seconds: Option<u64>,
    #[serde(default)]
    mib: Option<u64>,
    #[serde(default)]
    encrypt: Option<bool>,
}

/// A capture that has begun.
#[derive(Debug, Serialize)]
pub(super) struct Started {
    name: String,
}

impl From<CaptureFailure> for Problem {
    fn from(failure: CaptureFailure) -> Self {
        match failure {
            CaptureFailure::Failure(failure) => failure.into(),
            CaptureFailure::Capture(CaptureError::NotFound(why)) => Self::not_found(&why),
            CaptureFailure::Capture(CaptureError::Refused(why)) => Self::new(StatusCode::CONFLICT, why),
            CaptureFailure::Capture(CaptureError::File(why)) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, why)
            }
        }
    }
}

pub(super) async fn list(State(web): State<Web>) -> Result<Json<Vec<CaptureView>>, Problem> {
    Ok(Json(ask(&web, |appliance| appliance.captures()).await?))
}

pub(super) async fn start(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewCapture>,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let sealing = new.encrypt.map(|wanted| if wanted { Sealing::Sealed } else { Sealing::Plain });
    let target = Target::of(new.call_id.as_deref(), new.phone.as_deref(), new.address.as_deref())
        .map_err(|why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    let wanted = Wanted {
        target,
        recipients: new.recipients,
        keys: if new.with_srtp_keys { Keys::Kept } else { Keys::Masked },
        seconds: new.seconds,
        mib: new.mib,
        sealing,
    };
    let name = ask(&web, move |appliance| appliance.start_capture(&wanted)).await?;
    info!(by = caller.0, capture = name, "capture begun by REST");
    Ok((StatusCode::CREATED, Json(Started { name })))
}

pub(super) async fn stop(State(web): State<Web>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    ask(&web, move |appliance| appliance.stop_capture(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let wanted = name.clone();
    ask(&web, move |appliance| appliance.remove_capture(&wanted)).await?;
    info!(by = caller.0, capture = name, "capture removed");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn content(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let mut response = captures::content(&web, name.clone()).await?;
    info!(by = caller.0, capture = name, "capture taken away");
    let kind = HeaderValue::from_static("application/x-pcapng");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
