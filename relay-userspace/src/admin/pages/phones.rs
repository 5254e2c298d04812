//! The phones: their registrations as the appliance has relayed them, and what each did on its way there.

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
    control::PhoneView,
};

/// Phones on the page; the filter finds the others.
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
    phones: Vec<PhoneView>,
    found: usize,
    all: usize,
}

impl PhonesPage {
    /// Whether any of them was seen starting: by DHCP, by the relay of files, by the clock.
    fn has_stages(&self) -> bool {
        self.phones.iter().any(|phone| !phone.activity.stages.is_empty())
    }

    fn has_registrations(&self) -> bool {
        self.phones.iter().any(|phone| !phone.registrations.is_empty())
    }
}

/// What a phone calls itself, wherever it said so.
fn kind(phone: &PhoneView) -> &str {
    let registered = phone.registrations.iter().find_map(|registration| registration.user_agent.as_deref());
    let activity = &phone.activity;
    registered.or(activity.user_agent.as_deref()).or(activity.vendor_class.as_deref()).unwrap_or_default()
}

/// Whether a word is somewhere in what is shown of a phone.
fn has(phone: &PhoneView, word: &str) -> bool {
    let activity = &phone.activity;
    let own = [&activity.hardware_address, &activity.address, &activity.vendor_class, &activity.user_agent];
    let registrations = phone.registrations.iter().flat_map(|registration| {
        let texts = [&registration.address_of_record, &registration.contact, &registration.network];
        texts.into_iter().chain(&registration.user_agent)
    });
    let stages = activity.stages.iter().flat_map(|stage| [&stage.stage, &stage.detail]);
    let mut texts = own.into_iter().flatten().chain(registrations).chain(stages);
    texts.any(|text| text.to_lowercase().contains(word))
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(filter): Query<Filter>,
) -> Response {
    let mut phones = web.appliance().phones();
    let all = phones.len();
    let wanted: Vec<String> = filter.q.split_whitespace().map(str::to_lowercase).collect();
    phones.retain(|phone| wanted.iter().all(|word| has(phone, word)));
    let found = phones.len();
    phones.truncate(MOST);
    show(&PhonesPage {
        frame: Frame::new(&web, &signed, "Phones", "/phones"),
        q: filter.q,
        phones,
        found,
        all,
    })
}
