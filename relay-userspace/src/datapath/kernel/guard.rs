//! The rules by which the kernel program protects the host: who is denied, trusted or known, and how much SIP's ports may
//! get. The kernel's side is [`relay_ebpf::guard`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use aya::maps::{
    Array, Map, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use relay_ebpf::{
    guard::{Limits, Rate, SourceRule, Verdict},
    tables::MAX_SOURCE_RULES,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// A [`SourceRule`] as the kernel takes it.
type Value = [u8; size_of::<SourceRule>()];
/// [`Limits`] likewise.
type LimitWords = [u8; size_of::<Limits>()];
/// Bits in front of an IPv4 prefix in the kernel's table.
const MAPPED: u8 = 96;

/// A rule that denies, as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whom.
    pub prefix: IpNet,
    /// Packets that were denied by it.
    pub denied: u64,
}

/// The kernel's rules.
pub struct Guard {
    sources: LpmTrie<MapData, [u8; 16], Value>,
    limits: Array<MapData, LimitWords>,
    installed: BTreeMap<IpNet, Verdict>,
}

impl Guard {
    pub(super) fn new(sources: Map, limits: Map) -> Result<Self, MapError> {
        Ok(Self {
            sources: LpmTrie::try_from(sources)?,
            limits: Array::try_from(limits)?,
            installed: BTreeMap::new(),
        })
    }

    /// Sets how much the SIP ports may get, in packets a second.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_limits(&mut self, source: u32, unknown: u32) -> Result<(), MapError> {
        let limits = Limits { source: Rate::per_second(source), unknown: Rate::per_second(unknown) };
        let mut words: LimitWords = [0; size_of::<Limits>()];
        words.copy_from_slice(limits.as_bytes());
        self.limits.set(0, words, 0)
    }

    /// Brings the kernel's rules into line with these. Rules that stay keep their counts; what does not fit is left
    /// out, the last ones first.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_rules(&mut self, wanted: &BTreeMap<IpNet, Verdict>) -> Result<(), MapError> {
        let gone: Vec<IpNet> = self
            .installed
            .iter()
            .filter(|(prefix, verdict)| wanted.get(prefix) != Some(verdict))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in gone {
            self.installed.remove(&prefix);
            match self.sources.remove(&key(prefix)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        for (prefix, verdict) in wanted {
            if self.installed.len() >= MAX_SOURCE_RULES as usize || self.installed.contains_key(prefix) {
                continue;
            }
            let rule = SourceRule { verdict: *verdict as u32, padding: 0, denied: 0 };
            let mut value: Value = [0; size_of::<SourceRule>()];
            value.copy_from_slice(rule.as_bytes());
            self.sources.insert(&key(*prefix), value, 0)?;
            self.installed.insert(*prefix, *verdict);
        }
        Ok(())
    }

    /// The rules that deny, with what they have denied.
    #[must_use]
    pub fn denials(&self) -> Vec<Rule> {
        self.installed
            .iter()
            .filter(|(_, verdict)| **verdict == Verdict::Denied)
            .map(|(prefix, _)| {
                let value = self.sources.get(&key(*prefix), 0).ok();
                let rule = value.and_then(|value| SourceRule::read_from_bytes(&value).ok());
                Rule { prefix: *prefix, denied: rule.map_or(0, |rule| rule.denied) }
            })
            .collect()
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("installed", &self.installed).finish_non_exhaustive()
    }
}

/// A prefix as the kernel looks for it: IPv4 as IPv6 maps it (RFC 4291 section 2.5.5.2).
fn key(prefix: IpNet) -> Key<[u8; 16]> {
    let (address, bits) = match prefix.network() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), MAPPED + prefix.prefix_len()),
        IpAddr::V6(address) => (Ipv6Addr::from(address.octets()), prefix.prefix_len()),
    };
    Key::new(bits.into(), address.octets())
}
