//! Traces of calls: the ladder of a real call, as a file for tshark and sngrep, at Homer, and after a restart.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{CallView, StatusView};
use branchline::datapath::Way;
use branchline::trace::{Part, Report, Rung, Summary, TracesView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::Baresip;
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, Running, interrupt};
use xtask::process;

use crate::site::{LIMIT, Site, ask, engine, settings, turn};
use crate::transports::{APPLIANCE_TLS, USERS, account};

/// Where Homer listens in the laboratory.
const HOMER: SocketAddrV4 = SocketAddrV4::new(SERVER, 9060);
/// Its password.
const PASSWORD: &str = "lab-homer";

/// After the last packet was sent: Homer has read it.
const SETTLE: Duration = Duration::from_millis(500);

/// What the message of a rung is, where it was, and from which it was made.
fn told(rung: &Rung) -> String {
    let way = if rung.message.direction == Way::In { "in" } else { "out" };
    let from = rung.step.made_from.map(|from| format!(" from {from}")).unwrap_or_default();
    let transport = rung.message.transport.as_label();
    format!("{} {way} {transport} {}{from}", rung.message.network, rung.step.what)
}

fn report(appliance: &Appliance, lab: &Lab, call_id: &str) -> Result<Report> {
    Ok(serde_json::from_value(appliance.ask(lab, &["trace", "--call-id", call_id])?)?)
}

/// The traces of calls.
fn calls(appliance: &Appliance, lab: &Lab) -> Result<Vec<Summary>> {
    let list: TracesView = ask(appliance, lab, "trace")?;
    Ok(list.traces.into_iter().filter(|trace| trace.method == "INVITE").collect())
}

