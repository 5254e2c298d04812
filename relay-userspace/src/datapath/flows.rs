//! All flows, and what is done with a packet that comes up to userspace: a state machine over tables in
//! memory, without sockets or clocks.
//!
//! A flow begins in *learning*: the kernel passes its packets up, this relays them from the first one and
//! checks each source against the flow's policy. The first acceptable RTP or RTCP packet fixes the source
//! to that exact address and port; the flow is then written anew, for the kernel to forward. Only new
//! signalling, that is an installation with another address, opens learning again.
//!
//! What one direction learns, the other uses: packets go to where the other party's packets come from
//! (symmetric RTP, RFC 4961), unless policy says that only the session description counts.
//!
//! The branches of a forked call send to one port. Each has a sender of its own ([`Fork`]), told from the others by its
//! source, which is userspace's work until one branch is left.
//!
//! Legs of a call that a server leads back to the office are *joined* (`joined`) once the sources along the way are
//! learned: the kernel's record of the flow at which packets arrive has them leave as those of the last leg, and the flows
//! in between count what the first one counts.
//!
//! What is decided of a flow that stands is written to [`Paths`], where the relay's tasks find it without asking here.

mod checks;
mod entries;
mod joined;
mod party;
mod path;
mod report;
mod taken_up;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::AddAssign,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use relay_ebpf::{
    Flow, FlowKind, FlowState, FlowStats, Reason,
    guard::Rate,
    headers::Ipv6Address,
    relay::accept,
    rtp::{Payload, classify},
    stats::clock_ticks,
    tables::LAST_GENERATION,
};
use thiserror::Error;

use entries::{Entries, Entry};
use joined::Onward;
use party::{Owners, Sender, Who};
use path::Towards;
use report::add_refused;
pub(super) use taken_up::Statistics;

use super::{
    flow::{FlowReport, FlowSpec, Fork, RtcpWay, UserspaceReason},
    ice::IceLearning,
    kernel::{
        keeper::Ingress,
        next_hops::NextHops,
        refused::RefusedSources,
        tables::{KernelTables, Slot, Slots},
    },
    paths::{Arrival, Departure, Paths, Watchers, count, what},
    shared::SharedArray,
    tap::Tap,
    translation::{Translation, content},
};
use crate::{
    net::{Dscp, Latching, NetworkId, Priority},
    srtp::Content,
};

/// Why a flow could not be installed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum InstallError {
    /// No free slot.
    #[error("all {capacity} flows are in use (datapath.flows)")]
    Full {
        /// How many there can be.
        capacity: u32,
    },
    /// The kernel's programs do not look for this address.
    #[error("{address} is not one of the appliance's media addresses")]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
}

/// Counters of flows that are gone, and the sum over those that are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that the kernel forwarded.
    pub kernel_packets: u64,
    /// Bytes that the kernel forwarded.
    pub kernel_bytes: u64,
    /// Packets that userspace relayed.
    pub relayed_packets: u64,
    /// Bytes that userspace relayed.
    pub relayed_bytes: u64,
    /// RTP packets that never arrived.
    pub lost: u64,
    /// RTP packets that should have arrived.
    pub expected: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.kernel_packets += other.kernel_packets;
        self.kernel_bytes += other.kernel_bytes;
        self.relayed_packets += other.relayed_packets;
        self.relayed_bytes += other.relayed_bytes;
        self.lost += other.lost;
        self.expected += other.expected;
    }
}

impl Totals {
    pub(super) fn add(&mut self, stats: &FlowStats) {
        *self += Self {
            kernel_packets: stats.kernel_packets,
            kernel_bytes: stats.kernel_bytes,
            relayed_packets: stats.relayed_packets,
            relayed_bytes: stats.relayed_bytes,
            lost: stats.lost(),
            expected: stats.expected(),
        };
    }
}

