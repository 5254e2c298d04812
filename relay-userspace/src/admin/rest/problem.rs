//! Errors as RFC 9457 has them.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::admin::{apply::ApplyError, state::Failure};

/// What is wrong with a request.
#[derive(Debug, Clone, Serialize)]
pub(in crate::admin) struct Problem {
    title: String,
    status: u16,
    detail: String,
    /// The field or the configuration's key that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The line of the configuration that it is about, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(in crate::admin) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            line: None,
            retry_after: None,
        }
    }

    pub(in crate::admin) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A value that is not taken.
    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// Somebody has to wait for so many seconds.
    pub(super) fn wait(seconds: u64) -> Self {
        let detail = format!("Too many wrong attempts; try again in {seconds} s.");
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy(busy) => Self::new(StatusCode::SERVICE_UNAVAILABLE, busy.to_string()),
            failure => {
                tracing::warn!(%failure, "REST");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string())
            }
        }
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Invalid(error) => Self { line: error.line, ..Self::field(error.key, error.message) },
            ApplyError::Edit(error) => Self::field(error.key, error.message),
            ApplyError::Stale => Self::new(StatusCode::CONFLICT, ApplyError::Stale.to_string()),
            ApplyError::File(why) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, why),
            ApplyError::Failure(failure) => failure.into(),
        }
    }
}
