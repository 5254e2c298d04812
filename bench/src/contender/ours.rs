//! The appliance as a contender: this very program, in the branch.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use xtask::lab::Running;

use crate::appliance::{READY, Way};
use crate::testbed::Testbed;

/// Its BPF file system is its own: what another appliance of this host has pinned is none of its business.
const APART: &str = "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"";

/// Starts it with its calls, and says where their streams go.
pub(super) fn start(bed: &Testbed, way: Way, calls: usize) -> Result<(Running, Vec<SocketAddrV4>)> {
    use clap::ValueEnum as _;
    let way = way.to_possible_value().context("no name")?;
    let program = std::env::current_exe()?;
    let mut command = bed.command("unshare");
    command.args(["--mount", "sh", "-c", APART, "sh"]).arg(program).arg("appliance");
    command.args(["--way", way.get_name(), "--calls", &calls.to_string()]);
    command.args(["--arrivals", &bed.names.arrivals, "--departures", &bed.names.departures]);
    let mut running = Running::start(&mut command, "appliance", bed.lab.dir())?;
    // A file descriptor for each media port, where there is no kernel to steer.
    running.wait_for(READY, super::LIMIT)?;
    let mut streams = None;
    // The line is long: it may be there in part.
    xtask::lab::interrupt::wait_until(super::LIMIT, "streams of the appliance", || {
        let said = running.said();
        let line = said.lines().find_map(|line| line.strip_prefix(READY));
        streams = line.and_then(|line| serde_json::from_str(line).ok());
        Ok(streams.is_some().then_some(()))
    })?;
    Ok((running, streams.context("no streams")?))
}
