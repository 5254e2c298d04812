//! Who sends to a flow: its one sender, or the branches of a forked call, told apart by their source.

use std::{net::SocketAddr, time::Instant};

use relay_ebpf::{FlowStats, Reason};

use super::{Entry, FlowSpec, Flows, Fork, InstallError};
use crate::net::{Latching, Local, NetworkId};

/// What is known of a sender.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    /// Where its packets are counted.
    pub(super) stats: u32,
    /// The source that was learned, and when, in milliseconds since 1970.
    pub(super) learned: Option<(SocketAddr, u64)>,
    /// The source before signalling opened learning again; in a place of its own, for few have one.
    pub(super) previous: Option<Box<SocketAddr>>,
}

/// Whose statistics stand where. By their place, for places are handed out from the first on: an entry of a hash table
/// would be twice as long.
#[derive(Debug, Default)]
pub(super) struct Owners(Vec<Option<Local>>);

impl Owners {
    pub(super) fn set(&mut self, place: u32, flow: SocketAddr) {
        let place = place as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(flow.into());
    }

    pub(super) fn clear(&mut self, place: u32) {
        if let Some(owner) = self.0.get_mut(place as usize) {
            *owner = None;
        }
    }

    pub(super) fn get(&self, place: u32) -> Option<SocketAddr> {
        self.0.get(place as usize).copied().flatten().map(SocketAddr::from)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Which of a flow's senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The flow's own.
    Own,
    /// One of its forks.
    Fork(usize),
}

impl Entry {
    /// Whose packet this is by its source.
    ///
    /// # Errors
    /// The reason why it is nobody's.
    pub(super) fn who(&self, source: SocketAddr) -> Result<Who, Reason> {
        let is_learned = |sender: &Sender| sender.learned.is_some_and(|(learned, _)| learned == source);
        if is_learned(&self.sender) {
            return Ok(Who::Own);
        }
        let open: Vec<(Who, Option<SocketAddr>)> = [(Who::Own, &self.sender, self.spec.signalled)]
            .into_iter()
            .chain(
                self.forks()
                    .iter()
                    .zip(&self.spec.forks)
                    .enumerate()
                    .map(|(index, (sender, fork))| (Who::Fork(index), sender, fork.signalled)),
            )
            .filter(|(_, sender, _)| sender.learned.is_none())
            .map(|(who, _, signalled)| (who, signalled))
            .collect();
        // Branches behind one server may have announced the same address: the one that answered last is heard.
        let exact = open.iter().find(|(_, signalled)| *signalled == Some(source));
        if let Some((Who::Own, _)) = exact {
            return Ok(Who::Own);
        }
        if let Some(index) = self.forks().iter().position(is_learned) {
            return Ok(Who::Fork(index));
        }
        let allowed =
            |(_, signalled): &&(Who, Option<SocketAddr>)| allowed(self.spec.latching, *signalled, source);
        match exact.filter(allowed).or_else(|| open.iter().find(allowed)) {
            Some((who, _)) => Ok(*who),
            None if self.sender.learned.is_some() => Err(Reason::WrongSource),
            None => Err(Reason::SourceRefused),
        }
    }

