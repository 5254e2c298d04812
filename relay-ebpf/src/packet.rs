//! The packet core's surroundings under TC: a packet of the network stack, of which the programs see the part that lies
//! in one piece.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_head, bpf_skb_change_proto, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use aya_log_ebpf::info;
use relay_ebpf::{
    Flow, NextHop, Reason,
    checksum::Delta,
    headers::{
        ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV6_LENGTH, TAGGED_LENGTH,
        UDP_LENGTH,
    },
    leave::{Links, Packet, as_packet},
    relay::{Environment, Headers, Way},
    rtp::RTP_LENGTH,
};

use crate::maps;

/// As much of a packet as is looked at: the longest headers, and RTP's.
const LOOKED_AT: u32 = (TAGGED_LENGTH + IPV6_LENGTH + UDP_LENGTH + RTP_LENGTH) as u32;

/// One packet and the maps.
pub struct TcEnvironment {
    ctx: TcContext,
}

impl TcEnvironment {
    /// Has the beginning of the packet lie in one piece.
    #[inline(always)]
    pub fn new(ctx: TcContext) -> Self {
        let there = ctx.data_end() - ctx.data();
        let wanted = if ctx.len() < LOOKED_AT { ctx.len() } else { LOOKED_AT };
        if there < wanted as usize {
            // SAFETY: the context is this program's own, and nothing is borrowed of the packet. What cannot be brought
            // together is found to be too short.
            unsafe { bpf_skb_pull_data(ctx.skb.skb, wanted) };
        }
        Self { ctx }
    }

    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Sends the rewritten packet on its way.
    #[inline(always)]
    pub fn send(&self, way: Way) -> i32 {
        // SAFETY: a helper of two numbers.
        unsafe { bpf_redirect(way.index, 0) as i32 }
    }

    /// Counts a packet that is not forwarded.
    #[inline(always)]
    pub fn count(&self, reason: Reason) {
        maps::count(reason);
        // With the level at 0, which is what the daemon loads unless asked, the verifier removes this.
        info!(&self.ctx, "not forwarded by TC: reason {}", reason as u32);
    }
}

impl Environment for TcEnvironment {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    maps::view!();

    #[inline(always)]
    fn reaches(&self, _hop: &NextHop) -> bool {
        true
    }

    #[inline(always)]
    fn leave<const IP: usize, H: Headers>(
        &mut self,
        flow: &Flow,
        hop: &NextHop,
        links: Links,
    ) -> Result<(), Reason> {
        as_packet::<IP, H, Self>(self, flow, hop, links)
    }

    maps::lookups!();

    #[inline(always)]
    fn copy_rtcp(&self, offset: usize, length: usize, stats: u32, now_ns: u64) {
        maps::copy_rtcp(length, stats, now_ns, |to, length| {
            // SAFETY: the place is of at least this length.
            unsafe { bpf_skb_load_bytes(self.skb().cast(), offset as u32, to, length) }
        });
    }
}

maps::guards!(TcEnvironment);

impl Packet for TcEnvironment {
    #[inline(always)]
    fn change_family(&mut self, to_ipv6: bool) -> bool {
        let protocol = if to_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        // SAFETY: the context is this program's own; what was borrowed of the packet is gone: `&mut self`. So below.
        unsafe { bpf_skb_change_proto(self.skb(), u16::from_ne_bytes(protocol), 0) == 0 }
    }

    #[inline(always)]
    fn put_ethernet(&mut self) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_change_head(self.skb(), ETHERNET_LENGTH as u32, 0) == 0 }
    }

    #[inline(always)]
    fn set_tag(&mut self, tag: Option<[u8; 2]>) -> bool {
        // SAFETY: as above; the field is readable.
        let came_with_one = unsafe { (*self.skb()).vlan_present } != 0;
        // SAFETY: as above.
        if came_with_one && unsafe { bpf_skb_vlan_pop(self.skb()) } != 0 {
            return false;
        }
        let Some(control) = tag else { return true };
        let (protocol, control) = (u16::from_ne_bytes(ETHERTYPE_VLAN), u16::from_be_bytes(control));
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_push(self.skb(), protocol, control) == 0 }
    }

    #[inline(always)]
    fn change_checksum(&mut self, offset: usize, addresses: Delta, ports: Delta) -> bool {
        let (zero_stays, pseudo) = (u64::from(BPF_F_MARK_MANGLED_0), u64::from(BPF_F_PSEUDO_HDR));
        // SAFETY: as above.
        unsafe {
            let change =
                |sum: u32, flags| bpf_l4_csum_replace(self.skb(), offset as u32, 0, sum.into(), flags);
            change(addresses.sum(), zero_stays | pseudo) == 0 && change(ports.sum(), zero_stays) == 0
        }
    }
}
