//! What every receiving task looks up for a packet: one entry for each flow, found by its local port, with all that is
//! decided of packets from the source that the flow has learned.
//!
//! [`Flows`](super::flows::Flows) knows how a flow came to what it is, and is behind one lock; a packet of a flow that
//! stands needs none of that. So whatever changes a flow writes its [`Path`] here, just as it writes the kernel's record,
//! and a packet takes the lock of its own port for the moment in which it is counted: tasks on different cores meet only
//! where they have packets of the same flow. A flow that learns, that has forks or that is joined with another leg has no
//! path, and its packets are for `Flows`.
//!
//! Invariants: who holds `Flows` may take a port's lock, and never the other way round. What packets change of a flow
//! ([`Live`], its statistics) is changed under its port's lock by whoever changes it. A path is what
//! [`Flows::path`](super::flows::Flows::path) makes of its flow: there is none while signalling changes it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use relay_ebpf::{
    FlowKind, FlowStats, Reason,
    guard::Rate,
    headers::{ECN_BITS, IPV4_LENGTH, IPV6_LENGTH, UDP_LENGTH},
    relay::accept,
    rtp::{Payload, RTP_LENGTH, RtpHeader, classify},
};
use zerocopy::FromBytes as _;

use super::{
    flow::{RefusedSource, Refuser, Unprotected},
    shared::{SharedArray, near},
    tap::Tap,
    translation::{Translation, content},
};
use crate::{
    net::{Dscp, NetworkId},
    srtp::Content,
};

/// Ports of UDP.
const PORTS: usize = 1 << 16;
/// Refused sources that a flow remembers; more are only counted.
pub(super) const REMEMBERED_REFUSALS: usize = 8;
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

/// Who has copies of a flow's packets, and the networks that these come from and go to.
#[derive(Debug, Clone)]
pub(super) struct Watchers {
    pub taps: Vec<Tap>,
    pub from: NetworkId,
    pub to: NetworkId,
}

impl PartialEq for Watchers {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Tap, &Tap)| one.is_same(other);
        (self.from, self.to, self.taps.len()) == (other.from, other.to, other.taps.len())
            && self.taps.iter().zip(&other.taps).all(same)
    }
}

/// How packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    /// Where from.
    pub source: SocketAddr,
    /// Where to; none if the other party wants none.
    pub destination: Option<SocketAddr>,
    /// The code point that they leave with; none to leave it as it came.
    pub dscp: Option<Dscp>,
}

impl Exit {
    /// How this packet leaves; of a flow that counts there.
    ///
    /// # Errors
    /// [`Reason::Blocked`] if it goes nowhere.
    pub(super) fn take(
        self,
        arrival: &Arrival<'_>,
        content: Payload,
        stats: u32,
    ) -> Result<Departure, Reason> {
        let destination = self.destination.ok_or(Reason::Blocked)?;
        let type_of_service = match self.dscp {
            Some(dscp) => dscp.type_of_service() | arrival.type_of_service & ECN_BITS,
            None => arrival.type_of_service,
        };
        let ip = if arrival.local.is_ipv6() { IPV6_LENGTH } else { IPV4_LENGTH };
        let bytes = (arrival.payload.len() + UDP_LENGTH + ip) as u64;
        Ok(Departure { source: self.source, destination, type_of_service, content, stats, bytes })
    }
}

/// What is decided of the packets of a flow that has learned its source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    /// Its source; nothing else may send.
    pub source: SocketAddr,
    pub kind: FlowKind,
    /// Where it is counted.
    pub stats: u32,
    /// As [`FlowStats::record_rtp`] wants it.
    pub clock_ticks: u32,
    pub rate: Rate,
    pub exit: Exit,
    /// For RTCP that comes multiplexed, in a place of its own: of most flows it does not.
    pub rtcp: Option<Box<Exit>>,
    pub srtp: Option<Arc<Translation>>,
    pub watchers: Option<Arc<Watchers>>,
}

/// What packets change of a flow.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    /// The time up to which the stream's rate is used.
    pub rate: u64,
    /// Made when the first one is refused: of most flows none is.
    refusals: Option<Box<Refusals>>,
}

/// Packets of a flow that went nowhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    pub sources: Vec<RefusedSource>,
    /// Packets refused before a source was learned.
    pub packets: u64,
    pub srtp: Unprotected,
}

