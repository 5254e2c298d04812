//! What a transfer costs whom, and what it says of whom.

use std::time::Duration;

use super::{harness::*, transfers::*};
use crate::{
    config::{Conversions, ReferStyle},
    net::Identity,
    proxy::{Peers, Settings},
};

/// The phone's entry, whose password the server asks for.
fn entry(world: &mut World) {
    world.set_entry(&[]);
}

const CHALLENGE: &str = "Proxy-Authenticate: Digest realm=\"example.com\", nonce=\"abc\", qop=\"auth\"\n";

/// The phone asks for a transfer of the server's party to 300.
fn refer_of_phone() -> String {
    let headers = "Contact: <sip:200@192.0.2.11:5060>\nRefer-To: <sip:300@example.com>\n";
    from_phone("REFER", "sip:100@192.0.2.1:8060;x=1", "r1", 2, ";tag=s", headers, "")
}

#[test]
fn a_transfer_is_paid_for_by_who_asks_for_it_and_not_by_who_is_transferred() {
    // What asks comes by a server: it is answered for as the phone itself would have answered, if the phone is there.
    for (description, registered) in [("registered", true), ("a name alone", false)] {
        let mut world = world();
        entry(&mut world);
        if registered {
            world.register();
        }
        let invite = begin(&mut world);
        let sent = world.server(&answer(&invite, 407, "Authenticate", "t", CHALLENGE, ""));
        let again = sent.iter().find(|sent| sent.first_line().starts_with("INVITE sip:300@"));
        let answered = again.is_some_and(|sent| sent.text().contains("Digest username=\"station200\""));
        assert_eq!(answered, registered, "{description}: {sent:?}");
        if !registered {
            assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 407 Authenticate");
        }
    }

    // The phone asks: its own entry answers, if it is registered where it asks from.
    for (description, registered, expected) in [("registered", true, true), ("a name alone", false, false)] {
        let mut world = World::with(converting(ReferStyle::Pass, ReferStyle::Reinvite));
        entry(&mut world);
        if registered {
            world.register();
        }
        establish(&mut world);
        let invite = find(&world.phone(&refer_of_phone()), SERVERS, "INVITE");
        let sent = world.server(&answer(&invite, 407, "Authenticate", "t", CHALLENGE, ""));
        let again = sent.iter().find(|sent| sent.first_line().starts_with("INVITE sip:300@"));
        let answered = again.is_some_and(|sent| sent.text().contains("Digest username=\"station200\""));
        assert_eq!(answered, expected, "{description}: {sent:?}");
        let Some(again) = again.cloned() else { continue };
        // What comes of it is one call as ever, whose numbers go on.
        let contact = "Contact: <sip:300@198.51.100.30:5080>\n";
        let sent = world.server(&answer(&again, 200, "OK", "t", contact, &sdp("198.51.100.30", 7000, "")));
        assert_eq!(value(&find(&sent, SERVERS, "ACK sip:300@"), "CSeq"), "2 ACK");
        let again = find(&sent, SERVERS, "INVITE sip:100@198.51.100.20:5070");
        let sent = world.server(&answer(&again, 200, "OK", "s", "", &sdp("198.51.100.20", 6000, "")));
        assert_eq!(fragment(&find(&sent, PHONES, "NOTIFY")), "SIP/2.0 200 OK");
    }
}

#[test]
fn a_party_is_called_what_it_was_called_by_and_not_what_it_says() {
    let mut world = World::with(converting(ReferStyle::Pass, ReferStyle::Reinvite));
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let body = sdp("192.0.2.11", 4000, "");
    let invite = from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &body);
    let invite = find(&world.phone(&invite), SERVERS, "INVITE");
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    let ok = answer(&invite, 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, ""));
    world.server(&ok.replace("To: <sip:100@example.com>", "To: <sip:999@example.com>"));
    let invite = find(&world.phone(&refer_of_phone()), SERVERS, "INVITE sip:300@");
    assert!(value(&invite, "From").starts_with("<sip:100@example.com>;tag="), "{}", invite.text());
}

/// A world whose servers may not know who calls when he does not want it, with the phone in a call to one.
fn withheld(phones: Conversions, servers: Conversions) -> World {
    let peers = Peers::of_networks([(PHONES, phones), (SERVERS, servers)], &[]);
    let mut settings = Settings { peers, ..settings() };
    for network in settings.networks.iter_mut().filter(|network| network.id == SERVERS) {
        network.identity = Identity::Untrusted;
    }
    let mut world = World::with(settings);
    let headers = "Contact: <sip:200@192.0.2.11:5060>\nPrivacy: user\n";
    let body = sdp("192.0.2.11", 4000, "");
    let sent = world.phone(&from_phone("INVITE", "sip:100@example.com", "i1", 1, "", headers, &body));
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    let invite = find(&sent, SERVERS, "INVITE");
    world.server(&answer(&invite, 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, "")));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", ""));
    world
}

const NOBODY: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

fn is_nobodys(sent: &Sent) {
    assert!(value(sent, "From").starts_with(NOBODY), "{}", sent.text());
    assert!(!sent.text().contains("Zoë") && !sent.text().contains("200@"), "{}", sent.text());
}

