//! Messages of phones in, whole answers out.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Dropped, Event, Reaction, Reply, Responder, Settings};
use crate::provisioning::HardwareAddress;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 1);
const PHONE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 61, 9, 1);
const MAC: [u8; 6] = [0x00, 0x04, 0xf2, 1, 2, 3];
const URL: &str = "http://10.61.0.1:8088";

fn settings() -> Settings {
    Settings {
        address: OURS,
        option: 160,
        url: URL.to_owned(),
        tftp_server: "10.61.0.1".to_owned(),
        time_server: Some(OURS),
    }
}

/// A message's fields before the options.
fn header(op: u8, client: Ipv4Addr, agent: Ipv4Addr, flags: [u8; 2]) -> Vec<u8> {
    let mut message = vec![op, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0];
    message.extend(flags);
    message.extend(client.octets());
    message.extend([0; 8]);
    message.extend(agent.octets());
    message.extend(MAC);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99]);
    message
}

fn request(kind: u8, client: Ipv4Addr, agent: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut message = header(1, client, agent, [0, 0]);
    message.extend([53, 1, kind]);
    message.extend(options);
    message.push(255);
    message
}

/// The answer as it must be on the wire, padded to BOOTP's least length.
fn answer(client: Ipv4Addr, agent: Ipv4Addr, flags: [u8; 2], options: &[&[u8]]) -> Vec<u8> {
    let mut message = header(2, client, agent, flags);
    for option in options {
        message.extend(*option);
    }
    message.push(255);
    message.resize(message.len().max(300), 0);
    message
}

fn from(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 68)
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const INFORM: u8 = 8;
const ACK: &[u8] = &[53, 1, 5];
const SERVER: &[u8] = &[54, 4, 10, 61, 0, 1];
const TIME: &[u8] = &[42, 4, 10, 61, 0, 1];

fn url_option(code: u8) -> Vec<u8> {
    [&[code, 21], URL.as_bytes()].concat()
}

const TFTP: &[u8] = b"\x42\x0910.61.0.1";

#[test]
fn an_inform_is_answered_with_what_was_asked_for_and_no_lease() {
    let url = url_option(160);
    let agent_information: &[u8] = &[82, 4, 1, 2, 0, 7];
    // Options are in the order of their codes, the relay agent's last (RFC 3046 section 2.1).
    type Row<'a> = (&'a str, Ipv4Addr, Ipv4Addr, Ipv4Addr, &'a [u8], SocketAddrV4, [u8; 2], Vec<&'a [u8]>);
    let rows: [Row<'_>; 9] = [
        (
            "a Polycom phone asks for everything",
            PHONE,
            PHONE,
            NONE,
            &[55, 6, 1, 3, 42, 66, 160, 15],
            from(PHONE),
            [0, 0],
            vec![TIME, ACK, SERVER, TFTP, &url],
        ),
        ("only the URL", PHONE, PHONE, NONE, &[55, 1, 160], from(PHONE), [0, 0], vec![ACK, SERVER, &url]),
        ("nothing that we have", PHONE, PHONE, NONE, &[55, 2, 1, 3], from(PHONE), [0, 0], vec![ACK, SERVER]),
        ("no list at all", PHONE, PHONE, NONE, &[], from(PHONE), [0, 0], vec![ACK, SERVER, TFTP, &url]),
        (
            "without a source address yet",
            NONE,
            PHONE,
            NONE,
            &[55, 1, 160],
            from(PHONE),
            [0, 0],
            vec![ACK, SERVER, &url],
        ),
        ("ciaddr forgotten", PHONE, NONE, NONE, &[55, 1, 160], from(PHONE), [0, 0], vec![ACK, SERVER, &url]),
        (
            "by a relay agent, with its information given back",
            AGENT,
            PHONE,
            AGENT,
            &[82, 4, 1, 2, 0, 7, 55, 1, 160],
            from(PHONE),
            [0, 0],
            vec![ACK, SERVER, &url, agent_information],
        ),
        (
            "by a relay agent, without an address",
            AGENT,
            NONE,
            AGENT,
            &[55, 1, 160],
            SocketAddrV4::new(AGENT, 67),
            [0x80, 0],
            vec![ACK, SERVER, &url],
        ),
        (
            "a list in two pieces (RFC 3396)",
            PHONE,
            PHONE,
            NONE,
            &[55, 1, 42, 55, 1, 160],
            from(PHONE),
            [0, 0],
            vec![TIME, ACK, SERVER, &url],
        ),
    ];
    for (description, source, client, agent, options, destination, flags, expected) in rows {
        let reaction = Responder::new(settings()).receive(
            Instant::now(),
            from(source),
            &request(INFORM, client, agent, options),
        );
        let payload = answer(client, agent, flags, &expected);
        assert_eq!(reaction.event, Event::Answered, "{description}");
        assert_eq!(reaction.reply, Some(Reply { destination, payload }), "{description}");
        assert_eq!(reaction.hardware, Some(HardwareAddress(MAC)), "{description}");
    }
}

#[test]
fn option_code_and_clock_are_as_configured() {
    let other = Settings { option: 176, time_server: None, ..settings() };
    let reaction = Responder::new(other).receive(
        Instant::now(),
        from(PHONE),
        &request(INFORM, PHONE, NONE, &[55, 3, 42, 160, 176]),
    );
    let payload = answer(PHONE, NONE, [0, 0], &[ACK, SERVER, &url_option(176)]);
    assert_eq!(reaction.reply, Some(Reply { destination: from(PHONE), payload }));
}

