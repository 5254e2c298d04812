//! The sessions: who offered what to whom, the ports that stand between them, and the flows that follow.
//!
//! A session has two sides: A, the party of the first offer, and B, whoever answers. Each stream has a pair
//! of ports on each side's network. What A sends arrives at A's port and leaves from B's port to B, and the
//! other way round; so each port is the local end of one flow, and a stream of RTP has four of them.
//!
//! A side that multiplexes RTCP with RTP (RFC 5761) uses the first port of its pair for both. Each side is negotiated by
//! itself: whoever offers to multiplex may, whether or not the other party does, and the datapath splits and joins.
//!
//! A later offer changes what is negotiated only when it is answered: if it is refused, the session goes on
//! as it was (RFC 3264 section 8). Ports of new streams are there at once, for they are announced at once.
//!
//! Several answers to one offer (forking) are *branches* of B. All of them send to the one port that was offered, and are
//! told apart by where they send from; towards A each has a pair of ports of its own, so that A hears and answers each
//! by itself. The branch that was heard last is the one that offers without a known tag are for.

mod description;

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use relay_ebpf::FlowKind;

use description::Form;

use super::{
    end::{End, add_fork},
    ice::{self, IceSide},
    ports::{PortPair, PortUse, Ports},
    protection::{Leg, Proposal},
    stream::{Branch, Party, Pending, Side, Stream, Wish, clock_rate, flow_kind, formats, read},
    surface::{Answer, MediaError, Offer},
};
use crate::{
    datapath::FlowSpec,
    net::{Dscp, IcePolicy, Latching, NetworkId, SrtpPolicy},
    quality::{self, Format},
    sdp::{Direction, Media, Session as Description},
    srtp::Random,
};

/// Flows outlive their call by this long: whoever hangs up has sent packets that the BYE overtakes, and
/// may send more until it is answered.
const LINGER: Duration = Duration::from_secs(1);
/// Branches of a forked call, each with ports of its own: the phones of a large group that rings.
const MAX_BRANCHES: usize = 16;

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
    /// How its parties protect their media.
    pub srtp: SrtpPolicy,
    /// What becomes of their ICE.
    pub ice: IcePolicy,
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
    /// Makes keys.
    pub random: Random,
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
    /// The local ends of its flows: A's RTP and RTCP in each branch, B's RTP and RTCP.
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
pub(super) struct Session {
    pub(super) a_tag: Vec<u8>,
    pub(super) networks: (NetworkId, NetworkId),
    pub(super) streams: Vec<Option<Stream>>,
    pub(super) negotiated: Instant,
    /// ICE with A and with B.
    pub(super) ice: [Option<IceSide>; 2],
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

    fn ice(&mut self, side: Side) -> &mut Option<IceSide> {
        let [a, b] = &mut self.ice;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    /// Has the streams' ports checked by what their parties are told.
    pub(super) fn spread_ice(&mut self) {
        let own = self.ice.each_ref().map(|side| side.as_ref().and_then(IceSide::at_port));
        self.streams.iter_mut().flatten().for_each(|stream| stream.ice.clone_from(&own));
    }
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    settings: Settings,
    ports: Vec<Ports>,
    /// Each in a place of its own: the table is up to half empty.
    sessions: HashMap<Vec<u8>, Box<Session>>,
    /// What has ended, in the order of its end, whose last packets may still be under way.
    ended: VecDeque<Ended>,
}

/// Flows and ports that nothing stands on any more.
#[derive(Debug)]
struct Ended {
    at: Instant,
    flows: Vec<SocketAddr>,
    ports: Vec<(NetworkId, PortPair)>,
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
        if !known && !self.has_room() {
            return Err(MediaError::Limit { what: "media sessions", limit: self.settings.max_sessions });
        }
        let wishes = self.wishes(offer.from, &description)?;
        let mut session = self.sessions.remove(offer.call).unwrap_or_else(|| {
            Box::new(Session {
                a_tag: offer.from_tag.to_vec(),
                networks: (offer.from, offer.to),
                streams: Vec::new(),
                negotiated: now,
                ice: [None, None],
            })
        });
        let result = self.apply_offer(&mut session, offer, &description, &wishes);
        session.negotiated = now;
        if result.is_ok() || known {
            self.sessions.insert(offer.call.to_vec(), session);
        }
        result
    }

