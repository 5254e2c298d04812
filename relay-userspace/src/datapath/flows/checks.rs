//! ICE at the flows' ports: checks that prove a source, and the one that is nominated.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use relay_ebpf::{guard::Rate, rtp::Payload};

use super::{
    super::{
        ice::{self, Check, IceAtPort},
        paths::{Arrival, Departure, Exit},
    },
    Flows,
};

impl Flows {
    /// Answers a connectivity check into `out`, and learns the source that it nominates. `None` for what is no check of
    /// this flow's, or comes from elsewhere after a source was learned: only new signalling opens learning again.
    pub(in super::super) fn check(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Departure> {
        let entry = self.entries.get_mut(&arrival.local)?;
        let own = entry.spec.ice.clone()?;
        let learned = entry.sender.learned.map(|(source, _)| source);
        if learned.is_some_and(|source| source != arrival.source) {
            return None;
        }
        let check = ice::answer(arrival.payload, arrival.source, &own.own, out)?;
        // Only what is the party's own takes of what the stream may have.
        let rate = Rate::of_stream(self.packet_interval_ns);
        let admits = self.paths.live(arrival.local, |live| rate.admits(&mut live.rate, arrival.monotonic_ns));
        if admits != Some(true) {
            return None;
        }
        // Parties of a forked call share a port, and are told apart by where they said they send from.
        if check == Check::Nominate && learned.is_none() && entry.forks().is_empty() {
            entry.sender.learned = Some((arrival.source, arrival.unix_ms));
            self.note_learned(arrival.local);
            self.publish_with_pair(now, arrival.local);
            self.renew_towards(arrival.local);
        }
        let entry = self.entries.get(&arrival.local)?;
        // Marked as the media is that goes there.
        let dscp = self.entries.get(&entry.spec.out_source).and_then(|pair| pair.spec.dscp);
        let exit = Exit { source: arrival.local, destination: Some(arrival.source), dscp };
        let unmarked = Arrival { type_of_service: 0, ..*arrival };
        exit.take(&unmarked, Payload::Stun, entry.sender.stats).ok()
    }

    /// A flow is checked from now on, or no longer.
    pub(super) fn count_checks(&mut self, before: bool, after: bool) {
        self.checked = self.checked + usize::from(after) - usize::from(before);
        self.paths.set_checks(self.checked);
    }

    /// Whether a party that is checked by ICE begins anew: with other credentials it may come from elsewhere.
    pub(super) fn restarts(&self, local: SocketAddr, ice: Option<&IceAtPort>) -> bool {
        let own = |ice: &IceAtPort| Arc::clone(&ice.own);
        self.entries.get(&local).is_some_and(|entry| entry.spec.ice.as_ref().map(own) != ice.map(own))
    }
}