/// A flow's place in the kernel's tables.
#[derive(Debug, Clone, Copy)]
struct Published {
    slot: Slot,
    place: u32,
    hop: Option<IpAddr>,
    /// The next hop of multiplexed RTCP.
    rtcp_hop: Option<IpAddr>,
}

impl Published {
    fn hops(self) -> impl Iterator<Item = IpAddr> {
        self.hop.into_iter().chain(self.rtcp_hop)
    }
}

/// Who carries an entry: what [`Carrier`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UserspaceOr {
    Learning,
    Kernel,
    Blocked,
    Userspace(UserspaceReason),
}

/// All flows.
pub(super) struct Flows {
    entries: Entries,
    stats: Arc<SharedArray<FlowStats>>,
    paths: Arc<Paths>,
    towards: Towards,
    stats_slots: Slots,
    owners: Owners,
    kernel: Option<KernelTables>,
    next_hops: NextHops,
    force_userspace: Vec<IpNet>,
    ended: HashMap<NetworkId, Totals>,
    /// Who is to have copies of a flow's packets.
    taps: HashMap<SocketAddr, Vec<Tap>>,
    /// The sources that the kernel refused.
    kernel_refused: Option<RefusedSources>,
    /// Flows that take a second record in the kernel's table.
    apart: usize,
    generation: u32,
    /// How packets for our addresses come in.
    ingresses: HashMap<IpAddr, Ingress>,
    /// The priority in the tag that packets leave with.
    priority: Priority,
    /// Nanoseconds that a packet takes of what a stream may have; 0: no limit.
    packet_interval_ns: u32,
    /// The flows that have learned a source since somebody asked.
    learned: Vec<SocketAddr>,
    /// How many flows are checked by ICE.
    checked: usize,
}

impl Flows {
    /// Flows carried by the kernel through these tables, or without them in userspace only.
    pub(super) fn new(
        stats: SharedArray<FlowStats>,
        kernel: Option<KernelTables>,
        force_userspace: Vec<IpNet>,
    ) -> Self {
        let stats = Arc::new(stats);
        Self {
            entries: Entries::default(),
            stats_slots: Slots::new(stats.length()),
            paths: Arc::new(Paths::new(Arc::clone(&stats))),
            towards: Towards::default(),
            stats,
            owners: Owners::default(),
            kernel,
            next_hops: NextHops::default(),
            force_userspace,
            ended: HashMap::new(),
            taps: HashMap::new(),
            kernel_refused: None,
            apart: 0,
            generation: 0,
            ingresses: HashMap::new(),
            priority: Priority::MEDIA,
            packet_interval_ns: 0,
            learned: Vec::new(),
            checked: 0,
        }
    }

    /// Where packets of flows that stand are looked up.
    pub(super) fn paths(&self) -> Arc<Paths> {
        Arc::clone(&self.paths)
    }

    /// Flows that are installed or changed from now on carry so many packets a second at most; 0: no limit.
    pub(super) fn set_stream_limit(&mut self, packets: u32) {
        const SECOND_NS: u32 = 1_000_000_000;
        self.packet_interval_ns = SECOND_NS.checked_div(packets).unwrap_or_default();
    }

    /// Flows that are installed from now on leave with this priority in their tag.
    pub(super) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// From now on reports tell the sources that the kernel refused, too.
    pub(super) fn tell_refused(&mut self, refused: RefusedSources) {
        self.kernel_refused = Some(refused);
    }

    /// Installs a flow, or changes the one with this local address and port; its statistics go on.
    pub(super) fn install(&mut self, now: Instant, spec: FlowSpec) -> Result<(), InstallError> {
        let local = spec.local;
        if let Some(kernel) = &self.kernel {
            kernel.place(local).ok_or(InstallError::NotLocal { address: local })?;
        }
        // Whose statistics are whose may change with the branches, and no leg is joined with one that has several.
        if !spec.forks.is_empty() || self.entries.get(&local).is_some_and(|entry| !entry.forks().is_empty()) {
            self.settle(local);
        }
        // No packet is counted by what is about to change.
        self.paths.enter(local);
        self.paths.set(local, None);
        let result = self.take_senders(now, spec);
        match &result {
            Ok(()) => self.publish_with_pair(now, local),
            Err(_) if self.entries.contains_key(&local) => self.renew_path(local),
            Err(_) => self.paths.leave(local),
        }
        self.renew_towards(local);
        result
    }

