//! The laboratory's RTP and RTCP endpoint: one thread in a namespace plays and hears the media of every call there.
//!
//! SIPp does the signalling and says by its log what the SDP agreed on; this endpoint obeys. Its orders are lines
//! of the scenarios' `<log>` actions:
//!
//! ```text
//! MEDIA open  <call> <own address> <call number>                                   a port is about to be offered
//! MEDIA send  <call> <own address> <call number> <address> <port> <direction>      the other side's SDP was read
//! MEDIA close <call> <own address> <call number>                                   the call is about to end
//! ```
//!
//! The own port follows from the call number as SIPp's `[auto_media_port]` does. What is sent has DSCP 0, so
//! that any other value on the far side's wire is the appliance's doing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};

use super::netns::Namespace;
use super::rtp::{self, Header, Receiver, Sender};

/// One RTP packet carries this much sound.
const PACKET_TIME: Duration = Duration::from_millis(20);
/// Between RTCP reports: shorter than RFC 3550's five seconds, so that a short call has several.
const REPORT_TIME: Duration = Duration::from_secs(1);
/// Longest sleep between two looks at the orders.
const ORDER_TIME: Duration = Duration::from_millis(5);
/// SIPp 3.6's `[auto_media_port]`: four ports a call, over this many ports.
const PORTS_PER_CALL: u32 = 4;
const PORT_SPAN: u32 = 10_000;
/// More than any packet that the laboratory sends.
const LARGEST_PACKET: usize = 2048;

/// The RTP port that SIPp offers in a call, by the number of the call; none beyond the last port.
#[must_use]
pub fn port_of_call(media_base: u16, number: u32) -> Option<u16> {
    let offset = number.saturating_sub(1) * PORTS_PER_CALL % PORT_SPAN;
    u16::try_from(u32::from(media_base) + offset).ok()
}

/// Whether the endpoint's packets carry a UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    /// They do, as nearly everybody's.
    Computed,
    /// They do not: the field is zero, as RFC 768 allows over IPv4.
    Absent,
}

/// What becomes of a packet that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Sent,
    /// It has its sequence number, and is lost.
    Lost,
    /// It is sent, and again.
    Twice,
    /// The next one overtakes it.
    Overtaken,
    /// It is sent half a packet's time late.
    Late,
    /// Nobody speaks: there is no packet.
    Silence,
}

/// What an endpoint does wrong, by the number of the packet that is due, or that has come, in its call. The same in
/// every run.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// What becomes of what it sends.
    pub send: fn(u64) -> Fate,
    /// Whether it gets what was sent to it.
    pub hear: fn(u64) -> bool,
}

impl Faults {
    /// None.
    pub const NONE: Self = Self { send: |_| Fate::Sent, hear: |_| true };
}

/// What one side of a call sent and heard.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The call's Call-ID.
    pub call: String,
    /// Own RTP address; RTCP is one port up.
    pub local: SocketAddrV4,
    /// Where the other side's SDP said that it wants its media.
    pub remote: Option<SocketAddrV4>,
    /// The source identifier of what is sent.
    pub ssrc: u32,
    /// RTP packets sent.
    pub sent: u64,
    /// Packets lost on purpose, before one that was sent; those sent twice; those that were overtaken.
    pub lost: u64,
    /// See `lost`.
    pub twice: u64,
    /// See `lost`.
    pub overtaken: u64,
    /// RTCP packets sent.
    pub reports_sent: u64,
    /// What was heard.
    pub heard: Receiver,
    /// RTP packets heard, over all sources.
    pub received: u64,
    /// RTCP packets heard.
    pub reports_received: u64,
    /// Packets that came from elsewhere than the other side's SDP said.
    pub strays: u64,
    /// Longest silence between two packets heard.
    pub longest_gap: Duration,
    /// Whether the call has ended.
    pub closed: bool,
}

/// The running endpoint.
#[derive(Debug)]
pub struct MediaEndpoint {
    orders: mpsc::Sender<(PathBuf, u16)>,
    stop: Arc<AtomicBool>,
    faults: Arc<Mutex<Faults>>,
    legs: Arc<Mutex<Vec<Leg>>>,
    thread: Option<JoinHandle<Option<Result<()>>>>,
}

