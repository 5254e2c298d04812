//! One end of a hop: to whom a message goes and from whom it came.

use std::{fmt, net::SocketAddr};

use crate::net::{NetworkId, Transport};

/// A network of ours, a transport, and a peer's address on them.
///
/// Over TCP and TLS it names a connection: the peer's address is the one that the connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
pub struct Hop {
    /// The network.
    pub network: NetworkId,
    /// What carries the messages.
    pub transport: Transport,
    /// The peer's address.
    pub address: SocketAddr,
}

impl Hop {
    /// A peer that is reached by datagrams.
    #[must_use]
    pub fn udp(network: NetworkId, address: SocketAddr) -> Self {
        Self { network, transport: Transport::Udp, address }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.as_label(), self.address)
    }
}
