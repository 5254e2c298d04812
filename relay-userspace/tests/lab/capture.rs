//! Diagnostic captures of calls with media, over both datapaths, as tshark reads them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::capture::CaptureView;
use branchline::control::FlowView;
use xtask::lab::capture::{Checksum, read};
use xtask::lab::interrupt;
use xtask::process;

use crate::site::{LIMIT, Site, engine, is_sip};

/// Longer than it takes to capture for a while.
const TALK: Duration = Duration::from_secs(15);
/// RTP packets of each flow that a test waits for.
const ENOUGH: u64 = 60;

/// The one capture that there is, once it has ended.
fn ended(site: &Site) -> Result<CaptureView> {
    interrupt::wait_until(LIMIT, "the capture to end", || {
        let list: Vec<CaptureView> =
            serde_json::from_value(site.appliance.ask(&site.lab, &["capture", "list"])?)?;
        Ok(list.into_iter().next().filter(|capture| capture.state == "ended"))
    })
}

/// Packets of each flow by the address that they arrived at: RTP or RTCP.
fn counts(flows: &[FlowView]) -> BTreeMap<String, u64> {
    flows.iter().map(|flow| (flow.local.clone(), flow.userspace_packets)).collect()
}

fn tshark(file: &Path, arguments: &[&str]) -> Result<String> {
    process::output(Command::new("tshark").arg("-n").arg("-r").arg(file).args(arguments))
}

fn a_call_is_captured(datapath: &str, sealed: bool) -> Result<()> {
    let mut site = Site::start(engine(datapath))?;
    let mut call = site.phone_calls(0, TALK)?;
    site.until_flows(4, |flow| flow.datapath == datapath && (flow.kind == "rtcp" || flow.expected > 20))?;
    let before = site.flows()?;
    let call_id = site.calls()?.first().context("no call")?.call_id.clone();
    let mut arguments = vec!["capture", "start", "--call-id", &call_id];
    if sealed {
        arguments.push("--encrypt");
    }
    let started = site.appliance.ask(&site.lab, &arguments)?;
    let begun = counts(&site.flows()?);
    let name = started["name"].as_str().context("no name")?.to_owned();
    let reason = |flow: &FlowView| flow.reason.clone().unwrap_or_default();
    let flows = site.until_flows(4, |flow| flow.datapath == "userspace")?;
    if datapath == "kernel" {
        assert!(flows.iter().all(|flow| reason(flow).starts_with("being captured")), "{flows:#?}");
    }
    let seen = counts(&before);
    let enough = |flow: &FlowView| {
        let packets = flow.userspace_packets - seen.get(&flow.local).copied().unwrap_or(0);
        if flow.kind == "rtcp" { packets > 0 } else { packets > ENOUGH }
    };
    site.until_flows(4, enough)?;
    site.silence()?;
    let flows = site.flows()?;
    assert!(flows.iter().all(|flow| flow.lost == 0 && flow.duplicates == 0), "{flows:#?}");
    call.succeed(LIMIT)?;
    let capture = ended(&site)?;
    assert_eq!((capture.reason.as_deref(), capture.dropped), (Some("ended with the call"), 0));
    assert_eq!(capture.encrypted, sealed);

    let file = site.lab.dir().join("saved.pcapng");
    site.appliance.ask(&site.lab, &["capture", "save", &name, file.to_str().context("a path")?])?;
    let packets = read(&file)?;
    assert_eq!(packets.len() as u64, capture.packets);
    for packet in &packets {
        assert_eq!((packet.ip_checksum, packet.udp_checksum), (Checksum::Good, Checksum::Good), "{packet:?}");
    }
    for flow in &flows {
        let counted = flow.userspace_packets - seen.get(&flow.local).copied().unwrap_or(0);
        let arrived = packets.iter().filter(|packet| packet.destination.to_string() == flow.local);
        let left = packets.iter().filter(|packet| {
            packet.source.to_string() == flow.out && Some(packet.destination.to_string()) == flow.destination
        });
        let (arrived, left) =
            (arrived.count() as u64, left.filter(|packet| packet.dscp == 46).count() as u64);
        assert_eq!(arrived, left, "{flow:#?}");
        if datapath == "kernel" {
            assert_eq!(arrived, counted, "all that userspace has carried since the capture began: {flow:#?}");
        } else {
            // Packets went by between the count, the beginning, and the count after it.
            let since_begun = flow.userspace_packets - begun.get(&flow.local).copied().unwrap_or(0);
            assert!((since_begun..=counted).contains(&arrived), "{arrived} packets: {flow:#?}");
        }
    }
    let requests: Vec<String> = packets
        .iter()
        .filter(|packet| is_sip(packet))
        .map(|packet| {
            String::from_utf8_lossy(&packet.payload).split(' ').next().unwrap_or_default().to_owned()
        })
        .collect();
    let of = |what: &str| requests.iter().filter(|start| *start == what).count();
    assert_eq!((of("BYE"), of("SIP/2.0")), (2, 2), "{requests:?}");

    let ports =
        tshark(&file, &["-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction"])?;
    for line in ["office\t0x00000001", "office\t0x00000002", "centre\t0x00000001", "centre\t0x00000002"] {
        assert!(ports.lines().any(|found| found == line), "{line}:\n{ports}");
    }
    let streams = tshark(&file, &["-q", "-o", "rtp.heuristic_rtp:TRUE", "-z", "rtp,streams"])?;
    let rows = streams.lines().filter(|line| line.contains("0x")).count();
    assert_eq!(rows, 4, "two streams, each as it arrived and as it left:\n{streams}");
    let statistics = tshark(&file, &["-q", "-z", "io,stat,0"])?;
    assert!(statistics.contains(&format!(" {} ", packets.len())), "{statistics}");

    site.appliance.ask(&site.lab, &["capture", "remove", &name])?;
    let left: Vec<CaptureView> =
        serde_json::from_value(site.appliance.ask(&site.lab, &["capture", "list"])?)?;
    assert!(left.is_empty());
    Ok(())
}

