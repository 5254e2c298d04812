//! The packet rows of `relay-ebpf`, through the loaded program by `BPF_PROG_TEST_RUN`: what the core does
//! natively, the kernel does byte for byte. Needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../../relay-ebpf/tests/rows/mod.rs"]
#[expect(unreachable_pub, reason = "shared with relay-ebpf's native test")]
mod rows;

use std::net::SocketAddr;

use branchline::datapath::kernel::{
    bed::TestBed,
    programs::{KernelLog, Options, Programs, RELAY, TC, TC_BEHIND},
};
use relay_ebpf::{Fate, Flow, FlowStats, Reason};
use rows::*;

/// `linux/bpf.h`, `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// `linux/pkt_cls.h`: what a classifier says of a packet.
const TC_UNSPEC: u32 = u32::MAX;
const TC_SHOT: u32 = 2;
const TC_REDIRECT: u32 = 7;

fn inside() -> SocketAddr {
    SocketAddr::from((INSIDE, INSIDE_PORT))
}

/// Where a row's frame goes to.
fn local(frame: &[u8]) -> SocketAddr {
    let ipv6 = frame.windows(16).any(|bytes| bytes == INSIDE_IPV6);
    if ipv6 { SocketAddr::from((INSIDE_IPV6, INSIDE_PORT)) } else { inside() }
}

fn bed() -> TestBed {
    TestBed::new(vec![OUTSIDE.into(), INSIDE.into(), INSIDE_IPV6.into()], 1024)
        .expect("BPF needs root and a kernel with BTF")
}

fn count(bed: &TestBed, reason: Reason) -> u64 {
    bed.reasons().unwrap().iter().find(|(other, _)| *other == reason).unwrap().1
}

/// Puts a row's flow into the tables.
fn set_up(bed: &mut TestBed, row: &Row) {
    bed.clear_stats(row.flow.stats);
    bed.set_next_hop(row.flow.next_hop, row.next_hop);
    match row.verdict {
        Verdict::Refused(Reason::StaleSlot) if row.apart.is_none() => {
            bed.set_stale_flow(local(&row.frame), row.flow).unwrap();
        }
        _ => match row.apart {
            Some(apart) => bed.set_flow_with_rtcp(local(&row.frame), row.flow, apart).unwrap(),
            None => bed.set_flow(local(&row.frame), row.flow).unwrap(),
        },
    }
}

#[test]
fn each_row_has_its_verdict_and_its_bytes_in_the_kernel() {
    let mut bed = bed();
    for row in rows() {
        set_up(&mut bed, &row);
        let before = bed.reasons().unwrap();
        let run = bed.run(RELAY, &row.frame, 1).unwrap();
        let (action, frame, packets, reason) = match row.verdict {
            Verdict::Forwarded(bytes) => (XDP_TX, bytes, 1, None),
            Verdict::Refused(reason) => {
                let action = match reason.fate() {
                    Fate::Passed => XDP_PASS,
                    Fate::Dropped => XDP_DROP,
                };
                (action, row.frame, 0, Some(reason))
            }
        };
        assert_eq!(run.action, action, "{}", row.description);
        assert_eq!(run.frame, frame, "{}", row.description);
        assert_eq!(bed.stats(row.flow.stats).kernel_packets, packets, "{}", row.description);
        for ((reason_before, before), (_, after)) in before.iter().zip(bed.reasons().unwrap()) {
            let expected = before + u64::from(Some(*reason_before) == reason);
            assert_eq!(after, expected, "{}: counter {}", row.description, reason_before.label());
        }
    }
}

/// Those rows whose packets have no tag: TC finds it beside the packet, where a test run can neither put nor see one.
fn untagged() -> impl Iterator<Item = Row> {
    const ETHERTYPE: std::ops::Range<usize> = 12..14;
    let has_tag = |frame: &[u8]| {
        frame.get(ETHERTYPE).is_some_and(|it| [[0x81, 0], [0x88, 0xA8]].contains(&[it[0], it[1]]))
    };
    rows().into_iter().filter(move |row| {
        !has_tag(&row.frame) && !matches!(&row.verdict, Verdict::Forwarded(bytes) if has_tag(bytes))
            // The kernel itself refuses to test with frames that are cut inside the IP header.
            && row.frame.len() >= ETHERTYPE.end + 40
    })
}

