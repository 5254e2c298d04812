//! Which core does what, and how long threads have run: the scheduler's own accounting.
//!
//! Two cores are enough: one forwards, and what it does is what is measured; the other generates, and counts at the sink.
//! The kernel's part of receiving runs in a thread of its own (threaded NAPI), so that its time is told apart from the
//! time of whoever it would have interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A core by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Core(pub usize);

impl Core {
    /// Where packets are made and counted.
    pub(crate) const TRAFFIC: Self = Self(0);
    /// Where the contender forwards.
    pub(crate) const FORWARDING: Self = Self(1);
}

/// Threads that forward have their core to themselves as far as the scheduler can grant it.
const FIRST: libc::c_int = -20;

/// Fails on machines with a single core.
///
/// # Errors
/// There are not enough of them.
pub(crate) fn suffice() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > Core::FORWARDING.0, "the bench needs two cores, and may use {cores}");
    Ok(())
}

/// Keeps a thread on a core; 0 is the calling one.
///
/// # Errors
/// The thread is gone, or not ours.
pub(crate) fn pin(thread: u32, core: Core) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core.0)?;
    allow(thread, &only).with_context(|| format!("thread {thread} does not stay on core {}", core.0))
}

/// The cores that a thread may have; 0 is the calling one.
///
/// # Errors
/// The thread is gone.
pub(crate) fn allowed(thread: u32) -> nix::Result<CpuSet> {
    sched_getaffinity(Pid::from_raw(thread.cast_signed()))
}

/// Has a thread run on these cores only; 0 is the calling one.
///
/// # Errors
/// The thread is gone, is not ours, or is one of the kernel's that stay where they are.
pub(crate) fn allow(thread: u32, cores: &CpuSet) -> nix::Result<()> {
    sched_setaffinity(Pid::from_raw(thread.cast_signed()), cores)
}

/// Puts a thread before all others of its core; 0 is the calling one.
///
/// # Errors
/// The thread is gone, or this is not root.
pub(crate) fn put_first(thread: u32) -> Result<()> {
    nice(thread, FIRST)
}

fn nice(thread: u32, niceness: libc::c_int) -> Result<()> {
    // SAFETY: a system call of numbers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, niceness) } != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("the priority of thread {thread}"));
    }
    Ok(())
}

/// Puts a thread before all that are not of this kind: it runs as soon as it has something to do. Only for one that is
/// done with it soon, and always.
///
/// # Errors
/// The thread is gone, or this is not root.
pub(crate) fn put_before_all(thread: u32) -> Result<()> {
    class(thread, libc::SCHED_FIFO, 1)
}

/// Has a thread take turns with all others of its core, as it does where nobody arranges anything. A process competes
/// with the kernel's threads as the one that its session or control group is, whatever the niceness of its threads: a
/// kernel's thread at -20 would have some ninety times a process's time.
///
/// # Errors
/// The thread is gone, or this is not root.
pub(crate) fn put_among_all(thread: u32) -> Result<()> {
    class(thread, libc::SCHED_OTHER, 0)?;
    nice(thread, 0)
}

fn class(thread: u32, policy: libc::c_int, priority: libc::c_int) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters outlive the call.
    if unsafe { libc::sched_setscheduler(thread.cast_signed(), policy, &raw const parameters) } != 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("the class of thread {thread}"));
    }
    Ok(())
}

/// The kernel's thread for what an interface receives.
///
/// # Errors
/// There is none, or several: the interface has one queue, and threaded NAPI.
pub(crate) fn receiver(interface: &str) -> Result<u32> {
    let prefix = format!("napi/{interface}-");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            found.push(pid);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        _ => bail!("{} threads are named {prefix}*, where there should be one", found.len()),
    }
}

/// All threads of a process.
///
/// # Errors
/// It is gone.
pub(crate) fn threads(process: u32) -> Result<Vec<u32>> {
    let directory = format!("/proc/{process}/task");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {directory}: has it ended?"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect())
}

/// A field of `/proc/N/stat` of a process or thread, by its number in proc(5), from 3 on: what is before is the name, and may
/// have spaces in it. None if it has ended.
#[must_use]
pub(crate) fn stat<T: FromStr>(thread: u32, field: usize) -> Option<T> {
    let line = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

/// The children of a process, theirs, and itself.
#[must_use]
pub(crate) fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        let path = PathBuf::from(format!("/proc/{parent}/task/{parent}/children"));
        let children = fs::read_to_string(path).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        next += 1;
    }
    all
}

/// All threads of a process and of those that it has begun.
///
/// # Errors
/// One of them is gone.
pub(crate) fn threads_of_family(process: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for pid in family(process) {
        all.extend(threads(pid)?);
    }
    Ok(all)
}

/// How long threads have run in all.
///
/// # Errors
/// One is gone.
pub(crate) fn run_time(threads: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in threads {
        // Nanoseconds on a core, nanoseconds waiting for one, turns (Documentation/scheduler/sched-stats.rst).
        let path = PathBuf::from(format!("/proc/{thread}/schedstat"));
        total += first_number(&path)?;
    }
    Ok(total)
}

fn first_number(path: &Path) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
    number.map(Duration::from_nanos).with_context(|| format!("{} says {text:?}", path.display()))
}
