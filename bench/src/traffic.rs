//! Generator and sink: the kernel programs of `relay-ebpf`, loaded, attached and told what to do.
//!
//! Frames are made and sent within the kernel by `BPF_PROG_TEST_RUN` on live frames, one system call for thousands of
//! them. A generator's runs are bounded in time and in packets, and its packets leave by a veth whose other end is the
//! branch.

mod generator;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::{Array, DevMap, MapData, PerCpuArray};
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya_obj::programs::XdpAttachType;
use branchline::trial::PROGRAMS;
pub(crate) use generator::Generator;
use relay_ebpf::traffic::{
    Arrival, BUCKETS, Content, Heard, MAX_STREAMS, Order, Progress, RTP_HEADER, Received, SHORTEST, STAMP,
    Stream, UDP_PAYLOAD,
};
use xtask::lab::{Lab, Namespace, interrupt};
use zerocopy::{FromBytes, IntoBytes};

use crate::cores::{self, Core};
use crate::testbed::Names;

/// Nobody needs a longer run.
const LONGEST: Duration = Duration::from_secs(120);
/// Frames that are handed over at once. As many as a driver hands over at a time; fewer where delays are measured.
const BATCH: u32 = 64;
const BATCH_STAMPED: u32 = 8;
/// A queue of veth holds 264 frames: who catches up with the rate does not fill it.
const BURST: u32 = 64;
const BURST_OF_FLOOD: u32 = 128;
/// What is on its way when the generator stops has arrived when nothing has arrived for this long.
const SETTLED: Duration = Duration::from_millis(150);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// And is given up after this.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// The payload's bytes: silence in G.711 A-law.
const SILENCE: u8 = 0xD5;

/// Hardware addresses of the generator's frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// The branch's.
    pub destination: [u8; 6],
    /// The generator's own.
    pub source: [u8; 6],
}

/// One stream: from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The phone's address and port.
    pub from: SocketAddrV4,
    /// The branch's.
    pub to: SocketAddrV4,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// Packets a second, all streams together.
    PerSecond(f64),
    /// As fast as it goes.
    Unlimited,
}

/// Who else has the generator's core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nobody, as far as the scheduler can see to that.
    First,
    /// Phones and servers of the laboratory: it takes its turn with them, and may get less than the rate.
    Fair,
}

/// Whether delays are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delays {
    /// They are: each packet has a time stamp.
    Measured,
    /// They are not.
    Ignored,
}

/// Bytes of a frame with 20 ms of G.711 over IPv4 and Ethernet, without the check sequence.
pub(crate) const G711: usize = 214;

/// What goes out in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Bytes of a frame, without the check sequence.
    pub frame: usize,
    /// How fast.
    pub rate: Rate,
    /// Packets that are sent together, where there is a rate: a network card gathers before it interrupts.
    pub together: u32,
    /// For how long.
    pub time: Duration,
    /// The type of service that the sink is to see; none: any.
    pub expects: Option<u8>,
    /// Whether delays are measured.
    pub delays: Delays,
    /// How packets are to arrive.
    pub arrival: Arrival,
}

impl Load {
    /// Frames of [`G711`], one at a time, that may arrive with any type of service and as they were sent; delays are not
    /// measured.
    pub(crate) const fn new(rate: Rate, time: Duration) -> Self {
        Self {
            frame: G711,
            rate,
            together: 1,
            time,
            expects: None,
            delays: Delays::Ignored,
            arrival: Arrival::Same,
        }
    }
}

/// What a run of the generator came to.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    /// Packets sent.
    pub sent: u64,
    /// For how long.
    pub time: Duration,
    /// How long packets went on arriving when the last had been sent: a queue was worked off.
    pub after: Duration,
    /// What the sink counted.
    pub received: Received,
    /// Delays by bucket; empty if they were not measured.
    pub delays: Vec<u64>,
}

impl Ran {
    /// By how much a packet took longer or shorter than the one before it in its stream, on average, in nanoseconds: what
    /// the jitter of RFC 3550 section 6.4.1 settles at. None if delays were not measured.
    #[must_use]
    pub(crate) fn jitter_ns(&self) -> Option<f64> {
        let Received { variation_ns, variations, .. } = self.received;
        (variations > 0).then(|| variation_ns as f64 / variations as f64)
    }

    /// Packets that were sent and did not arrive.
    #[must_use]
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received.packets)
    }
}

/// RTP that is being sent.
pub(crate) struct Flight<'t> {
    traffic: &'t Traffic,
    generator: Generator,
    before: Received,
    delays: Delays,
}

