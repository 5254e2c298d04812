//! The engine: the datapath's surface, and the wiring of its parts.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use ipnet::IpNet;
use relay_ebpf::{FlowStats, Reason, guard::Verdict, tables::Latency};
use socket2::Domain;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{info, warn};
use zerocopy::FromBytes as _;

pub use super::flows::Totals;
use super::{
    flow::{Carrier, FlowReport, FlowSpec, StandingFlow},
    flows::{Flows, InstallError, Statistics},
    kernel::{
        attach::{AttachError, Attachment, Lifetime, LostAttachment},
        former::Former,
        guard::{Guard, Rule},
        keeper::{Keeper, Known, Port},
        pins::Pins,
        programs::{KernelLog, Options, Programs, ProgramsError},
        resolver,
    },
    relay::{PortError, PortSockets, RtcpPacket, Shared, SocketUse, SteeredSockets, bind_steered},
    shared::{SharedArray, watch},
    tap::Tap,
};
use crate::net::{
    DatapathChoice, NetworkId, PacketLimits, Priority,
    netlink::{self, Link},
};

/// RTCP copies that wait to be looked at.
const RTCP_QUEUE: usize = 1024;

/// How the engine is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which datapath.
    pub wanted: DatapathChoice,
    /// Where media comes and goes.
    pub ports: Vec<Port>,
    /// The priority in the tag that media leaves with, where it leaves with one.
    pub priority: Priority,
    /// The same for signalling.
    pub signalling_priority: Priority,
    /// How many packets are let in.
    pub limits: PacketLimits,
    /// How many flows there can be.
    pub flows: u32,
    /// Addresses whose streams userspace is to carry.
    pub force_userspace: Vec<IpNet>,
    /// Whether the kernel programs log.
    pub kernel_log: KernelLog,
    /// Whether the kernel goes on forwarding when this process dies.
    pub lifetime: Lifetime,
}

impl Settings {
    /// The addresses that media ports are on, each once.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for port in &self.ports {
            if !addresses.contains(&port.address) {
                addresses.push(port.address);
            }
        }
        addresses
    }
}

/// Why the engine does not start, or a flow is not installed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The programs are not to be had.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// They could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Netlink is not to be had.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// The relay's sockets are not to be had.
    #[error("the relay's sockets: {0} (CAP_NET_RAW is needed)")]
    Sockets(io::Error),
    /// A media port could not be bound.
    #[error("media port {local}: {error}")]
    Port {
        /// The port.
        local: SocketAddr,
        /// Why.
        error: PortError,
    },
    /// A flow could not be installed.
    #[error("{0}")]
    Install(String),
}

/// The kernel's part, where there is one.
struct Kernel {
    programs: Arc<Mutex<Programs>>,
    known: Arc<Mutex<Known>>,
    /// Where attachments and tables are pinned, so that they outlive this process; or why they are not.
    pins: Result<Pins, String>,
    guard: Mutex<Guard>,
    /// Keep their tasks running.
    _sockets: SteeredSockets,
}

/// The datapath.
pub struct Engine {
    shared: Shared,
    kernel: Option<Kernel>,
    why_userspace: Option<String>,
    ports: PortSockets,
    tasks: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the datapath, within a tokio runtime. It goes on with the flows that stood in an earlier process; the kernel
    /// forwards theirs all the while. Copies of the RTCP packets that pass come out of the returned channel.
    ///
    /// # Errors
    /// If the kernel datapath is demanded and not to be had, or an interface does not exist.
    pub async fn start(
        settings: &Settings,
        standing: Vec<StandingFlow>,
    ) -> Result<(Self, mpsc::Receiver<RtcpPacket>), EngineError> {
        let (rtcp, copies) = mpsc::channel(RTCP_QUEUE);
        let why = match settings.wanted {
            DatapathChoice::Userspace => {
                "userspace is what the configuration or --datapath asks for".to_owned()
            }
            DatapathChoice::Auto | DatapathChoice::Kernel => {
                match Self::start_kernel(settings, rtcp.clone(), standing.clone()).await {
                    Ok(engine) => return Ok((engine, copies)),
                    // An interface that is not there is a mistake in the configuration, not a lack of BPF.
                    Err(error @ EngineError::Attach(AttachError::NoInterface(_))) => return Err(error),
                    Err(error) if settings.wanted == DatapathChoice::Kernel => return Err(error),
                    Err(error) => {
                        warn!(reason = %error, "no kernel datapath: all media goes through userspace");
                        error.to_string()
                    }
                }
            }
        };
        info!(reason = %why, "datapath: userspace");
        let netlink = netlink::connect()?;
        let links = by_index(netlink.links().await?);
        prefer_voice(&netlink, &links, settings).await;
        let mut flows =
            Flows::new(SharedArray::on_heap(settings.flows), None, settings.force_userspace.clone());
        flows.set_stream_limit(settings.limits.stream);
        let pins = Pins::find();
        let former = pins.as_ref().map(Former::find).unwrap_or_default();
        let locals: Vec<SocketAddr> = standing.iter().map(|flow| flow.spec.local).collect();
        tell_refused(flows.take_up(Instant::now(), standing, &former, Statistics::Fresh));
        let shared = Shared::new(flows, rtcp);
        let ports = PortSockets::new(settings.priority);
        for local in locals {
            if let Err(error) = ports.open(local, &shared) {
                warn!(%local, %error, "a media port of a call that stands cannot be bound; its packets are lost");
            }
        }
        // The sockets are there: from now on packets come up.
        former.release(&netlink).await?;
        pins.iter().for_each(Pins::release);
        let engine = Self { shared, kernel: None, why_userspace: Some(why), ports, tasks: Vec::new() };
        Ok((engine, copies))
    }

