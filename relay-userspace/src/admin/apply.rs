//! Applying a configuration: checked by itself and against this host, written, recorded, and taken up by the daemon; in this order, one at a time.

use std::{fs, path::Path};

use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::info;

use super::{
    access::Secret,
    state::{Failure, Web, now_unix},
};
use crate::{
    config::{Config, ConfigError, edit::EditError, save},
    control::ReloadedView,
};

/// Who is named for the version that was there before anything was applied.
const FOUND: &str = "found in the file";

/// Why a configuration is not applied. The file is then as it was.
#[derive(Debug, Error)]
pub(super) enum ApplyError {
    /// It is not valid, or asks for what this host does not have.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// The text cannot be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The file has changed since it was shown.
    #[error("the file has been changed by somebody else meanwhile; look at it again before you apply")]
    Stale,
    /// The file cannot be read or written.
    #[error("{0}")]
    File(String),
    /// Something else.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The file as it is.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// Its text.
    pub(super) text: String,
    /// A name for exactly this text.
    pub(super) version: String,
}

/// Reads the file.
pub(super) async fn current(web: &Web) -> Result<Current, ApplyError> {
    let file = web.appliance().configuration_file();
    let read = move || {
        fs::read_to_string(&file)
            .map_err(|error| ApplyError::File(format!("{} cannot be read: {error}", file.display())))
    };
    let text = spawn_blocking(read).await.map_err(|_| Failure::Lost)??;
    Ok(Current { version: Secret::hash(&text), text })
}

/// What the file holds; for forms.
pub(super) fn parse(web: &Web, text: &str) -> Result<Config, ConfigError> {
    Config::parse(&web.appliance().configuration_file(), text)
}

/// Makes a text the configuration. `expected` is the version that the change was made from, if one is named.
pub(super) async fn apply(
    web: &Web,
    text: String,
    expected: Option<&str>,
    by: &str,
) -> Result<ReloadedView, ApplyError> {
    let _turn = web.applying().lock().await;
    let config = parse(web, &text)?;
    let before = current(web).await?;
    if expected.is_some_and(|expected| expected != before.version) {
        return Err(ApplyError::Stale);
    }
    let tried = text.clone();
    web.work(move |appliance| appliance.fits(&config, &tried)).await??;
    let file = web.appliance().configuration_file();
    if before.text != text {
        let (file, text) = (file.clone(), text.clone());
        spawn_blocking(move || replace(&file, &text)).await.map_err(|_| Failure::Lost)??;
    }
    let (who, new) = (by.to_owned(), text);
    web.store(move |store| {
        if store.configuration_versions()?.is_empty() {
            store.record_configuration(&before.text, FOUND, now_unix())?;
        }
        store.record_configuration(&new, &who, now_unix())
    })
    .await?;
    let reloaded = web.appliance().reload()?;
    web.forget_status();
    info!(by, file = %file.display(), applied = ?reloaded.applied, waiting = ?reloaded.waiting_for_restart, "configuration applied");
    Ok(reloaded)
}

fn replace(file: &Path, text: &str) -> Result<(), ApplyError> {
    save::replace(file, text).map_err(|error| {
        ApplyError::File(format!(
            "{} cannot be written: {error}; the daemon's user needs to write to its directory",
            file.display()
        ))
    })
}
