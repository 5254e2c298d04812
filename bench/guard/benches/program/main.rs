//! Nanoseconds per packet of the kernel program by `BPF_PROG_TEST_RUN`, beside a program that only returns
//! `XDP_TX`, interleaved, with median and spread. Run by `cargo xtask bench program`; needs root.
//!
//! With the argument `guard` it tells, for `cargo xtask bench instructions`, the verifier's counts and the sizes of the
//! programs and the relay's time beside programs that do next to nothing, as JSON.
//!
//! The packet is a 20 ms G.711 packet of a flow that maps back onto itself, because a test run hands each
//! repeat the bytes that the last one left; between families two flows map onto each other, so that the row is
//! the mean of both directions. So that the stream also advances (sequence number and timestamp, without which
//! it would be a stream of duplicates and take the short way), a step in front of the relay makes each packet
//! the next one; the step alone is timed too. Every repeat is shown to have been forwarded by the flows' own
//! counters, or the bench refuses to report.

mod guard;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use branchline::datapath::kernel::{
    bed::TestBed,
    programs::{BENCH_TC, FLOOR},
};
use relay_ebpf::{
    Flow, FlowKind, FlowState, NextHop,
    headers::Ipv6Address,
    stats::clock_ticks,
    tables::{BENCH_FLOWS, Link},
};
use xtask::instructions::GUARD;

const ROUNDS: usize = 15;
const REPEAT: u32 = 1_000_000;
/// The guard's margins are wide: it need not be as exact.
const ROUNDS_OF_GUARD: usize = 7;
const REPEAT_OF_GUARD: u32 = 200_000;
const XDP_TX: u32 = 3;
/// What programs of TC say: go on, and redirected.
const TC_UNSPEC: u32 = u32::MAX;
const TC_REDIRECT: u32 = 7;
const STEP: &str = "branchline_bench_step";
/// That, and a reading of the clock.
const CLOCK: &str = "branchline_bench_clock";
const STEPPED: &str = "branchline_bench_relay";
const TURN: &str = "branchline_bench_turn";
const TURNED: &str = "branchline_bench_many";
const TC_FLOOR: &str = BENCH_TC[0];
const TC_STEPPED: &str = BENCH_TC[1];

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 1);
/// The addresses of the many flows, which differ in their last bit.
const CROWDED: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 61, 0, 2), Ipv4Addr::new(10, 61, 0, 3)];
const SOURCE_IPV6: Ipv6Addr = Ipv6Addr::new(0xFD61, 0, 0, 0, 0, 0, 0, 0x11);
const LOCAL_IPV6: Ipv6Addr = Ipv6Addr::new(0xFD61, 0, 0, 0, 0, 0, 0, 1);
const SOURCE_PORT: u16 = 4000;
/// The port of a flow whose packets come back to itself.
const PORT: u16 = 16_384;
/// The port of two flows, one of each family, whose packets come back to the other.
const CROSSED: u16 = 16_386;
/// The port of a flow whose packets leave as those of another leg in this host would.
const HAIRPIN: u16 = 16_388;
/// The port of a flow with a ceiling that is never reached.
const LIMITED: u16 = 16_390;
/// The places of the many flows' statistics, behind those of the single ones.
const MANY: Range<u32> = 8..8 + BENCH_FLOWS;
/// Slots that are not in use.
const SPARE: u32 = 1024;
/// A tag with priority 5.
const TAG: [u8; 2] = [0xA0, 100];

/// What is timed.
struct Row {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    /// The flows that share the packets; none for programs that forward nothing.
    stats: Range<u32>,
    tagged: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut bed = bed()?;
    let rows = rows();
    if std::env::args().any(|argument| argument == GUARD) {
        let times = interleaved(&mut bed, &rows, ROUNDS_OF_GUARD, REPEAT_OF_GUARD)?;
        let told = guard::rows(&rows.map(|row| row.name), &times)?;
        println!("{}", serde_json::to_string(&told)?);
        return Ok(());
    }
    let times = interleaved(&mut bed, &rows, ROUNDS, REPEAT)?;
    eprintln!();
    println!(
        "{:<52} {:>8} {:>8} {:>8} {:>8}",
        "ns per packet over interleaved rounds", "median", "min", "max", "x floor"
    );
    for (row, list) in rows.iter().zip(&times) {
        let (median, min, max) = spread(list);
        println!("{:<52} {median:>8.1} {min:>8.1} {max:>8.1} {:>8.1}", row.name, ratio(list, &times[0]));
    }
    println!("rounds {ROUNDS}, repeats {REPEAT}; every repeat was forwarded: the flows' own counters say so");
    Ok(())
}

