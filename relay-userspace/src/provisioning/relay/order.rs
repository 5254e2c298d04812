//! Which server is asked first: the last one that worked, then in the configured order.

use std::time::{Duration, Instant};

/// A server that could not be reached is asked last for so long, and not at all where there is another answer.
const HOLD_OFF: Duration = Duration::from_secs(5);

/// What is known of the servers.
#[derive(Debug)]
pub(super) struct Order {
    last_good: usize,
    failed: Vec<Option<Instant>>,
}

impl Order {
    /// Nothing is known of so many servers.
    pub(super) fn new(servers: usize) -> Self {
        Self { last_good: 0, failed: vec![None; servers] }
    }

    fn held_off(&self, now: Instant, server: usize) -> bool {
        let failed = self.failed.get(server).copied().flatten();
        failed.is_some_and(|at| now.saturating_duration_since(at) < HOLD_OFF)
    }

    /// All servers, in the order in which they are to be asked.
    pub(super) fn candidates(&self, now: Instant) -> Vec<usize> {
        let mut candidates: Vec<usize> = (0..self.failed.len()).collect();
        candidates.sort_by_key(|server| (self.held_off(now, *server), *server != self.last_good));
        candidates
    }

    /// Whether all of them have just failed.
    pub(super) fn all_failed(&self, now: Instant) -> bool {
        (0..self.failed.len()).all(|server| self.held_off(now, server))
    }

    /// A server answered.
    pub(super) fn worked(&mut self, server: usize) {
        self.last_good = server;
        if let Some(failed) = self.failed.get_mut(server) {
            *failed = None;
        }
    }

    /// A server did not.
    pub(super) fn failed(&mut self, now: Instant, server: usize) {
        if let Some(failed) = self.failed.get_mut(server) {
            *failed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_server_is_first_and_those_that_failed_are_last_for_a_while() {
        let (mut order, start) = (Order::new(3), Instant::now());
        assert_eq!(order.candidates(start), [0, 1, 2]);
        order.failed(start, 0);
        assert_eq!(order.candidates(start), [1, 2, 0]);
        order.worked(1);
        assert_eq!(order.candidates(start + HOLD_OFF), [1, 0, 2]);
        let later = start + HOLD_OFF;
        order.failed(later, 1);
        order.failed(later, 2);
        assert!(!order.all_failed(later));
        order.failed(later, 0);
        assert!(order.all_failed(later));
        assert_eq!(order.candidates(later), [1, 0, 2]);
        order.worked(2);
        assert!(!order.all_failed(later));
        // The last good one was replaced; of the others the configured order holds.
        assert_eq!(order.candidates(later), [2, 0, 1]);
    }
}