    fn apply_offer(
        &mut self,
        session: &mut Session,
        offer: &Offer<'_>,
        description: &Description<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Negotiated, MediaError> {
        let side = session.side(offer.from_tag);
        if self.is_lite(session, side) {
            ice::offered(session.ice(side), description, self.settings.random);
        }
        if self.is_lite(session, side.other()) {
            ice::offer_to(session.ice(side.other()), self.settings.random);
        }
        session.spread_ice();
        let proposals = self.proposals(session, side, description, wishes)?;
        let mut changes = Vec::new();
        let branch = match side {
            Side::A => offer.to_tag,
            Side::B => Some(offer.from_tag),
        };
        let offered: Vec<bool> = wishes.iter().map(|wish| wish.is_some() && side == Side::B).collect();
        let entered = match branch {
            Some(tag) => self.enter(session, tag, &offered)?,
            None => Vec::new(),
        };
        let mut added: Vec<(usize, Stream)> = Vec::new();
        for (index, ((media, wish), proposal)) in
            description.media.iter().zip(wishes).zip(proposals).enumerate()
        {
            let known = session.streams.get_mut(index).and_then(Option::as_mut);
            match (known, wish) {
                (Some(stream), Some(wish)) => {
                    stream.pending = Some(Box::new((side, Pending::Wish(*wish))));
                    stream.proposal = proposal;
                }
                (Some(stream), None) if media.is_disabled() => {
                    stream.pending = Some(Box::new((side, Pending::End)));
                }
                (None, Some(wish)) => match self.new_stream(session.networks, side, media, *wish, proposal) {
                    Ok(stream) => added.push((index, stream)),
                    Err(error) => {
                        added.iter().for_each(|(_, stream)| self.release_ports(stream));
                        self.leave(session, &entered);
                        return Err(error);
                    }
                },
                (_, None) => {}
            }
        }
        for index in entered {
            if let Some(stream) = session.streams.get(index).and_then(Option::as_ref) {
                self.install(stream, &mut changes);
            }
        }
        for (index, mut stream) in added {
            if session.streams.len() <= index {
                // Mostly one: room for four, which a vector takes by itself, is a kilobyte a call.
                session.streams.reserve_exact(index + 1 - session.streams.len());
                session.streams.resize_with(index + 1, || None);
            }
            if let Some(tag) = branch {
                stream.turn_to(tag);
            }
            stream.ice = session.ice.each_ref().map(|side| side.as_ref().and_then(IceSide::at_port));
            self.install(&stream, &mut changes);
            session.streams[index] = Some(stream);
        }
        let sdp = self.rewrite(session, description, wishes, side.other(), Form::Offer);
        Ok(Negotiated { sdp, changes })
    }

    /// Turns the streams to the branch with this tag; those that are `wanted` get one if they have none. The streams
    /// that have got a new one are returned.
    fn enter(
        &mut self,
        session: &mut Session,
        tag: &[u8],
        wanted: &[bool],
    ) -> Result<Vec<usize>, MediaError> {
        let mut entered = Vec::new();
        for (index, slot) in session.streams.iter_mut().enumerate() {
            let Some(stream) = slot else { continue };
            if stream.turn_to(tag) || !wanted.get(index).copied().unwrap_or_default() {
                continue;
            }
            let ports = if stream.branches.len() < MAX_BRANCHES {
                self.take_ports(stream.networks.0)
            } else {
                Err(MediaError::Limit { what: "branches of a forked call", limit: MAX_BRANCHES })
            };
            match ports {
                Ok(ports) => {
                    let clock_rate = stream.branches.last().map_or(0, |branch| branch.clock_rate);
                    let leg = stream.proposal.as_ref().map_or(Leg::Plain, Proposal::awaited);
                    let (tag, party) = (Some(tag.to_vec()), Party { leg, ..Party::UNKNOWN });
                    stream.branches.push(Branch { tag, ports, party, clock_rate });
                    entered.push(index);
                }
                Err(error) => {
                    self.leave(session, &entered);
                    return Err(error);
                }
            }
        }
        Ok(entered)
    }

    /// Takes back the branches that [`Sessions::enter`] has made.
    fn leave(&mut self, session: &mut Session, entered: &[usize]) {
        for index in entered {
            if let Some(Some(stream)) = session.streams.get_mut(*index)
                && let Some(branch) = stream.branches.pop()
            {
                self.give_back(stream.networks.0, branch.ports);
            }
        }
    }

    /// Takes an answer to the last offer, or one more answer to it from another branch.
    ///
    /// # Errors
    /// See [`MediaError`]; the session is then as it was.
    pub fn answer(&mut self, now: Instant, answer: &Answer<'_>) -> Result<Negotiated, MediaError> {
        let description = read(answer.sdp)?;
        let wishes = self.wishes(answer.to, &description)?;
        let mut session = self.sessions.remove(answer.call).ok_or(MediaError::UnknownCall)?;
        session.negotiated = now;
        let result = self.apply_answer(&mut session, answer, &description, &wishes);
        self.sessions.insert(answer.call.to_vec(), session);
        result
    }

    fn apply_answer(
        &mut self,
        session: &mut Session,
        answer: &Answer<'_>,
        description: &Description<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Negotiated, MediaError> {
        let offerer = session.side(answer.from_tag);
        let (answerer, branch) = match offerer {
            Side::A => (Side::B, answer.to_tag),
            Side::B => (Side::A, answer.from_tag),
        };
        let legs = self.legs(session, offerer, branch, description, wishes)?;
        // One branch of a forked call that has no ICE takes it from none of the others.
        if session.streams.iter().flatten().all(|stream| stream.branches.len() <= 1) {
            ice::answered(session.ice(answerer), description);
            session.spread_ice();
        }
        let accepted: Vec<bool> = wishes.iter().map(Option::is_some).collect();
        let before: Vec<Vec<SocketAddr>> = session
            .streams
            .iter()
            .map(|stream| stream.as_ref().map_or_else(Vec::new, |stream| self.locals(stream)))
            .collect();
        self.enter(session, branch, &accepted)?;
        let mut changes = Vec::new();
        for (index, ((media, wish), leg)) in description.media.iter().zip(wishes).zip(legs).enumerate() {
            let Some(slot) = session.streams.get_mut(index) else { continue };
            let Some(stream) = slot.as_mut() else { continue };
            match stream.pending.take().map(|pending| *pending) {
                Some((_, Pending::End)) if media.is_disabled() => {
                    if let Some(stream) = slot.take() {
                        self.end(&stream, &mut changes);
                    }
                    continue;
                }
                Some((side, Pending::Wish(wish))) => {
                    if let Some(party) = stream.party(side) {
                        party.take(wish);
                    }
                }
                Some((_, Pending::End)) | None => {}
            }
            let offered_mux = stream.party(offerer).is_some_and(|party| party.mux);
            let is_branch = stream.branches.last().is_some_and(|last| last.tag.as_deref() == Some(branch));
            match wish {
                Some(wish) => {
                    // Who multiplexes unasked is not believed (RFC 8035 section 3).
                    let wish = Wish { mux: wish.mux && offered_mux, ..*wish };
                    if let Some(party) = stream.party(answerer) {
                        party.take(wish);
                    }
                    if let (Some(leg), Some(proposal)) = (leg, stream.proposal.clone()) {
                        for (side, leg) in [(answerer, leg), (offerer, proposal.leg)] {
                            if let Some(party) = stream.party(side) {
                                party.leg = leg;
                            }
                        }
                    }
                    stream.flow_kind = flow_kind(media);
                    stream.formats = formats(media);
                    if let Some(branch) = stream.branches.last_mut() {
                        branch.clock_rate = clock_rate(media);
                    }
                }
                // Another branch of a forked call may yet accept the stream, so its ports stay: the phone has
                // announced none of its own, and gets none of ours.
                None if answerer == Side::A || is_branch => {
                    if let Some(party) = stream.party(answerer) {
                        party.refuse();
                    }
                }
                None => {}
            }
            let stream = stream.clone();
            // One that turns from RTP to fax has no RTCP any more, nor has a side that multiplexes a flow for it.
            let kept = self.locals(&stream);
            let surplus = before.get(index).into_iter().flatten().filter(|local| !kept.contains(local));
            changes.extend(surplus.copied().map(FlowChange::Remove));
            self.install(&stream, &mut changes);
        }
        let sdp = self.rewrite(session, description, wishes, offerer, Form::Answer);
        Ok(Negotiated { sdp, changes })
    }

    /// Ends a branch of a forked call; nothing happens to the last one of a stream. Its flows linger until
    /// [`Sessions::reap`]; what is returned is to be done at once.
    pub fn release(&mut self, now: Instant, call: &[u8], tag: &[u8]) -> Vec<FlowChange> {
        let mut changes = Vec::new();
        let Some(mut session) = self.sessions.remove(call) else { return changes };
        let mut ended = Ended { at: now, flows: Vec::new(), ports: Vec::new() };
        for stream in session.streams.iter_mut().flatten() {
            let place = stream.branches.iter().position(|branch| branch.tag.as_deref() == Some(tag));
            let Some(place) = place.filter(|_| stream.branches.len() > 1) else { continue };
            let before: Vec<SocketAddr> = self.locals(stream);
            let branch = stream.branches.remove(place);
            let now: Vec<SocketAddr> = self.locals(stream);
            let Ok(here) = self.network(stream.networks.0).map(|network| network.address) else { continue };
            let own = [branch.ports.rtp(), branch.ports.rtcp()].map(|port| SocketAddr::new(here, port));
            for local in before.into_iter().filter(|local| !now.contains(local)) {
                // What was this branch's alone may still be sent to. The port of the others' side is not.
                if own.contains(&local) {
                    ended.flows.push(local);
                } else {
                    changes.push(FlowChange::Remove(local));
                }
            }
            ended.ports.push((stream.networks.0, branch.ports));
            self.install(stream, &mut changes);
        }
        if !ended.ports.is_empty() {
            self.ended.push_back(ended);
        }
        self.sessions.insert(call.to_vec(), session);
        changes
    }

    /// Ends a session; nothing happens if there is none. Its flows linger until [`Sessions::reap`].
    pub fn delete(&mut self, now: Instant, call: &[u8]) {
        let Some(session) = self.sessions.remove(call) else { return };
        let streams: Vec<&Stream> = session.streams.iter().flatten().collect();
        let ended = Ended {
            at: now,
            flows: streams.iter().flat_map(|stream| self.locals(stream)).collect(),
            ports: streams.iter().flat_map(|stream| ports(stream)).collect(),
        };
        self.ended.push_back(ended);
    }

    /// When [`Sessions::reap`] has something to do next.
    #[must_use]
    pub fn next_reap(&self) -> Option<Instant> {
        self.ended.front().map(|ended| ended.at + LINGER)
    }

    /// Removes the flows of sessions and branches that ended long enough ago, and gives their ports back.
    pub fn reap(&mut self, now: Instant) -> Vec<FlowChange> {
        let mut changes = Vec::new();
        while self.next_reap().is_some_and(|due| due <= now)
            && let Some(ended) = self.ended.pop_front()
        {
            changes.extend(ended.flows.into_iter().map(FlowChange::Remove));
            ended.ports.into_iter().for_each(|(network, pair)| self.give_back(network, pair));
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
                let branch = stream.branches.last()?;
                Some(StreamReport {
                    kind: stream.kind.clone(),
                    flows: self.locals(stream),
                    ends: [
                        self.ends(stream.networks.0, branch.ports, &stream.a)?,
                        self.ends(stream.networks.1, stream.ports, &branch.party)?,
                    ],
                    formats: stream.formats.clone(),
                    wishes: [(&stream.a, &branch.party), (&branch.party, &stream.a)]
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

    pub(super) fn network(&self, network: NetworkId) -> Result<&MediaNetwork, MediaError> {
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
        proposal: Option<Proposal>,
    ) -> Result<Stream, MediaError> {
        let a = self.take_ports(networks.0)?;
        let b = match self.take_ports(networks.1) {
            Ok(b) => b,
            Err(error) => {
                self.give_back(networks.0, a);
                return Err(error);
            }
        };
        let branch = Branch { tag: None, ports: a, party: Party::UNKNOWN, clock_rate: clock_rate(media) };
        let mut stream = Stream {
            kind: String::from_utf8_lossy(media.kind).into_owned(),
            flow_kind: flow_kind(media),
            networks,
            a: Party::UNKNOWN,
            ports: b,
            branches: vec![branch],
            formats: formats(media),
            ice: [None, None],
            pending: None,
            proposal: None,
        };
        let (own, other) = proposal
            .as_ref()
            .map_or((Leg::Plain, Leg::Plain), |proposal| (proposal.leg.clone(), proposal.awaited()));
        for (which, leg) in [(side, own), (side.other(), other)] {
            if let Some(party) = stream.party(which) {
                party.leg = leg;
            }
        }
        stream.proposal = proposal;
        if let Some(party) = stream.party(side) {
            party.take(wish);
        }
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

    pub(super) fn session(&self, call: &[u8]) -> Option<&Session> {
        self.sessions.get(call).map(Box::as_ref)
    }

    pub(super) fn has_room(&self) -> bool {
        self.sessions.len() < self.settings.max_sessions
    }

    pub(super) fn add(&mut self, call: &[u8], session: Session) {
        self.sessions.insert(call.to_vec(), Box::new(session));
    }

    /// Takes this very pair of ports; false if it is not to be had.
    pub(super) fn claim(&mut self, network: NetworkId, pair: PortPair) -> bool {
        self.ports.get_mut(network.index()).is_some_and(|ports| ports.claim(pair))
    }

    pub(super) fn give_back(&mut self, network: NetworkId, pair: PortPair) {
        if let Some(ports) = self.ports.get_mut(network.index()) {
            ports.give_back(pair);
        }
    }

    /// Whether the appliance speaks ICE with the party on a side.
    fn is_lite(&self, session: &Session, side: Side) -> bool {
        self.network(session.network(side)).is_ok_and(|network| network.ice == IcePolicy::Lite)
    }

    fn release_ports(&mut self, stream: &Stream) {
        ports(stream).for_each(|(network, pair)| self.give_back(network, pair));
    }

    fn end(&mut self, stream: &Stream, changes: &mut Vec<FlowChange>) {
        changes.extend(self.locals(stream).into_iter().map(FlowChange::Remove));
        self.release_ports(stream);
    }

    fn install(&self, stream: &Stream, changes: &mut Vec<FlowChange>) {
        changes.extend(self.specs(stream).into_iter().map(FlowChange::Install));
    }

    /// The local ends of a stream's flows.
    fn locals(&self, stream: &Stream) -> Vec<SocketAddr> {
        self.specs(stream).into_iter().map(|spec| spec.local).collect()
    }

    /// The local ends of RTP and RTCP on a party's side: one and the same where it multiplexes them.
    fn ends(&self, network: NetworkId, ports: PortPair, party: &Party) -> Option<[SocketAddr; 2]> {
        let address = self.network(network).ok()?.address;
        let rtcp = if party.mux { ports.rtp() } else { ports.rtcp() };
        Some([ports.rtp(), rtcp].map(|port| SocketAddr::new(address, port)))
    }

    /// The flows of a stream: A's RTP and RTCP in each branch, B's RTP and RTCP.
    pub(super) fn specs(&self, stream: &Stream) -> Vec<FlowSpec> {
        let (a, b) = stream.networks;
        let (Ok(near), Ok(far)) = (self.network(a), self.network(b)) else { return Vec::new() };
        let [near_ice, far_ice] = stream.ice.each_ref().map(Option::as_ref);
        let mut specs = Vec::with_capacity(4);
        for branch in &stream.branches {
            let here = End { network: near, id: a, ports: branch.ports, party: &stream.a, ice: near_ice };
            let there = End { network: far, id: b, ports: stream.ports, party: &branch.party, ice: far_ice };
            specs.push(here.rtp(&there, stream.flow_kind, branch.clock_rate));
            if stream.flow_kind == FlowKind::Rtp && !stream.a.mux {
                specs.push(here.rtcp(&there, branch.clock_rate));
            }
        }
        // What the branches send to the port that they share; the last one is the flow's own.
        let (mut rtp, mut rtcp): (Option<FlowSpec>, Option<FlowSpec>) = (None, None);
        for branch in stream.branches.iter().rev() {
            let here = End { network: far, id: b, ports: stream.ports, party: &branch.party, ice: far_ice };
            let there = End { network: near, id: a, ports: branch.ports, party: &stream.a, ice: near_ice };
            add_fork(&mut rtp, here.rtp(&there, stream.flow_kind, branch.clock_rate));
            if stream.flow_kind == FlowKind::Rtp && !branch.party.mux {
                add_fork(&mut rtcp, here.rtcp(&there, branch.clock_rate));
            }
        }
        specs.extend(rtp.into_iter().chain(rtcp));
        specs
    }
}

/// All pairs of ports of a stream.
pub(super) fn ports(stream: &Stream) -> impl Iterator<Item = (NetworkId, PortPair)> {
    let near = stream.branches.iter().map(|branch| (stream.networks.0, branch.ports));
    near.chain([(stream.networks.1, stream.ports)])
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
