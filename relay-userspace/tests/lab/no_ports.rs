//! When the media ports are used up, the next call is refused with 503 and the reason, and counted; when one
//! hangs up, calls work again.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::{ADMIN, Settings};
use xtask::lab::network::{APPLIANCE_OFFICE, phone};
use xtask::lab::{http, interrupt};

use crate::site::{LIMIT, Site, settings, to_appliance};

/// A call takes two ports on each network: room for two calls.
const PORTS: &str = "media_ports = \"16384-16387\"\n";

/// A third phone calls by hand, so that the whole refusal can be read: the final response, which is acknowledged.
pub(crate) fn final_response(site: &Site) -> Result<String> {
    let local = SocketAddrV4::new(phone(3), 5060);
    let socket = site.lab.office.enter(move || UdpSocket::bind(local))??;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(to_appliance(APPLIANCE_OFFICE))?;
    let address = socket.local_addr()?;
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 26000 RTP/AVP 0\r\n",
        address.ip()
    );
    let message = |method: &str, to_tag: &str, body: &str| {
        format!(
            "{method} sip:9001@{APPLIANCE_OFFICE}:8060 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {address};rport;branch=z9hG4bKthird\r\nMax-Forwards: 70\r\n\
             From: <sip:1003@lab.example>;tag=third\r\nTo: <sip:9001@lab.example>{to_tag}\r\n\
             Call-ID: third@{address}\r\nCSeq: 1 {method}\r\nContact: <sip:1003@{address}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    socket.send(message("INVITE", "", &sdp).as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        let response = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !response.starts_with("SIP/2.0 1") {
            let to = response.lines().find_map(|line| line.strip_prefix("To: ")).context("no To")?;
            let tag = to.split_once(";tag=").map(|(_, tag)| format!(";tag={tag}")).unwrap_or_default();
            socket.send(message("ACK", &tag, "").as_bytes())?;
            return Ok(response);
        }
    }
}

#[test]
fn the_call_for_which_there_is_no_port_is_refused_with_a_reason_and_the_next_works_after_a_hang_up()
-> Result<()> {
    let site = Site::start(Settings { networks: PORTS.to_owned(), ..settings() })?;
    let mut calls = Vec::new();
    for index in [1, 2] {
        calls.push(site.phone_calls(index, Duration::from_secs(6))?);
    }
    site.until_flows(8, |flow| flow.kind == "rtcp" || flow.learned.is_some())?;
    let status = site.status()?;
    assert!(
        status.networks.iter().all(|network| (network.ports_used, network.ports) == (4, 4)),
        "{status:#?}"
    );
    assert!(!status.ready && status.not_ready_reason.is_some_and(|reason| reason.contains("media ports")));
    let refused = http::get(&site.lab.branch, ADMIN, "/readyz").map_err(|error| error.to_string());
    assert!(
        refused.is_err_and(|error| error.contains("503") && error.contains("office")),
        "/readyz says so too"
    );

    let response = final_response(&site)?;
    assert!(response.starts_with("SIP/2.0 503 No Media Ports\r\n"), "{response}");
    let warning = response.lines().find(|line| line.starts_with("Warning: 399 "));
    assert!(warning.is_some_and(|warning| warning.contains("port")), "{response}");
    assert_eq!(site.metric("branchline_sip_dropped_total", &[("reason", "no_ports")])?, 1.0);
    assert_eq!(site.metric("branchline_calls_ended_total", &[("outcome", "no_ports")])?, 1.0);
    assert_eq!(site.metric("branchline_media_refused_total", &[])?, 1.0);

    for call in &mut calls {
        call.succeed(LIMIT)?;
    }
    interrupt::wait_until(LIMIT, "free media ports", || {
        Ok(site.status()?.networks.iter().all(|network| network.ports_used == 0).then_some(()))
    })?;
    site.a_call_works()
}