impl Flight<'_> {
    /// Waits for its time to be over and for what is on its way, and says what became of it.
    ///
    /// # Errors
    /// The kernel refused, or the run was interrupted.
    pub(crate) fn land(self) -> Result<Ran> {
        let Self { traffic, generator, before, delays } = self;
        traffic.account(generator.finish()?, before, delays)
    }

    /// The same at once, before its time is over.
    ///
    /// # Errors
    /// The kernel refused, or the run was interrupted.
    pub(crate) fn cut_short(self) -> Result<Ran> {
        let Self { traffic, generator, before, delays } = self;
        ensure!(!generator.has_ended(), "the media ended before what was to be measured");
        traffic.account(generator.end()?, before, delays)
    }
}

/// Generator and sink.
pub(crate) struct Traffic {
    programs: Arc<Mutex<Ebpf>>,
    link: Link,
    interface: u32,
}

impl Traffic {
    /// Loads the programs and attaches the sink.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn start(lab: &Lab, names: &Names, link: Link) -> Result<Self> {
        generator::hear_signals();
        let mut programs = Ebpf::load(PROGRAMS).context("the kernel refused the bench's programs")?;
        for name in ["bench_generate", "bench_sink", "bench_redirect", "bench_readdress", "bench_pass"] {
            xdp(&mut programs, name)?.load().with_context(|| format!("the kernel refused {name}"))?;
        }
        let programs = Arc::new(Mutex::new(programs));
        let traffic = Self { programs, link, interface: number(&lab.office, &names.generator)? };
        // Without a program of its own the generator's interface has no queue for frames to come from.
        traffic.attach(&lab.office, "bench_pass", &names.generator)?;
        traffic.attach(&lab.centre, "bench_sink", &names.sink)?;
        Ok(traffic)
    }

    fn programs(&self) -> MutexGuard<'_, Ebpf> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(
        &self,
        namespace: &Namespace,
        program: &'static str,
        interface: &str,
    ) -> Result<aya::programs::xdp::XdpLinkId> {
        let (programs, name) = (Arc::clone(&self.programs), interface.to_owned());
        namespace
            .enter(move || -> Result<_> {
                let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(xdp(&mut programs, program)?.attach(&name, XdpMode::Driver)?)
            })?
            .with_context(|| format!("{program} cannot be attached to {interface}"))
    }

    /// Puts a floor between arrivals and departures, until the value is dropped.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn redirect(&self, branch: &Namespace, names: &Names, floor: Floor) -> Result<Redirect> {
        let out = number(branch, &names.departures)?;
        // A device's number is that of the caller's namespace.
        let shared = Arc::clone(&self.programs);
        branch.enter(move || -> Result<()> {
            let mut programs = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let map = programs.map_mut("OTHER_SIDE").context("no map OTHER_SIDE")?;
            DevMap::try_from(map)?.set(0, out, None, 0).map_err(|error| anyhow::anyhow!("{error}"))
        })??;
        let link = self.attach(branch, floor.program(), &names.arrivals)?;
        Ok(Redirect { programs: Arc::clone(&self.programs), floor, link: Some(link) })
    }

    /// Sets the streams that take turns.
    ///
    /// # Errors
    /// There are too many, or none.
    pub(crate) fn set_streams(&self, routes: &[Route]) -> Result<()> {
        ensure!(!routes.is_empty() && routes.len() <= MAX_STREAMS as usize, "{} streams", routes.len());
        let mut programs = self.programs();
        for (index, route) in (0u32..).zip(routes) {
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
        set(&mut programs, "PROGRESS", 0, &Progress::default())
    }

    /// Sends RTP in streams, waits for what is on its way, and says what became of it.
    ///
    /// # Errors
    /// The kernel refuses, or the run was interrupted.
    pub(crate) fn run(&self, office: &Namespace, streams: usize, load: Load) -> Result<Ran> {
        self.begin(office, streams, load, Turn::First)?.land()
    }

    /// Begins to send RTP in streams.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn begin(
        &self,
        office: &Namespace,
        streams: usize,
        load: Load,
        turn: Turn,
    ) -> Result<Flight<'_>> {
        let fill = [SILENCE; 2];
        ensure!(load.frame >= SHORTEST, "frames of {} bytes are too short", load.frame);
        let mut payload = vec![0; load.frame - UDP_PAYLOAD];
        for (index, byte) in payload.iter_mut().enumerate().skip(RTP_HEADER + STAMP) {
            *byte = fill[index % 2];
        }
        let before = self.received()?;
        self.clear_delays(streams, load.delays)?;
        let generator = self.start_generator(office, streams, &payload, Content::Rtp, load, turn)?;
        Ok(Flight { traffic: self, generator, before, delays: load.delays })
    }

    /// Starts to send datagrams with this payload from the streams' sources in turn; nobody counts them at the sink.
    ///
    /// # Errors
    /// The time is too long for a bench.
    pub(crate) fn flood(
        &self,
        office: &Namespace,
        streams: usize,
        payload: &[u8],
        rate: Rate,
        time: Duration,
    ) -> Result<Generator> {
        let frame = payload.len() + UDP_PAYLOAD;
        let load = Load { frame, ..Load::new(rate, time) };
        self.start_generator(office, streams, payload, Content::Datagram, load, Turn::Fair)
    }

    /// Waits for what is on its way, and counts.
    fn account(&self, (sent, time): (u64, Duration), before: Received, delays: Delays) -> Result<Ran> {
        let ended = Instant::now();
        let (mut last, mut changed) = (self.received()?, ended);
        while changed.elapsed() < SETTLED && ended.elapsed() < SETTLES_WITHIN {
            interrupt::sleep(LOOK)?;
            let now = self.received()?;
            if now.packets != last.packets {
                (last, changed) = (now, Instant::now());
            }
        }
        let now = self.received()?;
        let after = changed - ended;
        let received = now.since(before);
        Ok(Ran { sent, time, after, received, delays: self.delays(delays)? })
    }

    fn start_generator(
        &self,
        office: &Namespace,
        streams: usize,
        payload: &[u8],
        content: Content,
        load: Load,
        turn: Turn,
    ) -> Result<Generator> {
        ensure!(load.time <= LONGEST, "{} s of traffic are too long", load.time.as_secs());
        let interval = match load.rate {
            Rate::Unlimited => 0,
            Rate::PerSecond(rate) => ((1e9 / rate) as u64).max(1),
        };
        let summed = if content == Content::Rtp { &payload[RTP_HEADER + STAMP..] } else { payload };
        let order = Order {
            interval_ns: interval,
            streams: streams as u32,
            content: content as u32,
            stamped: u32::from(load.delays == Delays::Measured),
            payload_sum: sum(summed),
            frame: load.frame as u32,
            type_of_service: load.expects.map_or(u32::MAX, u32::from),
            burst: if content == Content::Rtp { BURST } else { BURST_OF_FLOOD },
            limit: u32::MAX,
            time_ns: load.time.as_nanos() as u64,
            link: std::array::from_fn(|at| {
                if at < 6 { self.link.destination[at] } else { self.link.source[at - 6] }
            }),
            together: load.together.max(1),
            arrival: load.arrival as u32,
            unused: 0,
        };
        {
            let mut programs = self.programs();
            set(&mut programs, "ORDER", 0, &order)?;
            let progress: Progress = get(&programs, "PROGRESS", 0)?;
            set(&mut programs, "PROGRESS", 0, &Progress { turn: progress.turn, ..Progress::default() })?;
        }
        let mut frame = vec![0; UDP_PAYLOAD];
        frame.extend_from_slice(payload);
        let batch = if load.delays == Delays::Measured { BATCH_STAMPED } else { BATCH };
        let context = context(load.frame, self.interface);
        let generator = self.generator()?;
        let deadline = Instant::now() + load.time;
        let thread = office.spawn(move || -> Result<()> {
            cores::pin(0, Core::TRAFFIC)?;
            if turn == Turn::First {
                cores::put_first(0)?;
            }
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                // Until the signal.
                repeat: u32::MAX,
                attrs: TestRunAttrs::new().xdp_live_frames(batch),
                ..TestRunOptions::default()
            };
            match generator.test_run(options) {
                Ok(_) => Ok(()),
                Err(ProgramError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::EINTR) =>
                {
                    Ok(())
                }
                Err(error) => Err(error).context("the generator cannot run"),
            }
        })?;
        Ok(Generator::of(Arc::clone(&self.programs), deadline, thread))
    }

    /// The generator's program as a value of its own: it runs while the maps are read.
    fn generator(&self) -> Result<Xdp> {
        let info = xdp(&mut self.programs(), "bench_generate")?.info()?;
        Ok(Xdp::from_program_info(info, "bench_generate".into(), XdpAttachType::Interface)?)
    }

    fn received(&self) -> Result<Received> {
        const LENGTH: usize = size_of::<Received>() / 8;
        let programs = self.programs();
        let map = programs.map("RECEIVED").context("no map RECEIVED")?;
        let counts: PerCpuArray<_, [u64; LENGTH]> = PerCpuArray::try_from(map)?;
        let mut total = [0u64; LENGTH];
        for core in counts.get(&0, 0)?.iter() {
            total.iter_mut().zip(core).for_each(|(sum, count)| *sum += count);
        }
        Received::read_from_bytes(total.as_bytes()).ok().context("the sink's counters have another size")
    }

    fn clear_delays(&self, streams: usize, delays: Delays) -> Result<()> {
        if delays == Delays::Ignored {
            return Ok(());
        }
        let mut programs = self.programs();
        // A stream's first packet is not compared with one of another run.
        for index in 0..streams as u32 {
            set(&mut programs, "HEARD", index, &Heard::default())?;
        }
        let map = programs.map_mut("DELAYS").context("no map DELAYS")?;
        let mut counts: PerCpuArray<&mut MapData, u64> = PerCpuArray::try_from(map)?;
        let cores = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for bucket in 0..BUCKETS {
            counts.set(bucket, aya::maps::PerCpuValues::try_from(vec![0; cores])?, 0)?;
        }
        Ok(())
    }

    fn delays(&self, delays: Delays) -> Result<Vec<u64>> {
        if delays == Delays::Ignored {
            return Ok(Vec::new());
        }
        let programs = self.programs();
        let map = programs.map("DELAYS").context("no map DELAYS")?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        (0..BUCKETS).map(|bucket| Ok(counts.get(&bucket, 0)?.iter().sum())).collect()
    }
}

