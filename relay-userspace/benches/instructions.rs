//! Instructions of what userspace does for each message and each packet, counted by Valgrind's Callgrind: the same on every
//! run of the same program, whatever else the machine does. `cargo xtask bench instructions` runs it and holds the counts
//! against `bench/baseline/instructions.json`.
//!
//! Each row is one whole step as the daemon takes it, on messages as phones and servers send them.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic: then there is nothing to report")]

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use branchline::{
    media::{self, Answer, FlowChange, MediaError, MediaNetwork, MediaRelay, Offer, Sessions},
    net::{IcePolicy, Identity, Latching, NetworkId, Role, SrtpPolicy},
    proxy::{Network, Output, Ports, Proxy, Settings, Upstream},
    sdp,
    sip::{
        Hop,
        wire::{Editor, Message},
    },
    srtp::{Content, Inbound, KeyError, MasterKey, Outbound, Suite},
};
use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};

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
    fn take(&mut self, network: NetworkId, source: &str, text: &str) -> Vec<(NetworkId, Bytes)> {
        let payload = Bytes::from(text.replace('\n', "\r\n"));
        let hop = Hop::udp(network, source.parse::<SocketAddr>().unwrap());
        self.proxy.receive(self.now, &mut self.media, hop, &payload);
        self.drain()
    }

    fn drain(&mut self) -> Vec<(NetworkId, Bytes)> {
        let mut sent = Vec::new();
        while let Some(output) = self.proxy.poll_output() {
            if let Output::Send(transmit) = output {
                sent.push((transmit.hop.network, transmit.payload));
            }
        }
        sent
    }
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
    Bytes::from(invite().replace('\n', "\r\n"))
}

#[library_benchmark]
#[bench::invite(message())]
fn read_a_message(payload: Bytes) -> Message {
    black_box(Message::parse(&payload).unwrap())
}

#[library_benchmark]
#[bench::invite(Message::parse(&message()).unwrap())]
fn edit_a_message(message: Message) -> Bytes {
    let mut editor = Editor::new(&message);
    editor.add_header("Via", format_args!("SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bK1;rport"));
    editor.stamp_via(PHONE.parse().unwrap());
    editor.request_uri(b"sip:100@198.51.100.9");
    editor.max_forwards(69);
    black_box(editor.finish())
}

#[library_benchmark]
#[bench::invite(DESCRIPTION.replace('\n', "\r\n"))]
fn rewrite_a_description(text: String) -> Vec<u8> {
    let session = sdp::Session::parse(text.as_bytes()).unwrap();
    let mut rewriter = sdp::Rewriter::new(&session);
    rewriter.set_all_connections("198.51.100.1".parse().unwrap());
    rewriter.set_port(0, 16_384);
    black_box(rewriter.finish())
}

// A registration: REGISTER and its 200.
#[library_benchmark]
#[bench::phone(world())]
fn register(mut world: World) -> World {
    let text = "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr1;rport\n\
        From: <sip:200@example.com>;tag=r\nTo: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\n\
        Contact: <sip:200@192.0.2.11:5060>\nExpires: 3600\nMax-Forwards: 70\nContent-Length: 0\n\n";
    let sent = world.take(PHONES, PHONE, text);
    let (_, at_server) = sent.last().unwrap();
    let contact = Message::parse(at_server).unwrap();
    let contact = contact.header(branchline::sip::wire::HeaderName::Contact).unwrap().value.to_vec();
    let contact = format!("Contact: {};expires=3600", String::from_utf8(contact).unwrap());
    let ok = answer(at_server, "200 OK", "").replace("Contact: <sip:100@198.51.100.9:5060>", &contact);
    let sent = world.take(SERVERS, SERVER, &ok);
    assert_eq!((sent.len(), world.proxy.binding_count()), (1, 1));
    black_box(world)
}

// A call with media: INVITE, 180, 200, ACK, BYE, 200.
#[library_benchmark]
#[bench::phone(world())]
fn call(mut world: World) -> World {
    let sent = world.take(PHONES, PHONE, &invite());
    let (_, at_server) = sent.last().unwrap().clone();
    world.take(SERVERS, SERVER, &answer(&at_server, "180 Ringing", ""));
    let body = DESCRIPTION.replace("192.0.2.11", "198.51.100.20");
    let sent = world.take(SERVERS, SERVER, &answer(&at_server, "200 OK", &body));
    assert_eq!(sent.len(), 1);
    let uri = "sip:100@192.0.2.1:8060";
    world.take(PHONES, PHONE, &request("ACK", uri, PHONE, 1, ";tag=314159", ""));
    let sent = world.take(PHONES, PHONE, &request("BYE", uri, PHONE, 2, ";tag=314159", ""));
    let (_, at_server) = sent.last().unwrap().clone();
    world.take(SERVERS, SERVER, &answer(&at_server, "200 OK", ""));
    assert_eq!(world.proxy.active_calls(), 0);
    black_box(world)
}

/// Both directions of a key, and a packet of G.711.
fn keys() -> (Outbound, Inbound, Vec<u8>) {
    let suite = Suite::named(b"AES_CM_128_HMAC_SHA1_80").unwrap();
    let key = || MasterKey::generate(suite, no_keys).unwrap();
    let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    packet.extend([0xFF; 160]);
    (Outbound::new(key()), Inbound::new(key()), packet)
}

// A packet encrypted and read again.
#[library_benchmark]
#[bench::g711(keys())]
fn srtp((outbound, inbound, mut packet): (Outbound, Inbound, Vec<u8>)) -> Vec<u8> {
    outbound.protect(Content::Rtp, &mut packet).unwrap();
    inbound.unprotect(Content::Rtp, &mut packet).unwrap();
    assert_eq!(packet.len(), 172);
    black_box(packet)
}

library_benchmark_group!(
    name = messages;
    benchmarks = read_a_message, edit_a_message, rewrite_a_description
);
library_benchmark_group!(
    name = steps;
    benchmarks = register, call, srtp
);

main!(library_benchmark_groups = messages, steps);
