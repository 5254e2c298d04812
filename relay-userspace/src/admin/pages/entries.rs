//! Authentication entries: the credentials with which the appliance answers a server's challenge for a phone.
//! A password is set and never shown.

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use serde::Deserialize;
use tracing::info;
use zeroize::Zeroizing;

use super::{
    frame::{Frame, PageError, show_as},
    words,
};
use crate::{
    admin::{
        access::Notice,
        guard::{Fields, Signed},
        state::{Failure, Web},
    },
    store::Entry,
};

/// The page's path.
const PAGE: &str = "/authentication";
/// Most entries.
const MOST: usize = 10_000;
/// Entries on the page; the filter finds the others.
const ON_A_PAGE: usize = 500;
/// Bytes of each part of an entry.
const LONGEST: usize = 128;
/// Most aliases of an entry.
const MOST_ALIASES: usize = 32;

/// An entry as it is typed, by a person or a program.
#[derive(Debug, Clone, Default)]
pub(in crate::admin) struct Typed {
    pub(in crate::admin) registration_id: String,
    pub(in crate::admin) user: String,
    /// Empty: it stays as it is.
    pub(in crate::admin) password: Zeroizing<String>,
    pub(in crate::admin) aliases: Vec<String>,
}

/// What is wrong with an entry: the field, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admin) struct Wrong {
    pub(in crate::admin) field: &'static str,
    pub(in crate::admin) why: String,
}

/// Checks what was typed.
pub(in crate::admin) fn check(typed: &Typed) -> Result<(), Wrong> {
    let wrong = |field, why: &str| Err(Wrong { field, why: why.to_owned() });
    // What may stand in the user part of a SIP URI without escapes (RFC 3261 section 25.1), as extensions are.
    let is_user = |text: &str| {
        (1..=LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$?/".contains(&byte))
    };
    let is_text = |text: &str| text.len() <= LONGEST && !text.chars().any(char::is_control);
    if !is_user(&typed.registration_id) {
        return wrong("registration_id", "1 to 128 characters, as they stand before the @ of a SIP address");
    }
    let odd = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | '<' | '>');
    if typed.user.is_empty() || !is_text(&typed.user) || typed.user.contains(odd) {
        return wrong("user", "1 to 128 characters, no blanks, commas, quotes or angle brackets");
    }
    if !is_text(&typed.password) {
        return wrong("password", "at most 128 characters, no line ends");
    }
    if typed.aliases.len() > MOST_ALIASES {
        return wrong("aliases", "at most 32 of them");
    }
    if let Some(alias) = typed.aliases.iter().find(|alias| !is_user(alias)) {
        return wrong("aliases", &format!("{alias:?} cannot stand before the @ of a SIP address"));
    }
    Ok(())
}

/// Keeps an entry; without a password, that of the entry that there is.
pub(in crate::admin) async fn keep(web: &Web, typed: Typed) -> Result<Result<(), Wrong>, Failure> {
    if let Err(wrong) = check(&typed) {
        return Ok(Err(wrong));
    }
    let entries = web.store(|store| store.entries()).await?;
    web.ask(move |appliance| {
        let old = entries.iter().find(|entry| entry.registration_id == typed.registration_id);
        if old.is_none() && entries.len() >= MOST {
            return Ok(Err(Wrong { field: "registration_id", why: format!("there may be {MOST} entries") }));
        }
        let (password, digests) = match old {
            _ if !typed.password.is_empty() => (typed.password, Vec::new()),
            // What stands for a password stands for it with that user name.
            Some(old) if old.user == typed.user => (old.password.clone(), old.digests.clone()),
            Some(old) if !old.password.is_empty() => (old.password.clone(), Vec::new()),
            Some(_) => {
                let why = "set it anew: it is not kept, and what is kept is for the old user name".to_owned();
                return Ok(Err(Wrong { field: "password", why }));
            }
            None => {
                let why = "a new entry needs a password".to_owned();
                return Ok(Err(Wrong { field: "password", why }));
            }
        };
        let Typed { registration_id, user, aliases, .. } = typed;
        let entry = Entry { registration_id, user, password, digests, aliases };
        if let Err(why) = entry.check() {
            return Ok(Err(Wrong { field: "registration_id", why }));
        }
        appliance.put_entry(&entry)?;
        Ok(Ok(()))
    })
    .await
}

