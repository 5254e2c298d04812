//! What is converted for peers that do not take what the other side sends, with real ones: a call without an offer and with
//! a session timer, and a transfer. Afterwards RTP goes both ways.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::{Kamailio, REALM};
use xtask::lab::linphone::Linphone;
use xtask::lab::network::{self, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::Scenario;
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, Site, ask, is_sip, settings, to_appliance, turn};

/// Half of the shortest session timer, and a while.
const REFRESH_LIMIT: Duration = Duration::from_secs(75);
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;

#[test]
fn a_call_without_an_offer_gets_one_and_its_timer_is_kept_and_sound_goes_both_ways() -> Result<()> {
    let site = Site::start(Settings {
        office: "delayed_offers = \"offer\"\noffer_codecs = [\"PCMA\", \"PCMU\", \"telephone-event\"]\n"
            .to_owned(),
        tables: format!(
            "[[peer]]\nname = \"server\"\naddresses = [\"{SERVER}\"]\nsession_timer_seconds = 90\n\n"
        ),
        ..settings()
    })?;
    let binding = site.register(1, "1001")?;
    let [mut answer, mut call] =
        site.server_calls_as(Scenario::ServerCallDelayed, 1, &binding, Duration::ZERO)?;
    let flows = site.until_flows(4, |flow| flow.kind != "rtp" || flow.expected > ENOUGH)?;
    for flow in flows.iter().filter(|flow| flow.kind == "rtp") {
        assert_eq!((flow.datapath.as_str(), flow.lost, flow.wrong_source), ("kernel", 0, 0), "{flow:#?}");
    }
    call.succeed(REFRESH_LIMIT).with_context(|| call.complaints())?;
    answer.succeed(LIMIT)?;
    assert_eq!(call.logged("REFRESHED").len(), 1);
    let [office, centre] = site.legs();
    for leg in [office.last(), centre.last()] {
        let leg = leg.context("no media")?;
        assert!(leg.sent > ENOUGH && leg.received > ENOUGH && leg.strays == 0, "{leg:?}");
    }
    // What the appliance has said itself stands in the trace of the call like any other message.
    let call_id = call.logged("REFRESHED").remove(0).remove(0);
    let trace = site.appliance.show(&site.lab, &["trace", "--call-id", &call_id])?;
    let own: Vec<&str> = trace.lines().filter(|line| line.contains("UPDATE")).collect();
    assert_eq!(own.len(), 2, "the request and its answer: {trace}");
    for conversion in ["delayed_offer", "session_timer"] {
        let done = site.metric("branchline_sip_conversions_total", &[("conversion", conversion)])?;
        assert_eq!(done, 1.0, "{conversion}");
    }
    Ok(())
}

/// How many RTP packets a phone got after a moment.
fn rtp_to(packets: &[Packet], index: u8) -> usize {
    let to = phone(index);
    packets
        .iter()
        .filter(|packet| *packet.destination.ip() == to && !is_sip(packet) && packet.rtp().is_some())
        .count()
}

#[test]
fn a_phone_that_takes_no_refer_is_transferred_by_a_real_server_and_talks_to_the_target() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = Settings { office: "refer = \"reinvite\"\n".to_owned(), ..settings() };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    // The REFER comes by the server, which then asks who the transferee is that calls the target.
    appliance.tell(&lab, &["entries", "set", "1002"], "lab1002\n")?;
    let hosts = [lab.own_host(1)?, lab.own_host(2)?];
    let transferor = Baresip::start(&lab, &lab.office, &Account::of(0), to_appliance(APPLIANCE_OFFICE))?;
    let transferee = Baresip::start(&lab, &hosts[0], &Account::of(1), to_appliance(APPLIANCE_OFFICE))?;
    let _target = Baresip::start(&lab, &hosts[1], &Account::of(2), to_appliance(APPLIANCE_OFFICE))?;

    transferor.call(&lab.office, "1002")?;
    let sound = |least: u64| {
        let mut last = Vec::new();
        interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
            last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
            let rtp = || last.iter().filter(|flow| flow.kind == "rtp");
            Ok((rtp().count() == 4 && rtp().all(|flow| flow.expected > least)).then(|| last.clone()))
        })
        .with_context(|| format!("{last:#?}\n{}", appliance.said()))
    };
    sound(ENOUGH)?;

    transferor.transfer(&lab.office, "1003")?;
    let done = || {
        appliance
            .metrics(&lab)
            .map(|all| all.sum("branchline_sip_conversions_total", &[("conversion", "refer")]))
    };
    interrupt::wait_until(LIMIT, "the transfer", || Ok((done()? == 1.0).then_some(())))
        .with_context(|| appliance.said())?;
    // The transferor's two legs end, and the target's are there.
    let mut last = Vec::new();
    let ended = interrupt::wait_until(LIMIT, "two legs", || {
        last = ask::<Vec<CallView>>(&appliance, &lab, "calls")?;
        Ok((last.len() == 2 && last.iter().all(|call| call.state == "established")).then(|| last.clone()))
    });
    let calls = ended.with_context(|| format!("{last:#?}"))?;
    assert!(calls.iter().all(|call| call.to.contains("1003")), "{calls:#?}");
    let flows = sound(ENOUGH)?;
    for flow in flows.iter().filter(|flow| flow.kind == "rtp") {
        assert_eq!((flow.datapath.as_str(), flow.wrong_source), ("kernel", 0), "{flow:#?}");
    }
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    std::thread::sleep(Duration::from_secs(2));
    let office = office.finish()?;
    let (heard, said) = (rtp_to(&office, 1), rtp_to(&office, 2));
    assert!(heard > 50 && said > 50 && rtp_to(&office, 0) == 0, "{heard} and {said} RTP packets");
    let from_us = |packet: &&Packet| *packet.source.ip() == APPLIANCE_OFFICE && !is_sip(packet);
    assert!(office.iter().filter(from_us).all(|packet| packet.dscp == 46));

    // What the transferee does in the dialog that it knows reaches the target.
    transferee.hang_up(&hosts[0])?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = ask::<StatusView>(&appliance, &lab, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })
    .with_context(|| appliance.said())?;
    Ok(())
}

