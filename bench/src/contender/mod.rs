//! Who stands in the path: the appliance by each of its ways, what would be used instead, and the floor.
//!
//! | contender | what it is |
//! |---|---|
//! | `floor` | an XDP program that redirects every packet untouched: the least that forwarding can cost here |
//! | `readdress` | the same with new addresses of the link layer: the least that can cost what comes to a next hop |
//! | `xdp` | the appliance by XDP in the driver |
//! | `xdp-generic` | the same program in the network stack |
//! | `tc` | its program at TC |
//! | `userspace` | its relay in the process, with the kernel's programs to steer packets to it |
//! | `userspace-srtp` | the same, RTP from the office and SRTP to the centre |
//! | `userspace-ports` | its relay in the process without BPF, a socket for each port |
//! | `nftables` | the kernel's own NAT, with DSCP set by nftables |
//! | `rtpengine` | rtpengine without its kernel module, as Debian has it |
//! | `rtpengine-srtp` | the same, RTP from the office and SRTP to the centre |
//! | `rtpengine-kernel` | rtpengine with its kernel module, where that is to be had |
//! | `socket` | the plainest relay of sockets: a line of sanity |

mod nftables;
mod ours;
pub(crate) mod rtpengine;
pub(crate) mod socket;

use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use branchline::datapath::monotonic_ns;
use relay_ebpf::traffic::Arrival;
use xtask::lab::{Namespace, Running, interrupt};

use self::rtpengine::By;
use crate::appliance::{State, Way};
use crate::cores::{self, Core};
use crate::testbed::{Testbed, appliance, ends};
use crate::traffic::{Floor, Load, Ran, Rate, Redirect, Route};

/// What is waited for comes within a moment; thousands of calls take longer.
const LIMIT: Duration = Duration::from_secs(120);
/// The type of service of expedited forwarding, which all contenders but the floors set.
pub(crate) const EXPEDITED: u8 = 46 << 2;
/// First ports of contenders that hand out none.
pub(crate) const FIRST_PORT: u16 = 10_000;
/// Calls that one address has ports for.
const CALLS_OF_AN_ADDRESS: usize = 25_000;

/// A call's port where no media room hands it out: of its address, which has those of so many calls.
pub(crate) fn numbered_port(call: usize) -> u16 {
    // Within 16 bits: 10,000 and twice 25,000.
    FIRST_PORT + 2 * (call % CALLS_OF_AN_ADDRESS) as u16
}

/// What the servers' end of a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    /// RTP.
    Plain,
    /// SRTP by `AES_CM_128_HMAC_SHA1_80`, with keys in the description (RFC 4568).
    Sealed,
}

/// Who stands in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Contender {
    /// The least that forwarding costs.
    Floor(Floor),
    /// The appliance.
    Ours(Way),
    /// NAT in the kernel.
    Nftables,
    /// Another relay.
    Rtpengine(Media),
    /// The same with its kernel module.
    RtpengineKernel,
    /// The plainest relay.
    Socket,
}

impl Contender {
    /// What the others are compared with.
    pub(crate) const FLOOR: Self = Self::Floor(Floor::Untouched);

    /// All of them; the floor is first.
    pub(crate) const ALL: [Self; 13] = [
        Self::FLOOR,
        Self::Floor(Floor::Readdressed),
        Self::Ours(Way::Native),
        Self::Ours(Way::Generic),
        Self::Ours(Way::Tc),
        Self::Ours(Way::Userspace),
        Self::Ours(Way::UserspaceSrtp),
        Self::Ours(Way::UserspacePorts),
        Self::Nftables,
        Self::Rtpengine(Media::Plain),
        Self::Rtpengine(Media::Sealed),
        Self::RtpengineKernel,
        Self::Socket,
    ];

