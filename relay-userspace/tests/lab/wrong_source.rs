//! Intruders who know the ports of a call, one in the office, one beside the phone and one beside the server, get
//! nothing through and hear nothing: not before the phone's source is learned, not while the call stands, not when it is
//! over. Each is listed for the call.

use std::io::ErrorKind;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{CallView, FlowView, RefusalView};
use xtask::lab::netns::Namespace;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::Scenario;
use xtask::lab::{Packet, interrupt};

use crate::site::{LIMIT, Site, engine};

/// Where the intruder sits, and the port that it sends from.
const INTRUDER: u8 = 9;
const INTRUDER_PORT: u16 = 31_000;
/// Packets in each attempt.
const PACKETS: u64 = 50;
/// In every packet of the intruder.
const MARK: &[u8] = b"not the phone's own sound";

/// Somebody who knows a port of the call.
struct Intruder {
    socket: UdpSocket,
    own: SocketAddrV4,
    sent: u64,
}

impl Intruder {
    fn sit(namespace: &Namespace, own: SocketAddrV4) -> Result<Self> {
        let socket =
            namespace.enter(move || UdpSocket::bind(own))?.context("the intruder cannot sit there")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, own, sent: 0 })
    }

    /// Sends well-formed RTP.
    fn intrude(&mut self, to: SocketAddrV4) -> Result<()> {
        for sequence in 0..PACKETS as u16 {
            let mut packet = vec![0x80, 0];
            packet.extend(sequence.to_be_bytes());
            packet.extend((u32::from(sequence) * 160).to_be_bytes());
            packet.extend(0x0BAD_0BADu32.to_be_bytes());
            packet.extend(MARK);
            self.socket.send_to(&packet, to).context("the intruder cannot send")?;
            self.sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// RTP bleed: whoever sends to a port is sent what the other party says. Nothing of the kind has come.
    fn has_heard_nothing(&self) {
        let heard = self.socket.recv(&mut [0; 2048]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock), "a packet of the call came to {}", self.own);
    }
}

/// The flow of the RTP from a network.
fn rtp_from<'a>(flows: &'a [FlowView], network: &str) -> Result<&'a FlowView> {
    let mut theirs = flows.iter().filter(|flow| flow.network == network && flow.kind == "rtp");
    theirs.next().with_context(|| format!("no RTP flow from {network}: {flows:#?}"))
}

/// The flow of the phone's RTP.
fn rtp(flows: &[FlowView]) -> Result<&FlowView> {
    rtp_from(flows, "office")
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
    let mut stranger = Intruder::sit(&site.lab.office, SocketAddrV4::new(phone(INTRUDER), INTRUDER_PORT))?;
    // The parties' own addresses, other ports: the hardest to tell.
    let mut beside_phone = Intruder::sit(&site.lab.office, SocketAddrV4::new(phone(0), INTRUDER_PORT))?;
    let mut beside_server = Intruder::sit(&site.lab.centre, SocketAddrV4::new(SERVER, INTRUDER_PORT))?;
    let mut call =
        site.call(Scenario::PhoneCall, 0, Duration::from_secs(8)).start(&site.lab.office, site.lab.dir())?;
    // The phone is silent: its flows learn for as long as it is.
    let answered = site.until_flows(4, |flow| {
        flow.destination.is_some() && (flow.network != "office" || flow.learned.is_none())
    })?;
    let target: SocketAddrV4 = rtp(&answered)?.local.parse()?;
    let far_target: SocketAddrV4 = rtp_from(&answered, "centre")?.local.parse()?;

    stranger.intrude(target)?;
    beside_server.intrude(far_target)?;
    until_counted(&site, ("source_refused", "userspace"), PACKETS, |flow| flow.refused)?;
    let flows = site.flows()?;
    assert_eq!(rtp(&flows)?.learned, None, "an intruder is not learned");
    assert_eq!(rtp(&flows)?.refused_sources, [format!("{} ({PACKETS} packets)", stranger.own)]);

    site.play(&call)?;
    let learned = site.until_flows(4, |flow| flow.datapath == datapath)?;
    let own: SocketAddrV4 = rtp(&learned)?.learned.as_deref().unwrap_or_default().parse()?;
    assert_eq!(*own.ip(), phone(0));

    stranger.intrude(target)?;
    beside_phone.intrude(target)?;
    beside_server.intrude(far_target)?;
    until_counted(&site, ("wrong_source", datapath), 2 * PACKETS, |flow| u64::from(flow.wrong_source))?;
    let flows = site.flows()?;
    assert_eq!(rtp(&flows)?.learned, rtp(&learned)?.learned, "what was learned stays");
    // Every one of them is listed, with what came from there, and by whom it was refused.
    let listed = |refusals: &[RefusalView], intruder: SocketAddrV4| -> u64 {
        let own = intruder.to_string();
        let of = refusals.iter().filter(|refusal| refusal.source == own && refusal.first_unix_ms > 0);
        of.map(|refusal| refusal.packets).sum()
    };
    let expected =
        [(stranger.own, 2 * PACKETS), (beside_phone.own, PACKETS), (beside_server.own, 2 * PACKETS)];
    let standing: Vec<RefusalView> = flows.iter().flat_map(|flow| flow.refusals.clone()).collect();
    for (intruder, packets) in expected {
        assert_eq!(listed(&standing, intruder), packets, "{intruder}: {standing:#?}");
    }
    assert!(standing.iter().any(|refusal| refusal.by == datapath), "{standing:#?}");
    assert_eq!(flows.iter().map(|flow| flow.refused_further).sum::<u64>(), 0);

    call.succeed(LIMIT)?;
    stranger.intrude(target)?;
    site.until_flows(0, |_| true)?;
    stranger.intrude(target)?;
    beside_server.intrude(far_target)?;
    let calls: Vec<CallView> = serde_json::from_value(site.appliance.ask(&site.lab, &["calls", "--ended"])?)?;
    let kept = calls.iter().flat_map(|call| &call.refusals).cloned().collect::<Vec<_>>();
    for (intruder, packets) in expected {
        assert!(listed(&kept, intruder) >= packets, "in the call's record: {intruder}: {calls:#?}");
    }

    for intruder in [&stranger, &beside_phone, &beside_server] {
        intruder.has_heard_nothing();
    }
    let marked = |packet: &&Packet| packet.payload.ends_with(MARK);
    let (office, centre) = (office.finish()?, centre.finish()?);
    for (packets, intruders, near) in [
        (&office, &[&stranger, &beside_phone][..], APPLIANCE_OFFICE),
        (&centre, &[&beside_server][..], APPLIANCE_CENTRE),
    ] {
        let all: Vec<&Packet> = packets.iter().filter(marked).collect();
        assert_eq!(all.len() as u64, intruders.iter().map(|intruder| intruder.sent).sum::<u64>());
        // What is on this wire is what the intruders here sent: nothing of the other side's came out.
        assert!(
            all.iter().all(|packet| *packet.destination.ip() == near),
            "an intruder's packet got through"
        );
    }
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
