//! A hostile host in the office against every service at once, while two calls with media go on: refusals are clear
//! and counted, what is opened and left is closed, memory stays flat, and everybody else is served.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use branchline::config::Tls;
use branchline::provisioning::syslog::SyslogView;
use branchline::tls::{self, Authorities, Fingerprint, Identity, Trust};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use xtask::demo::appliance::{ADMIN, Settings};
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Namespace, interrupt};

use crate::hostile_sip::resident;
use crate::provisioning::curl;
use crate::site::{LIMIT, Site, settings};

/// The first phone's media is carried by the kernel, the other one's by userspace.
const CALLERS: [u8; 2] = [0, 3];
/// The first of the hostile host's addresses, and that of somebody who means well.
const HOSTILE: u8 = 8;
const GOOD: u8 = 1;
/// The one of these that keeps no connections open, and so still gets an answer.
const SENDER: u8 = HOSTILE + 7;
/// Longer than the test.
const TALK: Duration = Duration::from_secs(150);
/// RTP packets of each flow before the attack.
const ENOUGH: u64 = 100;

const SIP: u16 = 8060;
const SIPS: u16 = 8061;
const FILES: u16 = 8088;
const FILES_TLS: u16 = 8089;
const PAGES: u16 = 8443;
const DHCP: u16 = 67;
const CLOCK: u16 = 123;
const SYSLOG: u16 = 514;

/// Connections that each hostile address opens to SIP and leaves: more than it may have.
const LEFT: usize = 300;
const LEFT_ALLOWED: f64 = 256.0;
/// Datagrams of a volley to each service.
const VOLLEY: usize = 4000;
/// The daemon closes what is left within half a minute.
const CLOSED: Duration = Duration::from_secs(60);
/// How much memory may differ from volley to volley, in KiB.
const FLAT_KIB: u64 = 4096;

fn at(port: u16) -> SocketAddr {
    (APPLIANCE_OFFICE, port).into()
}

fn udp(office: &Namespace, from: Ipv4Addr, port: u16, to: u16) -> Result<UdpSocket> {
    let socket = office.enter(move || UdpSocket::bind((from, port)))??;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(at(to))?;
    Ok(socket)
}

/// A TCP connection from an address of the office.
fn tcp(office: &Namespace, from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let stream = office.enter(move || connect(from, to))??;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // Little room for answers that are not read.
    socket.set_recv_buffer_size(4096)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), LIMIT)?;
    Ok(socket.into())
}

/// What comes until the other side closes; a reset after the answer is an end too.
fn answer(stream: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut part) {
        bytes.extend(&part[..length]);
        if bytes.len() > 1 << 20 {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// TLS that believes the appliance's own certificate.
fn client(site: &Site) -> Result<Arc<ClientConfig>> {
    let own = site.lab.dir().join("state/tls/own.pem");
    let trust = Arc::new(Trust::default());
    trust.set([Fingerprint::of(&CertificateDer::from_pem_file(&own)?)]);
    let identity = Identity::open(&site.lab.dir().join("hostile"), None, None, &["hostile".into()], &[])?;
    Ok(tls::client_config(&identity, &Authorities::open(None)?, &trust, &Tls::default())?)
}

fn in_tls(config: &Arc<ClientConfig>, stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::from(std::net::IpAddr::V4(APPLIANCE_OFFICE));
    Ok(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream))
}

/// A request that is answered 483 by the appliance itself; `lines` are further header lines.
fn options(branch: &str, transport: &str, lines: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:9001@lab.example SIP/2.0\r\nVia: SIP/2.0/{transport} 10.61.0.99:5099;rport;branch=z9hG4bK{branch}\r\n\
         From: <sip:1001@lab.example>;tag=h\r\nTo: <sip:9001@lab.example>\r\nCall-ID: {branch}\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 0\r\n{lines}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A DHCPINFORM of a client with this address.
fn inform(client: Ipv4Addr, hardware: u8) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(b"xid!");
    message[12..16].copy_from_slice(&client.octets());
    message[28..34].copy_from_slice(&[0, 4, 0xf2, 0, 0, hardware]);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 8, 55, 2, 160, 66, 255]);
    message
}

