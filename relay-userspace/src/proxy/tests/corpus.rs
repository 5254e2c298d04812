//! Every message of `tests/corpus` on its way through the proxy: what is to be relayed leaves as it came but for the
//! edits that a proxy has to make, what is not gets the answer that RFC 4475 suggests, or a reason stands beside it.
//!
//! The expectation is computed from the file's bytes line by line, without the editor that made the edits.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;

use super::harness::*;
use crate::sip::wire::{Editor, HeaderName, Message, Method};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on.
    Relayed,
    /// It is answered here.
    Answered(u16),
    /// Nothing is sent.
    Dropped,
}

use Fate::{Answered, Dropped, Relayed};

/// Those that are not simply relayed, and those of RFC 4475 section 3.1.2 and 3.3 that are: what the RFC suggests, and
/// why it is done otherwise.
const FATES: &[(&str, Fate, &str)] = &[
    ("rfc4475/wsinv", Answered(481), "3.1.1.1: well-formed; but it is in a dialog that nobody has here"),
    ("rfc4475/noreason", Dropped, "3.1.1.13: accepted; a 100 goes no further than one hop (RFC 3261 16.7)"),
    ("rfc4475/badinv01", Answered(400), "3.1.2.1: 400"),
    ("rfc4475/clerr", Answered(400), "3.1.2.2: 400"),
    ("rfc4475/ncl", Answered(400), "3.1.2.3: an error"),
    ("rfc4475/scalar02", Answered(400), "3.1.2.4: 400"),
    ("rfc4475/scalarlg", Dropped, "3.1.2.5: dropped"),
    ("rfc4475/quotbal", Answered(400), "3.1.2.6: 400"),
    ("rfc4475/ltgtruri", Answered(400), "3.1.2.7: 400"),
    ("rfc4475/lwsruri", Answered(400), "3.1.2.8: 400"),
    ("rfc4475/lwsstart", Answered(400), "3.1.2.9: may be refused"),
    ("rfc4475/trws", Answered(400), "3.1.2.10: may be refused"),
    ("rfc4475/escruri", Answered(400), "3.1.2.11: 400, or forwarded without the headers"),
    ("rfc4475/baddate", Relayed, "3.1.2.12: no reason to refuse it where Date is not used"),
    ("rfc4475/regbadct", Relayed, "3.1.2.13: 400, or the brackets inferred: the new Contact gets them"),
    (
        "rfc4475/badaspec",
        Relayed,
        "3.1.2.14: 400 is reasonable; phones write such blanks, and they are unambiguous",
    ),
    (
        "rfc4475/baddn",
        Relayed,
        "3.1.2.15: 400, or forwarded with quotes. Names without quotes are common, and From and To go on as sent: a \
         server's patterns and signatures look at them",
    ),
    ("rfc4475/badvers", Answered(505), "3.1.2.16: 505"),
    ("rfc4475/mismatch01", Answered(400), "3.1.2.17: 400"),
    ("rfc4475/mismatch02", Answered(400), "3.1.2.18: 501, or 400: to a relay no method is unknown"),
    ("rfc4475/bigcode", Dropped, "3.1.2.19: dropped"),
    ("rfc4475/badbranch", Relayed, "3.2.1: 400, or matched as RFC 2543 has it: so it is"),
    (
        "rfc4475/insuf",
        Dropped,
        "3.3.1: ideally 400; without From, To and Call-ID no response can be built (RFC 3261 8.2.6.2)",
    ),
    ("rfc4475/unkscm", Relayed, "3.3.2: 416 of whom it is for; the servers decide what they know"),
    ("rfc4475/novelsc", Relayed, "3.3.3: the same"),
    ("rfc4475/unksm2", Relayed, "3.3.4: a registrar's to refuse"),
    ("rfc4475/bext01", Answered(420), "3.3.5: 420 of a proxy"),
    ("rfc4475/invut", Relayed, "3.3.6: an endpoint's to refuse"),
    ("rfc4475/regaut01", Relayed, "3.3.7: a registrar's to refuse"),
    ("rfc4475/multi01", Answered(400), "3.3.8: 400"),
    ("rfc4475/mcl01", Answered(400), "3.3.9: 400"),
    (
        "rfc4475/bcast",
        Relayed,
        "3.3.10: dropped as it is, as is every answer to nothing; relayed with our Via on top",
    ),
    ("rfc4475/zeromf", Answered(483), "3.3.11: 483 of a proxy"),
    ("rfc5118/ipv6-bad", Answered(400), "4.2: 400"),
    ("rfc5118/via-received-param-with-delim", Answered(481), "4.5: accepted; but a BYE of no dialog"),
    ("rfc5118/mult-ip-in-header", Answered(481), "4.7: accepted; but a BYE of no dialog"),
    (
        "rfc5118/ipv6-bug-abnf-3-colons",
        Answered(400),
        "4.10: better accepted; nobody writes it, and what is no address to one reader must not be one to another",
    ),
    ("families/genesys-ack-with-answer", Dropped, "an ACK of no dialog"),
    ("families/response-exchange-302", Dropped, "followed here: the phone does not see it"),
];

