//! Groups of servers for some of the phones: external registrations, a department with servers of its own.
//!
//! A phone belongs to the first group that its address-of-record fits; all others belong to `[upstream]`, the group that is
//! always there. A group is an ordered list: equals that take over from each other, and behind them lesser services
//! (managed proxies) that are used while no equal serves.

use std::{fmt, net::IpAddr};

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::{ChosenBy, Host, Redirects, ServerUri, Silence, StatusRange, types::is_domain_name};
use crate::net::Role;

/// The name of the group that `[upstream]` is.
pub const UPSTREAM_GROUP: &str = "upstream";
/// Most groups, most entries of one, and most patterns and domains of one.
const MOST_GROUPS: usize = 16;
const MOST_ENTRIES: usize = 16;
const MOST_MEMBERS: usize = 64;
/// Most domains of a group that has a line: each is a server to look up.
const MOST_LINES: usize = 16;
/// Longest time that a server has to fail before it is out of service, in seconds, as in `[upstream]`.
const MOST_FORCE: u64 = 30;
/// Longest rest of a server, in seconds: thirty days, as in `[upstream]`.
const MOST_RECOVERY: u64 = 30 * 24 * 3600;

/// A group of servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The network that its servers are on, by name; without one the first with the role `servers`.
    pub network: Option<String>,
    /// Its servers, in order.
    pub servers: Vec<GroupEntry>,
    /// Patterns of the users of addresses-of-record that belong to it; none: any user.
    #[serde(default)]
    pub numbers: Vec<UserPattern>,
    /// The hosts of addresses-of-record that belong to it; none: any.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Whether its phones are registered with two servers at once, and who does it.
    #[serde(default)]
    pub dual_registration: DualRegistration,
    /// Seconds between OPTIONS to each server; 0: none are sent.
    #[serde(default = "probe")]
    pub probe_seconds: u64,
    /// Seconds that a server has to fail before it is out of service.
    #[serde(default)]
    pub oos_force_seconds: u64,
    /// Seconds that a server that failed is left alone, unless a probe finds it well before.
    #[serde(default = "recovery")]
    pub recovery_seconds: u64,
    /// What becomes of a server's redirection.
    #[serde(default = "redirects")]
    pub redirects: Redirects,
    /// What silence to a probe means where another server answers.
    #[serde(default = "silence")]
    pub silence: Silence,
    /// Final answers that make the next server be tried.
    #[serde(default = "StatusRange::reference")]
    pub retry_statuses: Vec<StatusRange>,
}

/// Whether phones are registered with two servers at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DualRegistration {
    /// They are not: with the one that is tried first.
    #[default]
    Off,
    /// Phones do it themselves: what names one of the servers goes to that one.
    Phone,
    /// The appliance does it for them.
    Appliance,
}

/// An entry of a group's list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum GroupEntry {
    /// The server that the phone itself names: the host of its address-of-record, which is one of the group's domains. Port
    /// and transport, if they are given, are those of `template`, whose host means nothing.
    Line(ServerUri),
    /// A server, or a domain that has some.
    Server(ServerUri),
    /// A lesser service: a managed proxy.
    Proxy(ServerUri),
}

/// What stands for the phone's own server.
const LINE: &str = "line";
const PROXY: &str = "proxy:";

impl TryFrom<String> for GroupEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_line =
            text.strip_prefix(LINE).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ';']));
        if is_line {
            return ServerUri::try_from(format!("sip:{text}")).map(Self::Line);
        }
        match text.strip_prefix(PROXY) {
            Some(proxy) => ServerUri::try_from(proxy.to_owned()).map(Self::Proxy),
            None => ServerUri::try_from(text).map(Self::Server),
        }
    }
}

impl fmt::Display for GroupEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(template) => {
                let text = template.to_string();
                f.write_str(text.split_once(':').map_or(text.as_str(), |(_, rest)| rest))
            }
            Self::Server(server) => server.fmt(f),
            Self::Proxy(server) => write!(f, "{PROXY}{server}"),
        }
    }
}

