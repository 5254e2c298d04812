//! A call whose servers are behind a VPN: the kernel carries media between the office's Ethernet and a tunnel that has no
//! link layer, by TC, and says so. The tunnel's maker is the caller's choice.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::capture::fields;
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::wireguard::{End, Maker, Tunnel};
use xtask::lab::{Capture, Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, engine, to_appliance, turn};

/// The appliance's address in the tunnel.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 1);
/// The called phone's, and the server's.
const CALLED: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 10);
const SERVER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 11);
/// RTP packets of each flow that the test waits for: two seconds.
const ENOUGH: u64 = 100;

/// Has a phone of the office call one behind the tunnel, and gives the four flows as they were in the midst of the call.
pub(crate) fn a_call_through(maker: Maker) -> Result<Vec<FlowView>> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let branch = End { namespace: &lab.branch, outer: APPLIANCE_CENTRE, inner: &[OWN] };
    let centre = End { namespace: &lab.centre, outer: SERVER, inner: &[CALLED, SERVER_INSIDE] };
    let tunnel = Tunnel::start(&lab, &[branch, centre], maker)?;
    let [device, far] = &tunnel.devices;
    let server = SocketAddrV4::new(SERVER_INSIDE, PEER_SIP);
    let settings = Settings {
        centre: (device.clone(), OWN.into()),
        servers: vec![server.to_string()],
        ..engine("kernel")
    };
    let _server = Kamailio::start_with(&lab, &lab.centre, "kamailio", server, None)?;
    let appliance = Appliance::start_with(&lab, &settings)?;
    let inside = Capture::start(&lab.centre, far, "inside", lab.dir())?;
    let caller = Baresip::start(&lab, &lab.office, &Account::of(0), to_appliance(APPLIANCE_OFFICE))?;
    let account = Account { address: CALLED.into(), interface: Some(far.clone()), ..Account::of(1) };
    let _called = Baresip::start(&lab, &lab.centre, &account, server)?;

    let status = ask::<StatusView>(&appliance, &lab, "status")?;
    let attached: Vec<(&str, &str, String)> = status
        .networks
        .iter()
        .map(|network| {
            (&*network.name, &*network.attached, network.attached_reason.clone().unwrap_or_default())
        })
        .collect();
    let why = format!("{device} has no link layer, and so no XDP");
    assert_eq!(attached, [("office", "native", String::new()), ("centre", "tc", why.clone())]);

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
    assert!(heard.is_ok(), "{heard:?}\n{last:#?}\n{}", appliance.said());
    for flow in &last {
        let expected = if flow.network == "office" {
            format!("{device} has no link layer: TC sends by it, XDP cannot")
        } else {
            why.clone()
        };
        assert_eq!((flow.datapath.as_str(), flow.reason.as_ref()), ("tc", Some(&expected)), "{flow:#?}");
    }
    caller.hang_up(&lab.office)?;
    let file = inside.end()?;
    let filter = format!("ip.src == {OWN} && ip.dst == {CALLED} && udp && !sip && !icmp");
    let rows =
        fields(&file, &filter, &["ip.dsfield.dscp", "ip.checksum.status", "udp.checksum.status", "ip.ttl"])?;
    assert!(rows.len() as u64 > ENOUGH, "{}", rows.len());
    for row in rows {
        let [dscp, ip, udp, ttl] = row.as_slice() else { anyhow::bail!("{row:?}") };
        assert_eq!((dscp.as_str(), udp.as_str()), ("46", "1"), "{row:?}");
        assert!(ip != "0" && ttl.parse::<u8>().context("TTL")? > 1, "{row:?}");
    }
    Ok(last)
}
