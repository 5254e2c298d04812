//! The office on its own: registrations, calls between phones, trunks, emergencies, and the way back.

use std::time::Duration;

use super::harness::*;
use crate::{
    config::{Destination, Unproven},
    net::{Identity, NetworkId, Role},
    proxy::{
        Alone, Credential, Credentials, DropReason, EmergencyCalls, EmergencyWay, Measure, Network, Outcome,
        Ports, Routing, Rule, Settings, SurvivalCall, Upstream,
    },
    sip::{digest, transaction::Timers, wire::HeaderName},
    upstream::{
        self, DestinationSettings, Emergency, Form, Numbering, Place, SurvivalChange, SurvivalSettings,
        TrunkSettings,
    },
};

pub(super) const GATEWAYS: NetworkId = NetworkId(2);
pub(super) const GATEWAY: &str = "192.0.2.200:5060";
const SECOND_PHONE: &str = "192.0.2.12:5060";
const THIRD_PHONE: &str = "192.0.2.13:5060";

pub(super) fn trunk(name: &str, contact: &str, prefix: &str, emergency: Emergency) -> TrunkSettings {
    TrunkSettings {
        name: name.to_owned(),
        peer: upstream::Settings::new(GATEWAYS, vec![contact.to_owned().try_into().unwrap()]),
        prefix: prefix.to_owned(),
        replace_prefix: (!prefix.is_empty()).then(String::new),
        numbers: Form::AsDialled,
        priority: 0,
        cost: 0,
        emergency,
    }
}

pub(super) fn alone() -> Alone {
    Alone {
        when: SurvivalSettings { enter_after: Duration::ZERO, leave_after: Duration::from_secs(5) },
        registration: Duration::from_secs(60),
        unproven: Unproven::KnownAddress,
        remember: Duration::from_secs(3600),
        message: None,
    }
}

pub(super) fn settings_with(trunks: Vec<TrunkSettings>, alone: Option<Alone>) -> Settings {
    let mut settings = settings();
    settings.networks.push(Network {
        id: GATEWAYS,
        name: "gateway".into(),
        role: Role::Gateway,
        identity: Identity::Trusted,
        bound: "192.0.2.2".parse().unwrap(),
        advertised: "192.0.2.2".parse().unwrap(),
        ports: Ports { udp: 8060, ..Ports::default() },
        challenge: crate::config::ChallengePolicy::Survival,
        mtu: None,
    });
    settings.routing = Routing {
        trunks,
        alone,
        emergency: EmergencyCalls { numbers: vec!["112".into()], dial: "112".into() },
        ..Routing::default()
    };
    settings.timers = Timers { invite_retries: 3, other_retries: 4, ..Timers::default() }.into();
    settings
}

fn world() -> World {
    let trunks = vec![trunk("isdn", GATEWAY, "0", Emergency::Carried)];
    World::with(settings_with(trunks, Some(alone())))
}

fn register(user: &str, source: &str, cseq: u32, more: &str) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP {source};branch=z9hG4bKr{user}{cseq}\nFrom: <sip:{user}@example.com>;tag=r{user}\n\
         To: <sip:{user}@example.com>\nCall-ID: reg-{user}\nCSeq: {cseq} REGISTER\nContact: <sip:{user}@{source};line=7>\n{more}Expires: 3600\n\n"
    )
}

impl World {
    fn from(&mut self, source: &str, text: &str) -> Vec<Sent> {
        self.receive(PHONES, source, text.replace('\n', "\r\n").as_bytes())
    }

    fn gateway(&mut self, text: &str) -> Vec<Sent> {
        self.receive(GATEWAYS, GATEWAY, text.replace('\n', "\r\n").as_bytes())
    }

    /// A phone registers by the server.
    pub(super) fn register_by_server(&mut self, user: &str, source: &str, headers: &str) {
        let sent = self.from(source, &register(user, source, 1, ""));
        let message = sent[0].message();
        let contact = String::from_utf8(message.header(HeaderName::Contact).unwrap().value.to_vec()).unwrap();
        let ok =
            answer(&sent[0], 200, "OK", "rt", &format!("Contact: {contact}\nExpires: 3600\n{headers}"), "");
        self.server(&ok);
    }

    /// The server falls silent: a request to it is given up.
    pub(super) fn lose_server(&mut self) {
        self.from(
            PHONE,
            &from_phone("OPTIONS", "sip:100@example.com", "lost", 900, "", "", "")
                .replace("Call-ID: c1", "Call-ID: lost"),
        );
        self.wait(Duration::from_secs(10));
        assert_eq!(self.survival.last(), Some(&SurvivalChange::Entered));
    }
}

