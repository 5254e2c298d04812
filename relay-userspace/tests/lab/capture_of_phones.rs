//! Diagnostic captures of a phone and of an address, over both datapaths: what they call is in the file and what others
//! call is not, files are opened by `age`, and keys of SRTP are there only if somebody asked for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::capture::CaptureView;
use branchline::control::FlowView;
use xtask::lab::capture::read;
use xtask::lab::network::{SERVER, phone};
use xtask::lab::{Packet, interrupt};
use xtask::process;

use crate::site::{LIMIT, Site, engine, is_sip};

const TALK: Duration = Duration::from_secs(12);
/// RTP packets of each flow that a test waits for.
const ENOUGH: u64 = 100;
/// The key in the phones' offers, and what stands in its place.
const KEY: &str = "inline:bGFib3JhdG9yeSBrZXkgZm9yIG5vYm9keSBhdCBh|2^20|1:4";
const MASKED: &str = "inline:****************************************|2^20|1:4";

fn list(site: &Site) -> Result<Vec<CaptureView>> {
    Ok(serde_json::from_value(site.appliance.ask(&site.lab, &["capture", "list"])?)?)
}

fn begin(site: &Site, arguments: &[&str]) -> Result<String> {
    let started = site.appliance.ask(&site.lab, &[&["capture", "start"], arguments].concat())?;
    Ok(started["name"].as_str().context("no name")?.to_owned())
}

/// Stops a capture, and saves it when it has ended.
fn end(site: &Site, name: &str) -> Result<(CaptureView, PathBuf)> {
    site.appliance.tell(&site.lab, &["capture", "stop", name], "")?;
    let capture = interrupt::wait_until(LIMIT, "the capture to end", || {
        Ok(list(site)?.into_iter().find(|capture| capture.name == name && capture.state == "ended"))
    })?;
    let file = site.lab.dir().join(&capture.file);
    site.appliance.ask(&site.lab, &["capture", "save", name, file.to_str().context("a path")?])?;
    Ok((capture, file))
}

/// What tshark makes of the streams, by the signalling that is in the file.
fn streams(file: &Path) -> Result<usize> {
    let streams = process::output(Command::new("tshark").arg("-n").arg("-r").arg(file).args([
        "-q",
        "-z",
        "rtp,streams",
    ]))?;
    Ok(streams.lines().filter(|line| line.contains("0x")).count())
}

/// All that a flow counted is in the file, as it arrived and as it left.
fn check_flow(packets: &[Packet], flow: &FlowView) {
    let arrived = packets.iter().filter(|packet| packet.destination.to_string() == flow.local).count();
    let left = packets.iter().filter(|packet| {
        packet.source.to_string() == flow.out && Some(packet.destination.to_string()) == flow.destination
    });
    assert_eq!(
        (arrived as u64, left.count() as u64),
        (flow.userspace_packets, flow.userspace_packets),
        "{flow:#?}"
    );
}

fn texts(packets: &[Packet]) -> Vec<String> {
    let sip = packets.iter().filter(|packet| is_sip(packet));
    sip.map(|packet| String::from_utf8_lossy(&packet.payload).into_owned()).collect()
}

