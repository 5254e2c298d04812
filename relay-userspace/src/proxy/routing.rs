//! What is told of the ways of a call: rules with patterns, emergency numbers, and what the office does on its own.

use std::time::Duration;

use crate::{
    config::{Destination, Pattern, Unproven},
    sip::Number,
    upstream::{DestinationSettings, Numbering, SurvivalSettings, TrunkSettings, WhenDown},
};

/// The scheme and service of an emergency call (RFC 5031 section 4.2).
const SOS: &[u8] = b"urn:service:sos";

/// A rule: what it is for, what the request is turned into, and where it goes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, for people.
    pub name: String,
    /// What From has to be like; `None`: anything.
    pub from: Option<Pattern>,
    /// What To has to be like; `None`: anything.
    pub to: Option<Pattern>,
    /// The number that it goes on with: `$1` and the like stand for what the pattern of To has caught. `None`: the one
    /// that it has.
    pub target: Option<String>,
    /// The ways, in order.
    pub destinations: Vec<Destination>,
}

impl Rule {
    /// The number that a request goes on with, if the rule is for it: the inner `None` for the one that it has.
    fn applies(&self, from: &[u8], to: &[u8]) -> Option<Option<Vec<u8>>> {
        if self.from.as_ref().is_some_and(|pattern| !pattern.is_match(from)) {
            return None;
        }
        let Some(pattern) = &self.to else { return Some(self.target.clone().map(String::into_bytes)) };
        let caught = pattern.captures(to)?;
        Some(self.target.as_ref().map(|target| {
            let mut number = Vec::new();
            caught.expand(target.as_bytes(), &mut number);
            // What a pattern has caught of To may be anything; what may not stand in a user part does not go into one.
            number.retain(|byte| byte.is_ascii_alphanumeric() || b"+*-_.!~'()&=$,/%".contains(byte));
            number
        }))
    }
}

/// Emergency calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmergencyCalls {
    /// The numbers, as they are dialled.
    pub numbers: Vec<String>,
    /// What a call to `urn:service:sos` is sent to a trunk as.
    pub dial: String,
}

/// What the office does on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// When it is on its own.
    pub when: SurvivalSettings,
    /// For how long phones are registered here, at most; the time of each is somewhere between the half of it and all
    /// of it, so that they do not all come back at once.
    pub registration: Duration,
    /// Which phones without an authentication entry are registered here.
    pub unproven: Unproven,
    /// How long a phone is known that was not registered again.
    pub remember: Duration,
    /// What phones are told when the office is on its own, and when it is not any more; `None`: nothing.
    pub message: Option<(String, String)>,
}

/// Whether a registered phone or a rule comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// Rules and servers decide.
    #[default]
    Rules,
    /// A number for which phones are registered here is theirs, whatever the rules say.
    RegisteredPhones,
}

/// Everything that is told of the ways of a call.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// The rules, tried in order.
    pub rules: Vec<Rule>,
    /// Whether a registered phone or a rule comes first.
    pub precedence: Precedence,
    /// Emergency calls.
    pub emergency: EmergencyCalls,
    /// The office's place in the world's numbering.
    pub numbering: Numbering,
    /// Ways to the telephone network.
    pub trunks: Vec<TrunkSettings>,
    /// Destinations of server plans, in the order of each plan.
    pub plans: Vec<DestinationSettings>,
    /// What the office does on its own; `None`: nothing, it waits for its servers.
    pub alone: Option<Alone>,
}

impl Routing {
    /// An office that is on its own has to hear when a server is back.
    pub(super) fn when_down(&self) -> WhenDown {
        if self.alone.is_some() { WhenDown::Asked } else { WhenDown::Left }
    }

    /// The first rule for a request, and the number that it goes on with if that is another one.
    pub(super) fn rule(&self, from: &[u8], to: &[u8]) -> Option<(&Rule, Option<Vec<u8>>)> {
        self.rules.iter().find_map(|rule| Some((rule, rule.applies(from, to)?)))
    }