/// An SNTP request with a timestamp to be given back.
fn time_request(first: u8) -> Vec<u8> {
    let mut packet = vec![0; 48];
    packet[0] = first;
    packet[40..].copy_from_slice(b"original");
    packet
}

/// A metric by its name and labels.
type Counted = (&'static str, &'static [(&'static str, &'static str)]);

const SIP_DROPPED: &str = "branchline_sip_dropped_total";
const DHCP_DROPPED: &str = "branchline_dhcp_dropped_total";
const CLOCK_REQUESTS: &str = "branchline_clock_requests_total";
const SYSLOG_MESSAGES: &str = "branchline_syslog_messages_total";
const SIP_ENDED: &str = "branchline_sip_connections_ended_total";
const SIP_FAILED: &str = "branchline_sip_connection_failures_total";
const FILES_REFUSED: &str = "branchline_provisioning_refused_total";
const WEB_REFUSED: &str = "branchline_web_refused_total";

/// Datagrams: what, to which port, the bytes, and what counts them. None of them is answered.
fn datagrams() -> Vec<(&'static str, u16, Vec<u8>, Counted)> {
    let mut foreign = inform(phone(GOOD), 9);
    foreign[24..28].copy_from_slice(&[0; 4]);
    let mut cookie = inform(phone(HOSTILE), 9);
    cookie[236] = 0;
    let mut cut = inform(phone(HOSTILE), 9);
    cut.truncate(242);
    vec![
        ("SIP that is none", SIP, vec![0xff; 900], (SIP_DROPPED, &[("reason", "unreadable")])),
        (
            "a giant header",
            SIP,
            [b"OPTIONS sip:a SIP/2.0\r\nX: ".as_slice(), &[b'a'; 60_000]].concat(),
            (SIP_DROPPED, &[("reason", "unreadable")]),
        ),
        ("a DHCP message of one byte", DHCP, vec![1], (DHCP_DROPPED, &[("reason", "malformed")])),
        ("a DHCP message without its cookie", DHCP, cookie, (DHCP_DROPPED, &[("reason", "malformed")])),
        ("a DHCP message whose options are cut", DHCP, cut, (DHCP_DROPPED, &[("reason", "malformed")])),
        (
            "a DHCP message for somebody else's address",
            DHCP,
            foreign,
            (DHCP_DROPPED, &[("reason", "foreign_address")]),
        ),
        ("a giant DHCP message", DHCP, vec![0x63; 60_000], (DHCP_DROPPED, &[("reason", "malformed")])),
        ("an NTP packet of one byte", CLOCK, vec![0x23], (CLOCK_REQUESTS, &[("result", "malformed")])),
        (
            "an NTP packet of version 0",
            CLOCK,
            time_request(0x03),
            (CLOCK_REQUESTS, &[("result", "malformed")]),
        ),
        (
            "NTP's control mode, that amplifies elsewhere",
            CLOCK,
            time_request(0x16),
            (CLOCK_REQUESTS, &[("result", "other_mode")]),
        ),
        (
            "NTP's private mode, that amplifies elsewhere",
            CLOCK,
            time_request(0x17),
            (CLOCK_REQUESTS, &[("result", "other_mode")]),
        ),
        ("an NTP server's answer", CLOCK, time_request(0x24), (CLOCK_REQUESTS, &[("result", "other_mode")])),
        (
            "a log line of 60,000 bytes",
            SYSLOG,
            vec![b'x'; 60_000],
            (SYSLOG_MESSAGES, &[("severity", "unknown")]),
        ),
        (
            "a log line that would be two",
            SYSLOG,
            b"one\n2026-01-01T00:00:00Z crit appliance: two".to_vec(),
            (SYSLOG_MESSAGES, &[("severity", "unknown")]),
        ),
        (
            "a log line that clears a terminal",
            SYSLOG,
            b"\x1b[2J\x1b]0;owned\x07".to_vec(),
            (SYSLOG_MESSAGES, &[("severity", "unknown")]),
        ),
    ]
}

/// How bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Tcp,
    Tls,
}

