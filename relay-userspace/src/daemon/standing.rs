//! Calls into the store and back: with them their media, and the sources that their flows have learned.
//!
//! A record is written a moment after something has changed, off the paths of messages and packets; a daemon that is
//! killed knows of all calls but those of its last moment. The next one takes up each call whole or not at all: its
//! dialogs in the proxy, its session in the media room, its flows in the datapath.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::core::Core;
use crate::{
    datapath::{FlowSpec, StandingFlow},
    media::{SessionRecord, Sessions},
    net::FormerNetworks,
    proxy::{CallRecord, Proxy},
    store::{CallChange, Epoch, Store},
};

/// How soon a change is written.
const SOON: Duration = Duration::from_millis(200);
/// How often what changes with every packet is written: which packets a key was used for.
const KEYS: Duration = Duration::from_secs(10);
/// The form of a record. One of another form is left out.
const FORM: u32 = 1;

/// A call as the store has it.
#[derive(Serialize, Deserialize)]
struct Record {
    form: u32,
    /// The networks' names, by the numbers that the record uses.
    networks: Vec<String>,
    call: CallRecord,
    session: Option<SessionRecord>,
    /// Where a flow arrives, the source that it has learned, and when, in milliseconds since 1970.
    learned: Vec<(SocketAddr, SocketAddr, u64)>,
}

/// What was taken up of an earlier run.
#[derive(Debug, Default)]
pub(super) struct TakenUp {
    /// Flows, for the datapath.
    pub(super) flows: Vec<StandingFlow>,
    /// Where each flow arrives, and the name of its call.
    pub(super) owners: Vec<(SocketAddr, Vec<u8>)>,
    /// The names of calls that the store knows and that were not taken up.
    left: Vec<String>,
}

/// Takes up the calls of the store.
pub(super) fn take_up(
    store: &Store,
    networks: &[String],
    proxy: &mut Proxy,
    sessions: &mut Sessions,
) -> TakenUp {
    let epoch = Epoch::new();
    let stored = match store.calls() {
        Ok(stored) => stored,
        Err(error) => {
            error!(%error, "the calls that stood cannot be read; their parties have to call again");
            return TakenUp::default();
        }
    };
    let (mut taken, mut calls) = (TakenUp::default(), 0);
    for (name, record) in stored {
        match take_up_one(&record, networks, &epoch, proxy, sessions) {
            Ok((specs, learned)) => {
                calls += 1;
                let learned: HashMap<_, _> =
                    learned.into_iter().map(|(local, source, since)| (local, (source, since))).collect();
                for spec in specs {
                    taken.owners.push((spec.local, name.clone().into_bytes()));
                    let learned = learned.get(&spec.local).copied();
                    taken.flows.push(StandingFlow { spec, learned });
                }
            }
            Err(why) => {
                warn!(call = name, why, "a call that stood is left to its parties");
                taken.left.push(name);
            }
        }
    }
    if calls > 0 {
        info!(calls, flows = taken.flows.len(), "calls from before go on");
    }
    taken
}

type Learned = Vec<(SocketAddr, SocketAddr, u64)>;

fn take_up_one(
    record: &[u8],
    networks: &[String],
    epoch: &Epoch,
    proxy: &mut Proxy,
    sessions: &mut Sessions,
) -> Result<(Vec<FlowSpec>, Learned), String> {
    let unreadable = |error| format!("its record cannot be read: {error}");
    let record: Record = serde_json::from_slice(record).map_err(unreadable)?;
    if record.form != FORM {
        return Err(format!("its record has form {}, and this version reads {FORM}", record.form));
    }
    let former = FormerNetworks::new(&record.networks, networks);
    let key = record.call.media_key().as_bytes();
    let specs = match &record.session {
        Some(session) => {
            sessions.take_up(epoch.now, key, session, &former).map_err(|error| error.to_string())?
        }
        None if record.call.has_media() => return Err("nothing is known of its media".to_owned()),
        None => Vec::new(),
    };
    if let Err(error) = proxy.take_up(&record.call, &former, epoch) {
        sessions.delete(epoch.now, key);
        return Err(error.to_string());
    }
    Ok((specs, record.learned))
}

