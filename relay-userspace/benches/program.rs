//! Nanoseconds per packet of the kernel program by `BPF_PROG_TEST_RUN`, beside a program that only returns
//! `XDP_TX`, interleaved, with median and spread. Run by `cargo xtask bench program`; needs root.
//!
//! The packet is a 20 ms G.711 packet of a flow that maps back onto itself, because a test run hands each
//! repeat the bytes that the last one left. So that the stream also advances (sequence number and
//! timestamp, without which it would be a stream of duplicates and take the short way), a step in front of
//! the relay makes each packet the next one; the step alone is timed too. Every repeat is shown to have
//! been forwarded by the flow's own counter, or the bench refuses to report.

use std::{net::SocketAddrV4, time::Duration};

use branchline::datapath::kernel::{
    bed::TestBed,
    programs::{FLOOR, RELAY},
};
use relay_ebpf::{Flow, FlowKind, FlowState, NextHop, stats::clock_ticks, tables::Link};

const ROUNDS: usize = 15;
const REPEAT: u32 = 1_000_000;
/// The relay alone takes one from the TTL each time, so it cannot be repeated for longer.
const REPEAT_ALONE: u32 = 250;
const RUNS_ALONE: u32 = 400;
const XDP_TX: u32 = 3;
const STEP: &str = "branchline_bench_step";
const STEPPED: &str = "branchline_bench_relay";

const SOURCE: [u8; 4] = [10, 61, 0, 11];
const LOCAL: [u8; 4] = [10, 61, 0, 1];
const PORT: u16 = 16_384;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut bed = TestBed::new(vec![LOCAL.into()], 1024)?;
    bed.set_next_hop(
        0,
        NextHop {
            destination: Link::new([2, 0, 0, 0, 0, 1], 1),
            source: Link::new([2, 0, 0, 0, 0, 2], 1500),
            interface: 1,
            ..NextHop::default()
        },
    );
    bed.set_flow(SocketAddrV4::new(LOCAL.into(), PORT), mirror())?;
    let frame = frame();

    let (mut floor, mut step, mut stepped, mut alone) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        eprint!("\rround {round} of {ROUNDS} ");
        let times = [
            timed(&mut bed, FLOOR, &frame, REPEAT)?,
            timed(&mut bed, STEP, &frame, REPEAT)?,
            counted(&mut bed, STEPPED, &frame, REPEAT, 1)?,
            counted(&mut bed, RELAY, &frame, REPEAT_ALONE, RUNS_ALONE)?,
        ];
        // The first round warms up.
        if round > 0 {
            for (list, time) in [&mut floor, &mut step, &mut stepped, &mut alone].into_iter().zip(times) {
                list.push(time);
            }
        }
    }
    eprintln!();
    let ratios: Vec<f64> = stepped.iter().zip(&floor).map(|(relay, floor)| relay / floor).collect();
    println!("{:<52} {:>8} {:>8} {:>8}", "ns per packet over interleaved rounds", "median", "min", "max");
    for (name, list) in [
        ("floor: a program that returns XDP_TX", &floor),
        ("step to the stream's next packet, and XDP_TX", &step),
        ("step and relay with statistics, in order", &stepped),
        ("relay with statistics, duplicates (no step)", &alone),
        ("step and relay, times the floor of the same round", &ratios),
    ] {
        let (median, min, max) = spread(list);
        println!("{name:<52} {median:>8.1} {min:>8.1} {max:>8.1}");
    }
    println!("rounds {ROUNDS}, repeats {REPEAT}; every repeat was forwarded: the flow's own counter says so");
    Ok(())
}

fn timed(bed: &mut TestBed, program: &'static str, frame: &[u8], repeat: u32) -> Result<f64, String> {
    let run = bed.run(program, frame, repeat).map_err(|error| error.to_string())?;
    if run.action != XDP_TX {
        return Err(format!("{program} returned {}, not XDP_TX: nothing was measured", run.action));
    }
    Ok(nanoseconds(run.duration))
}

/// The same, and the flow must have forwarded every repeat.
fn counted(
    bed: &mut TestBed,
    program: &'static str,
    frame: &[u8],
    repeat: u32,
    runs: u32,
) -> Result<f64, String> {
    bed.clear_stats(0);
    let mut times = Vec::new();
    for _ in 0..runs {
        times.push(timed(bed, program, frame, repeat)?);
    }
    let forwarded = bed.stats(0).kernel_packets;
    let expected = u64::from(repeat) * u64::from(runs);
    if forwarded != expected {
        return Err(format!("{program}: {forwarded} of {expected} packets took the forwarding path"));
    }
    Ok(spread(&times).0)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn spread(list: &[f64]) -> (f64, f64, f64) {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// A flow whose packets leave as they came.
fn mirror() -> Flow {
    Flow {
        generation: 1,
        state: FlowState::Forwarding as u8,
        kind: FlowKind::Rtp as u8,
        type_of_service: 46 << 2,
        source_address: SOURCE,
        source_port: 4000u16.to_be_bytes(),
        out_source_address: SOURCE,
        out_source_port: 4000u16.to_be_bytes(),
        out_destination_address: LOCAL,
        out_destination_port: PORT.to_be_bytes(),
        clock_ticks: clock_ticks(8000),
        ..Flow::default()
    }
    .with_deltas(LOCAL, PORT.to_be_bytes())
}

/// 20 ms of G.711 with a TTL that the step can still raise by one.
fn frame() -> Vec<u8> {
    let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4];
    rtp.resize(172, 0xD5);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(SOURCE, LOCAL, 254)
        .udp(4000, PORT)
        .write(&mut frame, &rtp)
        .map(|()| frame)
        .unwrap_or_default()
}
