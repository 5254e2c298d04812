//! Names of metrics, in one place. Units are in the names: seconds, bytes; `_total` marks counters.

/// Version of the daemon, as a label.
pub const BUILD_INFO: &str = "branchline_build_info";
/// Calls that stand or are being set up.
pub const CALLS_ACTIVE: &str = "branchline_calls_active";
/// Calls attempted: the denominator of RFC 6076's ratios.
pub const CALL_ATTEMPTS: &str = "branchline_call_attempts_total";
/// Calls answered: the numerator of the answer-seizure ratio (RFC 6076 section 4.6).
pub const CALLS_ANSWERED: &str = "branchline_calls_answered_total";
/// Calls ended, by outcome.
pub const CALLS_ENDED: &str = "branchline_calls_ended_total";
/// RFC 6076 section 4.3.
pub const SESSION_REQUEST_DELAY: &str = "branchline_session_request_delay_seconds";
/// RFC 6076 section 4.4.
pub const SESSION_DISCONNECT_DELAY: &str = "branchline_session_disconnect_delay_seconds";
/// RFC 6076 section 4.1.
pub const REGISTRATION_REQUEST_DELAY: &str = "branchline_registration_request_delay_seconds";
/// Bindings that stand.
pub const REGISTRATIONS: &str = "branchline_registrations";
/// SIP requests, by network, method and direction.
pub const SIP_REQUESTS: &str = "branchline_sip_requests_total";
/// SIP responses, by network, class and direction.
pub const SIP_RESPONSES: &str = "branchline_sip_responses_total";
/// SIP messages dropped or refused, by reason.
pub const SIP_DROPPED: &str = "branchline_sip_dropped_total";
/// Challenges of servers that were answered for phones.
pub const CHALLENGES_ANSWERED: &str = "branchline_challenges_answered_total";
/// Credentials of authentication entries that a server did not take.
pub const CREDENTIALS_REFUSED: &str = "branchline_credentials_refused_total";
/// Requests that went to another server because the one before failed.
pub const FAILOVERS: &str = "branchline_failovers_total";
/// 1 while the office is on its own, without a server.
pub const SURVIVAL: &str = "branchline_survival";
/// How often the office came to be on its own.
pub const SURVIVAL_ENTRIES: &str = "branchline_survival_entries_total";
/// Seconds that it was.
pub const SURVIVAL_SECONDS: &str = "branchline_survival_seconds_total";
/// Calls without a server, by `way`.
pub const SURVIVAL_CALLS: &str = "branchline_survival_calls_total";
/// Calls that have an end on a network.
pub const NETWORK_CALLS: &str = "branchline_network_calls";
/// kbit/s that their media takes there in each direction, as estimated for admission.
pub const NETWORK_KBPS: &str = "branchline_network_admitted_kilobits_per_second";
/// REGISTERs by which phones are registered with a second server.
pub const SECOND_REGISTRATIONS: &str = "branchline_second_registrations_total";
/// Second registrations that servers hold.
pub const SECOND_REGISTRATIONS_HELD: &str = "branchline_second_registrations";
/// Phones that were registered by the appliance itself.
pub const SURVIVAL_REGISTRATIONS: &str = "branchline_survival_registrations_total";
/// Emergency calls, by the `way` that was tried first.
pub const EMERGENCY_CALLS: &str = "branchline_emergency_calls_total";
/// 1 for a trunk that is in service: `trunk`, `address`.
pub const TRUNK_UP: &str = "branchline_trunk_up";
/// Requests that were too large for UDP, by the transport that took them: `tcp`, or `udp` in fragments after no connection
/// had come about.
pub const LARGE_REQUESTS: &str = "branchline_sip_large_requests_total";
/// What was converted for peers, by conversion.
pub const CONVERSIONS: &str = "branchline_sip_conversions_total";
/// STUN binding requests answered on the SIP ports.
pub const STUN_ANSWERED: &str = "branchline_sip_stun_answered_total";
/// 1 for a server that answers, by server as configured and by address.
pub const SERVER_UP: &str = "branchline_server_up";
/// How long a server took to answer the last probe.
pub const SERVER_ROUND_TRIP: &str = "branchline_server_round_trip_seconds";
/// SIP connections, by network and transport.
pub const SIP_CONNECTIONS: &str = "branchline_sip_connections";
/// SIP connections that could not be made or were refused, by transport and step.
pub const SIP_CONNECTION_FAILURES: &str = "branchline_sip_connection_failures_total";
/// SIP connections that have ended, by transport and reason: `malformed`, `too_large`, `slow`, `silent` and `unread` are
/// the peer's doing.
pub const SIP_CONNECTIONS_ENDED: &str = "branchline_sip_connections_ended_total";
/// What is wrong at the moment, by kind: how many servers, calls or phones have it.
pub const SYMPTOMS: &str = "branchline_symptoms";
/// Session descriptions that the media plane refused.
pub const MEDIA_REFUSED: &str = "branchline_media_refused_total";
/// Flows, by who carries them.
pub const FLOWS: &str = "branchline_flows";
/// Flows that there can be.
pub const FLOW_TABLE_SIZE: &str = "branchline_flow_table_size";
/// Descriptors that the daemon has open.
pub const OPEN_FILES: &str = "branchline_open_files";
/// Descriptors that it may have open (RLIMIT_NOFILE).
pub const OPEN_FILES_LIMIT: &str = "branchline_open_files_limit";
/// Sockets of media ports that are open; 0 where the kernel steers.
pub const MEDIA_SOCKETS: &str = "branchline_media_sockets";
/// Sockets of media ports that may be open, what is kept for the rest left out; 0 where there are none.
pub const MEDIA_SOCKETS_LIMIT: &str = "branchline_media_sockets_limit";
/// Media packets sent on, by datapath and direction.
pub const MEDIA_PACKETS: &str = "branchline_media_packets_total";
/// Bytes of these, IPv4 headers included.
pub const MEDIA_BYTES: &str = "branchline_media_bytes_total";
/// Packets to media ports dropped, by reason and datapath.
pub const MEDIA_DROPPED: &str = "branchline_media_dropped_total";
/// Packets that the kernel program passed to the stack, by reason.
pub const MEDIA_PASSED: &str = "branchline_media_passed_total";
/// RTP packets that never arrived at the appliance, by direction.
pub const RTP_LOST: &str = "branchline_rtp_lost_packets_total";
/// RTP packets that should have arrived, by direction.
pub const RTP_EXPECTED: &str = "branchline_rtp_expected_packets_total";
/// Interarrival jitter of the streams, by direction, one observation for each stream every few seconds.
pub const RTP_JITTER: &str = "branchline_rtp_jitter_seconds";
/// Time in the relay, by datapath.
pub const RELAY_LATENCY: &str = "branchline_relay_latency_seconds";
/// Time from the appliance to a party and back, from RTCP.
pub const RTCP_ROUND_TRIP: &str = "branchline_rtcp_round_trip_seconds";
/// Mean opinion score of the streams that have ended, by the network that they came from and their direction.
pub const STREAM_MOS: &str = "branchline_stream_mos";
/// Share of their packets that was lost before the appliance.
pub const STREAM_LOSS: &str = "branchline_stream_loss_ratio";
/// Share of their packets that their receivers reported as lost.
pub const STREAM_REPORTED_LOSS: &str = "branchline_stream_reported_loss_ratio";
/// Their jitter at their end.
pub const STREAM_JITTER: &str = "branchline_stream_jitter_seconds";
/// The round-trip time between the appliance and their sender at their end.
pub const STREAM_ROUND_TRIP: &str = "branchline_stream_round_trip_seconds";
/// Streams that have ended, by the worst that was the matter with them.
pub const STREAMS_ENDED: &str = "branchline_streams_ended_total";
/// Media ports in use, by network.
pub const MEDIA_PORTS_USED: &str = "branchline_media_ports_used";
/// Media ports configured, by network.
pub const MEDIA_PORTS: &str = "branchline_media_ports";
/// 1 for the mode in which the relay is attached to an interface.
pub const ATTACH_MODE: &str = "branchline_attach_mode";
/// 1 for the datapath in force; the reason is empty unless it is userspace.
pub const DATAPATH_INFO: &str = "branchline_datapath_info";
/// Requests to the pages and the REST interface, by class of their status.
pub const WEB_REQUESTS: &str = "branchline_web_requests_total";
/// What the pages and the REST interface refused, by reason.
pub const WEB_REFUSED: &str = "branchline_web_refused_total";
/// Configurations that were read anew while running, by result.
pub const CONFIGURATION_RELOADS: &str = "branchline_configuration_reloads_total";

