//! The metrics themselves.

use std::time::Duration;

use prometheus::{
    Counter, Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use relay_ebpf::tables::Latency;
use thiserror::Error;

use super::{ServiceMetrics, names};

/// A metric could not be made or written.
#[derive(Debug, Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// A metric, once it is among those of a registry.
pub(super) fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// See [`names::CALLS_ACTIVE`]; so for each.
    pub calls_active: IntGauge,
    /// Calls attempted.
    pub call_attempts: IntCounter,
    /// Calls answered.
    pub calls_answered: IntCounter,
    /// Calls ended: outcome.
    pub calls_ended: IntCounterVec,
    /// Session request delay.
    pub session_request_delay: Histogram,
    /// Session disconnect delay.
    pub session_disconnect_delay: Histogram,
    /// Registration request delay.
    pub registration_request_delay: Histogram,
    /// Bindings.
    pub registrations: IntGauge,
    /// SIP requests: network, method, direction.
    pub sip_requests: IntCounterVec,
    /// SIP responses: network, class, direction.
    pub sip_responses: IntCounterVec,
    /// SIP messages not relayed: reason.
    pub sip_dropped: IntCounterVec,
    /// Challenges answered for phones.
    pub challenges_answered: IntCounter,
    /// Credentials that a server did not take.
    pub credentials_refused: IntCounter,
    /// Requests sent to another server.
    pub failovers: IntCounter,
    /// 1 while the office is on its own.
    pub survival: IntGauge,
    /// How often it came to be.
    pub survival_entries: IntCounter,
    /// Seconds that it was, counted when it ends.
    pub survival_seconds: Counter,
    /// Calls without a server: way.
    pub survival_calls: IntCounterVec,
    /// Registrations without a server.
    pub survival_registrations: IntCounter,
    /// REGISTERs by which phones are registered with a second server.
    pub second_registrations: IntCounterVec,
    /// Second registrations that servers hold.
    pub second_registrations_held: IntGauge,
    /// Emergency calls: way.
    pub emergency_calls: IntCounterVec,
    /// Calls: network.
    pub network_calls: IntGaugeVec,
    /// Their estimated media: network.
    pub network_kbps: IntGaugeVec,
    /// Trunks that are in service: trunk, address.
    pub trunk_up: IntGaugeVec,
    /// Requests that were too large for UDP: transport.
    pub large_requests: IntCounterVec,
    /// STUN binding requests that were answered.
    pub stun_answered: IntCounter,
    /// What was converted for peers, by `conversion`.
    pub conversions: IntCounterVec,
    /// Servers that answer: server, address.
    pub server_up: IntGaugeVec,
    /// Their answers to probes: server, address.
    pub server_round_trip: GaugeVec,
    /// SIP connections: network, transport.
    pub sip_connections: IntGaugeVec,
    /// SIP connections that failed: transport, step.
    pub sip_connection_failures: IntCounterVec,
    /// SIP connections that ended: transport, reason.
    pub sip_connections_ended: IntCounterVec,
    /// Symptoms: symptom.
    pub symptoms: IntGaugeVec,
    /// Session descriptions refused.
    pub media_refused: IntCounter,
    /// Flows: datapath.
    pub flows: IntGaugeVec,
    /// Room for flows.
    pub flow_table_size: IntGauge,
    /// Descriptors that are open.
    pub open_files: IntGauge,
    /// Descriptors that may be.
    pub open_files_limit: IntGauge,
    /// Sockets of media ports.
    pub media_sockets: IntGauge,
    /// How many may be.
    pub media_sockets_limit: IntGauge,
    /// Packets: datapath, direction.
    pub media_packets: IntCounterVec,
    /// Bytes: datapath, direction.
    pub media_bytes: IntCounterVec,
    /// Dropped: reason, datapath.
    pub media_dropped: IntCounterVec,
    /// Passed to the stack: reason.
    pub media_passed: IntCounterVec,
    /// RTP lost: direction.
    pub rtp_lost: IntCounterVec,
    /// RTP expected: direction.
    pub rtp_expected: IntCounterVec,
    /// Jitter: direction.
    pub rtp_jitter: HistogramVec,
    /// Time in the relay: datapath.
    pub relay_latency: HistogramVec,
    /// Round trips.
    pub rtcp_round_trip: Histogram,
    /// Scores: network, direction.
    pub stream_mos: HistogramVec,
    /// Loss before the appliance: network, direction.
    pub stream_loss: HistogramVec,
    /// Loss as reported: network, direction.
    pub stream_reported_loss: HistogramVec,
    /// Jitter: network, direction.
    pub stream_jitter: HistogramVec,
    /// Round trips: network, direction.
    pub stream_round_trip: HistogramVec,
    /// Streams that ended: verdict.
    pub streams_ended: IntCounterVec,
    /// Ports used: network.
    pub media_ports_used: IntGaugeVec,
    /// Ports: network.
    pub media_ports: IntGaugeVec,
    /// Attach mode: interface, mode.
    pub attach_mode: IntGaugeVec,
    /// Datapath: datapath, reason.
    pub datapath_info: IntGaugeVec,
    /// Web requests: class.
    pub web_requests: IntCounterVec,
    /// Web refusals: reason.
    pub web_refused: IntCounterVec,
    /// Reloads: result.
    pub configuration_reloads: IntCounterVec,
    /// Those of the office's services.
    pub services: ServiceMetrics,
}