#[test]
fn a_call_that_the_kernel_carries_is_captured_whole() -> Result<()> {
    a_call_is_captured("kernel", false)
}

#[test]
fn a_call_that_userspace_carries_is_captured_whole_and_sealed() -> Result<()> {
    a_call_is_captured("userspace", true)
}

#[test]
fn a_capture_that_is_stopped_gives_the_call_back_to_the_kernel_and_nothing_is_lost() -> Result<()> {
    let mut site = Site::start(engine("kernel"))?;
    let mut call = site.phone_calls(0, TALK)?;
    let settled = |flow: &FlowView| flow.datapath == "kernel" && (flow.kind == "rtcp" || flow.expected > 20);
    site.until_flows(4, settled)?;
    let call_id = site.calls()?.first().context("no call")?.call_id.clone();
    let start = ["capture", "start", "--call-id", &call_id];
    let started = site.appliance.ask(&site.lab, &start)?;
    let again = site.appliance.ask(&site.lab, &start).unwrap_err().to_string();
    assert!(again.contains("being captured already"), "{again}");
    let unknown = site.appliance.ask(&site.lab, &["capture", "start", "--call-id", "nobody"]).unwrap_err();
    assert!(unknown.to_string().contains("no call with Call-ID \"nobody\" stands"), "{unknown}");
    site.until_flows(4, |flow| flow.datapath == "userspace")?;
    let name = started["name"].as_str().context("no name")?;
    site.appliance.ask(&site.lab, &["capture", "stop", name])?;
    let capture = ended(&site)?;
    assert_eq!(capture.reason.as_deref(), Some("stopped"));
    let captured = site.until_flows(4, |flow| flow.datapath == "kernel")?;
    let more = |flow: &FlowView| {
        let then =
            captured.iter().find(|then| then.local == flow.local).map_or(0, |then| then.kernel_packets);
        flow.kind == "rtcp" || flow.kernel_packets > then + 20
    };
    site.until_flows(4, more)?;
    site.silence()?;
    let flows = site.flows()?;
    assert!(flows.iter().all(|flow| flow.lost == 0 && flow.duplicates == 0), "{flows:#?}");
    call.succeed(LIMIT)?;
    assert_eq!(site.metric("branchline_captures_running", &[])?, 0.0);
    Ok(())
}
