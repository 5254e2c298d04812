//! The rows: messages and packets as phones and servers send them, and the office that they meet.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark may panic: then there is nothing to report"
)]

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use branchline::{
    config::ChallengePolicy,
    datapath::{
        FlowSpec, Incoming, Outgoing, Translation,
        bed::{Handed, RelayBed},
    },
    media::{self, Answer, FlowChange, MediaError, MediaNetwork, MediaRelay, Offer, Sessions},
    net::{IcePolicy, Identity, Latching, NetworkId, Role, SrtpPolicy},
    proxy::{Network, Output, Ports, Proxy, Settings, Upstream},
    sdp,
    sip::{
        Hop,
        wire::{Editor, HeaderName, Message},
    },
    srtp::{Content, Inbound, KeyError, MasterKey, Outbound, Suite},
};
use bytes::Bytes;
use relay_ebpf::FlowKind;

use crate::{Row, counted};

/// In the order in which they are told.
pub(crate) const ROWS: [Row; 11] = [
    Row { name: "an INVITE is read", run: read_a_message },
    Row { name: "an INVITE is edited", run: edit_a_message },
    Row { name: "a description is read and rewritten", run: rewrite_a_description },
    Row { name: "a registration: REGISTER, 200", run: register },
    Row { name: "a call with media: INVITE to the BYE's 200", run: call },
    Row { name: "a packet is relayed, as it is", run: || relay(None) },
    Row { name: "a packet is relayed, from SRTP to RTP", run: || relay(Some(Leg::Secured)) },
    Row { name: "a packet is relayed, from RTP to SRTP", run: || relay(Some(Leg::Plain)) },
    Row {
        name: "SRTP, AES-CM-128 with HMAC-SHA1-80: a packet is protected",
        run: || srtp(SHA1, Half::Protect),
    },
    Row { name: "SRTP, AES-CM-128 with HMAC-SHA1-80: a packet is read", run: || srtp(SHA1, Half::Read) },
    Row { name: "SRTP, AES-GCM-128: a packet is protected and read", run: || srtp(GCM, Half::Both) },
];

const SHA1: &[u8] = b"AES_CM_128_HMAC_SHA1_80";
const GCM: &[u8] = b"AEAD_AES_128_GCM";

/// Counts a step, and gives what came of it, which is dropped when nobody counts any more.
fn count<T>(step: impl FnOnce() -> T) -> T {
    let (mut step, mut result) = (Some(step), None);
    counted(&mut || result = step.take().map(|step| black_box(step())));
    result.expect("the step was taken")
}

const PHONES: NetworkId = NetworkId(0);
const SERVERS: NetworkId = NetworkId(1);
const PHONE: &str = "192.0.2.11:5060";
const SERVER: &str = "198.51.100.9:5060";

/// Keys that are no secret, the same in each run.
fn no_keys(bytes: &mut [u8]) -> Result<(), KeyError> {
    bytes.fill(7);
    Ok(())
}

/// The media room, with nothing behind it.
struct Media(Sessions);

impl MediaRelay for Media {
    fn offer(&mut self, now: Instant, offer: &Offer<'_>) -> Result<Vec<u8>, MediaError> {
        self.0.offer(now, offer).map(|negotiated| negotiated.sdp)
    }

    fn answer(&mut self, now: Instant, answer: &Answer<'_>) -> Result<Vec<u8>, MediaError> {
        self.0.answer(now, answer).map(|negotiated| negotiated.sdp)
    }

    fn release(&mut self, now: Instant, call: &[u8], tag: &[u8]) {
        let _: Vec<FlowChange> = self.0.release(now, call, tag);
    }

    fn delete(&mut self, now: Instant, call: &[u8]) {
        self.0.delete(now, call);
    }
}

/// An office with one server.
struct World {
    proxy: Proxy,
    media: Media,
    now: Instant,
}

