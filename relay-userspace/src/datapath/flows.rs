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
//! Legs of a call that a server leads back to the office are *joined* (`joined`) once the sources along the way are
//! learned: the kernel's record of the flow at which packets arrive has them leave as those of the last leg, and the flows
//! in between count what the first one counts.

mod joined;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::AddAssign,
    time::Instant,
};

use ipnet::IpNet;
use relay_ebpf::{
    Flow, FlowKind, FlowState, FlowStats, Reason,
    headers::{IPV4_LENGTH, IPV6_LENGTH, Ipv6Address, UDP_LENGTH},
    relay::accept,
    rtp::{Payload, RTP_LENGTH, RtpHeader, classify},
    stats::clock_ticks,
};
use thiserror::Error;
use zerocopy::FromBytes;

use joined::{Joined, Onward};

use super::{
    flow::{Carrier, FlowReport, FlowSpec, RefusedSource, UserspaceReason},
    kernel::next_hops::NextHops,
    kernel::tables::{KernelTables, Slots},
    shared::SharedArray,
    tap::Tap,
};
use crate::net::{Latching, NetworkId};

/// Refused sources that a flow remembers; more are only counted.
const REMEMBERED_REFUSALS: usize = 8;
/// The word of [`FlowStats`] at which the userspace relay's own counters begin: packets, then bytes.
const RELAYED_WORD: usize = std::mem::offset_of!(FlowStats, relayed_packets) / 8;

/// A packet as it came up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Where it arrived.
    pub local: SocketAddr,
    /// Where it came from.
    pub source: SocketAddr,
    /// Its type-of-service byte.
    pub type_of_service: u8,
    /// What it carries.
    pub payload: &'a [u8],
    /// Arrival on the monotonic clock, in nanoseconds.
    pub monotonic_ns: u64,
    /// Arrival in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    /// The address and port that it leaves with.
    pub source: SocketAddr,
    /// The address and port that it goes to.
    pub destination: SocketAddr,
    /// Its type-of-service byte.
    pub type_of_service: u8,
    /// What it is.
    pub content: Payload,
    /// The statistics to charge it to once it is sent.
    pub stats: u32,
    /// What it is charged with: its bytes as it arrived, IP header included.
    pub bytes: u64,
}

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
    slot: u32,
    place: u32,
    hop: Option<IpAddr>,
}

struct Entry {
    spec: FlowSpec,
    carrier: UserspaceOr,
    stats: u32,
    learned: Option<(SocketAddr, u64)>,
    /// The source before signalling opened learning again.
    previous: Option<SocketAddr>,
    published: Option<Published>,
    /// The further legs that the kernel takes its packets through.
    through: Vec<SocketAddr>,
    joined: Option<Joined>,
    refused: Vec<RefusedSource>,
    refused_packets: u64,
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
    entries: HashMap<SocketAddr, Entry>,
    stats: SharedArray<FlowStats>,
    stats_slots: Slots,
    /// Whose statistics stand where.
    owners: HashMap<u32, SocketAddr>,
    kernel: Option<KernelTables>,
    next_hops: NextHops,
    force_userspace: Vec<IpNet>,
    ended: HashMap<NetworkId, Totals>,
    /// Who is to have copies of a flow's packets.
    taps: HashMap<SocketAddr, Vec<Tap>>,
    generation: u32,
}

impl Flows {
    /// Flows carried by the kernel through these tables, or without them in userspace only.
    pub(super) fn new(
        stats: SharedArray<FlowStats>,
        kernel: Option<KernelTables>,
        force_userspace: Vec<IpNet>,
    ) -> Self {
        Self {
            entries: HashMap::new(),
            stats_slots: Slots::new(stats.length()),
            stats,
            owners: HashMap::new(),
            kernel,
            next_hops: NextHops::default(),
            force_userspace,
            ended: HashMap::new(),
            taps: HashMap::new(),
            generation: 0,
        }
    }

    /// Installs a flow, or changes the one with this local address and port; its statistics go on.
    pub(super) fn install(&mut self, now: Instant, spec: FlowSpec) -> Result<(), InstallError> {
        let local = spec.local;
        if let Some(kernel) = &self.kernel {
            kernel.place(local).ok_or(InstallError::NotLocal { address: local })?;
        }
        match self.entries.get_mut(&local) {
            Some(entry) => {
                // A hold by a zero address names no source, and is no reason to cut off the music that
                // comes from the one that was learned; the address that ends the hold is learned anew.
                let moved = spec.signalled.is_some() && entry.spec.signalled != spec.signalled;
                if moved || entry.spec.latching != spec.latching {
                    (entry.learned, entry.previous) = (None, None);
                } else if entry.spec.turns != spec.turns {
                    // Until the sender is heard again, the other party's packets go where it was last heard.
                    entry.previous = entry.learned.take().map(|(source, _)| source).or(entry.previous);
                }
                entry.spec = spec;
            }
            None => {
                let capacity = self.stats_slots.capacity();
                let stats = self.stats_slots.take(now).ok_or(InstallError::Full { capacity })?;
                self.stats.write(stats, FlowStats::ZERO);
                self.owners.insert(stats, local);
                self.entries.insert(
                    local,
                    Entry {
                        spec,
                        carrier: UserspaceOr::Learning,
                        stats,
                        learned: None,
                        previous: None,
                        published: None,
                        through: Vec::new(),
                        joined: None,
                        refused: Vec::new(),
                        refused_packets: 0,
                    },
                );
            }
        }
        self.publish_with_pair(now, local);
        Ok(())
    }