impl Live {
    /// Remembers where a packet came from that may not.
    pub(super) fn refuse(&mut self, arrival: &Arrival<'_>, reason: Reason) {
        let refusals = self.refusals.get_or_insert_default();
        if reason == Reason::SourceRefused {
            refusals.packets += 1;
        }
        if let Some(known) = refusals.sources.iter_mut().find(|refused| refused.source == arrival.source) {
            known.packets += 1;
            known.last_unix_ms = arrival.unix_ms;
        } else if refusals.sources.len() < REMEMBERED_REFUSALS {
            refusals.sources.push(RefusedSource {
                source: arrival.source,
                packets: 1,
                first_unix_ms: arrival.unix_ms,
                last_unix_ms: arrival.unix_ms,
                by: Refuser::Userspace,
            });
        }
    }

    /// What was refused so far.
    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.as_deref().cloned().unwrap_or_default()
    }

    fn unprotected(&mut self, reason: Reason) {
        let srtp = &mut self.refusals.get_or_insert_default().srtp;
        match reason {
            Reason::SrtpAuthentication => srtp.authentication += 1,
            Reason::SrtpReplay | Reason::SrtpSources => srtp.replay += 1,
            _ => {}
        }
    }
}

/// A flow's entry.
#[derive(Debug)]
struct Place {
    address: IpAddr,
    live: Live,
    path: Option<Path>,
}

/// What becomes of a packet.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It leaves.
    Go(Departure),
    /// It is to be read first, and looked up again as [`Paths::read`].
    Translate(Arc<Translation>, Content),
    /// It goes nowhere.
    Refused(Reason),
}

impl From<Result<Departure, Reason>> for Verdict {
    fn from(result: Result<Departure, Reason>) -> Self {
        result.map_or_else(Self::Refused, Self::Go)
    }
}

/// What is known of a packet without asking for more.
#[derive(Debug)]
pub(super) enum Look {
    /// What becomes of it, and who is to have copies.
    Decided(Verdict, Option<Arc<Watchers>>),
    /// The flow has no path: [`super::flows::Flows`] decides.
    Ask,
}

/// All paths.
#[derive(Debug)]
pub(super) struct Paths {
    /// By port: the flows there, of each address at most one.
    ports: Box<[Mutex<Vec<Place>>]>,
    /// How many flows are checked by ICE: while none is, nobody looks for checks.
    checked: AtomicUsize,
    stats: Arc<SharedArray<FlowStats>>,
}

impl Paths {
    /// None yet; what packets are counted in is given.
    pub(super) fn new(stats: Arc<SharedArray<FlowStats>>) -> Self {
        let ports = (0..PORTS).map(|_| Mutex::default()).collect();
        Self { ports, checked: AtomicUsize::new(0), stats }
    }

    /// Whether any flow is checked by ICE.
    pub(super) fn has_checks(&self) -> bool {
        self.checked.load(Ordering::Relaxed) > 0
    }

    /// Notes how many flows are checked by ICE.
    pub(super) fn set_checks(&self, flows: usize) {
        self.checked.store(flows, Ordering::Relaxed);
    }

    /// Makes an entry for a flow, unless it has one.
    pub(super) fn enter(&self, local: SocketAddr) {
        let mut places = self.at(local);
        if !places.iter().any(|place| place.address == local.ip()) {
            // Mostly the only one of its port: room for four, which a vector takes by itself, is a kilobyte a flow.
            places.reserve_exact(1);
            places.push(Place { address: local.ip(), live: Live::default(), path: None });
        }
    }

    /// Takes a flow's entry away. Packets that come later belong to nobody.
    pub(super) fn leave(&self, local: SocketAddr) {
        let mut places = self.at(local);
        places.retain(|place| place.address != local.ip());
        places.shrink_to_fit();
    }

    /// What is decided from now on.
    pub(super) fn set(&self, local: SocketAddr, path: Option<Path>) {
        if let Some(place) = self.at(local).iter_mut().find(|place| place.address == local.ip()) {
            place.path = path;
        }
    }

    /// Reads or changes what packets change; not while a packet does. None if there is no such flow.
    pub(super) fn live<T>(&self, local: SocketAddr, work: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut places = self.at(local);
        let place = places.iter_mut().find(|place| place.address == local.ip())?;
        Some(work(&mut place.live))
    }

    /// What is decided at the moment.
    #[cfg(test)]
    pub(super) fn path(&self, local: SocketAddr) -> Option<Path> {
        self.at(local).iter().find(|place| place.address == local.ip())?.path.clone()
    }

