//! Routes that contradict each other.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::netlink::Link;

/// Pairs of routes to the same addresses by two interfaces, in words: hosts in the overlap are reached by one of the two
/// only, without an error anywhere. `routes` are destination, prefix length and interface.
#[must_use]
pub fn overlaps(links: &[Link], routes: &[(Ipv4Addr, u8, u32)]) -> Vec<String> {
    let name = |index: u32| {
        links
            .iter()
            .find(|link| link.index == index)
            .map_or_else(|| index.to_string(), |link| link.name.clone())
    };
    let mut seen: HashMap<Ipv4Net, u32> = HashMap::new();
    let mut found = Vec::new();
    for (destination, prefix, interface) in routes {
        let Ok(net) = Ipv4Net::new(*destination, *prefix) else { continue };
        // Host routes and the default route overlap with everything by design; so does loopback.
        if *prefix == 0 || *prefix == 32 || destination.is_loopback() {
            continue;
        }
        for (other, by) in &seen {
            if by != interface && (other.contains(&net) || net.contains(other)) {
                found.push(format!("{net} by {} and {other} by {}", name(*interface), name(*by)));
            }
        }
        seen.insert(net, *interface);
    }
    found
}
