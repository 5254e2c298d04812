//! The central servers as a group of equals: which is tried first, which is left alone, and why; and what there is beside
//! them: trunks to the telephone network, and the word that the office is on its own.
//!
//! [`Group`] is a machine without sockets: it is told what names resolve to and how servers answered, and says whom to
//! try, which names to resolve and whom to probe. The last server known to be good is tried first, whatever its place in
//! the list: equals share their registrations' fate, and going back and forth loses calls. A server that failed is left
//! alone for a while, but never given up: when no other is left it is tried all the same. [`Groups`] are all groups, and
//! know which phone belongs to which.
//!
//! Invariant: a name that stops resolving keeps its last addresses; what a DNS server says can add and reorder servers,
//! but not take the last one away. RFC 3263 (locating servers), RFC 2782 (SRV).

mod group;
mod groups;
mod naptr;
mod numbering;
mod peers;
mod plans;
mod server;
mod srv;
mod survival;
#[cfg(test)]
mod tests;
mod trunks;

pub use group::Group;
pub use groups::{GroupId, GroupSettings, Groups, Members};
pub use naptr::{NaptrRecord, Service as DomainService, Wanted, services, usual_services};
pub use numbering::{Form, Numbering, Place};
pub use peers::{Peer, PeerState, Peers};
pub use plans::{DestinationSettings, PlanChoice, Plans};
pub use server::{
    Evidence, Failure, Health, Output, Rank, Resolution, ServerState, Settings, Target, WhenDown,
};
pub use srv::{SrvRecord, order};
pub use survival::{Service, Survival, SurvivalChange, SurvivalSettings};
pub use trunks::{Emergency, TrunkChoice, TrunkSettings, Trunks};
