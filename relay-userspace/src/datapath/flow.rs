//! What a flow is, as those who install it say it, and as those who ask are told.

use std::{net::SocketAddr, sync::Arc};

use relay_ebpf::{FlowKind, FlowStats};
use serde::Serialize;

use super::{ice::IceAtPort, translation::Translation};
use crate::net::{Dscp, Latching, NetworkId};

/// One direction of one media stream. Its local address and port are its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSpec {
    /// Where its packets arrive.
    pub local: SocketAddr,
    /// The network that they come from.
    pub from: NetworkId,
    /// The address and port that the sender has said it sends from; none yet while no answer is there,
    /// and none while it holds by an address of zeros, when what was learned stands.
    pub signalled: Option<SocketAddr>,
    /// Which sources may be learned.
    pub latching: Latching,
    /// Where its packets leave from: the local address of the flow in the other direction.
    pub out_source: SocketAddr,
    /// Where its packets go; none if the other party has said that it wants none.
    pub destination: Option<SocketAddr>,
    /// What it carries.
    pub kind: FlowKind,
    /// The code point that packets leave with; none to leave it as it came.
    pub dscp: Option<Dscp>,
    /// Clock of the RTP timestamps in hertz.
    pub clock_rate: u32,
    /// How often signalling has turned this direction on or off. A change opens learning again: after a hold, an
    /// address translator may have given the sender another address.
    pub turns: u32,
    /// Where RTCP goes that the sender multiplexes with RTP (RFC 5761); none if it does not, when RTCP has a flow of
    /// its own. In a place apart, for few telephones do, and shared, for a packet may ask who its sender is.
    pub rtcp: Option<Arc<RtcpWay>>,
    /// What becomes of its packets where the legs' protection differs; none to hand them on as they are.
    pub srtp: Option<Arc<Translation>>,
    /// By what the party checks this port, where it has ICE; none where it has not.
    pub ice: Option<IceAtPort>,
    /// The other branches of a forked call, whose parties send to this port too.
    pub forks: Vec<Fork>,
}

/// A flow of an earlier process, which this one is to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingFlow {
    /// As it was installed.
    pub spec: FlowSpec,
    /// The source that it had learned, and when, in milliseconds since 1970, as far as whoever kept it knows.
    pub learned: Option<(SocketAddr, u64)>,
}

/// Where RTCP leaves that arrives on the port of RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpWay {
    /// Where it leaves from: the local address of the flow by which the other party's RTCP comes.
    pub out_source: SocketAddr,
    /// Where it goes; none if the other party wants none.
    pub destination: Option<SocketAddr>,
    /// The code point that it leaves with; none to leave it as it came.
    pub dscp: Option<Dscp>,
}

/// One more party that sends to a flow's port. One offer announces one port, and each branch of a forked call answers
/// it (RFC 3261 section 13.2.2.4), so its packets are told from the others' by their source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// As in [`FlowSpec`]; so are the others.
    pub signalled: Option<SocketAddr>,
    /// Of this branch alone.
    pub out_source: SocketAddr,
    /// Where its packets go.
    pub destination: Option<SocketAddr>,
    /// Clock of the RTP timestamps in hertz.
    pub clock_rate: u32,
    /// How often signalling has turned it on or off.
    pub turns: u32,
    /// Where RTCP goes that it multiplexes.
    pub rtcp: Option<Arc<RtcpWay>>,
    /// What becomes of its packets.
    pub srtp: Option<Arc<Translation>>,
}

impl FlowSpec {
    /// What is the sender's own in this, as if it were a fork.
    #[must_use]
    pub fn party(&self) -> Fork {
        Fork {
            signalled: self.signalled,
            out_source: self.out_source,
            destination: self.destination,
            clock_rate: self.clock_rate,
            turns: self.turns,
            rtcp: self.rtcp.clone(),
            srtp: self.srtp.clone(),
        }
    }

    /// The same flow with another sender, and no further ones.
    #[must_use]
    pub fn with_party(&self, party: Fork) -> Self {
        let Fork { signalled, out_source, destination, clock_rate, turns, rtcp, srtp } = party;
        let forks = Vec::new();
        Self { signalled, out_source, destination, clock_rate, turns, rtcp, srtp, forks, ..self.clone() }
    }
}

