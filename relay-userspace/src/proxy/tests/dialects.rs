//! What phones and servers of the field say beyond plain calls, in their own words: each message goes through whole, with
//! the edits that a relay has to make and no other.

use super::harness::*;
use crate::{
    net::NetworkId,
    proxy::{CallState, Measure, Outcome},
    sip::wire::HeaderName,
};

/// A message as its receiver must get it: as it was sent, with our Via above a stamped one, one hop less, our two
/// Record-Routes where a dialog begins, and these replacements.
fn relayed(sent: &str, toward: NetworkId, edits: &[(&str, &str)]) -> String {
    let (line, rest) = sent.split_once('\n').unwrap();
    let (own, peer, port) = if toward == SERVERS {
        ("198.51.100.1", "192.0.2.11", 5060)
    } else {
        ("192.0.2.1", "198.51.100.9", 5060)
    };
    let begins_dialog = ["INVITE ", "SUBSCRIBE ", "REFER "].iter().any(|method| line.starts_with(method))
        && !rest
            .split("\n\n")
            .next()
            .unwrap()
            .lines()
            .any(|line| line.starts_with("To:") && line.contains(";tag="));
    let record = if begins_dialog {
        let other = if toward == SERVERS { "192.0.2.1" } else { "198.51.100.1" };
        format!("Record-Route: <sip:{own}:8060;lr>\nRecord-Route: <sip:{other}:8060;lr>\n")
    } else {
        String::new()
    };
    let mut text = format!("{line}\nVia: SIP/2.0/UDP {own}:8060;branch=z9hG4bKOURS;rport\n{record}{rest}");
    text = text.replacen(";rport\nFrom", &format!(";rport={port};received={peer}\nFrom"), 1);
    text = text.replacen("Max-Forwards: 70", "Max-Forwards: 69", 1);
    for (from, to) in edits {
        assert!(text.contains(from), "{from} is not in\n{text}");
        text = text.replacen(from, to, 1);
    }
    text
}

/// The one request that left, to that network.
fn only(sent: &[Sent], network: NetworkId) -> String {
    let found: Vec<&Sent> =
        sent.iter().filter(|sent| sent.network == network && !sent.payload.starts_with(b"SIP/2.0")).collect();
    assert_eq!(found.len(), 1, "{sent:#?}");
    found[0].text()
}

const OWN_URI: (&str, &str) =
    ("sip:100@192.0.2.1:8060;x=1 SIP/2.0", "sip:100@198.51.100.20:5070;x=1 SIP/2.0");

