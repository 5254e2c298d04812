//! The laboratory: a branch office, its appliance and the central server as three network namespaces on one
//! machine, with real SIP peers, RTP and RTCP in both directions, and captures on the wire.
//!
//! ```text
//!   office                      branch                      centre
//!   phones 10.61.0.11...        appliance                   server 10.62.0.10
//!   eth0 ---------------------- eth0      eth1 ------------ eth0
//!            10.61.0.0/24  10.61.0.1      10.62.0.1  10.62.0.0/24
//! ```
//!
//! Every run has names of its own, so a test runs beside a demo; what a run that was killed left behind is swept
//! at the start of the next. Everything is undone by dropping it.
//!
//! | module | its one job |
//! |---|---|
//! | [`netns`] | namespaces: make, enter, sweep, remove |
//! | [`network`] | the three namespaces, their addresses and their wires |
//! | [`running`] | programs inside namespaces, stopped by their own id |
//! | [`sipp`] | phones and server by SIPp, with this crate's scenarios |
//! | [`kamailio`], [`baresip`], [`linphone`] | a real server and real phones, which know nothing of the laboratory |
//! | [`dhcp`] | the office's own DHCP server, and clients |
//! | [`wireguard`] | a tunnel between two namespaces |
//! | [`nginx`] | a central server of files |
//! | [`rtp`], [`media`] | RTP and RTCP on the wire, and the endpoint that plays and hears every call's media |
//! | [`traffic`] | a plan of registrations and overlapping calls, carried out by all of the above |
//! | [`flood`] | small packets, as fast as they go, for a bounded time |
//! | [`http`] | one HTTP request from inside a namespace |
//! | [`capture`] | what passed on a wire, by tcpdump and tshark |
//! | [`interrupt`] | Ctrl-C ends every wait, so that everything is undone |

pub mod baresip;
pub mod capture;
pub mod dhcp;
pub mod flood;
pub mod http;
pub mod interrupt;
pub mod kamailio;
pub mod linphone;
pub mod machine;
pub mod media;
pub mod netns;
pub mod network;
pub mod nginx;
pub mod rtp;
pub mod running;
pub mod sipp;
pub mod traffic;
pub mod wireguard;

pub use capture::{Capture, Packet};
pub use media::{Fate, Faults, Leg, MediaEndpoint, UdpChecksum};
pub use netns::Namespace;
pub use network::{Lab, Routes};
pub use running::Running;
pub use traffic::{Outcome, Plan, Role, Traffic};
