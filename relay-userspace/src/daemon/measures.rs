//! From what the proxy observes and what the datapath counts to the metrics.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use prometheus::HistogramVec;
use relay_ebpf::{Fate, tables::Latency};
use tracing::warn;

use super::host;
use crate::{
    datapath::Engine,
    media::PortUse,
    metrics::{Metrics, names, raise},
    net::{Local, NetworkId, Role, Transport, descriptors::Descriptors},
    proxy::{Conversion, DropReason, EmergencyWay, Load, Measure, Outcome, SecondRegistration, SurvivalCall},
    quality::{StreamQuality, Verdict},
    sip::{
        Hop,
        transport::{Step, Why},
    },
    upstream::{Health, PeerState, ServerState},
};

/// What the metrics need to know of a network.
#[derive(Debug, Clone)]
pub(super) struct NetworkLabels {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) interface: String,
}

impl NetworkLabels {
    /// The direction of media that comes from this network.
    fn direction(&self) -> &'static str {
        match self.role {
            Role::Phones => "from_phones",
            Role::Servers => "from_servers",
            Role::Gateway => "from_gateway",
        }
    }
}

/// The metrics with the labels of this appliance.
#[derive(Debug)]
pub(super) struct Measures {
    pub(super) metrics: Metrics,
    networks: Vec<NetworkLabels>,
    /// The latencies as last read, so that each sample is entered once.
    latencies: Mutex<(Latency, Latency)>,
}

impl Measures {
    pub(super) fn new(metrics: Metrics, networks: Vec<NetworkLabels>) -> Self {
        // Series that begin at zero can be seen to rise; those that begin with their first event cannot.
        for outcome in Outcome::ALL {
            metrics.calls_ended.with_label_values(&[outcome.as_label()]);
        }
        for way in EmergencyWay::ALL {
            metrics.emergency_calls.with_label_values(&[way.as_label()]);
        }
        for conversion in Conversion::ALL {
            metrics.conversions.with_label_values(&[conversion.as_label()]);
        }
        for way in SurvivalCall::ALL {
            metrics.survival_calls.with_label_values(&[way.as_label()]);
        }
        for result in SecondRegistration::ALL {
            metrics.second_registrations.with_label_values(&[result.as_label()]);
        }
        for reason in DropReason::ALL {
            metrics.sip_dropped.with_label_values(&[reason.as_label()]);
        }
        for transport in Transport::CONNECTED {
            for step in Step::ALL {
                metrics.sip_connection_failures.with_label_values(&[transport.as_label(), step.as_label()]);
            }
            for reason in Why::LABELS {
                metrics.sip_connections_ended.with_label_values(&[transport.as_label(), reason]);
            }
        }
        for transport in [Transport::Tcp, Transport::Udp] {
            metrics.large_requests.with_label_values(&[transport.as_label()]);
        }
        for network in &networks {
            metrics.rtp_jitter.with_label_values(&[network.direction()]);
            let labels = [network.name.as_str(), network.direction()];
            for histogram in [
                &metrics.stream_mos,
                &metrics.stream_loss,
                &metrics.stream_reported_loss,
                &metrics.stream_jitter,
                &metrics.stream_round_trip,
            ] {
                histogram.with_label_values(&labels);
            }
        }
        for verdict in Verdict::ALL {
            metrics.streams_ended.with_label_values(&[verdict.as_label()]);
        }
        Self { metrics, networks, latencies: Mutex::default() }
    }

    fn network(&self, network: NetworkId) -> &str {
        self.networks.get(network.index()).map_or("unknown", |network| &network.name)
    }

    fn message(&self, network: NetworkId, method: &str, status: Option<u16>, direction: &str) {
        let network = self.network(network);
        match status {
            None => self.metrics.sip_requests.with_label_values(&[network, method, direction]).inc(),
            Some(status) => {
                let class = match status / 100 {
                    1 => "1xx",
                    2 => "2xx",
                    3 => "3xx",
                    4 => "4xx",
                    5 => "5xx",
                    _ => "6xx",
                };
                self.metrics.sip_responses.with_label_values(&[network, class, direction]).inc();
            }
        }
    }

