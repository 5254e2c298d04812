//! What this hardware carries: packets of the trial's own, through flows of its own, in the program of the appliance.
//!
//! A generator and a sink (kernel programs of `relay-ebpf`) stand on both ends of a path, and between them the
//! datapath as the daemon has it. The path is of virtual cables in a network namespace that the trial makes, or of two
//! interfaces with a cable between them that it was given, which it moves into that namespace and back.
//!
//! Invariants: nothing is sent but on that path. Time and packets are bounded. The namespace has no name: it ends with
//! the process, however that ends, and so does what was made in it; the kernel returns interfaces of hardware.
//!
//! - `place` makes the path. `traffic` sends and counts. `cores` says who runs where, and for how long it has.
//! - `search` looks for the highest rate that is held (RFC 2544 section 26.1), without any I/O.
//! - `report` is what came of it, and how many calls that is.

mod cores;
mod objections;
mod place;
mod report;
mod run;
mod search;
mod traffic;

pub use objections::{Facts, objections};
pub use report::{CODECS, Calls, Codec, Limit, Point, Report};
pub use run::{Options, TrialError, run};

/// The compiled generator and sink, as the build script leaves them: the bench runs them too.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/branchline-traffic"));
