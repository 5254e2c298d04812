//! The machine: what comes in is sorted, what is due is done, what goes out is queued.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{
    admission::{Admission, Load},
    alone::Announcement,
    call::{Call, CallInfo, CallState, Kind, Negotiated, Party},
    converse::speak::Spoken,
    credentials::{Answering, Credentials, Offsets},
    dual::Seconds,
    fork::Fork,
    large::ByTcp,
    measure::{DropReason, Measure, Outcome},
    next_nonce::NextNonces,
    prove::Nonces,
    response::Silence,
    settings::Settings,
    standing::Touched,
    ways::{Way, WayKind},
};
use crate::{
    media::MediaRelay,
    net::{NetworkId, Role, Transport},
    registrar::{Binding, KnownPhone, Pending, Registrar},
    sip::{
        deadlines::Deadlines,
        stun,
        transaction::{ClientId, Event, Hop, Incoming, Response, ServerId, Share, Transactions, keyed_hash},
        transport::{Step, with_length},
        wire::{self, Datagram, Message, Method, Rejected, Reply},
    },
    upstream::{self, Evidence, Failure, Groups, Plans, SurvivalChange, Trunks},
};

/// What comes out of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A message to send.
    Transmit {
        /// To where.
        hop: Hop,
        /// What.
        payload: Bytes,
    },
    /// A server lets what goes to an address of its own go down the connection that it has made.
    Reuse {
        /// That connection.
        connection: Hop,
        /// The address.
        target: Hop,
    },
    /// Something to count.
    Measure(Measure),
    /// News of the servers, or a name to resolve: the answer is [`Proxy::resolved`].
    Upstream(upstream::Output),
    /// The same of a trunk, by its name.
    Trunk(String, upstream::Output),
    /// The same of a destination of a server plan.
    Destination(String, upstream::Output),
    /// A server has taken the password of an entry in this realm.
    Realm {
        /// Whose entry it is.
        registration_id: String,
        /// The realm.
        realm: String,
    },
    /// The phones of a group are on their own, or have a server again.
    Survival(String, SurvivalChange),
}

/// How many ended calls are remembered.
const ENDED_CALLS: usize = 1_000;
/// Ended calls and subscriptions may be this many times the limit on calls: they linger for half a minute.
const LINGERING: usize = 4;

/// A request on its way through: it joins a server transaction to a client transaction.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) server: ServerId,
    pub(super) method: Method,
    pub(super) ingress: Hop,
    pub(super) egress: Hop,
    /// It went by TCP to the same address, being too large for UDP.
    pub(super) large: bool,
    pub(super) from_tag: Bytes,
    /// The call, who in it sends, and the other side's tag when it is known.
    pub(super) call: Option<(u64, Party, Option<Bytes>)>,
    /// Whether it carried an offer, so that descriptions in responses are answers.
    pub(super) offered: bool,
    /// The offer was the appliance's: the answer is the offer that its sender has asked for.
    pub(super) lent: bool,
    pub(super) negotiated: Option<Negotiated>,
    /// The 2xx that were passed, by To tag: each repetition goes on as the first did.
    pub(super) successes: Vec<(Bytes, Bytes)>,
    pub(super) register: Option<Box<Pending>>,
    pub(super) started: Instant,
    pub(super) cancelled: bool,
    /// What kind of way it has gone, and those that may be tried after it; `None` when there was nothing to choose.
    pub(super) others: Option<(WayKind, VecDeque<Way>)>,
    /// The Request-URI that it was given, and how many of its Route values were ours: to send it again.
    pub(super) uri: Option<Vec<u8>>,
    pub(super) routes: usize,
    /// How often challenges to it were answered.
    pub(super) answered: u8,
    /// What it has answered.
    pub(super) answer: Option<Box<Answering>>,
    /// How often a server has redirected it.
    pub(super) redirected: u8,
    /// The least session timer that was asked for it, in seconds; 0 if none was.
    pub(super) least_timer: u32,
    /// It was sent again in another form, which counts instead.
    pub(super) superseded: bool,
    pub(super) timer_c: Option<Instant>,
}

