//! What is known of each flow, and where it is found: by its local address.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
};

use hashbrown::{HashTable, hash_table};

use super::{FlowSpec, Published, UserspaceOr, joined::Joined, party::Sender};

/// What is known of a flow.
pub(super) struct Entry {
    pub(super) spec: FlowSpec,
    pub(super) carrier: UserspaceOr,
    pub(super) sender: Sender,
    pub(super) published: Option<Published>,
    /// What few flows have, in a place of its own; none where there is nothing of it.
    pub(super) further: Option<Box<Further>>,
}

/// A call has four, so each byte counts: this is what the allocator rounds to, and one more is 64 more.
const _: () = assert!(size_of::<Entry>() <= 320);

/// What an entry has of a call that was forked, or that a server leads back to the office.
#[derive(Default)]
pub(super) struct Further {
    /// In the order of the specification's forks.
    pub(super) forks: Box<[Sender]>,
    /// The further legs that the kernel takes its packets through.
    pub(super) through: Box<[SocketAddr]>,
    /// With what it is joined.
    pub(super) joined: Option<Joined>,
}

impl Entry {
    pub(super) fn new(spec: FlowSpec, sender: Sender, forks: Box<[Sender]>) -> Self {
        let carrier = UserspaceOr::Learning;
        let mut entry = Self { spec, carrier, sender, published: None, further: None };
        entry.set_forks(forks);
        entry
    }

    pub(super) fn forks(&self) -> &[Sender] {
        self.further.as_ref().map_or(&[], |further| &further.forks)
    }

    pub(super) fn set_forks(&mut self, forks: Box<[Sender]>) {
        self.change(forks.is_empty(), |further| further.forks = forks);
    }

    pub(super) fn through(&self) -> &[SocketAddr] {
        self.further.as_ref().map_or(&[], |further| &further.through)
    }

    pub(super) fn set_through(&mut self, through: &[SocketAddr]) {
        self.change(through.is_empty(), |further| further.through = through.into());
    }

    pub(super) fn joined(&self) -> Option<&Joined> {
        self.further.as_ref()?.joined.as_ref()
    }

    pub(super) fn set_joined(&mut self, joined: Option<Joined>) {
        self.change(joined.is_none(), |further| further.joined = joined);
    }

    /// Makes a place for it if there is none and anything to put there, and gives it up when nothing is left.
    fn change(&mut self, to_nothing: bool, change: impl FnOnce(&mut Further)) {
        if to_nothing && self.further.is_none() {
            return;
        }
        let further = self.further.get_or_insert_default();
        change(further);
        if further.forks.is_empty() && further.through.is_empty() && further.joined.is_none() {
            self.further = None;
        }
    }
}

/// All flows' entries, each in a place of its own, for the table is up to half empty; and without keys beside them, for an
/// entry knows its address itself. Invariant: an entry's local address never changes.
#[derive(Default)]
pub(super) struct Entries {
    table: HashTable<Box<Entry>>,
    hasher: RandomState,
}

impl Entries {
    pub(super) fn get(&self, local: &SocketAddr) -> Option<&Entry> {
        let hash = self.hasher.hash_one(local);
        self.table.find(hash, |entry| entry.spec.local == *local).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, local: &SocketAddr) -> Option<&mut Entry> {
        let hash = self.hasher.hash_one(local);
        self.table.find_mut(hash, |entry| entry.spec.local == *local).map(Box::as_mut)
    }

    pub(super) fn contains_key(&self, local: &SocketAddr) -> bool {
        self.get(local).is_some()
    }

    /// Takes an entry in, in place of the one of its address.
    pub(super) fn insert(&mut self, entry: Entry) {
        let Self { table, hasher } = self;
        let local = entry.spec.local;
        let place = table.entry(
            hasher.hash_one(local),
            |known| known.spec.local == local,
            |known| hasher.hash_one(known.spec.local),
        );
        match place {
            hash_table::Entry::Occupied(mut known) => **known.get_mut() = entry,
            hash_table::Entry::Vacant(free) => {
                free.insert(Box::new(entry));
            }
        }
    }

    pub(super) fn remove(&mut self, local: &SocketAddr) -> Option<Entry> {
        let hash = self.hasher.hash_one(local);
        let found = self.table.find_entry(hash, |entry| entry.spec.local == *local).ok()?;
        Some(*found.remove().0)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter().map(Box::as_ref)
    }

    /// Where they are.
    pub(super) fn locals(&self) -> impl Iterator<Item = SocketAddr> {
        self.values().map(|entry| entry.spec.local)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
