//! Which socket gets a packet for a media port that the kernel does not forward.

use core::ptr;

use aya_ebpf::{helpers::bpf_get_smp_processor_id, programs::SkLookupContext};
use relay_ebpf::{
    headers::{Ipv6Address, PROTOCOL_UDP},
    tables::{IPV6_SOCKETS, port_index},
};

use crate::maps::{LOCAL, PORT_ENTRIES, RELAY_SOCKETS};

/// `AF_INET` as `bpf_sk_lookup` gives it.
const AF_INET: u32 = 2;
/// `AF_INET6` likewise.
const AF_INET6: u32 = 10;

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
    if entry.generation() == 0 {
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
