//! Diagnostics: the log's level and the configuration file to take away.

use askama::Template;
use axum::{Extension, extract::State, response::Response};

use super::{
    captures,
    form::Form,
    frame::{Frame, PageError, attachment, show},
    sections, words,
};
use crate::{
    admin::{apply, guard::Signed, state::Web},
    capture::CaptureView,
};

#[derive(Template)]
#[template(path = "diagnostics.html")]
struct DiagnosticsPage {
    frame: Frame,
    form: Form,
    file: String,
    captures: Vec<CaptureView>,
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    let form = Form::of_file(&web, &sections::DIAGNOSTICS, &current);
    let file = web.appliance().configuration_file().display().to_string();
    let captures = captures::list(&web, None).await?;
    let frame = Frame::new(&web, &signed, "Diagnostics", "/diagnostics");
    Ok(show(&DiagnosticsPage { frame, form, file, captures }))
}

pub(super) async fn download(State(web): State<Web>) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    Ok(attachment("branchline.toml", "application/toml", current.text))
}
