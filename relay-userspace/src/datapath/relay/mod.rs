//! Moves the packets that the kernel passes up: receives in batches, looks up in [`Paths`] what to do with each (or asks
//! [`Flows`], where that is not decided yet), and sends in batches.
//!
//! Invariant: packets of a flow leave in the order in which they came, whatever becomes of others of their batch.
//!
//! Two ways to receive and send, with one surface:
//!
//! - *steered*: the kernel's `sk_lookup` program hands packets of all media ports to one socket a core,
//!   which learns the original port from a control message; packets leave by one raw socket.
//! - *ports*: a socket for each port, where BPF is not to be had.

mod batch;
mod ports;
mod steered;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arrayvec::ArrayVec;
use bytes::Bytes;
use relay_ebpf::{Reason, rtp::Payload, tables::Latency};
use tokio::sync::mpsc;

use batch::BATCH;
pub(super) use batch::{ReceiveBatch, Received};
pub(super) use ports::PortSockets;
pub use ports::{PortError, SocketUse};
pub(super) use steered::{SteeredSockets, bind_steered};

use super::{
    flows::Flows,
    ice::may_be_check,
    paths::{Arrival, Departure, Look, Paths, Verdict, Watchers},
    shared::{monotonic_ns, realtime_ns},
    tap::{PacketCopy, Way},
    translation::Translation,
};
use crate::srtp::Content;

/// An RTCP packet that passed, by either datapath.
#[derive(Debug, Clone)]
pub struct RtcpPacket {
    /// The flow that it belongs to.
    pub local: SocketAddr,
    /// The flow of the other direction.
    pub pair: SocketAddr,
    /// Arrival on the monotonic clock, in nanoseconds.
    pub arrived_ns: u64,
    /// Its beginning.
    pub payload: Vec<u8>,
}

/// What the relay counts beside the flows' own statistics.
#[derive(Debug)]
pub(super) struct Counters {
    /// Packets that came up and went nowhere, by reason.
    pub reasons: [AtomicU64; Reason::ALL.len()],
    /// Time from a packet's arrival at the kernel to its departure, of one packet in each batch.
    pub latency: Mutex<Latency>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { reasons: [const { AtomicU64::new(0) }; Reason::ALL.len()], latency: Mutex::default() }
    }
}

impl Counters {
    pub(super) fn count(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sample(&self, nanoseconds: u64) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.sum_ns = latency.sum_ns.wrapping_add(nanoseconds);
        if let Some(bucket) = latency.buckets.get_mut(Latency::bucket(nanoseconds)) {
            *bucket += 1;
        }
    }
}

/// A packet of which somebody wants copies.
struct Copied {
    watchers: Arc<Watchers>,
    payload: Bytes,
    /// When it arrived, in nanoseconds since 1970.
    at: u64,
}

impl Copied {
    fn offer(&self, copy: &PacketCopy) {
        for tap in &self.watchers.taps {
            tap.offer(copy.clone());
        }
    }

    /// As it came; with the reason, if it goes nowhere.
    fn arrived(&self, received: &Received<'_>, refused: Option<&Reason>) {
        self.offer(&PacketCopy {
            unix_ns: self.at,
            network: self.watchers.from,
            way: Way::In,
            source: received.source,
            destination: received.local,
            type_of_service: received.type_of_service,
            payload: self.payload.clone(),
            remark: refused.map(|reason| format!("not forwarded: {}", reason.label())),
        });
    }

    /// As it left: as it came, unless it was translated.
    fn left(&self, departure: &Departure, translated: Option<&[u8]>) {
        self.offer(&PacketCopy {
            unix_ns: realtime_ns(),
            network: self.watchers.to,
            way: Way::Out,
            source: departure.source,
            destination: departure.destination,
            type_of_service: departure.type_of_service,
            payload: translated.map_or_else(|| self.payload.clone(), Bytes::copy_from_slice),
            remark: None,
        });
    }
}

/// What every receiving task needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub flows: Arc<Mutex<Flows>>,
    pub paths: Arc<Paths>,
    pub counters: Arc<Counters>,
    pub rtcp: mpsc::Sender<RtcpPacket>,
    /// Woken when flows want next hops looked up.
    pub wanted: Arc<tokio::sync::Notify>,
}

/// A packet that leaves.
pub(super) struct Leaving<'a> {
    pub departure: Departure,
    /// What it carries as it leaves.
    pub payload: &'a [u8],
    received: &'a Received<'a>,
    /// On the monotonic clock, in nanoseconds.
    arrived_ns: u64,
    /// Whether it was read and written anew.
    translated: Option<InClear>,
    copied: Option<Copied>,
    /// Whether it is the appliance's own answer, which is nobody's media.
    own: bool,
}

