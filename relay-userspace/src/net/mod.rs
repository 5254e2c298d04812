//! Vocabulary of networks: the names by which the rooms speak of the appliance's sides.

pub mod descriptors;
pub mod dns;
mod links;
mod local;
pub mod netlink;
mod patient;
pub mod routes;

use std::{fmt, io, net::IpAddr};

pub use local::Local;
use nix::sys::socket::{setsockopt, sockopt};
pub use patient::Patient;
use socket2::{SockRef, Socket};

/// Gives a socket a receive queue of so many bytes, of which the kernel takes twice as many for what it needs beside a
/// packet (socket(7)). As well as it can: without CAP_NET_ADMIN there are no more than `net.core.rmem_max`.
pub fn set_receive_queue(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

/// One of the appliance's configured networks, by its position in the configuration.
///
/// A call bridges two networks or stays within one, so the rooms pass this handle instead of an
/// interface or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
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

/// What has become of the networks of an earlier run, whose configuration may have been another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerNetworks(Vec<Option<NetworkId>>);

impl FormerNetworks {
    /// The networks of both runs by their names, each in the order of its configuration.
    #[must_use]
    pub fn new(former: &[String], now: &[String]) -> Self {
        let place = |name: &String| now.iter().position(|known| known == name);
        let number = |name| place(name).and_then(|place| u16::try_from(place).ok()).map(NetworkId);
        Self(former.iter().map(number).collect())
    }

    /// The handle of a network of the earlier run; none if it is not configured any more.
    #[must_use]
    pub fn now(&self, former: NetworkId) -> Option<NetworkId> {
        self.0.get(former.index()).copied().flatten()
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// What carries SIP messages between two hosts (RFC 3261 section 18, RFC 7118).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream, framed by Content-Length.
    Tcp,
    /// A stream in TLS.
    Tls,
    /// A stream in TLS as old phones speak it. In messages it is TLS; the port is another, so that what an old phone is
    /// told leads to where it is understood.
    LegacyTls,
    /// Messages of a WebSocket.
    Ws,
    /// Messages of a WebSocket in TLS.
    Wss,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Udp, Self::Tcp, Self::Tls, Self::LegacyTls, Self::Ws, Self::Wss];
    /// Those that are connections.
    pub const CONNECTED: [Self; 5] = [Self::Tcp, Self::Tls, Self::LegacyTls, Self::Ws, Self::Wss];

    /// As it is written in Via (RFC 3261 section 20.42, RFC 7118 section 5.1).
    #[must_use]
    pub fn as_via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls | Self::LegacyTls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// As it is written in a URI's `transport` parameter: there is one word for both kinds of WebSocket (RFC 7118
    /// section 5.2).
    #[must_use]
    pub fn as_uri(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls | Self::LegacyTls => "tls",
            Self::Ws | Self::Wss => "ws",
        }
    }

    /// The name in metrics, pages and the database.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::LegacyTls => "legacy-tls",
            Self::Wss => "wss",
            other => other.as_uri(),
        }
    }

    /// Reads what is written in Via or in a URI, in any case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| text.eq_ignore_ascii_case(transport.as_via().as_bytes()))
    }

    /// Reads a name as [`Transport::as_label`] writes it.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.as_label() == label)
    }

    /// Whether lost messages are the transport's business: no retransmissions then.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// Whether a peer is reached only down the connection that it has made itself: browsers do not listen, and the
    /// appliance speaks no old TLS of its own accord.
    #[must_use]
    pub fn is_inward(self) -> bool {
        matches!(self, Self::LegacyTls | Self::Ws | Self::Wss)
    }

    /// The port where none is named (RFC 3261 section 19.1.2, RFC 7118 section 5.3).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls | Self::LegacyTls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_via())
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

/// From whom a flow takes its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Latching {
    /// Exactly the address and port of the session description.
    Signalled,
    /// The address of the session description, from any port.
    SameAddress,
    /// Whoever sends first: for phones behind an unknown address translator.
    Any,
}

/// What becomes of what a network's parties say of ICE (RFC 8445).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IcePolicy {
    /// It is taken out, and they are offered none: they send to the address that they are told.
    #[default]
    Remove,
    /// The appliance speaks ICE with them, as a lite agent.
    Lite,
}

