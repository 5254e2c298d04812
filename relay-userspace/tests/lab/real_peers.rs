//! Kamailio in the centre, two baresip phones in the office: they register through the appliance, and one calls
//! the other. Kamailio does not touch media, so each leg's SDP names the appliance's own address in the centre,
//! and the sound goes from phone to phone through the appliance alone: in the kernel, in one pass through both legs.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use xtask::demo::appliance::Appliance;
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{self, APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, ask, is_sip, settings, to_appliance, turn};
use branchline::control::{CallView, FlowView, StatusView};
use branchline::quality::{DirectionQuality, Verdict};

const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds. Reports come every five.
const ENOUGH: u64 = 100;

/// How many packets a phone got of what it is sent.
fn count(packets: &[Packet], to: Ipv4Addr, kind: impl Fn(&Packet) -> bool) -> usize {
    packets.iter().filter(|packet| *packet.destination.ip() == to && !is_sip(packet) && kind(packet)).count()
}

#[test]
fn two_phones_register_with_a_real_server_and_talk_through_the_appliance() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let second = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &Account::of(0), to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &second, &Account::of(1), to_appliance(APPLIANCE_OFFICE))?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    assert_eq!(status()?.registrations, 2);

    caller.call(&lab.office, USERS[1])?;
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound and reports in both directions of both legs", || {
        last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let enough = last.iter().all(|flow| match flow.kind.as_str() {
            "rtcp" => flow.rtcp_packets > 0,
            _ => flow.expected > ENOUGH,
        });
        Ok((last.len() == 8 && enough).then_some(()))
    });
    let calls = ask::<Vec<CallView>>(&appliance, &lab, "calls")?;
    assert!(heard.is_ok(), "{heard:?}\n{calls:#?}\n{last:#?}");
    assert!(!calls.is_empty() && calls.iter().all(|call| call.state == "established"), "{calls:#?}");
    for flow in &last {
        assert_eq!(flow.datapath, "kernel", "{flow:#?}");
        assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
        let (kernel, userspace) = (flow.kernel_packets, flow.userspace_packets);
        assert!(flow.kind == "rtcp" || kernel > ENOUGH / 2 && userspace < ENOUGH / 2, "{flow:#?}");
    }
    let joined =
        |flow: &&FlowView| flow.reason.as_deref().is_some_and(|reason| reason.contains("in one pass"));
    let networks: Vec<&str> = last.iter().filter(joined).map(|flow| flow.network.as_str()).collect();
    assert_eq!(networks, ["centre"; 4], "what comes from a phone leaves to the other: {last:#?}");

    // Real reports: what each phone says of the other's stream, and the way to each and back.
    let mut quality = Vec::new();
    let told = interrupt::wait_until(LIMIT, "reports that answer reports", || {
        let answer = appliance.ask(&lab, &["calls", "--call-id", &calls[0].call_id])?;
        quality = serde_json::from_value::<Vec<CallView>>(answer)?;
        let ways = quality.iter().flat_map(|call| &call.streams).flat_map(|stream| &stream.directions);
        let known = |way: &&DirectionQuality| {
            way.round_trip_ms.is_some()
                && way.reported_jitter_ms.is_some()
                && way.mos_conversational > Some(4.0)
        };
        Ok((ways.filter(known).count() >= 2).then_some(()))
    });
    assert!(told.is_ok(), "{told:?}\n{quality:#?}");
    for way in quality.iter().flat_map(|call| &call.streams).flat_map(|stream| &stream.directions) {
        assert_eq!((way.verdict, way.codec.as_deref()), (Verdict::Ok, Some("G.711 mu-law")), "{way:#?}");
    }

    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = status()?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })?;
    let (office, centre) = (office.finish()?, centre.finish()?);
    for index in [0, 1] {
        let (rtp, rtcp) = (
            count(&office, phone(index), |packet| packet.rtp().is_some()),
            count(&office, phone(index), Packet::is_rtcp),
        );
        assert!(rtp as u64 > ENOUGH && rtcp > 0, "phone {index} hears {rtp} RTP and {rtcp} RTCP packets");
    }
    assert_eq!(count(&centre, SERVER, |_| true), 0, "the server has no part in the media");
    for packet in office.iter().chain(&centre) {
        if [APPLIANCE_OFFICE, APPLIANCE_CENTRE].contains(packet.source.ip()) {
            assert_eq!(packet.dscp, if is_sip(packet) { 24 } else { 46 }, "{packet:?}");
        }
    }
    Ok(())
}
