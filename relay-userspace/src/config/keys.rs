//! Every key of the file: what it holds, its value in a configuration, and when a new value takes effect.
//!
//! One table serves the comparison of two configurations, the pages' forms and the editing of the file, so that a key
//! cannot be in one and be forgotten in another. A test holds it against the commented example file.

use std::path::PathBuf;

use serde::Serialize;

use super::{Config, Group, LogWord, Network, Peer, PlanDestination, Route, ServerPlan, Trunk};

/// When a new value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once, while calls stand.
    Running,
    /// With the next start of the daemon.
    Restart,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string; without one the key is left out.
    Text,
    /// A whole number, not negative.
    Number,
    /// True or false.
    Flag,
    /// Strings, in order.
    List,
}

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The key is not set and has no default.
    Absent,
    /// A string.
    Text(String),
    /// A number.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// Strings.
    List(Vec<String>),
}

impl Value {
    /// As a person types it: a list has its items in lines.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(items) => items.join("\n"),
        }
    }
}

impl Kind {
    /// Most characters of one value that somebody types.
    pub const MOST_TEXT: usize = 4096;

    /// Reads what a person typed. Items of a list are separated by line ends or commas.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn read(self, typed: &str) -> Result<Value, String> {
        let typed = typed.trim();
        if typed.len() > Self::MOST_TEXT {
            return Err(format!("at most {} characters", Self::MOST_TEXT));
        }
        match self {
            Self::Text if typed.is_empty() => Ok(Value::Absent),
            Self::Text if typed.chars().any(char::is_control) => {
                Err("no line ends and no control characters here".to_owned())
            }
            Self::Text => Ok(Value::Text(typed.to_owned())),
            Self::Number => match typed.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok()) {
                Some(number) => Ok(Value::Number(number)),
                None => Err(format!("{typed:?} is not a whole number")),
            },
            Self::Flag => match typed {
                "true" => Ok(Value::Flag(true)),
                "false" => Ok(Value::Flag(false)),
                _ => Err(format!("{typed:?} is neither true nor false")),
            },
            Self::List => {
                let items = typed.split(['\n', ',']).map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::List(items.map(str::to_owned).collect()))
            }
        }
    }
}

/// A key.
#[derive(Debug)]
pub struct Key<T> {
    /// Its name; with its table before it, but for those of a network.
    pub name: &'static str,
    /// When a new value takes effect.
    pub effect: Effect,
    /// What it holds.
    pub kind: Kind,
    /// Its value in a configuration; the default where it is not set.
    pub value: fn(&T) -> Value,
}

/// The key of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key<Config>> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key of this name in a network.
#[must_use]
pub fn find_in_network(name: &str) -> Option<&'static Key<Network>> {
    NETWORK_KEYS.iter().find(|key| key.name == name)
}

const fn key<T>(name: &'static str, effect: Effect, kind: Kind, value: fn(&T) -> Value) -> Key<T> {
    Key { name, effect, kind, value }
}

fn text<T: ToString>(value: &T) -> Value {
    Value::Text(value.to_string())
}

fn maybe<T: ToString>(value: Option<&T>) -> Value {
    value.map_or(Value::Absent, |value| Value::Text(value.to_string()))
}

fn path(value: Option<&PathBuf>) -> Value {
    value.map_or(Value::Absent, |path| text(&path.display()))
}

fn list<T: ToString>(values: &[T]) -> Value {
    Value::List(values.iter().map(ToString::to_string).collect())
}

fn topic(level: Option<LogWord>) -> Value {
    level.map_or(Value::Absent, |level| Value::Text(level.as_label().to_owned()))
}

/// The word by which the file spells a choice.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

use Effect::{Restart, Running};
use Kind::{Flag, List, Number, Text};