/// What the store is to take, of these calls or of all.
fn changes(
    core: &Core,
    networks: &[String],
    calls: Vec<(String, Option<CallRecord>)>,
    translated: &mut HashSet<String>,
) -> Vec<CallChange> {
    let mut changes = Vec::with_capacity(calls.len());
    for (name, call) in calls {
        translated.remove(&name);
        let record = call.and_then(|call| {
            // Each call by itself: messages do not wait while thousands are read.
            let (session, streams) = {
                let sessions = &core.state().plane.sessions;
                let report = sessions.query(name.as_bytes());
                let streams = report.map(|report| report.streams).unwrap_or_default();
                (sessions.record(name.as_bytes()), streams)
            };
            // What their keys were used for changes with every packet.
            if session.as_ref().is_some_and(SessionRecord::is_translated) {
                translated.insert(name.clone());
            }
            let learned = core.engine.learned(streams.into_iter().flat_map(|stream| stream.flows));
            let networks = networks.to_vec();
            serde_json::to_vec(&Record { form: FORM, networks, call, session, learned }).ok()
        });
        changes.push(CallChange { name, record });
    }
    changes
}

/// Writes calls when they have changed.
pub(super) async fn keep(core: Arc<Core>, networks: Vec<String>) {
    // The log says once that it began to fail, and once that it works again.
    let (mut failing, mut since_keys) = (false, Duration::ZERO);
    let mut translated: HashSet<String> = HashSet::new();
    // Calls that have ended, and that the store could not be told of.
    let mut ended: HashSet<String> = HashSet::new();
    loop {
        tokio::time::sleep(SOON).await;
        since_keys += SOON;
        touch_learned(&core);
        if since_keys >= KEYS {
            since_keys = Duration::ZERO;
            let mut state = core.state();
            translated.iter().for_each(|name| state.proxy.touch_named(name.as_bytes()));
        }
        let mut touched = core.state().proxy.take_touched(&Epoch::new());
        touched.extend(ended.drain().map(|name| (name, None)));
        if touched.is_empty() {
            continue;
        }
        let changes = changes(&core, &networks, touched, &mut translated);
        let names: Vec<(String, bool)> =
            changes.iter().map(|change| (change.name.clone(), change.record.is_some())).collect();
        let store = Arc::clone(&core.store);
        let done = tokio::task::spawn_blocking(move || store.put_calls(&changes)).await;
        match done.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()))
        {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    info!("calls are written again");
                }
            }
            Err(error) => {
                // Once more with the next round.
                for (name, stands) in names {
                    if stands {
                        core.state().proxy.touch_named(name.as_bytes());
                    } else {
                        ended.insert(name);
                    }
                }
                if !std::mem::replace(&mut failing, true) {
                    error!(
                        error,
                        "calls cannot be written; those that stand would not go on in a daemon that starts anew"
                    );
                }
            }
        }
    }
}

/// Records change when a flow learns a source.
fn touch_learned(core: &Core) {
    let learned = core.engine.take_learned();
    if learned.is_empty() {
        return;
    }
    let mut state = core.state();
    for local in learned {
        if let Some(name) = state.plane.owner(local) {
            state.proxy.touch_named(&name);
        }
    }
}

/// Writes what has changed once more, on the way out.
pub(super) fn keep_last(core: &Core, networks: &[String]) {
    touch_learned(core);
    let touched = core.state().proxy.take_touched(&Epoch::new());
    let changes = changes(core, networks, touched, &mut HashSet::new());
    if let Err(error) = core.store.put_calls(&changes) {
        error!(%error, "calls cannot be written");
    }
}

/// Forgets the calls of the store that were not taken up.
pub(super) fn forget_left(store: &Store, taken: &TakenUp) {
    let gone = |name: &String| CallChange { name: name.clone(), record: None };
    let changes: Vec<CallChange> = taken.left.iter().map(gone).collect();
    if !changes.is_empty()
        && let Err(error) = store.put_calls(&changes)
    {
        error!(%error, "calls that are over cannot be forgotten");
    }
}