#[test]
fn each_untagged_row_has_its_verdict_and_its_bytes_at_tc() {
    let mut bed = bed();
    let mut forwarded = 0;
    for row in untagged() {
        set_up(&mut bed, &row);
        let before = bed.reasons().unwrap();
        let run = bed.run(TC, &row.frame, 1).unwrap();
        let (action, frame, packets, reason) = match row.verdict {
            Verdict::Forwarded(bytes) => (TC_REDIRECT, bytes, 1, None),
            Verdict::Refused(reason) => match reason.fate() {
                Fate::Passed => (TC_UNSPEC, row.frame, 0, Some(reason)),
                Fate::Dropped => (TC_SHOT, row.frame, 0, Some(reason)),
            },
        };
        forwarded += packets;
        assert_eq!(run.action, action, "{}", row.description);
        assert_eq!(run.frame, frame, "{}", row.description);
        assert_eq!(bed.stats(row.flow.stats).kernel_packets, packets, "{}", row.description);
        for ((reason_before, before), (_, after)) in before.iter().zip(bed.reasons().unwrap()) {
            let expected = before + u64::from(Some(*reason_before) == reason);
            assert_eq!(after, expected, "{}: counter {}", row.description, reason_before.label());
        }
    }
    assert!(forwarded > 10, "{forwarded}");
}

#[test]
fn what_leaves_by_a_tunnel_passes_xdp_and_is_taken_by_tc_behind_it() {
    let mut bed = bed();
    let hop = relay_ebpf::NextHop { flags: relay_ebpf::NextHop::BY_TC, ..next_hop() };
    bed.set_next_hop(0, hop);
    bed.set_flow(inside(), flow()).unwrap();
    let frame = sent().frame();
    let run = bed.run(RELAY, &frame, 1).unwrap();
    assert_eq!((run.action, &run.frame), (XDP_PASS, &frame));
    assert_eq!((count(&bed, Reason::LeavesByTc), bed.stats(0).kernel_packets), (1, 0));
    let run = bed.run(TC_BEHIND, &frame, 1).unwrap();
    assert_eq!((run.action, run.frame), (TC_REDIRECT, sent().forwarded()));
    assert_eq!((count(&bed, Reason::LeavesByTc), bed.stats(0).kernel_packets), (1, 1));
    // What XDP has passed and counted is not counted again.
    let other = sent().with(|s| s.udp.destination_port += 1).frame();
    let before = bed.reasons().unwrap();
    assert_eq!(bed.run(TC_BEHIND, &other, 1).unwrap().action, TC_UNSPEC);
    assert_eq!(bed.reasons().unwrap(), before);
}

