//! The ways of calls: trunks, rules, emergency numbers, and what the office does while no server can be reached.

use std::fmt;

use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

use super::ServerUri;
use crate::net::Role;

/// Most trunks, and most rules.
const MOST: usize = 64;
/// Longest probe period, longest delay and longest rest of a trunk, in seconds: those of the reference's trunks.
const MOST_CHECK: u64 = 300;
const MOST_FORCE: u64 = 30;
const MOST_RECOVERY: u64 = 86_400;
/// Longest text that phones are told, in bytes: it has to fit into a datagram with its headers.
const MOST_MESSAGE: usize = 512;

/// A way to the telephone network beside the servers: a gateway in the office.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its name.
    pub name: String,
    /// The network that it is on, by name; without one the first with the role `gateway`.
    pub network: Option<String>,
    /// The gateway.
    pub contact: ServerUri,
    /// The numbers that it carries begin so: the longest prefix of all trunks decides.
    #[serde(default)]
    pub prefix: String,
    /// What stands in the prefix's place when a number is sent to the gateway.
    pub replace_prefix: Option<String>,
    /// How it is sent numbers that `numbering` can tell.
    #[serde(default)]
    pub numbers: NumberForm,
    /// Among trunks of one prefix, smaller ones go first.
    #[serde(default)]
    pub priority: u32,
    /// Among trunks of one priority, cheaper ones go first.
    #[serde(default)]
    pub cost: u32,
    /// Whether it carries emergency calls, whatever its prefix.
    #[serde(default = "yes")]
    pub emergency: bool,
    /// Seconds between OPTIONS to it; 0: none are sent.
    #[serde(default = "check")]
    pub oos_check_seconds: u64,
    /// Seconds that it has to fail before it is out of service.
    #[serde(default)]
    pub oos_force_seconds: u64,
    /// Seconds that it is left alone when it is, unless a probe finds it well before.
    #[serde(default = "recovery")]
    pub recovery_timeout_seconds: u64,
}

/// How a trunk is sent numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NumberForm {
    /// As they were dialled.
    #[default]
    AsDialled,
    /// `+49711…`
    E164,
    /// `0711…`
    National,
    /// `0049711…`
    International,
}

/// A regular expression over a header's value as it was sent, which need not be text.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether a value is like it.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }

    /// What it catches of a value.
    #[must_use]
    pub fn captures<'v>(&self, value: &'v [u8]) -> Option<Captures<'v>> {
        self.0.captures(value)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        /// Bytes that a compiled pattern may take.
        const MOST_BYTES: usize = 256 * 1024;
        let regex = RegexBuilder::new(&text).size_limit(MOST_BYTES).unicode(false).build();
        regex.map(Self).map_err(|error| format!("{text:?} is no regular expression: {error}"))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Where a rule sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Destination {
    /// To the central servers.
    Servers,
    /// To the phones that are registered for it.
    Phones,
    /// To the trunks that the number belongs to.
    Trunks,
    /// To one trunk, by name.
    Trunk(String),
    /// To the destinations of a server plan, by name.
    Plan(String),
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "servers" => Ok(Self::Servers),
            "phones" => Ok(Self::Phones),
            "trunks" => Ok(Self::Trunks),
            other => match other.split_once(':') {
                Some(("trunk", name)) if !name.is_empty() => Ok(Self::Trunk(name.to_owned())),
                Some(("plan", name)) if !name.is_empty() => Ok(Self::Plan(name.to_owned())),
                _ => Err(format!(
                    "{other:?} is no destination: write \"servers\", \"phones\", \"trunks\", \"trunk:NAME\" or \
                     \"plan:NAME\""
                )),
            },
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers => f.write_str("servers"),
            Self::Phones => f.write_str("phones"),
            Self::Trunks => f.write_str("trunks"),
            Self::Trunk(name) => write!(f, "trunk:{name}"),
            Self::Plan(name) => write!(f, "plan:{name}"),
        }
    }
}

/// A named list of destinations for rules, tried in order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPlan {
    /// Its name.
    pub name: String,
    /// The network that its destinations are on, by name; without one the first with the role `servers`.
    pub network: Option<String>,
    /// They.
    #[serde(rename = "destination", default)]
    pub destinations: Vec<PlanDestination>,
}

/// A destination of a server plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDestination {
    /// Where and by which transport.
    pub contact: ServerUri,
    /// Seconds that it has to answer at all before the next is tried; 0: as long as the network's timers say.
    #[serde(default)]
    pub timeout_seconds: u64,
}

