//! The pages: one file for each group of them, templates in `templates/`.
//!
//! A page is whole without scripts: forms post, the answer is a redirection to a page that says what was done. Scripts
//! only make live what is there. Everything that comes from outside is escaped by the templates.

mod about;
mod administration;
mod captures;
mod certificates;
mod configuration;
mod diagnostics;
mod door;
mod entries;
mod events;
mod first;
mod form;
mod frame;
mod networks;
mod phones;
mod sections;
mod sessions;
mod status;
mod traces;
mod versions;
mod words;

use axum::{
    Router, middleware,
    routing::{get, post},
};

pub(super) use about::REVISION;
pub(super) use administration::make_token;
pub(super) use entries::{Typed as EntryTyped, keep as keep_entry};
pub(super) use frame::{PageError, not_set_up};
pub(super) use words::encode;

use super::{guard, state::Web};

pub(super) fn router(web: &Web) -> Router<Web> {
    let signed = Router::new()
        .route("/", get(status::page))
        .route("/sessions", get(sessions::page))
        .route("/sessions/call", get(sessions::call))
        .route("/sessions/messages", get(traces::page))
        .route("/sessions/messages.pcapng", get(traces::download))
        .route("/phones", get(phones::page))
        .route("/events/{view}", get(events::stream))
        .route("/configuration/networks", get(networks::page).post(networks::apply))
        .route("/configuration/networks/begin", post(first::begin))
        .route("/configuration/networks/add", post(networks::add))
        .route("/configuration/networks/remove", post(networks::remove))
        .route("/configuration/history", get(versions::page))
        .route("/configuration/history/{number}", get(versions::text))
        .route("/configuration/history/restore", post(versions::restore))
        .route("/configuration/{section}", get(configuration::page).post(configuration::apply))
        .route("/authentication", get(entries::page).post(entries::put))
        .route("/authentication/edit", get(entries::edit))
        .route("/authentication/remove", post(entries::remove))
        .route("/certificates", get(certificates::page))
        .route("/certificates/authority.pem", get(certificates::authority))
        .route("/certificates/{fingerprint}", get(certificates::details))
        .route("/certificates/{fingerprint}/chain.pem", get(certificates::chain))
        .route("/certificates/{fingerprint}/trust", post(certificates::trust))
        .route("/certificates/{fingerprint}/forget", post(certificates::forget))
        .route("/diagnostics", get(diagnostics::page))
        .route("/diagnostics/branchline.toml", get(diagnostics::download))
        .route("/captures/start", post(captures::start))
        .route("/captures/{name}/stop", post(captures::stop))
        .route("/captures/{name}/remove", post(captures::remove))
        .route("/captures/{name}/content", get(captures::download))
        .route("/administration", get(administration::page))
        .route("/administration/own", post(administration::change_own))
        .route("/administration/add", post(administration::add))
        .route("/administration/remove", post(administration::remove))
        .route("/administration/tokens/add", post(administration::add_token))
        .route("/administration/tokens/remove", post(administration::remove_token))
        .route("/restart", post(administration::restart))
        .route("/about", get(about::page))
        .route("/sign-out", post(door::sign_out))
        .fallback(frame::not_found)
        .layer(middleware::from_fn_with_state(web.clone(), guard::signed));
    let door = Router::new().route("/sign-in", get(door::sign_in_page).post(door::sign_in));
    let inside =
        signed.merge(door).layer(middleware::from_fn_with_state(web.clone(), guard::needs_administrator));
    Router::new()
        .route("/setup", get(door::setup_page).post(door::setup))
        .merge(inside)
        .layer(middleware::from_fn_with_state(web.clone(), guard::own_forms))
}
