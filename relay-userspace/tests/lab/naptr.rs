//! A domain whose NAPTR records lead to two names and two transports, among records that lead nowhere. The SRV records of
//! both are one set; the first of it is reached by TCP at the second of its addresses, and when it is killed the phone
//! comes to the second by UDP.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SECOND_SERVER, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::{
    site::{LIMIT, ask, settings, to_appliance, turn},
    two_servers::{dns, server},
};

/// An address of the centre at which nobody is.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 99);

fn records() -> Vec<String> {
    let naptr = |rest: &str| format!("--naptr-record=lab.example,{rest}");
    vec![
        naptr("1,1,u,E2U+sip,!^.*$!sip:nobody@nowhere.example!"),
        naptr("2,1,s,SIP+D2S,,_sip._sctp.lab.example"),
        naptr("3,1,,SIP+D2U,,lab.example"),
        naptr("4,1,s,SIP+D2T,,_sip._tcp.nothing.lab.example"),
        naptr("10,10,s,SIP+D2U,,_sip._udp.west.lab.example"),
        naptr("10,10,s,SIP+D2T,,_sip._tcp.east.lab.example"),
        format!("--srv-host=_sip._tcp.east.lab.example,one.lab.example,{PEER_SIP},10,0"),
        format!("--srv-host=_sip._udp.west.lab.example,two.lab.example,{PEER_SIP},20,0"),
        // Only these would be found without NAPTR.
        format!("--srv-host=_sip._udp.lab.example,nobody.lab.example,{PEER_SIP},0,0"),
        format!("--host-record=one.lab.example,{NOBODY}"),
        format!("--host-record=one.lab.example,{SERVER}"),
        format!("--host-record=two.lab.example,{SECOND_SERVER}"),
        format!("--host-record=nobody.lab.example,{NOBODY}"),
    ]
}

#[test]
fn naptr_records_lead_to_servers_by_two_transports_of_which_one_is_killed() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let dns = dns(&lab, &records())?;
    let start = |name, address| {
        Kamailio::start_with(&lab, &lab.centre, name, SocketAddrV4::new(address, PEER_SIP), None)
    };
    let mut first = start("kamailio-one", SERVER)?;
    let second = start("kamailio-two", SECOND_SERVER)?;
    let settings = Settings {
        servers: vec!["sip:lab.example".to_owned()],
        upstream: format!("dns = [\"{SERVER}\"]\nprobe_seconds = 1\nrecovery_seconds = 5\n"),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    let servers = interrupt::wait_until(LIMIT, "both servers up, the third address down", || {
        let servers = status()?.servers;
        let is = |address, state: &str| server(&servers, address).is_some_and(|it| it.state == state);
        Ok((is(SERVER, "up") && is(SECOND_SERVER, "up") && is(NOBODY, "down")).then_some(servers))
    })
    .with_context(|| format!("{:#?}\n{}\n{}", status(), appliance.said(), dns.said()))?;
    let transport = |address| server(&servers, address).and_then(|server| server.transport.clone());
    assert_eq!((transport(SERVER), transport(SECOND_SERVER)), (Some("tcp".into()), Some("udp".into())));
    assert_eq!(servers.len(), 3, "{servers:#?}");
    assert_eq!(servers[2].address, Some(format!("{SECOND_SERVER}:{PEER_SIP}")), "by SRV priority");

    let account = Account { expires: 10, ..Account::of(0) };
    let _phone = Baresip::start(&lab, &lab.office, &account, to_appliance(APPLIANCE_OFFICE))?;
    assert!(first.said().contains("registered 1001"), "{}", first.said());
    assert!(!second.said().contains("registered 1001"), "{}", second.said());
    first.kill();
    interrupt::wait_until(LIMIT, "the phone at the second server", || {
        Ok(second.said().contains("registered 1001").then_some(()))
    })
    .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;
    assert!(server(&status()?.servers, SECOND_SERVER).is_some_and(|server| server.preferred));
    Ok(())
}
