//! The userspace relay on a test bed: packets are handed to it without any socket, and what it would send is counted. For
//! the count of its instructions; the kernel's program has [`super::kernel::bed`].

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use relay_ebpf::FlowStats;
use tokio::sync::mpsc;

use super::{
    flow::FlowSpec,
    flows::Flows,
    relay::{Received, Scratch, Shared},
    shared::SharedArray,
};

/// Flows that a bed has room for.
const FLOWS: u32 = 16;
/// Copies of RTCP that wait; nobody fetches them.
const COPIES: usize = 1;

/// A packet as a socket would hand it over.
#[derive(Debug, Clone, Copy)]
pub struct Handed<'a> {
    /// Where it arrived.
    pub local: SocketAddr,
    /// Where it came from.
    pub source: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

/// The relay with flows of its own, as where no kernel program is to be had.
pub struct RelayBed {
    shared: Shared,
    scratch: Scratch,
    _copies: mpsc::Receiver<super::RtcpPacket>,
}

impl RelayBed {
    /// A relay that carries this flow; none if it cannot be installed.
    #[must_use]
    pub fn new(spec: FlowSpec) -> Option<Self> {
        let flows = Flows::new(SharedArray::<FlowStats>::on_heap(FLOWS), None, Vec::new());
        let (rtcp, copies) = mpsc::channel(COPIES);
        let shared = Shared::new(flows, rtcp);
        let flows: &Mutex<Flows> = &shared.flows;
        flows.lock().unwrap_or_else(PoisonError::into_inner).install(Instant::now(), spec).ok()?;
        Some(Self { shared, scratch: Scratch::default(), _copies: copies })
    }

    /// Decides on a packet as one that came alone, and says how many were to be sent: one, or none.
    pub fn relay(&mut self, packet: Handed<'_>) -> usize {
        let received = Received {
            local: packet.local,
            source: packet.source,
            type_of_service: 0,
            stamp_ns: None,
            payload: packet.payload,
        };
        let mut sent = 0;
        self.shared.relay(&[received], &mut self.scratch, |leaving, _| sent = leaving.len());
        sent
    }
}