    /// Removes a flow. Packets that come later belong to nobody.
    pub(super) fn remove(&mut self, now: Instant, local: SocketAddr) -> Option<FlowReport> {
        self.join(local, &[]);
        self.settle(local);
        // From now on nothing of it is counted.
        self.paths.set(local, None);
        let before = self.before(local);
        let report = self.report(local)?;
        self.paths.leave(local);
        let entry = self.entries.remove(&local)?;
        self.towards.part(local, &entry.spec);
        self.apart -= usize::from(entry.spec.rtcp.is_some());
        self.count_checks(entry.spec.ice.is_some(), false);
        self.taps.remove(&local);
        if let Some(before) = before {
            self.publish_chain(now, before);
        }
        self.renew_towards(local);
        if let (Some(kernel), Some(published)) = (&mut self.kernel, entry.published) {
            kernel.unpublish(now, published.place, local.port(), published.slot);
            published.hops().for_each(|hop| self.next_hops.release(kernel, hop));
        }
        let stats = self.stats.read(entry.sender.stats);
        let mut report = FlowReport { stats, ..report };
        if report.refused_further() > 0
            && let Some(kernel) = &mut self.kernel_refused
        {
            add_refused(&mut report, entry.sender.stats, &kernel.all());
            kernel.forget(entry.sender.stats);
        }
        self.dismiss(now, entry.spec.from, &entry.sender);
        entry.forks().iter().for_each(|fork| self.dismiss(now, entry.spec.from, fork));
        Some(report)
    }

    /// Has copies of a flow's packets go to a tap; from now on userspace carries it.
    pub(super) fn attach_tap(&mut self, now: Instant, local: SocketAddr, tap: &Tap) {
        // A closed one would never be released: that has been done.
        if !self.entries.contains_key(&local) || tap.is_closed() {
            return;
        }
        let taps = self.taps.entry(local).or_default();
        let is_first = taps.is_empty();
        if !taps.iter().any(|known| known.is_same(tap)) {
            taps.push(tap.clone());
        }
        if is_first {
            self.publish_chain(now, local);
        } else {
            self.renew_path(local);
        }
    }

    /// Lets go of taps whose other end is closed: their flows go back to who carried them before.
    pub(super) fn release_taps(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for (local, taps) in &mut self.taps {
            let before = taps.len();
            taps.retain(|tap| !tap.is_closed());
            if taps.len() != before {
                changed.push((*local, taps.is_empty()));
            }
        }
        for (local, is_free) in changed {
            if is_free {
                self.taps.remove(&local);
                self.publish_chain(now, local);
            } else {
                self.renew_path(local);
            }
        }
    }

    /// A flow's taps, with the networks that its packets come from and go to.
    pub(super) fn taps(&self, local: SocketAddr) -> Option<Arc<Watchers>> {
        if self.taps.is_empty() {
            return None;
        }
        let (taps, entry) = (self.taps.get(&local)?, self.entries.get(&local)?);
        let from = entry.spec.from;
        let to = self.entries.get(&entry.spec.out_source).map_or(from, |pair| pair.spec.from);
        Some(Arc::new(Watchers { taps: taps.clone(), from, to }))
    }

    /// How a packet is to be translated before anything is learned from it; none if it goes as it is, or nowhere.
    pub(super) fn translation(&self, arrival: &Arrival<'_>) -> Option<(Arc<Translation>, Content)> {
        let entry = self.entries.get(&arrival.local)?;
        if entry.spec.srtp.is_none() && entry.forks().is_empty() {
            return None;
        }
        let &[first, second, ..] = arrival.payload else { return None };
        let what = accept(entry.spec.kind as u8, classify(first, second), arrival.payload.len()).ok()?;
        let translation = match entry.who(arrival.source).ok()? {
            Who::Own => &entry.spec.srtp,
            Who::Fork(index) => &entry.spec.forks.get(index)?.srtp,
        };
        translation.clone().zip(content(what))
    }