/// The programs with all flows.
fn bed() -> Result<TestBed, Box<dyn std::error::Error>> {
    let addresses = vec![LOCAL.into(), CROWDED[0].into(), CROWDED[1].into(), LOCAL_IPV6.into()];
    let mut bed = TestBed::new(addresses, MANY.end + SPARE)?;
    let flows = [
        (SocketAddr::from((LOCAL, PORT)), IpAddr::V4(LOCAL)),
        (SocketAddr::from((LOCAL_IPV6, PORT)), IpAddr::V6(LOCAL_IPV6)),
        (SocketAddr::from((LOCAL, CROSSED)), IpAddr::V6(LOCAL_IPV6)),
        (SocketAddr::from((LOCAL_IPV6, CROSSED)), IpAddr::V4(LOCAL)),
    ];
    for (stats, (local, to)) in (0u32..).zip(flows) {
        bed.set_flow(local, flow(local, to, stats))?;
    }
    let hairpin = Flow { flags: Flow::KEEP_DSCP, ..flow((LOCAL, HAIRPIN).into(), LOCAL.into(), 4) };
    bed.set_flow((LOCAL, HAIRPIN).into(), hairpin)?;
    let limited = Flow { packet_interval_ns: 1, ..flow((LOCAL, LIMITED).into(), LOCAL.into(), 5) };
    bed.set_flow((LOCAL, LIMITED).into(), limited)?;
    crowd(&mut bed)?;
    Ok(bed)
}

/// What is timed: the floor first.
fn rows() -> [Row; 14] {
    let row = |name, program, frame: fn(u16) -> Vec<u8>, port, stats| Row {
        name,
        program,
        frame: frame(port),
        stats,
        tagged: false,
    };
    let tagged = |name, frame: Vec<u8>, stats| {
        let frame = [&frame[..12], &[0x81, 0, TAG[0], TAG[1]], &frame[12..]].concat();
        Row { name, program: STEPPED, frame, stats, tagged: true }
    };
    [
        row("floor: a program that returns XDP_TX", FLOOR, ipv4, PORT, 0..0),
        row("step to the stream's next packet, and XDP_TX", STEP, ipv4, PORT, 0..0),
        row(guard::CLOCK, CLOCK, ipv4, PORT, 0..0),
        row("step and relay, IPv4", STEPPED, ipv4, PORT, 0..1),
        row("step and relay, IPv6", STEPPED, ipv6, PORT, 1..2),
        row("step and relay, IPv4 to IPv6 and back", STEPPED, ipv4, CROSSED, 2..4),
        tagged("step and relay, IPv4 with a tag", ipv4(PORT), 0..1),
        tagged("step and relay, IPv4 to IPv6 and back with a tag", ipv4(CROSSED), 2..4),
        row("step and relay, IPv4 by a hairpin", STEPPED, ipv4, HAIRPIN, 4..5),
        row("step and relay, IPv4 with a ceiling", STEPPED, ipv4, LIMITED, 5..6),
        row("floor of TC: a program that passes", TC_FLOOR, ipv4, PORT, 0..0),
        row("step and relay, IPv4 at TC", TC_STEPPED, ipv4, PORT, 0..1),
        row("step and turn to another flow, and XDP_TX", TURN, crowded, PORT, 0..0),
        row("step, turn and relay, IPv4 of 131,072 flows", TURNED, crowded, PORT, MANY),
    ]
}

/// Times of all rows, in turns: one list for each row.
fn interleaved(bed: &mut TestBed, rows: &[Row], rounds: usize, repeat: u32) -> Result<Vec<Vec<f64>>, String> {
    let mut times = vec![Vec::new(); rows.len()];
    for round in 0..=rounds {
        eprint!("\rround {round} of {rounds} ");
        for (row, list) in rows.iter().zip(&mut times) {
            let time = timed(bed, row, repeat)?;
            // The first round warms up.
            if round > 0 {
                list.push(time);
            }
        }
    }
    Ok(times)
}

fn next_hop(tagged: bool) -> NextHop {
    NextHop {
        destination: Link::new([2, 0, 0, 0, 0, 1], 1),
        source: Link::new([2, 0, 0, 0, 0, 2], 1500),
        interface: 1,
        tag: TAG,
        flags: u8::from(tagged) * NextHop::TAGGED,
        ..NextHop::default()
    }
}

