//! Diagnostics: the log's level and the configuration file to take away.

use askama::Template;
use axum::{Extension, extract::State, response::Response};

use super::{
    form::Form,
    frame::{Frame, PageError, attachment, show},
    sections,
};
use crate::admin::{apply, guard::Signed, state::Web};

#[derive(Template)]
#[template(path = "diagnostics.html")]
struct DiagnosticsPage {
    frame: Frame,
    form: Form,
    file: String,
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    let form = Form::of_file(&web, &sections::DIAGNOSTICS, &current);
    let file = web.appliance().configuration_file().display().to_string();
    Ok(show(&DiagnosticsPage { frame: Frame::new(&web, &signed, "Diagnostics", "/diagnostics"), form, file }))
}

pub(super) async fn download(State(web): State<Web>) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    Ok(attachment("branchline.toml", "application/toml", current.text))
}
