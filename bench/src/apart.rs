//! Everything else of the machine, kept off the core that forwards for as long as a value lives: what an owner does who gives a
//! core to forwarding (`isolcpus`, control groups). It touches which cores other processes may have, so it is only done when it
//! is asked for, and what it changed it puts back.

use std::collections::HashMap;
use std::fs;

use anyhow::{Result, ensure};

use crate::cores::{self, Core};

/// Threads that come to be while the others are moved are found by looking again.
const LOOKS: usize = 3;

/// What was moved, and where it may be otherwise.
pub(crate) struct Apart {
    moved: HashMap<u32, libc::cpu_set_t>,
    /// All that there were.
    known: HashMap<u32, libc::cpu_set_t>,
}

impl Apart {
    /// Moves everything that may also be elsewhere. What is on a single core stays there: threads that were pinned, those of
    /// the contender and of the bench among them, and the kernel's own for each core.
    ///
    /// # Errors
    /// Nothing could be moved.
    pub(crate) fn keep() -> Result<Self> {
        let mut own = Self { moved: HashMap::new(), known: HashMap::new() };
        for _ in 0..LOOKS {
            for (_, thread) in all_threads() {
                let Some(cores) = allowed(thread) else { continue };
                own.known.entry(thread).or_insert(cores);
                // Not all of the kernel's threads let themselves be moved.
                if let Some(others) = without_forwarding(&cores)
                    && allow(thread, &others)
                {
                    own.moved.insert(thread, cores);
                }
            }
        }
        ensure!(
            !own.moved.is_empty(),
            "no thread of the machine could be moved off core {}",
            Core::FORWARDING.0
        );
        Ok(own)
    }

    /// How many threads were moved.
    pub(crate) fn count(&self) -> usize {
        self.moved.len()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for (process, thread) in all_threads() {
            let Some(now) = allowed(thread) else { continue };
            let is_new = !self.known.contains_key(&thread);
            // What was begun meanwhile by somebody who was moved, as a thread or as a process, is where he was.
            let begun_by = || [Some(process), parent(process)].into_iter().flatten().filter(|_| is_new);
            let before = self.moved.get(&thread).or_else(|| begun_by().find_map(|it| self.moved.get(&it)));
            // Whoever was given other cores meanwhile keeps them.
            if let Some(before) = before
                && without_forwarding(before).is_some_and(|others| same(&others, &now))
            {
                // It may have ended.
                let _ = allow(thread, before);
            }
        }
    }
}

/// Cores without the one that forwards; none if it is not among them, or the only one.
fn without_forwarding(cores: &libc::cpu_set_t) -> Option<libc::cpu_set_t> {
    let mut others = *cores;
    // SAFETY: the number is far below the set's size.
    unsafe {
        if !libc::CPU_ISSET(Core::FORWARDING.0, cores) || libc::CPU_COUNT(cores) < 2 {
            return None;
        }
        libc::CPU_CLR(Core::FORWARDING.0, &mut others);
    }
    Some(others)
}

fn same(a: &libc::cpu_set_t, b: &libc::cpu_set_t) -> bool {
    // SAFETY: both are sets of the same size.
    unsafe { libc::CPU_EQUAL(a, b) }
}

/// The cores that a thread may have; none if it has ended.
fn allowed(thread: u32) -> Option<libc::cpu_set_t> {
    // SAFETY: all zeros is an empty set of cores.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call, which writes no more than its size.
    let result = unsafe { libc::sched_getaffinity(thread.cast_signed(), size_of_val(&set), &raw mut set) };
    (result == 0).then_some(set)
}

/// Whether a thread now has these cores only.
fn allow(thread: u32, set: &libc::cpu_set_t) -> bool {
    // SAFETY: the set outlives the call.
    unsafe { libc::sched_setaffinity(thread.cast_signed(), size_of_val(set), set) == 0 }
}

/// Every thread, behind its process.
fn all_threads() -> Vec<(u32, u32)> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    // One that has ended meanwhile has no threads.
    let threads =
        |process| cores::threads(process).unwrap_or_default().into_iter().map(move |it| (process, it));
    numbers.flat_map(threads).collect()
}

/// Whose child a process is, see proc(5): the second field behind the name.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cores: &[usize]) -> libc::cpu_set_t {
        // SAFETY: all zeros is an empty set, and the numbers are far below its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            for core in cores {
                libc::CPU_SET(*core, &mut set);
            }
            set
        }
    }

    #[test]
    fn only_who_may_also_be_elsewhere_is_moved() {
        let (traffic, forwarding) = (Core::TRAFFIC.0, Core::FORWARDING.0);
        let rows: [(&[usize], Option<&[usize]>); 4] = [
            (&[traffic, forwarding], Some(&[traffic])),
            (&[traffic, forwarding, 5], Some(&[traffic, 5])),
            (&[forwarding], None),
            (&[traffic], None),
        ];
        for (cores, expected) in rows {
            let found = without_forwarding(&set(cores));
            assert_eq!(found.is_some(), expected.is_some(), "{cores:?}");
            if let Some((found, expected)) = found.zip(expected) {
                assert!(same(&found, &set(expected)), "{cores:?}");
            }
        }
    }

    #[test]
    fn processes_say_where_they_may_be_and_whose_children_they_are() {
        let own = std::process::id();
        assert!(allowed(own).is_some());
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert!(all_threads().contains(&(own, own)));
        assert!(allowed(u32::MAX >> 1).is_none());
    }
}
