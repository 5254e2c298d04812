//! What the daemon shows of itself: views, made of its state when somebody asks. Who asks has a file each: the command line
//! (`control`), the pages and REST (`pages`), Prometheus and who waits for readiness (`observed`).

mod control;
mod observed;
mod pages;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use relay_ebpf::FlowKind;

use super::{core::Core, host, kept::Kept, measures::attach_mode, quality::Look, reload::Reloader};
use crate::{
    admin::{Observed, Setup},
    control::{
        CallView, DenialView, FlowView, ListenerView, NetworkView, PhoneView, RefusalView, RegistrationView,
        ServerView, StatusView, TrunkView,
    },
    datapath::{Carrier, FlowReport, RefusedSource},
    log::escaped,
    net::{NetworkId, Transport, descriptors::Descriptors},
    provisioning::{Inventory, PhoneActivity, syslog::Book},
    proxy::CallInfo,
    quality::StreamQuality,
    registrar::Binding,
    upstream::{Health, PeerState, Rank, ServerState},
};

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct NetworkFacts {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) interface: String,
    pub(super) sip: SocketAddr,
    pub(super) listeners: Vec<(Transport, u16)>,
}

/// Answers for a core.
pub(super) struct Views {
    pub(super) core: Arc<Core>,
    pub(super) networks: Vec<NetworkFacts>,
    pub(super) started: Instant,
    pub(super) started_unix: i64,
    pub(super) setup: Arc<Setup>,
    pub(super) reloader: Reloader,
    pub(super) kept: Arc<Kept>,
    pub(super) phones: Arc<Inventory>,
    /// The last lines of phones' logs, if these are received.
    pub(super) logs: Option<Arc<Book>>,
}

impl Views {
    fn network(&self, network: NetworkId) -> String {
        self.networks.get(network.index()).map_or_else(|| network.to_string(), |facts| facts.name.clone())
    }