impl GroupEntry {
    /// Whether it is a domain whose servers DNS names.
    fn is_domain(&self) -> bool {
        matches!(self, Self::Server(uri) if uri.port.is_none() && matches!(uri.host, Host::Name(_)))
    }
}

/// A regular expression over the whole user part of an address-of-record.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct UserPattern(String, Regex);

impl UserPattern {
    /// Whether a user is like it, from its first character to its last.
    #[must_use]
    pub fn is_match(&self, user: &[u8]) -> bool {
        self.1.is_match(user)
    }
}

impl PartialEq for UserPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl TryFrom<String> for UserPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        /// Bytes that a compiled pattern may take.
        const MOST_BYTES: usize = 256 * 1024;
        let whole = format!(r"\A(?:{text})\z");
        let regex = RegexBuilder::new(&whole).size_limit(MOST_BYTES).unicode(false).build();
        match regex {
            Ok(regex) => Ok(Self(text, regex)),
            Err(error) => Err(format!("{text:?} is no regular expression: {error}")),
        }
    }
}

impl fmt::Display for UserPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One list of servers and the domains that it is for: a group without a line has one, a group with a line one for each of
/// its domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupServers {
    /// The domains; empty: any.
    pub domains: Vec<String>,
    /// Equals, in order.
    pub servers: Vec<ServerUri>,
    /// Lesser services, in order.
    pub proxies: Vec<ServerUri>,
}

impl Group {
    /// Its lists, with the line turned into each domain.
    #[must_use]
    pub fn lists(&self) -> Vec<GroupServers> {
        let named = |domain: &str, template: &ServerUri| {
            let host = match domain.parse::<IpAddr>() {
                Ok(ip) => Host::Ip(ip),
                Err(_) => Host::Name(domain.to_owned()),
            };
            // An address says by itself what the configuration would.
            let chosen_by =
                if matches!(host, Host::Ip(_)) { ChosenBy::Configuration } else { template.chosen_by };
            ServerUri { host, chosen_by, ..template.clone() }
        };
        let list = |domains: Vec<String>| {
            let equal = |entry: &GroupEntry| match (entry, domains.first()) {
                (GroupEntry::Server(uri), _) => Some(uri.clone()),
                (GroupEntry::Line(template), Some(domain)) => Some(named(domain, template)),
                _ => None,
            };
            let proxy = |entry: &GroupEntry| match entry {
                GroupEntry::Proxy(uri) => Some(uri.clone()),
                GroupEntry::Line(_) | GroupEntry::Server(_) => None,
            };
            let servers = self.servers.iter().filter_map(equal).collect();
            let proxies = self.servers.iter().filter_map(proxy).collect();
            GroupServers { domains, servers, proxies }
        };
        let has_line = self.servers.iter().any(|entry| matches!(entry, GroupEntry::Line(_)));
        let domains = self.domains.iter().map(|domain| domain.to_ascii_lowercase());
        if has_line {
            domains.map(|domain| list(vec![domain])).collect()
        } else {
            vec![list(domains.collect())]
        }
    }