/// A rule for requests of phones and gateways that are in no dialog: tried in order, the first that fits decides.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Whether it is used.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A regular expression over the From header as it was sent.
    pub from: Option<Pattern>,
    /// The same over the To header.
    pub to: Option<Pattern>,
    /// The number that the request goes on with; `$1` and the like stand for what the pattern of To has caught.
    pub target: Option<String>,
    /// Where it goes, in order: `servers`, `phones`, `trunks`, `trunk:NAME`, `plan:NAME`.
    pub destinations: Vec<Destination>,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// Which goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// Whether a number for which phones are registered here is theirs, whatever servers and rules say.
    pub registration_has_priority: bool,
}

/// Emergency calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Emergency {
    /// The numbers, as phones dial them.
    pub numbers: Vec<String>,
    /// What a call to `urn:service:sos` is dialled as.
    pub dial: String,
}

impl Default for Emergency {
    fn default() -> Self {
        Self { numbers: vec!["112".to_owned(), "911".to_owned()], dial: "112".to_owned() }
    }
}

/// Which phones without an entry are registered while no server can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unproven {
    /// Those that a server has registered before, from the address that they had then.
    KnownAddress,
    /// None.
    Refuse,
}

/// What the office does while no server can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SurvivalTable {
    /// Whether it does anything.
    pub enabled: bool,
    /// Seconds that all servers have to be out of service before it begins.
    pub enter_after_seconds: u64,
    /// Seconds that one has to serve before it ends.
    pub leave_after_seconds: u64,
    /// Seconds that a phone is registered for, at most.
    pub registration_seconds: u64,
    /// Which phones without an entry are registered.
    pub unproven_phones: Unproven,
    /// Days that a phone is known that no server has registered again.
    pub remember_days: u64,
    /// Whether the registered phones are told by MESSAGE when it begins and ends.
    pub tell_phones: bool,
    /// What they are told when it begins.
    pub message_begin: String,
    /// What they are told when it ends.
    pub message_end: String,
}

impl Default for SurvivalTable {
    fn default() -> Self {
        Self {
            enabled: true,
            enter_after_seconds: 0,
            leave_after_seconds: 10,
            registration_seconds: 120,
            unproven_phones: Unproven::KnownAddress,
            remember_days: 30,
            tell_phones: false,
            message_begin: "The telephone servers are out of reach: only calls within the office and by the local gateway \
                            work."
                .to_owned(),
            message_end: "The telephone servers are back.".to_owned(),
        }
    }
}

fn yes() -> bool {
    true
}

fn check() -> u64 {
    30
}

fn recovery() -> u64 {
    60
}

