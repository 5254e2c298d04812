//! Trunks: ways to the telephone network beside the central servers, chosen by the number that is called.
//!
//! The longest prefix of a number decides which trunks may carry it. Among those, smaller priorities go first, then
//! smaller costs, then the order in which they were configured; one that is out of service goes last, and is tried all
//! the same when no other is left. A shorter prefix is no second choice: it is for other numbers.

use std::{net::SocketAddr, time::Instant};

use super::{
    group::Group,
    number::Number,
    server::{Evidence, Failure, Output, Resolution, Settings, Target},
};
use crate::{config::ServerUri, sip::Hop};

/// What is told of a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkSettings {
    /// Its name, for people.
    pub name: String,
    /// The other end, how it is asked how it is, and when it is given up.
    pub peer: Settings,
    /// The numbers that it carries begin so; empty: all.
    pub prefix: String,
    /// What stands in the prefix's place when a number is sent to it; `None`: the prefix stays.
    pub replace_prefix: Option<String>,
    /// Smaller ones go first.
    pub priority: u32,
    /// Among equals of one priority, cheaper ones go first.
    pub cost: u32,
    /// Whether it carries emergency calls.
    pub emergency: Emergency,
}

/// Whether a trunk carries emergency calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emergency {
    /// It does, whatever its prefix.
    Carried,
    /// It does not.
    Refused,
}

/// A way for a call: a trunk's other end, and the number as it wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkChoice {
    /// The trunk's name.
    pub trunk: String,
    /// Where.
    pub target: Target,
    /// The number that it is sent.
    pub number: String,
}

/// How a trunk is.
#[derive(Debug)]
pub struct TrunkState {
    /// Its name.
    pub name: String,
    /// Its other end, at each of its addresses.
    pub servers: Vec<super::ServerState>,
}

#[derive(Debug)]
struct Trunk {
    settings: TrunkSettings,
    group: Group,
}

/// All trunks.
#[derive(Debug, Default)]
pub struct Trunks(Vec<Trunk>);

impl Trunks {
    /// Trunks of which nothing is known yet.
    #[must_use]
    pub fn new(settings: Vec<TrunkSettings>, now: Instant) -> Self {
        let mut trunks = Self::default();
        trunks.set(settings, now);
        trunks
    }

    /// Takes other settings. What is known of trunks that stay is kept.
    pub fn set(&mut self, settings: Vec<TrunkSettings>, now: Instant) {
        let mut old = std::mem::take(&mut self.0);
        for settings in settings {
            let known = old.iter().position(|trunk| {
                trunk.settings.name == settings.name && trunk.settings.peer.network == settings.peer.network
            });
            let group = match known {
                Some(known) => {
                    let mut group = old.swap_remove(known).group;
                    group.set(settings.peer.clone(), now);
                    group
                }
                None => Group::new(settings.peer.clone(), now),
            };
            self.0.push(Trunk { settings, group });
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one carries emergency calls.
    #[must_use]
    pub fn carry_emergencies(&self) -> bool {
        self.0.iter().any(|trunk| trunk.settings.emergency == Emergency::Carried)
    }

    /// The ways for a number, the best first.
    #[must_use]
    pub fn ways(&self, now: Instant, number: &Number) -> Vec<TrunkChoice> {
        let fits = |trunk: &&Trunk| number.as_str().starts_with(&trunk.settings.prefix);
        let longest = self.0.iter().filter(fits).map(|trunk| trunk.settings.prefix.len()).max();
        let best = self.0.iter().filter(fits).filter(|trunk| Some(trunk.settings.prefix.len()) == longest);
        Self::sorted(now, best, number)
    }

    /// The ways for an emergency call, the best first: the number goes as it is.
    #[must_use]
    pub fn emergency_ways(&self, now: Instant, number: &Number) -> Vec<TrunkChoice> {
        let carried = self.0.iter().filter(|trunk| trunk.settings.emergency == Emergency::Carried);
        let mut ways = Self::sorted(now, carried, number);
        for way in &mut ways {
            number.as_str().clone_into(&mut way.number);
        }
        ways
    }

    /// The ways of one trunk.
    #[must_use]
    pub fn ways_by(&self, now: Instant, name: &str, number: &Number) -> Vec<TrunkChoice> {
        Self::sorted(now, self.0.iter().filter(|trunk| trunk.settings.name == name), number)
    }

    fn sorted<'t>(
        now: Instant,
        trunks: impl Iterator<Item = &'t Trunk>,
        number: &Number,
    ) -> Vec<TrunkChoice> {
        let mut trunks: Vec<&Trunk> = trunks.collect();
        trunks.sort_by_key(|trunk| (trunk.group.has_failed(), trunk.settings.priority, trunk.settings.cost));
        let choices = trunks.into_iter().flat_map(|trunk| {
            let number = trunk.settings.outward(number);
            trunk.group.candidates(now).into_iter().map(move |target| TrunkChoice {
                trunk: trunk.settings.name.clone(),
                target,
                number: number.clone(),
            })
        });
        choices.collect()
    }

    /// The trunk whose other end is at a hop.
    #[must_use]
    pub fn at(&self, hop: Hop) -> Option<&str> {
        let found = self.0.iter().find(|trunk| {
            trunk.settings.peer.network == hop.network
                && trunk.group.addresses().any(|address| address == hop.address.ip())
        });
        found.map(|trunk| trunk.settings.name.as_str())
    }

    /// The names that they have to prove by their certificates, by address.
    pub fn names(&self) -> impl Iterator<Item = (SocketAddr, String)> {
        self.0.iter().flat_map(|trunk| trunk.group.names())
    }

    /// One has answered.
    pub fn succeeded(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.succeeded(now, hop, evidence));
    }

