//! The same proxy over TCP and TLS, and between them and UDP.

use bytes::Bytes;

use super::harness::*;
use crate::{
    net::Transport,
    proxy::{Output, Settings, Upstream},
    sip::{Hop, transport::Step, wire::HeaderName},
    upstream,
};

const PHONE_TCP: &str = "192.0.2.11:49152";
const SERVER_TLS: &str = "198.51.100.9:5061";

pub(super) fn hop(network: crate::net::NetworkId, transport: Transport, address: &str) -> Hop {
    Hop { network, transport, address: address.parse().unwrap() }
}

/// Phones by TCP, the server by TLS.
fn world() -> World {
    let server = "sip:198.51.100.9:5061;transport=tls".to_owned().try_into().unwrap();
    World::with(Settings { upstream: Upstream::new(SERVERS, vec![server]), ..settings() })
}

impl World {
    pub(super) fn by(&mut self, hop: Hop, text: &str) -> Vec<(Hop, String)> {
        let payload = Bytes::from(text.replace('\n', "\r\n"));
        self.proxy.receive(self.now, &mut self.media, hop, &payload);
        self.hops()
    }

    pub(super) fn hops(&mut self) -> Vec<(Hop, String)> {
        let mut sent = Vec::new();
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { hop, payload } => {
                    let text = Sent { network: hop.network, to: String::new(), payload }.text();
                    sent.push((hop, text));
                }
                Output::Measure(measure) => self.measures.push(measure),
                Output::Reuse { connection, target } => self.reused.push((connection, target)),
                Output::Upstream(news) | Output::Trunk(_, news) | Output::Destination(_, news) => {
                    self.news.push(news);
                }
                Output::Realm { .. } => {}
                Output::Survival(_, change) => self.survival.push(change),
            }
        }
        sent
    }
}

fn register(contact: &str) -> String {
    format!(
        "REGISTER sip:192.0.2.1:8060;transport=tcp SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.11:5060;branch=z9hG4bKr1\n\
         From: <sip:200@example.com>;tag=r\nTo: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\n\
         Max-Forwards: 70\nContact: <{contact}>\nExpires: 3600\nContent-Length: 0\n\n"
    )
}

#[test]
fn a_register_by_tcp_goes_on_by_tls_with_each_sides_own_transport_in_it() {
    let mut world = world();
    let phone = hop(PHONES, Transport::Tcp, PHONE_TCP);
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    let sent = world.by(phone, &register("sip:200@192.0.2.11:5060;transport=tcp"));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, server);
    assert_eq!(
        sent[0].1,
        "REGISTER sip:198.51.100.9:5061 SIP/2.0\nVia: SIP/2.0/TLS 198.51.100.1:8061;branch=z9hG4bKOURS;rport;alias\n\
         Via: SIP/2.0/TCP 192.0.2.11:5060;branch=z9hG4bKr1\nFrom: <sip:200@example.com>;tag=r\n\
         To: <sip:200@example.com>\nCall-ID: reg\nCSeq: 1 REGISTER\nMax-Forwards: 69\n\
         Contact: <sip:200@198.51.100.1:8061;transport=tls;bl=TOKEN>\nExpires: 3600\nContent-Length: 0\n\n"
    );
}

/// A phone that is registered by TCP; the Contact that the server has.
fn registered(world: &mut World) -> String {
    let phone = hop(PHONES, Transport::Tcp, PHONE_TCP);
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    let payload = Bytes::from(register("sip:200@192.0.2.11:5060;transport=tcp").replace('\n', "\r\n"));
    world.proxy.receive(world.now, &mut world.media, phone, &payload);
    let sent = world.drain().remove(0);
    let contact = sent.message().header(HeaderName::Contact).unwrap().value.to_vec();
    let contact = String::from_utf8(contact).unwrap();
    let ok = answer(&sent, 200, "OK", "rt", &format!("Contact: {contact};expires=3600\n"), "");
    let sent = world.by(server, &ok);
    assert_eq!(sent[0].0, phone, "the answer goes down the phone's connection");
    assert!(
        sent[0].1.contains("Contact: <sip:200@192.0.2.11:5060;transport=tcp>;expires=3600\n"),
        "{}",
        sent[0].1
    );
    contact.trim_matches(['<', '>']).to_owned()
}

fn options(uri: &str) -> String {
    format!(
        "OPTIONS {uri} SIP/2.0\nVia: SIP/2.0/TLS 198.51.100.9:5061;branch=z9hG4bKo1;rport\nFrom: <sip:100@example.com>;tag=s\n\
         To: <sip:200@example.com>\nCall-ID: o1\nCSeq: 1 OPTIONS\nMax-Forwards: 70\nContent-Length: 0\n\n"
    )
}

#[test]
fn a_call_to_a_phone_goes_down_its_connection_and_to_where_it_listens_when_that_has_ended() {
    let mut world = world();
    let uri = registered(&mut world);
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    let sent = world.by(server, &options(&uri));
    assert_eq!(sent[0].0, hop(PHONES, Transport::Tcp, PHONE_TCP));
    assert!(
        sent[0].1.starts_with(
            "OPTIONS sip:200@192.0.2.11:5060;transport=tcp SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.1:8060;"
        ),
        "{}",
        sent[0].1
    );
    world.proxy.disconnected(world.now, &mut world.media, hop(PHONES, Transport::Tcp, PHONE_TCP));
    world.hops();
    let again = options(&uri).replace("z9hG4bKo1", "z9hG4bKo2").replace("1 OPTIONS", "2 OPTIONS");
    let sent = world.by(server, &again);
    assert_eq!(sent[0].0, hop(PHONES, Transport::Tcp, "192.0.2.11:5060"));
}

