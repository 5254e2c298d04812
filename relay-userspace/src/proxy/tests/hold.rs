//! Holds that are turned into the other party's way.

use super::harness::*;
use crate::{
    config::{Conversions, HoldStyle},
    net::NetworkId,
    proxy::Peers,
};

fn world(network: NetworkId, hold: HoldStyle) -> World {
    let mut settings = settings();
    let own = Conversions { hold, ..Conversions::default() };
    settings.peers = Peers::of_networks([(network, own)], &[]);
    World::with(settings)
}

fn offer(world: &mut World, more: &str) -> Sent {
    establish(world);
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let body = sdp("192.0.2.11", 4000, more);
    let body = if more.is_empty() { body.replace("c=IN IP4 192.0.2.11", "c=IN IP4 0.0.0.0") } else { body };
    let sent =
        world.phone(&from_phone("INVITE", "sip:100@192.0.2.1:8060;x=1", "h1", 2, ";tag=s", contact, &body));
    sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone()
}

#[test]
fn an_address_of_zeros_reaches_a_modern_server_as_a_direction_and_the_phone_gets_an_answer_that_fits() {
    let mut world = world(SERVERS, HoldStyle::Direction);
    let held = offer(&mut world, "");
    let text = held.text();
    assert!(text.contains("c=IN IP4 198.51.100.1\n") && text.contains("\na=sendonly\n"), "{text}");
    let body = sdp("198.51.100.20", 6000, "a=sendrecv\n");
    let sent = world.server(&answer(&held, 200, "OK", "s", "Contact: <sip:100@198.51.100.20:5070>\n", &body));
    let text = sent[0].text();
    assert!(text.contains("a=recvonly\n") && !text.contains("sendrecv"), "{text}");
}

#[test]
fn a_direction_reaches_an_old_server_as_zeros_and_as_it_was_where_nothing_is_converted() {
    let mut old = world(SERVERS, HoldStyle::ZeroAddress);
    let held = offer(&mut old, "a=sendonly\n");
    let text = held.text();
    assert!(text.contains("c=IN IP4 0.0.0.0\n") && text.contains("\na=sendonly\n"), "{text}");
    // An old party answers as if nothing had happened.
    let body = sdp("198.51.100.20", 6000, "");
    let sent = old.server(&answer(&held, 200, "OK", "s", "Contact: <sip:100@198.51.100.20:5070>\n", &body));
    assert!(sent[0].text().contains("a=recvonly\n"), "{}", sent[0].text());
    let text = offer(&mut World::new(), "a=sendonly\n").text();
    assert!(!text.contains("0.0.0.0") && text.contains("\na=sendonly\n"), "{text}");
}

#[test]
fn a_server_holds_an_old_phone_by_zeros() {
    let mut world = world(PHONES, HoldStyle::ZeroAddress);
    establish(&mut world);
    let body = sdp("198.51.100.20", 6000, "a=inactive\n");
    let contact = "Contact: <sip:100@198.51.100.20:5070>\n";
    let sent =
        world.server(&from_server("INVITE", "sip:200@198.51.100.1:8060", "k1", 2, ";tag=p", contact, &body));
    let invite = sent.iter().find(|sent| sent.network == PHONES).unwrap().clone();
    assert!(invite.text().contains("c=IN IP4 0.0.0.0\n"), "{}", invite.text());
    let ok =
        answer(&invite, 200, "OK", "p", "Contact: <sip:200@192.0.2.11:5060>\n", &sdp("192.0.2.11", 4000, ""));
    let sent = world.phone(&ok);
    assert!(sent[0].text().contains("a=inactive\n"), "{}", sent[0].text());
}