    /// Enters one observation.
    pub(super) fn enter(&self, measure: Measure) {
        let metrics = &self.metrics;
        match measure {
            Measure::Received { network, method, status } => {
                self.message(network, method, status, names::sip::RECEIVED);
            }
            Measure::Sent { network, method, status } => {
                self.message(network, method, status, names::sip::SENT);
            }
            Measure::Dropped(reason) => metrics.sip_dropped.with_label_values(&[reason.as_label()]).inc(),
            // The protection's business.
            Measure::Offence(_) | Measure::Scanner(_) => {}
            Measure::RegistrationDelay(delay) => {
                metrics.registration_request_delay.observe(delay.as_secs_f64());
            }
            Measure::SessionRequestDelay(delay) => metrics.session_request_delay.observe(delay.as_secs_f64()),
            Measure::SessionDisconnectDelay(delay) => {
                metrics.session_disconnect_delay.observe(delay.as_secs_f64());
            }
            Measure::CallAttempt => metrics.call_attempts.inc(),
            Measure::CallAnswered => metrics.calls_answered.inc(),
            Measure::CallEnded(outcome) => metrics.calls_ended.with_label_values(&[outcome.as_label()]).inc(),
            Measure::MediaRefused => metrics.media_refused.inc(),
            Measure::ChallengeAnswered => metrics.challenges_answered.inc(),
            Measure::CredentialsRefused => metrics.credentials_refused.inc(),
            Measure::SecondRegistration(result) => {
                metrics.second_registrations.with_label_values(&[result.as_label()]).inc();
            }
            Measure::FailedOver => metrics.failovers.inc(),
            Measure::EmergencyCall(way) => {
                metrics.emergency_calls.with_label_values(&[way.as_label()]).inc();
                warn!(target: "branchline::proxy", way = way.as_label(), "an emergency call");
            }
            Measure::SurvivalEntered => metrics.survival_entries.inc(),
            Measure::SurvivalCall(way) => {
                metrics.survival_calls.with_label_values(&[way.as_label()]).inc();
            }
            Measure::RegisteredHere => metrics.survival_registrations.inc(),
            Measure::Large(transport) => {
                metrics.large_requests.with_label_values(&[transport.as_label()]).inc();
            }
            Measure::Converted(conversion) => {
                metrics.conversions.with_label_values(&[conversion.as_label()]).inc();
            }
            Measure::StunAnswered => metrics.stun_answered.inc(),
        }
    }

    /// A connection could not be made, or was refused.
    pub(super) fn connection_failed(&self, transport: Transport, step: Step) {
        let labels = [transport.as_label(), step.as_label()];
        self.metrics.sip_connection_failures.with_label_values(&labels).inc();
    }

    /// A connection that was one has ended.
    pub(super) fn connection_ended(&self, transport: Transport, why: &Why) {
        self.metrics.sip_connections_ended.with_label_values(&[transport.as_label(), why.as_label()]).inc();
    }

    /// Brings the figures of servers and connections up to date, for a scrape.
    pub(super) fn servers(&self, servers: &[ServerState], connections: &[Hop]) {
        let metrics = &self.metrics;
        // Names move: what is gone must not stay.
        metrics.server_up.reset();
        metrics.server_round_trip.reset();
        for server in servers {
            let address = server.address.map_or_else(String::new, |address| address.to_string());
            let name = server.server.to_string();
            let up = i64::from(server.health == Health::Up);
            metrics.server_up.with_label_values(&[&server.group, &name, &address]).set(up);
            if let Some(time) = server.round_trip {
                let labels = [&server.group, &name, &address];
                metrics.server_round_trip.with_label_values(&labels).set(time.as_secs_f64());
            }
        }
        for (index, network) in (0..).zip(&self.networks) {
            for transport in Transport::CONNECTED {
                let here = |hop: &&Hop| hop.network == NetworkId(index) && hop.transport == transport;
                let count = connections.iter().filter(here).count() as i64;
                metrics.sip_connections.with_label_values(&[&network.name, transport.as_label()]).set(count);
            }
        }
    }

    /// What calls take of each network, in the networks' order.
    pub(super) fn loads(&self, loads: &[Load]) {
        for (network, load) in self.networks.iter().zip(loads) {
            self.metrics.network_calls.with_label_values(&[&network.name]).set(load.calls.into());
            self.metrics.network_kbps.with_label_values(&[&network.name]).set(load.kbps.into());
        }
    }

    /// Brings the figures of trunks up to date, for a scrape.
    pub(super) fn trunks(&self, trunks: &[PeerState]) {
        self.metrics.trunk_up.reset();
        for trunk in trunks {
            for server in &trunk.servers {
                let address = server.address.map_or_else(String::new, |address| address.to_string());
                let up = i64::from(server.health == Health::Up);
                self.metrics.trunk_up.with_label_values(&[&trunk.name, &address]).set(up);
            }
        }
    }

    /// Enters the figures of a stream that has ended. What is not known is not entered.
    pub(super) fn stream_ended(&self, stream: &StreamQuality) {
        let metrics = &self.metrics;
        metrics.streams_ended.with_label_values(&[stream.worst.as_label()]).inc();
        for way in &stream.directions {
            let Some(network) = self.networks.iter().find(|network| network.name == way.network) else {
                continue;
            };
            let enter = |histogram: &HistogramVec, value: Option<f64>| {
                if let Some(value) = value {
                    histogram.with_label_values(&[network.name.as_str(), network.direction()]).observe(value);
                }
            };
            enter(&metrics.stream_mos, way.mos_conversational.or(way.mos_listening));
            enter(&metrics.stream_loss, way.loss_percent.map(|percent| percent / 100.0));
            enter(&metrics.stream_reported_loss, way.reported_loss_percent.map(|percent| percent / 100.0));
            enter(&metrics.stream_jitter, way.jitter_ms.map(|ms| ms / 1000.0));
            enter(&metrics.stream_round_trip, way.round_trip_ms.map(|ms| ms / 1000.0));
        }
    }

