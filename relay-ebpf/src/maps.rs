//! The maps, sized for the default; the daemon sets other sizes when it loads them.

use aya_ebpf::{
    macros::map,
    maps::{Array, DevMap, LruHashMap, PerCpuArray, RingBuf, SockMap},
};
use relay_ebpf::{
    Flow, FlowStats, LocalAddresses, NextHop, PortEntry,
    reason::REASONS,
    tables::{
        DEFAULT_FLOWS, Latency, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_REFUSED_SOURCES, MAX_RELAY_SOCKETS, PORTS,
        RefusedPackets, RefusedSource,
    },
};

/// Bytes of the ring of RTCP copies: some 1,500 packets between two looks of the daemon.
const RTCP_RING: u32 = 1 << 18;
/// The kernel's flag for arrays that a process may map into its memory (`linux/bpf.h`).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The daemon maps the shared tables into its memory: it installs a flow and reads its statistics
/// without a system call.
#[map(name = "LOCAL")]
pub static LOCAL: Array<LocalAddresses> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "PORTS")]
pub static PORT_ENTRIES: Array<PortEntry> = Array::with_max_entries(PORTS, BPF_F_MMAPABLE);
#[map(name = "FLOWS")]
pub static FLOWS: Array<Flow> = Array::with_max_entries(DEFAULT_FLOWS, BPF_F_MMAPABLE);
#[map(name = "STATS")]
pub static STATS: Array<FlowStats> = Array::with_max_entries(DEFAULT_FLOWS, BPF_F_MMAPABLE);
#[map(name = "NEXT_HOPS")]
pub static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(MAX_NEXT_HOPS, BPF_F_MMAPABLE);
#[map(name = "DEVICES")]
pub static DEVICES: DevMap = DevMap::with_max_entries(MAX_INTERFACES, 0);
#[map(name = "REASONS")]
pub static REASON_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);
#[map(name = "LATENCY")]
pub static LATENCY: PerCpuArray<Latency> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "RTCP")]
pub static RTCP: RingBuf = RingBuf::with_byte_size(RTCP_RING, 0);
#[map(name = "RELAY_SOCKETS")]
pub static RELAY_SOCKETS: SockMap = SockMap::with_max_entries(MAX_RELAY_SOCKETS, 0);
/// The sources that flows refused. Entries are given up for newer ones, which no session may be: none is here.
#[map(name = "REFUSED")]
pub static REFUSED: LruHashMap<RefusedSource, RefusedPackets> =
    LruHashMap::with_max_entries(MAX_REFUSED_SOURCES, 0);