/// The SIP proxy of one appliance.
#[derive(Debug)]
pub struct Proxy {
    pub(super) settings: Settings,
    pub(super) transactions: Transactions,
    pub(super) registrar: Registrar,
    pub(super) groups: Groups,
    pub(super) trunks: Trunks,
    pub(super) plans: Plans,
    pub(super) admission: Admission,
    /// Requests of the appliance's own: probes, and what phones are told.
    pub(super) own_requests: HashMap<ClientId, Hop>,
    pub(super) announcement: Announcement,
    /// Requests of the appliance's own in calls of others.
    pub(super) spoken: HashMap<ClientId, Spoken>,
    /// Calls that one party knows by another dialog, by that one's Call-ID.
    pub(super) faces: HashMap<Bytes, Vec<u64>>,
    /// Transfers under way: the Call-ID of the INVITE to the target, and the call of transferor and transferee.
    pub(super) transfers: HashMap<Bytes, u64>,
    /// When the calls are looked at in which it speaks.
    pub(super) conversing_due: Deadlines<u64>,
    /// When this proxy was made: nonces count from then.
    pub(super) started: Instant,
    pub(super) credentials: Credentials,
    pub(super) offsets: Offsets,
    pub(super) seconds: Seconds,
    pub(super) nonces: Nonces,
    pub(super) next_nonces: NextNonces,
    pub(super) by_tcp: ByTcp,
    /// Here and below what is long has a place of its own: tables grow with a burst, are half empty and never shrink.
    pub(super) relays: HashMap<ClientId, Box<Relay>>,
    /// INVITEs that are under way, with their branches.
    pub(super) forks: HashMap<ServerId, Fork>,
    pub(super) timer_c: Deadlines<ClientId>,
    pub(super) calls: HashMap<u64, Box<Call>>,
    pub(super) by_call_id: HashMap<Bytes, Vec<u64>>,
    pub(super) forget: Deadlines<u64>,
    pub(super) touched: Touched,
    next_call: u64,
    live_calls: usize,
    ended: VecDeque<CallInfo>,
    out: VecDeque<Output>,
}