fn corpus() -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = BTreeMap::new();
    for part in ["rfc4475", "rfc5118", "families"] {
        for entry in fs::read_dir(root.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{part}/{}", path.file_stem().unwrap().to_str().unwrap());
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

fn expected_fate(name: &str) -> Fate {
    FATES.iter().find(|(row, ..)| *row == name).map_or(Relayed, |(_, fate, _)| *fate)
}

/// The lines of a head with their ends, folds being lines of their own, and the body.
fn lines(message: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut rest = message;
    let mut lines = Vec::new();
    while let Some(feed) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(feed + 1);
        rest = after;
        if line == b"\n" || line == b"\r\n" {
            break;
        }
        lines.push(line);
    }
    (lines, rest)
}

/// A description as the media room of these tests writes it.
fn described(body: &[u8], own: &str, port: u16) -> Vec<u8> {
    let mut ported = false;
    let mut inside = false;
    let mut out = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        inside |= text.starts_with("v=0");
        let fields: Vec<&str> = text.trim_end().split(' ').collect();
        if inside && text.starts_with("c=IN") && fields[2] != "0.0.0.0" {
            out.extend_from_slice(format!("c=IN IP4 {own}\r\n").as_bytes());
        } else if inside && text.starts_with("m=") && !ported {
            ported = true;
            out.extend_from_slice(text.replacen(fields[1], &port.to_string(), 1).as_bytes());
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

/// The text with every SIP Contact URI masked; and these URIs.
fn without_contacts(bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    let message = Message::parse(&Bytes::copy_from_slice(bytes)).unwrap();
    let raw = message.raw().clone();
    let (mut out, mut uris, mut done) = (Vec::new(), Vec::new(), 0);
    for contact in message.addresses(HeaderName::Contact) {
        if !contact.parsed_uri().is_some_and(|uri| uri.is_sip()) {
            continue;
        }
        let at = contact.uri.as_ptr() as usize - raw.as_ptr() as usize;
        let (from, to) = (at - usize::from(contact.bracketed), at + contact.uri.len());
        out.extend_from_slice(&raw[done..from]);
        out.extend_from_slice(b"CONTACT");
        done = to + usize::from(contact.bracketed);
        uris.push(String::from_utf8_lossy(contact.uri).into_owned());
    }
    out.extend_from_slice(&raw[done..]);
    (out, uris)
}

/// User and parameters of a Contact are the sender's, the address is ours.
fn contact_is_ours(name: &str, before: &str, after: &str, own: &str) {
    let (_, rest) = before.split_once(':').unwrap();
    let (user, rest) = rest.split_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let start = if user.is_empty() { format!("sip:{own}") } else { format!("sip:{user}@{own}") };
    assert!(after.starts_with(&start), "{name}: {before} became {after}");
    for param in rest.split(['?', ';']).skip(1) {
        let goes = ["transport=", "maddr="].iter().any(|own| param.starts_with(own));
        assert!(goes || after.contains(param), "{name}: {param} of {before} is missing in {after}");
    }
}

fn name_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    if text.starts_with([' ', '\t']) {
        return String::new();
    }
    let name = text.split(':').next().unwrap_or_default().trim().to_lowercase();
    let long = [("v", "via"), ("l", "content-length"), ("m", "contact"), ("t", "to"), ("f", "from")];
    long.iter().find(|(short, _)| *short == name).map_or(name.clone(), |(_, long)| (*long).to_owned())
}

/// Replaces the value of a header line (its folds are dropped), keeping name, blanks and line end.
fn revalued(line: &[u8], value: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(line).into_owned();
    let (name, old) = text.split_once(':').unwrap();
    let blanks: String = old.chars().take_while(|c| *c == ' ' || *c == '\t').collect();
    let end: String =
        old.trim_start_matches([' ', '\t']).chars().rev().take_while(|c| c.is_whitespace()).collect();
    format!("{name}:{blanks}{value}{}", end.chars().rev().collect::<String>()).into_bytes()
}

/// What a request that came from the phone is when it leaves for the server.
fn request_expected(input: &[u8], ours: &[Vec<u8>]) -> Vec<u8> {
    let message = Message::parse(&Bytes::copy_from_slice(input)).unwrap();
    let (head, body) = lines(message.raw());
    let sdp = body.windows(3).any(|w| w == b"v=0")
        && message.method() == &Method::Invite
        && String::from_utf8_lossy(input).contains("application/sdp");
    let body = if sdp { described(body, "198.51.100.1", 16384) } else { body.to_vec() };
    let end = if head[0].ends_with(b"\r\n") { "\r\n" } else { "\n" };
    // A request to the appliance itself is one to the server behind it.
    let first = String::from_utf8_lossy(head[0]).into_owned();
    let mut out = match first.contains("192.0.2.1:8060") {
        true => first.replacen("192.0.2.1:8060", "198.51.100.9", 1).into_bytes(),
        false => head[0].to_vec(),
    };
    for line in ours {
        out.extend_from_slice(line);
    }
    let known = |wanted: &str| head[1..].iter().any(|line| name_of(line) == wanted);
    if !known("max-forwards") {
        out.extend_from_slice(format!("Max-Forwards: 70{end}").as_bytes());
    }
    let stamp = {
        let via = message.via();
        (via.params.has("rport") || via.host != b"192.0.2.11").then(|| {
            let mut value = String::from_utf8_lossy(via.value).into_owned();
            if let Some(received) = via.params.get("received") {
                value = value.replacen(&*String::from_utf8_lossy(received.whole), "", 1);
            }
            if let Some(rport) = via.params.get("rport") {
                value = value.replacen(&*String::from_utf8_lossy(rport.whole), ";rport=5060", 1);
            }
            (via.value.to_vec(), format!("{value};received=192.0.2.11").into_bytes())
        })
    };
    for line in &head[1..] {
        match name_of(line).as_str() {
            "max-forwards" => {
                out.extend_from_slice(&revalued(line, &(message.max_forwards().unwrap() - 1).to_string()));
            }
            "content-length" if sdp => out.extend_from_slice(&revalued(line, &body.len().to_string())),
            _ => out.extend_from_slice(line),
        }
    }
    if sdp && !known("content-length") {
        out.extend_from_slice(format!("Content-Length: {}{end}", body.len()).as_bytes());
    }
    out.extend_from_slice(end.as_bytes());
    if let Some((old, new)) = stamp {
        let at = out.windows(old.len()).position(|window| window == old).unwrap();
        out.splice(at..at + old.len(), new);
    }
    out.extend_from_slice(&body);
    out
}

/// The lines that the proxy put on top: its Via, and for requests that make dialogs two Record-Routes.
fn taken_off(name: &str, sent: &Sent) -> Vec<Vec<u8>> {
    let message = sent.message();
    let forms = matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer)
        && message.to_tag().is_none();
    let (head, _) = lines(&sent.payload);
    let ours: Vec<Vec<u8>> = head[1..if forms { 4 } else { 2 }].iter().map(|line| line.to_vec()).collect();
    let text: Vec<String> =
        ours.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect();
    assert!(text[0].starts_with("Via: SIP/2.0/") && text[0].contains(";rport"), "{name}: {}", text[0]);
    assert!(text[0].contains(" 198.51.100.1:8060;branch=z9hG4bKbl"), "{name}: {}", text[0]);
    for (line, own) in text[1..].iter().zip(["198.51.100.1:8060", "192.0.2.1:8060"]) {
        assert!(
            line.starts_with(&format!("Record-Route: <sip:{own}")) && line.ends_with(";lr>"),
            "{name}: {line}"
        );
    }
    ours
}

fn assert_same(name: &str, expected: &[u8], got: &[u8], own: &str) {
    let ((expected, before), (got, after)) = (without_contacts(expected), without_contacts(got));
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected), "{name}");
    assert!(got == expected, "{name}: bytes that are no UTF-8 differ");
    assert_eq!(before.len(), after.len(), "{name}");
    for (before, after) in before.iter().zip(&after) {
        if before != after {
            contact_is_ours(name, before, after, own);
        }
    }
}

