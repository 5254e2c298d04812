//! Session descriptions that nobody honest sends: refused with 488 and a Warning that says what is wrong and where, and
//! nothing of them stays behind.

use std::{net::IpAddr, time::Duration};

use super::harness::*;
use crate::{
    media::{MediaNetwork, Sessions, Settings},
    net::{IcePolicy, Latching, SrtpPolicy},
};

fn sessions() -> Sessions {
    let network = |name: &str, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        MediaNetwork {
            name: name.to_owned(),
            address,
            advertised: address,
            ports: 20_000..=20_099,
            latching: Latching::SameAddress,
            ice: IcePolicy::Remove,
            srtp: SrtpPolicy::Pass,
            rtp_dscp: None,
            rtcp_dscp: None,
        }
    };
    Sessions::new(Settings {
        networks: vec![network("office", "192.0.2.1"), network("centre", "198.51.100.1")],
        max_sessions: 10,
        timeout: Duration::from_secs(60),
        seed: 1,
        random: crate::srtp::system_random,
    })
}

fn with_connection(connection: &str) -> String {
    sdp("192.0.2.11", 4000, "").replace("c=IN IP4 192.0.2.11", connection)
}

fn with_media(line: &str) -> String {
    sdp("192.0.2.11", 4000, "").replace("m=audio 4000 RTP/AVP 0 101", line)
}

#[test]
fn hostile_descriptions_are_refused_with_what_is_wrong_and_where() {
    let more = |lines: &str| sdp("192.0.2.11", 4000, lines);
    let rows: Vec<(&str, String, &str)> = vec![
        (
            "three thousand streams",
            more(&"m=a 1 RTP/AVP 0\n".repeat(3_000)),
            "line 23: too many media descriptions",
        ),
        ("ten thousand attributes", more(&"a=x\n".repeat(10_000)), "line 2049: too many lines"),
        ("a line of 5,000 bytes", more(&format!("a={}\n", "x".repeat(5_000))), "line 8: line is too long"),
        ("port 65536", with_media("m=audio 65536 RTP/AVP 0"), "line 6: malformed media line"),
        ("port -1", with_media("m=audio -1 RTP/AVP 0"), "line 6: malformed media line"),
        ("a port in hexadecimal", with_media("m=audio 0x1000 RTP/AVP 0"), "line 6: malformed media line"),
        ("no port at all", with_media("m=audio RTP/AVP 0"), "line 6: malformed media line"),
        (
            "a port of 300 digits",
            with_media(&format!("m=audio {} RTP/AVP 0", "9".repeat(300))),
            "line 6: malformed",
        ),
        ("no ports of many", with_media("m=audio 4000/0 RTP/AVP 0"), "line 6: malformed media line"),
        ("RTCP at port 70000", more("a=rtcp:70000\n"), "line 8: malformed rtcp attribute"),
        ("RTCP twice", more("a=rtcp:4001\na=rtcp:4003\n"), "line 9: second rtcp attribute"),
        ("multiplexed twice", more("a=rtcp-mux\na=rtcp-mux\n"), "line 9: second rtcp-mux attribute"),
        (
            "a key twice",
            more("a=crypto:1 A inline:x\na=crypto:1 A inline:y\n"),
            "line 9: second crypto attribute",
        ),
        (
            "two addresses",
            with_connection("c=IN IP4 192.0.2.11\nc=IN IP4 192.0.2.12"),
            "line 5: second connection",
        ),
        ("no address", with_connection("b=AS:64"), "line 6: media description without a connection address"),
        ("an address of another kind", with_connection("c=ATM NSAP 47"), "line 4: malformed connection line"),
        ("an address with five parts", with_connection("c=IN IP4 192.0.2.11.5"), "is a name"),
        ("IPv6 that says IPv4", with_connection("c=IN IP4 2001:db8::1"), "line 4: malformed connection line"),
        (
            "the other family",
            with_connection("c=IN IP6 2001:db8::1"),
            "of another family than network office",
        ),
        ("a mapped loopback address", with_connection("c=IN IP6 ::ffff:127.0.0.1"), "no host's address"),
        ("everybody", with_connection("c=IN IP4 255.255.255.255"), "255.255.255.255 is no host's address"),
        ("nowhere", with_connection("c=IN IP4 0.0.0.5"), "0.0.0.5 is no host's address"),
        ("a group", with_connection("c=IN IP4 239.1.1.1/127"), "239.1.1.1 is a multicast group"),
        ("the loopback address", with_connection("c=IN IP4 127.0.0.1"), "127.0.0.1 is the appliance itself"),
        (
            "our own SIP socket",
            with_connection("c=IN IP4 192.0.2.1").replace(" 4000 ", " 8060 "),
            "192.0.2.1:8060 is the appliance itself, and no media port of it",
        ),
        (
            "our own SIP socket on the other side, for RTCP",
            more("a=rtcp:8060 IN IP4 198.51.100.1\n"),
            "198.51.100.1:8060 is the appliance itself",
        ),
        ("not SDP", "GET / HTTP/1.1\n".to_owned(), "line 1: not a letter"),
        ("another version", "v=1\n".to_owned(), "line 1: does not begin with v=0"),
        ("a NUL in a port", with_media("m=audio 40\u{0}00 RTP/AVP 0"), "line 6: malformed media line"),
    ];
    for (description, body, expected) in rows {
        let mut world = World::new();
        world.media.real = Some(sessions());
        let sent = world.phone(&from_phone(
            "INVITE",
            "sip:100@example.com",
            "i1",
            1,
            "",
            "Contact: <sip:200@192.0.2.11:5060>\n",
            &body,
        ));
        let answer = sent.last().unwrap_or_else(|| panic!("{description}: no answer"));
        assert!(answer.first_line().starts_with("SIP/2.0 488 "), "{description}: {}", answer.text());
        let text = answer.text();
        let warning = text.lines().find(|line| line.starts_with("Warning: 399 ")).unwrap_or_default();
        assert!(warning.contains(expected), "{description}: {warning}");
        assert!(
            sent.iter().all(|sent| sent.network == PHONES),
            "{description}: the server hears nothing of it"
        );
        let real = world.media.real.as_ref().unwrap();
        assert!(real.is_empty() && real.ports().iter().all(|ports| ports.used == 0), "{description}");
        assert_eq!(world.proxy.active_calls(), 0, "{description}");
    }
}

#[test]
fn ten_thousand_streams_do_not_fit_a_message_and_go_nowhere() {
    let mut world = World::new();
    world.media.real = Some(sessions());
    let body = sdp("192.0.2.11", 4000, &"m=a 1 RTP/AVP 0\n".repeat(10_000));
    let sent = world.phone(&from_phone("INVITE", "sip:100@example.com", "i1", 1, "", "", &body));
    assert!(sent.iter().all(|sent| sent.network == PHONES && sent.first_line().as_str() > "SIP/2.0 4"));
    assert!(world.media.real.as_ref().unwrap().is_empty());
    assert_eq!(world.proxy.active_calls(), 0);
}