    /// Removes a flow. Packets that come later belong to nobody.
    pub(super) fn remove(&mut self, now: Instant, local: SocketAddr) -> Option<FlowReport> {
        self.join(local, &[]);
        self.settle(local);
        let before = self.before(local);
        let report = self.report(local)?;
        let entry = self.entries.remove(&local)?;
        self.taps.remove(&local);
        if let Some(before) = before {
            self.publish_chain(now, before);
        }
        if let (Some(kernel), Some(published)) = (&mut self.kernel, entry.published) {
            kernel.unpublish(now, published.place, local.port(), published.slot);
            if let Some(hop) = published.hop {
                self.next_hops.release(kernel, hop);
            }
        }
        let stats = self.stats.read(entry.stats);
        self.ended.entry(entry.spec.from).or_default().add(&stats);
        self.owners.remove(&entry.stats);
        self.stats_slots.give_back(now, entry.stats);
        Some(FlowReport { stats, ..report })
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
        }
    }

    /// Lets go of taps whose other end is closed: their flows go back to who carried them before.
    pub(super) fn release_taps(&mut self, now: Instant) {
        for taps in self.taps.values_mut() {
            taps.retain(|tap| !tap.is_closed());
        }
        let free: Vec<SocketAddr> =
            self.taps.iter().filter(|(_, taps)| taps.is_empty()).map(|(local, _)| *local).collect();
        for local in free {
            self.taps.remove(&local);
            self.publish_chain(now, local);
        }
    }

    /// A flow's taps, with the networks that its packets come from and go to.
    pub(super) fn taps(&self, local: SocketAddr) -> Option<(Vec<Tap>, NetworkId, NetworkId)> {
        if self.taps.is_empty() {
            return None;
        }
        let (taps, entry) = (self.taps.get(&local)?, self.entries.get(&local)?);
        let from = entry.spec.from;
        let to = self.entries.get(&entry.spec.out_source).map_or(from, |pair| pair.spec.from);
        Some((taps.clone(), from, to))
    }

    /// Decides on a packet that came up, and learns from it.
    ///
    /// # Errors
    /// The reason why it goes nowhere.
    pub(super) fn packet(&mut self, now: Instant, arrival: &Arrival<'_>) -> Result<Departure, Reason> {
        let entry = self.entries.get_mut(&arrival.local).ok_or(Reason::NoFlow)?;
        let kind = entry.spec.kind;
        let content = if kind == FlowKind::Opaque {
            Payload::Other
        } else {
            let first = *arrival.payload.first().ok_or(Reason::TooShort)?;
            let second = arrival.payload.get(1).copied().unwrap_or_default();
            match accept(kind as u8, classify(first, second), arrival.payload.len()) {
                Ok(content) => content,
                Err(Reason::Stun) => Payload::Stun,
                Err(Reason::Dtls) => Payload::Dtls,
                Err(reason) => return Err(reason),
            }
        };

        let mut learned_now = false;
        match entry.learned {
            Some((source, _)) if source == arrival.source => {}
            Some(_) => {
                self.stats
                    .change(entry.stats, |stats| stats.wrong_source = stats.wrong_source.wrapping_add(1));
                return Err(Reason::WrongSource);
            }
            None => {
                if !allowed(&entry.spec, arrival.source) {
                    entry.refuse(arrival);
                    return Err(Reason::SourceRefused);
                }
                // STUN and DTLS come before media and may come from elsewhere: they fix nothing.
                if matches!(content, Payload::Rtp | Payload::Rtcp) || kind == FlowKind::Opaque {
                    entry.learned = Some((arrival.source, arrival.unix_ms));
                    learned_now = true;
                }
            }
        }

        // The kernel counts what it forwards, and nothing that it passes up. What comes from a leg that this flow is
        // joined with was counted there.
        let ticks = clock_ticks(entry.spec.clock_rate);
        if entry.joined.is_none() {
            self.stats.change(entry.stats, |stats| count(stats, arrival, content, ticks));
        }
        let (stats, out_source, dscp) = (entry.stats, entry.spec.out_source, entry.spec.dscp);
        if learned_now {
            self.publish_with_pair(now, arrival.local);
        }
        let destination = self.destination(arrival.local).ok_or(Reason::Blocked)?;
        let type_of_service = match dscp {
            Some(dscp) => dscp.type_of_service() | arrival.type_of_service & relay_ebpf::headers::ECN_BITS,
            None => arrival.type_of_service,
        };
        let ip = if arrival.local.is_ipv6() { IPV6_LENGTH } else { IPV4_LENGTH };
        let bytes = (arrival.payload.len() + UDP_LENGTH + ip) as u64;
        Ok(Departure { source: out_source, destination, type_of_service, content, stats, bytes })
    }

    /// Charges a packet that was sent on.
    pub(super) fn sent(&mut self, departure: &Departure) {
        let (stats, bytes) = (departure.stats, departure.bytes);
        let before = self.stats.read(stats);
        self.stats.store_word(stats, RELAYED_WORD, before.relayed_packets.wrapping_add(1));
        self.stats.store_word(stats, RELAYED_WORD + 1, before.relayed_bytes.wrapping_add(bytes));
    }

    /// Where packets of a flow go: to the other party's learned source, if policy lets that count.
    fn destination(&self, local: SocketAddr) -> Option<SocketAddr> {
        let entry = self.entries.get(&local)?;
        let signalled = entry.spec.destination?;
        let pair =
            self.entries.get(&entry.spec.out_source).filter(|pair| pair.spec.latching != Latching::Signalled);
        let heard = pair.and_then(|pair| pair.learned.map(|(source, _)| source).or(pair.previous));
        Some(heard.unwrap_or(signalled))
    }

    /// Writes a flow and the one of the other direction to the kernel's tables.
    fn publish_with_pair(&mut self, now: Instant, local: SocketAddr) {
        self.publish_chain(now, local);
        if let Some(pair) = self.entries.get(&local).map(|entry| entry.spec.out_source)
            && pair != local
            && self.entries.contains_key(&pair)
        {
            self.publish_chain(now, pair);
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.place(address).is_some())
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
        let (spec, learned) = (entry.spec.clone(), entry.learned.map(|(source, _)| source));
        let (stats, old) = (entry.stats, entry.published);
        let mut carrier = self.choose(&spec, learned, &onward);
        let Onward { through, last, destination } = onward;
        let last = last.as_ref().unwrap_or(&spec);
        let mut published = None;
        if let Some(kernel) = &mut self.kernel
            && let Some(place) = kernel.place(local)
        {
            let mut hop = None;
            let mut flow = kernel_flow(&spec, last, stats, carrier);
            match (carrier, learned, destination) {
                (UserspaceOr::Kernel, Some(source), Some(to)) => {
                    match self.next_hops.acquire(kernel, to.ip()) {
                        Some(index) => {
                            hop = Some(to.ip());
                            flow.next_hop = index;
                            set_source(&mut flow, source);
                            set_destination(&mut flow, to);
                            let port = local.port().to_be_bytes();
                            flow = match local.ip() {
                                IpAddr::V4(local) => flow.with_deltas(local.octets(), port),
                                IpAddr::V6(local) => {
                                    flow.with_deltas_ipv6(Ipv6Address::new(local.octets()), port)
                                }
                            };
                        }
                        None => {
                            carrier = UserspaceOr::Userspace(UserspaceReason::NextHopTableFull);
                            flow.state = FlowState::Userspace as u8;
                        }
                    }
                }
                (UserspaceOr::Blocked, Some(source), _) => set_source(&mut flow, source),
                _ => {}
            }
            self.generation = self.generation.checked_add(1).unwrap_or(1);
            flow.generation = self.generation;
            let slot = kernel.publish(now, place, local.port(), flow, old.map(|old| old.slot));
            if let Some(hop) = old.and_then(|old| old.hop) {
                self.next_hops.release(kernel, hop);
            }
            published = slot.map(|slot| Published { slot, place, hop });
        }
        if let Some(entry) = self.entries.get_mut(&local) {
            entry.carrier = carrier;
            entry.published = published;
        }
        self.join(local, if carrier == UserspaceOr::Kernel { &through } else { &[] });
    }

    /// Who carries a flow.
    fn choose(&self, spec: &FlowSpec, learned: Option<SocketAddr>, onward: &Onward) -> UserspaceOr {
        let Some(source) = learned else { return UserspaceOr::Learning };
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
        } else if self.is_own(source) || onward.destination.is_none() {
            UserspaceOr::Userspace(UserspaceReason::OwnAddress)
        } else {
            UserspaceOr::Kernel
        }
    }

    /// A flow as it stands.
    pub(super) fn report(&self, local: SocketAddr) -> Option<FlowReport> {
        let entry = self.entries.get(&local)?;
        // Its packets are carried as those of the flow that it is joined with.
        let with = entry.joined.map(|joined| joined.with);
        let carried = with.and_then(|with| self.entries.get(&with)).unwrap_or(entry);
        let hop = carried.published.and_then(|published| published.hop);
        let carrier = match carried.carrier {
            UserspaceOr::Learning => Carrier::Learning,
            UserspaceOr::Blocked => Carrier::Blocked,
            UserspaceOr::Userspace(reason) => Carrier::Userspace { reason },
            UserspaceOr::Kernel => match (hop.and_then(|hop| self.next_hops.missing(hop)), with) {
                (Some(why), _) => Carrier::AwaitingNextHop { why },
                (None, Some(with)) => Carrier::Joined { with },
                (None, None) => Carrier::Kernel,
            },
        };
        Some(FlowReport {
            spec: entry.spec.clone(),
            carrier,
            learned: entry.learned,
            destination: self.destination(local),
            stats: self.statistics(entry),
            refused: entry.refused.clone(),
            refused_packets: entry.refused_packets,
        })
    }

    /// The local addresses of all flows.
    pub(super) fn locals(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.keys().copied()
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
            totals.entry(entry.spec.from).or_default().add(&self.statistics(entry));
        }
        totals
    }

    /// The flows whose packets are counted at a place in the statistics, each with that of the other direction; for
    /// copies of RTCP packets.
    pub(super) fn counted_at(&self, stats: u32) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let first = self.owners.get(&stats).copied();
        let joined = first.and_then(|local| self.entries.get(&local)).into_iter();
        let all = first.into_iter().chain(joined.flat_map(|entry| entry.through.iter().copied()));
        all.filter_map(|local| Some((local, self.entries.get(&local)?.spec.out_source)))
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

