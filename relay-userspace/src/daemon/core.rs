//! The daemon's one shared state: the proxy with its media plane, and the sockets that its messages leave
//! by. Every input takes the lock, feeds the state machine, and sends what came out after giving the lock
//! back.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc},
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    certificates::{Certificates, now_unix},
    measures::Measures,
    names,
    plane::MediaPlane,
    protection::Protection,
    quality::Ledger,
    start::credentials,
    traces::Tracing,
};
use crate::{
    capture::{CaptureError, Captures, Target, Wanted},
    config::{Config, ServerUri},
    datapath::{Engine, RtcpPacket, Way, monotonic_ns, unix_ns},
    media::Marks,
    net::{Dscp, NetworkId, Transport},
    proxy::{self, Measure, Outcome, Output, Proxy},
    sip::{
        Hop,
        digest::Ha1,
        transport::{Event, Streams},
    },
    store::{Entry, KeptDigest, Store, StoreError},
    symptoms::Symptom,
    upstream::{self, Health, SurvivalChange},
};

/// Bytes of the largest UDP datagram.
const DATAGRAM: usize = 65_535;
/// Datagrams that are taken from a socket before others get their turn.
const TURN: usize = 64;
/// Turns of a socket that go before timers which are late: more than its buffer holds, unless it was made larger.
const TURNS_BEHIND: usize = 64;
/// A timer that is served so late was held up by more than the messages of an ordinary moment.
const LATE: Duration = Duration::from_millis(500);
/// What the runtime needs to see what has come, and connections to read it.
const HAND_OVER: Duration = Duration::from_millis(50);
/// How often silent calls are looked for, and jitter is entered.
const TICK: Duration = Duration::from_secs(5);

/// What a lock protects.
pub(super) struct State {
    pub(super) proxy: Proxy,
    pub(super) plane: MediaPlane,
}

/// The daemon's shared state.
pub(super) struct Core {
    state: Mutex<State>,
    /// The figures of the calls; its lock may be taken while the state's is held, never the other way round.
    quality: Arc<Mutex<Ledger>>,
    pub(super) engine: Arc<Engine>,
    pub(super) measures: Measures,
    sockets: Vec<Arc<UdpSocket>>,
    pub(super) streams: Streams,
    pub(super) certificates: Certificates,
    pub(super) store: Arc<Store>,
    pub(super) captures: Arc<Captures>,
    pub(super) traces: Tracing,
    /// What SIP leaves with.
    sip_dscp: Dscp,
    /// The servers of DNS to ask; none: the system's.
    dns: Mutex<Vec<IpAddr>>,
    /// Who is denied, trusted and known.
    protection: Mutex<Protection>,
    /// The configured peers beside the servers.
    peers: Mutex<Vec<IpNet>>,
    /// Whether passwords of entries are kept although servers have taken them.
    keeps_passwords: AtomicBool,
    /// Held by who reads authentication entries, changes them and has them used: a day's forgetting must not undo what an
    /// administrator has just set.
    entries: Mutex<()>,
    /// What was wrong when last looked at.
    symptoms: Mutex<Vec<Symptom>>,
    /// Woken when the daemon shall start anew.
    pub(super) restart: Notify,
    /// Woken when the proxy's next deadline may have changed.
    deadline: Notify,
}