#[test]
fn what_the_offices_own_server_answers_is_noted_and_left_to_it() {
    let mut responder = Responder::new(settings());
    for (kind, name) in [(1, "discover"), (3, "request"), (4, "decline"), (7, "release")] {
        let options = [&[60, 5], b"420HD" as &[u8], &[55, 1, 160]].concat();
        let reaction = responder.receive(Instant::now(), from(NONE), &request(kind, NONE, NONE, &options));
        let expected = Reaction {
            event: Event::Seen(name),
            hardware: Some(HardwareAddress(MAC)),
            address: None,
            vendor_class: Some("420HD".to_owned()),
            reply: None,
        };
        assert_eq!(reaction, expected, "{name}");
    }
}

#[test]
fn what_is_no_clients_message_is_dropped() {
    let good = request(INFORM, PHONE, NONE, &[]);
    let broken = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        message
    };
    let rows = [
        ("empty", vec![], Dropped::Malformed),
        ("cut short", good[..239].to_vec(), Dropped::Malformed),
        ("a server's answer", broken(0, 2), Dropped::Malformed),
        ("a hardware address longer than its field", broken(2, 255), Dropped::Malformed),
        ("another cookie", broken(236, 0), Dropped::Malformed),
        ("no message type", header(1, PHONE, NONE, [0, 0]), Dropped::Malformed),
        (
            "a message type of two bytes",
            {
                let mut message = header(1, PHONE, NONE, [0, 0]);
                message.extend([53, 2, 8, 8, 255]);
                message
            },
            Dropped::Malformed,
        ),
        ("an OFFER", request(2, PHONE, NONE, &[]), Dropped::Malformed),
        ("nobody's address", request(INFORM, Ipv4Addr::BROADCAST, NONE, &[]), Dropped::Malformed),
        ("a group's address", request(INFORM, Ipv4Addr::new(224, 0, 0, 1), NONE, &[]), Dropped::Malformed),
        (
            "another's address",
            request(INFORM, Ipv4Addr::new(10, 61, 0, 12), NONE, &[]),
            Dropped::ForeignAddress,
        ),
    ];
    for (description, datagram, why) in rows {
        let reaction = Responder::new(settings()).receive(Instant::now(), from(PHONE), &datagram);
        assert_eq!((reaction.event, reaction.reply), (Event::Dropped(why), None), "{description}");
    }
}

#[test]
fn who_asks_too_fast_is_not_answered_and_others_are() {
    let (mut responder, start) = (Responder::new(settings()), Instant::now());
    let mut ask = |after: u64, who: Ipv4Addr| {
        let now = start + Duration::from_secs(after);
        responder.receive(now, from(who), &request(INFORM, who, NONE, &[])).event
    };
    let mut events: Vec<Event> = (0..8).map(|_| ask(0, PHONE)).collect();
    events.push(ask(0, Ipv4Addr::new(10, 61, 0, 12)));
    events.push(ask(3, PHONE));
    let mut expected = vec![Event::Answered; 6];
    expected.extend([Event::Dropped(Dropped::TooFast); 2]);
    expected.extend([Event::Answered; 2]);
    assert_eq!(events, expected);
}

#[test]
fn an_answer_fits_what_the_client_takes_and_the_url_goes_last() {
    let long = Settings { url: "u".repeat(100), tftp_server: "t".repeat(100), ..settings() };
    // 576 bytes with 28 of headers leave 548; a relay agent's information of 250 bytes takes 252 of them.
    let mut options = vec![55, 3, 42, 66, 160, 82, 250];
    options.extend([7; 250]);
    let reaction =
        Responder::new(long).receive(Instant::now(), from(AGENT), &request(INFORM, PHONE, AGENT, &options));
    let mut agent = vec![82, 250];
    agent.extend([7; 250]);
    let url = [&[160, 100], "u".repeat(100).as_bytes()].concat();
    let payload = reaction.reply.unwrap().payload;
    let without = 240 + 3 + 6 + 252 + 1;
    // Even the URL would make it 604.
    assert_eq!(payload.len(), without);
    assert_eq!(payload, answer(PHONE, AGENT, [0, 0], &[ACK, SERVER, &agent]));
    let generous = Settings { url: "u".repeat(100), tftp_server: "t".repeat(100), ..settings() };
    options.extend([57, 2, 0x02, 0x80]);
    let reaction = Responder::new(generous).receive(
        Instant::now(),
        from(AGENT),
        &request(INFORM, PHONE, AGENT, &options),
    );
    assert_eq!(reaction.reply.unwrap().payload, answer(PHONE, AGENT, [0, 0], &[ACK, SERVER, &url, &agent]));
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_a_panic_and_answers_are_no_longer_than_a_client_takes(
        options in prop::collection::vec(any::<u8>(), 0..400),
        hlen in any::<u8>(),
    ) {
        let mut datagram = request(INFORM, PHONE, NONE, &options);
        datagram[2] = hlen;
        let reaction = Responder::new(settings()).receive(Instant::now(), from(PHONE), &datagram);
        if let Some(reply) = reaction.reply {
            prop_assert!((300..=1500).contains(&reply.payload.len()));
        }
        let _ = Responder::new(settings()).receive(Instant::now(), from(PHONE), &options);
    }
}
