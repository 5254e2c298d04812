//! A phone and a server that speak SIP word by word as a test tells them, for what no real peer can be made to say:
//! several streams at once, several answers to one offer.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use branchline::control::FlowView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Lab, Routes};

use crate::site::{LIMIT, ask, engine, turn};

/// The longest message that is read.
const MESSAGE: usize = 65_535;
/// How long nothing has to come to be called nothing.
const SILENCE: Duration = Duration::from_millis(300);

/// The appliance between a phone and a server, both by hand. Dropping it takes it down.
pub(crate) struct Stage {
    pub(crate) appliance: Appliance,
    pub(crate) phone: Peer,
    pub(crate) server: Peer,
    pub(crate) lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) fn start(datapath: &str) -> Result<Self> {
        Self::start_with(&engine(datapath))
    }

    pub(crate) fn start_with(settings: &Settings) -> Result<Self> {
        let turn = turn();
        let lab = Lab::create(Routes::None)?;
        let server = Peer::bind(socket(&lab, Place::Centre, PEER_SIP)?);
        let appliance = Appliance::start_with(&lab, settings)?;
        let phone = Peer::bind(socket(&lab, Place::Office, PEER_SIP)?);
        Ok(Self { appliance, phone, server, lab, _turn: turn })
    }

    /// A socket of the phone or the server.
    pub(crate) fn socket(&self, place: Place, port: u16) -> Result<UdpSocket> {
        socket(&self.lab, place, port)
    }

    pub(crate) fn flows(&self) -> Result<Vec<FlowView>> {
        ask(&self.appliance, &self.lab, "flows")
    }

    /// The phone's INVITE within a dialog or without, and what the server reads.
    pub(crate) fn invite(&self, number: u32, dialog: Option<&Dialog>, sdp: &str) -> Result<String> {
        self.phone.request("INVITE", number, dialog, sdp)?;
        self.server.receive("INVITE")
    }

    /// The server's answer, and what the phone reads.
    pub(crate) fn answer(&self, invite: &str, status: &str, tag: &str, sdp: &str) -> Result<String> {
        self.server.respond(invite, status, tag, sdp)?;
        self.phone.receive(&format!("SIP/2.0 {status}"))
    }

    /// The phone's ACK, after which the dialog stands.
    pub(crate) fn ack(&self, number: u32, answer: &str) -> Result<Dialog> {
        let dialog = Dialog::of(answer)?;
        self.phone.request("ACK", number, Some(&dialog), "")?;
        self.server.receive("ACK")?;
        Ok(dialog)
    }
}

/// Which side of the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Office,
    Centre,
}

impl Place {
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Self::Office => phone(0),
            Self::Centre => SERVER,
        }
    }
}