/// Diagnostic captures that run.
pub const CAPTURES_RUNNING: &str = "branchline_captures_running";
/// Packets for captures that have ended, by what became of the copy.
pub const CAPTURE_PACKETS: &str = "branchline_capture_packets_total";
/// Captures that ended because their file could not be written.
pub const CAPTURE_FAILURES: &str = "branchline_capture_failures_total";
/// Bytes that captures take on disk.
pub const CAPTURE_BYTES: &str = "branchline_capture_bytes";
/// Bytes that captures may take on disk.
pub const CAPTURE_BYTES_LIMIT: &str = "branchline_capture_bytes_limit";

/// Messages for traces, by what became of them.
pub const TRACE_MESSAGES: &str = "branchline_trace_messages_total";
/// Traces that were let go of because the memory for them was used up.
pub const TRACES_EVICTED: &str = "branchline_traces_evicted_total";
/// Bytes of memory that traces take.
pub const TRACE_BYTES: &str = "branchline_trace_bytes";
/// Packets for Homer, by what became of them.
pub const HEP_PACKETS: &str = "branchline_hep_packets_total";

/// Lines that are not in the log's files because the queue was full.
pub const LOG_LINES_LOST: &str = "branchline_log_lines_lost_total";
/// Writes to the log's files that failed.
pub const LOG_WRITE_FAILURES: &str = "branchline_log_write_failures_total";

