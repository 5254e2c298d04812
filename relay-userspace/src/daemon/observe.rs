//! Looks at everything every few seconds and says what is wrong with it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{certificates::now_unix, core::Core};
use crate::{
    net::{netlink, routes},
    provisioning::{Inventory, clock::KernelClock},
    symptoms::{self, Kind, Observations, Stranded, Stream},
};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Routes are looked at every so many times.
const ROUTES_EVERY: u32 = 12;
/// And entries' passwords that need not be kept: once an hour.
const PASSWORDS_EVERY: u32 = 720;

/// Looks again and again. News are logged once, when a symptom comes and when it goes.
pub(super) async fn observe(core: Arc<Core>, phones: Arc<Inventory>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overlaps = Vec::new();
    let mut told: HashSet<(Kind, String)> = HashSet::new();
    for round in 0u32.. {
        tick.tick().await;
        if round.is_multiple_of(PASSWORDS_EVERY) {
            let core = Arc::clone(&core);
            tokio::task::spawn_blocking(move || core.forget_passwords());
        }
        if round.is_multiple_of(ROUTES_EVERY) {
            overlaps = look_at_routes().await;
        }
        let found = symptoms::find(&see(&core, &phones, overlaps.clone()));
        let mut now = HashSet::new();
        for symptom in &found {
            let key = (symptom.kind, symptom.subject.clone());
            if !told.contains(&key) {
                let (kind, subject) = (symptom.kind.as_label(), &symptom.subject);
                warn!(symptom = kind, %subject, "{}: {}", symptom.what, symptom.advice);
            }
            now.insert(key);
        }
        for (kind, subject) in told.difference(&now) {
            info!(symptom = kind.as_label(), %subject, "gone");
        }
        told = now;
        for kind in Kind::ALL {
            let count = found.iter().filter(|symptom| symptom.kind == kind).count();
            core.measures.metrics.symptoms.with_label_values(&[kind.as_label()]).set(count as i64);
        }
        core.set_symptoms(found);
    }
}

async fn look_at_routes() -> Vec<String> {
    let look = async {
        let netlink = netlink::connect()?;
        Ok::<_, netlink::Error>(routes::overlaps(&netlink.links().await?, &netlink.routes().await?))
    };
    look.await.unwrap_or_default()
}

fn see(core: &Core, phones: &Inventory, overlaps: Vec<String>) -> Observations {
    let now = Instant::now();
    let mut seen = Observations {
        overlaps,
        clock_synchronised: Some(matches!(KernelClock::read(), KernelClock::Synchronised { .. })),
        ..Observations::default()
    };
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut calls = Vec::new();
    {
        let state = core.state();
        seen.servers = state.proxy.servers();
        seen.trunks = state.proxy.trunks().into_iter().map(|trunk| (trunk.name, trunk.servers)).collect();
        seen.alone_groups = state.proxy.groups_alone().map(str::to_owned).collect();
        seen.alone = state.proxy.alone_since().map(|since| now.saturating_duration_since(since));
        for binding in state.proxy.bindings() {
            let line = lines.entry(String::from_utf8_lossy(&binding.aor).into_owned()).or_default();
            let address = binding.source.address.ip().to_string();
            if !line.contains(&address) {
                line.push(address);
            }
        }
        for call in state.proxy.calls() {
            let key: Arc<[u8]> = call.media_key.as_ref().into();
            let parties: Arc<str> = format!("{} to {}", call.from, call.to).into();
            calls.push((key, parties, call.answered));
        }
    }
    let standing: HashSet<&[u8]> = calls.iter().map(|(key, ..)| &**key).collect();
    core.quality().keep_only(&standing);
    for (call_key, call, answered) in &calls {
        // One call at a time: whoever ends a call, and every message, waits for no more than that.
        let facts = core.state().plane.stream_facts(call_key);
        if facts.is_empty() {
            // It has ended since, or has no media yet.
            continue;
        }
        let found = core.quality().look(now, &core.engine, call_key, *answered, facts);
        for look in found {
            let verdict = look.verdict;
            seen.streams.extend(look.found.into_iter().map(|found| Stream {
                call: call.clone(),
                call_key: call_key.clone(),
                network: found.network,
                to_network: found.to_network,
                verdict,
                finding: found.finding,
                expected: found.report.stats.expected(),
                lost: found.report.stats.lost(),
                beyond_percent: found.figures.beyond_percent,
                jitter_ms: found.figures.jitter_ms,
                dscp: found.report.stats.dscp,
                round_trip: found.figures.round_trip,
                refused: found.report.refused.first().map(|refused| refused.source.to_string()),
            }));
        }
    }
    let registered: HashSet<&String> = lines.values().flatten().collect();
    let now_ms = u64::try_from(now_unix()).unwrap_or(0).saturating_mul(1000);
    for phone in phones.phones() {
        let known = phone.address.as_ref().is_some_and(|address| registered.contains(address));
        let Some(last) = phone.stages.iter().max_by_key(|stage| stage.at_unix_ms).filter(|_| !known) else {
            continue;
        };
        seen.stranded.push(Stranded {
            phone: phone.address.clone().or(phone.hardware_address.clone()).unwrap_or_default(),
            stage: last.stage.clone(),
            detail: last.detail.clone(),
            since: Duration::from_millis(now_ms.saturating_sub(last.at_unix_ms)),
        });
    }
    seen.lines = lines.into_iter().collect();
    seen
}
