//! What is converted for a peer: by network, and for single peers by their addresses.
//!
//! The keys stand in each `[[network]]` and again in each `[[peer]]`, which overrides those that it names for the peers at
//! its addresses. A further key is a field of [`Conversions`], [`Network`] and [`Peer`] and a line in [`Network::conversions`]
//! and [`Peer::over`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::Deserialize;

use super::Network;

/// Most peers.
const MOST: usize = 256;
/// Most codecs of an offer.
const MOST_CODECS: usize = 16;
/// Shortest session timer in seconds (RFC 4028 section 5).
const LEAST_TIMER: u32 = 90;
/// Longest: a day.
const MOST_TIMER: u32 = 86_400;

/// What becomes of an INVITE without a session description that goes to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayedOffers {
    /// It goes as it came.
    #[default]
    Pass,
    /// It gets an offer.
    Offer,
}

/// What becomes of a REFER that goes to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferStyle {
    /// It goes as it came.
    #[default]
    Pass,
    /// The appliance does what it asks for, and the peer gets a re-INVITE.
    Reinvite,
}

/// How a peer is told that it is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldStyle {
    /// As the other side says it.
    #[default]
    AsSent,
    /// By a direction: `a=sendonly`, `a=inactive` (RFC 3264).
    Direction,
    /// By an address of zeros (RFC 2543).
    ZeroAddress,
}

/// A codec that the appliance offers itself, written as `"PCMA"`, `"opus"` or, where it is none of those that are known,
/// as `"NAME/RATE"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Codec {
    /// Its static payload type (RFC 3551 section 6); `None` for one whose number is dynamic.
    pub payload: Option<u8>,
    /// As it stands in `a=rtpmap`, behind the number.
    pub mapping: String,
    /// As it stands in `a=fmtp`, behind the number.
    pub parameters: Option<String>,
}

/// Name, static payload type, mapping and parameters of the codecs that are known.
const KNOWN_CODECS: [(&str, Option<u8>, &str, Option<&str>); 7] = [
    ("PCMU", Some(0), "PCMU/8000", None),
    ("GSM", Some(3), "GSM/8000", None),
    ("PCMA", Some(8), "PCMA/8000", None),
    // RFC 3551 section 4.5.2: the clock rate is 8000 by an old mistake.
    ("G722", Some(9), "G722/8000", None),
    ("G729", Some(18), "G729/8000", Some("annexb=no")),
    ("opus", None, "opus/48000/2", Some("useinbandfec=1")),
    ("telephone-event", None, "telephone-event/8000", Some("0-16")),
];

impl Codec {
    /// What is offered unless a peer has a list of its own.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let names = ["PCMA", "PCMU", "G722", "G729", "opus", "telephone-event"];
        names.iter().filter_map(|name| Self::known(name)).collect()
    }

    fn known(name: &str) -> Option<Self> {
        let (_, payload, mapping, parameters) =
            KNOWN_CODECS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
        Some(Self {
            payload: *payload,
            mapping: (*mapping).to_owned(),
            parameters: parameters.map(str::to_owned),
        })
    }
}

impl TryFrom<String> for Codec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(known) = Self::known(&text) {
            return Ok(known);
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let mut parts = text.split('/');
        let name = parts.next().is_some_and(is_name);
        let rate = parts.next().and_then(|rate| rate.parse::<u32>().ok()).is_some_and(|rate| rate > 0);
        let channels = parts.next().is_none_or(|channels| channels.parse::<u8>().is_ok_and(|n| n > 0));
        if text.len() <= 64 && name && rate && channels && parts.next().is_none() {
            return Ok(Self { payload: None, mapping: text, parameters: None });
        }
        let known: Vec<&str> = KNOWN_CODECS.iter().map(|(name, ..)| *name).collect();
        Err(format!(
            "{text:?} is no codec that is known ({}); write another one as \"NAME/RATE\"",
            known.join(", ")
        ))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = KNOWN_CODECS.iter().find(|(_, _, mapping, _)| *mapping == self.mapping);
        f.write_str(known.map_or(self.mapping.as_str(), |(name, ..)| name))
    }
}

/// Addresses of peers, written as an address or as a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Addresses(pub IpNet);