    /// Its name in tables.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor(Floor::Untouched) => "floor",
            Self::Floor(Floor::Readdressed) => "readdress",
            Self::Ours(Way::Native) => "xdp",
            Self::Ours(Way::Generic) => "xdp-generic",
            Self::Ours(Way::Tc) => "tc",
            Self::Ours(Way::Userspace) => "userspace",
            Self::Ours(Way::UserspaceSrtp) => "userspace-srtp",
            Self::Ours(Way::UserspacePorts) => "userspace-ports",
            Self::Nftables => "nftables",
            Self::Rtpengine(Media::Plain) => "rtpengine",
            Self::Rtpengine(Media::Sealed) => "rtpengine-srtp",
            Self::RtpengineKernel => "rtpengine-kernel",
            Self::Socket => "socket",
        }
    }

    /// The one with a name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub(crate) fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name).with_context(|| {
            format!("there is no contender {name}; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }

    /// Whether this machine has what it takes.
    ///
    /// # Errors
    /// Why it has not.
    pub(crate) fn is_to_be_had(self) -> Result<()> {
        match self {
            Self::RtpengineKernel => rtpengine::load_module(),
            _ => Ok(()),
        }
    }

    /// Where a process forwards, and not the kernel.
    #[must_use]
    pub(crate) const fn is_a_process(self) -> bool {
        matches!(
            self,
            Self::Ours(Way::Userspace | Way::UserspaceSrtp | Way::UserspacePorts)
                | Self::Rtpengine(_)
                | Self::Socket
        )
    }

    /// How its packets arrive.
    #[must_use]
    pub(crate) const fn arrival(self) -> Arrival {
        match self {
            Self::Ours(Way::UserspaceSrtp) | Self::Rtpengine(Media::Sealed) => Arrival::Sealed,
            _ => Arrival::Same,
        }
    }
}

/// A contender in its place, with calls. Dropping it takes it away.
pub(crate) struct InPlace<'t> {
    /// Who it is.
    pub contender: Contender,
    /// The bench's path.
    pub bed: &'t Testbed,
    /// Streams that it forwards.
    pub streams: usize,
    process: Option<Running>,
    _parts: Parts,
}

/// What is taken away with it.
#[expect(dead_code, reason = "held to be dropped")]
enum Parts {
    Floor(Redirect),
    Rules(nftables::Rules),
    Module(rtpengine::Rule),
    Process,
}

impl<'t> InPlace<'t> {
    /// Puts a contender into the path, with this many calls, and sees to it that their packets are carried.
    ///
    /// # Errors
    /// It does not start, or carries nothing.
    pub(crate) fn put(bed: &'t Testbed, contender: Contender, calls: usize) -> Result<Self> {
        let branch = &bed.lab.branch;
        let numbered = || {
            // Rules and sockets have one address; who has more calls redirects everything anyway.
            (0..calls).map(|call| SocketAddrV4::new(appliance(0)[0], numbered_port(call))).collect()
        };
        let (parts, process, targets): (_, _, Vec<SocketAddrV4>) = match contender {
            Contender::Floor(floor) => {
                (Parts::Floor(bed.traffic.redirect(branch, &bed.names, floor)?), None, numbered())
            }
            Contender::Nftables => (Parts::Rules(nftables::Rules::set(branch, calls)?), None, numbered()),
            Contender::Ours(way) => {
                let (process, targets) = ours::start(bed, way, calls)?;
                (Parts::Process, Some(process), targets)
            }
            Contender::Rtpengine(media) => {
                let (process, targets) = rtpengine::start(bed, calls, media, By::Process)?;
                (Parts::Process, Some(process), targets)
            }
            Contender::RtpengineKernel => {
                let rule = rtpengine::Rule::set(branch)?;
                let (process, targets) = rtpengine::start(bed, calls, Media::Plain, By::Kernel)?;
                (Parts::Module(rule), Some(process), targets)
            }
            Contender::Socket => (Parts::Process, Some(socket::start(bed, calls)?), numbered()),
        };
        let routes: Vec<Route> = (0..calls)
            .zip(targets)
            .map(|(call, to)| {
                let (address, port) = ends(call)[0];
                Route { from: SocketAddrV4::new(address, port), to }
            })
            .collect();
        bed.traffic.set_streams(&routes)?;
        let in_place = Self { contender, bed, streams: calls, process, _parts: parts };
        in_place.arrange()?;
        in_place.warm_up()?;
        Ok(in_place)
    }

