//! The maps, sized for the default; the daemon sets other sizes when it loads them. What the packet core does with them
//! is the same wherever it runs, and here too.

use core::{hint, ptr};

use aya_ebpf::{
    cty::{c_long, c_void},
    helpers::generated::bpf_map_lookup_elem,
    macros::map,
    maps::{Array, DevMap, LruHashMap, PerCpuArray, RingBuf, SockMap, lpm_trie::LpmTrie},
};
use relay_ebpf::{
    Flow, FlowStats, LocalAddresses, NextHop, PortEntry,
    guard::{Limits, Rate, SourceRule, Verdict},
    headers::Ipv6Address,
    reason::{REASONS, Reason},
    relay::Change,
    tables::{
        DEFAULT_FLOWS, Latency, MAX_BUCKETS, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_REFUSED_SOURCES,
        MAX_RELAY_SOCKETS, MAX_SOURCE_RULES, PORTS, RTCP_COPY, RefusedPackets, RefusedSource, RtcpCopy,
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

/// What SIP's ports may get.
#[map(name = "LIMITS")]
pub static LIMITS: Array<Limits> = Array::with_max_entries(1, 0);
/// What is done with the packets of sources.
#[map(name = "SOURCES")]
pub static SOURCES: LpmTrie<Ipv6Address, SourceRule> = LpmTrie::with_max_entries(MAX_SOURCE_RULES, 0);
/// The buckets of sources that send to SIP's ports. One that gives way begins anew with a full one.
#[map(name = "BUCKETS")]
pub static BUCKETS: LruHashMap<Ipv6Address, u64> = LruHashMap::with_max_entries(MAX_BUCKETS, 0);
/// The bucket of all sources that are not known.
#[map(name = "UNKNOWN")]
pub static UNKNOWN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A whole address as [`SOURCES`] takes it, laid out so that the address is aligned: on its stack the kernel wants every
/// word to be.
#[repr(C, align(8))]
struct SourceKey {
    padding: u32,
    bits: u32,
    address: Ipv6Address,
}

/// An address on the stack, likewise.
#[repr(C, align(8))]
struct Aligned(Ipv6Address);

/// The verdict on a source, as its number.
#[inline(always)]
pub fn verdict(source: &Ipv6Address) -> u32 {
    let key = SourceKey { padding: 0, bits: u128::BITS, address: *source };
    // SAFETY: the map is one, and from `bits` on the key is as long as the map's keys are. The pointer that comes back is
    // into the map, or null. Another CPU may count in the same moment, and one count be lost.
    unsafe {
        let found = bpf_map_lookup_elem((&raw const SOURCES).cast_mut().cast(), (&raw const key.bits).cast());
        let rule = found.cast::<SourceRule>();
        if rule.is_null() {
            return 0;
        }
        if (*rule).verdict == Verdict::Denied as u32 {
            (*rule).denied = (*rule).denied.wrapping_add(1);
        }
        (*rule).verdict
    }
}

/// Takes a token from the bucket of a source.
#[inline(always)]
pub fn take_from_source(rate: &Rate, source: &Ipv6Address, now_ns: u64) -> bool {
    let key = Aligned(*source);
    match BUCKETS.get_ptr_mut(&key.0) {
        // SAFETY: the pointer is into the map. Another CPU may take in the same moment, and one token be won.
        Some(bucket) => rate.admits(unsafe { &mut *bucket }, now_ns),
        None => {
            let mut bucket = 0;
            let admitted = rate.admits(&mut bucket, now_ns);
            let _ = BUCKETS.insert(&key.0, &bucket, 0);
            admitted
        }
    }
}

/// Takes a token from the bucket of all sources that are not known, of which each CPU has its own.
#[inline(always)]
pub fn take_from_unknown(rate: &Rate, now_ns: u64) -> bool {
    // SAFETY: the value is this CPU's own.
    UNKNOWN.get_ptr_mut(0).is_none_or(|bucket| rate.admits(unsafe { &mut *bucket }, now_ns))
}

/// Takes a packet from what the stream of the flow in a slot may have.
#[inline(always)]
pub fn within_rate(slot: u32, rate: &Rate, now_ns: u64) -> bool {
    // SAFETY: the pointer is into the map, and nobody else has a reference to this field of the record, which is the
    // kernel's own; a stream's packets come to one CPU.
    FLOWS.get_ptr_mut(slot).is_none_or(|flow| rate.admits(unsafe { &mut (*flow).rate }, now_ns))
}

/// Counts a packet that is not forwarded.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(count) = REASON_COUNTS.get_ptr_mut(reason as u32) {
        // SAFETY: the value is this CPU's own, and no other program that can interrupt this one writes it.
        unsafe { *count += 1 };
    }
}

