//! Calls as the wires on both sides see them, over both datapaths.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::FlowView;
use xtask::lab::capture::Checksum;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::Scenario;
use xtask::lab::{Packet, Routes, UdpChecksum};

use crate::site::{LIMIT, Site, engine, is_sip};

/// Expedited forwarding, and class selector 3.
const MEDIA_DSCP: u8 = 46;
const SIP_DSCP: u8 = 24;
/// IPv4 and UDP headers, in bytes.
const HEADERS: usize = 28;
/// RTP packets of each flow that a test waits for: two seconds.
const ENOUGH: u64 = 100;
/// Longer than it takes to gather these.
const TALK: Duration = Duration::from_secs(10);

/// A stream by its source identifier, RTP and RTCP apart.
type Streams = BTreeMap<(u32, bool), Vec<Vec<u8>>>;

/// The media packets that are sent from or to an address, in order.
fn streams(packets: &[Packet], passes: impl Fn(&Packet) -> bool) -> Streams {
    let mut streams = Streams::new();
    for packet in packets.iter().filter(|packet| !is_sip(packet) && passes(packet)) {
        let key = match packet.rtp() {
            Some(header) => (header.ssrc, false),
            None => {
                assert!(packet.is_rtcp(), "neither SIP nor RTP nor RTCP: {packet:?}");
                let ssrc = packet.payload[4..8].try_into().unwrap_or_default();
                (u32::from_be_bytes(ssrc), true)
            }
        };
        streams.entry(key).or_default().push(packet.payload.clone());
    }
    streams
}

/// Every packet of the appliance on a far wire: marks and checksums.
fn check_marks(packets: &[Packet], appliance: Ipv4Addr, checksum: impl Fn(&Packet) -> bool) {
    let mut seen = [0; 3];
    for packet in packets.iter().filter(|packet| *packet.source.ip() == appliance) {
        let (kind, dscp) = match packet {
            packet if is_sip(packet) => (0, SIP_DSCP),
            packet if packet.is_rtcp() => (1, MEDIA_DSCP),
            _ => (2, MEDIA_DSCP),
        };
        seen[kind] += 1;
        assert_eq!(packet.dscp, dscp, "{packet:?}");
        assert_eq!(packet.ip_checksum, Checksum::Good, "{packet:?}");
        assert!(checksum(packet), "{packet:?}");
    }
    assert!(seen.iter().all(|count| *count > 0), "SIP, RTCP, RTP from {appliance}: {seen:?}");
}

/// What was sent to the appliance on one wire is what left it on the other, in that order.
fn check_payloads(near: &[Packet], near_side: Ipv4Addr, far: &[Packet], far_side: Ipv4Addr) -> Streams {
    let sent = streams(near, |packet| *packet.destination.ip() == near_side);
    let arrived = streams(far, |packet| *packet.source.ip() == far_side);
    assert_eq!(sent.keys().collect::<Vec<_>>(), arrived.keys().collect::<Vec<_>>());
    for (stream, payloads) in &sent {
        let (count, got) = (payloads.len(), arrived[stream].len());
        assert_eq!(count, got, "packets of stream {stream:x?} sent and arrived");
        assert!(*payloads == arrived[stream], "stream {stream:x?}: other bytes or another order");
    }
    arrived
}