    fn status(&self) -> StatusView {
        let engine = &self.core.engine;
        let (flows, flow_table_size) = engine.table_use();
        let sockets = engine.sockets();
        let totals = engine.totals();
        let not_ready_reason = self.ready().err();
        let (trunks, plans, alone_since, survival_groups, emergency) = {
            let state = self.core.state();
            let alone = state.proxy.groups_alone().map(str::to_owned).collect();
            let (trunks, plans) = (state.proxy.trunks(), state.proxy.plan_destinations());
            (trunks, plans, state.proxy.alone_since(), alone, state.proxy.emergency_way())
        };
        let views = |peers: Vec<PeerState>| -> Vec<TrunkView> {
            let view = |peer: PeerState| TrunkView {
                servers: peer.servers.iter().map(server_view).collect(),
                name: peer.name,
            };
            peers.into_iter().map(view).collect()
        };
        let (trunks, plan_destinations) = (views(trunks), views(plans));
        let (calls_active, registrations, transactions, media_sessions, ports, servers) = {
            let state = self.core.state();
            (
                state.proxy.active_calls(),
                state.proxy.binding_count(),
                state.proxy.transaction_count(),
                state.plane.sessions.len(),
                state.plane.sessions.ports(),
                state.proxy.servers(),
            )
        };
        let servers = servers.iter().map(server_view).collect();
        let (waiting_for_restart, configuration_error) = self.reloader.state();
        let networks = self
            .networks
            .iter()
            .zip(ports)
            .map(|(facts, ports)| {
                let lost = engine.lost_attachments();
                let why_lost =
                    lost.iter().find(|lost| lost.interface == facts.interface).map(|lost| lost.why.clone());
                let attachments = engine.attachments();
                let attachment = attachments.iter().find(|known| known.interface == facts.interface);
                NetworkView {
                    name: facts.name.clone(),
                    role: facts.role.clone(),
                    interface: facts.interface.clone(),
                    sip: facts.sip.to_string(),
                    listeners: facts
                        .listeners
                        .iter()
                        .map(|(transport, port)| ListenerView {
                            transport: transport.as_label().to_owned(),
                            port: *port,
                        })
                        .collect(),
                    attached: attach_mode(engine, &facts.interface).to_owned(),
                    attached_reason: why_lost.or_else(|| match attachment {
                        Some(attachment) => attachment.why_not_native.clone(),
                        None => engine.why_userspace().map(str::to_owned),
                    }),
                    ports_used: ports.used,
                    ports: ports.total,
                }
            })
            .collect();
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: not_ready_reason.is_none(),
            not_ready_reason,
            datapath: if engine.why_userspace().is_none() { "kernel" } else { "userspace" }.to_owned(),
            datapath_reason: engine.why_userspace().map(str::to_owned),
            networks,
            servers,
            trunks,
            plan_destinations,
            survival_groups,
            survival_seconds: alone_since.map(|since| since.elapsed().as_secs()),
            emergency_calls_by: emergency.as_label().to_owned(),
            symptoms: self.core.symptoms(),
            calls_active,
            registrations,
            transactions,
            media_sessions,
            flows,
            flow_table_size,
            open_files: host::open_files(),
            open_files_limit: Descriptors::now().limit,
            media_sockets: sockets.map_or(0, |sockets| sockets.used),
            media_sockets_limit: sockets.map(|sockets| sockets.descriptors.for_media()),
            kernel_packets: totals.values().map(|totals| totals.kernel_packets).sum(),
            userspace_packets: totals.values().map(|totals| totals.relayed_packets).sum(),
            not_forwarded: engine
                .reasons()
                .into_iter()
                .map(|(reason, kernel, userspace)| (reason.label().to_owned(), kernel, userspace))
                .collect(),
            waiting_for_restart,
            configuration_error,
        }
    }

    fn calls(&self, ended: bool) -> Vec<CallView> {
        let now = Instant::now();
        let state = self.core.state();
        let mut calls: Vec<CallView> = state.proxy.calls().map(|call| self.call(now, call)).collect();
        if ended {
            calls.extend(state.proxy.ended_calls().map(|call| {
                let kept = state.plane.refusals(&call.media_key).iter();
                let refusals =
                    kept.map(|kept| self.refusal(kept.network, kept.local, &kept.refused)).collect();
                CallView { refusals, ..self.call(now, call) }
            }));
        }
        drop(state);
        calls.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
        calls
    }

    /// The calls of this Call-ID, ended or not, with the quality of their streams as it is now.
    fn calls_named(&self, call_id: &str) -> Vec<CallView> {
        let now = Instant::now();
        let named = |call: &&CallInfo| call.call_id == call_id.as_bytes();
        let look: Vec<_> = {
            let state = self.core.state();
            let live = state.proxy.calls().filter(named);
            live.map(|call| {
                (call.media_key.clone(), call.answered, state.plane.stream_facts(&call.media_key))
            })
            .collect()
        };
        let looked: HashMap<_, Vec<StreamQuality>> = look
            .into_iter()
            .map(|(key, answered, facts)| {
                let looks = self.core.quality().look(now, &self.core.engine, &key, answered, facts);
                (key, looks.iter().map(Look::quality).collect())
            })
            .collect();
        let state = self.core.state();
        let calls = state.proxy.calls().filter(named).chain(state.proxy.ended_calls().filter(named));
        calls
            .map(|call| {
                let streams = looked.get(&call.media_key).cloned();
                let streams = streams.unwrap_or_else(|| self.core.quality().ended(&call.media_key).to_vec());
                CallView { streams, ..self.call(now, call) }
            })
            .collect()
    }

    fn call(&self, now: Instant, call: &CallInfo) -> CallView {
        let until = call.ended.unwrap_or(now);
        let ended = call.ended.is_some();
        let (verdict, mos) = self.core.quality().summary(&call.media_key, ended);
        CallView {
            call_id: String::from_utf8_lossy(&call.call_id).into_owned(),
            from: call.from.clone(),
            to: call.to.clone(),
            from_network: self.network(call.from_network),
            to_network: self.network(call.to_network),
            state: call.state.as_label().to_owned(),
            age_seconds: now.saturating_duration_since(call.started).as_secs_f64(),
            answered_seconds: call.answered.map(|at| until.saturating_duration_since(at).as_secs_f64()),
            outcome: call.outcome.map(|outcome| outcome.as_label().to_owned()),
            from_agent: call.from_agent.clone(),
            to_agent: call.to_agent.clone(),
            refusals: Vec::new(),
            verdict,
            mos,
            streams: Vec::new(),
        }
    }

    fn refusal(&self, network: NetworkId, local: SocketAddr, refused: &RefusedSource) -> RefusalView {
        RefusalView {
            source: refused.source.to_string(),
            network: self.network(network),
            local: local.to_string(),
            packets: refused.packets,
            first_unix_ms: refused.first_unix_ms,
            last_unix_ms: refused.last_unix_ms,
            by: refused.by.label().to_owned(),
        }
    }

    /// The phones that were heard of: what each asked for, and its registrations.
    fn phones(&self) -> Vec<PhoneView> {
        let now = Instant::now();
        let mut registrations: HashMap<String, Vec<RegistrationView>> = HashMap::new();
        for binding in self.core.state().proxy.bindings() {
            registrations.entry(binding.source.address.ip().to_string()).or_default().push(registration(
                now,
                binding,
                self.network(binding.source.network),
            ));
        }
        let mut phones: Vec<PhoneView> = Vec::new();
        for activity in self.phones.phones() {
            let registrations = activity
                .address
                .as_ref()
                .and_then(|address| registrations.remove(address))
                .unwrap_or_default();
            phones.push(PhoneView { activity, registrations });
        }
        // Those that have registered and asked for nothing else.
        let mut others: Vec<(String, Vec<RegistrationView>)> = registrations.into_iter().collect();
        others.sort_by(|a, b| a.0.cmp(&b.0));
        for (address, registrations) in others {
            let activity = PhoneActivity { address: Some(address), ..PhoneActivity::default() };
            phones.push(PhoneView { activity, registrations });
        }
        for phone in &mut phones {
            phone.registrations.sort_by(|a, b| a.address_of_record.cmp(&b.address_of_record));
        }
        phones
    }

    fn flows(&self, call_id: Option<&str>) -> Vec<FlowView> {
        let mut owners: HashMap<SocketAddr, String> = HashMap::new();
        {
            let state = self.core.state();
            for call in state.proxy.calls() {
                let name = String::from_utf8_lossy(&call.call_id);
                let session = state.plane.sessions.query(&call.media_key);
                for stream in session.into_iter().flat_map(|session| session.streams) {
                    owners.extend(stream.flows.into_iter().map(|local| (local, name.clone().into_owned())));
                }
            }
        }
        let mut reports = self.core.engine.reports();
        reports.sort_by_key(|flow| (owners.get(&flow.spec.local).cloned(), flow.spec.from, flow.spec.local));
        reports
            .into_iter()
            .flat_map(|mut flow| {
                let forks = std::mem::take(&mut flow.forks);
                std::iter::once(flow).chain(forks)
            })
            .map(|flow| {
                let owner = owners.get(&flow.spec.local).cloned();
                self.flow(owner, &flow)
            })
            .filter(|flow| call_id.is_none_or(|wanted| flow.call_id.as_deref() == Some(wanted)))
            .collect()
    }

    fn flow(&self, call_id: Option<String>, flow: &FlowReport) -> FlowView {
        let stats = &flow.stats;
        FlowView {
            call_id,
            local: flow.spec.local.to_string(),
            network: self.network(flow.spec.from),
            kind: match flow.spec.kind {
                FlowKind::Rtp => "rtp",
                FlowKind::Rtcp => "rtcp",
                FlowKind::Opaque => "opaque",
            }
            .to_owned(),
            datapath: flow.carrier.label().to_owned(),
            reason: match &flow.carrier {
                Carrier::Kernel => None,
                Carrier::Joined { with } => {
                    Some(format!("in one pass with another leg of the call, from {with}"))
                }
                Carrier::Learning => Some("no packet from an allowed source yet".to_owned()),
                Carrier::AwaitingNextHop { why } | Carrier::Tc { why } => Some(why.clone()),
                Carrier::Userspace { reason } => Some(reason.explanation().to_owned()),
                Carrier::Blocked => Some("the other party is on hold or not known yet".to_owned()),
            },
            signalled: flow.spec.signalled.map(|address| address.to_string()),
            learned: flow.learned.map(|(source, _)| source.to_string()),
            learned_unix_ms: flow.learned.map(|(_, at)| at),
            out: flow.spec.out_source.to_string(),
            destination: flow.destination.map(|address| address.to_string()),
            dscp_out: flow.spec.dscp.map(crate::net::Dscp::value),
            dscp_in: stats.dscp,
            kernel_packets: stats.kernel_packets,
            userspace_packets: stats.relayed_packets,
            bytes: stats.bytes(),
            expected: stats.expected(),
            lost: stats.lost(),
            duplicates: stats.duplicates,
            reordered: stats.reordered,
            jitter_ms: stats.jitter_seconds(flow.spec.clock_rate) * 1000.0,
            rtcp_packets: stats.rtcp_packets,
            ssrc: stats.has_rtp().then_some(stats.ssrc),
            wrong_source: stats.wrong_source,
            refused: flow.refused_packets,
            refused_sources: flow
                .refused
                .iter()
                .map(|refused| format!("{} ({} packets)", refused.source, refused.packets))
                .collect(),
            refusals: flow
                .refused
                .iter()
                .map(|refused| self.refusal(flow.spec.from, flow.spec.local, refused))
                .collect(),
            refused_further: flow.refused_further(),
            srtp: flow.spec.srtp.as_ref().map(ToString::to_string),
            srtp_authentication: flow.srtp_refused.authentication,
            srtp_replay: flow.srtp_refused.replay,
            rtcp_destination: flow.rtcp_destination.map(|address| address.to_string()),
        }
    }

    /// Who is denied, and how many packets that has kept away.
    fn denials(&self) -> Vec<DenialView> {
        let (now, counted) = (Instant::now(), self.core.engine.denials());
        let denials = self.core.protection().denials();
        denials
            .into_iter()
            .map(|(prefix, denial)| DenialView {
                prefix: prefix.to_string(),
                why: denial
                    .as_ref()
                    .map_or_else(|| "protection.deny".to_owned(), |denial| denial.why.clone()),
                since_unix: denial.as_ref().map(|denial| denial.since_unix),
                seconds_left: denial
                    .and_then(|denial| denial.until)
                    .map(|until| until.saturating_duration_since(now).as_secs()),
                packets: counted.iter().find(|rule| rule.prefix == prefix).map_or(0, |rule| rule.denied),
            })
            .collect()
    }
}

