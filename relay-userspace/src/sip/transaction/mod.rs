//! Transactions, client and server, as a machine without sockets and clocks.
//!
//! [`Transactions`] absorbs retransmissions, makes its own, acknowledges failures and counts the timers, so that the
//! room above sees each request once and each response it has to act on. Input is a parsed message and `now`;
//! output is a queue of datagrams and of events.
//!
//! Invariant: every transaction has a deadline while it waits for the network, so none stays for ever; the room
//! above bounds the one wait that is its own (an INVITE that rings) by its Timer C.
//! RFC 3261 section 17, RFC 6026 (state Accepted).

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use self::client::Fallback;
pub(crate) use self::client::keyed_hash;
use self::{client::Client, server::Server};
pub use super::Hop;
use super::{
    deadlines::Deadlines,
    wire::{self, Message, Method, Reply},
};
use crate::net::{NetworkId, Transport};

/// A server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u64);

/// A client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

impl ClientId {
    /// Its number: never used twice in a run.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The base timers (RFC 3261 table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// The round-trip estimate: the first retransmission's delay.
    pub t1: Duration,
    /// The longest delay between retransmissions of anything but an INVITE.
    pub t2: Duration,
    /// How long a message stays in the network.
    pub t4: Duration,
    /// Retransmissions of an INVITE over UDP before its peer is given up; 64*T1 is the end in any case.
    pub invite_retries: u32,
    /// Retransmissions of other requests over UDP.
    pub other_retries: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(1),
            t4: Duration::from_secs(5),
            invite_retries: u32::MAX,
            other_retries: u32::MAX,
        }
    }
}

impl Timers {
    /// 64*T1: timers B, F, H, J, L and M.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// When a request other than INVITE is repeated as seldom as it ever is: its sender's timer E has reached T2, which is
    /// four seconds there unless it was told otherwise.
    fn settled(&self) -> Duration {
        const USUAL_T2: Duration = Duration::from_secs(4);
        let (mut interval, mut waited) = (self.t1, Duration::ZERO);
        while interval < self.t2.max(USUAL_T2) && !interval.is_zero() {
            waited += interval;
            interval = interval.saturating_mul(2);
        }
        waited
    }

    /// How long a request waits for its first response: timers B and F, or, over UDP, until the last retransmission
    /// has had its time.
    fn patience(&self, invite: bool, transport: Transport) -> Duration {
        let (retries, most) =
            if invite { (self.invite_retries, Duration::MAX) } else { (self.other_retries, self.t2) };
        let longest = self.timeout();
        if transport.is_reliable() {
            return longest;
        }
        let (mut interval, mut waited) = (self.t1, self.t1);
        for _ in 0..retries {
            interval = interval.saturating_mul(2).min(most);
            waited += interval;
            if waited >= longest || interval.is_zero() {
                return longest;
            }
        }
        waited
    }

    /// A wait that only absorbs what a network may repeat: none over a transport that repeats nothing.
    fn absorbing(wait: Duration, transport: Transport) -> Duration {
        if transport.is_reliable() { Duration::ZERO } else { wait }
    }
}

/// The timers of each network: a slow line to the servers needs others than the office.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkTimers {
    /// Of all networks that have none of their own.
    pub all: Timers,
    /// Of those that have.
    pub own: HashMap<NetworkId, Timers>,
}

impl NetworkTimers {
    /// Those of the network that a hop is on.
    #[must_use]
    pub fn of(&self, hop: Hop) -> Timers {
        self.own.get(&hop.network).copied().unwrap_or(self.all)
    }

    /// The longest 64*T1 of all: what still crosses has come by then.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.own.values().chain([&self.all]).map(Timers::timeout).max().unwrap_or_default()
    }
}

impl From<Timers> for NetworkTimers {
    fn from(all: Timers) -> Self {
        Self { all, own: HashMap::new() }
    }
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To where.
    pub hop: Hop,
    /// The message.
    pub payload: Bytes,
    /// The method, for the metrics.
    pub method: &'static str,
    /// The status code of a response.
    pub status: Option<u16>,
}

/// What a request turned out to be.
#[derive(Debug)]
pub enum Incoming {
    /// A new one: [`Transactions::reply`] or [`Transactions::respond`] answers it.
    New(ServerId),
    /// Seen before: the answer was repeated where there was one.
    Absorbed,
    /// The ACK of a failure, or of nothing known with a branch that was: it ends here.
    AckOfFailure,
    /// An ACK to a 2xx: a request of its own, that goes end to end.
    AckOfSuccess,
    /// A CANCEL: its own transaction and the INVITE it is for, when that is known.
    Cancel(ServerId, Option<ServerId>),
    /// There are as many transactions as allowed.
    Full,
}

/// What a response turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    /// To be acted on.
    Pass(ClientId),
    /// A retransmission, or the answer to a CANCEL of ours: nothing to do.
    Absorbed,
    /// No transaction of ours.
    Stray,
}

