//! A server that connects to the appliance and takes no connections itself: what the appliance has for it goes down the
//! server's own connection (RFC 5923).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{APPLIANCE_CENTRE, SERVER};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, turn};

/// Reads on until a message that begins so is whole; none of them has a body.
fn until(stream: &mut TcpStream, heard: &mut String, start: &str) -> Result<String> {
    loop {
        while let Some(end) = heard.find("\r\n\r\n") {
            let message: String = heard.drain(..end + 4).collect();
            if message.starts_with(start) {
                return Ok(message);
            }
        }
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).with_context(|| format!("waiting for {start}: {heard}"))?;
        anyhow::ensure!(length > 0, "closed while waiting for {start}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

#[test]
fn a_server_behind_its_own_connection_is_probed_down_it_and_found_well() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = Settings {
        until: "/healthz",
        servers: vec![format!("sip:{SERVER}:{PEER_SIP};transport=tcp")],
        upstream: "probe_seconds = 1\n".to_owned(),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let state = |wanted: &str| {
        interrupt::wait_until(LIMIT, "news of the server", || {
            let status = ask::<StatusView>(&appliance, &lab, "status")?;
            Ok(status.servers.first().filter(|server| server.state == wanted).map(|_| ()))
        })
    };
    state("down")?;
    let to = SocketAddrV4::new(APPLIANCE_CENTRE, APPLIANCE_SIP);
    let mut server = lab.centre.enter(move || TcpStream::connect(to))??;
    server.set_read_timeout(Some(LIMIT))?;
    let options = format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/TCP {SERVER}:{PEER_SIP};branch=z9hG4bKreuse;alias\r\n\
         Max-Forwards: 70\r\nFrom: <sip:{SERVER}>;tag=server\r\nTo: <sip:{to}>\r\nCall-ID: reuse\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    server.write_all(options.as_bytes())?;
    let mut heard = String::new();
    until(&mut server, &mut heard, "SIP/2.0 200 OK\r\n")?;
    let probe = until(&mut server, &mut heard, "OPTIONS")?;
    let line = |name: &str| probe.split("\r\n").find(|line| line.starts_with(name)).context(probe.clone());
    let via = line("Via: SIP/2.0/TCP 10.62.0.1:8060;")?;
    assert!(via.ends_with(";alias"), "{via}");
    let answer = format!(
        "SIP/2.0 200 OK\r\n{via}\r\n{}\r\n{};tag=server\r\n{}\r\n{}\r\nContent-Length: 0\r\n\r\n",
        line("From")?,
        line("To")?,
        line("Call-ID")?,
        line("CSeq")?
    );
    server.write_all(answer.as_bytes())?;
    state("up")?;
    // With the connection goes the way.
    drop(server);
    state("down")
}
