//! The networks: a form for each, one Apply for all; networks are added and removed one at a time.

use askama::Template;
use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    configuration::told,
    first::{self, Interface},
    form::Field,
    frame::{Frame, PageError, show_as},
    sections,
};
use crate::{
    admin::{
        access::Notice,
        apply::{self, ApplyError, Current, parse},
        guard::{Fields, Signed},
        state::Web,
    },
    config::{
        edit::{self, Change, edit},
        keys,
    },
};

/// The page's path.
pub(super) const PAGE: &str = "/configuration/networks";

/// One network's fields.
struct Block {
    position: usize,
    title: String,
    fields: Vec<Field>,
}

#[derive(Template)]
#[template(path = "networks.html")]
struct NetworksPage {
    frame: Frame,
    blocks: Vec<Block>,
    version: String,
    error: Option<String>,
    added: Added,
    interfaces: Vec<Interface>,
}

impl NetworksPage {
    fn has_errors(&self) -> bool {
        self.blocks.iter().flat_map(|block| &block.fields).any(|field| field.error.is_some())
    }
}

/// What was typed for a further network.
#[derive(Default)]
struct Added {
    name: String,
    role: String,
    interface: String,
    error: Option<String>,
}

/// What the page says beside what it always does.
#[derive(Default)]
struct Said {
    error: Option<String>,
    added: Added,
}

/// The networks as the file has them, or as they were sent.
fn blocks(web: &Web, current: &Current, sent: Option<&Fields>) -> Result<Vec<Block>, String> {
    let config = parse(web, &current.text)
        .map_err(|error| format!("The file is not valid and has to be repaired by hand: {error}"))?;
    let block = |(position, network): (usize, &crate::config::Network)| {
        let field = |described: &'static sections::Described| {
            let key = keys::find_in_network(described.key)?;
            let name = format!("network.{position}.{}", described.key);
            let in_file = (key.value)(network);
            Some(Field {
                label: described.label,
                help: described.help,
                control: &described.control,
                // The page says it once for all of them.
                restart: false,
                typed: sent.map_or_else(|| in_file.to_text(), |sent| sent.lines(&name).replace('\r', "")),
                error: None,
                in_file,
                kind: key.kind,
                name,
            })
        };
        let fields = sections::NETWORK.iter().filter_map(field).collect();
        Block { position, title: network.name.clone(), fields }
    };
    Ok(config.networks().map(|(_, network)| network).enumerate().map(block).collect())
}

async fn render(
    web: &Web,
    signed: &Signed,
    status: StatusCode,
    blocks: Result<Vec<Block>, String>,
    version: String,
    said: Said,
) -> Result<Response, PageError> {
    let Said { error, added } = said;
    let (blocks, broken) = match blocks {
        Ok(blocks) => (blocks, None),
        Err(broken) => (Vec::new(), Some(broken)),
    };
    let present = web.work(|appliance| appliance.interfaces()).await?;
    let interfaces = first::choices(present, &[&added.interface]);
    let frame = Frame::new(web, signed, "Networks", PAGE);
    let error = error.or(broken);
    Ok(show_as(status, &NetworksPage { frame, blocks, version, error, added, interfaces }))
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    let blocks = blocks(&web, &current, None);
    if blocks.as_ref().is_ok_and(Vec::is_empty) {
        return first::page(&web, &signed, current.version).await;
    }
    render(&web, &signed, StatusCode::OK, blocks, current.version, Said::default()).await
}

pub(super) async fn apply(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let current = apply::current(&web).await?;
    let mut blocks = match blocks(&web, &current, Some(&fields)) {
        Ok(blocks) => blocks,
        Err(broken) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return render(&web, &signed, status, Err(broken), current.version, Said::default()).await;
        }
    };
    let mut changes = Vec::new();
    for block in &mut blocks {
        for (field, described) in block.fields.iter_mut().zip(sections::NETWORK) {
            if let Some(value) = field.changed() {
                let key = described.key.to_owned();
                changes.push(Change::SetInNetwork { network: block.position, key, value });
            }
        }
    }
    let mut error = None;
    if !blocks.iter().flat_map(|block| &block.fields).any(|field| field.error.is_some()) {
        match edited(&web, &signed, &current, &changes, fields.get("version")).await {
            Ok(response) => return Ok(response),
            Err(Refused { text, error: refused }) => match refused {
                ApplyError::Failure(failure) => return Err(failure.into()),
                refused => error = place(&mut blocks, text.as_deref().unwrap_or(&current.text), &refused),
            },
        }
    }
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render(&web, &signed, status, Ok(blocks), current.version, Said { error, ..Said::default() }).await
}