#[cfg(test)]
impl<'a> Leaving<'a> {
    /// A packet that leaves as it came.
    fn of(departure: Departure, received: &'a Received<'a>, payload: &'a [u8]) -> Self {
        Self { departure, payload, received, arrived_ns: 0, translated: None, copied: None, own: false }
    }
}

/// What is kept of a translated packet as it could be read: all of RTCP, which is looked at.
struct InClear(Option<Vec<u8>>);

/// Which packets of a batch did not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Failed(u32);

const _: () = assert!(BATCH <= u32::BITS as usize, "a bit for each packet of a batch");

impl Failed {
    pub(super) fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    #[cfg(test)]
    fn of(indices: &[usize]) -> Self {
        let mut failed = Self::default();
        indices.iter().for_each(|index| failed.add(*index));
        failed
    }

    fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

/// Memory of a task or thread that relays: for what it receives, and for what it writes anew.
pub(super) struct Memory {
    pub batch: ReceiveBatch,
    pub scratch: Scratch,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { batch: ReceiveBatch::new(), scratch: Scratch::default() }
    }
}

/// Room to translate a batch in; each place grows to the longest packet that it has met.
#[derive(Default)]
pub(super) struct Scratch([Vec<u8>; BATCH]);

impl Shared {
    /// With these flows.
    pub(super) fn new(flows: Flows, rtcp: mpsc::Sender<RtcpPacket>) -> Self {
        Self {
            paths: flows.paths(),
            flows: Arc::new(Mutex::new(flows)),
            counters: Arc::default(),
            rtcp,
            wanted: Arc::default(),
        }
    }

