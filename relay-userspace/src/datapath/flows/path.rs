//! What is decided of flows that stand, for [`Paths`](super::super::paths::Paths).
//!
//! A path is made of its own flow and of the one by which the other party is heard. So it is written anew with the
//! kernel's record of its flow, and whenever a flow that it leads towards is installed, learns or goes.

use std::{collections::BTreeSet, net::SocketAddr};

use relay_ebpf::{guard::Rate, stats::clock_ticks};

use super::{
    super::paths::{Exit, Path},
    FlowSpec, Flows, Fork,
};
use crate::net::{Dscp, Local};

/// Which flows lead towards a flow's port: their packets leave from there. In pairs, of which the port is the first.
#[derive(Debug, Default)]
pub(super) struct Towards(BTreeSet<(Local, Local)>);

impl Towards {
    fn ways(spec: &FlowSpec) -> impl Iterator<Item = SocketAddr> {
        let rtcp = spec.rtcp.as_ref().map(|way| way.out_source).filter(|rtcp| *rtcp != spec.out_source);
        std::iter::once(spec.out_source).chain(rtcp)
    }

    /// A flow is what its specification says.
    pub(super) fn meet(&mut self, local: SocketAddr, spec: &FlowSpec) {
        for way in Self::ways(spec) {
            self.0.insert((way.into(), local.into()));
        }
    }

    /// It is that no longer.
    pub(super) fn part(&mut self, local: SocketAddr, spec: &FlowSpec) {
        for way in Self::ways(spec) {
            self.0.remove(&(way.into(), local.into()));
        }
    }

    /// The flows that lead there.
    fn to(&self, way: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let way = Local::from(way);
        let from_here = self.0.range((way, Local::FIRST)..);
        from_here.take_while(move |(to, _)| *to == way).map(|(_, flow)| (*flow).into())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Flows {
    /// How a party's packets leave, and its RTCP where that leaves by another way.
    pub(super) fn exits(&self, local: SocketAddr, party: &Fork, dscp: Option<Dscp>) -> (Exit, Option<Exit>) {
        let destination = self.destination_of(local, party);
        let rtcp = party.rtcp.as_ref().map(|way| Exit {
            source: way.out_source,
            destination: self.rtcp_destination(local, way),
            dscp: way.dscp,
        });
        (Exit { source: party.out_source, destination, dscp }, rtcp)
    }

    /// What is decided of a flow's packets, until something changes it; none while there is more to decide.
    pub(in super::super) fn path(&self, local: SocketAddr) -> Option<Path> {
        let entry = self.entries.get(&local)?;
        if !entry.forks().is_empty() || entry.joined().is_some() {
            return None;
        }
        let (source, _) = entry.sender.learned?;
        let party = entry.spec.party();
        let (exit, rtcp) = self.exits(local, &party, entry.spec.dscp);
        Some(Path {
            source,
            kind: entry.spec.kind,
            stats: entry.sender.stats,
            clock_ticks: clock_ticks(party.clock_rate),
            rate: Rate::of_stream(self.packet_interval_ns),
            exit,
            rtcp: rtcp.map(Box::new),
            srtp: party.srtp,
            watchers: self.taps(local),
        })
    }

    /// Writes a flow's path as it is to be now.
    pub(super) fn renew_path(&self, local: SocketAddr) {
        if self.entries.contains_key(&local) {
            self.paths.set(local, self.path(local));
        }
    }

    /// The same for the flows that lead towards a flow.
    pub(super) fn renew_towards(&self, local: SocketAddr) {
        self.towards.to(local).for_each(|flow| self.renew_path(flow));
    }
}
