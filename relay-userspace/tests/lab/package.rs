//! The Debian package on a clean machine with real systemd: installed, configured, called through, upgraded, removed.

use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, StatusView};
use xtask::dist;
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::machine::Machine;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, TO_CENTRE, TO_OFFICE, phone};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, to_appliance, turn};

const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
const CONFIGURATION: &str = "/etc/branchline/branchline.toml";
/// The version of the package that the first one is upgraded to.
const NEXT_VERSION: &str = "9.9.9";

fn account(index: u8) -> Account {
    let first = 20_000 + 100 * u16::from(index);
    Account {
        user: USERS[usize::from(index)].to_owned(),
        address: phone(index),
        ports: first..=first + 99,
        tone: 400 + 100 * u16::from(index),
        transport: "udp",
        password: format!("lab{}", USERS[usize::from(index)]),
        authorities: None,
        expires: 600,
    }
}

fn ask<T: serde::de::DeserializeOwned>(machine: &Machine, what: &str) -> Result<T> {
    Ok(serde_json::from_str(&machine.run(&["branchline", what, "--output", "json"])?)?)
}

fn install(machine: &Machine, package: &Path) -> Result<()> {
    let inside = machine.take(package)?;
    machine.run(&["dpkg", "--install", &inside]).map(drop)
}

/// The service runs, and said itself that it is ready.
fn is_active(machine: &Machine) -> Result<()> {
    interrupt::wait_until(LIMIT, "the service", || {
        let state = machine.command("systemctl").args(["is-active", "branchline"]).output()?.stdout;
        Ok((String::from_utf8_lossy(&state).trim() == "active").then_some(()))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())
}

/// Calls, waits for sound in all directions, and hangs up.
fn talk(machine: &Machine, lab: &Lab, caller: &Baresip) -> Result<()> {
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        let flows: Vec<FlowView> = ask(machine, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())?;
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status: StatusView = ask(machine, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })
}

#[test]
fn the_package_is_installed_configured_called_through_upgraded_and_removed() -> Result<()> {
    let _turn = turn();
    let first = dist::run(None)?;
    let second = dist::run(Some(NEXT_VERSION))?;
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let machine = Machine::boot(&lab, &lab.branch)?;

    install(&machine, &first)?;
    is_active(&machine)?;
    let status: StatusView = ask(&machine, "status")?;
    let why = status.not_ready_reason.unwrap_or_default();
    assert!(why.starts_with("not configured yet: no network and no server is named"), "{why}");
    let journal = machine.journal("branchline")?;
    assert!(journal.contains(&format!("https://{APPLIANCE_OFFICE}:8443/setup?token=")), "{journal}");
    let process = machine.run(&["systemctl", "show", "--property", "MainPID", "--value", "branchline"])?;
    let owner = machine.run(&["ps", "-o", "user=", "-p", process.trim()])?;
    assert_eq!(owner.trim(), "branchl+", "it does not run as root");
    assert!(
        machine.run(&["man", "--version"]).is_err() || machine.has("/usr/share/man/man1/branchline.1.gz")
    );

    // As an administrator would by hand; the pages do the same.
    let file = format!(
        "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"{TO_OFFICE}\"\naddress = \"{APPLIANCE_OFFICE}\"\n\n\
         [[network]]\nname = \"wan\"\nrole = \"servers\"\ninterface = \"{TO_CENTRE}\"\naddress = \"{APPLIANCE_CENTRE}\"\n\n\
         [upstream]\nservers = [\"{SERVER}:{PEER_SIP}\"]\n"
    );
    machine.write(CONFIGURATION, file.as_bytes())?;
    machine.run(&["systemctl", "reload", "branchline"])?;
    let waiting = interrupt::wait_until(LIMIT, "the file to be read", || {
        let status: StatusView = ask(&machine, "status")?;
        Ok(status.not_ready_reason.filter(|why| why.starts_with("configured;")))
    })?;
    assert_eq!(waiting, "configured; restart to begin (`branchline restart`, or the button on the page)");
    machine.run(&["branchline", "restart"])?;
    let status = interrupt::wait_until(LIMIT, "readiness", || {
        let output = machine.command("branchline").args(["status", "--output", "json"]).output()?.stdout;
        Ok(serde_json::from_slice::<StatusView>(&output).ok().filter(|status| status.ready))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())?;
    assert_eq!(status.datapath, "kernel", "{:?}", status.datapath_reason);
    assert!(status.networks.iter().all(|network| network.attached == "native"), "{:#?}", status.networks);
    is_active(&machine)?;
    let same = machine.run(&["systemctl", "show", "--property", "MainPID", "--value", "branchline"])?;
    assert_eq!(same, process, "a restart from within keeps the process");

    let host = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    talk(&machine, &lab, &caller)?;

    install(&machine, &second)?;
    is_active(&machine)?;
    let version = machine.run(&["dpkg-query", "--show", "--showformat", "${Version}", "branchline"])?;
    assert_eq!(version, NEXT_VERSION);
    let kept = machine.run(&["cat", CONFIGURATION])?;
    assert_eq!(kept, file, "the configuration is the administrator's");
    drop(caller);
    let caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    drop(_called);
    let _called = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    talk(&machine, &lab, &caller)?;

    machine.run(&["dpkg", "--remove", "branchline"])?;
    assert!(!machine.has("/usr/bin/branchline"));
    assert!(machine.has(CONFIGURATION), "what the administrator wrote stays");
    let left = machine.command("pgrep").args(["-x", "branchline"]).output()?;
    assert!(!left.status.success(), "it still runs");
    machine.run(&["dpkg", "--purge", "branchline"])?;
    assert!(!machine.has("/etc/branchline") && !machine.has("/var/lib/branchline"));
    Ok(())
}
