//! The packet core, natively: rows of packets, and the laws that hold for any packet.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(unreachable_pub, reason = "shared with relay-userspace's test of the loaded program")]
mod rows;

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use relay_ebpf::{
    Flow, FlowKind, FlowStats, LocalAddresses, NextHop, PortEntry, Reason,
    guard::Rate,
    headers::{Ipv4Udp, Ipv6Address},
    leave::{Frame, Links, as_frame},
    relay::{Change, Environment, Headers, Way, Wire, relay},
    tables::{RefusedSource, port_index},
};
use rows::*;

const FAMILIES: [Families; 4] = [Families::V4ToV4, Families::V6ToV6, Families::V4ToV6, Families::V6ToV4];

/// A frame in a vector and tables of one entry.
struct Bench {
    frame: Vec<u8>,
    local: LocalAddresses,
    flow: &'static Flow,
    /// The record by which multiplexed RTCP leaves, in slot 1.
    apart: Option<&'static Flow>,
    next_hop: &'static NextHop,
    refused: RefCell<Vec<RefusedSource>>,
    stats: RefCell<FlowStats>,
    clock: Cell<u64>,
    rtcp: RefCell<Vec<Vec<u8>>>,
    rate: RefCell<u64>,
}

impl Bench {
    fn new(frame: Vec<u8>, flow: Flow, next_hop: NextHop) -> Self {
        let mut local = LocalAddresses::default();
        local.ipv4[0] = OUTSIDE;
        local.ipv4[1] = INSIDE;
        local.ipv6[0] = Ipv6Address::new(INSIDE_IPV6);
        local.first_ipv6 = 2;
        Self {
            frame,
            local,
            // As the kernel's tables do, they outlive the packet.
            flow: Box::leak(Box::new(flow)),
            apart: None,
            next_hop: Box::leak(Box::new(next_hop)),
            refused: RefCell::default(),
            stats: RefCell::default(),
            clock: Cell::new(1_000_000),
            rtcp: RefCell::default(),
            rate: RefCell::default(),
        }
    }
}

impl Environment for Bench {
    fn length(&self) -> usize {
        self.frame.len()
    }
    fn read<T: Wire>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.frame.get(offset..)?).ok().map(|(header, _)| header)
    }
    fn write<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        T::mut_from_prefix(self.frame.get_mut(offset..)?).ok().map(|(header, _)| header)
    }
    fn reaches(&self, hop: &NextHop) -> bool {
        !hop.is_by_tc()
    }
    fn leave<const IP: usize, H: Headers>(
        &mut self,
        flow: &Flow,
        hop: &NextHop,
        links: Links,
    ) -> Result<(), Reason> {
        as_frame::<IP, H, Self>(self, flow, hop, links)
    }
    fn local_addresses(&self) -> Option<&LocalAddresses> {
        Some(&self.local)
    }
    fn port(&self, index: u32) -> Option<PortEntry> {
        let ours = [1, 2].map(|place| port_index(place, INSIDE_PORT.to_be_bytes()));
        Some(if ours.contains(&index) { PortEntry::new(0, 0, 1) } else { PortEntry::default() })
    }
    fn touch(&self, _index: u32) {}
    fn flow(&self, slot: u32) -> Option<&'static Flow> {
        match slot {
            0 => Some(self.flow),
            1 => self.apart,
            _ => None,
        }
    }
    fn next_hop(&self, index: u32) -> Option<&'static NextHop> {
        (index == 0).then_some(self.next_hop)
    }
    fn change_stats(&self, _index: u32, change: impl Change) {
        change.apply(&mut self.stats.borrow_mut());
    }
    fn within_rate(&self, _slot: u32, rate: &Rate, now_ns: u64) -> bool {
        rate.admits(&mut self.rate.borrow_mut(), now_ns)
    }
    fn refuse(&self, source: &RefusedSource) {
        self.refused.borrow_mut().push(*source);
    }
    fn now_ns(&self) -> u64 {
        self.clock.replace(self.clock.get() + 20_000_000)
    }
    fn sample(&self, _elapsed_ns: u64) {}
    fn copy_rtcp(&self, offset: usize, length: usize, _stats: u32, _now_ns: u64) {
        self.rtcp.borrow_mut().push(self.frame[offset..offset + length].to_vec());
    }
}

impl Frame for Bench {
    fn resize(&mut self, by: i32) -> bool {
        if by < 0 {
            self.frame.drain(..by.unsigned_abs() as usize);
        } else {
            self.frame.splice(0..0, vec![0xA5; by as usize]);
        }
        true
    }
}