    fn check(&self, networks: &[(&str, Role)]) -> Result<(), Wrong> {
        let Self { name, servers, .. } = self;
        if let Some(network) = &self.network {
            match networks.iter().find(|(known, _)| known == network) {
                None => return Err(("group.network", format!("there is no network {network:?}"))),
                Some((_, Role::Servers)) => {}
                Some(_) => {
                    let message = format!("network {network:?} has not the role \"servers\"");
                    return Err(("group.network", message));
                }
            }
        }
        if servers.is_empty() || servers.len() > MOST_ENTRIES {
            let message =
                format!("group {name:?} has {} entries; there must be 1 to {MOST_ENTRIES}", servers.len());
            return Err(("group.servers", message));
        }
        for (position, entry) in servers.iter().enumerate() {
            let wrong = |why: &str| Err(("group.servers", format!("{entry} in group {name:?}: {why}")));
            if servers.iter().take(position).any(|other| other == entry) {
                return wrong("it is listed twice");
            }
            match entry {
                GroupEntry::Line(_) if position > 0 => {
                    return wrong(
                        "the line must come first, and only once; a list has either a line or a domain",
                    );
                }
                GroupEntry::Line(_) if self.domains.is_empty() => {
                    return wrong(
                        "a line is the server that a phone names in its address-of-record; say in group.domains which it may name",
                    );
                }
                GroupEntry::Server(_) if entry.is_domain() && position > 0 => {
                    return wrong(
                        "a domain whose servers DNS names must come first, and only once; name servers behind it by address, or with a port",
                    );
                }
                GroupEntry::Line(_) | GroupEntry::Server(_)
                    if servers.iter().take(position).any(|other| matches!(other, GroupEntry::Proxy(_))) =>
                {
                    return wrong("equals come before proxies, which are used while no equal serves");
                }
                _ => {}
            }
        }
        if !servers.iter().any(|entry| !matches!(entry, GroupEntry::Proxy(_))) {
            return Err((
                "group.servers",
                format!("group {name:?} has proxies alone; list the servers before them"),
            ));
        }
        if self.numbers.is_empty() && self.domains.is_empty() {
            let message = format!(
                "group {name:?} is for no phones; say by group.numbers or group.domains which belong to it"
            );
            return Err(("group.numbers", message));
        }
        for (key, count) in [("group.numbers", self.numbers.len()), ("group.domains", self.domains.len())] {
            if count > MOST_MEMBERS {
                return Err((key, format!("group {name:?} lists {count}; {MOST_MEMBERS} can be")));
            }
        }
        if self.domains.len() > MOST_LINES && matches!(servers.first(), Some(GroupEntry::Line(_))) {
            let message =
                format!("group {name:?} has a line, and so a server for each domain; {MOST_LINES} can be");
            return Err(("group.domains", message));
        }
        let is_host = |domain: &&String| domain.parse::<IpAddr>().is_ok() || is_domain_name(domain);
        if let Some(wrong) = self.domains.iter().find(|domain| !is_host(domain)) {
            return Err(("group.domains", format!("{wrong:?} is neither a domain name nor an address")));
        }
        for (key, value, least, most) in [
            ("group.oos_force_seconds", self.oos_force_seconds, 0, MOST_FORCE),
            ("group.recovery_seconds", self.recovery_seconds, 1, MOST_RECOVERY),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("{value} is out of range: {least} to {most}")));
            }
        }
        Ok(())
    }
}

fn probe() -> u64 {
    30
}

fn recovery() -> u64 {
    60
}

fn redirects() -> Redirects {
    Redirects::Follow
}

fn silence() -> Silence {
    Silence::Failure
}