/// From 1 ms to a minute: a phone that answers at once, and one that rings.
const DELAYS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From 125 microseconds to half a second; a phone's buffer holds 40 to 300 ms.
const JITTERS: [f64; 13] =
    [0.000_125, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5];
/// The borders of what users say of a call (G.107 annex B: R of 50, 60, 70, 80 and 90), and steps between them.
const SCORES: [f64; 10] = [1.5, 2.0, 2.58, 3.1, 3.35, 3.6, 3.8, 4.03, 4.2, 4.34];
/// From one packet in a thousand, over the 1 % that is heard, to a stream that is half gone.
const LOSSES: [f64; 10] = [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
/// From 1 ms to 2 s, with the 150 and 300 ms at which callers begin to notice (ITU-T G.114).
const ROUND_TRIPS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 2.0];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two of them have one name.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            registered(&registry, IntGauge::new(name, help)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            registered(&registry, IntCounter::new(name, help)?)
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
            };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            registered(
                &registry,
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?,
            )
        };
        let histograms = |name: &str,
                          help: &str,
                          buckets: &[f64],
                          labels: &[&str]|
         -> Result<HistogramVec, prometheus::Error> {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, HistogramVec::new(opts, labels)?)
        };
        // The bounds are those of the buckets that both datapaths count in: powers of two of nanoseconds.
        let latencies: Vec<f64> =
            (5..relay_ebpf::tables::LATENCY_BUCKETS).map(|power| seconds(1u64 << power)).collect();

        let metrics = Self {
            calls_active: gauge(names::CALLS_ACTIVE, "Calls that stand or are being set up.")?,
            call_attempts: counter(names::CALL_ATTEMPTS, "Calls attempted (RFC 6076).")?,
            calls_answered: counter(names::CALLS_ANSWERED, "Calls answered (RFC 6076).")?,
            calls_ended: counters(names::CALLS_ENDED, "Calls ended, by outcome.", &["outcome"])?,
            session_request_delay: histogram(
                names::SESSION_REQUEST_DELAY,
                "INVITE to the first response above 100 (RFC 6076 section 4.3).",
                &DELAYS,
            )?,
            session_disconnect_delay: histogram(
                names::SESSION_DISCONNECT_DELAY,
                "BYE to its final response (RFC 6076 section 4.4).",
                &DELAYS,
            )?,
            registration_request_delay: histogram(
                names::REGISTRATION_REQUEST_DELAY,
                "REGISTER to its 200 (RFC 6076 section 4.1).",
                &DELAYS,
            )?,
            registrations: gauge(names::REGISTRATIONS, "Phones' bindings that stand.")?,
            sip_requests: counters(
                names::SIP_REQUESTS,
                "SIP requests by network, method and direction.",
                &["network", "method", "direction"],
            )?,
            sip_responses: counters(
                names::SIP_RESPONSES,
                "SIP responses by network, class and direction.",
                &["network", "class", "direction"],
            )?,
            sip_dropped: counters(
                names::SIP_DROPPED,
                "SIP messages that were not relayed, by reason.",
                &["reason"],
            )?,
            challenges_answered: counter(
                names::CHALLENGES_ANSWERED,
                "Challenges of servers that were answered for phones.",
            )?,
            credentials_refused: counter(
                names::CREDENTIALS_REFUSED,
                "Credentials of authentication entries that a server did not take.",
            )?,
            failovers: counter(
                names::FAILOVERS,
                "Requests that went to another server because the one before failed.",
            )?,
            survival: gauge(names::SURVIVAL, "1 while the office is on its own, without a server.")?,
            survival_entries: counter(
                names::SURVIVAL_ENTRIES,
                "How often the office came to be on its own.",
            )?,
            survival_seconds: {
                let help = "Seconds that the office was on its own; added when it is not any more.";
                registered(&registry, Counter::new(names::SURVIVAL_SECONDS, help)?)?
            },
            survival_calls: counters(
                names::SURVIVAL_CALLS,
                "Calls that were made without a server.",
                &["way"],
            )?,
            survival_registrations: counter(
                names::SURVIVAL_REGISTRATIONS,
                "Registrations that the appliance granted itself.",
            )?,
            second_registrations: counters(
                names::SECOND_REGISTRATIONS,
                "REGISTERs by which the appliance registers phones with a second server, by what became of them.",
                &["result"],
            )?,
            second_registrations_held: gauge(
                names::SECOND_REGISTRATIONS_HELD,
                "Registrations of phones that a second server holds, made by the appliance.",
            )?,
            emergency_calls: counters(
                names::EMERGENCY_CALLS,
                "Emergency calls, by the way that was tried first.",
                &["way"],
            )?,
            network_calls: gauges(
                names::NETWORK_CALLS,
                "Calls that have an end on a network.",
                &["network"],
            )?,
            network_kbps: gauges(
                names::NETWORK_KBPS,
                "What their media takes in each direction, as estimated for admission.",
                &["network"],
            )?,
            trunk_up: gauges(names::TRUNK_UP, "1 for a trunk that is in service.", &["trunk", "address"])?,
            large_requests: counters(
                names::LARGE_REQUESTS,
                "Requests that were too large for UDP, by the transport that took them.",
                &["transport"],
            )?,
            conversions: counters(
                names::CONVERSIONS,
                "What was converted for peers that do not take what the other side sends, by conversion.",
                &["conversion"],
            )?,
            stun_answered: counter(names::STUN_ANSWERED, "STUN binding requests answered on the SIP ports.")?,
            server_up: gauges(
                names::SERVER_UP,
                "1 for a server that answers.",
                &["group", "server", "address"],
            )?,
            server_round_trip: {
                let opts =
                    Opts::new(names::SERVER_ROUND_TRIP, "How long a server took to answer the last probe.");
                let metric = GaugeVec::new(opts, &["group", "server", "address"])?;
                registry.register(Box::new(metric.clone()))?;
                metric
            },
            sip_connections: gauges(
                names::SIP_CONNECTIONS,
                "SIP connections that stand.",
                &["network", "transport"],
            )?,
            sip_connection_failures: counters(
                names::SIP_CONNECTION_FAILURES,
                "SIP connections that could not be made or were refused, by the step at which they failed.",
                &["transport", "step"],
            )?,
            sip_connections_ended: counters(
                names::SIP_CONNECTIONS_ENDED,
                "SIP connections that have ended, by reason.",
                &["transport", "reason"],
            )?,
            symptoms: gauges(
                names::SYMPTOMS,
                "What is wrong at the moment: how many servers, calls or phones have it.",
                &["symptom"],
            )?,
            media_refused: counter(names::MEDIA_REFUSED, "Session descriptions that were refused.")?,
            flows: gauges(names::FLOWS, "Flows by who carries them.", &["datapath"])?,
            flow_table_size: gauge(names::FLOW_TABLE_SIZE, "Flows that there can be.")?,
            open_files: gauge(names::OPEN_FILES, "Descriptors that the daemon has open.")?,
            open_files_limit: gauge(names::OPEN_FILES_LIMIT, "Descriptors that it may have open.")?,
            media_sockets: gauge(names::MEDIA_SOCKETS, "Sockets of media ports that are open.")?,
            media_sockets_limit: gauge(
                names::MEDIA_SOCKETS_LIMIT,
                "Sockets of media ports that may be open; 0 where the kernel steers and there are none.",
            )?,
            media_packets: counters(
                names::MEDIA_PACKETS,
                "Media packets sent on.",
                &["datapath", "direction"],
            )?,
            media_bytes: counters(
                names::MEDIA_BYTES,
                "Bytes of media packets sent on, IPv4 headers included.",
                &["datapath", "direction"],
            )?,
            media_dropped: counters(
                names::MEDIA_DROPPED,
                "Packets to media ports that were dropped, by reason.",
                &["reason", "datapath"],
            )?,
            media_passed: counters(
                names::MEDIA_PASSED,
                "Packets that the kernel program passed to the stack, by reason.",
                &["reason"],
            )?,
            rtp_lost: counters(
                names::RTP_LOST,
                "RTP packets that never arrived at the appliance.",
                &["direction"],
            )?,
            rtp_expected: counters(
                names::RTP_EXPECTED,
                "RTP packets that should have arrived at the appliance.",
                &["direction"],
            )?,
            rtp_jitter: histograms(
                names::RTP_JITTER,
                "Interarrival jitter (RFC 3550) of the live streams, each observed every 5 seconds.",
                &JITTERS,
                &["direction"],
            )?,
            relay_latency: histograms(
                names::RELAY_LATENCY,
                "Time in the relay: the kernel program's own, one packet in 256; in userspace from the packet's arrival to its departure, one packet of a batch.",
                &latencies,
                &["datapath"],
            )?,
            rtcp_round_trip: histogram(
                names::RTCP_ROUND_TRIP,
                "From the appliance to a party and back, from RTCP reports.",
                &ROUND_TRIPS,
            )?,
            stream_mos: histograms(
                names::STREAM_MOS,
                "Mean opinion score of the audio streams that have ended (ITU-T G.107): conversational where RTCP tells the delay, else listening.",
                &SCORES,
                &["network", "direction"],
            )?,
            stream_loss: histograms(
                names::STREAM_LOSS,
                "Share of the packets of the streams that have ended which was lost before the appliance.",
                &LOSSES,
                &["network", "direction"],
            )?,
            stream_reported_loss: histograms(
                names::STREAM_REPORTED_LOSS,
                "Share of the packets of the streams that have ended which their receivers reported as lost.",
                &LOSSES,
                &["network", "direction"],
            )?,
            stream_jitter: histograms(
                names::STREAM_JITTER,
                "Interarrival jitter (RFC 3550) of the streams that have ended, at their end.",
                &JITTERS,
                &["network", "direction"],
            )?,
            stream_round_trip: histograms(
                names::STREAM_ROUND_TRIP,
                "From the appliance to the sender of the streams that have ended and back, at their end.",
                &ROUND_TRIPS,
                &["network", "direction"],
            )?,
            streams_ended: counters(
                names::STREAMS_ENDED,
                "Streams that have ended, by the worst that was the matter with them.",
                &["verdict"],
            )?,
            media_ports_used: gauges(names::MEDIA_PORTS_USED, "Media ports in use.", &["network"])?,
            media_ports: gauges(names::MEDIA_PORTS, "Media ports configured.", &["network"])?,
            attach_mode: gauges(
                names::ATTACH_MODE,
                "1 for the mode in which the relay is attached.",
                &["interface", "mode"],
            )?,
            datapath_info: gauges(
                names::DATAPATH_INFO,
                "1 for the datapath in force, and why it is not the kernel's.",
                &["datapath", "reason"],
            )?,
            web_requests: counters(
                names::WEB_REQUESTS,
                "Requests to the pages and the REST interface, by class of their status.",
                &["class"],
            )?,
            web_refused: counters(
                names::WEB_REFUSED,
                "What the pages and the REST interface refused, by reason.",
                &["reason"],
            )?,
            configuration_reloads: counters(
                names::CONFIGURATION_RELOADS,
                "Configurations that were read anew while running, by result.",
                &["result"],
            )?,
            services: ServiceMetrics::new(&registry)?,
            registry,
        };
        let build = IntGaugeVec::new(Opts::new(names::BUILD_INFO, "Version of the daemon."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(build))?;
        for class in names::web::CLASSES {
            metrics.web_requests.with_label_values(&[class]);
        }
        for reason in names::web::ALL {
            metrics.web_refused.with_label_values(&[reason]);
        }
        for result in [names::reload::APPLIED, names::reload::REFUSED] {
            metrics.configuration_reloads.with_label_values(&[result]);
        }
        for datapath in [names::datapath::KERNEL, names::datapath::USERSPACE] {
            metrics.relay_latency.with_label_values(&[datapath]);
        }
        Ok(metrics)
    }

    /// Everything, in Prometheus' text format.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn text(&self) -> Result<String, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Adds the latency samples that came between two readings. A sample is known to within a factor of
    /// two; it is entered in the middle of its bucket.
    pub fn add_latencies(&self, datapath: &str, before: &Latency, now: &Latency) {
        let histogram = self.relay_latency.with_label_values(&[datapath]);
        for (power, (before, now)) in before.buckets.iter().zip(now.buckets).enumerate() {
            for _ in *before..now {
                histogram.observe(seconds(1u64 << power) * 1.5);
            }
        }
    }
}

/// Brings a counter up to what another counts.
pub fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// Nanoseconds in seconds.
fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_samples_are_entered_once_and_in_their_bucket() {
        let metrics = Metrics::new().unwrap();
        let mut now = Latency::default();
        now.buckets[10] = 3;
        metrics.add_latencies("kernel", &Latency::default(), &now);
        let before = now;
        now.buckets[10] = 4;
        metrics.add_latencies("kernel", &before, &now);
        let text = metrics.text().unwrap();
        // 1,024 ns and above, below 2,048 ns.
        assert!(
            text.contains(
                "branchline_relay_latency_seconds_bucket{datapath=\"kernel\",le=\"0.000001024\"} 0"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "branchline_relay_latency_seconds_bucket{datapath=\"kernel\",le=\"0.000002048\"} 4"
            ),
            "{text}"
        );
    }
}
