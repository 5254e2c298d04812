//! An intruder in the office who knows the ports of a call gets nothing through: not before the phone's source
//! is learned, not while the call stands, not when it is over.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::FlowView;
use xtask::lab::interrupt;
use xtask::lab::network::phone;
use xtask::lab::sipp::Scenario;

use crate::site::{LIMIT, Site, engine};

/// Where the intruder sits, and the port that it sends from.
const INTRUDER: u8 = 9;
const INTRUDER_PORT: u16 = 31_000;
/// Packets in each attempt.
const PACKETS: u64 = 50;
/// In every packet of the intruder.
const MARK: &[u8] = b"not the phone's own sound";

/// Sends well-formed RTP from an address of the office.
fn intrude(site: &Site, from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
    let sent = site.lab.office.enter(move || -> std::io::Result<()> {
        let socket = UdpSocket::bind(from)?;
        for sequence in 0..PACKETS as u16 {
            let mut packet = vec![0x80, 0];
            packet.extend(sequence.to_be_bytes());
            packet.extend((u32::from(sequence) * 160).to_be_bytes());
            packet.extend(0x0BAD_0BADu32.to_be_bytes());
            packet.extend(MARK);
            socket.send_to(&packet, to)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    sent.context("the intruder cannot send")
}

/// The flow of the phone's RTP.
fn rtp(flows: &[FlowView]) -> Result<&FlowView> {
    let mut phones = flows.iter().filter(|flow| flow.network == "office" && flow.kind == "rtp");
    phones.next().with_context(|| format!("no RTP flow from the office: {flows:#?}"))
}

/// Waits until the intruder's packets are counted, on the flow and in the metric.
fn until_counted(
    site: &Site,
    (reason, datapath): (&str, &str),
    packets: u64,
    of: impl Fn(&FlowView) -> u64,
) -> Result<()> {
    interrupt::wait_until(LIMIT, "count of every packet of the intruder", || {
        let counted = of(rtp(&site.flows()?)?);
        let labels = [("reason", reason), ("datapath", datapath)];
        let metric = site.metric("branchline_media_dropped_total", &labels)?;
        Ok((counted == packets && metric >= packets as f64).then_some(()))
    })
    .with_context(|| format!("{reason} of {datapath}: {:#?}", site.flows()))
}

fn attack(datapath: &str) -> Result<()> {
    let site = Site::start(engine(datapath))?;
    let [office, centre] = site.captures()?;
    let intruder = SocketAddrV4::new(phone(INTRUDER), INTRUDER_PORT);
    let mut call =
        site.call(Scenario::PhoneCall, 0, Duration::from_secs(8)).start(&site.lab.office, site.lab.dir())?;
    // The phone is silent: its flows learn for as long as it is.
    let answered = site.until_flows(4, |flow| {
        flow.destination.is_some() && (flow.network != "office" || flow.learned.is_none())
    })?;
    let target: SocketAddrV4 = rtp(&answered)?.local.parse()?;

    intrude(&site, intruder, target)?;
    until_counted(&site, ("source_refused", "userspace"), PACKETS, |flow| flow.refused)?;
    let flows = site.flows()?;
    assert_eq!(rtp(&flows)?.learned, None, "an intruder is not learned");
    assert_eq!(rtp(&flows)?.refused_sources, [format!("{intruder} ({PACKETS} packets)")]);

    site.play(&call)?;
    let learned = site.until_flows(4, |flow| flow.datapath == datapath)?;
    let own: SocketAddrV4 = rtp(&learned)?.learned.as_deref().unwrap_or_default().parse()?;
    assert_eq!(*own.ip(), phone(0));

    intrude(&site, intruder, target)?;
    // The phone's own address, another port: refused as well, for the source is exact.
    intrude(&site, SocketAddrV4::new(phone(0), INTRUDER_PORT), target)?;
    until_counted(&site, ("wrong_source", datapath), 2 * PACKETS, |flow| u64::from(flow.wrong_source))?;
    assert_eq!(rtp(&site.flows()?)?.learned, rtp(&learned)?.learned, "what was learned stays");

    call.succeed(LIMIT)?;
    intrude(&site, intruder, target)?;
    site.until_flows(0, |_| true)?;
    intrude(&site, intruder, target)?;

    let marked = |payload: &Vec<u8>| payload.ends_with(MARK);
    let (office, centre) = (office.finish()?, centre.finish()?);
    assert_eq!(office.iter().filter(|packet| marked(&packet.payload)).count() as u64, 5 * PACKETS);
    assert_eq!(
        centre.iter().filter(|packet| marked(&packet.payload)).count(),
        0,
        "the centre hears nothing of it"
    );
    for leg in site.legs().concat() {
        assert!(leg.received > 0 && leg.strays == 0, "the call itself goes on: {leg:?}");
    }
    Ok(())
}

#[test]
fn an_intruder_is_refused_dropped_and_counted_before_during_and_after_a_call_in_the_kernel() -> Result<()> {
    attack("kernel")
}

#[test]
fn an_intruder_is_refused_dropped_and_counted_before_during_and_after_a_call_in_userspace() -> Result<()> {
    attack("userspace")
}
