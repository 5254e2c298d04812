//! Session timers that the appliance keeps where not both sides keep one.

use std::time::Duration;

use super::harness::*;
use crate::{
    config::Conversions,
    proxy::{Conversion, DropReason, Measure, Outcome, Peers, Proxy, Settings},
    store::Epoch,
};

/// A world in which the servers' network has a timer of 1800 s.
fn world() -> World {
    timed(0, 1800)
}

fn timed(phones: u32, servers: u32) -> World {
    let of = |seconds| Conversions { session_timer_seconds: seconds, ..Conversions::default() };
    let peers = Peers::of_networks([(PHONES, of(phones)), (SERVERS, of(servers))], &[]);
    World::with(Settings { peers, ..settings() })
}

/// The phone calls and the server answers, each with these headers. Returns what went to the server and to the phone.
fn call(world: &mut World, asked: &str, told: &str) -> (Sent, Sent) {
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        &format!("Contact: <sip:200@192.0.2.11:5060>\n{asked}"),
        &sdp("192.0.2.11", 4000, ""),
    );
    let invite = world.phone(&invite).into_iter().find(|sent| sent.network == SERVERS).unwrap();
    let ok = answer(
        &invite,
        200,
        "OK",
        "s",
        &format!("Contact: <sip:100@198.51.100.20:5070;x=1>\n{told}"),
        &sdp("198.51.100.20", 6000, ""),
    );
    let ok = world.server(&ok).remove(0);
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", ""));
    (invite, ok)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn has(sent: &Sent, line: &str) -> bool {
    sent.text().lines().any(|found| found == line)
}

fn lines_of(sent: &[Sent]) -> Vec<(u32, String)> {
    sent.iter().map(|sent| (sent.network.0.into(), sent.first_line())).collect()
}

#[test]
fn a_server_is_told_of_a_timer_for_a_phone_that_knows_none_and_is_refreshed_for_it() {
    let mut world = world();
    let told = "Supported: timer\nRequire: timer, 100rel\nSession-Expires: 1800;refresher=uac\nAllow: INVITE, UPDATE\n";
    let (invite, ok) = call(&mut world, "", told);
    for line in ["Supported: timer", "Session-Expires: 1800;refresher=uac", "Min-SE: 90"] {
        assert!(has(&invite, line), "{line}: {}", invite.text());
    }
    assert!(!ok.text().contains("Session-Expires") && has(&ok, "Require: 100rel"), "{}", ok.text());
    assert_eq!(world.count(Measure::Converted(Conversion::SessionTimer)), 1);
    let sent = world.wait(seconds(900));
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        sent[0].text(),
        "UPDATE sip:100@198.51.100.20:5070;x=1 SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
         Max-Forwards: 70\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\n\
         To: <sip:100@example.com>;tag=s\n\
         Call-ID: c1\n\
         CSeq: 2 UPDATE\n\
         Contact: <sip:200@198.51.100.1:8060>\n\
         Supported: timer\n\
         Session-Expires: 1800;refresher=uac\n\
         Min-SE: 90\n\
         Content-Length: 0\n\n"
    );
    let headers = "Session-Expires: 1800;refresher=uac\nRequire: timer\n";
    assert_eq!(world.server(&answer(&sent[0], 200, "OK", "s", headers, "")), []);
    // The phone knows nothing of it: its own numbers go on, and are others at the server.
    let sent = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", ""));
    let bye = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    assert!(has(bye, "CSeq: 3 BYE"), "{}", bye.text());
    let ok = world.server(&answer(bye, 200, "OK", "s", "", ""));
    assert!(has(&ok[0], "CSeq: 2 BYE"), "{}", ok[0].text());
    world.wait(MINUTE * 30);
    world.assert_empty();
}