    /// [`Flows::packet`] for one that was checked and is in clear now.
    ///
    /// # Errors
    /// The reason why it goes nowhere.
    pub(super) fn translated(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
        by: &Translation,
    ) -> Result<Departure, Reason> {
        // Signalling may have changed the key while the packet was looked at.
        match self.translation(arrival) {
            Some((translation, _)) if *translation == *by => self.packet(now, arrival),
            _ => Err(Reason::NoFlow),
        }
    }

    /// Decides on a packet that came up, and learns from it.
    ///
    /// # Errors
    /// The reason why it goes nowhere.
    pub(super) fn packet(&mut self, now: Instant, arrival: &Arrival<'_>) -> Result<Departure, Reason> {
        let paths = Arc::clone(&self.paths);
        let entry = self.entries.get_mut(&arrival.local).ok_or(Reason::NoFlow)?;
        let kind = entry.spec.kind;
        let content = what(kind, arrival.payload)?;
        let who = match entry.who(arrival.source) {
            Ok(who) => who,
            Err(reason) => {
                paths.live(arrival.local, |live| {
                    live.refuse(arrival, reason);
                    if reason == Reason::WrongSource {
                        self.stats.change(entry.sender.stats, |stats| {
                            stats.wrong_source = stats.wrong_source.wrapping_add(1);
                        });
                    }
                });
                return Err(reason);
            }
        };
        let rate = Rate::of_stream(self.packet_interval_ns);
        let admitted = paths.live(arrival.local, |live| rate.admits(&mut live.rate, arrival.monotonic_ns));
        if admitted != Some(true) {
            return Err(Reason::FlowRate);
        }
        let by_nomination = entry.forks().is_empty()
            && entry.spec.ice.as_ref().is_some_and(|ice| ice.learns == IceLearning::FromNomination);
        let Some((sender, party)) = entry.of(who) else { return Err(Reason::NoFlow) };
        let mut learned_now = false;
        // STUN and DTLS come before media and may come from elsewhere: they fix nothing.
        // Nor does media where the party will say by its checks where it is.
        if sender.learned.is_none()
            && !by_nomination
            && (matches!(content, Payload::Rtp | Payload::Rtcp) || kind == FlowKind::Opaque)
        {
            sender.learned = Some((arrival.source, arrival.unix_ms));
            learned_now = true;
        }

        // The kernel counts what it forwards, and nothing that it passes up. What comes from a leg that this flow is
        // joined with was counted there.
        let ticks = clock_ticks(party.clock_rate);
        let stats = sender.stats;
        if entry.joined().is_none() {
            paths.live(arrival.local, |_| {
                self.stats.change(stats, |stats| count(stats, arrival, content, ticks));
            });
        }
        let dscp = entry.spec.dscp;
        if learned_now {
            self.note_learned(arrival.local);
            self.publish_with_pair(now, arrival.local);
            self.renew_towards(arrival.local);
        }
        let (exit, rtcp) = self.exits(arrival.local, &party, dscp);
        let exit = rtcp.filter(|_| content == Payload::Rtcp).unwrap_or(exit);
        exit.take(arrival, content, stats)
    }

    /// Where packets of a flow go: to the other party's learned source, if policy lets that count.
    fn destination(&self, local: SocketAddr) -> Option<SocketAddr> {
        self.destination_of(local, &self.entries.get(&local)?.spec.party())
    }

    /// The same for what a party sends to the flow.
    fn destination_of(&self, local: SocketAddr, party: &Fork) -> Option<SocketAddr> {
        let signalled = party.destination?;
        Some(self.heard(party.out_source, local).unwrap_or(signalled))
    }