/// Why it was not applied, and the text that was tried.
pub(super) struct Refused {
    pub(super) text: Option<String>,
    pub(super) error: ApplyError,
}

pub(super) async fn edited(
    web: &Web,
    signed: &Signed,
    current: &Current,
    changes: &[Change],
    version: &str,
) -> Result<Response, Refused> {
    let text = edit(&current.text, changes).map_err(|error| Refused { text: None, error: error.into() })?;
    match apply::apply(web, text.clone(), Some(version), &signed.session.name).await {
        Ok(done) => {
            web.sessions().leave_notice(&signed.id, Notice::Done(told(&done)));
            Ok(Redirect::to(PAGE).into_response())
        }
        Err(error) => Err(Refused { text: Some(text), error }),
    }
}

/// Puts what is wrong at its field; returns it when it has none.
fn place(blocks: &mut [Block], text: &str, error: &ApplyError) -> Option<String> {
    let (key, line, message) = match error {
        ApplyError::Invalid(error) => (error.key.as_str(), error.line, error.message.clone()),
        ApplyError::Edit(error) => (error.key.as_str(), None, error.message.clone()),
        other => return Some(other.to_string()),
    };
    let network = line.and_then(|line| edit::network_at(text, line));
    let name =
        network.zip(key.strip_prefix("network.")).map(|(network, key)| format!("network.{network}.{key}"));
    let field = blocks
        .iter_mut()
        .flat_map(|block| &mut block.fields)
        .find(|field| name.as_ref().is_some_and(|name| *name == field.name));
    match field {
        Some(field) => {
            field.error = Some(message);
            None
        }
        None => Some(format!("{key}: {message}")),
    }
}

pub(super) async fn add(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let field = |name| fields.get(name).trim().to_owned();
    let mut added =
        Added { name: field("name"), role: field("role"), interface: field("interface"), error: None };
    let change = Change::AddNetwork {
        name: added.name.clone(),
        role: added.role.clone(),
        interface: added.interface.clone(),
    };
    let current = apply::current(&web).await?;
    match edited(&web, &signed, &current, &[change], fields.get("version")).await {
        Ok(response) => Ok(response),
        Err(Refused { error: ApplyError::Failure(failure), .. }) => Err(failure.into()),
        Err(Refused { error, .. }) => {
            added.error = Some(message(&error));
            let (blocks, status) = (blocks(&web, &current, None), StatusCode::UNPROCESSABLE_ENTITY);
            render(&web, &signed, status, blocks, current.version, Said { added, ..Said::default() }).await
        }
    }
}

pub(super) async fn remove(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let network = fields.get("network").parse().map_err(|_| PageError::NoForm)?;
    let current = apply::current(&web).await?;
    match edited(&web, &signed, &current, &[Change::RemoveNetwork { network }], fields.get("version")).await {
        Ok(response) => Ok(response),
        Err(Refused { error: ApplyError::Failure(failure), .. }) => Err(failure.into()),
        Err(Refused { error, .. }) => {
            let (blocks, status) = (blocks(&web, &current, None), StatusCode::UNPROCESSABLE_ENTITY);
            let error = Some(format!("The network stays: {}", message(&error)));
            render(&web, &signed, status, blocks, current.version, Said { error, ..Said::default() }).await
        }
    }
}

fn message(error: &ApplyError) -> String {
    match error {
        ApplyError::Invalid(error) => format!("{}: {}", error.key, error.message),
        other => other.to_string(),
    }
}
