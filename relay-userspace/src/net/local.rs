//! The appliance's own addresses and ports, as the tables of flows keep them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
    pub const FIRST: Self = Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was_from_a_shorter_form_and_none_is_before_the_first() {
        for text in ["0.0.0.0:1", "192.0.2.1:24000", "255.255.255.255:65535", "[::]:0", "[2001:db8::1]:24001"]
        {
            let address: SocketAddr = text.parse().unwrap();
            let local = Local::from(address);
            assert_eq!(SocketAddr::from(local), address);
            assert!(local > Local::FIRST, "{text}");
        }
        assert_eq!((size_of::<Local>(), size_of::<Option<Local>>()), (20, 20));
    }
}