impl Proxy {
    /// A proxy without calls and bindings.
    #[must_use]
    pub fn new(mut settings: Settings, now: Instant) -> Self {
        let alone = settings.routing.alone.as_ref().map(|alone| alone.when);
        let groups = Groups::new(Self::group_settings(&settings), alone, now);
        let plans = Plans::new(settings.routing.plans.clone(), now);
        settings.server_addresses = groups.addresses().chain(plans.addresses()).collect();
        Self {
            transactions: Transactions::new(
                settings.timers.clone(),
                settings.limits.transactions,
                settings.secret,
            ),
            registrar: Registrar::new(settings.limits.bindings, settings.lasting_secret),
            groups,
            trunks: Trunks::new(settings.routing.trunks.clone(), now),
            plans,
            admission: Admission::new(settings.capacities.clone()),
            own_requests: HashMap::new(),
            announcement: Announcement::default(),
            spoken: HashMap::new(),
            faces: HashMap::new(),
            transfers: HashMap::new(),
            conversing_due: Deadlines::default(),
            started: now,
            credentials: Credentials::default(),
            offsets: Offsets::default(),
            seconds: Seconds::default(),
            nonces: Nonces::default(),
            next_nonces: NextNonces::default(),
            by_tcp: ByTcp::default(),
            settings,
            relays: HashMap::new(),
            forks: HashMap::new(),
            timer_c: Deadlines::default(),
            calls: HashMap::new(),
            by_call_id: HashMap::new(),
            forget: Deadlines::default(),
            touched: Touched::default(),
            next_call: 0,
            live_calls: 0,
            ended: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// Takes a datagram, or a message that came down a connection.
    pub fn receive(&mut self, now: Instant, media: &mut dyn MediaRelay, hop: Hop, datagram: &Bytes) {
        match wire::classify(datagram) {
            Datagram::KeepAlive => {}
            Datagram::Ping => self.transmit(hop, Bytes::from_static(b"\r\n")),
            Datagram::Stun => self.stun(hop, datagram),
            Datagram::Sip => match Message::parse(datagram) {
                Ok(message) => self.message(now, media, hop, &message),
                Err(rejected) => self.reject(hop, &rejected),
            },
        }
        self.flush(now, media);
    }

    /// A message could not be sent to a peer: there is no connection, and none can be made.
    pub fn unreachable(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        hop: Hop,
        step: Step,
        error: String,
    ) {
        self.out_of_reach(now, hop, &Failure::Connection(step, error));
        self.transactions.unreachable(now, hop);
        self.flush(now, media);
    }

    /// A connection has ended: who was reached by it must be reached in another way.
    pub fn disconnected(&mut self, now: Instant, media: &mut dyn MediaRelay, hop: Hop) {
        self.registrar.disconnected(hop);
        for call in self.calls.values_mut() {
            let sides = std::iter::once(&mut call.caller)
                .chain(call.dialogs.iter_mut().map(|dialog| &mut dialog.callee));
            for side in sides.filter(|side| side.source == hop) {
                side.disconnected = true;
            }
        }
        self.transactions.unreachable(now, hop);
        self.flush(now, media);
    }

    /// When [`Proxy::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.transactions.poll_timeout(),
            self.groups.poll_timeout(),
            self.trunks.poll_timeout(),
            self.plans.poll_timeout(),
            self.announcement.poll_timeout(),
            self.seconds.poll_timeout(),
            self.registrar.poll_timeout(),
            self.timer_c.next(),
            self.forget.next(),
            self.conversing_due.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, media: &mut dyn MediaRelay) {
        self.transactions.handle_timeout(now);
        self.groups.handle_timeout(now);
        self.trunks.handle_timeout(now);
        self.plans.handle_timeout(now);
        self.registrar.handle_timeout(now);
        self.announce(now);
        self.tend_seconds(now);
        while let Some(client) = self.timer_c.pop(now) {
            if let Some(relay) = self.relays.get_mut(&client) {
                relay.timer_c = None;
            } else if let Some(spoken) = self.spoken.get_mut(&client) {
                spoken.timer_c = None;
            }
            // RFC 3261 16.8: the CANCEL brings a 487 that goes to the caller, or the transaction times out.
            self.transactions.cancel(now, client, b"");
        }
        self.converse(now, media);
        self.flush(now, media);
        while let Some(number) = self.forget.pop(now) {
            if let Some(call) = self.calls.get_mut(&number) {
                call.forget = None;
            }
            self.remove_call(number);
        }
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The calls that are alive.
    pub fn calls(&self) -> impl Iterator<Item = &CallInfo> {
        self.calls.values().filter(|call| call.kind == Kind::Call && call.is_live()).map(|call| &call.info)
    }

    /// Those of them with this Call-ID: more than one if a call passes the appliance twice.
    pub fn calls_named(&self, call_id: &[u8]) -> impl Iterator<Item = &CallInfo> {
        let keys = self.by_call_id.get(call_id).map_or(&[][..], Vec::as_slice);
        keys.iter()
            .filter_map(|key| self.calls.get(key))
            .filter(|call| call.kind == Kind::Call && call.is_live())
            .map(|call| &call.info)
    }

    /// The calls that ended last, the oldest first.
    pub fn ended_calls(&self) -> impl Iterator<Item = &CallInfo> {
        self.ended.iter()
    }

    /// How many calls are alive.
    #[must_use]
    pub fn active_calls(&self) -> usize {
        self.live_calls
    }

    /// What calls take of a network.
    #[must_use]
    pub fn load(&self, network: NetworkId) -> Load {
        self.admission.load(network)
    }

    /// The bindings.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.registrar.bindings()
    }

    /// Takes bindings of an earlier run.
    pub fn restore_bindings(&mut self, bindings: impl IntoIterator<Item = Binding>) {
        self.registrar.restore(bindings);
    }

    /// The phones that servers have registered before.
    pub fn known_phones(&self) -> impl Iterator<Item = &KnownPhone> {
        self.registrar.known()
    }

    /// Takes phones of an earlier run that servers had registered.
    pub fn restore_known(&mut self, phones: impl IntoIterator<Item = KnownPhone>) {
        self.registrar.restore_known(phones);
    }

    /// A number that is another one after every change of the bindings.
    #[must_use]
    pub fn binding_changes(&self) -> u64 {
        self.registrar.changes()
    }

    /// How many bindings there are.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.registrar.len()
    }

    /// How many transactions are alive.
    #[must_use]
    pub fn transaction_count(&self) -> usize {
        self.transactions.len()
    }

    /// Ends the calls that the media room knows by this name, or that have this Call-ID. The parties are not told.
    pub fn end_call(&mut self, now: Instant, media: &mut dyn MediaRelay, name: &[u8], outcome: Outcome) {
        let matches = |call: &Call| call.info.media_key == name || call.info.call_id == name;
        let numbers: Vec<u64> =
            self.calls.iter().filter(|(_, call)| matches(call)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.finish_call(now, media, number, outcome);
        }
    }

