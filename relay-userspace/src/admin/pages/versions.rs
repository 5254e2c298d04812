//! Earlier configurations: who applied them and when, their text, and the way back.

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    configuration::told,
    frame::{Frame, PageError, attachment, show},
    words,
};
use crate::{
    admin::{
        access::Notice,
        apply::{self, ApplyError},
        guard::{Fields, Signed},
        state::Web,
    },
    store::ConfigurationVersion,
};

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    frame: Frame,
    versions: Vec<ConfigurationVersion>,
    /// The version whose text the file has.
    current: Option<i64>,
}

impl HistoryPage {
    fn is_current(&self, number: &i64) -> bool {
        self.current == Some(*number)
    }
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    let text = apply::current(&web).await?.text;
    let (versions, current) = web
        .store(move |store| {
            let versions = store.configuration_versions()?;
            let newest = versions.first().map(|version| version.number);
            let same = newest.map(|number| store.configuration_text(number)).transpose()?.flatten();
            Ok((versions, newest.filter(|_| same.as_deref() == Some(text.as_str()))))
        })
        .await?;
    let frame = Frame::new(&web, &signed, "History", "/configuration/history");
    Ok(show(&HistoryPage { frame, versions, current }))
}

pub(super) async fn text(State(web): State<Web>, Path(number): Path<i64>) -> Result<Response, PageError> {
    let text = web.store(move |store| store.configuration_text(number)).await?.ok_or(PageError::NotFound)?;
    Ok(attachment(&format!("branchline-{number}.toml"), "application/toml", text))
}

pub(super) async fn restore(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let number: i64 = fields.get("number").parse().map_err(|_| PageError::NoForm)?;
    let text = web.store(move |store| store.configuration_text(number)).await?.ok_or(PageError::NotFound)?;
    let notice = match apply::apply(&web, text, None, &signed.session.name).await {
        Ok(done) => Notice::Done(format!("Version {number} is back. {}", told(&done))),
        Err(ApplyError::Failure(failure)) => return Err(failure.into()),
        Err(error) => Notice::Failed(format!("Version {number} was not restored: {error}")),
    };
    web.sessions().leave_notice(&signed.id, notice);
    Ok(Redirect::to("/configuration/history").into_response())
}