/// Values of the label `result` of [`CAPTURE_PACKETS`].
pub mod capture {
    /// In the file.
    pub const WRITTEN: &str = "written";
    /// Lost: the queue was full.
    pub const DROPPED: &str = "dropped";
    /// Both.
    pub const ALL: &[&str] = &[WRITTEN, DROPPED];
}

/// Values of the label `result` of [`TRACE_MESSAGES`].
pub mod trace {
    /// Taken into a trace.
    pub const RECORDED: &str = "recorded";
    /// Of these let go of again, from the middle of a trace that was full; and those that had no Call-ID.
    pub const LEFT_OUT: &str = "left_out";
    /// Lost: the queue was full.
    pub const LOST: &str = "lost";
    /// All of them.
    pub const ALL: &[&str] = &[RECORDED, LEFT_OUT, LOST];
}

/// Values of the label `result` of [`HEP_PACKETS`].
pub mod hep {
    /// On its way.
    pub const SENT: &str = "sent";
    /// Lost: the queue was full, or the message fits no packet.
    pub const DROPPED: &str = "dropped";
    /// The host could not send it, or was told later that nobody listens there.
    pub const FAILED: &str = "failed";
    /// All of them.
    pub const ALL: &[&str] = &[SENT, DROPPED, FAILED];
}

/// Values of the label `reason` of [`WEB_REFUSED`].
pub mod web {
    /// Nobody has set an administrator yet.
    pub const NO_ADMINISTRATOR: &str = "no_administrator";
    /// A one-time link that is used, too old or made up.
    pub const SETUP_LINK: &str = "setup_link";
    /// A wrong name or password.
    pub const WRONG_PASSWORD: &str = "wrong_password";
    /// A token that there is not.
    pub const WRONG_TOKEN: &str = "wrong_token";
    /// Too many wrong attempts before.
    pub const TOO_MANY_ATTEMPTS: &str = "too_many_attempts";
    /// A form that came from another site, or without its session's token.
    pub const FOREIGN_FORM: &str = "foreign_form";
    /// A body that is too large, or too slow.
    pub const BODY: &str = "body";
    /// Too many connections.
    pub const CONNECTIONS: &str = "connections";
    /// No TLS, or none that was agreed on.
    pub const TLS: &str = "tls";
    /// A request's head that cannot be read, or is too large.
    pub const HEAD: &str = "head";
    /// A connection that has nothing to say, or says it too slowly.
    pub const SILENT: &str = "silent";
    /// An answer that is not taken.
    pub const UNREAD: &str = "unread";
    /// Too many live views.
    pub const LIVE_VIEWS: &str = "live_views";
    /// Classes of status, values of the label `class` of [`super::WEB_REQUESTS`], for metrics that begin at zero.
    pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
    /// All of them, for metrics that begin at zero.
    pub const ALL: &[&str] = &[
        NO_ADMINISTRATOR,
        SETUP_LINK,
        WRONG_PASSWORD,
        WRONG_TOKEN,
        TOO_MANY_ATTEMPTS,
        FOREIGN_FORM,
        BODY,
        CONNECTIONS,
        TLS,
        HEAD,
        SILENT,
        UNREAD,
        LIVE_VIEWS,
    ];
}

