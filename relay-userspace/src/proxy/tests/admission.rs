//! Networks that take so many calls, or so much media, and no more.

use std::collections::HashMap;

use super::harness::*;
use crate::proxy::{Capacity, DropReason, EmergencyCalls, Load, Measure, Settings};

fn world(capacity: Capacity) -> World {
    let mut settings = Settings { capacities: HashMap::from([(SERVERS, capacity)]), ..settings() };
    settings.routing.emergency = EmergencyCalls { numbers: vec!["112".into()], dial: "112".into() };
    World::with(settings)
}

fn invite(number: &str, call: &str, payload_types: &str) -> String {
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let body = sdp("192.0.2.11", 4000, "").replace("RTP/AVP 0 101", &format!("RTP/AVP {payload_types}"));
    from_phone("INVITE", &format!("sip:{number}@example.com"), call, 1, "", contact, &body)
        .replace("Call-ID: c1", &format!("Call-ID: {call}"))
}

fn at_server(sent: &[Sent]) -> Option<Sent> {
    sent.iter().find(|sent| sent.network == SERVERS).cloned()
}

#[test]
fn a_full_network_refuses_the_next_call_with_its_name_and_takes_one_again_when_one_has_ended() {
    let mut world = world(Capacity { calls: Some(1), kbps: None });
    let first = at_server(&world.phone(&invite("100", "k1", "0"))).unwrap();
    let refused = world.phone(&invite("100", "k2", "0"));
    let refused = refused.last().unwrap();
    assert_eq!(refused.first_line(), "SIP/2.0 503 Network Full");
    let warning = "Warning: 399 192.0.2.1:8060 \"network centre has 1 of 1 calls with 80 kbit/s, and no room for 80 more\"\n";
    assert!(refused.text().contains(warning), "{}", refused.text());
    assert_eq!(world.count(Measure::Dropped(DropReason::NetworkFull)), 1);
    assert!(at_server(&world.phone(&invite("112", "k3", "0"))).is_some(), "an emergency is never refused");

    world.server(&answer(&first, 486, "Busy Here", "s", "", ""));
    assert_eq!(world.proxy.load(SERVERS), Load { calls: 1, kbps: 80 }, "the emergency call");
    let sent = world.wait(2 * MINUTE);
    assert!(sent.iter().any(|sent| sent.first_line().starts_with("SIP/2.0 408")), "nobody answered it");
    assert_eq!(world.proxy.load(SERVERS), Load::default());
    assert!(at_server(&world.phone(&invite("100", "k4", "0"))).is_some());
}

#[test]
fn a_line_has_room_for_what_is_offered_and_what_was_agreed_on_counts() {
    let mut world = world(Capacity { calls: None, kbps: Some(180) });
    let first = at_server(&world.phone(&invite("100", "k1", "18 0"))).unwrap();
    assert_eq!(world.proxy.load(SERVERS).kbps, 80, "it may come to G.711");
    let g729 = sdp("198.51.100.20", 6000, "").replace("RTP/AVP 0 101", "RTP/AVP 18 101");
    world.server(&answer(&first, 200, "OK", "s", "Contact: <sip:100@198.51.100.20:5070>\n", &g729));
    assert_eq!(world.proxy.load(SERVERS).kbps, 24);
    assert!(at_server(&world.phone(&invite("100", "k2", "0"))).is_some());
    let sent = world.phone(&invite("100", "k3", "0"));
    assert_eq!(sent.last().unwrap().first_line(), "SIP/2.0 503 Network Full");
    assert!(at_server(&world.phone(&invite("100", "k4", "18"))).is_some(), "24 more fit");
}
