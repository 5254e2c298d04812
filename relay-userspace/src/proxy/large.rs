//! Requests that are too large for UDP, and which servers take them by TCP.
//!
//! A request to a server by UDP that comes within 200 bytes of the path's MTU, or is longer than 1,300 bytes where that
//! is not known, goes by TCP to the same address and port; should there be no connection, it goes by UDP after all, in
//! fragments, and the server is not asked again for a while. RFC 3261 section 18.1.1.
//!
//! Invariant: only the way of one message changes. The server stays the one that the group chose, and the dialog's side
//! the one that it was: the next request is weighed anew, and goes by UDP if it is small.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::machine::Proxy;
use crate::{
    net::{Role, Transport},
    sip::Hop,
};

/// What of the path's MTU is left to responses, which are longer than their requests (RFC 3261 section 18.1.1). The
/// headers of IP and UDP are within it.
const MARGIN: usize = 200;
/// How long it is believed that a server takes no TCP, or that it does.
const BELIEVED: Duration = Duration::from_secs(600);
/// Peers of which something is believed.
const MOST_PEERS: usize = 256;

/// What a server made of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has answered a request that came by TCP.
    Answers,
    /// There was no connection.
    Refuses,
}

/// What is known of the servers that are reached by UDP.
#[derive(Debug, Default)]
pub(super) struct ByTcp(HashMap<SocketAddr, (Found, Instant)>);

impl ByTcp {
    fn note(&mut self, now: Instant, peer: SocketAddr, found: Found) {
        if self.0.len() >= MOST_PEERS && !self.0.contains_key(&peer) {
            self.0.retain(|_, (_, until)| *until > now);
            if self.0.len() >= MOST_PEERS {
                return;
            }
        }
        self.0.insert(peer, (found, now + BELIEVED));
    }

    fn of(&self, now: Instant, peer: SocketAddr) -> Option<Found> {
        self.0.get(&peer).filter(|(_, until)| *until > now).map(|(found, _)| *found)
    }
}

impl Proxy {
    /// How a request of so many bytes goes that was planned for a hop: by TCP if it is too large for UDP there.
    pub(super) fn way(&self, now: Instant, planned: Hop, length: usize) -> Hop {
        match self.too_large(planned, length) {
            Some(tcp) if self.by_tcp.of(now, planned.address) != Some(Found::Refuses) => tcp,
            _ => planned,
        }
    }

    /// The same for one that is not repeated and has no answer: by TCP only where TCP is known to work.
    pub(super) fn way_of_ack(&self, now: Instant, planned: Hop, length: usize) -> Hop {
        match self.too_large(planned, length) {
            Some(tcp) if self.by_tcp.of(now, planned.address) == Some(Found::Answers) => tcp,
            _ => planned,
        }
    }

    /// The hop by TCP, for what is too large for UDP.
    fn too_large(&self, planned: Hop, length: usize) -> Option<Hop> {
        let network = self.settings.network(planned.network)?;
        let above = self.settings.tcp_above?;
        let above = network.mtu.map_or(above, |mtu| above.min(mtu.saturating_sub(MARGIN)));
        // The server's requests in the dialog come to the port that it is told: there must be one.
        let fits = planned.transport != Transport::Udp
            || network.role != Role::Servers
            || network.ports.tcp.is_none()
            || length <= above;
        (!fits).then_some(Hop { transport: Transport::Tcp, ..planned })
    }

    /// A server has answered a request that went by TCP because it was large.
    pub(super) fn tcp_works(&mut self, now: Instant, peer: SocketAddr) {
        self.by_tcp.note(now, peer, Found::Answers);
    }

    /// A server could not be reached by TCP.
    pub(super) fn tcp_fails(&mut self, now: Instant, peer: SocketAddr) {
        self.by_tcp.note(now, peer, Found::Refuses);
    }
}
