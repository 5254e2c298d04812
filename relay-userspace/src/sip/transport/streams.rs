//! All connections: the listeners, the table, and the channel to the room above.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use super::{
    connection::{self, Origin},
    framing::FramingError,
    queue::{self, Queue, Waiting},
    socket,
    table::{MOST_REUSED, Table},
};
use crate::{
    net::{Marking, NetworkId, Transport},
    sip::Hop,
    tls::LegacyAcceptor,
};

/// Messages that may wait for the room above: readers wait with them, and the peers behind TCP's window.
const EVENTS: usize = 1024;
/// How long to wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// What a network listens on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The network.
    pub network: NetworkId,
    /// The appliance's address on it; connections are made from it too.
    pub address: IpAddr,
    /// The ports on which connections are taken, and what is spoken there.
    pub ports: Vec<(Transport, u16)>,
}

/// How many connections there may be. Those that peers make never take the place of those that the appliance makes:
/// its way to the servers is not shut by a crowd in the office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Made by peers, in all.
    pub accepted: usize,
    /// Made by peers from one address.
    pub per_source: usize,
    /// Made by the appliance.
    pub connected: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { accepted: 4096, per_source: 256, connected: 1024 }
    }
}

/// What the driver is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The networks.
    pub networks: Vec<Listen>,
    /// The code point of everything that is sent.
    pub marking: Marking,
    /// How long a TCP connection may take to come about, and a TLS handshake after it.
    pub connect_timeout: Duration,
    /// TLS where the appliance listens.
    pub server: Arc<ServerConfig>,
    /// TLS as old phones speak it.
    pub legacy: Arc<LegacyAcceptor>,
    /// TLS where it connects.
    pub client: Arc<ClientConfig>,
    /// Origins whose pages may connect by WebSocket; none: any.
    pub origins: Vec<String>,
    /// Limits.
    pub limits: Limits,
}

/// A listener cannot be made.
#[derive(Debug, Error)]
#[error("{transport} port {address} cannot be bound: {error}")]
pub struct BindError {
    /// For which network.
    pub network: NetworkId,
    /// For which transport.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

/// How far a connection came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// There is no way to the peer.
    Route,
    /// Nobody answered, or the connection was refused.
    Tcp,
    /// The handshake failed: certificate, suites, or no TLS there at all.
    Tls,
    /// The request of HTTP by which a WebSocket begins was none.
    WebSocket,
    /// There are as many connections as may be.
    Limit,
}

impl Step {
    /// All of them, for metrics that begin at zero.
    pub const ALL: [Self; 5] = [Self::Route, Self::Tcp, Self::Tls, Self::WebSocket, Self::Limit];

    /// The name in metrics and pages.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Limit => "limit",
        }
    }
}

/// Why a connection ended that was one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// The peer closed it.
    #[error("the peer closed it")]
    Peer,
    /// The appliance closed it.
    #[error("the appliance closed it")]
    Own,
    /// It broke.
    #[error("{0}")]
    Broken(String),
    /// The end of a message cannot be known.
    #[error(transparent)]
    Framing(FramingError),
    /// The rest of a message did not come in time.
    #[error("the rest of a message did not come")]
    Slow,
    /// Nothing was said for too long.
    #[error("nothing was said for too long")]
    Silent,
    /// What was sent was not taken in time.
    #[error("the peer does not read")]
    Unread,
}

impl Why {
    /// The names in metrics.
    pub const LABELS: [&'static str; 8] =
        ["peer", "own", "broken", "malformed", "too_large", "slow", "silent", "unread"];

    /// The name in metrics.
    #[must_use]
    pub fn as_label(&self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Own => "own",
            Self::Broken(_) => "broken",
            Self::Framing(FramingError::ContentLength) => "malformed",
            Self::Framing(FramingError::TooLarge) => "too_large",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Unread => "unread",
        }
    }
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer.
    Accepted,
    /// The appliance.
    Connected,
}