#[test]
fn what_the_appliance_says_for_a_caller_who_is_nobody_there_is_said_by_nobody() {
    let timed = Conversions { session_timer_seconds: 1800, ..Conversions::default() };
    let mut world = withheld(Conversions::default(), timed);
    let refresh = find(&world.wait(MINUTE * 15), SERVERS, "INVITE sip:100@");
    is_nobodys(&refresh);
    assert_eq!(value(&refresh, "From"), format!("{NOBODY};tag=p"));
    assert_eq!(value(&refresh, "Contact"), "<sip:anonymous@198.51.100.1:8060>");
}

#[test]
fn a_transfer_tells_nobody_of_a_party_who_is_nobody_there() {
    let converts = Conversions { refer: ReferStyle::Reinvite, ..Conversions::default() };
    // He is transferred.
    let mut world = withheld(converts.clone(), Conversions::default());
    let sent = world.server(&refer(1, "Refer-To: <sip:300@example.com>\n"));
    let invite = find(&sent, SERVERS, "INVITE sip:300@");
    is_nobodys(&invite);
    assert_eq!(value(&invite, "Privacy"), "user");
    let sent = pick_up(&mut world, &invite);
    let again = find(&sent, PHONES, "INVITE");
    assert_eq!(value(&again, "To"), "\"Zoë\" <sip:200@example.com>;tag=p");
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    world.phone(&answer(&again, 200, "OK", "p", contact, &sdp("192.0.2.11", 4000, "")));
    let info = from_phone("INFO", "sip:100@192.0.2.1:8060;x=1", "n1", 2, ";tag=s", "", "");
    is_nobodys(&find(&world.phone(&info), SERVERS, "INFO sip:300@"));

    // He transfers another one, who goes on in the dialog with nobody.
    let mut world = withheld(Conversions::default(), converts);
    let refer = refer_of_phone();
    let refer = refer.replace("Refer-To", "Referred-By: \"Zoë\" <sip:200@example.com>\nRefer-To");
    let invite = find(&world.phone(&refer), SERVERS, "INVITE sip:300@");
    assert!(!invite.text().contains("Zoë") && !invite.text().contains("200@"), "{}", invite.text());
    let sent = pick_up(&mut world, &invite);
    let again = find(&sent, SERVERS, "INVITE sip:100@198.51.100.20:5070");
    is_nobodys(&again);
    world.server(&answer(&again, 200, "OK", "s", "", &sdp("198.51.100.20", 6000, "")));
    let bye = find(&world.server(&from_target(&invite, "BYE", 1, "", "")), SERVERS, "BYE sip:100@");
    is_nobodys(&bye);
    assert_eq!((value(&bye, "Call-ID"), value(&bye, "From")), ("c1".into(), format!("{NOBODY};tag=p")));
}

#[test]
fn a_transferee_with_an_offer_of_its_own_under_way_is_told_of_its_target_after_that() {
    let mut world = world();
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let hold = sdp("192.0.2.11", 4000, "a=sendonly\n");
    let hold = from_phone("INVITE", "sip:100@192.0.2.1:8060;x=1", "h1", 2, ";tag=s", contact, &hold);
    let hold = find(&world.phone(&hold), SERVERS, "INVITE");
    let invite = begin(&mut world);
    let sent = pick_up(&mut world, &invite);
    find(&sent, SERVERS, "ACK sip:300@");
    none(&sent, PHONES, "INVITE");
    let held = sdp("198.51.100.20", 6000, "a=recvonly\n");
    world.server(&answer(&hold, 200, "OK", "s", "", &held));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "h2", 2, ";tag=s", "", ""));
    let again = find(&world.wait(Duration::from_secs(2)), PHONES, "INVITE");
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 200 OK");
}