impl TryFrom<String> for Addresses {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let prefix = text.parse::<IpNet>().map(|net| net.trunc()).ok();
        prefix.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(Self).ok_or_else(|| {
            format!("{text:?} is neither an address nor a prefix; write for example \"192.0.2.7\" or \"192.0.2.0/24\"")
        })
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// What is converted for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversions {
    /// How it is told that it is held.
    pub hold: HoldStyle,
    /// What becomes of a REFER.
    pub refer: ReferStyle,
    /// What becomes of an INVITE without a session description.
    pub delayed_offers: DelayedOffers,
    /// The codecs of the appliance's own offers.
    pub offer_codecs: Vec<Codec>,
    /// The session timer that is kept where not both sides keep one, in seconds; 0: none.
    pub session_timer_seconds: u32,
}

impl Default for Conversions {
    fn default() -> Self {
        Self {
            hold: HoldStyle::AsSent,
            refer: ReferStyle::Pass,
            delayed_offers: DelayedOffers::Pass,
            offer_codecs: Codec::usual(),
            session_timer_seconds: 0,
        }
    }
}

impl Network {
    /// What is converted for the peers of this network.
    #[must_use]
    pub fn conversions(&self) -> Conversions {
        Conversions {
            hold: self.hold,
            refer: self.refer,
            delayed_offers: self.delayed_offers,
            offer_codecs: self.offer_codecs.clone(),
            session_timer_seconds: self.session_timer_seconds,
        }
    }
}

/// A peer, or several alike, for which something else is converted than for the others of its network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name, for people.
    pub name: String,
    /// Its addresses. Where several peers have an address, the longest prefix decides.
    pub addresses: Vec<Addresses>,
    /// See [`Network::hold`]; the network's where it is not given, like all that follow.
    pub hold: Option<HoldStyle>,
    /// See [`Network::refer`].
    pub refer: Option<ReferStyle>,
    /// See [`Network::delayed_offers`].
    pub delayed_offers: Option<DelayedOffers>,
    /// See [`Network::offer_codecs`].
    pub offer_codecs: Option<Vec<Codec>>,
    /// See [`Network::session_timer_seconds`].
    pub session_timer_seconds: Option<u32>,
}

impl Peer {
    /// What is converted for it where its network's peers have this.
    #[must_use]
    pub fn over(&self, network: &Conversions) -> Conversions {
        Conversions {
            hold: self.hold.unwrap_or(network.hold),
            refer: self.refer.unwrap_or(network.refer),
            delayed_offers: self.delayed_offers.unwrap_or(network.delayed_offers),
            offer_codecs: self.offer_codecs.clone().unwrap_or_else(|| network.offer_codecs.clone()),
            session_timer_seconds: self.session_timer_seconds.unwrap_or(network.session_timer_seconds),
        }
    }
}

