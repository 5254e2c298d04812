//! What is looked at: the same views as the command line's.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::{
    admin::{Machine, Which, pages, state::Web},
    control::{CallView, FlowView, PhoneView, StatusView},
};

/// Which calls.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Calls {
    ended: bool,
}

/// Which flows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Flows {
    call_id: Option<String>,
}

/// A call with its flows.
#[derive(Debug, Serialize)]
pub(super) struct CallWithFlows {
    #[serde(flatten)]
    call: CallView,
    flows: Vec<FlowView>,
}

/// What this is and where it runs.
#[derive(Debug, Serialize)]
pub(super) struct About {
    version: &'static str,
    revision: Option<&'static str>,
    licence: &'static str,
    machine: Machine,
    started_unix: i64,
}

pub(super) async fn status(State(web): State<Web>) -> Json<StatusView> {
    Json(web.status().as_ref().clone())
}

pub(super) async fn calls(State(web): State<Web>, Query(wanted): Query<Calls>) -> Json<Vec<CallView>> {
    Json(if wanted.ended {
        web.appliance().calls(Which::WithEnded)
    } else {
        web.live_calls().as_ref().clone()
    })
}

pub(super) async fn call(
    State(web): State<Web>,
    Path(call_id): Path<String>,
) -> Result<Json<CallWithFlows>, Problem> {
    let call = web.appliance().calls_named(&call_id).into_iter().next();
    let call = call.ok_or_else(|| Problem::not_found("There is no such call, or it is forgotten."))?;
    let flows = web.appliance().flows(Some(&call_id));
    Ok(Json(CallWithFlows { call, flows }))
}

pub(super) async fn flows(State(web): State<Web>, Query(wanted): Query<Flows>) -> Json<Vec<FlowView>> {
    Json(web.appliance().flows(wanted.call_id.as_deref()))
}

pub(super) async fn phones(State(web): State<Web>) -> Json<Vec<PhoneView>> {
    Json(web.appliance().phones())
}

pub(super) async fn about(State(web): State<Web>) -> Json<About> {
    Json(About {
        version: env!("CARGO_PKG_VERSION"),
        revision: pages::REVISION,
        licence: env!("CARGO_PKG_LICENSE"),
        machine: web.appliance().machine(),
        started_unix: web.appliance().started_unix(),
    })
}
