//! Connections with servers in both directions (RFC 5923).

use super::{harness::*, transports::hop};
use crate::{
    net::Transport,
    proxy::{Settings, Upstream},
    upstream::Resolution,
};

fn world() -> World {
    let servers = ["sip:198.51.100.9:5061;transport=tls", "sips:sip.example.com:5061"];
    let servers = servers.map(|server| server.to_owned().try_into().unwrap()).to_vec();
    World::with(Settings { upstream: Upstream::new(SERVERS, servers), ..settings() })
}

fn options(via: &str) -> String {
    from_server("OPTIONS", "sip:198.51.100.1:8061", "o1", 1, "", "", "")
        .replace("SIP/2.0/UDP 198.51.100.9:5060", via)
}

#[test]
fn a_servers_own_connection_is_used_for_the_address_that_it_names_if_that_is_its_own() {
    let from = "198.51.100.9:41000";
    let rows = [
        (
            "its address and port",
            Transport::Tls,
            "SIP/2.0/TLS 198.51.100.9:5061;alias",
            Some("198.51.100.9:5061"),
        ),
        ("the default port", Transport::Tls, "SIP/2.0/TLS 198.51.100.9;alias", Some("198.51.100.9:5061")),
        (
            "its configured name",
            Transport::Tls,
            "SIP/2.0/TLS SIP.example.com:5061;alias",
            Some("198.51.100.9:5061"),
        ),
        ("by TCP", Transport::Tcp, "SIP/2.0/TCP 198.51.100.9;alias", Some("198.51.100.9:5060")),
        ("it does not say so", Transport::Tls, "SIP/2.0/TLS 198.51.100.9:5061", None),
        ("another's address", Transport::Tls, "SIP/2.0/TLS 198.51.100.10:5061;alias", None),
        ("another's name", Transport::Tls, "SIP/2.0/TLS other.example.com:5061;alias", None),
        ("a name at another port", Transport::Tls, "SIP/2.0/TLS sip.example.com:5071;alias", None),
        ("a datagram", Transport::Udp, "SIP/2.0/UDP 198.51.100.9:5061;alias", None),
        (
            "the address of the connection itself",
            Transport::Tcp,
            "SIP/2.0/TCP 198.51.100.9:41000;alias",
            None,
        ),
    ];
    for (description, transport, via, target) in rows {
        let mut world = world();
        let places = vec![(Transport::Tls, "198.51.100.9:5061".parse().unwrap())];
        let named = "sips:sip.example.com:5061".to_owned().try_into().unwrap();
        let found = Resolution { places, ttl: MINUTE };
        world.proxy.resolved(world.now, &mut world.media, &named, &Ok(found));
        let connection = hop(SERVERS, transport, from);
        world.by(connection, &options(via));
        let expected = target.map(|target| (connection, hop(SERVERS, transport, target)));
        assert_eq!(world.reused, expected.into_iter().collect::<Vec<_>>(), "{description}");
    }
}

#[test]
fn phones_and_strangers_have_no_say_in_it() {
    let mut world = world();
    let via = "SIP/2.0/TLS 192.0.2.11:5061;alias";
    world.by(hop(PHONES, Transport::Tls, "192.0.2.11:41000"), &options(via));
    let via = "SIP/2.0/TLS 203.0.113.7:5061;alias";
    world.by(hop(SERVERS, Transport::Tls, "203.0.113.7:41000"), &options(via));
    assert_eq!(world.reused, []);
}
