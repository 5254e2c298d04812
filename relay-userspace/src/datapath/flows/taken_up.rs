//! Flows of an earlier process: written to this one's tables as they stood, with the sources that they had learned.

use std::{collections::HashSet, net::SocketAddr, time::Instant};

use relay_ebpf::FlowStats;

use super::{
    super::{flow::StandingFlow, kernel::former::Former},
    Entry, FlowSpec, Flows, InstallError, Sender,
};

/// Flows that have learned a source and are remembered until somebody asks; of more nobody is told.
const MOST_LEARNED: usize = 100_000;

/// Whether the statistics are those of the process before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Statistics {
    /// They are: a flow counts on where it counted.
    Shared,
    /// They are new.
    Fresh,
}

impl Flows {
    /// Takes up flows of an earlier process, while there are no others. What the kernel has learned of them counts more
    /// than what was kept. Those that do not fit come out with the reason.
    pub(in super::super) fn take_up(
        &mut self,
        now: Instant,
        flows: Vec<StandingFlow>,
        former: &Former,
        statistics: Statistics,
    ) -> Vec<(SocketAddr, InstallError)> {
        let capacity = self.stats_slots.capacity();
        let (mut places, mut standing) = (HashSet::new(), Vec::with_capacity(flows.len()));
        for flow in flows {
            let known = former.flow(flow.spec.local);
            let place = known.map(|known| known.stats).filter(|place| {
                statistics == Statistics::Shared && *place < capacity && places.insert(*place)
            });
            let kept = flow.learned;
            let learned = known.and_then(|known| known.learned).map(|source| {
                let since = kept.filter(|(kept, _)| *kept == source).map_or(0, |(_, since)| since);
                (source, since)
            });
            standing.push((flow.spec, learned.or(kept), place));
        }
        self.stats_slots.reserve(now, &places);
        // Whoever gets one of the other places is not to be told whom the flow before had refused.
        if let Some(refused) = &mut self.kernel_refused {
            let all = refused.all();
            all.keys().filter(|place| !places.contains(place)).for_each(|place| refused.forget(*place));
        }
        let (mut refused, mut taken) = (Vec::new(), Vec::with_capacity(standing.len()));
        for (spec, learned, place) in standing {
            let local = spec.local;
            match self.take_up_one(now, spec, learned, place) {
                Ok(()) => taken.push(local),
                Err(error) => refused.push((local, error)),
            }
        }
        // Only now: where the packets of one go depends on what others have learned.
        for local in taken {
            self.publish_chain(now, local);
        }
        refused
    }

    fn take_up_one(
        &mut self,
        now: Instant,
        spec: FlowSpec,
        learned: Option<(SocketAddr, u64)>,
        place: Option<u32>,
    ) -> Result<(), InstallError> {
        let local = spec.local;
        if let Some(kernel) = &self.kernel {
            kernel.place(local).ok_or(InstallError::NotLocal { address: local })?;
        }
        let stats = match place {
            Some(place) => place,
            None => {
                let full = InstallError::Full { capacity: self.stats_slots.capacity() };
                let place = self.stats_slots.take_early(now).ok_or(full)?;
                self.stats.write(place, FlowStats::ZERO);
                place
            }
        };
        let sender = Sender { stats, learned, previous: None };
        self.owners.set(stats, local);
        self.apart += usize::from(spec.rtcp.is_some());
        self.count_checks(false, spec.ice.is_some());
        let own = FlowSpec { forks: Vec::new(), ..spec.clone() };
        self.paths.enter(local);
        self.towards.meet(local, &own);
        self.entries.insert(Entry::new(own, sender, Box::default()));
        let result = self.take_senders(now, spec);
        if result.is_err() {
            self.remove(now, local);
        }
        result
    }

    /// Remembers that a flow has learned a source.
    pub(super) fn note_learned(&mut self, local: SocketAddr) {
        if self.learned.len() < MOST_LEARNED {
            self.learned.push(local);
        }
    }

    /// The flows that have learned a source since this was asked last.
    pub(in super::super) fn take_learned(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.learned)
    }

    /// The source that a flow has learned, and when, in milliseconds since 1970.
    pub(in super::super) fn learned(&self, local: SocketAddr) -> Option<(SocketAddr, u64)> {
        self.entries.get(&local)?.sender.learned
    }
}