/// The keys of each `[[network]]`.
pub const NETWORK_KEYS: &[Key<Network>] = &[
    key("name", Restart, Text, |network| text(&network.name)),
    key("role", Restart, Text, |network| text(&word(network.role))),
    key("interface", Restart, Text, |network| text(&network.interface)),
    key("address", Restart, Text, |network| maybe(network.address.as_ref())),
    key("advertised", Restart, Text, |network| maybe(network.advertised.as_ref())),
    key("sip_port", Restart, Number, |network| Value::Number(network.sip_port.into())),
    // Absent, they follow sip_port; so they are text here: empty is another thing than 0.
    key("sip_tcp_port", Restart, Text, |network| maybe(network.sip_tcp_port.as_ref())),
    key("sip_tls_port", Restart, Text, |network| maybe(network.sip_tls_port.as_ref())),
    key("max_calls", Running, Number, |network| Value::Number(network.max_calls.into())),
    key("max_kbps", Running, Number, |network| Value::Number(network.max_kbps.into())),
    key("timer_t1_ms", Running, Text, |network| maybe(network.timer_t1_ms.as_ref())),
    key("timer_t2_ms", Running, Text, |network| maybe(network.timer_t2_ms.as_ref())),
    key("timer_t4_ms", Running, Text, |network| maybe(network.timer_t4_ms.as_ref())),
    key("invite_retries", Running, Text, |network| maybe(network.invite_retries.as_ref())),
    key("other_retries", Running, Text, |network| maybe(network.other_retries.as_ref())),
    key("sip_legacy_tls_port", Restart, Number, |network| Value::Number(network.sip_legacy_tls_port.into())),
    key("sip_ws_port", Restart, Number, |network| Value::Number(network.sip_ws_port.into())),
    key("sip_wss_port", Restart, Number, |network| Value::Number(network.sip_wss_port.into())),
    key("media_ports", Restart, Text, |network| text(&network.media_ports)),
    key("latching", Restart, Text, |network| text(&word(network.latching))),
    key("identity", Restart, Text, |network| text(&word(network.identity))),
    key("ice", Restart, Text, |network| text(&word(network.ice))),
    key("srtp", Restart, Text, |network| text(&word(network.srtp))),
    key("challenge", Restart, Text, |network| text(&word(network.challenge))),
    key("hold", Running, Text, |network| text(&word(network.hold))),
    key("refer", Running, Text, |network| text(&word(network.refer))),
    key("delayed_offers", Running, Text, |network| text(&word(network.delayed_offers))),
    key("offer_codecs", Running, List, |network| list(&network.offer_codecs)),
    key("session_timer_seconds", Running, Number, |network| {
        Value::Number(network.session_timer_seconds.into())
    }),
    key("attach", Restart, Text, |network| text(&word(network.attach))),
];

/// The keys of a peer. They are set in the file.
pub const PEER_KEYS: &[Key<Peer>] = &[
    key("name", Running, Text, |peer| text(&peer.name)),
    key("addresses", Running, List, |peer| list(&peer.addresses)),
    key("hold", Running, Text, |peer| maybe(peer.hold.map(word).as_ref())),
    key("refer", Running, Text, |peer| maybe(peer.refer.map(word).as_ref())),
    key("delayed_offers", Running, Text, |peer| maybe(peer.delayed_offers.map(word).as_ref())),
    key("offer_codecs", Running, List, |peer| peer.offer_codecs.as_deref().map_or(Value::Absent, list)),
    key("session_timer_seconds", Running, Number, |peer| {
        peer.session_timer_seconds.map_or(Value::Absent, |seconds| Value::Number(seconds.into()))
    }),
];

/// The keys of a trunk. They are set in the file.
pub const TRUNK_KEYS: &[Key<Trunk>] = &[
    key("name", Running, Text, |trunk| text(&trunk.name)),
    key("network", Running, Text, |trunk| maybe(trunk.network.as_ref())),
    key("contact", Running, Text, |trunk| text(&trunk.contact)),
    key("prefix", Running, Text, |trunk| text(&trunk.prefix)),
    key("replace_prefix", Running, Text, |trunk| maybe(trunk.replace_prefix.as_ref())),
    key("numbers", Running, Text, |trunk| text(&word(trunk.numbers))),
    key("priority", Running, Number, |trunk| Value::Number(trunk.priority.into())),
    key("cost", Running, Number, |trunk| Value::Number(trunk.cost.into())),
    key("emergency", Running, Flag, |trunk| Value::Flag(trunk.emergency)),
    key("oos_check_seconds", Running, Number, |trunk| Value::Number(trunk.oos_check_seconds)),
    key("oos_force_seconds", Running, Number, |trunk| Value::Number(trunk.oos_force_seconds)),
    key("recovery_timeout_seconds", Running, Number, |trunk| Value::Number(trunk.recovery_timeout_seconds)),
];

