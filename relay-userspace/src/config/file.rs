//! The file as a whole: its tables, and the checks that need more than one of them.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Admin, Capture, ChallengePolicy, Clock, ConfigError, Control, Datapath, Dhcp, DscpMarks, Emergency,
    Group, GroupServers, Log, Media, Network, Numbering, Peer, Protection, Provisioning, Route, Routing,
    ServerPlan, ServerUri, Sip, State, SurvivalTable, Syslog, Tls, Trace, Trunk, Upstream, Web,
    error::line_of,
    groups::check_groups,
    peers::{check_network, check_peers},
    routing::{check_plans, check_routes, check_trunks},
};
use crate::net::{NetworkId, Role, Transport};

/// The ports of connections and their keys.
pub(crate) const STREAM_KEYS: [(Transport, &str); 5] = [
    (Transport::Tcp, "network.sip_tcp_port"),
    (Transport::Tls, "network.sip_tls_port"),
    (Transport::LegacyTls, "network.sip_legacy_tls_port"),
    (Transport::Ws, "network.sip_ws_port"),
    (Transport::Wss, "network.sip_wss_port"),
];

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The networks, in order: their positions are their [`NetworkId`]s.
    #[serde(rename = "network", default)]
    networks: Vec<Spanned<Network>>,
    /// Peers for which something else is converted than for the others of their network.
    #[serde(rename = "peer", default)]
    pub peers: Vec<Peer>,
    /// The central servers.
    #[serde(default)]
    pub upstream: Upstream,
    /// Groups of servers for some of the phones.
    #[serde(rename = "group", default)]
    pub groups: Vec<Group>,
    /// Ways to the telephone network beside the servers.
    #[serde(rename = "trunk", default)]
    pub trunks: Vec<Trunk>,
    /// Named lists of destinations for rules.
    #[serde(rename = "server_plan", default)]
    pub server_plans: Vec<ServerPlan>,
    /// Rules for requests of phones.
    #[serde(rename = "route", default)]
    pub routes: Vec<Route>,
    /// Which goes first.
    #[serde(default)]
    pub routing: Routing,
    /// The office's place in the world's numbering.
    #[serde(default)]
    pub numbering: Numbering,
    /// Emergency calls.
    #[serde(default)]
    pub emergency: Emergency,
    /// What the office does while no server can be reached.
    #[serde(default)]
    pub survival: SurvivalTable,
    /// What survives a restart.
    #[serde(default)]
    pub state: State,
    /// TLS of SIP.
    #[serde(default)]
    pub tls: Tls,
    /// Code points of what leaves.
    #[serde(default)]
    pub dscp: DscpMarks,
    /// Signalling.
    #[serde(default)]
    pub sip: Sip,
    /// Media sessions.
    #[serde(default)]
    pub media: Media,
    /// How media is carried.
    #[serde(default)]
    pub datapath: Datapath,
    /// Answers to DHCPINFORM.
    #[serde(default)]
    pub dhcp: Dhcp,
    /// Time for the phones.
    #[serde(default)]
    pub clock: Clock,
    /// The phones' logs.
    #[serde(default)]
    pub syslog: Syslog,
    /// The relay of firmware and configuration files.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// Protection from those who send too much.
    #[serde(default)]
    pub protection: Protection,
    /// Diagnostic captures.
    #[serde(default)]
    pub capture: Capture,
    /// Traces of calls.
    #[serde(default)]
    pub trace: Trace,
    /// Metrics and health over HTTP.
    #[serde(default)]
    pub admin: Admin,
    /// The pages and the REST interface.
    #[serde(default)]
    pub web: Web,
    /// The command line's way to the daemon.
    #[serde(default)]
    pub control: Control,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
}