    /// A sender and what signalling says of it.
    pub(super) fn of(&mut self, who: Who) -> Option<(&mut Sender, Fork)> {
        match who {
            Who::Own => Some((&mut self.sender, self.spec.party())),
            Who::Fork(index) => {
                Some((self.further.as_mut()?.forks.get_mut(index)?, self.spec.forks.get(index)?.clone()))
            }
        }
    }
}

/// Whether policy lets this source be learned.
fn allowed(latching: Latching, signalled: Option<SocketAddr>, source: SocketAddr) -> bool {
    match (latching, signalled) {
        (Latching::Any, _) => true,
        (Latching::Signalled, Some(signalled)) => source == signalled,
        (Latching::SameAddress, Some(signalled)) => source.ip() == signalled.ip(),
        (Latching::Signalled | Latching::SameAddress, None) => false,
    }
}

impl Flows {
    /// Makes an entry of a specification: each of its senders is one that was there, if it was, and else a new one.
    ///
    /// # Errors
    /// If there is no room, and nothing has changed.
    pub(super) fn take_senders(&mut self, now: Instant, spec: FlowSpec) -> Result<(), InstallError> {
        let local = spec.local;
        let known = self.entries.get(&local);
        let full = InstallError::Full { capacity: self.stats_slots.capacity() };
        // Multiplexed RTCP takes a record of its own in the kernel's table.
        let apart = |spec: &FlowSpec| usize::from(spec.rtcp.is_some());
        let records = self.entries.len() + self.apart + usize::from(known.is_none()) + apart(&spec)
            - known.map_or(0, |entry| apart(&entry.spec));
        if records > self.stats_slots.capacity() as usize {
            return Err(full);
        }
        let relearn = known.is_some_and(|entry| entry.spec.latching != spec.latching)
            || self.restarts(local, spec.ice.as_ref());
        let checked = (known.is_some_and(|entry| entry.spec.ice.is_some()), spec.ice.is_some());
        let mut before: Vec<(Fork, Sender)> = known.map_or_else(Vec::new, |entry| {
            let forks = entry.spec.forks.iter().cloned().zip(entry.forks().iter().cloned());
            std::iter::once((entry.spec.party(), entry.sender.clone())).chain(forks).collect()
        });
        let own = known.map(|entry| entry.sender.stats);

        let wanted: Vec<Fork> = std::iter::once(spec.party()).chain(spec.forks.iter().cloned()).collect();
        let mut senders: Vec<Option<Sender>> = wanted
            .iter()
            .map(|fork| {
                let place = before.iter().position(|(known, _)| known.out_source == fork.out_source)?;
                let (known, sender) = before.remove(place);
                Some(sender.after(&known, fork, relearn))
            })
            .collect();
        // A sender that multiplexes from now on, or no longer, sends by another way and is the same.
        if let (Some(first @ None), Some(fork)) = (senders.first_mut(), wanted.first())
            && let Some(place) = before.iter().position(|(_, sender)| Some(sender.stats) == own)
        {
            let (known, sender) = before.remove(place);
            *first = Some(sender.after(&known, fork, relearn));
        }
        let mut fresh = Vec::new();
        for place in senders.iter_mut().filter(|sender| sender.is_none()) {
            let Some(stats) = self.stats_slots.take(now) else {
                fresh.into_iter().for_each(|stats| self.stats_slots.give_back(now, stats));
                return Err(full);
            };
            fresh.push(stats);
            *place = Some(Sender { stats, learned: None, previous: None });
        }
        for stats in fresh {
            self.stats.write(stats, FlowStats::ZERO);
            self.owners.set(stats, local);
        }
        for (_, sender) in before {
            self.dismiss(now, spec.from, &sender);
        }
        self.apart = records - self.entries.len() - usize::from(!self.entries.contains_key(&local));
        let mut senders = senders.into_iter().flatten();
        let Some(sender) = senders.next() else { return Err(full) };
        let forks = senders.collect();
        if let Some(entry) = self.entries.get(&local) {
            self.towards.part(local, &entry.spec);
        }
        self.towards.meet(local, &spec);
        self.count_checks(checked.0, checked.1);
        match self.entries.get_mut(&local) {
            Some(entry) => {
                (entry.spec, entry.sender) = (spec, sender);
                entry.set_forks(forks);
            }
            None => self.entries.insert(Entry::new(spec, sender, forks)),
        }
        Ok(())
    }

    /// A sender is gone: what it counted is kept, and its place given to another.
    pub(super) fn dismiss(&mut self, now: Instant, network: NetworkId, sender: &Sender) {
        let stats = self.stats.read(sender.stats);
        self.ended.entry(network).or_default().add(&stats);
        self.owners.clear(sender.stats);
        self.stats_slots.give_back(now, sender.stats);
    }
}

impl Sender {
    /// What is still known of it after signalling has changed it.
    fn after(mut self, known: &Fork, now: &Fork, relearn: bool) -> Self {
        // A hold by a zero address names no source, and is no reason to cut off the music that
        // comes from the one that was learned; the address that ends the hold is learned anew.
        let moved = now.signalled.is_some() && known.signalled != now.signalled;
        if moved || relearn {
            (self.learned, self.previous) = (None, None);
        } else if known.turns != now.turns {
            // Until the sender is heard again, the other party's packets go where it was last heard.
            if let Some((source, _)) = self.learned.take() {
                self.previous = Some(Box::new(source));
            }
        }
        self
    }
}
