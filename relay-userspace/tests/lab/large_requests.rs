//! Requests that are too large for UDP: to a real server by TCP, and to one without TCP in fragments. And STUN on the same
//! port, asked by a real client.

use std::net::SocketAddrV4;

use anyhow::Result;
use xtask::demo::appliance::Appliance;
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, Lab, Routes, capture::segments, network};

use crate::by_hand::{Place, Stage, heard, rest, socket};
use crate::site::{settings, turn};

fn message(number: u32, bytes: usize) -> String {
    let (own, text) = (SocketAddrV4::new(phone(0), PEER_SIP), "x".repeat(bytes));
    format!(
        "MESSAGE sip:9001@lab.example SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKlarge{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:1001@lab.example>;tag=phone\r\nTo: <sip:9001@lab.example>\r\n\
         Call-ID: large-{number}\r\nCSeq: {number} MESSAGE\r\nContent-Type: text/plain\r\n\
         Content-Length: {bytes}\r\n\r\n{text}"
    )
}

fn large(appliance: &Appliance, lab: &Lab, transport: &str) -> Result<f64> {
    Ok(appliance.metrics(lab)?.sum("branchline_sip_large_requests_total", &[("transport", transport)]))
}

#[test]
fn a_large_request_reaches_a_real_server_by_tcp_and_its_answer_comes_back_by_udp() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let phone = socket(&lab, Place::Office, PEER_SIP)?;
    for (number, bytes) in [(1, 400), (2, 2000)] {
        let to = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
        phone.send_to(message(number, bytes).as_bytes(), to)?;
        let (from, answer) = heard(&phone)?;
        assert_eq!(from, to.into());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("SIP/2.0 404 Not Found\r\n") && answer.contains("kamailio"), "{answer}");
    }
    assert_eq!((large(&appliance, &lab, "tcp")?, large(&appliance, &lab, "udp")?), (1.0, 0.0));
    let file = centre.file().to_owned();
    centre.finish()?;
    let by_tcp: Vec<_> = segments(&file)?
        .into_iter()
        .filter(|(from, to, _)| *from.ip() == APPLIANCE_CENTRE && *to == SocketAddrV4::new(SERVER, PEER_SIP))
        .collect();
    assert!(!by_tcp.is_empty() && by_tcp.iter().all(|(.., dscp)| *dscp == 24), "{by_tcp:?}");
    Ok(())
}

#[test]
fn a_server_without_tcp_gets_a_large_request_by_udp_and_the_next_one_at_once() -> Result<()> {
    let stage = Stage::start("auto")?;
    for number in 1..=2 {
        let to = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
        stage.phone.say(&message(number, 3000), to)?;
        let got = stage.server.receive("MESSAGE")?;
        assert!(got.contains("\r\nVia: SIP/2.0/UDP 10.62.0.1:8060;") && got.len() > 3300, "{got}");
        stage.server.answer_without_body(&got, "200 OK")?;
        stage.phone.receive("SIP/2.0 200 OK")?;
    }
    assert_eq!(
        (large(&stage.appliance, &stage.lab, "tcp")?, large(&stage.appliance, &stage.lab, "udp")?),
        (1.0, 1.0),
        "the second one was not tried by TCP"
    );
    Ok(())
}

#[test]
fn a_real_stun_client_is_told_its_address_by_the_sip_port() -> Result<()> {
    let stage = Stage::start("auto")?;
    let (port, own) = ("55001", APPLIANCE_OFFICE.to_string());
    let sip = APPLIANCE_SIP.to_string();
    // It asks once more for another port, which only servers with two addresses have: that part is not served.
    let said =
        stage.lab.office.run("turnutils_stunclient", &["-p", &sip, "-L", &phone(0).to_string(), &own])?;
    let told = format!("UDP reflexive addr: {}:", phone(0));
    assert!(said.contains(&told), "{port} {said}");
    let answered = stage.appliance.metrics(&stage.lab)?.sum("branchline_sip_stun_answered_total", &[]);
    assert!(answered >= 1.0, "{answered}");
    // Nothing that is no request.
    let socket = stage.socket(Place::Office, 55_002)?;
    socket.send_to(
        b"\x01\x01\x00\x00\x21\x12\xa4\x42transaction.",
        SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP),
    )?;
    assert_eq!(rest(&socket)?, []);
    Ok(())
}
