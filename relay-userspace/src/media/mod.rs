//! Media sessions: an offer and an answer go in, flows come out.
//!
//! This room knows nothing of SIP. Whoever negotiates a session (the SIP proxy is one such caller) hands
//! it each session description with the tags that tell the parties apart, and sends on the description it
//! gets back, in which the appliance's own addresses and ports stand. By then the flows behind these
//! ports are installed, so that no packet can arrive before them.
//!
//! [`Sessions`] decides and does no I/O; whoever implements [`MediaRelay`] with it carries its
//! [`FlowChange`]s to the datapath.

mod end;
mod ice;
mod ports;
mod protection;
mod sessions;
mod standing;
mod stream;
mod surface;

pub use ports::PortUse;
pub use sessions::{
    FlowChange, Marks, MediaNetwork, Negotiated, SessionReport, Sessions, Settings, StreamReport,
};
pub use standing::{NotTakenUp, SessionRecord};
pub use surface::{Answer, MediaError, MediaRelay, Offer};