fn invite(uri: &str, branch: &str) -> String {
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    from_phone("INVITE", uri, branch, 1, "", contact, &sdp("192.0.2.11", 4000, ""))
}

fn to<'s>(sent: &'s [Sent], address: &str) -> Vec<&'s Sent> {
    sent.iter().filter(|sent| sent.to == address).collect()
}

#[test]
fn phones_that_a_server_has_registered_are_registered_here_for_a_short_time_and_strangers_are_not() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.lose_server();

    let sent = world.from(PHONE, &register("200", PHONE, 2, ""));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
    let contact = sent[0].message().header(HeaderName::Contact).unwrap().value.to_vec();
    let contact = String::from_utf8(contact).unwrap();
    let seconds: u64 = contact.rsplit('=').next().unwrap().parse().unwrap();
    assert!(contact.starts_with("<sip:200@192.0.2.11:5060;line=7>;expires="), "{contact}");
    assert!((30..=60).contains(&seconds), "{seconds}");
    assert_eq!(world.count(Measure::RegisteredHere), 1);

    // Whom it does not know it leaves to the servers: one may have come back since it was asked.
    for (description, user, source) in
        [("never seen", "201", SECOND_PHONE), ("from another address", "200", THIRD_PHONE)]
    {
        let sent = world.from(source, &register(user, source, 1, ""));
        assert_eq!(to(&sent, SERVER).len(), 1, "{description}");
        let sent = world.wait(Duration::from_secs(6));
        let refused = *to(&sent, source).last().unwrap();
        assert_eq!(refused.first_line(), "SIP/2.0 403 Forbidden", "{description}");
        assert!(
            refused.text().contains("Warning: 399 192.0.2.1:8060 \"no server is in reach"),
            "{description}"
        );
    }
    assert_eq!(world.count(Measure::Dropped(DropReason::StrangePhone)), 2);

    // It unregisters.
    let bye = register("200", PHONE, 3, "").replace("Expires: 3600", "Expires: 0");
    assert_eq!(world.from(PHONE, &bye)[0].first_line(), "SIP/2.0 200 OK");
    assert_eq!(world.proxy.binding_count(), 0);
}

#[test]
fn the_register_that_finds_out_that_no_server_is_there_is_granted_too() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    assert_eq!(world.from(PHONE, &register("200", PHONE, 2, ""))[0].to, SERVER);
    let sent = world.wait(Duration::from_secs(10));
    assert_eq!(to(&sent, PHONE).last().unwrap().first_line(), "SIP/2.0 200 OK");
    assert_eq!(world.survival, [SurvivalChange::Entered], "since it does not answer a question either");
}

#[test]
fn a_phone_that_answers_challenges_itself_has_to_answer_one_here() {
    let mut world = world();
    world.set_entry(&[]);
    // In normal times it has its own credentials, by SHA-256.
    let own = "Authorization: Digest username=\"station200\", realm=\"pbx\", nonce=\"n\", uri=\"sip:example.com\", \
               response=\"00\", algorithm=SHA-256\n";
    let sent = world.from(PHONE, &register("200", PHONE, 1, own));
    let contact = sent[0].message().header(HeaderName::Contact).unwrap().value.to_vec();
    let contact = String::from_utf8(contact).unwrap();
    world.server(&answer(&sent[0], 200, "OK", "t", &format!("Contact: {contact}\n"), ""));
    world.lose_server();

    let sent = world.from(PHONE, &register("200", PHONE, 2, ""));
    assert_eq!(sent[0].first_line(), "SIP/2.0 401 Unauthorized");
    let value = sent[0].message().header(HeaderName::WwwAuthenticate).unwrap().value.to_vec();
    let challenge = digest::Challenge::parse(&value).unwrap();
    assert_eq!(challenge.realm, b"pbx");
    let request = digest::Request { method: b"REGISTER", uri: b"sip:example.com", body: b"" };
    let given = |password: &str| {
        let value = challenge.answer(&request, "station200", &digest::Secret::Password(password), "c");
        format!("Authorization: {}\n", String::from_utf8(value).unwrap())
    };
    let sent = world.from(PHONE, &register("200", PHONE, 3, &given("wrong")));
    assert_eq!(to(&sent, SERVER).len(), 1, "a server may know better");
    let sent = world.wait(Duration::from_secs(6));
    assert_eq!(to(&sent, PHONE).last().unwrap().first_line(), "SIP/2.0 403 Forbidden");
    let sent = world.from(PHONE, &register("200", PHONE, 4, &given("secret")));
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
    // Somebody has heard it, and sends it from the phone's address.
    let sent = world.from(PHONE, &register("200", PHONE, 5, &given("secret")));
    assert_eq!(sent[0].first_line(), "SIP/2.0 401 Unauthorized");
    assert!(sent[0].text().contains("stale=true"));
    // The same answer after the nonce's life: the password is right, the nonce is old.
    world.wait(Duration::from_secs(301));
    let sent = world.from(PHONE, &register("200", PHONE, 6, &given("secret")));
    assert_eq!(sent[0].first_line(), "SIP/2.0 401 Unauthorized");
    assert!(sent[0].text().contains("stale=true"));
}