/// What Linphone logs when media of a call goes both ways.
const TALKS: &str = "to LinphoneCallStreamsRunning";

/// What the page of calls says of each, in short.
fn calls_in_short(appliance: &Appliance, lab: &Lab) -> Result<Vec<(String, String, String)>> {
    let calls = ask::<Vec<CallView>>(appliance, lab, "calls")?;
    Ok(calls.into_iter().map(|call| (call.from, call.to, call.state)).collect())
}

#[test]
fn linphone_transfers_one_call_to_the_other_and_a_phone_that_takes_no_refer_talks_to_its_party() -> Result<()>
{
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = Settings { office: "refer = \"reinvite\"\n".to_owned(), ..settings() };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    appliance.tell(&lab, &["entries", "set", "1002"], "lab1002\n")?;
    let hosts = [lab.own_host(1)?, lab.own_host(2)?];
    // Linphone takes a host without a way to the world for one without a network.
    for host in [&lab.office, &hosts[1]] {
        host.ip(&["route", "add", "default", "via", &APPLIANCE_OFFICE.to_string()])?;
    }
    let mut transferor =
        Linphone::start(&lab, &lab.office, "1001", phone(0), to_appliance(APPLIANCE_OFFICE))?;
    let transferee = Baresip::start(&lab, &hosts[0], &Account::of(1), to_appliance(APPLIANCE_OFFICE))?;
    let _target = Linphone::start(&lab, &hosts[1], "1003", phone(2), to_appliance(APPLIANCE_OFFICE))?;

    // Each of its calls goes to the server and comes back: two calls of the appliance's.
    let standing = |count: usize| {
        let mut last = Vec::new();
        interrupt::wait_until(LIMIT, &format!("{count} calls that stand"), || {
            last = calls_in_short(&appliance, &lab)?;
            let stand = last.iter().filter(|(_, _, state)| matches!(state.as_str(), "established" | "held"));
            Ok((stand.count() == count && last.len() == count).then_some(()))
        })
        .with_context(|| format!("{last:#?}\n{}", appliance.said()))
    };
    transferor.tell(&format!("call sip:1002@{REALM}"))?;
    standing(2)?;
    transferor.wait_for(TALKS)?;
    transferor.tell("pause")?;
    transferor.wait_for("to LinphoneCallPaused")?;
    transferor.tell(&format!("call sip:1003@{REALM}"))?;
    standing(4)?;
    transferor.wait_for_times(TALKS, 2)?;
    transferor.tell("transfer 1 --to-call 2")?;
    // Its two calls end, on both sides of the server, and the two others have one.
    standing(1)?;
    let calls = calls_in_short(&appliance, &lab)?;
    assert_eq!(calls, [("1002".to_owned(), "1003".to_owned(), "established".to_owned())]);
    let done = |conversion: &str| {
        appliance
            .metrics(&lab)
            .map(|all| all.sum("branchline_sip_conversions_total", &[("conversion", conversion)]))
    };
    assert_eq!([done("refer")?, done("refer_failed")?], [1.0, 0.0]);

    let mut last = Vec::new();
    interrupt::wait_until(LIMIT, "sound in both directions", || {
        last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<_> = last.iter().filter(|flow| flow.kind == "rtp").collect();
        Ok((rtp.len() == 2 && rtp.iter().all(|flow| flow.expected > ENOUGH)).then_some(()))
    })
    .with_context(|| format!("{last:#?}"))?;
    for flow in last.iter().filter(|flow| flow.kind == "rtp") {
        assert_eq!((flow.datapath.as_str(), flow.lost, flow.wrong_source), ("kernel", 0, 0), "{flow:#?}");
    }
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    std::thread::sleep(Duration::from_secs(2));
    let office = office.finish()?;
    let [to_transferor, to_transferee, to_target] = [0, 1, 2].map(|index| rtp_to(&office, index));
    assert!(
        to_transferor == 0 && to_transferee > 50 && to_target > 50,
        "{to_transferor}, {to_transferee} and {to_target} RTP packets"
    );

    transferee.hang_up(&hosts[0])?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = ask::<StatusView>(&appliance, &lab, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })
    .with_context(|| appliance.said())?;
    Ok(())
}