/// The least that can stand between arrivals and departures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Floor {
    /// Every packet leaves as it came, and nobody looks at it.
    Untouched,
    /// With other addresses of the link layer, as what forwards has to give it.
    Readdressed,
}

impl Floor {
    const fn program(self) -> &'static str {
        match self {
            Self::Untouched => "bench_redirect",
            Self::Readdressed => "bench_readdress",
        }
    }
}

/// The floor in place. Dropping it takes it away.
pub(crate) struct Redirect {
    programs: Arc<Mutex<Ebpf>>,
    floor: Floor,
    link: Option<aya::programs::xdp::XdpLinkId>,
}

impl Drop for Redirect {
    fn drop(&mut self) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(program), Some(link)) = (xdp(&mut programs, self.floor.program()), self.link.take()) {
            // The namespace goes soon, and the program with it.
            let _ = program.detach(link);
        }
    }
}

/// Addresses of phones and ports as streams of a flood.
#[must_use]
pub(crate) fn from_many(sources: impl IntoIterator<Item = (Ipv4Addr, u16)>, to: SocketAddrV4) -> Vec<Route> {
    sources.into_iter().map(|(address, port)| Route { from: SocketAddrV4::new(address, port), to }).collect()
}

/// `struct xdp_md` (linux/bpf.h): the frame's begin and end, no metadata, and the interface that it seems to come by.
fn context(length: usize, interface: u32) -> Vec<u8> {
    let fields = [0, length as u32, 0, interface, 0, 0];
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn number(namespace: &Namespace, interface: &str) -> Result<u32> {
    let text = namespace.ip(&["-oneline", "link", "show", "dev", interface])?;
    text.split(':').next().and_then(|number| number.parse().ok()).with_context(|| format!("ip says: {text}"))
}

fn xdp<'e>(programs: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = programs.program_mut(name).with_context(|| format!("no program {name}; build again"))?;
    Ok(program.try_into()?)
}

