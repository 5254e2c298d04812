use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{net::NetworkId, sip::wire::Editor};

const PHONES: NetworkId = NetworkId(0);

fn ours() -> Own {
    Own { address: "198.51.100.1:8060".parse().unwrap(), transport: Transport::Udp }
}

fn phone() -> SocketAddr {
    "192.0.2.11:5060".parse().unwrap()
}

fn register(contact: &str, extra: &str) -> Message {
    let text = format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bK1\r\n\
         From: <sip:200@Example.com>;tag=f\r\nTo: <sip:200@Example.com>\r\nCall-ID: r1\r\nCSeq: 1 REGISTER\r\n\
         User-Agent: Phone/1.0\r\n{contact}{extra}\r\n"
    );
    Message::parse(&Bytes::from(text)).unwrap()
}

fn ok(lines: &str) -> Message {
    let text = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bK1\r\nFrom: <sip:200@Example.com>;tag=f\r\n\
         To: <sip:200@Example.com>;tag=t\r\nCall-ID: r1\r\nCSeq: 1 REGISTER\r\n{lines}\r\n"
    );
    Message::parse(&Bytes::from(text)).unwrap()
}

fn contacts(bytes: &Bytes) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Contact"));
    lines.map(|line| line.split_once(':').unwrap().1.trim().to_owned()).collect()
}

/// Relays a REGISTER whose server lists the Contacts it was sent, with `granted` added to each.
fn relay(
    registrar: &mut Registrar,
    now: Instant,
    request: &Message,
    source: SocketAddr,
    granted: &str,
) -> (Vec<String>, Vec<String>) {
    let mut editor = Editor::new(request);
    let pending = registrar.rewrite_request(&mut editor, Hop::udp(PHONES, source), ours()).unwrap();
    let sent = contacts(&editor.finish());
    let lines: String = sent.iter().map(|contact| format!("Contact: {contact}{granted}\r\n")).collect();
    let response = ok(&lines);
    let mut editor = Editor::new(&response);
    registrar.rewrite_response(now, &pending, &mut editor);
    (sent, contacts(&editor.finish()))
}

fn machine() -> (Registrar, Instant) {
    (Registrar::new(Limits::default(), [5, 6]), Instant::now())
}

#[test]
fn a_contact_goes_out_with_a_token_and_comes_back_as_it_was() {
    let table = [
        ("plain", "<sip:200@192.0.2.11:5060>", "<sip:200@198.51.100.1:8060;bl=TOKEN>"),
        (
            "header parameters stay",
            "<sip:200@192.0.2.11>;q=0.5;+sip.instance=\"<urn:uuid:1>\";reg-id=1",
            "<sip:200@198.51.100.1:8060;bl=TOKEN>;q=0.5;+sip.instance=\"<urn:uuid:1>\";reg-id=1",
        ),
        (
            "URI parameters stay",
            "\"A\" <sip:a;b=c@192.0.2.11;line=x1;transport=UDP>",
            "\"A\" <sip:a;b=c@198.51.100.1:8060;line=x1;transport=UDP;bl=TOKEN>",
        ),
        (
            "another transport goes",
            "<sip:200@192.0.2.11;transport=tcp;x>",
            "<sip:200@198.51.100.1:8060;x;bl=TOKEN>",
        ),
        (
            "without brackets",
            "sip:200@192.0.2.11;expires=60",
            "<sip:200@198.51.100.1:8060;bl=TOKEN>;expires=60",
        ),
        ("without a user", "<sip:192.0.2.11>", "<sip:198.51.100.1:8060;bl=TOKEN>"),
    ];
    for (description, contact, rewritten) in table {
        let (mut registrar, now) = machine();
        let request = register(&format!("Contact: {contact}\r\n"), "");
        let (sent, back) = relay(&mut registrar, now, &request, phone(), "");
        let binding = registrar.bindings().next().unwrap().clone();
        assert_eq!(sent, [rewritten.replace("TOKEN", &format!("{:016x}", binding.token))], "{description}");
        let plain = contact.replace("sip:200@192.0.2.11;expires=60", "<sip:200@192.0.2.11>;expires=60");
        assert_eq!(back, [plain], "{description}");
        assert_eq!(&binding.aor[..], b"200@example.com");
        assert_eq!(binding.user_agent.as_deref(), Some("Phone/1.0"));
    }
}

