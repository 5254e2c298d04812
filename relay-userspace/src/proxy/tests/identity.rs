//! Who calls, where trust ends: RFC 3323, 3325, 7044.

use super::harness::*;
use crate::{
    net::{Identity, NetworkId},
    proxy::{DropReason, Measure},
};

fn world(untrusted: NetworkId) -> World {
    let mut settings = settings();
    for network in settings.networks.iter_mut().filter(|network| network.id == untrusted) {
        network.identity = Identity::Untrusted;
    }
    World::with(settings)
}

const PERSONAL: &str = "Contact: \"Zoë\" <sip:200@192.0.2.11:5060>\n\
    P-Asserted-Identity: \"Zoë\" <sip:+49711200@example.com>\n\
    P-Asserted-Identity: <tel:+49711200>\n\
    P-Preferred-Identity: <sip:200@example.com>\n\
    Remote-Party-ID: <sip:200@example.com>;party=calling\n\
    History-Info: <sip:300@example.com>;index=1\n\
    Diversion: <sip:300@example.com>;reason=unconditional;privacy=full\n\
    Subject: lunch\n\
    User-Agent: Telephone/1\n\
    X-Own: 7\n";

fn call(privacy: &str) -> String {
    from_phone("INVITE", "sip:100@example.com", "i1", 1, "", &format!("{PERSONAL}{privacy}"), "")
}

#[test]
fn toward_an_untrusted_network_goes_what_privacy_leaves() {
    type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);
    let rows: [Row; 4] = [
        (
            "no privacy",
            "",
            &[
                "P-Asserted-Identity: \"Zoë\"",
                "P-Asserted-Identity: <tel",
                "Remote-Party-ID",
                "History-Info",
                "From: \"Zoë\"",
                "Subject",
            ],
            &["P-Preferred-Identity", "Diversion"],
        ),
        (
            "the asserted identity",
            "Privacy: id\n",
            &["History-Info", "From: \"Zoë\"", "Privacy: id", "Subject", "X-Own: 7"],
            &["P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID"],
        ),
        (
            "who diverted",
            "Privacy: history\n",
            &["P-Asserted-Identity", "From: \"Zoë\""],
            &["History-Info", "Diversion"],
        ),
        (
            "the user",
            "Privacy: user;critical\n",
            &[
                "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=p\n",
                "Contact: <sip:anonymous@198.51.100.1:8060>\n",
                "Privacy: user;critical",
                "X-Own: 7",
                "Call-ID: c1",
            ],
            &["Zoë", "200@", "P-Asserted-Identity", "Subject", "User-Agent"],
        ),
    ];
    for (description, privacy, kept, gone) in rows {
        let sent = world(SERVERS).phone(&call(privacy));
        let invite = sent.iter().find(|sent| sent.network == SERVERS).unwrap().text();
        for text in kept {
            assert!(invite.contains(text), "{description}: {text} is missing in\n{invite}");
        }
        for text in gone {
            assert!(!invite.contains(text), "{description}: {text} is left in\n{invite}");
        }
        let trusted = World::new().phone(&call(privacy));
        let trusted = trusted.iter().find(|sent| sent.network == SERVERS).unwrap().text();
        let headers = PERSONAL.split_once('\n').unwrap().1;
        assert!(
            trusted.contains(headers) && trusted.contains("From: \"Zoë\""),
            "within trust nothing changes"
        );
    }
}

#[test]
fn what_an_untrusted_network_asserts_is_taken_out_in_requests_and_responses() {
    let mut world = world(PHONES);
    let sent = world.phone(&call("Privacy: id\n"));
    let invite = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    assert!(!invite.text().contains("P-Asserted-Identity"));
    assert!(invite.text().contains("P-Preferred-Identity"), "it is for the network that asserts");
    let connected = "P-Asserted-Identity: <sip:101@example.com>\nPrivacy: id\nX-Own: 8\n";
    let sent = world.server(&answer(invite, 180, "Ringing", "s", connected, ""));
    let ringing = sent[0].text();
    assert!(!ringing.contains("P-Asserted-Identity") && ringing.contains("X-Own: 8"), "{ringing}");
}

#[test]
fn a_caller_who_is_nobody_there_is_himself_here_for_the_whole_dialog() {
    let mut world = world(SERVERS);
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    let sent = world.phone(&call("Privacy: user\n"));
    let invite = sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone();
    let sent = world.server(&answer(&invite, 200, "OK", "s", contact, ""));
    assert!(sent[0].text().contains("From: \"Zoë\" <sip:200@example.com>;tag=p\n"), "{}", sent[0].text());
    let sent = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", ""));
    assert!(sent[0].text().contains("From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=p\n"));
    // Both ways, and after a restart of what is kept of it.
    let nobody = |request: String| {
        request.replace("\"Zoë\" <sip:200@example.com>", "<sip:anonymous@anonymous.invalid>")
    };
    let info = nobody(from_server("INFO", "sip:anonymous@198.51.100.1:8060", "n1", 5, ";tag=p", "", ""));
    let sent = world.server(&info);
    let info = sent.iter().find(|sent| sent.network == PHONES).unwrap();
    assert_eq!(info.first_line(), "INFO sip:200@192.0.2.11:5060 SIP/2.0");
    assert!(info.text().contains("To: \"Zoë\" <sip:200@example.com>;tag=p\n"), "{}", info.text());
    let sent = world.phone(&answer(info, 200, "OK", "p", "", ""));
    assert!(sent[0].text().contains("To: <sip:anonymous@anonymous.invalid>;tag=p\n"), "{}", sent[0].text());
    let told = "Contact: \"Zoë\" <sip:200@192.0.2.11:5060>\nP-Asserted-Identity: <sip:200@example.com>\n";
    let update = nobody(from_server(
        "UPDATE",
        "sip:anonymous@198.51.100.1:8060",
        "u1",
        6,
        ";tag=p",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        "",
    ));
    let sent = world.server(&update);
    let update = sent.iter().find(|sent| sent.network == PHONES).unwrap().clone();
    let sent = world.phone(&answer(&update, 200, "OK", "p", told, ""));
    let text = sent[0].text();
    assert!(text.contains("Contact: <sip:anonymous@198.51.100.1:8060>\n"), "{text}");
    assert!(!text.contains("200@") && !text.contains("P-Asserted"), "{text}");
    let identity = "P-Asserted-Identity: <sip:200@example.com>\n";
    let sent = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", identity, ""));
    let bye = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    assert!(!bye.text().contains("Zoë") && !bye.text().contains("200@"), "{}", bye.text());
    assert!(!bye.text().contains("P-Asserted"), "{}", bye.text());
    let sent = world.server(&answer(bye, 200, "OK", "s", "", ""));
    assert!(sent[0].text().contains("From: \"Zoë\" <sip:200@example.com>;tag=p\n"));
}

#[test]
fn who_would_rather_not_call_than_be_known_is_told_so() {
    let mut world = world(SERVERS);
    let sent = world.phone(&call("Privacy: header;critical\n"));
    assert_eq!(sent.last().unwrap().first_line(), "SIP/2.0 500 Privacy Not Possible");
    assert_eq!(world.count(Measure::Dropped(DropReason::PrivacyNotPossible)), 1);
    world.wait(MINUTE);
    world.assert_empty();
}
