//! A real NTP client asks the appliance for the time, and is told what the kernel knows of the clock.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result};
use branchline::control::PhoneView;
use branchline::provisioning::clock::KernelClock;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{self, APPLIANCE_OFFICE, phone};
use xtask::lab::{Capture, Lab, Packet, Routes};
use xtask::process;

use crate::site::{LIMIT, ask, settings, turn};

const PORT: u16 = 123;

fn with_clock(keys: &str) -> Settings {
    Settings { tables: format!("[clock]\nenabled = true\n{keys}"), ..settings() }
}

/// chronyd asks once and says by how much the clock is wrong, without setting it.
fn ask_the_time(lab: &Lab) -> Result<String> {
    let mut command = lab.office.command("chronyd");
    // Its messages are on standard error.
    command.args(["-Q", "-U", "-t", "10", "-L", "0", "-f", "/dev/null"]);
    command.arg(format!("server {APPLIANCE_OFFICE} iburst maxsamples 1"));
    command.arg(format!("pidfile {}", lab.dir().join("chronyd.pid").display()));
    command.args(["cmdport 0", "bindcmdaddress /", &format!("bindacqaddress {}", phone(0))]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\" 2>&1 || true", "sh"]).arg(command.get_program()).args(command.get_args());
    process::output_within(&mut shell, LIMIT)
}

fn answers(packets: &[Packet]) -> Vec<&Packet> {
    packets
        .iter()
        .filter(|packet| packet.source.port() == PORT && *packet.source.ip() == APPLIANCE_OFFICE)
        .collect()
}

#[test]
fn a_real_client_takes_the_time_only_when_it_may_be_trusted() -> Result<()> {
    let _turn = turn();
    let synchronised = KernelClock::read() != KernelClock::Unsynchronised;
    for (keys, stratum) in [
        ("", if synchronised { 3 } else { 0 }),
        ("unsynchronised = \"local\"\n", if synchronised { 3 } else { 10 }),
        ("stratum = 5\nunsynchronised = \"local\"\n", if synchronised { 5 } else { 10 }),
    ] {
        let lab = Lab::create(Routes::None)?;
        let appliance = Appliance::start_with(&lab, &with_clock(keys))?;
        let capture = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
        let said = ask_the_time(&lab)?;
        let packets = capture.finish()?;
        let answers = answers(&packets);
        assert!(!answers.is_empty(), "{keys}: {said}");
        for answer in &answers {
            assert_eq!((answer.payload.len(), answer.payload[1]), (48, stratum), "{keys}: {answer:?}");
            let request = packets
                .iter()
                .find(|packet| packet.payload[40..48] == answer.payload[24..32])
                .with_context(|| format!("{keys}: no request for {answer:?}"))?;
            assert!(request.payload.len() >= answer.payload.len());
        }
        // "System clock wrong by 0.000012 seconds (ignored)"; without a usable server, "No suitable source".
        assert_eq!(said.contains("System clock wrong by"), stratum != 0, "{keys}: {said}");
        let phones: Vec<PhoneView> = ask(&appliance, &lab, "phones")?;
        let own: Ipv4Addr = phone(0);
        let seen = phones.iter().find(|seen| seen.activity.address == Some(own.to_string()));
        let stages = &seen.with_context(|| format!("{phones:#?}"))?.activity.stages;
        assert_eq!((stages.len(), stages[0].stage.as_str()), (1, "time_asked"));
        assert_eq!(stages[0].count, answers.len() as u64);
        let metrics = appliance.metrics(&lab)?;
        let result = if stratum == 0 { "alarm" } else { "answered" };
        let counted = metrics.sum("branchline_clock_requests_total", &[("result", result)]);
        assert_eq!(counted, answers.len() as f64);
        let state = metrics.sum("branchline_clock_synchronised", &[]);
        assert_eq!(state, f64::from(u8::from(synchronised)));
    }
    Ok(())
}
