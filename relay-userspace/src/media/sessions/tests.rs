//! Offers and answers, whole descriptions compared, and what the datapath is told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

mod forking;
mod ice;
mod multiplexing;
mod srtp;
mod standing;

const OFFICE: NetworkId = NetworkId(0);
const CENTRE: NetworkId = NetworkId(1);

/// Keys that are all different and the same in each run: no keys at all.
fn random(bytes: &mut [u8]) -> Result<(), crate::srtp::KeyError> {
    thread_local! { static LAST: std::cell::Cell<u8> = const { std::cell::Cell::new(0) }; }
    bytes.fill(LAST.replace(LAST.get().wrapping_add(1)));
    Ok(())
}

fn sessions() -> Sessions {
    with_policies(SrtpPolicy::Pass, SrtpPolicy::Pass)
}

/// Policies of the office and of the centre.
fn with_policies(office: SrtpPolicy, centre: SrtpPolicy) -> Sessions {
    let network = |name: &str, address: &str, latching, srtp| MediaNetwork {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        advertised: address.parse().unwrap(),
        ports: 20_000..=20_019,
        latching,
        ice: IcePolicy::Remove,
        srtp,
        rtp_dscp: Some(Dscp::EF),
        rtcp_dscp: Some(Dscp::CS3),
    };
    Sessions::new(Settings {
        networks: vec![
            network("office", "10.61.0.1", Latching::SameAddress, office),
            network("centre", "10.62.0.1", Latching::Signalled, centre),
        ],
        max_sessions: 100,
        timeout: Duration::from_secs(60),
        seed: 1,
        random,
    })
}

/// A datapath that only remembers.
#[derive(Default)]
struct Installed(BTreeMap<SocketAddr, FlowSpec>);

impl Installed {
    fn apply(&mut self, changes: Vec<FlowChange>) {
        for change in changes {
            match change {
                FlowChange::Install(spec) => drop(self.0.insert(spec.local, spec)),
                FlowChange::Remove(local) => {
                    assert!(self.0.remove(&local).is_some(), "{local} was not installed");
                }
            }
        }
    }
}

fn offer<'a>(sdp: &'a [u8], from_tag: &'a [u8]) -> Offer<'a> {
    Offer { call: b"call", from_tag, to_tag: None, from: OFFICE, to: CENTRE, sdp }
}

fn offer_back<'a>(sdp: &'a [u8], from_tag: &'a [u8]) -> Offer<'a> {
    Offer { from: CENTRE, to: OFFICE, ..offer(sdp, from_tag) }
}

fn answer<'a>(sdp: &'a [u8], from_tag: &'a [u8], to_tag: &'a [u8]) -> Answer<'a> {
    Answer { call: b"call", from_tag, to_tag, from: OFFICE, to: CENTRE, sdp }
}

fn audio(address: &str, port: u16, more: &str) -> Vec<u8> {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )
    .into_bytes()
}