    /// Starts the kernel's datapath; what it has pinned is taken away if that does not come about, but for what an earlier
    /// process has left, which goes on.
    async fn start_kernel(
        settings: &Settings,
        rtcp: mpsc::Sender<RtcpPacket>,
        standing: Vec<StandingFlow>,
    ) -> Result<Self, EngineError> {
        let pins = match settings.lifetime {
            Lifetime::Pinned => Pins::find(),
            Lifetime::Process => Err("the datapath is to end with its process".to_owned()),
        };
        let before = pins.as_ref().map(Pins::list).unwrap_or_default();
        let started = Self::start_pinned(settings, rtcp, standing, pins.clone()).await;
        if let (Err(_), Ok(pins)) = (&started, &pins) {
            pins.release_but(&before);
        }
        started
    }

    async fn start_pinned(
        settings: &Settings,
        rtcp: mpsc::Sender<RtcpPacket>,
        standing: Vec<StandingFlow>,
        pins: Result<Pins, String>,
    ) -> Result<Self, EngineError> {
        let (netlink, news) = (netlink::connect()?, netlink::subscribe()?);
        let mut former = pins.as_ref().map(Former::find).unwrap_or_default();
        let mut keeper = Keeper::new(settings.ports.clone(), pins.as_ref().ok().cloned());
        let links = by_index(netlink.links().await?);
        former
            .release_unless(&netlink, |program, interface| keeper.wants(&links, program, interface))
            .await?;
        let statistics = former.statistics(settings.flows);
        let addresses = settings.addresses();
        let options =
            Options { addresses: addresses.clone(), flows: settings.flows, log: settings.kernel_log };
        let mut programs = Programs::load_with(options, statistics)?;
        let statistics = if statistics.is_some() { Statistics::Shared } else { Statistics::Fresh };
        if let Ok(pins) = &pins {
            pins.prepare(&programs);
        }
        let (stats, tables) = programs.tables()?;
        for port in &settings.ports {
            port.sip.iter().for_each(|sip| tables.guard(SocketAddr::new(port.address, *sip)));
        }
        let mut guard = programs.take_guard()?;
        set_limits(&mut guard, &settings.limits);
        let memory = programs.map_memory()?;
        info!(flows = settings.flows, kib = memory / 1024, "datapath: the kernel's tables and their memory");
        let mut flows = Flows::new(stats, Some(tables), settings.force_userspace.clone());
        flows.set_priority(settings.priority);
        flows.set_stream_limit(settings.limits.stream);
        flows.tell_refused(programs.take_refused()?);
        let takes_up = !standing.is_empty();
        tell_refused(flows.take_up(Instant::now(), standing, &former, statistics));
        let shared = Shared::new(flows, rtcp);

        // Load, fill, steer, and only then attach: no packet meets a half-made datapath.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut sockets = bind_steered(Domain::IPV4, cores).map_err(EngineError::Sockets)?;
        // A host without IPv6 has no such sockets, and needs none.
        let with_ipv6 = addresses.iter().any(IpAddr::is_ipv6);
        let ipv6 =
            if with_ipv6 { bind_steered(Domain::IPV6, cores).map_err(EngineError::Sockets)? } else { vec![] };
        programs.steer_to(&sockets, &ipv6)?;
        sockets.extend(ipv6);
        let sockets =
            SteeredSockets::start(sockets, &shared, settings.priority).map_err(EngineError::Sockets)?;
        let mut tasks = vec![watch_rtcp(&mut programs, &shared)?];
        if settings.kernel_log != KernelLog::Off {
            tasks.extend(watch_log(&mut programs));
        }
        let links = by_index(netlink.links().await?);
        keeper.start(&links, &mut programs, &mut former)?;
        if takes_up {
            resolver::prime(&netlink, &shared.flows, keeper.egresses()).await;
        }
        keeper.take_over(&netlink, &links, &mut programs).await?;
        former.release(&netlink).await?;
        match &pins {
            Ok(pins) => pins.commit(),
            Err(why) => {
                warn!(%why, "datapath: nothing is pinned: calls in the kernel end when this process does");
            }
        }
        // Once more, for the kernel's word on what is attached.
        let links = by_index(netlink.links().await?);
        keeper.note(&links, Vec::new());
        if settings.wanted == DatapathChoice::Kernel {
            keeper.demand()?;
        }
        prefer_voice(&netlink, &links, settings).await;
        let (known, programs) = (keeper.known(), Arc::new(Mutex::new(programs)));
        let (flows, loaded) = (Arc::clone(&shared.flows), Arc::clone(&programs));
        let attach = move |links: &HashMap<u32, Link>| {
            keeper.settle(links, &mut loaded.lock().unwrap_or_else(PoisonError::into_inner));
            flows.lock().unwrap_or_else(PoisonError::into_inner).set_ingresses(keeper.ingresses());
            keeper.egresses()
        };
        let (flows, wanted) = (Arc::clone(&shared.flows), Arc::clone(&shared.wanted));
        tasks.push(tokio::spawn(resolver::run(netlink, news, flows, wanted, attach)));
        let kernel = Kernel { programs, known, pins, guard: Mutex::new(guard), _sockets: sockets };
        Ok(Self {
            shared,
            kernel: Some(kernel),
            why_userspace: None,
            ports: PortSockets::new(settings.priority),
            tasks,
        })
    }

