//! What this is and where it runs.

use askama::Template;
use axum::{Extension, extract::State, response::Response};

use super::{
    frame::{Frame, show},
    words,
};
use crate::admin::{Machine, guard::Signed, state::Web};

/// The revision that this was built from, if whoever built it said so.
pub(in crate::admin) const REVISION: Option<&str> = option_env!("BRANCHLINE_REVISION");

#[derive(Template)]
#[template(path = "about.html")]
struct AboutPage {
    frame: Frame,
    version: &'static str,
    revision: &'static str,
    machine: Machine,
    since: String,
    uptime: String,
}

pub(super) async fn page(State(web): State<Web>, Extension(signed): Extension<Signed>) -> Response {
    show(&AboutPage {
        frame: Frame::new(&web, &signed, "About", "/about"),
        version: env!("CARGO_PKG_VERSION"),
        revision: REVISION.unwrap_or("not recorded in this build"),
        machine: web.appliance().machine(),
        since: words::moment(web.appliance().started_unix()),
        uptime: words::span(web.status().uptime_seconds),
    })
}