    /// Has what is known of a batch of packets brought near before they are looked up one by one: a call's own memory was
    /// last used 20 ms ago, and much has gone through the cache since.
    pub(super) fn expect(&self, locals: impl Iterator<Item = SocketAddr> + Clone) {
        for local in locals.clone() {
            near(&self.ports[usize::from(local.port())]);
        }
        for local in locals.clone() {
            if let Some(place) = self.at(local).first() {
                near(place);
            }
        }
        for local in locals {
            if let Some(Place { path: Some(path), .. }) = self.at(local).first() {
                self.stats.near(path.stats);
            }
        }
    }

    /// Looks up a packet as it came, and counts it if it goes as it is.
    pub(super) fn look(&self, arrival: &Arrival<'_>) -> Look {
        self.decide(arrival, None)
    }

    /// Looks up a packet that was read by this translation, and counts it.
    pub(super) fn read(&self, arrival: &Arrival<'_>, by: &Translation) -> Look {
        self.decide(arrival, Some(by))
    }

    fn decide(&self, arrival: &Arrival<'_>, by: Option<&Translation>) -> Look {
        let mut places = self.at(arrival.local);
        let Some(place) = places.iter_mut().find(|place| place.address == arrival.local.ip()) else {
            return Look::Decided(Verdict::Refused(Reason::NoFlow), None);
        };
        let Place { live, path: Some(path), .. } = place else { return Look::Ask };
        Look::Decided(path.decide(live, arrival, by, &self.stats), path.watchers.clone())
    }

    /// Counts a packet that SRTP refused.
    pub(super) fn srtp_refused(&self, local: SocketAddr, reason: Reason) {
        self.live(local, |live| live.unprotected(reason));
    }

    /// Charges a packet that was sent on.
    pub(super) fn sent(&self, departure: &Departure) {
        self.stats.add_to_word(departure.stats, RELAYED_WORD, 1);
        self.stats.add_to_word(departure.stats, RELAYED_WORD + 1, departure.bytes);
    }

    fn at(&self, local: SocketAddr) -> MutexGuard<'_, Vec<Place>> {
        // There are as many as a port has values.
        self.ports[usize::from(local.port())].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path {
    fn decide(
        &self,
        live: &mut Live,
        arrival: &Arrival<'_>,
        by: Option<&Translation>,
        stats: &SharedArray<FlowStats>,
    ) -> Verdict {
        let what = match what(self.kind, arrival.payload) {
            Ok(what) => what,
            Err(reason) => return Verdict::Refused(reason),
        };
        if arrival.source != self.source {
            live.refuse(arrival, Reason::WrongSource);
            stats.change(self.stats, |stats| stats.wrong_source = stats.wrong_source.wrapping_add(1));
            return Verdict::Refused(Reason::WrongSource);
        }
        match (&self.srtp, by, content(what)) {
            (Some(translation), None, Some(content)) => {
                return Verdict::Translate(translation.clone(), content);
            }
            // Signalling may have changed the key while the packet was read.
            (srtp, Some(by), _) if srtp.as_deref() != Some(by) => return Verdict::Refused(Reason::NoFlow),
            _ => {}
        }
        if !self.rate.admits(&mut live.rate, arrival.monotonic_ns) {
            return Verdict::Refused(Reason::FlowRate);
        }
        stats.change(self.stats, |stats| count(stats, arrival, what, self.clock_ticks));
        let exit = match &self.rtcp {
            Some(rtcp) if what == Payload::Rtcp => rtcp,
            _ => &self.exit,
        };
        exit.take(arrival, what, self.stats).into()
    }
}

/// What a packet of a flow of this kind is.
///
/// # Errors
/// The reason why it is none of the flow's.
pub(super) fn what(kind: FlowKind, payload: &[u8]) -> Result<Payload, Reason> {
    if kind == FlowKind::Opaque {
        return Ok(Payload::Other);
    }
    let first = *payload.first().ok_or(Reason::TooShort)?;
    let second = payload.get(1).copied().unwrap_or_default();
    match accept(kind as u8, classify(first, second), payload.len()) {
        Err(Reason::Stun) => Ok(Payload::Stun),
        Err(Reason::Dtls) => Ok(Payload::Dtls),
        result => result,
    }
}

/// Counts a packet's arrival as the kernel would.
pub(super) fn count(stats: &mut FlowStats, arrival: &Arrival<'_>, content: Payload, ticks: u32) {
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