    /// Where the RTCP goes that comes multiplexed.
    fn rtcp_destination(&self, local: SocketAddr, way: &RtcpWay) -> Option<SocketAddr> {
        let signalled = way.destination?;
        Some(self.heard(way.out_source, local).unwrap_or(signalled))
    }

    /// From where the party is heard at a port whose packets leave from `local`.
    fn heard(&self, at: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
        // What a check has proved counts whatever the description says.
        let counts = |entry: &&Entry| entry.spec.latching != Latching::Signalled || entry.spec.ice.is_some();
        let entry = self.entries.get(&at).filter(counts)?;
        let fork = entry.spec.forks.iter().position(|fork| fork.out_source == local);
        let sender =
            fork.filter(|_| entry.spec.out_source != local).and_then(|index| entry.forks().get(index));
        let sender = sender.unwrap_or(&entry.sender);
        sender.learned.map(|(source, _)| source).or(sender.previous.as_deref().copied())
    }

    /// Writes a flow and those of the other direction to the kernel's tables.
    fn publish_with_pair(&mut self, now: Instant, local: SocketAddr) {
        self.publish_chain(now, local);
        let Some(entry) = self.entries.get(&local) else { return };
        let mut pairs = vec![entry.spec.out_source];
        pairs.extend(entry.spec.rtcp.as_ref().map(|way| way.out_source));
        pairs.extend(entry.spec.forks.iter().map(|fork| fork.out_source));
        pairs.dedup();
        for pair in pairs {
            if pair != local && self.entries.contains_key(&pair) {
                self.publish_chain(now, pair);
            }
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.place(address).is_some())
    }

    /// Whether multiplexed RTCP leaves to one of the appliance's own addresses by another way than RTP.
    fn is_split_to_own(&self, spec: &FlowSpec) -> bool {
        let way = spec.rtcp.as_ref().filter(|way| way.out_source != spec.out_source);
        way.and_then(|way| self.rtcp_destination(spec.local, way)).is_some_and(|to| self.is_own(to))
    }

    fn is_forced(&self, addresses: impl IntoIterator<Item = Option<SocketAddr>>) -> bool {
        let forced =
            |address: SocketAddr| self.force_userspace.iter().any(|prefix| prefix.contains(&address.ip()));
        addresses.into_iter().flatten().any(forced)
    }

