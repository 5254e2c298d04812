//! One list of phones: what each asked for, and its registrations.

use std::net::UdpSocket;

use anyhow::{Context as _, Result};
use branchline::control::PhoneView;
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_OFFICE, phone};

use crate::site::{LIMIT, Site, ask, settings};

#[test]
fn a_phone_is_listed_with_what_it_asked_for_and_with_its_registration() -> Result<()> {
    let site = Site::start(Settings { tables: "[clock]\nenabled = true\n".to_owned(), ..settings() })?;
    site.register(1, "1001")?;
    // Version 4, mode 3 (RFC 5905 section 7.3).
    let request = || {
        let mut request = [0; 48];
        request[0] = 0x23;
        UdpSocket::bind((phone(1), 0)).and_then(|socket| socket.send_to(&request, (APPLIANCE_OFFICE, 123)))
    };
    site.lab.office.enter(request)??;
    let seen = interrupt::wait_until(LIMIT, "the phone with its hardware address", || {
        let phones: Vec<PhoneView> = ask(&site.appliance, &site.lab, "phones")?;
        let [seen] = &phones[..] else { return Ok(None) };
        Ok(seen.activity.hardware_address.is_some().then(|| seen.clone()))
    })?;
    assert_eq!(seen.activity.address, Some(phone(1).to_string()));
    let stages: Vec<&str> = seen.activity.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["time_asked"]);
    let [registration] = &seen.registrations[..] else { anyhow::bail!("{seen:#?}") };
    assert!(registration.address_of_record.starts_with("1001@"), "{registration:#?}");
    assert!(registration.expires_seconds > 0);
    let office = site.lab.office.ip(&["-brief", "link", "show", "dev", "eth0"])?;
    let hardware = seen.activity.hardware_address.context("no hardware address")?;
    assert!(office.contains(&hardware), "{hardware} in {office}");
    Ok(())
}
