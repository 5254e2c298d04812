//! Deadlines of many things at once: the earliest is known, each can be moved or withdrawn.
//!
//! The thing keeps its own deadline in a slot, so that setting a new one finds the old one: every operation is
//! O(log n), and nothing stale stays behind.

use std::{collections::BTreeSet, time::Instant};

/// A queue of deadlines, each for one key.
#[derive(Debug)]
pub struct Deadlines<K> {
    queue: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Sets, moves or withdraws the deadline of `key`, whose present one is in `slot`.
    pub fn set(&mut self, key: K, slot: &mut Option<Instant>, at: Option<Instant>) {
        if let Some(old) = slot.take() {
            self.queue.remove(&(old, key));
        }
        if let Some(at) = at {
            self.queue.insert((at, key));
            *slot = Some(at);
        }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline is past. Its slot is the caller's to clear.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let first = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.queue.remove(&first);
        Some(first.1)
    }

    /// How many deadlines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
