//! Server transactions. RFC 3261 17.2, RFC 6026 7.1, RFC 4320 (what is answered to requests other than INVITE, and when).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Event, Hop, Incoming, ServerId, Share, Timer, Timers, Transactions, Transmit};
use crate::sip::wire::{self, Message, Method, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final response yet (Trying and Proceeding in one: what differs is whether there is something to repeat).
    Proceeding,
    /// A final response other than 2xx to INVITE was sent.
    Completed,
    /// Its ACK came.
    Confirmed,
    /// A 2xx to INVITE was sent: the room above repeats it end to end.
    Accepted,
}

#[derive(Debug)]
pub(super) struct Server {
    state: State,
    invite: bool,
    method: &'static str,
    key: Box<[u8]>,
    /// Where responses go.
    reply_to: Hop,
    source: Hop,
    /// Kept until the final response, which may have to be built from it.
    request: Option<Box<Message>>,
    /// It came from the room above, which gets the responses.
    within: bool,
    last: Option<(u16, Bytes)>,
    repeat: Option<Instant>,
    end: Option<Instant>,
    interval: Duration,
}

impl Transactions {
    /// Takes a request that came from `source`.
    ///
    /// An INVITE is answered 100 at once: it stops the peer's retransmissions whatever the next hop does, and the
    /// 200 ms of RFC 3261 17.2.1 would only spare a message. `share` is what of the limits its sender may take.
    pub fn receive_request(
        &mut self,
        now: Instant,
        source: Hop,
        message: &Message,
        share: Share,
    ) -> Incoming {
        let method = message.method();
        let mut key = std::mem::take(&mut self.key);
        write_key(&mut key, source, message, method);
        let known = self.server_keys.get(&key[..]).copied();
        let incoming = match (known, method) {
            (Some(id), Method::Ack) => self.acknowledge(now, id),
            (None, Method::Ack) => Incoming::AckOfSuccess,
            (Some(id), _) => {
                self.repeat_last(id);
                Incoming::Absorbed
            }
            (None, _) if self.is_full(source.address.ip(), share) => Incoming::Full,
            (None, _) => {
                let id = self.id();
                self.server_keys.insert(key.as_slice().into(), id);
                let server = Server {
                    state: State::Proceeding,
                    invite: method == &Method::Invite,
                    method: method.as_label(),
                    key: key.as_slice().into(),
                    reply_to: super::reply_to(source, message),
                    source,
                    request: Some(Box::new(message.clone())),
                    within: false,
                    last: None,
                    repeat: None,
                    end: None,
                    interval: self.timers.of(source).t1,
                };
                self.hold(&server);
                self.servers.insert(id, Box::new(server));
                if method == &Method::Cancel {
                    write_key(&mut key, source, message, &Method::Invite);
                    Incoming::Cancel(ServerId(id), self.server_keys.get(&key[..]).copied().map(ServerId))
                } else {
                    if method == &Method::Invite {
                        self.reply(now, ServerId(id), &Reply::trying());
                    } else if let Some(server) = self.servers.get_mut(&id) {
                        let at = now + self.timers.of(source).settled();
                        self.deadlines.set(Timer::ServerRepeat(id), &mut server.repeat, Some(at));
                    }
                    Incoming::New(ServerId(id))
                }
            }
        };
        self.key = key;
        incoming
    }

    /// Opens a transaction for an INVITE that the room above has made itself, in the name of `source`. Responses to it are
    /// [`Event::Within`].
    pub fn open_within(&mut self, source: Hop, message: &Message) -> ServerId {
        let id = self.id();
        let server = Server {
            state: State::Proceeding,
            invite: true,
            method: Method::Invite.as_label(),
            key: [b"within ", &id.to_be_bytes()[..]].concat().into(),
            reply_to: source,
            source,
            request: Some(Box::new(message.clone())),
            within: true,
            last: None,
            repeat: None,
            end: None,
            interval: self.timers.of(source).t1,
        };
        self.hold(&server);
        self.server_keys.insert(server.key.clone(), id);
        self.servers.insert(id, Box::new(server));
        ServerId(id)
    }