#[test]
fn several_contacts_in_one_line_are_told_apart_and_foreign_ones_stay() {
    let (mut registrar, now) = machine();
    let request = register("Contact: <sip:200@192.0.2.11>;q=1, <sip:200@192.0.2.11:5070>, <tel:+1>\r\n", "");
    let mut editor = Editor::new(&request);
    let pending = registrar.rewrite_request(&mut editor, Hop::udp(PHONES, phone()), ours()).unwrap();
    let sent = contacts(&editor.finish()).remove(0);
    assert!(sent.ends_with(", <tel:+1>"));
    let response = ok(&format!("Contact: <sip:200@203.0.113.7>;expires=9, {sent}\r\nExpires: 60\r\n"));
    let mut editor = Editor::new(&response);
    registrar.rewrite_response(now, &pending, &mut editor);
    assert_eq!(
        contacts(&editor.finish()),
        ["<sip:200@203.0.113.7>;expires=9, <sip:200@192.0.2.11>;q=1, <sip:200@192.0.2.11:5070>, <tel:+1>"]
    );
    assert_eq!(registrar.len(), 2);
}

#[test]
fn the_server_decides_how_long_a_binding_lives() {
    let table = [
        ("the contact's parameter", "", ";expires=30", "Expires: 90\r\n", 30),
        ("the response's header", "", "", "Expires: 90\r\n", 90),
        ("what was asked for", "Expires: 120\r\n", "", "", 120),
        ("nothing at all", "", "", "", 3600),
    ];
    for (description, asked, parameter, header, seconds) in table {
        let (mut registrar, now) = machine();
        let request = register("Contact: <sip:200@192.0.2.11>\r\n", asked);
        let mut editor = Editor::new(&request);
        let pending = registrar.rewrite_request(&mut editor, Hop::udp(PHONES, phone()), ours()).unwrap();
        let sent = contacts(&editor.finish()).remove(0);
        let response = ok(&format!("Contact: {sent}{parameter}\r\n{header}"));
        registrar.rewrite_response(now, &pending, &mut Editor::new(&response));
        assert_eq!(registrar.poll_timeout(), Some(now + Duration::from_secs(seconds)), "{description}");
        registrar.handle_timeout(now + Duration::from_secs(seconds - 1));
        assert_eq!(registrar.len(), 1, "{description}");
        registrar.handle_timeout(now + Duration::from_secs(seconds));
        assert!(registrar.is_empty() && registrar.by_aor.is_empty() && registrar.by_user.is_empty());
    }
}

#[test]
fn bindings_end_by_wildcard_and_by_an_expiry_of_zero() {
    for (contact, extra) in [
        ("*", "Expires: 0\r\n"),
        ("<sip:200@192.0.2.11>;expires=0", ""),
        ("<sip:200@192.0.2.11>", "Expires: 0\r\n"),
    ] {
        let (mut registrar, now) = machine();
        relay(&mut registrar, now, &register("Contact: <sip:200@192.0.2.11>\r\n", ""), phone(), "");
        assert_eq!(registrar.len(), 1);
        let request = register(&format!("Contact: {contact}\r\n"), extra);
        let mut editor = Editor::new(&request);
        let pending = registrar.rewrite_request(&mut editor, Hop::udp(PHONES, phone()), ours()).unwrap();
        if contact == "*" {
            assert_eq!(editor.finish(), request.raw());
        }
        assert_eq!(registrar.len(), 1, "only the server's 200 ends it");
        registrar.rewrite_response(now, &pending, &mut Editor::new(&ok("")));
        assert!(registrar.is_empty(), "{contact}");
    }
}

#[test]
fn a_challenge_makes_no_binding() {
    let (mut registrar, now) = machine();
    let request = register("Contact: <sip:200@192.0.2.11>\r\n", "");
    let pending =
        registrar.rewrite_request(&mut Editor::new(&request), Hop::udp(PHONES, phone()), ours()).unwrap();
    let text = String::from_utf8(ok("").raw().to_vec()).unwrap().replace("200 OK", "401 Unauthorized");
    let challenge = Message::parse(&Bytes::from(text)).unwrap();
    registrar.rewrite_response(now, &pending, &mut Editor::new(&challenge));
    assert!(registrar.is_empty());
}

