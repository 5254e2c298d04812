//! One page for each section of the configuration: shown from the file, applied to the file.

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    form::Form,
    frame::{Frame, PageError, show, show_as},
    sections::{self, Section},
    words,
};
use crate::{
    admin::{
        TlsFacts,
        access::Notice,
        apply::{self, ApplyError},
        guard::{Fields, Signed},
        state::Web,
    },
    control::ReloadedView,
};

#[derive(Template)]
#[template(path = "configuration.html")]
struct SectionPage {
    frame: Frame,
    form: Form,
    /// On the page about protocols.
    tls: Option<TlsFacts>,
}

/// What the page of a section shows beside its form.
fn tls(web: &Web, section: &Section) -> Option<TlsFacts> {
    (section.name == "protocols").then(|| web.appliance().tls())
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(section): Path<String>,
) -> Result<Response, PageError> {
    let section = sections::find(&section).ok_or(PageError::NotFound)?;
    let current = apply::current(&web).await?;
    let form = Form::of_file(&web, section, &current);
    let frame = Frame::new(&web, &signed, section.title, section.page);
    Ok(show(&SectionPage { frame, form, tls: tls(&web, section) }))
}

pub(super) async fn apply(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
    Path(section): Path<String>,
) -> Result<Response, PageError> {
    let section: &'static Section = sections::find(&section).ok_or(PageError::NotFound)?;
    let current = apply::current(&web).await?;
    let mut form = Form::of_fields(&web, section, &current, &fields);
    let Some(text) = form.edited(&current.text) else { return Ok(again(&web, &signed, section, form)) };
    match apply::apply(&web, text, Some(fields.get("version")), &signed.session.name).await {
        Ok(done) => {
            web.sessions().leave_notice(&signed.id, Notice::Done(told(&done)));
            Ok(Redirect::to(section.page).into_response())
        }
        Err(ApplyError::Failure(failure)) => Err(failure.into()),
        Err(error) => {
            form.refused(&error);
            Ok(again(&web, &signed, section, form))
        }
    }
}

/// The form as it was sent, with what is wrong at its fields.
fn again(web: &Web, signed: &Signed, section: &'static Section, form: Form) -> Response {
    let frame = Frame::new(web, signed, section.title, section.page);
    show_as(StatusCode::UNPROCESSABLE_ENTITY, &SectionPage { frame, form, tls: tls(web, section) })
}

/// What was applied, in words.
pub(super) fn told(done: &ReloadedView) -> String {
    match (done.applied.as_slice(), done.waiting_for_restart.as_slice()) {
        ([], []) => "Nothing has changed.".to_owned(),
        (applied, []) => format!("Applied: {}.", applied.join(", ")),
        ([], waiting) => format!("Saved. In effect after the next start: {}.", waiting.join(", ")),
        (applied, waiting) => {
            format!(
                "Applied: {}. In effect after the next start: {}.",
                applied.join(", "),
                waiting.join(", ")
            )
        }
    }
}
