//! The datapath: carries the packets of flows, in the kernel where it can and in userspace where it must.
//!
//! This room knows nothing of calls. Its surface is the [`Engine`]: flows are installed, changed, read and
//! removed, each by its local address and port. Behind it:
//!
//! - `flows` decides, without any I/O, what happens to a packet that comes up to userspace: it learns a
//!   flow's source by policy (latching), counts, and says where the packet goes.
//! - `paths` is what the relay's tasks look up of flows that stand: each packet takes its own port's lock only.
//! - `kernel` holds the tables that the XDP and `sk_lookup` programs read, and keeps next hops current.
//! - `relay` moves packets: few sockets for all ports where the kernel steers, a socket a port elsewhere.
//! - `ice` answers connectivity checks at ports that were announced with ICE.
//! - `tap` hands copies of a flow's packets to who looks at its call; such a flow is carried by `relay`.
//!
//! Invariant: a flow is installed before anyone is told of its port, and is always carried by someone; if
//! not by the kernel, the flow says why.

pub mod bed;
mod engine;
mod flow;
mod flows;
mod ice;
pub mod kernel;
mod paths;
mod relay;
mod shared;
mod tap;
mod translation;

pub use engine::{Engine, EngineError, Settings, Totals};
pub use flow::{
    Carrier, FlowReport, FlowSpec, Fork, RefusedSource, Refuser, RtcpWay, StandingFlow, Unprotected,
    UserspaceReason,
};
pub use ice::{IceAtPort, IceCredentials, IceLearning};
pub use relay::{PortError, RtcpPacket, SocketUse};
pub use shared::monotonic_ns;
pub use tap::{PacketCopy, Tap, Tapped, Way, unix_ns};
pub use translation::{Incoming, Outgoing, Translation};
