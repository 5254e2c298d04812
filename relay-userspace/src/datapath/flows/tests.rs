//! Learning, forwarding and refusing, over tables on the heap.

use std::time::Duration;

use relay_ebpf::{
    LocalAddresses, NextHop, PortEntry,
    rtp::RtpHeader,
    tables::{MAX_NEXT_HOPS, PORTS},
};
use zerocopy::FromBytes as _;

use super::{
    super::{
        flow::{Carrier, RefusedSource, StandingFlow},
        kernel::{
            former::Former,
            next_hops::{LinkLayer, Resolution},
        },
    },
    *,
};
use crate::{datapath::Refuser, net::Dscp};

mod checks;
mod lockstep;

const INSIDE: &str = "10.61.0.1:16384";
const OUTSIDE: &str = "10.62.0.1:16400";
const PHONE: &str = "10.61.0.11:4000";
const SERVER: &str = "10.62.0.10:6000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flows_with(force: &[&str]) -> Flows {
    let local = SharedArray::<LocalAddresses>::on_heap(1);
    let tables = KernelTables::new(
        &[[10, 61, 0, 1].into(), [10, 62, 0, 1].into()],
        &local,
        SharedArray::<PortEntry>::on_heap(2 * PORTS),
        SharedArray::<Flow>::on_heap(64),
        SharedArray::<NextHop>::on_heap(MAX_NEXT_HOPS),
    );
    let force = force.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Flows::new(SharedArray::on_heap(64), Some(tables), force)
}

fn spec(
    local: &str,
    signalled: Option<&str>,
    out: &str,
    destination: Option<&str>,
    latching: Latching,
) -> FlowSpec {
    FlowSpec {
        local: at(local),
        from: NetworkId(0),
        signalled: signalled.map(at),
        latching,
        out_source: at(out),
        destination: destination.map(at),
        kind: FlowKind::Rtp,
        dscp: Some(Dscp::EF),
        clock_rate: 8000,
        turns: 0,
        rtcp: None,
        srtp: None,
        ice: None,
        forks: Vec::new(),
    }
}

/// Both directions of a call, as after its answer.
fn call(flows: &mut Flows, now: Instant, latching: Latching) {
    flows.install(now, spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), latching)).unwrap();
    flows.install(now, spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), latching)).unwrap();
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.resize(172, 0);
    packet
}

fn packet(
    flows: &mut Flows,
    now: Instant,
    local: &str,
    source: &str,
    payload: &[u8],
) -> Result<Departure, Reason> {
    let arrival = Arrival {
        local: at(local),
        source: at(source),
        type_of_service: 1,
        payload,
        monotonic_ns: 5,
        unix_ms: 77,
    };
    flows.packet(now, &arrival)
}

/// State, source address and port, destination address and port.
type Kernel = (u8, [u8; 4], [u8; 2], [u8; 4], [u8; 2]);

fn state(flows: &Flows, local: &str) -> Option<Kernel> {
    let flow = flows.kernel.as_ref().unwrap().flow_behind(at(local))?;
    Some((
        flow.state,
        flow.source_address,
        flow.source_port,
        flow.out_destination_address,
        flow.out_destination_port,
    ))
}

#[test]
fn the_first_packet_is_relayed_and_fixes_the_source_for_the_kernel() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Signalled);
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Learning as u8);
    let departure = packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    assert_eq!((departure.source, departure.destination), (at(OUTSIDE), at(SERVER)));
    // DSCP 46, and the ECN bit that the packet came with.
    assert_eq!(departure.type_of_service, 46 << 2 | 1);
    let expected = (
        FlowState::Forwarding as u8,
        [10, 61, 0, 11],
        4000u16.to_be_bytes(),
        [10, 62, 0, 10],
        6000u16.to_be_bytes(),
    );
    assert_eq!(state(&flows, INSIDE), Some(expected));
    assert_eq!(
        state(&flows, OUTSIDE).unwrap().0,
        FlowState::Learning as u8,
        "each direction learns by itself"
    );
    let report = flows.report(at(INSIDE)).unwrap();
    assert_eq!(report.learned, Some((at(PHONE), 77)));
    assert!(matches!(report.carrier, Carrier::AwaitingNextHop { .. }), "{:?}", report.carrier);
    assert_eq!(report.stats.expected(), 1);
    flows.paths.sent(&departure);
    let stats = flows.report(at(INSIDE)).unwrap().stats;
    assert_eq!((stats.relayed_packets, stats.relayed_bytes), (1, 200));
}

#[test]
fn packets_that_the_kernel_passes_up_after_all_are_counted_and_not_taken_for_lost() {
    let (mut flows, mut now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Signalled);
    for sequence in 0..10 {
        // Long after the kernel took over: its next hop has gone, or the packet exceeds the MTU.
        packet(&mut flows, now, INSIDE, PHONE, &rtp(sequence)).unwrap();
        now += Duration::from_secs(1);
    }
    let stats = flows.report(at(INSIDE)).unwrap().stats;
    assert_eq!((stats.expected(), stats.lost()), (10, 0));
}

