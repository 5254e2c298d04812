//! Captures for both faces: taking a file away, part by part, so that it is never in memory as a whole.

use std::io;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use thiserror::Error;

use super::state::{Failure, Web};
use crate::capture::CaptureError;

/// Why something about a capture is not done.
#[derive(Debug, Error)]
pub(super) enum CaptureFailure {
    /// The room of captures says so.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The worker.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Has the room of captures do something, off the threads that serve.
pub(super) async fn ask<T: Send + 'static>(
    web: &Web,
    work: impl FnOnce(&dyn super::Appliance) -> Result<T, CaptureError> + Send + 'static,
) -> Result<T, CaptureFailure> {
    Ok(web.work(work).await??)
}

/// A capture's content as a body.
pub(super) async fn content(web: &Web, name: String) -> Result<Response, CaptureFailure> {
    let wanted = name.clone();
    let first = ask(web, move |appliance| appliance.capture_part(&wanted, 0)).await?;
    let web = web.clone();
    let parts = stream::unfold(Some((first, 0)), move |state| {
        let (web, name) = (web.clone(), name.clone());
        async move {
            let (part, number) = state?;
            let next = if part.more {
                match ask(&web, move |appliance| appliance.capture_part(&name, number + 1)).await {
                    Ok(next) => Ok(Some((next, number + 1))),
                    Err(error) => Err(error),
                }
            } else {
                Ok(None)
            };
            match next {
                Ok(next) => Some((Ok(Bytes::from(part.content)), next)),
                // The body breaks off: what arrived is not taken for the whole.
                Err(error) => Some((Err(io::Error::other(error.to_string())), None)),
            }
        }
    });
    Ok(Response::new(Body::new(Body::from_stream(parts).boxed_unsync())))
}