/// What comes from connections.
#[derive(Debug)]
pub enum Event {
    /// A connection is there.
    Connected {
        /// Its name.
        hop: Hop,
        /// Who opened it.
        direction: Direction,
    },
    /// A whole message.
    Message {
        /// By which connection.
        hop: Hop,
        /// The message.
        payload: Bytes,
    },
    /// A connection could not be made; what was to be sent by it is lost.
    Unreachable {
        /// To whom.
        hop: Hop,
        /// How far it came.
        step: Step,
        /// Why it ended there.
        error: String,
    },
    /// A connection has ended.
    Disconnected {
        /// Which.
        hop: Hop,
        /// Why.
        why: Why,
        /// Whether a message came by it, or the appliance made it: otherwise nothing depends on it.
        used: bool,
    },
    /// The connection has ended by which an address was reached that is not the connection's own.
    Released {
        /// With that address.
        hop: Hop,
    },
    /// A connection was refused or broken off before it was one.
    Refused {
        /// Whose.
        hop: Hop,
        /// How far it came.
        step: Step,
        /// Why.
        error: String,
    },
}

/// What all connections share.
pub(super) struct Shared {
    settings: Settings,
    names: RwLock<HashMap<SocketAddr, String>>,
    table: Mutex<Table>,
    events: mpsc::Sender<Event>,
}

/// All connections. Dropping it stops the listeners; connections end when their peers or their queues do.
pub struct Streams {
    shared: Arc<Shared>,
    _listeners: JoinSet<()>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("connections", &self.len()).finish_non_exhaustive()
    }
}

