//! Offers for peers that take no INVITE without one.

use std::time::Duration;

use super::harness::*;
use crate::{
    config::{Conversions, DelayedOffers},
    media::MediaError,
    proxy::{Conversion, Measure, Peers, Settings},
};

/// Phones get an offer, servers do not.
fn world() -> World {
    let phones = Conversions { delayed_offers: DelayedOffers::Offer, ..Conversions::default() };
    let peers = Peers::of_networks([(PHONES, phones), (SERVERS, Conversions::default())], &[]);
    World::with(Settings { peers, ..settings() })
}

fn text_of(sent: &[Sent], network: crate::net::NetworkId, start: &str) -> Sent {
    sent.iter()
        .find(|sent| sent.network == network && sent.first_line().starts_with(start))
        .unwrap_or_else(|| panic!("no {start} in {sent:?}"))
        .clone()
}

/// What the phone answers to the appliance's offer.
fn of_phone(formats: &str) -> String {
    sdp("192.0.2.11", 4000, "").replace("RTP/AVP 0 101", &format!("RTP/AVP {formats}"))
}

/// The server calls without an offer, and the phone answers the appliance's. Returns what the server got.
fn ring(world: &mut World, formats: &str) -> Sent {
    let uri = world.register();
    let invite = from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20:5070>\n", "");
    let sent = world.server(&invite);
    let invite = text_of(&sent, PHONES, "INVITE");
    let contact = "Contact: <sip:200@192.0.2.11:5060;line=7>\n";
    let sent = world.phone(&answer(&invite, 200, "OK", "p", contact, &of_phone(formats)));
    text_of(&sent, SERVERS, "SIP/2.0 200")
}

fn ack(body: &str) -> String {
    from_server("ACK", "sip:200@198.51.100.1:8060;line=7", "j2", 1, ";tag=p", "", body)
}

#[test]
fn the_first_invite_gets_an_offer_whose_answer_is_the_callers_offer() {
    let mut world = world();
    let uri = world.register();
    let invite = from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20:5070>\n", "");
    let sent = world.server(&invite);
    let invite = text_of(&sent, PHONES, "INVITE");
    let body = "v=0\no=branchline 2 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n\
         m=audio 16384 RTP/AVP 8 0 9 18 96 101\n\
         a=rtpmap:8 PCMA/8000\na=rtpmap:0 PCMU/8000\na=rtpmap:9 G722/8000\na=rtpmap:18 G729/8000\na=fmtp:18 annexb=no\n\
         a=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n\
         a=ptime:20\na=sendrecv\n";
    let text = invite.text();
    let (head, found) = text.split_once("\n\n").unwrap();
    assert_eq!(found.replace("branchline 1 1", "branchline 2 1"), body);
    assert!(head.contains("Content-Type: application/sdp"), "{head}");
    let contact = "Contact: <sip:200@192.0.2.11:5060;line=7>\n";
    let sent = world.phone(&answer(&invite, 200, "OK", "p", contact, &of_phone("0 101")));
    let ok = text_of(&sent, SERVERS, "SIP/2.0 200");
    assert!(ok.text().contains("c=IN IP4 198.51.100.1") && ok.text().contains("RTP/AVP 0 101"));
    let sent = world.server(&ack(&sdp("198.51.100.20", 6000, "")));
    assert_eq!(sent.len(), 1);
    let acked = sent[0].text();
    assert!(acked.starts_with("ACK") && acked.ends_with("Content-Length: 0\n\n"), "{acked}");
    assert!(!acked.contains("Content-Type"), "{acked}");
    assert_eq!(world.media.log, ["offer s - 1>0", "answer s p 1>0", "offer s p 1>0", "answer s p 1>0"]);
    assert_eq!(world.count(Measure::Converted(Conversion::DelayedOffer)), 1);
    // The ACK comes again: nothing is negotiated again, and it has no description this time either.
    let again = world.server(&ack(&sdp("198.51.100.20", 6000, "")));
    assert!(again[0].text().ends_with("Content-Length: 0\n\n"));
    assert_eq!(world.media.log.len(), 4);
    assert_eq!(world.wait(Duration::from_secs(5)), []);
}

#[test]
fn a_peer_is_told_by_a_re_invite_what_it_has_to_know_of_the_callers_answer() {
    let mut world = world();
    let ok = ring(&mut world, "0 8 101");
    assert!(ok.text().contains("RTP/AVP 0 8 101"));
    let chosen = sdp("198.51.100.20", 6000, "").replace("RTP/AVP 0 101", "RTP/AVP 8 101");
    let sent = world.server(&ack(&chosen));
    assert_eq!(sent.len(), 1, "{sent:?}");
    let sent = world.wait(Duration::ZERO);
    let invite = text_of(&sent, PHONES, "INVITE");
    let text = invite.text();
    assert!(text.contains("CSeq: 2 INVITE") && text.contains("RTP/AVP 8 101"), "{text}");
    let sent = world.phone(&answer(&invite, 200, "OK", "p", "", &of_phone("8 101")));
    assert!(text_of(&sent, PHONES, "ACK").text().contains("CSeq: 2 ACK"));
    // The server's numbers are raised from now on.
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060;line=7", "j3", 2, ";tag=p", "", "");
    assert!(text_of(&world.server(&bye), PHONES, "BYE").text().contains("CSeq: 3 BYE"));
}