/// Reads a list as people type it.
pub(in crate::admin) fn read_aliases(typed: &str) -> Vec<String> {
    let items = typed.split(|c: char| c == ',' || c.is_whitespace());
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[derive(Template)]
#[template(path = "entries.html")]
struct EntriesPage {
    frame: Frame,
    q: String,
    entries: Vec<Entry>,
    found: usize,
    all: usize,
    typed: Typed,
    wrong: Option<Wrong>,
    editing: bool,
}

impl EntriesPage {
    fn error(&self, field: &str) -> Option<&str> {
        self.wrong.as_ref().filter(|wrong| wrong.field == field).map(|wrong| wrong.why.as_str())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    id: String,
}

async fn render(
    web: &Web,
    signed: &Signed,
    status: StatusCode,
    q: String,
    typed: Typed,
    wrong: Option<Wrong>,
    editing: bool,
) -> Result<Response, PageError> {
    let mut entries = web.store(|store| store.entries()).await?;
    let all = entries.len();
    let wanted = q.trim().to_lowercase();
    entries.retain(|entry| {
        let fields = [&entry.registration_id, &entry.user];
        fields.into_iter().chain(&entry.aliases).any(|field| field.to_lowercase().contains(&wanted))
    });
    let found = entries.len();
    entries.truncate(ON_A_PAGE);
    let frame = Frame::new(web, signed, "Authentication", PAGE);
    Ok(show_as(status, &EntriesPage { frame, q, entries, found, all, typed, wrong, editing }))
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(filter): Query<Filter>,
) -> Result<Response, PageError> {
    render(&web, &signed, StatusCode::OK, filter.q, Typed::default(), None, false).await
}

pub(super) async fn edit(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(filter): Query<Filter>,
) -> Result<Response, PageError> {
    let entries = web.store(|store| store.entries()).await?;
    let entry =
        entries.into_iter().find(|entry| entry.registration_id == filter.id).ok_or(PageError::NotFound)?;
    let typed = Typed {
        registration_id: entry.registration_id,
        user: entry.user,
        password: Zeroizing::default(),
        aliases: entry.aliases,
    };
    render(&web, &signed, StatusCode::OK, filter.q, typed, None, true).await
}

pub(super) async fn put(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let typed = Typed {
        registration_id: fields.get("registration_id").trim().to_owned(),
        user: fields.get("user").trim().to_owned(),
        password: Zeroizing::new(fields.get("password").to_owned()),
        aliases: read_aliases(fields.get("aliases")),
    };
    let editing = !fields.get("editing").is_empty();
    match keep(&web, typed.clone()).await? {
        Ok(()) => {
            let id = &typed.registration_id;
            info!(by = signed.session.name, registration = id, "authentication entry saved");
            let notice = Notice::Done(format!("Entry {id} is saved."));
            web.sessions().leave_notice(&signed.id, notice);
            Ok(Redirect::to(PAGE).into_response())
        }
        Err(wrong) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render(&web, &signed, status, String::new(), typed, Some(wrong), editing).await
        }
    }
}

pub(super) async fn remove(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, PageError> {
    let id = fields.get("registration_id").to_owned();
    let wanted = id.clone();
    if !web.ask(move |appliance| appliance.remove_entry(&wanted)).await? {
        return Err(PageError::NotFound);
    }
    info!(by = signed.session.name, registration = id, "authentication entry removed");
    web.sessions().leave_notice(&signed.id, Notice::Done(format!("Entry {id} is removed.")));
    Ok(Redirect::to(PAGE).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_checked_field_by_field() {
        let typed = |id: &str, user: &str, password: &str, aliases: &str| Typed {
            registration_id: id.to_owned(),
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            aliases: read_aliases(aliases),
        };
        let rows = [
            ("good", typed("1001", "station-1", "p\u{e4}ss", "2001, 2002\n2003"), None),
            ("no id", typed("", "u", "p", ""), Some("registration_id")),
            ("an id with a host", typed("1001@host", "u", "p", ""), Some("registration_id")),
            ("an id with a line end", typed("1001\r\nX", "u", "p", ""), Some("registration_id")),
            ("no user", typed("1001", "", "p", ""), Some("user")),
            ("a user with a blank", typed("1001", "u v", "p", ""), Some("user")),
            ("a user with a line end", typed("1001", "u\nv", "p", ""), Some("user")),
            ("a long password", typed("1001", "u", &"x".repeat(129), ""), Some("password")),
            ("a bad alias", typed("1001", "u", "p", "20;01"), Some("aliases")),
            ("many aliases", typed("1001", "u", "p", &"1 ".repeat(33)), Some("aliases")),
        ];
        for (description, typed, expected) in rows {
            assert_eq!(check(&typed).err().map(|wrong| wrong.field), expected, "{description}");
        }
    }
}
