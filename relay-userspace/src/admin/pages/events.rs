//! Live views: server-sent events that carry a page's live part anew whenever it has changed.
//!
//! There are so many at a time for all browsers together; each ends within a second of its session.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream::unfold;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{frame, sessions, status};
use crate::{
    admin::{guard::Signed, state::Web},
    metrics::names,
};

/// How often a view looks whether it has changed.
const TICK: Duration = Duration::from_secs(1);
/// What a view shows when its session has ended.
const ENDED: &str = "<p class=\"notice failed\" role=\"status\">You are signed out. <a href=\"/sign-in\">Sign in</a> to go on.</p>";

enum View {
    /// Only whether calls work.
    Ready,
    Status,
    Sessions(sessions::Selection),
    Call(sessions::Wanted),
}

impl View {
    fn render(&self, web: &Web) -> String {
        match self {
            Self::Ready => String::new(),
            Self::Status => status::live(web),
            Self::Sessions(selection) => sessions::live(web, selection),
            Self::Call(wanted) => sessions::call_live(web, wanted),
        }
    }
}

enum Stage {
    Live,
    SignedOut,
    Over,
}

struct Watch {
    web: Web,
    id: String,
    view: View,
    tick: Interval,
    last: String,
    stage: Stage,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// The next event; none when all is over.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let event = |name: &str, data: &str| Ok(Event::default().event(name).data(data));
        match self.stage {
            Stage::Over => return None,
            Stage::SignedOut => {
                // The browser closes on this one; otherwise it would connect again and again.
                self.stage = Stage::Over;
                return Some((event("ended", "signed out"), self));
            }
            Stage::Live => {}
        }
        loop {
            self.tick.tick().await;
            if !self.web.sessions().lives(Instant::now(), &self.id) {
                self.stage = Stage::SignedOut;
                return Some((event("live", ENDED), self));
            }
            let now = self.view.render(&self.web) + &frame::live_pill(&self.web);
            if now != self.last {
                let event = event("live", &now);
                self.last = now;
                return Some((event, self));
            }
        }
    }
}

pub(super) async fn stream(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(view): Path<String>,
    Query(selection): Query<sessions::Selection>,
    Query(wanted): Query<sessions::Wanted>,
) -> Response {
    let view = match view.as_str() {
        "ready" => View::Ready,
        "status" => View::Status,
        "sessions" => View::Sessions(selection),
        "call" => View::Call(wanted),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let Ok(place) = std::sync::Arc::clone(web.live_views()).try_acquire_owned() else {
        web.refused(names::web::LIVE_VIEWS);
        return (StatusCode::SERVICE_UNAVAILABLE, "too many live views\n").into_response();
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch =
        Watch { web, id: signed.id, view, tick, last: String::new(), stage: Stage::Live, _place: place };
    Sse::new(unfold(watch, Watch::next)).keep_alive(KeepAlive::default()).into_response()
}
