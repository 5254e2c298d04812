//! Phones that are registered with two servers at once, by themselves or by the appliance.

use std::time::Duration;

use super::harness::*;
use crate::{
    config::DualRegistration,
    proxy::{Measure, SecondRegistration, Settings, Upstream},
    sip::wire::{HeaderName, Method},
};

const SECOND: &str = "198.51.100.10:5060";

fn world(dual: DualRegistration) -> World {
    let servers = [SERVER, SECOND].map(|server| server.to_owned().try_into().unwrap());
    let mut world = World::with(Settings {
        upstream: Upstream { dual, ..Upstream::new(SERVERS, servers.into()) },
        ..settings()
    });
    world.set_entry(&[]);
    world
}

/// A REGISTER of 200 that names a server by a Route.
fn register(server: &str, call_id: &str, cseq: u32, expires: u32) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{call_id}{cseq}\nRoute: <sip:192.0.2.1:8060;lr>, <sip:{server};lr>\n\
         From: <sip:200@example.com>;tag=r\nTo: <sip:200@example.com>\nCall-ID: {call_id}\nCSeq: {cseq} REGISTER\n\
         Contact: <sip:200@192.0.2.11:5060>\nExpires: {expires}\n\n"
    )
}

fn header(sent: &Sent, name: HeaderName) -> String {
    let message = sent.message();
    let value = message.header(name).map(|header| header.value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// The server grants what it was asked for.
fn grant(world: &mut World, sent: &Sent, expires: u32) -> Vec<Sent> {
    let contact = header(sent, HeaderName::Contact);
    let headers =
        if expires == 0 { String::new() } else { format!("Contact: {contact};expires={expires}\n") };
    let ok = answer(sent, 200, "OK", "t", &headers, "").replace('\n', "\r\n");
    let at = sent.to.clone();
    world.receive(SERVERS, &at, ok.as_bytes())
}

/// A server calls a phone at a contact; how often the phone is called.
fn called(world: &mut World, server: &str, contact: &str, branch: &str) -> usize {
    let uri = contact.trim_start_matches('<').split('>').next().unwrap();
    let invite =
        from_server("INVITE", uri, branch, 1, "", "", "").replace("c1", branch).replace('\n', "\r\n");
    let sent = world.receive(SERVERS, server, invite.as_bytes());
    sent.iter().filter(|sent| sent.network == PHONES && sent.first_line().starts_with("INVITE")).count()
}

#[test]
fn a_phone_that_registers_with_two_servers_is_kept_by_both_and_called_once_by_each() {
    let mut world = world(DualRegistration::Phone);
    let first = world.phone(&register("198.51.100.9", "one", 1, 3600));
    let second = world.phone(&register("198.51.100.10:5060", "two", 1, 3600));
    assert_eq!((first[0].to.as_str(), second[0].to.as_str()), (SERVER, SECOND));
    let contacts = [&first[0], &second[0]].map(|sent| header(sent, HeaderName::Contact));
    for sent in [&first[0], &second[0]] {
        assert_eq!(grant(&mut world, sent, 3600)[0].first_line(), "SIP/2.0 200 OK");
    }
    assert_eq!(called(&mut world, SERVER, &contacts[0], "x1"), 1);
    assert_eq!(called(&mut world, SECOND, &contacts[1], "x2"), 1);
    // It leaves one of them: the other still calls it.
    let sent = world.phone(&register("198.51.100.9", "one", 2, 0));
    grant(&mut world, &sent[0], 0);
    assert_eq!(world.proxy.binding_count(), 1);
    assert_eq!(called(&mut world, SECOND, &contacts[1], "x3"), 1);
    let sent = world.phone(&register("198.51.100.10", "two", 2, 0));
    grant(&mut world, &sent[0], 0);
    assert_eq!(world.proxy.binding_count(), 0);
}

#[test]
fn a_register_for_one_server_goes_to_no_other_and_a_call_that_names_one_begins_there() {
    let mut world = world(DualRegistration::Phone);
    let sent = world.phone(&register("198.51.100.9", "one", 1, 3600));
    let refused = answer(&sent[0], 503, "Gone", "t", "", "").replace('\n', "\r\n");
    let sent = world.receive(SERVERS, SERVER, refused.as_bytes());
    assert_eq!((sent[0].network, sent[0].first_line().as_str()), (PHONES, "SIP/2.0 503 Gone"));
    let invite =
        from_phone("INVITE", "sip:100@198.51.100.10", "i", 1, "", "Contact: <sip:200@192.0.2.11>\n", "");
    let sent = world.phone(&invite);
    assert_eq!(sent.last().unwrap().to, SECOND);
    let sent = world.phone(&register("203.0.113.1", "three", 1, 3600));
    assert_ne!(sent[0].to, "203.0.113.1:5060", "who names a stranger gets a server");
}

#[test]
fn the_appliance_registers_a_phone_with_a_second_server_and_answers_for_it() {
    let mut world = world(DualRegistration::Appliance);
    let first = world.phone(&register("198.51.100.9", "one", 1, 3600));
    assert_eq!((first.len(), first[0].to.as_str()), (1, SERVER));
    let sent = grant(&mut world, &first[0], 3600);
    let [ok, second] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((ok.network, ok.first_line().as_str()), (PHONES, "SIP/2.0 200 OK"));
    assert_eq!(
        (second.to.as_str(), second.first_line().as_str()),
        (SECOND, "REGISTER sip:198.51.100.10 SIP/2.0")
    );
    assert_eq!(
        header(second, HeaderName::Contact),
        header(&first[0], HeaderName::Contact),
        "the same contact"
    );
    assert_eq!(header(second, HeaderName::Expires), "3600");
    assert_ne!(second.message().call_id(), b"one");

    let challenge = "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"abc\", qop=\"auth\"\n";
    let refused = answer(second, 401, "Unauthorized", "t", challenge, "").replace('\n', "\r\n");
    let again = world.receive(SERVERS, SECOND, refused.as_bytes()).remove(0);
    assert_eq!((again.to.as_str(), again.message().cseq()), (SECOND, second.message().cseq() + 1));
    assert!(
        header(&again, HeaderName::Authorization)
            .starts_with("Digest username=\"station200\", realm=\"example.com\"")
    );
    assert_eq!(again.message().call_id(), second.message().call_id());
    assert_eq!(grant(&mut world, &again, 600).len(), 0, "the phone hears nothing of it");
    assert_eq!(world.proxy.second_registrations(), 1);
    assert_eq!(world.count(Measure::SecondRegistration(SecondRegistration::Registered)), 1);
    assert_eq!(called(&mut world, SECOND, &header(&again, HeaderName::Contact), "x1"), 1);

    // It is refreshed at half of what the second server granted.
    let sent = world.wait(Duration::from_secs(300));
    let registers: Vec<&Sent> =
        sent.iter().filter(|sent| sent.message().method() == &Method::Register).collect();
    assert_eq!((registers.len(), registers[0].to.as_str()), (1, SECOND));
    assert_eq!(header(registers[0], HeaderName::Expires), "3300", "no longer than the phone's own");
    let refresh = registers[0].clone();
    grant(&mut world, &refresh, 3300);

    // It ends with the phone's own.
    let sent = world.phone(&register("198.51.100.9", "one", 2, 0));
    let sent = grant(&mut world, &sent[0], 0);
    let end = sent.iter().find(|sent| sent.network == SERVERS).expect("it is ended");
    assert_eq!((end.to.as_str(), header(end, HeaderName::Expires).as_str()), (SECOND, "0"));
    let end = end.clone();
    grant(&mut world, &end, 0);
    assert_eq!((world.proxy.binding_count(), world.proxy.second_registrations()), (0, 0));
}

#[test]
fn when_a_phone_comes_to_its_second_server_the_first_becomes_the_second() {
    let mut world = world(DualRegistration::Appliance);
    let first = world.phone(&register("198.51.100.9", "one", 1, 3600));
    let sent = grant(&mut world, &first[0], 3600);
    grant(&mut world, &sent[1], 3600);
    let refresh = world.phone(&register("198.51.100.9", "one", 2, 3600));
    let refused = answer(&refresh[0], 503, "Gone", "t", "", "");
    let moved = world.server(&refused).remove(0);
    assert_eq!(moved.to, SECOND);
    let sent = grant(&mut world, &moved, 3600);
    let other = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    assert_eq!(other.to, SERVER);
    let contact = header(&moved, HeaderName::Contact);
    assert_eq!(called(&mut world, SECOND, &contact, "x1"), 1);
}

#[test]
fn a_second_server_that_refuses_is_asked_again_later_and_the_phone_stays_registered() {
    let mut world = world(DualRegistration::Appliance);
    let first = world.phone(&register("198.51.100.9", "one", 1, 3600));
    let sent = grant(&mut world, &first[0], 3600);
    let refused = answer(&sent[1], 403, "Forbidden", "t", "", "").replace('\n', "\r\n");
    assert!(world.receive(SERVERS, SECOND, refused.as_bytes()).is_empty());
    assert_eq!(world.count(Measure::SecondRegistration(SecondRegistration::Refused)), 1);
    assert_eq!((world.proxy.binding_count(), world.proxy.second_registrations()), (1, 0));
    let sent = world.wait(Duration::from_secs(61));
    assert!(
        sent.iter().any(|sent| sent.to == SECOND && sent.first_line().starts_with("REGISTER")),
        "{sent:?}"
    );
}
