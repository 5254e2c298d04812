//! The packet core's surroundings under XDP: the frame between `data` and `data_end`.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use aya_log_ebpf::info;
use relay_ebpf::{
    Flow, NextHop, Reason,
    leave::{Frame, Links, as_frame},
    relay::{Environment, Headers, Way},
};

use crate::maps::{self, DEVICES};

/// One frame and the maps.
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
        maps::count(reason);
        // With the level at 0, which is what the daemon loads unless asked, the verifier removes this.
        info!(&self.ctx, "not forwarded: reason {}", reason as u32);
    }
}

impl Environment for XdpEnvironment {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    maps::view!();

    #[inline(always)]
    fn reaches(&self, hop: &NextHop) -> bool {
        !hop.is_by_tc()
    }

    #[inline(always)]
    fn leave<const IP: usize, H: Headers>(
        &mut self,
        flow: &Flow,
        hop: &NextHop,
        links: Links,
    ) -> Result<(), Reason> {
        as_frame::<IP, H, Self>(self, flow, hop, links)
    }

    maps::lookups!();

    #[inline(always)]
    fn copy_rtcp(&self, offset: usize, length: usize, stats: u32, now_ns: u64) {
        maps::copy_rtcp(length, stats, now_ns, |to, length| {
            // SAFETY: the place is of at least this length.
            unsafe { bpf_xdp_load_bytes(self.ctx.as_ptr().cast(), offset as u32, to, length) }
        });
    }
}

maps::guards!(XdpEnvironment);

impl Frame for XdpEnvironment {
    #[inline(always)]
    fn resize(&mut self, by: i32) -> bool {
        // SAFETY: the context is this program's own. What was borrowed of the frame before is gone: `&mut self`.
        unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), -by) == 0 }
    }
}
