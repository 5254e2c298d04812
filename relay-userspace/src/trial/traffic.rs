//! Generator and sink: the kernel programs of `relay-ebpf`, loaded, attached and told what to do.
//!
//! Frames are made and sent within the kernel by `BPF_PROG_TEST_RUN` on live frames, one system call for thousands of
//! them. A run is bounded in time and in packets, and asks between system calls whether it is to stop.

use std::{
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use relay_ebpf::traffic::{
    Arrival, Content, Heard, MAX_STREAMS, Order, Progress, RTP_HEADER, Received, SHORTEST, STAMP, Stream,
    UDP_PAYLOAD,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{PROGRAMS, place::Place, run::TrialError};

/// 20 ms of G.711 on the wire.
pub(super) const FRAME: usize = 214;
/// Frames that are handed over at once, as many as a driver hands over at a time.
const BATCH: u32 = 64;
/// A queue of veth holds 264 frames: who catches up with the rate does not fill it.
const BURST: u32 = 64;
/// Calls of the generator's program in one system call: a fraction of a second.
const REPEAT: u32 = 200_000;
/// Packets of one run at most.
const MOST: u32 = 200_000_000;
/// What is on its way when the generator stops has arrived when nothing has arrived for this long.
const SETTLED: Duration = Duration::from_millis(100);
/// And is given up after this.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(5);
/// The payload's bytes: silence in G.711 A-law.
const SILENCE: u8 = 0xD5;

/// One stream: from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
}

/// What goes out in a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Packets a second, all streams together; none: as fast as it goes.
    pub rate: Option<f64>,
    /// Packets that are sent together where there is a rate, as a network card hands over what it has gathered.
    pub together: u32,
    /// For how long.
    pub time: Duration,
    /// The type of service that the sink is to see; none: any.
    pub expects: Option<u8>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    /// Packets sent.
    pub sent: u64,
    /// For how long.
    pub time: Duration,
    /// How long packets went on arriving when the last had been sent: a queue was worked off.
    pub after: Duration,
    /// What the sink counted.
    pub received: Received,
}

/// Generator and sink.
pub(super) struct Traffic {
    programs: Ebpf,
    link: [u8; 12],
    interface: u32,
    streams: u32,
}

