//! The media plane: media sessions decide, the datapath's engine does.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::quality::{Ledger, StreamFacts};
use crate::{
    datapath::{Engine, EngineError, FlowReport, PortError, RefusedSource, RtcpPacket, SocketUse},
    media::{Answer, FlowChange, MediaError, MediaRelay, Negotiated, Offer, Sessions},
    net::{Local, NetworkId, descriptors::Descriptors},
    quality::Book,
};

/// Media sessions and the engine that carries their flows.
pub(super) struct MediaPlane {
    pub(super) sessions: Sessions,
    engine: Arc<Engine>,
    /// Whose call each flow belongs to.
    owners: HashMap<Local, Arc<[u8]>>,
    /// Who was refused in the calls that had such sources, the newest last.
    refusals: VecDeque<(Arc<[u8]>, Vec<Refusal>)>,
    book: Book,
    /// Sessions in which something was negotiated, until somebody takes them.
    touched: Vec<Vec<u8>>,
    /// Taken with the state's lock held or without it, never the other way round.
    quality: Arc<Mutex<Ledger>>,
}

/// A source that a flow refused, as it is kept when the flow is gone.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) network: NetworkId,
    pub(super) local: SocketAddr,
    pub(super) refused: RefusedSource,
}

/// Calls whose refused sources are kept: as many as ended calls are.
const CALLS_WITH_REFUSALS: usize = 1000;
/// Refused sources that are kept of a call: those of all flows of one with audio.
const REFUSALS_PER_CALL: usize = 32;

impl MediaPlane {
    pub(super) fn new(sessions: Sessions, engine: Arc<Engine>, quality: Arc<Mutex<Ledger>>) -> Self {
        Self {
            sessions,
            engine,
            owners: HashMap::new(),
            refusals: VecDeque::new(),
            book: Book::default(),
            touched: Vec::new(),
            quality,
        }
    }

    /// The name of the call that the flow with this local address belongs to.
    pub(super) fn owner(&self, local: SocketAddr) -> Option<Arc<[u8]>> {
        self.owners.get(&local.into()).cloned()
    }

    /// Takes up the flows of calls of an earlier run, which the engine carries already.
    pub(super) fn take_up(&mut self, owners: Vec<(SocketAddr, Vec<u8>)>) {
        self.owners.extend(owners.into_iter().map(|(local, call)| (local.into(), call.into())));
    }

    /// The sources that the flows of a call refused which are gone.
    pub(super) fn refusals(&self, call: &[u8]) -> &[Refusal] {
        self.refusals.iter().rev().find(|(known, _)| **known == *call).map_or(&[], |(_, list)| list)
    }

    /// Keeps what a flow refused that has ended.
    fn keep_refusals(&mut self, flow: &FlowReport) {
        let Some(call) = self.owners.remove(&flow.spec.local.into()) else { return };
        if flow.refused.is_empty() {
            return;
        }
        if !self.refusals.iter().any(|(known, _)| *known == call) {
            if self.refusals.len() >= CALLS_WITH_REFUSALS {
                self.refusals.pop_front();
            }
            self.refusals.push_back((Arc::clone(&call), Vec::new()));
        }
        let Some((_, list)) = self.refusals.iter_mut().find(|(known, _)| *known == call) else { return };
        let more = flow.refused.iter().take(REFUSALS_PER_CALL.saturating_sub(list.len()));
        let (network, local) = (flow.spec.from, flow.spec.local);
        list.extend(more.map(|refused| Refusal { network, local, refused: refused.clone() }));
    }

