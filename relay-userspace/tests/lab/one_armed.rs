//! The appliance with one cable: phones and server are behind the same interface, on which it has an address for
//! each. Every packet leaves by the interface that it came by, in the kernel.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use branchline::control::FlowView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{self, APPLIANCE_OFFICE, TO_OFFICE, phone};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, ask, is_sip, settings, to_appliance, turn};

/// The appliance's other address on the same interface: the one that the server knows.
const TO_SERVER: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 2);
/// RTP packets of each flow that the test waits for: two seconds.
const ENOUGH: u64 = 100;

#[test]
fn with_one_interface_a_call_goes_back_out_of_it_in_the_kernel() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    lab.branch.ip(&["address", "add", &format!("{TO_SERVER}/24"), "dev", TO_OFFICE])?;
    let (called_host, server_host) = (lab.own_host(1)?, lab.own_host(2)?);
    let server = SocketAddrV4::new(phone(2), PEER_SIP);
    let settings = Settings {
        centre: (TO_OFFICE.to_owned(), TO_SERVER.into()),
        servers: vec![server.to_string()],
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let _server = Kamailio::start_with(&lab, &server_host, "kamailio", server, None)?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let caller = Baresip::start(&lab, &lab.office, &Account::of(0), to_appliance(APPLIANCE_OFFICE))?;
    // The other party is where the server is: it needs no appliance.
    let _called = Baresip::start(&lab, &called_host, &Account::of(1), server)?;

    caller.call(&lab.office, "1002")?;
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound and reports in both directions", || {
        last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let enough = |flow: &FlowView| match flow.kind.as_str() {
            "rtcp" => flow.rtcp_packets > 0,
            _ => flow.kernel_packets > ENOUGH,
        };
        Ok((last.len() == 4 && last.iter().all(enough)).then_some(()))
    });
    assert!(heard.is_ok(), "{heard:?}\n{last:#?}");
    for flow in &last {
        assert_eq!((flow.datapath.as_str(), &flow.reason), ("kernel", &None), "{flow:#?}");
        assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
    }
    caller.hang_up(&lab.office)?;
    let office = office.finish()?;
    for (from, to) in [(APPLIANCE_OFFICE, phone(0)), (TO_SERVER, phone(1))] {
        let sound = |packet: &&Packet| {
            (*packet.source.ip(), *packet.destination.ip()) == (from, to)
                && !is_sip(packet)
                && packet.rtp().is_some()
        };
        let marks: Vec<u8> = office.iter().filter(sound).map(|packet| packet.dscp).collect();
        assert!(marks.len() as u64 > ENOUGH, "{} packets from {from} to {to}", marks.len());
        assert!(marks.iter().all(|dscp| *dscp == 46), "{marks:?}");
    }
    Ok(())
}
