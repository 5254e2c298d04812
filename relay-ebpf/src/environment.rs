//! The packet core's surroundings in the kernel: the frame between `data` and `data_end`, the maps, the
//! clock. All of this crate's `unsafe` is here.

use core::{hint, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    helpers::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes},
    },
    programs::{SkLookupContext, XdpContext},
};
use aya_log_ebpf::info;
use relay_ebpf::{
    Flow, LocalAddresses, NextHop, PortEntry, Reason,
    headers::{Ipv6Address, PROTOCOL_UDP},
    relay::{Change, Environment, Way, Wire},
    tables::{IPV6_SOCKETS, Latency, RTCP_COPY, RefusedPackets, RefusedSource, RtcpCopy, port_index},
};

use crate::maps::{
    DEVICES, FLOWS, LATENCY, LOCAL, NEXT_HOPS, PORT_ENTRIES, REASON_COUNTS, REFUSED, RELAY_SOCKETS, RTCP,
    STATS,
};

/// `AF_INET` as `bpf_sk_lookup` gives it.
const AF_INET: u32 = 2;
/// `AF_INET6` likewise.
const AF_INET6: u32 = 10;

/// One packet and the maps.
pub struct XdpEnvironment {
    ctx: XdpContext,
}

impl XdpEnvironment {
    #[inline(always)]
    pub fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// Sends the rewritten packet on its way: back out of the interface it came by, or out of another.
    #[inline(always)]
    pub fn send(&self, way: Way) -> Result<u32, Reason> {
        if way.interface == self.ctx.ingress_ifindex() as u32 {
            return Ok(xdp_action::XDP_TX);
        }
        // The flags are the verdict that the kernel returns where the device is gone from the map.
        match DEVICES.redirect(way.device, u64::from(xdp_action::XDP_ABORTED)) {
            Ok(action) => Ok(action),
            Err(_) => Err(Reason::SendFailed),
        }
    }

    /// Counts a packet that is not forwarded.
    #[inline(always)]
    pub fn count(&self, reason: Reason) {
        if let Some(count) = REASON_COUNTS.get_ptr_mut(reason as u32) {
            // SAFETY: the value is this CPU's own, and no other program that can interrupt this one
            // writes it.
            unsafe { *count += 1 };
        }
        // With the level at 0, which is what the daemon loads unless asked, the verifier removes this.
        info!(&self.ctx, "not forwarded: reason {}", reason as u32);
    }
}

impl Environment for XdpEnvironment {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<&T> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: the bytes lie within the frame, as just checked; `Wire` types are valid for any bytes
        // at any alignment; the frame outlives the context, and writers need `&mut self`.
        Some(unsafe { &*(start as *const T) })
    }

    #[inline(always)]
    fn write<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: as in `read`; `&mut self` makes this the only borrow.
        Some(unsafe { &mut *(start as *mut T) })
    }

    #[inline(always)]
    fn resize(&mut self, by: i32) -> bool {
        // SAFETY: the context is this program's own. What was borrowed of the frame before is gone: `&mut self`.
        unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), -by) == 0 }
    }

    #[inline(always)]
    fn local_addresses(&self) -> Option<&LocalAddresses> {
        LOCAL.get(0)
    }

    #[inline(always)]
    fn port(&self, index: u32) -> Option<PortEntry> {
        let entry = PORT_ENTRIES.get_ptr(index)?;
        // SAFETY: the pointer is into the map. Slot and generation belong together, so they are read as
        // one aligned word, as the daemon writes them.
        let word = unsafe { ptr::read_volatile(entry.cast::<u64>()) };
        let [slot, generation] = split(word);
        Some(PortEntry { slot, generation })
    }

    #[inline(always)]
    fn flow(&self, slot: u32) -> Option<&'static Flow> {
        FLOWS.get(slot)
    }

    #[inline(always)]
    fn next_hop(&self, index: u32) -> Option<&'static NextHop> {
        NEXT_HOPS.get(index)
    }

    #[inline(always)]
    fn change_stats(&self, index: u32, change: impl Change) {
        if let Some(stats) = STATS.get_ptr_mut(index) {
            // SAFETY: the pointer is into the map, whose value has this layout and no invalid bytes. A
            // flow's packets come to one CPU, so there is one writer; should the interface's queues be
            // reassigned, a count may be off by a packet, which is the price of not locking.
            change.apply(unsafe { &mut *stats });
        }
    }

    #[inline(always)]
    fn refuse(&self, source: &RefusedSource) {
        let now_ns = self.now_ns();
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

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn sample(&self, elapsed_ns: u64) {
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

    #[inline(always)]
    fn copy_rtcp(&self, offset: usize, length: usize, stats: u32, now_ns: u64) {
        // The verifier must see both bounds in the register that the helper gets.
        let length = hint::black_box(length as u32);
        if length == 0 || length > RTCP_COPY as u32 {
            return;
        }
        // A full ring loses the copy, never the packet.
        let Some(mut copy) = RTCP.reserve::<RtcpCopy>(0) else { return };
        let entry = copy.as_mut_ptr();
        // SAFETY: the entry is reserved and of this size; the helper writes `length` bytes at most, which
        // is no more than the payload holds.
        let loaded = unsafe {
            (*entry).arrived_ns = now_ns;
            (*entry).stats = stats;
            (*entry).length = length;
            bpf_xdp_load_bytes(
                self.ctx.as_ptr().cast(),
                offset as u32,
                (&raw mut (*entry).payload).cast(),
                length,
            )
        };
        if loaded == 0 { copy.submit(0) } else { copy.discard(0) }
    }
}

/// The two halves of a word as they stand in memory.
#[inline(always)]
const fn split(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Chooses the relay's socket for a packet whose address and port have a flow.
#[inline(always)]
pub fn steer(ctx: &SkLookupContext) {
    // SAFETY: the kernel hands a valid context to the program.
    let (family, protocol, port) = unsafe {
        let lookup = ctx.lookup;
        ((*lookup).family, (*lookup).protocol, (*lookup).local_port)
    };
    if protocol != u32::from(PROTOCOL_UDP) {
        return;
    }
    let Some(local) = LOCAL.get(0) else { return };
    // SAFETY: as above; the fields of either family are there, and zero in the other.
    let (place, first) = unsafe {
        match family {
            AF_INET => (local.place((*ctx.lookup).local_ip4.to_ne_bytes()), 0),
            AF_INET6 => {
                // The kernel lets programs read these words one by one only.
                let words = &raw const (*ctx.lookup).local_ip6;
                let word = |index| ptr::read_volatile(words.cast::<u32>().add(index));
                let address = joined(word(0), word(1), word(2), word(3));
                (local.place_ipv6(&Ipv6Address::new(address)), IPV6_SOCKETS)
            }
            _ => return,
        }
    };
    let Some(place) = place else { return };
    let Some(entry) = PORT_ENTRIES.get(port_index(place, (port as u16).to_be_bytes())) else { return };
    if entry.generation == 0 {
        return;
    }
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if cpu >= IPV6_SOCKETS || RELAY_SOCKETS.redirect_sk_lookup(ctx, first + cpu, 0).is_err() {
        // Fewer sockets than CPUs; without any, the packet goes the way of all others.
        let _ = RELAY_SOCKETS.redirect_sk_lookup(ctx, first, 0);
    }
}

/// An address of four words, each as it stands in memory.
#[inline(always)]
const fn joined(a: u32, b: u32, c: u32, d: u32) -> [u8; 16] {
    let words = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes()];
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = words;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
