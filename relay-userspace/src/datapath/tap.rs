//! Copies of packets for somebody who looks at a call: made only for flows with a tap, and never waited for.
//!
//! A tap's queue is bounded in packets and in bytes. What finds no room in it is counted and lost; the packet itself
//! goes its way. Invariant: offering a copy never blocks, and a flow without a tap costs nothing more than before.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::shared::realtime_ns;
use crate::net::NetworkId;

/// Packets that wait: ten seconds of a call with one stream in each direction, seen on both sides.
const QUEUE: usize = 2048;
/// Bytes of payload that wait. A packet can have 64 KiB, so that the number alone is no bound.
const QUEUE_BYTES: usize = 4 << 20;

/// Which way a packet went, as the appliance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// It arrived.
    In,
    /// It left.
    Out,
}

/// A copy of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketCopy {
    /// When it arrived or left, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// The network that it was on.
    pub network: NetworkId,
    /// Which way it went.
    pub way: Way,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Its type-of-service byte.
    pub type_of_service: u8,
    /// What it carried.
    pub payload: Bytes,
    /// What else is to be known of it.
    pub remark: Option<String>,
}

/// What both ends of a tap share.
#[derive(Debug)]
struct Shared {
    queued: AtomicUsize,
    /// Copies that found no room, by network.
    dropped: Vec<AtomicU64>,
}

/// Where copies are put.
#[derive(Debug, Clone)]
pub struct Tap {
    sender: mpsc::Sender<PacketCopy>,
    shared: Arc<Shared>,
}

/// Where copies come out.
#[derive(Debug)]
pub struct Tapped {
    receiver: mpsc::Receiver<PacketCopy>,
    shared: Arc<Shared>,
}

impl Tap {
    /// A tap of a host with so many networks.
    #[must_use]
    pub fn new(networks: usize) -> (Self, Tapped) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let dropped = (0..networks).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { queued: AtomicUsize::new(0), dropped });
        (Self { sender, shared: Arc::clone(&shared) }, Tapped { receiver, shared })
    }

    /// Puts a copy there, if there is room.
    pub fn offer(&self, copy: PacketCopy) {
        let (network, bytes) = (copy.network, copy.payload.len());
        let before = self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= QUEUE_BYTES;
        if fits && self.sender.try_send(copy).is_ok() {
            return;
        }
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(dropped) = self.shared.dropped.get(network.index()).filter(|_| !self.is_closed()) {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether copies come out at the same end.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether nobody takes copies any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Tapped {
    /// Waits for copies, at most so many; none once the tap is gone and all were taken.
    pub async fn next(&mut self, most: usize) -> Vec<PacketCopy> {
        let mut copies = Vec::new();
        self.receiver.recv_many(&mut copies, most).await;
        self.taken(&copies);
        copies
    }

    /// Takes no more, and gives what still waits.
    pub fn close(&mut self) -> Vec<PacketCopy> {
        self.receiver.close();
        let mut copies = Vec::new();
        while let Ok(copy) = self.receiver.try_recv() {
            copies.push(copy);
        }
        self.taken(&copies);
        copies
    }

    /// Copies that found no room so far, by network.
    #[must_use]
    pub fn dropped(&self) -> Vec<u64> {
        self.shared.dropped.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn taken(&self, copies: &[PacketCopy]) {
        let bytes: usize = copies.iter().map(|copy| copy.payload.len()).sum();
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Now, in nanoseconds since 1970.
#[must_use]
pub fn unix_ns() -> u64 {
    realtime_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(network: u16, bytes: usize) -> PacketCopy {
        PacketCopy {
            unix_ns: 0,
            network: NetworkId(network),
            way: Way::In,
            source: "10.61.0.11:4000".parse().unwrap(),
            destination: "10.61.0.1:16384".parse().unwrap(),
            type_of_service: 0,
            payload: Bytes::from(vec![0; bytes]),
            remark: None,
        }
    }

    #[tokio::test]
    async fn a_full_queue_loses_copies_and_counts_them_by_network() {
        let (tap, mut tapped) = Tap::new(2);
        for _ in 0..QUEUE + 3 {
            tap.offer(copy(1, 172));
        }
        tap.offer(copy(0, 172));
        assert_eq!(tapped.dropped(), [1, 3]);
        assert_eq!(tapped.next(QUEUE * 2).await.len(), QUEUE);
        tap.offer(copy(0, 172));
        assert_eq!((tapped.close().len(), tapped.dropped()), (1, vec![1, 3]));
    }

    #[tokio::test]
    async fn large_packets_are_bounded_by_their_bytes() {
        let (tap, mut tapped) = Tap::new(1);
        let fit = QUEUE_BYTES / 65_507;
        for _ in 0..fit + 2 {
            tap.offer(copy(0, 65_507));
        }
        assert_eq!((tapped.next(QUEUE).await.len(), tapped.dropped()), (fit, vec![2]));
        tap.offer(copy(0, 65_507));
        assert_eq!(tapped.next(QUEUE).await.len(), 1, "what was taken makes room");
    }

    #[test]
    fn copies_for_a_tap_that_is_closed_are_not_counted_as_lost() {
        let (tap, mut tapped) = Tap::new(1);
        tapped.close();
        tap.offer(copy(0, 172));
        assert!(tap.is_closed());
        assert_eq!(tapped.dropped(), [0]);
    }
}