    /// The sessions in which something was negotiated since this was asked last.
    pub(super) fn take_touched(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.touched)
    }

    /// The figures of all calls.
    pub(super) fn quality(&self) -> MutexGuard<'_, Ledger> {
        self.quality.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a call's streams besides their packets.
    pub(super) fn stream_facts(&self, call: &[u8]) -> Vec<StreamFacts> {
        StreamFacts::of(&self.sessions, &self.book, call)
    }

    /// Takes a copy of an RTCP packet, and gives the round-trip times that it tells.
    pub(super) fn rtcp(&mut self, packet: &RtcpPacket) -> Vec<Duration> {
        self.book.packet(packet.local, packet.pair, packet.arrived_ns, &packet.payload)
    }

    /// The calls whose media has been silent, and in which nothing was signalled, for the timeout.
    pub(super) fn silent(&self, now: Instant, monotonic_ns: u64) -> Vec<Vec<u8>> {
        let timeout = self.sessions.timeout().as_nanos() as u64;
        let silent = |local: &SocketAddr| {
            self.engine.report(*local).is_none_or(|report| {
                let forks = report.forks.iter().map(|fork| fork.stats.last_seen_ns);
                let last = forks.fold(report.stats.last_seen_ns, u64::max);
                monotonic_ns.saturating_sub(last) >= timeout
            })
        };
        self.sessions
            .quiet(now)
            .into_iter()
            .filter(|call| {
                let flows = self.sessions.query(call).map(|session| session.streams).unwrap_or_default();
                flows.iter().flat_map(|stream| &stream.flows).all(silent)
            })
            .collect()
    }

    /// When [`MediaPlane::reap`] has something to do next.
    pub(super) fn next_reap(&self) -> Option<Instant> {
        self.sessions.next_reap()
    }

    /// Removes the flows of calls that ended a moment ago.
    pub(super) fn reap(&mut self, now: Instant) {
        let changes = self.sessions.reap(now);
        // Removing cannot fail.
        let _ = self.carry(now, &[], changes);
    }

    /// Carries changes of a call's flows to the engine; all of them, even if one fails, whose error is returned.
    fn carry(&mut self, now: Instant, call: &[u8], changes: Vec<FlowChange>) -> Result<(), MediaError> {
        let mut result = Ok(());
        let call: Arc<[u8]> = call.into();
        for change in changes {
            match change {
                FlowChange::Install(spec) => {
                    let local = spec.local;
                    self.owners.insert(local.into(), Arc::clone(&call));
                    if let Err(error) = self.engine.install(now, spec) {
                        warn!(%error, %local, "a flow could not be installed");
                        result = Err(match error {
                            EngineError::Port { error: PortError::Descriptors(sockets), .. } => {
                                no_descriptors(sockets)
                            }
                            error => MediaError::Datapath(error.to_string()),
                        });
                    }
                }
                FlowChange::Remove(local) => {
                    self.book.forget(local);
                    let Some(flow) = self.engine.remove(now, local) else {
                        self.owners.remove(&local.into());
                        continue;
                    };
                    if flow.stats.packets() > 0 {
                        debug!(
                            %local,
                            kernel_packets = flow.stats.kernel_packets,
                            userspace_packets = flow.stats.relayed_packets,
                            lost = flow.stats.lost(),
                            "flow ended"
                        );
                    }
                    self.keep_refusals(&flow);
                }
            }
        }
        result
    }

    fn check_room(&self, changes: &[FlowChange]) -> Result<(), MediaError> {
        let locals = changes.iter().filter_map(|change| match change {
            FlowChange::Install(spec) => Some(spec.local),
            FlowChange::Remove(_) => None,
        });
        self.engine.check_room(locals).map_err(|sockets| {
            warn!(%sockets, "no descriptors for the media of a call, which is refused");
            no_descriptors(sockets)
        })
    }

    fn finish(
        &mut self,
        now: Instant,
        call: &[u8],
        known: bool,
        negotiated: Negotiated,
    ) -> Result<Vec<u8>, MediaError> {
        // A new call that there is no room for has no flow installed: its ports would rest with sockets.
        let room = if known { Ok(()) } else { self.check_room(&negotiated.changes) };
        let result = room.and_then(|()| self.carry(now, call, negotiated.changes));
        self.touched.push(call.to_vec());
        if let Err(error) = result {
            // A call that never had media does not keep half of it.
            if !known {
                self.delete(now, call);
            }
            return Err(error);
        }
        Ok(negotiated.sdp)
    }
}

fn no_descriptors(sockets: SocketUse) -> MediaError {
    let Descriptors { limit, kept } = sockets.descriptors;
    MediaError::NoDescriptors { used: sockets.used, most: sockets.descriptors.for_media(), limit, kept }
}

impl MediaRelay for MediaPlane {
    fn offer(&mut self, now: Instant, offer: &Offer<'_>) -> Result<Vec<u8>, MediaError> {
        let known = self.sessions.query(offer.call).is_some();
        let negotiated = self.sessions.offer(now, offer)?;
        self.finish(now, offer.call, known, negotiated)
    }

    fn answer(&mut self, now: Instant, answer: &Answer<'_>) -> Result<Vec<u8>, MediaError> {
        let negotiated = self.sessions.answer(now, answer)?;
        self.finish(now, answer.call, true, negotiated)
    }

    fn release(&mut self, now: Instant, call: &[u8], tag: &[u8]) {
        let changes = self.sessions.release(now, call, tag);
        // What is left was there before: `carry` has told of what could not be changed.
        let _ = self.carry(now, call, changes);
    }

    fn delete(&mut self, now: Instant, call: &[u8]) {
        let facts = self.stream_facts(call);
        if !facts.is_empty() {
            self.quality().end(now, &self.engine, call, facts);
        }
        self.sessions.delete(now, call);
    }
}