/// Values of the label `result` of [`CONFIGURATION_RELOADS`].
pub mod reload {
    /// It was applied, as far as that goes without a restart.
    pub const APPLIED: &str = "applied";
    /// It is not valid or cannot be read; what ran before runs on.
    pub const REFUSED: &str = "refused";
}
/// DHCP messages of phones, by type.
pub const DHCP_MESSAGES: &str = "branchline_dhcp_messages_total";
/// DHCP messages dropped, by reason.
pub const DHCP_DROPPED: &str = "branchline_dhcp_dropped_total";
/// NTP packets, by what became of them.
pub const CLOCK_REQUESTS: &str = "branchline_clock_requests_total";
/// 1 while the kernel says that the host's clock is synchronised.
pub const CLOCK_SYNCHRONISED: &str = "branchline_clock_synchronised";
/// Lines of phones' logs, by severity.
pub const SYSLOG_MESSAGES: &str = "branchline_syslog_messages_total";
/// Lines of phones' logs that were lost, by reason.
pub const SYSLOG_DROPPED: &str = "branchline_syslog_dropped_total";
/// Phones' requests for files, by method, status and source.
pub const PROVISIONING_REQUESTS: &str = "branchline_provisioning_requests_total";
/// Bytes of answers to phones, by source.
pub const PROVISIONING_BYTES: &str = "branchline_provisioning_bytes_total";
/// Phones' requests and connections refused, by reason.
pub const PROVISIONING_REFUSED: &str = "branchline_provisioning_refused_total";
/// Requests that a server of files failed to answer, by server.
pub const PROVISIONING_UPSTREAM_FAILURES: &str = "branchline_provisioning_upstream_failures_total";
/// Bytes of cached files on disk.
pub const PROVISIONING_CACHE_BYTES: &str = "branchline_provisioning_cache_bytes";
/// Files that could not be cached.
pub const PROVISIONING_NOT_CACHED: &str = "branchline_provisioning_not_cached_total";

/// Values of the label `datapath`.
pub mod datapath {
    /// The kernel program.
    pub const KERNEL: &str = "kernel";
    /// The userspace relay.
    pub const USERSPACE: &str = "userspace";
}

/// Values of the label `direction` of SIP messages.
pub mod sip {
    /// To the appliance.
    pub const RECEIVED: &str = "received";
    /// From the appliance.
    pub const SENT: &str = "sent";
}

/// Values of the label `type` of DHCP messages.
pub mod dhcp {
    /// Wants an address.
    pub const DISCOVER: &str = "discover";
    /// Takes or renews one.
    pub const REQUEST: &str = "request";
    /// Found it in use.
    pub const DECLINE: &str = "decline";
    /// Gives it back.
    pub const RELEASE: &str = "release";
    /// Asked for the files' place, and was answered.
    pub const INFORM: &str = "inform";
    /// All of them, for metrics that begin at zero.
    pub const ALL: [&str; 5] = [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM];
}

/// Values of labels of phones' logs.
pub mod syslog {
    /// Severities (RFC 5424 section 6.2.1), and of lines that have none; for metrics that begin at zero.
    pub const SEVERITIES: [&str; 9] =
        ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", UNKNOWN_SEVERITY];
    /// A line that is neither RFC 5424 nor RFC 3164.
    pub const UNKNOWN_SEVERITY: &str = "unknown";
    /// The phone, or all of them, write too fast.
    pub const TOO_FAST: &str = "too_fast";
    /// The disk is slower than the phones: in memory only.
    pub const QUEUE_FULL: &str = "queue_full";
    /// The disk is full or fails: in memory only.
    pub const NOT_WRITTEN: &str = "not_written";
}

/// Values of labels of the relay of files.
pub mod provisioning {
    /// Source: a server.
    pub const UPSTREAM: &str = "upstream";
    /// Source: the cache, checked with a server, or a fetch that was under way.
    pub const CACHE: &str = "cache";
    /// Source: the cache, while no server can be reached.
    pub const STALE: &str = "stale";
    /// Source: the appliance, for refusals and errors.
    pub const OWN: &str = "own";
    /// Method: one that is not relayed; its name is the asker's, so it is no label.
    pub const OTHER_METHOD: &str = "other";
    /// Refused: all connections are in use.
    pub const TOO_MANY: &str = "too_many_connections";
    /// Refused: all connections of one phone are in use.
    pub const TOO_MANY_OF_ONE: &str = "too_many_connections_of_one";
    /// Refused: a connection that says nothing, or says it too slowly.
    pub const SILENT: &str = "silent";
    /// Refused: TLS could not be agreed on.
    pub const TLS: &str = "tls";
    /// Refused: the head of the request is too large.
    pub const HEAD_TOO_LARGE: &str = "head_too_large";
    /// Refused: it is no HTTP.
    pub const MALFORMED: &str = "malformed";
    /// The reasons to refuse a connection.
    pub const REFUSED: [&str; 6] = [TOO_MANY, TOO_MANY_OF_ONE, SILENT, TLS, HEAD_TOO_LARGE, MALFORMED];
}