#[test]
fn policies_allow_the_sources_that_they_name() {
    let other_port = "10.61.0.11:4002";
    let stranger = "10.61.0.66:4000";
    let rows = [
        ("signalled, exactly", Latching::Signalled, Some(PHONE), PHONE, true),
        ("signalled, another port", Latching::Signalled, Some(PHONE), other_port, false),
        ("signalled, nothing signalled yet", Latching::Signalled, None, PHONE, false),
        ("same address, another port", Latching::SameAddress, Some(PHONE), other_port, true),
        ("same address, a stranger", Latching::SameAddress, Some(PHONE), stranger, false),
        ("same address, nothing signalled yet", Latching::SameAddress, None, PHONE, false),
        ("any, a stranger", Latching::Any, Some(PHONE), stranger, true),
        ("any, nothing signalled yet", Latching::Any, None, stranger, true),
    ];
    for (description, latching, signalled, source, allowed) in rows {
        let (mut flows, now) = (flows_with(&[]), Instant::now());
        flows.install(now, spec(INSIDE, signalled, OUTSIDE, Some(SERVER), latching)).unwrap();
        let result = packet(&mut flows, now, INSIDE, source, &rtp(1));
        assert_eq!(result.is_ok(), allowed, "{description}: {result:?}");
        let report = flows.report(at(INSIDE)).unwrap();
        assert_eq!(report.learned.is_some(), allowed, "{description}");
        assert_eq!(report.refused_packets, u64::from(!allowed), "{description}");
        if !allowed {
            assert_eq!(result.unwrap_err(), Reason::SourceRefused, "{description}");
            assert_eq!(report.refused[0].source, at(source), "{description}");
        }
    }
}

#[test]
fn once_learned_only_new_signalling_opens_learning_again() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Any);
    packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    assert_eq!(packet(&mut flows, now, INSIDE, "10.61.0.66:9", &rtp(2)), Err(Reason::WrongSource));
    assert_eq!(flows.report(at(INSIDE)).unwrap().stats.wrong_source, 1);
    // The same signalling again, as a session timer's re-INVITE brings it: nothing changes.
    call(&mut flows, now, Latching::Any);
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8);
    // Another address: it learns again, and its statistics go on.
    flows.install(now, spec(INSIDE, Some("10.61.0.12:5000"), OUTSIDE, Some(SERVER), Latching::Any)).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Learning as u8);
    packet(&mut flows, now, INSIDE, "10.61.0.12:5000", &rtp(2)).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().1, [10, 61, 0, 12]);
    assert_eq!(flows.report(at(INSIDE)).unwrap().stats.expected(), 2);
}

#[test]
fn who_holds_by_a_zero_address_may_play_music_and_is_learned_anew_when_it_comes_back() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::SameAddress);
    packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    let forwarding = state(&flows, INSIDE);
    flows.install(now, spec(INSIDE, None, OUTSIDE, Some(SERVER), Latching::SameAddress)).unwrap();
    flows.install(now, spec(OUTSIDE, Some(SERVER), INSIDE, None, Latching::SameAddress)).unwrap();
    assert_eq!(state(&flows, INSIDE), forwarding);
    assert_eq!(packet(&mut flows, now, INSIDE, "10.61.0.11:4002", &rtp(2)), Err(Reason::WrongSource));
    call(&mut flows, now, Latching::SameAddress);
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Learning as u8);
    packet(&mut flows, now, INSIDE, "10.61.0.11:4002", &rtp(2)).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().2, 4002u16.to_be_bytes());
}

#[test]
fn after_a_turn_the_sender_may_come_from_elsewhere_and_is_reached_where_it_was_until_then() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::SameAddress);
    packet(&mut flows, now, INSIDE, "10.61.0.11:4002", &rtp(1)).unwrap();
    let turned =
        FlowSpec { turns: 1, ..spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), Latching::SameAddress) };
    flows.install(now, turned.clone()).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Learning as u8);
    assert_eq!(flows.report(at(OUTSIDE)).unwrap().destination, Some(at("10.61.0.11:4002")));
    packet(&mut flows, now, INSIDE, "10.61.0.11:4444", &rtp(2)).unwrap();
    assert_eq!(flows.report(at(OUTSIDE)).unwrap().destination, Some(at("10.61.0.11:4444")));
    // The same again, as a session refresh brings it: nothing opens.
    flows.install(now, turned).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8);
}

