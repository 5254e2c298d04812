//! The kernel programs: the packet core bound to maps and context, and nothing else.
//!
//! - `branchline_relay` (XDP) forwards the packets of flows and passes all else to the stack.
//! - `branchline_steer` (`sk_lookup`) hands packets for media ports that have a flow, but that the kernel
//!   does not forward, to the relay's few sockets, so that a port costs no socket.
//!
//! The maps' names are what the daemon looks for; their layouts are in `relay_ebpf::tables`.
#![no_std]
#![no_main]
#![expect(missing_docs, unreachable_pub, reason = "the macros of aya-ebpf make public, undocumented entry points")]

mod maps;
mod environment;

use aya_ebpf::{
    bindings::{sk_action, xdp_action},
    macros::{sk_lookup, xdp},
    programs::{SkLookupContext, XdpContext},
};
use relay_ebpf::{Fate, relay::relay};

use crate::environment::XdpEnvironment;

/// Forwards, passes or drops one packet.
#[xdp]
pub fn branchline_relay(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    match relay(&mut env).and_then(|way| env.send(way)) {
        Ok(action) => action,
        Err(reason) => {
            env.count(reason);
            match reason.fate() {
                Fate::Passed => xdp_action::XDP_PASS,
                Fate::Dropped => xdp_action::XDP_DROP,
            }
        }
    }
}

/// Gives a packet for a media port to the relay's socket, and lets the stack find the socket of any other.
#[sk_lookup]
pub fn branchline_steer(ctx: SkLookupContext) -> u32 {
    environment::steer(&ctx);
    // A program that selects no socket and passes leaves the lookup as it was.
    sk_action::SK_PASS
}

/// The floor of the program bench: what the kernel needs to call a program at all.
#[xdp]
pub fn branchline_floor(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Lets frames in: a veth device takes redirected frames only if its peer has a program too.
#[xdp]
pub fn branchline_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
