//! A phone with ICE in the office, one without in the centre: the appliance is a lite agent to the first, and to the other
//! nothing is said of it.

use std::net::SocketAddrV4;

use anyhow::Result;
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{self, APPLIANCE_CENTRE, APPLIANCE_OFFICE, SECOND_SERVER, SERVER, phone};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, ask, is_sip, settings, to_appliance, turn};

/// Sound that the test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
/// The first bytes of a binding request and of its success (RFC 8489 section 6).
const REQUEST: [u8; 2] = [0x00, 0x01];
const SUCCESS: [u8; 2] = [0x01, 0x01];

/// STUN of that kind between two addresses, but on the SIP ports.
fn stun(packets: &[Packet], kind: [u8; 2], from: impl Into<std::net::IpAddr>) -> usize {
    let from = from.into();
    let is = |packet: &&Packet| {
        packet.payload.get(..2) == Some(&kind)
            && packet.payload.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
            && std::net::IpAddr::from(*packet.source.ip()) == from
            && !is_sip(packet)
    };
    packets.iter().filter(is).count()
}

#[test]
fn a_phone_with_ice_nominates_the_appliance_and_talks_to_one_without() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    // Only what the description says could be learned, were it not for the checks.
    let office = "ice = \"lite\"\nlatching = \"signalled\"\n".to_owned();
    let appliance = Appliance::start_with(&lab, &Settings { office, ..settings() })?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let with = Account { nat: Some("ice"), ..Account::of(0) };
    let with = Baresip::start(&lab, &lab.office, &with, to_appliance(APPLIANCE_OFFICE))?;
    let without = Account { address: SECOND_SERVER.into(), ..Account::of(1) };
    let without = Baresip::start(&lab, &lab.centre, &without, SocketAddrV4::new(SERVER, PEER_SIP))?;

    for outward in [true, false] {
        if outward {
            with.call(&lab.office, "1002")?;
        } else {
            without.call(&lab.centre, "1001")?;
        }
        let mut last = Vec::new();
        let heard = interrupt::wait_until(LIMIT, "sound in both directions", || {
            last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
            let enough = |flow: &FlowView| flow.kind == "rtcp" || flow.expected > ENOUGH;
            Ok((last.len() == 4 && last.iter().all(enough)).then_some(()))
        });
        let calls = ask::<Vec<CallView>>(&appliance, &lab, "calls")?;
        assert!(heard.is_ok(), "{heard:?}\n{calls:#?}\n{last:#?}");
        for flow in last.iter().filter(|flow| flow.kind != "rtcp") {
            assert_eq!(flow.datapath, "kernel", "{flow:#?}");
            assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
        }
        if outward {
            with.hang_up(&lab.office)?;
        } else {
            without.hang_up(&lab.centre)?;
        }
        interrupt::wait_until(LIMIT, "end of the call", || {
            let status = ask::<StatusView>(&appliance, &lab, "status")?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })?;
    }
    let (office, centre) = (office.finish()?, centre.finish()?);
    let (asked, answered) = (stun(&office, REQUEST, phone(0)), stun(&office, SUCCESS, APPLIANCE_OFFICE));
    assert!(asked >= 4 && answered >= 4, "RTP and RTCP of two calls: {asked} checks, {answered} answers");
    assert_eq!(stun(&office, REQUEST, APPLIANCE_OFFICE), 0, "a lite agent checks nothing itself");
    let says = |packets: &[Packet], from: std::net::Ipv4Addr, word: &str| {
        let of = |packet: &&Packet| *packet.source.ip() == from && is_sip(packet);
        packets.iter().filter(of).any(|packet| String::from_utf8_lossy(&packet.payload).contains(word))
    };
    for word in ["a=ice-lite", "a=candidate:1 1 UDP", "a=candidate:1 2 UDP", "a=ice-pwd:"] {
        assert!(says(&office, APPLIANCE_OFFICE, word), "{word} is missing towards the office");
        assert!(!says(&centre, APPLIANCE_CENTRE, word), "{word} is told to the centre");
    }
    let said = std::fs::read_to_string(with.log())?;
    assert!(said.to_lowercase().contains("ice"), "{said}");
    Ok(())
}
