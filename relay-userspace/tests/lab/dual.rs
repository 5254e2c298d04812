//! A phone that the appliance registers with a second real server, whose challenges it answers. Both servers call the phone.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SECOND_SERVER, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;

fn account(index: u8, expires: u32) -> Account {
    Account { expires, ..Account::of(index) }
}

/// 1002 and 1003 have one server each, by which they call.
fn callers() -> String {
    let group = |name: &str, user: &str, server| {
        format!(
            "[[group]]\nname = \"{name}\"\nservers = [\"{server}:{PEER_SIP}\"]\nnumbers = [\"{user}\"]\n\n"
        )
    };
    group("one", "1002", SERVER) + &group("two", "1003", SECOND_SERVER)
}

/// Two servers with a registrar each, and phones that are registered with both as `dual` says.
fn two_registrars(dual: &str) -> Settings {
    Settings {
        servers: vec![format!("{SERVER}:{PEER_SIP}"), format!("{SECOND_SERVER}:{PEER_SIP}")],
        upstream: format!("probe_seconds = 1\ndual_registration = \"{dual}\"\n"),
        tables: callers(),
        ..settings()
    }
}

/// Each of the two callers calls 1001 by its server; the phone is called once each time.
fn both_servers_call(lab: &Lab, appliance: &Appliance) -> Result<()> {
    let status = || ask::<StatusView>(appliance, lab, "status");
    for index in 1..=2 {
        let host = lab.own_host(index)?;
        let caller = Baresip::start(lab, &host, &account(index, 60), to_appliance(APPLIANCE_OFFICE))?;
        caller.call(&host, "1001")?;
        interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
            let flows = ask::<Vec<FlowView>>(appliance, lab, "flows")?;
            let rtp: Vec<u64> =
                flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
            Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
        })
        .with_context(|| format!("by server {index}: {}", appliance.said()))?;
        caller.hang_up(&host)?;
        interrupt::wait_until(LIMIT, "end of the call", || {
            let status = status()?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })?;
    }
    Ok(())
}

fn until_both_up(lab: &Lab, appliance: &Appliance) -> Result<()> {
    interrupt::wait_until(LIMIT, "both servers up", || {
        let servers = ask::<StatusView>(appliance, lab, "status")?.servers;
        Ok(servers.iter().all(|server| server.state == "up").then_some(()))
    })
    .with_context(|| appliance.said())
}

#[test]
fn a_phone_that_registers_with_two_servers_itself_is_called_by_both() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let start = |name, address| {
        Kamailio::start_with(&lab, &lab.centre, name, SocketAddrV4::new(address, PEER_SIP), None)
    };
    let (first, second) = (start("kamailio-one", SERVER)?, start("kamailio-two", SECOND_SERVER)?);
    let appliance = Appliance::start_with(&lab, &two_registrars("phone"))?;
    until_both_up(&lab, &appliance)?;
    let domains = vec![SERVER.to_string(), SECOND_SERVER.to_string()];
    let both = Account { domains, ..account(0, 60) };
    let _phone = Baresip::start(&lab, &lab.office, &both, to_appliance(APPLIANCE_OFFICE))?;
    let times = |server: &Kamailio| server.said().matches("registered 1001").count();
    interrupt::wait_until(LIMIT, "a registration with each", || {
        Ok((times(&first) > 0 && times(&second) > 0).then_some(()))
    })
    .with_context(|| format!("{}\n{}\n{}", first.said(), second.said(), appliance.said()))?;
    assert_eq!((times(&first), times(&second)), (1, 1), "each with the one that it names");
    both_servers_call(&lab, &appliance)
}

#[test]
fn a_phone_with_an_entry_is_registered_with_two_servers_and_both_call_it() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let start = |name, address| {
        Kamailio::start_with(&lab, &lab.centre, name, SocketAddrV4::new(address, PEER_SIP), None)
    };
    let (first, second) = (start("kamailio-one", SERVER)?, start("kamailio-two", SECOND_SERVER)?);
    let appliance = Appliance::start_with(&lab, &two_registrars("appliance"))?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    until_both_up(&lab, &appliance)?;
    let mut phone = Baresip::start(&lab, &lab.office, &account(0, 12), to_appliance(APPLIANCE_OFFICE))?;
    let times = |server: &Kamailio| server.said().matches("registered 1001").count();
    interrupt::wait_until(LIMIT, "the second registration, and its refresh", || {
        Ok((times(&first) > 0 && times(&second) > 1).then_some(()))
    })
    .with_context(|| format!("{}\n{}", second.said(), appliance.said()))?;
    let held = appliance.metrics(&lab)?.sum("branchline_second_registrations", &[]);
    let status = ask::<StatusView>(&appliance, &lab, "status")?;
    assert_eq!((held, status.registrations), (1.0, 1));

    both_servers_call(&lab, &appliance)?;
    phone.wait_for("Call established")?;

    // It hangs up for good: baresip ends its registration, and the appliance the other one.
    drop(phone);
    interrupt::wait_until(LIMIT, "no registration", || {
        let held = appliance.metrics(&lab)?.sum("branchline_second_registrations", &[]);
        Ok((held == 0.0).then_some(()))
    })
    .with_context(|| appliance.said())?;
    Ok(())
}
