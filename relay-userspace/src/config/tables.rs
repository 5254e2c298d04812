//! The tables that every file has, with their keys and defaults.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::{
    Codec, DelayedOffers, DualRegistration, HoldStyle, PortRange, ReferStyle, ServerUri, StatusRange,
};
use crate::net::{
    AttachChoice, DatapathChoice, Dscp, IcePolicy, Identity, Latching, Marking, Priority, Role, SrtpPolicy,
    Transport,
};

/// A network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Who lives on it.
    pub role: Role,
    /// The interface by which its packets come and go.
    pub interface: String,
    /// The appliance's address on it; the interface's first IPv4 address if none is given, or its first IPv6 address
    /// that is not link-local where it has no other.
    pub address: Option<IpAddr>,
    /// The address that the other parties are told, where an address translator stands in between.
    pub advertised: Option<IpAddr>,
    /// The SIP port for UDP.
    #[serde(default = "default_sip_port")]
    pub sip_port: u16,
    /// The SIP port for TCP; 0: none. The same as for UDP unless it is given.
    pub sip_tcp_port: Option<u16>,
    /// The SIP port for TLS; 0: none. The one after that for UDP unless it is given.
    pub sip_tls_port: Option<u16>,
    /// Calls that this network takes at a time; 0: no limit.
    #[serde(default)]
    pub max_calls: u32,
    /// kbit/s of media that it takes in each direction; 0: no limit.
    #[serde(default)]
    pub max_kbps: u32,
    /// Timer T1 on this network in milliseconds, and so on; those of `sip` unless they are given.
    pub timer_t1_ms: Option<u64>,
    /// See [`Sip::timer_t2_ms`].
    pub timer_t2_ms: Option<u64>,
    /// See [`Sip::timer_t4_ms`].
    pub timer_t4_ms: Option<u64>,
    /// See [`Sip::invite_retries`].
    pub invite_retries: Option<u32>,
    /// See [`Sip::other_retries`].
    pub other_retries: Option<u32>,
    /// The port of SIP by TLS for phones that are too old for any other, TLS 1.0 to 1.2 with RSA key exchange; 0: none.
    #[serde(default)]
    pub sip_legacy_tls_port: u16,
    /// The port of SIP over WebSocket, for softphones; 0: none.
    #[serde(default)]
    pub sip_ws_port: u16,
    /// The port of SIP over WebSocket in TLS; 0: none.
    #[serde(default)]
    pub sip_wss_port: u16,
    /// The media ports.
    #[serde(default)]
    pub media_ports: PortRange,
    /// Which sources its media may come from.
    #[serde(default = "default_latching")]
    pub latching: Latching,
    /// Whether what it says of callers' identities is believed, and whether it may be told who withholds his.
    #[serde(default)]
    pub identity: Identity,
    /// What becomes of what its parties say of ICE.
    #[serde(default)]
    pub ice: IcePolicy,
    /// How its parties protect their media.
    #[serde(default)]
    pub srtp: SrtpPolicy,
    /// When phones that have an authentication entry have to prove themselves to the appliance.
    #[serde(default)]
    pub challenge: ChallengePolicy,
    /// How they are told that they are held.
    #[serde(default)]
    pub hold: HoldStyle,
    /// What becomes of a REFER that goes to a peer of this network.
    #[serde(default)]
    pub refer: ReferStyle,
    /// What becomes of an INVITE without a session description that goes to one.
    #[serde(default)]
    pub delayed_offers: DelayedOffers,
    /// The codecs of the offers that the appliance makes for them, in order of preference.
    #[serde(default = "Codec::usual")]
    pub offer_codecs: Vec<Codec>,
    /// Seconds of the session timer that is kept where not both sides of a call keep one; 0: none.
    #[serde(default)]
    pub session_timer_seconds: u32,
    /// Where on the interface the relay program is attached.
    #[serde(default)]
    pub attach: AttachChoice,
}

impl Network {
    /// The SIP port of a transport; `None` where it is switched off.
    #[must_use]
    pub fn port(&self, transport: Transport) -> Option<u16> {
        let port = match transport {
            Transport::Udp => self.sip_port,
            Transport::Tcp => self.sip_tcp_port.unwrap_or(self.sip_port),
            Transport::Tls => self.sip_tls_port.unwrap_or(self.sip_port.wrapping_add(1)),
            Transport::LegacyTls => self.sip_legacy_tls_port,
            Transport::Ws => self.sip_ws_port,
            Transport::Wss => self.sip_wss_port,
        };
        Some(port).filter(|port| *port != 0)
    }
}

/// When phones that have an authentication entry have to prove themselves to the appliance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengePolicy {
    /// With each registration while no server serves, if they answer challenges themselves.
    #[default]
    Survival,
    /// With each request outside dialogs at all times, but for emergency calls.
    Always,
    /// Never.
    Never,
}

/// The central servers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// They, in order of preference: equals that take over from each other.
    pub servers: Spanned<Vec<ServerUri>>,
    /// Addresses on `servers` networks whose requests are accepted beside the servers' own.
    pub trusted: Vec<IpNet>,
    /// Seconds between OPTIONS to each server; 0: none are sent.
    pub probe_seconds: u64,
    /// Seconds that a server has to fail before it is out of service; 0: it is with its first failure.
    pub oos_force_seconds: u64,
    /// Seconds that a server that failed is left alone, unless a probe finds it well before.
    pub recovery_seconds: u64,
    /// What becomes of a server's redirection (3xx).
    pub redirects: Redirects,
    /// What silence to a probe means where another server answers.
    pub silence: Silence,
    /// Whether phones are registered with two servers at once, and who does it.
    pub dual_registration: DualRegistration,
    /// The servers of DNS to ask for the servers' names; none: the system's.
    pub dns: Vec<IpAddr>,
    /// Final answers that make the next server be tried: `"480"` or `"500-599"`.
    pub retry_statuses: Vec<StatusRange>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Spanned::new(0..0, Vec::new()),
            trusted: Vec::new(),
            probe_seconds: 30,
            oos_force_seconds: 0,
            recovery_seconds: 60,
            redirects: Redirects::Follow,
            silence: Silence::Failure,
            dual_registration: DualRegistration::Off,
            dns: Vec::new(),
            retry_statuses: StatusRange::reference(),
        }
    }
}