pub(crate) fn socket(lab: &Lab, place: Place, port: u16) -> Result<UdpSocket> {
    let local = SocketAddrV4::new(place.address(), port);
    let namespace = match place {
        Place::Office => &lab.office,
        Place::Centre => &lab.centre,
    };
    let socket = namespace.enter(move || UdpSocket::bind(local))?.with_context(|| format!("{local}"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// What comes next to a socket, and from where.
pub(crate) fn heard(socket: &UdpSocket) -> Result<(SocketAddr, Vec<u8>)> {
    let mut buffer = vec![0; MESSAGE];
    let (length, from) =
        socket.recv_from(&mut buffer).with_context(|| format!("{socket:?} hears nothing"))?;
    buffer.truncate(length);
    Ok((from, buffer))
}

/// Everything that still comes to a socket, until nothing does.
pub(crate) fn rest(socket: &UdpSocket) -> Result<Vec<(SocketAddr, Vec<u8>)>> {
    socket.set_read_timeout(Some(SILENCE))?;
    let all = std::iter::from_fn(|| heard(socket).ok()).collect();
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(all)
}

/// A party that says what it is told.
pub(crate) struct Peer {
    socket: UdpSocket,
}

/// What a party needs for requests within a dialog.
pub(crate) struct Dialog {
    to: String,
    target: String,
    routes: String,
}

impl Dialog {
    fn of(answer: &str) -> Result<Self> {
        let contact = lines(answer, "Contact").next().context("no Contact")?;
        let target = contact.split(['<', '>']).nth(1).context("no URI in the Contact")?;
        let routes =
            lines(answer, "Record-Route").map(|line| line.replacen("Record-Route", "Route", 1) + "\r\n");
        Ok(Self {
            to: lines(answer, "To").next().context("no To")?,
            target: target.to_owned(),
            routes: routes.collect(),
        })
    }
}

/// The header lines of that name.
fn lines<'a>(message: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let named = move |line: &&str| line.split(':').next().is_some_and(|found| found == name);
    head.split("\r\n").filter(named).map(str::to_owned)
}

/// The body of a message.
pub(crate) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The port of each media description.
pub(crate) fn ports(sdp: &str) -> Vec<u16> {
    let port = |line: &str| line.strip_prefix("m=")?.split(' ').nth(1)?.parse().ok();
    sdp.lines().filter_map(port).collect()
}

/// A description with these media lines.
pub(crate) fn sdp(place: Place, media: &str) -> String {
    let address = place.address();
    format!("v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{media}")
}

impl Peer {
    fn bind(socket: UdpSocket) -> Self {
        Self { socket }
    }

    /// Says something as it is.
    pub(crate) fn say(&self, text: &str, to: SocketAddrV4) -> Result<()> {
        self.socket.send_to(text.as_bytes(), to)?;
        Ok(())
    }

    /// Answers a request outside any call.
    pub(crate) fn answer_without_body(&self, request: &str, status: &str) -> Result<()> {
        self.respond(request, status, "server", "")
    }

    fn request(&self, method: &str, number: u32, dialog: Option<&Dialog>, sdp: &str) -> Result<()> {
        let own = self.socket.local_addr()?;
        let (target, to, routes) = match dialog {
            Some(dialog) => (dialog.target.as_str(), dialog.to.as_str(), dialog.routes.as_str()),
            None => ("sip:9001@lab.example", "To: <sip:9001@lab.example>", ""),
        };
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bK{method}{number}\r\n\
             Max-Forwards: 70\r\n{routes}From: <sip:1001@lab.example>;tag=phone\r\n{to}\r\nCall-ID: by-hand\r\n\
             CSeq: {number} {method}\r\nContact: <sip:1001@{own}>\r\n{}",
            content(sdp)
        );
        let appliance = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
        self.socket.send_to(text.as_bytes(), appliance)?;
        Ok(())
    }

    /// Answers a request; `tag` is its own if the request has none.
    pub(crate) fn respond(&self, request: &str, status: &str, tag: &str, sdp: &str) -> Result<()> {
        let own = self.socket.local_addr()?;
        let to = lines(request, "To").next().context("no To")?;
        let to = if to.contains(";tag=") { to } else { format!("{to};tag={tag}") };
        let copied = ["Via", "Record-Route", "From", "Call-ID", "CSeq"]
            .iter()
            .flat_map(|name| lines(request, name))
            .fold(String::new(), |all, line| all + &line + "\r\n");
        let text =
            format!("SIP/2.0 {status}\r\n{copied}{to}\r\nContact: <sip:9001@{own}>\r\n{}", content(sdp));
        self.socket.send_to(text.as_bytes(), self.appliance(request)?)?;
        Ok(())
    }

    /// Where a request came from, by its topmost Via.
    fn appliance(&self, request: &str) -> Result<SocketAddr> {
        let via = lines(request, "Via").next().context("no Via")?;
        let place = via.split([' ', ';']).find_map(|word| word.parse().ok());
        place.with_context(|| format!("no address in {via}"))
    }

    /// The next message that begins so; what else comes is passed over, and probes are answered.
    pub(crate) fn receive(&self, start: &str) -> Result<String> {
        for _ in 0..100 {
            let (_, bytes) = heard(&self.socket).with_context(|| format!("waiting for {start}"))?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.starts_with(start) {
                return Ok(text);
            }
            if text.starts_with("OPTIONS") {
                self.respond(&text, "200 OK", "probe", "")?;
            }
        }
        bail!("no {start} among many messages")
    }
}

fn content(sdp: &str) -> String {
    let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{kind}Content-Length: {}\r\n\r\n{sdp}", sdp.len())
}