#[test]
fn two_sides_that_keep_timers_are_left_alone() {
    let mut world = timed(600, 1800);
    let asked = "Supported: timer\nSession-Expires: 1200\nAllow: UPDATE\n";
    let told = "Require: timer\nSession-Expires: 1200;refresher=uas\n";
    let (invite, ok) = call(&mut world, asked, told);
    assert!(has(&invite, "Session-Expires: 1200") && !invite.text().contains("Min-SE"), "{}", invite.text());
    assert!(has(&ok, "Session-Expires: 1200;refresher=uas") && has(&ok, "Require: timer"));
    assert_eq!(world.wait(MINUTE * 60), []);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_phone_that_keeps_timers_is_answered_for_a_server_that_does_not() {
    // A refresher that is named is the one; else it is the appliance.
    let rows = [
        ("nothing asked for", "Supported: timer\n", "Session-Expires: 1800;refresher=uas"),
        ("less asked for", "Supported: timer\nSession-Expires: 600\n", "Session-Expires: 600;refresher=uas"),
        (
            "it refreshes itself",
            "Supported: timer\nSession-Expires: 3600;refresher=uac\n",
            "Session-Expires: 1800;refresher=uac",
        ),
        (
            "a number that is none",
            "Supported: timer\nSession-Expires: 4294967296\n",
            "Session-Expires: 1800;refresher=uas",
        ),
    ];
    for (description, asked, told) in rows {
        let mut world = timed(1800, 0);
        let (_, ok) = call(&mut world, asked, "");
        assert!(has(&ok, told) && has(&ok, "Require: timer"), "{description}: {}", ok.text());
    }
}

#[test]
fn a_side_that_does_not_refresh_although_it_said_so_ends_the_call_for_both() {
    let mut world = world();
    call(&mut world, "", "Session-Expires: 1800;refresher=uas\n");
    let sent = world.wait(seconds(1769));
    assert_eq!(
        lines_of(&sent)[..2],
        [
            (0, "BYE sip:200@192.0.2.11:5060 SIP/2.0".to_owned()),
            (1, "BYE sip:100@198.51.100.20:5070;x=1 SIP/2.0".to_owned()),
        ]
    );
    assert!(has(&sent[0], "CSeq: 1 BYE") && has(&sent[1], "CSeq: 2 BYE"));
    assert_eq!(world.count(Measure::CallEnded(Outcome::Timeout)), 1);
    world.wait(MINUTE * 5);
    world.assert_empty();
}

#[test]
fn a_refresh_of_the_server_passes_as_a_request_of_its_own_and_is_answered_with_the_timer() {
    let mut world = world();
    call(&mut world, "", "Session-Expires: 1800;refresher=uas\n");
    world.wait(seconds(900));
    let refresh = from_server(
        "INVITE",
        "sip:200@198.51.100.1:8060",
        "j2",
        1,
        ";tag=p",
        "Contact: <sip:100@198.51.100.20:5070;x=1>\nSupported: timer\nSession-Expires: 1800;refresher=uac\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&refresh);
    let invite = sent.iter().find(|sent| sent.network == PHONES).unwrap();
    let ok =
        answer(invite, 200, "OK", "p", "Contact: <sip:200@192.0.2.11:5060>\n", &sdp("192.0.2.11", 4000, ""));
    let ok = world.phone(&ok);
    assert!(has(&ok[0], "Session-Expires: 1800;refresher=uac") && has(&ok[0], "Require: timer"));
    world.server(&from_server("ACK", "sip:200@198.51.100.1:8060", "j3", 1, ";tag=p", "", ""));
    world.wait(seconds(1700));
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_phone_without_update_is_refreshed_with_what_it_was_told_last() {
    let mut world = timed(1800, 0);
    call(&mut world, "", "");
    let sent = world.wait(seconds(900));
    assert_eq!(sent[0].network, PHONES);
    let body = sdp("192.0.2.1", 16384, "");
    let length = body.replace('\n', "\r\n").len();
    assert_eq!(
        sent[0].text(),
        format!(
            "INVITE sip:200@192.0.2.11:5060 SIP/2.0\n\
             Via: SIP/2.0/UDP 192.0.2.1:8060;branch=z9hG4bKOURS;rport\n\
             Max-Forwards: 70\n\
             From: <sip:100@example.com>;tag=s\n\
             To: \"Zoë\" <sip:200@example.com>;tag=p\n\
             Call-ID: c1\n\
             CSeq: 1 INVITE\n\
             Contact: <sip:100@192.0.2.1:8060;x=1>\n\
             Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE\n\
             Content-Type: application/sdp\n\
             Content-Length: {length}\n\n{body}"
        )
        .replace("o=- 1 1 IN IP4 192.0.2.1", "o=- 1 1 IN IP4 198.51.100.20")
        .replace(&format!("Content-Length: {length}"), &format!("Content-Length: {}", length + 4))
    );
    let ok = answer(&sent[0], 200, "OK", "p", "", &sdp("192.0.2.11", 4000, ""));
    let acked = world.phone(&ok);
    assert_eq!(acked[0].first_line(), "ACK sip:200@192.0.2.11:5060 SIP/2.0");
    assert!(has(&acked[0], "CSeq: 1 ACK"));
    // The ACK is lost: the 200 comes again, and so does the ACK.
    assert_eq!(world.phone(&ok), acked);
    assert_eq!(world.media.log[2..], ["offer s p 1>0", "answer s p 1>0"]);
    // An answer that says something else is told to the server.
    let sent = world.wait(seconds(900));
    let held = sdp("192.0.2.11", 4000, "a=sendonly\n");
    world.phone(&answer(&sent[0], 200, "OK", "p", "", &held));
    let sent = world.wait(Duration::ZERO);
    assert_eq!(lines_of(&sent), [(1, "INVITE sip:100@198.51.100.20:5070;x=1 SIP/2.0".to_owned())]);
    assert!(sent[0].text().ends_with("a=sendonly\n"), "{}", sent[0].text());
}

#[test]
fn a_refresh_that_finds_no_call_ends_it_for_both_and_others_do_not() {
    let rows = [(481, 0), (408, 0), (488, 1), (401, 1), (500, 1)];
    for (status, left) in rows {
        let mut world = timed(1800, 0);
        call(&mut world, "Allow: UPDATE\n", "");
        let sent = world.wait(seconds(900));
        assert_eq!(sent[0].first_line(), "UPDATE sip:200@192.0.2.11:5060 SIP/2.0");
        world.phone(&answer(&sent[0], status, "No", "p", "", ""));
        assert_eq!(world.proxy.active_calls(), left, "{status}");
    }
    let mut world = timed(1800, 0);
    call(&mut world, "Allow: UPDATE\n", "");
    let sent = world.wait(seconds(940));
    assert!(sent.iter().any(|sent| sent.first_line().starts_with("BYE")), "silence");
    assert_eq!(world.proxy.active_calls(), 0, "silence");
}

#[test]
fn an_interval_that_is_too_short_is_refused_and_one_that_the_server_finds_too_short_is_made_longer() {
    for (description, asked) in [("none", "0"), ("half a minute", "30")] {
        let mut world = world();
        let invite = from_phone(
            "INVITE",
            "sip:100@example.com",
            "i0",
            1,
            "",
            &format!("Contact: <sip:200@192.0.2.11:5060>\nSupported: timer\nSession-Expires: {asked}\n"),
            &sdp("192.0.2.11", 4000, ""),
        );
        let sent = world.phone(&invite);
        let refused = "SIP/2.0 422 Session Interval Too Small";
        assert!(sent.iter().all(|sent| sent.network == PHONES), "{description}");
        assert!(sent[1].first_line() == refused && has(&sent[1], "Min-SE: 90"), "{description}");
        call(&mut world, "Supported: timer\nSession-Expires: 90\n", "");
        let update = from_phone(
            "UPDATE",
            "sip:100@192.0.2.1:8060",
            "u1",
            2,
            ";tag=s",
            &format!("Supported: timer\nSession-Expires: {asked}\n"),
            "",
        );
        let sent = world.phone(&update);
        assert!(sent[0].first_line() == refused && has(&sent[0], "Min-SE: 90"), "{description}");
        assert_eq!(world.count(Measure::Dropped(DropReason::SessionTimer)), 2);
    }
    let mut world = world();
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    );
    let invite = world.phone(&invite).into_iter().find(|sent| sent.network == SERVERS).unwrap();
    let sent = world.server(&answer(&invite, 422, "Session Interval Too Small", "x", "Min-SE: 3600\n", ""));
    let again = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    for line in ["CSeq: 2 INVITE", "Session-Expires: 3600;refresher=uac", "Min-SE: 3600"] {
        assert!(has(again, line), "{line}: {}", again.text());
    }
    // Once is enough: what it says then goes to the phone.
    let sent = world.server(&answer(again, 422, "Session Interval Too Small", "x", "Min-SE: 7200\n", ""));
    assert!(sent.iter().any(|sent| sent.network == PHONES && sent.first_line().starts_with("SIP/2.0 422")));
    world.wait(MINUTE * 5);
    world.assert_empty();
}

#[test]
fn offers_that_meet_are_refused_and_tried_again() {
    let mut world = world();
    call(&mut world, "", "Session-Expires: 1800;refresher=uac\n");
    let refresh = world.wait(seconds(900)).remove(0);
    assert!(refresh.first_line().starts_with("INVITE"));
    for (network, text) in [
        (
            SERVERS,
            from_server(
                "INVITE",
                "sip:200@198.51.100.1:8060",
                "j2",
                1,
                ";tag=p",
                "",
                &sdp("198.51.100.20", 6000, ""),
            ),
        ),
        (
            PHONES,
            from_phone(
                "INVITE",
                "sip:100@192.0.2.1:8060;x=1",
                "i2",
                2,
                ";tag=s",
                "",
                &sdp("192.0.2.11", 4000, ""),
            ),
        ),
    ] {
        let sent = if network == PHONES { world.phone(&text) } else { world.server(&text) };
        assert!(sent.iter().any(|sent| sent.first_line() == "SIP/2.0 491 Request Pending"), "{sent:?}");
    }
    let sent = world.server(&answer(&refresh, 491, "Request Pending", "s", "", ""));
    assert!(sent.iter().all(|sent| sent.first_line().starts_with("ACK")));
    let again = |sent: &Sent| sent.network == SERVERS && sent.first_line().starts_with("INVITE");
    assert!(!world.wait(Duration::from_millis(2_000)).iter().any(again));
    let sent = world.wait(Duration::from_millis(2_100));
    assert!(sent.iter().any(again));
}

#[test]
fn timers_numbers_and_descriptions_outlive_the_process() {
    let mut world = world();
    call(&mut world, "", "Session-Expires: 1800;refresher=uac\nAllow: UPDATE\n");
    let first = world.wait(seconds(900)).remove(0);
    world.server(&answer(&first, 200, "OK", "s", "Session-Expires: 1800;refresher=uac\n", ""));
    let epoch = Epoch { now: world.now, unix_ms: 1_000_000_000 };
    let records = world.proxy.records(&epoch);
    let text = serde_json::to_string(&records).unwrap();
    let records: Vec<crate::proxy::CallRecord> = serde_json::from_str(&text).unwrap();
    let of = |seconds| Conversions { session_timer_seconds: seconds, ..Conversions::default() };
    let peers = Peers::of_networks([(PHONES, of(0)), (SERVERS, of(1800))], &[]);
    world.proxy = Proxy::new(Settings { peers, ..settings() }, world.now);
    for record in &records {
        world.proxy.take_up(record, &super::standing::same_networks(), &epoch).unwrap();
    }
    let second = world.wait(seconds(900)).remove(0);
    assert!(has(&second, "CSeq: 3 UPDATE"), "{}", second.text());
    let bye = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", ""));
    assert!(bye.iter().any(|sent| has(sent, "CSeq: 4 BYE")), "{bye:?}");
}

#[test]
fn a_server_that_challenges_a_refresh_is_answered_with_the_phones_entry_once() {
    let mut world = world();
    world.set_entry(&[]);
    call(&mut world, "", "Session-Expires: 1800;refresher=uac\nAllow: UPDATE\n");
    let first = world.wait(seconds(900)).remove(0);
    let challenge =
        "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"abc\", qop=\"auth\", algorithm=MD5\n";
    let again = world.server(&answer(&first, 401, "Unauthorized", "s", challenge, "")).remove(0);
    assert!(has(&again, "CSeq: 3 UPDATE") && has(&again, "Session-Expires: 1800;refresher=uac"));
    assert!(
        again.text().contains("Authorization: Digest username=\"station200\", realm=\"example.com\", nonce=\"abc\", uri=\"sip:100@198.51.100.20:5070;x=1\""),
        "{}",
        again.text()
    );
    // It does not take it: the call lives all the same.
    assert_eq!(world.server(&answer(&again, 401, "Unauthorized", "s", challenge, "")), []);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_refresh_that_rings_without_an_end_is_cancelled_and_so_is_one_when_the_call_ends() {
    let mut world = timed(1800, 0);
    call(&mut world, "", "");
    let invite = world.wait(seconds(900)).remove(0);
    assert_eq!(invite.first_line(), "INVITE sip:200@192.0.2.11:5060 SIP/2.0");
    world.phone(&answer(&invite, 180, "Ringing", "p", "", ""));
    let sent = world.wait(seconds(200));
    assert_eq!(sent[0].first_line(), "CANCEL sip:200@192.0.2.11:5060 SIP/2.0");
    world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    world.phone(&answer(&invite, 487, "Request Terminated", "p", "", ""));
    assert_eq!(world.proxy.active_calls(), 1);
    // The next one is under way when the server hangs up.
    let sent = world.wait(seconds(900));
    let invite = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap().clone();
    world.phone(&answer(&invite, 180, "Ringing", "p", "", ""));
    let sent = world.server(&from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 1, ";tag=p", "", ""));
    let bye = sent.iter().find(|sent| sent.network == PHONES).unwrap().clone();
    let sent = world.phone(&answer(&bye, 200, "OK", "p", "", ""));
    assert!(sent.iter().any(|sent| sent.first_line().starts_with("CANCEL")), "{sent:?}");
    world.wait(MINUTE * 5);
    world.assert_empty();
    assert!(world.proxy.spoken.is_empty());
}

#[test]
fn an_ack_that_comes_again_has_its_invites_number_whatever_was_said_meanwhile() {
    for restarted in [false, true] {
        let mut world = world();
        call(&mut world, "", "Session-Expires: 1800;refresher=uac\nAllow: UPDATE\n");
        if restarted {
            let epoch = Epoch { now: world.now, unix_ms: 1_000_000_000 };
            let records = world.proxy.records(&epoch);
            let settings = world.proxy.settings.clone();
            world.proxy = Proxy::new(settings, world.now);
            world.proxy.take_up(&records[0], &super::standing::same_networks(), &epoch).unwrap();
        }
        let sent = world.wait(seconds(900));
        assert!(has(&sent[0], "CSeq: 2 UPDATE"), "{}", sent[0].text());
        let ack = from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", "");
        assert!(has(&world.phone(&ack)[0], "CSeq: 1 ACK"), "{restarted}");
        let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", "");
        let sent = world.phone(&bye);
        assert!(sent.iter().any(|sent| has(sent, "CSeq: 3 BYE")), "{sent:?}");
    }
}

#[test]
fn a_longer_interval_that_a_refresh_is_asked_for_is_taken_once() {
    let mut world = world();
    call(&mut world, "", "Session-Expires: 1800;refresher=uac\nAllow: UPDATE\n");
    let first = world.wait(seconds(900)).remove(0);
    world.server(&answer(&first, 422, "Session Interval Too Small", "s", "Min-SE: 3600\n", ""));
    let second = world.wait(Duration::ZERO).remove(0);
    assert!(has(&second, "Session-Expires: 3600;refresher=uac") && has(&second, "Min-SE: 3600"));
    world.server(&answer(&second, 422, "Session Interval Too Small", "s", "Min-SE: 3601\n", ""));
    assert_eq!(world.wait(seconds(1799)), []);
    assert_eq!(world.proxy.active_calls(), 1);
}
