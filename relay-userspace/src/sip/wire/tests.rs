use bytes::Bytes;
use proptest::prelude::*;

mod fuzz;

use super::*;

const INVITE: &str = "INVITE sip:100@198.51.100.9:5060;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.11:5062;branch=z9hG4bK1;rport\r\n\
Via: SIP/2.0/UDP 192.0.2.12;branch=z9hG4bK0, SIP/2.0/UDP h;branch=z\r\n\
From: \"A, B\" <sip:200@example.com>;tag=f1\r\n\
To: <sip:100@example.com>\r\n\
Call-ID: c1@192.0.2.11\r\n\
CSeq: 7 INVITE\r\n\
Contact: <sip:200@192.0.2.11:5062;transport=udp>;+sip.instance=\"<urn:x>\"\r\n\
Route: <sip:a;lr>, <sip:b;lr>\r\n\
Route: <sip:c;lr>\r\n\
Max-Forwards: 70\r\n\
X-Vendor:  keep  me \r\n\
Content-Type: application/sdp\r\n\
Content-Length: 5\r\n\
\r\n\
v=0\r\n";

fn parse(text: &[u8]) -> Message {
    Message::parse(&Bytes::copy_from_slice(text)).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn edited(edit: impl FnOnce(&mut Editor<'_>)) -> String {
    let message = parse(INVITE.as_bytes());
    let mut editor = Editor::new(&message);
    edit(&mut editor);
    text(&editor.finish()).to_owned()
}

#[test]
fn an_invite_is_indexed() {
    let message = parse(INVITE.as_bytes());
    assert_eq!(message.method(), &Method::Invite);
    assert_eq!(message.request_uri(), b"sip:100@198.51.100.9:5060;user=phone");
    let uri = message.parsed_request_uri().unwrap();
    assert_eq!((uri.user, uri.host, uri.port), (Some(&b"100"[..]), &b"198.51.100.9"[..], Some(5060)));
    let via = message.via();
    assert_eq!((via.host, via.port, via.branch()), (&b"192.0.2.11"[..], Some(5062), Some(&b"z9hG4bK1"[..])));
    assert!(via.params.has("rport"));
    assert_eq!(message.from_tag(), b"f1");
    assert_eq!(message.to_tag(), None);
    assert_eq!(message.call_id(), b"c1@192.0.2.11");
    assert_eq!((message.cseq(), message.max_forwards()), (7, Some(70)));
    assert_eq!(NameAddr::parse(message.from_value()).unwrap().label(), "A, B");
    assert_eq!(message.values(HeaderName::Via).count(), 3);
    let routes: Vec<_> = message.addresses(HeaderName::Route).map(|route| route.uri.to_vec()).collect();
    assert_eq!(routes, [&b"sip:a;lr"[..], b"sip:b;lr", b"sip:c;lr"]);
    let contact = message.addresses(HeaderName::Contact).next().unwrap();
    assert_eq!(contact.params.value("+sip.instance"), Some(&b"\"<urn:x>\""[..]));
    assert_eq!(message.body(), b"v=0\r\n");
}

#[test]
fn edits_change_what_they_name_and_nothing_else() {
    let base = INVITE;
    let table: Vec<(&str, String, String)> = vec![
        ("no edit", edited(|_| {}), base.to_owned()),
        (
            "request URI",
            edited(|e| e.request_uri(b"sip:x@y")),
            base.replace("sip:100@198.51.100.9:5060;user=phone", "sip:x@y"),
        ),
        (
            "headers on top stand in the order of the calls",
            edited(|e| {
                e.add_header("Via", format_args!("one"));
                e.add_header("Record-Route", format_args!("two"));
            }),
            base.replacen("Via:", "Via: one\r\nRecord-Route: two\r\nVia:", 1),
        ),
        (
            "top Via alone in its line",
            edited(|e| e.pop_via()),
            base.replace("Via: SIP/2.0/UDP 192.0.2.11:5062;branch=z9hG4bK1;rport\r\n", ""),
        ),
        (
            "received and rport",
            edited(|e| e.stamp_via("203.0.113.5:1024".parse().unwrap())),
            base.replace("z9hG4bK1;rport", "z9hG4bK1;rport=1024;received=203.0.113.5"),
        ),
        (
            "one Route of two in a line",
            edited(|e| e.drop_routes(1)),
            base.replace("<sip:a;lr>, <sip:b;lr>", "<sip:b;lr>"),
        ),
        (
            "a whole Route line",
            edited(|e| e.drop_routes(2)),
            base.replace("Route: <sip:a;lr>, <sip:b;lr>\r\n", ""),
        ),
        (
            "more Routes than there are",
            edited(|e| e.drop_routes(9)),
            base.replace("Route: <sip:a;lr>, <sip:b;lr>\r\nRoute: <sip:c;lr>\r\n", ""),
        ),
        ("Max-Forwards", edited(|e| e.max_forwards(69)), base.replace("Forwards: 70", "Forwards: 69")),
        (
            "body and its length",
            edited(|e| e.body(b"v=0\r\ns=-\r\n")),
            base.replace("Content-Length: 5", "Content-Length: 10").replace("v=0\r\n", "v=0\r\ns=-\r\n"),
        ),
    ];
    for (description, after, expected) in table {
        assert_eq!(after, expected, "{description}");
    }
}

#[test]
fn the_top_value_of_a_shared_via_line_is_taken_alone() {
    let message = parse(
        INVITE.replacen("Via: SIP/2.0/UDP 192.0.2.11:5062;branch=z9hG4bK1;rport\r\n", "", 1).as_bytes(),
    );
    let mut editor = Editor::new(&message);
    editor.pop_via();
    assert!(text(&editor.finish()).contains("0\r\nVia: SIP/2.0/UDP h;branch=z\r\nFrom"));
}

#[test]
fn missing_headers_are_added_with_the_messages_line_end() {
    let message = parse(
        b"FOO sip:a@b SIP/2.0\nv:SIP/2.0/UDP h;branch=1\nf:sip:a@b;tag=1\nt:sip:b@c\ni:1\nCSeq:1 FOO\n\n",
    );
    let mut editor = Editor::new(&message);
    editor.max_forwards(70);
    editor.body(b"x");
    assert_eq!(
        text(&editor.finish()),
        "FOO sip:a@b SIP/2.0\nMax-Forwards: 70\nv:SIP/2.0/UDP h;branch=1\nf:sip:a@b;tag=1\nt:sip:b@c\ni:1\n\
         CSeq:1 FOO\nContent-Length: 1\n\nx"
    );
}

#[test]
fn a_response_copies_what_rfc_3261_8_2_6_names() {
    let message = parse(INVITE.as_bytes());
    let reply = Reply { headers: b"Retry-After: 5\r\n", ..Reply::new(503, b"me") };
    assert_eq!(
        text(&respond(&message, "192.0.2.11:5062".parse().unwrap(), &reply)),
        "SIP/2.0 503 Service Unavailable\r\n\
         Via: SIP/2.0/UDP 192.0.2.11:5062;branch=z9hG4bK1;rport=5062;received=192.0.2.11\r\n\
         Via: SIP/2.0/UDP 192.0.2.12;branch=z9hG4bK0, SIP/2.0/UDP h;branch=z\r\n\
         From: \"A, B\" <sip:200@example.com>;tag=f1\r\n\
         To: <sip:100@example.com>;tag=me\r\n\
         Call-ID: c1@192.0.2.11\r\n\
         CSeq: 7 INVITE\r\n\
         Retry-After: 5\r\n\
         Content-Length: 0\r\n\r\n"
    );
}

#[test]
fn cancel_and_ack_follow_the_request_as_it_was_sent() {
    let message = parse(INVITE.as_bytes());
    let head = |method: &str, to: &str| {
        format!(
            "{method} sip:100@198.51.100.9:5060;user=phone SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.11:5062;branch=z9hG4bK1;rport\r\n\
             Route: <sip:a;lr>, <sip:b;lr>\r\nRoute: <sip:c;lr>\r\nMax-Forwards: 70\r\n\
             From: \"A, B\" <sip:200@example.com>;tag=f1\r\nTo: {to}\r\nCall-ID: c1@192.0.2.11\r\nCSeq: 7 {method}\r\n"
        )
    };
    assert_eq!(
        text(&cancel(&message, b"Reason: SIP;cause=200\r\n")),
        head("CANCEL", "<sip:100@example.com>") + "Reason: SIP;cause=200\r\nContent-Length: 0\r\n\r\n"
    );
    let response = parse(&respond(&message, "192.0.2.11:5062".parse().unwrap(), &Reply::new(486, b"t")));
    assert_eq!(
        text(&ack_for_failure(&message, &response)),
        head("ACK", "<sip:100@example.com>;tag=t") + "Content-Length: 0\r\n\r\n"
    );
}

/// A request with the given lines in the place of the usual ones.
fn with(replace: &[(&str, &str)]) -> String {
    replace.iter().fold(INVITE.to_owned(), |message, (from, to)| {
        assert!(message.contains(from), "{from}");
        message.replacen(from, to, 1)
    })
}

#[test]
fn odd_but_legal_messages_are_read_and_come_out_unchanged() {
    let long = "a".repeat(400);
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("line feeds alone", INVITE.replace("\r\n", "\n").replace("Length: 5", "Length: 4").into_bytes()),
        ("folded header", with(&[("Call-ID: c1", "Call-ID:\r\n c1")]).into_bytes()),
        ("folded Via with tabs", with(&[("UDP 192.0.2.11:5062;", "UDP\r\n\t192.0.2.11:5062\r\n ;")]).into_bytes()),
        ("white space before the colon", with(&[("CSeq:", "CSeq \t:"), ("From:", "FROM   :")]).into_bytes()),
        ("compact names", with(&[("Via", "v"), ("From", "f"), ("\r\nTo", "\r\nt"), ("Call-ID", "i")]).into_bytes()),
        ("white space within Via", with(&[("SIP/2.0/UDP 192.0.2.11:5062", "SIP / 2.0 / UDP  192.0.2.11 : 5062 ")]).into_bytes()),
        ("From without brackets", with(&[("\"A, B\" <sip:200@example.com>;tag=f1", "sip:200@example.com;tag=f1")]).into_bytes()),
        ("no From tag (RFC 2543)", with(&[(";tag=f1", "")]).into_bytes()),
        ("no branch (RFC 2543)", with(&[(";branch=z9hG4bK1", "")]).into_bytes()),
        ("no Max-Forwards", with(&[("Max-Forwards: 70\r\n", "")]).into_bytes()),
        ("no Content-Length", with(&[("Content-Length: 5\r\n", "")]).into_bytes()),
        ("leading zeros in CSeq", with(&[("CSeq: 7", "CSeq: 0007")]).into_bytes()),
        ("a host that looks like an address", with(&[("198.51.100.9:5060", "192.168.0.300")]).into_bytes()),
        ("IPv6 reference", with(&[("198.51.100.9:5060", "[2001:db8::9]:5060")]).into_bytes()),
        ("tel URI", with(&[("sip:100@198.51.100.9:5060;user=phone", "tel:+1-201-555-0123;phone-context=x")]).into_bytes()),
        ("urn URI", with(&[("sip:100@198.51.100.9:5060;user=phone", "urn:service:sos")]).into_bytes()),
        ("unknown scheme", with(&[("sip:100@198.51.100.9:5060;user=phone", "nobodyKnowsThisScheme:totallyopaque")]).into_bytes()),
        ("user part with ; = ? and %", with(&[("sip:100@", "sip:a;b=c?d%20e=f-g:pw@")]).into_bytes()),
        ("unusual method", with(&[("INVITE sip", "!int.es%T_h*a`c~od sip"), ("7 INVITE", "7 !int.es%T_h*a`c~od")]).into_bytes()),
        ("escaped quotes in a display name", with(&[("\"A, B\"", "\"\\\"<;,\\\\\"")]).into_bytes()),
        ("Latin-1 display name", [&b"FOO sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: J\xf6rg <sip:a@b>;tag=1\r\nTo: \"\x00\xff\" <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 FOO\r\n\r\n"[..]].concat()),
        ("binary body", [with(&[("Length: 5", "Length: 6")]).trim_end_matches("v=0\r\n").as_bytes(), b"\x00\xff\r\n\r\n"].concat()),
        ("long values", with(&[("tag=f1", &format!("tag={long}")), ("c1@", &format!("{long}@"))]).into_bytes()),
        ("empty header value", with(&[("X-Vendor:  keep  me ", "Subject:")]).into_bytes()),
        ("lower-case version", with(&[("user=phone SIP/2.0", "user=phone sip/2.0")]).into_bytes()),
        ("response without a reason", b"SIP/2.0 200\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 FOO\r\n\r\n".to_vec()),
        ("response with a reason in UTF-8", "SIP/2.0 486 \u{437}\u{430}\u{43d}\u{44f}\u{442}\u{43e}\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:b@c>\r\nCall-ID: 1\r\nCSeq: 1 FOO\r\n\r\n".as_bytes().to_vec()),
        ("Contact wildcard", with(&[("<sip:200@192.0.2.11:5062;transport=udp>;+sip.instance=\"<urn:x>\"", "*")]).into_bytes()),
    ];
    for (description, bytes) in table {
        let bytes = Bytes::from(bytes);
        let message = Message::parse(&bytes).unwrap_or_else(|rejected| panic!("{description}: {rejected}"));
        assert_eq!(Editor::new(&message).finish(), bytes, "{description}");
        assert_eq!(message.raw(), &bytes, "{description}");
    }
}

#[test]
fn line_ends_before_and_bytes_after_the_message_are_left_out() {
    let padded = format!("\r\n\r\n{INVITE}extra");
    assert_eq!(parse(padded.as_bytes()).raw(), INVITE.as_bytes());
}

#[test]
fn malformed_messages_are_refused_with_the_fault_and_answered_where_possible() {
    use HeaderName as H;
    let table: Vec<(&str, String, Fault, u16, bool)> = vec![
        ("no SIP at all", "hello\r\n".into(), Fault::NotSip, 400, false),
        ("no line end", "INVITE sip:a SIP/2.0".into(), Fault::NotSip, 400, false),
        ("no version", with(&[(" SIP/2.0\r\n", "\r\n")]), Fault::RequestLine, 400, true),
        ("version 7", with(&[("phone SIP/2.0", "phone SIP/7.0")]), Fault::Version, 505, true),
        (
            "space after the version",
            with(&[("phone SIP/2.0", "phone SIP/2.0 ")]),
            Fault::RequestLine,
            400,
            true,
        ),
        ("space in the URI", with(&[("user=phone", "user= phone")]), Fault::RequestUri, 400, true),
        (
            "brackets around the URI",
            with(&[("sip:100@198.51.100.9:5060;user=phone", "<sip:a@b>")]),
            Fault::RequestUri,
            400,
            true,
        ),
        ("header without a colon", with(&[("X-Vendor:  keep", "X-Vendor")]), Fault::NoColon, 400, true),
        ("space in a header name", with(&[("X-Vendor:", "X Vendor:")]), Fault::Name, 400, true),
        ("bare carriage return", with(&[("keep  me", "keep\rme")]), Fault::BareCarriageReturn, 400, true),
        (
            "bare carriage return in a header that is copied",
            with(&[("c1@", "c1@\rx")]),
            Fault::BareCarriageReturn,
            400,
            false,
        ),
        ("no empty line", with(&[("Content-Length: 5\r\n\r\nv=0\r\n", "")]), Fault::NoEmptyLine, 400, true),
        ("no Call-ID", with(&[("Call-ID: c1@192.0.2.11\r\n", "")]), Fault::Missing(H::CallId), 400, false),
        ("no Via", "A sip:a@b SIP/2.0\r\n\r\n".into(), Fault::Missing(H::Via), 400, false),
        ("two From", with(&[("CSeq:", "From: <sip:x@y>\r\nCSeq:")]), Fault::Repeated(H::From), 400, true),
        (
            "two lengths",
            with(&[("Content-Length: 5", "Content-Length: 5\r\nl: 0")]),
            Fault::Repeated(H::ContentLength),
            400,
            true,
        ),
        (
            "negative length",
            with(&[("Length: 5", "Length: -5")]),
            Fault::Malformed(H::ContentLength),
            400,
            true,
        ),
        ("length beyond the end", with(&[("Length: 5", "Length: 6")]), Fault::BodyShort, 400, true),
        (
            "huge length",
            with(&[("Length: 5", "Length: 99999999999999999999")]),
            Fault::Malformed(H::ContentLength),
            400,
            true,
        ),
        ("other CSeq method", with(&[("7 INVITE", "7 OPTIONS")]), Fault::CSeqMethod, 400, true),
        ("CSeq too large", with(&[("CSeq: 7", "CSeq: 2147483648")]), Fault::Malformed(H::CSeq), 400, true),
        (
            "CSeq overflow",
            with(&[("CSeq: 7", "CSeq: 36893488147419103232")]),
            Fault::Malformed(H::CSeq),
            400,
            true,
        ),
        (
            "unknown Via protocol",
            with(&[("SIP/2.0/UDP 192.0.2.11", "XIP/2.0/UDP 192.0.2.11")]),
            Fault::Malformed(H::Via),
            400,
            false,
        ),
        (
            "unclosed bracket",
            with(&[("<sip:100@example.com>", "<sip:100@example.com")]),
            Fault::Malformed(H::To),
            400,
            true,
        ),
        ("unclosed quote", with(&[("\"A, B\"", "\"A, B")]), Fault::Malformed(H::From), 400, true),
        (
            "Max-Forwards of words",
            with(&[("Forwards: 70", "Forwards: seventy")]),
            Fault::Malformed(H::MaxForwards),
            400,
            true,
        ),
        ("status of two digits", "SIP/2.0 99 x\r\n\r\n".into(), Fault::StatusLine, 400, false),
        ("status of four digits", "SIP/2.0 4294 x\r\n\r\n".into(), Fault::StatusLine, 400, false),
        (
            "response of another version",
            with(&[("INVITE sip:100@198.51.100.9:5060;user=phone SIP/2.0", "SIP/7.0 200 OK")]),
            Fault::Version,
            505,
            false,
        ),
    ];
    for (description, text, fault, status, answerable) in table {
        let rejected = Message::parse(&Bytes::from(text.into_bytes())).expect_err(description);
        assert_eq!(rejected.error.fault, fault, "{description}");
        assert_eq!(rejected.error.fault.status(), status, "{description}");
        assert_eq!(rejected.can_answer(), answerable, "{description}");
        if let Some(message) = rejected.answerable {
            let response = respond(&message, "192.0.2.1:5060".parse().unwrap(), &Reply::new(status, b"t"));
            assert!(response.starts_with(format!("SIP/2.0 {status} ").as_bytes()), "{description}");
            // What is copied of a header that cannot be read cannot be read either.
            if matches!(fault, Fault::Malformed(H::From | H::To | H::CSeq)) {
                continue;
            }
            let response = Message::parse(&response).unwrap_or_else(|e| panic!("{description}: {e}"));
            assert_eq!(response.status(), Some(status), "{description}");
        }
    }
}

#[test]
fn limits_are_refused_not_truncated() {
    let table = [
        ("message", with(&[("keep", &"x".repeat(limits::MESSAGE))]), Fault::TooLarge, false),
        (
            "start line",
            with(&[("user=phone", &"x".repeat(limits::START_LINE))]),
            Fault::StartLineTooLong,
            false,
        ),
        ("header line", with(&[("keep", &"x".repeat(limits::HEADER_LINE))]), Fault::LineTooLong, true),
        (
            "headers",
            with(&[("X-Vendor:", &format!("{}X:", "X:\r\n".repeat(limits::HEADERS)))]),
            Fault::TooManyHeaders,
            false,
        ),
        ("Call-ID", with(&[("c1@", &"x".repeat(limits::KEY))]), Fault::Malformed(HeaderName::CallId), false),
        (
            "branch",
            with(&[("z9hG4bK1", &"x".repeat(limits::KEY + 1))]),
            Fault::Malformed(HeaderName::Via),
            false,
        ),
    ];
    for (description, text, fault, answerable) in table {
        let rejected = Message::parse(&Bytes::from(text.into_bytes())).expect_err(description);
        assert_eq!((rejected.error.fault, rejected.can_answer()), (fault, answerable), "{description}");
    }
}

#[test]
fn datagrams_that_are_not_sip_are_told_apart() {
    let mut stun = [0u8; 20];
    stun[1] = 1;
    stun[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    let table: [(&[u8], Datagram); 7] = [
        (b"", Datagram::KeepAlive),
        (b"\r\n", Datagram::KeepAlive),
        (b"\0\0\0\0", Datagram::KeepAlive),
        (b"\r\n\r\n", Datagram::Ping),
        (&stun, Datagram::Stun),
        (b"\x00\x01rubbish that is long enough", Datagram::Sip),
        (b"OPTIONS sip:a SIP/2.0\r\n\r\n", Datagram::Sip),
    ];
    for (bytes, expected) in table {
        assert_eq!(classify(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn uris_compare_as_rfc_3261_19_1_4_says() {
    let same = [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
        ("sip:a@b?x=1&y=2", "sip:a@b?y=2&x=1"),
        ("sip:a@[2001:db8::0:1]", "sip:a@[2001:DB8::1]"),
    ];
    let different = [
        ("SIP:ALICE@atlanta.com", "sip:alice@atlanta.com"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:a:pw@b", "sip:a@b"),
    ];
    for (a, b) in same {
        assert!(Uri::parse(a.as_bytes()).unwrap().equivalent(&Uri::parse(b.as_bytes()).unwrap()), "{a} {b}");
    }
    for (a, b) in different {
        assert!(!Uri::parse(a.as_bytes()).unwrap().equivalent(&Uri::parse(b.as_bytes()).unwrap()), "{a} {b}");
    }
}

#[test]
fn uris_that_cannot_be_read_are_refused() {
    for uri in
        ["", "sip:", "100", "sip:a@", "sip:a@h:99999", "sip:a@h:x", "sip:a@[::1", "sip:a b@c", "1sip:a@b"]
    {
        assert_eq!(Uri::parse(uri.as_bytes()), None, "{uri}");
    }
}

#[test]
fn a_session_description_is_found_alone_and_within_a_multipart_body() {
    let body = "--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\n\
                c : application/SDP ; x=y\r\nContent-Disposition: session\r\n\r\nv=0\r\ns=-\r\n\r\n--b1--\r\n";
    let message = |kind: &str, body: &str| {
        parse(with(&[("application/sdp", kind), ("Content-Length: 5\r\n", ""), ("v=0\r\n", body)]).as_bytes())
    };
    let multipart = message("multipart/mixed;boundary=\"b1\"", body);
    let range = multipart::sdp_range(&multipart).unwrap();
    assert_eq!(&multipart.body()[range.clone()], b"v=0\r\ns=-\r\n");
    assert_eq!(
        text(&multipart::replace(multipart.body(), range, b"NEW")),
        body.replace("v=0\r\ns=-\r\n", "NEW")
    );
    assert_eq!(multipart::sdp_range(&parse(INVITE.as_bytes())), Some(0..5));
    let none = [
        ("another type", "application/pidf+xml", "x"),
        ("no boundary", "multipart/mixed", body),
        ("another boundary", "multipart/mixed;boundary=b2", body),
        (
            "never closed",
            "multipart/mixed;boundary=b1",
            "--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n",
        ),
        ("no part of that type", "multipart/related;boundary=b", "--b\r\n\r\nv=0\r\n--b--"),
        (
            "encoded",
            "multipart/mixed;boundary=b",
            "--b\r\nContent-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\ndj0w\r\n--b--",
        ),
    ];
    for (description, kind, body) in none {
        assert_eq!(multipart::sdp_range(&message(kind, body)), None, "{description}");
    }
}

/// Touches every accessor and editor: none may panic.
fn exercise(message: &Message) {
    for header in message.headers() {
        let _ = (header.spelling, scan::split_commas(header.value).map(NameAddr::parse).count());
    }
    let via = message.via();
    let source = "203.0.113.5:1024".parse().unwrap();
    let _ = (via.reply_to(source), via.has_magic_cookie(), via.params.iter().count());
    let _ = (
        message.parsed_request_uri(),
        message.expires(),
        message.content_type(),
        multipart::sdp_range(message),
    );
    let mut editor = Editor::new(message);
    editor.stamp_via(source);
    editor.add_header("Via", format_args!("x"));
    editor.drop_routes(1);
    editor.max_forwards(1);
    editor.body(b"x");
    let _ = editor.finish();
    let _ = respond(message, source, &Reply::new(400, b"t"));
    let _ = cancel(message, b"");
    let _ = ack_for_failure(message, message);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = classify(&bytes);
        let _ = Message::parse(&bytes.into());
    }

    #[test]
    fn a_truncated_message_never_panics(length in 0..INVITE.len()) {
        match Message::parse(&Bytes::copy_from_slice(&INVITE.as_bytes()[..length])) {
            Ok(message) => exercise(&message),
            Err(rejected) => if let Some(message) = rejected.answerable { exercise(&message) },
        }
    }

    #[test]
    fn a_damaged_message_never_panics_and_is_kept_when_read(
        damage in proptest::collection::vec((0..INVITE.len(), prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n;,<>\" :@"[..])]), 1..6)
    ) {
        let mut bytes = INVITE.as_bytes().to_vec();
        for (at, byte) in damage { bytes[at] = byte; }
        match Message::parse(&bytes.clone().into()) {
            Ok(message) => {
                prop_assert!(bytes.windows(message.raw().len()).any(|window| window == &message.raw()[..]));
                exercise(&message);
            }
            Err(rejected) => if let Some(message) = rejected.answerable { exercise(&message) },
        }
    }

    #[test]
    fn a_stamped_message_reads_back_with_source_and_port(a in any::<u8>(), port in 1u16..) {
        let message = parse(INVITE.as_bytes());
        let mut editor = Editor::new(&message);
        let source = std::net::SocketAddr::from(([203, 0, 113, a], port));
        editor.stamp_via(source);
        let after = parse(&editor.finish());
        let params = after.via().params;
        prop_assert_eq!(params.value("received").unwrap(), &source.ip().to_string().into_bytes()[..]);
        prop_assert_eq!(params.value("rport").unwrap(), &port.to_string().into_bytes()[..]);
    }
}