    /// Decides who carries a flow, and writes it to the kernel's tables if they have a part in it.
    fn publish(&mut self, now: Instant, local: SocketAddr) {
        let onward = self.onward(local);
        let Some(entry) = self.entries.get(&local) else { return };
        let (spec, learned) = (entry.spec.clone(), entry.sender.learned.map(|(source, _)| source));
        let (stats, old) = (entry.sender.stats, entry.published);
        let mut carrier = self.choose(&spec, learned, &onward);
        let Onward { through, last, destination } = onward;
        let last = last.as_ref().unwrap_or(&spec);
        let rtcp = last.rtcp.as_deref().map(|way| {
            // Legs are joined only where RTCP goes the way of RTP.
            let to = if through.is_empty() { self.rtcp_destination(local, way) } else { destination };
            (*way, to)
        });
        let mut published = None;
        if let Some(kernel) = &mut self.kernel
            && let Some(place) = kernel.place(local)
        {
            let (mut hop, mut rtcp_hop, mut apart) = (None, None, None);
            let (priority, packet_interval_ns) = (self.priority.in_tag(), self.packet_interval_ns);
            let record = |out_source, dscp| Flow {
                priority,
                packet_interval_ns,
                ..kernel_flow(&spec, out_source, dscp, stats, carrier)
            };
            let mut flow = record(last.out_source, last.dscp);
            match (carrier, learned, destination) {
                (UserspaceOr::Kernel, Some(source), Some(to)) => {
                    set_source(&mut flow, source);
                    let hops = &mut self.next_hops;
                    let mut lead = |flow: Flow, to: SocketAddr| {
                        let index = hops.acquire(kernel, to.ip())?;
                        Some(directed(Flow { next_hop: index, ..flow }, local, to))
                    };
                    let led = lead(flow, to);
                    hop = led.map(|_| to.ip());
                    let led_apart = match rtcp {
                        None => Some(None),
                        Some((way, to)) => {
                            let mut flow = record(way.out_source, way.dscp);
                            set_source(&mut flow, source);
                            match to {
                                Some(to) => {
                                    let led = lead(flow, to);
                                    rtcp_hop = led.map(|_| to.ip());
                                    led.map(Some)
                                }
                                None => Some(Some(Flow { state: FlowState::Blocked as u8, ..flow })),
                            }
                        }
                    };
                    match (led, led_apart) {
                        (Some(led), Some(led_apart)) => (flow, apart) = (led, led_apart),
                        _ => {
                            carrier = UserspaceOr::Userspace(UserspaceReason::NextHopTableFull);
                            flow.state = FlowState::Userspace as u8;
                        }
                    }
                }
                (UserspaceOr::Blocked, Some(source), _) => set_source(&mut flow, source),
                _ => {}
            }
            self.generation = if self.generation < LAST_GENERATION { self.generation + 1 } else { 1 };
            flow.generation = self.generation;
            let slot = kernel.publish(now, place, local.port(), flow, apart, old.map(|old| old.slot));
            old.into_iter().flat_map(Published::hops).for_each(|hop| self.next_hops.release(kernel, hop));
            published = slot.map(|slot| Published { slot, place, hop, rtcp_hop });
        }
        if let Some(entry) = self.entries.get_mut(&local) {
            entry.carrier = carrier;
            entry.published = published;
        }
        self.join(local, if carrier == UserspaceOr::Kernel { &through } else { &[] });
        self.renew_path(local);
    }

    /// Who carries a flow.
    fn choose(&self, spec: &FlowSpec, learned: Option<SocketAddr>, onward: &Onward) -> UserspaceOr {
        let Some(source) = learned else { return UserspaceOr::Learning };
        if !spec.forks.is_empty() {
            return UserspaceOr::Userspace(UserspaceReason::Forked);
        }
        if spec.srtp.is_some() {
            return match self.destination(spec.local) {
                Some(_) => UserspaceOr::Userspace(UserspaceReason::Translated),
                None => UserspaceOr::Blocked,
            };
        }
        let Some(destination) = self.destination(spec.local) else { return UserspaceOr::Blocked };
        let addresses = [spec.signalled, learned, Some(destination), onward.destination, spec.destination];
        let leaves_from = onward.last.as_ref().map_or(spec.out_source, |last| last.out_source);
        let leaves_to = onward.destination.unwrap_or(destination);
        if self.kernel.is_none() {
            UserspaceOr::Userspace(UserspaceReason::NoKernelDatapath)
        } else if leaves_from.is_ipv6() != leaves_to.is_ipv6() {
            UserspaceOr::Userspace(UserspaceReason::OtherFamily)
        } else if self.taps.contains_key(&spec.local) {
            UserspaceOr::Userspace(UserspaceReason::Captured)
        } else if self.is_forced(addresses) {
            UserspaceOr::Userspace(UserspaceReason::Forced)
        } else if self.is_own(source) || onward.destination.is_none() || self.is_split_to_own(spec) {
            UserspaceOr::Userspace(UserspaceReason::OwnAddress)
        } else {
            UserspaceOr::Kernel
        }
    }

    /// How packets for our addresses come in from now on.
    pub(super) fn set_ingresses(&mut self, ingresses: HashMap<IpAddr, Ingress>) {
        self.ingresses = ingresses;
    }

