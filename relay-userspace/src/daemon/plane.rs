//! The media plane: media sessions decide, the datapath's engine does.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    datapath::{Engine, RtcpPacket},
    media::{Answer, FlowChange, MediaError, MediaRelay, Negotiated, Offer, RoundTrips, Sessions},
};

/// Media sessions and the engine that carries their flows.
pub(super) struct MediaPlane {
    pub(super) sessions: Sessions,
    engine: Arc<Engine>,
    round_trips: RoundTrips,
    /// The last round-trip time between the appliance and the sender of a flow's RTCP.
    last_times: HashMap<SocketAddr, Duration>,
}

impl MediaPlane {
    pub(super) fn new(sessions: Sessions, engine: Arc<Engine>) -> Self {
        Self { sessions, engine, round_trips: RoundTrips::default(), last_times: HashMap::new() }
    }

    /// Takes a copy of an RTCP packet, and gives the round-trip times that it tells.
    pub(super) fn rtcp(&mut self, packet: &RtcpPacket) -> Vec<Duration> {
        let times = self.round_trips.packet(packet.local, packet.pair, packet.arrived_ns, &packet.payload);
        if let Some(time) = times.last() {
            self.last_times.insert(packet.local, *time);
        }
        times
    }

    /// The last round-trip time between the appliance and who sends RTCP to this local end.
    pub(super) fn round_trip(&self, local: SocketAddr) -> Option<Duration> {
        self.last_times.get(&local).copied()
    }

    /// The calls whose media has been silent, and in which nothing was signalled, for the timeout.
    pub(super) fn silent(&self, now: Instant, monotonic_ns: u64) -> Vec<Vec<u8>> {
        let timeout = self.sessions.timeout().as_nanos() as u64;
        let silent = |local: &SocketAddr| {
            self.engine
                .report(*local)
                .is_none_or(|report| {
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
                    self.round_trips.forget(local);
                    self.last_times.remove(&local);
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

    fn release(&mut self, now: Instant, call: &[u8], tag: &[u8]) {
        let changes = self.sessions.release(now, call, tag);
        // What is left was there before: `carry` has told of what could not be changed.
        let _ = self.carry(now, changes);
    }

    fn delete(&mut self, now: Instant, call: &[u8]) {
        self.sessions.delete(now, call);
    }
}
