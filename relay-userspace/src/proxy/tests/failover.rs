//! Several servers: which one is tried, and what happens when it fails.

use std::time::Duration;

use super::harness::*;
use crate::{
    net::NetworkId,
    proxy::{Measure, Settings, Upstream},
    sip::{Hop, transaction::Timers},
};

const SECOND: &str = "198.51.100.10:5060";

/// Two servers; a request is repeated three or four times before the next is tried.
fn world() -> World {
    let servers = [SERVER, SECOND].map(|server| server.to_owned().try_into().unwrap());
    let timers = Timers { invite_retries: 3, other_retries: 4, ..Timers::default() };
    World::with(Settings {
        upstream: Upstream::new(SERVERS, servers.into()),
        timers: timers.into(),
        ..settings()
    })
}

fn register(branch: &str, cseq: u32) -> String {
    format!(
        "REGISTER sip:192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{branch}\nFrom: <sip:200@example.com>;tag=r\n\
         To: <sip:200@example.com>\nCall-ID: reg\nCSeq: {cseq} REGISTER\nContact: <sip:200@192.0.2.11:5060>\nExpires: 3600\n\n"
    )
}

fn invite() -> String {
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &sdp("192.0.2.11", 4000, ""))
}

fn to(sent: &[Sent], network: NetworkId) -> Vec<&Sent> {
    sent.iter().filter(|sent| sent.network == network).collect()
}

#[test]
fn a_register_that_the_first_server_does_not_answer_goes_to_the_second_and_later_ones_begin_there() {
    let mut world = world();
    let sent = world.phone(&register("r1", 1));
    assert_eq!((sent[0].to.as_str(), sent.len()), (SERVER, 1));
    let sent = world.wait(Duration::from_secs(5));
    let requests = to(&sent, SERVERS);
    let tries: Vec<&str> = requests.iter().map(|sent| sent.to.as_str()).collect();
    assert_eq!(
        &tries[..5],
        [SERVER, SERVER, SERVER, SERVER, SECOND],
        "four retransmissions, then the next server"
    );
    let moved = requests[4];
    assert_eq!(moved.first_line(), "REGISTER sip:198.51.100.10 SIP/2.0");
    assert_eq!(world.count(Measure::FailedOver), 1);
    let contact = String::from_utf8(
        moved.message().header(crate::sip::wire::HeaderName::Contact).unwrap().value.to_vec(),
    )
    .unwrap();
    let ok = answer(moved, 200, "OK", "t", &format!("Contact: {contact};expires=60\n"), "");
    let sent = world.receive(SERVERS, SECOND, ok.replace('\n', "\r\n").as_bytes());
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
    assert_eq!(world.proxy.binding_count(), 1);
    let sent = world.phone(&register("r2", 2));
    assert_eq!(sent[0].to, SECOND, "the last one known good is tried first");
}