/// The keys of a group of servers. They are set in the file.
pub const GROUP_KEYS: &[Key<Group>] = &[
    key("name", Running, Text, |group| text(&group.name)),
    key("network", Running, Text, |group| maybe(group.network.as_ref())),
    key("servers", Running, List, |group| list(&group.servers)),
    key("numbers", Running, List, |group| list(&group.numbers)),
    key("domains", Running, List, |group| list(&group.domains)),
    key("dual_registration", Running, Text, |group| text(&word(group.dual_registration))),
    key("probe_seconds", Running, Number, |group| Value::Number(group.probe_seconds)),
    key("oos_force_seconds", Running, Number, |group| Value::Number(group.oos_force_seconds)),
    key("recovery_seconds", Running, Number, |group| Value::Number(group.recovery_seconds)),
    key("redirects", Running, Text, |group| text(&word(group.redirects))),
    key("silence", Running, Text, |group| text(&word(group.silence))),
    key("retry_statuses", Running, List, |group| list(&group.retry_statuses)),
];

/// The keys of a server plan. They are set in the file.
pub const PLAN_KEYS: &[Key<ServerPlan>] = &[
    key("name", Running, Text, |plan| text(&plan.name)),
    key("network", Running, Text, |plan| maybe(plan.network.as_ref())),
];

/// The keys of a destination of a server plan.
pub const PLAN_DESTINATION_KEYS: &[Key<PlanDestination>] = &[
    key("contact", Running, Text, |to| text(&to.contact)),
    key("timeout_seconds", Running, Number, |to| Value::Number(to.timeout_seconds)),
];

/// The keys of a rule. They are set in the file.
pub const ROUTE_KEYS: &[Key<Route>] = &[
    key("name", Running, Text, |route| text(&route.name)),
    key("enabled", Running, Flag, |route| Value::Flag(route.enabled)),
    key("from", Running, Text, |route| maybe(route.from.as_ref())),
    key("to", Running, Text, |route| maybe(route.to.as_ref())),
    key("target", Running, Text, |route| maybe(route.target.as_ref())),
    key("destinations", Running, List, |route| list(&route.destinations)),
    key("description", Running, Text, |route| text(&route.description)),
];

/// Keys whose text is written into the file as a number.
pub(super) const NUMBERS_OR_NOTHING: &[&str] = &[
    "sip_tcp_port",
    "sip_tls_port",
    "timer_t1_ms",
    "timer_t2_ms",
    "timer_t4_ms",
    "invite_retries",
    "other_retries",
];