impl Traffic {
    /// Loads the programs, attaches the sink, and sets the streams that take turns.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn start(place: &Place, mode: XdpMode, routes: &[Route]) -> Result<Self, TrialError> {
        let mut programs = Ebpf::load(PROGRAMS).map_err(|error| refused("programs", &error))?;
        for name in ["bench_generate", "bench_sink", "bench_pass"] {
            xdp(&mut programs, name)?.load().map_err(|error| refused(name, &error))?;
        }
        let names = &place.names;
        let mut ends = vec![("bench_sink", &names.sink)];
        if names.generator != names.sink {
            // Without a program of its own the generator's interface has no queue for frames to come from.
            ends.push(("bench_pass", &names.generator));
        }
        for (name, interface) in ends {
            let attached = xdp(&mut programs, name)?.attach(interface, mode);
            attached.map_err(|error| refused(interface, &error))?;
        }
        let [to, from] = place.link;
        let link = std::array::from_fn(|at| if at < 6 { to[at] } else { from[at - 6] });
        let streams = routes.len().min(MAX_STREAMS as usize) as u32;
        for (index, route) in (0..streams).zip(routes) {
            let stream = Stream {
                source: route.from.ip().octets(),
                destination: route.to.ip().octets(),
                source_port: route.from.port().to_be_bytes(),
                destination_port: route.to.port().to_be_bytes(),
                sent: 0,
            };
            set(&mut programs, "STREAMS", index, &stream)?;
            set(&mut programs, "HEARD", index, &Heard::default())?;
        }
        Ok(Self { programs, link, interface: place.generator, streams })
    }

    /// Sends, waits for what is on its way, and says what became of it.
    ///
    /// # Errors
    /// The kernel refuses, or it is to stop.
    pub(super) fn run(&mut self, load: Load, stop: &AtomicBool) -> Result<Ran, TrialError> {
        const { assert!(FRAME >= SHORTEST) };
        let mut frame = vec![0; FRAME];
        frame[UDP_PAYLOAD + RTP_HEADER + STAMP..].fill(SILENCE);
        let order = Order {
            interval_ns: load.rate.map_or(0, |rate| ((1e9 / rate.max(1.0)) as u64).max(1)),
            time_ns: load.time.as_nanos() as u64,
            streams: self.streams,
            content: Content::Rtp as u32,
            stamped: 0,
            payload_sum: sum(&frame[UDP_PAYLOAD + RTP_HEADER + STAMP..]),
            frame: FRAME as u32,
            type_of_service: load.expects.map_or(u32::MAX, u32::from),
            burst: BURST,
            limit: MOST,
            link: self.link,
            together: load.together.max(1),
            arrival: Arrival::Same as u32,
            unused: 0,
        };
        let turn = get::<Progress>(&self.programs, "PROGRESS")?.turn;
        set(&mut self.programs, "ORDER", 0, &order)?;
        set(&mut self.programs, "PROGRESS", 0, &Progress { turn, ..Progress::default() })?;
        let before = self.received()?;
        let context = context(self.interface);
        let deadline = Instant::now() + load.time;
        while Instant::now() < deadline {
            if stop.load(Ordering::Relaxed) {
                return Err(TrialError::Interrupted);
            }
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                repeat: REPEAT,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            match xdp(&mut self.programs, "bench_generate")?.test_run(options) {
                Ok(_) => {}
                // A signal; what it is about is asked above.
                Err(ProgramError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(refused("the generator's run", &error)),
            }
        }
        let progress: Progress = get(&self.programs, "PROGRESS")?;
        let ended = Instant::now();
        let (mut last, mut changed) = (self.received()?, ended);
        while changed.elapsed() < SETTLED && ended.elapsed() < SETTLES_WITHIN {
            thread::sleep(LOOK);
            let now = self.received()?;
            if now.packets != last.packets {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok(Ran {
            sent: progress.sent,
            time: Duration::from_nanos(progress.last_ns.saturating_sub(progress.first_ns)),
            after: changed - ended,
            received: last.since(before),
        })
    }

    fn received(&self) -> Result<Received, TrialError> {
        const LENGTH: usize = size_of::<Received>() / 8;
        let map = self.programs.map("RECEIVED").ok_or(TrialError::Missing("RECEIVED"))?;
        let counts: PerCpuArray<_, [u64; LENGTH]> =
            PerCpuArray::try_from(map).map_err(|error| refused("RECEIVED", &error))?;
        let mut total = [0u64; LENGTH];
        for core in counts.get(&0, 0).map_err(|error| refused("RECEIVED", &error))?.iter() {
            total.iter_mut().zip(core).for_each(|(sum, count)| *sum += count);
        }
        Received::read_from_bytes(total.as_bytes()).map_err(|_| TrialError::Missing("RECEIVED"))
    }
}

/// `struct xdp_md` (linux/bpf.h): the frame's begin and end, no metadata, and the interface that it seems to come by.
fn context(interface: u32) -> Vec<u8> {
    let fields = [0, FRAME as u32, 0, interface, 0, 0];
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn refused(what: &str, error: &dyn std::fmt::Display) -> TrialError {
    TrialError::Kernel { what: what.to_owned(), error: error.to_string() }
}

fn xdp<'e>(programs: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, TrialError> {
    let program = programs.program_mut(name).ok_or(TrialError::Missing(name))?;
    program.try_into().map_err(|error: ProgramError| refused(name, &error))
}

fn set<T: IntoBytes + Immutable>(
    programs: &mut Ebpf,
    name: &'static str,
    index: u32,
    value: &T,
) -> Result<(), TrialError> {
    let map = programs.map_mut(name).ok_or(TrialError::Missing(name))?;
    let bytes = value.as_bytes();
    /// aya asks for a type of the value's size.
    macro_rules! set_as {
        ($length:literal) => {{
            let mut value = [0u8; $length];
            value.copy_from_slice(bytes);
            Array::<_, [u8; $length]>::try_from(map).and_then(|mut map| map.set(index, value, 0))
        }};
    }
    match bytes.len() {
        8 => set_as!(8),
        16 => set_as!(16),
        40 => set_as!(40),
        72 => set_as!(72),
        _ => return Err(TrialError::Missing(name)),
    }
    .map_err(|error| refused(name, &error))
}

fn get<T: FromBytes>(programs: &Ebpf, name: &'static str) -> Result<T, TrialError> {
    /// All that is read has this size.
    const SIZE: usize = size_of::<Progress>();
    let map = programs.map(name).ok_or(TrialError::Missing(name))?;
    let map = Array::<_, [u8; SIZE]>::try_from(map).map_err(|error| refused(name, &error))?;
    let bytes = map.get(&0, 0).map_err(|error| refused(name, &error))?;
    T::read_from_bytes(&bytes).map_err(|_| TrialError::Missing(name))
}
