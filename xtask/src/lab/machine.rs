//! A machine of its own to install on: a clean Debian with real systemd, in a laboratory's namespace.
//!
//! The root is made once by debootstrap and is never changed: each machine has an overlay over it, which goes with it.
//! systemd is the first process of a process namespace, so the machine ends whole when its starter does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::interrupt;
use super::netns::Namespace;
use super::network::Lab;
use super::running::Running;
use crate::process;
use crate::setup;
use crate::ui::Step;
use crate::workspace;

/// The packages of a small server; nothing that Branchline needs and its package does not name.
const PACKAGES: &str = "systemd,systemd-sysv,iproute2,procps";
/// Units that want a terminal.
const TERMINALS: [&str; 3] = ["console-getty.service", "getty-static.service", "getty@.service"];
/// systemd is up within seconds; a busy machine takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// Mounts what a machine needs, then becomes its first process. `$1` is the base, `$2` the machine's directory.
const BOOT: &str = r#"
set -e
base=$1 dir=$2 root=$2/root
mount -t overlay overlay -o lowerdir="$base",upperdir="$dir/upper",workdir="$dir/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
export container=laboratory
mkdir "$root/outside"
cd "$root"
pivot_root . outside
# A unit's own mounts are built below the first process' root: it has to be the root of the mounts, not a chroot.
exec chroot . sh -c 'umount --lazy /outside && rmdir /outside && exec /lib/systemd/systemd --system'
"#;

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    running: Running,
    directory: PathBuf,
    /// Its systemd, as this machine numbers processes.
    first: u32,
}

impl Machine {
    /// Boots a machine whose network is that of a namespace of the laboratory.
    ///
    /// # Errors
    /// debootstrap fails, overlays cannot be mounted, or systemd does not come up.
    pub fn boot(lab: &Lab, network: &Namespace) -> Result<Self> {
        let base = base()?;
        let directory = lab.dir().join("machine");
        for part in ["root", "upper", "work"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let units = directory.join("upper/etc/systemd/system");
        fs::create_dir_all(&units)?;
        for unit in TERMINALS {
            symlink("/dev/null", units.join(unit))?;
        }
        let mut command = network.command("unshare");
        command.args(["--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]);
        command.args(["sh", "-c", BOOT, "boot"]).arg(&base).arg(&directory);
        let mut running = Running::start(&mut command, "machine", lab.dir())?;
        let outer = running.pid();
        let first = interrupt::wait_until(BOOT_LIMIT, "first process of the machine", || {
            running.still_runs()?;
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
            let child = children.split_whitespace().next().and_then(|word| word.parse::<u32>().ok());
            let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Ok(child.filter(|pid| name(*pid).trim() == "systemd"))
        })?;
        let mut machine = Self { running, directory, first };
        interrupt::wait_until(BOOT_LIMIT, "systemd", || {
            machine.running.still_runs()?;
            let state = machine.command("systemctl").arg("is-system-running").output()?.stdout;
            let state = String::from_utf8_lossy(&state);
            Ok(matches!(state.trim(), "running" | "degraded").then_some(()))
        })?;
        Ok(machine)
    }

    /// A command that will run on it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args([
            "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd", "--", program,
        ]);
        command
    }

    /// Runs a program on it to its end.
    ///
    /// # Errors
    /// As [`process::output`].
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("nothing to run")?;
        process::output(self.command(program).args(arguments))
    }

    /// Copies a file to its root's `/root`.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn take(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("no file name")?.to_string_lossy().into_owned();
        let inside = format!("/root/{name}");
        self.write(&inside, &fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)?;
        Ok(inside)
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        // By its own root: what is written below the overlay's upper directory while it is mounted may not be seen.
        let outside = format!("/proc/{}/root{path}", self.first);
        fs::write(&outside, content).with_context(|| format!("cannot write {path} on the machine"))
    }

    /// Whether it has such a file.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        Path::new(&format!("/proc/{}/root{path}", self.first)).symlink_metadata().is_ok()
    }

    /// What a unit has logged.
    ///
    /// # Errors
    /// As [`process::output`].
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--unit", unit, "--no-pager", "--output", "cat"])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `unshare` takes no SIGTERM while it waits; killed, it takes the machine with it.
        let _ = self.running.stop(libc::SIGKILL);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Makes the root that all machines share, when it is not there.
///
/// # Errors
/// debootstrap fails; the message has the end of its output.
pub fn prepare() -> Result<()> {
    base().map(drop)
}

/// The root that all machines share; made when it is not there.
fn base() -> Result<PathBuf> {
    let suite = suite()?;
    let base = workspace::target_dir().join(format!("machine-{suite}"));
    if base.join("lib/systemd/systemd").exists() && base.join("complete").exists() {
        return Ok(base);
    }
    let mut step = Step::begin("debootstrap");
    step.announce("a clean Debian, once; a minute");
    let _ = fs::remove_dir_all(&base);
    let log = workspace::scratch("setup")?.join("debootstrap.log");
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite])
        .arg(&base)
        .arg(setup::main_archive()?);
    process::with_progress(&mut command, &log, &mut step, |line| {
        line.starts_with("I: ").then(|| line.to_owned())
    })?;
    fs::write(base.join("complete"), "")?;
    Ok(base)
}

/// This system's Debian, by its code name.
fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match name {
        Some(name) => Ok(name.trim_matches('"').to_owned()),
        None => bail!("/etc/os-release names no Debian release to make a clean machine of"),
    }
}