#[test]
fn a_call_to_a_phone_of_the_office_goes_straight_to_it_and_ends_as_any_other() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.register_by_server("100", SECOND_PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:100@192.0.2.1:8060", "i1"));
    let at_phone = to(&sent, SECOND_PHONE);
    assert!(at_phone[0].first_line().starts_with("INVITE sip:100@192.0.2.12:5060;line=7"), "{sent:?}");
    assert!(at_phone[0].text().contains("c=IN IP4 192.0.2.1\n"), "media goes by the appliance");
    assert_eq!(world.count(Measure::SurvivalCall(SurvivalCall::Phone)), 1);
    let ok = answer(
        at_phone[0],
        200,
        "OK",
        "s",
        "Contact: <sip:100@192.0.2.12:5060>\n",
        &sdp("192.0.2.12", 6000, ""),
    );
    let sent = world.from(SECOND_PHONE, &ok);
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 200 OK");
    let sent = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    assert!(to(&sent, SECOND_PHONE)[0].first_line().starts_with("ACK sip:100@192.0.2.12:5060"));

    // The server comes back in the middle of the call, which goes on.
    let sent = world.wait(Duration::from_secs(6));
    let probe = (*to(&sent, SERVER).last().unwrap()).clone();
    world.server(&answer(&probe, 200, "OK", "x", "", ""));
    world.wait(Duration::from_secs(6));
    assert!(matches!(world.survival.last(), Some(SurvivalChange::Left(_))), "{:?}", world.survival);
    let sent = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s", "", ""));
    let bye = to(&sent, SECOND_PHONE)[0].clone();
    let sent = world.from(SECOND_PHONE, &answer(&bye, 200, "OK", "s", "", ""));
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 200 OK");
    assert_eq!(world.count(Measure::CallEnded(Outcome::Answered)), 1);
    world.wait(MINUTE);
    world.assert_no_call();
}

#[test]
fn phones_are_found_by_aliases_and_by_numbers_that_servers_use() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.register_by_server(
        "100",
        SECOND_PHONE,
        "P-Associated-URI: <tel:+49711100>, <sip:+49-711-101@example.com>\n",
    );
    let mut credentials = Credentials::default();
    let entry = Credential {
        registration_id: "100".into(),
        user: "u".into(),
        password: String::new().into(),
        digests: Vec::new(),
    };
    credentials.add(&entry, &["7100".into()]);
    world.proxy.set_credentials(credentials);
    // A server calls it by another number still.
    let token = world.proxy.registrar.tokens_of_user(b"100")[0];
    let call =
        from_server("INVITE", &format!("sip:100@198.51.100.1:8060;bl={token:016x}"), "q", 1, "", "", "")
            .replace("\"Zoë\" <sip:200@example.com>", "<sip:0800100@example.com>");
    world.server(&call);
    world.lose_server();
    for (index, number) in ["7100", "+49711100", "+49711101", "0800100"].into_iter().enumerate() {
        let call = invite(&format!("sip:{number}@example.com"), &format!("n{index}"))
            .replace("Call-ID: c1", &format!("Call-ID: n{index}"));
        let sent = world.phone(&call);
        assert!(
            to(&sent, SECOND_PHONE)
                .iter()
                .any(|sent| sent.first_line().starts_with("INVITE sip:100@192.0.2.12")),
            "{number}: {sent:?}"
        );
    }
}