    /// The local addresses of all flows.
    pub(super) fn locals(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.locals()
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many there can be.
    pub(super) fn capacity(&self) -> u32 {
        self.stats_slots.capacity()
    }

    /// Packets by the network that they came from, over all flows that ever were.
    pub(super) fn totals(&self) -> HashMap<NetworkId, Totals> {
        let mut totals = self.ended.clone();
        for entry in self.entries.values() {
            let totals = totals.entry(entry.spec.from).or_default();
            totals.add(&self.statistics(entry));
            entry.forks().iter().for_each(|fork| totals.add(&self.stats.read(fork.stats)));
        }
        totals
    }

    /// The flows whose packets are counted at a place in the statistics, each with that of the other direction; for
    /// copies of RTCP packets.
    pub(super) fn counted_at(&self, stats: u32) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let first = self.owners.get(stats);
        let joined = first.and_then(|local| self.entries.get(&local)).into_iter();
        let all = first.into_iter().chain(joined.flat_map(|entry| entry.through().iter().copied()));
        // The other party's own RTCP comes where this one's leaves from.
        all.filter_map(|local| {
            let spec = &self.entries.get(&local)?.spec;
            Some((local, spec.rtcp.as_ref().map_or(spec.out_source, |way| way.out_source)))
        })
    }

    /// Whether flows want next hops looked up.
    pub(super) fn wants_next_hops(&self) -> bool {
        self.next_hops.has_unresolved()
    }

    /// The next hops, with the tables that they are written to.
    pub(super) fn next_hops(&mut self) -> Option<(&mut NextHops, &mut KernelTables)> {
        let Self { next_hops, kernel, .. } = self;
        kernel.as_mut().map(|kernel| (next_hops, kernel))
    }
}

/// The kernel's record of a flow whose packets leave from `out_source`, but for what depends on a learned source.
fn kernel_flow(
    spec: &FlowSpec,
    out_source: SocketAddr,
    dscp: Option<Dscp>,
    stats: u32,
    carrier: UserspaceOr,
) -> Flow {
    let state = match carrier {
        UserspaceOr::Learning => FlowState::Learning,
        UserspaceOr::Kernel => FlowState::Forwarding,
        UserspaceOr::Blocked => FlowState::Blocked,
        UserspaceOr::Userspace(_) => FlowState::Userspace,
    };
    let mut flow = Flow {
        state: state as u8,
        kind: spec.kind as u8,
        type_of_service: dscp.map_or(0, |dscp| dscp.type_of_service()),
        flags: if dscp.is_none() { Flow::KEEP_DSCP } else { 0 },
        out_source_port: out_source.port().to_be_bytes(),
        stats,
        clock_ticks: clock_ticks(spec.clock_rate),
        ..Flow::default()
    };
    match out_source.ip() {
        IpAddr::V4(address) => flow.out_source_address = address.octets(),
        IpAddr::V6(address) => {
            flow.out_source_ipv6 = Ipv6Address::new(address.octets());
            flow.flags |= Flow::LEAVES_AS_IPV6;
        }
    }
    flow
}

fn set_source(flow: &mut Flow, source: SocketAddr) {
    flow.source_port = source.port().to_be_bytes();
    match source.ip() {
        IpAddr::V4(address) => flow.source_address = address.octets(),
        IpAddr::V6(address) => flow.source_ipv6 = Ipv6Address::new(address.octets()),
    }
}

/// The record with its destination, for packets that arrive at `local`.
fn directed(mut flow: Flow, local: SocketAddr, to: SocketAddr) -> Flow {
    set_destination(&mut flow, to);
    let port = local.port().to_be_bytes();
    match local.ip() {
        IpAddr::V4(local) => flow.with_deltas(local.octets(), port),
        IpAddr::V6(local) => flow.with_deltas_ipv6(Ipv6Address::new(local.octets()), port),
    }
}

fn set_destination(flow: &mut Flow, destination: SocketAddr) {
    flow.out_destination_port = destination.port().to_be_bytes();
    match destination.ip() {
        IpAddr::V4(address) => flow.out_destination_address = address.octets(),
        IpAddr::V6(address) => flow.out_destination_ipv6 = Ipv6Address::new(address.octets()),
    }
}

#[cfg(test)]
mod tests;
