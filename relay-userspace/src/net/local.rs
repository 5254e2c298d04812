//! The appliance's own addresses and ports, as the tables of flows keep them.

use std::net::{IpAddr, SocketAddr};

/// An address and port of the appliance's own, in 20 bytes where a [`SocketAddr`] takes 32: that one has room for a flow
/// label and a scope (RFC 4007), which a configured address does not have. Whatever a peer sends from may have them, and
/// is no `Local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local {
    ip: IpAddr,
    port: u16,
}

impl Local {
    /// Before all others.
    pub const FIRST: Self = Self { ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port: 0 };
}

impl From<SocketAddr> for Local {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

impl From<Local> for SocketAddr {
    fn from(local: Local) -> Self {
        Self::new(local.ip, local.port)
    }
}
