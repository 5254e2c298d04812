//! Framing by rows and by law; connections over loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

mod fuzz;
mod websocket;

use super::*;
use crate::{
    config::{ClientCertificates, Tls},
    net::{Dscp, Marking, NetworkId, Priority, Transport},
    sip::{Hop, wire::limits},
    store::tests_support::Directory,
    tls::{self, Authorities, Fingerprint, Identity, LegacyAcceptor, Trust},
};

const NETWORK: NetworkId = NetworkId(0);
const LIMIT: Duration = Duration::from_secs(10);
const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 4\r\n\r\nbody";

fn frames(bytes: &[u8]) -> Result<Vec<Frame>, FramingError> {
    let mut framer = Framer::default();
    framer.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = framer.frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn message(text: &str) -> Frame {
    Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_message_without_a_length_is_given_one_for_a_stream() {
    for (what, message, expected) in [
        (
            "none, no body",
            "ACK a SIP/2.0\r\nTo: b\r\n\r\n",
            "ACK a SIP/2.0\r\nTo: b\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "none, a body",
            "A b SIP/2.0\r\nTo: b\r\n\r\nbody",
            "A b SIP/2.0\r\nTo: b\r\nContent-Length: 4\r\n\r\nbody",
        ),
        (
            "lines that end with LF",
            "A b SIP/2.0\nTo: b\n\nbody",
            "A b SIP/2.0\nTo: b\nContent-Length: 4\n\nbody",
        ),
        ("one", OPTIONS, OPTIONS),
        ("its short form", "A b SIP/2.0\r\nl: 0\r\n\r\n", "A b SIP/2.0\r\nl: 0\r\n\r\n"),
        ("no end", "A b SIP/2.0\r\nTo: b\r\n", "A b SIP/2.0\r\nTo: b\r\n"),
    ] {
        let given = with_length(Bytes::copy_from_slice(message.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&given), expected, "{what}");
        if expected.contains("\n\n") || expected.contains("\r\n\r\n") {
            assert_eq!(frames(&given).unwrap(), [Frame::Message(given.clone())], "{what}");
        }
    }
}

#[test]
fn a_stream_is_cut_where_content_length_says() {
    let two = format!("{OPTIONS}{OPTIONS}");
    let rows: [(&str, &str, Vec<Frame>); 9] = [
        ("one message", OPTIONS, vec![message(OPTIONS)]),
        ("two at once", &two, vec![message(OPTIONS), message(OPTIONS)]),
        ("a part", "OPTIONS sip:a SIP/2.0\r\nContent-Length: 4\r\n\r\nbod", vec![]),
        (
            "no body and no header of it",
            "BYE sip:a SIP/2.0\r\n\r\n",
            vec![message("BYE sip:a SIP/2.0\r\n\r\n")],
        ),
        ("the compact form", "A\r\nl : 2\r\n\r\nxyz", vec![message("A\r\nl : 2\r\n\r\nxy")]),
        ("lines that end with LF", "A\nContent-Length: 1\n\nxB", vec![message("A\nContent-Length: 1\n\nx")]),
        ("a keep-alive", "\r\n\r\n", vec![Frame::Ping]),
        ("half a keep-alive", "\r\n", vec![]),
        ("line ends before a message", "\r\nA\r\n\r\n", vec![message("A\r\n\r\n")]),
    ];
    for (description, bytes, expected) in rows {
        assert_eq!(frames(bytes.as_bytes()), Ok(expected), "{description}");
    }
}

#[test]
fn a_stream_whose_messages_have_no_certain_end_is_given_up() {
    let long = vec![b'a'; limits::MESSAGE + 1];
    let rows: [(&str, &[u8], FramingError); 5] = [
        ("no number", b"A\r\nContent-Length: x\r\n\r\n", FramingError::ContentLength),
        ("negative", b"A\r\nContent-Length: -1\r\n\r\n", FramingError::ContentLength),
        ("two that differ", b"A\r\nl: 1\r\nContent-Length: 2\r\n\r\n", FramingError::ContentLength),
        ("too long a body", b"A\r\nContent-Length: 70000\r\n\r\n", FramingError::TooLarge),
        ("headers without an end", &long, FramingError::TooLarge),
    ];
    for (description, bytes, expected) in rows {
        assert_eq!(frames(bytes), Err(expected), "{description}");
    }
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_the_messages_are_the_same(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
        cuts in prop::collection::vec(1usize..30, 1..20),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for body in &bodies {
            let mut whole = format!("M\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            whole.extend_from_slice(body);
            stream.extend_from_slice(&whole);
            expected.push(Frame::Message(whole.into()));
        }
        let mut framer = Framer::default();
        let mut found = Vec::new();
        let (mut rest, mut cut) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cut.next().unwrap()));
            framer.buffer().extend_from_slice(now);
            while let Some(frame) = framer.frame().unwrap() {
                found.push(frame);
            }
            rest = later;
        }
        prop_assert_eq!(found, expected);
        prop_assert!(!framer.is_partial());
    }

    #[test]
    fn any_bytes_are_framed_or_refused_in_bounded_memory(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut framer = Framer::default();
        for chunk in bytes.chunks(7) {
            framer.buffer().extend_from_slice(chunk);
            loop {
                match framer.frame() {
                    Ok(Some(Frame::Message(message))) => prop_assert!(message.len() <= limits::MESSAGE),
                    Ok(Some(Frame::Ping)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}

struct Bed {
    streams: Streams,
    events: mpsc::Receiver<Event>,
    tcp: SocketAddr,
    tls: SocketAddr,
    legacy: SocketAddr,
    ws: SocketAddr,
    wss: SocketAddr,
    own: Fingerprint,
    trust: Arc<Trust>,
    _directory: Directory,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn bed(limits: Limits) -> Bed {
    bed_with(limits, &Tls::default(), None)
}

fn bed_with(limits: Limits, rules: &Tls, authorities: Option<&Path>) -> Bed {
    let directory = Directory::new("transport");
    let identity = Identity::open(directory.path(), None, None, &["localhost".into()], &[]).unwrap();
    let authorities = Authorities::open(authorities).unwrap();
    let own = Fingerprint::of(&identity.chain()[0]);
    let trust = Arc::new(Trust::default());
    let settings = |[tcp, tls, legacy, ws, wss]: [u16; 5]| Settings {
        networks: vec![Listen {
            network: NETWORK,
            address: Ipv4Addr::LOCALHOST.into(),
            ports: vec![
                (Transport::Tcp, tcp),
                (Transport::Tls, tls),
                (Transport::LegacyTls, legacy),
                (Transport::Ws, ws),
                (Transport::Wss, wss),
            ],
        }],
        marking: Marking { dscp: Dscp::CS3, priority: Priority::SIGNALLING },
        connect_timeout: Duration::from_secs(2),
        server: tls::server_config(&identity, &authorities, rules).unwrap(),
        legacy: Arc::new(LegacyAcceptor::new(&identity, &authorities, rules)),
        client: tls::client_config(&identity, &authorities, &trust, rules).unwrap(),
        origins: vec!["https://phone.example.com".to_owned()],
        limits,
    };
    // A port that is free may be another test's by the time that it is bound.
    let (ports, (streams, events)) = (0..100)
        .find_map(|_| {
            let ports = std::array::from_fn(|_| free_port());
            Some((ports, Streams::start(settings(ports)).ok()?))
        })
        .unwrap();
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let [tcp, tls, legacy, ws, wss] = ports.map(at);
    Bed { streams, events, tcp, tls, legacy, ws, wss, trust, own, _directory: directory }
}

impl Bed {
    async fn next(&mut self) -> Event {
        timeout(LIMIT, self.events.recv()).await.unwrap().unwrap()
    }

    async fn message(&mut self) -> (Hop, Bytes) {
        loop {
            match self.next().await {
                Event::Message { hop, payload } => return (hop, payload),
                Event::Connected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn to(transport: Transport, address: SocketAddr) -> Hop {
    Hop { network: NETWORK, transport, address }
}

#[tokio::test]
async fn a_connection_carries_messages_both_ways_and_is_used_again() {
    let mut bed = bed(Limits::default());
    let mut peer = TcpStream::connect(bed.tcp).await.unwrap();
    peer.write_all(OPTIONS.as_bytes()).await.unwrap();
    let (hop, payload) = bed.message().await;
    assert_eq!(hop, to(Transport::Tcp, peer.local_addr().unwrap()));
    assert_eq!(payload, OPTIONS);
    bed.streams.send(hop, Bytes::from_static(b"answer"));
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    peer.write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\r\n", "a keep-alive is answered");
    drop(peer);
    match bed.next().await {
        Event::Disconnected { hop: ended, why, used: true } => {
            assert_eq!((ended, why), (hop, Why::Peer));
        }
        other => panic!("{other:?}"),
    }
    assert!(bed.streams.is_empty());
}

#[tokio::test]
async fn a_connection_is_made_when_there_is_none() {
    let mut bed = bed(Limits::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let hop = to(Transport::Tcp, listener.local_addr().unwrap());
    bed.streams.send(hop, Bytes::from_static(b"one"));
    bed.streams.send(hop, Bytes::from_static(b"two"));
    let (mut peer, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut both = [0; 6];
    peer.read_exact(&mut both).await.unwrap();
    assert_eq!(&both, b"onetwo", "in order, by one connection");
    peer.write_all(OPTIONS.as_bytes()).await.unwrap();
    assert_eq!(bed.message().await, (hop, Bytes::from_static(OPTIONS.as_bytes())));
    assert_eq!(bed.streams.hops(), [hop]);
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_with_the_step_at_which_it_failed() {
    let mut bed = bed(Limits::default());
    let closed = to(Transport::Tcp, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    bed.streams.send(closed, Bytes::from_static(b"lost"));
    match bed.next().await {
        Event::Unreachable { hop, step: Step::Tcp, error } => {
            assert_eq!(hop, closed);
            assert!(error.contains("refused"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // A listener that speaks no TLS.
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let hop = to(Transport::Tls, plain.local_addr().unwrap());
    bed.streams.send(hop, Bytes::from_static(b"lost"));
    let (mut peer, _) = plain.accept().await.unwrap();
    peer.write_all(b"SIP/2.0 400 Bad\r\n\r\n").await.unwrap();
    match bed.next().await {
        Event::Unreachable { step: Step::Tls, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_comes_about_only_after_the_certificate_was_trusted() {
    let mut bed = bed(Limits::default());
    let hop = to(Transport::Tls, bed.tls);
    bed.streams.send(hop, Bytes::from_static(OPTIONS.as_bytes()));
    let mut told = [false; 2];
    while told != [true; 2] {
        match bed.next().await {
            Event::Unreachable { step: Step::Tls, .. } => told[0] = true,
            Event::Refused { step: Step::Tls, .. } => told[1] = true,
            other => panic!("{other:?}"),
        }
    }
    let seen = bed.trust.take_seen();
    assert_eq!(seen[0].server, "127.0.0.1");
    bed.trust.set([seen[0].fingerprint]);
    bed.streams.send(hop, Bytes::from_static(OPTIONS.as_bytes()));
    let (from, payload) = bed.message().await;
    assert_eq!((from.transport, payload), (Transport::Tls, Bytes::from_static(OPTIONS.as_bytes())));
}

#[tokio::test]
async fn what_goes_to_a_server_goes_down_the_connection_that_it_has_made_as_long_as_that_lives() {
    let mut bed = bed(Limits::default());
    let mut peer = TcpStream::connect(bed.tcp).await.unwrap();
    peer.write_all(OPTIONS.as_bytes()).await.unwrap();
    let (connection, _) = bed.message().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = to(Transport::Tcp, listener.local_addr().unwrap());
    bed.streams.reuse(connection, target);
    bed.streams.send(target, Bytes::from_static(b"down"));
    let mut read = [0; 4];
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!((&read, bed.streams.hops()), (b"down", vec![connection]));
    drop(peer);
    assert!(matches!(bed.next().await, Event::Disconnected { hop, .. } if hop == connection));
    assert!(matches!(bed.next().await, Event::Released { hop } if hop == target));
    bed.streams.send(target, Bytes::from_static(b"anew"));
    let (mut peer, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"anew");
    // One that the appliance has made leads where it was made to, and nowhere else.
    assert!(matches!(bed.next().await, Event::Connected { hop, .. } if hop == target));
    let other = to(Transport::Tcp, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    bed.streams.reuse(target, other);
    bed.streams.send(other, Bytes::from_static(b"lost"));
    assert!(matches!(bed.next().await, Event::Unreachable { hop, .. } if hop == other));
}

#[tokio::test]
async fn over_tls_a_connection_is_used_for_the_name_that_its_certificate_is_for_and_no_other() {
    let directory = Directory::new("reuse");
    let server = Identity::open(directory.path(), None, None, &["sip.example.com".into()], &[]).unwrap();
    let authority = directory.path().join("tls/authority.pem");
    let rows = [
        (ClientCertificates::Request, "sip.example.com", true),
        (ClientCertificates::Request, "other.example.com", false),
        (ClientCertificates::Off, "sip.example.com", false),
    ];
    for (client_certificates, name, reused) in rows {
        let rules = Tls { client_certificates, ..Tls::default() };
        let mut bed = bed_with(Limits::default(), &rules, Some(&authority));
        let trust = Arc::new(Trust::default());
        trust.set([bed.own]);
        let client = tls::client_config(&server, &Authorities::open(None).unwrap(), &trust, &rules).unwrap();
        let stream = TcpStream::connect(bed.tls).await.unwrap();
        let at = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut peer = tokio_rustls::TlsConnector::from(client).connect(at, stream).await.unwrap();
        peer.write_all(OPTIONS.as_bytes()).await.unwrap();
        let (connection, _) = bed.message().await;
        let target = to(Transport::Tls, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        bed.streams.set_names([(target.address, name.to_owned())].into());
        bed.streams.reuse(connection, target);
        bed.streams.send(target, Bytes::from_static(b"down"));
        if reused {
            let mut read = [0; 4];
            timeout(LIMIT, peer.read_exact(&mut read)).await.unwrap().unwrap();
            assert_eq!(&read, b"down");
        } else {
            let told = bed.next().await;
            assert!(matches!(told, Event::Unreachable { hop, .. } if hop == target), "{name}: {told:?}");
        }
    }
}

#[tokio::test]
async fn an_old_phone_speaks_tls_1_0_with_rsa_key_exchange_on_its_port_and_nowhere_else() {
    let mut bed = bed(Limits::default());
    let old = || {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        builder.set_security_level(0);
        builder.set_min_proto_version(Some(SslVersion::TLS1)).unwrap();
        builder.set_max_proto_version(Some(SslVersion::TLS1)).unwrap();
        builder.set_cipher_list("AES128-SHA:@SECLEVEL=0").unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        Ssl::new(&builder.build()).unwrap()
    };
    let stream = TcpStream::connect(bed.legacy).await.unwrap();
    let hop = to(Transport::LegacyTls, stream.local_addr().unwrap());
    let mut phone = tokio_openssl::SslStream::new(old(), stream).unwrap();
    std::pin::Pin::new(&mut phone).connect().await.unwrap();
    assert_eq!(phone.ssl().version_str(), "TLSv1");
    assert_eq!(phone.ssl().current_cipher().unwrap().name(), "AES128-SHA");
    phone.write_all(OPTIONS.as_bytes()).await.unwrap();
    assert_eq!(bed.message().await, (hop, Bytes::from_static(OPTIONS.as_bytes())));
    bed.streams.send(hop, Bytes::from_static(b"answer"));
    let mut answer = [0; 6];
    phone.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    let stream = TcpStream::connect(bed.tls).await.unwrap();
    let mut phone = tokio_openssl::SslStream::new(old(), stream).unwrap();
    assert!(std::pin::Pin::new(&mut phone).connect().await.is_err());
    assert!(matches!(bed.next().await, Event::Refused { step: Step::Tls, .. }));
}

#[tokio::test]
async fn a_peer_that_sends_nonsense_or_too_many_connections_is_turned_away() {
    let mut bed = bed(Limits { accepted: 2, per_source: 2, connected: 1 });
    let mut bad = TcpStream::connect(bed.tcp).await.unwrap();
    bad.write_all(b"A\r\nContent-Length: x\r\n\r\n").await.unwrap();
    assert!(matches!(bed.next().await, Event::Connected { .. }));
    match bed.next().await {
        Event::Disconnected { why, used: false, .. } => {
            assert_eq!(why, Why::Framing(FramingError::ContentLength));
            assert_eq!(
                (why.as_label(), why.to_string().as_str()),
                ("malformed", "a Content-Length cannot be read")
            );
        }
        other => panic!("{other:?}"),
    }
    let _first = TcpStream::connect(bed.tcp).await.unwrap();
    let _second = TcpStream::connect(bed.tcp).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(bed.next().await, Event::Connected { .. }));
    }
    let mut third = TcpStream::connect(bed.tcp).await.unwrap();
    assert!(matches!(bed.next().await, Event::Refused { step: Step::Limit, .. }));
    assert_eq!(timeout(LIMIT, third.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0, "it is closed");

    // The crowd does not shut the appliance's own way out, which has a limit of its own.
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let hop = to(Transport::Tcp, server.local_addr().unwrap());
    bed.streams.send(hop, Bytes::from_static(b"out"));
    match bed.next().await {
        Event::Connected { hop: made, direction: Direction::Connected } => assert_eq!(made, hop),
        other => panic!("{other:?}"),
    }
    let second = to(Transport::Tcp, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    bed.streams.send(second, Bytes::from_static(b"out"));
    assert!(matches!(bed.next().await, Event::Unreachable { step: Step::Limit, .. }));
}

#[test]
fn a_message_that_is_kept_does_not_keep_the_buffer_that_it_was_read_into() {
    let mut framer = Framer::default();
    framer.buffer().reserve(64 << 10);
    framer.buffer().extend_from_slice(OPTIONS.repeat(2).as_bytes());
    let Some(Frame::Message(first)) = framer.frame().unwrap() else { panic!() };
    let Some(Frame::Message(_second)) = framer.frame().unwrap() else { panic!() };
    assert_eq!(first.try_into_mut().unwrap().capacity(), OPTIONS.len());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = bed(Limits::default());
    let settings = Settings {
        networks: vec![Listen {
            network: NETWORK,
            address: Ipv4Addr::LOCALHOST.into(),
            ports: vec![(Transport::Tcp, taken.local_addr().unwrap().port())],
        }],
        ..other.streams.settings().clone()
    };
    let error = Streams::start(settings).unwrap_err().to_string();
    assert!(error.starts_with("TCP port 127.0.0.1:") && error.contains("cannot be bound"), "{error}");
}