/// The port behind `m=` of the n-th media description.
fn port_of(sdp: &[u8], index: usize) -> u16 {
    Description::parse(sdp).unwrap().media[index].port
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A call from the office that is answered; the ports announced to the server and to the phone.
fn call(sessions: &mut Sessions, installed: &mut Installed) -> (u16, u16) {
    let now = Instant::now();
    let out = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    installed.apply(out.changes);
    let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    installed.apply(back.changes);
    (port_of(&out.sdp, 0), port_of(&back.sdp, 0))
}

#[test]
fn an_offer_leaves_with_our_address_and_port_and_nothing_else_changed() {
    let mut sessions = sessions();
    let sent = audio("10.61.0.11", 4000, "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\na=sendrecv\r\n");
    let out = sessions.offer(Instant::now(), &offer(&sent, b"a")).unwrap();
    let port = port_of(&out.sdp, 0);
    let expected = String::from_utf8(sent)
        .unwrap()
        .replace("c=IN IP4 10.61.0.11", "c=IN IP4 10.62.0.1")
        .replace("m=audio 4000", &format!("m=audio {port}"));
    assert_eq!(String::from_utf8(out.sdp).unwrap(), expected);
    assert!(port.is_multiple_of(2) && (20_000..20_020).contains(&port));
}

#[test]
fn the_flows_of_an_offer_are_there_before_its_answer_and_learn_only_from_who_has_spoken() {
    let mut sessions = sessions();
    let out = sessions.offer(Instant::now(), &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    let mut installed = Installed::default();
    installed.apply(out.changes);
    let server_side = port_of(&out.sdp, 0);
    assert_eq!(installed.0.len(), 4);
    let flow = &installed.0[&at("10.62.0.1", server_side)];
    assert_eq!((flow.signalled, flow.destination), (None, Some(at("10.61.0.11", 4000))));
    let flow = &installed.0[&flow.out_source];
    assert_eq!((flow.signalled, flow.destination), (Some(at("10.61.0.11", 4000)), None));
}

#[test]
fn an_answered_call_has_four_flows_that_point_at_each_other() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (outside, inside) = call(&mut sessions, &mut installed);
    let rows = [
        (
            at("10.61.0.1", inside),
            at("10.61.0.11", 4000),
            at("10.62.0.1", outside),
            at("10.62.0.10", 6000),
            FlowKind::Rtp,
        ),
        (
            at("10.61.0.1", inside + 1),
            at("10.61.0.11", 4001),
            at("10.62.0.1", outside + 1),
            at("10.62.0.10", 6001),
            FlowKind::Rtcp,
        ),
        (
            at("10.62.0.1", outside),
            at("10.62.0.10", 6000),
            at("10.61.0.1", inside),
            at("10.61.0.11", 4000),
            FlowKind::Rtp,
        ),
        (
            at("10.62.0.1", outside + 1),
            at("10.62.0.10", 6001),
            at("10.61.0.1", inside + 1),
            at("10.61.0.11", 4001),
            FlowKind::Rtcp,
        ),
    ];
    assert_eq!(installed.0.len(), rows.len());
    for (local, signalled, out_source, destination, kind) in rows {
        let inside = local.ip() == at("10.61.0.1", 0).ip();
        let expected = FlowSpec {
            local,
            from: if inside { OFFICE } else { CENTRE },
            signalled: Some(signalled),
            latching: if inside { Latching::SameAddress } else { Latching::Signalled },
            out_source,
            destination: Some(destination),
            kind,
            dscp: Some(if kind == FlowKind::Rtcp { Dscp::CS3 } else { Dscp::EF }),
            clock_rate: 8000,
            turns: 0,
            rtcp: None,
            srtp: None,
            ice: None,
            forks: Vec::new(),
        };
        assert_eq!(installed.0[&local], expected);
    }
}

#[test]
fn a_deleted_call_leaves_no_flow_and_no_port_behind_and_may_be_deleted_again() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    for _ in 0..100 {
        call(&mut sessions, &mut installed);
        let now = Instant::now();
        sessions.delete(now, b"call");
        sessions.delete(now, b"call");
        assert_eq!(sessions.reap(now + LINGER / 2), [], "the last packets are still under way");
        assert_eq!(installed.0.len(), 4);
        assert_eq!(sessions.next_reap(), Some(now + LINGER));
        installed.apply(sessions.reap(now + LINGER));
    }
    assert!(installed.0.is_empty() && sessions.is_empty());
    assert!(sessions.ports().iter().all(|ports| ports.used == 0));
}

#[test]
fn a_hold_by_zero_address_stays_zero_and_blocks_only_the_way_to_who_holds() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (outside, inside) = call(&mut sessions, &mut installed);
    let now = Instant::now();
    let out = sessions.offer(now, &offer(&audio("0.0.0.0", 4000, ""), b"a")).unwrap();
    assert!(String::from_utf8_lossy(&out.sdp).contains("c=IN IP4 0.0.0.0\r\n"));
    assert_eq!(out.changes, [], "nothing changes before the answer");
    installed
        .apply(sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap().changes);
    assert_eq!(installed.0[&at("10.62.0.1", outside)].destination, None);
    assert_eq!(installed.0[&at("10.61.0.1", inside)].destination, Some(at("10.62.0.10", 6000)));

    sessions.offer(now, &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    installed
        .apply(sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap().changes);
    assert_eq!(installed.0[&at("10.62.0.1", outside)].destination, Some(at("10.61.0.11", 4000)));
}

#[test]
fn the_server_may_offer_too_and_a_refused_offer_changes_nothing() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (outside, inside) = call(&mut sessions, &mut installed);
    let now = Instant::now();
    // The server moves the media to another host; the phone refuses.
    let moved = audio("10.62.0.99", 7000, "");
    let out = sessions.offer(now, &offer_back(&moved, b"b")).unwrap();
    assert_eq!((port_of(&out.sdp, 0), out.changes.len()), (inside, 0));
    assert_eq!(installed.0[&at("10.61.0.1", inside)].destination, Some(at("10.62.0.10", 6000)));
    // It tries again; the phone accepts.
    sessions.offer(now, &offer_back(&moved, b"b")).unwrap();
    let phone = audio("10.61.0.11", 4000, "");
    let accepted = Answer { from: CENTRE, to: OFFICE, ..answer(&phone, b"b", b"a") };
    let back = sessions.answer(now, &accepted).unwrap();
    assert_eq!(port_of(&back.sdp, 0), outside);
    installed.apply(back.changes);
    assert_eq!(installed.0[&at("10.61.0.1", inside)].destination, Some(at("10.62.0.99", 7000)));
    assert_eq!(installed.0[&at("10.62.0.1", outside)].signalled, Some(at("10.62.0.99", 7000)));
}

