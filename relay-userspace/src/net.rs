//! Vocabulary of networks: the names by which the rooms speak of the appliance's sides.

use std::fmt;

/// One of the appliance's configured networks, by its position in the configuration.
///
/// A call bridges two networks or stays within one, so the rooms pass this handle instead of an
/// interface or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub u16);

impl NetworkId {
    /// The position as an index into a list of networks.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network #{}", self.0)
    }
}

/// Who lives on a network; it decides where requests from it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The office's phones: their requests go to the servers.
    Phones,
    /// The central SIP servers: their requests go to phones that have registered.
    Servers,
    /// A local gateway to the telephone network.
    Gateway,
}
