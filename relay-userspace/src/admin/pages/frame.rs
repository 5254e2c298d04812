//! What surrounds every page, and pages that say what went wrong.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use thiserror::Error;

use crate::{
    admin::{
        access::Notice,
        apply::ApplyError,
        guard::Signed,
        state::{Failure, Web},
    },
    capture::CaptureError,
};

/// What surrounds a page of somebody who is signed in.
pub(super) struct Frame {
    pub(super) title: String,
    /// The path of the page's entry in the navigation.
    pub(super) active: &'static str,
    pub(super) user: String,
    pub(super) csrf: String,
    pub(super) pill: String,
    pub(super) waiting: Vec<String>,
    /// Calls that a restart would end.
    pub(super) calls: usize,
    pub(super) file_error: Option<String>,
    pub(super) notice: Option<Notice>,
}

impl Frame {
    pub(super) fn new(web: &Web, signed: &Signed, title: impl Into<String>, active: &'static str) -> Self {
        let status = web.status();
        Self {
            title: title.into(),
            active,
            user: signed.session.name.clone(),
            csrf: signed.session.csrf.as_str().to_owned(),
            pill: pill(web),
            waiting: status.waiting_for_restart.clone(),
            calls: status.calls_active,
            file_error: status.configuration_error.clone(),
            notice: web.sessions().take_notice(&signed.id),
        }
    }
}

/// Whether calls work, in words.
#[derive(Template)]
#[template(path = "pill.html")]
struct Pill<'a> {
    why_not: Option<&'a str>,
    live: bool,
}

pub(super) fn pill(web: &Web) -> String {
    let status = web.status();
    Pill { why_not: status.not_ready_reason.as_deref(), live: false }.render().unwrap_or_default()
}

/// The same as a part of a live view, which finds its place by itself.
pub(super) fn live_pill(web: &Web) -> String {
    let status = web.status();
    Pill { why_not: status.not_ready_reason.as_deref(), live: true }.render().unwrap_or_default()
}

/// A page as a response.
pub(super) fn show(page: &impl Template) -> Response {
    show_as(StatusCode::OK, page)
}

/// The same with another status.
pub(super) fn show_as(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the page cannot be shown: {error}\n"))
            .into_response(),
    }
}

/// A page for somebody who is not signed in, or about something that went wrong.
#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    title: &'a str,
    words: &'a str,
    hint: &'a str,
    home: bool,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub(in crate::admin) enum PageError {
    /// There is no such thing.
    #[error("There is no such page, or what it was about is gone.")]
    NotFound,
    /// What was posted is no form of ours.
    #[error("The form cannot be read.")]
    NoForm,
    /// Another site's, or without its session's token.
    #[error("The form was not sent from a page of this session.")]
    ForeignForm,
    /// The configuration.
    #[error("{0}")]
    Apply(#[from] ApplyError),
    /// A capture.
    #[error("{0}")]
    Capture(CaptureError),
    /// The appliance's own.
    #[error("{0}")]
    Failure(#[from] Failure),
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, hint) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found", "Go back, or begin at the status page."),
            Self::NoForm => {
                (StatusCode::BAD_REQUEST, "Not understood", "Go back, load the page again, and repeat.")
            }
            Self::ForeignForm => (
                StatusCode::FORBIDDEN,
                "Refused",
                "Nothing was changed. If you did this yourself, load the page again and repeat: you may have signed in \
                 anew meanwhile.",
            ),
            Self::Failure(Failure::Busy(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Busy", "Nothing was changed.")
            }
            Self::Capture(_) => (StatusCode::CONFLICT, "Not done", "Calls go on."),
            Self::Apply(_) => (StatusCode::CONFLICT, "Not applied", "The running configuration goes on."),
            Self::Failure(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something failed",
                "The appliance's log says more (`journalctl -u branchline`).",
            ),
        };
        if let Self::Failure(failure) = &self {
            tracing::warn!(%failure, "pages");
        }
        show_as(status, &Message { title, words: &self.to_string(), hint, home: true })
    }
}

pub(super) async fn not_found() -> PageError {
    PageError::NotFound
}

/// The answer to everybody before there is an administrator.
pub(in crate::admin) fn not_set_up() -> Response {
    show_as(
        StatusCode::FORBIDDEN,
        &Message {
            title: "Not set up yet",
            words: "This appliance has no administrator yet, so it lets nobody in.",
            hint: "Its log has a one-time link, written at the first start (`journalctl -u branchline`). \
                   `branchline setup-link` on the appliance prints a new one.",
            home: false,
        },
    )
}

/// The answer to a one-time link that is none, or none any more.
pub(super) fn link_is_void() -> Response {
    show_as(
        StatusCode::FORBIDDEN,
        &Message {
            title: "This link is not valid",
            words: "It was used already, is older than a day, or a newer one was made.",
            hint: "`branchline setup-link` on the appliance prints a new one.",
            home: false,
        },
    )
}

/// The answer to who has asked for a restart.
#[derive(Template)]
#[template(path = "restarting.html")]
struct Restarting;

pub(super) fn restarting() -> Response {
    show(&Restarting)
}

/// A file to keep.
pub(super) fn attachment(name: &str, kind: &'static str, content: impl IntoResponse) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // The name is ours or a fingerprint: letters, digits, dots and dashes.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