/// The port entry at an index.
#[inline(always)]
pub fn port(index: u32) -> Option<PortEntry> {
    let entry = PORT_ENTRIES.get_ptr(index)?;
    // SAFETY: the pointer is into the map. It is read as one aligned word, as the daemon writes it.
    Some(PortEntry::of_word(unsafe { ptr::read_volatile(entry.cast::<u64>()) }))
}

/// Begins to read a flow's statistics.
#[inline(always)]
pub fn touch(index: u32) {
    if let Some(stats) = STATS.get_ptr(index) {
        // SAFETY: the pointer is into the map.
        let _ = unsafe { ptr::read_volatile(stats.cast::<u64>()) };
    }
}

/// Changes a flow's statistics.
#[inline(always)]
pub fn change_stats(index: u32, change: impl Change) {
    if let Some(stats) = STATS.get_ptr_mut(index) {
        // SAFETY: the pointer is into the map, whose value has this layout and no invalid bytes. A flow's packets come
        // to one CPU, so there is one writer; should the interface's queues be reassigned, a count may be off by a
        // packet, which is the price of not locking.
        change.apply(unsafe { &mut *stats });
    }
}

/// Notes that a packet came from a source that the flow refuses.
#[inline(always)]
pub fn refuse(source: &RefusedSource, now_ns: u64) {
    match REFUSED.get_ptr_mut(source) {
        // SAFETY: the pointer is into the map. Another CPU may count in the same moment, and one count be lost.
        Some(packets) => unsafe {
            (*packets).packets = (*packets).packets.wrapping_add(1);
            (*packets).last_ns = now_ns;
        },
        None => {
            let first = RefusedPackets { packets: 1, first_ns: now_ns, last_ns: now_ns };
            // Where there is no room, the flow's own counter has the packet.
            let _ = REFUSED.insert(source, &first, 0);
        }
    }
}

/// Notes how long the program took for a sampled packet.
#[inline(always)]
pub fn sample(elapsed_ns: u64) {
    let Some(latency) = LATENCY.get_ptr_mut(0) else { return };
    let bucket = Latency::bucket(elapsed_ns);
    // SAFETY: the value is this CPU's own; the bucket is checked against the array's length.
    unsafe {
        (*latency).sum_ns = (*latency).sum_ns.wrapping_add(elapsed_ns);
        if let Some(count) = (*latency).buckets.get_mut(bucket) {
            *count = count.wrapping_add(1);
        }
    }
}

/// Copies RTCP to userspace: `load` brings so many bytes of it to a place of at least that length, and gives 0.
#[inline(always)]
pub fn copy_rtcp(length: usize, stats: u32, now_ns: u64, load: impl FnOnce(*mut c_void, u32) -> c_long) {
    // The verifier must see both bounds in the register that the helper gets. Older verifiers (6.1) learn nothing from a
    // comparison with 0, so the lower bound is that of an addition.
    let behind_first = hint::black_box((length as u32).wrapping_sub(1));
    if behind_first >= RTCP_COPY as u32 {
        return;
    }
    let length = behind_first + 1;
    // A full ring loses the copy, never the packet.
    let Some(mut copy) = RTCP.reserve::<RtcpCopy>(0) else { return };
    let entry = copy.as_mut_ptr();
    // SAFETY: the entry is reserved and of this size; `length` bytes are no more than the payload holds.
    let payload = unsafe {
        (*entry).arrived_ns = now_ns;
        (*entry).stats = stats;
        (*entry).length = length;
        (&raw mut (*entry).payload).cast()
    };
    if load(payload, length) == 0 { copy.submit(0) } else { copy.discard(0) }
}

