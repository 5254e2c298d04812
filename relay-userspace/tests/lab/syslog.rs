//! `logger` as phones of two ages, and what the appliance keeps of their lines.

use std::fs;
use std::net::UdpSocket;

use anyhow::{Context as _, Result};
use branchline::control::PhoneView;
use branchline::provisioning::syslog::SyslogView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{APPLIANCE_OFFICE, phone};
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, turn};

#[test]
fn lines_of_both_rfcs_are_kept_by_phone_and_shown_without_control_characters() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let other = lab.own_host(1)?;
    let settings = Settings { tables: "[syslog]\nenabled = true\n".to_owned(), ..settings() };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let server = APPLIANCE_OFFICE.to_string();
    let common = ["--server", &server, "--udp", "--port", "514", "--tag", "phone"];
    let send = |form: &str, priority: &str, text: &str| {
        lab.office.run("logger", &[&common as &[&str], &[form, "-p", priority, text]].concat())
    };
    let read = |arguments: &[&str]| -> Result<Vec<SyslogView>> {
        Ok(serde_json::from_value(appliance.ask(&lab, &[&["syslog"], arguments].concat())?)?)
    };

    send("--rfc3164", "local0.warning", "registration failed")?;
    send("--rfc5424", "user.err", "no time")?;
    other.run("logger", &[&common as &[&str], &["--rfc5424", "another phone"]].concat())?;
    // The two hosts ask for the appliance's address each on their own: nothing orders one's lines after the other's
    // but that they have arrived.
    interrupt::wait_until(LIMIT, "three lines", || Ok((read(&[])?.len() == 3).then_some(())))?;
    let sneaky = b"<34>Oct 11 22:14:15 phone app: \x1b[2Jcleared\x07".to_vec();
    lab.office.enter(move || {
        UdpSocket::bind((phone(0), 0)).and_then(|socket| socket.send_to(&sneaky, (APPLIANCE_OFFICE, 514)))
    })??;

    let lines = interrupt::wait_until(LIMIT, "four lines", || {
        let lines = read(&[])?;
        Ok((lines.len() == 4).then_some(lines))
    })?;
    let rows: Vec<(&str, &str, Option<&str>, &str)> = lines
        .iter()
        .map(|line| {
            (line.phone.as_str(), line.severity.as_str(), line.application.as_deref(), line.message.as_str())
        })
        .collect();
    let (first, second) = (phone(0).to_string(), phone(1).to_string());
    assert_eq!(
        rows,
        [
            (first.as_str(), "warning", Some("phone"), "registration failed"),
            (first.as_str(), "err", Some("phone"), "no time"),
            (second.as_str(), "notice", Some("phone"), "another phone"),
            (first.as_str(), "crit", Some("app"), "\\u{1b}[2Jcleared\\u{7}"),
        ]
    );
    assert_eq!(read(&["--phone", &second])?.len(), 1);
    assert_eq!(read(&["--phone", &first, "--lines", "1"])?[0].severity, "crit");

    let directory = lab.dir().join("state/syslog");
    let file = |address: &str| fs::read_to_string(directory.join(format!("{address}.log")));
    let text = interrupt::wait_until(LIMIT, "the file", || {
        Ok(file(&first).ok().filter(|text| text.lines().count() == 3))
    })?;
    assert!(text.lines().next().context("empty")?.ends_with("phone: registration failed"), "{text}");
    assert!(text.ends_with("crit phone app: \\u{1b}[2Jcleared\\u{7}\n"), "{text}");
    assert_eq!(file(&second)?.lines().count(), 1);

    let phones: Vec<PhoneView> = ask(&appliance, &lab, "phones")?;
    for (address, count) in [(&first, 3), (&second, 1)] {
        let seen = phones.iter().find(|seen| seen.activity.address.as_ref() == Some(address));
        let stages = &seen.with_context(|| format!("{phones:#?}"))?.activity.stages;
        assert_eq!((stages[0].stage.as_str(), stages[0].count), ("log_received", count), "{address}");
    }
    Ok(())
}
