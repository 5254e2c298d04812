//! The calls: a table, longest first, with a filter; and each call's details.

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    captures,
    frame::{Frame, PageError, show},
    words,
};
use crate::{
    admin::{Which, guard::Signed, state::Web},
    capture::CaptureView,
    control::{CallView, FlowView, RefusalView},
    quality::Verdict,
};

/// Calls on a page.
const ON_A_PAGE: usize = 50;

/// What of the calls is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Selection {
    /// Words that must all be in a call.
    q: String,
    /// The page, from 1; what is no number is the first.
    page: String,
    /// Not empty: ended calls, too.
    ended: String,
}

impl Selection {
    fn page(&self) -> usize {
        self.page.parse().unwrap_or(1)
    }

    fn query(&self, page: usize) -> String {
        let ended = if self.ended.is_empty() { "" } else { "&ended=1" };
        format!("q={}&page={page}{ended}", words::encode(&self.q))
    }
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    selection: Selection,
    live: String,
    events: String,
}

#[derive(Template)]
#[template(path = "sessions_live.html")]
struct SessionsLive {
    calls: Vec<CallView>,
    found: usize,
    all: usize,
    page: usize,
    pages: usize,
    previous: Option<String>,
    next: Option<String>,
    filtered: bool,
}

#[derive(Template)]
#[template(path = "call.html")]
struct CallPage {
    frame: Frame,
    call_id: String,
    stands: bool,
    captures: Vec<CaptureView>,
    live: String,
    events: String,
}

#[derive(Template)]
#[template(path = "call_live.html")]
struct CallLive {
    call: Option<CallView>,
    flows: Vec<FlowView>,
}

impl CallLive {
    fn has_rtcp(&self) -> bool {
        self.flows.iter().any(|flow| flow.kind == "rtcp")
    }

    fn streams(&self) -> impl Iterator<Item = &FlowView> {
        self.flows.iter().filter(|flow| flow.kind != "rtcp")
    }

    /// Who was refused: by flows that are there, and by those that are gone.
    fn refusals(&self) -> Vec<&RefusalView> {
        let kept = self.call.iter().flat_map(|call| &call.refusals);
        self.flows.iter().flat_map(|flow| &flow.refusals).chain(kept).collect()
    }

    fn refused_further(&self) -> u64 {
        self.flows.iter().map(|flow| flow.refused_further).sum()
    }
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(selection): Query<Selection>,
) -> Response {
    let live = live(&web, &selection);
    let events = format!("/events/sessions?{}", selection.query(selection.page()));
    show(&SessionsPage { frame: Frame::new(&web, &signed, "Sessions", "/sessions"), selection, live, events })
}

/// The table.
pub(super) fn live(web: &Web, selection: &Selection) -> String {
    let kept;
    let ended;
    let calls: &[CallView] = if selection.ended.is_empty() {
        kept = web.live_calls();
        &kept
    } else {
        ended = web.appliance().calls(Which::WithEnded);
        &ended
    };
    let found = find(calls, &selection.q);
    let pages = found.len().div_ceil(ON_A_PAGE).max(1);
    let page = selection.page().clamp(1, pages);
    let shown =
        found.iter().skip((page - 1) * ON_A_PAGE).take(ON_A_PAGE).map(|call| (*call).clone()).collect();
    let link = |page: usize| format!("/sessions?{}", selection.query(page));
    let table = SessionsLive {
        calls: shown,
        found: found.len(),
        all: calls.len(),
        page,
        pages,
        previous: (page > 1).then(|| link(page - 1)),
        next: (page < pages).then(|| link(page + 1)),
        filtered: !selection.q.trim().is_empty(),
    };
    table.render().unwrap_or_default()
}

/// Calls in which each word is somewhere, whatever its case.
fn find<'a>(calls: &'a [CallView], filter: &str) -> Vec<&'a CallView> {
    let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
    let has = |call: &CallView, word: &str| {
        let fields = [&call.to, &call.from, &call.call_id, &call.state, &call.from_network, &call.to_network];
        let agents = [&call.from_agent, &call.to_agent].into_iter().flatten();
        fields.into_iter().chain(agents).any(|field| field.to_lowercase().contains(word))
    };
    calls.iter().filter(|call| words.iter().all(|word| has(call, word))).collect()
}

/// Which call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// Its Call-ID.
    id: String,
}

pub(super) async fn call(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, PageError> {
    let Some(call) = look_up(&web, &wanted.id) else { return Err(PageError::NotFound) };
    let captures = captures::list(&web, Some(&wanted.id)).await?;
    let live = call_live(&web, &wanted);
    let events = format!("/events/call?id={}", words::encode(&wanted.id));
    let stands = call.outcome.is_none();
    let frame = Frame::new(&web, &signed, "Session", "/sessions");
    Ok(show(&CallPage { frame, call_id: call.call_id, stands, captures, live, events }))
}

/// The details. A call that has ended keeps its page for as long as the appliance remembers it.
pub(super) fn call_live(web: &Web, wanted: &Wanted) -> String {
    let call = look_up(web, &wanted.id);
    let live = call.as_ref().is_some_and(|call| call.outcome.is_none());
    let flows = if live { web.appliance().flows(Some(&wanted.id)) } else { Vec::new() };
    CallLive { call, flows }.render().unwrap_or_default()
}

fn look_up(web: &Web, id: &str) -> Option<CallView> {
    web.appliance().calls_named(id).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_the_filter_must_be_somewhere_in_the_call() {
        let call = |from: &str, to: &str| CallView {
            call_id: format!("{from}-{to}@host"),
            from: from.to_owned(),
            to: to.to_owned(),
            from_network: "office".to_owned(),
            to_network: "centre".to_owned(),
            state: "established".to_owned(),
            age_seconds: 1.0,
            answered_seconds: None,
            outcome: None,
            from_agent: Some("Station 2".to_owned()),
            to_agent: None,
            refusals: Vec::new(),
            verdict: None,
            mos: None,
            streams: Vec::new(),
        };
        let calls = [call("Ann <1001>", "9001"), call("Bob <1002>", "9001")];
        for (filter, expected) in [
            ("", 2),
            ("ann", 1),
            ("ANN 9001", 1),
            ("ann bob", 0),
            ("station", 2),
            ("@host", 2),
            ("nobody", 0),
        ] {
            assert_eq!(find(&calls, filter).len(), expected, "{filter:?}");
        }
    }
}
