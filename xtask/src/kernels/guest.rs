//! A guest from its start to its end: QEMU without KVM, and what the guest reports over its second serial line.
//!
//! Each check stands between two marks. A guest that falls silent, by a crash or for too long, leaves the checks that it
//! did not finish without an answer, which is a failure like any other.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::checks::{self, Check, Depth, LOADS, Programs};
use super::debian::Kernel;
use super::initramfs;
use super::table::Cell;
use crate::lab::interrupt::PATIENCE;
use crate::ui::{self, Step};
use crate::{process, workspace};

/// QEMU of Debian's package qemu-system-x86.
const QEMU: &str = "qemu-system-x86_64";
/// Processors and memory, in MiB, of a guest.
const PROCESSORS: &str = "2";
const MEMORY_MIB: &str = "2048";
/// One check takes up to a minute where it is emulated; a busy machine takes longer. Then it is asked to end, and if it does
/// not hear it is killed so much later. In seconds.
const CHECK_LIMIT: u64 = 300;
const CHECK_GRACE: u64 = 20;
/// A guest that says nothing for longer does not run any more: within this each check ends, by itself or not.
const SILENCE: Duration = Duration::from_secs(CHECK_LIMIT + CHECK_GRACE + 40);
/// All of them together take two to six minutes.
const GUEST_LIMIT: Duration = Duration::from_secs(2700);
/// How often a running guest is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How much of what a check says comes out of the guest, in bytes: a verifier's tale has megabytes.
const SAID: u32 = 8192;
/// What marks the begin and the end of a check.
const BEGIN: &str = "=== begin ";
const END: &str = "=== end ";

/// A running QEMU, which does not outlive this value.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a guest ended.
enum End {
    /// By itself.
    Itself(ExitStatus),
    /// It said nothing for so long that it cannot have been running.
    Silent,
    /// It still said something when all its time was over.
    Late,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself(status) => write!(f, "QEMU: {status}"),
            Self::Silent => write!(f, "it said nothing for {} s", SILENCE.as_secs()),
            Self::Late => write!(f, "it was not done after {} s", GUEST_LIMIT.as_secs()),
        }
    }
}

/// Boots the kernel, has it try everything, and gives a cell for each check.
///
/// Of a guest that stands still, or is not done in time, the console is shown: Debian's kernels say there of a thread that does
/// not come back for two minutes, and of a core or RCU that does not get on for half a minute.
pub(super) fn run(kernel: &Kernel, programs: &Programs, depth: Depth, step: &mut Step) -> Result<Vec<Cell>> {
    let script = kernel.dir.join("guest.sh");
    fs::write(&script, guest_script(programs, depth))?;
    let archive = kernel.dir.join("initramfs.cpio");
    initramfs::write(kernel, &fs::canonicalize(&script)?, &archive)?;
    let [console, report] = ["console.log", "report.log"].map(|name| kernel.dir.join(name));
    let end = boot(kernel, &archive, [&console, &report], step)?;
    let (printed, said) = (read(&console), read(&report));
    if !said.contains(BEGIN) {
        bail!(
            "the guest with {} has not come to its first check ({end}); its console is {}:\n{}",
            kernel.release,
            console.display(),
            process::tail(&printed)
        );
    }
    if !matches!(end, End::Itself(_)) {
        step.announce(&format!("the guest was stopped in `{}`: {end}", latest(&said)));
        ui::line(&format!("its console ({}): {}", console.display(), process::tail(&printed)));
    }
    Ok(cells(&said, depth))
}

/// Starts a guest and waits for its end.
fn boot(kernel: &Kernel, archive: &Path, lines: [&Path; 2], step: &mut Step) -> Result<End> {
    for file in lines {
        fs::write(file, "")?;
    }
    let child = qemu(kernel, archive, lines).spawn().with_context(|| {
        format!(
            "cannot start {QEMU}; it is in Debian's package qemu-system-x86 (`cargo xtask setup --for test`)"
        )
    })?;
    let mut emulator = Emulator(child);
    let started = Instant::now();
    let (mut length, mut spoke) = (0, started);
    loop {
        if let Some(status) = emulator.0.try_wait()? {
            return Ok(End::Itself(status));
        }
        let said = read(lines[1]);
        if said.len() > length {
            (length, spoke) = (said.len(), Instant::now());
        }
        if spoke.elapsed() >= SILENCE {
            return Ok(End::Silent);
        }
        if started.elapsed() >= GUEST_LIMIT {
            return Ok(End::Late);
        }
        step.note(latest(&said));
        thread::sleep(LOOK);
    }
}

/// The check that a guest has come to.
fn latest(said: &str) -> &str {
    said.lines().rev().find_map(|line| line.strip_prefix(BEGIN)).unwrap_or("booting")
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).replace('\r', "")
}

fn qemu(kernel: &Kernel, archive: &Path, [console, report]: [&Path; 2]) -> Command {
    let mut command = Command::new(QEMU);
    // Never KVM: the same on every machine, also on those that are virtual themselves.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY_MIB]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    for line in [console, report] {
        command.arg("-serial").arg(format!("file:{}", line.display()));
    }
    command.args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]);
    let log = || fs::File::create(kernel.dir.join("qemu.log")).map_or_else(|_| Stdio::null(), Stdio::from);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log());
    command
}

