//! Few sockets for all media ports: packets come in steered by the kernel's `sk_lookup` program, and leave
//! by a raw socket with the headers that this writes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arrayvec::ArrayVec;
use relay_ebpf::headers::{
    IPV4_LENGTH, IPV4_WITHOUT_OPTIONS, Ipv4, Ipv4Udp, Ipv6, Ipv6Address, Ipv6Udp, PROTOCOL_UDP, UDP_LENGTH,
    Udp,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tracing::{debug, warn};
use zerocopy::IntoBytes as _;

use super::{
    BATCH, Failed, Leaving, Memory, ReceiveBatch, Shared,
    batch::{self, Message, Wait},
};
use crate::{
    datapath::paths::Departure,
    net::{Priority, set_receive_queue},
};

/// Bytes of the receive queue of each socket, of which the kernel takes twice as many.
///
/// Who receives for the kernel and who relays may share a core and take turns of a tick: what comes in the one's turn has to
/// last the other for his. Under native XDP a packet of any size counts as a page and more, so these are some 3,500
/// packets, as many as are relayed in 10 ms.
const RECEIVE_QUEUE: usize = 8 << 20;
/// A batch of so many packets is worth a look ahead.
const LOOKED_AHEAD: usize = 4;
/// How long a thread rests after an error.
const PAUSE: Duration = Duration::from_millis(5);
/// The time to live of what userspace sends (RFC 1340's recommended default).
const TTL: u8 = 64;

/// The sockets that packets of a family are steered to, one for each core.
pub(crate) fn bind_steered(family: Domain, count: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    // On the loopback address nobody outside can reach the socket by its own port. Some hosts have none of IPv6;
    // what came to that port would be told from a flow's packets by its destination.
    let (loopback, otherwise): (IpAddr, IpAddr) = if family == Domain::IPV6 {
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
    } else {
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into())
    };
    (0..count)
        .map(|_| {
            let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
            set_receive_queue(&socket, RECEIVE_QUEUE);
            if family == Domain::IPV6 {
                socket.set_only_v6(true)?;
            }
            let at = |address| SockAddr::from(SocketAddr::new(address, 0));
            socket.bind(&at(loopback)).or_else(|_| socket.bind(&at(otherwise)))?;
            ReceiveBatch::prepare(&socket, family)?;
            Ok(socket.into())
        })
        .collect()
}

/// The threads that serve the steered sockets; they end when this is dropped.
///
/// Threads of their own and not tasks: a batch then costs one call to wait and receive and one to send, where a task's
/// reactor takes two more, and under a flood the kernel's scheduler gives SIP its share.
#[derive(Debug)]
pub(crate) struct SteeredSockets {
    sockets: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
}

impl SteeredSockets {
    /// Starts to relay.
    ///
    /// # Errors
    /// If there is no raw socket, for which CAP_NET_RAW is needed, or no thread.
    pub(crate) fn start(
        sockets: Vec<std::net::UdpSocket>,
        shared: &Shared,
        priority: Priority,
    ) -> io::Result<Self> {
        // One for each: threads that share a socket wait for each other in the kernel.
        Self::start_with(sockets, shared, || RawSender::new(priority))
    }

    fn start_with(
        sockets: Vec<std::net::UdpSocket>,
        shared: &Shared,
        sender: impl Fn() -> io::Result<RawSender>,
    ) -> io::Result<Self> {
        let mut this = Self { sockets: Vec::new(), threads: Vec::new(), ends: Arc::default() };
        for (index, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(false)?;
            let socket = Socket::from(socket);
            this.sockets.push(socket.try_clone()?);
            let (raw, shared, ends) = (sender()?, shared.clone(), Arc::clone(&this.ends));
            let thread = thread::Builder::new()
                .name(format!("media-{index}"))
                .spawn(move || serve(&socket, &raw, &shared, &ends))?;
            this.threads.push(thread);
        }
        Ok(this)
    }
}

impl Drop for SteeredSockets {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        for socket in &self.sockets {
            // It wakes who waits for the socket, and says that this is not connected, which is known.
            let _ = socket.shutdown(Shutdown::Read);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a thread of the relay had panicked");
            }
        }
    }
}

