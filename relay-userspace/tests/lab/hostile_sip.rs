//! What is not SIP, or is broken SIP, at the running daemon's port: answered where it can be, counted where it
//! cannot, and neither an end nor a growth of the daemon.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_OFFICE, phone};

use crate::site::{LIMIT, Site, settings, to_appliance};

/// Where the hostile phone sits.
const HOSTILE: u8 = 8;
/// Bad datagrams that have to be taken in, after as many as make the daemon's buffers what they will be.
const FLOOD: u64 = 200_000;
const WARM_UP: u64 = 20_000;
/// Datagrams in one burst.
const BURST: usize = 500;
/// How much the daemon's memory may differ after the flood, in KiB.
const FLAT_KIB: u64 = 4096;

/// A request that is answered 400 and more, with a line of its own.
fn request(method: &str, line: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} sip:9001@{APPLIANCE_OFFICE}:8060 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {}:5099;rport;branch=z9hG4bKhostile\r\n\
         From: <sip:1001@lab.example>;tag=h\r\nTo: <sip:9001@lab.example>\r\n\
         Call-ID: hostile\r\nCSeq: 1 {method}\r\n{line}\r\n\r\n{body}",
        phone(HOSTILE)
    )
    .into_bytes()
}

/// What is sent, and the status of the answer, if there is to be one.
fn rows() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let good = request("INVITE", "Max-Forwards: 70", "");
    let text = String::from_utf8_lossy(&good).into_owned();
    vec![
        ("a header line without a colon", request("INVITE", "Max-Forwards 70", ""), Some("400")),
        ("a Max-Forwards that is no number", request("INVITE", "Max-Forwards: many", ""), Some("400")),
        ("a body shorter than it says", request("INVITE", "Content-Length: 500", "v=0"), Some("400")),
        ("a Content-Length below zero", request("INVITE", "Content-Length: -1", ""), Some("400")),
        ("another SIP version", text.replacen("SIP/2.0\r\n", "SIP/7.0\r\n", 1).into_bytes(), Some("505")),
        (
            "a header line of 40 KB",
            request("INVITE", &format!("X-Long: {}", "a".repeat(40_000)), ""),
            Some("513"),
        ),
        ("thousands of header lines", request("INVITE", "X: y\r\n".repeat(5_000).trim_end(), ""), None),
        ("no Via", text.replacen("Via:", "X-Via:", 1).into_bytes(), None),
        ("no CSeq", text.replacen("CSeq:", "X-CSeq:", 1).into_bytes(), None),
        ("cut in the middle of a header", good[..good.len() / 2].to_vec(), None),
        ("cut in the request line", b"INVITE sip:90".to_vec(), None),
        ("an answer to nothing", b"SIP/2.0 200 OK\r\n\r\n".to_vec(), None),
        ("binary", (0..=255).cycle().take(1200).collect(), None),
        (
            "STUN that is no binding request",
            [b"\x00\x03\x00\x00\x21\x12\xa4\x42" as &[u8], &[7; 12]].concat(),
            None,
        ),
        ("the largest datagram", vec![b'A'; 65_507], None),
        ("one byte", vec![b'I'], None),
        ("not UTF-8", [b"INVITE \xff\xfe\xfd SIP/2.0\r\n" as &[u8], b"\x80\r\n\r\n"].concat(), None),
    ]
}

fn socket(site: &Site, port: u16) -> Result<UdpSocket> {
    let local = SocketAddrV4::new(phone(HOSTILE), port);
    let socket = site.lab.office.enter(move || UdpSocket::bind(local))??;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(to_appliance(APPLIANCE_OFFICE))?;
    Ok(socket)
}

fn refused(site: &Site) -> Result<f64> {
    site.metric("branchline_sip_dropped_total", &[])
}

#[test]
fn broken_messages_are_answered_where_they_can_be_and_counted_where_they_cannot() -> Result<()> {
    let site = Site::start(settings())?;
    let socket = socket(&site, 5099)?;
    let mut buffer = [0; 4096];
    for (description, datagram, status) in rows() {
        let before = refused(&site)?;
        socket.send(&datagram).with_context(|| description.to_owned())?;
        if let Some(status) = status {
            let length = socket.recv(&mut buffer).with_context(|| format!("{description}: no answer"))?;
            let answer = String::from_utf8_lossy(&buffer[..length]);
            assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{description}: {answer}");
            assert!(
                answer.contains("branch=z9hG4bKhostile") && answer.contains("CSeq: 1 INVITE"),
                "{answer}"
            );
        }
        interrupt::wait_until(LIMIT, &format!("count of `{description}`"), || {
            Ok((refused(&site)? == before + 1.0).then_some(()))
        })?;
    }
    // An answer to what was to be dropped would have come by now, before that of a well-formed request.
    socket.send(&request("OPTIONS", "Max-Forwards: 0", ""))?;
    let length = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    assert!(answer.contains("CSeq: 1 OPTIONS"), "{answer}");
    site.a_call_works()
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Sends bad datagrams until the daemon has counted this many more of them.
fn flood(site: &Site, socket: &UdpSocket, count: u64) -> Result<()> {
    let rows = rows();
    let small: Vec<&Vec<u8>> =
        rows.iter().map(|(_, datagram, _)| datagram).filter(|d| d.len() < 2000).collect();
    let wanted = refused(site)? + count as f64;
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 4096];
    interrupt::wait_until(Duration::from_secs(240), "end of the flood", || {
        for datagram in small.iter().cycle().take(BURST * 10) {
            // A full queue loses it, here or there: only what is counted counts.
            let _ = socket.send(datagram);
        }
        while socket.recv(&mut buffer).is_ok() {}
        Ok((refused(site)? >= wanted).then_some(()))
    })
}

#[test]
fn hundreds_of_thousands_of_bad_datagrams_neither_end_the_daemon_nor_fill_its_memory() -> Result<()> {
    // Exempt, or the kernel would let the daemon see next to nothing of it.
    let tables = "[protection]\ntrusted = [\"10.61.0.0/24\"]\n".to_owned();
    let mut site = Site::start(Settings { tables, ..settings() })?;
    site.a_call_works()?;
    let socket = socket(&site, 5098)?;
    flood(&site, &socket, WARM_UP)?;
    let before = resident(site.appliance.pid())?;
    flood(&site, &socket, FLOOD)?;
    let after = resident(site.appliance.pid())?;
    println!("resident before {before} KiB, after {after} KiB");
    site.appliance.still_runs()?;
    assert!(after < before + FLAT_KIB, "{before} KiB before, {after} KiB after");
    assert!(!site.appliance.said().contains("panicked"), "{}", site.appliance.said());
    let mut call = site.phone_calls(1, Duration::from_secs(2))?;
    call.succeed(LIMIT).map(drop)
}