#[test]
fn the_rows_builder_agrees_with_etherparse_s_own() {
    let ours = sent().with(|s| s.ip.identification = 0).frame();
    let mut theirs = Vec::new();
    etherparse::PacketBuilder::ethernet2(PHONE_MAC, OUR_MAC)
        .ipv4(PHONE, INSIDE, 64)
        .udp(PHONE_PORT, INSIDE_PORT)
        .write(&mut theirs, &rtp(172))
        .unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn each_row_has_its_verdict_and_its_bytes() {
    for row in rows() {
        let mut flow = row.flow;
        if row.apart.is_some() {
            (flow.rtcp_slot, flow.flags) = (1, flow.flags | Flow::RTCP_APART);
        }
        let mut bench = Bench::new(row.frame.clone(), flow, row.next_hop);
        bench.apart = row.apart.map(|apart| &*Box::leak(Box::new(apart)));
        let way = relay(&mut bench);
        let (counted, expected) = match row.verdict {
            Verdict::Forwarded(bytes) => {
                assert_eq!(way, Ok(Way { interface: 1, device: 0, index: 1 }), "{}", row.description);
                (1, bytes)
            }
            Verdict::Refused(reason) => {
                assert_eq!(way, Err(reason), "{}", row.description);
                (0, row.frame)
            }
        };
        assert_eq!(bench.frame, expected, "{}", row.description);
        assert_eq!(bench.stats.borrow().kernel_packets, counted, "{}", row.description);
    }
}

#[test]
fn a_stranger_s_packet_changes_nothing_but_the_count_of_such_packets() {
    let frame = sent().with(|s| s.udp.source_port += 1).frame();
    let mut bench = Bench::new(frame, flow(), next_hop());
    assert_eq!(relay(&mut bench), Err(Reason::WrongSource));
    let mut expected = FlowStats::ZERO;
    expected.wrong_source = 1;
    assert_eq!(bench.stats.into_inner(), expected);
    let address = Ipv6Address::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 61, 0, 11]);
    let port = (PHONE_PORT + 1).to_be_bytes();
    assert_eq!(bench.refused.into_inner(), [RefusedSource { stats: 0, port, reserved: [0; 2], address }]);
}

#[test]
fn statistics_of_a_forwarded_packet_are_those_of_the_packet_as_it_arrived() {
    let frame = sent().with(|s| s.ip.dscp = 10.try_into().unwrap()).frame();
    let mut bench = Bench::new(frame, flow(), next_hop());
    relay(&mut bench).unwrap();
    let stats = bench.stats.into_inner();
    assert_eq!((stats.packets(), stats.bytes(), stats.dscp), (1, 200, 10));
    assert_eq!((stats.ssrc, stats.extended_sequence() & 0xFFFF), (0xDEAD_BEEF, 0x1234));
    assert_eq!((stats.last_seen_ns, stats.expected(), stats.lost()), (1_000_000, 1, 0));
}

#[test]
fn rtcp_is_copied_and_not_counted_as_rtp() {
    let report = [vec![0x81, 200, 0, 12], vec![7; 48]].concat();
    let frame = sent().with(|s| s.payload = report.clone()).frame();
    let mut bench = Bench::new(frame, flow(), next_hop());
    relay(&mut bench).unwrap();
    assert_eq!(*bench.rtcp.borrow(), [report]);
    let stats = bench.stats.into_inner();
    assert_eq!((stats.rtcp_packets, stats.has_rtp(), stats.packets()), (1, false, 1));
}

/// What a fuzzer's input stands for: flows of both families, with multiplexed RTCP or without, and a frame.
fn fuzzed(input: &[u8]) -> Option<Bench> {
    const MUX: u8 = 0x10;
    const TAGGED: u8 = 0x20;
    let (choice, frame) = input.split_first()?;
    let families = FAMILIES[usize::from(choice & 3)];
    let kind = [FlowKind::Rtp, FlowKind::Rtcp, FlowKind::Opaque, FlowKind::Rtp][usize::from(choice >> 2 & 3)];
    let mut flow = Flow { kind: kind as u8, ..families.flow() };
    let mut hop = next_hop();
    hop.flags = u8::from(choice & TAGGED != 0) * NextHop::TAGGED;
    let apart = Flow { type_of_service: 24 << 2, ..families.flow() };
    if choice & MUX != 0 {
        (flow.rtcp_slot, flow.flags) = (1, flow.flags | Flow::RTCP_APART);
    }
    let mut bench = Bench::new(frame.to_vec(), flow, hop);
    bench.apart = (choice & MUX != 0).then(|| &*Box::leak(Box::new(apart)));
    Some(bench)
}

/// Frames of the rows as inputs of the fuzzer: where it starts from.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let name = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let seed = |row: Row| {
        let families = match (row.frame.windows(16).any(|w| w == INSIDE_IPV6), row.flow.leaves_as_ipv6()) {
            (false, false) => 0,
            (true, true) => 1,
            (false, true) => 2,
            (true, false) => 3,
        };
        let choice = families | if row.apart.is_some() { 0x10 } else { 0 };
        (name(row.description), [vec![choice], row.frame].concat())
    };
    rows().into_iter().map(seed).collect()
}

