//! Who is denied, trusted or known: from the configuration, from the operator's command, from what sources do, and from
//! who has registered; brought to the kernel every few seconds, and at once when somebody commands.
//!
//! A source is shut out for a time when it goes on sending what is no SIP, or what it has no right to send. The address
//! of a UDP packet can be a lie; so nobody is shut out by what others may have sent in his name who is trusted or has
//! registered a phone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use relay_ebpf::guard::Verdict;
use tracing::warn;

use super::certificates::now_unix;
use crate::config::Protection as Settings;

/// Refused messages of one source within [`WINDOW`] that are too many.
const OFFENCES: u32 = 100;
/// In which time.
const WINDOW: Duration = Duration::from_secs(60);
/// For how long a source is then shut out.
const SENTENCE: Duration = Duration::from_secs(600);
/// Sources that are watched at a time; beyond, the one that offended longest ago is forgotten.
const MOST_WATCHED: usize = 4096;
/// Denials that are not in the configuration.
const MOST_DENIALS: usize = 4096;

/// A denial that is not in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    /// Its end; none: it stays until it is taken back or the daemon ends.
    pub(super) until: Option<Instant>,
    /// Since when, in seconds since 1970.
    pub(super) since_unix: i64,
    /// Why, in words.
    pub(super) why: String,
}

/// Who has rights, and who has none.
#[derive(Debug)]
pub(super) struct Protection {
    settings: Settings,
    denials: BTreeMap<IpNet, Denial>,
    offences: HashMap<IpAddr, (Instant, u32)>,
    /// The peers that were trusted, and the sources that were known, when the rules were made last.
    peers: Vec<IpNet>,
    known: HashSet<IpAddr>,
}