fn http(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: 10.61.0.1:8443\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

/// Bytes to a port: what, by what, where, the bytes, how the answer begins (nothing: there is none), what it must not
/// have, and what counts it.
type Row = (&'static str, By, u16, Vec<u8>, &'static str, &'static str, Option<Counted>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let tls_garbage = [b"\x16\x03\x01\x02\x00".as_slice(), &[0xaa; 600]].concat();
    let endless = |length: usize| [b"OPTIONS sip:a SIP/2.0\r\nX: ".as_slice(), &vec![b'a'; length]].concat();
    let form = "Origin: https://10.61.0.1:8443\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let giant_form = http("POST /sign-in", &format!("{form}Content-Length: 900000000\r\n"));
    let ended = |reason: &'static str| -> Counted {
        match reason {
            "too_large" => (SIP_ENDED, &[("transport", "tcp"), ("reason", "too_large")]),
            "too_large by tls" => (SIP_ENDED, &[("transport", "tls"), ("reason", "too_large")]),
            _ => (SIP_ENDED, &[("transport", "tcp"), ("reason", "malformed")]),
        }
    };
    let no_tls: Counted = (SIP_FAILED, &[("transport", "tls"), ("step", "tls")]);
    vec![
        (
            "a giant Content-Length",
            By::Tcp,
            SIP,
            b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 4294967295\r\n\r\n".to_vec(),
            "",
            "",
            Some(ended("too_large")),
        ),
        (
            "one that is no number",
            By::Tcp,
            SIP,
            b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 1e9\r\n\r\n".to_vec(),
            "",
            "",
            Some(ended("malformed")),
        ),
        (
            "two that differ",
            By::Tcp,
            SIP,
            b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
            "",
            "",
            Some(ended("malformed")),
        ),
        ("a header without an end", By::Tcp, SIP, endless(80_000), "", "", Some(ended("too_large"))),
        ("no line end for ever", By::Tcp, SIP, vec![b'A'; 80_000], "", "", Some(ended("too_large"))),
        ("the same in TLS", By::Tls, SIPS, vec![b'A'; 80_000], "", "", Some(ended("too_large by tls"))),
        (
            "no TLS where there should be",
            By::Tcp,
            SIPS,
            options("plain", "TLS", ""),
            "",
            "SIP/2.0",
            Some(no_tls),
        ),
        ("garbage as TLS", By::Tcp, SIPS, tls_garbage.clone(), "", "SIP/2.0", Some(no_tls)),
        (
            "garbage for a request",
            By::Tcp,
            FILES,
            b"\x00\x01\x02\r\n\r\n".to_vec(),
            "HTTP/1.1 400 ",
            "",
            Some((FILES_REFUSED, &[("reason", "malformed")])),
        ),
        (
            "garbage as TLS",
            By::Tcp,
            FILES_TLS,
            tls_garbage.clone(),
            "",
            "HTTP/",
            Some((FILES_REFUSED, &[("reason", "tls")])),
        ),
        (
            "a path that leads out",
            By::Tcp,
            FILES,
            http("GET /%2e%2e/%2e%2e/etc/passwd", ""),
            "HTTP/1.1 400 ",
            "root:",
            Some((FILES_REFUSED, &[("reason", "path")])),
        ),
        (
            "the same in TLS",
            By::Tls,
            FILES_TLS,
            http("GET /../../etc/passwd", ""),
            "HTTP/1.1 400 ",
            "root:",
            Some((FILES_REFUSED, &[("reason", "path")])),
        ),
        (
            "a giant header",
            By::Tls,
            FILES_TLS,
            http("GET /a.cfg", &format!("X: {}\r\n", "x".repeat(64 << 10))),
            "HTTP/1.1 431 ",
            "",
            Some((FILES_REFUSED, &[("reason", "head_too_large")])),
        ),
        (
            "two lengths",
            By::Tcp,
            FILES,
            http("POST /a.cfg", "Content-Length: 4\r\nContent-Length: 30\r\n"),
            "HTTP/1.1 400 ",
            "",
            Some((FILES_REFUSED, &[("reason", "malformed")])),
        ),
        (
            "no TLS to the pages",
            By::Tcp,
            PAGES,
            http("GET /", ""),
            "HTTP/1.1 400 ",
            "",
            Some((WEB_REFUSED, &[("reason", "tls")])),
        ),
        (
            "garbage as TLS to the pages",
            By::Tcp,
            PAGES,
            tls_garbage,
            "",
            "HTTP/",
            Some((WEB_REFUSED, &[("reason", "tls")])),
        ),
        (
            "garbage for a request to the pages",
            By::Tls,
            PAGES,
            b"\x00\x01\r\n\r\n".to_vec(),
            "HTTP/1.1 400 ",
            "",
            Some((WEB_REFUSED, &[("reason", "head")])),
        ),
        (
            "a giant header to the pages",
            By::Tls,
            PAGES,
            http("GET /", &format!("X: {}\r\n", "x".repeat(64 << 10))),
            "HTTP/1.1 431 ",
            "",
            Some((WEB_REFUSED, &[("reason", "head")])),
        ),
        (
            "a giant form",
            By::Tls,
            PAGES,
            giant_form,
            "HTTP/1.1 413 ",
            "",
            Some((WEB_REFUSED, &[("reason", "body")])),
        ),
        (
            "a form of another site",
            By::Tls,
            PAGES,
            http("POST /sign-in", "Origin: https://evil.example\r\nContent-Length: 0\r\n"),
            "HTTP/1.1 403 ",
            "",
            Some((WEB_REFUSED, &[("reason", "foreign_form")])),
        ),
        (
            "a token that there is not",
            By::Tls,
            PAGES,
            http("GET /api/v1/status", "Authorization: Bearer made-up\r\n"),
            "HTTP/1.1 401 ",
            "servers",
            Some((WEB_REFUSED, &[("reason", "wrong_token")])),
        ),
        (
            "a session that there is not",
            By::Tls,
            PAGES,
            http("GET /configuration/history", "Cookie: __Host-branchline=made-up\r\n"),
            "HTTP/1.1 303 ",
            "upstream",
            None,
        ),
        (
            "a path out of the pages",
            By::Tls,
            PAGES,
            http("GET /assets/../../../etc/passwd", ""),
            "HTTP/1.1 ",
            "root:",
            None,
        ),
        (
            "the same, escaped",
            By::Tls,
            PAGES,
            http("GET /assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd", ""),
            "HTTP/1.1 404 ",
            "root:",
            None,
        ),
        (
            "a header in a query",
            By::Tls,
            PAGES,
            http("GET /sessions?q=%0d%0aSet-Cookie:%20evil=1", ""),
            "HTTP/1.1 303 ",
            "\r\nSet-Cookie: evil",
            None,
        ),
        (
            "a script in a query",
            By::Tls,
            PAGES,
            http("GET /sign-in?next=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", ""),
            "HTTP/1.1 200 ",
            "<script>alert",
            None,
        ),
        (
            "another host's name",
            By::Tls,
            PAGES,
            b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_vec(),
            "HTTP/1.1 303 ",
            "evil.example",
            None,
        ),
    ]
}

