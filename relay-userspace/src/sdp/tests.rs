use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const PHONE: &[u8] = b"v=0\r\n\
o=- 20001 20001 IN IP4 192.0.2.11\r\n\
s=SDP data\r\n\
c=IN IP4 192.0.2.11\r\n\
t=0 0\r\n\
m=audio 11780 RTP/AVP 0 8 9 18 101\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-15\r\n\
a=rtcp:11781 IN IP4 192.0.2.11\r\n\
a=ptime:20\r\n\
a=sendrecv\r\n";

fn relay() -> IpAddr {
    "198.51.100.1".parse().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_phones_description_is_read() {
    let session = Session::parse(PHONE).unwrap();
    let media = &session.media[0];
    assert_eq!(session.connection.unwrap().address.ip(), Some("192.0.2.11".parse().unwrap()));
    assert_eq!((media.kind, media.port, media.port_count), (&b"audio"[..], 11780, None));
    assert_eq!(media.protocol, Protocol::Rtp);
    assert_eq!(media.payload_types().collect::<Vec<_>>(), [0, 8, 9, 18, 101]);
    assert_eq!(media.rtcp.unwrap().port, 11781);
    assert_eq!(media.clock_rate(101), Some(8000));
    assert_eq!(media.clock_rate(9), Some(8000));
    assert_eq!(media.clock_rate(96), None);
    assert_eq!(session.direction_of(media), Direction::SendRecv);
    assert!(!session.is_held(media));
    assert_eq!(session.origin, Some(&b"- 20001 20001 IN IP4 192.0.2.11"[..]));
}

#[test]
fn what_is_read_agrees_with_sdp_types() {
    let theirs = sdp_types::Session::parse(PHONE).unwrap();
    let ours = Session::parse(PHONE).unwrap();
    assert_eq!(theirs.medias.len(), ours.media.len());
    assert_eq!(theirs.connection.unwrap().connection_address, "192.0.2.11");
    for (theirs, ours) in theirs.medias.iter().zip(&ours.media) {
        assert_eq!(theirs.media.as_bytes(), ours.kind);
        assert_eq!((theirs.port, theirs.num_ports), (ours.port, ours.port_count));
        assert_eq!(theirs.proto.as_bytes(), ours.protocol_raw);
        assert_eq!(theirs.fmt.as_bytes(), ours.formats_raw);
        assert_eq!(theirs.attributes.len(), ours.attributes.len());
    }
}

#[test]
fn a_rewrite_touches_address_port_and_rtcp_only() {
    let session = Session::parse(PHONE).unwrap();
    let mut rewriter = Rewriter::new(&session);
    rewriter.set_all_connections(relay());
    rewriter.set_port(0, 16384);
    rewriter.set_rtcp(0, 16385, relay());
    let expected = text(PHONE)
        .replace("c=IN IP4 192.0.2.11", "c=IN IP4 198.51.100.1")
        .replace("m=audio 11780", "m=audio 16384")
        .replace("a=rtcp:11781 IN IP4 192.0.2.11", "a=rtcp:16385 IN IP4 198.51.100.1");
    assert_eq!(text(&rewriter.finish()), expected);
}

#[test]
fn descriptions_come_out_as_the_table_says() {
    // description, before, after set_all_connections, set_port(0, 16384), ICE removed
    let table: &[(&str, &str, &str)] = &[
        (
            "line feeds alone stay",
            "v=0\ns=-\nc=IN IP4 10.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
            "v=0\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=audio 16384 RTP/AVP 0\n",
        ),
        (
            "a last line without an end stays without",
            "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 5004 RTP/AVP 0",
            "v=0\r\nc=IN IP4 198.51.100.1\r\nm=audio 16384 RTP/AVP 0",
        ),
        (
            "the hold address of RFC 2543 stays",
            "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 5004 RTP/AVP 0\r\n",
            "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 16384 RTP/AVP 0\r\n",
        ),
        (
            "media-level addresses are set, the origin is not",
            "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\nm=audio 5004/2 RTP/AVP 0\r\nc=IN IP4 10.0.0.1\r\n\
             m=video 0 RTP/AVP 34\r\nc=IN IP4 10.0.0.2\r\n",
            "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\nm=audio 16384/2 RTP/AVP 0\r\nc=IN IP4 198.51.100.1\r\n\
             m=video 0 RTP/AVP 34\r\nc=IN IP4 198.51.100.1\r\n",
        ),
        (
            "another address family is replaced with its type, in the origin too",
            "v=0\r\no=a 1 1 IN IP6 2001:db8::1\r\nc=IN IP6 2001:db8::1\r\nm=audio 5004 RTP/AVP 0\r\n",
            "v=0\r\no=a 1 1 IN IP4 198.51.100.1\r\nc=IN IP4 198.51.100.1\r\nm=audio 16384 RTP/AVP 0\r\n",
        ),
        (
            "the hold address of another family becomes this one's",
            "v=0\r\nc=IN IP6 ::\r\nm=audio 5004 RTP/AVP 0\r\n",
            "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 16384 RTP/AVP 0\r\n",
        ),
        (
            "a host name is replaced",
            "v=0\r\nc=IN IP4 phone.example.com\r\nm=audio 5004 RTP/AVP 0\r\n",
            "v=0\r\nc=IN IP4 198.51.100.1\r\nm=audio 16384 RTP/AVP 0\r\n",
        ),
        (
            "ICE lines go at both levels, others stay",
            "v=0\r\nc=IN IP4 10.0.0.1\r\na=ice-lite\r\na=ice-options:trickle\r\na=x-vendor:1\r\n\
             m=audio 5004 RTP/SAVP 0\r\na=ice-ufrag:F7gI\r\na=ice-pwd:x9cml/YzichV2+XlhiMu8g\r\n\
             a=candidate:1 1 UDP 2130706431 10.0.0.1 5004 typ host\r\na=remote-candidates:1 10.0.0.9 1\r\n\
             a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc\r\na=ice-mismatch",
            "v=0\r\nc=IN IP4 198.51.100.1\r\na=x-vendor:1\r\nm=audio 16384 RTP/SAVP 0\r\n\
             a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc\r\n",
        ),
        (
            "unknown lines, Latin-1 and several blanks stay",
            "v=0\r\ns=caf\u{e9}\r\nc=IN  IP4   10.0.0.1\r\nz=1 2\r\nm=audio  5004  RTP/AVP  0  8 \r\nk=clear:x\r\n",
            "v=0\r\ns=caf\u{e9}\r\nc=IN IP4 198.51.100.1\r\nz=1 2\r\nm=audio  16384  RTP/AVP  0  8 \r\nk=clear:x\r\n",
        ),
    ];
    for (description, before, after) in table {
        let session = Session::parse(before.as_bytes()).unwrap_or_else(|e| panic!("{description}: {e}"));
        let mut rewriter = Rewriter::new(&session);
        rewriter.set_origin_family(relay());
        rewriter.set_all_connections(relay());
        rewriter.set_port(0, 16384);
        rewriter.ice(Ice::Remove);
        assert_eq!(text(&rewriter.finish()), *after, "{description}");
    }
}

#[test]
fn a_media_description_gets_a_connection_line_of_its_own_in_the_right_place() {
    let before = b"v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\ni=title\r\na=sendonly\r\n";
    let session = Session::parse(before).unwrap();
    let mut rewriter = Rewriter::new(&session);
    rewriter.set_connection(Target::Media(0), relay());
    rewriter.set_rtcp(0, 7, relay());
    assert_eq!(
        text(&rewriter.finish()),
        "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\ni=title\r\nc=IN IP4 198.51.100.1\r\n\
         a=sendonly\r\na=rtcp:7\r\n"
    );
}

#[test]
fn protocols_are_told_apart() {
    let table = [
        ("RTP/AVP", Protocol::Rtp, true),
        ("rtp/avpf", Protocol::Rtp, true),
        ("RTP/SAVP", Protocol::Srtp, true),
        ("UDP/TLS/RTP/SAVPF", Protocol::DtlsSrtp, true),
        ("udptl", Protocol::Udptl, true),
        ("TCP/MSRP", Protocol::Other, false),
    ];
    for (name, protocol, datagram) in table {
        let body = format!("v=0\r\nm=audio 9 {name} 0\r\n");
        let session = Session::parse(body.as_bytes()).unwrap();
        assert_eq!(session.media[0].protocol, protocol, "{name}");
        assert_eq!(protocol.is_datagram(), datagram, "{name}");
    }
}

#[test]
fn hold_is_seen_in_each_of_its_forms() {
    let table = [
        ("sendonly", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 9 RTP/AVP 0\r\na=sendonly\r\n", true),
        ("inactive", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 9 RTP/AVP 0\r\na=inactive\r\n", true),
        ("session level", "v=0\r\nc=IN IP4 1.2.3.4\r\na=sendonly\r\nm=audio 9 RTP/AVP 0\r\n", true),
        (
            "overridden",
            "v=0\r\nc=IN IP4 1.2.3.4\r\na=sendonly\r\nm=audio 9 RTP/AVP 0\r\na=sendrecv\r\n",
            false,
        ),
        ("zeros", "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 9 RTP/AVP 0\r\n", true),
        (
            "recvonly is the held side",
            "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 9 RTP/AVP 0\r\na=recvonly\r\n",
            false,
        ),
        ("a refused stream does not count", "v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 0 RTP/AVP 0\r\n", false),
    ];
    for (description, body, held) in table {
        assert_eq!(Session::parse(body.as_bytes()).unwrap().all_held(), held, "{description}");
    }
}

#[test]
fn errors_name_the_line_and_what_is_wrong() {
    let table: &[(&str, &[u8], Problem, usize)] = &[
        ("empty", b"", Problem::NoVersion, 1),
        ("another version", b"v=1\r\n", Problem::NoVersion, 1),
        ("not a line", b"v=0\r\nhello\r\n", Problem::NotALine, 2),
        ("a line after an empty one", b"v=0\r\n\r\nm=audio 1 RTP/AVP 0\r\n", Problem::NotALine, 3),
        ("a carriage return inside", b"v=0\r\ns=a\rb\r\n", Problem::NotALine, 2),
        ("address of another family", b"v=0\r\nc=IN IP4 ::1\r\n", Problem::Connection, 2),
        ("network type", b"v=0\r\nc=ATM NSAP 47\r\n", Problem::Connection, 2),
        ("port too large", b"v=0\r\nm=audio 65536 RTP/AVP 0\r\n", Problem::Media, 2),
        ("no format", b"v=0\r\nm=audio 1 RTP/AVP\r\n", Problem::Media, 2),
        ("port count of zero", b"v=0\r\nm=audio 1/0 RTP/AVP 0\r\n", Problem::Media, 2),
        ("rtcp", b"v=0\r\nm=audio 1 RTP/AVP 0\r\na=rtcp:x\r\n", Problem::Rtcp, 3),
        ("two addresses", b"v=0\r\nc=IN IP4 1.1.1.1\r\nc=IN IP4 1.1.1.2\r\n", Problem::SecondConnection, 3),
        (
            "two addresses of one stream",
            b"v=0\r\nm=audio 1 RTP/AVP 0\r\nc=IN IP4 1.1.1.1\r\nc=IN IP4 1.1.1.1\r\n",
            Problem::SecondConnection,
            4,
        ),
        (
            "rtcp twice",
            b"v=0\r\nm=audio 1 RTP/AVP 0\r\na=rtcp:2\r\na=rtcp:3\r\n",
            Problem::SecondAttribute("rtcp"),
            4,
        ),
        (
            "rtcp-mux twice",
            b"v=0\r\nm=audio 1 RTP/AVP 0\r\na=rtcp-mux\r\na=rtcp-mux\r\n",
            Problem::SecondAttribute("rtcp-mux"),
            4,
        ),
        (
            "a crypto tag twice",
            b"v=0\r\nm=audio 1 RTP/SAVP 0\r\na=crypto:1 A inline:x\r\na=crypto:1 B inline:y\r\n",
            Problem::SecondCrypto,
            4,
        ),
    ];
    for (description, body, problem, line) in table {
        let error = Session::parse(body).unwrap_err();
        assert_eq!((error.problem, error.line), (*problem, *line), "{description}");
    }
    let without = Session::parse(b"v=0\r\ns=-\r\nm=audio 1 RTP/AVP 0\r\n").unwrap();
    assert_eq!(
        without.check_connections().unwrap_err().to_string(),
        "session description, line 3: media description without a connection address"
    );
}

#[test]
fn limits_hold() {
    let many = [b"v=0\r\n".to_vec(), b"m=audio 1 RTP/AVP 0\r\n".repeat(limits::MEDIA + 1)].concat();
    assert_eq!(Session::parse(&many).unwrap_err().problem, Problem::TooManyMedia);
    let long = [b"v=0\r\ns=".to_vec(), vec![b'x'; limits::LINE]].concat();
    assert_eq!(Session::parse(&long).unwrap_err().problem, Problem::LineTooLong);
    assert_eq!(Session::parse(&vec![b'\n'; limits::BODY + 1]).unwrap_err().problem, Problem::TooLong);
    assert_eq!(
        Session::parse(&[b"v=0\n".to_vec(), b"s=\n".repeat(limits::LINES)].concat()).unwrap_err().problem,
        Problem::TooManyLines
    );
}

/// Lines that are near to real ones.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(b"c=IN IP4 10.1.2.3".to_vec()),
        Just(b"c=IN IP6 ::1".to_vec()),
        Just(b"m=audio 5004 RTP/AVP 0 8".to_vec()),
        Just(b"m=image 4000 udptl t38".to_vec()),
        Just(b"a=rtcp:5005".to_vec()),
        Just(b"a=rtcp:5005 IN IP4 10.1.2.3".to_vec()),
        Just(b"a=sendonly".to_vec()),
        Just(b"a=candidate:x".to_vec()),
        Just(b"i=x".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    (known, prop_oneof![Just(&b"\r\n"[..]), Just(&b"\n"[..])]).prop_map(|(line, end)| [&line, end].concat())
}

/// Fuzz target, and under `cargo test` the replay of its committed corpus and random inputs: any bytes are read or
/// refused; what is read comes out as it came, and rewritten it can be read again, with every line kept that a relay
/// does not set.
#[test]
fn any_description_is_refused_or_survives() {
    bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
        let Ok(session) = Session::parse(input) else { return };
        assert_eq!(Rewriter::new(&session).finish(), input);
        let mut rewriter = Rewriter::new(&session);
        rewriter.set_origin_family(relay());
        rewriter.set_all_connections(relay());
        for index in 0..session.media.len() {
            rewriter.set_port(index, 40_000);
            rewriter.set_rtcp(index, 40_001, relay());
        }
        rewriter.ice(Ice::Remove);
        let after = rewriter.finish();
        let again = Session::parse(&after).unwrap_or_else(|error| panic!("{error}: {after:?}"));
        assert_eq!(again.media.len(), session.media.len());
        let kept = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let lines =
                bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let own = |line: &&[u8]| {
                !line.is_empty()
                    && ![
                        &b"c="[..],
                        b"m=",
                        b"o=",
                        b"a=rtcp:",
                        b"a=ice",
                        b"a=candidate",
                        b"a=remote-cand",
                        b"a=end-of",
                    ]
                    .iter()
                    .any(|start| line.starts_with(start))
            };
            lines.filter(own).map(<[u8]>::to_vec).collect()
        };
        assert_eq!(kept(&after), kept(input));
    });
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_and_come_out_unchanged(
        lines in proptest::collection::vec(line(), 0..12), head in any::<bool>()
    ) {
        let mut body = if head { b"v=0\r\n".to_vec() } else { Vec::new() };
        body.extend(lines.concat());
        if let Ok(session) = Session::parse(&body) {
            prop_assert_eq!(Rewriter::new(&session).finish(), body.clone());
            let mut rewriter = Rewriter::new(&session);
            rewriter.set_all_connections("203.0.113.9".parse().unwrap());
            for index in 0..session.media.len() {
                rewriter.set_port(index, 40000);
                rewriter.set_rtcp(index, 40001, "203.0.113.9".parse().unwrap());
            }
            rewriter.ice(Ice::Remove);
            let after = rewriter.finish();
            let again = Session::parse(&after).unwrap();
            prop_assert_eq!(again.media.len(), session.media.len());
            for media in &again.media {
                prop_assert_eq!(media.port, 40000);
                prop_assert_eq!(media.rtcp.map(|rtcp| rtcp.port), Some(40001));
                prop_assert!(media.find("candidate").is_none());
            }
        }
    }
}