#[test]
fn a_call_that_the_first_server_refuses_with_503_is_answered_by_the_second_and_seen_once_by_the_phone() {
    let mut world = world();
    let sent = world.phone(&invite());
    let first = to(&sent, SERVERS)[0].clone();
    let refused = answer(&first, 503, "Out Of Service", "x", "", "");
    let sent = world.server(&refused);
    let lines: Vec<String> = sent.iter().map(Sent::first_line).collect();
    assert_eq!(lines, ["ACK sip:100@example.com SIP/2.0", "INVITE sip:100@example.com SIP/2.0"]);
    assert_eq!(sent[1].to, SECOND);
    let ok = answer(
        &sent[1],
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.10:5070>\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.receive(SERVERS, SECOND, ok.replace('\n', "\r\n").as_bytes());
    let sent = to(&sent, PHONES);
    assert_eq!((sent.len(), sent[0].first_line().as_str()), (1, "SIP/2.0 200 OK"));
    assert_eq!(world.proxy.active_calls(), 1);
    assert_eq!(world.count(Measure::CallAttempt), 1, "one attempt, whichever server took it");
    let ack = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    assert_eq!(
        (ack[0].to.as_str(), ack[0].first_line().as_str()),
        ("198.51.100.10:5070", "ACK sip:100@198.51.100.10:5070 SIP/2.0")
    );
    let bye = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s", "", ""));
    assert_eq!(bye[0].to, "198.51.100.10:5070", "the dialog stays where it is");
    let ok = answer(&bye[0], 200, "OK", "s", "", "");
    world.receive(SERVERS, "198.51.100.10:5070", ok.replace('\n', "\r\n").as_bytes());
    world.wait(Duration::from_secs(60));
    world.assert_empty();
}

#[test]
fn when_no_server_takes_a_call_the_phone_gets_the_last_answer() {
    let mut world = world();
    let sent = world.phone(&invite());
    let sent = world.server(&answer(to(&sent, SERVERS)[0], 500, "First", "x", "", ""));
    let second = sent.iter().find(|sent| sent.to == SECOND).unwrap().clone();
    let refused = answer(&second, 580, "Second", "y", "", "");
    let sent = world.receive(SERVERS, SECOND, refused.replace('\n', "\r\n").as_bytes());
    assert_eq!(to(&sent, PHONES)[0].first_line(), "SIP/2.0 580 Second");
    world.wait(Duration::from_secs(60));
    world.assert_empty();
}

#[test]
fn an_answer_that_is_the_callees_own_goes_to_no_other_server() {
    let mut world = world();
    let sent = world.phone(&invite());
    let sent = world.server(&answer(to(&sent, SERVERS)[0], 486, "Busy Here", "x", "", ""));
    assert_eq!(to(&sent, PHONES)[0].first_line(), "SIP/2.0 486 Busy Here");
    assert!(!sent.iter().any(|sent| sent.to == SECOND));
}

#[test]
fn a_call_that_was_cancelled_is_not_tried_again() {
    let mut world = world();
    let sent = world.phone(&invite());
    let first = to(&sent, SERVERS)[0].clone();
    world.server(&answer(&first, 180, "Ringing", "x", "Contact: <sip:100@198.51.100.9>\n", ""));
    world.phone(&from_phone("CANCEL", "sip:100@example.com", "i1", 1, "", "", ""));
    let sent = world.server(&answer(&first, 503, "Gone", "x", "", ""));
    assert!(!sent.iter().any(|sent| sent.to == SECOND), "{sent:?}");
}

#[test]
fn servers_are_asked_how_they_are_and_one_that_comes_back_is_noticed() {
    let mut upstream =
        Upstream::new(SERVERS, [SERVER, SECOND].map(|server| server.to_owned().try_into().unwrap()).into());
    upstream.probe = Some(Duration::from_secs(30));
    let mut world = World::with(Settings { upstream, ..settings() });
    let probes = world.wait(Duration::ZERO);
    assert_eq!(probes.len(), 2);
    let text = probes[0].text();
    assert!(text.starts_with("OPTIONS sip:198.51.100.9 SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\nMax-Forwards: 70\n"), "{text}");
    assert!(text.contains("\nCSeq: 1 OPTIONS\n"), "{text}");
    let ok = answer(&probes[1], 404, "Not Found", "x", "", "");
    world.receive(SERVERS, SECOND, ok.replace('\n', "\r\n").as_bytes());
    world.wait(Duration::from_secs(29));
    let up = |world: &World| -> Vec<bool> {
        world.proxy.servers().iter().map(|server| server.health == crate::upstream::Health::Up).collect()
    };
    assert_eq!(up(&world), [false, true], "any answer shows that a server lives");
    let sent = world.phone(&register("r1", 1));
    assert_eq!(sent[0].to, SECOND, "nothing is tried first at a server that does not answer probes");
    let probes = world.wait(Duration::from_secs(4));
    let again = probes.iter().rfind(|sent| sent.to == SERVER).unwrap();
    world.server(&answer(again, 200, "OK", "x", "", ""));
    assert_eq!(up(&world), [true, true]);
}

#[test]
fn a_server_known_by_name_is_asked_for_by_its_name() {
    let server: crate::config::ServerUri = "sip:example.com".to_owned().try_into().unwrap();
    let mut world =
        World::with(Settings { upstream: Upstream::new(SERVERS, vec![server.clone()]), ..settings() });
    world.wait(Duration::ZERO);
    assert_eq!(world.news, [crate::upstream::Output::Resolve(server.clone())]);
    let refused = world.phone(&register("r1", 1));
    assert_eq!(refused[0].first_line(), "SIP/2.0 503 No Server");
    let found = crate::upstream::Resolution {
        places: [SECOND, SERVER].map(|at| (crate::net::Transport::Udp, at.parse().unwrap())).into(),
        ttl: Duration::from_secs(60),
    };
    world.proxy.resolved(world.now, &mut world.media, &server, &Ok(found));
    let sent = world.phone(&register("r2", 2));
    assert_eq!(
        (sent[0].to.as_str(), sent[0].first_line().as_str()),
        (SECOND, "REGISTER sip:example.com SIP/2.0")
    );
    // A resolved address may send requests.
    let hop = Hop::udp(SERVERS, SERVER.parse().unwrap());
    let sent = world.receive(hop.network, SERVER, b"OPTIONS sip:198.51.100.1:8060 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: z\r\nCSeq: 1 OPTIONS\r\n\r\n");
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
}

#[test]
fn a_server_that_answers_phones_or_calls_them_is_not_asked_how_it_is() {
    let mut upstream = Upstream::new(SERVERS, vec![SERVER.to_owned().try_into().unwrap()]);
    upstream.probe = Some(Duration::from_secs(30));
    let mut world = World::with(Settings { upstream, ..settings() });
    let asked = |sent: &[Sent]| sent.iter().filter(|sent| sent.first_line().starts_with("OPTIONS")).count();
    let probes = world.wait(Duration::ZERO);
    assert_eq!(asked(&probes), 1);
    world.server(&answer(&probes[0], 200, "OK", "x", "", ""));
    assert_eq!(asked(&world.wait(Duration::from_secs(20))), 0);
    let sent = world.phone(&register("r1", 1));
    world.server(&answer(&sent[0], 404, "Not Found", "x", "", ""));
    assert_eq!(asked(&world.wait(Duration::from_secs(25))), 0, "45 s, and it has answered 25 s ago");
    world.server(&from_server("MESSAGE", "sip:200@198.51.100.1:8060", "m1", 1, "", "", ""));
    assert_eq!(asked(&world.wait(Duration::from_secs(29))), 0, "it has sent something 29 s ago");
    let known = world.proxy.servers()[0].known_by;
    assert_eq!(known, Some(crate::upstream::Evidence::Request));
    assert_eq!(asked(&world.wait(Duration::from_secs(1))), 1, "silent for a whole period");
}