#[test]
fn packets_go_to_where_the_other_party_sends_from_unless_policy_says_otherwise() {
    for (latching, expected) in
        [(Latching::SameAddress, "10.61.0.11:4002"), (Latching::Any, "10.61.0.11:4002")]
    {
        let (mut flows, now) = (flows_with(&[]), Instant::now());
        call(&mut flows, now, latching);
        packet(&mut flows, now, OUTSIDE, SERVER, &rtp(1)).unwrap();
        assert_eq!(flows.report(at(OUTSIDE)).unwrap().destination, Some(at(PHONE)));
        packet(&mut flows, now, INSIDE, "10.61.0.11:4002", &rtp(1)).unwrap();
        assert_eq!(flows.report(at(OUTSIDE)).unwrap().destination, Some(at(expected)));
        assert_eq!(state(&flows, OUTSIDE).unwrap().4, 4002u16.to_be_bytes(), "the kernel is told too");
    }
}

#[test]
fn a_direction_without_a_destination_learns_and_is_blocked() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    flows.install(now, spec(INSIDE, Some(PHONE), OUTSIDE, None, Latching::Signalled)).unwrap();
    assert_eq!(packet(&mut flows, now, INSIDE, PHONE, &rtp(1)), Err(Reason::Blocked));
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Blocked as u8);
    assert_eq!(flows.report(at(INSIDE)).unwrap().carrier, Carrier::Blocked);
    // The other party comes back from hold: forwarding, without learning anew.
    flows.install(now, spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), Latching::Signalled)).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8);
}

#[test]
fn forced_addresses_and_a_missing_kernel_are_carried_in_userspace_and_say_why() {
    let now = Instant::now();
    let mut forced = flows_with(&["10.61.0.11/32"]);
    let mut without = Flows::new(SharedArray::on_heap(8), None, vec![]);
    for (flows, reason) in
        [(&mut forced, UserspaceReason::Forced), (&mut without, UserspaceReason::NoKernelDatapath)]
    {
        call(flows, now, Latching::Signalled);
        for (local, source) in [(INSIDE, PHONE), (OUTSIDE, SERVER)] {
            for sequence in 0..3 {
                assert!(packet(flows, now, local, source, &rtp(sequence)).is_ok());
            }
            assert_eq!(flows.report(at(local)).unwrap().carrier, Carrier::Userspace { reason });
            assert_eq!(flows.report(at(local)).unwrap().stats.expected(), 3);
        }
    }
    assert_eq!(state(&forced, INSIDE).unwrap().0, FlowState::Userspace as u8);
}

#[test]
fn only_media_fixes_a_source_and_other_payloads_are_refused_by_name() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Any);
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    assert!(packet(&mut flows, now, INSIDE, "10.61.0.99:1", &stun).is_ok());
    assert_eq!(flows.report(at(INSIDE)).unwrap().learned, None);
    for (payload, reason) in
        [(&[][..], Reason::TooShort), (&[0x80, 0][..], Reason::TooShort), (&[0x40; 40][..], Reason::NotRtp)]
    {
        assert_eq!(packet(&mut flows, now, INSIDE, PHONE, payload), Err(reason));
    }
    assert_eq!(packet(&mut flows, now, "10.61.0.1:9", PHONE, &rtp(1)), Err(Reason::NoFlow));
    // Nothing is refused where nothing is recognised, not even nothing.
    let opaque = spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), Latching::Any);
    flows.install(now, FlowSpec { kind: FlowKind::Opaque, ..opaque }).unwrap();
    assert!(packet(&mut flows, now, INSIDE, PHONE, &[]).is_ok());
}

#[test]
fn removed_flows_leave_nothing_in_the_tables_and_their_counts_in_the_totals() {
    let (mut flows, mut now) = (flows_with(&[]), Instant::now());
    for round in 1..=1000u64 {
        call(&mut flows, now, Latching::Signalled);
        let departure = packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
        flows.paths.sent(&departure);
        for local in [INSIDE, OUTSIDE] {
            assert!(flows.remove(now, at(local)).is_some());
            assert!(flows.remove(now, at(local)).is_none());
            assert_eq!(state(&flows, local), None);
        }
        assert_eq!(flows.totals()[&NetworkId(0)].relayed_packets, round);
        now += Duration::from_millis(200);
    }
    assert_eq!((flows.len(), flows.owners.is_empty()), (0, true));
}

#[test]
fn a_full_table_refuses_the_flow_and_an_unknown_address_is_named() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    for port in 0..64 {
        let local = format!("10.61.0.1:{}", 20_000 + port);
        flows.install(now, spec(&local, None, OUTSIDE, None, Latching::Any)).unwrap();
    }
    let error = flows.install(now, spec(INSIDE, None, OUTSIDE, None, Latching::Any)).unwrap_err();
    assert_eq!(error, InstallError::Full { capacity: 64 });
    // All slots hold flows; a flow that learns is published all the same.
    assert!(packet(&mut flows, now, "10.61.0.1:20000", PHONE, &rtp(1)).is_err_and(|r| r == Reason::Blocked));
    assert_eq!(state(&flows, "10.61.0.1:20000").unwrap().0, FlowState::Blocked as u8);
    let error = flows.install(now, spec("10.9.9.9:1", None, OUTSIDE, None, Latching::Any)).unwrap_err();
    assert_eq!(error, InstallError::NotLocal { address: at("10.9.9.9:1") });
}

