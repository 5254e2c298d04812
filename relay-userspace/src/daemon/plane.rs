//! The media plane: media sessions decide, the datapath's engine does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::quality::{Ledger, StreamFacts};
use crate::{
    datapath::{Engine, RtcpPacket},
    media::{Answer, FlowChange, MediaError, MediaRelay, Negotiated, Offer, Sessions},
    quality::Book,
};

/// Media sessions and the engine that carries their flows.
pub(super) struct MediaPlane {
    pub(super) sessions: Sessions,
    engine: Arc<Engine>,
    book: Book,
    /// Sessions in which something was negotiated, until somebody takes them.
    touched: Vec<Vec<u8>>,
    /// Taken with the state's lock held or without it, never the other way round.
    quality: Arc<Mutex<Ledger>>,
}

impl MediaPlane {
    pub(super) fn new(sessions: Sessions, engine: Arc<Engine>, quality: Arc<Mutex<Ledger>>) -> Self {
        Self { sessions, engine, book: Book::default(), touched: Vec::new(), quality }
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
        let silent = |local: &std::net::SocketAddr| {
            self.engine
                .report(*local)
                .is_none_or(|report| monotonic_ns.saturating_sub(report.stats.last_seen_ns) >= timeout)
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
        let _ = self.carry(now, changes);
    }

    /// Carries changes to the engine; all of them, even if one fails, whose error is returned.
    fn carry(&mut self, now: Instant, changes: Vec<FlowChange>) -> Result<(), MediaError> {
        let mut result = Ok(());
        for change in changes {
            match change {
                FlowChange::Install(spec) => {
                    let local = spec.local;
                    if let Err(error) = self.engine.install(now, spec) {
                        warn!(%error, %local, "a flow could not be installed");
                        result = Err(MediaError::Datapath(error.to_string()));
                    }
                }
                FlowChange::Remove(local) => {
                    self.book.forget(local);
                    if let Some(flow) = self.engine.remove(now, local)
                        && flow.stats.packets() > 0
                    {
                        debug!(
                            %local,
                            kernel_packets = flow.stats.kernel_packets,
                            userspace_packets = flow.stats.relayed_packets,
                            lost = flow.stats.lost(),
                            "flow ended"
                        );
                    }
                }
            }
        }
        result
    }

    fn finish(
        &mut self,
        now: Instant,
        call: &[u8],
        known: bool,
        negotiated: Negotiated,
    ) -> Result<Vec<u8>, MediaError> {
        let result = self.carry(now, negotiated.changes);
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

    fn delete(&mut self, now: Instant, call: &[u8]) {
        let facts = self.stream_facts(call);
        if !facts.is_empty() {
            self.quality().end(now, &self.engine, call, facts);
        }
        self.sessions.delete(now, call);
    }
}