/// A flow's report is what the wires say.
fn check_flow(flow: &FlowView, datapath: &str, near: &[Packet], far: &[Packet]) -> Result<()> {
    let address = |text: &str| text.parse::<SocketAddrV4>();
    let (local, out) = (address(&flow.local)?, address(&flow.out)?);
    let learned = address(flow.learned.as_deref().context("no source was learned")?)?;
    let destination = address(flow.destination.as_deref().context("no destination")?)?;
    let arrived: Vec<&Packet> = near.iter().filter(|packet| packet.destination == local).collect();
    let left = far.iter().filter(|packet| packet.source == out && packet.destination == destination).count();
    assert!(arrived.iter().all(|packet| packet.source == learned), "{flow:#?}");
    assert_eq!(flow.signalled, flow.learned);
    assert!(flow.learned_unix_ms.is_some());
    assert_eq!(flow.datapath, datapath, "{flow:#?}");
    match datapath {
        "kernel" => {
            assert_eq!(flow.reason, None);
            assert!(flow.kernel_packets > 0, "{flow:#?}");
        }
        _ => {
            assert!(flow.reason.as_deref().is_some_and(|reason| reason.contains("kernel datapath is off")));
            assert_eq!(flow.kernel_packets, 0);
        }
    }
    let packets = flow.kernel_packets + flow.userspace_packets;
    assert_eq!((packets, packets), (arrived.len() as u64, left as u64), "arrived, left: {flow:#?}");
    assert_eq!(flow.bytes, arrived.iter().map(|packet| (HEADERS + packet.payload.len()) as u64).sum::<u64>());
    let (rtp, rtcp) = if flow.kind == "rtcp" { (0, packets) } else { (packets, 0) };
    assert_eq!((flow.expected, u64::from(flow.rtcp_packets)), (rtp, rtcp), "{flow:#?}");
    assert_eq!((flow.lost, flow.duplicates, flow.reordered), (0, 0, 0), "{flow:#?}");
    assert_eq!((flow.dscp_in, flow.dscp_out), (0, Some(MEDIA_DSCP)), "{flow:#?}");
    assert_eq!((flow.wrong_source, flow.refused), (0, 0), "{flow:#?}");
    Ok(())
}

/// One call out and one in, until every flow has had enough; then all media ends and the calls do.
fn two_calls(datapath: &str) -> Result<[Streams; 2]> {
    let mut site = Site::start(engine(datapath))?;
    let [office, centre] = site.captures()?;
    let binding = site.register(1, "1001")?;
    let mut outbound = site.phone_calls(0, TALK)?;
    site.until_flows(4, |flow| flow.datapath == datapath)?;
    let mut inbound = site.server_calls(1, &binding, TALK)?;
    site.until_flows(8, |flow| flow.datapath == datapath && (flow.kind == "rtcp" || flow.expected > ENOUGH))?;
    site.silence()?;
    let (flows, calls) = (site.flows()?, site.calls()?);
    for sipp in inbound.iter_mut().chain([&mut outbound]) {
        sipp.succeed(LIMIT)?;
    }
    let (office, centre) = (office.finish()?, centre.finish()?);

    check_marks(&centre, APPLIANCE_CENTRE, |packet| packet.udp_checksum == Checksum::Good);
    check_marks(&office, APPLIANCE_OFFICE, |packet| packet.udp_checksum == Checksum::Good);
    assert_eq!((flows.len(), calls.len()), (8, 2), "{calls:#?}");
    for flow in &flows {
        let from_office = flow.network == "office";
        let (near, far) = if from_office { (&office, &centre) } else { (&centre, &office) };
        check_flow(flow, datapath, near, far)?;
        let peer: SocketAddr = flow.learned.as_deref().unwrap_or_default().parse()?;
        let phones = [phone(0), phone(1)].map(std::net::IpAddr::V4);
        assert_eq!(phones.contains(&peer.ip()), from_office, "{flow:#?}");
        assert!(from_office || peer.ip() == SERVER, "{flow:#?}");
        assert!(calls.iter().any(|call| Some(&call.call_id) == flow.call_id.as_ref()), "{flow:#?}");
    }
    Ok([
        check_payloads(&office, APPLIANCE_OFFICE, &centre, APPLIANCE_CENTRE),
        check_payloads(&centre, APPLIANCE_CENTRE, &office, APPLIANCE_OFFICE),
    ])
}

