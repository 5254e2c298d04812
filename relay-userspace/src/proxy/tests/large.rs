//! Requests that are too large for UDP.

use std::time::Duration;

use super::{harness::*, transports::hop};
use crate::{
    net::{NetworkId, Transport},
    proxy::{Measure, Settings},
    sip::{Hop, transport::Step},
};

fn server(transport: Transport) -> Hop {
    hop(SERVERS, transport, SERVER)
}

/// A message of the phone with so many bytes of text, each with a number of its own.
fn message(number: u32, bytes: usize) -> String {
    let request = from_phone(
        "MESSAGE",
        "sip:100@example.com",
        &format!("m{number}"),
        number,
        "",
        "Content-Type: text/plain\n",
        &"x".repeat(bytes),
    );
    request.replace("Call-ID: c1", &format!("Call-ID: m{number}"))
}

fn phone(world: &mut World, text: &str) -> Vec<(Hop, String)> {
    world.by(hop(PHONES, Transport::Udp, PHONE), text)
}

#[test]
fn what_is_above_the_limit_goes_by_tcp_and_says_so_in_what_it_tells_of_the_way() {
    let mut world = World::new();
    let sent = phone(&mut world, &message(1, 400));
    assert_eq!(sent[0].0, server(Transport::Udp), "a small one");
    let sent = phone(&mut world, &message(2, 1300));
    assert_eq!((sent.len(), sent[0].0), (1, server(Transport::Tcp)));
    assert!(
        sent[0].1.contains("\nVia: SIP/2.0/TCP 198.51.100.1:8060;branch=z9hG4bKOURS;rport;alias\n"),
        "{}",
        sent[0].1
    );
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, &"a=x-long:yes\n".repeat(100)),
    );
    let sent = phone(&mut world, &invite);
    let invite = &sent.iter().find(|(to, _)| to.network == SERVERS).unwrap();
    assert_eq!(invite.0, server(Transport::Tcp));
    for line in [
        "Record-Route: <sip:198.51.100.1:8060;transport=tcp;lr>",
        "Record-Route: <sip:192.0.2.1:8060;lr>",
        "Contact: <sip:200@198.51.100.1:8060;transport=tcp>",
    ] {
        assert!(invite.1.contains(&format!("\n{line}\n")), "{line}\n{}", invite.1);
    }
    assert_eq!(world.count(Measure::Large(Transport::Tcp)), 2);
}

#[test]
fn a_registration_keeps_its_contact_whatever_the_way_of_its_refresh() {
    let mut world = World::new();
    let mut contacts = Vec::new();
    for (number, bytes, way) in [(1, 10, Transport::Udp), (2, 1300, Transport::Tcp)] {
        let more = format!("Contact: <sip:200@192.0.2.11:5060>\nX-Long: {}\n", "x".repeat(bytes));
        let branch = format!("r{number}");
        let register = from_phone("REGISTER", "sip:example.com", &branch, number, "", &more, "");
        let sent = phone(&mut world, &register);
        assert_eq!(sent[0].0, server(way));
        let contact = sent[0].1.lines().find(|line| line.starts_with("Contact:")).unwrap().to_owned();
        contacts.push(contact);
    }
    assert_eq!(contacts[0], "Contact: <sip:200@198.51.100.1:8060;bl=TOKEN>");
    assert_eq!(contacts[0], contacts[1]);
}

#[test]
fn the_next_request_of_a_dialog_is_weighed_anew() {
    let mut world = World::new();
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, &"a=x-long:yes\n".repeat(100)),
    );
    let invite = world.phone(&invite).into_iter().find(|sent| sent.network == SERVERS).unwrap();
    let contact = "Contact: <sip:100@198.51.100.20:5070>\n";
    let ok = answer(&invite, 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, ""));
    let sent = world.by(server(Transport::Tcp), &ok);
    assert_eq!(sent[0].0, hop(PHONES, Transport::Udp, PHONE));
    let gateway = |transport| hop(SERVERS, transport, "198.51.100.20:5070");
    let sent = phone(&mut world, &from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    assert_eq!(sent[0].0, gateway(Transport::Udp));
    let info = |number: u32, bytes| {
        let branch = format!("n{number}");
        from_phone(
            "INFO",
            "sip:100@192.0.2.1:8060",
            &branch,
            number,
            ";tag=s",
            "Content-Type: text/plain\n",
            &"x".repeat(bytes),
        )
    };
    for (number, bytes, way) in [(2, 10, Transport::Udp), (3, 1300, Transport::Tcp), (4, 10, Transport::Udp)]
    {
        let sent = phone(&mut world, &info(number, bytes));
        assert_eq!(sent[0].0, gateway(way), "{number}");
    }
}