impl Protection {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            denials: BTreeMap::new(),
            offences: HashMap::new(),
            peers: Vec::new(),
            known: HashSet::new(),
        }
    }

    pub(super) fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Denies a prefix, for so long or until it is taken back.
    ///
    /// # Errors
    /// If there are too many denials, or the prefix is a trusted peer's.
    pub(super) fn deny(
        &mut self,
        now: Instant,
        prefix: IpNet,
        lasts: Option<Duration>,
        why: String,
    ) -> Result<(), String> {
        let prefix = prefix.trunc();
        if let Some(peer) =
            self.settings.trusted.iter().chain(&self.peers).find(|peer| peer.contains(&prefix))
        {
            return Err(format!("{prefix} is a trusted peer ({peer}); such are never denied"));
        }
        if self.denials.len() >= MOST_DENIALS && !self.denials.contains_key(&prefix) {
            return Err(format!("{MOST_DENIALS} prefixes are denied already; deny a wider one instead"));
        }
        let until = lasts.map(|lasts| now + lasts);
        self.denials.insert(prefix, Denial { until, since_unix: now_unix(), why });
        Ok(())
    }

    /// Takes a denial back.
    ///
    /// # Errors
    /// If there is none, or the configuration has it.
    pub(super) fn allow(&mut self, prefix: IpNet) -> Result<(), String> {
        let prefix = prefix.trunc();
        if self.denials.remove(&prefix).is_some() {
            return Ok(());
        }
        Err(if self.settings.deny.iter().any(|denied| denied.trunc() == prefix) {
            format!("{prefix} is denied by the configuration: take it out of protection.deny")
        } else {
            format!("{prefix} is not denied; `branchline deny` lists what is")
        })
    }

    /// Whether nobody shuts a source out for what may have been sent in its name.
    fn is_respected(&self, source: IpAddr) -> bool {
        let trusted = |peers: &[IpNet]| peers.iter().any(|peer| peer.contains(&source));
        self.known.contains(&source) || trusted(&self.peers) || trusted(&self.settings.trusted)
    }

    /// A source looks for open servers: it is shut out at once.
    pub(super) fn scanned(&mut self, now: Instant, source: IpAddr) {
        if !self.is_respected(source) {
            self.shut_out(now, source, "it calls itself by the name of a scanner".to_owned());
        }
    }

    fn shut_out(&mut self, now: Instant, source: IpAddr, why: String) {
        warn!(%source, "denied for {} minutes: {why}", SENTENCE.as_secs() / 60);
        if let Err(error) = self.deny(now, source.into(), Some(SENTENCE), why) {
            warn!(%source, error, "not denied");
        }
    }

    /// A source has sent what had to be refused.
    pub(super) fn offended(&mut self, now: Instant, source: IpAddr) {
        if self.is_respected(source) {
            return;
        }
        if self.offences.len() >= MOST_WATCHED && !self.offences.contains_key(&source) {
            let oldest = self.offences.iter().min_by_key(|(_, (since, _))| *since).map(|(source, _)| *source);
            oldest.and_then(|oldest| self.offences.remove(&oldest));
        }
        let (since, count) = self.offences.entry(source).or_insert((now, 0));
        if now.saturating_duration_since(*since) > WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count >= OFFENCES {
            self.offences.remove(&source);
            let why = format!("{OFFENCES} messages within {} s that had to be refused", WINDOW.as_secs());
            self.shut_out(now, source, why);
        }
    }

    /// The rules as they are to be now: `trusted` peers and `known` sources beside what is configured and denied.
    pub(super) fn rules(
        &mut self,
        now: Instant,
        trusted: impl IntoIterator<Item = IpNet>,
        known: impl IntoIterator<Item = IpAddr>,
    ) -> BTreeMap<IpNet, Verdict> {
        self.denials.retain(|_, denial| denial.until.is_none_or(|until| until > now));
        let denied: Vec<IpNet> =
            self.settings.deny.iter().map(IpNet::trunc).chain(self.denials.keys().copied()).collect();
        self.known = known.into_iter().collect();
        self.peers = trusted.into_iter().collect();
        // The longest prefix decides, so a phone within a denied network must not have a rule of its own.
        let known = self.known.iter().filter(|source| !denied.iter().any(|prefix| prefix.contains(*source)));
        let mut rules: BTreeMap<IpNet, Verdict> =
            known.map(|source| (IpNet::from(*source), Verdict::Known)).collect();
        rules.extend(denied.into_iter().map(|prefix| (prefix, Verdict::Denied)));
        let trusted = self.peers.iter().chain(&self.settings.trusted);
        rules.extend(trusted.map(|prefix| (prefix.trunc(), Verdict::Trusted)));
        rules
    }

    /// What is denied, with the denial unless the configuration has it.
    pub(super) fn denials(&self) -> Vec<(IpNet, Option<Denial>)> {
        let configured = self.settings.deny.iter().map(|prefix| (prefix.trunc(), None));
        let others = self.denials.iter().map(|(prefix, denial)| (*prefix, Some(denial.clone())));
        let all: BTreeMap<IpNet, Option<Denial>> = others.chain(configured).collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn protection() -> Protection {
        Protection::new(Settings {
            deny: vec![prefix("192.0.2.77/24")],
            trusted: vec![prefix("192.0.2.8/32")],
            ..Settings::default()
        })
    }

    #[test]
    fn rules_say_who_is_denied_trusted_and_known_and_a_denied_phone_is_not_known() {
        let (mut protection, now) = (protection(), Instant::now());
        let known = ["192.0.2.9".parse().unwrap(), "10.0.0.5".parse().unwrap()];
        let rules = protection.rules(now, [prefix("198.51.100.1/32")], known);
        let expected = [
            ("192.0.2.0/24", Verdict::Denied),
            ("192.0.2.8/32", Verdict::Trusted),
            ("198.51.100.1/32", Verdict::Trusted),
            ("10.0.0.5/32", Verdict::Known),
        ];
        assert_eq!(rules, expected.map(|(text, verdict)| (prefix(text), verdict)).into_iter().collect());
    }

    #[test]
    fn a_denial_ends_with_its_time_or_when_it_is_taken_back() {
        let (mut protection, now) = (protection(), Instant::now());
        let (hour, net) = (Duration::from_secs(3600), prefix("2001:db8::/32"));
        protection.deny(now, net, Some(hour), "a test".to_owned()).unwrap();
        assert!(protection.rules(now + hour / 2, [], []).contains_key(&net));
        assert!(!protection.rules(now + hour, [], []).contains_key(&net));
        protection.deny(now, net, None, "a test".to_owned()).unwrap();
        assert!(protection.rules(now + hour * 1000, [], []).contains_key(&net));
        protection.allow(net).unwrap();
        assert!(!protection.rules(now, [], []).contains_key(&net));
        assert!(protection.allow(net).unwrap_err().contains("is not denied"));
        assert!(protection.allow(prefix("192.0.2.0/24")).unwrap_err().contains("protection.deny"));
        let server = prefix("198.51.100.1/32");
        protection.rules(now, [server], []);
        let refused = protection.deny(now, server, None, String::new()).unwrap_err();
        assert!(refused.contains("trusted peer"), "{refused}");
    }

    #[test]
    fn a_source_that_goes_on_offending_is_shut_out_for_a_time_and_an_exempt_one_is_not() {
        let (mut protection, now) = (protection(), Instant::now());
        let source: IpAddr = "203.0.113.5".parse().unwrap();
        for exempt in [(vec![], vec![source]), (vec![source.into()], vec![])] {
            protection.rules(now, exempt.0, exempt.1);
            (0..OFFENCES).for_each(|_| protection.offended(now, source));
        }
        protection.rules(now, [], []);
        for count in 0..OFFENCES - 1 {
            protection.offended(now + Duration::from_millis(count.into()), source);
        }
        assert!(!protection.rules(now, [], []).contains_key(&source.into()));
        protection.offended(now + WINDOW / 2, source);
        assert_eq!(protection.rules(now, [], [])[&source.into()], Verdict::Denied);
        assert!(!protection.rules(now + WINDOW + SENTENCE, [], []).contains_key(&source.into()));
        // Slowly, as a phone with a wrong setting does: never.
        for hour in 1..OFFENCES * 2 {
            protection.offended(now + SENTENCE * 2 + WINDOW * 2 * hour / 3, source);
        }
        assert!(!protection.rules(now + SENTENCE * 3, [], []).contains_key(&source.into()));
    }

    #[test]
    fn what_is_remembered_of_sources_is_bounded() {
        let (mut protection, now) = (protection(), Instant::now());
        for number in 0..MOST_WATCHED as u32 * 2 {
            protection.offended(now, std::net::Ipv4Addr::from_bits(number).into());
        }
        assert_eq!(protection.offences.len(), MOST_WATCHED);
    }
}