/// Why a flow is carried in userspace although it has learned its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserspaceReason {
    /// The kernel datapath is switched off or not to be had.
    NoKernelDatapath,
    /// The configuration wants this address carried in userspace (`datapath.force_userspace`).
    Forced,
    /// Its call is being captured: the copies are made in userspace.
    Captured,
    /// The other party's address is of another family than the network towards it, which cannot be sent to.
    OtherFamily,
    /// Its packets come from, or go to, one of the appliance's own media addresses, and the legs there cannot be
    /// joined: one of them has not learned its source, is on hold, is captured, or carries something else.
    OwnAddress,
    /// The kernel's table of next hops is full.
    NextHopTableFull,
    /// No program meets its packets: none is attached to the interface that they come by, or none that can send by the
    /// one that they leave by.
    NotAttached,
    /// Several branches of a forked call send to its port, and are told apart in userspace until one is left.
    Forked,
    /// One leg is SRTP and the other is not, or has another key.
    Translated,
}

impl UserspaceReason {
    /// A sentence for people.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NoKernelDatapath => "the kernel datapath is off or not to be had (see `branchline doctor`)",
            Self::Forced => "an address of this flow is listed in datapath.force_userspace",
            Self::Captured => "being captured: userspace carries it until the capture ends",
            Self::OtherFamily => {
                "the other party's address is not of its network's family: it cannot be reached"
            }
            Self::OwnAddress => {
                "the other end is another leg of the call in this host, which the kernel does not carry"
            }
            Self::NextHopTableFull => "the kernel's next-hop table is full",
            Self::NotAttached => {
                "no program on the interface that its packets come by can forward them (see `branchline status`)"
            }
            Self::Translated => "SRTP is translated",
            Self::Forked => "several branches of a forked call send to this port, until one of them is left",
        }
    }
}

/// Who carries a flow at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "datapath", rename_all = "snake_case")]
pub enum Carrier {
    /// The kernel program.
    Kernel,
    /// The kernel program at TC.
    Tc {
        /// Why not that at XDP.
        why: String,
    },
    /// The kernel program, in one pass with another leg of the call: its packets come from one of the appliance's
    /// own addresses, and go straight from where they first arrived to where this flow sends them.
    Joined {
        /// The flow at which they arrive.
        with: SocketAddr,
    },
    /// Nobody yet has sent: userspace relays and learns.
    Learning,
    /// The kernel program would, but passes packets up until the next hop is known.
    AwaitingNextHop {
        /// What is missing.
        why: String,
    },
    /// Userspace, for this reason.
    Userspace {
        /// The reason.
        reason: UserspaceReason,
    },
    /// Nobody: the other party wants no packets.
    Blocked,
}

impl Carrier {
    /// The word for it in tables and metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Kernel | Self::Joined { .. } => "kernel",
            Self::Tc { .. } => "tc",
            Self::Learning => "learning",
            Self::AwaitingNextHop { .. } => "awaiting_next_hop",
            Self::Userspace { .. } => "userspace",
            Self::Blocked => "blocked",
        }
    }
}

/// Who refused a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refuser {
    /// The kernel program, where the flow's source was learned.
    Kernel,
    /// The userspace relay, before that or instead.
    Userspace,
}

impl Refuser {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// A source whose packets a flow refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedSource {
    /// Address and port.
    pub source: SocketAddr,
    /// Packets from there.
    pub packets: u64,
    /// When the first came, in milliseconds since 1970.
    pub first_unix_ms: u64,
    /// When the last came.
    pub last_unix_ms: u64,
    /// Who refused them.
    pub by: Refuser,
}

/// Packets of a flow that SRTP refused, from a source that may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unprotected {
    /// Whose authentication tag was wrong.
    pub authentication: u64,
    /// That were there before, or were of one source too many.
    pub replay: u64,
}

/// A flow as it stands.
#[derive(Debug, Clone)]
pub struct FlowReport {
    /// As installed.
    pub spec: FlowSpec,
    /// Who carries it.
    pub carrier: Carrier,
    /// The source that was learned, and when, in milliseconds since 1970.
    pub learned: Option<(SocketAddr, u64)>,
    /// Where packets go now: the other party's learned source, if it has one.
    pub destination: Option<SocketAddr>,
    /// Statistics over both datapaths.
    pub stats: FlowStats,
    /// The first few sources that were refused.
    pub refused: Vec<RefusedSource>,
    /// Packets refused while learning, from any source; those that came later are in the statistics.
    pub refused_packets: u64,
    /// Packets that SRTP refused.
    pub srtp_refused: Unprotected,
    /// The other branches of a forked call at the same port, each as a flow of its own.
    pub forks: Vec<FlowReport>,
    /// Where RTCP goes that comes multiplexed: where the other party's is heard, or is said to come from.
    pub rtcp_destination: Option<SocketAddr>,
}

impl FlowReport {
    /// Refused packets from sources beyond those that are listed.
    #[must_use]
    pub fn refused_further(&self) -> u64 {
        let listed: u64 = self.refused.iter().map(|refused| refused.packets).sum();
        (self.refused_packets + u64::from(self.stats.wrong_source)).saturating_sub(listed)
    }
}