impl Entry {
    fn refuse(&mut self, arrival: &Arrival<'_>) {
        self.refused_packets += 1;
        if let Some(known) = self.refused.iter_mut().find(|refused| refused.source == arrival.source) {
            known.packets += 1;
        } else if self.refused.len() < REMEMBERED_REFUSALS {
            self.refused.push(RefusedSource {
                source: arrival.source,
                packets: 1,
                first_unix_ms: arrival.unix_ms,
            });
        }
    }
}

/// Whether policy lets a flow learn this source.
fn allowed(spec: &FlowSpec, source: SocketAddr) -> bool {
    match (spec.latching, spec.signalled) {
        (Latching::Any, _) => true,
        (Latching::Signalled, Some(signalled)) => source == signalled,
        (Latching::SameAddress, Some(signalled)) => source.ip() == signalled.ip(),
        (Latching::Signalled | Latching::SameAddress, None) => false,
    }
}

/// Counts a packet's arrival as the kernel would.
fn count(stats: &mut FlowStats, arrival: &Arrival<'_>, content: Payload, ticks: u32) {
    stats.last_seen_ns = arrival.monotonic_ns;
    stats.dscp = arrival.type_of_service >> relay_ebpf::headers::DSCP_SHIFT;
    match content {
        Payload::Rtp => {
            if let Some(Ok((header, _))) = arrival.payload.get(..RTP_LENGTH).map(RtpHeader::ref_from_prefix) {
                stats.record_rtp(header, arrival.monotonic_ns, ticks);
            }
        }
        Payload::Rtcp => stats.rtcp_packets = stats.rtcp_packets.wrapping_add(1),
        Payload::Stun | Payload::Dtls | Payload::Other => {}
    }
}

