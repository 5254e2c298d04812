//! Diagnostics: the log's level and the configuration file to take away.

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};

use serde::Deserialize;

use super::{
    captures,
    form::Form,
    frame::{Frame, PageError, attachment, show},
    sections, words,
};
use crate::{
    admin::{apply, guard::Signed, state::Web},
    capture::CaptureView,
    log::LogView,
    provisioning::syslog::SyslogView,
};

#[derive(Template)]
#[template(path = "diagnostics.html")]
struct DiagnosticsPage {
    frame: Frame,
    form: Form,
    file: String,
    captures: Vec<CaptureView>,
    log: LogView,
    phone: String,
    phone_error: bool,
    lines: Option<Vec<SyslogView>>,
}

/// Whose log is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    phone: String,
}

/// Lines of phones' logs on the page.
const LINES: usize = 100;

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    let form = Form::of_file(&web, &sections::DIAGNOSTICS, &current);
    let file = web.appliance().configuration_file().display().to_string();
    let captures = captures::list(&web, None).await?;
    let frame = Frame::new(&web, &signed, "Diagnostics", "/diagnostics");
    let phone = wanted.phone.trim().to_owned();
    let address = if phone.is_empty() { Ok(None) } else { phone.parse().map(Some) };
    let lines = web.appliance().phone_logs(address.clone().unwrap_or_default(), LINES);
    let (log, phone_error) = (web.appliance().log(), address.is_err());
    Ok(show(&DiagnosticsPage { frame, form, file, captures, log, phone, phone_error, lines }))
}

pub(super) async fn download(State(web): State<Web>) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    Ok(attachment("branchline.toml", "application/toml", current.text))
}
