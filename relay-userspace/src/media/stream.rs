//! One stream of a session: its two parties, and what a description says of it.

use std::net::{IpAddr, SocketAddr};

use relay_ebpf::FlowKind;

use super::{
    ports::PortPair,
    protection::{Leg, Proposal},
    sessions::MediaNetwork,
    surface::MediaError,
};
use crate::{
    datapath::IceAtPort,
    net::NetworkId,
    quality::Format,
    sdp::{Address, Direction, Media, Session as Description},
};

/// Timestamp clock where a description names none (RFC 3551's audio).
const DEFAULT_CLOCK: u32 = 8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Where a party wants its packets: none while it is unknown, or on hold by an address of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Remote {
    pub(super) rtp: Option<SocketAddr>,
    pub(super) rtcp: Option<SocketAddr>,
}

/// What a party says of a stream in a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) remote: Remote,
    pub(super) direction: Direction,
    /// Whether it multiplexes RTCP with RTP, or wants to (RFC 5761, RFC 8858).
    pub(super) mux: bool,
}

/// What an offer wants of its sender's side of a stream, until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// This.
    Wish(Wish),
    /// The stream's end.
    End,
}

/// What was negotiated with a party.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub(super) remote: Remote,
    pub(super) direction: Direction,
    /// How often it has changed its direction: after a hold, its packets may come from elsewhere.
    pub(super) turns: u32,
    pub(super) mux: bool,
    pub(super) leg: Leg,
}

impl Party {
    /// Nothing is known of it yet.
    pub(super) const UNKNOWN: Self = Self {
        remote: Remote { rtp: None, rtcp: None },
        direction: Direction::SendRecv,
        turns: 0,
        mux: false,
        leg: Leg::Plain,
    };

    pub(super) fn take(&mut self, wish: Wish) {
        if self.direction != wish.direction {
            self.turns = self.turns.wrapping_add(1);
        }
        (self.remote, self.direction, self.mux) = (wish.remote, wish.direction, wish.mux);
    }

    /// The party wants nothing of this stream, for now or in this branch of the call.
    pub(super) fn refuse(&mut self) {
        self.remote = Remote::default();
    }
}

/// One of those who answer an offer: forking gives it several (RFC 3261 section 13.2.2.4).
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// Its party's tag; none until somebody answers.
    pub(super) tag: Option<Vec<u8>>,
    /// The ports on A's network that A is told of, which are this branch's alone.
    pub(super) ports: PortPair,
    pub(super) party: Party,
    pub(super) clock_rate: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) kind: String,
    pub(super) flow_kind: FlowKind,
    /// Of A and of B.
    pub(super) networks: (NetworkId, NetworkId),
    /// What the answer, or before it the offer, says that payload types mean.
    pub(super) formats: Vec<Format>,
    pub(super) a: Party,
    /// The ports on B's network. One offer announces one port, so all branches send there.
    pub(super) ports: PortPair,
    /// The last one is who was heard last; there always is one.
    pub(super) branches: Vec<Branch>,
    /// By what A and B check the ports that they are told of, if they have ICE.
    pub(super) ice: [Option<IceAtPort>; 2],
    /// What the last offer wants, until it is answered.
    pub(super) pending: Option<Box<(Side, Pending)>>,
    /// What the last offer of RTP leads to; it stays for further answers.
    pub(super) proposal: Option<Proposal>,
}

impl Stream {
    /// A party; B is the branch that was heard last.
    pub(super) fn party(&mut self, side: Side) -> Option<&mut Party> {
        match side {
            Side::A => Some(&mut self.a),
            Side::B => self.branches.last_mut().map(|branch| &mut branch.party),
        }
    }

    /// The leg of who answers, before that: of a branch, or of the one that nobody has answered.
    pub(super) fn answering(&self, offerer: Side, branch: &[u8]) -> Option<&Leg> {
        match offerer {
            Side::B => Some(&self.a.leg),
            Side::A => {
                let known = self.branches.iter().find(|known| known.tag.as_deref() == Some(branch));
                known.map(|branch| &branch.party.leg)
            }
        }
    }