fn set<T: IntoBytes + zerocopy::Immutable>(
    programs: &mut Ebpf,
    map: &str,
    index: u32,
    value: &T,
) -> Result<()> {
    let bytes = value.as_bytes();
    let map = programs.map_mut(map).with_context(|| format!("no map {map}; build again"))?;
    // aya asks for a type of the value's size.
    match bytes.len() {
        8 => Array::<_, [u8; 8]>::try_from(map)?.set(index, <[u8; 8]>::try_from(bytes)?, 0)?,
        16 => Array::<_, [u8; 16]>::try_from(map)?.set(index, <[u8; 16]>::try_from(bytes)?, 0)?,
        40 => Array::<_, [u8; 40]>::try_from(map)?.set(index, <[u8; 40]>::try_from(bytes)?, 0)?,
        72 => Array::<_, [u8; 72]>::try_from(map)?.set(index, <[u8; 72]>::try_from(bytes)?, 0)?,
        other => bail!("a value of {other} bytes"),
    }
    Ok(())
}

fn get<T: FromBytes>(programs: &Ebpf, map: &str, index: u32) -> Result<T> {
    let map = programs.map(map).with_context(|| format!("no map {map}; build again"))?;
    let bytes = match size_of::<T>() {
        8 => Array::<_, [u8; 8]>::try_from(map)?.get(&index, 0)?.to_vec(),
        40 => Array::<_, [u8; 40]>::try_from(map)?.get(&index, 0)?.to_vec(),
        other => bail!("a value of {other} bytes"),
    };
    T::read_from_bytes(&bytes).ok().context("a value of another size")
}
