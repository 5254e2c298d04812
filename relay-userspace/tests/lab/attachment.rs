//! Where the relay is attached: every rung of the ladder carries a call, an interface that comes back is attached again,
//! and what others have attached is named and stays.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use branchline::control::{FlowView, NetworkView};
use branchline::datapath::kernel::programs::{KernelLog, Options, Programs, RELAY};
use xtask::lab::network::{APPLIANCE_OFFICE, OUTER, TO_OFFICE, phone};
use xtask::lab::{Namespace, interrupt};

use crate::site::{LIMIT, Site, engine, settings};

/// How long calls go on.
const TALK: Duration = Duration::from_secs(60);
/// RTP packets of each flow that a test waits for.
const ENOUGH: u64 = 50;

fn office(site: &Site) -> Result<NetworkView> {
    let networks = site.status()?.networks;
    networks.into_iter().find(|network| network.name == "office").context("no office")
}

/// Waits until every flow of the one call is carried as wanted, and RTP has come through.
fn until_carried(site: &Site, from_office: (&str, &str), from_centre: (&str, &str)) -> Result<Vec<FlowView>> {
    site.until_flows(4, |flow| {
        let (datapath, why) = if flow.network == "office" { from_office } else { from_centre };
        let packets = if datapath == "userspace" { flow.userspace_packets } else { flow.kernel_packets };
        flow.datapath == datapath
            && flow.reason.as_deref().unwrap_or_default().contains(why)
            && packets > if flow.kind == "rtp" { ENOUGH } else { 0 }
    })
}

#[test]
fn each_rung_of_the_ladder_carries_calls_and_says_so() -> Result<()> {
    let not_attached = "no program on the interface";
    let behind = "eth0 does not run XDP in its driver: TC sends by it";
    let configured = "is configured";
    let rows = [
        ("native", "", ("kernel", ""), ("kernel", "")),
        ("generic", configured, ("kernel", ""), ("tc", behind)),
        ("tc", configured, ("tc", configured), ("tc", behind)),
        ("userspace", configured, ("userspace", not_attached), ("tc", behind)),
    ];
    let mut site = Site::start(engine("kernel"))?;
    for (index, (rung, why, from_office, from_centre)) in (3..).zip(rows) {
        site.appliance.stop(libc::SIGTERM)?;
        site.forget_calls()?;
        site.settings.office = format!("attach = \"{rung}\"\n");
        site.start_again()?;
        let network = office(&site)?;
        assert_eq!(network.attached, rung, "{network:?}");
        assert!(network.attached_reason.unwrap_or_default().contains(why), "{rung}");
        let _call = site.phone_calls(index, TALK)?;
        let flows = until_carried(&site, from_office, from_centre).with_context(|| rung.to_owned())?;
        for flow in flows.iter().filter(|flow| flow.kind == "rtp") {
            assert_eq!((flow.lost, flow.duplicates, flow.wrong_source), (0, 0, 0), "{rung}: {flow:#?}");
        }
        let [office, centre] = site.legs();
        for leg in [office.last(), centre.last()] {
            let leg = leg.context("no media")?;
            assert!(leg.received > ENOUGH && leg.heard.lost() == 0, "{rung}: {leg:?}");
        }
    }
    Ok(())
}