#[test]
fn all_phones_of_a_number_ring_the_first_that_is_answered_has_the_call_and_the_others_stop() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.register_by_server("100", SECOND_PHONE, "");
    world.register_by_server("100", THIRD_PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:100@example.com", "i1"));
    let (second, third) = (to(&sent, SECOND_PHONE)[0].clone(), to(&sent, THIRD_PHONE)[0].clone());
    assert_eq!(
        world.media.log.iter().filter(|line| line.starts_with("offer")).count(),
        1,
        "one offer for both"
    );
    for (phone, request, tag) in [(SECOND_PHONE, &second, "s2"), (THIRD_PHONE, &third, "s3")] {
        let sent = world.from(phone, &answer(request, 180, "Ringing", tag, "Contact: <sip:100@x>\n", ""));
        assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 180 Ringing");
    }
    let contact = "Contact: <sip:100@192.0.2.13:5060>\n";
    let sent =
        world.from(THIRD_PHONE, &answer(&third, 200, "OK", "s3", contact, &sdp("192.0.2.13", 6000, "")));
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 200 OK");
    let cancel = to(&sent, SECOND_PHONE)[0].clone();
    assert!(cancel.first_line().starts_with("CANCEL sip:100@192.0.2.12"));
    assert!(cancel.text().contains("Reason: SIP;cause=200;text=\"Call completed elsewhere\"\n"));
    world.from(SECOND_PHONE, &answer(&cancel, 200, "OK", "s2", "", ""));
    let sent = world.from(SECOND_PHONE, &answer(&second, 487, "Request Terminated", "s2", "", ""));
    assert!(to(&sent, PHONE).is_empty(), "the caller hears nothing of it: {sent:?}");
    assert_eq!(world.proxy.active_calls(), 1);

    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s3", "", ""));
    let sent = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s3", "", ""));
    let bye = to(&sent, THIRD_PHONE)[0].clone();
    world.from(THIRD_PHONE, &answer(&bye, 200, "OK", "s3", "", ""));
    world.wait(2 * MINUTE);
    world.assert_no_call();
}

#[test]
fn when_nobody_takes_it_the_caller_is_told_the_best_answer_and_a_cancel_reaches_all() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.register_by_server("100", SECOND_PHONE, "");
    world.register_by_server("100", THIRD_PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:100@example.com", "i1"));
    let (second, third) = (to(&sent, SECOND_PHONE)[0].clone(), to(&sent, THIRD_PHONE)[0].clone());
    let sent = world.from(SECOND_PHONE, &answer(&second, 486, "Busy Here", "s2", "", ""));
    assert!(to(&sent, PHONE).is_empty());
    let sent = world.from(THIRD_PHONE, &answer(&third, 480, "Away", "s3", "", ""));
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 486 Busy Here");
    assert_eq!(world.count(Measure::CallEnded(Outcome::Busy)), 1);
    world.phone(&from_phone("ACK", "sip:100@example.com", "i1", 1, ";tag=s2", "", ""));

    let again = invite("sip:100@example.com", "i2").replace("Call-ID: c1", "Call-ID: c2");
    let sent = world.phone(&again);
    for (phone, request) in
        [(SECOND_PHONE, to(&sent, SECOND_PHONE)[0]), (THIRD_PHONE, to(&sent, THIRD_PHONE)[0])]
    {
        world.from(phone, &answer(request, 180, "Ringing", phone, "Contact: <sip:100@x>\n", ""));
    }
    let cancel = from_phone("CANCEL", "sip:100@example.com", "i2", 1, "", "", "")
        .replace("Call-ID: c1", "Call-ID: c2");
    let cancelled = world.phone(&cancel);
    for phone in [SECOND_PHONE, THIRD_PHONE] {
        assert!(to(&cancelled, phone)[0].first_line().starts_with("CANCEL"), "{phone}");
        let request = to(&sent, phone)[0];
        world.from(phone, &answer(request, 487, "Request Terminated", phone, "", ""));
    }
    assert_eq!(world.count(Measure::CallEnded(Outcome::Cancelled)), 1);
    world.wait(2 * MINUTE);
    world.assert_no_call();
}