#[test]
fn a_target_that_answers_without_a_description_is_let_go() {
    let mut world = world();
    let invite = begin(&mut world);
    let contact = "Contact: <sip:300@198.51.100.30:5080>\n";
    let sent = world.server(&answer(&invite, 200, "OK", "t", contact, ""));
    find(&sent, SERVERS, "ACK sip:300@198.51.100.30:5080");
    find(&sent, SERVERS, "BYE sip:300@198.51.100.30:5080");
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 488 Not Acceptable Here");
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_transfer_goes_on_whatever_peers_are_configured_for_by_then() {
    let mut world = world();
    world.proxy.settings.peers = settings().peers;
    transferred(&mut world);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn of_two_who_answer_for_the_target_the_second_is_hung_up_with() {
    let mut world = world();
    let invite = begin(&mut world);
    let first = answer(
        &invite,
        200,
        "OK",
        "t",
        "Contact: <sip:300@198.51.100.30:5080>\n",
        &sdp("198.51.100.30", 7000, ""),
    );
    let second = answer(
        &invite,
        200,
        "OK",
        "u",
        "Contact: <sip:300@198.51.100.31:5081>\n",
        &sdp("198.51.100.31", 7100, ""),
    );
    let sent = world.server(&first);
    find(&sent, SERVERS, "ACK sip:300@198.51.100.30:5080");
    let again = find(&sent, PHONES, "INVITE");
    let sent = world.server(&second);
    let ack = find(&sent, SERVERS, "ACK sip:300@198.51.100.31:5081");
    let bye = find(&sent, SERVERS, "BYE sip:300@198.51.100.31:5081");
    for sent in [&ack, &bye] {
        assert_eq!(value(sent, "To"), format!("{};tag=u", value(&invite, "To")));
    }
    assert_eq!((value(&ack, "CSeq"), value(&bye, "CSeq")), ("1 ACK".into(), "2 BYE".into()));
    // Its answer comes again, which needs an ACK and no second BYE; what it asks for goes nowhere.
    let sent = world.server(&second);
    find(&sent, SERVERS, "ACK sip:300@198.51.100.31:5081");
    none(&sent, SERVERS, "BYE");
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 200 OK");
    for (method, expected) in [("INFO", "SIP/2.0 481"), ("BYE", "SIP/2.0 200")] {
        let request = from_target(&invite, method, 3, "", "").replace(";tag=t", ";tag=u");
        let sent = world.server(&request);
        assert!(sent.len() == 1 && sent[0].first_line().starts_with(expected), "{sent:?}");
    }
    find(&world.server(&first), SERVERS, "ACK sip:300@198.51.100.30:5080");
    assert_eq!(world.proxy.active_calls(), 1);
    let info = find(&world.server(&from_target(&invite, "INFO", 4, "", "")), PHONES, "INFO");
    assert_eq!(value(&info, "Call-ID"), "c1");
}

#[test]
fn a_refer_in_a_dialog_beside_the_one_that_was_answered_passes() {
    let mut world = World::with(converting(ReferStyle::Reinvite, ReferStyle::Pass));
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let body = sdp("192.0.2.11", 4000, "");
    let invite = from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &body);
    let invite = find(&world.phone(&invite), SERVERS, "INVITE");
    for (tag, address) in [("s", "198.51.100.20"), ("s2", "198.51.100.21")] {
        let contact = format!("Contact: <sip:100@{address}:5070>\n");
        world.server(&answer(&invite, 200, "OK", tag, &contact, &sdp(address, 6000, "")));
    }
    let beside = refer(1, "Refer-To: <sip:300@example.com>\n").replace(";tag=s", ";tag=s2");
    let sent = world.server(&beside);
    find(&sent, PHONES, "REFER");
    none(&sent, SERVERS, "INVITE");
}

#[test]
fn a_transferee_that_keeps_a_timer_goes_on_with_it_after_it_is_joined() {
    let phones =
        Conversions { refer: ReferStyle::Reinvite, session_timer_seconds: 1800, ..Conversions::default() };
    let peers = Peers::of_networks([(PHONES, phones), (SERVERS, Conversions::default())], &[]);
    let mut world = World::with(Settings { peers, ..settings() });
    let headers = "Contact: <sip:200@192.0.2.11:5060>\nSupported: timer\n";
    let body = sdp("192.0.2.11", 4000, "");
    let invite = from_phone("INVITE", "sip:100@example.com", "i1", 1, "", headers, &body);
    let invite = find(&world.phone(&invite), SERVERS, "INVITE");
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    let sent = world.server(&answer(&invite, 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, "")));
    assert_eq!(value(&sent[0], "Session-Expires"), "1800;refresher=uas");
    let invite = begin(&mut world);
    let sent = pick_up(&mut world, &invite);
    let again = find(&sent, PHONES, "INVITE");
    assert_eq!(value(&again, "Session-Expires"), "1800;refresher=uac");
    // It wants a longer interval.
    let mut sent = world.phone(&answer(&again, 422, "Session Interval Too Small", "p", "Min-SE: 3600\n", ""));
    sent.extend(world.wait(Duration::ZERO));
    let again = find(&sent, PHONES, "INVITE");
    assert_eq!(value(&again, "Session-Expires"), "3600;refresher=uac");
    let told = "Session-Expires: 3600;refresher=uac\nSupported: timer\nContact: <sip:200@192.0.2.11:5060>\n";
    let sent = world.phone(&answer(&again, 200, "OK", "p", told, &sdp("192.0.2.11", 4000, "")));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 200 OK");
    none(&world.wait(Duration::from_secs(1799)), PHONES, "INVITE");
    let refresh = find(&world.wait(Duration::from_secs(2)), PHONES, "INVITE sip:200@192.0.2.11:5060");
    assert_eq!(
        (value(&refresh, "Call-ID"), value(&refresh, "Session-Expires")),
        ("c1".into(), "3600;refresher=uac".into())
    );
}

#[test]
fn a_transferor_is_told_what_is_news() {
    let mut world = world();
    let invite = begin(&mut world);
    let contact = "Contact: <sip:300@198.51.100.30:5080>\n";
    for (status, news) in [(180, true), (180, false), (183, true), (180, false), (183, false)] {
        let sent = world.server(&answer(&invite, status, "Progress", "t", contact, ""));
        let told = sent.iter().filter(|sent| sent.first_line().starts_with("NOTIFY")).count();
        assert_eq!(told, usize::from(news), "{status}");
    }
}
