//! The phones: their registrations as the appliance has relayed them.

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    frame::{Frame, show},
    words,
};
use crate::{
    admin::{guard::Signed, state::Web},
    control::BindingView,
};

/// Registrations on the page; the filter finds the others.
const MOST: usize = 500;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
}

#[derive(Template)]
#[template(path = "phones.html")]
struct PhonesPage {
    frame: Frame,
    q: String,
    bindings: Vec<BindingView>,
    found: usize,
    all: usize,
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(filter): Query<Filter>,
) -> Response {
    let mut bindings = web.appliance().bindings();
    let all = bindings.len();
    let wanted: Vec<String> = filter.q.split_whitespace().map(str::to_lowercase).collect();
    bindings.retain(|binding| {
        let fields = [&binding.address_of_record, &binding.contact, &binding.network, &binding.source];
        let has = |word: &String| {
            fields.into_iter().chain(&binding.user_agent).any(|field| field.to_lowercase().contains(word))
        };
        wanted.iter().all(has)
    });
    let found = bindings.len();
    bindings.truncate(MOST);
    show(&PhonesPage {
        frame: Frame::new(&web, &signed, "Phones", "/phones"),
        q: filter.q,
        bindings,
        found,
        all,
    })
}
