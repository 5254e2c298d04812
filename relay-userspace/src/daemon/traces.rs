//! Traces while the daemon runs: what has come and gone is taken in ten times a second, calls that have ended are
//! written, and each message goes to Homer if it is wanted there. All of it off the paths of messages.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::{core::Core, settings::Ready};
use crate::{
    config::{self, HepServer, Host},
    datapath::unix_ns,
    metrics::{ServiceMetrics, names, raise},
    net::Transport,
    store::TraceStore,
    trace::{Exported, Limits, Network, Traces, hep},
};

/// How often messages are taken in.
const SOON: Duration = Duration::from_millis(100);
/// How often it is looked which calls have ended.
const LOOK: Duration = Duration::from_secs(5);
/// How long of that may be spent writing: a call takes some tenths of a millisecond, for which there may be thousands.
const WRITING: Duration = Duration::from_millis(500);
/// Packets that wait for Homer.
const QUEUE: usize = 1024;
/// How soon it is tried again when Homer's name does not resolve, or sending fails.
const AGAIN: Duration = Duration::from_secs(30);
/// A mebibyte, and what of the memory one call may take at most.
const MIB: u64 = 1 << 20;
const PART_OF_A_CALL: u64 = 8;

/// How messages are told to Homer.
#[derive(Debug, Clone)]
struct Told {
    agent: u32,
    key: Option<String>,
}

/// Where messages wait for Homer.
struct Teller {
    /// None while nothing is sent.
    told: Mutex<Option<Told>>,
    packets: mpsc::Sender<Vec<u8>>,
    metrics: ServiceMetrics,
}

impl Teller {
    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: &Exported<'_>) {
        let Some(told) = &*self.told() else { return };
        let sent = hep::packet(message, told.agent, told.key.as_deref())
            .is_some_and(|packet| self.packets.try_send(packet).is_ok());
        if !sent {
            self.metrics.hep_packets.with_label_values(&[names::hep::DROPPED]).inc();
        }
    }
}

/// The room of traces, and the way to Homer.
pub(super) struct Tracing {
    pub(super) room: Traces,
    metrics: ServiceMetrics,
    teller: Arc<Teller>,
    homer: watch::Sender<Option<HepServer>>,
}

/// The other end of the way to Homer.
pub(super) struct Way {
    homer: watch::Receiver<Option<HepServer>>,
    packets: mpsc::Receiver<Vec<u8>>,
    metrics: ServiceMetrics,
}

fn limits(config: &config::Trace) -> Limits {
    let total = config.max_mib.saturating_mul(MIB);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Limits {
        messages: size(config.messages_per_call),
        bytes: size(total / PART_OF_A_CALL),
        total: size(total),
    }
}