/// What is wrong: key and message.
type Wrong = (&'static str, String);

/// Checks trunks against the networks, by name and role.
pub(super) fn check_trunks(trunks: &[Trunk], networks: &[(&str, Role)]) -> Result<(), Wrong> {
    if trunks.len() > MOST {
        return Err(("trunk", format!("{} trunks are listed; {MOST} can be", trunks.len())));
    }
    for (position, trunk) in trunks.iter().enumerate() {
        if trunk.name.is_empty() || trunks.iter().take(position).any(|other| other.name == trunk.name) {
            return Err(("trunk.name", format!("{:?}: a trunk needs a name of its own", trunk.name)));
        }
        match &trunk.network {
            None if !networks.iter().any(|(_, role)| *role == Role::Gateway) => {
                let message = format!(
                    "trunk {:?} names no network, and there is no [[network]] with role = \"gateway\"",
                    trunk.name
                );
                return Err(("trunk.network", message));
            }
            Some(name) => match networks.iter().find(|(known, _)| known == name) {
                None => return Err(("trunk.network", format!("there is no network {name:?}"))),
                Some((_, Role::Phones)) => {
                    let message = format!(
                        "network {name:?} has the role \"phones\": give the gateway a [[network]] of its own, with role = \
                         \"gateway\" (it may be on the same interface, with another address)"
                    );
                    return Err(("trunk.network", message));
                }
                Some(_) => {}
            },
            None => {}
        }
        for (key, text) in
            [("trunk.prefix", Some(&trunk.prefix)), ("trunk.replace_prefix", trunk.replace_prefix.as_ref())]
        {
            let is_dialled = |c: char| c.is_ascii_digit() || matches!(c, '+' | '*' | '#');
            if let Some(text) = text.filter(|text| !text.chars().all(is_dialled)) {
                return Err((key, format!("{text:?} is not what a number begins with: digits, +, * and #")));
            }
        }
        if trunk.replace_prefix.is_some() && trunk.numbers != NumberForm::AsDialled {
            let message = format!(
                "trunk {:?} has replace_prefix too: numbers are either sent in a form or have their prefix replaced",
                trunk.name
            );
            return Err(("trunk.numbers", message));
        }
        for (key, value, most) in [
            ("trunk.oos_check_seconds", trunk.oos_check_seconds, MOST_CHECK),
            ("trunk.oos_force_seconds", trunk.oos_force_seconds, MOST_FORCE),
            ("trunk.recovery_timeout_seconds", trunk.recovery_timeout_seconds, MOST_RECOVERY),
        ] {
            if value > most {
                return Err((key, format!("{value} is out of range: 0 to {most}")));
            }
        }
    }
    Ok(())
}

/// Checks server plans against the networks, by name and role.
pub(super) fn check_plans(plans: &[ServerPlan], networks: &[(&str, Role)]) -> Result<(), Wrong> {
    /// Most destinations of a plan, and longest time that one has to answer.
    const MOST_DESTINATIONS: usize = 8;
    const MOST_TIMEOUT: u64 = 32;
    if plans.len() > MOST {
        return Err(("server_plan", format!("{} server plans are listed; {MOST} can be", plans.len())));
    }
    for (position, plan) in plans.iter().enumerate() {
        if plan.name.is_empty() || plans.iter().take(position).any(|other| other.name == plan.name) {
            return Err((
                "server_plan.name",
                format!("{:?}: a server plan needs a name of its own", plan.name),
            ));
        }
        if let Some(name) = &plan.network {
            match networks.iter().find(|(known, _)| known == name) {
                None => return Err(("server_plan.network", format!("there is no network {name:?}"))),
                Some((_, Role::Servers)) => {}
                Some(_) => {
                    let message = format!("network {name:?} does not have the role \"servers\"");
                    return Err(("server_plan.network", message));
                }
            }
        }
        if !(1..=MOST_DESTINATIONS).contains(&plan.destinations.len()) {
            let message = format!(
                "server plan {:?} has {} destinations; it needs 1 to {MOST_DESTINATIONS} [[server_plan.destination]]",
                plan.name,
                plan.destinations.len()
            );
            return Err(("server_plan.destination", message));
        }
        if let Some(wrong) = plan.destinations.iter().find(|to| to.timeout_seconds > MOST_TIMEOUT) {
            let message = format!("{} is out of range: 0 to {MOST_TIMEOUT}", wrong.timeout_seconds);
            return Err(("server_plan.destination.timeout_seconds", message));
        }
    }
    Ok(())
}

/// Checks rules against trunks and plans.
pub(super) fn check_routes(routes: &[Route], trunks: &[Trunk], plans: &[ServerPlan]) -> Result<(), Wrong> {
    if routes.len() > MOST {
        return Err(("route", format!("{} rules are listed; {MOST} can be", routes.len())));
    }
    for (position, route) in routes.iter().enumerate() {
        if route.name.is_empty() || routes.iter().take(position).any(|other| other.name == route.name) {
            return Err(("route.name", format!("{:?}: a rule needs a name of its own", route.name)));
        }
        if route.target.is_some()
            && route.to.is_none()
            && route.target.as_ref().is_some_and(|t| t.contains('$'))
        {
            let message = "a target with $ needs a pattern of To that catches something".to_owned();
            return Err(("route.target", message));
        }
        if route.destinations.is_empty() {
            return Err(("route.destinations", format!("rule {:?} leads nowhere", route.name)));
        }
        for destination in &route.destinations {
            if let Destination::Trunk(name) = destination
                && !trunks.iter().any(|trunk| trunk.name == *name)
            {
                return Err(("route.destinations", format!("there is no trunk {name:?}")));
            }
            if let Destination::Plan(name) = destination
                && !plans.iter().any(|plan| plan.name == *name)
            {
                return Err(("route.destinations", format!("there is no server plan {name:?}")));
            }
        }
    }
    Ok(())
}

impl Emergency {
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let is_dialled = |text: &String| {
            !text.is_empty()
                && text.len() <= 32
                && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '*' | '#'))
        };
        if let Some(wrong) = self.numbers.iter().find(|number| !is_dialled(number)) {
            return Err(("emergency.numbers", format!("{wrong:?} is no number: digits, +, * and #")));
        }
        if self.numbers.len() > MOST {
            return Err((
                "emergency.numbers",
                format!("{} numbers are listed; {MOST} can be", self.numbers.len()),
            ));
        }
        if !is_dialled(&self.dial) {
            return Err(("emergency.dial", format!("{:?} is no number: digits, +, * and #", self.dial)));
        }
        Ok(())
    }
}