    /// Takes off what outlives this process otherwise: the kernel forwards nothing any more when this has been dropped.
    pub fn release(&self) {
        if let Some(Kernel { pins: Ok(pins), .. }) = &self.kernel {
            pins.release();
        }
    }

    /// Why the kernel does not go on forwarding should this process die; none if it does.
    #[must_use]
    pub fn why_not_pinned(&self) -> Option<&str> {
        match &self.kernel {
            Some(kernel) => kernel.pins.as_ref().err().map(String::as_str),
            None => Some("there is no kernel datapath"),
        }
    }

    /// The flows that have learned a source since this was asked last.
    pub fn take_learned(&self) -> Vec<SocketAddr> {
        self.flows().take_learned()
    }

    /// The sources that flows have learned, and when, in milliseconds since 1970.
    pub fn learned(
        &self,
        locals: impl IntoIterator<Item = SocketAddr>,
    ) -> Vec<(SocketAddr, SocketAddr, u64)> {
        let flows = self.flows();
        let known = |local| flows.learned(local).map(|(source, since)| (local, source, since));
        locals.into_iter().filter_map(known).collect()
    }

    /// Installs a flow, or changes the one with this local address and port. When this returns, its
    /// packets are carried.
    ///
    /// # Errors
    /// If there is no room for it, or its port cannot be bound.
    pub fn install(&self, now: Instant, spec: FlowSpec) -> Result<(), EngineError> {
        let local = spec.local;
        if self.kernel.is_none() {
            self.ports.open(local, &self.shared).map_err(|error| EngineError::Port { local, error })?;
        }
        let (result, wanted) = {
            let mut flows = self.flows();
            (flows.install(now, spec), flows.wants_next_hops())
        };
        if wanted {
            self.shared.wanted.notify_one();
        }
        result.map_err(|error| {
            if self.flows().report(local).is_none() {
                self.ports.close(local);
            }
            EngineError::Install(error.to_string())
        })
    }

    /// Sockets of media ports; none where the kernel steers what comes to all ports to the relay's few.
    #[must_use]
    pub fn sockets(&self) -> Option<SocketUse> {
        self.kernel.is_none().then(|| self.ports.in_use())
    }

