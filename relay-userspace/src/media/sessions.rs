//! The sessions: who offered what to whom, the ports that stand between them, and the flows that follow.
//!
//! A session has two sides: A, the party of the first offer, and B, whoever answers. Each stream has a pair
//! of ports on each side's network. What A sends arrives at A's port and leaves from B's port to B, and the
//! other way round; so each port is the local end of one flow, and a stream of RTP has four of them.
//!
//! A later offer changes what is negotiated only when it is answered: if it is refused, the session goes on
//! as it was (RFC 3264 section 8). Ports of new streams are there at once, for they are announced at once.
//! Several answers to one offer (forking) follow one another: the last one's party is B.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use relay_ebpf::FlowKind;

use super::{
    ports::{PortPair, PortUse, Ports},
    stream::{Party, Pending, Remote, Side, Stream, Wish, clock_rate, flow_kind, formats, read, usable},
    surface::{Answer, MediaError, Offer},
};
use crate::{
    datapath::FlowSpec,
    net::{Dscp, Latching, NetworkId},
    quality::{self, Format},
    sdp::{Direction, Ice, Media, Rewriter, Session as Description, Target},
};

/// Flows outlive their call by this long: whoever hangs up has sent packets that the BYE overtakes, and
/// may send more until it is answered.
const LINGER: Duration = Duration::from_secs(1);
/// What the media room knows of a network.
#[derive(Debug, Clone)]
pub struct MediaNetwork {
    /// Its name, for messages to people.
    pub name: String,
    /// The address that media ports are on.
    pub address: IpAddr,
    /// The address that session descriptions announce.
    pub advertised: IpAddr,
    /// The media ports.
    pub ports: RangeInclusive<u16>,
    /// Which sources its flows may learn.
    pub latching: Latching,
    /// The code point of RTP that leaves to it; none to leave it as it came.
    pub rtp_dscp: Option<Dscp>,
    /// The code point of RTCP that leaves to it; none to leave it as it came.
    pub rtcp_dscp: Option<Dscp>,
}

/// Code points of what leaves; none to leave them as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Of RTP.
    pub rtp: Option<Dscp>,
    /// Of RTCP.
    pub rtcp: Option<Dscp>,
}

/// How the media room is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The networks, by [`NetworkId`].
    pub networks: Vec<MediaNetwork>,
    /// Sessions that there can be at a time.
    pub max_sessions: usize,
    /// A session without any packet for this long has ended unnoticed.
    pub timeout: Duration,
    /// Shuffles the ports.
    pub seed: u64,
}

/// A change that the datapath is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowChange {
    /// Install this flow, or change the one with its local address and port.
    Install(FlowSpec),
    /// Remove the flow with this local address and port.
    Remove(SocketAddr),
}

/// What an offer or an answer leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The description for the other party.
    pub sdp: Vec<u8>,
    /// What the datapath has to do before it is sent on.
    pub changes: Vec<FlowChange>,
}

/// One stream of a session as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// `audio`, `video`, ...
    pub kind: String,
    /// The local ends of its flows: A's RTP and RTCP, B's RTP and RTCP.
    pub flows: Vec<SocketAddr>,
    /// The local ends of RTP and RTCP on A's side, and on B's.
    pub ends: [[SocketAddr; 2]; 2],
    /// What its payload types mean.
    pub formats: Vec<Format>,
    /// Whether each direction is meant to be sent, from A and from B.
    pub wishes: [quality::Wish; 2],
}

/// A session as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// The networks of A and B.
    pub networks: (NetworkId, NetworkId),
    /// Its streams.
    pub streams: Vec<StreamReport>,
}

#[derive(Debug)]
struct Session {
    a_tag: Vec<u8>,
    networks: (NetworkId, NetworkId),
    streams: Vec<Option<Stream>>,
    negotiated: Instant,
}

impl Session {
    fn side(&self, tag: &[u8]) -> Side {
        if tag == self.a_tag { Side::A } else { Side::B }
    }

