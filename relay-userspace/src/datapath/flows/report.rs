//! What is told of flows to who asks: everything of one or of all, or, since there are thousands, one thing of each.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use relay_ebpf::FlowStats;

use super::{
    super::{
        flow::{Carrier, FlowReport, FlowSpec, RefusedSource, Unprotected, UserspaceReason},
        kernel::keeper::Ingress,
        paths::REMEMBERED_REFUSALS,
    },
    Entry, Flows, UserspaceOr,
};

impl Flows {
    /// Who carries a flow.
    fn carrier_of(&self, entry: &Entry) -> Carrier {
        // Its packets are carried as those of the flow that it is joined with.
        let with = entry.joined().map(|joined| joined.with);
        let carried = with.and_then(|with| self.entries.get(&with)).unwrap_or(entry);
        let missing = |hop: IpAddr| self.next_hops.missing(hop);
        let by_tc = |hop: IpAddr| self.next_hops.by_tc(hop);
        let by_tc = carried.published.and_then(|published| published.hops().find_map(by_tc));
        let missing = carried.published.and_then(|published| published.hops().find_map(missing));
        match carried.carrier {
            UserspaceOr::Learning => Carrier::Learning,
            UserspaceOr::Blocked => Carrier::Blocked,
            UserspaceOr::Userspace(reason) => Carrier::Userspace { reason },
            UserspaceOr::Kernel => match (missing, with) {
                (Some(why), _) => Carrier::AwaitingNextHop { why },
                (None, with) => self.met_by(carried.spec.local, by_tc, with),
            },
        }
    }

    /// A flow as it stands.
    pub(in super::super) fn report(&self, local: SocketAddr) -> Option<FlowReport> {
        let entry = self.entries.get(&local)?;
        let forks = entry.spec.forks.iter().zip(entry.forks()).map(|(party, fork)| FlowReport {
            spec: entry.spec.with_party(party.clone()),
            carrier: match fork.learned {
                None => Carrier::Learning,
                Some(_) => Carrier::Userspace { reason: UserspaceReason::Forked },
            },
            learned: fork.learned,
            destination: self.destination_of(local, party),
            stats: self.stats.read(fork.stats),
            refused: Vec::new(),
            refused_packets: 0,
            srtp_refused: Unprotected::default(),
            forks: Vec::new(),
            rtcp_destination: party.rtcp.as_ref().and_then(|way| self.rtcp_destination(local, way)),
        });
        let refusals = self.paths.live(local, |live| live.refusals()).unwrap_or_default();
        Some(FlowReport {
            spec: entry.spec.clone(),
            carrier: self.carrier_of(entry),
            learned: entry.sender.learned,
            destination: self.destination(local),
            stats: self.statistics(entry),
            refused: refusals.sources,
            refused_packets: refusals.packets,
            srtp_refused: refusals.srtp,
            forks: forks.collect(),
            rtcp_destination: entry.spec.rtcp.as_ref().and_then(|way| self.rtcp_destination(local, way)),
        })
    }

    /// Which of the kernel's programs carries a flow that is forwarded.
    fn met_by(&self, local: SocketAddr, by_tc: Option<String>, with: Option<SocketAddr>) -> Carrier {
        match (self.ingresses.get(&local.ip()), by_tc) {
            (Some(Ingress::Nothing), _) | (Some(Ingress::Xdp { tc_behind: false }), Some(_)) => {
                Carrier::Userspace { reason: UserspaceReason::NotAttached }
            }
            (Some(Ingress::Tc(why)), _) => Carrier::Tc { why: why.clone() },
            (_, Some(why)) => Carrier::Tc { why },
            (_, None) => with.map_or(Carrier::Kernel, |with| Carrier::Joined { with }),
        }
    }

    /// All flows with what was counted of each: for who wants no more of thousands.
    pub(in super::super) fn counts(&self) -> impl Iterator<Item = (&FlowSpec, FlowStats)> {
        self.entries.values().map(|entry| (&entry.spec, self.statistics(entry)))
    }

    /// Who carries each flow.
    pub(in super::super) fn carriers(&self) -> impl Iterator<Item = Carrier> {
        self.entries.values().map(|entry| self.carrier_of(entry))
    }

    /// All flows as they stand, with the sources that the kernel refused.
    pub(in super::super) fn reports(&self) -> Vec<FlowReport> {
        let mut reports: Vec<FlowReport> = self.locals().filter_map(|local| self.report(local)).collect();
        // Looking costs a system call for each source, so nobody looks while nothing was refused.
        if let Some(kernel) = &self.kernel_refused
            && reports.iter().any(|report| report.refused_further() > 0)
        {
            let all = kernel.all();
            for report in &mut reports {
                if let Some(entry) = self.entries.get(&report.spec.local) {
                    add_refused(report, entry.sender.stats, &all);
                }
            }
        }
        reports
    }
}

/// Adds the sources that the kernel refused of a flow, up to as many as userspace remembers.
pub(super) fn add_refused(report: &mut FlowReport, stats: u32, kernel: &HashMap<u32, Vec<RefusedSource>>) {
    let more = kernel.get(&stats).into_iter().flatten().take(REMEMBERED_REFUSALS);
    report.refused.extend(more.cloned());
}