/// The table of rows, one after the other. Each row is counted; many of one kind within a moment count as too fast.
fn every_row(site: &Site, config: &Arc<ClientConfig>) -> Result<()> {
    for (description, port, bytes, (metric, labels)) in datagrams() {
        let socket = udp(&site.lab.office, phone(HOSTILE), 0, port)?;
        let before = site.metric(metric, labels)?;
        socket.send(&bytes).with_context(|| description.to_owned())?;
        interrupt::wait_until(LIMIT, &format!("count of `{description}`"), || {
            Ok((site.metric(metric, labels)? > before).then_some(()))
        })?;
        socket.set_nonblocking(true)?;
        assert!(socket.recv(&mut [0; 64]).is_err(), "{description}: it is answered");
    }
    for (description, by, port, bytes, begins, without, counted) in rows() {
        let before = counted.map(|(metric, labels)| site.metric(metric, labels)).transpose()?;
        let mut stream = tcp(&site.lab.office, phone(SENDER), at(port))?;
        // The other side may have had enough before the last byte.
        let said = match by {
            By::Tcp => {
                let _ = stream.write_all(&bytes);
                answer(&mut stream)
            }
            By::Tls => {
                let mut stream = in_tls(config, stream)?;
                let _ = stream.write_all(&bytes);
                answer(&mut stream)
            }
        };
        assert!(
            said.starts_with(begins) && (!begins.is_empty() || !said.starts_with("SIP/2.0 2")),
            "{description}: {said:?}"
        );
        assert!(without.is_empty() || !said.contains(without), "{description}: {said:?}");
        if let (Some((metric, labels)), Some(before)) = (counted, before) {
            interrupt::wait_until(LIMIT, &format!("count of `{description}`"), || {
                Ok((site.metric(metric, labels)? > before).then_some(()))
            })?;
        }
    }
    Ok(())
}

