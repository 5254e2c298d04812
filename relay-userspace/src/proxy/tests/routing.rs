use super::harness::*;
use crate::proxy::{DropReason, Measure};

#[test]
fn requests_without_a_place_to_go_are_refused_with_a_reason() {
    let options = |headers: &str| from_phone("OPTIONS", "sip:100@example.com", "o1", 1, "", headers, "");
    let table = [
        (
            "hops used up",
            options("").replace("Forwards: 70", "Forwards: 0"),
            "483 Too Many Hops",
            DropReason::TooManyHops,
        ),
        (
            "unknown extension",
            options("Proxy-Require: foo, bar\n"),
            "420 Bad Extension",
            DropReason::UnknownExtension,
        ),
        (
            "BYE of no dialog",
            from_phone("BYE", "sip:100@192.0.2.1:8060", "o1", 1, ";tag=s", "", ""),
            "481 Call/Transaction Does Not Exist",
            DropReason::NoDialog,
        ),
    ];
    for (description, request, status, reason) in table {
        let mut world = World::new();
        let sent = world.phone(&request);
        assert_eq!(sent.len(), 1, "{description}");
        assert_eq!(sent[0].first_line(), format!("SIP/2.0 {status}"), "{description}");
        assert_eq!(world.count(Measure::Dropped(reason)), 1, "{description}");
        if reason == DropReason::UnknownExtension {
            assert!(sent[0].text().contains("Unsupported: foo\nUnsupported: bar\n"));
        }
    }
}

#[test]
fn a_request_that_comes_back_unchanged_is_a_loop_and_one_with_another_uri_is_not() {
    let mut world = World::new();
    let uri = world.register();
    let sent = world.server(&from_server("MESSAGE", &uri, "m1", 1, "", "", ""));
    let text = sent[0].text();
    assert!(text.starts_with("MESSAGE sip:200@192.0.2.11:5060;line=7 SIP/2.0\n"));
    let via = String::from_utf8(sent[0].payload.to_vec()).unwrap().lines().nth(1).unwrap().to_owned();
    let back = |uri: &str, branch: &str| from_server("MESSAGE", uri, branch, 1, "", &format!("{via}\n"), "");
    let sent = world.server(&back(&uri, "m2"));
    assert_eq!(sent[0].first_line(), "SIP/2.0 482 Loop Detected");
    let sent = world.server(&back("sip:200@198.51.100.1:8060", "m3"));
    assert_eq!(sent[0].network, PHONES, "a spiral");
}

#[test]
fn requests_from_servers_reach_registered_phones_only_and_only_from_trusted_addresses() {
    let mut world = World::new();
    let notify =
        |uri: &str, branch: &str| from_server("NOTIFY", uri, branch, 1, "", "Event: message-summary\n", "");
    assert_eq!(
        world.server(&notify("sip:200@198.51.100.1:8060", "n1"))[0].first_line(),
        "SIP/2.0 404 Not Found"
    );
    world.register();
    assert_eq!(
        world.server(&notify("sip:200@198.51.100.1:8060", "n2"))[0].first_line(),
        "NOTIFY sip:200@192.0.2.11:5060;line=7 SIP/2.0"
    );
    assert_eq!(
        world.server(&notify("sip:someone@203.0.113.9", "n3"))[0].first_line(),
        "SIP/2.0 404 Not Found"
    );
    let text = notify("sip:200@198.51.100.1:8060", "n4").replace('\n', "\r\n");
    let sent = world.receive(SERVERS, "203.0.113.66:5060", text.as_bytes());
    assert_eq!(sent[0].first_line(), "SIP/2.0 403 Forbidden");
    assert_eq!(sent[0].to, "203.0.113.66:5060");
    assert_eq!(world.count(Measure::Dropped(DropReason::Untrusted)), 1);
}

