//! One stream of a session: its two parties, and what a description says of it.

use std::net::{IpAddr, SocketAddr};

use relay_ebpf::FlowKind;

use super::{ports::PortPair, sessions::MediaNetwork, surface::MediaError};
use crate::{
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
}

/// What an offer wants of its sender's side of a stream, until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// This.
    Wish(Wish),
    /// The stream's end.
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Party {
    pub(super) network: NetworkId,
    pub(super) ports: PortPair,
    pub(super) remote: Remote,
    pub(super) direction: Direction,
    /// How often it has changed its direction: after a hold, its packets may come from elsewhere.
    pub(super) turns: u32,
}

impl Party {
    pub(super) fn take(&mut self, wish: Wish) {
        if self.direction != wish.direction {
            self.turns = self.turns.wrapping_add(1);
        }
        (self.remote, self.direction) = (wish.remote, wish.direction);
    }

    /// The party wants nothing of this stream, for now or in this branch of the call.
    pub(super) fn refuse(&mut self) {
        self.remote = Remote::default();
    }
}

#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) kind: String,
    pub(super) flow_kind: FlowKind,
    pub(super) clock_rate: u32,
    /// What the answer, or before it the offer, says that payload types mean.
    pub(super) formats: Vec<Format>,
    pub(super) a: Party,
    pub(super) b: Party,
    /// What the last offer wants, until it is answered.
    pub(super) pending: Option<(Side, Pending)>,
}

impl Stream {
    pub(super) fn party(&mut self, side: Side) -> &mut Party {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
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
        Some(Address::Ip(ip)) if ip.is_ipv4() != network.address.is_ipv4() => Err(MediaError::Sdp(format!(
            "the connection address {ip} is of another family than network \"{}\" ({})",
            network.name, network.address
        ))),
        Some(Address::Ip(ip)) => Ok(Some(ip)),
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
    media.payload_types().filter_map(format).take(MOST).collect()
}
