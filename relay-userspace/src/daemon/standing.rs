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
use tokio::sync::watch;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

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
/// Records that are made and written together: those of thousands of calls that begin to talk at once would take as much
/// memory again as the calls do, and messages would wait for them.
const TOGETHER: usize = 1_000;
/// How often what changes with every packet is written: which packets a key was used for.
const KEYS: Duration = Duration::from_secs(10);
/// How soon it is tried again when the store could not be written.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes that a record is given from the start, so that its keys are not left behind where it has outgrown its place.
const RECORD: usize = 16 << 10;
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
    /// The names of all calls and subscriptions that the store has.
    pub(super) names: HashSet<String>,
}

/// Takes up the calls of the store. Those that are left are forgotten there, and keys are kept as they are taken up, before
/// anything is sent with them.
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
    let (mut taken, mut calls, mut changes) = (TakenUp::default(), 0, Vec::new());
    for (name, record) in stored {
        match take_up_one(&record, networks, &epoch, proxy, sessions) {
            Ok(one) => {
                calls += 1;
                taken.names.insert(name.clone());
                let learned: HashMap<_, _> =
                    one.learned.into_iter().map(|(local, source, since)| (local, (source, since))).collect();
                for spec in one.specs {
                    taken.owners.push((spec.local, name.clone().into_bytes()));
                    let learned = learned.get(&spec.local).copied();
                    taken.flows.push(StandingFlow { spec, learned });
                }
                if one.anew.is_some() {
                    changes.push(CallChange { name, record: one.anew });
                }
            }
            Err(why) => {
                warn!(call = name, why, "a call that stood is left to its parties");
                changes.push(CallChange { name, record: None });
            }
        }
    }
    if let Err(error) = store.put_calls(&changes) {
        error!(%error, "the calls that stood cannot be written as they were taken up");
    }
    if calls > 0 {
        info!(calls, flows = taken.flows.len(), "calls from before go on");
    }
    taken
}

/// A call that was taken up.
struct One {
    specs: Vec<FlowSpec>,
    learned: Vec<(SocketAddr, SocketAddr, u64)>,
    /// Its record as it is now, if that is another.
    anew: Option<Zeroizing<Vec<u8>>>,
}

fn take_up_one(
    record: &[u8],
    networks: &[String],
    epoch: &Epoch,
    proxy: &mut Proxy,
    sessions: &mut Sessions,
) -> Result<One, String> {
    let unreadable = |error| format!("its record cannot be read: {error}");
    let mut record: Record = serde_json::from_slice(record).map_err(unreadable)?;
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
    let learned = record.learned.clone();
    let mut anew = None;
    // The dialogs are kept anew a moment later, by `keep`; a key must not wait for that. Its networks are numbered as
    // they were, so this is for a configuration that has not renumbered them.
    if record.networks == networks && record.session.as_ref().is_some_and(SessionRecord::is_translated) {
        record.session = sessions.record(key);
        anew = written(&record);
    }
    Ok(One { specs, learned, anew })
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
            written(&Record { form: FORM, networks, call, session, learned })
        });
        changes.push(CallChange { name, record });
    }
    changes
}

/// A record's bytes.
fn written(record: &Record) -> Option<Zeroizing<Vec<u8>>> {
    let mut place = Zeroizing::new(Vec::with_capacity(RECORD));
    serde_json::to_writer(&mut *place, record).ok()?;
    // In its own length: when thousands of calls begin to talk at once, as many records are written together.
    Some(Zeroizing::new(place.as_slice().to_vec()))
}

/// Writes calls when they have changed, until it is told to stop; what it has begun is then written. The store has those
/// that are `kept`.
pub(super) async fn keep(
    core: Arc<Core>,
    networks: Vec<String>,
    mut kept: HashSet<String>,
    mut stop: watch::Receiver<()>,
) {
    let (mut waited, mut since_keys) = (Duration::ZERO, Duration::ZERO);
    let mut translated: HashSet<String> = HashSet::new();
    // What is in the store is old: something could not be written.
    let mut stale = false;
    let mut more = false;
    loop {
        let pause = if more { Duration::ZERO } else { SOON };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        (waited, since_keys) = (waited + pause, since_keys + pause);
        touch_learned(&core);
        if since_keys >= KEYS {
            since_keys = Duration::ZERO;
            let mut state = core.state();
            translated.iter().for_each(|name| state.proxy.touch_named(name.as_bytes()));
        }
        let touched = core.state().proxy.take_touched(&Epoch::new(), TOGETHER);
        more = touched.len() == TOGETHER && !stale;
        if touched.is_empty() && !stale || stale && waited < AGAIN {
            continue;
        }
        waited = Duration::ZERO;
        let store = Arc::clone(&core.store);
        let done = if stale {
            let all = all(&core, &networks, &mut translated);
            kept = all.iter().map(|change| change.name.clone()).collect();
            tokio::task::spawn_blocking(move || store.replace_calls(&all)).await
        } else {
            let mut changes = changes(&core, &networks, touched, &mut translated);
            // Of a call that was over before it was ever written the store need not hear.
            changes.retain(|change| match change.record {
                Some(_) => {
                    kept.insert(change.name.clone());
                    true
                }
                None => kept.remove(&change.name),
            });
            if changes.is_empty() {
                continue;
            }
            tokio::task::spawn_blocking(move || store.put_calls(&changes)).await
        };
        // The log says once that it began to fail, and once that it works again.
        match done.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()))
        {
            Ok(()) => {
                if std::mem::take(&mut stale) {
                    info!("calls are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut stale, true) {
                    error!(
                        error,
                        "calls cannot be written; those that stand would not go on in a daemon that starts anew"
                    );
                }
            }
        }
    }
}

/// All calls that stand, as the store is to have them.
fn all(core: &Core, networks: &[String], translated: &mut HashSet<String>) -> Vec<CallChange> {
    let records = core.state().proxy.records(&Epoch::new());
    let named = records.into_iter().map(|record| (record.media_key().to_owned(), Some(record)));
    changes(core, networks, named.collect(), translated)
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

/// Writes all of them, on the way out, when nobody changes them any more.
pub(super) fn keep_last(core: &Core, networks: &[String]) {
    let all = all(core, networks, &mut HashSet::new());
    if let Err(error) = core.store.replace_calls(&all) {
        error!(%error, "calls cannot be written");
    }
}