#[test]
fn a_notify_of_no_known_dialog_still_reaches_the_phone() {
    let mut world = World::new();
    world.register();
    let notify =
        from_server("NOTIFY", "sip:200@198.51.100.1:8060", "n1", 1, ";tag=unknown", "Event: talk\n", "");
    assert_eq!(world.server(&notify)[0].first_line(), "NOTIFY sip:200@192.0.2.11:5060;line=7 SIP/2.0");
    let lost =
        from_server("NOTIFY", "sip:299@198.51.100.1:8060", "n2", 1, ";tag=unknown", "Event: talk\n", "");
    assert_eq!(world.server(&lost)[0].first_line(), "SIP/2.0 481 Call/Transaction Does Not Exist");
}

#[test]
fn probes_are_answered_here_from_servers_and_relayed_from_phones() {
    let mut world = World::new();
    let sent = world.server(&from_server("OPTIONS", "sip:198.51.100.1:8060", "o1", 1, "", "", ""));
    assert_eq!(
        (sent.len(), sent[0].first_line().as_str(), sent[0].to.as_str()),
        (1, "SIP/2.0 200 OK", SERVER)
    );
    let sent = world.phone(&from_phone("OPTIONS", "sip:192.0.2.1", "o1", 1, "", "", ""));
    assert_eq!(
        (sent[0].first_line().as_str(), sent[0].to.as_str()),
        ("OPTIONS sip:198.51.100.9 SIP/2.0", SERVER)
    );
    let sent = world.server(&answer(&sent[0], 200, "OK", "s", "Allow: INVITE, FOO\n", ""));
    assert!(sent[0].text().contains("\nAllow: INVITE, FOO\n"));
}

#[test]
fn a_route_in_a_dialog_is_followed_only_to_where_the_dialog_leads() {
    let table = [
        ("a trusted server", "198.51.100.9:5070", "198.51.100.9:5070"),
        ("a stranger", "203.0.113.66:5060", SERVER),
    ];
    for (description, route, destination) in table {
        let mut world = World::new();
        establish(&mut world);
        let headers =
            format!("Route: <sip:192.0.2.1:8060;lr>, <sip:198.51.100.1:8060;lr>, <sip:{route};lr>\n");
        let sent =
            world.phone(&from_phone("INFO", "sip:100@192.0.2.1:8060;x=1", "n1", 2, ";tag=s", &headers, ""));
        assert_eq!(sent[0].to, destination, "{description}");
    }
}

#[test]
fn a_phone_whose_contact_is_not_its_address_is_reached_at_its_source() {
    let mut world = World::new();
    let text = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@10.0.0.9:5060>\n",
        &sdp("10.0.0.9", 4000, ""),
    )
    .replace('\n', "\r\n");
    let sent = world.receive(PHONES, "192.0.2.50:4321", text.as_bytes());
    assert_eq!(sent[0].to, "192.0.2.50:4321");
    let invite = sent[1].clone();
    world.server(&answer(
        &invite,
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20>\n",
        &sdp("198.51.100.20", 6000, ""),
    ));
    let sent = world.server(&from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 1, ";tag=p", "", ""));
    assert_eq!(
        (sent[0].to.as_str(), sent[0].first_line().as_str()),
        ("192.0.2.50:4321", "BYE sip:200@10.0.0.9:5060 SIP/2.0")
    );
}