impl MediaEndpoint {
    /// Starts it in a namespace. `side` makes its sources' identifiers differ from another endpoint's.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn start(namespace: &Namespace, side: u8) -> Result<Self> {
        Self::start_with(namespace, side, UdpChecksum::Computed)
    }

    /// As [`MediaEndpoint::start`], with or without UDP checksums.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn start_with(namespace: &Namespace, side: u8, checksum: UdpChecksum) -> Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let legs = Arc::new(Mutex::new(Vec::new()));
        let faults = Arc::new(Mutex::new(Faults::NONE));
        let worker = Worker {
            side,
            checksum,
            faults: Arc::clone(&faults),
            inbox,
            stop: Arc::clone(&stop),
            published: Arc::clone(&legs),
            logs: Vec::new(),
            calls: Vec::new(),
            by_key: HashMap::new(),
        };
        let thread = namespace.spawn(move || worker.run())?;
        Ok(Self { orders, stop, faults, legs, thread: Some(thread) })
    }

    /// What it does wrong in calls that begin from now on.
    pub fn misbehave(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Obeys the orders in a SIPp's log, whose first media port is `media_base`.
    ///
    /// # Errors
    /// The endpoint has stopped.
    pub fn follow(&self, log: &Path, media_base: u16) -> Result<()> {
        self.orders
            .send((log.to_path_buf(), media_base))
            .map_err(|_| anyhow!("the media endpoint has stopped"))
    }

    /// What it has sent and heard so far.
    #[must_use]
    pub fn legs(&self) -> Vec<Leg> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it, and says what it sent and heard.
    ///
    /// # Errors
    /// It could not do its work: a port was taken, or an order made no sense.
    pub fn stop(mut self) -> Result<Vec<Leg>> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Some(result))) => result?,
            Some(Ok(None)) | None => {}
            Some(Err(_)) => bail!("the media endpoint panicked"),
        }
        Ok(self.legs())
    }
}

impl Drop for MediaEndpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Its result does not matter to one who did not ask for it.
            let _ = thread.join();
        }
    }
}

/// Nanoseconds on a clock that all endpoints of this process share.
fn now_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A log that is read as it grows.
struct FollowedLog {
    path: PathBuf,
    media_base: u16,
    reader: Option<BufReader<File>>,
    partial: String,
}

/// A call's sockets and streams.
struct Call {
    leg: Leg,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    sender: Sender,
    ssrc: u32,
    sending: bool,
    next_packet: Instant,
    next_report: Instant,
    faults: Faults,
    /// Packets that were due, and that have come.
    due: u64,
    came: u64,
    /// Lost, and nothing sent since.
    unseen: u64,
    /// Waits to be sent behind the next one, or at this time.
    waiting: Option<(Vec<u8>, Option<Instant>)>,
    last_heard: Option<Instant>,
}

struct Worker {
    side: u8,
    checksum: UdpChecksum,
    faults: Arc<Mutex<Faults>>,
    inbox: mpsc::Receiver<(PathBuf, u16)>,
    stop: Arc<AtomicBool>,
    published: Arc<Mutex<Vec<Leg>>>,
    logs: Vec<FollowedLog>,
    calls: Vec<Call>,
    by_key: HashMap<(String, SocketAddrV4), usize>,
}