    /// The request, as long as it has no final response.
    #[must_use]
    pub fn request(&self, id: ServerId) -> Option<&Message> {
        self.servers.get(&id.0)?.request.as_deref()
    }

    /// Answers with a response of our own. Nothing happens when a final response was sent before.
    pub fn reply(&mut self, now: Instant, id: ServerId, reply: &Reply<'_>) {
        let Some(server) = self.servers.get(&id.0) else { return };
        let Some(request) = server.request.as_deref() else { return };
        let payload = wire::respond(request, server.source.address, reply);
        self.respond(now, id, reply.status, payload);
    }

    /// Sends a response, provisional or final. After a final one only further 2xx to an INVITE still go out.
    pub fn respond(&mut self, now: Instant, id: ServerId, status: u16, payload: Bytes) {
        let Some((source, before)) = self.weigh(id) else { return };
        self.send_response(now, id, status, payload);
        let after = self.weigh(id).map_or(before, |(_, after)| after);
        self.bytes = self.bytes - before + after;
        if let Some(held) = self.by_source.get_mut(&source) {
            held.bytes = held.bytes - before + after;
        }
    }

    /// Whose a transaction is, and how many bytes it keeps.
    fn weigh(&self, id: ServerId) -> Option<(IpAddr, usize)> {
        self.servers.get(&id.0).map(|server| (server.source.address.ip(), server.held_bytes()))
    }

    /// Enters what a transaction keeps.
    fn hold(&mut self, server: &Server) {
        let bytes = server.held_bytes();
        self.bytes += bytes;
        let held = self.by_source.entry(server.source.address.ip()).or_default();
        held.count += 1;
        held.bytes += bytes;
    }