#[test]
fn other_numbers_leave_by_trunk_as_it_wants_them_and_only_for_phones_that_are_registered() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:00711-555@example.com", "i1"));
    let invite_there = to(&sent, GATEWAY)[0].clone();
    assert_eq!(invite_there.first_line(), "INVITE sip:0711555@192.0.2.200 SIP/2.0");
    assert_eq!(invite_there.network, GATEWAYS);
    assert_eq!(world.count(Measure::SurvivalCall(SurvivalCall::Trunk)), 1);
    let ok = answer(&invite_there, 200, "OK", "g", "Contact: <sip:gw@192.0.2.200>\n", "");
    let sent = world.gateway(&ok);
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 200 OK");
    // The gateway hangs up.
    world.phone(&from_phone("ACK", "sip:gw@192.0.2.1:8060", "a1", 1, ";tag=g", "", ""));
    let bye = format!(
        "BYE sip:200@192.0.2.2:8060 SIP/2.0\nVia: SIP/2.0/UDP {GATEWAY};branch=z9hG4bKg1\nFrom: <sip:100@example.com>;tag=g\n\
         To: \"Zoë\" <sip:200@example.com>;tag=p\nCall-ID: c1\nCSeq: 1 BYE\nMax-Forwards: 70\n\n"
    );
    assert!(to(&world.gateway(&bye), PHONE)[0].first_line().starts_with("BYE sip:200@192.0.2.11:5060"));

    // Nobody is registered at this address; no trunk has this prefix, and no phone this number: that is the servers'.
    for (source, number, call) in [(THIRD_PHONE, "00711555", "c2"), (PHONE, "555", "c3")] {
        let call = invite(&format!("sip:{number}@example.com"), call)
            .replace("Call-ID: c1", &format!("Call-ID: {call}"));
        let sent = world.from(source, &call);
        assert!(to(&sent, GATEWAY).is_empty(), "{number}");
        assert_eq!(to(&sent, SERVER).len(), 1, "{number}");
        let sent = world.wait(Duration::from_secs(10));
        assert_eq!(to(&sent, source).last().unwrap().first_line(), "SIP/2.0 408 Request Timeout", "{number}");
    }
}

#[test]
fn a_request_that_a_server_ignores_does_not_put_an_office_on_its_own_whose_server_answers_questions() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.phone(&from_phone("PUBLISH", "sip:100@example.com", "odd", 1, "", "Event: x\n", ""));
    for _ in 0..20 {
        let sent = world.wait(Duration::from_secs(1));
        for probe in to(&sent, SERVER).into_iter().filter(|sent| sent.first_line().starts_with("OPTIONS")) {
            world.server(&answer(probe, 200, "OK", "x", "", ""));
        }
    }
    assert_eq!(world.survival, []);
}

#[test]
fn a_phone_that_challenges_is_not_given_the_callers_password_in_any_form() {
    let mut world = world();
    let mut credentials = Credentials::default();
    let entry = Credential {
        registration_id: "200".into(),
        user: "u".into(),
        password: "secret".to_owned().into(),
        digests: Vec::new(),
    };
    credentials.add(&entry, &[]);
    world.proxy.set_credentials(credentials);
    world.register_by_server("200", PHONE, "");
    world.register_by_server("100", SECOND_PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:100@example.com", "i1"));
    let challenge = "Proxy-Authenticate: Digest realm=\"pbx\", nonce=\"mine\", qop=\"auth\"\n";
    let challenged =
        answer(to(&sent, SECOND_PHONE)[0], 407, "Proxy Authentication Required", "s", challenge, "");
    let sent = world.from(SECOND_PHONE, &challenged);
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 407 Proxy Authentication Required");
    assert!(!sent.iter().any(|sent| sent.text().contains("response=")), "{sent:?}");
}

#[test]
fn an_emergency_that_a_gateway_cannot_carry_goes_to_the_servers_and_one_that_the_rescuers_refuse_does_not() {
    for (status, goes_on) in [(404, true), (500, true), (488, true), (486, false), (603, false)] {
        let mut world = world();
        let sent = world.from(THIRD_PHONE, &invite("sip:112@example.com", "i1"));
        let sent = world.gateway(&answer(to(&sent, GATEWAY)[0], status, "No", "g", "", ""));
        assert_eq!(to(&sent, SERVER).len() == 1, goes_on, "{status}: {sent:?}");
    }
}

#[test]
fn a_call_that_none_takes_but_one_refuses_for_all_is_declined_and_not_cancelled() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.register_by_server("100", SECOND_PHONE, "");
    world.register_by_server("100", THIRD_PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:100@example.com", "i1"));
    let (second, third) = (to(&sent, SECOND_PHONE)[0].clone(), to(&sent, THIRD_PHONE)[0].clone());
    world.from(THIRD_PHONE, &answer(&third, 180, "Ringing", "s3", "Contact: <sip:100@x>\n", ""));
    world.from(SECOND_PHONE, &answer(&second, 603, "Decline", "s2", "", ""));
    let sent = world.from(THIRD_PHONE, &answer(&third, 487, "Request Terminated", "s3", "", ""));
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 603 Decline");
    assert_eq!(world.count(Measure::CallEnded(Outcome::Declined)), 1);
}

#[test]
fn a_gateway_that_is_no_trunk_any_more_still_ends_its_calls() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    world.lose_server();
    let sent = world.phone(&invite("sip:00711555@example.com", "i1"));
    let ok = answer(to(&sent, GATEWAY)[0], 200, "OK", "g", "Contact: <sip:gw@192.0.2.200>\n", "");
    world.gateway(&ok);
    world.phone(&from_phone("ACK", "sip:gw@192.0.2.1:8060", "a1", 1, ";tag=g", "", ""));
    world.proxy.trunks.set(Vec::new(), world.now);
    let bye = |tag: &str| {
        format!(
            "BYE sip:200@192.0.2.2:8060 SIP/2.0\nVia: SIP/2.0/UDP {GATEWAY};branch=z9hG4bK{tag}\nFrom: <sip:100@example.com>;tag={tag}\n\
             To: \"Zoë\" <sip:200@example.com>;tag=p\nCall-ID: c1\nCSeq: 1 BYE\nMax-Forwards: 70\n\n"
        )
    };
    assert_eq!(world.gateway(&bye("x"))[0].first_line(), "SIP/2.0 403 Forbidden", "not its dialog");
    assert!(to(&world.gateway(&bye("g")), PHONE)[0].first_line().starts_with("BYE sip:200@192.0.2.11:5060"));
}

