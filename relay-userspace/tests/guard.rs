//! The protection of the host in the loaded program, packet by packet, by `BPF_PROG_TEST_RUN`. Needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../../relay-ebpf/tests/rows/mod.rs"]
#[expect(unreachable_pub, dead_code, reason = "shared with relay-ebpf's native test")]
mod rows;

use std::{collections::BTreeMap, net::SocketAddr};

use branchline::datapath::kernel::{
    bed::TestBed,
    programs::{RELAY, TC},
};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use relay_ebpf::{Reason, guard::Verdict};
use rows::*;

/// `linux/bpf.h`, `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// The port of SIP.
const SIP: u16 = 8060;
/// A second of this is admitted at once, and the packet that is due.
const PER_SECOND: u32 = 10;
const AT_ONCE: usize = PER_SECOND as usize + 1;

fn bed(rules: &[(&str, Verdict)], limits: (u32, u32)) -> TestBed {
    let mut bed = TestBed::new(vec![OUTSIDE.into(), INSIDE.into(), INSIDE_IPV6.into()], 1024)
        .expect("BPF needs root and a kernel with BTF");
    let rules: BTreeMap<IpNet, Verdict> =
        rules.iter().map(|(prefix, verdict)| (prefix.parse().unwrap(), *verdict)).collect();
    let ports = [SocketAddr::from((INSIDE, SIP)), SocketAddr::from((INSIDE_IPV6, SIP))];
    bed.protect(&rules, limits, &ports).unwrap();
    bed
}

fn udp(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PHONE_MAC, OUR_MAC).ipv4(source, INSIDE, 64).udp(5060, port);
    builder.write(&mut frame, b"OPTIONS sip:x SIP/2.0\r\n").unwrap();
    frame
}

fn udp_ipv6(source: [u8; 16], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PHONE_MAC, OUR_MAC).ipv6(source, INSIDE_IPV6, 64).udp(5060, port);
    builder.write(&mut frame, b"OPTIONS sip:x SIP/2.0\r\n").unwrap();
    frame
}

fn tcp(port: u16, syn: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder =
        PacketBuilder::ethernet2(PHONE_MAC, OUR_MAC).ipv4(PHONE, INSIDE, 64).tcp(5060, port, 1, 1000);
    if syn { builder.syn() } else { builder.ack(1) }.write(&mut frame, b"").unwrap();
    frame
}

/// The counted reason of each of so many runs of a frame; none for one that is forwarded.
fn run(bed: &mut TestBed, frame: &[u8], times: usize) -> Vec<(u32, Option<Reason>)> {
    (0..times)
        .map(|_| {
            let before = bed.reasons().unwrap();
            let action = bed.run(RELAY, frame, 1).unwrap().action;
            let after = bed.reasons().unwrap();
            let changed = before.iter().zip(&after).find(|((_, before), (_, after))| before != after);
            (action, changed.map(|((reason, _), _)| *reason))
        })
        .collect()
}

#[test]
fn the_longest_prefix_decides_and_denials_are_counted() {
    let rules = [
        ("10.61.0.0/24", Verdict::Denied),
        ("10.61.0.11/32", Verdict::Trusted),
        ("fd61::/64", Verdict::Denied),
        ("fd61::11/128", Verdict::Known),
    ];
    let mut bed = bed(&rules, (0, 0));
    let (denied, passed) = ((XDP_DROP, Some(Reason::Denied)), (XDP_PASS, Some(Reason::NoFlow)));
    let other_ipv6 = SERVER_IPV6.map(|byte| if byte == 0x62 { 0x61 } else { byte });
    let rows = [
        ("of a denied network", udp([10, 61, 0, 12], SIP), denied),
        ("the same to another port", udp([10, 61, 0, 12], 53), denied),
        ("trusted within it", udp(PHONE, SIP), passed),
        ("beside it", udp([10, 61, 1, 12], SIP), passed),
        ("of a denied IPv6 network", udp_ipv6(other_ipv6, SIP), denied),
        ("known within it", udp_ipv6(PHONE_IPV6, SIP), passed),
        ("IPv6 beside it", udp_ipv6(SERVER_IPV6, SIP), passed),
    ];
    for (description, frame, expected) in rows {
        assert_eq!(run(&mut bed, &frame, 1), [expected], "{description}");
    }
    let denials: Vec<(String, u64)> =
        bed.denials().iter().map(|rule| (rule.prefix.to_string(), rule.denied)).collect();
    assert_eq!(denials, [("10.61.0.0/24".to_owned(), 2), ("fd61::/64".to_owned(), 1)]);
    // The same at TC.
    assert_eq!(bed.run(TC, &udp([10, 61, 0, 12], SIP), 1).unwrap().action, 2, "TC_ACT_SHOT");
}