#[test]
fn requests_outside_dialogs_go_to_the_server_as_the_phone_wrote_them() {
    let long = format!("{}\n", "x".repeat(1400));
    /// Description, method, headers, body, and what is other in it when it leaves.
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);
    let rows: [Row<'_>; 9] = [
        (
            "SUBSCRIBE to busy lamps, BroadWorks",
            "SUBSCRIBE",
            "Event: dialog\nExpires: 1800\nSupported: eventlist\nAccept: application/dialog-info+xml, multipart/related, application/rlmi+xml\n\
             Contact: <sip:200@192.0.2.11:5060>\n",
            "",
            &[("<sip:200@192.0.2.11:5060>\n", "<sip:200@198.51.100.1:8060>\n")],
        ),
        (
            "an end of a subscription to message waiting, Asterisk",
            "SUBSCRIBE",
            "Event: message-summary\nExpires: 0\nContact: <sip:200@192.0.2.11:5060>\n",
            "",
            &[("<sip:200@192.0.2.11:5060>\n", "<sip:200@198.51.100.1:8060>\n")],
        ),
        (
            "PUBLISH of presence",
            "PUBLISH",
            "Event: presence\nExpires: 600\nSIP-If-Match: dx200xyz\nContent-Type: application/pidf+xml\n",
            "<presence entity=\"pres:200@example.com\"/>\n",
            &[],
        ),
        (
            "MESSAGE over 1300 bytes",
            "MESSAGE",
            "Content-Type: text/plain\n",
            &long,
            &[(
                "Via: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n",
                "Via: SIP/2.0/TCP 198.51.100.1:8060;branch=z9hG4bKOURS;rport;alias\n",
            )],
        ),
        (
            "MESSAGE with a digit, Asterisk",
            "MESSAGE",
            "Content-Type: application/dtmf-relay\n",
            "Signal=5\nDuration=160\n",
            &[],
        ),
        ("OPTIONS of a phone", "OPTIONS", "Accept: application/sdp\n", "", &[]),
        (
            "INVITE over an outbound flow with GRUU (RFC 5626, 5627)",
            "INVITE",
            "Supported: outbound, gruu, path, 100rel, timer, replaces\nSession-Expires: 1800;refresher=uac\nMin-SE: 90\n\
             Contact: <sip:200@192.0.2.11:5060;gr=urn:uuid:f81d4fae;ob>;reg-id=1;+sip.instance=\"<urn:uuid:f81d4fae>\"\n\
             P-Preferred-Identity: \"Z\" <sip:200@example.com>\nPrivacy: id\nHistory-Info: <sip:300@example.com>;index=1\n\
             Diversion: <sip:300@example.com>;reason=unconditional;counter=1\nCall-Info: <sip:x@y>;answer-after=0\n\
             Alert-Info: <http://127.0.0.1/ring>;info=alert-autoanswer\n",
            "",
            &[(
                "<sip:200@192.0.2.11:5060;gr=urn:uuid:f81d4fae;ob>",
                "<sip:200@198.51.100.1:8060;gr=urn:uuid:f81d4fae;ob>",
            )],
        ),
        (
            "REFER outside a dialog with Replaces",
            "REFER",
            "Refer-To: <sip:300@example.com?Replaces=c9%3Bto-tag%3Da%3Bfrom-tag%3Db>\nReferred-By: <sip:200@example.com>\n\
             Contact: <sip:200@192.0.2.11:5060>\n",
            "",
            &[("<sip:200@192.0.2.11:5060>\n", "<sip:200@198.51.100.1:8060>\n")],
        ),
        (
            "a park by a star code",
            "INVITE",
            "Answer-Mode: Auto\nContact: <sip:200@192.0.2.11:5060>\n",
            "",
            &[("<sip:200@192.0.2.11:5060>\n", "<sip:200@198.51.100.1:8060>\n")],
        ),
    ];
    for (description, method, headers, body, edits) in rows {
        let mut world = World::new();
        let uri = if description.contains("star") { "sip:*902@example.com" } else { "sip:100@example.com" };
        let request = from_phone(method, uri, "o1", 1, "", headers, body);
        let request = if body.is_empty() || headers.contains("Content-Type") {
            request
        } else {
            panic!("{description}: a body without a type")
        };
        let sent = world.phone(&request);
        assert_eq!(only(&sent, SERVERS), relayed(&request, SERVERS, edits), "{description}");
    }
}

#[test]
fn what_servers_send_unasked_reaches_the_phone_as_they_wrote_it() {
    let rows: [(&str, &str, &str, &str); 6] = [
        (
            "message waiting, unsolicited",
            "NOTIFY",
            "Event: message-summary\nSubscription-State: active\nContent-Type: application/simple-message-summary\n",
            "Messages-Waiting: yes\nMessage-Account: sip:vm@example.com\nVoice-Message: 2/8 (0/2)\n",
        ),
        ("an orphan NOTIFY without Subscription-State, Asterisk", "NOTIFY", "Event: message-summary\n", ""),
        (
            "a restart of the phone",
            "NOTIFY",
            "Event: check-sync;reboot=true\nSubscription-State: terminated\n",
            "",
        ),
        ("answer by remote control", "NOTIFY", "Event: talk\nSubscription-State: active\n", ""),
        ("OPTIONS of a server to a phone", "OPTIONS", "Accept: application/sdp\n", ""),
        ("a text", "MESSAGE", "Content-Type: text/plain\n", "Lunch?\n"),
    ];
    for (description, method, headers, body) in rows {
        let mut world = World::new();
        let uri = world.register();
        let request = from_server(method, &uri, "n1", 1, "", headers, body);
        let sent = world.server(&request);
        let masked = mask_token(&request);
        let line =
            (mask_token(&format!("{uri} SIP/2.0")), "sip:200@192.0.2.11:5060;line=7 SIP/2.0".to_owned());
        let expected = relayed(&masked, PHONES, &[(&line.0, &line.1)]);
        assert_eq!(only(&sent, PHONES), expected, "{description}");
    }
}

