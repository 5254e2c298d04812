//! A device whose driver has no XDP, here a bridge, gets generic mode, and nobody is left in the dark.

use std::time::Duration;

use anyhow::Result;
use xtask::{
    demo::appliance::Settings,
    lab::{
        interrupt,
        network::{APPLIANCE_OFFICE, TO_OFFICE},
    },
};

use crate::site::{LIMIT, Site, engine};

#[test]
fn a_bridge_gets_generic_mode_which_the_log_the_status_and_the_metrics_tell() -> Result<()> {
    let settings = Settings { office_interface: "br0".to_owned(), ..engine("kernel") };
    let site = Site::start_on(settings, |lab| {
        let branch = &lab.branch;
        branch.ip(&["address", "flush", "dev", TO_OFFICE])?;
        branch.ip(&["link", "add", "br0", "type", "bridge"])?;
        branch.ip(&["link", "set", TO_OFFICE, "master", "br0"])?;
        branch.ip(&["address", "add", &format!("{APPLIANCE_OFFICE}/24"), "dev", "br0"])?;
        branch.ip(&["link", "set", "br0", "up"]).map(drop)
    })?;

    let status = site.status()?;
    let office = status.networks.iter().find(|network| network.name == "office");
    let (mode, why) =
        office.map(|office| (&*office.attached, office.attached_reason.clone())).unwrap_or_default();
    assert_eq!(mode, "generic");
    assert!(why.is_some_and(|why| why.contains("not supported")), "the kernel's own words");
    assert!(site.appliance.said().contains("not natively"), "{}", site.appliance.said());
    let attached = [("interface", "br0"), ("mode", "generic")];
    assert!((site.metric("branchline_attach_mode", &attached)? - 1.0).abs() < f64::EPSILON);

    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    // XDP in eth1's driver cannot redirect to a bridge: what goes to the office goes by TC.
    site.until_flows(4, |flow| {
        let expected = if flow.network == "office" { "kernel" } else { "tc" };
        flow.datapath == expected && flow.kernel_packets > 0
    })?;
    let heard: u64 = site.legs().iter().flatten().map(|leg| leg.received).min().unwrap_or_default();
    assert!(heard > 0, "{:?}", site.legs());

    // The interface goes, and with it the program: nobody is left in the dark about that either.
    site.lab.branch.ip(&["link", "delete", "dev", "br0"])?;
    interrupt::wait_until(LIMIT, "word that the relay is no longer attached", || {
        let status = site.status()?;
        let lost =
            status.networks.iter().any(|network| network.name == "office" && network.attached == "lost");
        let why = status.not_ready_reason.unwrap_or_default();
        Ok((lost && why.contains("not attached to br0: the interface is gone")).then_some(()))
    })?;
    let lost = [("interface", "br0"), ("mode", "lost")];
    assert!((site.metric("branchline_attach_mode", &lost)? - 1.0).abs() < f64::EPSILON);
    assert!(site.metric("branchline_attach_mode", &attached)?.abs() < f64::EPSILON);
    Ok(())
}
