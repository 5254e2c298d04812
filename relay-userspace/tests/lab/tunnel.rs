//! Servers behind a VPN, by wireguard-go. The kernel's own WireGuard has its turn in `cargo xtask kernels`.

use anyhow::Result;
use xtask::lab::wireguard::Maker;

use crate::tunnel_call::a_call_through;

#[test]
fn servers_behind_a_tunnel_get_their_media_by_tc_and_the_office_its_by_xdp() -> Result<()> {
    for flow in a_call_through(Maker::WireguardGo)? {
        assert_eq!((flow.lost, flow.duplicates, flow.wrong_source), (0, 0, 0), "{flow:#?}");
    }
    Ok(())
}