fn mask_token(text: &str) -> String {
    match text.split_once("bl=") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{before}bl=TOKEN{rest}")
        }
        None => text.to_owned(),
    }
}

#[test]
fn requests_within_a_call_pass_in_both_directions_as_they_were_written() {
    let rows: [(&str, &str, &str, &str); 6] = [
        (
            "REFER to a third party with Replaces",
            "REFER",
            "Refer-To: <sip:300@example.com?Replaces=c9%3Bto-tag%3Da%3Bfrom-tag%3Db>\nReferred-By: <sip:200@example.com>\n",
            "",
        ),
        (
            "NOTIFY of a transfer",
            "NOTIFY",
            "Event: refer;id=93809824\nSubscription-State: terminated;reason=noresource\nContent-Type: message/sipfrag;version=2.0\n",
            "SIP/2.0 200 OK\n",
        ),
        ("INFO with a digit", "INFO", "Content-Type: application/dtmf-relay\n", "Signal=*\nDuration=250\n"),
        (
            "INFO of a package (RFC 6086)",
            "INFO",
            "Info-Package: conference\nContent-Type: application/x\nContent-Disposition: Info-Package\n",
            "x\n",
        ),
        ("MESSAGE in a call", "MESSAGE", "Content-Type: text/plain\n", "hello\n"),
        (
            "UPDATE that refreshes the session",
            "UPDATE",
            "Session-Expires: 1800;refresher=uac\nMin-SE: 90\nSupported: timer\n",
            "",
        ),
    ];
    for (description, method, headers, body) in rows {
        let mut world = World::new();
        establish(&mut world);
        let request = from_phone(method, "sip:100@192.0.2.1:8060;x=1", "d1", 2, ";tag=s", headers, body);
        let sent = world.phone(&request);
        assert_eq!(only(&sent, SERVERS), relayed(&request, SERVERS, &[OWN_URI]), "{description}, outward");
        let request = from_server(method, "sip:200@198.51.100.1:8060", "d2", 1, ";tag=p", headers, body);
        let sent = world.server(&request);
        let uri = ("sip:200@198.51.100.1:8060 SIP/2.0", "sip:200@192.0.2.11:5060 SIP/2.0");
        assert_eq!(only(&sent, PHONES), relayed(&request, PHONES, &[uri]), "{description}, inward");
    }
}

#[test]
fn two_re_invites_that_cross_are_refused_491_by_the_parties_and_the_call_stands() {
    let mut world = World::new();
    establish(&mut world);
    let offer = |address: &str, port| sdp(address, port, "a=sendonly\n");
    let outward = from_phone(
        "INVITE",
        "sip:100@192.0.2.1:8060;x=1",
        "g1",
        2,
        ";tag=s",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &offer("192.0.2.11", 4000),
    );
    let at_server = world.phone(&outward).into_iter().find(|sent| sent.network == SERVERS).unwrap();
    let inward = from_server(
        "INVITE",
        "sip:200@198.51.100.1:8060",
        "g2",
        1,
        ";tag=p",
        "Contact: <sip:100@198.51.100.20:5070;x=1>\n",
        &offer("198.51.100.20", 6000),
    );
    let at_phone = world.server(&inward).into_iter().find(|sent| sent.network == PHONES).unwrap();
    let sent = world.server(&answer(&at_server, 491, "Request Pending", "s", "", ""));
    assert!(
        sent.iter().any(|sent| sent.network == PHONES && sent.first_line() == "SIP/2.0 491 Request Pending")
    );
    let sent = world.phone(&answer(&at_phone, 491, "Request Pending", "p", "", ""));
    assert!(
        sent.iter().any(|sent| sent.network == SERVERS && sent.first_line() == "SIP/2.0 491 Request Pending")
    );
    assert_eq!(world.proxy.active_calls(), 1);
    let state = world.proxy.calls().next().unwrap().state;
    assert!(matches!(state, CallState::Established | CallState::Held), "{state:?}");
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 3, ";tag=s", "", "");
    let at_server = world.phone(&bye).into_iter().find(|sent| sent.network == SERVERS).unwrap();
    world.server(&answer(&at_server, 200, "OK", "s", "", ""));
    assert_eq!(world.count(Measure::CallEnded(Outcome::Answered)), 1);
    world.wait(MINUTE);
    world.assert_empty();
}

