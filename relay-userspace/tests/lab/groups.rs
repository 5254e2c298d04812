//! Two real servers, each for some of the phones. The one of a group is killed: the phones of that group are on their own and
//! call within the office, while those of the other register and call as ever; then it comes back.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SECOND_SERVER, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::{
    site::{LIMIT, ask, settings, to_appliance, turn},
    two_servers::server,
};

/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;

fn account(index: u8) -> Account {
    Account { expires: 10, ..Account::of(index) }
}

#[test]
fn the_phones_of_a_group_register_with_its_server_and_are_on_their_own_without_it() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let start = |name, address| {
        Kamailio::start_with(&lab, &lab.centre, name, SocketAddrV4::new(address, PEER_SIP), None)
    };
    let centre = start("kamailio-centre", SERVER)?;
    let mut support = start("kamailio-support", SECOND_SERVER)?;
    let settings = Settings {
        upstream: "probe_seconds = 1\nrecovery_seconds = 2\n".to_owned(),
        tables: format!(
            "[[group]]\nname = \"support\"\nservers = [\"{SECOND_SERVER}:{PEER_SIP}\"]\nnumbers = [\"\\\\d\\\\d\\\\d2\"]\n\
             probe_seconds = 1\nrecovery_seconds = 2\n\n[survival]\nleave_after_seconds = 1\nregistration_seconds = 10\n\n"
        ),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    interrupt::wait_until(LIMIT, "both servers up", || {
        let servers = status()?.servers;
        Ok((servers.len() == 2 && servers.iter().all(|server| server.state == "up")).then_some(()))
    })
    .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;
    let group = |address| -> Result<Option<String>> {
        Ok(server(&status()?.servers, address).map(|server| server.group.clone()))
    };
    assert_eq!((group(SERVER)?, group(SECOND_SERVER)?), (Some("upstream".into()), Some("support".into())));

    let host = lab.own_host(1)?;
    let mut one = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let two = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    let registered = |server: &Kamailio, user: &str| server.said().contains(&format!("registered {user}"));
    assert!(registered(&centre, "1001") && registered(&support, "1002"), "each with its own");
    assert!(!registered(&centre, "1002") && !registered(&support, "1001"), "and with no other");

    support.kill();
    interrupt::wait_until(LIMIT, "the group on its own", || {
        Ok((status()?.survival_groups == ["support"]).then_some(()))
    })
    .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;
    interrupt::wait_until(LIMIT, "a registration here", || {
        let here = appliance.metrics(&lab)?.sum("branchline_survival_registrations_total", &[]);
        Ok((here >= 1.0).then_some(()))
    })?;
    let up = |group: &str| -> Result<f64> {
        Ok(appliance.metrics(&lab)?.sum("branchline_server_up", &[("group", group)]))
    };
    assert_eq!((up("upstream")?, up("support")?), (1.0, 0.0));
    // Whoever is on its own calls the others of the office: the way by the other group's server is not its own.
    two.call(&host, "1001")?;
    interrupt::wait_until(LIMIT, "sound within the office", || {
        let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok((rtp.len() == 2 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
    })
    .with_context(|| appliance.said())?;
    let back = start("kamailio-back", SECOND_SERVER)?;
    interrupt::wait_until(LIMIT, "the end of being on its own", || {
        Ok(status()?.survival_seconds.is_none().then_some(()))
    })
    .with_context(|| appliance.said())?;
    interrupt::wait_until(LIMIT, "the phone registered at its server again", || {
        Ok(registered(&back, "1002").then_some(()))
    })?;
    assert!(!registered(&centre, "1002"), "never with the other group's");
    one.wait_for("Call established")?;
    Ok(())
}
