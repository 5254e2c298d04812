//! The kernel's part of the datapath: its tables, its programs and where they are attached, and the next
//! hops that netlink tells of.

pub mod attach;
pub mod bed;
pub(super) mod former;
pub mod guard;
pub mod keeper;
pub(super) mod next_hops;
pub(super) mod pins;
pub mod programs;
pub(super) mod refused;
pub(super) mod resolver;
pub(super) mod tables;
