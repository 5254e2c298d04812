//! Softphones by WebSocket, and old phones by old TLS: both are reached down their own connections only.

use super::{harness::*, transports::hop};
use crate::{
    net::Transport,
    proxy::Settings,
    sip::{Hop, transport::Step, wire::HeaderName},
};

const SOFTPHONE: &str = "192.0.2.11:50123";

fn world() -> World {
    let mut settings: Settings = settings();
    let ports = &mut settings.networks[0].ports;
    (ports.ws, ports.wss, ports.legacy_tls) = (Some(8080), Some(8443), Some(8062));
    World::with(settings)
}

/// As JsSIP registers: hosts that nobody can resolve, and `ws` for both kinds of WebSocket.
fn register(via: &str) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/{via} df7jal23ls0d.invalid;branch=z9hG4bKw1\n\
         From: <sip:200@example.com>;tag=r\nTo: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\n\
         Max-Forwards: 70\nContact: <sip:kdzz@df7jal23ls0d.invalid;transport=ws>;expires=600\nContent-Length: 0\n\n"
    )
}

/// Registers by a connection; the Contact that the server has.
fn registered(world: &mut World, phone: Hop, text: &str) -> String {
    world.proxy.receive(world.now, &mut world.media, phone, &text.replace('\n', "\r\n").into());
    let sent = world.drain().remove(0);
    let contact =
        String::from_utf8(sent.message().header(HeaderName::Contact).unwrap().value.to_vec()).unwrap();
    let ok = answer(&sent, 200, "OK", "rt", &format!("Contact: {contact}\n"), "");
    let sent = world.by(hop(SERVERS, Transport::Udp, SERVER), &ok);
    assert_eq!(sent[0].0, phone);
    contact.split(['<', '>']).nth(1).unwrap().to_owned()
}

#[test]
fn a_softphone_registers_calls_and_is_called_down_its_websocket() {
    for (transport, via, port) in [(Transport::Ws, "WS", 8080), (Transport::Wss, "WSS", 8443)] {
        let mut world = world();
        let phone = hop(PHONES, transport, SOFTPHONE);
        let uri = registered(&mut world, phone, &register(via));
        assert!(uri.starts_with("sip:kdzz@198.51.100.1:8060;bl="), "{uri}");
        // It is called.
        let call = from_server(
            "INVITE",
            &uri,
            "j1",
            1,
            "",
            "Contact: <sip:100@198.51.100.20:5070>\n",
            &sdp("198.51.100.20", 6000, ""),
        );
        let sent = world.by(hop(SERVERS, Transport::Udp, SERVER), &call);
        let invite = sent.iter().find(|(to, _)| to.network == PHONES).unwrap();
        assert_eq!(invite.0, phone);
        for line in [
            "INVITE sip:kdzz@df7jal23ls0d.invalid;transport=ws SIP/2.0".to_owned(),
            format!("Via: SIP/2.0/{via} 192.0.2.1:{port};branch=z9hG4bKOURS;rport"),
            format!("Record-Route: <sip:192.0.2.1:{port};transport=ws;lr>"),
            format!("Contact: <sip:100@192.0.2.1:{port};transport=ws>"),
        ] {
            assert!(format!("\n{}", invite.1).contains(&format!("\n{line}\n")), "{line}\n{}", invite.1);
        }
        // It calls: what leads back to the appliance is known as its own.
        let text = from_phone(
            "MESSAGE",
            "sip:100@example.com",
            "m1",
            1,
            "",
            &format!("Route: <sip:192.0.2.1:{port};transport=ws;lr>\n"),
            "",
        );
        let text =
            text.replace("SIP/2.0/UDP 192.0.2.11:5060", &format!("SIP/2.0/{via} df7jal23ls0d.invalid"));
        let sent = world.by(phone, &text);
        assert_eq!(sent[0].0, hop(SERVERS, Transport::Udp, SERVER));
        assert!(!sent[0].1.contains("Route:"), "{}", sent[0].1);
        assert!(
            sent[0].1.contains(&format!(
                "\nVia: SIP/2.0/{via} df7jal23ls0d.invalid;branch=z9hG4bKm1;rport=50123;received=192.0.2.11\n"
            )) || sent[0].1.contains(&format!(
                "\nVia: SIP/2.0/{via} df7jal23ls0d.invalid;branch=z9hG4bKm1;received=192.0.2.11;rport=50123\n"
            )),
            "{}",
            sent[0].1
        );
    }
}

#[test]
fn one_whose_connection_has_ended_is_not_looked_for_elsewhere() {
    for (transport, text) in [
        (Transport::Ws, register("WS")),
        (
            Transport::LegacyTls,
            register("TLS").replace("df7jal23ls0d.invalid;transport=ws", "192.0.2.11:5061;transport=tls"),
        ),
    ] {
        let mut world = world();
        let phone = hop(PHONES, transport, SOFTPHONE);
        let uri = registered(&mut world, phone, &text);
        world.proxy.disconnected(world.now, &mut world.media, phone);
        world.hops();
        let server = hop(SERVERS, Transport::Udp, SERVER);
        let sent = world.by(server, &from_server("OPTIONS", &uri, "o1", 1, "", "", ""));
        assert_eq!(sent[0].0, phone);
        // What the connections say to that.
        world.proxy.unreachable(world.now, &mut world.media, phone, Step::Route, "it has ended".into());
        let sent = world.hops();
        assert_eq!(sent[0].0, server);
        assert!(sent[0].1.starts_with("SIP/2.0 503 "), "{}", sent[0].1);
    }
}

#[test]
fn an_old_phone_is_told_the_port_where_it_is_understood() {
    let mut world = world();
    let phone = hop(PHONES, Transport::LegacyTls, SOFTPHONE);
    let text = register("TLS").replace("df7jal23ls0d.invalid;transport=ws", "192.0.2.11:5061;transport=tls");
    let uri = registered(&mut world, phone, &text);
    let server = hop(SERVERS, Transport::Udp, SERVER);
    let sent = world.by(server, &from_server("OPTIONS", &uri, "o1", 1, "", "", ""));
    assert_eq!(sent[0].0, phone);
    assert!(
        sent[0].1.contains("\nVia: SIP/2.0/TLS 192.0.2.1:8062;branch=z9hG4bKOURS;rport\n"),
        "{}",
        sent[0].1
    );
}
