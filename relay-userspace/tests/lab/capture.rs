//! Diagnostic captures of calls with media, over both datapaths, as tshark reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::capture::CaptureView;
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::Baresip;
use xtask::lab::capture::{Checksum, read};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};
use xtask::process;

use crate::site::{LIMIT, Site, ask, engine, is_sip, settings, to_appliance, turn};
use crate::transports::{APPLIANCE_TLS, USERS, account};

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

/// Two phones talk by one transport through a server by TCP, while their call is captured; they hang up. What tshark
/// says of the file's SIP messages: interface, first line, and the comment.
fn signalling_by(transport: &'static str, port: u16) -> Result<BTreeSet<[String; 3]>> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let server = format!("sip:{SERVER}:{PEER_SIP};transport=tcp");
    let _server =
        Kamailio::start_with(&lab, &lab.centre, "kamailio", SocketAddrV4::new(SERVER, PEER_SIP), None)?;
    let appliance = Appliance::start_with(&lab, &Settings { servers: vec![server], ..settings() })?;
    let proxy = SocketAddrV4::new(APPLIANCE_OFFICE, port);
    let second = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(&lab, transport, 0), proxy)?;
    let _called = Baresip::start(&lab, &second, &account(&lab, transport, 1), proxy)?;
    caller.call(&lab.office, USERS[1])?;
    let call_id = interrupt::wait_until(LIMIT, "an answered call", || {
        let calls: Vec<CallView> = ask(&appliance, &lab, "calls")?;
        Ok(calls.into_iter().find(|call| call.state == "established").map(|call| call.call_id))
    })?;
    let started = appliance.ask(&lab, &["capture", "start", "--call-id", &call_id])?;
    let name = started["name"].as_str().context("no name")?.to_owned();
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        Ok((ask::<StatusView>(&appliance, &lab, "status")?.calls_active == 0).then_some(()))
    })?;
    let capture = interrupt::wait_until(LIMIT, "the capture to end", || {
        let list: Vec<CaptureView> = serde_json::from_value(appliance.ask(&lab, &["capture", "list"])?)?;
        Ok(list.into_iter().next().filter(|capture| capture.state == "ended"))
    })?;
    assert_eq!((capture.reason.as_deref(), capture.dropped), (Some("ended with the call"), 0));
    let file = lab.dir().join("saved.pcapng");
    appliance.ask(&lab, &["capture", "save", &name, file.to_str().context("a path")?])?;
    for packet in read(&file)? {
        assert_eq!((packet.ip_checksum, packet.udp_checksum), (Checksum::Good, Checksum::Good), "{packet:?}");
    }
    let fields = [
        "frame.interface_name",
        "sip.Method",
        "sip.Status-Line",
        "frame.comment",
        "sip.Call-ID",
        "sip.CSeq.method",
        "frame.packet_flags_direction",
    ];
    let mut arguments = vec!["-Y", "sip", "-T", "fields", "-E", "occurrence=f"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", *field]));
    let said = tshark(&file, &arguments)?;
    let mut seen = BTreeSet::new();
    let mut ways = BTreeSet::new();
    for line in said.lines() {
        let [interface, method, status, comment, found, about, way] =
            <[&str; 7]>::try_from(line.split('\t').collect::<Vec<_>>())
                .map_err(|_| anyhow::anyhow!("{line}"))?;
        assert_eq!(found, call_id, "a message of another call: {line}");
        if about == "BYE" {
            let what = if method.is_empty() { status } else { method };
            seen.insert([interface.to_owned(), what.to_owned(), comment.to_owned()]);
            ways.insert((interface.to_owned(), what.to_owned(), way.to_owned()));
        }
    }
    assert_eq!(ways.len(), 8, "each of the two came in and went out on each network:\n{said}");
    Ok(seen)
}

fn rows(office: &str, centre: &str) -> BTreeSet<[String; 3]> {
    let row = |network: &str, what: &str, comment: &str| [network, what, comment].map(str::to_owned);
    [("office", office), ("centre", centre)]
        .into_iter()
        .flat_map(|(network, comment)| {
            [row(network, "BYE", comment), row(network, "SIP/2.0 200 OK", comment)]
        })
        .collect()
}

#[test]
fn signalling_by_tcp_is_in_the_capture_with_a_word_of_it() -> Result<()> {
    let seen = signalling_by("tcp", to_appliance(APPLIANCE_OFFICE).port())?;
    assert_eq!(seen, rows("SIP over TCP, shown as UDP", "SIP over TCP, shown as UDP"));
    Ok(())
}

#[test]
fn signalling_by_tls_is_in_the_capture_in_clear_with_a_word_of_it() -> Result<()> {
    let seen = signalling_by("tls", APPLIANCE_TLS)?;
    assert_eq!(seen, rows("SIP over TLS, shown as UDP in clear", "SIP over TCP, shown as UDP"));
    Ok(())
}
