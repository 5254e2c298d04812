//! Media ports of one network: handed out in pairs, an even one for RTP and the next for RTCP (RFC 3550
//! section 11).

use std::{collections::VecDeque, ops::RangeInclusive};

use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

/// An RTP port; its RTCP port is the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortPair(u16);

impl PortPair {
    /// The pair that begins with this port; none if it is odd.
    pub(super) fn at(port: u16) -> Option<Self> {
        port.is_multiple_of(2).then_some(Self(port))
    }

    pub(super) fn rtp(self) -> u16 {
        self.0
    }

    pub(super) fn rtcp(self) -> u16 {
        self.0 + 1
    }
}

/// How many ports of a network are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUse {
    /// In use.
    pub used: usize,
    /// Configured.
    pub total: usize,
}

/// The pairs that are free. They are shuffled, so that the next call's ports cannot be guessed from the
/// last one's, and used in turn, so that a pair rests for as long as possible between two calls.
#[derive(Debug)]
pub(super) struct Ports {
    free: VecDeque<u16>,
    total: usize,
}

impl Ports {
    pub(super) fn new(range: &RangeInclusive<u16>, seed: u64) -> Self {
        let mut pairs: Vec<u16> =
            range.clone().filter(|port| port.is_multiple_of(2) && *port < *range.end()).collect();
        pairs.shuffle(&mut SmallRng::seed_from_u64(seed));
        Self { total: pairs.len() * 2, free: pairs.into() }
    }

    pub(super) fn take(&mut self) -> Option<PortPair> {
        self.free.pop_front().map(PortPair)
    }

    /// Takes this very pair; false if it is in use or out of range.
    pub(super) fn claim(&mut self, pair: PortPair) -> bool {
        let place = self.free.iter().position(|port| *port == pair.0);
        place.and_then(|place| self.free.swap_remove_back(place)).is_some()
    }

    pub(super) fn give_back(&mut self, pair: PortPair) {
        self.free.push_back(pair.0);
    }

    pub(super) fn in_use(&self) -> PortUse {
        PortUse { used: self.total - self.free.len() * 2, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_pair_is_even_within_the_range_and_handed_out_once() {
        for (range, pairs) in
            [(16_384..=32_767, 8192), (10_001..=10_006, 2), (10_000..=10_000, 0), (65_534..=65_535, 1)]
        {
            let mut ports = Ports::new(&range, 7);
            let taken: Vec<PortPair> = std::iter::from_fn(|| ports.take()).collect();
            let distinct: HashSet<u16> = taken.iter().map(|pair| pair.rtp()).collect();
            assert_eq!((taken.len(), distinct.len()), (pairs, pairs), "{range:?}");
            assert!(
                taken
                    .iter()
                    .all(|p| p.rtp() % 2 == 0 && range.contains(&p.rtp()) && range.contains(&p.rtcp()))
            );
            assert_eq!(ports.in_use(), PortUse { used: pairs * 2, total: pairs * 2 });
            taken.into_iter().for_each(|pair| ports.give_back(pair));
            assert_eq!(ports.in_use().used, 0);
        }
    }
}
