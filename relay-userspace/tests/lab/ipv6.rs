//! An office with phones of both families, and a server that has one of them: baresip over IPv6 and over IPv4, Kamailio,
//! and the kernel between the families.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use branchline::control::{CallView, FlowView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::capture::fields;
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{
    APPLIANCE_CENTRE, APPLIANCE_CENTRE_IPV6, APPLIANCE_OFFICE, APPLIANCE_OFFICE_IPV6, OUTER, SERVER,
    SERVER_IPV6, TO_CENTRE, TO_OFFICE, add_ipv6, phone, phone_ipv6,
};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, engine, settings, to_appliance, turn};

/// RTP packets of each flow that a test waits for: two seconds.
const ENOUGH: u64 = 100;
/// What tshark says of a checksum that is right.
const GOOD: &str = "1";

/// A call from a phone with IPv4 to one with IPv6, by a server with one of them that leads it back.
fn a_call_between_families(settings: Settings, server: IpAddr, datapath: &str) -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    add_ipv6(&lab.branch, APPLIANCE_OFFICE_IPV6, TO_OFFICE)?;
    let host = lab.own_host(1)?;
    add_ipv6(&host, phone_ipv6(1), OUTER)?;
    let tables = format!(
        "[[network]]\nname = \"office6\"\nrole = \"phones\"\ninterface = \"{TO_OFFICE}\"\n\
         address = \"{APPLIANCE_OFFICE_IPV6}\"\n"
    );
    let own = if server.is_ipv6() { APPLIANCE_CENTRE_IPV6.into() } else { APPLIANCE_CENTRE.into() };
    add_ipv6(&lab.branch, APPLIANCE_CENTRE_IPV6, TO_CENTRE)?;
    add_ipv6(&lab.centre, SERVER_IPV6, OUTER)?;
    let server = SocketAddr::new(server, PEER_SIP);
    let (centre, servers) = ((TO_CENTRE.to_owned(), own), vec![server.to_string()]);
    let settings = Settings { tables, centre, servers, ..settings };
    let _server = Kamailio::start(&lab, server)?;
    let appliance = Appliance::start_with(&lab, &settings)?;
    let office = Capture::start(&lab.office, OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, OUTER, "centre", lab.dir())?;
    let caller = Baresip::start(&lab, &lab.office, &Account::of(0), to_appliance(APPLIANCE_OFFICE))?;
    let modern = Account { address: phone_ipv6(1).into(), ..Account::of(1) };
    let proxy = SocketAddr::from((APPLIANCE_OFFICE_IPV6, APPLIANCE_SIP));
    let _called = Baresip::start(&lab, &host, &modern, proxy)?;

    caller.call(&lab.office, "1002")?;
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound and reports in both directions of both legs", || {
        last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let enough = |flow: &FlowView| match flow.kind.as_str() {
            "rtcp" => flow.rtcp_packets > 0,
            _ => flow.expected > ENOUGH,
        };
        Ok((last.len() == 8 && last.iter().all(enough)).then_some(()))
    });
    let calls = ask::<Vec<CallView>>(&appliance, &lab, "calls")?;
    assert!(heard.is_ok(), "{heard:?}\n{calls:#?}\n{last:#?}\n{}", appliance.said());
    for flow in &last {
        assert_eq!(flow.datapath, datapath, "{flow:#?}");
        assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
    }
    let of = |network: &str| last.iter().filter(|flow| flow.network == network).count();
    assert_eq!((of("office"), of("office6"), of("centre")), (2, 2, 4), "{last:#?}");
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        Ok(ask::<Vec<FlowView>>(&appliance, &lab, "flows")?.is_empty().then_some(()))
    })?;

    let file = office.file().to_owned();
    let old: Vec<u8> = office
        .finish()?
        .iter()
        .filter(|packet| *packet.source.ip() == APPLIANCE_OFFICE && *packet.destination.ip() == phone(0))
        .filter(|packet| packet.rtp().is_some())
        .map(|packet| packet.dscp)
        .collect();
    assert!(old.len() as u64 > ENOUGH && old.iter().all(|dscp| *dscp == 46), "{old:?}");
    let filter =
        format!("ipv6.src == {APPLIANCE_OFFICE_IPV6} && ipv6.dst == {} && udp && !icmpv6", phone_ipv6(1));
    let wanted = ["udp.srcport", "ipv6.tclass.dscp", "udp.checksum.status", "ipv6.hlim"];
    let (mut sound, mut signalling) = (0, 0);
    for row in fields(&file, &filter, &wanted)? {
        let [port, dscp, checksum, hops] = row.as_slice() else { anyhow::bail!("{row:?}") };
        assert_eq!(checksum, GOOD, "{row:?}");
        assert!(hops.parse::<u8>().context("hop limit")? > 1, "{row:?}");
        if port.parse::<u16>()? == APPLIANCE_SIP {
            assert_eq!(dscp, "24", "{row:?}");
            signalling += 1;
        } else {
            assert_eq!(dscp, "46", "{row:?}");
            sound += 1;
        }
    }
    assert!(sound > ENOUGH && signalling > 2, "{sound} packets of sound, {signalling} of signalling");
    let file = centre.file().to_owned();
    centre.finish()?;
    let ports = format!("udp && !icmp && !icmpv6 && udp.port != {PEER_SIP}");
    assert_eq!(fields(&file, &ports, &["udp.port"])?, Vec::<Vec<String>>::new(), "no media at the server");
    Ok(())
}

#[test]
fn phones_of_both_families_talk_by_the_kernel_through_a_server_that_has_one() -> Result<()> {
    a_call_between_families(settings(), SERVER.into(), "kernel")
}

#[test]
fn phones_of_both_families_talk_by_the_kernel_through_a_server_that_has_ipv6_alone() -> Result<()> {
    a_call_between_families(settings(), SERVER_IPV6.into(), "kernel")
}

#[test]
fn phones_of_both_families_talk_by_userspace_through_a_server_that_has_one() -> Result<()> {
    a_call_between_families(engine("userspace"), SERVER.into(), "userspace")
}
