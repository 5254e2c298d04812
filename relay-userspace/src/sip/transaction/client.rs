//! Client transactions. RFC 3261 17.1, 9.1, RFC 6026 7.2.

use std::{
    hash::{Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{ClientId, Event, Hop, Kind, Response, Timer, Timers, Transactions, Transmit};
use crate::sip::wire::{self, Message, Method};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No response yet (Calling, Trying).
    Calling,
    /// A provisional response came.
    Proceeding,
    /// A final response came; retransmissions of it are absorbed.
    Completed,
    /// A 2xx to an INVITE came: every further one passes, since a fork may answer too.
    Accepted,
}

#[derive(Debug)]
pub(super) struct Client {
    state: State,
    invite: bool,
    method: &'static str,
    branch: Box<str>,
    hop: Hop,
    payload: Bytes,
    fallback: Option<Fallback>,
    ack: Option<Bytes>,
    cancel: Cancel,
    repeat: Option<Instant>,
    end: Option<Instant>,
    interval: Duration,
}

/// The same request for another transport, should there be no connection by the first (RFC 3261 18.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// To where it goes then.
    pub hop: Hop,
    /// As it goes then: with the same branch, and with this transport in its Via.
    pub payload: Bytes,
}

/// Whether the room above wants an INVITE cancelled.
#[derive(Debug)]
enum Cancel {
    No,
    /// As soon as a provisional response comes (RFC 3261 9.1), with these header lines.
    Wanted(Vec<u8>),
    Sent,
}

/// A hash that only we can make: SipHash-2-4 under a secret of this run.
pub(crate) fn keyed_hash(secret: [u64; 2], parts: &[&[u8]]) -> u64 {
    #[expect(deprecated, reason = "the replacement, DefaultHasher, cannot be given a key")]
    let mut hasher = std::hash::SipHasher::new_with_keys(secret[0], secret[1]);
    for part in parts {
        part.hash(&mut hasher);
    }
    hasher.finish()
}

impl Transactions {
    /// An id and its branch for a request that is about to be sent. The branch begins with the magic cookie, carries
    /// the id for look-up and a keyed hash that nobody off the path can guess, and ends with `loop_mark`, by which
    /// the room above knows its own request again (RFC 5393).
    #[must_use]
    pub fn reserve(&mut self, loop_mark: u64) -> (ClientId, Box<str>) {
        let id = self.id();
        let mac = keyed_hash(self.secret, &[&id.to_be_bytes()]);
        (ClientId(id), format!("z9hG4bKbl{id:x}.{mac:016x}.{loop_mark:016x}").into())
    }

    /// The loop mark in a branch of ours; `None` for a branch that is not.
    #[must_use]
    pub fn loop_mark(&self, branch: &[u8]) -> Option<u64> {
        let (id, mac, mark) = split_branch(branch)?;
        (keyed_hash(self.secret, &[&id.to_be_bytes()]) == mac).then_some(mark)
    }

    /// Sends a request under a reserved id and repeats it until a response comes.
    pub fn send_request(
        &mut self,
        now: Instant,
        id: ClientId,
        branch: Box<str>,
        hop: Hop,
        method: &Method,
        payload: Bytes,
    ) {
        self.send_request_or(now, id, branch, hop, method, payload, None);
    }

    /// The same, with what is sent instead when the peer cannot be reached by the hop's transport: that is told by
    /// [`Event::FellBack`].
    #[expect(clippy::too_many_arguments, reason = "one for each part of what is sent")]
    pub fn send_request_or(
        &mut self,
        now: Instant,
        id: ClientId,
        branch: Box<str>,
        hop: Hop,
        method: &Method,
        payload: Bytes,
        fallback: Option<Fallback>,
    ) {
        let invite = method == &Method::Invite;
        let client = Client::new(invite, method.as_label(), branch, hop, payload);
        self.start(now, id.0, Kind::Request, Client { fallback, ..client });
    }

    /// A request that has not been answered at all is given up after so long, if that is sooner than its timers say.
    pub fn wait_at_most(&mut self, now: Instant, id: ClientId, patience: Duration) {
        let key = (id.0, Kind::Request);
        let Some(client) = self.clients.get_mut(&key).filter(|client| client.state == State::Calling) else {
            return;
        };
        let at = now + patience;
        if client.end.is_none_or(|end| end > at) {
            self.deadlines.set(Timer::ClientEnd(key.0, key.1), &mut client.end, Some(at));
        }
    }

