//! Legs of a call in this host that the kernel takes a packet through in one pass.
//!
//! When a server leads a call back to the office, a packet of the first leg goes to an address of the appliance's own,
//! where the second leg's flow is. What XDP sent there would leave on the wire; so the record of the flow at which it
//! arrives says where the last leg sends it. The invariant: a flow is joined only with one that the kernel forwards, and
//! only while every leg on the way would let the packet through as it is.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use relay_ebpf::FlowStats;

use super::{Entry, FlowSpec, Flows, RtcpWay};

/// Legs of a call that are joined behind the first; a call that is led back more often goes through userspace.
const MAX_JOINED: usize = 3;

/// The leg that carries this one's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// The flow at which they arrive.
    pub(super) with: SocketAddr,
    /// Its statistics when they were joined.
    since: FlowStats,
}

/// How packets leave, after all legs of the call in this host.
#[derive(Debug, Clone, Default)]
pub(super) struct Onward {
    /// The further flows that they pass, in order.
    pub(super) through: Vec<SocketAddr>,
    /// The last of them; the flow itself where there is none.
    pub(super) last: Option<FlowSpec>,
    /// Where they go.
    pub(super) destination: Option<SocketAddr>,
}

impl Flows {
    /// Writes a flow, and those whose packets come to it from other legs in this host.
    pub(super) fn publish_chain(&mut self, now: Instant, local: SocketAddr) {
        let mut next = Some(local);
        for _ in 0..=MAX_JOINED {
            let Some(local) = next else { return };
            self.publish(now, local);
            next = self.before(local);
        }
    }

    /// The flow of this host whose packets come to this one.
    pub(super) fn before(&self, local: SocketAddr) -> Option<SocketAddr> {
        let entry = self.entries.get(&local)?;
        if let Some(joined) = entry.joined() {
            return Some(joined.with);
        }
        let heard = entry.sender.learned.map(|(source, _)| source).or(entry.spec.signalled)?;
        let before = self.entries.get(&heard)?.spec.out_source;
        (before != local && self.entries.contains_key(&before)).then_some(before)
    }

    /// How packets that a flow has let in leave: through which other legs in this host, and where to. Nowhere, if one
    /// of these would not let them through as they are.
    pub(super) fn onward(&self, local: SocketAddr) -> Onward {
        let mut onward = Onward { destination: self.destination(local), ..Onward::default() };
        let Some(first) = self.entries.get(&local) else { return onward };
        let mut leaves_from = first.spec.out_source;
        let (mut dscp, mut rtcp_dscp) = (first.spec.dscp, first.spec.rtcp.as_ref().and_then(|way| way.dscp));
        while let Some(next) = onward.destination.filter(|to| self.is_own(*to)) {
            onward.destination = None;
            let fits = |entry: &&Entry| {
                entry.spec.kind == first.spec.kind
                    && entry.spec.srtp.is_none()
                    && entry.spec.rtcp.is_some() == first.spec.rtcp.is_some()
                    && is_one_way(&entry.spec)
                    && entry.sender.learned.is_some_and(|(source, _)| source == leaves_from)
                    && !self.taps.contains_key(&next)
                    && !self.is_forced([entry.spec.signalled, entry.spec.destination])
            };
            let Some(entry) = self.entries.get(&next).filter(fits).filter(|_| is_one_way(&first.spec)) else {
                return onward;
            };
            if next == local || onward.through.contains(&next) || onward.through.len() == MAX_JOINED {
                return onward;
            }
            dscp = entry.spec.dscp.or(dscp);
            rtcp_dscp = entry.spec.rtcp.as_ref().and_then(|way| way.dscp).or(rtcp_dscp);
            let rtcp = entry.spec.rtcp.as_ref().map(|way| Arc::new(RtcpWay { dscp: rtcp_dscp, ..**way }));
            leaves_from = entry.spec.out_source;
            onward.through.push(next);
            onward.last = Some(FlowSpec { dscp, rtcp, ..entry.spec.clone() });
            onward.destination = self.destination(next);
        }
        onward
    }

    /// From now on the kernel takes a flow's packets through these legs, and no others.
    pub(super) fn join(&mut self, local: SocketAddr, through: &[SocketAddr]) {
        let Some(entry) = self.entries.get_mut(&local) else { return };
        let before: Box<[SocketAddr]> = entry.through().into();
        entry.set_through(through);
        let since = self.stats.read(entry.sender.stats);
        for left in before.iter().filter(|leg| !through.contains(leg)) {
            self.settle(*left);
        }
        for leg in through.iter().filter(|leg| !before.contains(leg)) {
            self.settle(*leg);
            if let Some(entry) = self.entries.get_mut(leg) {
                entry.set_joined(Some(Joined { with: local, since }));
            }
            self.renew_path(*leg);
        }
    }

    /// A leg that was joined counts by itself again, from what it has come to.
    pub(super) fn settle(&mut self, leg: SocketAddr) {
        let Some(entry) = self.entries.get(&leg) else { return };
        let (place, stats) = (entry.sender.stats, self.statistics(entry));
        if entry.joined().is_some() {
            self.stats.write(place, stats);
        }
        if let Some(entry) = self.entries.get_mut(&leg)
            && entry.joined().is_some()
        {
            entry.set_joined(None);
            self.renew_path(leg);
        }
    }

    /// What a flow has counted, on its own and with the leg that it is joined with.
    pub(super) fn statistics(&self, entry: &Entry) -> FlowStats {
        let own = self.stats.read(entry.sender.stats);
        let with = entry
            .joined()
            .and_then(|joined| Some((self.entries.get(&joined.with)?.sender.stats, joined.since)));
        with.map_or(own, |(with, since)| own.joined_with(&self.stats.read(with), &since))
    }
}

/// Whether all that a flow carries goes the same way: it has one sender, and RTCP that comes with RTP leaves with it.
fn is_one_way(spec: &FlowSpec) -> bool {
    spec.forks.is_empty() && spec.rtcp.as_ref().is_none_or(|way| way.out_source == spec.out_source)
}