#[test]
fn path_service_route_and_associated_uris_of_a_registration_pass() {
    let mut world = World::new();
    let register = "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr1;rport\nFrom: <sip:200@example.com>;tag=r\n\
                    To: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\nMax-Forwards: 70\nSupported: path, outbound, gruu\n\
                    Contact: <sip:200@192.0.2.11:5060;ob>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"\nExpires: 3600\nContent-Length: 0\n\n";
    let sent = world.phone(register);
    let contact = ("<sip:200@192.0.2.11:5060;ob>", "<sip:200@198.51.100.1:8060;ob;bl=TOKEN>");
    assert_eq!(only(&sent, SERVERS), relayed(register, SERVERS, &[contact]));
    let asked = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    let own = String::from_utf8(asked.message().header(HeaderName::Contact).unwrap().value.to_vec()).unwrap();
    let headers = format!(
        "Contact: {own};expires=3600;pub-gruu=\"sip:200@example.com;gr=urn:uuid:1\"\nPath: <sip:edge.example.com;lr>\n\
         Service-Route: <sip:orig@scscf.example.com;lr>\nP-Associated-URI: <sip:200@example.com>, <tel:+49711200>\nRequire: outbound\n\
         Date: Thu, 26 Nov 2026 10:00:00 GMT\n"
    );
    let sent = world.server(&answer(asked, 200, "OK", "rt", &headers, ""));
    let text = sent[0].text();
    let expected =
        headers.replace(&own, "<sip:200@192.0.2.11:5060;ob>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"");
    assert!(text.contains(&expected), "{text}\n\n{expected}");
}

#[test]
fn responses_pass_with_the_words_and_headers_of_who_made_them() {
    let rows: [(&str, u16, &str, &str); 7] = [
        ("a reason phrase in another language", 486, "Belegt", ""),
        (
            "identity across a border of trust",
            180,
            "Ringing",
            "P-Asserted-Identity: \"Ann\" <sip:100@example.com>\n",
        ),
        ("a warning", 488, "Not Acceptable Here", "Warning: 304 pbx \"media type not available\"\n"),
        ("a retry", 503, "Service Unavailable", "Retry-After: 120 (maintenance)\n"),
        (
            "a challenge of two algorithms",
            407,
            "Proxy Authentication Required",
            "Proxy-Authenticate: Digest realm=\"a\", nonce=\"1\", algorithm=SHA-256, qop=\"auth\"\nProxy-Authenticate: Digest realm=\"a\", nonce=\"1\", algorithm=MD5, qop=\"auth\"\n",
        ),
        ("too short a session", 422, "Session Interval Too Small", "Min-SE: 1800\n"),
        ("a reason header", 480, "Temporarily Unavailable", "Reason: Q.850;cause=19;text=\"No answer\"\n"),
    ];
    for (description, status, reason, headers) in rows {
        let mut world = World::new();
        let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
        let invite =
            from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &sdp("192.0.2.11", 4000, ""));
        let asked = world.phone(&invite).into_iter().find(|sent| sent.network == SERVERS).unwrap();
        let sent = world.server(&answer(&asked, status, reason, "s", headers, ""));
        let got = sent.iter().find(|sent| sent.network == PHONES).unwrap().text();
        assert!(got.starts_with(&format!("SIP/2.0 {status} {reason}\n")), "{description}: {got}");
        assert!(got.contains(headers), "{description}: {got}");
        assert!(!got.contains("198.51.100.1:8060;branch"), "{description}: our Via is off again: {got}");
    }
}