#[test]
fn lines_of_a_description_are_rewritten_each_by_its_rule() {
    let rows = [
        ("a=rtcp with a port", "a=rtcp:4001\r\n", "a=rtcp:{rtcp}\r\n"),
        ("a=rtcp with an address", "a=rtcp:4009 IN IP4 10.61.0.11\r\n", "a=rtcp:{rtcp} IN IP4 10.62.0.1\r\n"),
        (
            "a media level address",
            "c=IN IP4 10.61.0.12\r\na=ptime:20\r\n",
            "c=IN IP4 10.62.0.1\r\na=ptime:20\r\n",
        ),
        (
            "ICE goes",
            "a=ice-ufrag:x\r\na=candidate:1 1 UDP 1 10.61.0.11 4000 typ host\r\na=sendonly\r\n",
            "a=sendonly\r\n",
        ),
        (
            "keys and unknown lines stay",
            "a=crypto:1 X inline:y\r\na=x-vendor: z \r\n",
            "a=crypto:1 X inline:y\r\na=x-vendor: z \r\n",
        ),
    ];
    for (description, sent, expected) in rows {
        let mut sessions = sessions();
        let sdp = audio("10.61.0.11", 4000, sent);
        let out = sessions.offer(Instant::now(), &offer(&sdp, b"a")).unwrap();
        let port = port_of(&out.sdp, 0);
        let expected = expected.replace("{rtcp}", &(port + 1).to_string());
        let text = String::from_utf8(out.sdp).unwrap();
        assert!(text.ends_with(&format!("telephone-event/8000\r\n{expected}")), "{description}: {text}");
    }
}

#[test]
fn streams_come_and_go_with_their_media_descriptions() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    call(&mut sessions, &mut installed);
    let now = Instant::now();
    let with =
        |port| audio("10.61.0.11", 4000, &format!("m=video {port} RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n"));
    let answered =
        |port| audio("10.62.0.10", 6000, &format!("m=video {port} RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n"));
    // Video is added and accepted.
    installed.apply(sessions.offer(now, &offer(&with(5000), b"a")).unwrap().changes);
    installed.apply(sessions.answer(now, &answer(&answered(7000), b"a", b"b")).unwrap().changes);
    assert_eq!(installed.0.len(), 8);
    assert!(installed.0.values().any(|flow| flow.clock_rate == 90_000));
    // It is ended by port 0, but not before the answer: a refused end ends nothing.
    installed.apply(sessions.offer(now, &offer(&with(0), b"a")).unwrap().changes);
    assert_eq!(installed.0.len(), 8);
    installed.apply(sessions.answer(now, &answer(&answered(0), b"a", b"b")).unwrap().changes);
    assert_eq!(installed.0.len(), 4);
    // It is added again. One branch of the call refuses it, another accepts: its ports were kept.
    let out = sessions.offer(now, &offer(&with(5000), b"a")).unwrap();
    installed.apply(out.changes);
    installed.apply(sessions.answer(now, &answer(&answered(0), b"a", b"b")).unwrap().changes);
    let server_side = at("10.62.0.1", port_of(&out.sdp, 1));
    assert_eq!(installed.0[&server_side].signalled, None);
    let back = sessions.answer(now, &answer(&answered(7000), b"a", b"c")).unwrap();
    assert_ne!(port_of(&back.sdp, 1), 7000, "our port, not the other party's");
    installed.apply(back.changes);
    assert_eq!(installed.0[&server_side].signalled, Some(at("10.62.0.10", 7000)));
    assert_eq!(sessions.ports()[0].used, 8, "towards the phone each branch has ports of its own");
    installed.apply(sessions.release(now, b"call", b"b"));
    installed.apply(sessions.reap(now + LINGER));
    assert_eq!(sessions.ports()[0].used, 4);
}