    /// Puts every thread where it belongs.
    fn arrange(&self) -> Result<()> {
        let [forwarding, sink] =
            [cores::receiver(&self.bed.names.arrivals)?, cores::receiver(&self.bed.names.sink)?];
        cores::pin(sink, Core::TRAFFIC)?;
        cores::put_before_all(sink)?;
        for thread in self.threads()? {
            cores::pin(thread, Core::FORWARDING)?;
        }
        // A process has to have its turns on this core, and nobody else has.
        if self.contender.is_a_process() {
            cores::put_among_all(forwarding)
        } else {
            cores::put_before_all(forwarding)
        }
    }

    /// The threads whose time is the contender's: first the kernel's that receives, then those of its process.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn threads(&self) -> Result<Vec<u32>> {
        let mut threads = vec![cores::receiver(&self.bed.names.arrivals)?];
        if let Some(process) = &self.process {
            threads.extend(cores::threads_of_family(process.pid())?);
        }
        Ok(threads)
    }

    /// Every stream's first packets: sources are learned, connections tracked, neighbours found.
    fn warm_up(&self) -> Result<()> {
        /// Slow enough for each of them to be learned in userspace.
        const LEARNED: f64 = 20_000.0;
        /// Where nothing is learned.
        const KNOWN: f64 = 100_000.0;
        /// Packets of each stream.
        const PACKETS: f64 = 3.0;
        let rate = if matches!(self.contender, Contender::Floor(_)) { KNOWN } else { LEARNED };
        let mut last = None;
        for _ in 0..10 {
            let time = Duration::from_secs_f64((PACKETS * self.streams as f64 / rate).max(0.2));
            let ran = self.run(Load::new(Rate::PerSecond(rate), time))?;
            if ran.lost() == 0 && self.is_carried_as_named()? {
                return Ok(());
            }
            last = Some(ran);
        }
        let said = self.process.as_ref().map(Running::last_words).unwrap_or_default();
        anyhow::bail!(
            "{} does not carry its {} streams: {last:?}, {:?}; {said}",
            self.contender.name(),
            self.streams,
            self.state().ok().flatten()
        )
    }

    fn is_carried_as_named(&self) -> Result<bool> {
        let way = match self.contender {
            Contender::Ours(way) => way,
            Contender::RtpengineKernel => return Ok(rtpengine::in_kernel()? >= self.streams),
            _ => return Ok(true),
        };
        let state = self.state()?.context("no answer")?;
        let label = match way {
            Way::Native | Way::Generic => "kernel",
            Way::Tc => "tc",
            Way::Userspace | Way::UserspaceSrtp | Way::UserspacePorts => "userspace",
        };
        // Nothing comes back, and no RTCP: the others go on learning.
        let carried = state.carriers.get(label).copied().unwrap_or(0);
        Ok(carried >= self.streams)
    }

    /// What the appliance says of its flows; none for others.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn state(&self) -> Result<Option<State>> {
        if !matches!(self.contender, Contender::Ours(_)) {
            return Ok(None);
        }
        let text = ask(&self.bed.lab.branch, crate::appliance::CONTROL, b"state".to_vec())?;
        Ok(Some(serde_json::from_slice(&text).context("the appliance's answer")?))
    }

    /// Sends, and waits for what is on its way.
    ///
    /// # Errors
    /// See [`crate::traffic::Traffic::run`].
    pub(crate) fn run(&self, load: Load) -> Result<Ran> {
        self.bed.traffic.run(&self.bed.lab.office, self.streams, load)
    }

    /// Sends, and accounts for the packets and for the time on the forwarding core. A run that does not add up is made
    /// again, for stragglers of the one before may have been counted in it, and the trial says how often.
    ///
    /// # Errors
    /// As above; and when packets or times do not add up time after time, for then nothing was measured.
    pub(crate) fn measure(&self, load: Load) -> Result<Trial> {
        const ATTEMPTS: u32 = 3;
        let mut repeated = 0;
        loop {
            match self.attempt(load) {
                Ok(trial) => return Ok(Trial { repeated, ..trial }),
                Err(error) if interrupt::happened() || repeated + 1 >= ATTEMPTS => return Err(error),
                Err(_) => {
                    repeated += 1;
                    interrupt::sleep(Duration::from_secs(1))?;
                }
            }
        }
    }

    fn attempt(&self, load: Load) -> Result<Trial> {
        let expects = if matches!(self.contender, Contender::Floor(_)) { 0 } else { EXPEDITED };
        let load = Load { expects: Some(expects), arrival: self.contender.arrival(), ..load };
        let threads = self.threads()?;
        // Asked first: the answer takes time on the same core.
        let counted = self.state()?;
        let before = cores::run_time(&threads)?;
        let began_ns = monotonic_ns();
        let ran = self.run(load)?;
        let cpu = cores::run_time(&threads)? - before;
        let window_ns = began_ns..monotonic_ns();
        let window = Duration::from_nanos(window_ns.end - window_ns.start);
        let name = self.contender.name();
        let received = ran.received;
        ensure!(received.packets > 0, "{name}: of {} packets none arrived: nothing was measured", ran.sent);
        ensure!(
            received.packets <= ran.sent,
            "{name}: {} packets were sent, {} arrived",
            ran.sent,
            received.packets
        );
        ensure!(
            received.wrong_service == 0,
            "{name}: {} packets did not arrive with DSCP {}",
            received.wrong_service,
            expects >> 2
        );
        ensure!(
            received.wrong_content == 0,
            "{name}: {} packets with a wrong checksum, or not encrypted as they should be",
            received.wrong_content
        );
        // One core has no more time than there was; the two clocks are not looked at in the same moment.
        let most = window.mul_f64(1.02) + Duration::from_millis(10);
        ensure!(!cpu.is_zero() && cpu <= most, "{name}: {cpu:?} on one core within {window:?}");
        if let (Some(before), Some(after)) = (counted, self.state()?) {
            let (kernel, userspace) = (
                after.kernel_packets - before.kernel_packets,
                after.userspace_packets - before.userspace_packets,
            );
            let (meant, other) =
                if self.contender.is_a_process() { (userspace, kernel) } else { (kernel, userspace) };
            // What it forwarded and what arrived differ by what the last wire lost.
            ensure!(
                meant >= received.packets && meant <= ran.sent && other == 0,
                "{name}: {} sent, {meant} forwarded as named, {other} otherwise, {} arrived",
                ran.sent,
                received.packets
            );
        }
        Ok(Trial { load, ran, cpu, window_ns, repeated: 0 })
    }
}