    fn start(&mut self, now: Instant, id: u64, kind: Kind, mut client: Client) {
        let (timers, transport) = (self.timers.of(client.hop), client.hop.transport);
        client.interval = timers.t1;
        if !transport.is_reliable() {
            let repeat = Some(now + client.interval);
            self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, repeat);
        }
        let end = Some(now + timers.patience(client.invite, transport));
        self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, end);
        self.out.push_back(client.transmit(client.payload.clone()));
        self.bytes += client.held_bytes();
        self.clients.insert((id, kind), Box::new(client));
    }

    /// Cancels an INVITE: now when a provisional response has come, otherwise when one comes. `headers` are
    /// further lines for the CANCEL. Without a final response within 64*T1 the INVITE times out.
    pub fn cancel(&mut self, now: Instant, id: ClientId, headers: &[u8]) {
        let Some(client) = self.clients.get_mut(&(id.0, Kind::Request)) else { return };
        if !client.invite || !matches!(client.cancel, Cancel::No) {
            return;
        }
        match client.state {
            State::Calling => {
                self.bytes += headers.len();
                client.cancel = Cancel::Wanted(headers.to_vec());
            }
            State::Proceeding => self.send_cancel(now, id.0, headers),
            State::Completed | State::Accepted => {}
        }
    }

    fn send_cancel(&mut self, now: Instant, id: u64, headers: &[u8]) {
        let Some(client) = self.clients.get_mut(&(id, Kind::Request)) else { return };
        let end = Some(now + self.timers.of(client.hop).timeout());
        client.cancel = Cancel::Sent;
        self.deadlines.set(Timer::ClientEnd(id, Kind::Request), &mut client.end, end);
        let Ok(sent) = Message::parse(&client.payload) else { return };
        let payload = wire::cancel(&sent, headers);
        let cancel =
            Client::new(false, Method::Cancel.as_label(), client.branch.clone(), client.hop, payload);
        self.start(now, id, Kind::Cancel, cancel);
    }

    /// Takes a response, matched by branch and CSeq method (RFC 3261 17.1.3).
    pub fn receive_response(&mut self, now: Instant, message: &Message) -> Response {
        let branch = message.via().branch().unwrap_or_default();
        let Some((id, ..)) = split_branch(branch) else { return Response::Stray };
        let kind = if message.method() == &Method::Cancel { Kind::Cancel } else { Kind::Request };
        let Some(client) = self.clients.get_mut(&(id, kind)) else { return Response::Stray };
        let Some(status) = message.status() else { return Response::Stray };
        if client.branch.as_bytes() != branch || client.method != message.method().as_label() {
            return Response::Stray;
        }
        match client.state {
            State::Calling | State::Proceeding => {}
            State::Accepted if (200..300).contains(&status) => return Response::Pass(ClientId(id)),
            State::Accepted => return Response::Absorbed,
            State::Completed => {
                if let Some(ack) = client.ack.clone().filter(|_| status >= 300) {
                    let transmit = Transmit { method: Method::Ack.as_label(), ..client.transmit(ack) };
                    self.out.push_back(transmit);
                }
                return Response::Absorbed;
            }
        }
        if status < 200 {
            self.provisional(now, id, kind);
        } else {
            self.last_response(now, id, kind, status, message);
        }
        if kind == Kind::Cancel { Response::Absorbed } else { Response::Pass(ClientId(id)) }
    }

    fn provisional(&mut self, now: Instant, id: u64, kind: Kind) {
        let Some(client) = self.clients.get_mut(&(id, kind)) else { return };
        let first = client.state == State::Calling;
        client.state = State::Proceeding;
        // The peer is reached: the other form is not needed any more.
        self.bytes -= client.fallback.take().map_or(0, |fallback| fallback.payload.len());
        if !client.invite {
            if first {
                // The peer lives: it has the full time of timer F, however few retransmissions are allowed.
                let end = Some(now + self.timers.of(client.hop).timeout());
                self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, end);
            }
            return;
        }
        self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, None);
        if first {
            // From here on the room above counts (Timer C).
            self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, None);
        }
        if matches!(client.cancel, Cancel::Wanted(_))
            && let Cancel::Wanted(headers) = std::mem::replace(&mut client.cancel, Cancel::Sent)
        {
            self.bytes -= headers.len();
            self.send_cancel(now, id, &headers);
        }
    }

    fn last_response(&mut self, now: Instant, id: u64, kind: Kind, status: u16, message: &Message) {
        let Some(client) = self.clients.get_mut(&(id, kind)) else { return };
        let timers = self.timers.of(client.hop);
        self.bytes -= client.held_bytes();
        self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, None);
        let wait = if !client.invite {
            client.state = State::Completed;
            Timers::absorbing(timers.t4, client.hop.transport) // K
        } else if status < 300 {
            client.state = State::Accepted;
            timers.timeout() // M
        } else {
            client.state = State::Completed;
            if let Ok(sent) = Message::parse(&client.payload) {
                let ack = wire::ack_for_failure(&sent, message);
                client.ack = Some(ack.clone());
                let transmit = Transmit { method: Method::Ack.as_label(), ..client.transmit(ack) };
                self.out.push_back(transmit);
            }
            Timers::absorbing(timers.timeout(), client.hop.transport) // D
        };
        client.payload = Bytes::new();
        client.fallback = None;
        self.bytes += client.held_bytes();
        self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, Some(now + wait));
    }

    /// Timers A and E.
    pub(super) fn client_repeat(&mut self, now: Instant, id: u64, kind: Kind) {
        let Some(client) = self.clients.get_mut(&(id, kind)) else { return };
        let timers = self.timers.of(client.hop);
        client.repeat = None;
        client.interval = match (client.invite, client.state) {
            (true, _) => client.interval.saturating_mul(2),
            (false, State::Proceeding) => timers.t2,
            (false, _) => (client.interval * 2).min(timers.t2),
        };
        // A repetition at the very end would wait for no answer.
        let at = Some(now + client.interval).filter(|at| client.end.is_none_or(|end| *at < end));
        self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, at);
        let transmit = client.transmit(client.payload.clone());
        self.out.push_back(transmit);
    }

    /// The peer of a request cannot be reached: it goes by the other transport, if there is one, as if for the first
    /// time.
    pub(super) fn client_unreachable(&mut self, now: Instant, id: u64, kind: Kind) {
        let Some(mut client) = self.clients.remove(&(id, kind)) else { return };
        if let Some(Fallback { hop, payload }) = client.fallback.take() {
            self.bytes -= client.held_bytes() + payload.len();
            self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, None);
            self.events.push_back(Event::FellBack(ClientId(id), client.hop));
            client.hop = hop;
            client.payload = payload;
            return self.start(now, id, kind, *client);
        }
        self.bytes -= client.held_bytes();
        self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, None);
        self.deadlines.set(Timer::ClientEnd(id, kind), &mut client.end, None);
        if kind == Kind::Request {
            self.events.push_back(Event::Unreachable(ClientId(id)));
            self.events.push_back(Event::ClientGone(ClientId(id)));
        }
    }

    /// Timers B, F (no final response), D, K, M (enough of absorbing).
    pub(super) fn client_end(&mut self, _now: Instant, id: u64, kind: Kind) {
        let Some(mut client) = self.clients.remove(&(id, kind)) else { return };
        self.bytes -= client.held_bytes();
        self.deadlines.set(Timer::ClientRepeat(id, kind), &mut client.repeat, None);
        if kind == Kind::Cancel {
            return;
        }
        if matches!(client.state, State::Calling | State::Proceeding) {
            self.events.push_back(Event::Timeout(ClientId(id)));
        }
        self.events.push_back(Event::ClientGone(ClientId(id)));
    }
}

