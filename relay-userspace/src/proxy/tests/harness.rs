//! A world of one phone network, one server network and a media room that only writes addresses.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{
    media::{Answer, MediaError, MediaRelay, Offer, Sessions},
    net::{Identity, NetworkId, Role},
    proxy::{Credential, Credentials, Limits, Measure, Network, Output, Ports, Proxy, Settings, Upstream},
    sdp,
    sip::{
        Hop,
        wire::{HeaderName, Message, Reply, respond},
    },
    upstream,
};

pub(super) const PHONES: NetworkId = NetworkId(0);
pub(super) const SERVERS: NetworkId = NetworkId(1);
pub(super) const PHONE: &str = "192.0.2.11:5060";
pub(super) const SERVER: &str = "198.51.100.9:5060";

/// A message that the proxy sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) network: NetworkId,
    pub(super) to: String,
    pub(super) payload: Bytes,
}

impl Sent {
    /// The text with lines ended by LF alone and with branches, tokens and tags of the appliance masked.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8(self.payload.to_vec()).unwrap().replace("\r\n", "\n");
        mask(&mask(&text, "z9hG4bKbl", "z9hG4bKOURS"), "bl=", "bl=TOKEN")
    }

    pub(super) fn first_line(&self) -> String {
        self.text().lines().next().unwrap().to_owned()
    }

    pub(super) fn message(&self) -> Message {
        Message::parse(&self.payload).unwrap()
    }
}

fn mask(text: &str, start: &str, with: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        out.push_str(&rest[..at]);
        out.push_str(with);
        rest = rest[at + start.len()..].trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '.');
    }
    out + rest
}

/// A media room that writes the appliance's address and a port that says what it was asked.
#[derive(Debug, Default)]
pub(super) struct FakeMedia {
    pub(super) log: Vec<String>,
    pub(super) live: HashSet<Vec<u8>>,
    pub(super) full: bool,
    /// Why it refuses offers.
    pub(super) refuse: Option<MediaError>,
    /// The real one, which then decides.
    pub(super) real: Option<Sessions>,
}

impl FakeMedia {
    fn rewrite(body: &[u8], toward: NetworkId, port: u16) -> Result<Vec<u8>, MediaError> {
        let session = sdp::Session::parse(body).map_err(|error| MediaError::Sdp(error.to_string()))?;
        let own: IpAddr = if toward == PHONES { "192.0.2.1" } else { "198.51.100.1" }.parse().unwrap();
        let mut rewriter = sdp::Rewriter::new(&session);
        rewriter.set_all_connections(own);
        rewriter.set_port(0, port);
        Ok(rewriter.finish())
    }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("?")
}

impl MediaRelay for FakeMedia {
    fn offer(&mut self, now: Instant, offer: &Offer<'_>) -> Result<Vec<u8>, MediaError> {
        if let Some(real) = &mut self.real {
            return real.offer(now, offer).map(|negotiated| negotiated.sdp);
        }
        if let Some(error) = &self.refuse {
            return Err(error.clone());
        }
        if self.full {
            return Err(MediaError::NoPorts { network: "centre".into(), used: 4, total: 4 });
        }
        let to_tag = offer.to_tag.map_or("-", utf8);
        self.log.push(format!("offer {} {to_tag} {}>{}", utf8(offer.from_tag), offer.from.0, offer.to.0));
        let rewritten = Self::rewrite(offer.sdp, offer.to, 16384)?;
        self.live.insert(offer.call.to_vec());
        Ok(rewritten)
    }

    fn answer(&mut self, _: Instant, answer: &Answer<'_>) -> Result<Vec<u8>, MediaError> {
        let (from, to) = (utf8(answer.from_tag), utf8(answer.to_tag));
        self.log.push(format!("answer {from} {to} {}>{}", answer.from.0, answer.to.0));
        if !self.live.contains(answer.call) {
            return Err(MediaError::UnknownCall);
        }
        Self::rewrite(answer.sdp, answer.from, 16388)
    }

    fn release(&mut self, _: Instant, _call: &[u8], tag: &[u8]) {
        self.log.push(format!("release {}", utf8(tag)));
    }

    fn delete(&mut self, _: Instant, call: &[u8]) {
        self.log.push("delete".into());
        self.live.remove(call);
    }
}

pub(super) struct World {
    pub(super) proxy: Proxy,
    pub(super) media: FakeMedia,
    pub(super) now: Instant,
    pub(super) measures: Vec<Measure>,
    pub(super) news: Vec<upstream::Output>,
    pub(super) survival: Vec<upstream::SurvivalChange>,
    pub(super) reused: Vec<(Hop, Hop)>,
    pub(super) realms: Vec<(String, String)>,
}

