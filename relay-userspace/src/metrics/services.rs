//! Metrics of the office's services.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{names, registry::registered};

/// Handles to these metrics; clones count together.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    /// DHCP messages: type.
    pub dhcp_messages: IntCounterVec,
    /// DHCP messages dropped: reason.
    pub dhcp_dropped: IntCounterVec,
    /// Requests for the time: result.
    pub clock_requests: IntCounterVec,
    /// 1 while the host's clock is synchronised.
    pub clock_synchronised: IntGauge,
    /// Lines of phones' logs: severity.
    pub syslog_messages: IntCounterVec,
    /// Lines lost: reason.
    pub syslog_dropped: IntCounterVec,
    /// Requests for files: method, status, source.
    pub provisioning_requests: IntCounterVec,
    /// Bytes of files to phones: source.
    pub provisioning_bytes: IntCounterVec,
    /// Requests and connections refused: reason.
    pub provisioning_refused: IntCounterVec,
    /// Failures of servers of files: server.
    pub provisioning_upstream_failures: IntCounterVec,
    /// Bytes of cached files on disk.
    pub provisioning_cache_bytes: IntGauge,
    /// Lines lost by the log.
    pub log_lines_lost: IntCounter,
    /// Failed writes of the log.
    pub log_write_failures: IntCounter,
    /// Captures that run.
    pub captures_running: IntGauge,
    /// Packets for captures: result.
    pub capture_packets: IntCounterVec,
    /// Bytes that captures take on disk.
    pub capture_bytes: IntGauge,
    /// Bytes that they may take.
    pub capture_bytes_limit: IntGauge,
    /// Captures whose file could not be written.
    pub capture_failures: IntCounter,
    /// Messages for traces: result.
    pub trace_messages: IntCounterVec,
    /// Traces that were let go of.
    pub traces_evicted: IntCounter,
    /// Bytes that traces take.
    pub trace_bytes: IntGauge,
    /// Packets for Homer: result.
    pub hep_packets: IntCounterVec,
    /// Files that could not be cached.
    pub provisioning_not_cached: IntCounter,
}

impl ServiceMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
            };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            registered(registry, IntGauge::new(name, help)?)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            registered(registry, IntCounter::new(name, help)?)
        };
        Ok(Self {
            log_lines_lost: counter(
                names::LOG_LINES_LOST,
                "Lines that are not in the log's files because the queue was full.",
            )?,
            log_write_failures: counter(
                names::LOG_WRITE_FAILURES,
                "Writes to the log's files that failed, as when the disk is full.",
            )?,
            dhcp_messages: counters(
                names::DHCP_MESSAGES,
                "DHCP messages of phones, by type; inform: answered.",
                &["type"],
            )?,
            dhcp_dropped: counters(names::DHCP_DROPPED, "DHCP messages dropped, by reason.", &["reason"])?,
            clock_requests: counters(
                names::CLOCK_REQUESTS,
                "NTP packets, by what became of them.",
                &["result"],
            )?,
            clock_synchronised: gauge(
                names::CLOCK_SYNCHRONISED,
                "1 while the kernel says that the host's clock is synchronised; as of the last request.",
            )?,
            syslog_messages: counters(
                names::SYSLOG_MESSAGES,
                "Lines of phones' logs, by severity.",
                &["severity"],
            )?,
            syslog_dropped: counters(
                names::SYSLOG_DROPPED,
                "Lines of phones' logs that were lost, by reason.",
                &["reason"],
            )?,
            provisioning_requests: counters(
                names::PROVISIONING_REQUESTS,
                "Phones' requests for files, by method, status and where the answer came from.",
                &["method", "status", "source"],
            )?,
            provisioning_bytes: counters(
                names::PROVISIONING_BYTES,
                "Bytes of answers to phones, by where they came from.",
                &["source"],
            )?,
            provisioning_refused: counters(
                names::PROVISIONING_REFUSED,
                "Phones' requests and connections that were refused, by reason.",
                &["reason"],
            )?,
            provisioning_upstream_failures: counters(
                names::PROVISIONING_UPSTREAM_FAILURES,
                "Requests that a server of files did not answer, or answered with 5xx.",
                &["server"],
            )?,
            provisioning_cache_bytes: gauge(
                names::PROVISIONING_CACHE_BYTES,
                "Bytes of cached files on disk.",
            )?,
            captures_running: gauge(names::CAPTURES_RUNNING, "Diagnostic captures that run.")?,
            capture_bytes: gauge(names::CAPTURE_BYTES, "Bytes that captures take on disk.")?,
            capture_bytes_limit: gauge(names::CAPTURE_BYTES_LIMIT, "Bytes that captures may take on disk.")?,
            capture_packets: {
                let help = "Packets for captures that have ended, by what became of the copy.";
                let metric = counters(names::CAPTURE_PACKETS, help, &["result"])?;
                for result in names::capture::ALL {
                    metric.with_label_values(&[*result]);
                }
                metric
            },
            capture_failures: counter(
                names::CAPTURE_FAILURES,
                "Captures that ended because their file could not be written.",
            )?,
            trace_messages: {
                let help = "SIP messages for traces, by what became of them.";
                let metric = counters(names::TRACE_MESSAGES, help, &["result"])?;
                for result in names::trace::ALL {
                    metric.with_label_values(&[*result]);
                }
                metric
            },
            traces_evicted: counter(
                names::TRACES_EVICTED,
                "Traces that were let go of because the memory for them was used up.",
            )?,
            trace_bytes: gauge(names::TRACE_BYTES, "Bytes of memory that traces take.")?,
            hep_packets: {
                let help = "Packets for Homer, by what became of them.";
                let metric = counters(names::HEP_PACKETS, help, &["result"])?;
                for result in names::hep::ALL {
                    metric.with_label_values(&[*result]);
                }
                metric
            },
            provisioning_not_cached: counter(
                names::PROVISIONING_NOT_CACHED,
                "Files that could not be cached, as when the disk is full; they were relayed.",
            )?,
        })
    }
}
