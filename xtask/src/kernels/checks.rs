//! What is tried in each guest, and the programs that try it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::ui::{Outcome, Step};
use crate::workspace;

/// How deep a check goes: a quick run leaves the deeper ones out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Always.
    Quick,
    /// Only where there is time.
    Full,
}

/// Who tries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The daemon itself.
    Daemon,
    /// The packet rows.
    Rows,
    /// The tests for guests.
    Guest,
}

/// One column of the table.
#[derive(Debug)]
pub(super) struct Check {
    /// Its heading.
    pub(super) column: &'static str,
    who: Who,
    /// A command of the daemon's, or the name of a test.
    what: &'static str,
    depth: Depth,
}

const fn check(column: &'static str, depth: Depth, who: Who, what: &'static str) -> Check {
    Check { column, who, what, depth }
}

/// The check without which those behind it need not be tried.
pub(super) const LOADS: &str = "verified";

/// All of them, in the order in which they run.
const CHECKS: [Check; 16] = [
    check("doctor", Depth::Quick, Who::Daemon, "doctor"),
    check("userspace", Depth::Quick, Who::Guest, "ladder::userspace_carries_a_call"),
    check(LOADS, Depth::Quick, Who::Guest, "programs::every_program_is_verified"),
    check("XDP rows", Depth::Quick, Who::Rows, "each_row_has_its_verdict_and_its_bytes_in_the_kernel"),
    check("TC rows", Depth::Quick, Who::Rows, "each_untagged_row_has_its_verdict_and_its_bytes_at_tc"),
    check("native", Depth::Quick, Who::Guest, "ladder::native_xdp_carries_a_call"),
    check("generic", Depth::Full, Who::Guest, "ladder::generic_xdp_carries_a_call"),
    check("tc", Depth::Full, Who::Guest, "ladder::tc_carries_a_call"),
    check(
        "restart",
        Depth::Quick,
        Who::Guest,
        "restart::a_killed_daemon_s_filters_are_replaced_and_a_stopped_one_leaves_none",
    ),
    check(
        "survives",
        Depth::Quick,
        Who::Guest,
        "restart::the_kernel_forwards_without_a_daemon_and_the_next_one_takes_over",
    ),
    check("tag on/off", Depth::Full, Who::Guest, "vlans::a_tag_is_put_on_and_taken_off_by_xdp"),
    check("tag kept", Depth::Full, Who::Guest, "vlans::a_tag_is_kept_by_xdp"),
    check("tag changed", Depth::Quick, Who::Guest, "vlans::a_tag_is_changed_by_xdp"),
    check(
        "priorities",
        Depth::Full,
        Who::Guest,
        "vlans::userspace_s_media_and_sip_have_the_priorities_of_the_configuration",
    ),
    check("QinQ", Depth::Full, Who::Guest, "vlans::two_tags_are_the_stack_s_business_and_counted"),
    check("WireGuard", Depth::Full, Who::Guest, "tunnel::the_kernel_s_wireguard_carries_a_call_by_tc"),
];

/// The checks of a depth and those above it.
pub(super) fn of(depth: Depth) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(move |check| check.depth <= depth)
}

/// The programs that the guests run, as this machine has them.
#[derive(Debug)]
pub(super) struct Programs {
    daemon: PathBuf,
    rows: PathBuf,
    guest: PathBuf,
}

impl Programs {
    /// Builds them.
    ///
    /// # Errors
    /// They do not build.
    pub(super) fn build() -> Result<Self> {
        let mut step = Step::begin("cargo build");
        step.announce("the daemon and the tests that run in guests");
        let log = workspace::scratch("kernels")?.join("build.log");
        let mut command = Command::new(workspace::cargo());
        command.current_dir(workspace::root()).args([
            "test",
            "--no-run",
            "--package",
            "relay-userspace",
            "--test",
            "guest",
            "--test",
            "program_rows",
            "--message-format",
            "json-render-diagnostics",
        ]);
        process::with_progress(&mut command, &log, &mut step, |_| None)?;
        let said = std::fs::read_to_string(&log)?;
        let find = |name| executable(&said, name).with_context(|| format!("cargo has built no {name}"));
        let programs =
            Self { daemon: find("branchline")?, rows: find("program_rows")?, guest: find("guest")? };
        step.end(Outcome::Done, "built");
        Ok(programs)
    }

    /// The words of the command that a check runs.
    pub(super) fn command(&self, check: &Check) -> Vec<String> {
        let test = |program: &Path| {
            [&program.display().to_string(), "--exact", check.what, "--nocapture", "--test-threads=1"]
                .map(str::to_owned)
                .to_vec()
        };
        match check.who {
            Who::Daemon => vec![self.daemon.display().to_string(), check.what.to_owned()],
            Who::Rows => test(&self.rows),
            Who::Guest => test(&self.guest),
        }
    }
}

/// The file that cargo says it has made of a target (The Cargo Book, "JSON messages").
fn executable(said: &str, name: &str) -> Option<PathBuf> {
    said.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_what_cargo_says() {
        let said = "   Compiling relay-userspace v0.1.0\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"guest\"},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"branchline\"},\"executable\":\"/t/branchline\"}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"guest\"},\"executable\":\"/t/guest-1\"}\n";
        assert_eq!(executable(said, "guest"), Some(PathBuf::from("/t/guest-1")));
        assert_eq!(executable(said, "lab"), None);
    }

    #[test]
    fn columns_have_names_of_their_own_and_a_quick_run_is_a_part_of_a_full_one() {
        let names: std::collections::BTreeSet<&str> = CHECKS.iter().map(|check| check.column).collect();
        assert_eq!(names.len(), CHECKS.len());
        let quick = of(Depth::Quick).count();
        assert!(0 < quick && quick < of(Depth::Full).count());
    }
}
