//! What the proxy is told: networks, servers, whom to trust, timers and limits.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{admission::Capacity, peers::Peers, routing::Routing};
use crate::{
    config::{ChallengePolicy, DualRegistration, HoldStyle, Redirects, ServerUri, Silence, StatusRange},
    net::{Identity, NetworkId, Role, Transport},
    registrar, sdp,
    sip::{
        Hop,
        transaction::{self, NetworkTimers},
        wire::{DEFAULT_PORT, Uri},
    },
    upstream::GroupSettings,
};

/// One network of the appliance, as SIP sees it.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its handle.
    pub id: NetworkId,
    /// Its name, for messages to people.
    pub name: String,
    /// Who lives there.
    pub role: Role,
    /// Whether it is within the trust domain.
    pub identity: Identity,
    /// The address that the SIP sockets are bound to.
    pub bound: IpAddr,
    /// The address that peers are told.
    pub advertised: IpAddr,
    /// The ports, by transport.
    pub ports: Ports,
    /// When phones of authentication entries have to prove themselves.
    pub challenge: ChallengePolicy,
    /// Bytes of the largest packet on its interface; `None` where that is not known.
    pub mtu: Option<usize>,
}

/// The SIP ports of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// For UDP.
    pub udp: u16,
    /// For TCP, if connections are taken.
    pub tcp: Option<u16>,
    /// For TLS, if connections are taken.
    pub tls: Option<u16>,
    /// For TLS of old phones, likewise.
    pub legacy_tls: Option<u16>,
    /// For WebSocket.
    pub ws: Option<u16>,
    /// For WebSocket in TLS.
    pub wss: Option<u16>,
}

impl Ports {
    /// The port that is listened on.
    #[must_use]
    pub fn open(&self, transport: Transport) -> Option<u16> {
        match transport {
            Transport::Udp => Some(self.udp),
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
            Transport::LegacyTls => self.legacy_tls,
            Transport::Ws => self.ws,
            Transport::Wss => self.wss,
        }
    }

    /// The port that peers are told. Where no connections are taken it is the transport's default: requests come down
    /// the connections that the appliance makes.
    #[must_use]
    pub fn of(&self, transport: Transport) -> u16 {
        self.open(transport).unwrap_or(transport.default_port())
    }
}

impl Network {
    /// Address and port that peers are told for a transport.
    #[must_use]
    pub fn advertised(&self, transport: Transport) -> SocketAddr {
        SocketAddr::new(self.advertised, self.ports.of(transport))
    }
}

/// The servers that phones' requests go to.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The network they are on.
    pub network: NetworkId,
    /// They, in order of preference.
    pub servers: Vec<ServerUri>,
    /// How often each is asked by OPTIONS how it is; `None`: never.
    pub probe: Option<Duration>,
    /// How long one has to fail before it is out of service.
    pub patience: Duration,
    /// How long one that failed is left alone.
    pub recovery: Duration,
    /// Final answers that make the next one be tried.
    pub retry: Vec<StatusRange>,
    /// What becomes of redirections.
    pub redirects: Redirects,
    /// What silence means where another server answers.
    pub silence: Silence,
    /// Whether phones are registered with two of them at once.
    pub dual: DualRegistration,
}

impl Upstream {
    /// Servers without probes and with the usual answers that make the next one be tried.
    #[must_use]
    pub fn new(network: NetworkId, servers: Vec<ServerUri>) -> Self {
        let retry = StatusRange::reference();
        Self {
            network,
            servers,
            probe: None,
            patience: Duration::ZERO,
            recovery: Duration::from_secs(60),
            retry,
            redirects: Redirects::Follow,
            silence: Silence::Failure,
            dual: DualRegistration::Off,
        }
    }
}

/// Bytes of a request above which it goes by TCP where the path's MTU is not known (RFC 3261 18.1.1).
const TCP_ABOVE: usize = 1300;

