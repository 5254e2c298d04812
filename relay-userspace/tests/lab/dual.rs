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

#[test]
fn a_phone_with_an_entry_is_registered_with_two_servers_and_both_call_it() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let start = |name, address| {
        Kamailio::start_with(&lab, &lab.centre, name, SocketAddrV4::new(address, PEER_SIP), None)
    };
    let (first, second) = (start("kamailio-one", SERVER)?, start("kamailio-two", SECOND_SERVER)?);
    // 1002 and 1003 have one server each, by which they call.
    let group = |name: &str, user: &str, server| {
        format!(
            "[[group]]\nname = \"{name}\"\nservers = [\"{server}:{PEER_SIP}\"]\nnumbers = [\"{user}\"]\n\n"
        )
    };
    let settings = Settings {
        servers: vec![format!("{SERVER}:{PEER_SIP}"), format!("{SECOND_SERVER}:{PEER_SIP}")],
        upstream: "probe_seconds = 1\ndual_registration = \"appliance\"\n".to_owned(),
        tables: group("one", "1002", SERVER) + &group("two", "1003", SECOND_SERVER),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    interrupt::wait_until(LIMIT, "both servers up", || {
        Ok(status()?.servers.iter().all(|server| server.state == "up").then_some(()))
    })
    .with_context(|| appliance.said())?;

    let hosts = [lab.own_host(1)?, lab.own_host(2)?];
    let mut phone = Baresip::start(&lab, &lab.office, &account(0, 12), to_appliance(APPLIANCE_OFFICE))?;
    let times = |server: &Kamailio| server.said().matches("registered 1001").count();
    interrupt::wait_until(LIMIT, "the second registration, and its refresh", || {
        Ok((times(&first) > 0 && times(&second) > 1).then_some(()))
    })
    .with_context(|| format!("{}\n{}", second.said(), appliance.said()))?;
    let held = appliance.metrics(&lab)?.sum("branchline_second_registrations", &[]);
    assert_eq!((held, status()?.registrations), (1.0, 1));

    for (index, host) in (1..).zip(&hosts) {
        let caller = Baresip::start(&lab, host, &account(index, 60), to_appliance(APPLIANCE_OFFICE))?;
        caller.call(host, "1001")?;
        interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
            let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
            let rtp: Vec<u64> =
                flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
            // Four for each leg: the phone is called once.
            Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
        })
        .with_context(|| format!("by server {index}: {}", appliance.said()))?;
        caller.hang_up(host)?;
        interrupt::wait_until(LIMIT, "end of the call", || {
            let status = status()?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })?;
    }
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