fn world() -> World {
    let network = |id, name: &str, role, own: &str| Network {
        id,
        name: name.to_owned(),
        role,
        identity: Identity::Trusted,
        challenge: ChallengePolicy::Never,
        bound: own.parse().unwrap(),
        advertised: own.parse().unwrap(),
        ports: Ports { udp: 8060, ..Ports::default() },
        mtu: None,
    };
    let networks = vec![
        network(PHONES, "office", Role::Phones, "192.0.2.1"),
        network(SERVERS, "centre", Role::Servers, "198.51.100.1"),
    ];
    let upstream = Upstream::new(SERVERS, vec!["198.51.100.9:5060".to_owned().try_into().unwrap()]);
    let now = Instant::now();
    let mut world = World {
        proxy: Proxy::new(Settings::new(networks, upstream, [1, 2]), now),
        media: Media(sessions()),
        now,
    };
    world.drain();
    world
}

fn sessions() -> Sessions {
    let network = |name: &str, own: &str| MediaNetwork {
        name: name.to_owned(),
        address: own.parse().unwrap(),
        advertised: own.parse().unwrap(),
        ports: 16_384..=32_767,
        latching: Latching::SameAddress,
        srtp: SrtpPolicy::Pass,
        ice: IcePolicy::Remove,
        rtp_dscp: None,
        rtcp_dscp: None,
    };
    Sessions::new(media::Settings {
        networks: vec![network("office", "192.0.2.1"), network("centre", "198.51.100.1")],
        max_sessions: 100,
        timeout: Duration::from_secs(60),
        seed: 1,
        random: no_keys,
    })
}

impl World {
    /// Takes a message and gives what was sent, to the network and as bytes.
    fn give(&mut self, network: NetworkId, source: &str, payload: &Bytes) -> Vec<(NetworkId, Bytes)> {
        let hop = Hop::udp(network, source.parse::<SocketAddr>().unwrap());
        self.proxy.receive(self.now, &mut self.media, hop, payload);
        self.drain()
    }

    /// The same, of a message that is not on the wire yet.
    fn take(&mut self, network: NetworkId, source: &str, text: &str) -> Vec<(NetworkId, Bytes)> {
        self.give(network, source, &on_the_wire(text))
    }

    fn drain(&mut self) -> Vec<(NetworkId, Bytes)> {
        let mut sent = Vec::new();
        while let Some(output) = self.proxy.poll_output() {
            if let Output::Transmit { hop, payload } = output {
                sent.push((hop.network, payload));
            }
        }
        sent
    }
}

/// A message as it is sent: lines end with both characters.
fn on_the_wire(text: &str) -> Bytes {
    Bytes::from(text.replace('\n', "\r\n"))
}

const DESCRIPTION: &str = "v=0\no=- 20518 0 IN IP4 192.0.2.11\ns=-\nc=IN IP4 192.0.2.11\nt=0 0\n\
    m=audio 16400 RTP/AVP 0 8 9 18 101\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:9 G722/8000\n\
    a=rtpmap:18 G729/8000\na=fmtp:18 annexb=no\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=sendrecv\n";

/// A request of the phone's, or of the server's party in the same call.
fn request(method: &str, uri: &str, sent_by: &str, cseq: u32, to_tag: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    let length = body.replace('\n', "\r\n").len();
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {sent_by};branch=z9hG4bK776asdhds{cseq}{method};rport\n\
         From: \"Station 200\" <sip:200@example.com>;tag=1928301774\nTo: <sip:100@example.com>{to_tag}\n\
         Call-ID: a84b4c76e66710@192.0.2.11\nCSeq: {cseq} {method}\nMax-Forwards: 70\n\
         Contact: <sip:200@192.0.2.11:5060>\nAllow: INVITE, ACK, CANCEL, BYE, NOTIFY, REFER, OPTIONS, UPDATE\n\
         Supported: replaces, 100rel\nUser-Agent: Telephone/7.2.1\nP-Preferred-Identity: <sip:200@example.com>\n\
         {kind}Content-Length: {length}\n\n{body}"
    )
}

fn invite() -> String {
    request("INVITE", "sip:100@example.com", PHONE, 1, "", DESCRIPTION)
}

