//! The kernel programs: the packet core bound to maps and context, and nothing else.
//!
//! - `branchline_relay` (XDP) forwards the packets of flows and passes all else to the stack.
//! - `branchline_tc` (TC) does the same where XDP is not to be had, `branchline_tc_layer3` on devices without link
//!   layer, and `branchline_tc_behind` behind XDP for those packets that leave by such a device.
//! - `branchline_steer` (`sk_lookup`) hands packets for media ports that have a flow, but that the kernel
//!   does not forward, to the relay's few sockets, so that a port costs no socket.
//!
//! - `branchline_floor` and `branchline_bench_*` are loaded by the program bench only.
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
mod frame;
mod maps;
mod packet;
mod steer;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, sk_action, xdp_action},
    macros::{classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use relay_ebpf::{
    Fate, Reason,
    guard::{guard, guard_layer3},
    relay::{Environment as _, Way, relay, relay_layer3, relay_untagged},
};

use crate::{frame::XdpEnvironment, packet::TcEnvironment};

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
            let reason = guard(&env, reason);
            env.count(reason);
            match reason.fate() {
                Fate::Passed => xdp_action::XDP_PASS,
                Fate::Dropped => xdp_action::XDP_DROP,
            }
        }
    }
}

/// Forwards, passes or drops one packet of an Ethernet device that XDP does not see.
#[classifier]
#[inline(always)]
pub fn branchline_tc(ctx: TcContext) -> i32 {
    let mut env = TcEnvironment::new(ctx);
    let result = relay_untagged(&mut env).map_err(|reason| guard(&env, reason));
    conclude(&env, result)
}

/// The same for one of a device without link layer.
#[classifier]
#[inline(always)]
pub fn branchline_tc_layer3(ctx: TcContext) -> i32 {
    let mut env = TcEnvironment::new(ctx);
    let result = relay_layer3(&mut env).map_err(|reason| guard_layer3(&env, reason));
    conclude(&env, result)
}

/// The same for one that XDP has seen and passed, and counted if it is not to be forwarded at all.
#[classifier]
#[inline(always)]
pub fn branchline_tc_behind(ctx: TcContext) -> i32 {
    let mut env = TcEnvironment::new(ctx);
    match relay_untagged(&mut env) {
        Err(reason) if matches!(reason.fate(), Fate::Passed) => TC_ACT_UNSPEC,
        result => conclude(&env, result),
    }
}

/// What TC is to do with a packet.
#[inline(always)]
fn conclude(env: &TcEnvironment, result: Result<Way, Reason>) -> i32 {
    match result {
        Ok(way) => env.send(way),
        Err(reason) => {
            env.count(reason);
            match reason.fate() {
                // Whoever else is attached here has its turn, and then the stack.
                Fate::Passed => TC_ACT_UNSPEC,
                Fate::Dropped => TC_ACT_SHOT as i32,
            }
        }
    }
}

/// Gives a packet for a media port to the relay's socket, and lets the stack find the socket of any other.
#[sk_lookup]
pub fn branchline_steer(ctx: SkLookupContext) -> u32 {
    steer::steer(&ctx);
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

/// The step, and one reading of the clock: what jitter (RFC 3550 section 6.4.1) costs before anything is computed.
#[xdp]
pub fn branchline_bench_clock(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    let stepped = bench::step(&mut env);
    if stepped.is_some() && env.now_ns() != 0 { xdp_action::XDP_TX } else { xdp_action::XDP_ABORTED }
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

/// The step, and the turn to another flow.
#[xdp]
pub fn branchline_bench_turn(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    match bench::step(&mut env).and_then(|()| bench::turn(&mut env)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// The relay on many streams in turn.
#[xdp]
#[inline(always)]
pub fn branchline_bench_many(ctx: XdpContext) -> u32 {
    let mut env = XdpEnvironment::new(ctx);
    if bench::step(&mut env).and_then(|()| bench::turn(&mut env)).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    relay_packet(env)
}

/// The floor of TC.
#[classifier]
pub fn branchline_bench_tc_floor(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The relay at TC on a stream that advances.
#[classifier]
#[inline(always)]
pub fn branchline_bench_tc(ctx: TcContext) -> i32 {
    let mut env = TcEnvironment::new(ctx);
    if bench::step(&mut env).is_none() {
        return TC_ACT_SHOT as i32;
    }
    let result = relay_untagged(&mut env).map_err(|reason| guard(&env, reason));
    conclude(&env, result)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
