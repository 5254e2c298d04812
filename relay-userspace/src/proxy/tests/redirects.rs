//! Redirections by servers, networks with timers of their own, and programs that look for open servers.

use std::{collections::HashMap, time::Duration};

use super::harness::*;
use crate::{
    config::Redirects,
    proxy::{DropReason, Measure, Settings, Upstream},
    sip::transaction::{NetworkTimers, Timers},
};

/// A server of unified messaging, which sends each call to one of its workers.
fn world(redirects: Redirects) -> World {
    let settings = settings();
    let upstream = Upstream { redirects, ..settings.upstream.clone() };
    World::with(Settings { upstream, trusted: vec!["198.51.100.64/28".parse().unwrap()], ..settings })
}

fn invite() -> String {
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &sdp("192.0.2.11", 4000, ""))
}

fn to<'s>(sent: &'s [Sent], address: &str) -> Vec<&'s Sent> {
    sent.iter().filter(|sent| sent.to == address).collect()
}

#[test]
fn a_redirection_is_followed_to_servers_and_trusted_addresses_by_preference() {
    let mut world = world(Redirects::Follow);
    let sent = world.phone(&invite());
    let contacts = "Contact: <sip:100@203.0.113.5:5060>, <sip:100@198.51.100.66:5065;x=1>;q=0.5, <sip:100@198.51.100.9:5067>;q=0.75\n";
    let redirect = answer(to(&sent, SERVER)[0], 302, "Moved Temporarily", "m", contacts, "");
    let sent = world.server(&redirect);
    assert_eq!(to(&sent, "198.51.100.9:5067")[0].first_line(), "INVITE sip:100@198.51.100.9:5067 SIP/2.0");
    assert!(to(&sent, "203.0.113.5:5060").is_empty(), "a stranger's address");
    assert!(!sent.iter().any(|sent| sent.network == PHONES), "the phone hears nothing of it: {sent:?}");
    // The first worker is silent; the second has the call.
    let sent = world.wait(Duration::from_secs(40));
    let worker = to(&sent, "198.51.100.66:5065")[0].clone();
    assert_eq!(worker.first_line(), "INVITE sip:100@198.51.100.66:5065;x=1 SIP/2.0");
    let ok = answer(
        &worker,
        200,
        "OK",
        "w",
        "Contact: <sip:um@198.51.100.66:5065>\n",
        &sdp("198.51.100.66", 6000, ""),
    );
    let sent = world.receive(SERVERS, "198.51.100.66:5065", ok.replace('\n', "\r\n").as_bytes());
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 200 OK");
    let sent = world.phone(&from_phone("ACK", "sip:um@192.0.2.1:8060", "a1", 1, ";tag=w", "", ""));
    assert_eq!(to(&sent, "198.51.100.66:5065")[0].first_line(), "ACK sip:um@198.51.100.66:5065 SIP/2.0");
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_server_that_redirects_for_ever_is_followed_a_few_times() {
    let mut world = world(Redirects::Follow);
    let mut sent = world.phone(&invite());
    let mut followed = 0;
    while let Some(request) =
        to(&sent, SERVER).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).cloned()
    {
        followed += 1;
        assert!(followed < 20);
        let contact = format!("Contact: <sip:100-{followed}@{SERVER}>\n");
        sent = world.server(&answer(&request, 302, "Moved", &format!("m{followed}"), &contact, ""));
    }
    assert_eq!(followed, 6, "the first, and five redirections");
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 302 Moved");
    world.wait(MINUTE);
    world.assert_empty();
}

#[test]
fn a_redirection_that_leads_nowhere_known_or_is_to_be_passed_goes_to_the_phone_as_it_came() {
    for (description, redirects, contact) in [
        ("to a name", Redirects::Follow, "<sip:100@worker.example.com>"),
        ("to a stranger", Redirects::Follow, "<sip:100@203.0.113.5>;q=0.9"),
        ("to the appliance itself", Redirects::Follow, "<sip:100@198.51.100.1:8060>"),
        ("passed", Redirects::Pass, "<sip:100@198.51.100.66:5065>"),
    ] {
        let mut world = world(redirects);
        let sent = world.phone(&invite());
        let header = format!("Contact: {contact}\n");
        let sent = world.server(&answer(to(&sent, SERVER)[0], 302, "Moved", "m", &header, ""));
        let passed = to(&sent, PHONE)[0];
        assert_eq!(passed.first_line(), "SIP/2.0 302 Moved", "{description}");
        assert!(passed.text().contains(&header), "{description}: {}", passed.text());
    }
}

#[test]
fn each_network_has_the_timers_that_it_was_given() {
    let slow = Timers { t1: Duration::from_secs(2), t2: Duration::from_secs(8), ..Timers::default() };
    let timers = NetworkTimers { all: Timers::default(), own: HashMap::from([(SERVERS, slow)]) };
    let mut world = World::with(Settings { timers, ..settings() });
    world.phone(&invite());
    let count = |sent: &[Sent]| sent.iter().filter(|sent| sent.network == SERVERS).count();
    assert_eq!(count(&world.wait(Duration::from_millis(1900))), 0);
    assert_eq!(count(&world.wait(Duration::from_millis(200))), 1);

    let uri = world.register();
    let sent = world.server(&from_server("MESSAGE", &uri, "m1", 1, "", "", ""));
    assert_eq!(to(&sent, PHONE).len(), 1);
    let again = world.wait(Duration::from_millis(510));
    assert_eq!(to(&again, PHONE).len(), 1, "toward phones half a second");
}

#[test]
fn a_redirection_whose_first_place_is_dead_or_refuses_goes_to_the_next_and_then_to_other_servers() {
    let mut world = world(Redirects::Follow);
    let sent = world.phone(&invite());
    let contacts = "Contact: <sip:100@198.51.100.66:5065>;q=0.9, <sip:100@198.51.100.66:5067>;q=0.1\n";
    let sent = world.server(&answer(to(&sent, SERVER)[0], 302, "Moved", "m", contacts, ""));
    let first = to(&sent, "198.51.100.66:5065")[0].clone();
    let refused = answer(&first, 503, "Full", "w", "", "").replace('\n', "\r\n");
    let sent = world.receive(SERVERS, "198.51.100.66:5065", refused.as_bytes());
    assert_eq!(to(&sent, "198.51.100.66:5067").len(), 1, "{sent:?}");
}

#[test]
fn programs_that_look_for_open_servers_are_not_answered_and_people_of_like_names_are() {
    for (description, agent, scanner) in [
        ("by its name", "User-Agent: friendly-scanner\n", true),
        ("in other letters, with a version", "User-Agent: SIPVicious/0.3\n", true),
        ("a phone", "User-Agent: Phone/1 (not sipvicious)\n", false),
        ("no word of it", "", false),
    ] {
        let mut world = World::new();
        let options = from_phone("OPTIONS", "sip:100@192.0.2.1", "o1", 1, "", agent, "")
            .replace("\"Zoë\" <sip:200@", "\"A. Tiwari\" <sip:siwarat@");
        let sent = world.phone(&options);
        assert_eq!(sent.is_empty(), scanner, "{description}");
        let count = usize::from(scanner);
        assert_eq!(world.count(Measure::Dropped(DropReason::Scanner)), count, "{description}");
        // The source of a datagram may be a lie: it counts as one offence.
        assert_eq!(world.count(Measure::Offence("192.0.2.11".parse().unwrap())), count, "{description}");
    }
}
