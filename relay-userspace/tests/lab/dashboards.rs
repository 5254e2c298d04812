//! The dashboard, with Debian's Prometheus, under real calls and phones that use the office's services.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::CallView;
use xtask::dashboards::{self, Prometheus};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::demo::metrics::Metrics;
use xtask::lab::network::{APPLIANCE_OFFICE, TO_OFFICE, phone};
use xtask::lab::nginx::Nginx;
use xtask::lab::traffic::Via;
use xtask::lab::{Lab, Plan, Routes, Traffic, dhcp, interrupt};

use crate::provisioning::{FIRST, RELAY, curl};
use crate::site::{LIMIT, ask, settings, turn};

/// A phone that makes no calls: its address leaves the office's namespace.
const PHONE: u8 = 5;
const FILE: &str = "/0004f2010203.cfg";
/// A client's request in NTP version 4 (RFC 5905 section 7.3): its first octet, and its length.
const NTP_CLIENT: u8 = 0x23;
const NTP_LENGTH: usize = 48;
const NTP: u16 = 123;
const SYSLOG: u16 = 514;

/// The appliance's address for gateways; its trunk leads nowhere, and has its figures all the same.
const TO_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 2);
const NOBODY: u8 = 14;

fn with_services() -> Settings {
    let tables = format!(
        "[dhcp]\nenabled = true\n[clock]\nenabled = true\n[syslog]\nenabled = true\n\
         [provisioning]\nservers = [\"http://{FIRST}\"]\n\
         [survival]\nenter_after_seconds = 60\n\
         [[network]]\nname = \"gateways\"\nrole = \"gateway\"\ninterface = \"{TO_OFFICE}\"\naddress = \"{TO_GATEWAY}\"\n\
         [[trunk]]\nname = \"isdn\"\ncontact = \"{}:5999\"\n",
        phone(NOBODY)
    );
    Settings { tables, upstream: "probe_seconds = 1\n".to_owned(), ..settings() }
}