#[test]
fn a_server_without_tcp_gets_it_by_udp_and_is_not_asked_again_for_ten_minutes() {
    let mut world = World::new();
    let sent = phone(&mut world, &message(1, 1300));
    assert_eq!(sent[0].0, server(Transport::Tcp));
    let refused = "connection refused".to_owned();
    world.proxy.unreachable(world.now, &mut world.media, server(Transport::Tcp), Step::Tcp, refused);
    let again = world.hops();
    assert_eq!((again.len(), again[0].0), (1, server(Transport::Udp)));
    assert_eq!(
        again[0].1,
        sent[0].1.replace("SIP/2.0/TCP", "SIP/2.0/UDP").replace(";alias", ""),
        "the same, but for the way"
    );
    assert!(world.news.is_empty(), "the server is well: {:?}", world.news);
    let second = phone(&mut world, &message(2, 1300));
    assert_eq!(second[0].0, server(Transport::Udp));
    world.wait(Duration::from_secs(601));
    let third = phone(&mut world, &message(3, 1300));
    assert_eq!(third[0].0, server(Transport::Tcp));
    assert_eq!(
        (world.count(Measure::Large(Transport::Tcp)), world.count(Measure::Large(Transport::Udp))),
        (2, 1)
    );
}

#[test]
fn the_answer_to_what_went_by_udp_after_all_reaches_the_phone() {
    let mut world = World::new();
    phone(&mut world, &message(1, 1300));
    world.proxy.disconnected(world.now, &mut world.media, server(Transport::Tcp));
    let again = world.drain().remove(0);
    let sent = world.by(server(Transport::Udp), &answer(&again, 200, "OK", "x", "", ""));
    assert!(sent[0].1.starts_with("SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.11:5060;"), "{}", sent[0].1);
    world.wait(MINUTE);
    world.assert_empty();
}

#[test]
fn an_ack_that_is_large_goes_by_tcp_only_where_tcp_is_known_to_work() {
    for (known, way) in [(false, Transport::Udp), (true, Transport::Tcp)] {
        let mut world = World::new();
        let at = "Contact: <sip:100@198.51.100.9:5060>\n";
        if known {
            let sent = world.phone(&message(1, 1300)).remove(0);
            world.by(server(Transport::Tcp), &answer(&sent, 200, "OK", "x", "", ""));
        }
        let invite = from_phone(
            "INVITE",
            "sip:100@example.com",
            "i1",
            1,
            "",
            "Contact: <sip:200@192.0.2.11:5060>\n",
            "",
        );
        let invite = world.phone(&invite).into_iter().find(|sent| sent.network == SERVERS).unwrap();
        world.server(&answer(&invite, 200, "OK", "s", at, &sdp("198.51.100.20", 6000, "")));
        let long = sdp("192.0.2.11", 4000, &"a=x-long:yes\n".repeat(100));
        let ack = from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", &long);
        let sent = phone(&mut world, &ack);
        assert_eq!(sent[0].0, server(way), "known: {known}");
    }
}

#[test]
fn the_limit_is_the_configured_one_or_what_the_mtu_leaves_and_holds_for_servers_alone() {
    type Change = fn(&mut Settings);
    let with = |change: Change| {
        let mut settings = settings();
        change(&mut settings);
        World::with(settings)
    };
    let rows: [(&str, Change, usize, Transport); 6] = [
        ("as the RFC says", |_| {}, 900, Transport::Udp),
        ("never", |settings| settings.tcp_above = None, 4000, Transport::Udp),
        ("a lower limit", |settings| settings.tcp_above = Some(500), 300, Transport::Tcp),
        ("a tunnel", |settings| settings.networks[1].mtu = Some(1420), 900, Transport::Tcp),
        ("a usual network", |settings| settings.networks[1].mtu = Some(1500), 900, Transport::Udp),
        ("no TCP port of our own", |settings| settings.networks[1].ports.tcp = None, 4000, Transport::Udp),
    ];
    for (description, change, bytes, way) in rows {
        let mut world = with(change);
        let sent = phone(&mut world, &message(1, bytes));
        assert_eq!(sent[0].0, server(way), "{description}: {}", sent[0].1.len());
    }
    // Toward a phone.
    let mut world = World::new();
    let uri = world.register();
    let text = "x".repeat(2000);
    let request = from_server("MESSAGE", &uri, "m1", 1, "", "Content-Type: text/plain\n", &text);
    let sent = world.by(server(Transport::Udp), &request);
    let network: NetworkId = sent[0].0.network;
    assert_eq!((network, sent[0].0.transport), (PHONES, Transport::Udp));
}