#[test]
fn a_call_that_no_server_answers_goes_on_by_trunk_and_one_that_a_server_refuses_does_not() {
    let mut world = world();
    world.register_by_server("200", PHONE, "");
    let sent = world.phone(&invite("sip:00711555@example.com", "i1"));
    let refused = answer(to(&sent, SERVER)[0], 500, "Broken", "x", "", "");
    let sent = world.server(&refused);
    assert!(to(&sent, GATEWAY).is_empty(), "a server that answers decides");
    assert_eq!(to(&sent, PHONE)[0].first_line(), "SIP/2.0 500 Broken");

    world.phone(&invite("sip:00711555@example.com", "i2").replace("Call-ID: c1", "Call-ID: c2"));
    let sent = world.wait(Duration::from_secs(10));
    assert_eq!(to(&sent, GATEWAY)[0].first_line(), "INVITE sip:0711555@192.0.2.200 SIP/2.0");
}

#[test]
fn emergency_calls_leave_by_trunk_first_in_every_mode_for_everybody() {
    for (description, uri, served) in [
        ("a number, while a server serves", "sip:112@example.com", true),
        ("the service", "urn:service:sos", true),
        ("a number, alone", "sip:112@example.com", false),
    ] {
        let mut world = world();
        if !served {
            world.lose_server();
        }
        let sent = world.from(THIRD_PHONE, &invite(uri, "i1"));
        assert_eq!(to(&sent, GATEWAY)[0].first_line(), "INVITE sip:112@192.0.2.200 SIP/2.0", "{description}");
        assert_eq!(world.count(Measure::EmergencyCall(EmergencyWay::Trunk)), 1, "{description}");
        let failed = answer(to(&sent, GATEWAY)[0], 503, "No Lines", "g", "", "");
        let sent = world.gateway(&failed);
        let then = to(&sent, SERVER);
        let expected = format!("INVITE {uri} SIP/2.0");
        assert_eq!(then[0].first_line(), expected, "{description}: the servers are the last");
    }
    // Without a trunk the servers have to do, and that is counted.
    let mut world = World::with(settings_with(Vec::new(), Some(alone())));
    let sent = world.phone(&invite("sip:112@example.com", "i1"));
    assert_eq!(to(&sent, SERVER).len(), 1);
    assert_eq!(world.count(Measure::EmergencyCall(EmergencyWay::Servers)), 1);
}

#[test]
fn a_gateway_calls_phones_by_the_servers_or_alone_never_by_a_trunk_and_strangers_beside_it_are_refused() {
    let mut world = world();
    world.register_by_server("100", SECOND_PHONE, "");
    let call = |uri: &str, branch: &str| {
        format!(
            "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP {GATEWAY};branch=z9hG4bK{branch}\nFrom: <sip:0711@gw>;tag=g{branch}\nTo: <{uri}>\n\
             Call-ID: {branch}\nCSeq: 1 INVITE\nMax-Forwards: 70\nContact: <sip:gw@{GATEWAY}>\n\n"
        )
    };
    assert_eq!(to(&world.gateway(&call("sip:100@192.0.2.2:8060", "g1")), SERVER).len(), 1);
    let stranger =
        world.receive(GATEWAYS, "192.0.2.201:5060", call("sip:100@x", "g2").replace('\n', "\r\n").as_bytes());
    assert_eq!(stranger[0].first_line(), "SIP/2.0 403 Forbidden");
    world.lose_server();
    assert_eq!(to(&world.gateway(&call("sip:100@192.0.2.2:8060", "g3")), SECOND_PHONE).len(), 1);
    let sent = world.gateway(&call("sip:0711@192.0.2.2:8060", "g4"));
    assert!(
        sent.iter().all(|sent| !sent.first_line().starts_with("INVITE") || sent.to == SERVER),
        "{sent:?}"
    );
}

