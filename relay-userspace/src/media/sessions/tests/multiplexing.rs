//! RTCP on the port of RTP (RFC 5761): on both sides, on one, on neither.

use super::*;
use crate::datapath::RtcpWay;

/// What is told to whom, and the flows that follow, by name.
struct Row {
    description: &'static str,
    offered: &'static str,
    answered: &'static str,
    /// What the server reads behind the payload types.
    server_reads: &'static str,
    /// What the phone reads; `{rtp}` and `{rtcp}` are the appliance's ports towards it.
    phone_reads: &'static str,
    /// Local end, and where RTCP that arrives there leaves from and goes to.
    rtcp: &'static [(&'static str, &'static str, &'static str)],
}

const SEPARATE: &[(&str, &str, &str)] =
    &[("inside rtcp", "outside rtcp", "10.62.0.10:6001"), ("outside rtcp", "inside rtcp", "10.61.0.11:4001")];

#[test]
fn each_side_multiplexes_if_it_wants_to_and_the_flows_split_and_join() {
    let rows = [
        Row {
            description: "on neither side",
            offered: "",
            answered: "",
            server_reads: "",
            phone_reads: "",
            rtcp: SEPARATE,
        },
        Row {
            description: "on both sides",
            offered: "a=rtcp-mux\r\n",
            answered: "a=rtcp-mux\r\n",
            server_reads: "a=rtcp-mux\r\n",
            phone_reads: "a=rtcp-mux\r\n",
            rtcp: &[
                ("inside rtp", "outside rtp", "10.62.0.10:6000"),
                ("outside rtp", "inside rtp", "10.61.0.11:4000"),
            ],
        },
        Row {
            description: "on the offerer's side alone",
            offered: "a=rtcp-mux\r\n",
            answered: "",
            server_reads: "a=rtcp-mux\r\n",
            phone_reads: "a=rtcp-mux\r\n",
            rtcp: &[
                ("inside rtp", "outside rtcp", "10.62.0.10:6001"),
                ("outside rtcp", "inside rtp", "10.61.0.11:4000"),
            ],
        },
        Row {
            description: "exclusively: whoever does not know how need not refuse",
            offered: "a=rtcp:4000\r\na=rtcp-mux\r\na=rtcp-mux-only\r\n",
            answered: "a=rtcp:7009 IN IP4 10.62.0.12\r\n",
            server_reads: "a=rtcp:{rtcp}\r\na=rtcp-mux\r\n",
            phone_reads: "a=rtcp:{rtp} IN IP4 10.61.0.1\r\na=rtcp-mux\r\n",
            rtcp: &[
                ("inside rtp", "outside rtcp", "10.62.0.12:7009"),
                ("outside rtcp", "inside rtp", "10.61.0.11:4000"),
            ],
        },
        Row {
            description: "exclusively, without the attribute that RFC 8858 wants beside it",
            offered: "a=rtcp-mux-only\r\n",
            answered: "a=rtcp-mux\r\n",
            server_reads: "a=rtcp-mux\r\n",
            phone_reads: "a=rtcp-mux\r\n",
            rtcp: &[
                ("inside rtp", "outside rtp", "10.62.0.10:6000"),
                ("outside rtp", "inside rtp", "10.61.0.11:4000"),
            ],
        },
        Row {
            description: "by an answer to which nobody has offered it",
            offered: "",
            answered: "a=rtcp-mux\r\n",
            server_reads: "",
            phone_reads: "a=rtcp-mux\r\n",
            rtcp: SEPARATE,
        },
    ];
    for row in rows {
        let (mut sessions, mut installed, now) = (sessions(), Installed::default(), Instant::now());
        let out = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, row.offered), b"a")).unwrap();
        installed.apply(out.changes);
        let back =
            sessions.answer(now, &answer(&audio("10.62.0.10", 6000, row.answered), b"a", b"b")).unwrap();
        installed.apply(back.changes);
        let (outside, inside) = (port_of(&out.sdp, 0), port_of(&back.sdp, 0));
        for (sdp, port, expected) in
            [(&out.sdp, outside, row.server_reads), (&back.sdp, inside, row.phone_reads)]
        {
            let expected =
                expected.replace("{rtp}", &port.to_string()).replace("{rtcp}", &(port + 1).to_string());
            let text = String::from_utf8_lossy(sdp);
            let (_, read) = text.split_once("telephone-event/8000\r\n").unwrap();
            assert_eq!(read, expected, "{}", row.description);
        }
        let named = |name: &str| match name {
            "inside rtp" => at("10.61.0.1", inside),
            "inside rtcp" => at("10.61.0.1", inside + 1),
            "outside rtp" => at("10.62.0.1", outside),
            _ => at("10.62.0.1", outside + 1),
        };
        let mut locals: Vec<SocketAddr> = vec![named("inside rtp"), named("outside rtp")];
        for (local, out, destination) in row.rtcp {
            let flow = &installed.0[&named(local)];
            let way = match flow.kind {
                FlowKind::Rtcp => {
                    assert_eq!(flow.rtcp, None, "{}", row.description);
                    RtcpWay { out_source: flow.out_source, destination: flow.destination, dscp: flow.dscp }
                }
                _ => *flow.rtcp.clone().unwrap(),
            };
            let expected = RtcpWay {
                out_source: named(out),
                destination: Some(destination.parse().unwrap()),
                dscp: Some(Dscp::CS3),
            };
            assert_eq!(way, expected, "{}: {local}", row.description);
            locals.push(named(local));
        }
        locals.sort();
        locals.dedup();
        assert_eq!(installed.0.keys().copied().collect::<Vec<_>>(), locals, "{}", row.description);
        sessions.delete(now, b"call");
        installed.apply(sessions.reap(now + LINGER));
        assert!(installed.0.is_empty(), "{}", row.description);
    }
}

#[test]
fn a_later_offer_may_begin_or_end_multiplexing_and_a_refused_one_does_neither() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    call(&mut sessions, &mut installed);
    let now = Instant::now();
    let mut counts = Vec::new();
    for (offered, answered) in [("a=rtcp-mux\r\n", Some("a=rtcp-mux\r\n")), ("", None), ("", Some(""))] {
        sessions.offer(now, &offer(&audio("10.61.0.11", 4000, offered), b"a")).unwrap();
        if let Some(answered) = answered {
            let sdp = audio("10.62.0.10", 6000, answered);
            installed.apply(sessions.answer(now, &answer(&sdp, b"a", b"b")).unwrap().changes);
        }
        counts.push(installed.0.len());
    }
    assert_eq!(counts, [2, 2, 4]);
}

#[test]
fn fax_has_no_rtcp_to_multiplex() {
    let (mut sessions, mut installed, now) = (sessions(), Installed::default(), Instant::now());
    let fax = |address: &str| {
        format!("v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=image 4000 udptl t38\r\na=rtcp-mux\r\n")
            .into_bytes()
    };
    installed.apply(sessions.offer(now, &offer(&fax("10.61.0.11"), b"a")).unwrap().changes);
    let back = sessions.answer(now, &answer(&fax("10.62.0.10"), b"a", b"b")).unwrap();
    installed.apply(back.changes);
    let kinds: Vec<(FlowKind, Option<RtcpWay>)> =
        installed.0.values().map(|flow| (flow.kind, flow.rtcp.clone().map(|way| *way))).collect();
    assert_eq!(kinds, [(FlowKind::Opaque, None); 2]);
}