/// The second leg of a call that a server leads back: where it arrives, where it leaves, and the other phone.
const BACK: &str = "10.62.0.1:16500";
const BACK_INSIDE: &str = "10.61.0.1:16500";
const OTHER_PHONE: &str = "10.61.0.12:5000";

/// A call between two phones that a server leads back to where it came from.
fn led_back(flows: &mut Flows, now: Instant) {
    let signalled = Latching::Signalled;
    flows.install(now, spec(INSIDE, Some(PHONE), OUTSIDE, Some(BACK), signalled)).unwrap();
    flows.install(now, spec(OUTSIDE, Some(BACK), INSIDE, Some(PHONE), signalled)).unwrap();
    flows.install(now, spec(BACK, Some(OUTSIDE), BACK_INSIDE, Some(OTHER_PHONE), signalled)).unwrap();
    flows.install(now, spec(BACK_INSIDE, Some(OTHER_PHONE), BACK, Some(OUTSIDE), signalled)).unwrap();
}

/// A phone's packet on its way through both legs in userspace, as the host's own stack leads it.
fn through_both(flows: &mut Flows, now: Instant, local: &str, phone: &str, sequence: u16) {
    let departure = packet(flows, now, local, phone, &rtp(sequence)).unwrap();
    flows.paths.sent(&departure);
    let (source, next) = (departure.source.to_string(), departure.destination.to_string());
    let departure = packet(flows, now, &next, &source, &rtp(sequence)).unwrap();
    flows.paths.sent(&departure);
}

/// Counts a packet as the kernel program does.
fn forwarded(flows: &Flows, local: &str, sequence: u16) {
    let flow = flows.kernel.as_ref().unwrap().flow_behind(at(local)).unwrap();
    flows.stats.change(flow.stats, |stats| {
        stats.kernel_packets += 1;
        let header = rtp(sequence);
        let (header, _) = RtpHeader::ref_from_prefix(&header).unwrap();
        stats.record_rtp(header, 5, clock_ticks(8000));
    });
}

/// Netlink has told the way to every phone.
fn know_the_way(flows: &mut Flows) {
    let (next_hops, tables) = flows.next_hops().unwrap();
    for to in next_hops.destinations() {
        let resolution = Resolution {
            index: 3,
            turns_back: true,
            device: 0,
            mtu: 1500,
            link: LinkLayer::Ethernet { source: [1; 6], neighbour: [2; 6], vlan: None },
            by_tc: None,
        };
        next_hops.resolved(tables, to, Ok(resolution));
    }
}

fn carrier(flows: &Flows, local: &str) -> Carrier {
    flows.report(at(local)).unwrap().carrier
}

#[test]
fn the_legs_of_a_call_that_a_server_leads_back_are_joined_once_their_sources_are_known() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    led_back(&mut flows, now);
    packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    let reason = UserspaceReason::OwnAddress;
    assert_eq!(
        carrier(&flows, INSIDE),
        Carrier::Userspace { reason },
        "the second leg has heard nothing yet"
    );
    packet(&mut flows, now, BACK, OUTSIDE, &rtp(1)).unwrap();
    let expected = (
        FlowState::Forwarding as u8,
        [10, 61, 0, 11],
        4000u16.to_be_bytes(),
        [10, 61, 0, 12],
        5000u16.to_be_bytes(),
    );
    assert_eq!(state(&flows, INSIDE), Some(expected), "from one phone straight to the other");
    let flow = flows.kernel.as_ref().unwrap().flow_behind(at(INSIDE)).unwrap();
    assert_eq!((flow.out_source_address, flow.out_source_port), ([10, 61, 0, 1], 16500u16.to_be_bytes()));

    through_both(&mut flows, now, BACK_INSIDE, OTHER_PHONE, 1);
    know_the_way(&mut flows);
    assert_eq!(carrier(&flows, INSIDE), Carrier::Kernel);
    assert_eq!(carrier(&flows, BACK), Carrier::Joined { with: at(INSIDE) });
    assert_eq!(carrier(&flows, BACK_INSIDE), Carrier::Kernel);
    assert_eq!(carrier(&flows, OUTSIDE), Carrier::Joined { with: at(BACK_INSIDE) });
}