fn tshark(file: &Path, arguments: &[&str]) -> Result<Vec<String>> {
    let said = process::output(Command::new("tshark").arg("-n").arg("-r").arg(file).args(arguments))?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// The arrows of a ladder, without times and Request-URIs.
fn arrows(ladder: &str) -> Vec<String> {
    let lines = ladder.lines().filter(|line| line.contains("->|") || line.contains("|<-"));
    lines
        .map(|line| {
            let (arrow, note) = line.split_at(line.rfind('|').unwrap_or(0) + 1);
            let words = note.split_whitespace().take(3).map(|word| word.trim_end_matches(','));
            let about: Vec<&str> = words.collect();
            let from = note.split(", ").nth(1).map(|from| format!(", {from}")).unwrap_or_default();
            format!("{}{}  {}{from}", &line[..4], &arrow[16..], about.join(" "))
        })
        .collect()
}

/// A call without loss: what each message is, and how it is drawn.
const TOLD: [&str; 14] = [
    "office in udp INVITE",
    "office out udp 100 Trying",
    "centre out udp INVITE from 1",
    "centre in udp 100 Trying",
    "centre in udp 180 Ringing",
    "office out udp 180 Ringing from 5",
    "centre in udp 200 OK",
    "office out udp 200 OK from 7",
    "office in udp ACK",
    "centre out udp ACK from 9",
    "office in udp BYE",
    "centre out udp BYE from 11",
    "centre in udp 200 OK",
    "office out udp 200 OK from 13",
];
const LADDER: [&str; 14] = [
    "   1  |--INVITE---------------->|                         |  udp 1 INVITE",
    "   2  |<-100 Trying-------------|                         |  udp 1 INVITE",
    "   3  |                         |--INVITE---------------->|  udp 1 INVITE, from 1",
    "   4  |                         |<-100 Trying-------------|  udp 1 INVITE",
    "   5  |                         |<-180 Ringing------------|  udp 1 INVITE",
    "   6  |<-180 Ringing------------|                         |  udp 1 INVITE, from 5",
    "   7  |                         |<-200 OK-----------------|  udp 1 INVITE",
    "   8  |<-200 OK-----------------|                         |  udp 1 INVITE, from 7",
    "   9  |--ACK------------------->|                         |  udp 1 ACK",
    "  10  |                         |--ACK------------------->|  udp 1 ACK, from 9",
    "  11  |--BYE------------------->|                         |  udp 2 BYE",
    "  12  |                         |--BYE------------------->|  udp 2 BYE, from 11",
    "  13  |                         |<-200 OK-----------------|  udp 2 BYE",
    "  14  |<-200 OK-----------------|                         |  udp 2 BYE, from 13",
];

/// sngrep in Homer's place: it reads HEP, asks for the password, and writes what it was told to a file.
fn homer(site: &Site, file: &Path) -> Result<Running> {
    let settings = site.lab.dir().join("sngreprc");
    std::fs::write(&settings, format!("set eep.listen.pass {PASSWORD}\n"))?;
    let mut command = site.lab.centre.command("sngrep");
    command.args(["--no-interface", "--quiet", "--no-config", "--config"]).arg(&settings);
    command.args(["--eep-listen", &format!("udp:{HOMER}"), "--output"]).arg(file);
    let homer = Running::start(&mut command, "homer", site.lab.dir())?;
    site.lab.centre.wait_for_udp(HOMER, LIMIT)?;
    Ok(homer)
}

#[test]
fn a_call_is_a_ladder_a_file_for_sngrep_a_story_for_homer_and_there_after_a_restart() -> Result<()> {
    let password = std::env::temp_dir().join(format!("branchline-homer-{}", std::process::id()));
    std::fs::write(&password, format!("{PASSWORD}\n"))?;
    let tables = format!(
        "[trace]\nhep = \"udp:{HOMER}\"\nhep_id = 2001\nhep_password_file = {:?}\n",
        password.display().to_string()
    );
    let mut site = Site::start(Settings { tables, ..engine("kernel") })?;
    let told_homer = site.lab.dir().join("homer.pcap");
    let mut homer = homer(&site, &told_homer)?;
    let mut call = site.phone_calls(0, Duration::from_secs(2))?;
    call.succeed(LIMIT)?;

    let listed = calls(&site.appliance, &site.lab)?;
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(listed[0].status.as_deref(), Some("200 OK (BYE)"));
    let call_id = listed[0].call_id.clone();
    let shown = report(&site.appliance, &site.lab, &call_id)?;
    assert_eq!(shown.ladder.iter().map(told).collect::<Vec<_>>(), TOLD);
    // What was changed: the way to the phone is the appliance's, and so is the media.
    let invite =
        shown.ladder.iter().find(|rung| rung.step.made_from.is_some()).context("nothing was relayed")?;
    let centre_address = APPLIANCE_CENTRE.to_string();
    let added = |part: Part, begin: &str| {
        let mut added = invite.step.changes.iter().filter(|change| change.part == part);
        added.any(|change| {
            change
                .added
                .as_ref()
                .is_some_and(|line| line.starts_with(begin) && line.contains(&centre_address))
        })
    };
    assert!(added(Part::Head, "Via: ") && added(Part::Head, "Record-Route: "), "{invite:#?}");
    assert!(added(Part::Head, "Contact: ") && added(Part::Body, "c=IN IP4 "), "{invite:#?}");
    let ladder = site.appliance.show(&site.lab, &["trace", "--call-id", &call_id])?;
    assert_eq!(arrows(&ladder), LADDER, "{ladder}");

    // As a file.
    let file = site.lab.dir().join("call.pcapng");
    let path = file.to_str().context("a path")?;
    site.appliance.ask(&site.lab, &["trace", "--call-id", &call_id, "--pcap", path])?;
    let fields = ["-Y", "sip", "-T", "fields", "-e", "sip.Call-ID", "-e", "frame.interface_name"];
    let messages = tshark(&file, &fields)?;
    let networks = shown.ladder.iter().map(|rung| format!("{call_id}\t{}", rung.message.network));
    assert_eq!(messages, networks.collect::<Vec<_>>());
    let again = site.lab.dir().join("sngrep.pcap");
    process::output(
        Command::new("sngrep")
            .args(["--no-interface", "--quiet", "--input"])
            .arg(&file)
            .arg("--output")
            .arg(&again),
    )?;
    assert_eq!(tshark(&again, &["-Y", "sip"])?.len(), shown.ladder.len(), "what sngrep has read");

    // At Homer: each message at its time, with the addresses that it had on the wire.
    let fields = ["frame.time_epoch", "ip.src", "udp.srcport", "ip.dst", "udp.dstport", "sip.CSeq"];
    let mut arguments =
        vec!["-Y".to_owned(), format!("sip.Call-ID == \"{call_id}\""), "-T".to_owned(), "fields".to_owned()];
    arguments.extend(fields.iter().flat_map(|field| ["-e".to_owned(), (*field).to_owned()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let expected: Vec<String> = shown
        .ladder
        .iter()
        .map(|rung| {
            let (message, cseq) = (&rung.message, rung.step.cseq.as_deref().unwrap_or_default());
            let (from, to) = (message.source(), message.destination());
            let (seconds, micros) = (message.unix_us / 1_000_000, message.unix_us % 1_000_000);
            format!(
                "{seconds}.{micros:06}000\t{}\t{}\t{}\t{}\t{cseq}",
                from.ip(),
                from.port(),
                to.ip(),
                to.port()
            )
        })
        .collect();
    interrupt::wait_until(LIMIT, "all messages to be sent to Homer", || {
        let recorded = site.metric("branchline_trace_messages_total", &[("result", "recorded")])?;
        let sent = site.metric("branchline_hep_packets_total", &[("result", "sent")])?;
        Ok((sent == recorded && sent >= expected.len() as f64).then_some(()))
    })?;
    std::thread::sleep(SETTLE);
    // It writes the rest when it ends.
    homer.stop(libc::SIGINT)?;
    assert_eq!(tshark(&told_homer, &arguments)?, expected, "{}", homer.last_words());
    assert_eq!(site.metric("branchline_hep_packets_total", &[("result", "dropped")])?, 0.0);

    // After a restart.
    site.appliance.stop(libc::SIGTERM)?;
    site.start_again()?;
    let kept = report(&site.appliance, &site.lab, &call_id)?;
    assert_eq!((kept.ladder, kept.summary.state.as_str()), (shown.ladder, "stored"));
    assert_eq!(calls(&site.appliance, &site.lab)?.len(), 1);
    std::fs::remove_file(password)?;
    Ok(())
}

#[test]
fn a_call_of_phones_by_tls_is_traced_in_clear_without_what_is_secret() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let server = format!("sip:{SERVER}:{PEER_SIP};transport=tcp");
    let _server =
        Kamailio::start_with(&lab, &lab.centre, "kamailio", SocketAddrV4::new(SERVER, PEER_SIP), None)?;
    let appliance = Appliance::start_with(&lab, &Settings { servers: vec![server], ..settings() })?;
    let proxy = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_TLS);
    let second = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(&lab, "tls", 0), proxy)?;
    let _called = Baresip::start(&lab, &second, &account(&lab, "tls", 1), proxy)?;
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "an answered call", || {
        let calls: Vec<CallView> = ask(&appliance, &lab, "calls")?;
        Ok(calls.into_iter().find(|call| call.state == "established").map(|_| ()))
    })?;
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        Ok((ask::<StatusView>(&appliance, &lab, "status")?.calls_active == 0).then_some(()))
    })?;
    let call_id = calls(&appliance, &lab)?.first().context("no trace")?.call_id.clone();
    let shown = report(&appliance, &lab, &call_id)?;
    for what in ["INVITE", "200 OK", "ACK", "BYE"] {
        let of = |network: &str, way: Way, transport: &str| {
            let mut rungs = shown.ladder.iter().map(|rung| (&rung.message, &rung.step));
            rungs.any(|(message, step)| {
                message.network == network
                    && message.direction == way
                    && message.transport.as_label() == transport
                    && step.what == what
            })
        };
        for way in [Way::In, Way::Out] {
            assert!(of("office", way, "tls") && of("centre", way, "tcp"), "{what}: {shown:#?}");
        }
    }
    let file = lab.dir().join("call.pcapng");
    appliance.ask(&lab, &["trace", "--call-id", &call_id, "--pcap", file.to_str().context("a path")?])?;
    let comments = tshark(
        &file,
        &["-Y", "sip && frame.interface_name == \"office\"", "-T", "fields", "-e", "frame.comment"],
    )?;
    assert!(
        !comments.is_empty() && comments.iter().all(|said| said == "SIP over TLS, shown as UDP in clear")
    );
    assert_eq!(tshark(&file, &["-Y", "sip"])?.len(), shown.ladder.len());

    // The phones' registrations have traces, too; what was computed from their passwords is masked there.
    let list: TracesView = ask(&appliance, &lab, "trace")?;
    let registrations: Vec<&Summary> =
        list.traces.iter().filter(|trace| trace.method == "REGISTER").collect();
    assert!(registrations.len() >= 2, "{list:#?}");
    for registration in registrations {
        let text = appliance.show(&lab, &["trace", "--call-id", &registration.call_id, "--messages"])?;
        for answer in text.lines().filter_map(|line| line.split("response=\"").nth(1)) {
            let answer = answer.split('"').next().unwrap_or_default();
            assert!(!answer.is_empty() && answer.bytes().all(|byte| byte == b'*'), "{text}");
        }
        assert!(text.contains("--REGISTER-"), "{text}");
    }
    Ok(())
}
