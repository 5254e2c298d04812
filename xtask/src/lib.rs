//! Branchline's own set-up, build, demo, test and bench commands, as a library.
//!
//! `cargo xtask` is the command line over it. It is a library as well because the daemon's integration tests
//! use the same laboratory as the demo. It depends on nothing of the daemon and on few crates: it must build
//! in seconds on a machine where the daemon cannot be built yet.
//!
//! | module | its one job |
//! |---|---|
//! | [`setup`] | install what is missing, and only that |
//! | [`lab`] | office, branch and centre as network namespaces, with real peers and captures |
//! | [`demo`] | twenty calls through the appliance, and a table of what the wire saw |
//! | [`kernels`] | the appliance on other kernels, in guests |
//! | [`dashboards`] | the check of rules and panels against Prometheus |
//! | [`test`](mod@test), [`bench`](mod@bench) | run what is to be run, with the set-up it needs |
//! | [`instructions`] | the guard: counts held against a baseline |
//! | [`process`], [`ui`], [`workspace`] | commands with time limits, lines on the terminal, where things lie |

pub mod bench;
pub mod dashboards;
pub mod demo;
pub mod dist;
pub mod instructions;
pub mod kernels;
pub mod lab;
pub mod process;
pub mod setup;
pub mod test;
pub mod ui;
pub mod workspace;