/// The kernel's record of a flow whose packets leave as those of `last`, but for what depends on a learned source.
fn kernel_flow(spec: &FlowSpec, last: &FlowSpec, stats: u32, carrier: UserspaceOr) -> Flow {
    let state = match carrier {
        UserspaceOr::Learning => FlowState::Learning,
        UserspaceOr::Kernel => FlowState::Forwarding,
        UserspaceOr::Blocked => FlowState::Blocked,
        UserspaceOr::Userspace(_) => FlowState::Userspace,
    };
    let mut flow = Flow {
        state: state as u8,
        kind: spec.kind as u8,
        type_of_service: last.dscp.map_or(0, |dscp| dscp.type_of_service()),
        flags: if last.dscp.is_none() { Flow::KEEP_DSCP } else { 0 },
        out_source_port: last.out_source.port().to_be_bytes(),
        stats,
        clock_ticks: clock_ticks(spec.clock_rate),
        ..Flow::default()
    };
    match last.out_source.ip() {
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

fn set_destination(flow: &mut Flow, destination: SocketAddr) {
    flow.out_destination_port = destination.port().to_be_bytes();
    match destination.ip() {
        IpAddr::V4(address) => flow.out_destination_address = address.octets(),
        IpAddr::V6(address) => flow.out_destination_ipv6 = Ipv6Address::new(address.octets()),
    }
}

#[cfg(test)]
mod tests;
