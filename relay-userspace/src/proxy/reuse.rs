//! Connections with servers that are used in both directions, whoever made them. RFC 5923.
//!
//! The appliance's requests to servers by TCP and TLS say `;alias`: the server may send its own down the same connection.
//! When a server says so on a connection that it has made, requests to the address that it names go down that one. Phones
//! have a mechanism of their own (RFC 5626) and none of this.
//!
//! Invariant: a connection stands in for an address of its own peer only: the host that the Via names is the one that
//! the connection comes from, by its address or by the name that a configured server has. Over TLS the room of
//! connections asks for more: a certificate that is for the name that this address has to prove (section 9.1).

use super::machine::{Output, Proxy};
use crate::{
    net::{Role, Transport},
    sip::{Hop, wire::Message},
};

/// The Via parameter (RFC 5923 section 6).
const ALIAS: &str = "alias";

impl Proxy {
    /// What a Via says to a peer that may use the connection too.
    pub(super) fn alias(&self, way: Hop) -> &'static str {
        let server = self.settings.network(way.network).is_some_and(|network| network.role == Role::Servers);
        let connected = matches!(way.transport, Transport::Tcp | Transport::Tls);
        if server && connected { ";alias" } else { "" }
    }

    /// A server that is believed has sent a request.
    pub(super) fn note_alias(&mut self, connection: Hop, message: &Message) {
        let via = message.via();
        if !matches!(connection.transport, Transport::Tcp | Transport::Tls) || !via.params.has(ALIAS) {
            return;
        }
        let mut address = connection.address;
        address.set_port(via.port.unwrap_or(connection.transport.default_port()));
        let itself = std::str::from_utf8(via.host).ok().is_some_and(|host| {
            host.parse() == Ok(address.ip())
                || self.groups.names().get(&address).is_some_and(|name| name.eq_ignore_ascii_case(host))
        });
        if itself && address != connection.address {
            self.tell(Output::Reuse { connection, target: Hop { address, ..connection } });
        }
    }
}
