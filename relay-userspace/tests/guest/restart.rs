//! A daemon that was killed leaves nothing behind that its successor stumbles over. Before Linux 6.6 a program at TC is
//! a filter, which stays when its process ends.

use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::Settings;
use xtask::lab::{
    interrupt,
    network::{TO_CENTRE, TO_OFFICE},
};

use crate::ladder::until_carried;
use crate::site::{LIMIT, Site, engine};

/// How long the call goes on at most; it ends with the test.
const TALK: Duration = Duration::from_secs(300);

/// The programs that `tc` finds on an interface; links, since 6.6, are not among them.
fn filters(site: &Site, interface: &str) -> Result<usize> {
    let said = site.lab.branch.run("tc", &["filter", "show", "dev", interface, "ingress"])?;
    Ok(said.lines().filter(|line| line.contains("branchline")).count())
}

#[test]
fn a_killed_daemon_s_filters_are_replaced_and_a_stopped_one_leaves_none() -> Result<()> {
    let settings = Settings { office: "attach = \"tc\"\n".to_owned(), ..engine("auto") };
    let mut site = Site::start(settings)?;
    let both =
        |site: &Site| -> Result<[usize; 2]> { Ok([filters(site, TO_OFFICE)?, filters(site, TO_CENTRE)?]) };
    let before = both(&site)?;
    println!("filters on the office's and the centre's interface: {before:?}");
    assert!(before.iter().all(|count| *count <= 1), "{before:?}");
    for _ in 0..2 {
        site.appliance.stop(libc::SIGKILL)?;
        site.start_again()?;
        assert_eq!(both(&site)?, before, "as many as before");
    }
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, "tc", "tc")?;
    site.appliance.stop(libc::SIGTERM)?;
    assert_eq!(both(&site)?, [0, 0], "a daemon that stops takes its filters with it");
    Ok(())
}

/// RTP packets that each end hears more of before the next step.
const ENOUGH: u64 = 50;

/// Waits until both ends of the call hear more.
fn until_heard(site: &Site, what: &str) -> Result<()> {
    let heard = |site: &Site| site.legs().map(|legs| legs.last().map_or(0, |leg| leg.received));
    let before = heard(site);
    interrupt::wait_until(LIMIT, what, || {
        let more = heard(site).iter().zip(before).all(|(now, before)| *now > before + ENOUGH);
        Ok(more.then_some(()))
    })
    .with_context(|| format!("{:?}", site.legs()))
}

#[test]
fn the_kernel_forwards_without_a_daemon_and_the_next_one_takes_over() -> Result<()> {
    let mut site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, "kernel", "kernel")?;
    let program = |site: &Site| site.lab.branch.ip(&["-details", "link", "show", TO_OFFICE]);
    let before = program(&site)?;
    std::thread::sleep(Duration::from_secs(2));
    site.appliance.stop(libc::SIGKILL)?;
    until_heard(&site, "media without a daemon")?;
    site.start_again()?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    assert_ne!(program(&site)?, before, "the program was exchanged");
    until_heard(&site, "media with the next daemon")?;
    let lost: Vec<u64> = site.legs().iter().flatten().map(|leg| leg.heard.lost()).collect();
    println!("lost at the office's and the centre's end: {lost:?}");
    site.appliance.stop(libc::SIGTERM)?;
    Ok(())
}