#[test]
fn what_a_datagram_may_leave_out_is_added_on_a_stream() {
    let mut world = world();
    let uri = registered(&mut world);
    let phone = hop(PHONES, Transport::Udp, PHONE);
    let ask =
        from_phone("OPTIONS", "sip:100@example.com", "o9", 1, "", "", "").replace("Content-Length: 0\n", "");
    let sent = world.by(phone, &ask);
    let (to, text) = &sent[0];
    assert_eq!(to.transport, Transport::Tls);
    assert!(text.ends_with("\nContent-Length: 0\n\n"), "{text}");
    // A message with a body, and an answer to one that came by a stream.
    let message =
        from_phone("MESSAGE", "sip:100@example.com", "m9", 2, "", "Content-Type: text/plain\n", "hello")
            .replace("Content-Length: 5\n", "");
    let sent = world.by(phone, &message);
    assert!(sent[0].1.ends_with("\nContent-Length: 5\n\nhello"), "{}", sent[0].1);
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    let sent = world.by(server, &options(&uri).replace("Content-Length: 0\n", ""));
    assert!(sent[0].1.ends_with("\nContent-Length: 0\n\n"), "{}", sent[0].1);
}

#[test]
fn over_a_connection_nothing_is_sent_twice_and_what_was_absorbed_is_forgotten_at_once() {
    let mut world = world();
    let phone = hop(PHONES, Transport::Tcp, PHONE_TCP);
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    let text = register("sip:200@192.0.2.11:5060;transport=tcp").replace("REGISTER", "MESSAGE");
    let payload = Bytes::from(text.replace('\n', "\r\n"));
    world.proxy.receive(world.now, &mut world.media, phone, &payload);
    let sent = world.drain();
    assert_eq!(sent.len(), 1);
    let later = world.wait(std::time::Duration::from_secs(20));
    let later: Vec<String> = later.iter().map(Sent::first_line).collect();
    assert_eq!(later, ["SIP/2.0 100 Trying"], "no retransmission");
    let answer = answer(&sent[0], 200, "OK", "x", "", "");
    assert_eq!(world.by(server, &answer).len(), 1);
    world.wait(std::time::Duration::from_millis(1));
    assert_eq!(world.proxy.transaction_count(), 0, "timers J and K are zero");
}

#[test]
fn a_dialog_between_tcp_and_udp_stays_on_each_sides_own_transport() {
    let mut world = World::new();
    let phone = hop(PHONES, Transport::Tcp, PHONE_TCP);
    let server = hop(SERVERS, Transport::Udp, SERVER);
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060;transport=tcp>\n",
        &sdp("192.0.2.11", 4000, ""),
    )
    .replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let payload = Bytes::from(invite.replace('\n', "\r\n"));
    world.proxy.receive(world.now, &mut world.media, phone, &payload);
    let sent: Vec<Sent> = world.drain().into_iter().filter(|sent| sent.network == SERVERS).collect();
    let text = sent[0].text();
    assert!(text.contains("\nRecord-Route: <sip:198.51.100.1:8060;lr>\nRecord-Route: <sip:192.0.2.1:8060;transport=tcp;lr>\n")
        || text.contains("\nRecord-Route: <sip:192.0.2.1:8060;transport=tcp;lr>\nRecord-Route: <sip:198.51.100.1:8060;lr>\n"), "{text}");
    assert!(text.contains("Contact: <sip:200@198.51.100.1:8060>\n"), "{text}");
    let ok = answer(
        &sent[0],
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.by(server, &ok);
    assert_eq!(sent[0].0, phone);
    assert!(sent[0].1.contains("Contact: <sip:100@192.0.2.1:8060;transport=tcp>\n"), "{}", sent[0].1);
    // The server's BYE goes down the phone's connection.
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 1, ";tag=p", "", "");
    let sent = world.by(server, &bye);
    let bye = sent.iter().find(|(_, text)| text.starts_with("BYE")).unwrap();
    assert_eq!(bye.0, phone);
    assert!(
        bye.1.starts_with(
            "BYE sip:200@192.0.2.11:5060;transport=tcp SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.1:8060;"
        ),
        "{}",
        bye.1
    );
}

#[test]
fn a_server_that_cannot_be_reached_is_answered_for_at_once_and_said_to_be_down() {
    let mut world = world();
    let phone = hop(PHONES, Transport::Tcp, PHONE_TCP);
    world.by(phone, &register("sip:200@192.0.2.11:5060;transport=tcp"));
    let server = hop(SERVERS, Transport::Tls, SERVER_TLS);
    world.proxy.unreachable(world.now, &mut world.media, server, Step::Tcp, "connection refused".into());
    let sent = world.hops();
    assert_eq!(sent[0].0, phone);
    assert!(sent[0].1.starts_with("SIP/2.0 503 "), "{}", sent[0].1);
    let down = world.news.iter().any(|news| {
        matches!(news, upstream::Output::Changed { health: upstream::Health::Down(failure), .. }
            if failure.to_string() == "no TCP connection: connection refused")
    });
    assert!(down, "{:?}", world.news);
}