/// Puts a flow behind every port of two addresses.
fn crowd(bed: &mut TestBed) -> Result<(), String> {
    let locals = CROWDED.into_iter().flat_map(|address| (0..=u16::MAX).map(move |port| (address, port)));
    for (stats, (address, port)) in MANY.zip(locals) {
        let flow = flow((address, port).into(), address.into(), stats);
        bed.set_flow((address, port).into(), flow).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Times a row; its flows must have forwarded every repeat.
fn timed(bed: &mut TestBed, row: &Row, repeat: u32) -> Result<f64, String> {
    bed.set_next_hop(0, next_hop(row.tagged));
    row.stats.clone().for_each(|stats| bed.clear_stats(stats));
    let run = bed.run(row.program, &row.frame, repeat).map_err(|error| error.to_string())?;
    let expected = match row.program {
        TC_FLOOR => TC_UNSPEC,
        TC_STEPPED => TC_REDIRECT,
        _ => XDP_TX,
    };
    if run.action != expected {
        return Err(format!("{}: {} returned {}: nothing was measured", row.name, row.program, run.action));
    }
    let forwarded: u64 = row.stats.clone().map(|stats| bed.stats(stats).kernel_packets).sum();
    if !row.stats.is_empty() && forwarded != u64::from(repeat) {
        return Err(format!("{}: {forwarded} of {repeat} packets took the forwarding path", row.name));
    }
    Ok(nanoseconds(run.duration))
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn spread(list: &[f64]) -> (f64, f64, f64) {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// How many times another row's time this row takes: the median of the rounds' ratios.
fn ratio(list: &[f64], other: &[f64]) -> f64 {
    let ratios: Vec<f64> = list.iter().zip(other).map(|(time, other)| time / other).collect();
    spread(&ratios).0
}

/// A flow at an address, whose packets leave to an address of the appliance and seem to come from the phone.
fn flow(local: SocketAddr, to: IpAddr, stats: u32) -> Flow {
    let flow = Flow {
        generation: 1,
        state: FlowState::Forwarding as u8,
        kind: FlowKind::Rtp as u8,
        type_of_service: 46 << 2,
        flags: if to.is_ipv6() { Flow::LEAVES_AS_IPV6 } else { 0 },
        source_address: SOURCE.octets(),
        source_port: SOURCE_PORT.to_be_bytes(),
        out_source_address: SOURCE.octets(),
        out_source_port: SOURCE_PORT.to_be_bytes(),
        out_destination_address: match to {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => LOCAL.octets(),
        },
        out_destination_port: local.port().to_be_bytes(),
        source_ipv6: Ipv6Address::new(SOURCE_IPV6.octets()),
        out_source_ipv6: Ipv6Address::new(SOURCE_IPV6.octets()),
        out_destination_ipv6: Ipv6Address::new(LOCAL_IPV6.octets()),
        clock_ticks: clock_ticks(8000),
        stats,
        ..Flow::default()
    };
    match local.ip() {
        IpAddr::V4(address) => flow.with_deltas(address.octets(), local.port().to_be_bytes()),
        IpAddr::V6(address) => {
            flow.with_deltas_ipv6(Ipv6Address::new(address.octets()), local.port().to_be_bytes())
        }
    }
}

fn rtp() -> Vec<u8> {
    let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    rtp.resize(172, 0xD5);
    rtp
}

/// 20 ms of G.711 with a TTL that the step can still raise by one.
fn ipv4(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(SOURCE.octets(), LOCAL.octets(), 254)
        .udp(SOURCE_PORT, port)
        .write(&mut frame, &rtp())
        .map(|()| frame)
        .unwrap_or_default()
}

/// The same to an address of the many flows.
fn crowded(port: u16) -> Vec<u8> {
    /// Where the last octet of the destination stands.
    const LAST_OCTET: usize = 33;
    let mut frame = ipv4(port);
    frame[LAST_OCTET] = CROWDED[0].octets()[3];
    frame
}

/// The same over IPv6.
fn ipv6(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv6(SOURCE_IPV6.octets(), LOCAL_IPV6.octets(), 254)
        .udp(SOURCE_PORT, port)
        .write(&mut frame, &rtp())
        .map(|()| frame)
        .unwrap_or_default()
}