impl Worker {
    fn run(mut self) -> Result<()> {
        let mut next_orders = Instant::now();
        while !self.stop.load(Ordering::SeqCst) {
            if Instant::now() >= next_orders {
                next_orders = Instant::now() + ORDER_TIME;
                self.read_orders()?;
                self.publish();
            }
            self.wait_for_packets();
            for call in &mut self.calls {
                call.receive();
                call.send();
            }
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let legs = self.calls.iter().map(|call| call.leg.clone()).collect();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = legs;
    }

    fn read_orders(&mut self) -> Result<()> {
        for (path, media_base) in self.inbox.try_iter() {
            self.logs.push(FollowedLog { path, media_base, reader: None, partial: String::new() });
        }
        let mut orders = Vec::new();
        for log in &mut self.logs {
            if log.reader.is_none() {
                // SIPp makes the file when it starts; until then there is nothing to obey.
                log.reader = File::open(&log.path).ok().map(BufReader::new);
            }
            let Some(reader) = &mut log.reader else { continue };
            while reader.read_line(&mut log.partial)? > 0 && log.partial.ends_with('\n') {
                if let Some(order) = Order::read(log.partial.trim_end(), log.media_base)? {
                    orders.push(order);
                }
                log.partial.clear();
            }
        }
        orders.into_iter().try_for_each(|order| self.obey(&order))
    }

    fn obey(&mut self, order: &Order) -> Result<()> {
        let key = (order.call.clone(), order.local);
        let index = match self.by_key.get(&key) {
            Some(&index) => index,
            None => {
                let number = u32::try_from(self.calls.len())?;
                self.calls.push(Call::open(
                    order,
                    (u32::from(self.side) << 24) | (0x5A_0000 + number),
                    self.checksum,
                    *self.faults.lock().unwrap_or_else(PoisonError::into_inner),
                )?);
                self.by_key.insert(key, self.calls.len() - 1);
                self.calls.len() - 1
            }
        };
        let Some(call) = self.calls.get_mut(index) else { return Ok(()) };
        match order.what {
            What::Open => {}
            What::Send { remote, sending } => {
                call.leg.remote = Some(remote);
                if sending && !call.sending {
                    call.next_packet = Instant::now();
                }
                call.sending = sending;
            }
            What::Close => {
                call.sending = false;
                call.leg.closed = true;
            }
        }
        Ok(())
    }

    /// Sleeps until a packet comes or the next one is to be sent.
    fn wait_for_packets(&self) {
        let now = Instant::now();
        let wait = self
            .calls
            .iter()
            .filter(|call| call.sending)
            .map(|call| match call.waiting {
                Some((_, Some(at))) => at.min(call.next_packet),
                _ => call.next_packet,
            })
            .map(|at| at.saturating_duration_since(now))
            .fold(ORDER_TIME, Duration::min);
        let mut sockets: Vec<libc::pollfd> = self
            .calls
            .iter()
            .flat_map(|call| [call.rtp.as_raw_fd(), call.rtcp.as_raw_fd()])
            .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
            .collect();
        let count = libc::nfds_t::try_from(sockets.len()).unwrap_or(0);
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        // SAFETY: `sockets` is an array of `count` elements that outlives the call, as is `timeout`; no signal mask.
        unsafe { libc::ppoll(sockets.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) };
    }
}

impl Call {
    fn open(order: &Order, ssrc: u32, checksum: UdpChecksum, faults: Faults) -> Result<Self> {
        let bind = |address: SocketAddrV4| -> Result<UdpSocket> {
            let socket =
                UdpSocket::bind(address).with_context(|| format!("cannot bind media port {address}"))?;
            socket.set_nonblocking(true)?;
            if checksum == UdpChecksum::Absent {
                leave_out_checksum(&socket)?;
            }
            Ok(socket)
        };
        let now = Instant::now();
        Ok(Self {
            leg: Leg {
                call: order.call.clone(),
                local: order.local,
                remote: None,
                ssrc,
                sent: 0,
                lost: 0,
                twice: 0,
                overtaken: 0,
                reports_sent: 0,
                heard: Receiver::default(),
                received: 0,
                reports_received: 0,
                strays: 0,
                longest_gap: Duration::ZERO,
                closed: false,
            },
            rtp: bind(order.local)?,
            rtcp: bind(above(order.local))?,
            // The first numbers lie just below the wrap, so that every call passes it.
            sender: Sender::new(ssrc, u16::MAX - (ssrc as u16 & 0x7F)),
            ssrc,
            sending: false,
            next_packet: now,
            next_report: now + REPORT_TIME / 4,
            faults,
            due: 0,
            came: 0,
            unseen: 0,
            waiting: None,
            last_heard: None,
        })
    }

    fn receive(&mut self) {
        let mut buffer = [0; LARGEST_PACKET];
        while let Ok((length, from)) = self.rtp.recv_from(&mut buffer) {
            let now = Instant::now();
            let packet = &buffer[..length];
            if self.leg.remote.is_some_and(|remote| from != SocketAddr::V4(remote)) {
                self.leg.strays += 1;
                continue;
            }
            if let Some(header) = Header::read(packet) {
                self.came += 1;
                if !(self.faults.hear)(self.came) {
                    continue;
                }
                self.leg.received += 1;
                self.leg.heard.take(header, rtp::sent_ns(packet), now_ns());
                if let Some(last) = self.last_heard.replace(now) {
                    self.leg.longest_gap = self.leg.longest_gap.max(now - last);
                }
            }
        }
        while let Ok((length, from)) = self.rtcp.recv_from(&mut buffer) {
            if self.leg.remote.is_some_and(|remote| from != SocketAddr::V4(above(remote))) {
                self.leg.strays += 1;
            } else if rtp::is_rtcp(&buffer[..length]) {
                self.leg.reports_received += 1;
                self.leg.heard.take_report(&buffer[..length], now_ns());
            }
        }
    }

    fn transmit(&mut self, packet: &[u8], remote: SocketAddrV4) {
        if self.rtp.send_to(packet, remote).is_ok() {
            self.leg.sent += 1;
            self.leg.lost += std::mem::take(&mut self.unseen);
        }
    }

