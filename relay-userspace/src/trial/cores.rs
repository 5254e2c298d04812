//! Which core does what, and how long threads have run: the scheduler's own accounting.
#![expect(unsafe_code, reason = "no library sets a thread's class and priority")]

use std::{fs, io, path::Path, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Who is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    /// Where packets are made.
    pub generator: usize,
    /// Where they are forwarded: what is measured.
    pub forwarding: usize,
    /// Where they are counted.
    pub sink: usize,
    /// Cores that this process may use.
    pub count: usize,
}

impl Cores {
    /// The first cores that this process may use; none if there is only one.
    pub(super) fn find() -> io::Result<Option<Self>> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cores: Vec<usize> =
            (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        Ok(Self::among(&cores))
    }

    fn among(cores: &[usize]) -> Option<Self> {
        let (&generator, &forwarding) = (cores.first()?, cores.get(1)?);
        Some(Self { generator, forwarding, sink: *cores.get(2).unwrap_or(&generator), count: cores.len() })
    }
}

/// Keeps a thread on a core; 0 is the calling one.
pub(super) fn pin(thread: u32, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(thread.cast_signed()), &set)?)
}

/// Puts a thread before all that are not of this kind: it runs as soon as it has something to do. Only for one that is
/// done with it soon, and always.
pub(super) fn put_before_all(thread: u32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call.
    let result =
        unsafe { libc::sched_setscheduler(thread.cast_signed(), libc::SCHED_FIFO, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a thread before all others of its core that are of the usual kind; 0 is the calling one.
pub(super) fn put_first(thread: u32) -> io::Result<()> {
    const FIRST: libc::c_int = -20;
    // SAFETY: a system call of numbers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, FIRST) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's threads for what an interface receives, one for each queue.
pub(super) fn receivers(interface: &str) -> io::Result<Vec<u32>> {
    /// What a thread's name has room for.
    const NAME: usize = 15;
    let mut prefix = format!("napi/{interface}-");
    prefix.truncate(NAME);
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// How long threads have run in all.
pub(super) fn run_time(threads: &[u32]) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in threads {
        // Nanoseconds on a core, nanoseconds waiting for one, turns (Documentation/scheduler/sched-stats.rst).
        let path = format!("/proc/{thread}/schedstat");
        let text = fs::read_to_string(Path::new(&path))?;
        let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
        total += number
            .map(Duration::from_nanos)
            .ok_or_else(|| io::Error::other(format!("{path} says {text:?}")))?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_needed_and_a_third_takes_the_sink() {
        for (cores, expected) in [
            (&[][..], None),
            (&[4][..], None),
            (&[1, 5][..], Some((1, 5, 1, 2))),
            (&[0, 1, 2, 3][..], Some((0, 1, 2, 4))),
        ] {
            let found = Cores::among(cores);
            let found = found.map(|cores| (cores.generator, cores.forwarding, cores.sink, cores.count));
            assert_eq!(found, expected, "{cores:?}");
        }
    }

    #[test]
    fn this_thread_has_run() {
        assert!(run_time(&[std::process::id()]).unwrap() > Duration::ZERO);
    }
}