/// What happened by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// No (final) response came in time: timers B, F, or the wait after a CANCEL.
    Timeout(ClientId),
    /// The peer cannot be reached: the transport says so.
    Unreachable(ClientId),
    /// The peer cannot be reached by this hop; the request went by its other one.
    FellBack(ClientId, Hop),
    /// A client transaction is over; its id means nothing from now on.
    ClientGone(ClientId),
    /// A server transaction is over.
    ServerGone(ServerId),
    /// The response to a request that came from within.
    Within(u16, Bytes),
}

/// Which CSeq method a client transaction is known by: a CANCEL shares its INVITE's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Request,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    ServerRepeat(u64),
    ServerEnd(u64),
    ClientRepeat(u64, Kind),
    ClientEnd(u64, Kind),
}

/// How many transactions there may be, and how much they may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Server and client transactions together.
    pub count: usize,
    /// Bytes of the messages that they keep.
    pub bytes: usize,
}

/// What of the limits the peers of an address may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All: a server speaks for everybody.
    Whole,
    /// Half: one phone, or all phones behind one address translator, must leave room for the others.
    Half,
}

/// What is kept for requests of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    count: usize,
    bytes: usize,
}

/// All transactions of the appliance.
#[derive(Debug)]
pub struct Transactions {
    timers: NetworkTimers,
    limits: Limits,
    /// Bytes that all transactions keep.
    bytes: usize,
    by_source: HashMap<IpAddr, Held>,
    secret: [u64; 2],
    next_id: u64,
    /// Each in a place of its own, as clients are: the tables grow with a burst and never shrink.
    servers: HashMap<u64, Box<Server>>,
    server_keys: HashMap<Box<[u8]>, u64>,
    /// Reused for look-ups.
    key: Vec<u8>,
    clients: HashMap<(u64, Kind), Box<Client>>,
    deadlines: Deadlines<Timer>,
    out: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Transactions {
    /// None yet. `secret` makes branches unguessable and differs with each run.
    #[must_use]
    pub fn new(timers: impl Into<NetworkTimers>, limits: Limits, secret: [u64; 2]) -> Self {
        Self {
            timers: timers.into(),
            limits,
            bytes: 0,
            by_source: HashMap::new(),
            secret,
            next_id: 1,
            servers: HashMap::new(),
            server_keys: HashMap::new(),
            key: Vec::with_capacity(256),
            clients: HashMap::new(),
            deadlines: Deadlines::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes other timers, for what begins from now on.
    pub fn set_timers(&mut self, timers: NetworkTimers) {
        self.timers = timers;
    }

    /// How many transactions are alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the messages that they keep.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no room for a request from this address.
    fn is_full(&self, source: IpAddr, share: Share) -> bool {
        let Limits { count, bytes } = self.limits;
        let held = self.by_source.get(&source).copied().unwrap_or_default();
        self.len() >= count
            || self.bytes >= bytes
            || (share == Share::Half && (held.count >= count / 2 || held.bytes >= bytes / 2))
    }

    /// When [`Transactions::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.deadlines.pop(now) {
            match timer {
                Timer::ServerRepeat(id) => self.server_repeat(now, id),
                Timer::ServerEnd(id) => self.server_end(id),
                Timer::ClientRepeat(id, kind) => self.client_repeat(now, id, kind),
                Timer::ClientEnd(id, kind) => self.client_end(now, id, kind),
            }
        }
    }

    /// A peer cannot be reached: what was sent to it and has not been heard of fails at once.
    pub fn unreachable(&mut self, now: Instant, hop: Hop) {
        let waiting = |client: &Client| client.hop() == hop && client.is_unheard();
        let lost: Vec<(u64, Kind)> =
            self.clients.iter().filter(|(_, client)| waiting(client)).map(|(key, _)| *key).collect();
        for (id, kind) in lost {
            self.client_unreachable(now, id, kind);
        }
    }

    /// Sends a message outside any transaction: an ACK to a 2xx.
    pub fn send(&mut self, hop: Hop, payload: Bytes, method: &Method) {
        self.out.push_back(Transmit { hop, payload, method: method.as_label(), status: None });
    }

    /// Answers a request without a transaction: nothing is kept, and a retransmission is answered anew.
    pub fn reply_stateless(&mut self, source: Hop, request: &Message, reply: &Reply<'_>) {
        if request.method() == &Method::Ack {
            return; // RFC 3261 17.1.1.3: an ACK is never answered
        }
        let payload = wire::respond(request, source.address, reply);
        self.out.push_back(Transmit {
            hop: reply_to(source, request),
            payload,
            method: request.method().as_label(),
            status: Some(reply.status),
        });
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// Where the responses to a request go: down its connection, or to where its Via says (RFC 3261 18.2.2).
fn reply_to(source: Hop, request: &Message) -> Hop {
    if source.transport.is_reliable() {
        return source;
    }
    Hop { address: request.via().reply_to(source.address), ..source }
}