/// One run with its accounts.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    /// What was asked for.
    pub load: Load,
    /// What it came to.
    pub ran: Ran,
    /// Time on the forwarding core, of the kernel's thread and the contender's own.
    pub cpu: Duration,
    /// When that time was taken, by the clock `CLOCK_MONOTONIC` in nanoseconds.
    pub window_ns: Range<u64>,
    /// How often it was made again because it did not add up.
    pub repeated: u32,
}

impl Trial {
    /// Packets a second that arrived. What arrived late counts, and so does the time that it took.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        self.ran.received.packets as f64 / (self.ran.time + self.ran.after).as_secs_f64()
    }

    /// Whether the rate was held: no more than this part was lost, and no queue was left to be worked off.
    #[must_use]
    pub(crate) fn was_held(&self, tolerance: f64) -> bool {
        /// What a queue may take that is no sign of too much load: a time slice of the scheduler, and the look at it.
        const QUEUE: Duration = Duration::from_millis(20);
        self.ran.lost() as f64 <= tolerance * self.ran.sent as f64 && self.ran.after <= QUEUE
    }

    /// Nanoseconds of CPU for each packet that arrived.
    #[must_use]
    pub(crate) fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.ran.received.packets.max(1) as f64
    }

    /// The part of the forwarding core's time that was used.
    #[must_use]
    pub(crate) fn busy(&self) -> f64 {
        (self.cpu.as_secs_f64() / (self.ran.time + self.ran.after).as_secs_f64()).min(1.0)
    }
}

/// Asks a process in a namespace by a datagram.
pub(crate) fn ask(namespace: &Namespace, at: SocketAddrV4, question: Vec<u8>) -> Result<Vec<u8>> {
    /// The longest answer is that of the kernel's largest datagram.
    const LONGEST: usize = 65_536;
    let answer = namespace.enter(move || -> std::io::Result<Vec<u8>> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.send_to(&question, at)?;
        let mut answer = vec![0; LONGEST];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    })?;
    answer.with_context(|| format!("{at} does not answer"))
}