pub(super) fn settings() -> Settings {
    let network = |id, name: &str, role, own: &str| Network {
        id,
        name: name.into(),
        role,
        identity: Identity::Trusted,
        bound: own.parse().unwrap(),
        advertised: own.parse().unwrap(),
        ports: Ports { udp: 8060, tcp: Some(8060), tls: Some(8061), ..Ports::default() },
        challenge: crate::config::ChallengePolicy::Survival,
        mtu: None,
    };
    Settings::new(
        vec![
            network(PHONES, "office", Role::Phones, "192.0.2.1"),
            network(SERVERS, "centre", Role::Servers, "198.51.100.1"),
        ],
        Upstream::new(SERVERS, vec![SERVER.to_owned().try_into().unwrap()]),
        [11, 22],
    )
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with(Settings { limits, ..settings() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            proxy: Proxy::new(settings, now),
            media: FakeMedia::default(),
            now,
            measures: Vec::new(),
            news: Vec::new(),
            survival: Vec::new(),
            reused: Vec::new(),
            realms: Vec::new(),
        }
    }

    /// Sets the one authentication entry that there is: user 200, by the name `station200` with the password `secret`.
    pub(super) fn set_entry(&mut self, aliases: &[String]) {
        let mut credentials = Credentials::default();
        let credential = Credential {
            registration_id: "200".to_owned(),
            user: "station200".to_owned(),
            password: Zeroizing::new("secret".to_owned()),
            digests: Vec::new(),
        };
        credentials.add(&credential, aliases);
        self.proxy.set_credentials(credentials);
    }

    pub(super) fn receive(&mut self, network: NetworkId, source: &str, datagram: &[u8]) -> Vec<Sent> {
        let source: SocketAddr = source.parse().unwrap();
        let datagram = Bytes::copy_from_slice(datagram);
        self.proxy.receive(self.now, &mut self.media, Hop::udp(network, source), &datagram);
        self.drain()
    }

    /// The phone sends; lines end with LF here and with CRLF on the wire.
    pub(super) fn phone(&mut self, text: &str) -> Vec<Sent> {
        self.receive(PHONES, PHONE, text.replace('\n', "\r\n").as_bytes())
    }

    /// The server sends.
    pub(super) fn server(&mut self, text: &str) -> Vec<Sent> {
        self.receive(SERVERS, SERVER, text.replace('\n', "\r\n").as_bytes())
    }

    pub(super) fn drain(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { hop, payload } => {
                    sent.push(Sent { network: hop.network, to: hop.address.to_string(), payload });
                }
                Output::Measure(measure) => self.measures.push(measure),
                Output::Reuse { connection, target } => self.reused.push((connection, target)),
                Output::Upstream(news) | Output::Trunk(_, news) | Output::Destination(_, news) => {
                    self.news.push(news);
                }
                Output::Realm { registration_id, realm } => self.realms.push((registration_id, realm)),
                Output::Survival(_, change) => self.survival.push(change),
            }
        }
        sent
    }

    /// Lets time pass and returns what was sent meanwhile.
    pub(super) fn wait(&mut self, length: Duration) -> Vec<Sent> {
        let end = self.now + length;
        let mut sent = Vec::new();
        while let Some(at) = self.proxy.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.proxy.handle_timeout(self.now, &mut self.media);
            sent.extend(self.drain());
        }
        self.now = end;
        sent
    }

    /// The phone of extension 200 registers, and the server grants an hour.
    pub(super) fn register(&mut self) -> String {
        let sent = self.phone(
            "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr1\nFrom: <sip:200@example.com>;tag=r\n\
             To: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\nContact: <sip:200@192.0.2.11:5060;line=7>\nExpires: 3600\n\n",
        );
        let message = sent[0].message();
        let contact = String::from_utf8(message.header(HeaderName::Contact).unwrap().value.to_vec()).unwrap();
        let ok = answer(&sent[0], 200, "OK", "rt", &format!("Contact: {contact}\nExpires: 3600\n"), "");
        self.server(&ok);
        contact.trim_matches(['<', '>']).to_owned()
    }

    pub(super) fn count(&self, measure: Measure) -> usize {
        self.measures.iter().filter(|seen| **seen == measure).count()
    }

    /// Nothing is left of any call.
    pub(super) fn assert_empty(&self) {
        assert_eq!(self.proxy.transaction_count(), 0);
        self.assert_no_call();
    }

    /// The same where servers are probed.
    pub(super) fn assert_no_call(&self) {
        assert_eq!(self.proxy.active_calls(), 0);
        for network in [PHONES, SERVERS] {
            assert_eq!(self.proxy.load(network), crate::proxy::Load::default());
        }
        assert!(self.proxy.calls.is_empty() && self.proxy.by_call_id.is_empty());
        assert!(self.proxy.relays.is_empty() && self.proxy.forks.is_empty());
        assert!(self.proxy.timer_c.is_empty() && self.proxy.forget.is_empty());
        assert!(self.media.live.is_empty());
    }
}

