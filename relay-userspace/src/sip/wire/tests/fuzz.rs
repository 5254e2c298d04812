//! Fuzz targets of the wire room and of digest authentication. Under `cargo test` they replay their committed corpora
//! (`__fuzz__`), the messages of `tests/corpus`, and random inputs.

use std::{fs, path::Path};

use bytes::Bytes;

use super::super::{Editor, HeaderName, MAGIC_COOKIE, Message, Reply, Uri, Via, limits, respond};
use crate::sip::digest::{Challenge, Given, Request, Secret};

fn holds(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || crate::splice::offset_in(whole, part).is_some()
}

/// Any bytes are read or refused in bounded memory; what is read comes out as it came, and edited it can be read again.
fn message(input: &[u8]) {
    let message = match Message::parse(&Bytes::copy_from_slice(input)) {
        Ok(message) => message,
        Err(rejected) => {
            if let Some(request) = rejected.answerable.as_deref() {
                let source = "192.0.2.7:5060".parse().unwrap();
                assert!(respond(request, source, &Reply::new(400, b"t")).starts_with(b"SIP/2.0 400 "));
            }
            return;
        }
    };
    assert!(crate::splice::offset_in(message.raw(), message.body()).is_some());
    assert!(input.windows(message.raw().len().max(1)).any(|part| part == &message.raw()[..]));
    assert_eq!(&Editor::new(&message).finish(), message.raw());
    assert!(message.held_bytes() <= input.len() + limits::HEADERS * 256);
    if message.headers().count() > limits::HEADERS / 2 || input.len() > limits::MESSAGE / 2 {
        return;
    }
    let mut editor = Editor::new(&message);
    editor.add_header("Via", format_args!("SIP/2.0/UDP 192.0.2.1:8060;branch=z9hG4bKbl1;rport"));
    editor.stamp_via("192.0.2.7:5062".parse().unwrap());
    editor.max_forwards(69);
    editor.body(b"v=0\r\n");
    let edited = editor.finish();
    let again = Message::parse(&edited).unwrap_or_else(|error| panic!("{error}: {edited:?}"));
    assert_eq!((again.body(), again.max_forwards()), (&b"v=0\r\n"[..], Some(69)));
    assert_eq!((again.call_id(), again.cseq()), (message.call_id(), message.cseq()));
    assert_eq!(again.values(HeaderName::Via).count(), message.values(HeaderName::Via).count() + 1);
    let mut editor = Editor::new(&again);
    editor.pop_via();
    editor.drop_routes(1);
    assert!(editor.finish().len() < edited.len());
}

#[test]
fn any_datagram_is_refused_or_comes_out_as_it_came() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for part in ["rfc4475", "rfc5118", "families"] {
        for entry in fs::read_dir(root.join(part)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            message(&bytes);
            // Cut anywhere, and with one byte damaged: what random bytes do not reach.
            for at in (0..bytes.len()).step_by(37) {
                message(&bytes[..at]);
                for byte in *b"\0\r\n:;,<\"" {
                    let mut damaged = bytes.clone();
                    damaged[at] = byte;
                    message(&damaged);
                }
            }
        }
    }
    bolero::check!().with_iterations(5_000).for_each(message);
}

#[test]
fn any_uri_is_refused_or_taken_apart_within_its_own_bytes() {
    bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
        let Some(uri) = Uri::parse(input) else { return };
        for part in [uri.user, uri.password, Some(uri.host), Some(uri.host_port), Some(uri.headers)] {
            assert!(part.is_none_or(|part| holds(input, part)));
        }
        assert!(!uri.is_sip() || !uri.host.is_empty());
        assert!(uri.params.iter().all(|param| holds(input, param.whole) && param.whole.starts_with(b";")));
        assert!(uri.socket().is_none() || uri.ip().is_some());
        let _ = (uri.transport(), uri.equivalent(&uri));
    });
}

#[test]
fn any_via_is_refused_or_answered_to_its_source() {
    bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
        let Some(via) = Via::parse(input) else { return };
        let source = "192.0.2.7:5062".parse().unwrap();
        assert_eq!(via.reply_to(source).ip(), std::net::SocketAddr::ip(&source));
        assert!(holds(input, via.sent_by) && holds(via.sent_by, via.host) && !via.host.is_empty());
        assert!(!via.has_magic_cookie() || via.branch().unwrap().len() > MAGIC_COOKIE.len());
        let _ = via.needs_received(source.ip());
    });
}

#[test]
fn any_challenge_is_passed_over_or_answered_so_that_the_answer_is_right() {
    bolero::check!().with_iterations(5_000).for_each(|input: &[u8]| {
        let Some(challenge) = Challenge::parse(input) else { return };
        let request = Request { method: b"INVITE", uri: b"sip:100@example.com", body: b"v=0" };
        let answer = challenge.answer(&request, "200", &Secret::Password("secret"), "c0ffee");
        // A realm with a quote in it is written as it was read: who sent it has to make sense of it.
        let quotes = input.iter().filter(|byte| **byte == b'"').count();
        let opening = input.windows(2).filter(|pair| *pair == b"=\"").count();
        if input.contains(&b'\\') || quotes != 2 * opening {
            return;
        }
        let given = Given::parse(&answer).unwrap_or_else(|| panic!("{answer:?}"));
        assert!(
            given.is_right(b"INVITE", b"v=0", &Secret::Password("secret"))
                && !given.is_right(b"INVITE", b"v=0", &Secret::Password("Secret"))
        );
    });
}

#[test]
fn any_answer_to_a_challenge_is_refused_or_wrong() {
    bolero::check!().with_iterations(5_000).for_each(|input: &[u8]| {
        let Some(given) = Given::parse(input) else { return };
        assert!(!given.is_right(b"REGISTER", b"", &Secret::Password("nobody has this password")));
        assert!(holds(input, given.user) && holds(input, given.realm) && holds(input, given.nonce));
    });
}