    /// Relays one batch; `send` sends packets, in order, and says which ones did not go.
    pub(super) fn relay(
        &self,
        batch: &[Received<'_>],
        scratch: &mut Scratch,
        send: impl FnOnce(&[Leaving<'_>], &mut Failed),
    ) {
        let (now, monotonic, realtime) = (Instant::now(), monotonic_ns(), realtime_ns());
        let mut leaving: ArrayVec<Leaving<'_>, BATCH> = ArrayVec::new();
        let mut asked = None;
        for (received, scratch) in batch.iter().zip(&mut scratch.0) {
            // How long the packet lay in the socket's queue is known from the kernel's stamp.
            let waited = received.stamp_ns.map_or(0, |stamp| realtime.saturating_sub(stamp));
            let arrival = Arrival {
                local: received.local,
                source: received.source,
                type_of_service: received.type_of_service,
                payload: received.payload,
                monotonic_ns: monotonic.saturating_sub(waited),
                unix_ms: realtime / 1_000_000,
            };
            if self.paths.has_checks() && may_be_check(received.payload) {
                let flows =
                    asked.get_or_insert_with(|| self.flows.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(departure) = flows.check(now, &arrival, scratch) {
                    let (payload, arrived_ns) = (scratch.as_slice(), arrival.monotonic_ns);
                    leaving.push(Leaving {
                        departure,
                        payload,
                        received,
                        arrived_ns,
                        translated: None,
                        copied: None,
                        own: true,
                    });
                    continue;
                }
            }
            let (verdict, watchers) = match self.paths.look(&arrival) {
                Look::Decided(verdict, watchers) => (verdict, watchers),
                Look::Ask => self.ask(&mut asked, now, &arrival),
            };
            let copied = watchers.map(|watchers| {
                let payload = Bytes::copy_from_slice(received.payload);
                Copied { watchers, payload, at: received.stamp_ns.unwrap_or(realtime) }
            });
            let decision = match verdict {
                Verdict::Go(departure) => Ok((departure, received.payload, None)),
                Verdict::Refused(reason) => Err(reason),
                Verdict::Translate(by, content) => {
                    // Only the key's own state is locked for the ciphers, never the flows.
                    self.let_go(&mut asked);
                    let result = self.translate(now, &arrival, &by, content, scratch);
                    if let Err(reason) = &result {
                        self.paths.srtp_refused(received.local, *reason);
                    }
                    result.map(|(departure, clear)| (departure, scratch.as_slice(), Some(clear)))
                }
            };
            if let Some(copied) = &copied {
                copied.arrived(received, decision.as_ref().err());
            }
            match decision {
                Ok((departure, payload, translated)) => {
                    let arrived_ns = arrival.monotonic_ns;
                    leaving.push(Leaving {
                        departure,
                        payload,
                        received,
                        arrived_ns,
                        translated,
                        copied,
                        own: false,
                    });
                }
                Err(reason) => self.counters.count(reason),
            }
        }
        self.let_go(&mut asked);
        if leaving.is_empty() {
            return;
        }
        let mut failed = Failed::default();
        send(&leaving, &mut failed);
        for (index, packet) in leaving.iter_mut().enumerate() {
            if failed.has(index) {
                self.counters.count(Reason::SendFailed);
            } else {
                self.sent(packet);
            }
        }
        let stamped = leaving.iter().find(|packet| packet.translated.is_none());
        if let Some(stamp) = stamped.and_then(|packet| packet.received.stamp_ns) {
            self.counters.sample(realtime_ns().saturating_sub(stamp));
        }
    }

    /// Charges a packet that has left, and hands out what is wanted of it.
    fn sent(&self, packet: &mut Leaving<'_>) {
        let departure = &packet.departure;
        if packet.own {
            return;
        }
        self.paths.sent(departure);
        if let Some(copied) = &packet.copied {
            copied.left(departure, packet.translated.as_ref().map(|_| packet.payload));
        }
        if departure.content == Payload::Rtcp {
            let clear = packet.translated.as_mut().and_then(|clear| clear.0.take());
            // A full queue loses the copy, never the packet.
            let _ = self.rtcp.try_send(RtcpPacket {
                local: packet.received.local,
                pair: departure.source,
                arrived_ns: packet.arrived_ns,
                payload: clear.unwrap_or_else(|| packet.received.payload.to_vec()),
            });
        }
    }

    /// Has the flows decide on a packet. They stay locked: it may be the first of several.
    fn ask<'f>(
        &'f self,
        asked: &mut Option<MutexGuard<'f, Flows>>,
        now: Instant,
        arrival: &Arrival<'_>,
    ) -> (Verdict, Option<Arc<Watchers>>) {
        let flows = asked.get_or_insert_with(|| self.flows.lock().unwrap_or_else(PoisonError::into_inner));
        let watchers = flows.taps(arrival.local);
        let verdict = match flows.translation(arrival) {
            Some((by, content)) => Verdict::Translate(by, content),
            None => flows.packet(now, arrival).into(),
        };
        (verdict, watchers)
    }

    /// Unlocks the flows, if they were asked, and has next hops looked up that they want.
    fn let_go(&self, asked: &mut Option<MutexGuard<'_, Flows>>) {
        if asked.take().is_some_and(|flows| flows.wants_next_hops()) {
            self.wanted.notify_one();
        }
    }

    /// Checks and reads a packet, asks where it goes, and writes it anew.
    fn translate(
        &self,
        now: Instant,
        arrival: &Arrival<'_>,
        by: &Translation,
        content: Content,
        scratch: &mut Vec<u8>,
    ) -> Result<(Departure, InClear), Reason> {
        scratch.clear();
        scratch.extend_from_slice(arrival.payload);
        by.open(content, scratch)?;
        let clear = Arrival { payload: scratch, ..*arrival };
        let mut departure = match self.paths.read(&clear, by) {
            Look::Decided(Verdict::Go(departure), _) => departure,
            Look::Decided(Verdict::Refused(reason), _) => return Err(reason),
            Look::Decided(Verdict::Translate(..), _) | Look::Ask => {
                let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
                let departure = flows.translated(now, &clear, by);
                self.let_go(&mut Some(flows));
                departure?
            }
        };
        departure.bytes += arrival.payload.len().saturating_sub(scratch.len()) as u64;
        let report = (content == Content::Rtcp).then(|| scratch.clone());
        by.seal(content, scratch)?;
        Ok((departure, InClear(report)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use relay_ebpf::{FlowKind, FlowStats};
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        datapath::{
            Carrier, FlowSpec, Incoming, Outgoing, Unprotected, UserspaceReason, shared::SharedArray,
        },
        net::{Latching, NetworkId},
        srtp::{Inbound, MasterKey, Outbound, Suite},
    };

    #[test]
    fn a_batch_that_needs_no_next_hop_does_not_have_them_all_looked_at() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut flows = Flows::new(SharedArray::<FlowStats>::on_heap(4), None, Vec::new());
        let spec = FlowSpec {
            local: at("10.61.0.1:16384"),
            from: NetworkId(0),
            signalled: None,
            latching: Latching::Any,
            out_source: at("10.62.0.1:16384"),
            destination: Some(at("10.62.0.10:6000")),
            kind: FlowKind::Opaque,
            dscp: None,
            clock_rate: 8000,
            turns: 0,
            rtcp: None,
            srtp: None,
            ice: None,
            forks: Vec::new(),
        };
        flows.install(Instant::now(), spec).unwrap();
        let (rtcp, _copies) = mpsc::channel(1);
        let shared = Shared::new(flows, rtcp);
        let received = Received {
            local: at("10.61.0.1:16384"),
            source: at("10.61.0.11:4000"),
            type_of_service: 0,
            stamp_ns: None,
            payload: b"fax",
        };
        let mut sent = 0;
        shared.relay(&[received], &mut Scratch::default(), |leaving, _| sent += leaving.len());
        assert_eq!(sent, 1);
        assert!(shared.wanted.notified().now_or_never().is_none());
    }

    fn rtp(sequence: u16) -> Vec<u8> {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 160, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend([0x55; 160]);
        packet
    }

    fn key(byte: u8) -> MasterKey {
        let suite = Suite::AeadAes128Gcm;
        MasterKey::new(suite, Zeroizing::new(vec![byte; suite.key_length() + suite.salt_length()])).unwrap()
    }

    #[test]
    fn what_is_not_authentic_goes_nowhere_and_is_not_learned_from() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (local, phone, intruder) = (at("10.61.0.1:16384"), at("10.61.0.11:4000"), at("10.61.0.11:4444"));
        let mut flows = Flows::new(SharedArray::<FlowStats>::on_heap(4), None, Vec::new());
        let spec = FlowSpec {
            local,
            from: NetworkId(0),
            signalled: Some(phone),
            latching: Latching::SameAddress,
            out_source: at("10.62.0.1:16384"),
            destination: Some(at("10.62.0.10:6000")),
            kind: FlowKind::Rtp,
            dscp: None,
            clock_rate: 8000,
            turns: 0,
            rtcp: None,
            srtp: Some(Arc::new(Translation {
                from: Incoming::Keyed(Arc::new(Inbound::new(key(1)))),
                to: Outgoing::Keyed(Arc::new(Outbound::new(key(2)))),
            })),
            ice: None,
            forks: Vec::new(),
        };
        flows.install(Instant::now(), spec).unwrap();
        let (rtcp, _copies) = mpsc::channel(1);
        let shared = Shared::new(flows, rtcp);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut relay = |source, payload: &[u8]| {
            let received = Received { local, source, type_of_service: 0, stamp_ns: None, payload };
            shared.relay(&[received], &mut Scratch::default(), |leaving, _| {
                sent.extend(leaving.iter().map(|packet| packet.payload.to_vec()));
            });
        };
        let phone_key = Outbound::new(key(1));
        let mut packets: Vec<Vec<u8>> = (1..4).map(rtp).collect();
        for packet in &mut packets {
            phone_key.protect(Content::Rtp, packet).unwrap();
        }
        // In clear, with another key, from where the policy would let it come first: neither is sent nor latched.
        relay(intruder, &rtp(1));
        let mut forged = rtp(1);
        Outbound::new(key(3)).protect(Content::Rtp, &mut forged).unwrap();
        relay(intruder, &forged);
        let report = || shared.flows.lock().unwrap().report(local).unwrap();
        assert_eq!((report().learned, report().stats.packets()), (None, 0));
        relay(phone, &packets[0]);
        assert_eq!(report().learned.map(|(source, _)| source), Some(phone));
        let reason = UserspaceReason::Translated;
        assert_eq!(report().carrier, Carrier::Userspace { reason });
        // Again, and from elsewhere.
        relay(phone, &packets[0]);
        relay(intruder, &packets[1]);
        relay(phone, &packets[2]);
        let read = Inbound::new(key(2));
        let plain: Vec<Vec<u8>> = sent
            .into_iter()
            .map(|mut packet| {
                read.unprotect(Content::Rtp, &mut packet).unwrap();
                packet
            })
            .collect();
        assert_eq!(plain, [rtp(1), rtp(3)]);
        let counted = |reason: Reason| shared.counters.reasons[reason as usize].load(Ordering::Relaxed);
        let counts = [Reason::SrtpAuthentication, Reason::SrtpReplay, Reason::WrongSource].map(counted);
        assert_eq!(counts, [2, 1, 1]);
        assert_eq!(report().srtp_refused, Unprotected { authentication: 2, replay: 1 });
        // What arrived is what is charged: the tag too.
        let stats = report().stats;
        assert_eq!((stats.relayed_packets, stats.relayed_bytes), (2, 2 * (20 + 8 + 172 + 16)));
        assert_eq!((stats.expected(), stats.lost()), (3, 1));
    }
}