#[test]
fn an_interface_that_goes_away_and_comes_back_is_attached_again_and_calls_go_on() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, ("kernel", ""), ("kernel", ""))?;
    site.lab.branch.ip(&["link", "delete", TO_OFFICE])?;
    interrupt::wait_until(LIMIT, "word that the interface is gone", || {
        Ok(office(&site)?.attached_reason.filter(|why| why == "the interface is gone"))
    })?;
    let flows = site.flows()?;
    let from_office = flows.iter().find(|flow| flow.network == "office").context("no flow")?;
    assert_eq!(from_office.datapath, "userspace", "{from_office:#?}");

    // With other hardware addresses and another number, as when a card is changed.
    let (branch, outside) = (&site.lab.branch, &site.lab.office);
    outside.ip(&["link", "add", OUTER, "type", "veth", "peer", "name", TO_OFFICE, "netns", branch.name()])?;
    for (namespace, interface) in [(outside, OUTER), (branch, TO_OFFICE)] {
        namespace.run("ethtool", &["-K", interface, "tx", "off"])?;
        namespace.run("ethtool", &["-K", interface, "gro", "on"])?;
    }
    outside.ip(&["address", "add", &format!("{}/24", phone(3)), "dev", OUTER])?;
    outside.ip(&["link", "set", OUTER, "up"])?;
    branch.ip(&["address", "add", &format!("{APPLIANCE_OFFICE}/24"), "dev", TO_OFFICE])?;
    branch.ip(&["link", "set", TO_OFFICE, "up"])?;
    let before: Vec<(String, u64)> =
        site.flows()?.into_iter().map(|flow| (flow.local, flow.kernel_packets)).collect();
    site.until_flows(4, |flow| {
        let earlier =
            before.iter().find(|(local, _)| *local == flow.local).map_or(0, |(_, packets)| *packets);
        flow.datapath == "kernel" && (flow.kind != "rtp" || flow.kernel_packets > earlier + ENOUGH)
    })?;
    assert_eq!(office(&site)?.attached, "native");

    // Its hardware address is changed: what leaves by it carries the new one, or the phones' answers would be lost.
    branch.ip(&["link", "set", TO_OFFICE, "address", "02:00:00:00:61:01"])?;
    outside.forget_neighbours()?;
    let capture = site.captures()?;
    let before: u64 = site.legs()[0].iter().map(|leg| leg.received).sum();
    interrupt::wait_until(LIMIT, "sound from the new address", || {
        Ok((site.legs()[0].iter().map(|leg| leg.received).sum::<u64>() > before + ENOUGH).then_some(()))
    })?;
    let [on_the_wire, _] = capture;
    let file = on_the_wire.file().to_owned();
    on_the_wire.finish()?;
    let filter = format!("ip.src == {APPLIANCE_OFFICE} && udp");
    let sources = xtask::lab::capture::fields(&file, &filter, &["eth.src"])?;
    let new = sources.iter().filter(|row| row.first().is_some_and(|mac| mac == "02:00:00:00:61:01")).count();
    assert!(new as u64 > ENOUGH / 2, "{new} of {}", sources.len());
    Ok(())
}

#[test]
fn another_program_is_named_and_left_alone_and_tc_carries_the_calls() -> Result<()> {
    let mut site = Site::start(settings())?;
    site.appliance.stop(libc::SIGTERM)?;
    // A relay without flows: it passes everything on. It is attached from within the branch's namespace.
    let index = index_of(&site.lab.branch, TO_OFFICE)?;
    let _other = site.lab.branch.enter(move || -> Result<Programs> {
        let mut other = Programs::load(Options { addresses: vec![], flows: 1, log: KernelLog::Off })?;
        other.xdp(RELAY)?.attach_to_if_index(index, XdpMode::Driver)?;
        Ok(other)
    })??;
    let on_it = || site.lab.branch.ip(&["-details", "link", "show", TO_OFFICE]);
    let before = on_it()?;
    assert!(before.contains("prog/xdp"), "{before}");

    site.settings.datapath = "engine = \"kernel\"\n".to_owned();
    site.start_again()?;
    let network = office(&site)?;
    let why = network.attached_reason.unwrap_or_default();
    assert_eq!(network.attached, "tc", "{why}");
    assert!(why.contains("another XDP program is attached (\"branchline_rela\", id "), "{why}");
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, ("tc", "another XDP program"), ("tc", "does not run XDP in its driver"))?;
    let id = |text: &str| {
        text.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned)
    };
    assert_eq!(id(&before), id(&site.lab.branch.ip(&["-details", "link", "show", TO_OFFICE])?));
    Ok(())
}

fn index_of(namespace: &Namespace, interface: &str) -> Result<u32> {
    let line = namespace.ip(&["-oneline", "link", "show", interface])?;
    Ok(line.split(':').next().context("no index")?.trim().parse()?)
}
