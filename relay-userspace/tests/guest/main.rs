//! What is tried on other kernels than the machine's own: `cargo xtask kernels` boots each in QEMU and runs these there.
//!
//! They need 802.1Q devices and WireGuard of the kernel, which not every machine has, and are therefore no part of
//! `cargo test`. An emulated machine is slow and jittery: what is asserted is who carries a packet and what is in it,
//! never that none was late.

mod ladder;
mod programs;
mod restart;
#[path = "../lab/site.rs"]
#[expect(dead_code, reason = "shared with the laboratory's tests, which use all of it")]
mod site;
mod tunnel;
#[path = "../lab/tunnel_call.rs"]
mod tunnel_call;
mod vlans;
