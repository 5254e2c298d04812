//! The group of servers.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::server::{
    Evidence, Failure, Health, Key, Output, Rank, Resolution, ServerState, Settings, Target, WhenDown,
};
use crate::{
    config::{Host, ServerUri, Silence},
    sip::Hop,
};

/// What a name that could not be resolved is asked for again after.
const RESOLVE_AGAIN: Duration = Duration::from_secs(15);
/// A server of DNS that says less is asked this often all the same, and one that says more this rarely.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// One that is down is asked no more often than this.
const SHORTEST_PROBE: Duration = Duration::from_secs(5);
/// Addresses that one name may have.
const MOST_ADDRESSES: usize = 16;

#[derive(Debug)]
struct Server {
    uri: ServerUri,
    rank: Rank,
    places: Vec<Key>,
    error: Option<String>,
    /// When the name is asked for again; `None` for an address, or while the question is under way.
    resolve: Option<Instant>,
}

#[derive(Debug)]
struct Peer {
    health: Health,
    since: Instant,
    updated: Option<Instant>,
    known_by: Option<Evidence>,
    /// When it began to fail, and how, while it is not out of service yet.
    failing: Option<(Instant, Failure)>,
    /// Whether it was asked how it is since it failed, or cannot be reached at all: a request that nobody answers may be
    /// the request's fault.
    confirmed: bool,
    /// Until when it is left alone.
    alone: Option<Instant>,
    probe: Option<Instant>,
    probed: Option<Instant>,
    round_trip: Option<Duration>,
}

/// The servers.
#[derive(Debug)]
pub struct Group {
    settings: Settings,
    servers: Vec<Server>,
    peers: HashMap<Key, Peer>,
    preferred: Option<Key>,
    /// Whether a server has answered a request: until then, the first in the list that answers probes is preferred.
    settled: bool,
    out: VecDeque<Output>,
}