/// What is wrong: key and message.
type Wrong = (&'static str, String);

/// Checks groups against the networks, by name and role.
pub(super) fn check_groups(groups: &[Group], networks: &[(&str, Role)]) -> Result<(), Wrong> {
    if groups.len() > MOST_GROUPS {
        return Err(("group", format!("{} groups are listed; {MOST_GROUPS} can be", groups.len())));
    }
    for (position, group) in groups.iter().enumerate() {
        let name = &group.name;
        if name.is_empty() || groups.iter().take(position).any(|other| other.name == *name) {
            return Err(("group.name", format!("{name:?}: a group needs a name of its own")));
        }
        if name == UPSTREAM_GROUP {
            return Err(("group.name", format!("{name:?} is the group of all other phones, [upstream]")));
        }
        group.check(networks)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORKS: [(&str, Role); 2] = [("office", Role::Phones), ("centre", Role::Servers)];

    fn group(text: &str) -> Result<Group, String> {
        let group: Group =
            toml::from_str(&format!("name = \"g\"\n{text}")).map_err(|error| error.message().to_owned())?;
        check_groups(std::slice::from_ref(&group), &NETWORKS)
            .map_err(|(key, message)| format!("{key}: {message}"))?;
        Ok(group)
    }

    #[test]
    fn what_no_group_can_be_is_refused_with_the_reason() {
        let rows = [
            ("no entries", "servers = []\nnumbers = [\"3..\"]", "group.servers: group \"g\" has 0 entries"),
            (
                "a line in the second place",
                "servers = [\"10.0.0.1\", \"line\"]\ndomains = [\"a.example\"]",
                "group.servers: line in group \"g\": the line must come first",
            ),
            (
                "a line for any domain",
                "servers = [\"line\"]\nnumbers = [\"3..\"]",
                "say in group.domains which it may name",
            ),
            (
                "a domain in the second place",
                "servers = [\"10.0.0.1\", \"sip:a.example\"]\nnumbers = [\"3..\"]",
                "sip:a.example in group \"g\": a domain whose servers DNS names must come first",
            ),
            (
                "a line and a domain",
                "servers = [\"line\", \"sip:b.example;transport=tcp\"]\ndomains = [\"a.example\"]",
                "must come first, and only once",
            ),
            (
                "an equal behind a proxy",
                "servers = [\"10.0.0.1\", \"proxy:10.0.0.2\", \"10.0.0.3\"]\nnumbers = [\"3..\"]",
                "sip:10.0.0.3 in group \"g\": equals come before proxies",
            ),
            ("proxies alone", "servers = [\"proxy:10.0.0.2\"]\nnumbers = [\"3..\"]", "has proxies alone"),
            ("for no phones", "servers = [\"10.0.0.1\"]", "group.numbers: group \"g\" is for no phones"),
            ("no pattern", "servers = [\"10.0.0.1\"]\nnumbers = [\"(\"]", "is no regular expression"),
            (
                "no domain",
                "servers = [\"10.0.0.1\"]\ndomains = [\"a b\"]",
                "group.domains: \"a b\" is neither",
            ),
            (
                "among the phones",
                "servers = [\"10.0.0.1\"]\nnumbers = [\"3..\"]\nnetwork = \"office\"",
                "group.network: network \"office\" has not the role \"servers\"",
            ),
            ("twice", "servers = [\"10.0.0.1\", \"10.0.0.1\"]\nnumbers = [\"3..\"]", "it is listed twice"),
        ];
        for (description, text, expected) in rows {
            let error = group(text).unwrap_err();
            assert!(error.contains(expected), "{description}: {error}");
        }
        let named = |name: &str| {
            let text = format!("name = \"{name}\"\nservers = [\"10.0.0.1\"]\nnumbers = [\"3\"]");
            check_groups(&[toml::from_str(&text).unwrap()], &NETWORKS)
        };
        assert!(named("upstream").unwrap_err().1.contains("is the group of all other phones"));
    }

    #[test]
    fn a_line_is_each_of_the_groups_domains_and_proxies_are_behind_the_equals() {
        let group = group(
            "servers = [\"line;transport=tcp\", \"10.0.0.1:5070\", \"proxy:sip:10.0.0.2\"]\ndomains = [\"A.example\", \"10.0.0.9\"]",
        )
        .unwrap();
        let lists = group.lists();
        let said = |list: &GroupServers| {
            let words =
                |uris: &[ServerUri]| uris.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("{}: {} | {}", list.domains.join(" "), words(&list.servers), words(&list.proxies))
        };
        assert_eq!(
            lists.iter().map(said).collect::<Vec<_>>(),
            [
                "a.example: sip:a.example;transport=tcp sip:10.0.0.1:5070 | sip:10.0.0.2",
                "10.0.0.9: sip:10.0.0.9;transport=tcp sip:10.0.0.1:5070 | sip:10.0.0.2",
            ]
        );
        let written: Vec<String> = group.servers.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["line;transport=tcp", "sip:10.0.0.1:5070", "proxy:sip:10.0.0.2"]);
    }

    #[test]
    fn a_pattern_is_for_the_whole_user() {
        let pattern = UserPattern::try_from("3\\d\\d|boss".to_owned()).unwrap();
        for (user, expected) in
            [("300", true), ("boss", true), ("1300", false), ("3000", false), ("bossy", false)]
        {
            assert_eq!(pattern.is_match(user.as_bytes()), expected, "{user}");
        }
    }
}