#[test]
fn a_subscription_is_a_dialog_whose_notifies_find_the_phone_even_before_the_200() {
    let mut world = World::new();
    let sent = world.phone(&from_phone(
        "SUBSCRIBE",
        "sip:100@example.com",
        "s1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060;line=2>\nEvent: dialog\nExpires: 600\n",
        "",
    ));
    let subscribe = sent[0].clone();
    assert!(subscribe.text().contains("Contact: <sip:200@198.51.100.1:8060;line=2>\nEvent: dialog\n"));
    let notify = |branch: &str, cseq, state: &str| {
        from_server(
            "NOTIFY",
            "sip:200@198.51.100.1:8060;line=2",
            branch,
            cseq,
            ";tag=p",
            &format!("Contact: <sip:100@198.51.100.20>\nSubscription-State: {state}\n"),
            "",
        )
    };
    let sent = world.server(&notify("n1", 1, "active;expires=600"));
    assert_eq!(sent[0].first_line(), "NOTIFY sip:200@192.0.2.11:5060;line=2 SIP/2.0");
    assert!(sent[0].text().contains("Contact: <sip:100@192.0.2.1:8060>\n"));
    world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    world.server(&answer(&subscribe, 200, "OK", "s", "Contact: <sip:100@198.51.100.20>\nExpires: 600\n", ""));
    world.wait(MINUTE * 9);
    let refresh = world.phone(&from_phone(
        "SUBSCRIBE",
        "sip:100@192.0.2.1:8060",
        "s2",
        2,
        ";tag=s",
        "Contact: <sip:200@192.0.2.11:5060;line=2>\nExpires: 600\n",
        "",
    ));
    assert_eq!(
        (refresh[0].to.as_str(), refresh[0].first_line().as_str()),
        ("198.51.100.20:5060", "SUBSCRIBE sip:100@198.51.100.20 SIP/2.0")
    );
    world.server(&answer(
        &refresh[0],
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20>\nExpires: 600\n",
        "",
    ));
    world.wait(MINUTE * 9);
    let sent = world.server(&notify("n2", 2, "terminated;reason=timeout"));
    assert_eq!(sent[0].first_line(), "NOTIFY sip:200@192.0.2.11:5060;line=2 SIP/2.0");
    world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    assert_eq!(world.proxy.active_calls(), 0);
    world.wait(MINUTE * 2);
    world.assert_empty();
}

#[test]
fn requests_of_any_method_pass_byte_for_byte_in_and_out_of_a_call() {
    let mut world = World::new();
    establish(&mut world);
    for (number, method) in ["INFO", "MESSAGE", "PUBLISH", "FOO"].into_iter().enumerate() {
        let headers = "Contact: <sip:200@192.0.2.11:5060>\nX-Odd:a;b=\"c\"\nContent-Type: x/y\n";
        let body = "\u{1}\u{2}\nodd";
        let inside = from_phone(
            method,
            "sip:100@192.0.2.1:8060;x=1",
            &format!("x{number}"),
            10,
            ";tag=s",
            headers,
            body,
        );
        let outside = from_phone(method, "sip:100@example.com", &format!("y{number}"), 10, "", headers, body);
        for (request, uri) in [(inside, "sip:100@198.51.100.20:5070;x=1"), (outside, "sip:100@example.com")] {
            let sent = world.phone(&request);
            let expected = request
                .replacen("sip:100@192.0.2.1:8060;x=1", uri, 1)
                .replacen("\nVia", "\nVia: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\nVia", 1)
                .replace(";rport\nFrom", ";rport=5060;received=192.0.2.11\nFrom")
                .replace("Forwards: 70", "Forwards: 69");
            assert_eq!(sent[0].text(), expected, "{method}");
        }
    }
}

#[test]
fn keep_alives_are_answered_only_when_they_ask() {
    let mut world = World::new();
    assert_eq!(world.receive(PHONES, PHONE, b"\r\n\r\n")[0].payload, &b"\r\n"[..]);
    assert_eq!(world.receive(PHONES, PHONE, b"\r\n"), []);
    assert_eq!(world.receive(PHONES, PHONE, b"\0\0\0\0"), []);
    assert_eq!(world.measures, []);
}

#[test]
fn a_contact_that_cannot_be_read_never_becomes_a_request_uri() {
    let mut world = World::new();
    let contact = "Contact: <sip:200@192.0.2.11 SIP/2.0\n X-Injected: yes>\n";
    let invite = from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, "");
    let invite = world.phone(&invite)[1].clone();
    world.server(&answer(&invite, 200, "OK", "s", "Contact: <sip:100@198.51.100.20>\n", ""));
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 1, ";tag=p", "", "");
    let sent = world.server(&bye);
    assert_eq!(sent[0].first_line(), "BYE sip:200@198.51.100.1:8060 SIP/2.0");
    assert_eq!(sent[0].to, PHONE);
}