impl Streams {
    /// Binds the listeners and accepts from now on.
    ///
    /// # Errors
    /// The first listener that cannot be bound.
    pub fn start(settings: Settings) -> Result<(Self, mpsc::Receiver<Event>), BindError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let mut bound = Vec::new();
        for listen in &settings.networks {
            for &(transport, port) in &listen.ports {
                let address = SocketAddr::new(listen.address, port);
                let listener = socket::listen(address, settings.marking).map_err(|error| BindError {
                    network: listen.network,
                    transport,
                    address,
                    error,
                })?;
                bound.push((listen.network, transport, listener));
            }
        }
        let shared = Arc::new(Shared { settings, names: RwLock::default(), table: Mutex::default(), events });
        let mut listeners = JoinSet::new();
        for (network, transport, listener) in bound {
            listeners.spawn(Arc::clone(&shared).accept(network, transport, listener));
        }
        Ok((Self { shared, _listeners: listeners }, receiver))
    }

    /// Sends a message by the connection to a peer, which is made if there is none. Never waits: what becomes of it
    /// is told by events.
    pub fn send(&self, hop: Hop, payload: Bytes) {
        let table = self.shared.table();
        let by = if table.entries.contains_key(&hop) {
            hop
        } else {
            table.reused.get(&hop).copied().unwrap_or(hop)
        };
        if let Some(entry) = table.entries.get(&by) {
            if entry.queue.offer(payload).is_err() {
                debug!(%hop, "a peer does not read; the message is lost");
            }
            return;
        }
        drop(table);
        self.shared.open(hop, payload);
    }

    /// Has what goes to an address of a peer go down the connection that the peer has made (RFC 5923), as long as that
    /// lives. Over TLS the peer must have shown a certificate for the name that this address has to prove.
    pub fn reuse(&self, connection: Hop, target: Hop) {
        let wanted = self.shared.name(target.address);
        let mut table = self.shared.table();
        let Some(entry) = table.entries.get(&connection) else { return };
        let proved = connection.transport == Transport::Tcp
            || entry.proved.iter().any(|name| name.trim_start_matches("sip:").eq_ignore_ascii_case(&wanted));
        let alike = (connection.network, connection.transport) == (target.network, target.transport);
        if proved && alike && entry.direction == Direction::Accepted && table.reused.len() < MOST_REUSED {
            table.reused.insert(target, connection);
        }
    }

    /// The names that the peers at these addresses have to prove by their certificates; others prove their address.
    pub fn set_names(&self, names: HashMap<SocketAddr, String>) {
        *self.shared.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The name that the peer at an address has to prove.
    #[must_use]
    pub fn name(&self, address: SocketAddr) -> String {
        self.shared.name(address)
    }

    /// The connections there are.
    #[must_use]
    pub fn hops(&self) -> Vec<Hop> {
        self.shared.table().entries.keys().copied().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.table().entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn marking(&self) -> Marking {
        self.settings.marking
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.settings.connect_timeout
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.settings.client)
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.settings.server)
    }

    pub(super) fn legacy(&self) -> &LegacyAcceptor {
        &self.settings.legacy
    }

    pub(super) fn origins(&self) -> &[String] {
        &self.settings.origins
    }

    /// The appliance's address on a network.
    pub(super) fn own(&self, network: NetworkId) -> Option<IpAddr> {
        self.settings.networks.iter().find(|listen| listen.network == network).map(|listen| listen.address)
    }

    /// The name that the peer at an address has to prove.
    pub(super) fn name(&self, address: SocketAddr) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&address).cloned().unwrap_or_else(|| address.ip().to_string())
    }

    pub(super) async fn tell(&self, event: Event) {
        // Nobody listens any more when the daemon is on its way out.
        let _ = self.events.send(event).await;
    }

    /// Enters a connection; `None` when there are too many.
    fn enter(&self, hop: Hop, direction: Direction) -> Option<(u64, Queue, Waiting)> {
        let mut table = self.table();
        if !table.has_room(hop, direction, self.settings.limits) {
            return None;
        }
        let (queue, waiting) = queue::queue();
        let id = table.insert(hop, direction, queue.clone());
        Some((id, queue, waiting))
    }

    /// Takes a connection out of the table, unless another has its name by now.
    /// Returns the addresses that were reached by it.
    pub(super) fn leave(&self, hop: Hop, id: u64) -> Vec<Hop> {
        let mut table = self.table();
        match table.entries.get(&hop) {
            Some(entry) if entry.id == id => table.remove(hop),
            _ => Vec::new(),
        }
    }

    /// Notes who a peer has proved to be.
    pub(super) fn prove(&self, hop: Hop, id: u64, proved: Vec<String>) {
        if let Some(entry) = self.table().entries.get_mut(&hop).filter(|entry| entry.id == id) {
            entry.proved = proved;
        }
    }

    fn open(self: &Arc<Self>, hop: Hop, payload: Bytes) {
        let shared = Arc::clone(self);
        let refuse = |shared: Arc<Self>, step, error: &'static str| {
            tokio::spawn(async move {
                shared.tell(Event::Unreachable { hop, step, error: error.to_owned() }).await;
            });
        };
        if hop.transport.is_inward() {
            return refuse(
                shared,
                Step::Route,
                "it is reached down its own connection only, and that has ended",
            );
        }
        let Some((id, queue, waiting)) = self.enter(hop, Direction::Connected) else {
            return refuse(shared, Step::Limit, "there are as many connections as may be");
        };
        // The queue is new and has room.
        let _ = queue.offer(payload);
        tokio::spawn(connection::run(shared, hop, id, Origin::Connect, queue, waiting));
    }

    async fn accept(self: Arc<Self>, network: NetworkId, transport: Transport, listener: TcpListener) {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, %transport, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let hop = Hop { network, transport, address };
            let Some((id, queue, waiting)) = self.enter(hop, Direction::Accepted) else {
                let error = "there are as many connections as may be".to_owned();
                self.tell(Event::Refused { hop, step: Step::Limit, error }).await;
                continue;
            };
            tokio::spawn(connection::run(Arc::clone(&self), hop, id, Origin::Accept(stream), queue, waiting));
        }
    }
}