    /// One was heard of otherwise.
    pub fn heard(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.heard(now, hop, evidence));
    }

    /// One could not be reached, did not answer, or says that it cannot serve.
    pub fn failed(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.failed(now, hop, failure.clone()));
    }

    /// One has not answered when it was asked how it is, or cannot be reached at all.
    pub fn found_down(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.found_down(now, hop, failure.clone()));
    }

    /// What a name resolved to, or why it did not.
    pub fn resolved(&mut self, now: Instant, uri: &ServerUri, result: &Result<Resolution, String>) {
        self.groups().for_each(|group| group.resolved(now, uri, result.clone()));
    }

    /// When [`Trunks::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(|trunk| trunk.group.poll_timeout()).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.groups().for_each(|group| group.handle_timeout(now));
    }

    /// The next thing to do, and for which trunk.
    pub fn poll_output(&mut self) -> Option<(String, Output)> {
        self.0.iter_mut().find_map(|trunk| Some((trunk.settings.name.clone(), trunk.group.poll_output()?)))
    }

    /// How they are, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<TrunkState> {
        let state =
            |trunk: &Trunk| TrunkState { name: trunk.settings.name.clone(), servers: trunk.group.states() };
        self.0.iter().map(state).collect()
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.iter_mut().map(|trunk| &mut trunk.group)
    }
}

impl TrunkSettings {
    /// A number as the other end wants it.
    fn outward(&self, number: &Number) -> String {
        let number = number.as_str();
        match (&self.replace_prefix, number.strip_prefix(self.prefix.as_str())) {
            (Some(replacement), Some(rest)) => format!("{replacement}{rest}"),
            _ => number.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetworkId;

    fn trunk(name: &str, prefix: &str, priority: u32, cost: u32) -> TrunkSettings {
        let contact = ServerUri::try_from(format!("10.63.0.{}:5060", name.len())).unwrap();
        TrunkSettings {
            name: name.to_owned(),
            peer: Settings::new(NetworkId(2), vec![contact]),
            prefix: prefix.to_owned(),
            replace_prefix: None,
            priority,
            cost,
            emergency: Emergency::Carried,
        }
    }

    fn number(digits: &str) -> Number {
        Number::parse(digits.as_bytes()).unwrap()
    }

    fn ways(trunks: &Trunks, now: Instant, digits: &str) -> Vec<(String, String)> {
        trunks.ways(now, &number(digits)).into_iter().map(|way| (way.trunk, way.number)).collect()
    }

    fn expected(ways: &[(&str, &str)]) -> Vec<(String, String)> {
        ways.iter().map(|(trunk, number)| ((*trunk).to_owned(), (*number).to_owned())).collect()
    }

    #[test]
    fn the_longest_prefix_decides_then_priority_then_cost() {
        let now = Instant::now();
        let mut abroad = trunk("abroad", "00", 5, 0);
        abroad.replace_prefix = Some("+".to_owned());
        let mut local = trunk("local-line", "0", 0, 0);
        local.replace_prefix = Some(String::new());
        let all = vec![trunk("a", "", 1, 9), trunk("bb", "", 1, 2), trunk("ccc", "", 0, 50), abroad, local];
        let trunks = Trunks::new(all, now);
        type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
        let rows: [Row; 4] = [
            ("no prefix: priority, then cost", "77", &[("ccc", "77"), ("bb", "77"), ("a", "77")]),
            ("the longest only", "0044", &[("abroad", "+44")]),
            ("a prefix that is taken off", "0711", &[("local-line", "711")]),
            ("a number that is the prefix", "0", &[("local-line", "")]),
        ];
        for (description, digits, ways_expected) in rows {
            assert_eq!(ways(&trunks, now, digits), expected(ways_expected), "{description}");
        }
    }

    #[test]
    fn one_that_is_out_of_service_goes_last_and_comes_back() {
        let now = Instant::now();
        let mut trunks = Trunks::new(vec![trunk("a", "", 0, 0), trunk("bb", "", 1, 0)], now);
        let first = trunks.ways(now, &number("7"))[0].target.hop();
        trunks.failed(now, first, &Failure::Silent);
        assert_eq!(ways(&trunks, now, "7"), expected(&[("bb", "7"), ("a", "7")]));
        trunks.succeeded(now, first, Evidence::Probe);
        assert_eq!(ways(&trunks, now, "7"), expected(&[("a", "7"), ("bb", "7")]));
        assert_eq!(trunks.at(first), Some("a"));
    }

    #[test]
    fn an_emergency_goes_by_every_trunk_that_may_carry_it_whatever_its_prefix_and_unchanged() {
        let now = Instant::now();
        let mut replacing = trunk("a", "1", 0, 0);
        replacing.replace_prefix = Some("9".to_owned());
        let mut refusing = trunk("bb", "", 0, 0);
        refusing.emergency = Emergency::Refused;
        let trunks = Trunks::new(vec![replacing, refusing, trunk("ccc", "00", 1, 0)], now);
        let ways = trunks.emergency_ways(now, &number("112"));
        let ways: Vec<(&str, &str)> =
            ways.iter().map(|way| (way.trunk.as_str(), way.number.as_str())).collect();
        assert_eq!(ways, [("a", "112"), ("ccc", "112")]);
    }
}
