//! Linphone and baresip through the appliance: they register with Kamailio, call each other, hold and go on.

use std::net::SocketAddrV4;

use anyhow::Result;
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::Appliance;
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::{Kamailio, REALM};
use xtask::lab::linphone::Linphone;
use xtask::lab::network::{APPLIANCE_OFFICE, SECOND_SERVER, SERVER, phone};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

/// Sound that the test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;

fn until_heard(lab: &Lab, appliance: &Appliance) -> Result<Vec<FlowView>> {
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound in both directions", || {
        last = ask::<Vec<FlowView>>(appliance, lab, "flows")?;
        let enough = |flow: &FlowView| flow.kind == "rtcp" || flow.kernel_packets > ENOUGH;
        Ok((!last.is_empty() && last.iter().all(enough)).then_some(()))
    });
    let calls = ask::<Vec<CallView>>(appliance, lab, "calls")?;
    assert!(heard.is_ok(), "{heard:?}\n{calls:#?}\n{last:#?}");
    Ok(last)
}

fn until_state(lab: &Lab, appliance: &Appliance, state: &str) -> Result<()> {
    interrupt::wait_until(LIMIT, &format!("call that is {state}"), || {
        let calls = ask::<Vec<CallView>>(appliance, lab, "calls")?;
        Ok(calls.iter().any(|call| call.state == state).then_some(()))
    })
}

#[test]
fn linphone_calls_and_is_called_holds_and_goes_on() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    // It takes a host without a way to the world for one without a network, and stays silent.
    lab.office.ip(&["route", "add", "default", "via", &APPLIANCE_OFFICE.to_string()])?;
    let server = SocketAddrV4::new(SERVER, PEER_SIP);
    let _server = Kamailio::start(&lab, server)?;
    let mut linphone = Linphone::start(&lab, &lab.office, "1001", phone(0), to_appliance(APPLIANCE_OFFICE))?;
    let other = Account { address: SECOND_SERVER.into(), ..Account::of(1) };
    let other = Baresip::start(&lab, &lab.centre, &other, server)?;
    let idle = || {
        interrupt::wait_until(LIMIT, "end of the call", || {
            let status = ask::<StatusView>(&appliance, &lab, "status")?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })
    };

    linphone.tell(&format!("call sip:1002@{REALM}"))?;
    for flow in until_heard(&lab, &appliance)?.iter().filter(|flow| flow.kind != "rtcp") {
        assert_eq!((flow.datapath.as_str(), flow.wrong_source), ("kernel", 0), "{flow:#?}");
    }
    linphone.tell("pause")?;
    until_state(&lab, &appliance, "held")?;
    linphone.wait_for("to LinphoneCallPaused")?;
    linphone.tell("resume")?;
    until_state(&lab, &appliance, "established")?;
    linphone.tell("terminate")?;
    idle()?;

    other.call(&lab.centre, "1001")?;
    until_heard(&lab, &appliance)?;
    other.hang_up(&lab.centre)?;
    idle()?;
    Ok(())
}
