//! Every rung of the ladder carries a call; so does userspace alone, on any kernel.

use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::Settings;

use crate::site::{Site, engine};

/// How long the call goes on at most; it ends with the test.
const TALK: Duration = Duration::from_secs(300);
/// RTP packets that are waited for.
const ENOUGH: u64 = 50;

/// A call with the office attached so; office and centre are then carried so.
fn a_call_on(rung: &str, from_office: &str, from_centre: &str) -> Result<()> {
    let settings = Settings { office: format!("attach = \"{rung}\"\n"), ..engine("auto") };
    let site = Site::start(settings)?;
    let networks = site.status()?.networks;
    let office = networks.iter().find(|network| network.name == "office").context("no office")?;
    assert_eq!(office.attached, rung, "{:?}", office.attached_reason);
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, from_office, from_centre)
}

/// Waits until a call's media and reports come through as they should, at both ends.
pub(crate) fn until_carried(site: &Site, from_office: &str, from_centre: &str) -> Result<()> {
    site.until_flows(4, |flow| {
        let wanted = if flow.network == "office" { from_office } else { from_centre };
        let packets = if wanted == "userspace" { flow.userspace_packets } else { flow.kernel_packets };
        flow.datapath == wanted && packets > if flow.kind == "rtp" { ENOUGH } else { 0 }
    })?;
    let [office, centre] = site.legs();
    for leg in [office.last(), centre.last()] {
        let leg = leg.context("no media")?;
        println!("{}: {} sent, {} heard", leg.local, leg.sent, leg.received);
        assert!(leg.received > ENOUGH && leg.strays == 0, "{leg:?}");
    }
    Ok(())
}

#[test]
fn native_xdp_carries_a_call() -> Result<()> {
    a_call_on("native", "kernel", "kernel")
}

#[test]
fn generic_xdp_carries_a_call() -> Result<()> {
    a_call_on("generic", "kernel", "tc")
}

#[test]
fn tc_carries_a_call() -> Result<()> {
    a_call_on("tc", "tc", "tc")
}

#[test]
fn userspace_carries_a_call() -> Result<()> {
    let site = Site::start(engine("userspace"))?;
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, "userspace", "userspace")
}