#[test]
fn joined_legs_count_the_same_packets_and_go_on_with_them_when_they_part() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    led_back(&mut flows, now);
    through_both(&mut flows, now, INSIDE, PHONE, 1);
    for sequence in [2, 3, 5] {
        forwarded(&flows, INSIDE, sequence);
    }
    let counts = |flows: &Flows, local: &str| {
        let stats = flows.report(at(local)).unwrap().stats;
        (stats.kernel_packets, stats.relayed_packets, stats.expected(), stats.lost())
    };
    assert_eq!(counts(&flows, INSIDE), (3, 1, 5, 1));
    assert_eq!(counts(&flows, BACK), (3, 1, 5, 1));
    assert_eq!(flows.counted_at(0).map(|(local, _)| local).collect::<Vec<_>>(), [at(INSIDE), at(BACK)]);
    // A packet that the kernel passed up after all is counted once on each.
    through_both(&mut flows, now, INSIDE, PHONE, 6);
    assert_eq!(counts(&flows, INSIDE), (3, 2, 6, 1));
    assert_eq!(counts(&flows, BACK), (3, 2, 6, 1));
    assert_eq!(flows.totals()[&NetworkId(0)].kernel_packets, 6);

    // The server has the second leg play something else: the first leg's packets go its own way.
    let server = spec(BACK, Some(SERVER), BACK_INSIDE, Some(OTHER_PHONE), Latching::Signalled);
    flows.install(now, server).unwrap();
    assert_eq!(counts(&flows, BACK), (3, 2, 6, 1));
    let reason = UserspaceReason::OwnAddress;
    assert_eq!(flows.report(at(INSIDE)).unwrap().carrier, Carrier::Userspace { reason });
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Userspace as u8);
    packet(&mut flows, now, BACK, SERVER, &rtp(7)).unwrap();
    assert_eq!(counts(&flows, BACK), (3, 2, 7, 1));
    assert_eq!(counts(&flows, INSIDE), (3, 2, 6, 1));
    assert_eq!(flows.totals()[&NetworkId(0)].kernel_packets, 6);
}

#[test]
fn legs_are_not_joined_past_one_that_would_not_let_their_packets_through() {
    type Change = fn(&mut Flows, Instant);
    let rows: [(&str, Change); 5] = [
        ("the second leg is on hold", |flows, now| {
            let hold = spec(BACK, Some(OUTSIDE), BACK_INSIDE, None, Latching::Signalled);
            flows.install(now, hold).unwrap();
        }),
        ("the second leg is captured", |flows, now| {
            let (tap, tapped) = Tap::new(2);
            flows.attach_tap(now, at(BACK), &tap);
            std::mem::forget(tapped);
        }),
        ("the second leg is gone", |flows, now| {
            flows.remove(now, at(BACK)).unwrap();
        }),
        ("the second leg carries something else", |flows, now| {
            let fax = spec(BACK, Some(OUTSIDE), BACK_INSIDE, Some(OTHER_PHONE), Latching::Signalled);
            flows.install(now, FlowSpec { kind: FlowKind::Opaque, ..fax }).unwrap();
        }),
        ("the second leg leads to the first again", |flows, now| {
            let circle = spec(BACK, Some(OUTSIDE), OUTSIDE, Some(INSIDE), Latching::Signalled);
            flows.install(now, circle).unwrap();
        }),
    ];
    for (description, change) in rows {
        let (mut flows, now) = (flows_with(&[]), Instant::now());
        led_back(&mut flows, now);
        through_both(&mut flows, now, INSIDE, PHONE, 1);
        assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8, "{description}");
        change(&mut flows, now);
        let reason = UserspaceReason::OwnAddress;
        let carrier = flows.report(at(INSIDE)).unwrap().carrier;
        assert_eq!(carrier, Carrier::Userspace { reason }, "{description}");
        assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Userspace as u8, "{description}");
        assert!(flows.entries.get(&at(INSIDE)).unwrap().through().is_empty(), "{description}");
        assert!(flows.entries.values().all(|entry| entry.joined().is_none()), "{description}");
    }
}

#[test]
fn a_first_leg_that_ends_leaves_the_second_with_its_counts() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    led_back(&mut flows, now);
    through_both(&mut flows, now, INSIDE, PHONE, 1);
    forwarded(&flows, INSIDE, 2);
    assert_eq!(flows.remove(now, at(INSIDE)).unwrap().stats.expected(), 2);
    let report = flows.report(at(BACK)).unwrap();
    let reason = UserspaceReason::OwnAddress;
    assert_eq!((report.carrier, report.stats.expected()), (Carrier::Userspace { reason }, 2));
    assert_eq!(flows.remove(now, at(BACK)).unwrap().stats.kernel_packets, 1);
    assert_eq!(flows.totals()[&NetworkId(0)].kernel_packets, 2);
}

