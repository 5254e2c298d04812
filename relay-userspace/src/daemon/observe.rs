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
    proxy::CallState,
    symptoms::{self, Kind, Observations, Stranded, Stream},
};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Routes are looked at every so many times.
const ROUTES_EVERY: u32 = 12;

/// Looks again and again. News are logged once, when a symptom comes and when it goes.
pub(super) async fn observe(core: Arc<Core>, phones: Arc<Inventory>, networks: Vec<String>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overlaps = Vec::new();
    let mut told: HashSet<(Kind, String)> = HashSet::new();
    for round in 0u32.. {
        tick.tick().await;
        if round.is_multiple_of(ROUTES_EVERY) {
            overlaps = look_at_routes().await;
        }
        let found = symptoms::find(&see(&core, &phones, &networks, overlaps.clone()));
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

fn see(core: &Core, phones: &Inventory, networks: &[String], overlaps: Vec<String>) -> Observations {
    let now = Instant::now();
    let mut seen = Observations {
        overlaps,
        clock_synchronised: Some(matches!(KernelClock::read(), KernelClock::Synchronised { .. })),
        ..Observations::default()
    };
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ends = Vec::new();
    {
        let state = core.state();
        seen.servers = state.proxy.servers();
        for binding in state.proxy.bindings() {
            let line = lines.entry(String::from_utf8_lossy(&binding.aor).into_owned()).or_default();
            let address = binding.source.address.ip().to_string();
            if !line.contains(&address) {
                line.push(address);
            }
        }
        for call in state.proxy.calls() {
            let Some(session) = state.plane.sessions.query(&call.media_key) else { continue };
            for stream in session.streams {
                // A's RTP and RTCP, B's RTP and RTCP.
                for pair in stream.flows.as_chunks::<2>().0 {
                    ends.push((
                        *pair,
                        state.plane.round_trip(pair[1]),
                        format!("{} to {}", call.from, call.to),
                        call.media_key.to_vec(),
                        call.answered.map(|at| now.saturating_duration_since(at)),
                        call.state == CallState::Held,
                    ));
                }
            }
        }
    }
    for ([rtp, _], round_trip, call, call_key, answered, held) in ends {
        let Some(report) = core.engine.report(rtp) else { continue };
        seen.streams.push(Stream {
            call,
            call_key,
            network: networks.get(report.spec.from.index()).cloned().unwrap_or_default(),
            answered,
            held,
            expected: report.stats.expected(),
            lost: report.stats.lost(),
            dscp: report.stats.dscp,
            round_trip,
        });
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
