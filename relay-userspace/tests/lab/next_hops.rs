//! What netlink tells reaches the kernel's table: a neighbour's new hardware address, and a neighbour that
//! was forgotten.

use std::time::Duration;

use anyhow::Result;
use xtask::lab::{interrupt, network};

use crate::site::{LIMIT, Site, engine};

/// The server gets another hardware address, as when a standby takes over its address, and says so by
/// the ARP request of its next packet; media goes on to the new one, in the kernel.
#[test]
fn a_neighbour_s_new_hardware_address_is_used_by_all_flows_at_once() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;

    let centre = &site.lab.centre;
    centre.ip(&["link", "set", "dev", network::OUTER, "address", "02:00:00:00:be:ef"])?;
    centre.forget_neighbours()?;
    centre.run("ping", &["-c", "1", "-W", "5", &network::APPLIANCE_CENTRE.to_string()])?;

    let heard = |legs: &[Vec<xtask::lab::Leg>; 2]| legs[1].iter().map(|leg| leg.received).sum::<u64>();
    let before = heard(&site.legs());
    interrupt::wait_until(LIMIT, "media at the server's new hardware address", || {
        Ok((heard(&site.legs()) > before + 50).then_some(()))
    })?;
    site.until_flows(4, |flow| flow.datapath == "kernel" && flow.userspace_packets < 25)?;
    Ok(())
}

/// The neighbour's entry goes, as after long silence: the stack resolves it again, and the kernel goes on.
#[test]
fn a_forgotten_neighbour_is_resolved_again_without_a_call_noticing() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    site.lab.branch.forget_neighbours()?;
    let kernel =
        |site: &Site| -> Result<u64> { Ok(site.flows()?.iter().map(|flow| flow.kernel_packets).sum()) };
    let before = kernel(&site)?;
    interrupt::wait_until(LIMIT, "packets in the kernel after the flush", || {
        Ok((kernel(&site)? > before + 50).then_some(()))
    })?;
    assert!(site.flows()?.iter().all(|flow| flow.lost == 0));
    Ok(())
}
