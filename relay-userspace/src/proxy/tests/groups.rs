//! Groups of servers for some of the phones.

use std::time::Duration;

use super::harness::*;
use crate::{
    config::{DualRegistration, Redirects, ServerUri, StatusRange, UserPattern},
    proxy::{Alone, Routing, Settings},
    sip::transaction::Timers,
    upstream::{self, GroupSettings, Members, SurvivalChange, SurvivalSettings},
};

const SUPPORT: &str = "198.51.100.30:5060";
const SUPPORT_PROXY: &str = "198.51.100.40:5060";

fn uri(text: &str) -> ServerUri {
    ServerUri::try_from(text.to_owned()).unwrap()
}

/// The usual server, and one with a managed proxy behind it for whoever is called 3xx.
fn settings_with_group() -> Settings {
    let support = GroupSettings {
        name: "support".to_owned(),
        servers: upstream::Settings {
            lesser: vec![uri(SUPPORT_PROXY)],
            ..upstream::Settings::new(SERVERS, vec![uri(SUPPORT)])
        },
        members: Members {
            users: vec![UserPattern::try_from("3..".to_owned()).unwrap()],
            domains: vec!["example.com".to_owned()],
        },
        retry: ["404", "503"].map(|text| StatusRange::try_from(text.to_owned()).unwrap()).into(),
        redirects: Redirects::Pass,
        dual: DualRegistration::Off,
    };
    let timers = Timers { invite_retries: 3, other_retries: 4, ..Timers::default() };
    let alone = Alone {
        when: SurvivalSettings { enter_after: Duration::ZERO, leave_after: Duration::ZERO },
        registration: Duration::from_secs(120),
        unproven: crate::config::Unproven::KnownAddress,
        remember: Duration::from_secs(3600),
        message: None,
    };
    Settings {
        groups: vec![support],
        timers: timers.into(),
        routing: Routing { alone: Some(alone), ..Routing::default() },
        ..settings()
    }
}

fn request(method: &str, user: &str, domain: &str, branch: &str) -> String {
    format!(
        "{method} sip:192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{branch}\nFrom: <sip:{user}@{domain}>;tag=r\n\
         To: <sip:{user}@{domain}>\nCall-ID: {branch}\nCSeq: 1 {method}\nContact: <sip:{user}@192.0.2.11:5060>\nExpires: 3600\nEvent: dialog\n\n"
    )
}

fn granted(world: &mut World, sent: &Sent) -> Vec<Sent> {
    let contact = sent.message().header(crate::sip::wire::HeaderName::Contact).unwrap().value.to_vec();
    let contact = String::from_utf8(contact).unwrap();
    let ok = answer(sent, 200, "OK", "t", &format!("Contact: {contact};expires=3600\n"), "");
    let at = sent.to.clone();
    world.receive(SERVERS, &at, ok.replace('\n', "\r\n").as_bytes())
}

#[test]
fn what_a_phone_sends_goes_to_the_group_of_its_address_of_record() {
    let rows = [
        ("registers", "REGISTER", "300", "example.com", SUPPORT),
        ("subscribes", "SUBSCRIBE", "300", "EXAMPLE.com", SUPPORT),
        ("publishes", "PUBLISH", "300", "example.com", SUPPORT),
        ("another number", "REGISTER", "200", "example.com", SERVER),
        ("another domain", "REGISTER", "300", "example.net", SERVER),
    ];
    for (description, method, user, domain, expected) in rows {
        let mut world = World::with(settings_with_group());
        world.wait(Duration::ZERO);
        let sent = world.phone(&request(method, user, domain, "a"));
        assert_eq!((sent.len(), sent[0].to.as_str()), (1, expected), "{description}");
    }
}

#[test]
fn a_server_of_any_group_is_trusted_and_reaches_its_phones() {
    let mut world = World::with(settings_with_group());
    world.wait(Duration::ZERO);
    let sent = world.phone(&request("REGISTER", "300", "example.com", "a"));
    assert_eq!(granted(&mut world, &sent[0])[0].first_line(), "SIP/2.0 200 OK");
    let invite = from_server("INVITE", "sip:300@198.51.100.1:8060", "j", 1, "", "", "");
    let sent = world.receive(SERVERS, SUPPORT_PROXY, invite.replace('\n', "\r\n").as_bytes());
    assert_eq!(sent.last().unwrap().first_line(), "INVITE sip:300@192.0.2.11:5060 SIP/2.0");
    let sent = world.receive(
        SERVERS,
        "198.51.100.99:5060",
        invite.replace("=z9hG4bKj", "=z9hG4bKk").replace('\n', "\r\n").as_bytes(),
    );
    assert_eq!(sent[0].first_line(), "SIP/2.0 403 Forbidden");
}

#[test]
fn retry_statuses_are_the_groups_own_and_lead_to_equals_alone() {
    let mut world = World::with(settings_with_group());
    world.wait(Duration::ZERO);
    let sent = world.phone(&request("REGISTER", "300", "example.com", "a"));
    let refused = answer(&sent[0], 404, "Not Found", "t", "", "");
    let sent = world.receive(SERVERS, SUPPORT, refused.replace('\n', "\r\n").as_bytes());
    assert_eq!(sent[0].first_line(), "SIP/2.0 404 Not Found", "a proxy does not know better than the server");
    let sent = world.phone(&request("REGISTER", "300", "example.com", "b"));
    let refused = answer(&sent[0], 503, "Gone", "t", "", "");
    let sent = world.receive(SERVERS, SUPPORT, refused.replace('\n', "\r\n").as_bytes());
    assert_eq!(
        (sent[0].to.as_str(), sent[0].first_line().as_str()),
        (SUPPORT_PROXY, "REGISTER sip:198.51.100.40 SIP/2.0")
    );
    granted(&mut world, &sent[0]);
    let states = world.proxy.servers();
    assert!(
        states
            .iter()
            .all(|state| !(state.preferred && state.address == Some(SUPPORT_PROXY.parse().unwrap())))
    );
}

#[test]
fn phones_of_a_group_are_on_their_own_while_the_others_are_served() {
    let mut world = World::with(settings_with_group());
    world.wait(Duration::ZERO);
    for (user, branch) in [("300", "a"), ("200", "b")] {
        let sent = world.phone(&request("REGISTER", user, "example.com", branch));
        granted(&mut world, &sent[0]);
    }
    // Its servers are silent, to the phone and to the questions after it.
    world.phone(&request("REGISTER", "300", "example.com", "c"));
    world.wait(Duration::from_secs(60));
    assert_eq!(world.survival, [SurvivalChange::Entered]);
    assert_eq!(world.proxy.groups_alone().collect::<Vec<_>>(), ["support"]);
    let sent = world.phone(&request("REGISTER", "300", "example.com", "d"));
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK", "here, at once");
    let sent = world.phone(&request("REGISTER", "200", "example.com", "e"));
    assert_eq!(sent[0].to, SERVER, "the others' server serves");
}
