//! The Debian package on a clean machine with real systemd, as a newcomer meets it: installed, configured; a phone finds
//! its configuration by DHCPINFORM, registers and calls; a server dies, and it calls again; upgraded, removed.
//!
//! With `--nocapture` it prints each command of the administrator with what came of it.

use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, PhoneView, StatusView};
use branchline::symptoms::Kind;
use xtask::dist;
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::dhcp;
use xtask::lab::kamailio::Kamailio;
use xtask::lab::machine::Machine;
use xtask::lab::network::{
    APPLIANCE_CENTRE, APPLIANCE_OFFICE, SECOND_SERVER, SERVER, TO_CENTRE, TO_OFFICE, phone,
};
use xtask::lab::nginx::Nginx;
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, to_appliance, turn};

const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
const CONFIGURATION: &str = "/etc/branchline/branchline.toml";
/// Phones register anew so often: that is how they come to the other server.
const EXPIRES: u32 = 10;
/// A phone that only asks for its files.
const NEW_PHONE: u8 = 2;
/// The centre's server of files.
const FILES: SocketAddrV4 = SocketAddrV4::new(SERVER, 8080);
/// The version of the package that the first one is upgraded to.
const NEXT_VERSION: &str = "9.9.9";

fn account(index: u8) -> Account {
    Account { expires: EXPIRES, ..Account::of(index) }
}

fn ask<T: serde::de::DeserializeOwned>(machine: &Machine, what: &str) -> Result<T> {
    Ok(serde_json::from_str(&machine.run(&["branchline", what, "--output", "json"])?)?)
}

/// Runs a command as the administrator would, and prints both.
fn show(machine: &Machine, words: &[&str]) -> Result<String> {
    let said = machine.run(words)?;
    println!("# {}\n{}\n", words.join(" "), said.trim_end());
    Ok(said)
}

fn install(machine: &Machine, package: &Path) -> Result<()> {
    let inside = machine.take(package)?;
    show(machine, &["dpkg", "--install", &inside]).map(drop)
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
    until_heard(machine, ENOUGH)?;
    for what in ["calls", "flows"] {
        show(machine, &["branchline", what])?;
    }
    hang_up(machine, lab, caller)
}

/// Waits until so much has been heard in all directions of both legs.
fn until_heard(machine: &Machine, enough: u64) -> Result<Vec<FlowView>> {
    interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        // While it is restarted nobody answers.
        let output = machine.command("branchline").args(["flows", "--output", "json"]).output()?.stdout;
        let flows: Vec<FlowView> = serde_json::from_slice(&output).unwrap_or_default();
        let rtp: Vec<FlowView> = flows.into_iter().filter(|flow| flow.kind == "rtp").collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|flow| flow.expected > enough)).then_some(rtp))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())
}

fn hang_up(machine: &Machine, lab: &Lab, caller: &Baresip) -> Result<()> {
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status: StatusView = ask(machine, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })
}