impl Tracing {
    /// Opens the room. What is stored of calls is no reason not to start: without it, traces are in memory alone.
    pub(super) fn open(
        config: &config::Config,
        networks: &[Ready<'_>],
        metrics: &ServiceMetrics,
    ) -> (Self, Way) {
        let networks = networks.iter().map(|ready| {
            let udp = ready.network.sip_port;
            let port = |transport| ready.network.port(transport).unwrap_or(udp);
            Network {
                name: ready.network.name.clone(),
                address: ready.address,
                ports: Transport::ALL.map(port),
            }
        });
        let store = TraceStore::open(&config.state.directory).inspect_err(|error| {
            error!(%error, "traces of calls are kept in memory alone; if the file is damaged, remove it");
        });
        let (homer, wanted) = watch::channel(None);
        let (packets, queue) = mpsc::channel(QUEUE);
        let teller = Arc::new(Teller { told: Mutex::default(), packets, metrics: metrics.clone() });
        let telling = Arc::clone(&teller);
        let export = Box::new(move |message: &Exported<'_>| telling.tell(message));
        let room = Traces::new(networks.collect(), limits(&config.trace), store, export);
        let tracing = Self { room, metrics: metrics.clone(), teller, homer };
        tracing.reconfigure(&config.trace);
        (tracing, Way { homer: wanted, packets: queue, metrics: metrics.clone() })
    }

    /// Takes new settings.
    pub(super) fn reconfigure(&self, config: &config::Trace) {
        self.room.reconfigure(config.enabled, limits(config), config.store_mib.saturating_mul(MIB));
        let key = config.hep_password_file.as_ref().map(|file| {
            let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
            fs::read_to_string(file).map(first).map_err(|error| (file, error))
        });
        let told = match (&config.hep, key.transpose()) {
            (None, _) => None,
            (Some(_), Ok(key)) => Some(Told { agent: config.hep_id, key }),
            (Some(_), Err((file, error))) => {
                let file = file.display();
                error!(%file, %error, "nothing is sent to Homer: its password cannot be read (trace.hep_password_file)");
                None
            }
        };
        let homer = config.hep.clone().filter(|_| told.is_some());
        *self.teller.told() = told;
        self.homer.send_if_modified(|known| {
            let changed = *known != homer;
            *known = homer;
            changed
        });
    }

    /// Brings the metrics up to date.
    pub(super) fn measure(&self) {
        let (counts, lost, bytes) = self.room.counts();
        for (result, count) in [
            (names::trace::RECORDED, counts.messages),
            (names::trace::LEFT_OUT, counts.left_out),
            (names::trace::LOST, lost),
        ] {
            raise(&self.metrics.trace_messages.with_label_values(&[result]), count);
        }
        raise(&self.metrics.traces_evicted, counts.evicted + counts.evicted_live);
        self.metrics.trace_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Takes messages in and writes calls that have ended, until it is told to stop; what it has begun is then written.
pub(super) async fn keep(core: Arc<Core>, mut stop: watch::Receiver<()>) {
    let mut tick = interval(SOON);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut failing) = (Instant::now(), false);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = tick.tick() => {}
        }
        core.traces.room.keep();
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        core.traces.room.look(unix_ns(), |call_id| core.state().proxy.calls_named(call_id).next().is_some());
        loop {
            let writer = Arc::clone(&core);
            let done = spawn_blocking(move || writer.traces.room.store_ended()).await;
            // The log says once that it began to fail, and once that it works again.
            let more = match done.map_err(|error| error.to_string()) {
                Ok(Ok(more)) => {
                    if std::mem::take(&mut failing) {
                        info!("traces of calls are written again");
                    }
                    more
                }
                Ok(Err(error)) => told_once(&mut failing, &error.to_string()),
                Err(error) => told_once(&mut failing, &error),
            };
            if !more || looked.elapsed() >= WRITING {
                break;
            }
            core.traces.room.keep();
        }
    }
}

fn told_once(failing: &mut bool, error: &str) -> bool {
    if !std::mem::replace(failing, true) {
        error!(error, "traces of calls cannot be written; they are in memory alone");
    }
    false
}

/// Writes all calls, on the way out: those that stand are traced on by the next daemon.
pub(super) fn keep_last(core: &Core) {
    if let Err(error) = core.traces.room.store_all() {
        error!(%error, "traces of calls cannot be written");
    }
}

/// A Homer, as far as it can be reached.
struct Link {
    homer: HepServer,
    socket: Option<UdpSocket>,
    tried: Option<Instant>,
    failing: bool,
}

impl Link {
    fn new(homer: HepServer) -> Self {
        Self { homer, socket: None, tried: None, failing: false }
    }

    /// Sends a packet, and counts what became of it. The log says once that sending began to fail, and once that it
    /// works again.
    async fn send(&mut self, packet: &[u8], metrics: &ServiceMetrics) {
        let count = |result| metrics.hep_packets.with_label_values(&[result]).inc();
        let due = self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN);
        if due && (self.socket.is_none() || self.failing) {
            self.tried = Some(Instant::now());
            self.socket = match connect(&self.homer).await {
                Ok(socket) => Some(socket),
                Err(error) => {
                    self.failed(&error);
                    None
                }
            };
        }
        let Some(socket) = &self.socket else { return count(names::hep::FAILED) };
        let mut sent = socket.send(packet).await;
        // The host was told that nobody listens there: that was an earlier packet, and this one has not left yet.
        let refused = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused && let Err(error) = std::mem::replace(&mut sent, socket.send(packet).await) {
            count(names::hep::FAILED);
            self.failed(&error);
        }
        match sent {
            Ok(_) => {
                count(names::hep::SENT);
                if !refused && std::mem::take(&mut self.failing) {
                    info!(homer = %self.homer, "messages are sent to Homer again");
                }
            }
            Err(error) => {
                count(names::hep::FAILED);
                self.failed(&error);
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(homer = %self.homer, %error, "messages cannot be sent to Homer (trace.hep)");
        }
    }
}

/// Sends to Homer what is handed on.
pub(super) async fn export(mut way: Way) {
    loop {
        let mut link = way.homer.borrow_and_update().clone().map(Link::new);
        loop {
            tokio::select! {
                changed = way.homer.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                packet = way.packets.recv() => match (packet, &mut link) {
                    (Some(packet), Some(link)) => link.send(&packet, &way.metrics).await,
                    (Some(_), None) => {}
                    (None, _) => return,
                },
            }
        }
    }
}

/// A socket to Homer, by whatever route the host has.
async fn connect(homer: &HepServer) -> io::Result<UdpSocket> {
    let address = match &homer.host {
        Host::Ip(ip) => SocketAddr::new(*ip, homer.port),
        Host::Name(name) => {
            let mut found = lookup_host((name.as_str(), homer.port)).await?;
            found.next().ok_or_else(|| io::Error::other("its name has no address"))?
        }
    };
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}
