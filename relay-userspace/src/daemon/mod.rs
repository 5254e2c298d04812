//! The daemon: wires the rooms together, and owns start-up, reload and shutdown.
//!
//! Nothing is half started: whatever is missing (an interface, a port, a permission) is named, and the
//! process ends with an error before the first packet is touched. A stop on purpose takes
//! everything off the interfaces, unless the configuration says to keep forwarding; calls outlive any other end.

mod addresses;
mod bindings;
mod certificates;
mod core;
mod fits;
mod host;
mod kept;
mod measures;
mod names;
mod observe;
mod plane;
mod protection;
mod quality;
mod reload;
mod services;
mod settings;
mod standing;
mod start;
mod traces;
mod views;

pub use start::{Ended, StartError, run};