#[test]
fn a_captured_flow_is_carried_in_userspace_and_goes_back_to_the_kernel_when_its_tap_is_closed() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Signalled);
    packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    let (tap, mut tapped) = Tap::new(2);
    flows.attach_tap(now, at(INSIDE), &tap);
    let reason = UserspaceReason::Captured;
    assert_eq!(flows.report(at(INSIDE)).unwrap().carrier, Carrier::Userspace { reason });
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Userspace as u8);
    assert!(flows.taps(at(INSIDE)).is_some() && flows.taps(at(OUTSIDE)).is_none());
    flows.release_taps(now);
    assert!(flows.taps(at(INSIDE)).is_some(), "the capture goes on");

    tapped.close();
    flows.release_taps(now);
    assert!(flows.taps(at(INSIDE)).is_none());
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8);
    flows.attach_tap(now, at(INSIDE), &tap);
    assert!(flows.taps(at(INSIDE)).is_none(), "a closed tap is not taken");
    let (tap, _tapped) = Tap::new(2);
    flows.attach_tap(now, at(INSIDE), &tap);
    flows.remove(now, at(INSIDE));
    assert!(flows.taps(at(INSIDE)).is_none(), "it goes with its flow");
}

#[test]
fn multiplexed_rtcp_leaves_by_its_own_way_and_comes_back_to_the_port_of_rtp() {
    const OUTSIDE_RTCP: &str = "10.62.0.1:16401";
    const SERVER_RTCP: &str = "10.62.0.10:6009";
    let report = [vec![0x80, 201, 0, 1], vec![0; 4]].concat();
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    let policy = Latching::SameAddress;
    let way =
        RtcpWay { out_source: at(OUTSIDE_RTCP), destination: Some(at(SERVER_RTCP)), dscp: Some(Dscp::CS3) };
    let inside = spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), policy);
    flows.install(now, FlowSpec { rtcp: Some(way.into()), ..inside }).unwrap();
    flows.install(now, spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), policy)).unwrap();
    let rtcp = spec(OUTSIDE_RTCP, Some(SERVER_RTCP), INSIDE, Some(PHONE), policy);
    flows.install(now, FlowSpec { kind: FlowKind::Rtcp, dscp: Some(Dscp::CS3), ..rtcp }).unwrap();

    let out = packet(&mut flows, now, INSIDE, PHONE, &report).unwrap();
    assert_eq!((out.source, out.destination), (at(OUTSIDE_RTCP), at(SERVER_RTCP)));
    assert_eq!(out.type_of_service, 24 << 2 | 1);
    let out = packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    assert_eq!((out.source, out.destination, out.type_of_service), (at(OUTSIDE), at(SERVER), 46 << 2 | 1));
    let back = packet(&mut flows, now, OUTSIDE_RTCP, SERVER_RTCP, &report).unwrap();
    assert_eq!((back.source, back.destination), (at(INSIDE), at(PHONE)));
    let stats = flows.report(at(INSIDE)).unwrap().stats;
    assert_eq!((stats.rtcp_packets, stats.expected()), (1, 1), "counted apart");

    // The kernel's records say the same, and follow the server's RTCP when it comes from another port.
    let apart = |flows: &Flows| {
        let flow = flows.kernel.as_ref().unwrap().rtcp_behind(at(INSIDE)).unwrap();
        (flow.state, flow.out_source_port, flow.out_destination_port, flow.type_of_service, flow.source_port)
    };
    let expected = |port: u16| {
        let ports = [16_401, port, 4000].map(u16::to_be_bytes);
        (FlowState::Forwarding as u8, ports[0], ports[1], 24 << 2, ports[2])
    };
    assert_eq!(apart(&flows), expected(6009));
    let moved = spec(OUTSIDE_RTCP, Some("10.62.0.10:6019"), INSIDE, Some(PHONE), policy);
    flows.install(now, FlowSpec { kind: FlowKind::Rtcp, ..moved }).unwrap();
    packet(&mut flows, now, OUTSIDE_RTCP, "10.62.0.10:6021", &report).unwrap();
    assert_eq!(apart(&flows), expected(6021));
    let copies: Vec<_> = flows.counted_at(flows.entries.get(&at(INSIDE)).unwrap().sender.stats).collect();
    assert_eq!(copies, [(at(INSIDE), at(OUTSIDE_RTCP))], "the other party's reports come there");

    // Nobody wants RTCP any more: RTP goes on.
    let inside = spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), policy);
    flows
        .install(now, FlowSpec { rtcp: Some(RtcpWay { destination: None, ..way }.into()), ..inside })
        .unwrap();
    assert_eq!(packet(&mut flows, now, INSIDE, PHONE, &report), Err(Reason::Blocked));
    let flow = flows.kernel.as_ref().unwrap().rtcp_behind(at(INSIDE)).unwrap();
    assert_eq!(flow.state, FlowState::Blocked as u8);
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Forwarding as u8);
}