/// Sends a request from the phone and says what came of it.
fn request(name: &str, input: &[u8]) -> Fate {
    let mut world = World::new();
    let sent = world.receive(PHONES, PHONE, input);
    if let Some(relayed) = sent.iter().find(|sent| sent.network == SERVERS) {
        let ours = taken_off(name, relayed);
        assert_same(name, &request_expected(input, &ours), &relayed.payload, "198.51.100.1:8060");
        return Relayed;
    }
    // Not read with our own parser: a 400 may hand back what could not be read.
    let status = |sent: &Sent| std::str::from_utf8(sent.payload.get(8..11)?).ok()?.parse().ok();
    sent.last().map_or(Dropped, |sent| Answered(status(sent).unwrap()))
}

/// Makes the request that a response is to, answers it with the response, and says what came of it.
fn response(name: &str, input: &[u8]) -> Fate {
    let Ok(message) = Message::parse(&Bytes::copy_from_slice(input)) else {
        let mut world = World::new();
        return if world.receive(SERVERS, SERVER, input).is_empty() { Dropped } else { Relayed };
    };
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (from, call_id) = (part(message.from_value()), part(message.call_id()));
    let method = part(message.method().as_bytes());
    let body =
        if method == "INVITE" { sdp("192.0.2.11", 4000, "").replace('\n', "\r\n") } else { String::new() };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let text = format!(
        "{method} sip:100@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKq\r\nFrom: {from}\r\n\
         To: <sip:100@example.com>\r\nCall-ID: {call_id}\r\nCSeq: {} {method}\r\nMax-Forwards: 70\r\n\
         Contact: <sip:200@192.0.2.11:5060>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        message.cseq(),
        body.len()
    );
    let mut world = World::new();
    assert!(world.receive(SERVERS, SERVER, input).is_empty(), "{name}: an answer to nothing went on");
    let sent = world.receive(PHONES, PHONE, text.as_bytes());
    let request = sent.iter().find(|sent| sent.network == SERVERS).unwrap();
    let (head, body) = lines(input);
    let (asked, _) = lines(&request.payload);
    let vias: Vec<&[u8]> = asked.into_iter().filter(|line| name_of(line) == "via").collect();
    let rest: Vec<&[u8]> = head[1..].iter().copied().filter(|line| name_of(line) != "via").collect();
    let answer = [head[0], &vias.concat(), &rest.concat(), b"\r\n", body].concat();
    let sent = world.receive(SERVERS, SERVER, &answer);
    let Some(relayed) = sent.iter().find(|sent| sent.network == PHONES) else { return Dropped };
    let sdp = part(body).contains("v=0") && method == "INVITE";
    let body = if sdp { described(body, "192.0.2.1", 16388) } else { body.to_vec() };
    let rest: Vec<Vec<u8>> = rest
        .into_iter()
        .map(|line| match name_of(line).as_str() {
            "content-length" if sdp => revalued(line, &body.len().to_string()),
            _ => line.to_vec(),
        })
        .collect();
    let expected = [head[0], vias[1], &rest.concat(), b"\r\n", &body].concat();
    assert_same(name, &expected, &relayed.payload, "192.0.2.1:8060");
    Relayed
}