    fn message(&mut self, now: Instant, media: &mut dyn MediaRelay, hop: Hop, message: &Message) {
        self.measure(Measure::Received {
            network: hop.network,
            method: message.method().as_label(),
            status: message.status(),
        });
        let Some(role) = self.settings.network(hop.network).map(|network| network.role) else {
            return self.drop(DropReason::UnknownNetwork);
        };
        if !message.is_request() {
            return match self.transactions.receive_response(now, message) {
                Response::Pass(client) => self.relay_response(now, media, client, message),
                Response::Absorbed => {}
                Response::Stray => self.drop(DropReason::StrayResponse),
            };
        }
        let trusted = match role {
            Role::Servers => self.settings.trusts(hop.address.ip()),
            // A gateway calls whom it wants: only those that are configured as trunks may.
            Role::Gateway => self.settings.trusts_peer(hop.address.ip()) || self.trunks.at(hop).is_some(),
            Role::Phones => true,
        };
        // Who is in a dialog that stands goes on in it, whatever was reconfigured meanwhile.
        let inner = self.inward(hop, message);
        let inner = inner.as_ref().unwrap_or(message);
        let trusted = trusted || self.is_in_its_dialog(hop, inner);
        if role == Role::Phones && is_scanner(message) {
            // No answer: it would tell that somebody is here.
            self.drop(DropReason::Scanner);
            // The source of a datagram may be a lie, and nobody is shut out at once for one.
            let source = hop.address.ip();
            return self.measure(if hop.transport.is_reliable() {
                Measure::Scanner(source)
            } else {
                Measure::Offence(source)
            });
        }
        if !trusted {
            self.drop(DropReason::Untrusted);
            self.measure(Measure::Offence(hop.address.ip()));
            return self.refuse_stateless(hop, message, 403, wire::default_reason(403));
        }
        if role == Role::Servers {
            self.note_alias(hop, message);
        }
        if role != Role::Phones {
            self.note_traffic(now, hop, Evidence::Request);
        }
        let share = if role == Role::Phones { Share::Half } else { Share::Whole };
        match self.transactions.receive_request(now, hop, message, share) {
            Incoming::New(server) => self.relay_request(now, media, server, hop, inner),
            Incoming::AckOfSuccess => self.relay_ack(now, media, hop, inner),
            Incoming::Cancel(server, invite) => self.cancel(now, server, invite, message),
            Incoming::Absorbed | Incoming::AckOfFailure => {}
            Incoming::Full => {
                self.drop(DropReason::Overload);
                self.refuse_stateless(hop, message, 503, "Too many transactions");
            }
        }
    }

    /// Whether a request is in a dialog, and comes from where its sender was last heard.
    fn is_in_its_dialog(&self, hop: Hop, message: &Message) -> bool {
        let Some(to_tag) = message.to_tag() else { return false };
        let numbers = self.by_call_id.get(message.call_id()).into_iter().flatten();
        numbers.filter_map(|number| self.calls.get(number)).any(|call| {
            let found = call.sender(hop.network, message.from_tag(), to_tag);
            let side = found.and_then(|(party, dialog)| match party {
                Party::Caller => Some(&call.caller),
                Party::Callee => call.dialogs.get(dialog).map(|dialog| &dialog.callee),
            });
            side.is_some_and(|side| side.source.address.ip() == hop.address.ip())
        })
    }

    fn reject(&mut self, hop: Hop, rejected: &Rejected) {
        self.measure(Measure::Offence(hop.address.ip()));
        let answer = self
            .settings
            .network(hop.network)
            .is_some_and(|network| network.role != Role::Servers || self.settings.trusts(hop.address.ip()));
        match rejected.answerable.as_deref().filter(|_| answer) {
            Some(message) if message.method() != &Method::Ack => {
                self.drop(DropReason::Malformed);
                let reason = rejected.error.to_string();
                self.refuse_stateless(hop, message, rejected.error.fault.status(), &reason);
            }
            _ => self.drop(DropReason::Unreadable),
        }
    }