    /// Sends the packet that is due, or does not.
    fn send_due(&mut self, fate: Fate, remote: SocketAddrV4) {
        if fate == Fate::Silence {
            return self.sender.keep_silent();
        }
        let packet = self.sender.next(now_ns());
        match fate {
            Fate::Lost => self.unseen += 1,
            Fate::Late => self.waiting = Some((packet.to_vec(), Some(Instant::now() + PACKET_TIME / 2))),
            Fate::Overtaken => self.waiting = Some((packet.to_vec(), None)),
            Fate::Sent | Fate::Twice | Fate::Silence => {
                self.transmit(&packet, remote);
                if fate == Fate::Twice {
                    self.leg.twice += 1;
                    self.transmit(&packet, remote);
                }
                if let Some((overtaken, _)) = self.waiting.take() {
                    self.leg.overtaken += 1;
                    self.transmit(&overtaken, remote);
                }
            }
        }
    }

    fn send(&mut self) {
        let Some(remote) = self.leg.remote.filter(|_| !self.leg.closed) else { return };
        let now = Instant::now();
        if self.sending && now >= self.next_packet {
            // An endpoint that was kept from running sends what is due, as a phone's sound card does.
            self.next_packet += PACKET_TIME;
            self.due += 1;
            self.send_due((self.faults.send)(self.due), remote);
        }
        if let Some((packet, Some(at))) = &self.waiting
            && now >= *at
        {
            let packet = packet.clone();
            self.waiting = None;
            self.transmit(&packet, remote);
        }
        if now >= self.next_report {
            self.next_report = now + REPORT_TIME;
            let sender = (self.sender.packets() > 0).then_some(&self.sender);
            let packet = rtp::rtcp(self.ssrc, sender, &self.leg.heard, now_ns(), unix_ns());
            if self.rtcp.send_to(&packet, above(remote)).is_ok() {
                self.leg.reports_sent += 1;
            }
        }
    }
}

/// From now on the socket sends without UDP checksums (`SO_NO_CHECK`, socket(7)).
fn leave_out_checksum(socket: &UdpSocket) -> Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on))?;
    // SAFETY: the option's value is an int of the length that is given, and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            length,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("SO_NO_CHECK");
    }
    Ok(())
}

/// The RTCP address that belongs to an RTP address.
fn above(address: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*address.ip(), address.port().wrapping_add(1))
}

#[derive(Debug, PartialEq, Eq)]
struct Order {
    call: String,
    local: SocketAddrV4,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Open,
    Send { remote: SocketAddrV4, sending: bool },
    Close,
}

impl Order {
    /// Reads a line; `None` when it is no order.
    fn read(line: &str, media_base: u16) -> Result<Option<Self>> {
        let Some(rest) = line.strip_prefix("MEDIA ") else { return Ok(None) };
        Self::parse(rest, media_base)
            .map(Some)
            .with_context(|| format!("a scenario's order makes no sense: {line}"))
    }

    fn parse(order: &str, media_base: u16) -> Result<Self> {
        let words: Vec<&str> = order.split_whitespace().collect();
        let [verb, call, address, number, rest @ ..] = words.as_slice() else { bail!("too short") };
        let number: u32 = number.parse().context("call number")?;
        let port = port_of_call(media_base, number).context("media port")?;
        let local = SocketAddrV4::new(address.parse::<Ipv4Addr>().context("own address")?, port);
        let what = match (*verb, rest) {
            ("open", []) => What::Open,
            ("close", []) => What::Close,
            ("send", [address, port, direction]) => What::Send {
                remote: SocketAddrV4::new(address.parse().context("address")?, port.parse().context("port")?),
                sending: match *direction {
                    "sendrecv" | "sendonly" => true,
                    "recvonly" | "inactive" => false,
                    other => bail!("direction {other}"),
                },
            },
            _ => bail!("unknown order"),
        };
        Ok(Self { call: (*call).to_owned(), local, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_other_lines_are_not() {
        let local = "10.61.0.11:30008".parse().unwrap();
        let order = |what| Some(Order { call: "3-17@x".to_owned(), local, what });
        for (line, expected) in [
            ("MEDIA open 3-17@x 10.61.0.11 3", order(What::Open)),
            (
                "MEDIA send 3-17@x 10.61.0.11 3 10.61.0.1 16384 recvonly",
                order(What::Send { remote: "10.61.0.1:16384".parse().unwrap(), sending: false }),
            ),
            ("MEDIA close 3-17@x 10.61.0.11 3", order(What::Close)),
            ("BINDING 1001 sip:1001@10.61.0.11", None),
        ] {
            assert_eq!(Order::read(line, 30_000).unwrap(), expected, "{line}");
        }
        assert!(Order::read("MEDIA send 3-17@x 10.61.0.11 3", 30_000).is_err());
    }
}
