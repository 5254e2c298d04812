//! What is converted for which peer, found by its network and its address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    config::{Conversions, Network, Peer},
    net::NetworkId,
};

/// What is converted for the peers of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OfNetwork {
    id: NetworkId,
    all: Conversions,
    /// What those at some addresses have instead, the longest prefix first.
    some: Vec<(IpNet, Conversions)>,
}

/// What is converted for the peers of each network, and for single ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    networks: Vec<OfNetwork>,
    /// What is converted for those of whom nothing is said.
    others: Conversions,
}

impl Peers {
    /// What the configuration says.
    #[must_use]
    pub fn new<'a>(networks: impl Iterator<Item = (NetworkId, &'a Network)>, peers: &[Peer]) -> Self {
        Self::of_networks(networks.map(|(id, network)| (id, network.conversions())), peers)
    }

    /// The same from what each network's peers have.
    #[must_use]
    pub fn of_networks(networks: impl IntoIterator<Item = (NetworkId, Conversions)>, peers: &[Peer]) -> Self {
        let of = |(id, all): (NetworkId, Conversions)| {
            let rows = peers.iter().flat_map(|peer| peer.addresses.iter().map(move |at| (at.0, peer)));
            let mut some: Vec<(IpNet, Conversions)> =
                rows.map(|(prefix, peer)| (prefix, peer.over(&all))).collect();
            some.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
            OfNetwork { id, all, some }
        };
        Self { networks: networks.into_iter().map(of).collect(), others: Conversions::default() }
    }

    /// What is converted for the peer at an address.
    #[must_use]
    pub fn of(&self, network: NetworkId, address: IpAddr) -> &Conversions {
        let Some(own) = self.networks.iter().find(|own| own.id == network) else { return &self.others };
        own.some.iter().find(|(prefix, _)| prefix.contains(&address)).map_or(&own.all, |(_, some)| some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_then_the_network() {
        let peer = |name: &str, address: &str, seconds: u32| -> Peer {
            toml::from_str(&format!(
                "name = \"{name}\"\naddresses = [\"{address}\"]\nsession_timer_seconds = {seconds}"
            ))
            .unwrap()
        };
        let network = |seconds| Conversions { session_timer_seconds: seconds, ..Conversions::default() };
        let peers = Peers::of_networks(
            [(NetworkId(0), network(100)), (NetworkId(1), network(200))],
            &[peer("wide", "192.0.2.0/24", 300), peer("narrow", "192.0.2.7", 400)],
        );
        let rows = [
            ("the narrow one", 0, "192.0.2.7", 400),
            ("the wide one", 1, "192.0.2.8", 300),
            ("the network's", 1, "198.51.100.1", 200),
            ("of another family", 0, "2001:db8::1", 100),
            ("an unknown network", 7, "198.51.100.1", 0),
        ];
        for (description, network, address, expected) in rows {
            let found = peers.of(NetworkId(network), address.parse().unwrap());
            assert_eq!(found.session_timer_seconds, expected, "{description}");
        }
    }
}
