//! The only server dies and comes back. In between the office goes on: phones stay registered, call each other, and call
//! out by a gateway in the office, which takes emergency calls at all times. No call that stands is dropped on either way.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER, TO_OFFICE, phone};
use xtask::lab::sipp::{Job, Scenario};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, MediaEndpoint, Routes, UdpChecksum, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

/// The appliance's address for the gateway, on the office's interface.
const TO_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 2);
/// The gateway's host.
const GATEWAY: u8 = 15;
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
/// Phones register anew so often.
const EXPIRES: u32 = 10;

fn account(index: u8) -> Account {
    Account { expires: EXPIRES, ..Account::of(index) }
}

fn tables() -> String {
    format!(
        "[[network]]\nname = \"gateways\"\nrole = \"gateway\"\ninterface = \"{TO_OFFICE}\"\naddress = \"{TO_GATEWAY}\"\n\n\
         [[trunk]]\nname = \"isdn\"\ncontact = \"{}:{PEER_SIP}\"\nprefix = \"0\"\nreplace_prefix = \"\"\noos_check_seconds = 1\n\n\
         [survival]\nleave_after_seconds = 2\nregistration_seconds = 10\n\n",
        phone(GATEWAY)
    )
}

#[test]
fn an_office_without_its_server_registers_calls_and_calls_out_and_returns_without_dropping_a_call()
-> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    lab.branch.ip(&["address", "add", &format!("{TO_GATEWAY}/24"), "dev", TO_OFFICE])?;
    let (called_host, gateway_host) = (lab.own_host(1)?, lab.own_host(GATEWAY)?);
    let at = SocketAddrV4::new(SERVER, PEER_SIP);
    let mut server = Kamailio::start(&lab, at)?;
    let gateway = Job::new(Scenario::Server, "gateway", phone(GATEWAY), PEER_SIP, 40_000)
        .start(&gateway_host, lab.dir())?;
    gateway_host.wait_for_udp(SocketAddrV4::new(phone(GATEWAY), PEER_SIP), LIMIT)?;
    let trunk_media = MediaEndpoint::start_with(&gateway_host, 3, UdpChecksum::Computed)?;
    trunk_media.follow(gateway.orders(), gateway.media_base())?;
    let settings = Settings {
        upstream: "probe_seconds = 1\nrecovery_seconds = 2\n".to_owned(),
        tables: tables(),
        datapath: "engine = \"kernel\"\n".to_owned(),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    interrupt::wait_until(LIMIT, "server and trunk up", || {
        let status = status()?;
        let trunk = status.trunks.iter().all(|trunk| trunk.servers.iter().all(|end| end.state == "up"));
        Ok((trunk && status.servers.iter().all(|server| server.state == "up")).then_some(()))
    })
    .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;
    assert_eq!(status()?.emergency_calls_by, "trunk");

    let mut caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let called = Baresip::start(&lab, &called_host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    let heard = |flows: usize, least: u64| -> Result<Option<u64>> {
        let seen = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<&FlowView> = seen.iter().filter(|flow| flow.kind == "rtp").collect();
        let fewest = rtp.iter().map(|flow| flow.expected).min();
        Ok(fewest.filter(|fewest| rtp.len() == flows && *fewest > least))
    };
    let over = || {
        interrupt::wait_until(LIMIT, "end of the call", || {
            let status = status()?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })
    };

    // While the server serves, an emergency call leaves by the gateway: by its own two flows, no server is asked.
    caller.call(&lab.office, "112")?;
    interrupt::wait_until(LIMIT, "sound of an emergency call", || heard(2, ENOUGH))
        .with_context(|| appliance.said())?;
    caller.hang_up(&lab.office)?;
    over()?;

    // A call by the server, which dies in the middle of it.
    caller.call(&lab.office, "1002")?;
    let before = interrupt::wait_until(LIMIT, "sound by the server", || heard(4, ENOUGH))
        .with_context(|| appliance.said())?;
    server.kill();
    interrupt::wait_until(LIMIT, "the office on its own", || Ok(status()?.survival_seconds))
        .with_context(|| appliance.said())?;
    interrupt::wait_until(LIMIT, "the sound going on", || heard(4, before + ENOUGH))?;
    interrupt::wait_until(LIMIT, "the symptom", || {
        let named = status()?.symptoms.iter().any(|symptom| symptom.kind.as_label() == "survival");
        Ok(named.then_some(()))
    })?;
    caller.hang_up(&lab.office)?;
    called.hang_up(&called_host)?;
    over()?;

    // Both registrations are granted here, again and again.
    let registered = || -> Result<f64> {
        Ok(appliance.metrics(&lab)?.sum("branchline_survival_registrations_total", &[]))
    };
    interrupt::wait_until(LIMIT, "registrations here", || Ok((registered()? >= 4.0).then_some(())))
        .with_context(|| appliance.said())?;
    assert_eq!(status()?.registrations, 2);

    // A call within the office, whose media the kernel carries.
    caller.call(&lab.office, "1002")?;
    interrupt::wait_until(LIMIT, "sound within the office", || heard(2, ENOUGH))
        .with_context(|| appliance.said())?;
    let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
    assert!(flows.iter().filter(|flow| flow.kind == "rtp").all(|flow| flow.kernel_packets > 0), "{flows:#?}");
    caller.hang_up(&lab.office)?;
    over()?;

    // A call by the gateway, during which the server comes back.
    caller.call(&lab.office, "00711555")?;
    let before = interrupt::wait_until(LIMIT, "sound by the gateway", || heard(2, ENOUGH))
        .with_context(|| appliance.said())?;
    let server = Kamailio::start(&lab, at)?;
    interrupt::wait_until(LIMIT, "the end of being on its own", || {
        Ok(status()?.survival_seconds.is_none().then_some(()))
    })
    .with_context(|| appliance.said())?;
    interrupt::wait_until(LIMIT, "the call going on", || heard(2, before + ENOUGH))?;
    interrupt::wait_until(LIMIT, "both phones registered at the server again", || {
        let said = server.said();
        Ok(["1001", "1002"].iter().all(|user| said.contains(&format!("registered {user}"))).then_some(()))
    })?;
    caller.hang_up(&lab.office)?;
    over()?;
    caller.call(&lab.office, "1002")?;
    interrupt::wait_until(LIMIT, "sound by the server again", || heard(4, ENOUGH))
        .with_context(|| appliance.said())?;

    let metrics = appliance.metrics(&lab)?;
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(&format!("branchline_{name}"), labels);
    assert_eq!(sum("survival_entries_total", &[]), 1.0);
    assert!(sum("survival_seconds_total", &[]) > 1.0);
    assert_eq!(sum("survival_calls_total", &[("way", "phone")]), 1.0);
    assert_eq!(
        sum("survival_calls_total", &[("way", "trunk")]),
        1.0,
        "the emergency call had a server beside it"
    );
    assert_eq!(sum("emergency_calls_total", &[("way", "trunk")]), 1.0);
    caller.wait_for("Call established")?;
    Ok(())
}
