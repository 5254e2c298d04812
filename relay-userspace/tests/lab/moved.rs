//! A network whose interface gets another address while the daemon runs, as by a lease: it goes on with that one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::lab::{
    Lab, Routes, UdpChecksum, interrupt,
    network::{APPLIANCE_CENTRE, TO_CENTRE},
};

use crate::site::{LIMIT, Site, settings};

/// What the interface gets instead.
const NEXT: &str = "10.62.0.77";
/// Longer than the daemon takes to look twice.
const WHILE: Duration = Duration::from_secs(8);

fn centre(status: StatusView) -> Result<String> {
    let network = status.networks.into_iter().find(|network| network.name == "centre");
    network.map(|network| network.sip).context("no centre")
}

fn prefix(lab: &Lab) -> Result<String> {
    let said = lab.branch.ip(&["-o", "-4", "address", "show", "dev", TO_CENTRE])?;
    let net = said.split_whitespace().find(|word| word.starts_with(&APPLIANCE_CENTRE.to_string()));
    let net = net.with_context(|| said.clone())?;
    Ok(net.split('/').nth(1).context("no prefix")?.to_owned())
}

#[test]
fn an_interface_that_gets_another_address_is_used_with_that_one() -> Result<()> {
    let site = Site::start_from(settings(), Routes::None, UdpChecksum::Computed, |settings, lab| {
        let text = settings.configuration(lab.dir());
        Ok(text.replace(&format!("address = \"{APPLIANCE_CENTRE}\"\n"), ""))
    })?;
    assert!(centre(site.status()?)?.starts_with(&APPLIANCE_CENTRE.to_string()));
    site.a_call_works_from(1)?;
    let process = site.appliance.pid();

    let prefix = prefix(&site.lab)?;
    let (old, new) = (format!("{APPLIANCE_CENTRE}/{prefix}"), format!("{NEXT}/{prefix}"));
    site.lab.branch.ip(&["address", "delete", &old, "dev", TO_CENTRE])?;
    // Without any address it waits.
    std::thread::sleep(WHILE);
    assert_eq!(site.appliance.pid(), process);
    assert!(centre(site.status()?)?.starts_with(&APPLIANCE_CENTRE.to_string()), "{}", site.appliance.said());
    site.lab.branch.ip(&["address", "add", &new, "dev", TO_CENTRE])?;
    interrupt::wait_until(LIMIT, "the new address", || {
        // For a moment nobody answers.
        let Ok(status) = site.status() else { return Ok(None) };
        Ok(centre(status)?.starts_with(NEXT).then_some(()))
    })
    .with_context(|| site.appliance.said())?;
    interrupt::wait_until(LIMIT, "readiness", || Ok(site.status()?.ready.then_some(())))?;
    site.a_call_works_from(2)
}