/// What becomes of a server's redirection (RFC 3261 section 8.1.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirects {
    /// The request goes to where the server says, if that is a server or a trusted address.
    Follow,
    /// The phone gets it as it came.
    Pass,
}

/// What silence to a probe means where another server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Silence {
    /// That the server has failed, which is told as a symptom.
    Failure,
    /// That it stands by, as one of a pair behind one address does, which is no trouble.
    Standby,
}

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The directory of the database, certificates and caches. Only the daemon's user may enter it.
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self { directory: PathBuf::from("/var/lib/branchline") }
    }
}

/// Code points; 0 leaves packets as they came, or unmarked.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DscpMarks {
    /// Of RTP.
    pub rtp: Dscp,
    /// Of RTCP.
    pub rtcp: Dscp,
    /// Of SIP.
    pub sip: Dscp,
    /// The 802.1p priority of media, where it leaves with a tag.
    pub media_priority: Priority,
    /// The same of SIP.
    pub sip_priority: Priority,
}

impl DscpMarks {
    /// How SIP is marked.
    #[must_use]
    pub fn of_sip(&self) -> Marking {
        Marking { dscp: self.sip, priority: self.sip_priority }
    }
}

impl Default for DscpMarks {
    fn default() -> Self {
        Self {
            rtp: Dscp::EF,
            rtcp: Dscp::EF,
            sip: Dscp::CS3,
            media_priority: Priority::MEDIA,
            sip_priority: Priority::SIGNALLING,
        }
    }
}

/// Signalling.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sip {
    /// Timer T1 in milliseconds: an estimate of the round-trip time (RFC 3261 section 17.1.1.1).
    pub timer_t1_ms: u64,
    /// Timer T2 in milliseconds: the longest interval between retransmissions.
    pub timer_t2_ms: u64,
    /// Timer T4 in milliseconds: how long a message stays in the network.
    pub timer_t4_ms: u64,
    /// Retransmissions of an INVITE over UDP before its server is given up.
    pub invite_retries: u32,
    /// Retransmissions of other requests over UDP.
    pub other_retries: u32,
    /// Milliseconds in which a TCP connection must be there.
    pub tcp_connect_timeout_ms: u64,
    /// Requests to servers by UDP above so many bytes go by TCP; 0: none do.
    pub tcp_above_bytes: usize,
    /// Origins whose pages may connect by WebSocket; none: any.
    pub websocket_origins: Vec<String>,
    /// Whether passwords of authentication entries are kept although servers have taken them.
    pub keep_entry_passwords: bool,
    /// Calls that there can be at a time.
    pub max_calls: usize,
    /// Seconds that an INVITE may ring without any answer (timer C).
    pub ring_timeout_seconds: u64,
}

impl Default for Sip {
    fn default() -> Self {
        Self {
            timer_t1_ms: 500,
            timer_t2_ms: 1000,
            timer_t4_ms: 5000,
            invite_retries: 3,
            other_retries: 4,
            tcp_connect_timeout_ms: 2000,
            // RFC 3261 section 18.1.1.
            tcp_above_bytes: 1300,
            websocket_origins: Vec::new(),
            keep_entry_passwords: false,
            max_calls: 10_000,
            ring_timeout_seconds: 180,
        }
    }
}

/// Media sessions.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// A call without a packet and without signalling for this many seconds has ended unnoticed.
    pub timeout_seconds: u64,
}

impl Default for Media {
    fn default() -> Self {
        Self { timeout_seconds: 3600 }
    }
}

/// How media is carried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Datapath {
    /// In the kernel where it is to be had, only there, or in userspace.
    pub engine: DatapathChoice,
    /// Flows that there can be at a time: four to a call.
    pub flows: Spanned<u32>,
    /// Addresses whose media userspace carries, for comparison and for troubleshooting.
    pub force_userspace: Vec<IpNet>,
    /// Whether the kernel program logs each packet that it does not forward.
    pub kernel_log: bool,
    /// Keep forwarding also when the daemon is stopped on purpose, until it is started again.
    pub keep_when_stopped: bool,
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            engine: DatapathChoice::Auto,
            flows: Spanned::new(0..0, relay_ebpf::tables::DEFAULT_FLOWS),
            force_userspace: Vec::new(),
            kernel_log: false,
            keep_when_stopped: false,
        }
    }
}

/// Metrics and health over HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        /// In the range that Prometheus exporters use.
        const PORT: u16 = 9460;
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)) }
    }
}

/// The command line's way to the daemon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the socket, which only root and the daemon's user can open.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from(Control::DEFAULT) }
    }
}

impl Control {
    /// Where the command line looks unless told otherwise.
    pub const DEFAULT: &str = "/run/branchline/control.sock";
}

fn default_sip_port() -> u16 {
    /// The reference products' UDP port.
    const PORT: u16 = 8060;
    PORT
}

fn default_latching() -> Latching {
    Latching::SameAddress
}
