//! The configuration: one TOML file, read whole and checked whole before anything starts.
//!
//! What is wrong is told with file, line and key. Unknown keys are refused: a key that is misspelt must
//! not be silently without effect. `packaging/branchline.example.toml` documents every key and is itself
//! checked by a test.

mod capture;
pub mod changes;
pub mod edit;
mod error;
mod file;
mod groups;
pub mod keys;
mod log;
mod numbering;
mod peers;
mod protection;
mod routing;
pub mod save;
mod services;
mod tables;
mod tls;
mod trace;
mod types;
mod web;

pub use capture::{Capture, MOST_RECIPIENTS, age_recipient};
pub use error::ConfigError;
pub use file::Config;
pub(crate) use file::STREAM_KEYS;
pub use groups::{DualRegistration, Group, GroupEntry, GroupServers, UPSTREAM_GROUP, UserPattern};
pub use log::{DayTime, Log, LogWord, Topics};
pub use numbering::Numbering;
pub use peers::{Addresses, Codec, Conversions, DelayedOffers, HoldStyle, Peer, ReferStyle};
pub use protection::Protection;
pub use routing::{
    Destination, Emergency, NumberForm, Pattern, PlanDestination, Route, Routing, ServerPlan, SurvivalTable,
    Trunk, Unproven,
};
pub use services::{Clock, Dhcp, Provisioning, Syslog, Unsynchronised};
pub use tables::{
    Admin, ChallengePolicy, Control, Datapath, DscpMarks, Media, Network, Redirects, Silence, Sip, State,
    Upstream,
};
pub use tls::{ClientCertificates, Suite, Tls};
pub use trace::{HepServer, Trace};
pub use types::{ChosenBy, Host, HttpServer, PortRange, Scheme, ServerUri, StatusRange};
pub use web::Web;