/// Fewest flows: those of one call, and as many more that change.
const FEWEST_FLOWS: u32 = 64;
/// Most flows: the memory for them is 256 bytes each.
const MOST_FLOWS: u32 = 1 << 20;
/// Longest timer of a transaction in milliseconds: a minute. Times are added to clocks, which have an end.
const MOST_TIMER_MS: u64 = 60_000;
/// Most retransmissions of a request.
const MOST_RETRIES: u64 = 10;
/// Longest time that a server has to fail before it is out of service, in seconds.
const MOST_FORCE: u64 = 30;
/// Most servers.
const MOST_SERVERS: usize = 16;
/// Longest time to ring or to be silent in seconds: thirty days.
const MOST_SECONDS: u64 = 30 * 24 * 3600;
/// Most calls: a quarter of the most flows.
const MOST_CALLS: u64 = MOST_FLOWS as u64 / 4;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and key.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file)
            .map_err(|error| ConfigError::at(file, "", None, "", &format!("cannot be read: {error}")))?;
        Self::parse(file, &text)
    }

    /// Checks the text of a file; `file` is for messages.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and key.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::at(file, text, error.span().as_ref(), "", error.message()))?;
        config.check(|span, key, message| ConfigError::at(file, text, span.as_ref(), key, &message))?;
        Ok(config)
    }

    /// The networks with their handles.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        (0..).map(NetworkId).zip(self.networks.iter().map(Spanned::as_ref))
    }

    /// The line of the file's text, from 1, at which a network begins.
    #[must_use]
    pub fn line_of_network(&self, text: &str, network: NetworkId) -> Option<usize> {
        self.networks.get(network.index()).map(|spanned| line_of(text, spanned.span().start))
    }

    /// The servers of all groups with the network that each is on, those of `[upstream]` first, and the key that they are
    /// set by.
    pub fn all_servers(&self) -> impl Iterator<Item = (ServerUri, Option<NetworkId>, &'static str)> {
        let first = self.networks().find(|(_, network)| network.role == Role::Servers).map(|(id, _)| id);
        let upstream = self.upstream.servers.as_ref().iter();
        let upstream = upstream.map(move |server| (server.clone(), first, "upstream.servers"));
        let groups = self.groups.iter().flat_map(move |group| {
            let on = self.network_of_group(group);
            let lists = group.lists().into_iter();
            let servers =
                lists.flat_map(|GroupServers { servers, proxies, .. }| servers.into_iter().chain(proxies));
            servers.map(move |server| (server, on, "group.servers"))
        });
        upstream.chain(groups)
    }

    /// The network that a group's servers are on.
    #[must_use]
    pub fn network_of_group(&self, group: &Group) -> Option<NetworkId> {
        let mut networks = self.networks().filter(|(_, network)| network.role == Role::Servers);
        let found =
            networks.find(|(_, network)| group.network.as_ref().is_none_or(|name| *name == network.name));
        found.map(|(id, _)| id)
    }

    /// How long an INVITE may ring.
    #[must_use]
    pub fn ring_timeout(&self) -> Duration {
        Duration::from_secs(self.sip.ring_timeout_seconds)
    }

    /// Whether neither a network nor a server is named yet: a file as it is after installing. The appliance then
    /// serves its page, on which they are named, and nothing else.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.upstream.servers.as_ref().is_empty()
    }

    fn check(
        &self,
        wrong: impl Fn(Option<std::ops::Range<usize>>, &str, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let mut names = HashMap::new();
        for (position, spanned) in self.networks.iter().enumerate() {
            let (network, span) = (spanned.as_ref(), Some(spanned.span()));
            if network.name.is_empty() {
                return Err(wrong(span, "network.name", "a network needs a name".to_owned()));
            }
            if names.insert(&network.name, position).is_some() {
                let message = format!("another network is called {:?} too", network.name);
                return Err(wrong(span, "network.name", message));
            }
            if network.interface.is_empty() || network.interface.len() > 15 {
                let message = format!("{:?} cannot be the name of an interface", network.interface);
                return Err(wrong(span, "network.interface", message));
            }
            if network.challenge == ChallengePolicy::Always && network.role != Role::Phones {
                let message =
                    "servers and gateways are never challenged; set it on networks with role = \"phones\"";
                return Err(wrong(span, "network.challenge", message.to_owned()));
            }
            if network.sip_port == 0 {
                return Err(wrong(span, "network.sip_port", "the SIP port must be 1 to 65535".to_owned()));
            }
            for (transport, key) in STREAM_KEYS {
                let Some(port) = network.port(transport) else { continue };
                if transport.is_inward() && network.role != Role::Phones {
                    let message =
                        "old phones and softphones are on networks with role = \"phones\"; leave it 0 here";
                    return Err(wrong(span, key, message.to_owned()));
                }
                let before = STREAM_KEYS.iter().take_while(|(other, _)| *other != transport);
                if let Some((other, _)) =
                    before.into_iter().find(|(other, _)| network.port(*other) == Some(port))
                {
                    let message = format!(
                        "port {port} is that of {} already; each of them needs a port of its own",
                        other.as_label()
                    );
                    return Err(wrong(span, key, message));
                }
            }
            if network.media_ports.range().contains(&network.sip_port) {
                let message = format!("SIP port {} is among the media ports", network.sip_port);
                return Err(wrong(span, "network.media_ports", message));
            }
            for (key, value, most) in [
                ("network.timer_t1_ms", network.timer_t1_ms, MOST_TIMER_MS),
                ("network.timer_t2_ms", network.timer_t2_ms, MOST_TIMER_MS),
                ("network.timer_t4_ms", network.timer_t4_ms, MOST_TIMER_MS),
                ("network.invite_retries", network.invite_retries.map(u64::from), MOST_RETRIES),
                ("network.other_retries", network.other_retries.map(u64::from), MOST_RETRIES),
            ] {
                if value.is_some_and(|value| !(1..=most).contains(&value)) {
                    let message = format!("{} is out of range: 1 to {most}", value.unwrap_or_default());
                    return Err(wrong(span, key, message));
                }
            }
            check_network(network).map_err(|(key, message)| wrong(span.clone(), key, message))?;
            for other in self.networks.iter().take(position).map(Spanned::as_ref) {
                if network.interface == other.interface && network.attach != other.attach {
                    let message = format!(
                        "networks {:?} and {:?} share interface {}, to which the relay is attached in one way",
                        network.name, other.name, network.interface
                    );
                    return Err(wrong(span, "network.attach", message));
                }
                // Without an address, a network has its interface's.
                let same = network.address == other.address
                    && (network.address.is_some() || network.interface == other.interface);
                if same && network.media_ports.overlaps(&other.media_ports) {
                    let message = format!(
                        "networks {:?} and {:?} share an address, so their media_ports must not overlap",
                        network.name, other.name
                    );
                    return Err(wrong(span, "network.media_ports", message));
                }
                if same && network.sip_port == other.sip_port {
                    let message = format!(
                        "networks {:?} and {:?} share an address, so their sip_port must differ",
                        network.name, other.name
                    );
                    return Err(wrong(span, "network.sip_port", message));
                }
                let streams =
                    |network: &Network| Transport::CONNECTED.map(|transport| network.port(transport));
                if same && streams(network).iter().flatten().any(|port| streams(other).contains(&Some(*port)))
                {
                    let message = format!(
                        "networks {:?} and {:?} share an address, so the ports of their connections must differ",
                        network.name, other.name
                    );
                    return Err(wrong(span, "network.sip_tcp_port", message));
                }
            }
        }
        for network in
            self.networks.iter().map(Spanned::as_ref).filter(|network| network.role == Role::Phones)
        {
            let port = self.syslog.port;
            if self.syslog.enabled
                && (network.media_ports.range().contains(&port) || network.sip_port == port)
            {
                let message =
                    format!("network {:?} has UDP port {port} for SIP or media already", network.name);
                return Err(wrong(None, "syslog.port", message));
            }
        }
        for role in [Role::Phones, Role::Servers].into_iter().filter(|_| !self.is_empty()) {
            if !self.networks.iter().any(|network| network.as_ref().role == role) {
                let word = if role == Role::Phones { "phones" } else { "servers" };
                let message =
                    format!("there is no [[network]] with role = \"{word}\"; a call needs both sides");
                return Err(wrong(None, "network", message));
            }
        }
        let servers = self.upstream.servers.as_ref();
        if (servers.is_empty() && !self.is_empty()) || servers.len() > MOST_SERVERS {
            let message = format!("there must be 1 to {MOST_SERVERS} servers");
            return Err(wrong(Some(self.upstream.servers.span()), "upstream.servers", message));
        }
        if self.tls.certificate.is_some() != self.tls.private_key.is_some() {
            let message = "tls.certificate and tls.private_key belong together".to_owned();
            return Err(wrong(None, "tls.private_key", message));
        }
        let flows = *self.datapath.flows.as_ref();
        if !(FEWEST_FLOWS..=MOST_FLOWS).contains(&flows) {
            let message = format!("{flows} is out of range: {FEWEST_FLOWS} to {MOST_FLOWS}");
            return Err(wrong(Some(self.datapath.flows.span()), "datapath.flows", message));
        }
        if self.upstream.oos_force_seconds > MOST_FORCE {
            let message = format!("{} is out of range: 0 to {MOST_FORCE}", self.upstream.oos_force_seconds);
            return Err(wrong(None, "upstream.oos_force_seconds", message));
        }
        for origin in &self.sip.websocket_origins {
            // As a browser writes it (RFC 6454 section 6.2): scheme, host, perhaps a port, and nothing behind it.
            let place = origin.split_once("://").map(|(_, place)| place);
            if !place.is_some_and(|place| !place.is_empty() && !place.contains(['/', '?', '#', ' '])) {
                let message =
                    format!("{origin:?} is no origin; write for example \"https://phone.example.com\"");
                return Err(wrong(None, "sip.websocket_origins", message));
            }
        }
        for (key, value, most) in [
            ("sip.timer_t1_ms", self.sip.timer_t1_ms, MOST_TIMER_MS),
            ("sip.timer_t2_ms", self.sip.timer_t2_ms, MOST_TIMER_MS),
            ("sip.timer_t4_ms", self.sip.timer_t4_ms, MOST_TIMER_MS),
            ("sip.tcp_connect_timeout_ms", self.sip.tcp_connect_timeout_ms, MOST_TIMER_MS),
            ("sip.invite_retries", self.sip.invite_retries.into(), MOST_RETRIES),
            ("sip.other_retries", self.sip.other_retries.into(), MOST_RETRIES),
            ("upstream.recovery_seconds", self.upstream.recovery_seconds, MOST_SECONDS),
            ("sip.max_calls", self.sip.max_calls as u64, MOST_CALLS),
            ("sip.ring_timeout_seconds", self.sip.ring_timeout_seconds, MOST_SECONDS),
            ("media.timeout_seconds", self.media.timeout_seconds, MOST_SECONDS),
        ] {
            if !(1..=most).contains(&value) {
                return Err(wrong(None, key, format!("{value} is out of range: 1 to {most}")));
            }
        }
        let networks: Vec<(&str, Role)> = self
            .networks
            .iter()
            .map(|network| (network.as_ref().name.as_str(), network.as_ref().role))
            .collect();
        check_groups(&self.groups, &networks)
            .and_then(|()| check_trunks(&self.trunks, &networks))
            .and_then(|()| check_peers(&self.peers))
            .and_then(|()| check_plans(&self.server_plans, &networks))
            .and_then(|()| check_routes(&self.routes, &self.trunks, &self.server_plans))
            .and_then(|()| self.numbering.check())
            .and_then(|()| self.emergency.check())
            .and_then(|()| self.survival.check())
            .and_then(|()| self.dhcp.check(&self.provisioning))
            .and_then(|()| self.clock.check())
            .and_then(|()| self.syslog.check())
            .and_then(|()| self.provisioning.check())
            .and_then(|()| self.web.check())
            .and_then(|()| self.capture.check())
            .and_then(|()| self.trace.check())
            .and_then(|()| self.protection.check())
            .and_then(|()| self.log.check())
            .map_err(|(key, message)| wrong(None, key, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[network]]
name = "office"
role = "phones"
interface = "eth0"
address = "10.61.0.1"

[[network]]
name = "centre"
role = "servers"
interface = "eth1"

[upstream]
servers = ["10.62.0.10:5060"]
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("branchline.toml"), text)
    }

    #[test]
    fn a_short_file_has_the_reference_products_defaults() {
        let config = parse(GOOD).unwrap();
        let (_, office) = config.networks().next().unwrap();
        assert_eq!((office.sip_port, office.media_ports.range()), (8060, 16_384..=32_767));
        assert_eq!(
            (config.dscp.rtp.value(), config.dscp.rtcp.value(), config.dscp.sip.value()),
            (46, 46, 24)
        );
        assert_eq!((config.sip.timer_t1_ms, config.sip.timer_t2_ms), (500, 1000));
        assert_eq!(config.networks().count(), 2);
    }

    #[test]
    fn the_commented_example_is_valid_and_names_every_key() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/branchline.example.toml");
        let text = fs::read_to_string(&file).unwrap();
        Config::parse(&file, &text).unwrap();
        // Every key that is commented out is valid too.
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(setting) if setting.contains(" = ") && !setting.starts_with(' ') => {
                    format!("{setting}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        Config::parse(&file, &uncommented).unwrap();
        for key in [
            "name",
            "role",
            "interface",
            "address",
            "advertised",
            "sip_port",
            "media_ports",
            "latching",
            "srtp",
            "attach",
            "source_packets_per_second",
            "unknown_packets_per_second",
            "stream_packets_per_second",
            "deny",
            "media_priority",
            "sip_priority",
            "sip_tcp_port",
            "sip_tls_port",
            "servers",
            "trusted",
            "probe_seconds",
            "recovery_seconds",
            "dns",
            "retry_statuses",
            "directory",
            "certificate",
            "private_key",
            "authorities",
            "client_certificates",
            "suites",
            "invite_retries",
            "other_retries",
            "tcp_connect_timeout_ms",
            "rtp",
            "rtcp",
            "sip",
            "timer_t1_ms",
            "timer_t2_ms",
            "max_calls",
            "ring_timeout_seconds",
            "timeout_seconds",
            "enabled",
            "option",
            "url",
            "tftp_server",
            "stratum",
            "unsynchronised",
            "port",
            "file_kib",
            "total_mib",
            "retention_days",
            "http_port",
            "https_port",
            "user",
            "password_file",
            "client_certificate",
            "client_private_key",
            "connect_timeout_ms",
            "idle_timeout_seconds",
            "cache_mib",
            "cache_file_mib",
            "upload_mib",
            "connections",
            "connections_per_phone",
            "compress",
            "compress_at",
            "media",
            "datapath",
            "provisioning",
            "web",
            "status",
            "max_mib",
            "max_seconds",
            "max_running",
            "encrypt",
            "recipients",
            "messages_per_call",
            "store_mib",
            "hep",
            "hep_id",
            "hep_password_file",
            "engine",
            "flows",
            "force_userspace",
            "kernel_log",
            "keep_when_stopped",
            "listen",
            "rest_port",
            "socket",
            "level",
        ] {
            assert!(
                uncommented.lines().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} is not documented"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        let rows = [
            (
                "an unknown key",
                "role = \"phones\"",
                "roll = \"phones\"",
                "line 4, key network.roll: unknown field `roll`",
            ),
            (
                "an unknown table",
                "[upstream]",
                "[uptsream]",
                "line 13, key uptsream: unknown field `uptsream`",
            ),
            (
                "a wrong value",
                "role = \"phones\"",
                "role = \"phone\"",
                "line 4, key network.role: unknown variant `phone`",
            ),
            (
                "old phones among the servers",
                "interface = \"eth1\"",
                "interface = \"eth1\"\nsip_legacy_tls_port = 8062",
                "key network.sip_legacy_tls_port: old phones and softphones are on networks with role = \"phones\"",
            ),
            (
                "servers challenged",
                "interface = \"eth1\"",
                "interface = \"eth1\"\nchallenge = \"always\"",
                "key network.challenge: servers and gateways are never challenged",
            ),
            (
                "softphones among the servers",
                "interface = \"eth1\"",
                "interface = \"eth1\"\nsip_wss_port = 8444",
                "key network.sip_wss_port: old phones and softphones are on networks with role = \"phones\"",
            ),
            (
                "one port for two kinds of connections",
                "address = \"10.61.0.1\"",
                "address = \"10.61.0.1\"\nsip_ws_port = 8061",
                "key network.sip_ws_port: port 8061 is that of tls already",
            ),
            (
                "an origin with a path",
                "[upstream]",
                "[sip]\nwebsocket_origins = [\"https://phone.example.com/\"]\n\n[upstream]",
                "key sip.websocket_origins: \"https://phone.example.com/\" is no origin",
            ),
            (
                "a server by WebSocket",
                "servers = [\"10.62.0.10:5060\"]",
                "servers = [\"sip:10.62.0.10;transport=ws\"]",
                "\"ws\" is not udp, tcp or tls",
            ),
            ("a wrong type", "name = \"office\"", "name = 7", "line 3, key network.name: invalid type"),
            (
                "no address",
                "address = \"10.61.0.1\"",
                "address = \"10.61.0\"",
                "line 6, key network.address: invalid IP address",
            ),
            (
                "bad ports",
                "address = \"10.61.0.1\"",
                "media_ports = \"9-1\"",
                "line 6, key network.media_ports: \"9-1\" is not a range of ports",
            ),
            ("bad syntax", "name = \"office\"", "name = office", "line 3, key network.name: "),
            ("a missing key", "role = \"phones\"\n", "", "line 2, key network: missing field `role`"),
            (
                "a name twice",
                "\"centre\"",
                "\"office\"",
                "line 8, key network.name: another network is called \"office\"",
            ),
            (
                "only one side",
                "\"servers\"",
                "\"phones\"",
                "branchline.toml, key network: there is no [[network]] with role = \"servers\"",
            ),
            (
                "half an address",
                "10.62.0.10:5060",
                "10.62.0",
                "line 14, key upstream.servers: \"10.62.0\" is not a SIP server: \"10.62.0\" is neither an address nor a domain name",
            ),
            (
                "half an IPv6 address",
                "10.62.0.10:5060",
                "[fd00::1:5060",
                "line 14, key upstream.servers: \"[fd00::1:5060\" is not a SIP server",
            ),
            (
                "a DSCP of 64",
                "[upstream]",
                "[dscp]\nrtp = 64\n[upstream]",
                "line 14, key dscp.rtp: DSCP 64 is out of range",
            ),
            (
                "one interface attached to in two ways",
                "[upstream]",
                "[[network]]\nname = \"more\"\nrole = \"phones\"\ninterface = \"eth1\"\naddress = \"10.61.0.2\"\nattach = \"tc\"\n[upstream]",
                "key network.attach: networks \"more\" and \"centre\" share interface eth1",
            ),
            (
                "too many flows",
                "[upstream]",
                "[datapath]\nflows = 9999999\n[upstream]",
                "line 14, key datapath.flows: 9999999 is out of range",
            ),
            (
                "a time that no clock can hold",
                "[upstream]",
                "[sip]\nring_timeout_seconds = 9223372036854775807\n[upstream]",
                "key sip.ring_timeout_seconds: 9223372036854775807 is out of range: 1 to 2592000",
            ),
            (
                "no calls at all",
                "[upstream]",
                "[sip]\nmax_calls = 0\n[upstream]",
                "key sip.max_calls: 0 is out of range",
            ),
            (
                "an option that is DHCP's own",
                "[upstream]",
                "[dhcp]\nenabled = true\noption = 51\n[upstream]",
                "key dhcp.option: option 51 has another meaning",
            ),
            (
                "phones sent to a relay that is off",
                "[upstream]",
                "[dhcp]\nenabled = true\n[upstream]",
                "key dhcp.url: phones would be sent to a relay that is off",
            ),
            (
                "a URL with a blank",
                "[upstream]",
                "[dhcp]\nurl = \"http://a b\"\n[upstream]",
                "key dhcp.url: \"http://a b\" must be 1 to 100 printable",
            ),
            (
                "an impossible stratum",
                "[upstream]",
                "[clock]\nstratum = 16\n[upstream]",
                "key clock.stratum: 16 is out of range: 1 to 15",
            ),
            (
                "a file server by another protocol",
                "[upstream]",
                "[provisioning]\nservers = [\"ftp://a.example\"]\n[upstream]",
                "line 14, key provisioning.servers: \"ftp://a.example\" is not a server of files: it begins with",
            ),
            (
                "a user without a password",
                "[upstream]",
                "[provisioning]\nuser = \"branch\"\n[upstream]",
                "key provisioning.password_file: provisioning.user and provisioning.password_file belong",
            ),
            (
                "one port for two",
                "[upstream]",
                "[provisioning]\nhttp_port = 8089\n[upstream]",
                "key provisioning.https_port: HTTP and HTTPS need ports of their own",
            ),
            (
                "a log port among the media ports",
                "[upstream]",
                "[syslog]\nenabled = true\nport = 20000\n[upstream]",
                "key syslog.port: network \"office\" has UDP port 20000 for SIP or media already",
            ),
            (
                "no log port",
                "[upstream]",
                "[syslog]\nport = 0\n[upstream]",
                "key syslog.port: 0 is out of range",
            ),
            (
                "traces without memory",
                "[upstream]",
                "[trace]\nmax_mib = 1\n[upstream]",
                "key trace.max_mib: 1 is out of range: 4 to 4096",
            ),
            (
                "Homer by another protocol",
                "[upstream]",
                "[trace]\nhep = \"tcp:192.0.2.9:9060\"\n[upstream]",
                "line 14, key trace.hep: \"tcp:192.0.2.9:9060\" is not a Homer server: it begins with udp:",
            ),
            (
                "SIP among the media ports",
                "address = \"10.61.0.1\"",
                "sip_port = 20000",
                "key network.media_ports: SIP port 20000 is among",
            ),
        ];
        for (description, from, to, expected) in rows {
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(
                error.starts_with("branchline.toml") && error.contains(expected),
                "{description}: {error}"
            );
        }
        let error = Config::read(Path::new("/nonexistent/branchline.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/branchline.toml: cannot be read: No such file"), "{error}");
    }

    #[test]
    fn two_networks_on_one_address_need_ports_of_their_own() {
        let shared =
            GOOD.replacen("interface = \"eth1\"", "interface = \"eth0\"\naddress = \"10.61.0.1\"", 1);
        let error = parse(&shared).unwrap_err().to_string();
        assert!(error.contains("their media_ports must not overlap"), "{error}");
        let apart = shared.replacen(
            "role = \"servers\"",
            "role = \"servers\"\nsip_port = 8070\nmedia_ports = \"40000-50000\"",
            1,
        );
        parse(&apart).unwrap();
    }
}