    /// STUN keeps the way through an address translator open, and tells a phone when that has changed (RFC 5626 3.5.2).
    /// It is for datagrams alone, and like SIP for nobody on the servers' side who is not one of them.
    fn stun(&mut self, hop: Hop, datagram: &[u8]) {
        let served = hop.transport == Transport::Udp
            && self
                .settings
                .network(hop.network)
                .is_some_and(|own| own.role != Role::Servers || self.settings.trusts(hop.address.ip()));
        match stun::answer(datagram, hop.address).filter(|_| served) {
            Some(answer) => {
                self.measure(Measure::StunAnswered);
                self.transmit(hop, answer);
            }
            None => self.drop(DropReason::Stun),
        }
    }

    fn refuse_stateless(&mut self, hop: Hop, message: &Message, status: u16, reason: &str) {
        let tag = self.local_tag(message);
        let headers: &[u8] = if status == 503 { b"Retry-After: 5\r\n" } else { b"" };
        let reply = Reply { status, reason, to_tag: Some(&tag), headers };
        self.transactions.reply_stateless(hop, message, &reply);
    }

    /// A CANCEL is answered here and goes on as one of our own (RFC 3261 16.10).
    fn cancel(&mut self, now: Instant, server: ServerId, invite: Option<ServerId>, message: &Message) {
        let tag = self.local_tag(message);
        let status = if invite.is_some() { 200 } else { 481 };
        self.transactions.reply(now, server, &Reply::new(status, &tag));
        let Some(fork) = invite.and_then(|invite| self.forks.get(&invite)) else { return };
        let clients = fork.open.clone();
        // Why it was cancelled tells a phone whether the call was missed or answered elsewhere (RFC 3326).
        let mut reasons = Vec::new();
        for header in message.headers().filter(|header| header.name == wire::HeaderName::Reason) {
            reasons.extend_from_slice(b"Reason: ");
            reasons.extend_from_slice(header.value);
            reasons.extend_from_slice(b"\r\n");
        }
        for client in clients {
            if let Some(relay) = self.relays.get_mut(&client) {
                relay.cancelled = true;
            }
            self.transactions.cancel(now, client, &reasons);
        }
    }

    /// Sends what the transactions have queued and does what their events ask for.
    pub(super) fn flush(&mut self, now: Instant, media: &mut dyn MediaRelay) {
        loop {
            while let Some(sent) = self.transactions.poll_transmit() {
                let network = sent.hop.network;
                self.measure(Measure::Sent { network, method: sent.method, status: sent.status });
                self.transmit(sent.hop, sent.payload);
            }
            match self.transactions.poll_event() {
                Some(Event::Timeout(client)) => self.unanswered(now, media, client, Silence::Timeout),
                Some(Event::Unreachable(client)) => {
                    self.unanswered(now, media, client, Silence::Unreachable);
                }
                Some(Event::FellBack(client, hop)) => {
                    self.tcp_fails(now, hop.address);
                    self.measure(Measure::Large(Transport::Udp));
                    if let Some(relay) = self.relays.get_mut(&client) {
                        relay.large = false;
                    }
                }
                Some(Event::Within(status, payload)) => self.answered_within(now, media, status, &payload),
                Some(Event::ClientGone(client)) => self.relay_gone(now, media, client),
                Some(Event::ServerGone(server)) => {
                    self.forks.remove(&server);
                }
                None if self.tend_servers(now) => {}
                None => break,
            }
        }
    }

    fn transmit(&mut self, hop: Hop, payload: Bytes) {
        // What came in a datagram may have none, and whoever reads a stream closes it then.
        let payload = if hop.transport.is_reliable() { with_length(payload) } else { payload };
        self.out.push_back(Output::Transmit { hop, payload });
    }

    pub(super) fn tell(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(super) fn measure(&mut self, measure: Measure) {
        self.out.push_back(Output::Measure(measure));
    }

    pub(super) fn drop(&mut self, reason: DropReason) {
        self.measure(Measure::Dropped(reason));
    }

    /// The tag of our own responses to a request: the same for its retransmissions, unknown to others.
    pub(super) fn local_tag(&self, message: &Message) -> Vec<u8> {
        let cseq = message.cseq().to_be_bytes();
        let hash = keyed_hash(self.settings.secret, &[message.call_id(), message.from_tag(), &cseq]);
        format!("{hash:016x}").into_bytes()
    }

    /// Whether there is room for one more call or subscription.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        let limit = self.settings.limits.calls;
        let all = self.calls.len() < limit.saturating_mul(LINGERING);
        all && (kind != Kind::Call || self.live_calls < limit)
    }