/// What an environment sees of its packet: the bytes between `data` and `data_end`, which are the frame under XDP and the
/// packet's first piece under TC.
macro_rules! view {
    () => {
        #[inline(always)]
        fn read<T: relay_ebpf::relay::Wire>(&self, offset: usize) -> Option<&T> {
            let start = self.ctx.data() + offset;
            if start + size_of::<T>() > self.ctx.data_end() {
                return None;
            }
            // SAFETY: the bytes lie within the frame, as just checked; `Wire` types are valid for any bytes
            // at any alignment; the frame outlives the context, and writers need `&mut self`.
            Some(unsafe { &*(start as *const T) })
        }

        #[inline(always)]
        fn write<T: relay_ebpf::relay::Wire>(&mut self, offset: usize) -> Option<&mut T> {
            let start = self.ctx.data() + offset;
            if start + size_of::<T>() > self.ctx.data_end() {
                return None;
            }
            // SAFETY: as in `read`; `&mut self` makes this the only borrow.
            Some(unsafe { &mut *(start as *mut T) })
        }
    };
}
pub(crate) use view;

/// What an environment looks up in the maps and nowhere else: functions of its `impl`, so that what they hand out is
/// borrowed from the maps, and writing to the packet stays possible.
macro_rules! lookups {
    () => {
        #[inline(always)]
        fn local_addresses(&self) -> Option<&relay_ebpf::LocalAddresses> {
            maps::LOCAL.get(0)
        }

        #[inline(always)]
        fn port(&self, index: u32) -> Option<relay_ebpf::PortEntry> {
            maps::port(index)
        }

        #[inline(always)]
        fn touch(&self, index: u32) {
            maps::touch(index);
        }

        #[inline(always)]
        fn flow(&self, slot: u32) -> Option<&'static Flow> {
            maps::FLOWS.get(slot)
        }

        #[inline(always)]
        fn next_hop(&self, index: u32) -> Option<&'static NextHop> {
            maps::NEXT_HOPS.get(index)
        }

        #[inline(always)]
        fn change_stats(&self, index: u32, change: impl relay_ebpf::relay::Change) {
            maps::change_stats(index, change);
        }

        #[inline(always)]
        fn within_rate(&self, slot: u32, rate: &relay_ebpf::guard::Rate, now_ns: u64) -> bool {
            maps::within_rate(slot, rate, now_ns)
        }

        #[inline(always)]
        fn refuse(&self, source: &relay_ebpf::tables::RefusedSource) {
            maps::refuse(source, self.now_ns());
        }

        #[inline(always)]
        fn now_ns(&self) -> u64 {
            // SAFETY: a helper without arguments.
            unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() }
        }

        #[inline(always)]
        fn sample(&self, elapsed_ns: u64) {
            maps::sample(elapsed_ns);
        }
    };
}
pub(crate) use lookups;

/// The same for what guarding needs.
macro_rules! guards {
    ($environment:ty) => {
        impl relay_ebpf::guard::Guarded for $environment {
            #[inline(always)]
            fn verdict(&self, source: &relay_ebpf::headers::Ipv6Address) -> u32 {
                maps::verdict(source)
            }

            #[inline(always)]
            fn limits(&self) -> Option<&relay_ebpf::guard::Limits> {
                maps::LIMITS.get(0)
            }

            #[inline(always)]
            fn take_from_source(
                &self,
                rate: &relay_ebpf::guard::Rate,
                source: &relay_ebpf::headers::Ipv6Address,
                now_ns: u64,
            ) -> bool {
                maps::take_from_source(rate, source, now_ns)
            }

            #[inline(always)]
            fn take_from_unknown(&self, rate: &relay_ebpf::guard::Rate, now_ns: u64) -> bool {
                maps::take_from_unknown(rate, now_ns)
            }
        }
    };
}
pub(crate) use guards;
