//! Servers behind a WireGuard of the kernel's own, and behind tun devices.

use anyhow::Result;
use xtask::lab::wireguard::Maker;

use crate::tunnel_call::a_call_through;

#[test]
fn the_kernel_s_wireguard_carries_a_call_by_tc() -> Result<()> {
    a_call_through(Maker::Kernel).map(drop)
}

#[test]
fn wireguard_over_tun_devices_carries_a_call_by_tc() -> Result<()> {
    a_call_through(Maker::WireguardGo).map(drop)
}
