//! Traffic that is none of ours passes an appliance with a call up as if there were none: ping, TCP, DNS, large
//! datagrams, ARP, between office, branch and centre.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::{Namespace, Routes, UdpChecksum};

use crate::site::{LIMIT, Site, engine};

/// What a TCP transfer carries, in bytes.
const TRANSFER: usize = 4 << 20;
const TCP_PORT: u16 = 8022;
const DNS_PORT: u16 = 53;
/// A DNS answer of the usual size, and one that the network has to fragment.
const ANSWERS: [usize; 2] = [120, 3000];

/// Bytes that do not repeat in step with anything.
fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect()
}

fn joined<T>(handle: JoinHandle<Option<std::io::Result<T>>>) -> Result<T> {
    let value = handle.join().map_err(|_| anyhow!("a thread panicked"))?;
    Ok(value.context("a thread could not enter its namespace")??)
}

/// A transfer by TCP, and the same bytes back.
fn transfer(from: &Namespace, to: &Namespace, address: Ipv4Addr) -> Result<()> {
    let listener = to.enter(move || TcpListener::bind((address, TCP_PORT)))??;
    let echo = to.spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut got = vec![0; TRANSFER];
        stream.read_exact(&mut got)?;
        stream.write_all(&got)
    })?;
    let got = from.enter(move || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, TCP_PORT)), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&bytes(TRANSFER))?;
        let mut got = vec![0; TRANSFER];
        stream.read_exact(&mut got)?;
        Ok(got)
    })??;
    joined(echo)?;
    assert!(got == bytes(TRANSFER), "TCP to {address}: other bytes came back than were sent");
    Ok(())
}

/// A question by UDP from a port, and its answer.
fn question(from: &Namespace, source: SocketAddrV4, to: &Namespace, address: Ipv4Addr) -> Result<()> {
    // A question for an A record: identification, one question, `branchline.example` (RFC 1035 section 4).
    let asked =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0abranchline\x07example\x00\x00\x01\x00\x01";
    for length in ANSWERS {
        let server = to.enter(move || UdpSocket::bind((address, DNS_PORT)))??;
        server.set_read_timeout(Some(LIMIT))?;
        let answering = to.spawn(move || -> std::io::Result<Vec<u8>> {
            let mut buffer = [0; 512];
            let (got, peer) = server.recv_from(&mut buffer)?;
            server.send_to(&bytes(length), peer)?;
            Ok(buffer[..got].to_vec())
        })?;
        let answer = from.enter(move || -> std::io::Result<Vec<u8>> {
            let socket = UdpSocket::bind(source)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.send_to(asked, (address, DNS_PORT))?;
            let mut buffer = [0; 4096];
            let got = socket.recv(&mut buffer)?;
            Ok(buffer[..got].to_vec())
        })?;
        let answer = answer.with_context(|| format!("{source} asked {address} and got no {length} bytes"))?;
        assert_eq!(joined(answering)?, asked);
        assert!(answer == bytes(length), "{source} asked {address}: another answer than was sent");
    }
    Ok(())
}

#[test]
fn ping_tcp_dns_and_arp_pass_untouched_while_a_call_is_forwarded() -> Result<()> {
    let site = Site::start_with(engine("kernel"), Routes::ThroughBranch, UdpChecksum::Computed)?;
    let lab = &site.lab;
    let mut call = site.phone_calls(0, Duration::from_secs(15))?;
    let flows = site.until_flows(4, |flow| flow.datapath == "kernel")?;
    let pairs = [
        ("office to appliance", &lab.office, &lab.branch, APPLIANCE_OFFICE),
        ("appliance to phone", &lab.branch, &lab.office, phone(7)),
        ("centre to appliance", &lab.centre, &lab.branch, APPLIANCE_CENTRE),
        ("appliance to server", &lab.branch, &lab.centre, SERVER),
        ("phone to server", &lab.office, &lab.centre, SERVER),
        ("server to phone", &lab.centre, &lab.office, phone(7)),
    ];
    for round in ["as it is", "after ARP was flushed"] {
        for (description, from, to, address) in pairs {
            let context = || format!("{description}, {round}");
            // ping compares what comes back with what it sent, and prints where they differ.
            let said = from
                .run("ping", &["-c3", "-i0.2", "-W5", "-s1400", &address.to_string()])
                .with_context(context)?;
            assert!(
                said.contains(" 0% packet loss") && !said.contains("wrong data"),
                "{}: {said}",
                context()
            );
            transfer(from, to, address).with_context(context)?;
            // A port of the system's choice, and one among the media ports that no flow has: unknown means pass.
            let in_use = |port: u16| flows.iter().any(|flow| flow.local.ends_with(&format!(":{port}")));
            let free = (24_000..24_100).find(|port| !in_use(*port)).context("no free port")?;
            for port in [0, free] {
                let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
                question(from, source, to, address).with_context(context)?;
            }
        }
        for place in [&lab.office, &lab.branch, &lab.centre] {
            place.forget_neighbours()?;
        }
    }
    call.succeed(LIMIT)?;
    for leg in site.legs().concat() {
        assert!(leg.received > 0, "{leg:?}");
        assert_eq!((leg.strays, leg.heard.lost()), (0, 0), "the call beside it lost nothing: {leg:?}");
    }
    Ok(())
}
