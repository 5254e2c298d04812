//! Moves the packets that the kernel passes up: receives in batches, asks [`Flows`] what to do with each,
//! and sends in batches.
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
    cell::RefCell,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use relay_ebpf::{Reason, rtp::Payload, tables::Latency};
use tokio::sync::mpsc;

use batch::BATCH;
pub(super) use batch::{ReceiveBatch, Received};
pub(super) use ports::PortSockets;
pub(super) use steered::{SteeredSockets, bind_steered};

use super::{
    flows::{Arrival, Departure, Flows},
    shared::{monotonic_ns, realtime_ns},
    tap::{PacketCopy, Tap, Way},
    translation::Translation,
};
use crate::{net::NetworkId, srtp::Content};

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
    taps: Vec<Tap>,
    from: NetworkId,
    to: NetworkId,
    payload: Bytes,
    /// When it arrived, in nanoseconds since 1970.
    at: u64,
}

impl Copied {
    fn offer(&self, copy: &PacketCopy) {
        for tap in &self.taps {
            tap.offer(copy.clone());
        }
    }

    /// As it came; with the reason, if it goes nowhere.
    fn arrived(&self, received: &Received<'_>, refused: Option<&Reason>) {
        self.offer(&PacketCopy {
            unix_ns: self.at,
            network: self.from,
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
            network: self.to,
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
    pub counters: Arc<Counters>,
    pub rtcp: mpsc::Sender<RtcpPacket>,
    /// Woken when flows want next hops looked up.
    pub wanted: Arc<tokio::sync::Notify>,
}

impl Shared {
    /// Relays one batch; `send` sends one packet and says whether it went.
    pub(super) fn relay(&self, batch: &[Received<'_>], mut send: impl FnMut(&Departure, &[u8]) -> bool) {
        let (now, monotonic, realtime) = (Instant::now(), monotonic_ns(), realtime_ns());
        let mut departures = Vec::with_capacity(batch.len());
        let mut translated = Vec::new();
        let wanted = {
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            for received in batch {
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
                let copied = flows.taps(received.local).map(|(taps, from, to)| {
                    let payload = Bytes::copy_from_slice(received.payload);
                    Copied { taps, from, to, payload, at: received.stamp_ns.unwrap_or(realtime) }
                });
                if let Some((by, content)) = flows.translation(&arrival) {
                    translated.push(Translated { received: *received, arrival, copied, by, content });
                    continue;
                }
                let decision = flows.packet(now, &arrival);
                if let Some(copied) = &copied {
                    copied.arrived(received, decision.as_ref().err());
                }
                match decision {
                    Ok(departure) => departures.push((departure, *received, arrival.monotonic_ns, copied)),
                    Err(reason) => self.counters.count(reason),
                }
            }
            flows.wants_next_hops()
        };
        if wanted {
            self.wanted.notify_one();
        }
        let mut sent = Vec::with_capacity(departures.len());
        for (departure, received, arrived_ns, copied) in &departures {
            if send(departure, received.payload) {
                sent.push(*departure);
                if let Some(copied) = copied {
                    copied.left(departure, None);
                }
                if departure.content == Payload::Rtcp {
                    // A full queue loses the copy, never the packet.
                    let _ = self.rtcp.try_send(RtcpPacket {
                        local: received.local,
                        pair: departure.source,
                        arrived_ns: *arrived_ns,
                        payload: received.payload.to_vec(),
                    });
                }
            } else {
                self.counters.count(Reason::SendFailed);
            }
        }
        for packet in &translated {
            SCRATCH.with_borrow_mut(|scratch| match self.translate(now, packet, scratch, &mut send) {
                Ok(departure) => sent.push(departure),
                Err(reason) => {
                    self.counters.count(reason);
                    self.flows
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .srtp_refused(packet.received.local, reason);
                    // Of one that could not be sent, the arrival has been told.
                    if let Some(copied) = packet.copied.as_ref().filter(|_| reason != Reason::SendFailed) {
                        copied.arrived(&packet.received, Some(&reason));
                    }
                }
            });
        }
        if let Some(stamp) = departures.first().and_then(|(_, received, ..)| received.stamp_ns) {
            self.counters.sample(realtime_ns().saturating_sub(stamp));
        }
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        for departure in &sent {
            flows.sent(departure);
        }
    }

    /// Checks and reads a packet, asks where it goes, and writes it anew. Only the key's own state is locked for the
    /// ciphers, never the flows.
    fn translate(
        &self,
        now: Instant,
        packet: &Translated<'_>,
        scratch: &mut Vec<u8>,
        send: &mut impl FnMut(&Departure, &[u8]) -> bool,
    ) -> Result<Departure, Reason> {
        let Translated { received, arrival, copied, by, content } = packet;
        scratch.clear();
        scratch.extend_from_slice(received.payload);
        by.open(*content, scratch)?;
        let mut departure = {
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            flows.translated(now, &Arrival { payload: scratch, ..*arrival }, by)?
        };
        departure.bytes += received.payload.len().saturating_sub(scratch.len()) as u64;
        let report = (*content == Content::Rtcp).then(|| scratch.clone());
        by.seal(*content, scratch)?;
        if let Some(copied) = copied {
            copied.arrived(received, None);
        }
        if !send(&departure, scratch) {
            return Err(Reason::SendFailed);
        }
        if let Some(copied) = copied {
            copied.left(&departure, Some(scratch));
        }
        if let Some(payload) = report {
            // A full queue loses the copy, never the packet.
            let (local, pair) = (received.local, departure.source);
            let _ = self.rtcp.try_send(RtcpPacket { local, pair, arrived_ns: arrival.monotonic_ns, payload });
        }
        Ok(departure)
    }
}

/// A packet that is translated before anything is learned from it.
struct Translated<'a> {
    received: Received<'a>,
    arrival: Arrival<'a>,
    copied: Option<Copied>,
    by: Translation,
    content: Content,
}

thread_local! {
    // One for each worker thread, which grows to the longest packet it has met.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
            forks: Vec::new(),
        };
        flows.install(Instant::now(), spec).unwrap();
        let (rtcp, _copies) = mpsc::channel(1);
        let shared = Shared {
            flows: Arc::new(Mutex::new(flows)),
            counters: Arc::default(),
            rtcp,
            wanted: Arc::default(),
        };
        let received = Received {
            local: at("10.61.0.1:16384"),
            source: at("10.61.0.11:4000"),
            type_of_service: 0,
            stamp_ns: None,
            payload: b"fax",
        };
        let mut sent = 0;
        shared.relay(&[received], |_, _| {
            sent += 1;
            true
        });
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
            srtp: Some(Translation {
                from: Incoming::Keyed(Arc::new(Inbound::new(key(1)))),
                to: Outgoing::Keyed(Arc::new(Outbound::new(key(2)))),
            }),
            forks: Vec::new(),
        };
        flows.install(Instant::now(), spec).unwrap();
        let (rtcp, _copies) = mpsc::channel(1);
        let shared = Shared {
            flows: Arc::new(Mutex::new(flows)),
            counters: Arc::default(),
            rtcp,
            wanted: Arc::default(),
        };
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut relay = |source, payload: &[u8]| {
            let received = Received { local, source, type_of_service: 0, stamp_ns: None, payload };
            shared.relay(&[received], |_, payload| {
                sent.push(payload.to_vec());
                true
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