#[test]
fn the_package_is_installed_configured_called_through_upgraded_and_removed() -> Result<()> {
    let _turn = turn();
    let first = dist::run()?;
    let second = dist::pack(Some(NEXT_VERSION))?;
    let lab = Lab::create(Routes::None)?;
    let mut server =
        Kamailio::start_with(&lab, &lab.centre, "kamailio-one", SocketAddrV4::new(SERVER, PEER_SIP), None)?;
    let other = Kamailio::start_with(
        &lab,
        &lab.centre,
        "kamailio-two",
        SocketAddrV4::new(SECOND_SERVER, PEER_SIP),
        None,
    )?;
    let files = lab.dir().join("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("0004f2aabbcc.cfg"), "<APPLICATION CONFIG_FILES=\"sip.cfg\"/>\n")?;
    let _nginx = Nginx::start(&lab.centre, "nginx", FILES, &files, "", lab.dir())?;
    let machine = Machine::boot(&lab, &lab.branch)?;

    install(&machine, &first)?;
    is_active(&machine)?;
    show(&machine, &["branchline", "status"])?;
    let status: StatusView = ask(&machine, "status")?;
    let why = status.not_ready_reason.unwrap_or_default();
    assert!(why.starts_with("not configured yet: no network and no server is named"), "{why}");
    let journal = machine.journal("branchline")?;
    assert!(journal.contains(&format!("https://{APPLIANCE_OFFICE}:8443/setup?token=")), "{journal}");
    let process = machine.run(&["systemctl", "show", "--property", "MainPID", "--value", "branchline"])?;
    let owner = machine.run(&["ps", "-o", "user:32=", "-p", process.trim()])?;
    assert_eq!(owner.trim(), "branchline", "it does not run as root");
    assert!(
        machine.run(&["man", "--version"]).is_err() || machine.has("/usr/share/man/man1/branchline.1.gz")
    );

    // As an administrator would by hand; the pages do the same.
    let file = format!(
        "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"{TO_OFFICE}\"\naddress = \"{APPLIANCE_OFFICE}\"\n\n\
         [[network]]\nname = \"wan\"\nrole = \"servers\"\ninterface = \"{TO_CENTRE}\"\naddress = \"{APPLIANCE_CENTRE}\"\n\n\
         [upstream]\nservers = [\"{SERVER}:{PEER_SIP}\", \"{SECOND_SERVER}:{PEER_SIP}\"]\nprobe_seconds = 1\n\n\
         [dhcp]\nenabled = true\n\n[provisioning]\nservers = [\"http://{FILES}\"]\n"
    );
    machine.write(CONFIGURATION, file.as_bytes())?;
    show(&machine, &["cat", CONFIGURATION])?;
    show(&machine, &["systemctl", "reload", "branchline"])?;
    let waiting = interrupt::wait_until(LIMIT, "the file to be read", || {
        let status: StatusView = ask(&machine, "status")?;
        Ok(status.not_ready_reason.filter(|why| why.starts_with("configured;")))
    })?;
    assert_eq!(
        waiting,
        "configured; a restart puts it into effect (button on the page, or branchline restart)"
    );
    show(&machine, &["branchline", "restart"])?;
    let status = interrupt::wait_until(LIMIT, "readiness", || {
        let output = machine.command("branchline").args(["status", "--output", "json"]).output()?.stdout;
        Ok(serde_json::from_slice::<StatusView>(&output).ok().filter(|status| status.ready))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())?;
    assert_eq!(status.datapath, "kernel", "{:?}", status.datapath_reason);
    assert!(status.networks.iter().all(|network| network.attached == "native"), "{:#?}", status.networks);
    is_active(&machine)?;
    show(&machine, &["branchline", "status"])?;
    let same = machine.run(&["systemctl", "show", "--property", "MainPID", "--value", "branchline"])?;
    assert_eq!(same, process, "a restart from within keeps the process");

    // A new phone: where its files are, and the first of them.
    let newcomer = lab.own_host(NEW_PHONE)?;
    let told = dhcp::inform(&newcomer, phone(NEW_PHONE), "Polycom-VVX", lab.dir())?;
    println!("a phone's dhcpcd is told by INFORM:\n{told}\n");
    let url =
        told.lines().find_map(|line| line.strip_prefix("new_provisioning_url=")).context(told.clone())?;
    assert_eq!(url, format!("http://{APPLIANCE_OFFICE}:8088"));
    let got = newcomer.run("curl", &["-sS", "--fail", &format!("{url}/0004f2aabbcc.cfg")])?;
    println!("phone$ curl {url}/0004f2aabbcc.cfg\n{got}");
    assert_eq!(got, std::fs::read_to_string(files.join("0004f2aabbcc.cfg"))?);
    show(&machine, &["branchline", "phones"])?;
    let phones: Vec<PhoneView> = ask(&machine, "phones")?;
    let address = phone(NEW_PHONE).to_string();
    let seen = phones.iter().find(|seen| seen.activity.address.as_deref() == Some(&address));
    let stages: Vec<&str> =
        seen.into_iter().flat_map(|seen| &seen.activity.stages).map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["inform_answered", "configuration_asked"], "{phones:#?}");

    let host = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let called = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    talk(&machine, &lab, &caller)?;

    println!("the first server is killed\n");
    // The server dies; the phones come to the other one, and call again.
    server.kill();
    interrupt::wait_until(LIMIT, "the phones' registrations at the second server", || {
        let said = other.said();
        Ok(USERS.iter().all(|user| said.contains(&format!("registered {user}"))).then_some(()))
    })
    .with_context(|| machine.journal("branchline").unwrap_or_default())?;
    talk(&machine, &lab, &caller)?;
    let status = interrupt::wait_until(LIMIT, "the first server down", || {
        let status: StatusView = ask(&machine, "status")?;
        Ok(status.servers.first().is_some_and(|server| server.state == "down").then_some(status))
    })?;
    assert_eq!(status.servers.first().and_then(|server| server.step.as_deref()), Some("sip"));
    assert!(status.ready, "{:?}", status.not_ready_reason);
    show(&machine, &["branchline", "servers"])?;
    interrupt::wait_until(LIMIT, "the symptom", || {
        let status: StatusView = ask(&machine, "status")?;
        let found = status.symptoms.iter().any(|symptom| symptom.kind == Kind::ServerUnreachable);
        Ok(found.then_some(()))
    })?;
    show(&machine, &["branchline", "status"])?;

    // A call stands while the package is upgraded.
    caller.call(&lab.office, USERS[1])?;
    let before = until_heard(&machine, ENOUGH)?;
    install(&machine, &second)?;
    is_active(&machine)?;
    let most = before.iter().map(|flow| flow.expected).max().unwrap_or_default();
    for flow in until_heard(&machine, most + ENOUGH)? {
        assert_eq!((flow.datapath.as_str(), flow.lost), ("kernel", 0), "{flow:#?}");
    }
    show(&machine, &["branchline", "flows"])?;
    hang_up(&machine, &lab, &caller)?;
    let version = machine.run(&["dpkg-query", "--show", "--showformat", "${Version}", "branchline"])?;
    assert_eq!(version, NEXT_VERSION);
    let kept = machine.run(&["cat", CONFIGURATION])?;
    assert_eq!(kept, file, "the configuration is the administrator's");
    drop((caller, called));
    let caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    talk(&machine, &lab, &caller)?;

    show(&machine, &["dpkg", "--remove", "branchline"])?;
    assert!(!machine.has("/usr/bin/branchline"));
    assert!(machine.has(CONFIGURATION), "what the administrator wrote stays");
    let left = machine.command("pgrep").args(["-x", "branchline"]).output()?;
    assert!(!left.status.success(), "it still runs");
    show(&machine, &["dpkg", "--purge", "branchline"])?;
    assert!(!machine.has("/etc/branchline") && !machine.has("/var/lib/branchline"));
    Ok(())
}
