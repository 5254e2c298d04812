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
};
use crate::net::NetworkId;

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

    /// As it left.
    fn left(&self, departure: &Departure) {
        self.offer(&PacketCopy {
            unix_ns: realtime_ns(),
            network: self.to,
            way: Way::Out,
            source: departure.source,
            destination: departure.destination,
            type_of_service: departure.type_of_service,
            payload: self.payload.clone(),
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
                    copied.left(departure);
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
        if let Some(stamp) = departures.first().and_then(|(_, received, ..)| received.stamp_ns) {
            self.counters.sample(realtime_ns().saturating_sub(stamp));
        }
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        for departure in &sent {
            flows.sent(departure);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use relay_ebpf::{FlowKind, FlowStats};

    use super::*;
    use crate::{
        datapath::{FlowSpec, shared::SharedArray},
        net::{Latching, NetworkId},
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
}