impl Client {
    fn new(invite: bool, method: &'static str, branch: Box<str>, hop: Hop, payload: Bytes) -> Self {
        Self {
            state: State::Calling,
            invite,
            method,
            branch,
            hop,
            payload,
            fallback: None,
            ack: None,
            cancel: Cancel::No,
            repeat: None,
            end: None,
            interval: Duration::ZERO,
        }
    }

    /// Bytes of the messages that are kept.
    fn held_bytes(&self) -> usize {
        let cancel = if let Cancel::Wanted(headers) = &self.cancel { headers.len() } else { 0 };
        let fallback = self.fallback.as_ref().map_or(0, |fallback| fallback.payload.len());
        self.payload.len() + fallback + self.ack.as_ref().map_or(0, Bytes::len) + cancel
    }

    pub(super) fn hop(&self) -> Hop {
        self.hop
    }

    /// Whether no response has come yet.
    pub(super) fn is_unheard(&self) -> bool {
        self.state == State::Calling
    }

    fn transmit(&self, payload: Bytes) -> Transmit {
        Transmit { hop: self.hop, payload, method: self.method, status: None }
    }
}

/// Id, keyed hash and loop mark of a branch that looks like ours.
fn split_branch(branch: &[u8]) -> Option<(u64, u64, u64)> {
    let mut parts = std::str::from_utf8(branch.strip_prefix(b"z9hG4bKbl")?).ok()?.split('.');
    let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
    let found = (hex()?, hex()?, hex()?);
    parts.next().is_none().then_some(found)
}