#[test]
fn phones_are_told_a_few_at_a_time_and_the_servers_are_asked_although_nobody_is_asked_otherwise() {
    let told = Alone { message: Some(("alone".into(), "served".into())), ..alone() };
    let mut settings = settings_with(Vec::new(), Some(told));
    settings.upstream = Upstream { recovery: Duration::from_secs(20), ..settings.upstream };
    let mut world = World::with(settings);
    for index in 0..25u8 {
        world.register_by_server(&format!("2{index:02}"), &format!("192.0.2.{}:5060", 11 + index), "");
    }
    world.phone(&from_phone("OPTIONS", "sip:100@example.com", "lost", 900, "", "", ""));
    let messages =
        |sent: &[Sent]| sent.iter().filter(|sent| sent.first_line().starts_with("MESSAGE")).count();
    let sent = world.wait(Duration::from_secs(12));
    assert_eq!(world.survival, [SurvivalChange::Entered]);
    let first: Vec<&Sent> =
        sent.iter().filter(|sent| sent.first_line().starts_with("MESSAGE sip:200@")).collect();
    assert!(first[0].text().ends_with("Content-Length: 5\n\nalone"), "{}", first[0].text());
    assert!(messages(&sent) >= 25, "all of them");

    // No probes are configured; a server that is down is asked all the same.
    let sent = world.wait(Duration::from_secs(20));
    let probe = (*to(&sent, SERVER).last().unwrap()).clone();
    assert!(probe.first_line().starts_with("OPTIONS"));
    world.server(&answer(&probe, 200, "OK", "x", "", ""));
    let sent = world.wait(Duration::from_secs(10));
    assert!(matches!(world.survival.last(), Some(SurvivalChange::Left(_))), "{:?}", world.survival);
    assert!(sent.iter().any(|sent| sent.text().ends_with("\n\nserved")));
}

#[test]
fn rules_lead_to_trunks_and_servers_with_another_number_while_a_server_serves() {
    let mut settings = settings_with(vec![trunk("isdn", GATEWAY, "", Emergency::Refused)], Some(alone()));
    let rule = |name: &str, to: &str, target: &str, destinations: Vec<Destination>| Rule {
        name: name.into(),
        from: None,
        to: Some(to.to_owned().try_into().unwrap()),
        target: Some(target.into()),
        destinations,
    };
    settings.routing.rules = vec![
        rule("local", r"sip:9(\d+)@", "0$1", vec![Destination::Trunk("isdn".into()), Destination::Servers]),
        rule("short", r"sip:(55)@", "+49711$1", vec![Destination::Servers]),
    ];
    let mut world = World::with(settings);
    world.register_by_server("200", PHONE, "");
    let call = |user: &str, branch: &str| {
        invite(&format!("sip:{user}@example.com"), branch)
            .replace("To: <sip:100@example.com>", &format!("To: <sip:{user}@example.com>"))
            .replace("Call-ID: c1", &format!("Call-ID: {branch}"))
    };
    let sent = world.phone(&call("9711", "i1"));
    assert_eq!(to(&sent, GATEWAY)[0].first_line(), "INVITE sip:0711@192.0.2.200 SIP/2.0");
    let sent = world.gateway(&answer(to(&sent, GATEWAY)[0], 503, "No Lines", "g", "", ""));
    assert_eq!(to(&sent, SERVER)[0].first_line(), "INVITE sip:0711@198.51.100.9 SIP/2.0");
    let sent = world.phone(&call("55", "i2"));
    assert_eq!(to(&sent, SERVER)[0].first_line(), "INVITE sip:+4971155@198.51.100.9 SIP/2.0");
}

