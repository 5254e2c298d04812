//! The sections of the configuration: which keys each has, what people call them, and how they are set.

/// How a value is set.
#[derive(Debug)]
pub(super) enum Control {
    /// A number in a range.
    Number {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A line of text, with an example.
    Text(&'static str),
    /// Several values, one in a line, with an example.
    Lines(&'static str),
    /// One of these: value and what it means.
    Choice(&'static [(&'static str, &'static str)]),
    /// Any of these.
    Boxes(&'static [&'static str]),
}

/// A key on a page.
#[derive(Debug)]
pub(super) struct Described {
    /// The key.
    pub(super) key: &'static str,
    /// What people call it.
    pub(super) label: &'static str,
    /// What it does, with its unit.
    pub(super) help: &'static str,
    /// How it is set.
    pub(super) control: Control,
}

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in addresses.
    pub(super) name: &'static str,
    /// Its title.
    pub(super) title: &'static str,
    /// The page that it is on.
    pub(super) page: &'static str,
    /// What it is about.
    pub(super) intro: &'static str,
    /// Its keys.
    pub(super) fields: &'static [Described],
}

use Control::{Boxes, Choice, Lines, Number, Text};

const fn field(key: &'static str, label: &'static str, help: &'static str, control: Control) -> Described {
    Described { key, label, help, control }
}

const SWITCH: Control = Choice(&[("true", "on"), ("false", "off")]);
const TOPIC: Control = Choice(&[
    ("", "as the log level"),
    ("off", "off"),
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
]);
const MINUTE_MS: Control = Number { least: 1, most: 60_000 };
const MONTH: Control = Number { least: 1, most: 2_592_000 };
const DSCP: Control = Number { least: 0, most: 63 };
const PORT_OR_NONE: Control = Number { least: 0, most: 65_535 };
const RETRIES: Control = Number { least: 1, most: 10 };

/// The servers.
static SERVERS: Section = Section {
    name: "servers",
    title: "Servers",
    page: "/configuration/servers",
    intro: "The central SIP servers, who else is trusted, and when the next server is tried.",
    fields: &[
        field(
            "upstream.servers",
            "Servers",
            "In order of preference, one in a line: address and port, or a SIP URI. A name without a port is looked up by its NAPTR and SRV records.",
            Lines("sip:sip.example.com;transport=tls"),
        ),
        field(
            "upstream.trusted",
            "Trusted addresses",
            "Other addresses on networks of servers whose requests are accepted. The servers' own are, always.",
            Lines("203.0.113.0/28"),
        ),
        field(
            "upstream.probe_seconds",
            "Probe every (s)",
            "Each server is asked how it is by OPTIONS. 0: never.",
            Number { least: 0, most: 86_400 },
        ),
        field(
            "upstream.dual_registration",
            "Registered with two servers",
            "Both servers can then call a phone at any time. Phones that do it themselves name the server in each registration.",
            Choice(&[("off", "no"), ("phone", "by the phones"), ("appliance", "by this appliance")]),
        ),
        field(
            "upstream.oos_force_seconds",
            "Out of service after failing for (s)",
            "0: with the first failure.",
            Number { least: 0, most: 30 },
        ),
        field(
            "upstream.recovery_seconds",
            "Leave a failed server alone for (s)",
            "Unless a probe finds it well before.",
            MONTH,
        ),
        field(
            "upstream.redirects",
            "Redirections (3xx)",
            "Followed only to servers and trusted addresses.",
            Choice(&[("follow", "followed here"), ("pass", "passed to the phone")]),
        ),
        field(
            "upstream.silence",
            "A server that is silent while another answers",
            "",
            Choice(&[("failure", "has failed"), ("standby", "stands by")]),
        ),
        field(
            "upstream.dns",
            "DNS servers",
            "Asked for the servers' names; one in a line. Empty: the system's.",
            Lines("10.0.0.53"),
        ),
        field(
            "upstream.retry_statuses",
            "Try the next server after",
            "Final status codes or ranges, one in a line.",
            Lines("500-599"),
        ),
    ],
};

static PROTOCOLS: Section = Section {
    name: "protocols",
    title: "Protocols",
    page: "/configuration/protocols",
    intro: "SIP timers and limits, TLS, and the marking of signalling. Ports are set with each network.",
    fields: &[
        field("sip.timer_t1_ms", "Timer T1 (ms)", "Estimate of the round-trip time (RFC 3261).", MINUTE_MS),
        field("sip.timer_t4_ms", "Timer T4 (ms)", "How long a message stays in the network.", MINUTE_MS),
        field("sip.timer_t2_ms", "Timer T2 (ms)", "Longest interval between retransmissions.", MINUTE_MS),
        field("sip.invite_retries", "INVITE retries", "Over UDP, before the next server is tried.", RETRIES),
        field("sip.other_retries", "Other retries", "Of all other requests over UDP.", RETRIES),
        field(
            "sip.tcp_connect_timeout_ms",
            "TCP connect timeout (ms)",
            "For connections to servers.",
            MINUTE_MS,
        ),
        field(
            "sip.tcp_above_bytes",
            "By TCP above (bytes)",
            "Larger requests to servers go by TCP instead of UDP, if the server takes it. 0: none do.",
            Number { least: 0, most: 65_535 },
        ),
        field(
            "sip.websocket_origins",
            "Origins of softphones",
            "Whose pages may connect by WebSocket, one in a line. Empty: any.",
            Lines("https://phone.example.com"),
        ),
        field(
            "sip.keep_entry_passwords",
            "Passwords of entries",
            "A day after servers have taken them, hashes can stand for them, in the realms of those servers alone.",
            Choice(&[("false", "forgotten then"), ("true", "kept")]),
        ),
        field(
            "sip.max_calls",
            "Calls at a time",
            "More are answered 503.",
            Number { least: 1, most: 262_144 },
        ),
        field("sip.ring_timeout_seconds", "Ringing ends after (s)", "A call that nobody answers.", MONTH),
        field("dscp.sip", "DSCP of SIP", "0 to 63; 24 is CS3. 0: not marked.", DSCP),
        field(
            "dscp.sip_priority",
            "802.1p priority",
            "0 to 7, where SIP leaves with a VLAN tag.",
            Number { least: 0, most: 7 },
        ),
        field(
            "tls.certificate",
            "Certificate file",
            "PEM, the appliance's certificate first. Empty: the appliance's own, made at its first start.",
            Text("/etc/branchline/tls.pem"),
        ),
        field(
            "tls.private_key",
            "Private key file",
            "PEM; belongs to the certificate.",
            Text("/etc/branchline/tls.key"),
        ),
        field(
            "tls.authorities",
            "Authorities file",
            "PEM; who may vouch for certificates, besides the system's authorities.",
            Text("/etc/branchline/authorities.pem"),
        ),
        field(
            "tls.client_certificates",
            "Mutual TLS",
            "Whether phones have to show a certificate.",
            Choice(&[
                ("off", "off: they are not asked"),
                ("request", "request: one that is shown must be valid"),
                ("require", "require: without one no connection"),
            ]),
        ),
        field(
            "tls.suites",
            "Cipher suites",
            "Those that may be used; none ticked: all of them.",
            Boxes(&[
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]),
        ),
    ],
};

static MEDIA: Section = Section {
    name: "media",
    title: "Media",
    page: "/configuration/media",
    intro: "How RTP is marked and carried. Ports and latching are set with each network.",
    fields: &[
        field("dscp.rtp", "DSCP of RTP", "0 to 63; 46 is EF. 0: as it came. For new calls.", DSCP),
        field("dscp.rtcp", "DSCP of RTCP", "0 to 63; 46 is EF. 0: as it came. For new calls.", DSCP),
        field(
            "dscp.media_priority",
            "802.1p priority",
            "0 to 7, where media leaves with a VLAN tag.",
            Number { least: 0, most: 7 },
        ),
        field(
            "media.timeout_seconds",
            "Silent calls end after (s)",
            "Without a packet and without signalling.",
            MONTH,
        ),
        field(
            "datapath.engine",
            "Datapath",
            "Who forwards media.",
            Choice(&[
                ("auto", "kernel where possible"),
                ("kernel", "kernel, or no start"),
                ("userspace", "userspace"),
            ]),
        ),
        field(
            "datapath.flows",
            "Flows at a time",
            "Four to a call; 192 bytes of kernel memory each.",
            Number { least: 64, most: 1_048_576 },
        ),
        field(
            "datapath.force_userspace",
            "Relay in userspace",
            "Addresses whose media userspace carries, for troubleshooting; one in a line.",
            Lines("192.0.2.7/32"),
        ),
        field(
            "datapath.keep_when_stopped",
            "Keep forwarding when stopped",
            "Calls go on while the daemon is stopped, until it starts again.",
            SWITCH,
        ),
    ],
};

static SERVICES: Section = Section {
    name: "services",
    title: "Services for phones",
    page: "/configuration/services",
    intro: "DHCP options, time, logs, and the relay of firmware and configuration files. Each is off until it is switched on.",
    fields: &[
        field(
            "dhcp.enabled",
            "Answer DHCPINFORM",
            "Addresses are leased by the office's own DHCP server.",
            SWITCH,
        ),
        field("dhcp.option", "DHCP option of the URL", "Phones read 160.", Number { least: 1, most: 254 }),
        field(
            "dhcp.url",
            "Provisioning URL",
            "Empty: the appliance's own relay, on the phone's network.",
            Text("http://provision.example.com:8088"),
        ),
        field("dhcp.tftp_server", "TFTP server (option 66)", "Empty: the appliance.", Text("192.168.10.1")),
        field("clock.enabled", "Tell the time (SNTP)", "UDP port 123 on networks of phones.", SWITCH),
        field(
            "clock.stratum",
            "Stratum",
            "Told while the host's clock is synchronised.",
            Number { least: 1, most: 15 },
        ),
        field(
            "clock.unsynchronised",
            "While it is not synchronised",
            "Phones take no time from a clock that says so.",
            Choice(&[("alarm", "say so"), ("local", "offer it as it is")]),
        ),
        field("syslog.enabled", "Receive phones' logs", "By syslog over UDP.", SWITCH),
        field("syslog.port", "Port of the logs", "", Number { least: 1, most: 65_535 }),
        field("syslog.file_kib", "One phone's file (KiB)", "", Number { least: 16, most: 1_048_576 }),
        field("syslog.total_mib", "All files (MiB)", "", Number { least: 1, most: 1_048_576 }),
        field("syslog.retention_days", "Kept for (days)", "", Number { least: 1, most: 3650 }),
        field(
            "provisioning.servers",
            "Servers of files",
            "URLs, one in a line; empty: the relay is off.",
            Lines("https://provision.example.com:8089"),
        ),
        field("provisioning.http_port", "Relay port, HTTP", "0: none.", Number { least: 0, most: 65_535 }),
        field("provisioning.https_port", "Relay port, HTTPS", "0: none.", Number { least: 0, most: 65_535 }),
        field(
            "provisioning.user",
            "User at the servers",
            "For digest authentication.",
            Text("branch-office-12"),
        ),
        field(
            "provisioning.password_file",
            "Its password's file",
            "",
            Text("/etc/branchline/provisioning.password"),
        ),
        field(
            "provisioning.client_certificate",
            "Certificate for the servers",
            "Empty: the appliance's own.",
            Text("/etc/branchline/client.pem"),
        ),
        field("provisioning.client_private_key", "Its private key", "", Text("/etc/branchline/client.key")),
        field(
            "provisioning.connect_timeout_ms",
            "Connect timeout (ms)",
            "",
            Number { least: 100, most: 60_000 },
        ),
        field("provisioning.idle_timeout_seconds", "Idle timeout (s)", "", Number { least: 1, most: 600 }),
        field(
            "provisioning.cache_mib",
            "Cache (MiB)",
            "0: nothing is cached.",
            Number { least: 0, most: 1_048_576 },
        ),
        field(
            "provisioning.cache_file_mib",
            "Largest cached file (MiB)",
            "",
            Number { least: 1, most: 16_384 },
        ),
        field("provisioning.upload_mib", "Largest upload (MiB)", "", Number { least: 1, most: 16_384 }),
        field("provisioning.connections", "Connections", "", Number { least: 1, most: 10_000 }),
        field(
            "provisioning.connections_per_phone",
            "Connections of one phone",
            "",
            Number { least: 1, most: 10_000 },
        ),
    ],
};

pub(super) static DIAGNOSTICS: Section = Section {
    name: "diagnostics",
    title: "Diagnostics",
    page: "/diagnostics",
    intro: "What is logged, and the limits of captures and traces.",
    fields: &[
        field(
            "log.level",
            "Log level",
            "error, warn, info, debug or trace; or by part, such as info,branchline::proxy=debug.",
            Text("info"),
        ),
        field("log.topics.sip", "Log of SIP", "Messages and registrations.", TOPIC),
        field("log.topics.media", "Log of Media", "Media sessions.", TOPIC),
        field("log.topics.datapath", "Log of Datapath", "Flows and packets.", TOPIC),
        field(
            "log.topics.servers",
            "Log of Servers",
            "The central servers, their names and certificates.",
            TOPIC,
        ),
        field("log.topics.provisioning", "Log of Provisioning", "DHCP, clock, phones' logs, files.", TOPIC),
        field("log.topics.web", "Log of Pages", "Pages, REST and command line.", TOPIC),
        field(
            "log.topics.status",
            "Log of Status",
            "Start, configuration, captures, and everything else.",
            TOPIC,
        ),
        field(
            "log.directory",
            "Directory of log files",
            "One file for each day, UTC. Empty: standard error alone.",
            Text("/var/log/branchline"),
        ),
        field("log.retention_days", "Log files are kept for (days)", "", Number { least: 1, most: 3650 }),
        field("log.compress", "Compress log files of past days", "", SWITCH),
        field("log.compress_at", "Compress them at", "HH:MM, UTC.", Text("03:00")),
        field(
            "datapath.kernel_log",
            "Log of the kernel program",
            "Each packet that it does not forward. Slow; for troubleshooting.",
            SWITCH,
        ),
        field("capture.max_mib", "Largest capture (MiB)", "", Number { least: 1, most: 1_048_576 }),
        field("capture.max_seconds", "Longest capture (s)", "", Number { least: 1, most: 86_400 }),
        field(
            "capture.total_mib",
            "All captures (MiB)",
            "When they are used up, none begins until some are removed.",
            Number { least: 1, most: 1_048_576 },
        ),
        field("capture.max_running", "Captures at a time", "", Number { least: 1, most: 64 }),
        field("capture.encrypt", "Seal captures", "With the appliance's own key.", SWITCH),
        field(
            "capture.recipients",
            "Encrypt captures to",
            "Public keys of age, one in a line; who has one of the private keys opens them, and the appliance cannot.",
            Lines("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudmjalnsdjhfku"),
        ),
        field(
            "capture.directory",
            "Directory of captures",
            "Empty: in the state directory.",
            Text("/var/lib/branchline/captures"),
        ),
        field("trace.enabled", "Keep traces", "The SIP messages of each call.", SWITCH),
        field("trace.max_mib", "Traces in memory (MiB)", "", Number { least: 4, most: 4096 }),
        field(
            "trace.messages_per_call",
            "Messages of a call",
            "Of one that has more, some from its middle are left out.",
            Number { least: 10, most: 10_000 },
        ),
        field(
            "trace.store_mib",
            "Traces on disk (MiB)",
            "Of calls that have ended. 0: none.",
            Number { least: 0, most: 1_048_576 },
        ),
        field(
            "trace.hep",
            "Homer",
            "Every message is sent there, by HEP over UDP. Empty: nowhere.",
            Text("udp:192.0.2.9:9060"),
        ),
        field(
            "trace.hep_id",
            "Number at Homer",
            "By which it knows this appliance.",
            Number { least: 0, most: 4_294_967_295 },
        ),
        field(
            "trace.hep_password_file",
            "File with the password for Homer",
            "Its first line. Empty: none.",
            Text("/etc/branchline/homer.password"),
        ),
        field(
            "protection.source_packets_per_second",
            "SIP packets of a source (1/s)",
            "Beyond, the kernel drops them. 0: no limit.",
            Number { least: 0, most: 1_000_000 },
        ),
        field(
            "protection.unknown_packets_per_second",
            "SIP packets of all unknown (1/s)",
            "Of all sources that are neither registered phones nor trusted. 0: no limit.",
            Number { least: 0, most: 10_000_000 },
        ),
        field(
            "protection.stream_packets_per_second",
            "Packets of a stream (1/s)",
            "Of one stream of media, in calls that begin from now on. 0: no limit.",
            Number { least: 0, most: 1_000_000 },
        ),
        field(
            "protection.deny",
            "Denied",
            "Prefixes whose packets are dropped, one in a line.",
            Lines("198.51.100.0/24"),
        ),
        field(
            "protection.trusted",
            "Exempt",
            "Prefixes that no limit and no denial holds for, one in a line.",
            Lines("192.0.2.10"),
        ),
    ],
};

/// What the office does on its own.
static SURVIVAL: Section = Section {
    name: "survival",
    title: "Survival",
    page: "/configuration/survival",
    intro: "What the office does while no server can be reached, and emergency calls. Trunks ([[trunk]]) and rules ([[route]]) are set in the file.",
    fields: &[
        field(
            "survival.enabled",
            "Go on without servers",
            "Phones are registered here, call each other, and call out by trunks.",
            SWITCH,
        ),
        field(
            "survival.enter_after_seconds",
            "Begin after (s)",
            "For so long no server can serve.",
            Number { least: 0, most: 3600 },
        ),
        field(
            "survival.leave_after_seconds",
            "End after (s)",
            "For so long one serves again.",
            Number { least: 0, most: 3600 },
        ),
        field(
            "survival.registration_seconds",
            "Register phones for (s)",
            "At most; each for another time, so that they do not all return at once.",
            Number { least: 10, most: 3600 },
        ),
        field(
            "survival.unproven_phones",
            "Phones without an entry",
            "Those that cannot be asked for credentials.",
            Choice(&[
                ("known-address", "registered, if a server has registered them before from the same address"),
                ("refuse", "refused"),
            ]),
        ),
        field(
            "survival.remember_days",
            "Remember phones for (days)",
            "Since a server last registered them.",
            Number { least: 1, most: 365 },
        ),
        field("survival.tell_phones", "Tell the phones", "By SIP MESSAGE, when it begins and ends.", SWITCH),
        field(
            "survival.message_begin",
            "What they are told when it begins",
            "",
            Text("The servers are out of reach."),
        ),
        field("survival.message_end", "What they are told when it ends", "", Text("The servers are back.")),
        field(
            "emergency.numbers",
            "Emergency numbers",
            "As phones dial them, one in a line. They leave by a trunk first, always.",
            Lines("112"),
        ),
        field("emergency.dial", "Number for urn:service:sos", "What a trunk is sent.", Text("112")),
        field(
            "numbering.country_code",
            "Country code",
            "With it, all spellings of a number are the same one.",
            Text("49"),
        ),
        field("numbering.area_code", "Area code", "Without the national prefix.", Text("711")),
        field("numbering.national_prefix", "National prefix", "Before an area code.", Text("0")),
        field("numbering.international_prefix", "International prefix", "Before a country code.", Text("00")),
        field(
            "numbering.national_digits",
            "Digits of national numbers",
            "Of those that are dialled without a prefix; 0: none are.",
            Number { least: 0, most: 14 },
        ),
        field(
            "numbering.outside_prefix",
            "Prefix for a line",
            "What phones dial for the telephone network; empty: nothing.",
            Text("0"),
        ),
        field(
            "routing.registration_has_priority",
            "Registered phones first",
            "A number of a phone that is registered here is called directly, whatever the servers would do.",
            SWITCH,
        ),
    ],
};

pub(super) static ADMINISTRATION: Section = Section {
    name: "administration",
    title: "Addresses and places",
    page: "/administration",
    intro: "Where the appliance is administered, and where it keeps what it knows.",
    fields: &[
        field("web.listen", "Pages", "Address and port of these pages.", Text("0.0.0.0:8443")),
        field(
            "web.rest_port",
            "Second port for REST",
            "TLS, on the same address; usually 343. 0: none.",
            Number { least: 0, most: 65_535 },
        ),
        field(
            "admin.listen",
            "Metrics and health",
            "Address and port, without TLS: best on this host alone.",
            Text("127.0.0.1:9460"),
        ),
        field(
            "control.socket",
            "Control socket",
            "The command line's way to the daemon.",
            Text("/run/branchline/control.sock"),
        ),
        field(
            "state.directory",
            "State directory",
            "Database, certificates, caches.",
            Text("/var/lib/branchline"),
        ),
    ],
};

/// All sections but the networks.
pub(super) static ALL: [&Section; 7] =
    [&SERVERS, &PROTOCOLS, &SURVIVAL, &MEDIA, &SERVICES, &DIAGNOSTICS, &ADMINISTRATION];

/// What a key is about, as a title of those that stand together; empty where its page is about nothing else.
pub(super) fn group(key: &str) -> &'static str {
    let table = key.split('.').next().unwrap_or_default();
    match (table, key) {
        (_, "datapath.kernel_log") | ("log", _) => "Log",
        (_, "dscp.sip" | "dscp.sip_priority") | ("sip", _) => "SIP",
        ("tls", _) => "TLS",
        ("protection", _) => "Protection",
        ("dscp" | "media", _) => "RTP",
        ("datapath", _) => "Datapath",
        ("dhcp", _) => "DHCP",
        ("clock", _) => "Time",
        ("syslog", _) => "Phones' logs",
        ("provisioning", _) => "Firmware and configuration files",
        ("capture", _) => "Captures",
        ("trace", _) => "Traces",
        _ => "",
    }
}

/// The section of this name.
pub(super) fn find(name: &str) -> Option<&'static Section> {
    ALL.into_iter().find(|section| section.name == name)
}