#[test]
fn the_kernel_counts_a_stream_as_the_core_does_natively() {
    let mut bed = bed();
    bed.set_next_hop(0, next_hop());
    bed.set_flow(inside(), flow()).unwrap();
    // Lost: 3 and 4; twice: 6; overtaken: 8 by 9.
    for sequence in [1u16, 2, 5, 6, 6, 7, 9, 8] {
        let frame = sent().with(|s| {
            s.payload[2..4].copy_from_slice(&sequence.to_be_bytes());
            s.payload[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
        });
        assert_eq!(bed.run(RELAY, &frame.frame(), 1).unwrap().action, XDP_TX);
    }
    let stats = bed.stats(0);
    assert_eq!((stats.kernel_packets, stats.kernel_bytes), (8, 8 * 200));
    assert_eq!((stats.expected(), stats.lost(), stats.duplicates, stats.reordered), (9, 2, 1, 1));
    assert_eq!(stats.ssrc, 0xDEAD_BEEF);
    assert!(stats.last_seen_ns > 0);
}

#[test]
fn a_stranger_s_packets_are_counted_on_the_flow_and_under_their_reason() {
    let mut bed = bed();
    bed.set_next_hop(0, next_hop());
    bed.set_flow(inside(), flow()).unwrap();
    let frame = sent().with(|s| s.ip.source[3] += 1).frame();
    assert_eq!(bed.run(RELAY, &frame, 5).unwrap().action, XDP_DROP);
    let mut expected = FlowStats::ZERO;
    expected.wrong_source = 5;
    assert_eq!(bed.stats(0), expected);
    assert_eq!(count(&bed, Reason::WrongSource), 5);
    let ipv6 = sent().with(|s| s.ipv6 = Some(ipv6())).with(|s| s.udp.source_port += 1).frame();
    bed.set_flow(local(&ipv6), Flow { stats: 7, ..Families::V6ToV6.flow() }).unwrap();
    assert_eq!(bed.run(RELAY, &ipv6, 3).unwrap().action, XDP_DROP);
    let refused = bed.take_refused().unwrap().all();
    let mut refused: Vec<(u32, String, u64)> = refused
        .iter()
        .flat_map(|(stats, sources)| {
            sources.iter().map(|source| (*stats, source.source.to_string(), source.packets))
        })
        .collect();
    refused.sort();
    assert_eq!(
        refused,
        [(0, "10.61.0.12:4000".to_owned(), 5), (7, "[fd61::11]:4001".to_owned(), 3)],
        "by the flow's place in the statistics"
    );
}

#[test]
fn one_packet_in_256_is_timed_whatever_its_flow() {
    const PACKETS: u32 = 1_000_000;
    let mut bed = bed();
    bed.set_next_hop(0, next_hop());
    // A flow that maps back onto itself, so that the same packet can be repeated; the step in front of the
    // relay gives back the TTL.
    let mirror = Flow {
        out_source_address: PHONE,
        out_source_port: PHONE_PORT.to_be_bytes(),
        out_destination_address: INSIDE,
        out_destination_port: INSIDE_PORT.to_be_bytes(),
        ..flow()
    };
    bed.set_flow(inside(), mirror.with_deltas(INSIDE, INSIDE_PORT.to_be_bytes())).unwrap();
    assert_eq!(bed.run("branchline_bench_relay", &sent().frame(), PACKETS).unwrap().action, XDP_TX);
    assert_eq!(bed.stats(0).kernel_packets, u64::from(PACKETS));
    let latency = bed.latency().unwrap();
    let samples = latency.buckets.iter().sum::<u64>();
    // 3,906 are expected, with a deviation of 62.
    assert!((3_400..4_400).contains(&samples), "{samples}");
    assert!(latency.sum_ns > 0);
}

#[test]
fn a_log_that_is_off_is_not_even_loaded() {
    let instructions = |log| {
        let options = Options { addresses: vec![INSIDE.into()], flows: 64, log };
        Programs::load(options).unwrap().size(RELAY).unwrap().verified_instructions
    };
    let (off, on) = (instructions(KernelLog::Off), instructions(KernelLog::On));
    println!("instructions verified with the log off {off:?}, on {on:?}");
    assert!(off < on, "off {off:?}, on {on:?}");
}

#[test]
fn the_maps_take_no_more_memory_than_stated() {
    /// Of a flow: its record and its statistics.
    const FLOW: u64 = 128 + 128;
    /// Of an address: its ports.
    const ADDRESS: u64 = 512 << 10;
    /// Whatever the configuration is: tables of sources, rings, next hops, and change that depends on the number of CPUs.
    const REST: u64 = 6 << 20;
    for flows in [relay_ebpf::tables::DEFAULT_FLOWS, 200_000] {
        let addresses = vec![OUTSIDE.into(), INSIDE.into()];
        let options = Options { addresses, flows, log: KernelLog::Off };
        let memory = Programs::load(options).unwrap().map_memory().unwrap();
        println!("{flows} flows: maps take {} KiB", memory / 1024);
        let least = u64::from(flows) * FLOW + 2 * ADDRESS;
        assert!((least..least + REST).contains(&memory), "{flows} flows: {memory}");
    }
}
