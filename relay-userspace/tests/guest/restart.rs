//! A daemon that was killed leaves nothing behind that its successor stumbles over. Before Linux 6.6 a program at TC is
//! a filter, which stays when its process ends.

use std::time::Duration;

use anyhow::Result;
use xtask::demo::appliance::Settings;
use xtask::lab::network::{TO_CENTRE, TO_OFFICE};

use crate::ladder::until_carried;
use crate::site::{Site, engine};

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