    /// Enters the jitter of each stream that had packets since it was last asked, by the counts in `seen`.
    pub(super) fn jitter(&self, engine: &Engine, seen: &mut HashMap<Local, u32>) {
        let mut now = HashMap::with_capacity(seen.len());
        engine.each_count(|spec, stats| {
            if !stats.has_rtp() {
                return;
            }
            // Only whether there were any counts.
            let packets = stats.packets() as u32;
            let local = spec.local.into();
            if seen.get(&local).is_none_or(|before| *before != packets)
                && let Some(network) = self.networks.get(spec.from.index())
            {
                let jitter = stats.jitter_seconds(spec.clock_rate);
                self.metrics.rtp_jitter.with_label_values(&[network.direction()]).observe(jitter);
            }
            now.insert(local, packets);
        });
        *seen = now;
    }

    /// Brings the datapath's figures up to date, for a scrape.
    pub(super) fn datapath(&self, engine: &Engine, ports: &[PortUse]) {
        let metrics = &self.metrics;
        // One scrape at a time: two that raise a counter from the same reading would count it twice.
        let mut before = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = engine.totals();
        for direction in self.networks.iter().map(NetworkLabels::direction) {
            // Two networks can have one role: their counts are added before they are entered.
            let mut sum = crate::datapath::Totals::default();
            for (network, labels) in (0..).map(NetworkId).zip(&self.networks) {
                if labels.direction() == direction
                    && let Some(totals) = totals.get(&network)
                {
                    sum += *totals;
                }
            }
            for (datapath, packets, bytes) in [
                (names::datapath::KERNEL, sum.kernel_packets, sum.kernel_bytes),
                (names::datapath::USERSPACE, sum.relayed_packets, sum.relayed_bytes),
            ] {
                raise(&metrics.media_packets.with_label_values(&[datapath, direction]), packets);
                raise(&metrics.media_bytes.with_label_values(&[datapath, direction]), bytes);
            }
            raise(&metrics.rtp_lost.with_label_values(&[direction]), sum.lost);
            raise(&metrics.rtp_expected.with_label_values(&[direction]), sum.expected);
        }
        for (reason, kernel, userspace) in engine.reasons() {
            let label = reason.label();
            match reason.fate() {
                Fate::Passed => raise(&metrics.media_passed.with_label_values(&[label]), kernel),
                Fate::Dropped => {
                    raise(
                        &metrics.media_dropped.with_label_values(&[label, names::datapath::KERNEL]),
                        kernel,
                    );
                }
            }
            // What comes up to userspace and goes nowhere is dropped, whatever its reason.
            if reason.fate() == Fate::Dropped || userspace > 0 {
                let dropped = metrics.media_dropped.with_label_values(&[label, names::datapath::USERSPACE]);
                raise(&dropped, userspace);
            }
        }
        let mut carried: HashMap<&str, i64> =
            ["kernel", "userspace", "learning", "awaiting_next_hop", "blocked"]
                .map(|label| (label, 0))
                .into();
        engine.each_carrier(|carrier| *carried.entry(carrier.label()).or_default() += 1);
        for (label, count) in carried {
            metrics.flows.with_label_values(&[label]).set(count);
        }
        for network in &self.networks {
            let mode = attach_mode(engine, &network.interface);
            for other in ["native", "generic", "userspace", LOST] {
                let labels = [network.interface.as_str(), other];
                metrics.attach_mode.with_label_values(&labels).set(i64::from(mode == other));
            }
        }
        metrics.flow_table_size.set(i64::from(engine.table_use().1));
        let (sockets, gauge) = (engine.sockets(), |count: usize| i64::try_from(count).unwrap_or(i64::MAX));
        metrics.open_files.set(gauge(host::open_files()));
        metrics.open_files_limit.set(gauge(Descriptors::now().limit));
        metrics.media_sockets.set(gauge(sockets.map_or(0, |sockets| sockets.used)));
        metrics.media_sockets_limit.set(gauge(sockets.map_or(0, |sockets| sockets.descriptors.for_media())));
        for (network, ports) in self.networks.iter().zip(ports) {
            metrics.media_ports_used.with_label_values(&[&network.name]).set(ports.used as i64);
            metrics.media_ports.with_label_values(&[&network.name]).set(ports.total as i64);
        }
        let (kernel, userspace) = engine.latency();
        if let Some(kernel) = kernel {
            metrics.add_latencies(names::datapath::KERNEL, &before.0, &kernel);
            before.0 = kernel;
        }
        metrics.add_latencies(names::datapath::USERSPACE, &before.1, &userspace);
        before.1 = userspace;
    }
}

/// The word for an interface that the relay is no longer attached to.
const LOST: &str = "lost";

/// How the relay is attached to an interface.
pub(super) fn attach_mode(engine: &Engine, interface: &str) -> &'static str {
    if engine.lost_attachments().iter().any(|lost| lost.interface == interface) {
        return LOST;
    }
    let attachments = engine.attachments();
    let attachment = attachments.iter().find(|attachment| attachment.interface == interface);
    attachment.map_or(names::datapath::USERSPACE, |attachment| attachment.mode.label())
}