#[test]
fn a_change_of_direction_opens_learning_and_a_refresh_does_not() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (_, inside) = call(&mut sessions, &mut installed);
    let now = Instant::now();
    let mut turns = Vec::new();
    for direction in ["a=sendrecv\r\n", "a=sendonly\r\n", "a=sendonly\r\n", "", ""] {
        sessions.offer(now, &offer(&audio("10.61.0.11", 4000, direction), b"a")).unwrap();
        let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
        installed.apply(back.changes);
        turns.push(installed.0[&at("10.61.0.1", inside)].turns);
    }
    assert_eq!(turns, [0, 1, 1, 2, 2]);
}

#[test]
fn a_call_that_turns_to_fax_and_back_leaves_no_flow_behind() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    call(&mut sessions, &mut installed);
    let now = Instant::now();
    let fax = |address: &str, port: u16| {
        format!(
            "v=0\r\no=- 1 2 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=image {port} udptl t38\r\n"
        )
        .into_bytes()
    };
    let mut negotiate = |offered: &[u8], answered: &[u8]| {
        installed.apply(sessions.offer(now, &offer(offered, b"a")).unwrap().changes);
        installed.apply(sessions.answer(now, &answer(answered, b"a", b"b")).unwrap().changes);
        let kinds: Vec<FlowKind> = installed.0.values().map(|flow| flow.kind).collect();
        kinds
    };
    let (audio_kinds, fax_kinds) =
        ([FlowKind::Rtp, FlowKind::Rtcp, FlowKind::Rtp, FlowKind::Rtcp], [FlowKind::Opaque; 2]);
    assert_eq!(negotiate(&fax("10.61.0.11", 4000), &fax("10.62.0.10", 6000)), fax_kinds);
    let (phone, server) = (audio("10.61.0.11", 4000, ""), audio("10.62.0.10", 6000, ""));
    assert_eq!(negotiate(&phone, &server), audio_kinds);
    assert_eq!(negotiate(&fax("10.61.0.11", 4000), &fax("10.62.0.10", 6000)), fax_kinds);
    sessions.delete(now, b"call");
    installed.apply(sessions.reap(now + LINGER));
    assert!(installed.0.is_empty());
}

#[test]
fn without_ports_an_offer_is_refused_with_the_network_s_name_and_takes_none() {
    let mut sessions = sessions();
    let sdp = audio("10.61.0.11", 4000, "");
    for call in 0..10u8 {
        sessions.offer(Instant::now(), &Offer { call: &[call], ..offer(&sdp, b"a") }).unwrap();
    }
    let error = sessions.offer(Instant::now(), &offer(&sdp, b"a")).unwrap_err();
    assert_eq!(error.to_string(), "no free media ports on network \"office\": 20 of 20 are in use");
    assert_eq!(sessions.len(), 10);
    let now = Instant::now();
    sessions.delete(now, &[3]);
    sessions.reap(now + LINGER);
    // One pair is free on each side: a call with two streams does not get half of them.
    let two = audio("10.61.0.11", 4000, "m=video 5000 RTP/AVP 96\r\n");
    assert!(matches!(sessions.offer(Instant::now(), &offer(&two, b"a")), Err(MediaError::NoPorts { .. })));
    assert!(sessions.offer(Instant::now(), &offer(&sdp, b"a")).is_ok());
}

#[test]
fn descriptions_that_no_relay_can_serve_are_refused_with_what_and_where() {
    let rows = [
        ("not SDP", b"hello".to_vec(), "line 1"),
        (
            "no connection",
            b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nt=0 0\r\nm=audio 1 RTP/AVP 0\r\n".to_vec(),
            "line 5",
        ),
        ("a name", audio("pc.example.com", 4000, ""), "\"pc.example.com\" is a name"),
        ("a group", audio("224.1.1.1", 4000, ""), "224.1.1.1 is a multicast group"),
        ("the appliance itself", audio("127.0.0.1", 53, ""), "127.0.0.1 is the appliance itself"),
        (
            "the other family",
            audio("10.61.0.11", 4000, "c=IN IP6 fd00::1\r\n"),
            "fd00::1 is of another family",
        ),
    ];
    for (description, sdp, expected) in rows {
        let mut sessions = sessions();
        let error = sessions.offer(Instant::now(), &offer(&sdp, b"a")).unwrap_err().to_string();
        assert!(error.contains(expected), "{description}: {error}");
        assert!(sessions.is_empty());
    }
    assert_eq!(
        sessions().answer(Instant::now(), &answer(&audio("1.1.1.1", 1, ""), b"a", b"b")).unwrap_err(),
        MediaError::UnknownCall
    );
}