type Wrong = (&'static str, String);

/// Checks what a network says of its peers.
pub(super) fn check_network(network: &Network) -> Result<(), Wrong> {
    check_timer("network.session_timer_seconds", network.session_timer_seconds)?;
    check_codecs("network.offer_codecs", &network.offer_codecs)
}

/// Checks the peers.
pub(super) fn check_peers(peers: &[Peer]) -> Result<(), Wrong> {
    if peers.len() > MOST {
        return Err(("peer", format!("{} peers are listed; {MOST} can be", peers.len())));
    }
    for (position, peer) in peers.iter().enumerate() {
        let others = || peers.iter().take(position);
        if peer.name.is_empty() || others().any(|other| other.name == peer.name) {
            return Err(("peer.name", format!("{:?}: each peer needs a name of its own", peer.name)));
        }
        if peer.addresses.is_empty() || peer.addresses.len() > MOST {
            let message = format!("peer {:?} needs 1 to {MOST} addresses", peer.name);
            return Err(("peer.addresses", message));
        }
        for addresses in &peer.addresses {
            if let Some(other) = others().find(|other| other.addresses.contains(addresses)) {
                let message = format!("{addresses} belongs to peer {:?} and to {:?}", other.name, peer.name);
                return Err(("peer.addresses", message));
            }
            let ip = addresses.0.addr();
            let all = addresses.0.prefix_len() == 0;
            if !all && (ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
                return Err(("peer.addresses", format!("{addresses} is nobody's address")));
            }
        }
        if let Some(seconds) = peer.session_timer_seconds {
            check_timer("peer.session_timer_seconds", seconds)?;
        }
        if let Some(codecs) = &peer.offer_codecs {
            check_codecs("peer.offer_codecs", codecs)?;
        }
    }
    Ok(())
}

fn check_timer(key: &'static str, seconds: u32) -> Result<(), Wrong> {
    if seconds == 0 || (LEAST_TIMER..=MOST_TIMER).contains(&seconds) {
        return Ok(());
    }
    Err((key, format!("{seconds} is out of range: 0 (none), or {LEAST_TIMER} to {MOST_TIMER}")))
}

fn check_codecs(key: &'static str, codecs: &[Codec]) -> Result<(), Wrong> {
    let sound = codecs.iter().any(|codec| !codec.mapping.starts_with("telephone-event/"));
    if sound && codecs.len() <= MOST_CODECS {
        return Ok(());
    }
    Err((key, format!("an offer needs 1 to {MOST_CODECS} codecs, one of them for sound")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_known_by_name_and_others_by_name_and_rate() {
        let rows = [
            ("pcma", Ok(("PCMA", Some(8)))),
            ("opus", Ok(("opus", None))),
            ("iLBC/8000", Ok(("iLBC/8000", None))),
            ("L16/44100/2", Ok(("L16/44100/2", None))),
            ("iLBC", Err("no codec that is known (PCMU, ")),
            ("a b/8000", Err("no codec that is known")),
            ("x/0", Err("no codec that is known")),
            ("x/8000/1/2", Err("no codec that is known")),
            ("x/8000\r\na=y", Err("no codec that is known")),
        ];
        for (text, expected) in rows {
            match (Codec::try_from(text.to_owned()), expected) {
                (Ok(codec), Ok((name, payload))) => {
                    assert_eq!((codec.to_string().as_str(), codec.payload), (name, payload), "{text}");
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_peer_overrides_what_it_names_and_keeps_the_rest_of_its_network() {
        let peer: Peer = toml::from_str(
            "name = \"pbx\"\naddresses = [\"198.51.100.7\", \"2001:db8::/32\"]\nrefer = \"reinvite\"\n",
        )
        .unwrap();
        let network = Conversions { session_timer_seconds: 1800, ..Conversions::default() };
        let expected = Conversions { refer: ReferStyle::Reinvite, ..network.clone() };
        assert_eq!(peer.over(&network), expected);
        let written: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["198.51.100.7", "2001:db8::/32"]);
    }

    #[test]
    fn what_is_wrong_with_a_peer_is_told_by_key() {
        let peer = |name: &str, addresses: &str, more: &str| -> Peer {
            toml::from_str(&format!("name = \"{name}\"\naddresses = [{addresses}]\n{more}")).unwrap()
        };
        let rows: [(&str, Vec<Peer>, &str, &str); 6] = [
            ("no name", vec![peer("", "\"192.0.2.1\"", "")], "peer.name", "a name of its own"),
            ("no address", vec![peer("a", "", "")], "peer.addresses", "needs 1 to 256 addresses"),
            (
                "one address twice",
                vec![peer("a", "\"192.0.2.0/24\"", ""), peer("b", "\"192.0.2.9/24\"", "")],
                "peer.addresses",
                "192.0.2.0/24 belongs to peer \"a\" and to \"b\"",
            ),
            ("nobody", vec![peer("a", "\"0.0.0.0\"", "")], "peer.addresses", "nobody's address"),
            (
                "a timer that is too short",
                vec![peer("a", "\"192.0.2.1\"", "session_timer_seconds = 10")],
                "peer.session_timer_seconds",
                "10 is out of range: 0 (none), or 90 to 86400",
            ),
            (
                "no sound",
                vec![peer("a", "\"192.0.2.1\"", "offer_codecs = [\"telephone-event\"]")],
                "peer.offer_codecs",
                "one of them for sound",
            ),
        ];
        for (description, peers, key, expected) in rows {
            let (found, message) = check_peers(&peers).unwrap_err();
            assert_eq!(found, key, "{description}");
            assert!(message.contains(expected), "{description}: {message}");
        }
        check_peers(&[peer("a", "\"192.0.2.1\"", "session_timer_seconds = 0")]).unwrap();
    }
}