    /// Asks whether there are descriptors for flows at these local addresses.
    ///
    /// # Errors
    /// How many there are, if not for all.
    pub fn check_room(&self, locals: impl Iterator<Item = SocketAddr>) -> Result<(), SocketUse> {
        let Some(sockets) = self.sockets() else { return Ok(()) };
        let more = locals.filter(|local| !self.ports.has(*local)).count();
        if sockets.has_room(more) { Ok(()) } else { Err(sockets) }
    }

    /// Removes a flow, and tells how it ended.
    pub fn remove(&self, now: Instant, local: SocketAddr) -> Option<FlowReport> {
        let report = self.flows().remove(now, local);
        self.ports.close(local);
        report
    }

    /// Has copies of these flows' packets go to a tap. Userspace carries them from now on; what the kernel has
    /// begun to forward arrives too.
    pub fn attach_tap(&self, now: Instant, locals: &[SocketAddr], tap: &Tap) {
        let mut flows = self.flows();
        for local in locals {
            flows.attach_tap(now, *local, tap);
        }
    }

    /// Lets go of taps whose other end is closed: the kernel carries their flows again, if it can.
    pub fn release_taps(&self, now: Instant) {
        let wanted = {
            let mut flows = self.flows();
            flows.release_taps(now);
            flows.wants_next_hops()
        };
        if wanted {
            self.shared.wanted.notify_one();
        }
    }

    /// A flow as it stands.
    #[must_use]
    pub fn report(&self, local: SocketAddr) -> Option<FlowReport> {
        self.flows().report(local)
    }

    /// Shows who carries each flow, one after the other.
    pub fn each_carrier(&self, look: impl FnMut(Carrier)) {
        self.flows().carriers().for_each(look);
    }

    /// Shows each flow with what was counted of it, one after the other. A report has more, and of thousands it takes
    /// megabytes.
    pub fn each_count(&self, mut look: impl FnMut(&FlowSpec, &FlowStats)) {
        self.flows().counts().for_each(|(spec, stats)| look(spec, &stats));
    }

    /// All flows as they stand.
    #[must_use]
    pub fn reports(&self) -> Vec<FlowReport> {
        self.flows().reports()
    }

    /// How many flows there are, and how many there can be.
    #[must_use]
    pub fn table_use(&self) -> (usize, u32) {
        let flows = self.flows();
        (flows.len(), flows.capacity())
    }

    /// Packets by the network that they came from, since the start.
    #[must_use]
    pub fn totals(&self) -> HashMap<NetworkId, Totals> {
        self.flows().totals()
    }

    /// Packets that were not forwarded, by reason: those that the kernel program passed or dropped, and
    /// those that userspace dropped.
    #[must_use]
    pub fn reasons(&self) -> Vec<(Reason, u64, u64)> {
        let kernel = self.programs(Programs::reasons).unwrap_or_default();
        Reason::ALL
            .iter()
            .zip(&self.shared.counters.reasons)
            .map(|(reason, userspace)| {
                let kernel = kernel.iter().find(|(other, _)| other == reason).map_or(0, |(_, count)| *count);
                (*reason, kernel, userspace.load(Ordering::Relaxed))
            })
            .collect()
    }

    /// Time that packets spent in the kernel program, where there is one, and in the userspace relay.
    #[must_use]
    pub fn latency(&self) -> (Option<Latency>, Latency) {
        let userspace = *self.shared.counters.latency.lock().unwrap_or_else(PoisonError::into_inner);
        (self.programs(Programs::latency), userspace)
    }