#[test]
fn a_binding_is_found_by_token_and_by_user_only_when_unique() {
    let (mut registrar, now) = machine();
    let one = register("Contact: <sip:200@192.0.2.11>\r\n", "");
    let two = register("Contact: <sip:200@192.0.2.12>\r\n", "");
    let find = |registrar: &Registrar, uri: &str| {
        registrar
            .find(&Uri::parse(uri.as_bytes()).unwrap())
            .map(|binding| binding.destination().address.to_string())
    };
    relay(&mut registrar, now, &one, phone(), "");
    assert_eq!(find(&registrar, "sip:200@198.51.100.1"), Some("192.0.2.11:5060".into()));
    assert_eq!(find(&registrar, "sip:201@198.51.100.1"), None);
    let (sent, _) = relay(&mut registrar, now, &two, "192.0.2.12:1024".parse().unwrap(), "");
    assert_eq!(find(&registrar, "sip:200@198.51.100.1"), None);
    let uri = sent[0].trim_matches(['<', '>']);
    assert_eq!(find(&registrar, uri), Some("192.0.2.12:5060".into()));
    assert_eq!(find(&registrar, "sip:x@y;bl=0123456789abcdef"), None);
}

#[test]
fn a_phone_behind_a_nat_is_reached_at_its_source_and_keeps_its_token_when_that_changes() {
    let (mut registrar, now) = machine();
    let request = register("Contact: <sip:200@10.0.0.9:5060>\r\n", "");
    let (first, _) = relay(&mut registrar, now, &request, "192.0.2.50:4000".parse().unwrap(), "");
    let (second, _) = relay(&mut registrar, now, &request, "192.0.2.50:4001".parse().unwrap(), "");
    assert_eq!(first, second);
    assert_eq!(registrar.len(), 1);
    assert_eq!(
        registrar.bindings().next().unwrap().destination().address,
        "192.0.2.50:4001".parse().unwrap()
    );
}

#[test]
fn the_number_of_bindings_is_bounded_and_the_one_that_ends_first_gives_way() {
    let mut registrar = Registrar::new(Limits { per_aor: 2, total: 3 }, [1, 1]);
    let now = Instant::now();
    for port in 1..=3 {
        let request =
            register(&format!("Contact: <sip:200@192.0.2.11:{port}>;expires={}\r\n", port * 100), "");
        relay(&mut registrar, now, &request, phone(), "");
    }
    let mut ports: Vec<_> =
        registrar.bindings().map(|binding| binding.destination().address.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [2, 3]);

    let many =
        register("Contact: <sip:200@192.0.2.11:4>, <sip:200@192.0.2.11:5>, <sip:200@192.0.2.11:6>\r\n", "");
    let refused = registrar.rewrite_request(&mut Editor::new(&many), Hop::udp(PHONES, phone()), ours());
    assert_eq!(refused.unwrap_err(), Refusal::TooManyContacts);
}

proptest! {
    #[test]
    fn out_and_back_is_identity_and_indexes_agree(
        users in proptest::collection::vec(("[a-z]{1,3}", 1u16..5, 0u32..200, 0u64..100), 1..30)
    ) {
        let (mut registrar, mut now) = machine();
        for (user, port, expires, wait) in users {
            now += Duration::from_secs(wait);
            registrar.handle_timeout(now);
            let contact = format!("<sip:{user}@192.0.2.11:{port};line=a>;expires={expires}");
            let request = register(&format!("Contact: {contact}\r\n"), "");
            let Ok(pending) = registrar.rewrite_request(&mut Editor::new(&request), Hop::udp(PHONES, phone()), ours()) else { continue };
            drop(pending);
            let (_, back) = relay(&mut registrar, now, &request, phone(), "");
            prop_assert_eq!(back, [contact]);
            prop_assert_eq!(registrar.by_aor.values().map(Vec::len).sum::<usize>(), registrar.len());
            prop_assert_eq!(registrar.by_user.values().map(Vec::len).sum::<usize>(), registrar.len());
            prop_assert_eq!(registrar.deadlines.len(), registrar.len());
        }
    }
}