#[test]
fn a_later_invite_without_an_offer_gets_what_its_sender_has_said_last() {
    let mut world = world();
    establish_inward(&mut world);
    let again = from_server(
        "INVITE",
        "sip:200@198.51.100.1:8060;line=7",
        "j5",
        2,
        ";tag=p",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        "",
    );
    let sent = world.server(&again);
    let invite = text_of(&sent, PHONES, "INVITE");
    assert!(invite.text().ends_with(
        &sdp("192.0.2.1", 16384, "").replace("o=- 1 1 IN IP4 192.0.2.1", "o=- 1 1 IN IP4 198.51.100.20")
    ));
    let sent = world.phone(&answer(&invite, 200, "OK", "p", "", &of_phone("0 101")));
    text_of(&sent, SERVERS, "SIP/2.0 200");
    // Media goes to another machine, as third-party call control has it: nothing that the phone has to know.
    let ack = from_server(
        "ACK",
        "sip:200@198.51.100.1:8060;line=7",
        "j6",
        2,
        ";tag=p",
        "",
        &sdp("198.51.100.30", 7000, ""),
    );
    let sent = world.server(&ack);
    assert!(sent.len() == 1 && sent[0].text().ends_with("Content-Length: 0\n\n"), "{sent:?}");
    assert_eq!(world.wait(Duration::from_secs(5)), []);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_call_whose_caller_never_answers_has_an_end_like_any_other() {
    let mut world = world();
    ring(&mut world, "0 101");
    // An ACK without an answer passes; an offer that is refused leaves nothing behind.
    let sent = world.server(&ack(""));
    assert!(sent[0].text().starts_with("ACK"));
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060;line=7", "j3", 2, ";tag=p", "", "");
    let bye = text_of(&world.server(&bye), PHONES, "BYE");
    world.phone(&answer(&bye, 200, "OK", "p", "", ""));
    world.wait(MINUTE * 2);
    world.assert_no_call();

    let mut world = self::world();
    let uri = world.register();
    let invite = from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20:5070>\n", "");
    let invite = text_of(&world.server(&invite), PHONES, "INVITE");
    let sent = world.phone(&answer(&invite, 486, "Busy Here", "p", "", ""));
    text_of(&sent, SERVERS, "SIP/2.0 486");
    world.wait(MINUTE * 2);
    world.assert_no_call();
}

#[test]
fn a_peer_that_takes_them_gets_them_as_they_came() {
    let mut world = World::new();
    let uri = world.register();
    let invite = from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20:5070>\n", "");
    let invite = text_of(&world.server(&invite), PHONES, "INVITE");
    assert!(invite.text().ends_with("Content-Length: 0\n\n"));
    assert_eq!(world.media.log, Vec::<String>::new());
}

#[test]
fn the_callers_answer_may_come_in_prack() {
    let mut world = world();
    let uri = world.register();
    let headers = "Contact: <sip:100@198.51.100.20:5070>\nSupported: 100rel\n";
    let invite =
        text_of(&world.server(&from_server("INVITE", &uri, "j1", 1, "", headers, "")), PHONES, "INVITE");
    let headers = "Contact: <sip:200@192.0.2.11:5060;line=7>\nRequire: 100rel\nRSeq: 1\n";
    let early = answer(&invite, 183, "Session Progress", "p", headers, &of_phone("0 101"));
    let early = text_of(&world.phone(&early), SERVERS, "SIP/2.0 183");
    assert!(early.text().contains("RTP/AVP 0 101"));
    let rack = "RAck: 1 1 INVITE\n";
    let chosen = sdp("198.51.100.20", 6000, "a=recvonly\n");
    let prack = from_server("PRACK", "sip:200@198.51.100.1:8060;line=7", "k1", 2, ";tag=p", rack, &chosen);
    let prack = text_of(&world.server(&prack), PHONES, "PRACK");
    assert!(prack.text().ends_with("Content-Length: 0\n\n"), "{}", prack.text());
    assert_eq!(world.media.log[2..], ["offer s p 1>0", "answer s p 1>0"]);
    world.phone(&answer(&prack, 200, "OK", "p", "", ""));
    // What the phone has to know waits until it has answered.
    assert!(world.wait(Duration::from_secs(3)).iter().all(|sent| !sent.first_line().starts_with("INVITE")));
    world.phone(&answer(&invite, 200, "OK", "p", "Contact: <sip:200@192.0.2.11:5060;line=7>\n", ""));
    world.server(&ack(""));
    let told = text_of(&world.wait(Duration::from_secs(2)), PHONES, "INVITE");
    assert!(told.text().ends_with("a=recvonly\n"), "{}", told.text());
    // One session by one name, with a version that has risen.
    assert!(
        told.text().contains("o=branchline 2 2 IN IP4 192.0.2.1")
            || told.text().contains("o=branchline 1 2 IN IP4 192.0.2.1"),
        "{}",
        told.text()
    );
}

#[test]
fn where_the_callers_network_takes_only_srtp_the_invite_passes_and_without_ports_it_is_refused() {
    let mut world = world();
    let uri = world.register();
    world.media.refuse = Some(MediaError::Srtp("network centre takes only SRTP".into()));
    let invite = from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20:5070>\n", "");
    let passed = text_of(&world.server(&invite), PHONES, "INVITE");
    assert!(passed.text().ends_with("Content-Length: 0\n\n"));
    assert_eq!(world.count(Measure::MediaRefused), 0);

    let mut world = self::world();
    world.register();
    world.media.full = true;
    let sent = world.server(&invite);
    text_of(&sent, SERVERS, "SIP/2.0 503 No Media Ports");
}
