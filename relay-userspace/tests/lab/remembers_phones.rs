//! After a restart of the daemon, by which it knows nothing from its own memory, the server still reaches the phone by
//! the Contact that it was given before.

use std::time::Duration;

use anyhow::Result;
use branchline::control::StatusView;
use xtask::demo::appliance::Appliance;

use crate::site::{LIMIT, Site, ask, settings};

#[test]
fn a_phone_that_registered_before_a_restart_is_called_after_it() -> Result<()> {
    let mut site = Site::start(settings())?;
    let binding = site.register(0, "1000")?;
    site.appliance.stop(libc::SIGTERM)?;
    site.appliance = Appliance::start_with(&site.lab, &site.settings)?;
    let status: StatusView = ask(&site.appliance, &site.lab, "status")?;
    assert_eq!(status.registrations, 1, "{}", site.appliance.said());
    let [mut answer, mut call] = site.server_calls(0, &binding, Duration::from_secs(2))?;
    answer.succeed(LIMIT)?;
    call.succeed(LIMIT)?;
    Ok(())
}