    /// Takes it off again.
    fn let_go(&mut self, server: &Server) {
        let (source, bytes) = (server.source.address.ip(), server.held_bytes());
        self.bytes -= bytes;
        if let Some(held) = self.by_source.get_mut(&source) {
            held.count -= 1;
            held.bytes -= bytes;
            if held.count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    fn send_response(&mut self, now: Instant, id: ServerId, status: u16, payload: Bytes) {
        let Some(server) = self.servers.get_mut(&id.0) else { return };
        let success = server.invite && (200..300).contains(&status);
        match server.state {
            State::Proceeding => {}
            State::Accepted if success => {
                if server.within {
                    self.events.push_back(Event::Within(status, payload));
                } else {
                    let transmit = server.transmit(status, payload);
                    self.out.push_back(transmit);
                }
                return;
            }
            _ => return,
        }
        if server.within {
            self.events.push_back(Event::Within(status, payload.clone()));
        } else {
            let transmit = server.transmit(status, payload.clone());
            self.out.push_back(transmit);
        }
        if status < 200 {
            server.last = Some((status, payload));
            return;
        }
        server.request = None;
        // A 100 that is due to another request than INVITE is not any more.
        self.deadlines.set(Timer::ServerRepeat(id.0), &mut server.repeat, None);
        let timeout = self.timers.of(server.source).timeout();
        let end = Some(now + timeout);
        if success {
            // RFC 6026 7.1: the transaction only absorbs retransmissions of the INVITE from here on.
            server.state = State::Accepted;
            server.last = None;
        } else {
            server.state = State::Completed;
            server.last = Some((status, payload));
            if server.invite && !server.within && !server.source.transport.is_reliable() {
                let repeat = Some(now + server.interval);
                self.deadlines.set(Timer::ServerRepeat(id.0), &mut server.repeat, repeat);
            }
        }
        let end =
            if server.invite { end } else { Some(now + Timers::absorbing(timeout, server.source.transport)) };
        self.deadlines.set(Timer::ServerEnd(id.0), &mut server.end, end);
    }

    /// An ACK to a final response other than 2xx ends its retransmission; to a 2xx it belongs to the room above.
    fn acknowledge(&mut self, now: Instant, id: u64) -> Incoming {
        let Some(server) = self.servers.get_mut(&id) else { return Incoming::AckOfFailure };
        match server.state {
            State::Accepted => return Incoming::AckOfSuccess,
            State::Completed => {
                server.state = State::Confirmed;
                self.deadlines.set(Timer::ServerRepeat(id), &mut server.repeat, None);
                let end =
                    Some(now + Timers::absorbing(self.timers.of(server.source).t4, server.source.transport));
                self.deadlines.set(Timer::ServerEnd(id), &mut server.end, end);
            }
            State::Proceeding | State::Confirmed => {}
        }
        Incoming::AckOfFailure
    }

    fn repeat_last(&mut self, id: u64) {
        let Some(server) = self.servers.get(&id) else { return };
        if server.state == State::Confirmed {
            return;
        }
        if let Some((status, payload)) = &server.last {
            let transmit = server.transmit(*status, payload.clone());
            self.out.push_back(transmit);
        }
    }

    /// A request that can no longer be answered in time is not answered at all (RFC 4320 section 4.2): its sender has
    /// given it up, and what repeats it is absorbed until it stops. Of an INVITE nothing changes: it is waited for.
    pub fn abandon(&mut self, now: Instant, id: ServerId) {
        let Some((source, before)) = self.weigh(id) else { return };
        let Some(server) = self.servers.get_mut(&id.0) else { return };
        if server.invite || server.state != State::Proceeding {
            return;
        }
        server.state = State::Completed;
        (server.request, server.last) = (None, None);
        self.deadlines.set(Timer::ServerRepeat(id.0), &mut server.repeat, None);
        let end = now + self.timers.of(server.source).t4;
        self.deadlines.set(Timer::ServerEnd(id.0), &mut server.end, Some(end));
        self.bytes -= before;
        if let Some(held) = self.by_source.get_mut(&source) {
            held.bytes -= before;
        }
    }

    /// Timer G, and the 100 to a request other than INVITE that takes its time.
    pub(super) fn server_repeat(&mut self, now: Instant, id: u64) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.repeat = None;
        if server.state == State::Proceeding {
            // RFC 4320 section 4.1: not before its sender repeats it as seldom as it will, and by then in any case.
            if server.last.is_none() {
                self.reply(now, ServerId(id), &Reply::trying());
            }
            return;
        }
        server.interval = (server.interval * 2).min(self.timers.of(server.source).t2);
        let at = Some(now + server.interval);
        self.deadlines.set(Timer::ServerRepeat(id), &mut server.repeat, at);
        self.repeat_last(id);
    }

    /// Timers H, I, J, L.
    pub(super) fn server_end(&mut self, id: u64) {
        if let Some(mut server) = self.servers.remove(&id) {
            self.deadlines.set(Timer::ServerRepeat(id), &mut server.repeat, None);
            self.server_keys.remove(&server.key);
            self.let_go(&server);
            self.events.push_back(Event::ServerGone(ServerId(id)));
        }
    }
}

impl Server {
    /// Bytes of the messages that are kept.
    fn held_bytes(&self) -> usize {
        self.request.as_ref().map_or(0, |request| request.held_bytes())
            + self.last.as_ref().map_or(0, |(_, payload)| payload.len())
    }

    fn transmit(&self, status: u16, payload: Bytes) -> Transmit {
        Transmit { hop: self.reply_to, payload, method: self.method, status: Some(status) }
    }
}

/// What a server transaction is known by (RFC 3261 17.2.3). An ACK has its INVITE's key.
fn write_key(key: &mut Vec<u8>, source: Hop, message: &Message, method: &Method) {
    let method = if method == &Method::Ack { &Method::Invite } else { method };
    let via = message.via();
    key.clear();
    let mut put = |part: &[u8]| {
        key.extend_from_slice(part);
        key.push(0);
    };
    put(&source.network.0.to_be_bytes());
    put(method.as_bytes());
    match via.branch() {
        Some(branch) if via.has_magic_cookie() => {
            put(branch);
            put(via.sent_by);
        }
        _ => {
            // RFC 2543 peers: by what identifies the request. The To tag is left out, since the ACK has one that
            // its INVITE had not, and CSeq tells requests of one dialog apart.
            put(message.request_uri());
            put(message.from_tag());
            put(message.call_id());
            put(&message.cseq().to_be_bytes());
            put(via.value);
        }
    }
}