    pub(super) fn add_call(&mut self, mut call: Call) -> u64 {
        self.next_call += 1;
        let number = self.next_call;
        if call.kind == Kind::Call {
            self.live_calls += 1;
            let networks = [call.info.from_network, call.info.to_network];
            call.share = Some(self.admission.enter(networks, 0));
        }
        // Mostly the only one of its Call-ID: a vector takes room for four by itself.
        self.by_call_id
            .entry(call.info.call_id.clone())
            .or_insert_with(|| Vec::with_capacity(1))
            .push(number);
        self.calls.insert(number, Box::new(call));
        number
    }

    /// Sets when a call is forgotten.
    pub(super) fn forget_at(&mut self, number: u64, at: Instant) {
        if let Some(call) = self.calls.get_mut(&number) {
            self.forget.set(number, &mut call.forget, Some(at));
        }
    }

    fn remove_call(&mut self, number: u64) {
        let Some(call) = self.take_call(number) else { return };
        for side in std::iter::once(&call.caller).chain(call.dialogs.iter().map(|dialog| &dialog.callee)) {
            self.offsets.forget(side.source.network, &call.info.call_id, &side.tag);
        }
    }

    fn take_call(&mut self, number: u64) -> Option<Call> {
        self.touch(number);
        let mut call = self.calls.remove(&number)?;
        self.forget.set(number, &mut call.forget, None);
        self.unschedule(number, &mut call);
        if let Some(face) = call.conversing.as_deref().and_then(|conversing| conversing.face.as_ref()) {
            self.leave_face(number, face.call_id().as_bytes());
        }
        if call.kind == Kind::Call && call.is_live() {
            self.live_calls -= 1;
        }
        if let Some(share) = call.share.take() {
            self.admission.leave(share);
        }
        if let Some(numbers) = self.by_call_id.get_mut(&call.info.call_id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_call_id.remove(&call.info.call_id);
            }
        }
        Some(*call)
    }

    /// Ends a call: its media goes, its record stays, and its dialogs linger for what still crosses.
    pub(super) fn finish_call(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        outcome: Outcome,
    ) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.kind != Kind::Call || !call.is_live() {
            return;
        }
        if call.conversing.as_deref().is_some_and(|conversing| conversing.transfer.is_some()) {
            self.abort_transfer(now, media, number);
        }
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(pending) = call.conversing.as_deref_mut().and_then(|conversing| conversing.pending.take())
        {
            self.transactions.cancel(now, pending, b"");
        }
        if call.media {
            media.delete(now, &call.info.media_key);
        }
        call.info.ended = Some(now);
        call.info.outcome = Some(outcome);
        call.info.state = CallState::Ended;
        for dialog in &mut call.dialogs {
            dialog.over = true;
        }
        let first = !std::mem::replace(&mut call.attempt_counted, true);
        let info = call.info.clone();
        self.live_calls -= 1;
        if let Some(share) = call.share.take() {
            self.admission.leave(share);
        }
        self.touch(number);
        if first {
            self.measure(Measure::CallAttempt);
        }
        self.measure(Measure::CallEnded(outcome));
        if self.ended.len() >= ENDED_CALLS {
            self.ended.pop_front();
        }
        self.ended.push_back(info);
        let linger = self.settings.timers.timeout();
        self.forget_at(number, now + linger);
    }

    /// Drops a call whose INVITE was challenged: the one that answers the challenge begins anew.
    pub(super) fn discard_call(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64) {
        if let Some(call) = self.calls.get(&number)
            && call.media
            && call.is_live()
        {
            media.delete(now, &call.info.media_key);
        }
        // The numbering goes on.
        self.take_call(number);
    }
}

/// Whether a request comes from a program that looks for open servers, by the product that it says to be (RFC 3261 section
/// 20.41: a product, and perhaps a slash and a version). Those that lie are caught by what they send.
fn is_scanner(message: &Message) -> bool {
    const PRODUCTS: [&[u8]; 6] =
        [b"friendly-scanner", b"sipvicious", b"sundayddr", b"sip-scan", b"sipcli", b"vaxsipuseragent"];
    let Some(agent) = message.header(wire::HeaderName::UserAgent) else { return false };
    let first =
        agent.value.split(|byte| byte.is_ascii_whitespace() || *byte == b'/').next().unwrap_or_default();
    PRODUCTS.iter().any(|product| product.eq_ignore_ascii_case(first))
}
