//! What is sent to exhaust the proxy or to take over what belongs to others.

use std::time::Duration;

use super::harness::*;
use crate::{
    proxy::{DropReason, Limits, Measure},
    registrar,
};

const OTHER_PHONE: &str = "192.0.2.66:5060";

#[test]
fn header_bombs_are_refused_and_leave_nothing_behind() {
    let head = from_phone("OPTIONS", "sip:100@example.com", "o1", 1, "", "", "").replace('\n', "\r\n");
    let with = |more: &str| head.replacen("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{more}"), 1);
    let vias = vec!["SIP/2.0/UDP h;branch=z9hG4bKv"; 250].join(",");
    let rows: [(&str, String, Option<&str>); 8] = [
        ("10,000 headers of three bytes", with(&"X:\r\n".repeat(10_000)), None),
        ("a line folded 10,000 times", with(&format!("X: a\r\n{}", " b\r\n".repeat(10_000))), Some("513")),
        ("a line of 60,000 bytes", with(&format!("X: {}\r\n", "a".repeat(60_000))), Some("513")),
        (
            "Vias beyond the length of a line",
            head.replacen("Via: ", &format!("Via: {vias},{vias},"), 1),
            None,
        ),
        (
            "a Call-ID of 4,000 bytes",
            head.replacen("Call-ID: c1", &format!("Call-ID: {}", "c".repeat(4_000)), 1),
            None,
        ),
        (
            "a negative Content-Length",
            head.replacen("Content-Length: 0", "Content-Length: -1", 1),
            Some("400"),
        ),
        ("a Content-Length of 2^64", head.replacen("h: 0", "h: 18446744073709551616", 1), Some("400")),
        ("two Content-Lengths", with("l: 4\r\n"), Some("400")),
    ];
    for (description, datagram, status) in rows {
        let mut world = World::new();
        let sent = world.receive(PHONES, PHONE, datagram.as_bytes());
        match status {
            Some(status) => {
                assert_eq!(sent.len(), 1, "{description}");
                let start = format!("SIP/2.0 {status} ");
                assert!(sent[0].payload.starts_with(start.as_bytes()), "{description}");
                assert!(sent[0].payload.len() <= datagram.len() + 200, "{description}: it amplifies");
            }
            None => assert!(sent.is_empty(), "{description}"),
        }
        let dropped =
            [DropReason::Malformed, DropReason::Unreadable].map(|r| world.count(Measure::Dropped(r)));
        assert_eq!(dropped.iter().sum::<usize>(), 1, "{description}");
        world.assert_empty();
    }
}

#[test]
fn who_is_not_in_a_call_cannot_end_or_turn_it() {
    let mut world = World::new();
    establish(&mut world);
    let forged = |method: &str, call: &str, from: &str, to: &str| {
        let uri = "sip:100@192.0.2.1:8060;x=1";
        let contact = "Contact: <sip:200@192.0.2.66:5060>\n";
        from_phone(method, uri, "evil", 9, to, contact, "")
            .replace("Call-ID: c1", &format!("Call-ID: {call}"))
            .replace(";tag=p", from)
            .replace("192.0.2.11:5060;branch", "192.0.2.66:5060;branch")
            .replace('\n', "\r\n")
    };
    let rows = [
        ("BYE with a guessed tag of the callee", "BYE", "c1", ";tag=p", ";tag=guess"),
        ("BYE with a guessed tag of the caller", "BYE", "c1", ";tag=guess", ";tag=s"),
        ("BYE with a guessed Call-ID", "BYE", "c2", ";tag=p", ";tag=s"),
        ("UPDATE with a guessed tag", "UPDATE", "c1", ";tag=p", ";tag=guess"),
        ("re-INVITE with a guessed tag", "INVITE", "c1", ";tag=guess", ";tag=s"),
    ];
    for (description, method, call, from, to) in rows {
        let sent = world.receive(PHONES, OTHER_PHONE, forged(method, call, from, to).as_bytes());
        assert!(sent.iter().all(|sent| sent.network == PHONES), "{description}: went on to the server");
        assert!(sent.last().unwrap().first_line().starts_with("SIP/2.0 481 "), "{description}");
        assert_eq!(world.proxy.active_calls(), 1, "{description}");
    }
    // A party of the call that the servers' network says it is, from an address that is none of theirs.
    let bye =
        from_server("BYE", "sip:200@198.51.100.1:8060", "evil2", 9, ";tag=p", "", "").replace('\n', "\r\n");
    let sent = world.receive(SERVERS, "198.51.100.77:5060", bye.as_bytes());
    assert!(sent[0].first_line().starts_with("SIP/2.0 403 "), "{}", sent[0].first_line());
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_flood_of_registrations_keeps_no_more_bindings_than_the_limit() {
    let bindings = registrar::Limits { total: 50, ..registrar::Limits::default() };
    let mut world = World::with_limits(Limits { bindings, ..Limits::default() });
    let mut refused = 0;
    for n in 0..500 {
        let sent = world.phone(&format!(
            "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKf{n}\nFrom: <sip:u{n}@example.com>;tag=r\n\
             To: <sip:u{n}@example.com>\nCall-ID: flood{n}\nCSeq: 1 REGISTER\nContact: <sip:u{n}@192.0.2.11:5060>\nExpires: 3600\n\n"
        ));
        if sent[0].network == PHONES {
            assert_eq!(sent[0].first_line(), "SIP/2.0 503 Too Many Registrations");
            refused += 1;
            continue;
        }
        let contact = sent[0].message();
        let contact = contact.addresses(crate::sip::wire::HeaderName::Contact).next().unwrap();
        let line = format!("Contact: {}\n", String::from_utf8_lossy(contact.value));
        world.server(&answer(&sent[0], 200, "OK", "rt", &line, ""));
    }
    assert_eq!((world.proxy.binding_count(), refused), (50, 450));
    world.wait(Duration::from_secs(64));
    assert_eq!(world.proxy.transaction_count(), 0);
}