#[test]
fn media_of_a_flow_is_not_judged() {
    let mut bed = bed(&[("0.0.0.0/0", Verdict::Denied)], (1, 1));
    bed.set_next_hop(0, next_hop());
    bed.set_flow(SocketAddr::from((INSIDE, INSIDE_PORT)), flow()).unwrap();
    assert!(run(&mut bed, &sent().frame(), 100).iter().all(|(action, _)| *action == XDP_TX));
}

#[test]
fn sip_is_limited_for_each_source_and_what_is_not_sip_is_not() {
    let mut tagged = udp([10, 61, 0, 20], SIP);
    tagged.splice(12..12, [0x81, 0, 0, 100]);
    let mut options = udp([10, 61, 0, 21], SIP);
    // An IPv4 header of six words; what it holds does not matter.
    options[14] = 0x46;
    let mut fragment = udp([10, 61, 0, 22], SIP);
    fragment[20] = 0x20;
    let rows = [
        ("UDP", udp(PHONE, SIP), true),
        ("with a tag", tagged, true),
        ("IPv6", udp_ipv6(PHONE_IPV6, SIP), true),
        ("a new TCP connection", tcp(SIP, true), true),
        ("with options", options, true),
        ("a fragment", fragment, true),
        ("one that stands", tcp(SIP, false), false),
        ("UDP for another port", udp(PHONE, 53), false),
        ("TCP for another port", tcp(22, true), false),
    ];
    for (description, frame, limited) in rows {
        let mut bed = bed(&[], (PER_SECOND, 0));
        let results = run(&mut bed, &frame, 100);
        let admitted = results.iter().filter(|(action, _)| *action == XDP_PASS).count();
        if limited {
            // A run takes its time, in which a token or two come back.
            assert!((AT_ONCE..AT_ONCE + 3).contains(&admitted), "{description}: {admitted}");
            assert_eq!(results[99], (XDP_DROP, Some(Reason::SourceRate)), "{description}");
        } else {
            assert_eq!(admitted, 100, "{description}");
        }
    }
}

#[test]
fn one_host_of_an_ipv6_network_cannot_help_itself_by_another_address() {
    let mut bed = bed(&[], (PER_SECOND, 0));
    let admitted = (0..100u8)
        .filter(|last| {
            let mut source = PHONE_IPV6;
            source[15] = *last;
            run(&mut bed, &udp_ipv6(source, SIP), 1)[0].0 == XDP_PASS
        })
        .count();
    assert!((AT_ONCE..AT_ONCE + 3).contains(&admitted), "{admitted}");
}

#[test]
fn sources_that_are_not_known_share_a_limit_which_known_and_trusted_ones_do_not() {
    let rules = [("10.61.0.11/32", Verdict::Known), ("10.62.0.10/32", Verdict::Trusted)];
    let mut bed = bed(&rules, (PER_SECOND * 5, PER_SECOND));
    let cpus = std::thread::available_parallelism().unwrap().get();
    let strangers: Vec<_> =
        (0..200u8).flat_map(|last| run(&mut bed, &udp([192, 0, 2, last], SIP), 1)).collect();
    let admitted = strangers.iter().filter(|(action, _)| *action == XDP_PASS).count();
    // Each CPU has a bucket of its own, and the test may move from one to another.
    assert!((AT_ONCE..=(AT_ONCE + 3) * cpus).contains(&admitted), "{admitted}");
    assert_eq!(strangers[199], (XDP_DROP, Some(Reason::UnknownRate)));
    assert_eq!(run(&mut bed, &udp(PHONE, SIP), 1), [(XDP_PASS, Some(Reason::NoFlow))], "known");
    let trusted = run(&mut bed, &udp(SERVER, SIP), 200);
    assert!(trusted.iter().all(|(action, _)| *action == XDP_PASS), "trusted");
}

#[test]
fn a_stream_has_a_ceiling() {
    let mut bed = bed(&[], (0, 0));
    bed.set_next_hop(0, next_hop());
    let limited = relay_ebpf::Flow { packet_interval_ns: 1_000_000_000 / PER_SECOND, ..flow() };
    bed.set_flow(SocketAddr::from((INSIDE, INSIDE_PORT)), limited).unwrap();
    let results = run(&mut bed, &sent().frame(), 100);
    let admitted = results.iter().filter(|(action, _)| *action == XDP_TX).count();
    assert!((AT_ONCE..AT_ONCE + 3).contains(&admitted), "{admitted}");
    assert_eq!(results[99], (XDP_DROP, Some(Reason::FlowRate)));
    assert_eq!(bed.stats(0).kernel_packets, admitted as u64);
}