    /// Turns to the branch with this tag, or makes the one that nobody has answered yet its own. False if there is
    /// neither.
    pub(super) fn turn_to(&mut self, tag: &[u8]) -> bool {
        let known = self.branches.iter().position(|branch| branch.tag.as_deref() == Some(tag));
        let Some(place) = known.or_else(|| self.branches.iter().position(|branch| branch.tag.is_none()))
        else {
            return false;
        };
        let mut branch = self.branches.remove(place);
        branch.tag = Some(tag.to_vec());
        self.branches.push(branch);
        true
    }
}

pub(super) fn read(sdp: &[u8]) -> Result<Description<'_>, MediaError> {
    let description = Description::parse(sdp).map_err(|error| MediaError::Sdp(error.to_string()))?;
    description.check_connections().map_err(|error| MediaError::Sdp(error.to_string()))?;
    Ok(description)
}

/// The address to send to; none if the party is on hold by an address of zeros.
pub(super) fn usable(
    address: Option<Address<'_>>,
    network: &MediaNetwork,
) -> Result<Option<IpAddr>, MediaError> {
    match address {
        None => Ok(None),
        Some(address) if address.is_hold() => Ok(None),
        Some(Address::Name(name)) => Err(MediaError::Sdp(format!(
            "the connection address {:?} is a name; media needs an IP address",
            String::from_utf8_lossy(name)
        ))),
        Some(Address::Ip(ip)) if ip.is_multicast() => {
            Err(MediaError::Sdp(format!("the connection address {ip} is a multicast group")))
        }
        // Only programs on this host would hear it, with the appliance's own address as the sender.
        Some(Address::Ip(ip)) if ip.is_loopback() => {
            Err(MediaError::Sdp(format!("the connection address {ip} is the appliance itself")))
        }
        Some(Address::Ip(ip)) if !is_host(ip) => {
            Err(MediaError::Sdp(format!("the connection address {ip} is no host's address")))
        }
        Some(Address::Ip(ip)) if ip.is_ipv4() != network.address.is_ipv4() => Err(MediaError::Sdp(format!(
            "the connection address {ip} is of another family than network \"{}\" ({})",
            network.name, network.address
        ))),
        Some(Address::Ip(ip)) => Ok(Some(ip)),
    }
}

/// Whether one host can have this address and be reached by it from another network (RFC 6890 section 2.2).
fn is_host(ip: IpAddr) -> bool {
    match ip {
        // "This network", and what is reserved, the broadcast address among it.
        IpAddr::V4(ip) => (1..240).contains(&ip.octets()[0]),
        // A mapped one is an IPv4 address in disguise, and a link-local one says nothing without its link.
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none() && !ip.is_unicast_link_local(),
    }
}

pub(super) fn flow_kind(media: &Media<'_>) -> FlowKind {
    if media.protocol.is_rtp() { FlowKind::Rtp } else { FlowKind::Opaque }
}

pub(super) fn clock_rate(media: &Media<'_>) -> u32 {
    media.payload_types().find_map(|payload| media.clock_rate(payload)).unwrap_or(DEFAULT_CLOCK)
}

/// Payload types with their names: those that a map names, and those that need none.
pub(super) fn formats(media: &Media<'_>) -> Vec<Format> {
    /// Offers have a dozen at most.
    const MOST: usize = 16;
    let format = |payload_type: u8| {
        let map = media.rtpmaps.iter().find(|map| map.payload_type == payload_type);
        match map {
            Some(map) => Some(Format {
                payload_type,
                encoding: String::from_utf8_lossy(map.encoding).into_owned(),
                clock_rate: map.clock_rate,
            }),
            None => Format::of_static(payload_type, media.clock_rate(payload_type).unwrap_or(DEFAULT_CLOCK)),
        }
    };
    let mut formats: Vec<Format> = media.payload_types().filter_map(format).take(MOST).collect();
    // They stay as long as the call.
    formats.shrink_to_fit();
    formats
}