/// How a network's parties are to protect their media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpPolicy {
    /// As they agree with the other side; what they agree on passes from end to end.
    #[default]
    Pass,
    /// With SRTP only.
    Require,
    /// With SRTP if they can: it is offered to them beside RTP (RFC 8643).
    Offer,
    /// With RTP only.
    Off,
}

/// Whether a network is within the trust domain of RFC 3325: whether what it says of a caller's identity is believed, and
/// whether it may be told who calls when the caller does not want to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// It is: identities pass as they come.
    #[default]
    Trusted,
    /// It is not.
    Untrusted,
}

/// A differentiated services code point, 0-63 (RFC 2474).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "u8")]
pub struct Dscp(u8);

impl Dscp {
    /// Expedited forwarding, for media (RFC 3246).
    pub const EF: Self = Self(46);
    /// Class selector 3, for signalling (RFC 4594 section 2.3).
    pub const CS3: Self = Self(24);
    /// The default class; as a configured value it turns marking off.
    pub const DEFAULT: Self = Self(0);

    /// The code point as it stands in the type-of-service byte, ECN bits zero.
    #[must_use]
    pub const fn type_of_service(self) -> u8 {
        self.0 << 2
    }

    /// The code point, 0-63.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Dscp {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, Self::Error> {
        /// Six bits (RFC 2474 section 3).
        const HIGHEST: u8 = 63;
        if value > HIGHEST {
            return Err(format!(
                "DSCP {value} is out of range: it must be 0 to {HIGHEST} (0 turns marking off)"
            ));
        }
        Ok(Self(value))
    }
}

/// An 802.1p priority, 0-7, for networks that look at the tag of a frame and not at DSCP (IEEE 802.1Q).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "u8")]
pub struct Priority(u8);

impl Priority {
    /// Voice: as DSCP 46 in three bits.
    pub const MEDIA: Self = Self(5);
    /// Call signalling: as DSCP 24 in three bits.
    pub const SIGNALLING: Self = Self(3);

    /// The priority, 0-7.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }

    /// The priority as it stands in the first byte of a tag.
    #[must_use]
    pub const fn in_tag(self) -> u8 {
        self.0 << 5
    }

    /// Gives what leaves a socket this priority, which 802.1Q devices put into their tag.
    ///
    /// # Errors
    /// That of `setsockopt`.
    pub fn mark(self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_priority(self.0.into())
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, Self::Error> {
        /// Three bits (IEEE 802.1Q).
        const HIGHEST: u8 = 7;
        if value > HIGHEST {
            return Err(format!("priority {value} is out of range: it must be 0 to {HIGHEST}"));
        }
        Ok(Self(value))
    }
}

/// Packets a second that are let in; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketLimits {
    /// To the SIP ports from one source.
    pub source: u32,
    /// To the SIP ports from all sources that are not known, on each CPU.
    pub unknown: u32,
    /// Of one stream of media.
    pub stream: u32,
}

/// How what leaves a socket is marked, for routers and for switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marking {
    /// In the IP header.
    pub dscp: Dscp,
    /// In the tag of a frame, where it leaves with one.
    pub priority: Priority,
}

impl Marking {
    /// Marks what leaves a socket that has an address of this family.
    ///
    /// # Errors
    /// That of `setsockopt`.
    pub fn mark(self, socket: &SockRef<'_>, own: IpAddr) -> io::Result<()> {
        let class = u32::from(self.dscp.type_of_service());
        if own.is_ipv6() { socket.set_tclass_v6(class) } else { socket.set_tos_v4(class) }?;
        // In this order: with the former the kernel sets a priority of its own.
        self.priority.mark(socket)
    }
}

/// Where on an interface the relay is to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachChoice {
    /// The first of the others that the interface takes.
    #[default]
    Auto,
    /// XDP in the driver, or not at all.
    Native,
    /// XDP in the network stack, or not at all.
    Generic,
    /// TC, behind the drivers and XDP, or not at all.
    Tc,
    /// Not at all: userspace carries what comes by this interface.
    Userspace,
}

/// Which datapath is wanted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum DatapathChoice {
    /// The kernel's where it is to be had, userspace otherwise.
    #[default]
    Auto,
    /// The kernel's, or none.
    Kernel,
    /// Userspace only.
    Userspace,
}