#[test]
fn no_more_flows_are_installed_than_the_kernel_has_records_for_multiplexed_ones_too() {
    let (mut flows, mut now) = (flows_with(&[]), Instant::now());
    let one = |port: u16, mux: bool| {
        let local = format!("10.61.0.1:{port}");
        let way = RtcpWay { out_source: at(OUTSIDE), destination: Some(at(SERVER)), dscp: None };
        FlowSpec {
            rtcp: mux.then_some(way.into()),
            ..spec(&local, Some(PHONE), OUTSIDE, Some(SERVER), Latching::Any)
        }
    };
    // 64 records: 32 flows that multiplex.
    for port in 0..32 {
        flows.install(now, one(20_000 + port, true)).unwrap();
        packet(&mut flows, now, &format!("10.61.0.1:{}", 20_000 + port), PHONE, &rtp(1)).unwrap();
    }
    assert_eq!(flows.install(now, one(30_000, false)), Err(InstallError::Full { capacity: 64 }));
    // Each can still be changed, though no record is free.
    for port in 0..32 {
        let local = format!("10.61.0.1:{}", 20_000 + port);
        flows.install(now, FlowSpec { turns: 1, ..one(20_000 + port, true) }).unwrap();
        packet(&mut flows, now, &local, PHONE, &rtp(2)).unwrap();
        assert!(flows.kernel.as_ref().unwrap().rtcp_behind(at(&local)).is_some(), "{local}");
    }
    // One that no longer multiplexes makes room for another.
    flows.install(now, one(20_000, false)).unwrap();
    flows.install(now, one(30_000, false)).unwrap();
    for port in 0..32 {
        flows.remove(now, at(&format!("10.61.0.1:{}", 20_000 + port))).unwrap();
    }
    flows.remove(now, at("10.61.0.1:30000")).unwrap();
    assert_eq!((flows.len(), flows.apart), (0, 0));
    now += Duration::from_secs(2);
    for port in 0..32 {
        flows.install(now, one(20_000 + port, true)).unwrap();
    }
}

/// The shared port of a call that two parties answer early, each heard by the caller from a port of its own.
fn forked(flows: &mut Flows, now: Instant, latching: Latching) {
    let own = spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), latching);
    let fork = Fork { signalled: Some(at(OTHER_SERVER)), out_source: at(OTHER_INSIDE), ..own.party() };
    flows.install(now, spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), latching)).unwrap();
    flows.install(now, spec(OTHER_INSIDE, Some(PHONE), OUTSIDE, Some(OTHER_SERVER), latching)).unwrap();
    flows.install(now, FlowSpec { forks: vec![fork], ..own }).unwrap();
}

const OTHER_INSIDE: &str = "10.61.0.1:16386";
const OTHER_SERVER: &str = "10.62.0.22:6000";

#[test]
fn the_branches_of_a_forked_call_are_told_apart_by_their_source_and_the_winner_goes_to_the_kernel() {
    for latching in [Latching::Signalled, Latching::SameAddress, Latching::Any] {
        for winner in [SERVER, OTHER_SERVER] {
            let (mut flows, now) = (flows_with(&[]), Instant::now());
            forked(&mut flows, now, latching);
            for sequence in 0..3 {
                for (source, inside) in [(OTHER_SERVER, OTHER_INSIDE), (SERVER, INSIDE)] {
                    let departure = packet(&mut flows, now, OUTSIDE, source, &rtp(sequence)).unwrap();
                    assert_eq!(
                        (departure.source, departure.destination),
                        (at(inside), at(PHONE)),
                        "{latching:?}"
                    );
                }
            }
            let stranger = packet(&mut flows, now, OUTSIDE, "10.62.0.99:1", &rtp(9));
            assert_eq!(stranger, Err(Reason::WrongSource));
            // The caller speaks to both, each in its own branch.
            for (inside, to) in [(INSIDE, SERVER), (OTHER_INSIDE, OTHER_SERVER)] {
                assert_eq!(packet(&mut flows, now, inside, PHONE, &rtp(1)).unwrap().destination, at(to));
            }
            let report = flows.report(at(OUTSIDE)).unwrap();
            assert_eq!(report.carrier, Carrier::Userspace { reason: UserspaceReason::Forked });
            assert_eq!(report.forks[0].learned, Some((at(OTHER_SERVER), 77)));
            assert_eq!((report.stats.expected(), report.forks[0].stats.expected()), (3, 3), "counted apart");
            assert_eq!(report.stats.restarts, 0);

            let own = spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), latching);
            let won = match winner {
                SERVER => own,
                _ => spec(OUTSIDE, Some(OTHER_SERVER), OTHER_INSIDE, Some(PHONE), latching),
            };
            flows.install(now, won).unwrap();
            let report = flows.report(at(OUTSIDE)).unwrap();
            assert_eq!(report.learned, Some((at(winner), 77)), "what was learned while it rang holds");
            assert_eq!((report.forks.len(), report.stats.expected()), (0, 3));
            assert_eq!(state(&flows, OUTSIDE).unwrap().0, FlowState::Forwarding as u8);
            let totals = flows.totals();
            assert_eq!(totals[&NetworkId(0)].expected, 3 + 3 + 1 + 1, "the loser's packets stay in the sums");
            for local in [INSIDE, OTHER_INSIDE, OUTSIDE] {
                flows.remove(now, at(local)).unwrap();
            }
            assert!(flows.owners.is_empty() && flows.towards.is_empty());
        }
    }
}