impl Group {
    /// A group of which nothing is known yet; names are asked for at once.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let mut group = Self {
            settings: settings.clone(),
            servers: Vec::new(),
            peers: HashMap::new(),
            preferred: None,
            settled: false,
            out: VecDeque::new(),
        };
        group.set(settings, now);
        group
    }

    /// Takes other settings. What is known of servers that stay is kept.
    pub fn set(&mut self, settings: Settings, now: Instant) {
        let mut old = std::mem::take(&mut self.servers);
        let equals = settings.servers.iter().map(|uri| (uri, Rank::Equal));
        for (uri, rank) in equals.chain(settings.lesser.iter().map(|uri| (uri, Rank::Lesser))) {
            if let Some(known) = old.iter().position(|server| &server.uri == uri) {
                let server = old.swap_remove(known);
                self.servers.push(Server { rank, ..server });
                continue;
            }
            let places = match uri.host {
                Host::Ip(ip) => {
                    let port = uri.port.unwrap_or(uri.transport.default_port());
                    vec![(uri.transport, SocketAddr::new(ip, port))]
                }
                Host::Name(_) => Vec::new(),
            };
            let resolve = places.is_empty().then_some(now);
            self.servers.push(Server { uri: uri.clone(), rank, places, error: None, resolve });
        }
        self.settings = settings;
        self.meet(now);
    }

    /// Those to try, the best first: the preferred one, then the others in order, then lesser ones; those that are left
    /// alone last.
    #[must_use]
    pub fn candidates(&self, now: Instant) -> Vec<Target> {
        let mut targets: Vec<Target> = self.targets().collect();
        targets.sort_by_key(|target| {
            let key = target.key();
            let alone = self.peers.get(&key).is_some_and(|peer| {
                matches!(peer.health, Health::Down(_)) && peer.alone.is_some_and(|until| until > now)
            });
            (alone, target.rank, self.preferred != Some(key))
        });
        targets
    }

    /// Whether all of them have failed, if only in a request.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.peers.is_empty() && self.peers.values().all(|peer| matches!(peer.health, Health::Down(_)))
    }

    /// Whether all of them have failed and are left alone for now.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        let rests = |peer: &Peer| {
            matches!(peer.health, Health::Down(_)) && peer.alone.is_some_and(|until| until > now)
        };
        !self.peers.is_empty() && self.peers.values().all(rests)
    }

    /// Whether none of them can serve: each was asked and is down, and no name has an address that may be tried.
    #[must_use]
    pub fn is_out_of_service(&self) -> bool {
        let is_down = |key: &Key| {
            self.peers.get(key).is_some_and(|peer| matches!(peer.health, Health::Down(_)) && peer.confirmed)
        };
        // Where none is configured, none is missed.
        !self.servers.is_empty()
            && self.servers.iter().all(|server| {
                let nowhere = server.places.is_empty() && server.error.is_some();
                nowhere || (!server.places.is_empty() && server.places.iter().all(is_down))
            })
    }

    /// The name in the tables of the peer at a hop, if it is on the group's network.
    fn key_of(&self, hop: Hop) -> Option<Key> {
        (hop.network == self.settings.network).then_some((hop.transport, hop.address))
    }

    fn targets(&self) -> impl Iterator<Item = Target> {
        self.servers.iter().flat_map(|server| {
            server.places.iter().map(|(transport, address)| Target {
                network: self.settings.network,
                server: server.uri.clone(),
                rank: server.rank,
                transport: *transport,
                address: *address,
            })
        })
    }

    /// The addresses of all servers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.servers.iter().flat_map(|server| server.places.iter().map(|(_, address)| address.ip()))
    }

    /// The names that servers have to prove by their certificates, by address.
    #[must_use]
    pub fn names(&self) -> HashMap<SocketAddr, String> {
        let named = self.servers.iter().filter_map(|server| match &server.uri.host {
            Host::Name(name) => Some((name, &server.places)),
            Host::Ip(_) => None,
        });
        named
            .flat_map(|(name, places)| places.iter().map(move |(_, address)| (*address, name.clone())))
            .collect()
    }

    /// A server has answered a probe, or another request.
    pub fn succeeded(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        let Some(key) = self.key_of(hop) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if evidence == Evidence::Probe
            && let Some(asked) = peer.probed.take()
        {
            peer.round_trip = Some(now.saturating_duration_since(asked));
        }
        peer.alone = None;
        peer.failing = None;
        peer.confirmed = false;
        peer.probe = match (self.settings.probe, evidence) {
            (None, _) => None,
            (Some(_), Evidence::Probe) => peer.probe,
            // It need not be asked what it has just shown.
            (Some(every), Evidence::Answer | Evidence::Request) => Some(now + every),
        };
        self.change(now, key, Health::Up, evidence);
        let is_up = |key: &Key| self.peers.get(key).is_some_and(|peer| peer.health == Health::Up);
        if !self.settled || self.preferred.is_none_or(|preferred| !is_up(&preferred)) {
            let equals = self.targets().filter(|target| target.rank == Rank::Equal);
            let best = equals.map(|target| target.key()).find(is_up);
            if let Some(best) = best {
                self.prefer(best);
            }
        }
    }

    /// A request was answered by this server: it is the one to try first from now on.
    pub fn chosen(&mut self, now: Instant, hop: Hop) {
        self.succeeded(now, hop, Evidence::Answer);
        let Some(key) = self.key_of(hop) else { return };
        if self.targets().any(|target| target.rank == Rank::Equal && target.key() == key) {
            self.settled = true;
            self.prefer(key);
        }
    }

    /// A server was heard of otherwise: it has answered a request that stays with it whatever it answers, or sent one of its
    /// own. It need not be asked how it is for as long as it is asked otherwise. That brings none back which is down, since
    /// what does not reach it may be new calls alone; but such a one is asked at once.
    pub fn heard(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        let Some(key) = self.key_of_sender(hop) else { return };
        let Settings { probe, when_down, .. } = self.settings;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.health {
            Health::Unknown if evidence == Evidence::Request => {}
            Health::Up | Health::Unknown => {
                let (transport, address) = key;
                self.succeeded(now, Hop { transport, address, ..hop }, evidence);
            }
            Health::Down(_) => {
                let lately = |at: Instant| now.saturating_duration_since(at) < SHORTEST_PROBE;
                let asked = probe.is_some() || when_down == WhenDown::Asked;
                if asked && peer.probed.is_none() && !peer.updated.is_some_and(lately) {
                    peer.probe = Some(now);
                }
            }
        }
    }

    /// The name in the tables of who sends from a hop: a connection that a server has made comes from any port of its
    /// address, which tells who it is if no other server has it.
    fn key_of_sender(&self, hop: Hop) -> Option<Key> {
        let key = self.key_of(hop)?;
        if self.peers.contains_key(&key) || !hop.transport.is_reliable() {
            return Some(key);
        }
        let mut there = self
            .peers
            .keys()
            .filter(|(transport, address)| (*transport, address.ip()) == (hop.transport, hop.address.ip()));
        there.next().filter(|_| there.next().is_none()).copied()
    }

    /// A server has not answered when it was asked how it is, or cannot be reached at all.
    pub fn found_down(&mut self, now: Instant, hop: Hop, failure: Failure) {
        if let Some(peer) = self.key_of(hop).and_then(|key| self.peers.get_mut(&key)) {
            peer.confirmed = true;
        }
        self.fails(now, hop, failure, Evidence::Probe);
    }

    /// A server did not answer a request, or said that it cannot serve. It is asked how it is at once, if it is asked at
    /// all.
    pub fn failed(&mut self, now: Instant, hop: Hop, failure: Failure) {
        self.fails(now, hop, failure, Evidence::Answer);
    }

    fn fails(&mut self, now: Instant, hop: Hop, failure: Failure, evidence: Evidence) {
        let Some(key) = self.key_of(hop) else { return };
        let patience = self.settings.patience;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.probed = None;
        peer.known_by = Some(evidence);
        if !matches!(peer.health, Health::Down(_)) && !patience.is_zero() {
            let (since, last) = peer.failing.get_or_insert_with(|| (now, failure.clone()));
            *last = failure.clone();
            if now.saturating_duration_since(*since) < patience {
                return;
            }
        }
        self.take_out_of_service(now, key, failure);
    }

    fn take_out_of_service(&mut self, now: Instant, key: Key, failure: Failure) {
        let Settings { probe, when_down, recovery, .. } = self.settings;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.failing = None;
        peer.alone = Some(now + recovery);
        let confirmed = peer.confirmed;
        let evidence = peer.known_by.unwrap_or(Evidence::Answer);
        self.change(now, key, Health::Down(failure), evidence);
        if when_down == WhenDown::Asked && !confirmed {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.probe = Some(now);
            }
        } else if when_down == WhenDown::Asked {
            let all = self.is_out_of_service();
            // The office waits for the first that is back; where another serves, there is time.
            let at = now + if all { SHORTEST_PROBE } else { recovery.max(SHORTEST_PROBE) };
            let wanted = |peer: &Key| all || (probe.is_none() && *peer == key);
            for (_, peer) in self.peers.iter_mut().filter(|(peer, _)| wanted(peer)) {
                peer.probe = Some(peer.probe.map_or(at, |before| before.min(at)));
            }
        }
        if self.preferred == Some(key) {
            let next = self.candidates(now).into_iter().find(|target| {
                target.key() != key
                    && target.rank == Rank::Equal
                    && self.peers.get(&target.key()).is_some_and(|peer| peer.health == Health::Up)
            });
            if let Some(next) = next {
                self.prefer(next.key());
            }
        }
    }

    /// What a name resolved to, or why it did not.
    pub fn resolved(&mut self, now: Instant, uri: &ServerUri, result: Result<Resolution, String>) {
        let Some(server) = self.servers.iter_mut().find(|server| &server.uri == uri) else { return };
        let again = match result {
            Ok(mut found) if !found.places.is_empty() => {
                let mut seen = Vec::new();
                found.places.retain(|place| {
                    !seen.contains(place) && {
                        seen.push(*place);
                        seen.len() <= MOST_ADDRESSES
                    }
                });
                server.places = found.places;
                server.error = None;
                found.ttl.clamp(SHORTEST_TTL, LONGEST_TTL)
            }
            Ok(_) => {
                server.error = Some("the name has no address".to_owned());
                RESOLVE_AGAIN
            }
            Err(error) => {
                server.error = Some(error);
                RESOLVE_AGAIN
            }
        };
        server.resolve = Some(now + again);
        self.meet(now);
    }

    /// When [`Group::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let names = self.servers.iter().filter_map(|server| server.resolve);
        let probes = self.peers.values().filter_map(|peer| peer.probe);
        let failing = self.peers.values().filter_map(|peer| peer.failing.as_ref());
        names.chain(probes).chain(failing.map(|(since, _)| *since + self.settings.patience)).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Called with every timer of a transaction; its own are rare.
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for server in &mut self.servers {
            if server.resolve.is_some_and(|at| at <= now) {
                server.resolve = None;
                self.out.push_back(Output::Resolve(server.uri.clone()));
            }
        }
        let waits = self.settings.when_down == WhenDown::Asked && self.is_out_of_service();
        let targets: Vec<Target> = self.targets().collect();
        for target in &targets {
            let Some(peer) = self.peers.get(&target.key()) else { continue };
            let failing = peer.failing.as_ref().filter(|(since, _)| *since + self.settings.patience <= now);
            if let Some((_, failure)) = failing.cloned() {
                self.take_out_of_service(now, target.key(), failure);
            }
        }
        for target in targets {
            let Some(peer) = self.peers.get_mut(&target.key()) else { continue };
            if peer.probe.is_some_and(|at| at <= now) {
                let every = self.settings.probe;
                let every = if waits {
                    Some(every.map_or(SHORTEST_PROBE, |every| every.min(SHORTEST_PROBE)))
                } else {
                    every
                };
                peer.probe = every.map(|every| now + every);
                peer.probed = Some(now);
                self.out.push_back(Output::Probe(target));
            }
        }
    }

    /// Asks every server how it is as soon as may be: something has changed that may have brought one back.
    pub fn probe_now(&mut self, now: Instant) {
        for peer in self.peers.values_mut().filter(|peer| peer.probe.is_some()) {
            peer.probe = Some(now);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// How the servers are, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<ServerState> {
        let mut states = Vec::new();
        let may_stand_by = self.settings.silence == Silence::Standby
            && self.peers.values().any(|peer| peer.health == Health::Up);
        for server in &self.servers {
            let unresolved = server.error.clone();
            if server.places.is_empty() {
                states.push(ServerState {
                    group: String::new(),
                    rank: server.rank,
                    server: server.uri.clone(),
                    address: None,
                    transport: None,
                    health: Health::Unknown,
                    since: None,
                    updated: None,
                    known_by: None,
                    round_trip: None,
                    preferred: false,
                    standby: false,
                    unresolved,
                });
                continue;
            }
            for key in server.places.iter().copied() {
                let peer = self.peers.get(&key);
                states.push(ServerState {
                    group: String::new(),
                    rank: server.rank,
                    server: server.uri.clone(),
                    address: Some(key.1),
                    transport: Some(key.0),
                    health: peer.map_or(Health::Unknown, |peer| peer.health.clone()),
                    since: peer.map(|peer| peer.since),
                    updated: peer.and_then(|peer| peer.updated),
                    known_by: peer.and_then(|peer| peer.known_by),
                    round_trip: peer.and_then(|peer| peer.round_trip),
                    preferred: self.preferred == Some(key),
                    standby: may_stand_by
                        && peer.is_some_and(|peer| peer.health == Health::Down(Failure::Silent)),
                    unresolved: unresolved.clone(),
                });
            }
        }
        states
    }

    /// Makes and forgets what is kept of each address.
    fn meet(&mut self, now: Instant) {
        let keys: Vec<Key> = self.targets().map(|target| target.key()).collect();
        self.peers.retain(|key, _| keys.contains(key));
        let every = self.settings.probe;
        for key in &keys {
            let peer = self.peers.entry(*key).or_insert_with(|| Peer {
                health: Health::Unknown,
                since: now,
                updated: None,
                known_by: None,
                failing: None,
                confirmed: false,
                alone: None,
                probe: Some(now),
                probed: None,
                round_trip: None,
            });
            match every {
                None if matches!(peer.health, Health::Down(_)) => {}
                None => peer.probe = None,
                // A shorter period holds at once.
                Some(every) => peer.probe = Some(peer.probe.map_or(now, |at| at.min(now + every))),
            }
        }
        if self.preferred.is_some_and(|preferred| !keys.contains(&preferred)) {
            self.preferred = None;
        }
    }

    fn change(&mut self, now: Instant, key: Key, health: Health, evidence: Evidence) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.updated = Some(now);
        peer.known_by = Some(evidence);
        if peer.health == health {
            return;
        }
        peer.health = health.clone();
        peer.since = now;
        let target = self.targets().find(|target| target.key() == key);
        self.out.extend(target.map(|target| Output::Changed { target, health }));
    }

    fn prefer(&mut self, key: Key) {
        if self.preferred.replace(key) == Some(key) {
            return;
        }
        let target = self.targets().find(|target| target.key() == key);
        self.out.extend(target.map(Output::Preferred));
    }
}