    fn network(&self, side: Side) -> NetworkId {
        match side {
            Side::A => self.networks.0,
            Side::B => self.networks.1,
        }
    }
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    settings: Settings,
    ports: Vec<Ports>,
    sessions: HashMap<Vec<u8>, Session>,
    /// Streams that have ended, in the order of their end, whose last packets may still be under way.
    ended: VecDeque<(Instant, Stream)>,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let ports = (0u64..)
            .zip(&settings.networks)
            .map(|(index, network)| Ports::new(&network.ports, settings.seed.wrapping_add(index)))
            .collect();
        Self { settings, ports, sessions: HashMap::new(), ended: VecDeque::new() }
    }

    /// Takes other code points, limit and timeout. Code points hold for what is negotiated from now on.
    pub fn reconfigure(&mut self, marks: Marks, max_sessions: usize, timeout: Duration) {
        for network in &mut self.settings.networks {
            network.rtp_dscp = marks.rtp;
            network.rtcp_dscp = marks.rtcp;
        }
        self.settings.max_sessions = max_sessions;
        self.settings.timeout = timeout;
    }

    /// Takes an offer.
    ///
    /// # Errors
    /// See [`MediaError`]; nothing of what this offer would have added stays behind.
    pub fn offer(&mut self, now: Instant, offer: &Offer<'_>) -> Result<Negotiated, MediaError> {
        let description = read(offer.sdp)?;
        let known = self.sessions.contains_key(offer.call);
        if !known && self.sessions.len() >= self.settings.max_sessions {
            return Err(MediaError::Limit { what: "media sessions", limit: self.settings.max_sessions });
        }
        let wishes = self.wishes(offer.from, &description)?;
        let mut session = self.sessions.remove(offer.call).unwrap_or_else(|| Session {
            a_tag: offer.from_tag.to_vec(),
            networks: (offer.from, offer.to),
            streams: Vec::new(),
            negotiated: now,
        });
        let result = self.apply_offer(&mut session, offer.from_tag, &description, &wishes);
        session.negotiated = now;
        if result.is_ok() || known {
            self.sessions.insert(offer.call.to_vec(), session);
        }
        result
    }

    fn apply_offer(
        &mut self,
        session: &mut Session,
        tag: &[u8],
        description: &Description<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Negotiated, MediaError> {
        let side = session.side(tag);
        let mut changes = Vec::new();
        let mut added: Vec<(usize, Stream)> = Vec::new();
        for (index, (media, wish)) in description.media.iter().zip(wishes).enumerate() {
            let known = session.streams.get_mut(index).and_then(Option::as_mut);
            match (known, wish) {
                (Some(stream), Some(wish)) => stream.pending = Some((side, Pending::Wish(*wish))),
                (Some(stream), None) if media.is_disabled() => stream.pending = Some((side, Pending::End)),
                (None, Some(wish)) => match self.new_stream(session.networks, side, media, *wish) {
                    Ok(stream) => added.push((index, stream)),
                    Err(error) => {
                        added.iter().for_each(|(_, stream)| self.release_ports(stream));
                        return Err(error);
                    }
                },
                (_, None) => {}
            }
        }
        for (index, stream) in added {
            if session.streams.len() <= index {
                session.streams.resize_with(index + 1, || None);
            }
            self.install(&stream, &mut changes);
            session.streams[index] = Some(stream);
        }
        let other = match side {
            Side::A => Side::B,
            Side::B => Side::A,
        };
        let sdp = self.rewrite(session, description, wishes, other);
        Ok(Negotiated { sdp, changes })
    }

    /// Takes an answer to the last offer.
    ///
    /// # Errors
    /// See [`MediaError`]; the session is then as it was.
    pub fn answer(&mut self, now: Instant, answer: &Answer<'_>) -> Result<Negotiated, MediaError> {
        let description = read(answer.sdp)?;
        let wishes = self.wishes(answer.to, &description)?;
        let mut session = self.sessions.remove(answer.call).ok_or(MediaError::UnknownCall)?;
        session.negotiated = now;
        let offerer = session.side(answer.from_tag);
        let answerer = match offerer {
            Side::A => Side::B,
            Side::B => Side::A,
        };
        let mut changes = Vec::new();
        for (index, (media, wish)) in description.media.iter().zip(&wishes).enumerate() {
            let Some(slot) = session.streams.get_mut(index) else { continue };
            let Some(stream) = slot.as_mut() else { continue };
            match stream.pending.take() {
                Some((_, Pending::End)) if media.is_disabled() => {
                    if let Some(stream) = slot.take() {
                        self.end(&stream, &mut changes);
                    }
                    continue;
                }
                Some((side, Pending::Wish(wish))) => stream.party(side).take(wish),
                Some((_, Pending::End)) | None => {}
            }
            let before = stream.clone();
            match wish {
                Some(wish) => {
                    stream.party(answerer).take(*wish);
                    (stream.flow_kind, stream.clock_rate) = (flow_kind(media), clock_rate(media));
                    stream.formats = formats(media);
                }
                // Another branch of a forked call may yet accept the stream, so its ports stay: the phone has
                // announced none of its own, and gets none of ours.
                None => stream.party(answerer).refuse(),
            }
            let stream = stream.clone();
            if stream.flow_kind != before.flow_kind {
                self.remove_surplus(&before, &stream, &mut changes);
            }
            self.install(&stream, &mut changes);
        }
        let sdp = self.rewrite(&session, &description, &wishes, offerer);
        self.sessions.insert(answer.call.to_vec(), session);
        Ok(Negotiated { sdp, changes })
    }

    /// Ends a session; nothing happens if there is none. Its flows linger until [`Sessions::reap`].
    pub fn delete(&mut self, now: Instant, call: &[u8]) {
        if let Some(session) = self.sessions.remove(call) {
            self.ended.extend(session.streams.into_iter().flatten().map(|stream| (now, stream)));
        }
    }

    /// When [`Sessions::reap`] has something to do next.
    #[must_use]
    pub fn next_reap(&self) -> Option<Instant> {
        self.ended.front().map(|(ended, _)| *ended + LINGER)
    }

    /// Removes the flows of sessions that ended long enough ago, and gives their ports back.
    pub fn reap(&mut self, now: Instant) -> Vec<FlowChange> {
        let mut changes = Vec::new();
        while self.next_reap().is_some_and(|due| due <= now)
            && let Some((_, stream)) = self.ended.pop_front()
        {
            self.end(&stream, &mut changes);
        }
        changes
    }

    /// A session as it stands.
    #[must_use]
    pub fn query(&self, call: &[u8]) -> Option<SessionReport> {
        let session = self.sessions.get(call)?;
        let streams = session
            .streams
            .iter()
            .flatten()
            .filter_map(|stream| {
                Some(StreamReport {
                    kind: stream.kind.clone(),
                    flows: self.specs(stream).into_iter().map(|spec| spec.local).collect(),
                    ends: [self.ends(&stream.a)?, self.ends(&stream.b)?],
                    formats: stream.formats.clone(),
                    wishes: [(&stream.a, &stream.b), (&stream.b, &stream.a)]
                        .map(|(from, to)| heard(from, to)),
                })
            })
            .collect();
        Some(SessionReport { networks: session.networks, streams })
    }

    /// The sessions in which nothing was negotiated for the timeout: they have ended if no packet came
    /// either.
    #[must_use]
    pub fn quiet(&self, now: Instant) -> Vec<Vec<u8>> {
        self.sessions
            .iter()
            .filter(|(_, session)| now.saturating_duration_since(session.negotiated) >= self.settings.timeout)
            .map(|(call, _)| call.clone())
            .collect()
    }

    /// A session without any packet for this long has ended unnoticed.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many ports of each network are in use, in the order of the networks.
    #[must_use]
    pub fn ports(&self) -> Vec<PortUse> {
        self.ports.iter().map(Ports::in_use).collect()
    }

    /// Where a party on `network` wants the packets of each of its streams; none for streams that are
    /// refused, or that no relay of datagrams can carry.
    fn wishes(
        &self,
        network: NetworkId,
        description: &Description<'_>,
    ) -> Result<Vec<Option<Wish>>, MediaError> {
        let ours = self.network(network)?;
        description
            .media
            .iter()
            .map(|media| {
                if media.is_disabled() || !media.protocol.is_datagram() {
                    return Ok(None);
                }
                let connection = description.connection_of(media).map(|connection| connection.address);
                let ip = usable(connection, ours)?;
                let rtp = ip.map(|ip| SocketAddr::new(ip, media.port));
                let rtcp = match &media.rtcp {
                    Some(rtcp) => {
                        let ip = match rtcp.connection {
                            Some(connection) => usable(Some(connection.address), ours)?,
                            None => ip,
                        };
                        ip.map(|ip| SocketAddr::new(ip, rtcp.port))
                    }
                    None => ip.zip(media.port.checked_add(1)).map(|(ip, port)| SocketAddr::new(ip, port)),
                };
                let remote = Remote { rtp, rtcp: rtcp.filter(|rtcp| rtcp.port() != 0) };
                self.check_own(remote)?;
                Ok(Some(Wish { remote, direction: description.direction_of(media) }))
            })
            .collect()
    }

    /// The appliance's own address is the other leg of a call that a server has bridged, if the port is a
    /// media port; any other port of it is a service of this host, to which nobody's media goes.
    fn check_own(&self, remote: Remote) -> Result<(), MediaError> {
        for address in [remote.rtp, remote.rtcp].into_iter().flatten() {
            let mut own =
                self.settings.networks.iter().filter(|network| network.address == address.ip()).peekable();
            if own.peek().is_some() && !own.any(|network| network.ports.contains(&address.port())) {
                return Err(MediaError::Sdp(format!(
                    "{address} is the appliance itself, and no media port of it"
                )));
            }
        }
        Ok(())
    }

    fn network(&self, network: NetworkId) -> Result<&MediaNetwork, MediaError> {
        self.settings
            .networks
            .get(network.index())
            .ok_or_else(|| MediaError::Datapath(format!("{network} is not configured")))
    }

    fn new_stream(
        &mut self,
        networks: (NetworkId, NetworkId),
        side: Side,
        media: &Media<'_>,
        wish: Wish,
    ) -> Result<Stream, MediaError> {
        let a = self.take_ports(networks.0)?;
        let b = match self.take_ports(networks.1) {
            Ok(b) => b,
            Err(error) => {
                self.give_back(networks.0, a);
                return Err(error);
            }
        };
        let party = |network, ports| Party {
            network,
            ports,
            remote: Remote::default(),
            direction: Direction::SendRecv,
            turns: 0,
        };
        let mut stream = Stream {
            kind: String::from_utf8_lossy(media.kind).into_owned(),
            flow_kind: flow_kind(media),
            clock_rate: clock_rate(media),
            formats: formats(media),
            a: party(networks.0, a),
            b: party(networks.1, b),
            pending: None,
        };
        stream.party(side).take(wish);
        Ok(stream)
    }

    fn take_ports(&mut self, network: NetworkId) -> Result<PortPair, MediaError> {
        let name = self.network(network)?.name.clone();
        let ports = self
            .ports
            .get_mut(network.index())
            .ok_or_else(|| MediaError::Datapath(format!("{network} has no ports")))?;
        ports.take().ok_or_else(|| {
            let PortUse { used, total } = ports.in_use();
            MediaError::NoPorts { network: name, used, total }
        })
    }

    fn give_back(&mut self, network: NetworkId, pair: PortPair) {
        if let Some(ports) = self.ports.get_mut(network.index()) {
            ports.give_back(pair);
        }
    }

    fn release_ports(&mut self, stream: &Stream) {
        self.give_back(stream.a.network, stream.a.ports);
        self.give_back(stream.b.network, stream.b.ports);
    }

    fn end(&mut self, stream: &Stream, changes: &mut Vec<FlowChange>) {
        changes.extend(self.specs(stream).into_iter().map(|spec| FlowChange::Remove(spec.local)));
        self.release_ports(stream);
    }

    fn install(&self, stream: &Stream, changes: &mut Vec<FlowChange>) {
        changes.extend(self.specs(stream).into_iter().map(FlowChange::Install));
    }

    /// Removes the flows that a stream has no longer: one that turns from RTP to fax has no RTCP.
    fn remove_surplus(&self, before: &Stream, now: &Stream, changes: &mut Vec<FlowChange>) {
        let kept: Vec<SocketAddr> = self.specs(now).into_iter().map(|spec| spec.local).collect();
        let surplus = self.specs(before).into_iter().map(|spec| spec.local);
        changes.extend(surplus.filter(|local| !kept.contains(local)).map(FlowChange::Remove));
    }

    /// The local ends of RTP and RTCP on a party's side.
    fn ends(&self, party: &Party) -> Option<[SocketAddr; 2]> {
        let address = self.network(party.network).ok()?.address;
        Some([party.ports.rtp(), party.ports.rtcp()].map(|port| SocketAddr::new(address, port)))
    }

    /// The flows of a stream: A's RTP and RTCP, B's RTP and RTCP.
    fn specs(&self, stream: &Stream) -> Vec<FlowSpec> {
        let mut specs = Vec::with_capacity(4);
        for (from, to) in [(&stream.a, &stream.b), (&stream.b, &stream.a)] {
            let (Ok(here), Ok(there)) = (self.network(from.network), self.network(to.network)) else {
                continue;
            };
            let mut flow = |kind, local, out, signalled, destination| {
                specs.push(FlowSpec {
                    local: SocketAddr::new(here.address, local),
                    from: from.network,
                    signalled,
                    latching: here.latching,
                    out_source: SocketAddr::new(there.address, out),
                    destination,
                    kind,
                    dscp: if kind == FlowKind::Rtcp { there.rtcp_dscp } else { there.rtp_dscp },
                    clock_rate: stream.clock_rate,
                    turns: from.turns,
                });
            };
            flow(stream.flow_kind, from.ports.rtp(), to.ports.rtp(), from.remote.rtp, to.remote.rtp);
            if stream.flow_kind == FlowKind::Rtp {
                let kind = FlowKind::Rtcp;
                flow(kind, from.ports.rtcp(), to.ports.rtcp(), from.remote.rtcp, to.remote.rtcp);
            }
        }
        specs
    }

    /// The description for the party on side `to`: our address and our ports on its network.
    fn rewrite(
        &self,
        session: &Session,
        description: &Description<'_>,
        wishes: &[Option<Wish>],
        to: Side,
    ) -> Vec<u8> {
        let mut rewriter = Rewriter::new(description);
        let Ok(network) = self.network(session.network(to)) else { return rewriter.finish() };
        // Streams that are not ours to carry keep the address they came with: if they have none of their
        // own, the session's must stay theirs.
        let foreign =
            description.media.iter().zip(wishes).any(|(media, remote)| {
                remote.is_none() && !media.is_disabled() && media.connection.is_none()
            });
        rewriter.set_origin_family(network.advertised);
        if !foreign {
            rewriter.set_connection(Target::Session, network.advertised);
        }
        for (index, wish) in wishes.iter().enumerate() {
            let (Some(_), Some(Some(stream))) = (wish, session.streams.get(index)) else { continue };
            let ports = match to {
                Side::A => stream.a.ports,
                Side::B => stream.b.ports,
            };
            if let Some(media) = description.media.get(index) {
                if media.connection.is_some() || foreign {
                    rewriter.set_connection(Target::Media(index), network.advertised);
                }
                if media.rtcp.is_some() {
                    rewriter.set_rtcp(index, ports.rtcp(), network.advertised);
                }
            }
            rewriter.set_port(index, ports.rtp());
        }
        rewriter.ice(Ice::Remove);
        rewriter.finish()
    }
}

/// Whether signalling wants packets from one party to reach the other (RFC 3264 section 5.1): both say so, and there is
/// an address to send them to.
fn heard(from: &Party, to: &Party) -> quality::Wish {
    let sends = matches!(from.direction, Direction::SendRecv | Direction::SendOnly);
    let takes = matches!(to.direction, Direction::SendRecv | Direction::RecvOnly) && to.remote.rtp.is_some();
    if sends && takes { quality::Wish::Sound } else { quality::Wish::Silence }
}

#[cfg(test)]
mod tests;
