//! Call admission: how many calls a network takes, and how much of its line.
//!
//! What a call takes is estimated from its descriptions: by the greediest codec of an offer as long as it is not answered,
//! then by the codec of the answer. A call that stands is never ended for it, and an emergency call is never refused.
//!
//! Invariant: what a call has entered it leaves, once, whatever became of it meanwhile.

use std::collections::HashMap;

use crate::net::NetworkId;

/// What a network takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Calls at a time; `None`: no limit.
    pub calls: Option<u32>,
    /// kbit/s of media in each direction; `None`: no limit.
    pub kbps: Option<u32>,
}

/// What calls take of a network now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that have an end there.
    pub calls: u32,
    /// kbit/s of their media in each direction, as estimated.
    pub kbps: u32,
}

/// What one call has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    networks: [NetworkId; 2],
    kbps: u32,
}

/// A network that takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) network: NetworkId,
    pub(super) load: Load,
    pub(super) capacity: Capacity,
}

/// The networks' capacities, and what is taken of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    capacities: HashMap<NetworkId, Capacity>,
    loads: HashMap<NetworkId, Load>,
}

impl Admission {
    pub(super) fn new(capacities: HashMap<NetworkId, Capacity>) -> Self {
        Self { capacities, loads: HashMap::new() }
    }

    pub(super) fn set(&mut self, capacities: HashMap<NetworkId, Capacity>) {
        self.capacities = capacities;
    }

    pub(super) fn load(&self, network: NetworkId) -> Load {
        self.loads.get(&network).copied().unwrap_or_default()
    }

    /// Whether a call that would take so much fits.
    pub(super) fn admits(&self, networks: [NetworkId; 2], kbps: u32) -> Result<(), Full> {
        for (network, ends) in ends(networks) {
            let (load, capacity) =
                (self.load(network), self.capacities.get(&network).copied().unwrap_or_default());
            let no_call = capacity.calls.is_some_and(|most| load.calls >= most);
            let no_line = capacity.kbps.is_some_and(|most| load.kbps.saturating_add(kbps * ends) > most);
            if no_call || no_line {
                return Err(Full { network, load, capacity });
            }
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, networks: [NetworkId; 2], kbps: u32) -> Share {
        for (network, ends) in ends(networks) {
            let load = self.loads.entry(network).or_default();
            load.calls += 1;
            load.kbps = load.kbps.saturating_add(kbps * ends);
        }
        Share { networks, kbps }
    }

    /// A call takes another part of the line from now on.
    pub(super) fn change(&mut self, share: &mut Share, kbps: u32) {
        for (network, ends) in ends(share.networks) {
            let load = self.loads.entry(network).or_default();
            load.kbps = load.kbps.saturating_sub(share.kbps * ends).saturating_add(kbps * ends);
        }
        share.kbps = kbps;
    }

    pub(super) fn leave(&mut self, share: Share) {
        for (network, ends) in ends(share.networks) {
            let load = self.loads.entry(network).or_default();
            load.calls = load.calls.saturating_sub(1);
            load.kbps = load.kbps.saturating_sub(share.kbps * ends);
        }
    }
}

/// The networks of a call, each with how many of its two ends are there.
fn ends([one, other]: [NetworkId; 2]) -> impl Iterator<Item = (NetworkId, u32)> {
    let same = one == other;
    [Some((one, if same { 2 } else { 1 })), (!same).then_some((other, 1))].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fit_until_a_network_is_full_and_what_they_took_comes_back() {
        let (office, centre) = (NetworkId(0), NetworkId(1));
        let capacity = Capacity { calls: Some(2), kbps: Some(200) };
        let mut admission = Admission::new(HashMap::from([(centre, capacity)]));
        let networks = [office, centre];
        let mut first = admission.enter(networks, 80);
        assert_eq!(admission.admits(networks, 120), Ok(()));
        assert_eq!(admission.admits(networks, 121).unwrap_err().load, Load { calls: 1, kbps: 80 });
        admission.change(&mut first, 24);
        let second = admission.enter(networks, 80);
        assert_eq!(admission.load(centre), Load { calls: 2, kbps: 104 });
        assert!(admission.admits(networks, 0).is_err(), "two calls");
        assert_eq!(admission.admits([office, office], 500), Ok(()), "the office has no limit");
        // Both ends of a call in one office take of its line; it is one call.
        let within = admission.enter([office, office], 80);
        assert_eq!(admission.load(office), Load { calls: 3, kbps: 264 });
        for share in [first, second, within] {
            admission.leave(share);
        }
        assert_eq!((admission.load(office), admission.load(centre)), (Load::default(), Load::default()));
    }
}
