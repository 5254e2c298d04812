//! The trial from its beginning to its end.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use aya::programs::XdpMode;
use relay_ebpf::FlowKind;
use thiserror::Error;
use tokio::runtime::Runtime;

use super::{
    cores::{self, Cores},
    place::{self, INSIDE, OUTSIDE, PHONE, Place, SERVER},
    report::{CODECS, Calls, Limit, Point, Report},
    search::{Search, Tried},
    traffic::{FRAME, Load, Ran, Route, Traffic},
};
use crate::{
    datapath::{
        Engine, EngineError, FlowSpec, Settings,
        kernel::{attach::Lifetime, keeper::Port, programs::KernelLog},
    },
    net::{AttachChoice, DatapathChoice, Dscp, Latching, NetworkId, PacketLimits, Priority, netlink},
};

/// What a trial is of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Two interfaces with a cable between them; none: cables of its own.
    pub between: Option<[String; 2]>,
    /// For how long packets are sent in all, roughly.
    pub time: Duration,
}

/// Why there was no trial, or none that says anything.
#[derive(Debug, Error)]
pub enum TrialError {
    /// It was told to stop.
    #[error("interrupted; what was made is gone")]
    Interrupted,
    /// The system refused something.
    #[error("{what}: {error} (root is needed)")]
    System {
        /// What.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The kernel refused a program or a map.
    #[error("the kernel refused {what}: {error}")]
    Kernel {
        /// What.
        what: String,
        /// What it said.
        error: String,
    },
    /// The compiled programs are not those of this version.
    #[error("the compiled programs hold no {0} of the expected kind; build again")]
    Missing(&'static str),
    /// Netlink is not to be had, or refused.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// The datapath did not start.
    #[error("the datapath: {0}")]
    Engine(#[from] EngineError),
    /// An interface is not there.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// There are not enough cores.
    #[error("two cores are needed, one to send and one to forward, and this process may use one")]
    Cores,
    /// The kernel has no threads for what an interface receives.
    #[error("{0} has no thread of its own for what it receives: its driver cannot (threaded NAPI)")]
    NoThread(String),
    /// Packets and counters say different things.
    #[error("nothing was measured: {0}")]
    Accounts(String),
}

/// Streams that take turns. More make the caches of a processor matter, fewer are flattered by them.
const STREAMS: u16 = 1000;
const FIRST_PORT: u16 = 10_000;
/// Rates that are tried.
const TRIES: u32 = 9;
/// How often each of them is.
const TRIES_OF_A_RATE: u32 = 3;
/// Runs that share the time: those, and that at saturation.
const RUNS: u32 = TRIES + 1;
/// Packets that a network card gathers before it interrupts, at full load.
const TOGETHER: u32 = 32;
/// What a queue may take that is no sign of too much load: a time slice of the scheduler, and the look at it.
const QUEUE: Duration = Duration::from_millis(20);
/// No stream is to meet its ceiling, and each is to be compared with one.
const STREAM_LIMIT: u32 = 100_000_000;

/// Runs a trial on the calling thread, which is left in a network namespace of its own: it is of no other use afterwards.
/// `progress` is told what is done, and how many of how many runs.
///
/// # Errors
/// See [`TrialError`]. What was made is gone, and what was taken is back.
pub fn run(
    options: &Options,
    stop: &AtomicBool,
    mut progress: impl FnMut(&str),
) -> Result<Report, TrialError> {
    let system = |what| move |error: io::Error| TrialError::System { what, error };
    let cores = Cores::find().map_err(system("the cores of this machine"))?.ok_or(TrialError::Cores)?;
    progress("making the path");
    let host = place::leave_the_host()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(system("threads"))?;
    let mut place = Place::make(&runtime, host, options.between.as_ref())?;
    let result = measure(options, &runtime, &place, cores, stop, &mut progress);
    // The programs are off the interfaces by now.
    place.give_back();
    result
}

fn measure(
    options: &Options,
    runtime: &Runtime,
    place: &Place,
    cores: Cores,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, TrialError> {
    let mut path = Path::lay(options, runtime, place, cores)?;
    progress("the first packets of each stream");
    path.warm_up(stop)?;
    // About every second rate is lost.
    let time = options.time / (RUNS + TRIES / 2 * (TRIES_OF_A_RATE - 1));
    let mut packets = 0;
    let mut runs = 0;
    let mut tell = |what: &str| {
        runs += 1;
        progress(&format!("run {runs} of {RUNS}: {what}"));
    };
    tell("as fast as it goes");
    let saturated = path.attempt(None, time, stop)?;
    packets += saturated.sent;
    let mut search = Search::below(saturated.packets_per_second, TRIES);
    let mut held: Option<Point> = None;
    while let Some(rate) = search.next() {
        tell(&format!("{rate:.0} packets a second"));
        let mut tries = 0;
        let (point, tried) = loop {
            let (point, queued) = path.attempt_with_queue(Some(rate), time, stop)?;
            packets += point.sent;
            tries += 1;
            let tried = Tried { sent: point.sent, lost: point.lost, seconds: point.seconds, queued };
            // A moment's pause of the machine is not what a path carries: what was lost once is tried again.
            if tried.was_held() || tries == TRIES_OF_A_RATE {
                break (point, tried);
            }
        };
        let better = held.is_none_or(|held| held.packets_per_second < point.packets_per_second);
        if search.tell(rate, tried) && better {
            held = Some(point);
        }
    }
    let cable_megabits = place.cable_megabits();
    let rate = held.map_or(0.0, |held| held.packets_per_second);
    let cable = cable_megabits.map(|megabits| megabits * 1_000_000);
    Ok(Report {
        between: options.between.clone(),
        mode: path.mode.clone(),
        cores: cores.count,
        kernel: said("/proc/sys/kernel/osrelease"),
        processor: processor(&said("/proc/cpuinfo")),
        streams: STREAMS.into(),
        frame_bytes: FRAME as u32,
        queues: place.queues(),
        cable_megabits,
        saturated,
        held,
        limit: Limit::of(&saturated, held.as_ref()),
        calls: CODECS.iter().map(|codec| Calls::of(*codec, rate, cable)).collect(),
        runs: RUNS,
        packets,
    })
}

fn said(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

/// Datapath, generator and sink on the path.
struct Path {
    engine: Engine,
    traffic: Traffic,
    receivers: Vec<u32>,
    mode: String,
    // The relay's copies have somewhere to go.
    _rtcp: tokio::sync::mpsc::Receiver<crate::datapath::RtcpPacket>,
}

impl Path {
    fn lay(options: &Options, runtime: &Runtime, place: &Place, cores: Cores) -> Result<Self, TrialError> {
        let attach = if options.between.is_none() { AttachChoice::Native } else { AttachChoice::Auto };
        let (engine, rtcp) = runtime.block_on(Engine::start(&settings(place, attach), Vec::new()))?;
        let mode = engine.attachments().first().map(|attachment| attachment.mode.to_string());
        let mode = mode.ok_or_else(|| TrialError::Accounts("no program was attached".to_owned()))?;
        let now = Instant::now();
        let mut routes = Vec::new();
        for index in 0..STREAMS {
            let spec = flow(index);
            if let (SocketAddr::V4(to), Some(SocketAddr::V4(from))) = (spec.local, spec.signalled) {
                routes.push(Route { from, to });
            }
            engine.install(now, spec)?;
        }
        // Native or not at all on cables of its own; a card whose driver has no XDP is counted at in the stack.
        let ends = if mode == "generic" { XdpMode::Default } else { XdpMode::Driver };
        let traffic = Traffic::start(place, ends, &routes)?;
        place.thread_receivers()?;
        let receivers = put(place, cores)?;
        Ok(Self { engine, traffic, receivers, mode, _rtcp: rtcp })
    }

    /// Every stream's first packets: sources are learned, and the kernel takes over.
    fn warm_up(&mut self, stop: &AtomicBool) -> Result<(), TrialError> {
        /// Slow enough for each of them to be learned in userspace.
        const RATE: f64 = 20_000.0;
        const PACKETS: f64 = 4.0;
        const ATTEMPTS: u32 = 10;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let time = Duration::from_secs_f64(PACKETS * f64::from(STREAMS) / RATE);
            let load = Load { rate: Some(RATE), together: 1, time, expects: None };
            let ran = self.traffic.run(load, stop)?;
            let reports = self.engine.reports();
            let carried = reports.iter().filter(|flow| flow.carrier.label() == "kernel").count();
            if carried == reports.len() && ran.received.packets > 0 {
                return Ok(());
            }
            last = Some((carried, reports.into_iter().find(|flow| flow.carrier.label() != "kernel"), ran));
        }
        Err(TrialError::Accounts(format!("the kernel does not carry all {STREAMS} streams: {last:?}")))
    }

    fn attempt(&mut self, rate: Option<f64>, time: Duration, stop: &AtomicBool) -> Result<Point, TrialError> {
        self.attempt_with_queue(rate, time, stop).map(|(point, _)| point)
    }

    /// Sends, and accounts for the packets and for the time on the forwarding core. The second value is whether a queue
    /// was left. A run that does not add up is made again: stragglers of the one before may have been counted in it.
    fn attempt_with_queue(
        &mut self,
        rate: Option<f64>,
        time: Duration,
        stop: &AtomicBool,
    ) -> Result<(Point, bool), TrialError> {
        const ATTEMPTS: u32 = 3;
        let mut attempt = 1;
        loop {
            match self.once(rate, time, stop) {
                Err(TrialError::Accounts(_)) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn once(
        &mut self,
        rate: Option<f64>,
        time: Duration,
        stop: &AtomicBool,
    ) -> Result<(Point, bool), TrialError> {
        let system = |error| TrialError::System { what: "the scheduler's accounts", error };
        let before = self.counted();
        let cpu = cores::run_time(&self.receivers).map_err(system)?;
        let expects = Some(Dscp::EF.type_of_service());
        let ran = self.traffic.run(Load { rate, together: TOGETHER, time, expects }, stop)?;
        let cpu = cores::run_time(&self.receivers).map_err(system)?.saturating_sub(cpu);
        let after = self.counted();
        check(&ran, time, [after[0] - before[0], after[1] - before[1]])?;
        let seconds = (ran.time + ran.after).as_secs_f64();
        let arrived = ran.received.packets;
        let point = Point {
            sent: ran.sent,
            arrived,
            lost: ran.sent.saturating_sub(arrived),
            seconds,
            packets_per_second: arrived as f64 / seconds,
            cpu_ns_per_packet: cpu.as_nanos() as f64 / arrived as f64,
            busy: (cpu.as_secs_f64() / seconds).min(1.0),
        };
        Ok((point, ran.after > QUEUE))
    }

    /// Packets that the kernel and that userspace forwarded of all flows.
    fn counted(&self) -> [u64; 2] {
        let reports = self.engine.reports();
        [
            reports.iter().map(|flow| flow.stats.kernel_packets).sum(),
            reports.iter().map(|flow| flow.stats.relayed_packets).sum(),
        ]
    }
}

/// Whether what was sent in this time, forwarded by kernel and userspace, and received can be the same packets.
fn check(ran: &Ran, time: Duration, forwarded: [u64; 2]) -> Result<(), TrialError> {
    let (sent, received) = (ran.sent, ran.received);
    let [kernel, userspace] = forwarded;
    let says = |text: String| Err(TrialError::Accounts(text));
    match () {
        () if received.packets == 0 => says(format!("of {sent} packets none arrived")),
        // A generator that did not get its core has shown nothing.
        () if ran.time < time / 2 => says(format!("the generator sent for {:?} of {time:?}", ran.time)),
        () if received.packets > sent => says(format!("{} packets arrived of {sent}", received.packets)),
        () if received.wrong_service > 0 => {
            says(format!("{} packets had another DSCP", received.wrong_service))
        }
        () if received.wrong_content > 0 => {
            says(format!("{} packets had a wrong checksum", received.wrong_content))
        }
        () if userspace > 0 => says(format!("userspace forwarded {userspace} packets")),
        // What the sink's queue had no room for was forwarded, and did not arrive.
        () if kernel < received.packets || kernel > sent => {
            says(format!("the flows counted {kernel} packets, of {sent} arrived {}", received.packets))
        }
        () => Ok(()),
    }
}

/// Puts every thread where it belongs, and says which ones forward.
fn put(place: &Place, cores: Cores) -> Result<Vec<u32>, TrialError> {
    let system = |error| TrialError::System { what: "a core for each task", error };
    let names = &place.names;
    let threads = |name: &str| {
        let found = cores::receivers(name).map_err(system)?;
        if found.is_empty() { Err(TrialError::NoThread(name.to_owned())) } else { Ok(found) }
    };
    let forwarding = threads(&names.arrivals)?;
    for (thread, core) in threads(&names.sink)?
        .iter()
        .map(|it| (it, cores.sink))
        .chain(forwarding.iter().map(|it| (it, cores.forwarding)))
    {
        cores::pin(*thread, core).map_err(system)?;
        cores::put_before_all(*thread).map_err(system)?;
    }
    cores::pin(0, cores.generator).map_err(system)?;
    cores::put_first(0).map_err(system)?;
    Ok(forwarding)
}

fn settings(place: &Place, attach: AttachChoice) -> Settings {
    let port = |interface: &str, address: std::net::Ipv4Addr| Port {
        interface: interface.to_owned(),
        address: address.into(),
        attach,
        sip: Vec::new(),
    };
    Settings {
        wanted: DatapathChoice::Kernel,
        ports: vec![port(&place.names.arrivals, INSIDE), port(&place.names.departures, OUTSIDE)],
        priority: Priority::MEDIA,
        signalling_priority: Priority::SIGNALLING,
        limits: PacketLimits { source: 0, unknown: 0, stream: STREAM_LIMIT },
        flows: 2 * u32::from(STREAMS),
        force_userspace: Vec::new(),
        kernel_log: KernelLog::Off,
        lifetime: Lifetime::Process,
    }
}

/// One direction of a call of G.711.
fn flow(index: u16) -> FlowSpec {
    let port = FIRST_PORT + 2 * index;
    let at = |address| SocketAddr::V4(SocketAddrV4::new(address, port));
    FlowSpec {
        local: at(INSIDE),
        from: NetworkId(0),
        signalled: Some(at(PHONE)),
        latching: Latching::Signalled,
        out_source: at(OUTSIDE),
        destination: Some(at(SERVER)),
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

#[cfg(test)]
mod tests {
    use relay_ebpf::traffic::Received;

    use super::*;

    #[test]
    fn a_run_that_does_not_add_up_says_so() {
        let ran = |sent, packets| Ran {
            sent,
            time: Duration::from_secs(1),
            after: Duration::ZERO,
            received: Received { packets, ..Received::default() },
        };
        let wrong = |received: Received| Ran { received, ..ran(100, 90) };
        for (what, ran, forwarded, expected) in [
            ("all arrived", ran(100, 100), [100, 0], None),
            ("ten lost before the appliance", ran(100, 90), [90, 0], None),
            ("ten lost behind it", ran(100, 90), [100, 0], None),
            ("nothing arrived", ran(100, 0), [0, 0], Some("none arrived")),
            (
                "a pause of the generator's",
                Ran { time: Duration::from_millis(13), ..ran(100, 100) },
                [100, 0],
                Some("the generator sent for 13ms of 1s"),
            ),
            ("more than were sent", ran(100, 101), [100, 0], Some("101 packets arrived of 100")),
            ("userspace took part", ran(100, 100), [99, 1], Some("userspace forwarded 1")),
            ("fewer counted than arrived", ran(100, 90), [80, 0], Some("the flows counted 80")),
            ("more counted than sent", ran(100, 90), [101, 0], Some("the flows counted 101")),
            (
                "another DSCP",
                wrong(Received { packets: 90, wrong_service: 2, ..Received::default() }),
                [90, 0],
                Some("2 packets had another DSCP"),
            ),
            (
                "a wrong checksum",
                wrong(Received { packets: 90, wrong_content: 3, ..Received::default() }),
                [90, 0],
                Some("3 packets had a wrong checksum"),
            ),
        ] {
            match (check(&ran, Duration::from_secs(1), forwarded), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{what}: {error}"),
                (result, _) => panic!("{what}: {result:?}"),
            }
        }
    }
}
