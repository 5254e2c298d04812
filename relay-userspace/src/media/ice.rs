//! ICE in session descriptions, as a lite agent: RFC 8839, RFC 8445 sections 2.5 and 5.2.
//!
//! The appliance has one address for each port and is reachable at it, so it needs no checks of its own and can say so by
//! `a=ice-lite`: the other party checks the one candidate that it is told, and nominates it. What comes of that at the
//! ports is the datapath's ([`IceCredentials`]).
//!
//! Each side of a session is by itself: what one party says of ICE never reaches the other.

use std::sync::Arc;

use super::ports::PortPair;
use crate::{
    datapath::{IceAtPort, IceCredentials, IceLearning},
    sdp::{Rewriter, Session as Description},
    srtp::Random,
};

/// The priority of a host candidate of component 1 that is the only one (RFC 8445 section 5.1.2); the next component's is
/// one less.
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;
/// Characters of a fragment and of a password: 48 and 144 bits, where 24 and 128 are asked for (RFC 8445 section 5.3).
const UFRAG: usize = 8;
const PWD: usize = 24;
/// What they are made of (RFC 8839 section 5.4): 64 characters.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// ICE on one side of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IceSide {
    /// What the party is told to check with.
    pub(super) own: Arc<IceCredentials>,
    /// The party's own fragment, once it is known: another one is a restart.
    pub(super) peer: Option<Vec<u8>>,
    /// Whether it was told of a description that it has not answered: what it says next is no restart of its own.
    pub(super) asked: bool,
    /// Whether it is a lite agent too, which checks nothing (RFC 8445 section 6.1.1).
    pub(super) lite: bool,
}

impl IceSide {
    /// With credentials of its own; `None` when there is no randomness to be had.
    fn new(random: Random, peer: Option<Vec<u8>>) -> Option<Self> {
        let mut bytes = [0; UFRAG + PWD];
        random(&mut bytes).ok()?;
        let mut text = bytes.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)]));
        let ufrag = text.by_ref().take(UFRAG).collect();
        let own = Arc::new(IceCredentials { ufrag, pwd: text.collect() });
        Some(Self { own, peer, asked: false, lite: false })
    }

    /// What its ports are checked by; none where nobody will.
    pub(super) fn at_port(&self) -> Option<IceAtPort> {
        let learns = match self.peer {
            Some(_) => IceLearning::FromNomination,
            None => IceLearning::FromMedia,
        };
        (!self.lite).then(|| IceAtPort { own: Arc::clone(&self.own), learns })
    }
}

/// What a description says of its party's ICE.
pub(super) fn fragment(description: &Description<'_>) -> Option<Vec<u8>> {
    let of_media = description.media.iter().find_map(|media| media.find("ice-ufrag"));
    let attribute = of_media.or_else(|| {
        description.attributes.iter().find(|attribute| attribute.name == b"ice-ufrag").copied()
    })?;
    attribute.value.map(<[u8]>::to_vec)
}

/// A party offers: it has ICE or has not, and a new fragment is a restart (RFC 8839 section 4.4.1.1.1).
pub(super) fn offered(side: &mut Option<IceSide>, description: &Description<'_>, random: Random) {
    let peer = fragment(description);
    match (&mut *side, peer) {
        (_, None) => *side = None,
        (Some(known), Some(peer)) if known.peer.as_ref() == Some(&peer) => {}
        // It had not answered yet: its first word is no restart, nor is what it says to an offer that was one.
        (Some(known), Some(peer)) if known.peer.is_none() || known.asked => known.peer = Some(peer),
        (_, Some(peer)) => *side = IceSide::new(random, Some(peer)),
    }
    heard(side, description);
}

/// What else its description says.
fn heard(side: &mut Option<IceSide>, description: &Description<'_>) {
    if let Some(side) = side {
        side.asked = false;
        side.lite = description.attributes.iter().any(|attribute| attribute.name == b"ice-lite");
    }
}

/// A party is offered something.
pub(super) fn offer_to(side: &mut Option<IceSide>, random: Random) {
    if side.is_none() {
        *side = IceSide::new(random, None);
    }
    if let Some(side) = side {
        side.asked = true;
    }
}

/// A party answers what it was offered.
pub(super) fn answered(side: &mut Option<IceSide>, description: &Description<'_>) {
    match fragment(description) {
        Some(peer) => {
            if let Some(side) = side {
                side.peer = Some(peer);
            }
        }
        None => *side = None,
    }
    heard(side, description);
}

/// Whether a stream's second component has a port of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Components {
    /// RTP alone, or with RTCP multiplexed.
    One,
    /// RTP and RTCP.
    Two,
}

/// Writes the lines of one stream.
pub(super) fn write(
    rewriter: &mut Rewriter<'_, '_>,
    index: usize,
    side: &IceSide,
    address: std::net::IpAddr,
    ports: PortPair,
    components: Components,
) {
    let IceCredentials { ufrag, pwd } = side.own.as_ref();
    rewriter.add_attribute(index, format_args!("ice-ufrag:{ufrag}"));
    rewriter.add_attribute(index, format_args!("ice-pwd:{pwd}"));
    let mut candidate = |component: u32, port: u16| {
        let priority = PRIORITY + 1 - component;
        rewriter.add_attribute(
            index,
            format_args!("candidate:1 {component} UDP {priority} {address} {port} typ host"),
        );
    };
    candidate(1, ports.rtp());
    if components == Components::Two {
        candidate(2, ports.rtcp());
    }
}