/// Fuzz target, and under `cargo test` the replay of its committed corpus and random inputs:
/// whatever comes, the core has a verdict, changes nothing that it does not forward, and forwards no more than came with
/// at most an IPv6 header and a tag in place of an IPv4 one.
#[test]
fn any_frame_has_a_verdict() {
    const GROWTH: usize = 24;
    bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
        let Some(mut bench) = fuzzed(input) else { return };
        let before = bench.frame.clone();
        match relay(&mut bench) {
            Err(_) => assert_eq!(bench.frame, before),
            Ok(way) => {
                assert_eq!(way, Way { interface: 1, device: 0, index: 1 });
                assert!(bench.frame.len() <= before.len() + GROWTH);
                assert_eq!(bench.stats.borrow().kernel_packets, 1);
            }
        }
    });
}

/// The committed corpus holds every row: a new one is written by this test, and is then to be committed.
#[test]
fn the_fuzzer_starts_from_every_row() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/__fuzz__/any_frame_has_a_verdict/corpus");
    std::fs::create_dir_all(corpus).unwrap();
    let mut written = Vec::new();
    for (name, bytes) in seeds() {
        let path = format!("{corpus}/{name}");
        if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            std::fs::write(&path, &bytes).unwrap();
            written.push(name);
        }
    }
    assert!(written.is_empty(), "written to the corpus, to be committed: {written:?}");
}

proptest! {
    /// For every packet of a flow: the result is what a sender with the new addresses would have sent,
    /// all checksums computed anew.
    #[test]
    fn a_rewritten_packet_equals_one_built_with_the_new_addresses(
        payload in prop::collection::vec(any::<u8>(), 12..300),
        dscp in 0u8..64, ecn in 0u8..4, ttl in 2u8.., identification in any::<u16>(),
        families in prop::sample::select(&FAMILIES), came in any::<bool>(), leaves in any::<bool>(),
        zero_checksum in any::<bool>(),
    ) {
        let sent = families.sent().with(|s| {
            s.payload = payload;
            s.payload[0] = 0x80;
            s.ip.dscp = dscp.try_into().unwrap();
            s.ip.ecn = ecn.try_into().unwrap();
            s.ip.time_to_live = ttl;
            s.ip.identification = identification;
            if let Some(ip) = &mut s.ipv6 {
                ip.hop_limit = ttl;
                ip.traffic_class = dscp << 2 | ecn;
            }
            s.zero_checksum = zero_checksum && families == Families::V4ToV4;
            s.vlan = came.then(|| tag(7));
        });
        let tagged = leaves.then(|| tag(9));
        let control = tagged.as_ref().map_or([0; 2], |tag| [tag.to_bytes()[0], tag.to_bytes()[1]]);
        let hop = NextHop { tag: control, flags: u8::from(leaves) * NextHop::TAGGED, ..next_hop() };
        let mut bench = Bench::new(sent.frame(), families.flow(), hop);
        prop_assert!(relay(&mut bench).is_ok());
        prop_assert_eq!(bench.frame, sent.forwarded_as(families, tagged));
    }

    /// There and back: the flow of the other direction turns the packet into the one that was sent, but
    /// for the TTL, the DSCP and the hardware addresses.
    #[test]
    fn a_rewrite_and_its_inverse_are_identity(payload in prop::collection::vec(any::<u8>(), 12..64)) {
        let sent = sent().with(|s| {
            s.payload = payload;
            s.payload[0] = 0x80;
            s.ip.dscp = 46.try_into().unwrap();
        });
        let mut there = Bench::new(sent.frame(), flow(), next_hop());
        prop_assert!(relay(&mut there).is_ok());
        let back = Flow {
            source_address: OUTSIDE,
            source_port: OUTSIDE_PORT.to_be_bytes(),
            out_source_address: PHONE,
            out_source_port: PHONE_PORT.to_be_bytes(),
            out_destination_address: INSIDE,
            out_destination_port: INSIDE_PORT.to_be_bytes(),
            ..flow()
        }
        .with_deltas(SERVER, SERVER_PORT.to_be_bytes());
        let headers: Ipv4Udp = *there.read(14).unwrap();
        let mut rewritten = headers;
        rewritten.rewrite(&back);
        rewritten.ip.ttl += 2;
        let original: Ipv4Udp = *Bench::new(sent.frame(), flow(), next_hop()).read(14).unwrap();
        rewritten.ip.checksum = original.ip.checksum;
        prop_assert_eq!(rewritten, original);
    }

    #[test]
    fn any_bytes_are_refused_or_forwarded_and_refused_ones_are_unchanged(
        families in prop::sample::select(&FAMILIES),
        frame in prop::collection::vec(any::<u8>(), 0..120),
        cut in prop::option::of(0usize..214),
        flips in prop::collection::vec((0usize..54, any::<u8>()), 0..4),
    ) {
        // Half of them are ordinary packets with a few bytes changed or cut off.
        let frame = match cut {
            None => frame,
            Some(cut) => {
                let mut frame = families.sent().frame();
                for (at, value) in flips {
                    frame[at] = value;
                }
                frame.truncate(cut);
                frame
            }
        };
        let mut bench = Bench::new(frame.clone(), families.flow(), next_hop());
        let way = relay(&mut bench);
        if way.is_err() {
            prop_assert_eq!(bench.frame, frame);
        }
    }
}