#[test]
fn all_calls_of_a_phone_are_captured_for_whom_has_the_key_and_the_kernel_keeps_the_others() -> Result<()> {
    let mut site = Site::start(engine("kernel"))?;
    site.register(0, "1001")?;
    let key = site.lab.dir().join("age.key");
    process::output(Command::new("age-keygen").arg("-o").arg(&key))?;
    let public = process::output(Command::new("age-keygen").arg("-y").arg(&key))?;
    let unknown = site.appliance.ask(&site.lab, &["capture", "start", "--phone", "nobody"]).unwrap_err();
    assert!(unknown.to_string().contains("no phone is registered as \"nobody\""), "{unknown}");
    let wrong = ["capture", "start", "--phone", "1001", "--recipient", "age1nonsense"];
    let wrong = site.appliance.ask(&site.lab, &wrong).unwrap_err().to_string();
    assert!(wrong.contains("\"age1nonsense\" is no recipient of age"), "{wrong}");

    let name = begin(&site, &["--phone", "1001", "--recipient", public.trim()])?;
    let mut call = site.phone_calls(0, TALK)?;
    let mut other = site.phone_calls(1, TALK)?;
    let enough = |flow: &FlowView| flow.kind == "rtcp" && flow.rtcp_packets > 0 || flow.expected > ENOUGH;
    site.until_flows(8, enough)?;
    site.silence()?;
    let flows = site.flows()?;
    let captured =
        |flow: &&FlowView| flow.reason.as_deref().is_some_and(|why| why.starts_with("being captured"));
    let (ours, others): (Vec<&FlowView>, Vec<&FlowView>) = flows.iter().partition(captured);
    assert_eq!((ours.len(), others.len()), (4, 4), "{flows:#?}");
    assert!(others.iter().all(|flow| flow.datapath == "kernel" && flow.lost == 0), "{others:#?}");
    assert!(ours.iter().all(|flow| flow.kernel_packets == 0 && flow.lost == 0), "{ours:#?}");
    call.succeed(LIMIT)?;
    other.succeed(LIMIT)?;

    let (capture, file) = end(&site, &name)?;
    assert_eq!((capture.target.as_str(), capture.encrypted, capture.dropped), ("phone 1001", true, 0));
    assert_eq!(capture.recipients, [public.trim()]);
    let content = std::fs::read(&file)?;
    assert!(content.starts_with(b"age-encryption.org/v1\n"), "{}", file.display());
    assert!(
        process::output(Command::new("tshark").arg("-r").arg(&file)).is_err(),
        "nobody reads it without the key"
    );
    let opened = site.lab.dir().join("opened.pcapng");
    process::output(
        Command::new("age").arg("--decrypt").arg("-i").arg(&key).arg("-o").arg(&opened).arg(&file),
    )?;
    let packets = read(&opened)?;
    assert_eq!(packets.len() as u64, capture.packets);
    for flow in &ours {
        check_flow(&packets, flow);
    }
    let other_phone =
        packets.iter().filter(|packet| [packet.source.ip(), packet.destination.ip()].contains(&&phone(1)));
    assert_eq!(other_phone.count(), 0, "the other phone's call is nobody's business");
    assert_eq!(
        streams(&opened)?,
        4,
        "two streams, each as it arrived and as it left, known by the INVITE in the file"
    );
    let texts = texts(&packets);
    let offers: Vec<&String> = texts.iter().filter(|text| text.contains("a=crypto:")).collect();
    assert_eq!(offers.len(), 2, "the INVITE as it came and as it left: {texts:#?}");
    assert!(offers.iter().all(|offer| offer.contains(MASKED) && !offer.contains(KEY)), "{offers:#?}");
    assert!(texts.iter().any(|text| text.starts_with("BYE ")), "{texts:#?}");
    Ok(())
}

#[test]
fn all_calls_with_an_address_are_captured_beside_the_capture_of_one_of_them_and_keys_on_request() -> Result<()>
{
    let mut site = Site::start(engine("userspace"))?;
    // The server's address is that of media and signalling of every call.
    let server = format!("{SERVER}/32");
    let name = begin(&site, &["--address", &server, "--with-srtp-keys"])?;
    let again =
        site.appliance.ask(&site.lab, &["capture", "start", "--address", &SERVER.to_string()]).unwrap_err();
    assert!(again.to_string().contains("is being captured already"), "{again}");
    let mut calls = [site.phone_calls(0, TALK)?, site.phone_calls(1, TALK)?];
    site.until_flows(8, |flow| flow.kind == "rtcp" || flow.expected > 20)?;
    let call_id = site.calls()?.first().context("no call")?.call_id.clone();
    let one = begin(&site, &["--call-id", &call_id])?;
    site.until_flows(8, |flow| flow.kind == "rtcp" && flow.rtcp_packets > 0 || flow.expected > ENOUGH)?;
    site.silence()?;
    let flows = site.flows()?;
    for call in &mut calls {
        call.succeed(LIMIT)?;
    }
    let (capture, file) = end(&site, &name)?;
    assert_eq!(
        (capture.target.as_str(), capture.encrypted, capture.with_srtp_keys),
        (format!("address {SERVER}").as_str(), false, true)
    );
    let packets = read(&file)?;
    for flow in &flows {
        check_flow(&packets, flow);
    }
    assert_eq!(streams(&file)?, 8);
    let texts = texts(&packets);
    assert!(
        texts.iter().any(|text| text.contains(KEY)) && !texts.iter().any(|text| text.contains(MASKED)),
        "{texts:#?}"
    );
    // The capture of the one call has its media too, though another one had begun before.
    let ended = interrupt::wait_until(LIMIT, "the capture of the call to end", || {
        Ok(list(&site)?.into_iter().find(|capture| capture.name == one && capture.state == "ended"))
    })?;
    assert_eq!(ended.reason.as_deref(), Some("ended with the call"));
    assert!(ended.packets > 4 * ENOUGH / 2, "{ended:#?}");
    Ok(())
}