/// What there may be at one time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls from INVITE to their end.
    pub calls: usize,
    /// Transactions, client and server.
    pub transactions: transaction::Limits,
    /// Bindings.
    pub bindings: registrar::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            // A hundred thousand requests of the usual size, with their copies on the way out, keep about this much.
            transactions: transaction::Limits { count: 100_000, bytes: 256 << 20 },
            bindings: registrar::Limits::default(),
        }
    }
}

/// Everything the proxy is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The networks.
    pub networks: Vec<Network>,
    /// The servers.
    pub upstream: Upstream,
    /// Groups of servers for some of the phones.
    pub groups: Vec<GroupSettings>,
    /// The addresses of all servers as last resolved: who on a servers' network is one of them.
    pub server_addresses: Vec<IpAddr>,
    /// What networks take of calls, those that have a limit.
    pub capacities: HashMap<NetworkId, Capacity>,
    /// What is converted for each peer.
    pub peers: Peers,
    /// Rules, trunks, emergency numbers, and what the office does on its own.
    pub routing: Routing,
    /// Who on a servers' network may send requests, besides the servers' own addresses.
    pub trusted: Vec<IpNet>,
    /// T1, T2, T4 and retransmissions, by network.
    pub timers: NetworkTimers,
    /// How long an INVITE may ring (RFC 3261 16.6 step 11: more than 3 minutes).
    pub timer_c: Duration,
    /// Requests to servers above so many bytes go by TCP instead of UDP; `None`: never.
    pub tcp_above: Option<usize>,
    /// Limits.
    pub limits: Limits,
    /// Random, another one with each run: branches and tags are made with it.
    pub secret: [u64; 2],
    /// Random, the same in every run: the tokens of bindings are made with it.
    pub lasting_secret: [u64; 2],
}

impl Settings {
    /// Settings with the usual timers and limits.
    #[must_use]
    pub fn new(networks: Vec<Network>, upstream: Upstream, secret: [u64; 2]) -> Self {
        Self {
            networks,
            upstream,
            groups: Vec::new(),
            server_addresses: Vec::new(),
            capacities: HashMap::new(),
            peers: Peers::default(),
            routing: Routing::default(),
            trusted: Vec::new(),
            timers: NetworkTimers::default(),
            timer_c: Duration::from_secs(180),
            tcp_above: Some(TCP_ABOVE),
            limits: Limits::default(),
            secret,
            lasting_secret: secret,
        }
    }

    pub(super) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// How the peer at a hop is held; `None`: as the other side says it.
    pub(super) fn hold_of(&self, peer: Hop) -> Option<sdp::HoldBy> {
        match self.peers.of(peer.network, peer.address.ip()).hold {
            HoldStyle::AsSent => None,
            HoldStyle::Direction => Some(sdp::HoldBy::Direction),
            HoldStyle::ZeroAddress => Some(sdp::HoldBy::ZeroAddress),
        }
    }

    /// Whether an address on the servers' side may send requests. The appliance's own may: when a server that stays
    /// out of the dialog joins two phones of one office, the appliance is its own next hop.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.server_addresses.contains(&address)
            || self.trusts_peer(address)
            || self.networks.iter().any(|own| own.bound == address || own.advertised == address)
    }

    /// Whether an address is one of the configured peers beside the servers.
    pub(super) fn trusts_peer(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(&address))
    }

    /// Whether a URI's host and port are the appliance's own. A URI without a port may mean any of its ports: phones
    /// are often configured with the address alone.
    pub(super) fn is_ours(&self, uri: &Uri<'_>) -> bool {
        let Some(ip) = uri.ip().filter(|_| uri.is_sip()) else { return false };
        self.networks.iter().any(|own| {
            let ports = || {
                let told = Transport::ALL
                    .into_iter()
                    .filter(|transport| !transport.is_inward() || own.ports.open(*transport).is_some());
                told.map(|transport| own.ports.of(transport))
            };
            (own.bound == ip || own.advertised == ip)
                && uri.port.is_none_or(|port| ports().any(|own| own == port))
        })
    }
}

/// Host and port as they stand in a URI: the default port is not written.
pub(super) fn host_port(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.port() == DEFAULT_PORT => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == DEFAULT_PORT => format!("[{}]", v6.ip()),
        other => other.to_string(),
    }
}
