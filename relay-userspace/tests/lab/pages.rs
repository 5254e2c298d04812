//! The pages, in a real browser in the office's namespace, while calls with media go through the appliance.
//!
//! What the browser does is in `tests/browser/pages.mjs`; its pictures are left below `target/browser/pictures`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::store::Store;
use xtask::lab::sipp::Scenario;

use crate::browser::{setup_link, visit};
use crate::site::{Site, settings};

/// The browser takes a minute; the call outlasts it.
const TALK: Duration = Duration::from_secs(600);
/// A self-signed certificate that a server is made to have shown.
const FINGERPRINT: &str = "5f1d0c2b8e6a4f3d9c7b5a392817060504030201fffefdfcfbfaf9f8f7f6f5f4";

#[test]
fn a_person_sets_up_looks_configures_and_leaves_while_calls_go_on() -> Result<()> {
    let site = Site::start(settings())?;
    site.register(1, "1001")?;
    let call = site.call(Scenario::PhoneCall, 0, TALK).start(&site.lab.office, site.lab.dir())?;
    site.play(&call)?;
    site.until_flows(4, |flow| flow.destination.is_some())?;

    // The link in the log at the first start, and the one that the command line makes, which outdates it.
    let said = site.appliance.said();
    setup_link(&said).with_context(|| format!("no link in the log:\n{said}"))?;
    let made = site.appliance.ask(&site.lab, &["setup-link"])?;
    let made = made.to_string();
    let link = setup_link(&made).with_context(|| format!("no link: {made}"))?.to_owned();

    let store = Store::open(&site.lab.dir().join("state"))?;
    let certificate = rcgen::generate_simple_self_signed(vec!["sip.example.com".to_owned()])?;
    let chain = [certificate.cert.der().to_vec()];
    store.certificate_seen(
        FINGERPRINT,
        "sip.example.com:5061",
        &chain,
        "it is self-signed",
        1_700_000_000,
    )?;
    drop(store);

    let configuration = site.lab.dir().join("branchline.toml");
    let mut good = String::new();
    let environment = [("SETUP_LINK", link.as_str()), ("FINGERPRINT", FINGERPRINT), ("CALLER", "1000")];
    visit(&site.lab.office, "pages.mjs", &environment, |wish| {
        match wish {
            "break the file" => {
                good = fs::read_to_string(&configuration)?;
                fs::write(&configuration, good.replace("role = \"phones\"", "role = \"phone\""))?;
                site.appliance.signal(libc::SIGHUP);
            }
            "mend the file" => {
                fs::write(&configuration, &good)?;
                let done = site.appliance.ask(&site.lab, &["reload"])?;
                assert_eq!(done["waiting_for_restart"].as_array().map(Vec::len), Some(0), "{done}");
            }
            other => anyhow::bail!("nobody knows how to {other}"),
        }
        Ok(())
    })
    .with_context(|| site.appliance.said())?;

    let calls = site.calls()?;
    assert_eq!(calls.len(), 1, "the call has outlived everything: {calls:#?}");
    assert_eq!(calls[0].state, "established");
    let refused = |reason| site.metric("branchline_web_refused_total", &[("reason", reason)]);
    for reason in ["no_administrator", "setup_link", "wrong_password", "wrong_token", "too_many_attempts"] {
        assert!(refused(reason)? > 0.0, "{reason}");
    }
    assert!(site.metric("branchline_configuration_reloads_total", &[("result", "refused")])? > 0.0);
    Ok(())
}