#[test]
fn only_sessions_without_negotiation_for_the_timeout_are_quiet() {
    let mut sessions = sessions();
    let start = Instant::now();
    sessions.offer(start, &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    assert!(sessions.quiet(start + Duration::from_secs(59)).is_empty());
    assert_eq!(sessions.quiet(start + Duration::from_secs(60)), [b"call".to_vec()]);
}

#[derive(Debug, Clone)]
enum Step {
    Offer { call: u8, back: bool, branch: u8, mux: bool, streams: Vec<u16> },
    Answer { call: u8, back: bool, branch: u8, mux: bool, streams: Vec<u16> },
    Release { call: u8, branch: u8 },
    Delete { call: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let streams = || prop::collection::vec(prop_oneof![Just(0u16), 1000u16..60_000], 1..4);
    let negotiated = || (0u8..4, any::<bool>(), b'b'..=b'd', any::<bool>(), streams());
    prop_oneof![
        4 => negotiated().prop_map(|(call, back, branch, mux, streams)| Step::Offer { call, back, branch, mux, streams }),
        4 => negotiated().prop_map(|(call, back, branch, mux, streams)| Step::Answer { call, back, branch, mux, streams }),
        2 => (0u8..4, b'b'..=b'd').prop_map(|(call, branch)| Step::Release { call, branch }),
        1 => (0u8..4).prop_map(|call| Step::Delete { call }),
    ]
}

proptest! {
    /// Whatever is offered, answered and deleted, in any order: flows that are removed were installed, each
    /// flow's way out is another flow's way in, and in the end nothing is left.
    #[test]
    fn flows_and_ports_always_balance(steps in prop::collection::vec(step(), 1..60)) {
        let (mut sessions, mut installed) = (sessions(), Installed::default());
        let now = Instant::now();
        let body = |ports: &[u16], mux: bool| {
            let mut sdp = "v=0\r\no=- 1 1 IN IP4 10.9.9.9\r\ns=-\r\nc=IN IP4 10.9.9.9\r\nt=0 0\r\n".to_owned();
            for port in ports {
                sdp += &format!("m=audio {port} RTP/AVP 0\r\n");
                if mux {
                    sdp += "a=rtcp-mux\r\n";
                }
            }
            sdp.into_bytes()
        };
        for step in steps {
            match step {
                Step::Offer { call, back, branch, mux, streams } => {
                    let sdp = body(&streams, mux);
                    let tag = [branch];
                    let base = if back { offer_back(&sdp, &tag) } else { offer(&sdp, b"a") };
                    if let Ok(out) = sessions.offer(now, &Offer { call: &[call], ..base }) {
                        installed.apply(out.changes);
                    }
                }
                Step::Answer { call, back, branch, mux, streams } => {
                    let sdp = body(&streams, mux);
                    let tag = [branch];
                    let (from, to) = if back { (&tag[..], &b"a"[..]) } else { (&b"a"[..], &tag[..]) };
                    if let Ok(out) = sessions.answer(now, &Answer { call: &[call], ..answer(&sdp, from, to) }) {
                        installed.apply(out.changes);
                    }
                }
                Step::Release { call, branch } => {
                    installed.apply(sessions.release(now, &[call], &[branch]));
                    installed.apply(sessions.reap(now + LINGER));
                }
                Step::Delete { call } => {
                    sessions.delete(now, &[call]);
                    installed.apply(sessions.reap(now + LINGER));
                }
            }
            for flow in installed.0.values() {
                for party in std::iter::once(flow.party()).chain(flow.forks.iter().cloned()) {
                    let ways = party.rtcp.map(|way| way.out_source);
                    for out in std::iter::once(party.out_source).chain(ways) {
                        prop_assert!(installed.0.contains_key(&out), "{} leaves from nowhere", flow.local);
                    }
                }
            }
            // No port without a flow or the other way round, but for RTCP's where a side multiplexes.
            let used: usize = sessions.ports().iter().map(|ports| ports.used).sum();
            let multiplexed = installed.0.values().filter(|flow| {
                let rtcp = SocketAddr::new(flow.local.ip(), flow.local.port() + 1);
                flow.kind == FlowKind::Rtp && !installed.0.contains_key(&rtcp)
            });
            prop_assert_eq!(used, installed.0.len() + multiplexed.count());
        }
        for call in 0u8..4 {
            sessions.delete(now, &[call]);
        }
        installed.apply(sessions.reap(now + LINGER));
        prop_assert!(installed.0.is_empty());
        prop_assert!(sessions.ports().iter().all(|ports| ports.used == 0));
    }
}