/// A phone on its way: DHCPINFORM, the time, a line of its log, its file three times, the last time without a server.
/// And somebody who looks at the pages before there is an administrator, and one who has the configuration read anew.
fn use_the_services(lab: &Lab, appliance: &Appliance) -> Result<()> {
    let client = lab.own_host(PHONE)?;
    let told = dhcp::inform(&client, phone(PHONE), "Polycom-VVX", lab.dir())?;
    anyhow::ensure!(told.contains("reason=INFORM"), "{told}");
    client.enter(|| -> Result<()> {
        let socket = UdpSocket::bind((phone(PHONE), 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut request = [0; NTP_LENGTH];
        request[0] = NTP_CLIENT;
        socket.send_to(&request, SocketAddrV4::new(APPLIANCE_OFFICE, NTP))?;
        let length = socket.recv(&mut request).context("no answer with the time")?;
        anyhow::ensure!(length == NTP_LENGTH, "an answer of {length} bytes");
        socket.send_to(
            b"<131>Oct 11 22:14:15 phone app: no line",
            SocketAddrV4::new(APPLIANCE_OFFICE, SYSLOG),
        )?;
        Ok(())
    })??;

    let root = lab.dir().join("files");
    fs::create_dir_all(&root)?;
    fs::write(root.join(&FILE[1..]), b"x = 1")?;
    let mut nginx = Nginx::start(&lab.centre, "nginx", FIRST, &root, "", lab.dir())?;
    let fetch = |dir: &Path| curl(&client, dir, RELAY, &[], FILE).map(|got| (got.status, got.body));
    assert_eq!(fetch(lab.dir())?, (200, b"x = 1".to_vec()), "from the server");
    assert_eq!(fetch(lab.dir())?, (200, b"x = 1".to_vec()), "from the cache, as the server says");
    nginx.stop()?;
    assert_eq!(fetch(lab.dir())?, (200, b"x = 1".to_vec()), "from the cache, without the server");

    let pages = format!("https://{APPLIANCE_OFFICE}:8443");
    let got = curl(&client, lab.dir(), &pages, &["--insecure"], "/api/v1/status")?;
    assert!((400..500).contains(&got.status), "nobody is an administrator yet: {got:?}");
    appliance.tell(lab, &["reload"], "")
}

/// Somebody captures a call for a moment.
fn capture_a_call(lab: &Lab, appliance: &Appliance) -> Result<()> {
    let calls: Vec<CallView> = interrupt::wait_until(LIMIT, "a call to capture", || {
        let calls: Vec<CallView> = ask(appliance, lab, "calls")?;
        Ok(calls.iter().any(|call| call.state == "established").then_some(calls))
    })?;
    let call = calls.iter().find(|call| call.state == "established").context("no call")?;
    let started = appliance.ask(lab, &["capture", "start", "--call-id", &call.call_id])?;
    let name = started["name"].as_str().context("no name")?;
    interrupt::wait_until(LIMIT, "captured packets", || {
        let list = appliance.ask(lab, &["capture", "list"])?;
        Ok(list[0]["packets"].as_u64().is_some_and(|packets| packets > 10).then_some(()))
    })?;
    // The call may have ended it meanwhile.
    let _ = appliance.tell(lab, &["capture", "stop", name], "");
    Ok(())
}

/// What the services have counted; a panel of zeros would have data too.
fn uncounted(metrics: &Metrics) -> Vec<String> {
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("dhcp_messages_total", &[("type", "inform")]),
        ("clock_requests_total", &[]),
        ("syslog_messages_total", &[("severity", "err")]),
        ("provisioning_requests_total", &[("source", "upstream"), ("status", "200")]),
        ("provisioning_requests_total", &[("source", "cache"), ("status", "200")]),
        ("provisioning_requests_total", &[("source", "stale"), ("status", "200")]),
        ("provisioning_bytes_total", &[("source", "cache")]),
        ("provisioning_upstream_failures_total", &[("server", &format!("http://{FIRST}"))]),
        ("provisioning_cache_bytes", &[]),
        ("web_requests_total", &[("class", "4xx")]),
        ("configuration_reloads_total", &[("result", "applied")]),
        ("capture_packets_total", &[("result", "written")]),
        ("capture_bytes", &[]),
        ("server_up", &[]),
        ("server_round_trip_seconds", &[]),
        ("registrations", &[]),
    ];
    rows.iter()
        .filter(|(name, labels)| metrics.sum(&format!("branchline_{name}"), labels) <= 0.0)
        .map(|(name, labels)| format!("branchline_{name} {labels:?} counted nothing"))
        .collect()
}

#[test]
fn every_panel_returns_data_under_real_calls_and_names_what_the_daemon_exports() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    lab.branch.ip(&["address", "add", &format!("{TO_GATEWAY}/24"), "dev", TO_OFFICE])?;
    let appliance = Appliance::start_with(&lab, &with_services())?;
    let mut prometheus = Prometheus::start(&lab)?;
    // Counters that begin with their first event have no rate: some calls before, more while Prometheus watches.
    let plan = Plan { calls: 6, talk: Duration::from_secs(6), via: Via::Appliance };
    let call = || -> Result<Traffic> {
        let mut traffic = Traffic::begin(&lab, plan)?;
        traffic.call(&lab)?;
        Ok(traffic)
    };
    assert_eq!(call()?.finish()?.complaints, Vec::<String>::new());
    let traffic = call()?;
    capture_a_call(&lab, &appliance)?;
    // The server is still there, and is probed.
    use_the_services(&lab, &appliance)?;
    interrupt::wait_until(LIMIT, "everything to be counted", || {
        Ok(uncounted(&appliance.metrics(&lab)?).is_empty().then_some(()))
    })
    .with_context(|| format!("{:#?}", appliance.metrics(&lab).map(|metrics| uncounted(&metrics))))?;
    assert_eq!(traffic.finish()?.complaints, Vec::<String>::new());
    let faults = dashboards::faults(&lab, &appliance.metrics(&lab)?, &mut prometheus)?;
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}