#[test]
fn every_message_of_the_corpus_has_the_fate_that_its_row_says_and_keeps_its_bytes() {
    let files = corpus();
    assert!(files.len() >= 120, "{} files", files.len());
    for (name, ..) in FATES {
        assert!(files.contains_key(*name), "{name} is no file of the corpus");
    }
    let mut wrong = Vec::new();
    for (name, bytes) in &files {
        let is_response = bytes.starts_with(b"SIP/");
        let fate = if is_response { response(name, bytes) } else { request(name, bytes) };
        if fate != expected_fate(name) {
            wrong.push(format!("{name}: {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_in_a_dialog_of_others_is_relayed_unchanged_when_it_opens_one() {
    let wsinv = corpus().remove("rfc4475/wsinv").unwrap();
    let text = String::from_utf8(wsinv).unwrap().replacen(" ;   tag    = 1918181833n", "", 1);
    assert_eq!(request("wsinv without To tag", text.as_bytes()), Relayed);
}

#[test]
fn what_is_read_of_the_corpus_is_written_as_it_was() {
    for (name, bytes) in corpus() {
        let Ok(message) = Message::parse(&Bytes::copy_from_slice(&bytes)) else { continue };
        let written = Editor::new(&message).finish();
        // What follows the body that Content-Length announces is noise (RFC 3261 18.3; RFC 4475 3.1.1.8).
        let length = if name == "rfc4475/dblreq" { written.len() } else { bytes.len() };
        assert!(written[..] == bytes[..length], "{name}");
    }
}