#[test]
fn a_rule_sends_calls_by_a_server_plan_whose_destinations_are_waited_for_for_their_time() {
    let mut settings = settings_with(Vec::new(), None);
    let destination = |position: u8, seconds: u64| DestinationSettings {
        plan: "recorders".into(),
        name: format!("recorders/{position}"),
        peer: upstream::Settings::new(
            SERVERS,
            vec![format!("198.51.100.3{position}:5060").try_into().unwrap()],
        ),
        patience: Some(Duration::from_secs(seconds)),
    };
    settings.routing.plans = vec![destination(1, 2), destination(2, 3)];
    settings.routing.rules = vec![Rule {
        name: "record".into(),
        from: None,
        to: Some(r"sip:77(\d+)@".to_owned().try_into().unwrap()),
        target: Some("rec-$1".into()),
        destinations: vec![Destination::Plan("recorders".into()), Destination::Servers],
    }];
    let mut world = World::with(settings);
    let call = invite("sip:7742@example.com", "i1").replace("sip:100@example.com>", "sip:7742@example.com>");
    let (first, second) = ("198.51.100.31:5060", "198.51.100.32:5060");
    let sent = world.phone(&call);
    assert_eq!(to(&sent, first)[0].first_line(), "INVITE sip:rec-42@198.51.100.31 SIP/2.0");
    let before = world.wait(Duration::from_millis(1900));
    assert!(to(&before, second).is_empty(), "it has two seconds");
    let sent = world.wait(Duration::from_millis(200));
    let invite = to(&sent, second)[0].clone();
    assert_eq!(invite.first_line(), "INVITE sip:rec-42@198.51.100.32 SIP/2.0");
    world.receive(
        SERVERS,
        second,
        answer(&invite, 180, "Ringing", "s", "", "").replace('\n', "\r\n").as_bytes(),
    );
    let sent = world.wait(Duration::from_secs(4));
    assert!(to(&sent, SERVER).is_empty(), "one that rings has answered");
    world.receive(
        SERVERS,
        second,
        answer(&invite, 503, "Full", "s", "", "").replace('\n', "\r\n").as_bytes(),
    );
    let sent = world.phone(&call.replace("z9hG4bKi1", "z9hG4bKi2").replace("Call-ID: c1", "Call-ID: c2"));
    assert_eq!(to(&sent, first).len(), 1, "both have failed: the order of the plan again");
    // It may call the office's phones, as servers may.
    world.register();
    let text = from_server("INVITE", "sip:200@198.51.100.1:8060", "p1", 1, "", "", "").replace("c1", "c3");
    let sent = world.receive(SERVERS, first, text.replace('\n', "\r\n").as_bytes());
    assert_eq!(to(&sent, PHONE).len(), 1);
}

#[test]
fn a_phone_of_the_office_is_found_by_every_spelling_of_its_number() {
    let mut settings = settings_with(vec![trunk("isdn", GATEWAY, "+49", Emergency::Carried)], Some(alone()));
    settings.routing.trunks[0].replace_prefix = None;
    settings.routing.trunks[0].numbers = Form::National;
    settings.routing.numbering = Numbering::new(Place {
        country: "49".into(),
        area: "711".into(),
        national: "0".into(),
        international: "00".into(),
        national_digits: None,
        outside: Some("0".into()),
    });
    let mut world = World::with(settings);
    world.register_by_server("200", PHONE, "");
    world.register_by_server(
        "300",
        SECOND_PHONE,
        "P-Associated-URI: <sip:+497115551300@example.com>\nP-Associated-URI: <sip:07115551301@example.com>\n",
    );
    world.lose_server();
    for (position, dialled) in
        ["007115551300", "05551300", "+497115551300", "00049711-5551301", "05551301"].iter().enumerate()
    {
        let call = invite(&format!("sip:{dialled}@example.com"), &format!("n{position}"))
            .replace("Call-ID: c1", &format!("Call-ID: n{position}"));
        assert_eq!(to(&world.phone(&call), SECOND_PHONE).len(), 1, "{dialled}");
    }
    let call = invite("sip:05551999@example.com", "n9").replace("Call-ID: c1", "Call-ID: n9");
    assert_eq!(
        to(&world.phone(&call), GATEWAY)[0].first_line(),
        "INVITE sip:07115551999@192.0.2.200 SIP/2.0",
        "another number of the town leaves in the form that the gateway wants"
    );
    let call = invite("sip:0112@example.com", "e1").replace("Call-ID: c1", "Call-ID: e1");
    assert_eq!(to(&world.phone(&call), GATEWAY)[0].first_line(), "INVITE sip:112@192.0.2.200 SIP/2.0");
}