/// A response of the server to a request as it got it.
fn answer(request: &Bytes, status: &str, body: &str) -> String {
    let text = String::from_utf8(request.to_vec()).unwrap().replace("\r\n", "\n");
    let (head, _) = text.split_once("\n\n").unwrap();
    let kept = ["Via", "Record-Route", "From", "Call-ID", "CSeq"];
    let is_kept = |line: &&str| kept.iter().any(|name| line.starts_with(&format!("{name}:")));
    let copied: Vec<&str> = head.lines().filter(is_kept).collect();
    let to = head.lines().find(|line| line.starts_with("To:")).unwrap();
    let to = if to.contains(";tag=") { to.to_owned() } else { format!("{to};tag=314159") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    let length = body.replace('\n', "\r\n").len();
    format!(
        "SIP/2.0 {status}\n{}\n{to}\nContact: <sip:100@198.51.100.9:5060>\n{kind}Content-Length: {length}\n\n{body}",
        copied.join("\n")
    )
}

fn message() -> Bytes {
    on_the_wire(&invite())
}

fn read_a_message() {
    let payload = message();
    count(|| Message::parse(&payload).unwrap());
}

fn edit_a_message() {
    let message = Message::parse(&message()).unwrap();
    let edited = count(|| {
        let mut editor = Editor::new(&message);
        editor.add_header("Via", format_args!("SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bK1;rport"));
        editor.stamp_via(PHONE.parse().unwrap());
        editor.request_uri(b"sip:100@198.51.100.9");
        editor.max_forwards(69);
        editor.finish()
    });
    assert!(edited.starts_with(b"INVITE sip:100@198.51.100.9 SIP/2.0\r\n"), "it was edited");
}

fn rewrite_a_description() {
    let text = DESCRIPTION.replace('\n', "\r\n");
    let rewritten = count(|| {
        let session = sdp::Session::parse(text.as_bytes()).unwrap();
        let mut rewriter = sdp::Rewriter::new(&session);
        rewriter.set_all_connections("198.51.100.1".parse().unwrap());
        rewriter.set_port(0, 16_384);
        rewriter.finish()
    });
    assert!(String::from_utf8(rewritten).unwrap().contains("m=audio 16384 RTP/AVP 0 8 9 18 101"));
}

/// REGISTER and its 200.
fn register() {
    let text = "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr1;rport\n\
        From: <sip:200@example.com>;tag=r\nTo: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\n\
        Contact: <sip:200@192.0.2.11:5060>\nExpires: 3600\nMax-Forwards: 70\nContent-Length: 0\n\n";
    let mut rehearsal = world();
    let sent = rehearsal.take(PHONES, PHONE, text);
    let (_, at_server) = sent.last().unwrap();
    let contact = Message::parse(at_server).unwrap();
    let contact = contact.header(HeaderName::Contact).unwrap().value.to_vec();
    let contact = format!("Contact: {};expires=3600", String::from_utf8(contact).unwrap());
    let ok = answer(at_server, "200 OK", "").replace("Contact: <sip:100@198.51.100.9:5060>", &contact);
    // The office's secret is the same, so what the server gets and answers is too.
    let mut world = world();
    let (request, response) = (on_the_wire(text), on_the_wire(&ok));
    let sent = count(|| {
        world.give(PHONES, PHONE, &request);
        world.give(SERVERS, SERVER, &response)
    });
    assert_eq!((sent.len(), world.proxy.binding_count()), (1, 1));
}

/// INVITE, 180, 200, ACK, BYE, 200.
fn call() {
    let mut rehearsal = world();
    let invite = on_the_wire(&invite());
    let (_, at_server) = rehearsal.give(PHONES, PHONE, &invite).last().unwrap().clone();
    let ringing = on_the_wire(&answer(&at_server, "180 Ringing", ""));
    let body = DESCRIPTION.replace("192.0.2.11", "198.51.100.20");
    let ok = on_the_wire(&answer(&at_server, "200 OK", &body));
    let uri = "sip:100@192.0.2.1:8060";
    let ack = on_the_wire(&request("ACK", uri, PHONE, 1, ";tag=314159", ""));
    let bye = on_the_wire(&request("BYE", uri, PHONE, 2, ";tag=314159", ""));
    for (network, source, payload) in
        [(SERVERS, SERVER, &ringing), (SERVERS, SERVER, &ok), (PHONES, PHONE, &ack)]
    {
        rehearsal.give(network, source, payload);
    }
    let (_, at_server) = rehearsal.give(PHONES, PHONE, &bye).last().unwrap().clone();
    let ended = on_the_wire(&answer(&at_server, "200 OK", ""));
    let mut world = world();
    let sent = count(|| {
        let mut sent = world.give(PHONES, PHONE, &invite).len();
        sent += world.give(SERVERS, SERVER, &ringing).len();
        sent += world.give(SERVERS, SERVER, &ok).len();
        sent += world.give(PHONES, PHONE, &ack).len();
        sent += world.give(PHONES, PHONE, &bye).len();
        sent + world.give(SERVERS, SERVER, &ended).len()
    });
    // 100 and INVITE, 180, 200, ACK, BYE, 200.
    assert_eq!((sent, world.proxy.active_calls()), (7, 0), "the call went through and has ended");
}

/// What a party's leg is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Plain,
    Secured,
}