/// The keys of a network.
pub(super) static NETWORK: &[Described] = &[
    field("name", "Name", "As it is shown and logged.", Text("office")),
    field(
        "role",
        "Role",
        "Who lives there.",
        Choice(&[("phones", "phones"), ("servers", "servers"), ("gateway", "gateway")]),
    ),
    field("interface", "Interface", "By which its packets come and go.", Text("eth0")),
    field(
        "address",
        "Address",
        "IPv4 or IPv6. Empty: the interface's first, IPv4 before IPv6.",
        Text("192.168.10.1"),
    ),
    field(
        "advertised",
        "Advertised address",
        "What others are told, behind an address translator. Empty: the address.",
        Text("203.0.113.7"),
    ),
    field("sip_port", "SIP port, UDP", "", Number { least: 1, most: 65_535 }),
    field("sip_tcp_port", "SIP port, TCP", "Empty: as UDP. 0: off.", Text("as UDP")),
    field("sip_tls_port", "SIP port, TLS", "Empty: the one after UDP. 0: off.", Text("the one after UDP")),
    field("max_calls", "Calls at a time", "0: no limit.", Number { least: 0, most: 4_294_967_295 }),
    field(
        "max_kbps",
        "Media in each direction (kbit/s)",
        "As estimated: 80 for a call with G.711. 0: no limit.",
        Number { least: 0, most: 4_294_967_295 },
    ),
    field("timer_t1_ms", "Timer T1 (ms)", "Empty: that of Protocols.", Text("500")),
    field("timer_t2_ms", "Timer T2 (ms)", "Empty: that of Protocols.", Text("4000")),
    field("timer_t4_ms", "Timer T4 (ms)", "Empty: that of Protocols.", Text("5000")),
    field("invite_retries", "INVITE retransmissions", "Empty: those of Protocols.", Text("6")),
    field("other_retries", "Other retransmissions", "Empty: those of Protocols.", Text("10")),
    field(
        "sip_legacy_tls_port",
        "SIP port, legacy TLS",
        "TLS 1.0 to 1.2 with RSA key exchange, for old phones. Networks of phones only. 0: off.",
        PORT_OR_NONE,
    ),
    field(
        "sip_ws_port",
        "SIP port, WebSocket",
        "For softphones. Networks of phones only. 0: off.",
        PORT_OR_NONE,
    ),
    field("sip_wss_port", "SIP port, WebSocket in TLS", "As above. 0: off.", PORT_OR_NONE),
    field("media_ports", "Media ports", "First and last.", Text("16384-32767")),
    field(
        "latching",
        "Media is taken from",
        "Port as signalled, any port of that address, or the first source of a stream.",
        Choice(&[
            ("signalled", "signalled address, port"),
            ("same-address", "signalled address"),
            ("any", "whoever is first"),
        ]),
    ),
    field(
        "identity",
        "Callers' identities",
        "Whether what it says of callers is believed, and whether it may be told who withholds his number.",
        Choice(&[("trusted", "believed and told"), ("untrusted", "neither")]),
    ),
    field(
        "ice",
        "ICE",
        "What becomes of what the parties say of ICE.",
        Choice(&[("remove", "taken out"), ("lite", "answered, as a lite agent")]),
    ),
    field(
        "srtp",
        "Encrypted media",
        "Where the two sides of a call differ, the appliance translates between them.",
        Choice(&[
            ("pass", "as the parties agree"),
            ("require", "SRTP only"),
            ("offer", "SRTP if they can"),
            ("off", "RTP only"),
        ]),
    ),
    field(
        "challenge",
        "Phones prove themselves",
        "Phones that have an authentication entry have to give its password to the appliance; emergency calls never need one.",
        Choice(&[("survival", "while no server serves"), ("always", "always"), ("never", "never")]),
    ),
    field(
        "hold",
        "How a peer here is held",
        "By what it is told that nothing is to be sent.",
        Choice(&[
            ("as-sent", "as the other side says it"),
            ("direction", "by a direction (RFC 3264)"),
            ("zero-address", "by an address of zeros (RFC 2543)"),
        ]),
    ),
    field(
        "refer",
        "A transfer (REFER) to a peer here",
        "Single peers ([[peer]]) are set in the file.",
        Choice(&[("pass", "passes"), ("reinvite", "is made by the appliance, with a re-INVITE")]),
    ),
    field(
        "delayed_offers",
        "An INVITE without an offer",
        "That goes to a peer here.",
        Choice(&[("pass", "passes"), ("offer", "gets one")]),
    ),
    field("offer_codecs", "Codecs of these offers", "In order of preference, one in a line.", Lines("PCMA")),
    field(
        "session_timer_seconds",
        "Session timer (s)",
        "Kept by the appliance where not both sides keep one, 90 to 86400. 0: none.",
        Number { least: 0, most: 86_400 },
    ),
    field(
        "attach",
        "Kernel program",
        "Where it is attached to the interface.",
        Choice(&[
            ("auto", "the best that it takes"),
            ("native", "native XDP"),
            ("generic", "generic XDP"),
            ("tc", "TC"),
            ("userspace", "nowhere"),
        ]),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys::{KEYS, NETWORK_KEYS};

    #[test]
    fn the_fields_of_a_group_stand_together() {
        for section in ALL {
            let mut titles: Vec<&str> = section.fields.iter().map(|field| group(field.key)).collect();
            titles.dedup();
            let distinct: BTreeSet<&str> = titles.iter().copied().collect();
            assert_eq!(titles.len(), distinct.len(), "{}: {titles:?}", section.name);
        }
    }

    #[test]
    fn every_key_is_on_a_page_once() {
        let mut shown: Vec<&str> =
            ALL.iter().flat_map(|section| section.fields).map(|field| field.key).collect();
        shown.sort_unstable();
        let known: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(shown, known.into_iter().collect::<Vec<_>>());
        let of_networks: Vec<&str> = NETWORK.iter().map(|field| field.key).collect();
        assert_eq!(of_networks, NETWORK_KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    }
}