fn serve(socket: &Socket, raw: &RawSender, shared: &Shared, ends: &AtomicBool) {
    let Memory { mut batch, mut scratch } = Memory::new();
    while !ends.load(Ordering::Acquire) {
        match batch.receive(socket.as_fd(), None, Wait::ForOne) {
            Ok(received) => {
                // Of many calls; where each port has its socket, a batch is one call's.
                if received.len() >= LOOKED_AHEAD {
                    shared.paths.expect(received.iter().map(|packet| packet.local));
                }
                shared.relay(&received, &mut scratch, |leaving, failed| raw.send(leaving, failed));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                debug!(%error, "receiving media");
                // An error that lasts must not take the core from the calls.
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Sends UDP packets from any of this host's addresses and ports.
#[derive(Debug)]
struct RawSender {
    ipv4: Socket,
    /// None on a host without IPv6.
    ipv6: Option<Socket>,
}

impl RawSender {
    fn new(priority: Priority) -> io::Result<Self> {
        let sender = Self { ipv4: raw(Domain::IPV4)?, ipv6: raw(Domain::IPV6).ok() };
        for socket in std::iter::once(&sender.ipv4).chain(&sender.ipv6) {
            priority.mark(&socket2::SockRef::from(socket))?;
        }
        Ok(sender)
    }

    /// Sends a batch, with one system call for each family.
    fn send(&self, leaving: &[Leaving<'_>], failed: &mut Failed) {
        let families = [(Some(&self.ipv4), Domain::IPV4), (self.ipv6.as_ref(), Domain::IPV6)];
        let headers: ArrayVec<Option<Written>, BATCH> =
            leaving.iter().map(|packet| Written::new(&packet.departure, packet.payload)).collect();
        let mut tried = 0;
        for (socket, family) in families {
            let (mut indices, mut messages) =
                (ArrayVec::<usize, BATCH>::new(), ArrayVec::<Message<'_>, BATCH>::new());
            for (index, (packet, headers)) in leaving.iter().zip(&headers).enumerate() {
                if let Some(headers) = headers
                    && headers.family() == family
                {
                    indices.push(index);
                    // A raw socket of IPv6 takes the port for a protocol, if there is one (ipv6(7)).
                    let to = SockAddr::from(SocketAddr::new(packet.departure.destination.ip(), 0));
                    messages.push(Message { to, headers: headers.as_bytes(), payload: packet.payload });
                }
            }
            tried += messages.len();
            match socket {
                _ if messages.is_empty() => {}
                None => indices.iter().for_each(|index| failed.add(*index)),
                Some(socket) => batch::send(socket.as_fd(), &messages, |message, error| {
                    let index = indices[message];
                    let Leaving { departure, payload, .. } = &leaving[index];
                    let too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
                    let result = if too_long { fragmented(departure, payload) } else { Err(error) };
                    if let Err(error) = result {
                        let (source, destination) = (departure.source, departure.destination);
                        debug!(%error, %source, %destination, "sending media");
                        failed.add(index);
                    }
                }),
            }
        }
        if tried < leaving.len() {
            let unlike = headers.iter().enumerate().filter(|(_, headers)| headers.is_none());
            unlike.for_each(|(index, _)| failed.add(index));
        }
    }
}

/// A socket with protocol 255, IPPROTO_RAW: nothing is received, and the sender writes the IP header (raw(7)).
fn raw(family: Domain) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Headers of either family.
enum Written {
    Ipv4(Ipv4Udp),
    Ipv6(Ipv6Udp),
}

impl Written {
    /// None if one address is of another family than the other.
    fn new(departure: &Departure, payload: &[u8]) -> Option<Self> {
        let class = departure.type_of_service;
        match (departure.source, departure.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                Some(Self::Ipv4(headers(source, destination, class, payload)))
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                Some(Self::Ipv6(headers_ipv6(&source, &destination, class, payload)))
            }
            _ => None,
        }
    }

    fn family(&self) -> Domain {
        match self {
            Self::Ipv4(_) => Domain::IPV4,
            Self::Ipv6(_) => Domain::IPV6,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ipv4(headers) => headers.as_bytes(),
            Self::Ipv6(headers) => headers.as_bytes(),
        }
    }
}

/// Sends a packet that is longer than the MTU: a raw socket refuses it, an ordinary one has the kernel
/// fragment it. It is bound for the moment of sending only; no packet can come to it, for steering comes
/// before the table of sockets.
fn fragmented(departure: &Departure, payload: &[u8]) -> io::Result<()> {
    let Departure { source, destination, type_of_service, .. } = *departure;
    let socket = Socket::new(Domain::for_address(source), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    match source {
        SocketAddr::V4(_) => socket.set_tos_v4(u32::from(type_of_service))?,
        SocketAddr::V6(_) => socket.set_tclass_v6(u32::from(type_of_service))?,
    }
    socket.bind(&source.into())?;
    socket.send_to(payload, &destination.into()).map(drop)
}

/// The headers of a packet that userspace sends. The kernel fills in identification and header checksum.
fn headers(source: SocketAddrV4, destination: SocketAddrV4, tos: u8, payload: &[u8]) -> Ipv4Udp {
    let mut udp = udp(source.port(), destination.port(), payload);
    let ip = Ipv4 {
        version_and_length: IPV4_WITHOUT_OPTIONS,
        type_of_service: tos,
        total_length: (IPV4_LENGTH as u16 + u16::from_be_bytes(udp.length)).to_be_bytes(),
        identification: [0; 2],
        fragment: [0; 2],
        ttl: TTL,
        protocol: PROTOCOL_UDP,
        checksum: [0; 2],
        source: source.ip().octets(),
        destination: destination.ip().octets(),
    };
    udp.checksum = udp_checksum(&[&ip.source, &ip.destination], &udp, payload);
    Ipv4Udp { ip, udp }
}

/// The same for IPv6.
fn headers_ipv6(source: &SocketAddrV6, destination: &SocketAddrV6, class: u8, payload: &[u8]) -> Ipv6Udp {
    let mut udp = udp(source.port(), destination.port(), payload);
    let ip = Ipv6 {
        version_class_label: [0; 4],
        payload_length: udp.length,
        next_header: PROTOCOL_UDP,
        hop_limit: TTL,
        source: Ipv6Address::new(source.ip().octets()),
        destination: Ipv6Address::new(destination.ip().octets()),
    };
    udp.checksum = udp_checksum(&[ip.source.as_bytes(), ip.destination.as_bytes()], &udp, payload);
    Ipv6Udp { ip: Ipv6 { version_class_label: ip.with_class(class), ..ip }, udp }
}

/// The UDP header, but for its checksum.
fn udp(source: u16, destination: u16, payload: &[u8]) -> Udp {
    Udp {
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
        length: ((UDP_LENGTH + payload.len()) as u16).to_be_bytes(),
        checksum: [0; 2],
    }
}

/// The UDP checksum over pseudo header, header and payload (RFC 768, RFC 8200 section 8.1).
fn udp_checksum(addresses: &[&[u8]; 2], udp: &Udp, payload: &[u8]) -> [u8; 2] {
    let mut sum = u64::from(PROTOCOL_UDP) + u64::from(u16::from_be_bytes(udp.length));
    for bytes in [addresses[0], addresses[1], udp.as_bytes(), payload] {
        let (words, rest) = bytes.as_chunks::<2>();
        sum += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        if let [last] = rest {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
    }
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => [0xFF; 2],
        checksum => checksum.to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datapath::{flows::Flows, shared::SharedArray};

    #[test]
    fn a_flood_is_taken_batch_by_batch_and_the_thread_ends_when_it_is_to() {
        const FLOOD: usize = 4 * BATCH;
        let sockets = bind_steered(Domain::IPV4, 2).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in &sockets {
            for _ in 0..FLOOD {
                sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            }
        }
        let flows = Flows::new(SharedArray::on_heap(4), None, Vec::new());
        let (rtcp, _copies) = tokio::sync::mpsc::channel(1);
        let shared = Shared::new(flows, rtcp);
        // No raw socket is needed, as nothing of this goes anywhere.
        let udp = || Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
        let sender = || Ok(RawSender { ipv4: udp()?, ipv6: None });
        let started = SteeredSockets::start_with(sockets, &shared, sender).unwrap();
        while taken(&shared) < 2 * FLOOD {
            thread::yield_now();
        }
        // Both wait now, or will; neither is waited for in vain.
        drop(started);
        assert_eq!(taken(&shared), 2 * FLOOD);
    }

    fn taken(shared: &Shared) -> usize {
        let counter = &shared.counters.reasons[relay_ebpf::Reason::NoFlow as usize];
        counter.load(Ordering::Relaxed) as usize
    }

    proptest! {
        #[test]
        fn the_headers_are_those_that_etherparse_computes(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            addresses in any::<([u8; 4], u16, [u8; 4], u16)>(),
            tos in any::<u8>(),
        ) {
            let source = SocketAddrV4::new(addresses.0.into(), addresses.1);
            let destination = SocketAddrV4::new(addresses.2.into(), addresses.3);
            let ours = headers(source, destination, tos, &payload);
            let packet = [ours.as_bytes(), &payload].concat();
            let parsed = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                (parsed.net, parsed.transport) else { panic!("not UDP over IPv4") };
            let expected = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), &payload).unwrap();
            prop_assert_eq!(udp.checksum(), if expected == 0 { 0xFFFF } else { expected });
            prop_assert_eq!(ip.header().ttl(), TTL);
            prop_assert_eq!(ours.ip.type_of_service, tos);
        }

        #[test]
        fn the_headers_of_ipv6_are_those_that_etherparse_computes(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            addresses in any::<([u8; 16], u16, [u8; 16], u16)>(),
            class in any::<u8>(),
        ) {
            let source = SocketAddrV6::new(addresses.0.into(), addresses.1, 0, 0);
            let destination = SocketAddrV6::new(addresses.2.into(), addresses.3, 0, 0);
            let ours = headers_ipv6(&source, &destination, class, &payload);
            let packet = [ours.as_bytes(), &payload].concat();
            let parsed = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                (parsed.net, parsed.transport) else { panic!("not UDP over IPv6") };
            let expected = udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), &payload).unwrap();
            prop_assert_eq!(udp.checksum(), if expected == 0 { 0xFFFF } else { expected });
            prop_assert_eq!((ip.header().hop_limit(), ip.header().traffic_class()), (TTL, class));
        }
    }
}