/// A packet of a stream that stands, as it is or translated from this leg to the other kind.
fn relay(from: Option<Leg>) {
    let (local, phone): (SocketAddr, SocketAddr) =
        ("192.0.2.1:16384".parse().unwrap(), "192.0.2.11:16400".parse().unwrap());
    let srtp = from.map(|leg| match leg {
        Leg::Secured => {
            Translation { from: Incoming::Keyed(Arc::new(Inbound::new(key(SHA1)))), to: Outgoing::Plain }
        }
        Leg::Plain => {
            Translation { from: Incoming::Plain, to: Outgoing::Keyed(Arc::new(Outbound::new(key(SHA1)))) }
        }
    });
    let spec = FlowSpec {
        local,
        from: PHONES,
        signalled: Some(phone),
        latching: Latching::SameAddress,
        out_source: "198.51.100.1:16386".parse().unwrap(),
        destination: Some("198.51.100.20:16400".parse().unwrap()),
        kind: FlowKind::Rtp,
        dscp: None,
        clock_rate: 8000,
        turns: 0,
        rtcp: None,
        srtp: srtp.map(Arc::new),
        ice: None,
        forks: Vec::new(),
    };
    let mut bed = RelayBed::new(spec).unwrap();
    let sender = Outbound::new(key(SHA1));
    let packets: Vec<Vec<u8>> = (1..=2)
        .map(|sequence| {
            let mut packet = rtp(sequence);
            if from == Some(Leg::Secured) {
                sender.protect(Content::Rtp, &mut packet).unwrap();
            }
            packet
        })
        .collect();
    // The first one is learned from.
    assert_eq!(bed.relay(Handed { local, source: phone, payload: &packets[0] }), 1);
    assert_eq!(count(|| bed.relay(Handed { local, source: phone, payload: &packets[1] })), 1);
}

/// Which part of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Protect,
    Read,
    Both,
}

fn key(suite: &[u8]) -> MasterKey {
    MasterKey::generate(Suite::named(suite).unwrap(), no_keys).unwrap()
}

/// 20 ms of G.711.
fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 160, 1, 2, 3, 4];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend([0xFF; 160]);
    packet
}

/// A packet of a stream that stands: the session keys are derived with the first one.
fn srtp(suite: &[u8], half: Half) {
    let (outbound, inbound) = (Outbound::new(key(suite)), Inbound::new(key(suite)));
    let mut first = rtp(1);
    outbound.protect(Content::Rtp, &mut first).unwrap();
    inbound.unprotect(Content::Rtp, &mut first).unwrap();
    let clear = rtp(2);
    let mut packet = clear.clone();
    // Where it grows to is there, as in the relay's memory.
    packet.reserve(64);
    let protect = |packet: &mut Vec<u8>| outbound.protect(Content::Rtp, packet).unwrap();
    let read = |packet: &mut Vec<u8>| inbound.unprotect(Content::Rtp, packet).unwrap();
    match half {
        Half::Protect => {
            count(|| protect(&mut packet));
            read(&mut packet);
        }
        Half::Read => {
            protect(&mut packet);
            count(|| read(&mut packet));
        }
        Half::Both => count(|| {
            protect(&mut packet);
            read(&mut packet);
        }),
    }
    assert_eq!(packet, clear);
}