/// What is done after the lock was given back.
enum Task {
    /// A message to send.
    Transmit(Hop, Bytes),
    /// A name to resolve.
    Resolve(ServerUri),
    /// What stands for an entry's password in a realm is to be kept.
    LearnRealm(String, String),
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "each is a room of its own")]
    pub(super) fn new(
        proxy: Proxy,
        plane: MediaPlane,
        quality: Arc<Mutex<Ledger>>,
        engine: Arc<Engine>,
        measures: Measures,
        sockets: Vec<Arc<UdpSocket>>,
        streams: Streams,
        certificates: Certificates,
        store: Arc<Store>,
        captures: Arc<Captures>,
        traces: Tracing,
        config: &Config,
    ) -> Self {
        Self {
            state: Mutex::new(State { proxy, plane }),
            quality,
            engine,
            measures,
            sockets,
            streams,
            certificates,
            store,
            captures,
            traces,
            sip_dscp: config.dscp.sip,
            dns: Mutex::new(config.upstream.dns.clone()),
            protection: Mutex::new(Protection::new(config.protection.clone())),
            peers: Mutex::new(config.upstream.trusted.clone()),
            keeps_passwords: AtomicBool::new(config.sip.keep_entry_passwords),
            entries: Mutex::default(),
            symptoms: Mutex::default(),
            restart: Notify::new(),
            deadline: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is denied, trusted and known.
    pub(super) fn protection(&self) -> MutexGuard<'_, Protection> {
        self.protection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the kernel's rules into line with who is denied, trusted and known now.
    pub(super) fn protect(&self) {
        let (servers, phones) = {
            let state = self.state();
            let trunks = state.proxy.trunks().into_iter().flat_map(|trunk| trunk.servers);
            let servers = state.proxy.servers().into_iter().chain(trunks);
            let servers = servers.filter_map(|server| server.address);
            let servers: Vec<IpNet> = servers.map(|address| address.ip().into()).collect();
            (servers, state.proxy.bindings().map(|binding| binding.source.address.ip()).collect::<Vec<_>>())
        };
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rules = self.protection().rules(Instant::now(), servers.into_iter().chain(peers), phones);
        self.engine.set_rules(&rules);
    }

    /// The figures of the calls.
    pub(super) fn quality(&self) -> MutexGuard<'_, Ledger> {
        self.quality.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong when last looked at.
    pub(super) fn symptoms(&self) -> Vec<Symptom> {
        self.symptoms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_symptoms(&self, found: Vec<Symptom>) {
        *self.symptoms.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Feeds the state machine and returns what it wants done.
    fn feed(&self, input: impl FnOnce(&mut State)) -> Vec<Task> {
        let mut state = self.state();
        input(&mut state);
        let mut tasks = Vec::new();
        while let Some(output) = state.proxy.poll_output() {
            match output {
                Output::Transmit { hop, payload } => tasks.push(Task::Transmit(hop, payload)),
                Output::Reuse { connection, target } => self.streams.reuse(connection, target),
                Output::Measure(Measure::Offence(source)) => {
                    self.protection().offended(Instant::now(), source);
                }
                Output::Measure(Measure::Scanner(source)) => {
                    self.protection().scanned(Instant::now(), source);
                }
                Output::Measure(measure) => self.measures.enter(measure),
                Output::Upstream(upstream::Output::Resolve(server)) => tasks.push(Task::Resolve(server)),
                Output::Upstream(news) => self.server_news(None, &news),
                Output::Trunk(_, upstream::Output::Resolve(server)) => tasks.push(Task::Resolve(server)),
                Output::Destination(_, upstream::Output::Resolve(server)) => {
                    tasks.push(Task::Resolve(server));
                }
                Output::Destination(name, news) => destination_news(&name, &news),
                Output::Trunk(trunk, news) => self.server_news(Some(&trunk), &news),
                Output::Realm { registration_id, realm } => {
                    tasks.push(Task::LearnRealm(registration_id, realm));
                }
                Output::Survival(group, change) => self.survival_news(&group, change),
            }
        }
        for stream in self.quality().take_finished() {
            self.measures.stream_ended(&stream);
        }
        // Before the session description leaves that brings packets to a new flow.
        let touched = state.plane.take_touched();
        touched.iter().for_each(|key| state.proxy.touch_named(key));
        self.tap_flows(&state, &touched);
        drop(state);
        self.deadline.notify_one();
        tasks
    }

    async fn work(self: &Arc<Self>, tasks: Vec<Task>) {
        for task in tasks {
            if let Task::Transmit(hop, payload) = &task {
                self.passed(Way::Out, *hop, payload);
            }
            match task {
                Task::Transmit(hop, payload) if hop.transport == Transport::Udp => {
                    let Some(socket) = self.sockets.get(hop.network.index()) else { continue };
                    // A message that cannot be sent is as good as lost on the way: the timers see to it.
                    if let Err(error) = socket.send_to(&payload, hop.address).await {
                        debug!(%error, destination = %hop, "sending SIP");
                    }
                }
                Task::Transmit(hop, payload) => self.streams.send(hop, payload),
                Task::Resolve(server) => {
                    let dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    tokio::spawn(names::resolve(Arc::clone(self), server, dns));
                }
                Task::LearnRealm(registration_id, realm) => {
                    let core = Arc::clone(self);
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = core.learn_realm(&registration_id, &realm) {
                            warn!(%error, registration = registration_id, "what stands for an entry's password cannot be kept");
                        }
                    });
                }
            }
        }
    }

    /// A message has come or goes: for captures and traces.
    fn passed(&self, way: Way, hop: Hop, payload: &Bytes) {
        let dscp = if way == Way::In { Dscp::DEFAULT } else { self.sip_dscp };
        self.captures.message(way, hop, payload, dscp);
        self.traces.room.message(unix_ns(), way, hop, payload);
    }

    /// Has the flows of captured calls copied. `touched` are the media sessions in which something was negotiated since
    /// the last time: those of an address are looked for among them alone.
    fn tap_flows(&self, state: &State, touched: &[Vec<u8>]) {
        for sighting in self.captures.sightings() {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for call_id in &sighting.calls {
                keys.extend(state.proxy.calls_named(call_id).map(|call| call.media_key.to_vec()));
            }
            for key in touched.iter().filter(|_| !sighting.addresses.is_empty()) {
                if !keys.contains(key) && self.has_media_of(state, key, &sighting.addresses) {
                    if let Some(call) = state.proxy.calls().find(|call| call.media_key == *key) {
                        self.captures.belongs(&sighting.name, &call.call_id);
                    }
                    keys.push(key.clone());
                }
            }
            for key in keys {
                let session = state.plane.sessions.query(&key);
                for stream in session.into_iter().flat_map(|session| session.streams) {
                    self.engine.attach_tap(Instant::now(), &stream.flows, &sighting.tap);
                }
            }
        }
    }

    /// Whether media of a session comes from, or goes to, one of these addresses.
    fn has_media_of(&self, state: &State, key: &[u8], addresses: &[IpNet]) -> bool {
        let session = state.plane.sessions.query(key);
        let mut flows =
            session.into_iter().flat_map(|session| session.streams).flat_map(|stream| stream.flows);
        flows.any(|local| {
            let Some(report) = self.engine.report(local) else { return false };
            let learned = report.learned.map(|(source, _)| source);
            let mut ends = [report.spec.signalled, learned, report.destination].into_iter().flatten();
            ends.any(|end| addresses.iter().any(|net| net.contains(&end.ip())))
        })
    }

    /// The addresses that a target is of now.
    fn addresses_of(state: &State, target: &Target) -> Vec<IpNet> {
        /// A phone has one or two; a shared line more.
        const MOST: usize = 64;
        match target {
            Target::Call(_) => Vec::new(),
            Target::Address(net) => vec![*net],
            Target::Phone(_) => {
                let bindings = state.proxy.bindings();
                let own = bindings.filter(|binding| target.is_phone(&String::from_utf8_lossy(&binding.aor)));
                let mut addresses: Vec<IpNet> =
                    own.map(|binding| binding.source.address.ip().into()).take(MOST).collect();
                addresses.dedup();
                addresses
            }
        }
    }

    /// Follows phones that are captured to where they are registered now.
    fn follow_phones(&self) {
        for sighting in self.captures.sightings() {
            if matches!(sighting.target, Target::Phone(_)) {
                let addresses = Self::addresses_of(&self.state(), &sighting.target);
                // One that has just unregistered is still there.
                if !addresses.is_empty() {
                    self.captures.place(&sighting.name, addresses);
                }
            }
        }
    }

    /// Begins a capture of a call that stands, of a phone that is registered, or of an address; returns its name.
    pub(super) fn start_capture(&self, wanted: &Wanted) -> Result<String, CaptureError> {
        let addresses = {
            let state = self.state();
            let addresses = Self::addresses_of(&state, &wanted.target);
            match &wanted.target {
                Target::Call(call) if state.proxy.calls_named(call.as_bytes()).next().is_none() => {
                    return Err(CaptureError::NotFound(format!("no call with Call-ID {call:?} stands")));
                }
                Target::Phone(phone) if addresses.is_empty() => {
                    return Err(CaptureError::NotFound(format!(
                        "no phone is registered as {phone:?}; `branchline phones` lists them, or name its IP address"
                    )));
                }
                _ => addresses,
            }
        };
        // The file is made without the lock: a slow disk must not keep messages waiting.
        let (name, _tap) = self.captures.start(wanted)?;
        let of_addresses = !addresses.is_empty();
        self.captures.place(&name, addresses);
        let state = self.state();
        let all = state.proxy.calls().filter(|_| of_addresses).map(|call| call.media_key.to_vec());
        let all: Vec<Vec<u8>> = all.collect();
        self.tap_flows(&state, &all);
        Ok(name)
    }

    /// Gives the flows of captures that have ended back to who carried them.
    pub(super) async fn release_captures(self: Arc<Self>) {
        loop {
            self.captures.one_ended().await;
            self.engine.release_taps(Instant::now());
        }
    }

    /// Takes what of a configuration can change while calls stand.
    pub(super) fn reconfigure(self: &Arc<Self>, changes: proxy::Changes, marks: Marks, config: &Config) {
        self.dns.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.upstream.dns);
        self.keeps_passwords.store(config.sip.keep_entry_passwords, Ordering::Relaxed);
        self.captures.reconfigure(config.capture.clone());
        self.traces.reconfigure(&config.trace);
        self.protection().reconfigure(config.protection.clone());
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.upstream.trusted);
        self.engine.set_limits(&config.protection.limits());
        self.protect();
        let tasks = self.feed(|state| {
            let timeout = Duration::from_secs(config.media.timeout_seconds);
            state.plane.sessions.reconfigure(marks, config.sip.max_calls, timeout);
            state.proxy.reconfigure(Instant::now(), &mut state.plane, changes);
            self.streams.set_names(state.proxy.server_names());
        });
        let core = Arc::clone(self);
        tokio::spawn(async move { core.work(tasks).await });
    }

    /// Asks the servers how they are: something has changed that may have brought one back.
    pub(super) fn probe_soon(self: &Arc<Self>) {
        let tasks = self.feed(|state| state.proxy.probe_servers(Instant::now(), &mut state.plane));
        let core = Arc::clone(self);
        tokio::spawn(async move { core.work(tasks).await });
    }

    /// Adds or replaces an authentication entry, and uses it from now on.
    pub(super) fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let _turn = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.put_entry(entry)?;
        self.enforce_entries()
    }

    /// Removes an authentication entry; says whether there was one.
    pub(super) fn remove_entry(&self, registration_id: &str) -> Result<bool, StoreError> {
        let _turn = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.store.remove_entry(registration_id)?;
        self.enforce_entries()?;
        Ok(removed)
    }

    /// Keeps what stands for an entry's password in a realm in which a server has taken it.
    fn learn_realm(&self, registration_id: &str, realm: &str) -> Result<(), StoreError> {
        let _turn = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.store.entries()?;
        let found = entries.iter().find(|entry| entry.registration_id == registration_id);
        let Some(entry) = found.filter(|entry| !entry.password.is_empty()) else { return Ok(()) };
        let all = Ha1::all(&entry.user, realm, &entry.password).into_iter();
        let digests =
            all.map(|Ha1 { algorithm, realm, hash }| KeptDigest { algorithm, realm, hash }).collect();
        self.store.add_digests(registration_id, &entry.user, digests, now_unix())?;
        self.enforce_entries()
    }

    /// Forgets the passwords of entries that have met no further realm for a day, unless they are to be kept.
    pub(super) fn forget_passwords(&self) {
        /// As long may another server or a second registration take to show its realm.
        const SETTLED: i64 = 24 * 3600;
        if self.keeps_passwords.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match self.store.forget_passwords(now_unix() - SETTLED) {
            Ok(0) => {}
            Ok(count) => {
                info!(
                    count,
                    "passwords of entries are forgotten: what stands for them in their realms is kept"
                );
                if let Err(error) = self.enforce_entries() {
                    warn!(%error, "authentication entries cannot be read");
                }
            }
            Err(error) => warn!(%error, "passwords of entries cannot be forgotten"),
        }
    }

    fn enforce_entries(&self) -> Result<(), StoreError> {
        let credentials = credentials(&self.store)?;
        self.state().proxy.set_credentials(credentials);
        Ok(())
    }

    fn server_news(&self, trunk: Option<&str>, news: &upstream::Output) {
        match (trunk, news) {
            (None, upstream::Output::Changed { target, health: Health::Down(failure) }) => {
                warn!(target: "branchline::upstream", server = %target.server, address = %target.address, reason = %failure, "a server is down");
            }
            (None, upstream::Output::Changed { target, .. }) => {
                info!(target: "branchline::upstream", server = %target.server, address = %target.address, "a server is up");
            }
            (None, upstream::Output::Preferred(target)) => {
                info!(target: "branchline::upstream", server = %target.server, address = %target.address, "this server is tried first from now on");
            }
            (Some(trunk), upstream::Output::Changed { target, health: Health::Down(failure) }) => {
                warn!(target: "branchline::upstream", trunk, address = %target.address, reason = %failure, "a trunk is out of service");
            }
            (Some(trunk), upstream::Output::Changed { target, .. }) => {
                info!(target: "branchline::upstream", trunk, address = %target.address, "a trunk is in service");
            }
            (Some(_), upstream::Output::Preferred(_))
            | (_, upstream::Output::Probe(_) | upstream::Output::Resolve(_)) => {}
        }
    }

    fn survival_news(&self, group: &str, change: SurvivalChange) {
        match change {
            SurvivalChange::Entered => {
                warn!(target: "branchline::upstream", group, "no server of the group can be reached: its phones are on their own; calls within the office and by the trunks work");
            }
            SurvivalChange::Left(length) => {
                self.measures.metrics.survival_seconds.inc_by(length.as_secs_f64());
                info!(target: "branchline::upstream", group, seconds = length.as_secs(), "a server of the group can be reached: its phones are not on their own any more");
            }
        }
    }

    /// What a server's name resolved to.
    pub(super) async fn resolved(
        self: &Arc<Self>,
        server: &ServerUri,
        result: Result<upstream::Resolution, String>,
    ) {
        if let Err(error) = &result {
            warn!(%server, %error, "a server's name cannot be resolved");
        }
        let tasks = self.feed(|state| {
            state.proxy.resolved(Instant::now(), &mut state.plane, server, &result);
            self.streams.set_names(state.proxy.server_names());
        });
        self.work(tasks).await;
    }

    /// Takes what comes by TCP and TLS.
    pub(super) async fn connections(self: Arc<Self>, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let now = Instant::now();
            let tasks = match event {
                Event::Message { hop, payload } => {
                    self.passed(Way::In, hop, &payload);
                    self.feed(|state| state.proxy.receive(now, &mut state.plane, hop, &payload))
                }
                Event::Connected { hop, direction } => {
                    debug!(%hop, ?direction, "connected");
                    continue;
                }
                Event::Unreachable { hop, step, error } => {
                    // For the reason in words, when it is the certificate.
                    let error = self.certificates.met(&self.streams.name(hop.address)).unwrap_or(error);
                    debug!(%hop, step = step.as_label(), error, "a peer cannot be reached");
                    self.measures.connection_failed(hop.transport, step);
                    self.feed(|state| state.proxy.unreachable(now, &mut state.plane, hop, step, error))
                }
                Event::Disconnected { hop, why, used } => {
                    debug!(%hop, %why, "disconnected");
                    self.measures.connection_ended(hop.transport, &why);
                    if !used {
                        continue; // no transaction and no binding can know it
                    }
                    self.feed(|state| state.proxy.disconnected(now, &mut state.plane, hop))
                }
                Event::Released { hop } => {
                    self.feed(|state| state.proxy.disconnected(now, &mut state.plane, hop))
                }
                Event::Refused { hop, step, error } => {
                    debug!(%hop, step = step.as_label(), error, "a connection was refused");
                    self.measures.connection_failed(hop.transport, step);
                    continue;
                }
            };
            self.work(tasks).await;
        }
    }

    /// Receives SIP on a network until the socket fails.
    pub(super) async fn receive(self: Arc<Self>, network: NetworkId) {
        let Some(socket) = self.sockets.get(network.index()).cloned() else { return };
        let mut buffer = vec![0; DATAGRAM];
        loop {
            if let Err(error) = socket.readable().await {
                warn!(%error, %network, "the SIP socket cannot be waited for; signalling stops here");
                return;
            }
            let taken = self.take(network, &mut buffer).await;
            if taken == TURN {
                // A socket that is ready never makes its task wait: under a flood nothing else would run
                // on this thread.
                yield_now().await;
            }
        }
    }

    /// Takes what a network's socket holds, a turn at most, and says how many datagrams and errors that were.
    async fn take(self: &Arc<Self>, network: NetworkId, buffer: &mut [u8]) -> usize {
        let Some(socket) = self.sockets.get(network.index()) else { return 0 };
        let mut tasks = Vec::new();
        let mut taken = 0;
        while taken < TURN {
            match socket.try_recv_from(buffer) {
                Ok((length, source)) => {
                    taken += 1;
                    let datagram = Bytes::copy_from_slice(&buffer[..length]);
                    let now = Instant::now();
                    let hop = Hop::udp(network, source);
                    self.passed(Way::In, hop, &datagram);
                    tasks.extend(self.feed(|state| {
                        state.proxy.receive(now, &mut state.plane, hop, &datagram);
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error for something that was sent earlier comes out here; it ends nothing.
                Err(_) => taken += 1,
            }
        }
        self.work(tasks).await;
        taken
    }

    /// Runs the proxy's timers.
    pub(super) async fn keep_time(self: Arc<Self>) {
        /// Without a deadline there is nothing to do until the next message.
        const IDLE: Duration = Duration::from_secs(3600);
        let mut served = Instant::now();
        loop {
            let deadline = {
                let state = self.state();
                let next = [state.proxy.poll_timeout(), state.plane.next_reap()].into_iter().flatten().min();
                next.unwrap_or_else(|| Instant::now() + IDLE)
            };
            tokio::select! {
                () = sleep_until(deadline.into()) => {}
                () = self.deadline.notified() => {}
            }
            // After a pause a message may have been read first, and have put off the deadline that was over by then.
            if Instant::now() < deadline {
                continue;
            }
            // What was over before this process ran, as a binding that it found kept, is not late.
            let late = deadline.max(served).elapsed();
            if late >= LATE {
                self.catch_up(late).await;
            }
            served = Instant::now();
            let tasks = self.feed(|state| {
                let now = Instant::now();
                state.plane.reap(now);
                state.proxy.handle_timeout(now, &mut state.plane);
            });
            self.work(tasks).await;
        }
    }

    /// Hears what has come while this process did not run, before timers say that nothing has: a hypervisor that stops
    /// its guest, or a machine without time for anybody, must not end calls whose answers wait in the sockets.
    async fn catch_up(self: &Arc<Self>, late: Duration) {
        warn!(
            ?late,
            "this process had no time: the machine stood still or is overloaded; messages that waited go before timers"
        );
        // Nothing is seen to have come until the runtime has looked; and connections hand over what they hold.
        sleep(HAND_OVER).await;
        let mut buffer = vec![0; DATAGRAM];
        for network in (0..).map(NetworkId).take(self.sockets.len()) {
            for _ in 0..TURNS_BEHIND {
                if self.take(network, &mut buffer).await < TURN {
                    break;
                }
            }
        }
    }

    /// Looks now and then for calls that ended unnoticed, and enters the streams' jitter.
    pub(super) async fn look_around(self: Arc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = HashMap::new();
        loop {
            tick.tick().await;
            self.measures.jitter(&self.engine, &mut seen);
            self.follow_phones();
            self.protect();
            self.captures.calls_stand(|call_id| self.state().proxy.calls_named(call_id).next().is_some());
            let tasks = self.feed(|state| {
                let now = Instant::now();
                for call in state.plane.silent(now, monotonic_ns()) {
                    info!(call = %String::from_utf8_lossy(&call), "no media and no signalling: the call has ended unnoticed");
                    state.proxy.end_call(now, &mut state.plane, &call, Outcome::MediaTimeout);
                }
            });
            self.work(tasks).await;
        }
    }

    /// Reads the RTCP packets that pass.
    pub(super) async fn read_rtcp(self: Arc<Self>, mut copies: mpsc::Receiver<RtcpPacket>) {
        while let Some(packet) = copies.recv().await {
            let times = self.state().plane.rtcp(&packet);
            for time in times {
                self.measures.metrics.rtcp_round_trip.observe(time.as_secs_f64());
            }
        }
    }
}

/// What is told of a destination of a server plan.
fn destination_news(name: &str, news: &upstream::Output) {
    let upstream::Output::Changed { target, health } = news else { return };
    let address = target.address;
    match health {
        Health::Down(failure) => {
            warn!(target: "branchline::upstream", destination = name, %address, reason = %failure, "a destination of a server plan is out of service");
        }
        _ => {
            info!(target: "branchline::upstream", destination = name, %address, "a destination of a server plan is in service");
        }
    }
}
