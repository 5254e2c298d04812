//! Media sessions that stand, as they are kept beyond this process, and taken up by the next.
//!
//! What is kept is what was negotiated: ports, parties, keys. An offer that nobody had answered is not: whoever made it
//! makes it again. A session is taken up with the very ports that it had, or not at all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use relay_ebpf::FlowKind;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ice::IceSide,
    ports::PortPair,
    protection::Leg,
    sessions::{Session, Sessions, ports},
    stream::{Branch, Party, Remote, Stream},
};
use crate::{
    datapath::{FlowSpec, IceCredentials},
    net::{FormerNetworks, NetworkId},
    quality::Format,
    sdp::Direction,
    srtp::{Inbound, KeyError, KeyRecord, Outbound},
    store::text,
};

/// A session as it is kept. It holds keys: a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    a_tag: String,
    networks: (NetworkId, NetworkId),
    /// The addresses that its ports are on.
    addresses: (IpAddr, IpAddr),
    streams: Vec<Option<StreamRecord>>,
    /// ICE with A and with B: what they check with, and their own fragment.
    #[serde(default)]
    ice: [Option<(IceCredentials, Option<String>)>; 2],
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StreamRecord {
    kind: String,
    opaque: bool,
    formats: Vec<Format>,
    a: PartyRecord,
    /// The first port of the pair on B's network.
    port: u16,
    branches: Vec<BranchRecord>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BranchRecord {
    tag: Option<String>,
    port: u16,
    party: PartyRecord,
    clock_rate: u32,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PartyRecord {
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    direction: Direction,
    turns: u32,
    mux: bool,
    leg: LegRecord,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum LegRecord {
    Plain,
    Awaited,
    Keyed { tag: u32, inbound: Box<KeyRecord>, outbound: Box<KeyRecord> },
}

/// Why a session is not taken up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotTakenUp {
    /// A network of it is not configured any more.
    #[error("one of its networks is not configured any more")]
    Network,
    /// Its ports are on an address that the network does not have any more.
    #[error("its ports are on {former}, and the network has {now} now")]
    Address {
        /// The address that it was announced with.
        former: IpAddr,
        /// That of today.
        now: IpAddr,
    },
    /// A port of it is not to be had.
    #[error("media port {0} is in use, or not in the network's range any more (network.media_ports)")]
    Port(SocketAddr),
    /// There is one of this name, or as many as there may be.
    #[error("there is no room for it (sip.max_calls)")]
    Room,
    /// A key of it cannot be used.
    #[error("{0}")]
    Key(KeyError),
    /// What was kept cannot be read.
    #[error("what was kept of it cannot be read: {0}")]
    Unreadable(&'static str),
}

impl SessionRecord {
    /// Whether its packets are translated, so that what is kept changes with every packet.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        let keyed = |party: &PartyRecord| matches!(party.leg, LegRecord::Keyed { .. });
        let streams = self.streams.iter().flatten();
        streams
            .into_iter()
            .any(|stream| keyed(&stream.a) || stream.branches.iter().any(|branch| keyed(&branch.party)))
    }
}

impl Sessions {
    /// What is to be kept of a session; none if there is none, or its tags are no text.
    #[must_use]
    pub fn record(&self, call: &[u8]) -> Option<SessionRecord> {
        let session = self.session(call)?;
        let address = |id| self.network(id).ok().map(|network| network.address);
        let stream = |stream: &Stream| {
            let branch = |branch: &Branch| {
                Some(BranchRecord {
                    tag: match &branch.tag {
                        Some(tag) => Some(text(tag)?),
                        None => None,
                    },
                    port: branch.ports.rtp(),
                    party: PartyRecord::of(&branch.party),
                    clock_rate: branch.clock_rate,
                })
            };
            Some(StreamRecord {
                kind: stream.kind.clone(),
                opaque: stream.flow_kind != FlowKind::Rtp,
                formats: stream.formats.clone(),
                a: PartyRecord::of(&stream.a),
                port: stream.ports.rtp(),
                branches: stream.branches.iter().map(branch).collect::<Option<_>>()?,
            })
        };
        let streams = session.streams.iter().map(|slot| match slot {
            Some(known) => stream(known).map(Some),
            None => Some(None),
        });
        Some(SessionRecord {
            a_tag: text(&session.a_tag)?,
            networks: session.networks,
            addresses: (address(session.networks.0)?, address(session.networks.1)?),
            streams: streams.collect::<Option<_>>()?,
            ice: session.ice.each_ref().map(|side| {
                let side = side.as_ref()?;
                Some((side.own.as_ref().clone(), side.peer.as_deref().and_then(text)))
            }),
        })
    }

    /// Takes up a session of an earlier run; what is returned are its flows.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn take_up(
        &mut self,
        now: Instant,
        call: &[u8],
        record: &SessionRecord,
        former: &FormerNetworks,
    ) -> Result<Vec<FlowSpec>, NotTakenUp> {
        if self.session(call).is_some() || !self.has_room() {
            return Err(NotTakenUp::Room);
        }
        let network = |id| former.now(id).ok_or(NotTakenUp::Network);
        let networks = (network(record.networks.0)?, network(record.networks.1)?);
        for (id, former) in [(networks.0, record.addresses.0), (networks.1, record.addresses.1)] {
            let now = self.network(id).map_err(|_| NotTakenUp::Network)?.address;
            if former != now {
                return Err(NotTakenUp::Address { former, now });
            }
        }
        let stream = |record: &StreamRecord| record.stream(networks);
        let streams = record.streams.iter().map(|slot| slot.as_ref().map(stream).transpose());
        let streams = streams.collect::<Result<Vec<_>, _>>()?;
        let ice = record.ice.each_ref().map(|side| {
            let (own, peer) = side.as_ref()?;
            Some(IceSide {
                own: Arc::new(own.clone()),
                peer: peer.as_ref().map(|peer| peer.clone().into_bytes()),
                asked: false,
                lite: false,
            })
        });
        let a_tag = record.a_tag.clone().into_bytes();
        let mut session = Session { a_tag, networks, streams, negotiated: now, ice };
        session.spread_ice();
        let mut claimed = Vec::new();
        for (id, pair) in session.streams.iter().flatten().flat_map(ports) {
            if !self.claim(id, pair) {
                claimed.into_iter().for_each(|(id, pair)| self.give_back(id, pair));
                let address = self.network(id).map_err(|_| NotTakenUp::Network)?.address;
                return Err(NotTakenUp::Port(SocketAddr::new(address, pair.rtp())));
            }
            claimed.push((id, pair));
        }
        let specs = session.streams.iter().flatten().flat_map(|stream| self.specs(stream)).collect();
        self.add(call, session);
        Ok(specs)
    }
}

impl StreamRecord {
    fn stream(&self, networks: (NetworkId, NetworkId)) -> Result<Stream, NotTakenUp> {
        let pair = |port| PortPair::at(port).ok_or(NotTakenUp::Unreadable("a port that begins no pair"));
        let branch = |branch: &BranchRecord| {
            Ok(Branch {
                tag: branch.tag.clone().map(String::into_bytes),
                ports: pair(branch.port)?,
                party: branch.party.party()?,
                clock_rate: branch.clock_rate,
            })
        };
        let branches = self.branches.iter().map(branch).collect::<Result<Vec<_>, NotTakenUp>>()?;
        if branches.is_empty() {
            return Err(NotTakenUp::Unreadable("a stream without parties"));
        }
        Ok(Stream {
            kind: self.kind.clone(),
            flow_kind: if self.opaque { FlowKind::Opaque } else { FlowKind::Rtp },
            networks,
            formats: self.formats.clone(),
            a: self.a.party()?,
            ports: pair(self.port)?,
            branches,
            ice: [None, None],
            pending: None,
            proposal: None,
        })
    }
}

impl PartyRecord {
    fn of(party: &Party) -> Self {
        let leg = match &party.leg {
            Leg::Plain => LegRecord::Plain,
            Leg::Awaited => LegRecord::Awaited,
            Leg::Keyed { inbound, outbound, tag } => LegRecord::Keyed {
                tag: *tag,
                inbound: Box::new(inbound.record()),
                outbound: Box::new(outbound.record()),
            },
        };
        Self {
            rtp: party.remote.rtp,
            rtcp: party.remote.rtcp,
            direction: party.direction,
            turns: party.turns,
            mux: party.mux,
            leg,
        }
    }

    fn party(&self) -> Result<Party, NotTakenUp> {
        let leg = match &self.leg {
            LegRecord::Plain => Leg::Plain,
            LegRecord::Awaited => Leg::Awaited,
            LegRecord::Keyed { tag, inbound, outbound } => Leg::Keyed {
                tag: *tag,
                inbound: Arc::new(Inbound::take_up(inbound).map_err(NotTakenUp::Key)?),
                outbound: Arc::new(Outbound::take_up(outbound).map_err(NotTakenUp::Key)?),
            },
        };
        let remote = Remote { rtp: self.rtp, rtcp: self.rtcp };
        Ok(Party { remote, direction: self.direction, turns: self.turns, mux: self.mux, leg })
    }
}
