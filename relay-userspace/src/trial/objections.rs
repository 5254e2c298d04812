//! Why interfaces are not to be taken for a trial without asking: what else they are for.

use std::net::IpAddr;

use crate::net::netlink::{Attached, InterfaceAddress, Link};

/// What is known of this host.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// Interfaces, by number, with a default route.
    pub default_routes: Vec<u32>,
    /// Interfaces, by number, that are parts of a bridge or bond.
    pub parts: Vec<u32>,
    /// Interfaces, by name, of the configuration and of the appliance that runs.
    pub configured: Vec<String>,
}

/// Why two interfaces are not to be taken: what whoever names them may overrule.
///
/// # Errors
/// What nobody can overrule.
pub fn objections(facts: &Facts, between: &[String; 2]) -> Result<Vec<String>, String> {
    if between[0] == between[1] {
        return Err(format!("{} is named twice: a cable has two ends, between two interfaces", between[0]));
    }
    let mut objections = Vec::new();
    for name in between {
        let link = facts.links.iter().find(|link| link.name == *name);
        let link =
            link.ok_or_else(|| format!("there is no interface {name}; `ip link` lists those that exist"))?;
        if link.address.is_none() {
            return Err(format!("{name} is no Ethernet device"));
        }
        if facts.default_routes.contains(&link.index) {
            objections.push(format!("{name} has a default route: this host would be cut off"));
        }
        let own = facts.addresses.iter().filter(|address| address.interface == link.index);
        let own: Vec<String> =
            own.filter(|address| !is_link_local(address.ip)).map(|address| address.ip.to_string()).collect();
        if !own.is_empty() {
            objections.push(format!("{name} has addresses, which it would lose: {}", own.join(", ")));
        }
        if facts.configured.contains(name) {
            objections.push(format!("{name} is an interface of the appliance's configuration"));
        }
        if facts.parts.contains(&link.index) {
            objections.push(format!("{name} is part of a bridge or bond"));
        }
        if let Attached::Program { program, .. } = link.xdp {
            objections.push(format!("{name} has an XDP program, number {program}, of somebody else"));
        }
        // Each end of a virtual cable names the other.
        let stands_on = |other: &Link| other.parent == Some(link.index) && link.parent != Some(other.index);
        if facts.links.iter().any(stands_on) {
            objections.push(format!("other interfaces stand on {name}"));
        }
    }
    Ok(objections)
}

/// Addresses that an interface gives itself.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            address: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            kind: None,
            xdp: Attached::Nothing,
            layer3: false,
            parent: None,
            vlan: None,
        }
    }

    fn facts() -> Facts {
        Facts { links: vec![link(2, "eth1"), link(3, "eth2")], ..Facts::default() }
    }

    fn between(one: &str, other: &str) -> [String; 2] {
        [one.to_owned(), other.to_owned()]
    }

    #[test]
    fn an_interface_that_is_used_for_something_is_not_taken_unasked() {
        let address =
            |interface, ip: &str| InterfaceAddress { interface, ip: ip.parse().unwrap(), prefix: 24 };
        for (what, facts, expected) in [
            ("nothing is on them", facts(), None),
            (
                "an address of its own making",
                Facts { addresses: vec![address(2, "fe80::1")], ..facts() },
                None,
            ),
            (
                "two ends of a virtual cable",
                Facts {
                    links: vec![
                        Link { parent: Some(3), ..link(2, "eth1") },
                        Link { parent: Some(2), ..link(3, "eth2") },
                    ],
                    ..facts()
                },
                None,
            ),
            ("another's address", Facts { addresses: vec![address(9, "192.0.2.1")], ..facts() }, None),
            (
                "an address",
                Facts { addresses: vec![address(3, "192.0.2.1"), address(3, "2001:db8::1")], ..facts() },
                Some("eth2 has addresses, which it would lose: 192.0.2.1, 2001:db8::1"),
            ),
            (
                "the default route",
                Facts { default_routes: vec![2], ..facts() },
                Some("eth1 has a default route: this host would be cut off"),
            ),
            (
                "a port of a bridge",
                Facts { parts: vec![3], ..facts() },
                Some("eth2 is part of a bridge or bond"),
            ),
            (
                "configured",
                Facts { configured: vec!["eth2".to_owned()], ..facts() },
                Some("eth2 is an interface of the appliance's configuration"),
            ),
            (
                "another program",
                Facts {
                    links: vec![
                        Link { xdp: Attached::Program { program: 7, native: true }, ..link(2, "eth1") },
                        link(3, "eth2"),
                    ],
                    ..facts()
                },
                Some("eth1 has an XDP program, number 7, of somebody else"),
            ),
            (
                "a VLAN",
                Facts {
                    links: vec![
                        link(2, "eth1"),
                        link(3, "eth2"),
                        Link { parent: Some(3), ..link(4, "eth2.100") },
                    ],
                    ..facts()
                },
                Some("other interfaces stand on eth2"),
            ),
        ] {
            let told = objections(&facts, &between("eth1", "eth2")).unwrap();
            assert_eq!(told.first().map(String::as_str), expected, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_taken_is_refused_in_any_case() {
        let twice = objections(&facts(), &between("eth1", "eth1")).unwrap_err();
        assert!(twice.starts_with("eth1 is named twice"), "{twice}");
        let unknown = objections(&facts(), &between("eth1", "eth7")).unwrap_err();
        assert!(unknown.starts_with("there is no interface eth7"), "{unknown}");
        let tunnel = Facts { links: vec![Link { address: None, ..link(2, "eth1") }], ..facts() };
        assert_eq!(objections(&tunnel, &between("eth1", "eth2")).unwrap_err(), "eth1 is no Ethernet device");
    }
}