/// Datagrams to all services at once, from many addresses.
fn volley(site: &Site) -> Result<()> {
    let rows = datagrams();
    let mut threads: Vec<JoinHandle<std::io::Result<()>>> = Vec::new();
    for (number, port) in [SIP, DHCP, CLOCK, SYSLOG].into_iter().enumerate() {
        let mut own: Vec<Vec<u8>> =
            rows.iter().filter(|row| row.1 == port && row.2.len() < 2000).map(|row| row.2.clone()).collect();
        let from = phone(HOSTILE + u8::try_from(number)?);
        own.push(match port {
            SIP => options("volley", "UDP", ""),
            DHCP => inform(from, 1),
            CLOCK => time_request(0x23),
            _ => b"<34>Oct 11 22:14:15 phone app: again".to_vec(),
        });
        let socket = udp(&site.lab.office, from, 0, port)?;
        socket.set_nonblocking(true)?;
        threads.push(std::thread::spawn(move || {
            for (sent, datagram) in own.iter().cycle().take(VOLLEY).enumerate() {
                // A full queue loses it, here or there.
                let _ = socket.send(datagram);
                while socket.recv(&mut [0; 2048]).is_ok() {}
                if sent % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Ok(())
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a volley panicked"))??;
    }
    Ok(())
}

/// Connections that are opened and left, in every state in which one can be left.
struct Left {
    _streams: Vec<TcpStream>,
    stop: Arc<AtomicBool>,
    dribblers: Vec<JoinHandle<()>>,
}

impl Left {
    fn open(site: &Site, config: &Arc<ClientConfig>) -> Result<Self> {
        let office = &site.lab.office;
        let mut streams = Vec::new();
        // A client's greeting that says how long it will be, and then nothing more.
        let half_hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 40]].concat();
        for (address, port, count, bytes) in [
            (HOSTILE, SIP, LEFT, &b""[..]),
            (HOSTILE + 1, SIP, LEFT, b"OPTIONS sip:a SIP/2.0\r\nVia: "),
            (HOSTILE + 2, SIP, LEFT, b"\r\n\r\n"),
            (HOSTILE + 3, SIPS, LEFT, &half_hello),
            (HOSTILE + 4, SIPS, LEFT, b""),
            (HOSTILE, FILES, 40, b""),
            (HOSTILE + 1, FILES, 40, b"GET /a.cfg HTTP/1.1\r\nX: "),
            (HOSTILE + 2, FILES_TLS, 40, &half_hello),
            (HOSTILE, PAGES, 100, b""),
            (HOSTILE + 1, PAGES, 100, &half_hello),
        ] {
            let (from, bytes) = (phone(address), bytes.to_vec());
            let opened = office.enter(move || -> std::io::Result<Vec<TcpStream>> {
                (0..count)
                    .map(|_| {
                        let mut stream = connect(from, at(port))?;
                        // One that was turned away is closed already.
                        let _ = stream.write_all(&bytes);
                        Ok(stream)
                    })
                    .collect()
            })??;
            streams.extend(opened);
        }
        // The listener for machines, from another address of the branch itself.
        let machines = site.lab.branch.enter(|| -> std::io::Result<Vec<TcpStream>> {
            (0..100).map(|_| connect(Ipv4Addr::new(127, 0, 0, 2), ADMIN)).collect()
        })??;
        streams.extend(machines);

        let stop = Arc::new(AtomicBool::new(false));
        let mut dribblers = Vec::new();
        let keep = |stop: &Arc<AtomicBool>, mut next: Box<dyn FnMut() -> bool + Send>, pause: Duration| {
            let stop = Arc::clone(stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && next() {
                    std::thread::sleep(pause);
                }
            })
        };
        // A byte now and then, of a request that never ends.
        let slow: Vec<TcpStream> = (0..5)
            .map(|_| tcp(office, phone(HOSTILE + 5), at(SIP)))
            .chain((0..5).map(|_| tcp(office, phone(HOSTILE + 5), at(FILES))))
            .collect::<Result<_>>()?;
        let mut slow = slow;
        dribblers.push(keep(
            &stop,
            Box::new(move || slow.iter_mut().any(|one| one.write_all(b"X").is_ok())),
            Duration::from_secs(1),
        ));
        // Requests whose answers nobody reads, in the clear and in TLS.
        let long = format!("X: {}\r\n", "x".repeat(7000));
        for number in 0..3 {
            let mut stream = tcp(office, phone(HOSTILE + 6), at(SIP))?;
            let mut sent = 0;
            let long = long.clone();
            dribblers.push(keep(
                &stop,
                Box::new(move || {
                    sent += 1;
                    let via = format!(
                        "Via: SIP/2.0/TCP 10.61.0.99;branch=z9hG4bKu{number}.{sent}.{}\r\n",
                        "v".repeat(400)
                    );
                    let request = options(
                        &format!("unread{number}.{sent}"),
                        "TCP",
                        &format!("{}{long}", via.repeat(14)),
                    );
                    stream.write_all(&request).is_ok()
                }),
                Duration::from_millis(3),
            ));
        }
        for (port, request) in [
            (
                SIPS,
                options(
                    "unread",
                    "TLS",
                    &format!("Via: SIP/2.0/TLS 10.61.0.99;branch=z9hG4bK{}\r\n", "v".repeat(400)).repeat(14),
                ),
            ),
            (PAGES, b"GET /assets/vendor/htmx.min.js HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ] {
            let mut stream = in_tls(config, tcp(office, phone(HOSTILE + 6), at(port))?)?;
            let mut sent = 0u32;
            dribblers.push(keep(
                &stop,
                Box::new(move || {
                    sent += 1;
                    // Another transaction each time.
                    let request =
                        String::from_utf8_lossy(&request).replacen("unread", &format!("unread{sent}x"), 2);
                    stream.write_all(request.as_bytes()).is_ok()
                }),
                Duration::from_millis(3),
            ));
        }
        Ok(Self { _streams: streams, stop, dribblers })
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for dribbler in self.dribblers.drain(..) {
            let _ = dribbler.join();
        }
    }
}

/// Somebody who means well gets an answer from each service.
fn everything_is_served(site: &Site, config: &Arc<ClientConfig>, round: u32) -> Result<()> {
    let office = &site.lab.office;
    let good = phone(GOOD);
    let mut buffer = [0; 4096];
    let expect = |what: &str, socket: &UdpSocket, buffer: &mut [u8]| -> Result<usize> {
        socket.recv(buffer).with_context(|| format!("no answer by {what}"))
    };
    let socket = udp(office, good, 0, SIP)?;
    socket.send(&options(&format!("good{round}"), "UDP", ""))?;
    let length = expect("SIP over UDP", &socket, &mut buffer)?;
    assert!(buffer[..length].starts_with(b"SIP/2.0 483 "));
    for by in [By::Tcp, By::Tls] {
        let (port, transport) = if by == By::Tcp { (SIP, "TCP") } else { (SIPS, "TLS") };
        let mut stream = tcp(office, good, at(port))?;
        let request = options(&format!("good{round}{transport}"), transport, "");
        let length = if by == By::Tcp {
            stream.write_all(&request)?;
            stream.read(&mut buffer)
        } else {
            let mut stream = in_tls(config, stream)?;
            stream.write_all(&request)?;
            stream.read(&mut buffer)
        };
        let length = length.with_context(|| format!("no answer by SIP over {transport}"))?;
        assert!(buffer[..length].starts_with(b"SIP/2.0 483 "), "{transport}");
    }
    let socket = udp(office, good, 68, DHCP)?;
    socket.send(&inform(good, u8::try_from(round)?))?;
    let length = expect("DHCP", &socket, &mut buffer)?;
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("http://10.61.0.1:8088"));
    let socket = udp(office, good, 0, CLOCK)?;
    socket.send(&time_request(0x23))?;
    let length = expect("SNTP", &socket, &mut buffer)?;
    assert_eq!((length, &buffer[24..32]), (48, &b"original"[..]), "as long as the request, and for it");
    let socket = udp(office, good, 0, SYSLOG)?;
    let line = format!("good line {round}");
    socket.send(format!("<34>Oct 11 22:14:15 phone app: {line}").as_bytes())?;
    interrupt::wait_until(LIMIT, "the good phone's line", || {
        let lines: Vec<SyslogView> = serde_json::from_value(
            site.appliance.ask(&site.lab, &["syslog", "--phone", &good.to_string()])?,
        )?;
        Ok(lines.iter().any(|seen| seen.message == line).then_some(()))
    })?;
    let interface = good.to_string();
    let own = site.lab.dir().join("state/tls/own.pem");
    let own = own.to_str().context("a path")?;
    for (base, path) in [
        ("http://10.61.0.1:8088", "/a.cfg"),
        ("https://10.61.0.1:8089", "/a.cfg"),
        ("https://10.61.0.1:8443", "/sign-in"),
    ] {
        let got = curl(office, site.lab.dir(), base, &["--interface", &interface, "--cacert", own], path)?;
        assert_eq!(got.status, 200, "{base}{path}: {}", got.head);
    }
    assert!(site.status()?.ready);
    Ok(())
}

/// Wrong passwords are answered 401 a few times and then 429, and the right one from elsewhere is taken all the same.
fn wrong_passwords_are_limited(site: &Site) -> Result<()> {
    const PASSWORD: &str = "a word that nobody guesses";
    let (office, dir, base) = (&site.lab.office, site.lab.dir(), "https://10.61.0.1:8443");
    let made = site.appliance.ask(&site.lab, &["setup-link"])?.to_string();
    let token = made.split("token=").nth(1).and_then(|rest| rest.split('"').next()).context("no link")?;
    let post = |from: u8, path: &str, fields: &[&str]| {
        let from = phone(from).to_string();
        let mut arguments = vec!["-k", "--interface", &from, "-H", "Origin: https://10.61.0.1:8443"];
        for field in fields {
            arguments.extend(["--data-urlencode", *field]);
        }
        curl(office, dir, base, &arguments, path).map(|got| got.status)
    };
    let (token, password, repeated) =
        (format!("token={token}"), format!("password={PASSWORD}"), format!("repeated={PASSWORD}"));
    assert_eq!(post(GOOD, "/setup", &[&token, "name=admin", &password, &repeated])?, 303);
    assert_eq!(post(HOSTILE, "/setup", &[&token, "name=evil", &password, &repeated])?, 403, "used once");
    let wrong: Vec<u16> = (0..8)
        .map(|_| post(HOSTILE, "/sign-in", &["name=admin", "password=wrong"]))
        .collect::<Result<_>>()?;
    assert_eq!(wrong, [401, 401, 401, 401, 401, 429, 429, 429]);
    assert_eq!(post(HOSTILE, "/sign-in", &["name=admin", &password])?, 429, "even with the right one");
    assert_eq!(post(GOOD, "/sign-in", &["name=admin", &password])?, 303);
    Ok(())
}

/// The two calls: which datapath carries each flow, and that nothing was lost.
fn calls_are_whole(site: &Site) -> Result<()> {
    let flows = site.flows()?;
    assert_eq!(flows.len(), 8, "{flows:#?}");
    for datapath in ["kernel", "userspace"] {
        assert_eq!(flows.iter().filter(|flow| flow.datapath == datapath).count(), 4, "{flows:#?}");
    }
    for flow in &flows {
        assert_eq!((flow.lost, flow.duplicates), (0, 0), "{flow:#?}");
    }
    Ok(())
}

#[test]
fn a_hostile_host_harms_no_call_and_no_service_and_leaves_no_trace_but_counts() -> Result<()> {
    let files = format!("http://{}", SocketAddrV4::new(SERVER, FILES));
    let tables = format!(
        "[dhcp]\nenabled = true\n[clock]\nenabled = true\nunsynchronised = \"local\"\n[syslog]\nenabled = true\n\
         [provisioning]\nservers = [{files:?}]\n"
    );
    let mut site = Site::start(Settings { tables, ..settings() })?;
    let root = site.lab.dir().join("files");
    fs::create_dir_all(&root)?;
    fs::write(root.join("a.cfg"), "good")?;
    let _nginx =
        Nginx::start(&site.lab.centre, "nginx", SocketAddrV4::new(SERVER, FILES), &root, "", site.lab.dir())?;
    let config = client(&site)?;
    let mut calls =
        CALLERS.map(|index| site.phone_calls(index, TALK)).into_iter().collect::<Result<Vec<_>>>()?;
    site.until_flows(8, |flow| flow.kind == "rtcp" || flow.expected > ENOUGH)?;
    calls_are_whole(&site)?;
    wrong_passwords_are_limited(&site)?;
    everything_is_served(&site, &config, 1)?;
    let descriptors = site.status()?.open_files;

    let began = Instant::now();
    let left = Left::open(&site, &config)?;
    let held = site.status()?.open_files;
    assert!(held > descriptors + 500, "{held} of {descriptors} before");
    everything_is_served(&site, &config, 2).context("while connections are held")?;
    every_row(&site, &config)?;
    volley(&site)?;
    let first = resident(site.appliance.pid())?;
    for _ in 0..3 {
        volley(&site)?;
    }
    let second = resident(site.appliance.pid())?;
    assert!(second < first + FLAT_KIB, "{first} KiB after one volley, {second} KiB after four");
    everything_is_served(&site, &config, 3).context("after the volleys")?;

    // All that was left is closed, although the hostile host still holds its ends.
    interrupt::wait_until(CLOSED, "all that was left to be closed", || {
        let unread = site.metric(SIP_ENDED, &[("reason", "unread")])?;
        let open = site.status()?.open_files;
        let pages = site.metric(WEB_REFUSED, &[("reason", "unread")])?;
        Ok((open <= descriptors + 5 && unread >= 4.0 && pages >= 1.0).then_some(()))
    })
    .with_context(|| {
        format!("{:?} of {descriptors} descriptors", site.status().map(|status| status.open_files))
    })?;
    println!("closed after {} s; memory {first} and {second} KiB", began.elapsed().as_secs());
    drop(left);
    for (metric, labels, least) in [
        (SIP_FAILED, &[("transport", "tcp"), ("step", "limit")][..], 3.0 * (LEFT as f64 - LEFT_ALLOWED)),
        (SIP_FAILED, &[("transport", "tls"), ("step", "limit")], 2.0 * (LEFT as f64 - LEFT_ALLOWED)),
        (SIP_FAILED, &[("transport", "tls"), ("step", "tls")], 2.0 * LEFT_ALLOWED),
        (SIP_ENDED, &[("transport", "tcp"), ("reason", "silent")], 2.0 * LEFT_ALLOWED),
        (SIP_ENDED, &[("transport", "tcp"), ("reason", "slow")], LEFT_ALLOWED),
        (SIP_ENDED, &[("transport", "tcp"), ("reason", "unread")], 3.0),
        (SIP_ENDED, &[("transport", "tls"), ("reason", "unread")], 1.0),
        (FILES_REFUSED, &[("reason", "too_many_connections_of_one")], 60.0),
        (FILES_REFUSED, &[("reason", "silent")], 30.0),
        (WEB_REFUSED, &[("reason", "connections")], 100.0),
        (WEB_REFUSED, &[("reason", "silent")], 30.0),
        (WEB_REFUSED, &[("reason", "unread")], 1.0),
        (DHCP_DROPPED, &[("reason", "too_fast")], 1.0),
        (CLOCK_REQUESTS, &[("result", "too_fast")], 1.0),
        ("branchline_syslog_dropped_total", &[("reason", "too_fast")], 1.0),
    ] {
        let counted = site.metric(metric, labels)?;
        assert!(counted >= least, "{metric} {labels:?}: {counted}");
    }
    everything_is_served(&site, &config, 4).context("at the end")?;

    site.silence()?;
    calls_are_whole(&site)?;
    let said = site.appliance.said();
    assert!(!said.contains("panicked"), "{said}");
    assert!(!said.contains('\u{1b}'), "an escape sequence in the log");
    site.appliance.still_runs()?;
    for call in &mut calls {
        call.still_runs()?;
    }
    Ok(())
}