fn registration(now: Instant, binding: &Binding, network: String) -> RegistrationView {
    RegistrationView {
        address_of_record: escaped(&String::from_utf8_lossy(&binding.aor), usize::MAX),
        contact: escaped(&String::from_utf8_lossy(&binding.contact), usize::MAX),
        network,
        expires_seconds: binding.expires.saturating_duration_since(now).as_secs(),
        registered_seconds: now.saturating_duration_since(binding.registered).as_secs(),
        user_agent: binding.user_agent.clone(),
    }
}

fn server_view(server: &ServerState) -> ServerView {
    let failure = match &server.health {
        Health::Down(failure) => Some(failure),
        Health::Up | Health::Unknown => None,
    };
    let unresolved = server.unresolved.clone().filter(|_| server.address.is_none());
    ServerView {
        group: server.group.clone(),
        fallback: server.rank == Rank::Lesser,
        server: server.server.to_string(),
        address: server.address.map(|address| address.to_string()),
        transport: server.transport.map(|transport| transport.as_label().to_owned()),
        state: match &server.health {
            _ if unresolved.is_some() => "down",
            Health::Down(_) if server.standby => "standby",
            Health::Up => "up",
            Health::Down(_) => "down",
            Health::Unknown => "unknown",
        }
        .to_owned(),
        step: match &unresolved {
            Some(_) => Some("name".to_owned()),
            None => failure.map(|failure| failure.step().to_owned()),
        },
        reason: unresolved.or_else(|| failure.map(ToString::to_string)),
        since_seconds: server.since.map(|since| since.elapsed().as_secs_f64()),
        updated_seconds: server.updated.map(|at| at.elapsed().as_secs_f64()),
        known_by: server.known_by.map(|by| by.as_label().to_owned()),
        round_trip_ms: server.round_trip.map(|time| time.as_secs_f64() * 1000.0),
        preferred: server.preferred,
    }
}
