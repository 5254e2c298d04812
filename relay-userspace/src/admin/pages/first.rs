//! The first configuration: two networks and a server at once, because less than that is none.
//!
//! Interfaces are chosen among those that the host has, so that nobody has to know their names. What is wrong is told
//! at its field.

use askama::Template;
use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use ipnet::IpNet;

use super::{
    frame::{Frame, PageError, show_as},
    networks::{self, Refused},
};
use crate::{
    admin::{
        access::Notice,
        apply::{self, ApplyError},
        guard::{Fields, Signed},
        state::Web,
    },
    config::{
        edit::{self, Change},
        keys::{Kind, Value},
    },
};

/// Names and roles of the two networks, in the order in which they are made.
const NETWORKS: [(&str, &str); 2] = [("office", "phones"), ("wan", "servers")];

/// A field.
#[derive(Debug, Default)]
struct Entry {
    typed: String,
    error: Option<String>,
}

impl Entry {
    fn of(fields: &Fields, name: &str) -> Self {
        Self { typed: fields.get(name).trim().to_owned(), error: None }
    }
}

/// One network's fields.
#[derive(Debug, Default)]
struct Side {
    interface: Entry,
    address: Entry,
}

/// What was typed.
#[derive(Debug, Default)]
struct Typed {
    /// The networks, in the order of [`NETWORKS`].
    sides: [Side; 2],
    servers: Entry,
    /// What is wrong with no field in particular.
    error: Option<String>,
}

impl Typed {
    /// Whether something is wrong at a field.
    fn has_errors(&self) -> bool {
        let sides = self.sides.iter().flat_map(|side| [&side.interface, &side.address]);
        sides.chain([&self.servers]).any(|entry| entry.error.is_some())
    }
}

/// An interface to choose.
pub(super) struct Interface {
    pub(super) name: String,
    /// Its addresses, for people.
    pub(super) addresses: String,
}

/// The interfaces to choose from. One that was chosen and is gone stays, so that the error has something to be about.
pub(super) fn choices(present: Vec<(String, Vec<IpNet>)>, chosen: &[&str]) -> Vec<Interface> {
    let mut choices: Vec<Interface> = present
        .into_iter()
        .map(|(name, nets)| {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let addresses = if nets.is_empty() { "no address".to_owned() } else { nets.join(", ") };
            Interface { name, addresses }
        })
        .collect();
    for name in chosen {
        if !name.is_empty() && !choices.iter().any(|choice| choice.name == *name) {
            choices.push(Interface { name: (*name).to_owned(), addresses: "not there".to_owned() });
        }
    }
    choices
}

#[derive(Template)]
#[template(path = "first.html")]
struct FirstPage {
    frame: Frame,
    version: String,
    interfaces: Vec<Interface>,
    office: Side,
    wan: Side,
    servers: Entry,
    error: Option<String>,
    has_errors: bool,
}

/// The form, empty.
pub(super) async fn page(web: &Web, signed: &Signed, version: String) -> Result<Response, PageError> {
    render(web, signed, StatusCode::OK, version, Typed::default()).await
}

async fn render(
    web: &Web,
    signed: &Signed,
    status: StatusCode,
    version: String,
    typed: Typed,
) -> Result<Response, PageError> {
    let present = web.work(|appliance| appliance.interfaces()).await?;
    let chosen = typed.sides.each_ref().map(|side| side.interface.typed.as_str());
    let interfaces = choices(present, &chosen);
    let frame = Frame::new(web, signed, "First configuration", networks::PAGE);
    let has_errors = typed.has_errors();
    let Typed { sides: [office, wan], servers, error } = typed;
    Ok(show_as(status, &FirstPage { frame, version, interfaces, office, wan, servers, error, has_errors }))
}

/// What the form changes; what cannot be read is noted at its field.
fn changes(typed: &mut Typed) -> Vec<Change> {
    let mut changes = Vec::new();
    for (network, ((name, role), side)) in NETWORKS.into_iter().zip(&typed.sides).enumerate() {
        changes.push(Change::AddNetwork {
            name: name.to_owned(),
            role: role.to_owned(),
            interface: side.interface.typed.clone(),
        });
        if !side.address.typed.is_empty() {
            let value = Value::Text(side.address.typed.clone());
            changes.push(Change::SetInNetwork { network, key: "address".to_owned(), value });
        }
    }
    match Kind::List.read(&typed.servers.typed) {
        Ok(value) => changes.push(Change::Set { key: "upstream.servers".to_owned(), value }),
        Err(error) => typed.servers.error = Some(error),
    }
    let [office, wan] = &mut typed.sides;
    for side in [&mut *office, &mut *wan] {
        if side.interface.typed.is_empty() {
            side.interface.error = Some("choose an interface".to_owned());
        }
    }
    let is_one = office.interface.typed == wan.interface.typed && office.address.typed == wan.address.typed;
    if is_one && office.interface.error.is_none() {
        wan.interface.error = Some(
            "the phones are by this interface already: choose another one, or give each side an address of its own"
                .to_owned(),
        );
    }
    changes
}

/// Puts what is wrong at its field.
fn place(typed: &mut Typed, text: &str, error: &ApplyError) {
    let (key, line, message) = match error {
        ApplyError::Invalid(error) => (error.key.as_str(), error.line, error.message.clone()),
        ApplyError::Edit(error) => (error.key.as_str(), None, error.message.clone()),
        other => {
            typed.error = Some(other.to_string());
            return;
        }
    };
    let side = line.and_then(|line| edit::network_at(text, line)).and_then(|side| typed.sides.get_mut(side));
    let entry = match (key, side) {
        ("upstream.servers", _) => &mut typed.servers,
        ("network.address", Some(side)) => &mut side.address,
        // Whatever else is wrong with a network, such as a port that is taken, is wrong at this interface.
        (key, Some(side)) if key.starts_with("network.") => &mut side.interface,
        _ => {
            typed.error = Some(format!("{key}: {message}"));
            return;
        }
    };
    entry.error = Some(message);
}

pub(super) async fn begin(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let side = |name: &str| Side {
        interface: Entry::of(&fields, name),
        address: Entry::of(&fields, &format!("{name}_address")),
    };
    let mut typed = Typed {
        sides: NETWORKS.map(|(name, _)| side(name)),
        servers: Entry { typed: fields.lines("servers").replace('\r', ""), error: None },
        error: None,
    };
    let current = apply::current(&web).await?;
    let changes = changes(&mut typed);
    if !typed.has_errors() {
        match networks::edited(&web, &signed, &current, &changes, fields.get("version")).await {
            Ok(_) => {
                let words = "The first configuration is saved. It takes effect with a restart.";
                web.sessions().leave_notice(&signed.id, Notice::Done(words.to_owned()));
                return Ok(Redirect::to("/").into_response());
            }
            Err(Refused { error: ApplyError::Failure(failure), .. }) => return Err(failure.into()),
            Err(Refused { text, error }) => {
                place(&mut typed, text.as_deref().unwrap_or(&current.text), &error);
            }
        }
    }
    render(&web, &signed, StatusCode::UNPROCESSABLE_ENTITY, current.version, typed).await
}