/// A response to a request that the proxy sent, as its peer would make it.
pub(super) fn answer(
    request: &Sent,
    status: u16,
    reason: &str,
    tag: &str,
    headers: &str,
    body: &str,
) -> String {
    let message = request.message();
    let lines: String = message
        .headers()
        .filter(|header| header.name == HeaderName::RecordRoute)
        .map(|header| format!("Record-Route: {}\r\n", String::from_utf8_lossy(header.value)))
        .collect();
    let kind = if body.is_empty() || headers.contains("Content-Type") {
        ""
    } else {
        "Content-Type: application/sdp\n"
    };
    let more = lines + &format!("{headers}{kind}").replace('\n', "\r\n");
    let own: SocketAddr =
        if request.network == PHONES { "192.0.2.1:8060" } else { "198.51.100.1:8060" }.parse().unwrap();
    let reply = Reply { status, reason, to_tag: Some(tag.as_bytes()), headers: more.as_bytes() };
    let text = String::from_utf8_lossy(&respond(&message, own, &reply)).replace("\r\n", "\n");
    let length = body.replace('\n', "\r\n").len();
    text.replace("Content-Length: 0\n", &format!("Content-Length: {length}\n")) + body
}

/// A description with that address and port.
pub(super) fn sdp(address: &str, port: u16, more: &str) -> String {
    format!(
        "v=0\no=- 1 1 IN IP4 {address}\ns=-\nc=IN IP4 {address}\nt=0 0\nm=audio {port} RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n{more}"
    )
}

/// A request of the phone (extension 200, tag `p`) in the call `c1` to 100.
pub(super) fn from_phone(
    method: &str,
    uri: &str,
    branch: &str,
    cseq: u32,
    to_tag: &str,
    headers: &str,
    body: &str,
) -> String {
    request(
        method,
        uri,
        "192.0.2.11:5060",
        branch,
        cseq,
        "\"Zoë\" <sip:200@example.com>;tag=p",
        &format!("<sip:100@example.com>{to_tag}"),
        headers,
        body,
    )
}

/// A request of the server's party (100, tag `s`) in the call `c1` to 200.
pub(super) fn from_server(
    method: &str,
    uri: &str,
    branch: &str,
    cseq: u32,
    to_tag: &str,
    headers: &str,
    body: &str,
) -> String {
    request(
        method,
        uri,
        "198.51.100.9:5060",
        branch,
        cseq,
        "<sip:100@example.com>;tag=s",
        &format!("\"Zoë\" <sip:200@example.com>{to_tag}"),
        headers,
        body,
    )
}

#[expect(clippy::too_many_arguments, reason = "one for each part of the message")]
fn request(
    method: &str,
    uri: &str,
    sent_by: &str,
    branch: &str,
    cseq: u32,
    from: &str,
    to: &str,
    headers: &str,
    body: &str,
) -> String {
    let kind = if body.is_empty() || headers.contains("Content-Type") {
        ""
    } else {
        "Content-Type: application/sdp\n"
    };
    let length = body.replace('\n', "\r\n").len();
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP {sent_by};branch=z9hG4bK{branch};rport\nFrom: {from}\nTo: {to}\nCall-ID: c1\n\
         CSeq: {cseq} {method}\nMax-Forwards: 70\n{headers}{kind}Content-Length: {length}\n\n{body}"
    )
}

/// The phone calls 100 and 100 answers. Returns the 200 as the phone got it.
pub(super) fn establish(world: &mut World) -> Sent {
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    );
    let sent = world.phone(&invite);
    let invite = sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone();
    let ok = answer(
        &invite,
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20:5070;x=1>\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&ok);
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", ""));
    sent[0].clone()
}

/// The server's party calls the registered phone, which answers.
pub(super) fn establish_inward(world: &mut World) {
    let uri = world.register();
    let sent = world.server(&from_server(
        "INVITE",
        &uri,
        "j1",
        1,
        "",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        &sdp("198.51.100.20", 6000, ""),
    ));
    let invite = sent.iter().find(|sent| sent.network == PHONES).unwrap().clone();
    world.phone(&answer(
        &invite,
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060;line=7>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    world.server(&from_server("ACK", "sip:200@198.51.100.1:8060;line=7", "j2", 1, ";tag=p", "", ""));
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);