/// All other keys.
pub const KEYS: &[Key<Config>] = &[
    key("upstream.servers", Running, List, |config| list(config.upstream.servers.as_ref())),
    key("upstream.trusted", Running, List, |config| list(&config.upstream.trusted)),
    key("upstream.probe_seconds", Running, Number, |config| Value::Number(config.upstream.probe_seconds)),
    key("upstream.oos_force_seconds", Running, Number, |config| {
        Value::Number(config.upstream.oos_force_seconds)
    }),
    key("upstream.recovery_seconds", Running, Number, |config| {
        Value::Number(config.upstream.recovery_seconds)
    }),
    key("upstream.redirects", Running, Text, |config| text(&word(config.upstream.redirects))),
    key("upstream.silence", Running, Text, |config| text(&word(config.upstream.silence))),
    key("upstream.dual_registration", Running, Text, |config| text(&word(config.upstream.dual_registration))),
    key("upstream.dns", Running, List, |config| list(&config.upstream.dns)),
    key("upstream.retry_statuses", Running, List, |config| list(&config.upstream.retry_statuses)),
    key("routing.registration_has_priority", Running, Flag, |config| {
        Value::Flag(config.routing.registration_has_priority)
    }),
    key("numbering.country_code", Running, Text, |config| text(&config.numbering.country_code)),
    key("numbering.area_code", Running, Text, |config| text(&config.numbering.area_code)),
    key("numbering.national_prefix", Running, Text, |config| text(&config.numbering.national_prefix)),
    key("numbering.international_prefix", Running, Text, |config| {
        text(&config.numbering.international_prefix)
    }),
    key("numbering.national_digits", Running, Number, |config| {
        Value::Number(config.numbering.national_digits as u64)
    }),
    key("numbering.outside_prefix", Running, Text, |config| maybe(config.numbering.outside_prefix.as_ref())),
    key("emergency.numbers", Running, List, |config| list(&config.emergency.numbers)),
    key("emergency.dial", Running, Text, |config| text(&config.emergency.dial)),
    key("survival.enabled", Running, Flag, |config| Value::Flag(config.survival.enabled)),
    key("survival.enter_after_seconds", Running, Number, |config| {
        Value::Number(config.survival.enter_after_seconds)
    }),
    key("survival.leave_after_seconds", Running, Number, |config| {
        Value::Number(config.survival.leave_after_seconds)
    }),
    key("survival.registration_seconds", Running, Number, |config| {
        Value::Number(config.survival.registration_seconds)
    }),
    key("survival.unproven_phones", Running, Text, |config| text(&word(config.survival.unproven_phones))),
    key("survival.remember_days", Running, Number, |config| Value::Number(config.survival.remember_days)),
    key("survival.tell_phones", Running, Flag, |config| Value::Flag(config.survival.tell_phones)),
    key("survival.message_begin", Running, Text, |config| text(&config.survival.message_begin)),
    key("survival.message_end", Running, Text, |config| text(&config.survival.message_end)),
    key("state.directory", Restart, Text, |config| text(&config.state.directory.display())),
    key("tls.certificate", Restart, Text, |config| path(config.tls.certificate.as_ref())),
    key("tls.private_key", Restart, Text, |config| path(config.tls.private_key.as_ref())),
    key("tls.authorities", Restart, Text, |config| path(config.tls.authorities.as_ref())),
    key("tls.client_certificates", Restart, Text, |config| text(&word(config.tls.client_certificates))),
    key("tls.suites", Restart, List, |config| Value::List(config.tls.suites.iter().map(word).collect())),
    key("dscp.rtp", Running, Number, |config| Value::Number(config.dscp.rtp.value().into())),
    key("dscp.rtcp", Running, Number, |config| Value::Number(config.dscp.rtcp.value().into())),
    key("dscp.sip", Restart, Number, |config| Value::Number(config.dscp.sip.value().into())),
    key("dscp.media_priority", Restart, Number, |config| {
        Value::Number(config.dscp.media_priority.value().into())
    }),
    key("dscp.sip_priority", Restart, Number, |config| {
        Value::Number(config.dscp.sip_priority.value().into())
    }),
    key("sip.timer_t1_ms", Running, Number, |config| Value::Number(config.sip.timer_t1_ms)),
    key("sip.timer_t2_ms", Running, Number, |config| Value::Number(config.sip.timer_t2_ms)),
    key("sip.timer_t4_ms", Running, Number, |config| Value::Number(config.sip.timer_t4_ms)),
    key("sip.invite_retries", Running, Number, |config| Value::Number(config.sip.invite_retries.into())),
    key("sip.other_retries", Running, Number, |config| Value::Number(config.sip.other_retries.into())),
    key("sip.tcp_connect_timeout_ms", Restart, Number, |config| {
        Value::Number(config.sip.tcp_connect_timeout_ms)
    }),
    key("sip.tcp_above_bytes", Running, Number, |config| Value::Number(config.sip.tcp_above_bytes as u64)),
    key("sip.websocket_origins", Restart, List, |config| list(&config.sip.websocket_origins)),
    key("sip.keep_entry_passwords", Running, Flag, |config| Value::Flag(config.sip.keep_entry_passwords)),
    key("sip.max_calls", Running, Number, |config| Value::Number(config.sip.max_calls as u64)),
    key("sip.ring_timeout_seconds", Running, Number, |config| Value::Number(config.sip.ring_timeout_seconds)),
    key("media.timeout_seconds", Running, Number, |config| Value::Number(config.media.timeout_seconds)),
    key("datapath.engine", Restart, Text, |config| text(&word(config.datapath.engine))),
    key("datapath.flows", Restart, Number, |config| Value::Number((*config.datapath.flows.as_ref()).into())),
    key("datapath.force_userspace", Restart, List, |config| list(&config.datapath.force_userspace)),
    key("datapath.kernel_log", Restart, Flag, |config| Value::Flag(config.datapath.kernel_log)),
    key("datapath.keep_when_stopped", Restart, Flag, |config| Value::Flag(config.datapath.keep_when_stopped)),
    key("dhcp.enabled", Restart, Flag, |config| Value::Flag(config.dhcp.enabled)),
    key("dhcp.option", Restart, Number, |config| Value::Number(config.dhcp.option.into())),
    key("dhcp.url", Restart, Text, |config| maybe(config.dhcp.url.as_ref())),
    key("dhcp.tftp_server", Restart, Text, |config| maybe(config.dhcp.tftp_server.as_ref())),
    key("clock.enabled", Restart, Flag, |config| Value::Flag(config.clock.enabled)),
    key("clock.stratum", Restart, Number, |config| Value::Number(config.clock.stratum.into())),
    key("clock.unsynchronised", Restart, Text, |config| text(&word(config.clock.unsynchronised))),
    key("syslog.enabled", Restart, Flag, |config| Value::Flag(config.syslog.enabled)),
    key("syslog.port", Restart, Number, |config| Value::Number(config.syslog.port.into())),
    key("syslog.file_kib", Restart, Number, |config| Value::Number(config.syslog.file_kib)),
    key("syslog.total_mib", Restart, Number, |config| Value::Number(config.syslog.total_mib)),
    key("syslog.retention_days", Restart, Number, |config| Value::Number(config.syslog.retention_days)),
    key("provisioning.servers", Restart, List, |config| list(&config.provisioning.servers)),
    key("provisioning.http_port", Restart, Number, |config| {
        Value::Number(config.provisioning.http_port.into())
    }),
    key("provisioning.https_port", Restart, Number, |config| {
        Value::Number(config.provisioning.https_port.into())
    }),
    key("provisioning.user", Restart, Text, |config| maybe(config.provisioning.user.as_ref())),
    key("provisioning.password_file", Restart, Text, |config| {
        path(config.provisioning.password_file.as_ref())
    }),
    key("provisioning.client_certificate", Restart, Text, |config| {
        path(config.provisioning.client_certificate.as_ref())
    }),
    key("provisioning.client_private_key", Restart, Text, |config| {
        path(config.provisioning.client_private_key.as_ref())
    }),
    key("provisioning.connect_timeout_ms", Restart, Number, |config| {
        Value::Number(config.provisioning.connect_timeout_ms)
    }),
    key("provisioning.idle_timeout_seconds", Restart, Number, |config| {
        Value::Number(config.provisioning.idle_timeout_seconds)
    }),
    key("provisioning.cache_mib", Restart, Number, |config| Value::Number(config.provisioning.cache_mib)),
    key("provisioning.cache_file_mib", Restart, Number, |config| {
        Value::Number(config.provisioning.cache_file_mib)
    }),
    key("provisioning.upload_mib", Restart, Number, |config| Value::Number(config.provisioning.upload_mib)),
    key("provisioning.connections", Restart, Number, |config| {
        Value::Number(config.provisioning.connections as u64)
    }),
    key("provisioning.connections_per_phone", Restart, Number, |config| {
        Value::Number(config.provisioning.connections_per_phone as u64)
    }),
    key("protection.source_packets_per_second", Running, Number, |config| {
        Value::Number(config.protection.source_packets_per_second.into())
    }),
    key("protection.unknown_packets_per_second", Running, Number, |config| {
        Value::Number(config.protection.unknown_packets_per_second.into())
    }),
    key("protection.stream_packets_per_second", Running, Number, |config| {
        Value::Number(config.protection.stream_packets_per_second.into())
    }),
    key("protection.deny", Running, List, |config| list(&config.protection.deny)),
    key("protection.trusted", Running, List, |config| list(&config.protection.trusted)),
    key("capture.directory", Restart, Text, |config| path(config.capture.directory.as_ref())),
    key("capture.max_mib", Running, Number, |config| Value::Number(config.capture.max_mib)),
    key("capture.max_seconds", Running, Number, |config| Value::Number(config.capture.max_seconds)),
    key("capture.total_mib", Running, Number, |config| Value::Number(config.capture.total_mib)),
    key("capture.max_running", Running, Number, |config| Value::Number(config.capture.max_running as u64)),
    key("capture.recipients", Running, List, |config| list(&config.capture.recipients)),
    key("capture.encrypt", Running, Flag, |config| Value::Flag(config.capture.encrypt)),
    key("trace.enabled", Running, Flag, |config| Value::Flag(config.trace.enabled)),
    key("trace.max_mib", Running, Number, |config| Value::Number(config.trace.max_mib)),
    key("trace.messages_per_call", Running, Number, |config| Value::Number(config.trace.messages_per_call)),
    key("trace.store_mib", Running, Number, |config| Value::Number(config.trace.store_mib)),
    key("trace.hep", Running, Text, |config| maybe(config.trace.hep.as_ref())),
    key("trace.hep_id", Running, Number, |config| Value::Number(config.trace.hep_id.into())),
    key("trace.hep_password_file", Running, Text, |config| path(config.trace.hep_password_file.as_ref())),
    key("admin.listen", Restart, Text, |config| text(&config.admin.listen)),
    key("web.listen", Restart, Text, |config| text(&config.web.listen)),
    key("web.rest_port", Restart, Number, |config| Value::Number(config.web.rest_port.into())),
    key("control.socket", Restart, Text, |config| text(&config.control.socket.display())),
    key("log.level", Running, Text, |config| text(&config.log.level)),
    key("log.directory", Restart, Text, |config| path(config.log.directory.as_ref())),
    key("log.retention_days", Running, Number, |config| Value::Number(config.log.retention_days)),
    key("log.compress", Running, Flag, |config| Value::Flag(config.log.compress)),
    key("log.compress_at", Running, Text, |config| text(&config.log.compress_at)),
    key("log.topics.sip", Running, Text, |config| topic(config.log.topics.sip)),
    key("log.topics.media", Running, Text, |config| topic(config.log.topics.media)),
    key("log.topics.datapath", Running, Text, |config| topic(config.log.topics.datapath)),
    key("log.topics.servers", Running, Text, |config| topic(config.log.topics.servers)),
    key("log.topics.provisioning", Running, Text, |config| topic(config.log.topics.provisioning)),
    key("log.topics.web", Running, Text, |config| topic(config.log.topics.web)),
    key("log.topics.status", Running, Text, |config| topic(config.log.topics.status)),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_key_of_the_example_file_is_in_the_table_and_every_key_of_the_table_is_in_the_file() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/branchline.example.toml");
        let text = fs::read_to_string(&file).unwrap();
        let mut documented = BTreeSet::new();
        let mut table = String::new();
        for line in text.lines() {
            let line = line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line);
            if let Some(header) = line.strip_prefix('[') {
                table = header.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with("# ")) {
                documented.insert(format!("{table}.{key}"));
            }
        }
        let mut known: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        known.extend(NETWORK_KEYS.iter().map(|key| format!("network.{}", key.name)));
        known.extend(GROUP_KEYS.iter().map(|key| format!("group.{}", key.name)));
        known.extend(PEER_KEYS.iter().map(|key| format!("peer.{}", key.name)));
        known.extend(TRUNK_KEYS.iter().map(|key| format!("trunk.{}", key.name)));
        known.extend(PLAN_KEYS.iter().map(|key| format!("server_plan.{}", key.name)));
        known.extend(PLAN_DESTINATION_KEYS.iter().map(|key| format!("server_plan.destination.{}", key.name)));
        known.extend(ROUTE_KEYS.iter().map(|key| format!("route.{}", key.name)));
        assert_eq!(known, documented);
    }

    #[test]
    fn what_is_typed_is_read_by_kind() {
        let list = |items: &[&str]| Value::List(items.iter().map(|&item| item.to_owned()).collect());
        let rows: [(&str, Kind, &str, Result<Value, &str>); 9] = [
            ("text", Text, " info ", Ok(Value::Text("info".to_owned()))),
            ("no text", Text, "  ", Ok(Value::Absent)),
            ("two lines of text", Text, "a\nb", Err("no line ends")),
            ("a number", Number, "500", Ok(Value::Number(500))),
            ("no number", Number, "5o0", Err("\"5o0\" is not a whole number")),
            ("a negative number", Number, "-1", Err("\"-1\" is not a whole number")),
            ("a flag", Flag, "true", Ok(Value::Flag(true))),
            ("no flag", Flag, "yes", Err("neither true nor false")),
            ("a list", List, "a\r\n\nb, c", Ok(list(&["a", "b", "c"]))),
        ];
        for (description, kind, typed, expected) in rows {
            match (kind.read(typed), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{description}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{description}: {error}"),
                (result, _) => panic!("{description}: {result:?}"),
            }
        }
    }
}
