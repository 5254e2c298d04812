//! Those who send too much: the kernel drops what is more than a source may send, calls go on and new ones come, and who
//! does not stop, or whom the operator names, is shut out.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{DenialView, StatusView};
use serde_json::Value;
use xtask::lab::flood::Flood;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_OFFICE, phone};

use crate::site::{LIMIT, Site, engine, to_appliance};

/// How the flood is bounded.
const PACKETS: u64 = 4_000_000;
const TIME: Duration = Duration::from_secs(8);
/// From where it comes: addresses that no phone has registered from.
const ATTACKER: u8 = 12;
const OTHER: u8 = 13;

fn dropped(status: &StatusView, reason: &str) -> u64 {
    status.not_forwarded.iter().find(|(name, ..)| name == reason).map_or(0, |(_, kernel, _)| *kernel)
}

fn denials(site: &Site) -> Result<Vec<DenialView>> {
    let answer: Value = site.appliance.ask(&site.lab, &["deny"])?;
    Ok(serde_json::from_value(answer)?)
}

#[test]
fn a_flood_of_the_sip_port_harms_neither_running_media_nor_calls_that_are_set_up() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    site.until_flows(4, |flow| flow.datapath == "kernel" && flow.kernel_packets > 0)?;
    let source = SocketAddr::from((phone(ATTACKER), 40_000));
    let target = to_appliance(APPLIANCE_OFFICE).into();
    let flood = Flood::start(&site.lab.office, source, target, b"OPTIONS sip:x SIP/2.0\r\n", PACKETS, TIME)?;

    // In its midst a phone registers, and another one calls.
    site.register(5, "1005")?;
    let mut call = site.phone_calls(4, Duration::from_secs(2))?;
    call.succeed(LIMIT)?;
    let flooded = flood.finish()?;
    println!("{} packets, {:.0} a second", flooded.packets, flooded.rate());
    let [office, centre] = site.legs();
    for leg in office.iter().chain(&centre) {
        assert!(leg.received > 0 && leg.heard.lost() == 0 && leg.strays == 0, "{leg:?}");
    }
    for flow in site.flows()?.iter().filter(|flow| flow.kind == "rtp") {
        assert_eq!((flow.lost, flow.datapath.as_str()), (0, "kernel"), "{flow:#?}");
    }
    let status = site.status()?;
    let all = dropped(&status, "source_rate") + dropped(&status, "unknown_rate") + dropped(&status, "denied");
    assert!(all > flooded.packets * 9 / 10, "{all} of {}: {:?}", flooded.packets, status.not_forwarded);
    Ok(())
}

#[test]
fn who_sends_nonsense_again_and_again_is_shut_out_and_so_is_whom_the_operator_names() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let target = to_appliance(APPLIANCE_OFFICE);
    let socket = |index: u8| -> Result<UdpSocket> {
        let from = SocketAddr::from((phone(index), 0));
        let socket = site
            .lab
            .office
            .enter(move || UdpSocket::bind(from).and_then(|it| it.connect(target).map(|()| it)))??;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(socket)
    };
    let options = |socket: &UdpSocket| -> Result<bool> {
        let own = socket.local_addr()?;
        let text = format!(
            "OPTIONS sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@{own}>;tag=1\r\nTo: <sip:{target}>\r\nCall-ID: flood-{}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            own.port(),
            own.port()
        );
        socket.send(text.as_bytes())?;
        Ok(socket.recv(&mut [0; 2000]).is_ok())
    };
    let (offender, other) = (socket(ATTACKER)?, socket(OTHER)?);
    assert!(options(&offender)? && options(&other)?, "both are answered");
    for number in 0..120 {
        offender.send(format!("INVITE \u{0}{number}").as_bytes())?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let denied = interrupt::wait_until(LIMIT, "denial of the offender", || {
        Ok(denials(&site)?.into_iter().find(|denial| denial.prefix == format!("{}/32", phone(ATTACKER))))
    })?;
    assert!(denied.why.contains("had to be refused"), "{denied:?}");
    assert!(denied.seconds_left.is_some_and(|left| left > 500 && left <= 600), "{denied:?}");
    interrupt::wait_until(LIMIT, "silence for the offender", || Ok((!options(&offender)?).then_some(())))?;
    assert!(options(&other)?, "others are answered");

    // By command, for a network; the phone's calls by another address go on.
    let network = format!("{}/32", phone(OTHER));
    site.appliance.show(&site.lab, &["deny", "add", &network, "--minutes", "5"])?;
    assert!(!options(&other)?, "denied at once");
    let rows = denials(&site)?;
    let row = rows.iter().find(|row| row.prefix == network).context("no row")?;
    assert!(row.packets > 0 && row.why == "by command", "{row:?}");
    site.appliance.show(&site.lab, &["deny", "remove", &network])?;
    assert!(options(&other)?, "and allowed at once");
    let refused = site.appliance.show(&site.lab, &["deny", "add", "10.62.0.10"]);
    let why = format!("{:#}", refused.err().context("a server was denied")?);
    assert!(why.contains("10.62.0.10/32 is a trusted peer"), "{why}");
    site.a_call_works()
}
