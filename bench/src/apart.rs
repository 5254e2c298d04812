//! Everything else of the machine, kept off the core that forwards for as long as a value lives: what an owner does who gives a
//! core to forwarding (`isolcpus`, control groups). It touches which cores other processes may have, so it is only done when it
//! is asked for, and what it changed it puts back.

use std::collections::{HashMap, HashSet};
use std::fs;

use anyhow::{Result, ensure};
use nix::sched::CpuSet;

use crate::cores::{self, Core};

/// Whose child a process is, in `/proc/N/stat`.
const PARENT: usize = 4;
/// Threads that come to be while the others are moved are found by looking again.
const LOOKS: usize = 3;

/// What was moved, and where it may be otherwise.
pub(crate) struct Apart {
    moved: HashMap<u32, CpuSet>,
    /// All that there were.
    known: HashSet<u32>,
}

impl Apart {
    /// Moves everything that may also be elsewhere. What is on a single core stays there: threads that were pinned, those of
    /// the contender and of the bench among them, and the kernel's own for each core.
    ///
    /// # Errors
    /// Nothing could be moved.
    pub(crate) fn keep() -> Result<Self> {
        let mut own = Self { moved: HashMap::new(), known: HashSet::new() };
        for _ in 0..LOOKS {
            for (_, thread) in all_threads() {
                let Ok(cores) = cores::allowed(thread) else { continue };
                own.known.insert(thread);
                // Not all of the kernel's threads let themselves be moved.
                if let Some(others) = without_forwarding(&cores)
                    && cores::allow(thread, &others).is_ok()
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
            let Ok(now) = cores::allowed(thread) else { continue };
            // What was begun meanwhile by somebody who was moved, or by what he had begun, is where he was.
            let known = std::iter::once(thread).chain(ancestry(process)).find(|it| self.known.contains(it));
            let before = known.and_then(|known| self.moved.get(&known));
            // Whoever was given other cores meanwhile keeps them.
            if let Some(before) = before
                && without_forwarding(before).is_some_and(|others| others == now)
            {
                // It may have ended.
                let _ = cores::allow(thread, before);
            }
        }
    }
}

/// Cores without the one that forwards; none if it is not among them, or the only one.
fn without_forwarding(cores: &CpuSet) -> Option<CpuSet> {
    let mut others = *cores;
    others.unset(Core::FORWARDING.0).ok()?;
    (others != *cores && others != CpuSet::new()).then_some(others)
}

/// A process, the one that it is a child of, that one's, and so on.
fn ancestry(process: u32) -> impl Iterator<Item = u32> {
    /// Nobody's are deeper: they may change while they are followed.
    const DEEPEST: usize = 1000;
    std::iter::successors(Some(process), |process| cores::stat(*process, PARENT)).take(DEEPEST)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cores: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core).unwrap());
        set
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
            assert_eq!(without_forwarding(&set(cores)), expected.map(set), "{cores:?}");
        }
    }

    #[test]
    fn processes_say_where_they_may_be_and_whose_children_they_are() {
        let own = std::process::id();
        assert!(cores::allowed(own).is_ok());
        let parent = std::os::unix::process::parent_id();
        assert_eq!(ancestry(own).take(2).collect::<Vec<_>>(), [own, parent]);
        assert!(all_threads().contains(&(own, own)));
        assert!(cores::allowed(u32::MAX >> 1).is_err());
        assert_eq!(cores::stat::<u32>(u32::MAX >> 1, PARENT), None);
    }
}
