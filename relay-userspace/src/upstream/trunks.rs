//! Trunks: ways to the telephone network beside the central servers, chosen by the number that is called.
//!
//! The longest prefix of a number decides which trunks may carry it. Among those, smaller priorities go first, then
//! smaller costs, then the order in which they were configured; one that is out of service goes last, and is tried all
//! the same when no other is left. A shorter prefix is no second choice: it is for other numbers.

use std::time::Instant;

use super::{
    numbering::{Form, Numbering},
    peers::{Known, Peer, Peers},
    server::{Settings, Target},
};
use crate::sip::Number;

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
    /// How it is sent numbers of E.164.
    pub numbers: Form,
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

/// All trunks.
pub type Trunks = Peers<TrunkSettings>;

impl Trunks {
    /// Whether one carries emergency calls.
    #[must_use]
    pub fn carry_emergencies(&self) -> bool {
        self.iter().any(|trunk| trunk.peer.emergency == Emergency::Carried)
    }

    /// The ways for a number, the best first.
    #[must_use]
    pub fn ways(&self, now: Instant, number: &Number, numbering: &Numbering) -> Vec<TrunkChoice> {
        let called = Called::new(number, numbering);
        let fits = |trunk: &&Known<TrunkSettings>| called.begins_with(&trunk.peer.prefix);
        let longest = self.iter().filter(fits).map(|trunk| trunk.peer.prefix.len()).max();
        let best = self.iter().filter(fits).filter(|trunk| Some(trunk.peer.prefix.len()) == longest);
        Self::sorted(now, best, &called)
    }

    /// The ways for an emergency call, the best first: the number goes as it is.
    #[must_use]
    pub fn emergency_ways(&self, now: Instant, number: &Number) -> Vec<TrunkChoice> {
        let carried = self.iter().filter(|trunk| trunk.peer.emergency == Emergency::Carried);
        let mut ways = Self::sorted(now, carried, &Called::new(number, &Numbering::default()));
        for way in &mut ways {
            number.as_str().clone_into(&mut way.number);
        }
        ways
    }

    /// The ways of one trunk.
    #[must_use]
    pub fn ways_by(
        &self,
        now: Instant,
        name: &str,
        number: &Number,
        numbering: &Numbering,
    ) -> Vec<TrunkChoice> {
        let named = self.iter().filter(|trunk| trunk.peer.name == name);
        Self::sorted(now, named, &Called::new(number, numbering))
    }

    fn sorted<'t>(
        now: Instant,
        trunks: impl Iterator<Item = &'t Known<TrunkSettings>>,
        called: &Called<'_>,
    ) -> Vec<TrunkChoice> {
        let mut trunks: Vec<&Known<TrunkSettings>> = trunks.collect();
        trunks.sort_by_key(|trunk| (trunk.group.has_failed(), trunk.peer.priority, trunk.peer.cost));
        let choices = trunks.into_iter().flat_map(|trunk| {
            let number = trunk.peer.outward(called);
            trunk.group.candidates(now).into_iter().map(move |target| TrunkChoice {
                trunk: trunk.peer.name.clone(),
                target,
                number: number.clone(),
            })
        });
        choices.collect()
    }
}

impl Peer for TrunkSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> &Settings {
        &self.peer
    }
}

impl TrunkSettings {
    /// A number as the other end wants it.
    fn outward(&self, called: &Called<'_>) -> String {
        if let (Some(e164), form) = (&called.e164, self.numbers)
            && form != Form::AsDialled
        {
            return called.numbering.written(e164, form);
        }
        let global = called.e164.as_deref().filter(|e164| e164.starts_with(&self.prefix));
        // Where the prefix is that of the global number, the global number is what it is taken from.
        let number = match global {
            Some(e164) if !called.dialled.starts_with(&self.prefix) => e164,
            _ => called.dialled,
        };
        match (&self.replace_prefix, number.strip_prefix(self.prefix.as_str())) {
            (Some(replacement), Some(rest)) => format!("{replacement}{rest}"),
            _ => called.dialled.to_owned(),
        }
    }
}

/// A called number, as it was dialled and as a number of E.164 if it is one.
struct Called<'a> {
    dialled: &'a str,
    e164: Option<String>,
    numbering: &'a Numbering,
}

impl<'a> Called<'a> {
    fn new(number: &'a Number, numbering: &'a Numbering) -> Self {
        Self { dialled: number.as_str(), e164: numbering.dialled(number), numbering }
    }

    fn begins_with(&self, prefix: &str) -> bool {
        self.dialled.starts_with(prefix)
            || self.e164.as_ref().is_some_and(|number| number.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ServerUri,
        net::NetworkId,
        upstream::{Evidence, Failure},
    };

    fn trunk(name: &str, prefix: &str, priority: u32, cost: u32) -> TrunkSettings {
        let contact = ServerUri::try_from(format!("10.63.0.{}:5060", name.len())).unwrap();
        TrunkSettings {
            name: name.to_owned(),
            peer: Settings::new(NetworkId(2), vec![contact]),
            prefix: prefix.to_owned(),
            replace_prefix: None,
            numbers: Form::AsDialled,
            priority,
            cost,
            emergency: Emergency::Carried,
        }
    }

    fn number(digits: &str) -> Number {
        Number::parse(digits.as_bytes()).unwrap()
    }

    fn ways(trunks: &Trunks, now: Instant, digits: &str) -> Vec<(String, String)> {
        trunks
            .ways(now, &number(digits), &Numbering::default())
            .into_iter()
            .map(|way| (way.trunk, way.number))
            .collect()
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
        let first = trunks.ways(now, &number("7"), &Numbering::default())[0].target.hop();
        trunks.failed(now, first, &Failure::Silent);
        assert_eq!(ways(&trunks, now, "7"), expected(&[("bb", "7"), ("a", "7")]));
        trunks.succeeded(now, first, Evidence::Probe);
        assert_eq!(ways(&trunks, now, "7"), expected(&[("a", "7"), ("bb", "7")]));
        assert_eq!(trunks.at(first).map(Peer::name), Some("a"));
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

    #[test]
    fn a_prefix_fits_every_spelling_of_a_number_where_the_place_is_known() {
        let now = Instant::now();
        let numbering = Numbering::new(crate::upstream::Place {
            country: "49".into(),
            area: "711".into(),
            national: "0".into(),
            international: "00".into(),
            national_digits: None,
            outside: None,
        });
        let formed =
            |name: &str, prefix: &str, numbers: Form| TrunkSettings { numbers, ..trunk(name, prefix, 0, 0) };
        let mut replaced = formed("ccc", "+33", Form::AsDialled);
        replaced.replace_prefix = Some("8".to_owned());
        let all = vec![formed("a", "+49", Form::National), formed("bb", "+44", Form::E164), replaced];
        let trunks = Trunks::new(all, now);
        let rows = [
            ("dialled nationally", "0711555", "a", "0711555"),
            ("dialled globally", "+49711555", "a", "0711555"),
            ("abroad", "00442079460000", "bb", "+442079460000"),
            ("a prefix of the global number is replaced in it", "0033123456", "ccc", "8123456"),
        ];
        for (description, dialled, name, sent) in rows {
            let ways = trunks.ways(now, &number(dialled), &numbering);
            assert_eq!((ways[0].trunk.as_str(), ways[0].number.as_str()), (name, sent), "{description}");
        }
        assert!(trunks.ways(now, &number("1001"), &numbering).is_empty(), "an extension is nobody's number");
    }
}