#[test]
fn branches_that_announce_the_same_address_are_heard_as_the_one_that_answered_last() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Signalled);
    packet(&mut flows, now, OUTSIDE, SERVER, &rtp(1)).unwrap();
    let first = spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), Latching::Signalled);
    let forks = vec![first.party()];
    flows.install(now, FlowSpec { out_source: at(OTHER_INSIDE), forks, ..first }).unwrap();
    assert_eq!(packet(&mut flows, now, OUTSIDE, SERVER, &rtp(2)).unwrap().source, at(OTHER_INSIDE));
    assert_eq!(packet(&mut flows, now, OUTSIDE, SERVER, &rtp(3)).unwrap().source, at(OTHER_INSIDE));
}

#[test]
fn the_first_sources_that_are_refused_are_named_with_count_and_times_and_the_rest_counted() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    call(&mut flows, now, Latching::Signalled);
    for _ in 0..2 {
        assert_eq!(packet(&mut flows, now, INSIDE, "10.61.0.99:1", &rtp(1)), Err(Reason::SourceRefused));
    }
    packet(&mut flows, now, INSIDE, PHONE, &rtp(1)).unwrap();
    for port in 1..=20 {
        let source = format!("10.61.0.99:{port}");
        assert_eq!(packet(&mut flows, now, INSIDE, &source, &rtp(1)), Err(Reason::WrongSource));
    }
    let report = flows.remove(now, at(INSIDE)).unwrap();
    let expected = |port: u16, packets| RefusedSource {
        source: at(&format!("10.61.0.99:{port}")),
        packets,
        first_unix_ms: 77,
        last_unix_ms: 77,
        by: Refuser::Userspace,
    };
    let all: Vec<RefusedSource> = (1..=8).map(|port| expected(port, if port == 1 { 3 } else { 1 })).collect();
    assert_eq!(report.refused, all);
    assert_eq!((report.refused_packets, report.stats.wrong_source, report.refused_further()), (2, 20, 12));
}

#[test]
fn flows_of_an_earlier_process_go_on_with_what_they_had_learned() {
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    let (there, back) = (
        spec(INSIDE, Some(PHONE), OUTSIDE, Some(SERVER), Latching::SameAddress),
        spec(OUTSIDE, Some(SERVER), INSIDE, Some(PHONE), Latching::SameAddress),
    );
    // The phone was heard from another port than it had said; the server was not heard yet.
    const HEARD: &str = "10.61.0.11:4002";
    let nowhere = spec("192.0.2.1:5000", None, INSIDE, None, Latching::Any);
    let standing = vec![
        StandingFlow { spec: there, learned: Some((at(HEARD), 77)) },
        StandingFlow { spec: back, learned: None },
        StandingFlow { spec: nowhere, learned: None },
    ];
    let refused = flows.take_up(now, standing, &Former::default(), Statistics::Fresh);
    let address = at("192.0.2.1:5000");
    assert_eq!(refused, [(address, InstallError::NotLocal { address })]);
    assert_eq!(
        state(&flows, INSIDE),
        Some((
            FlowState::Forwarding as u8,
            [10, 61, 0, 11],
            4002u16.to_be_bytes(),
            [10, 62, 0, 10],
            6000u16.to_be_bytes()
        ))
    );
    assert_eq!(flows.learned(at(INSIDE)), Some((at(HEARD), 77)));
    assert_eq!(state(&flows, OUTSIDE).unwrap().0, FlowState::Learning as u8);
    assert_eq!(flows.path(at(INSIDE)), flows.paths.path(at(INSIDE)));
    // The server's first packet goes where the phone was heard.
    let departure = packet(&mut flows, now, OUTSIDE, SERVER, &rtp(1)).unwrap();
    assert_eq!(departure.destination, at(HEARD));
    assert_eq!(flows.take_learned(), [at(OUTSIDE)]);
    // Signalling goes on as for any other flow.
    let moved = spec(INSIDE, Some("10.61.0.11:5000"), OUTSIDE, Some(SERVER), Latching::SameAddress);
    flows.install(now, moved).unwrap();
    assert_eq!(state(&flows, INSIDE).unwrap().0, FlowState::Learning as u8);
    assert!(flows.remove(now, at(INSIDE)).is_some() && flows.remove(now, at(OUTSIDE)).is_some());
    assert_eq!((flows.len(), flows.towards.is_empty()), (0, true));
}