impl SurvivalTable {
    pub(super) fn check(&self) -> Result<(), Wrong> {
        /// Longer registrations would keep phones from a server that is back.
        const MOST_REGISTRATION: u64 = 3600;
        const MOST_WAIT: u64 = 3600;
        const MOST_DAYS: u64 = 365;
        for (key, value, least, most) in [
            ("survival.enter_after_seconds", self.enter_after_seconds, 0, MOST_WAIT),
            ("survival.leave_after_seconds", self.leave_after_seconds, 0, MOST_WAIT),
            ("survival.registration_seconds", self.registration_seconds, 10, MOST_REGISTRATION),
            ("survival.remember_days", self.remember_days, 1, MOST_DAYS),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("{value} is out of range: {least} to {most}")));
            }
        }
        for (key, text) in
            [("survival.message_begin", &self.message_begin), ("survival.message_end", &self.message_end)]
        {
            if text.len() > MOST_MESSAGE {
                return Err((key, format!("it has {} bytes; {MOST_MESSAGE} can be", text.len())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const GOOD: &str = "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"eth0\"\naddress = \"10.0.0.1\"\n\
        [[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"eth1\"\n\
        [[network]]\nname = \"gw\"\nrole = \"gateway\"\ninterface = \"eth0\"\naddress = \"10.0.0.2\"\n\
        [[trunk]]\nname = \"isdn\"\ncontact = \"10.0.0.9\"\nprefix = \"0\"\nreplace_prefix = \"\"\n\
        [[route]]\nname = \"nine\"\nto = 'sip:9(\\d+)@'\ntarget = \"0$1\"\ndestinations = [\"trunk:isdn\", \"servers\"]\n\
        [upstream]\nservers = [\"10.62.0.10:5060\"]\n";

    #[test]
    fn trunks_rules_and_survival_are_checked_and_what_is_wrong_is_told_by_key() {
        let parse = |text: &str| Config::parse(Path::new("branchline.toml"), text);
        parse(GOOD).unwrap();
        let rows = [
            (
                "two trunks of one name",
                "[[route]]",
                "[[trunk]]\nname = \"isdn\"\ncontact = \"10.0.0.8\"\n[[route]]",
                "trunk.name",
            ),
            (
                "no such network",
                "prefix = \"0\"",
                "prefix = \"0\"\nnetwork = \"x\"",
                "trunk.network: there is no network \"x\"",
            ),
            (
                "among phones",
                "prefix = \"0\"",
                "prefix = \"0\"\nnetwork = \"office\"",
                "trunk.network: network \"office\" has the role",
            ),
            (
                "no gateway's network",
                "role = \"gateway\"",
                "role = \"servers\"",
                "trunk.network: trunk \"isdn\" names no network",
            ),
            ("a prefix of letters", "prefix = \"0\"", "prefix = \"x\"", "trunk.prefix"),
            (
                "too rare a probe",
                "prefix = \"0\"",
                "prefix = \"0\"\noos_check_seconds = 301",
                "trunk.oos_check_seconds: 301 is out of range: 0 to 300",
            ),
            ("no regular expression", "sip:9(", "sip:9((", "route.to"),
            (
                "a destination that is none",
                "\"servers\"]",
                "\"server\"]",
                "route.destinations: \"server\" is no destination",
            ),
            ("no such trunk", "trunk:isdn", "trunk:sdn", "route.destinations: there is no trunk \"sdn\""),
            ("a target of nothing", "to = 'sip:9(\\d+)@'\n", "", "route.target"),
            ("no number", "[upstream]", "[emergency]\nnumbers = [\"one\"]\n[upstream]", "emergency.numbers"),
            (
                "too long",
                "[upstream]",
                "[survival]\nregistration_seconds = 7200\n[upstream]",
                "survival.registration_seconds",
            ),
        ];
        for (description, from, to, expected) in rows {
            assert!(GOOD.contains(from), "{description}");
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{description}: {error}");
        }
    }
}
