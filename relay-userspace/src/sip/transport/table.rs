//! The connections there are, by their names; and the addresses that are reached by others than their own.
//!
//! Invariant: an address is reached by a connection only as long as that is in the table.

use std::{collections::HashMap, net::IpAddr};

use super::{
    queue::Queue,
    streams::{Direction, Limits},
};
use crate::sip::Hop;

/// Addresses that are reached by connections which their peers have made: some for each server.
pub(super) const MOST_REUSED: usize = 256;

pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) direction: Direction,
    pub(super) queue: Queue,
    /// Who its peer has proved to be by a certificate, where it has made the connection.
    pub(super) proved: Vec<String>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) entries: HashMap<Hop, Entry>,
    /// Addresses whose peers have made the connection themselves by which they are reached.
    pub(super) reused: HashMap<Hop, Hop>,
    /// Those that peers made, by address, and in all.
    by_source: HashMap<IpAddr, usize>,
    accepted: usize,
    next_id: u64,
}

impl Table {
    pub(super) fn has_room(&self, hop: Hop, direction: Direction, limits: Limits) -> bool {
        match direction {
            Direction::Connected => self.entries.len() - self.accepted < limits.connected,
            Direction::Accepted => {
                let held = self.by_source.get(&hop.address.ip()).copied().unwrap_or(0);
                self.accepted < limits.accepted && held < limits.per_source
            }
        }
    }

    pub(super) fn insert(&mut self, hop: Hop, direction: Direction, queue: Queue) -> u64 {
        // A peer that uses its port again before the end of its last connection was noticed.
        self.remove(hop);
        self.next_id += 1;
        self.entries.insert(hop, Entry { id: self.next_id, direction, queue, proved: Vec::new() });
        if direction == Direction::Accepted {
            self.accepted += 1;
            *self.by_source.entry(hop.address.ip()).or_default() += 1;
        }
        self.next_id
    }

    /// Takes a connection out; the addresses that were reached by it are reached anew from now on.
    pub(super) fn remove(&mut self, hop: Hop) -> Vec<Hop> {
        let Some(entry) = self.entries.remove(&hop) else { return Vec::new() };
        let targets: Vec<Hop> =
            self.reused.extract_if(|_, by| *by == hop).map(|(target, _)| target).collect();
        if entry.direction == Direction::Accepted {
            self.accepted -= 1;
            let source = hop.address.ip();
            if let Some(held) = self.by_source.get_mut(&source) {
                *held -= 1;
                if *held == 0 {
                    self.by_source.remove(&source);
                }
            }
        }
        targets
    }
}