/// What the guest runs.
fn guest_script(programs: &Programs, depth: Depth) -> String {
    let root: PathBuf = workspace::root().join("relay-userspace");
    let mut script = format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C {PATIENCE}=4\n\
         ip link set lo up\ncd '{}'\n\
         check() {{\n  echo; echo \"{BEGIN}$1\"; shift\n  \
         timeout -k {CHECK_GRACE} {CHECK_LIMIT} \"$@\" >/run/said 2>&1; status=$?\n  \
         tail -c {SAID} /run/said; echo; echo \"{END}$status\"\n}}\n",
        root.display()
    );
    for check in checks::of(depth) {
        let words: Vec<String> =
            programs.command(check).iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        script += &format!("check '{}' {}\n", check.column, words.join(" "));
        if check.column == LOADS {
            script += "[ \"$status\" = 0 ] || exit 0\n";
        }
    }
    script
}

/// What a report says of each check of a depth.
fn cells(report: &str, depth: Depth) -> Vec<Cell> {
    let mut refused = false;
    let read = |check: &Check| {
        if refused {
            return Cell::Untried;
        }
        let cell = cell(report, check);
        refused = check.column == LOADS && !cell.worked();
        cell
    };
    checks::of(depth).map(read).collect()
}

/// What it says of one.
fn cell(report: &str, check: &Check) -> Cell {
    let Some((_, rest)) = report.split_once(&format!("\n{BEGIN}{}\n", check.column)) else {
        return Cell::No("the guest did not come to it".to_owned());
    };
    let Some((said, rest)) = rest.split_once(&format!("\n{END}")) else {
        return Cell::No("the guest has ended, or its time, in the midst of it".to_owned());
    };
    // A name of a test that there is no more must not pass.
    if said.contains("\nrunning 0 tests") {
        return Cell::No("there is no such test".to_owned());
    }
    match rest.lines().next() {
        Some("0") => Cell::Yes(verified(said)),
        _ => Cell::No(reason(said)),
    }
}

/// How many instructions the verifier looked at for each program: `verified: branchline_relay 13286`.
fn verified(said: &str) -> Vec<(String, String)> {
    said.lines()
        .filter_map(|line| line.split_once("verified: ")?.1.split_once(' '))
        .map(|(program, count)| (program.to_owned(), count.to_owned()))
        .collect()
}

/// The line by which a failed check says why: the error of a test, what follows a panic, or what is missing.
fn reason(said: &str) -> String {
    /// As much of it as fits under a table.
    const LENGTH: usize = 400;
    let mut lines = said.lines();
    let mut last = "";
    let found = loop {
        let Some(line) = lines.next() else { break last };
        if let Some((_, error)) = line.split_once("Error: ") {
            // The error itself stands behind what was being done.
            let mut causes = lines.skip_while(|line| line.trim() != "Caused by:").skip(1);
            break causes.next().map_or(error, str::trim);
        }
        if line.contains(" panicked at ") {
            break lines.next().unwrap_or(line);
        }
        if line.starts_with("MISSING") {
            break line;
        }
        if !line.trim().is_empty() && !line.starts_with("test result: ") {
            last = line;
        }
    };
    found.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(column: &str) -> &'static Check {
        checks::of(Depth::Full).find(|check| check.column == column).unwrap()
    }

    #[test]
    fn a_report_is_read_check_by_check_and_silence_is_no_success() {
        let report = "\n=== begin doctor\nMISSING  kernel  5.10.0\n\n=== end 1\n\
                      \n=== begin verified\nverified: branchline_relay 13286\nverified: branchline_tc ?\nok\n\n=== end 0\n\
                      \n=== begin XDP rows\n\nrunning 0 tests\n\n=== end 0\n\
                      \n=== begin TC rows\n\nthread 'x' panicked at a.rs:1:2:\nleft is   not right\nnote\n\n=== end 101\n\
                      \n=== begin native\nhalf of a li";
        let counts = [("branchline_relay", "13286"), ("branchline_tc", "?")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        for (column, expected) in [
            ("doctor", Cell::No("MISSING kernel 5.10.0".to_owned())),
            ("verified", Cell::Yes(counts.to_vec())),
            ("XDP rows", Cell::No("there is no such test".to_owned())),
            ("TC rows", Cell::No("left is not right".to_owned())),
            ("native", Cell::No("the guest has ended, or its time, in the midst of it".to_owned())),
            ("generic", Cell::No("the guest did not come to it".to_owned())),
        ] {
            assert_eq!(cell(report, of(column)), expected, "{column}");
        }
    }

    #[test]
    fn where_the_programs_are_refused_what_needs_them_is_not_tried() {
        let report =
            "\n=== begin userspace\nok\n=== end 0\n\n=== begin verified\nError: no helper\n\n=== end 1\n";
        let cells = cells(report, Depth::Full);
        let columns: Vec<_> = checks::of(Depth::Full).map(|check| check.column).zip(&cells).collect();
        for (column, cell) in columns {
            let expected = match column {
                "doctor" => Cell::No("the guest did not come to it".to_owned()),
                "userspace" => Cell::Yes(vec![]),
                "verified" => Cell::No("no helper".to_owned()),
                _ => Cell::Untried,
            };
            assert_eq!(*cell, expected, "{column}");
        }
    }

    #[test]
    fn the_innermost_cause_of_an_error_is_its_reason() {
        let said =
            "test a ... Error: the end of a log:\n12 lines\n\nCaused by:\n    branchline ended\n    more\n";
        assert_eq!(reason(said), "branchline ended");
        assert_eq!(reason("test a ... Error: no device\nFAILED\n"), "no device");
    }
}
