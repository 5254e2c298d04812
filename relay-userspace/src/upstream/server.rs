//! What is told of a group's servers, and what can be said of them.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    config::{ServerUri, Silence},
    net::{NetworkId, Transport},
    sip::{Hop, transport::Step},
};

/// A server at one of its addresses: by what it is reached, and where.
pub(super) type Key = (Transport, SocketAddr);

/// What the group is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The network that they are on.
    pub network: NetworkId,
    /// The servers, in order of preference: equals.
    pub servers: Vec<ServerUri>,
    /// Lesser services, in order: they are tried while no equal serves, and none of them is remembered as the one to try
    /// first.
    pub lesser: Vec<ServerUri>,
    /// How often each is asked by OPTIONS how it is; `None`: never.
    pub probe: Option<Duration>,
    /// Whether one that is down is asked although none is asked otherwise.
    pub when_down: WhenDown,
    /// How long one has to fail before it is out of service; zero: it is with its first failure.
    pub patience: Duration,
    /// How long one that failed is left alone.
    pub recovery: Duration,
    /// What silence means where another one answers.
    pub silence: Silence,
}

/// What becomes of a server that is down, where none is asked how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// It is asked: nobody else would find out that it is back.
    Asked,
    /// It is not: the next request that is sent to it finds out.
    Left,
}

impl Settings {
    /// Servers of a network that are never asked, are out of service with their first failure, and are then left alone for
    /// a minute.
    #[must_use]
    pub fn new(network: NetworkId, servers: Vec<ServerUri>) -> Self {
        Self {
            network,
            servers,
            lesser: Vec::new(),
            probe: None,
            when_down: WhenDown::Left,
            patience: Duration::ZERO,
            recovery: Duration::from_secs(60),
            silence: Silence::Failure,
        }
    }

    /// All servers, the lesser ones last.
    pub fn all(&self) -> impl Iterator<Item = &ServerUri> {
        self.servers.iter().chain(&self.lesser)
    }
}

/// Whether a server is one of the equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It is.
    Equal,
    /// It is used while no equal serves.
    Lesser,
}

/// One server at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The network that it is on.
    pub network: NetworkId,
    /// The configured server that it belongs to.
    pub server: ServerUri,
    /// Whether it is one of the equals.
    pub rank: Rank,
    /// By what it is reached.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

impl Target {
    pub(super) fn key(&self) -> Key {
        (self.transport, self.address)
    }

    /// Where it is.
    #[must_use]
    pub fn hop(&self) -> Hop {
        Hop { network: self.network, transport: self.transport, address: self.address }
    }
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing was heard of it yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down(Failure),
}

/// Why a server is thought to be down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connection(Step, String),
    /// No answer to a request.
    Silent,
    /// It says so itself.
    Status(u16),
}

impl Failure {
    /// At which step it failed: a name in metrics and pages.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Connection(step, _) => step.as_label(),
            Self::Silent | Self::Status(_) => "sip",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(Step::Route, error) => write!(f, "there is no way to it: {error}"),
            Self::Connection(Step::Tcp, error) => write!(f, "no TCP connection: {error}"),
            Self::Connection(Step::Tls, error) => write!(f, "TLS: {error}"),
            Self::Connection(Step::WebSocket | Step::Limit, error) => f.write_str(error),
            Self::Silent => f.write_str("it does not answer SIP"),
            Self::Status(status) => write!(f, "it answers {status}"),
        }
    }
}

/// What last told how a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// An OPTIONS of ours, answered or not.
    Probe,
    /// An answer to a phone's request, or that there was none.
    Answer,
    /// A request of its own.
    Request,
}

impl Evidence {
    /// A name in pages and for programs.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Answer => "answer",
            Self::Request => "request",
        }
    }
}

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The places, in the order in which they are to be tried: by what, and where.
    pub places: Vec<(Transport, SocketAddr)>,
    /// How long this holds.
    pub ttl: Duration,
}

/// What the group wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A name to resolve: the answer is [`Group::resolved`](super::Group::resolved).
    Resolve(ServerUri),
    /// A server to ask how it is: the answer is [`Group::succeeded`](super::Group::succeeded) or
    /// [`Group::failed`](super::Group::failed).
    Probe(Target),
    /// A server came up or went down.
    Changed {
        /// Which.
        target: Target,
        /// What it is now.
        health: Health,
    },
    /// Another server is the one that is tried first.
    Preferred(Target),
}

/// What can be said of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// The group that it is in, by name; empty for a trunk.
    pub group: String,
    /// Whether it is one of the equals.
    pub rank: Rank,
    /// As configured.
    pub server: ServerUri,
    /// At which address; `None` while its name has none.
    pub address: Option<SocketAddr>,
    /// By what it is reached there.
    pub transport: Option<Transport>,
    /// How it is.
    pub health: Health,
    /// Since when.
    pub since: Option<Instant>,
    /// When it was last found to be so.
    pub updated: Option<Instant>,
    /// What it was found by.
    pub known_by: Option<Evidence>,
    /// How long its last answer to a probe took.
    pub round_trip: Option<Duration>,
    /// Whether it is the one that is tried first.
    pub preferred: bool,
    /// Whether its silence means no more than that it stands by.
    pub standby: bool,
    /// Why its name does not resolve.
    pub unresolved: Option<String>,
}