    /// The interfaces that the relay is attached to.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.known(|known| known.attachments.clone())
    }

    /// The interfaces that the relay was attached to and is no longer.
    #[must_use]
    pub fn lost_attachments(&self) -> Vec<LostAttachment> {
        self.known(|known| known.lost.clone())
    }

    fn known<T: Default>(&self, read: impl FnOnce(&Known) -> T) -> T {
        let known =
            self.kernel.as_ref().map(|kernel| kernel.known.lock().unwrap_or_else(PoisonError::into_inner));
        known.map(|known| read(&known)).unwrap_or_default()
    }

    /// Brings the rules by which the kernel protects the host into line with these.
    pub fn set_rules(&self, rules: &BTreeMap<IpNet, Verdict>) {
        if let Some(kernel) = &self.kernel
            && let Err(error) = kernel.guard().set_rules(rules)
        {
            warn!(%error, "the kernel did not take a rule of [protection]; trying again");
        }
    }

    /// Sets how many packets are let in; of streams it holds for flows that are installed or changed from now on.
    pub fn set_limits(&self, limits: &PacketLimits) {
        self.flows().set_stream_limit(limits.stream);
        if let Some(kernel) = &self.kernel {
            set_limits(&mut kernel.guard(), limits);
        }
    }

    /// The prefixes that the kernel denies, with what it has denied; none without a kernel datapath.
    #[must_use]
    pub fn denials(&self) -> Vec<Rule> {
        self.kernel.as_ref().map(|kernel| kernel.guard().denials()).unwrap_or_default()
    }

    /// Why there is no kernel datapath; none if there is one.
    #[must_use]
    pub fn why_userspace(&self) -> Option<&str> {
        self.why_userspace.as_deref()
    }

    fn programs<T>(&self, read: impl FnOnce(&Programs) -> Result<T, ProgramsError>) -> Option<T> {
        let kernel = self.kernel.as_ref()?;
        let programs = kernel.programs.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&programs) {
            Ok(value) => Some(value),
            Err(error) => {
                warn!(%error, "reading the kernel's counters");
                None
            }
        }
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.shared.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("attachments", &self.attachments()).finish_non_exhaustive()
    }
}

impl Kernel {
    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_limits(guard: &mut Guard, limits: &PacketLimits) {
    if let Err(error) = guard.set_limits(limits.source, limits.unknown) {
        warn!(%error, "the kernel did not take the limits of [protection]");
    }
}

/// Has 802.1Q devices put the priorities of media and signalling into the tags of what userspace sends.
async fn prefer_voice(netlink: &netlink::Handle, links: &HashMap<u32, Link>, settings: &Settings) {
    let devices = links
        .values()
        .filter(|link| link.vlan.is_some() && settings.ports.iter().any(|port| port.interface == link.name));
    for link in devices {
        let priorities = [settings.priority.value(), settings.signalling_priority.value()];
        if let Err(error) = netlink.set_vlan_priorities(link, &priorities).await {
            warn!(interface = link.name, %error, "priorities cannot be mapped to the VLAN's tags");
        }
    }
}

fn by_index(links: Vec<Link>) -> HashMap<u32, Link> {
    links.into_iter().map(|link| (link.index, link)).collect()
}

fn tell_refused(refused: Vec<(SocketAddr, InstallError)>) {
    for (local, error) in refused {
        warn!(%local, %error, "a flow of a call that stands cannot be installed; its packets are lost");
    }
}

/// Brings the kernel's copies of RTCP packets to the same channel as the relay's.
fn watch_rtcp(programs: &mut Programs, shared: &Shared) -> Result<JoinHandle<()>, EngineError> {
    let ring = watch(programs.take_rtcp()?).map_err(EngineError::Sockets)?;
    let (flows, sender) = (Arc::clone(&shared.flows), shared.rtcp.clone());
    Ok(tokio::spawn(async move {
        let mut ring = ring;
        loop {
            let Ok(mut ready) = ring.readable_mut().await else { return };
            while let Some(item) = ready.get_inner_mut().next() {
                let Ok((copy, _)) = relay_ebpf::tables::RtcpCopy::read_from_prefix(&item) else { continue };
                let length = (copy.length as usize).min(copy.payload.len());
                let flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
                for (local, pair) in flows.counted_at(copy.stats) {
                    // A full queue loses the copy; the packet itself is long on its way.
                    let _ = sender.try_send(RtcpPacket {
                        local,
                        pair,
                        arrived_ns: copy.arrived_ns,
                        payload: copy.payload[..length].to_vec(),
                    });
                }
            }
            ready.clear_ready();
        }
    }))
}

/// Brings the kernel programs' log lines into this process's log.
fn watch_log(programs: &mut Programs) -> Option<JoinHandle<()>> {
    let logger = match programs.start_log() {
        Ok(logger) => logger,
        Err(error) => {
            warn!(%error, "the kernel programs' log is not to be had");
            return None;
        }
    };
    let mut logger = match watch(logger) {
        Ok(logger) => logger,
        Err(error) => {
            warn!(%error, "the kernel programs' log cannot be waited for");
            return None;
        }
    };
    Some(tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}
