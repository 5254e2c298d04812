//! An appliance that knows nothing yet gets its first configuration in a real browser, restarts in place, and carries
//! calls. The browser's part is `tests/browser/first_configuration.mjs`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::Settings;
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER, TO_CENTRE, TO_OFFICE, phone};
use xtask::lab::sipp::{Scenario, Sipp};
use xtask::lab::traffic::PEER_SIP;

use crate::browser::{setup_link, visit};
use crate::site::{Site, settings};

/// An interface of the appliance's with a subnet that overlaps the office's, and one without an address.
const OVERLAPPING: &str = "wan2";
const EMPTY: &str = "wan3";
/// The call outlasts what the browser does meanwhile.
const TALK: Duration = Duration::from_secs(300);

#[test]
fn a_newcomer_configures_in_the_browser_what_then_carries_calls() -> Result<()> {
    let settings = Settings { until: "/healthz", ..settings() };
    let site = Site::start_unconfigured(settings)?;
    let branch = &site.lab.branch;
    branch.ip(&["link", "add", OVERLAPPING, "type", "veth", "peer", "name", EMPTY])?;
    branch.ip(&["address", "add", "10.61.0.200/25", "dev", OVERLAPPING])?;
    let said = site.appliance.said();
    let link = setup_link(&said).with_context(|| format!("no link in the log:\n{said}"))?.to_owned();
    let pid = site.appliance.pid();
    let configuration = site.lab.dir().join("branchline.toml");

    let mut call: Option<Sipp> = None;
    let environment = [
        ("SETUP_LINK", link.as_str()),
        ("OFFICE", TO_OFFICE),
        ("CENTRE", TO_CENTRE),
        ("OFFICE_ADDRESS", &APPLIANCE_OFFICE.to_string()),
        ("OVERLAPPING", OVERLAPPING),
        ("EMPTY", EMPTY),
        ("SERVER", &format!("{SERVER}:{PEER_SIP}")),
        ("PHONE", &phone(0).to_string()),
    ];
    visit(&site.lab.office, "first_configuration.mjs", &environment, |wish| {
        match wish {
            "call" => {
                site.register(1, "1001")?;
                let started =
                    site.call(Scenario::PhoneCall, 0, TALK).start(&site.lab.office, site.lab.dir())?;
                site.play(&started)?;
                site.until_flows(4, |flow| flow.destination.is_some())?;
                call = Some(started);
            }
            "name an interface that is not there" => {
                let good = fs::read_to_string(&configuration)?;
                assert!(good.contains("interface = \"eth1\""), "{good}");
                fs::write(&configuration, good.replace("interface = \"eth1\"", "interface = \"gone0\""))?;
                let done = site.appliance.ask(&site.lab, &["reload"])?;
                assert_eq!(done["waiting_for_restart"][0], "network.wan.interface", "{done}");
            }
            other => anyhow::bail!("nobody knows how to {other}"),
        }
        Ok(())
    })
    .with_context(|| site.appliance.said())?;

    // The command line is refused the same, and the call has outlived all of it, in the process that was started first.
    let error = site.appliance.tell(&site.lab, &["restart"], "").unwrap_err().to_string();
    assert!(error.contains("it goes on as it is") && error.contains("gone0"), "{error}");
    assert_eq!(site.calls()?.len(), 1);
    assert_eq!(site.appliance.pid(), pid);
    drop(call);
    let text = fs::read_to_string(&configuration)?;
    assert!(text.starts_with("# Nothing yet.\n"), "what stood in the file stays: {text}");
    Ok(())
}