    /// The number that an emergency call goes to a trunk with; `None` if it is none.
    pub(super) fn emergency(&self, request_uri: &[u8], number: Option<&Number>) -> Option<Number> {
        let service = request_uri.get(..SOS.len()).is_some_and(|start| start.eq_ignore_ascii_case(SOS));
        // `urn:service:sos.fire` is one, `urn:service:sosomething` is not.
        let ends = matches!(request_uri.get(SOS.len()), None | Some(b'.' | b';'));
        if service && ends {
            return Number::parse(self.emergency.dial.as_bytes());
        }
        let number = number?;
        let known = |dialled: &str| self.emergency.numbers.iter().any(|known| known == dialled);
        if known(number.as_str()) {
            return Some(number.clone());
        }
        // Nobody who is in need thinks of the digit for a line, or forgets it by habit.
        let bare = self.numbering.without_outside_prefix(number);
        known(bare).then(|| Number::parse(bare.as_bytes())).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, from: Option<&str>, to: Option<&str>, target: Option<&str>) -> Rule {
        let pattern = |text: &str| Pattern::try_from(text.to_owned()).unwrap();
        Rule {
            name: name.to_owned(),
            from: from.map(pattern),
            to: to.map(pattern),
            target: target.map(str::to_owned),
            destinations: vec![Destination::Servers],
        }
    }

    #[test]
    fn the_first_rule_that_fits_both_headers_as_sent_decides() {
        let routing = Routing {
            rules: vec![
                rule("boss", Some("sip:100@"), Some(r"sip:9(\d+)@"), Some("0$1")),
                rule("play", None, Some(r"<sip:[^>]*:5060;play=(\w+)>"), Some("announce-$1")),
                rule("nine", None, Some(r"sip:9(?P<rest>\d+)@"), Some("${rest}")),
                rule("rest", None, None, None),
            ],
            ..Routing::default()
        };
        type Row = (&'static str, &'static [u8], &'static [u8], &'static str, Option<&'static [u8]>);
        let rows: [Row; 4] = [
            ("both fit", b"<sip:100@a>;tag=1", b"<sip:9123@a>", "boss", Some(b"0123")),
            ("the caller does not", b"<sip:200@a>", b"<sip:9123@a>", "nine", Some(b"123")),
            (
                "port and parameters",
                b"<sip:2@a>",
                b"<sip:x@a:5060;play=hello>",
                "play",
                Some(b"announce-hello"),
            ),
            ("bytes that are no text", b"<sip:2@a>", b"\"\xe4\" <sip:x@a>", "rest", None),
        ];
        for (description, from, to, name, number) in rows {
            let (rule, target) = routing.rule(from, to).unwrap();
            assert_eq!((rule.name.as_str(), target.as_deref()), (name, number), "{description}");
        }
    }

    #[test]
    fn emergency_calls_are_known_by_number_and_by_service() {
        let routing = Routing {
            emergency: EmergencyCalls { numbers: vec!["112".into(), "911".into()], dial: "112".into() },
            numbering: Numbering::new(crate::upstream::Place {
                outside: Some("0".into()),
                ..crate::upstream::Place::default()
            }),
            ..Routing::default()
        };
        let rows: [(&str, &[u8], &str, Option<&str>); 7] = [
            ("a number", b"sip:911@a", "911", Some("911")),
            ("with the digit for a line", b"sip:0112@a", "0112", Some("112")),
            ("a longer one with it", b"sip:01123@a", "01123", None),
            ("another number", b"sip:9112@a", "9112", None),
            ("the service", b"URN:service:SOS", "x", Some("112")),
            ("one of its kinds", b"urn:service:sos.fire", "x", Some("112")),
            ("another service", b"urn:service:sosial", "x", None),
        ];
        for (description, uri, number, expected) in rows {
            let number = Number::parse(number.as_bytes());
            let found = routing.emergency(uri, number.as_ref());
            assert_eq!(found.as_ref().map(Number::as_str), expected, "{description}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_or_too_large_is_refused() {
        for text in ["(", "(a{1000}){1000}"] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
