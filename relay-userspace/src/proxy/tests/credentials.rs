//! Challenges that are answered for phones, and those that pass.

use super::harness::*;
use crate::{proxy::Measure, sip::wire::HeaderName};

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"abc\", qop=\"auth\", algorithm=MD5\n";

fn world() -> World {
    let mut world = World::new();
    world.set_entry(&["2200".to_owned()]);
    world
}

fn register(user: &str, cseq: u32, more: &str) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr{cseq}\nFrom: <sip:{user}@example.com>;tag=r{cseq}\n\
         To: <sip:{user}@example.com>\nCall-ID: reg\nCSeq: {cseq} REGISTER\nContact: <sip:{user}@192.0.2.11:5060>\n{more}Expires: 3600\n\n"
    )
}

fn header(sent: &Sent, name: HeaderName) -> Option<String> {
    sent.message().header(name).map(|header| String::from_utf8_lossy(header.value).into_owned())
}

#[test]
fn a_phone_with_an_entry_registers_without_seeing_the_challenge() {
    for user in ["200", "2200"] {
        let mut world = world();
        let first = world.phone(&register(user, 1, "Authorization: Digest username=\"old\"\n")).remove(0);
        let sent = world.server(&answer(&first, 401, "Unauthorized", "t", CHALLENGE, ""));
        assert_eq!(sent.len(), 1, "the phone hears nothing yet");
        let again = &sent[0];
        assert_eq!(again.message().cseq(), 2, "a request that is sent again has a higher number");
        let authorization = header(again, HeaderName::Authorization).unwrap();
        assert!(
            authorization.starts_with("Digest username=\"station200\", realm=\"example.com\", nonce=\"abc\", uri=\"sip:example.com\", response=\""),
            "{authorization}"
        );
        assert_eq!(again.text().matches("Authorization:").count(), 1, "the phone's own is gone");
        let contact = header(again, HeaderName::Contact).unwrap();
        let ok = answer(again, 200, "OK", "t", &format!("Contact: {contact};expires=60\n"), "");
        let sent = world.server(&ok);
        assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
        assert_eq!(sent[0].message().cseq(), 1, "the number that the phone knows");
        assert_eq!(world.proxy.binding_count(), 1);
        // A refresh goes on with the server's numbers.
        let refresh = world.phone(&register(user, 2, "")).remove(0);
        assert_eq!(refresh.message().cseq(), 3);
        assert_eq!(world.count(Measure::ChallengeAnswered), 1);
    }
}

#[test]
fn a_phone_without_an_entry_gets_the_challenge_as_it_came() {
    let mut world = world();
    let first = world.phone(&register("300", 1, "")).remove(0);
    let sent = world.server(&answer(&first, 401, "Unauthorized", "t", CHALLENGE, ""));
    assert_eq!((sent[0].network, sent[0].first_line().as_str()), (PHONES, "SIP/2.0 401 Unauthorized"));
    assert!(sent[0].text().contains(CHALLENGE));
}

#[test]
fn a_password_that_the_server_does_not_take_is_tried_once_and_a_stale_nonce_once_more() {
    let mut world = world();
    let first = world.phone(&register("200", 1, "")).remove(0);
    let again = world.server(&answer(&first, 401, "Unauthorized", "t", CHALLENGE, "")).remove(0);
    let stale = CHALLENGE.replace("nonce=\"abc\"", "nonce=\"def\", stale=true");
    let third = world.server(&answer(&again, 401, "Unauthorized", "t", &stale, "")).remove(0);
    assert!(header(&third, HeaderName::Authorization).unwrap().contains("nonce=\"def\""));
    let sent = world.server(&answer(&third, 401, "Unauthorized", "t", &stale, ""));
    assert_eq!((sent[0].network, sent[0].first_line().as_str()), (PHONES, "SIP/2.0 401 Unauthorized"));
    assert_eq!(sent[0].message().cseq(), 1);
    assert_eq!(world.count(Measure::CredentialsRefused), 1);
}

#[test]
fn a_call_with_a_challenge_keeps_one_numbering_toward_each_side_until_its_end() {
    let mut world = world();
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let invite =
        from_phone("INVITE", "sip:100@example.com", "i1", 7, "", contact, &sdp("192.0.2.11", 4000, ""));
    let sent = world.phone(&invite);
    let first = sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone();
    let challenge = CHALLENGE.replace("WWW-Authenticate", "Proxy-Authenticate");
    let sent = world.server(&answer(&first, 407, "Authenticate", "x", &challenge, ""));
    let lines: Vec<String> = sent.iter().map(Sent::first_line).collect();
    assert_eq!(lines, ["ACK sip:100@example.com SIP/2.0", "INVITE sip:100@example.com SIP/2.0"]);
    assert_eq!((sent[0].message().cseq(), sent[1].message().cseq()), (7, 8));
    assert!(header(&sent[1], HeaderName::ProxyAuthorization).is_some());
    let ok = answer(
        &sent[1],
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&ok);
    assert_eq!(sent[0].message().cseq(), 7);
    let ack = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 7, ";tag=s", "", ""));
    assert_eq!(ack[0].message().cseq(), 8, "the ACK has its INVITE's number");
    let bye = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 8, ";tag=s", "", "")).remove(0);
    assert_eq!(bye.message().cseq(), 9);
    // Even the BYE may be challenged.
    let again = world.server(&answer(&bye, 407, "Authenticate", "s", &challenge, "")).remove(0);
    assert_eq!(
        (again.first_line().as_str(), again.message().cseq()),
        ("BYE sip:100@198.51.100.20:5070 SIP/2.0", 10)
    );
    let sent = world.server(&answer(&again, 200, "OK", "s", "", ""));
    assert_eq!((sent[0].first_line().as_str(), sent[0].message().cseq()), ("SIP/2.0 200 OK", 8));
    assert_eq!(world.proxy.active_calls(), 0);
    world.wait(MINUTE);
    world.assert_empty();
    assert_eq!(world.proxy.offsets.len(), 0);
}
