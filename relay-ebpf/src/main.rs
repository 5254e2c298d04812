//! The kernel programs: the packet core bound to maps and context, and nothing else.
//!
//! - `branchline_relay` (XDP) forwards the packets of flows and passes all else to the stack.
//! - `branchline_steer` (`sk_lookup`) hands packets for media ports that have a flow, but that the kernel
//!   does not forward, to the relay's few sockets, so that a port costs no socket.
//!
//! - `branchline_floor` and `branchline_bench_*` (XDP) are loaded by the program bench only.
//!
//! The maps' names are what the daemon looks for; their layouts are in `relay_ebpf::tables`.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macros of aya-ebpf make public, undocumented entry points"
)]

mod bench;
mod environment;
mod maps;

use aya_ebpf::{
    bindings::{sk_action, xdp_action},
    macros::{sk_lookup, xdp},
    programs::{SkLookupContext, XdpContext},
};
use relay_ebpf::{Fate, relay::relay};

use crate::environment::XdpEnvironment;

/// Forwards, passes or drops one packet.
#[xdp]
#[inline(always)]
pub fn branchline_relay(ctx: XdpContext) -> u32 {
    relay_packet(XdpEnvironment::new(ctx))
}

#[inline(always)]
fn relay_packet(mut env: XdpEnvironment) -> u32 {
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

/// The step of the program bench alone: makes the packet at hand the stream's next one.
#[xdp]
pub fn branchline_bench_step(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    match bench::step(&mut env) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// The relay on a stream that advances: `BPF_PROG_TEST_RUN` repeats one packet, which would be a stream of
/// duplicates.
#[xdp]
#[inline(always)]
pub fn branchline_bench_relay(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    if bench::step(&mut env).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    relay_packet(env)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