#[test]
fn calls_in_both_directions_arrive_whole_in_order_and_marked_and_the_same_over_both_datapaths() -> Result<()>
{
    let (kernel, userspace) = (two_calls("kernel")?, two_calls("userspace")?);
    // All but the moment of sending, which the endpoint writes into the first eight bytes of sound.
    let timeless = |payload: &Vec<u8>| [&payload[..12], &payload[20..]].concat();
    for (kernel, userspace) in kernel.iter().zip(&userspace) {
        assert_eq!(kernel.keys().collect::<Vec<_>>(), userspace.keys().collect::<Vec<_>>());
        for (stream, payloads) in kernel.iter().filter(|((_, rtcp), _)| !rtcp) {
            let pairs = payloads.iter().zip(&userspace[stream]);
            assert!(pairs.len() as u64 >= ENOUGH, "{stream:x?}: {}", pairs.len());
            for (kernel, userspace) in pairs {
                assert_eq!(timeless(kernel), timeless(userspace), "{stream:x?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_stream_without_udp_checksums_leaves_the_kernel_without_and_marked() -> Result<()> {
    let mut site = Site::start_with(engine("kernel"), Routes::None, UdpChecksum::Absent)?;
    let [office, centre] = site.captures()?;
    let mut call = site.phone_calls(0, Duration::from_secs(6))?;
    site.until_flows(4, |flow| flow.datapath == "kernel" && (flow.kind == "rtcp" || flow.expected > ENOUGH))?;
    site.silence()?;
    let flows = site.flows()?;
    call.succeed(LIMIT)?;
    let (office, centre) = (office.finish()?, centre.finish()?);
    let valid = |packet: &Packet| packet.udp_checksum != Checksum::Bad;
    check_marks(&centre, APPLIANCE_CENTRE, valid);
    check_marks(&office, APPLIANCE_OFFICE, valid);
    for flow in &flows {
        let (near, far) = if flow.network == "office" { (&office, &centre) } else { (&centre, &office) };
        let (local, out): (SocketAddrV4, SocketAddrV4) = (flow.local.parse()?, flow.out.parse()?);
        let absent = |packet: &&Packet| packet.udp_checksum == Checksum::Absent;
        assert!(near.iter().filter(|packet| packet.destination == local).all(|packet| absent(&packet)));
        // Userspace, which carries a flow until its source is learned, computes a checksum: that is allowed.
        let left = far.iter().filter(|packet| packet.source == out);
        assert_eq!(left.filter(absent).count() as u64, flow.kernel_packets, "{flow:#?}");
        assert!(flow.kind == "rtcp" || flow.kernel_packets > flow.userspace_packets, "{flow:#?}");
    }
    Ok(())
}

/// The scenario's own SIP, from one wire: after which packet the phone has held, and after which resumed.
fn position(packets: &[Packet], from: usize, what: &str, start: &str) -> Result<usize> {
    let found = packets.iter().enumerate().skip(from).find(|(_, packet)| {
        let text = String::from_utf8_lossy(&packet.payload);
        is_sip(packet) && text.starts_with(start) && text.contains(what)
    });
    found.map(|(index, _)| index).with_context(|| format!("no {start} with {what}"))
}

#[test]
fn a_call_on_hold_is_silent_one_way_and_speaks_again_when_it_is_resumed_over_both_datapaths() -> Result<()> {
    for datapath in ["kernel", "userspace"] {
        let site = Site::start(engine(datapath))?;
        let [office, centre] = site.captures()?;
        let mut call = site
            .call(Scenario::PhoneHold, 2, Duration::from_millis(1200))
            .start(&site.lab.office, site.lab.dir())?;
        site.play(&call)?;
        call.succeed(LIMIT)?;
        let (office, centre) = (office.finish()?, centre.finish()?);
        for packets in [&office, &centre] {
            let held = position(packets, 0, "CSeq: 2 ACK", "ACK")?;
            let resumed = position(packets, held, "a=sendrecv", "INVITE")?;
            let speaks_again = position(packets, resumed, "CSeq: 3 ACK", "ACK")?;
            let heard = |part: &[Packet], from_server: bool| {
                let media = part.iter().filter(|packet| packet.rtp().is_some());
                let server_side = [SERVER, APPLIANCE_OFFICE];
                let phone_side = [phone(2), APPLIANCE_CENTRE];
                let sources = if from_server { server_side } else { phone_side };
                media.filter(|packet| sources.contains(packet.source.ip())).count()
            };
            // One that was sent before the server had read the ACK may come after it.
            assert!(heard(&packets[held..resumed], true) <= 2, "{datapath}: the server is silent on hold");
            assert!(heard(&packets[held..resumed], false) > 20, "{datapath}: the phone plays its music");
            assert!(heard(&packets[speaks_again..], true) > 20, "{datapath}: the server speaks again");
            assert!(heard(&packets[speaks_again..], false) > 20, "{datapath}: the phone speaks again");
        }
        check_marks(&centre, APPLIANCE_CENTRE, |packet| packet.udp_checksum == Checksum::Good);
        check_marks(&office, APPLIANCE_OFFICE, |packet| packet.udp_checksum == Checksum::Good);
    }
    Ok(())
}
