//! The status page: whether calls work, networks, load, what was not forwarded.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use relay_ebpf::{Fate, Reason};

use super::{
    frame::{Frame, show},
    words,
};
use crate::{
    admin::{guard::Signed, state::Web},
    control::StatusView,
    symptoms::Severity,
};

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    frame: Frame,
    live: String,
}

#[derive(Template)]
#[template(path = "status_live.html")]
struct StatusLive {
    status: Arc<StatusView>,
}

impl StatusLive {
    fn relayed(&self) -> u64 {
        self.status.kernel_packets.saturating_add(self.status.userspace_packets)
    }

    /// Reasons that have counted anything, the most frequent first.
    fn not_forwarded(&self) -> Vec<(String, u64, u64)> {
        let mut reasons: Vec<_> = self
            .status
            .not_forwarded
            .iter()
            .filter(|(_, kernel, relay)| kernel + relay > 0)
            .cloned()
            .collect();
        reasons.sort_by_key(|(_, kernel, relay)| std::cmp::Reverse(kernel + relay));
        reasons
    }
}

fn reason(label: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label)
}

/// What a reason means, in a sentence.
fn meaning(label: &str) -> &'static str {
    reason(label).map_or("", Reason::explanation)
}

/// What becomes of a packet for a reason.
fn fate(label: &str) -> &'static str {
    match reason(label).map(Reason::fate) {
        Some(Fate::Dropped) => "dropped",
        _ => "handed on",
    }
}

pub(super) async fn page(State(web): State<Web>, Extension(signed): Extension<Signed>) -> Response {
    show(&StatusPage { frame: Frame::new(&web, &signed, "Bridge", "/"), live: live(&web) })
}

/// The part that is live.
pub(super) fn live(web: &Web) -> String {
    StatusLive { status: web.status() }.render().unwrap_or_default()
}
