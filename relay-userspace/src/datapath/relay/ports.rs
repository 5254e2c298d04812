//! A socket for each media port, where the kernel cannot steer.
//!
//! Invariant: there are never more of them than [`Descriptors`] are for media, whatever calls want.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arrayvec::ArrayVec;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::{JoinHandle, yield_now},
};
use tracing::debug;

use super::{
    BATCH, Failed, Leaving, Memory, ReceiveBatch, Shared,
    batch::{self, Message, Wait},
};
use crate::net::{Priority, descriptors::Descriptors};

thread_local! {
    // Two megabytes: one for each worker thread, not one for each port.
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new());
}

struct Port {
    socket: Arc<UdpSocket>,
    /// What the socket sends with, as it was last told.
    type_of_service: Mutex<u8>,
    /// For the tags of 802.1Q devices.
    priority: Priority,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sockets for media ports, where each port takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketUse {
    /// Sockets that are open.
    pub used: usize,
    /// What they share with all else that the process has open.
    pub descriptors: Descriptors,
}

impl SocketUse {
    /// Whether there is room for so many more.
    #[must_use]
    pub fn has_room(self, more: usize) -> bool {
        self.used + more <= self.descriptors.for_media()
    }
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Descriptors { limit, kept } = self.descriptors;
        let most = self.descriptors.for_media();
        write!(
            f,
            "{} of {most} sockets for media are open (of {limit} descriptors {kept} are kept)",
            self.used
        )
    }
}

/// Why a port was not opened.
#[derive(Debug, Error)]
pub enum PortError {
    /// There are as many sockets as may be, or the system has no descriptors left.
    #[error(
        "no descriptor for a media socket: {0}; raise LimitNOFILE of the service, or let the kernel carry media (branchline doctor tells why it does not)"
    )]
    Descriptors(SocketUse),
    /// It could not be bound, for example.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// The sockets, by their local address.
pub(crate) struct PortSockets {
    ports: Arc<RwLock<HashMap<SocketAddr, Port>>>,
    priority: Priority,
}

impl PortSockets {
    /// None yet. What leaves them gets this priority.
    pub(crate) fn new(priority: Priority) -> Self {
        Self { ports: Arc::default(), priority }
    }

    /// How many there are.
    pub(crate) fn in_use(&self) -> SocketUse {
        let used = self.ports.read().unwrap_or_else(PoisonError::into_inner).len();
        SocketUse { used, descriptors: Descriptors::now() }
    }

    /// Whether a port is bound.
    pub(crate) fn has(&self, local: SocketAddr) -> bool {
        self.ports.read().unwrap_or_else(PoisonError::into_inner).contains_key(&local)
    }

    /// Binds a port, unless it is bound, and relays what comes to it.
    ///
    /// # Errors
    /// If the port is taken or there are no descriptors left.
    pub(crate) fn open(&self, local: SocketAddr, shared: &Shared) -> Result<(), PortError> {
        if self.has(local) {
            return Ok(());
        }
        let sockets = self.in_use();
        if !sockets.has_room(1) {
            return Err(PortError::Descriptors(sockets));
        }
        self.bind(local, shared).map_err(|error| match error.raw_os_error() {
            // Something else has taken what is kept.
            Some(libc::EMFILE | libc::ENFILE) => PortError::Descriptors(sockets),
            _ => error.into(),
        })
    }

    fn bind(&self, local: SocketAddr, shared: &Shared) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        ReceiveBatch::prepare(&socket, Domain::for_address(local))?;
        self.priority.mark(&socket2::SockRef::from(&socket))?;
        socket.bind(&local.into())?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let task = tokio::spawn(serve(Arc::clone(&socket), local, Arc::clone(&self.ports), shared.clone()));
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(local, Port { socket, type_of_service: Mutex::default(), priority: self.priority, task });
        Ok(())
    }

    /// Closes a port.
    pub(crate) fn close(&self, local: SocketAddr) {
        self.ports.write().unwrap_or_else(PoisonError::into_inner).remove(&local);
    }
}

async fn serve(
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    ports: Arc<RwLock<HashMap<SocketAddr, Port>>>,
    shared: Shared,
) {
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let result = socket.try_io(Interest::READABLE, || {
            MEMORY.with_borrow_mut(|Memory { batch, scratch }| {
                let received = batch.receive(socket.as_fd(), Some(local), Wait::No)?;
                shared.relay(&received, scratch, |leaving, failed| send(&ports, leaving, failed));
                Ok(received.len())
            })
        });
        match result {
            // There may be more, and a socket that is ready never makes its task wait: under a flood
            // nothing else would run on this thread.
            Ok(BATCH) => yield_now().await,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => debug!(%error, %local, "receiving media"),
        }
    }
}

/// Sends from the sockets of the ports that the packets are to leave from. The packets of a batch came to one port, so that
/// mostly all of them leave from one, too.
fn send(ports: &RwLock<HashMap<SocketAddr, Port>>, leaving: &[Leaving<'_>], failed: &mut Failed) {
    let ports = ports.read().unwrap_or_else(PoisonError::into_inner);
    let way = |packet: &Leaving<'_>| (packet.departure.source, packet.departure.type_of_service);
    let mut first = 0;
    for run in leaving.chunk_by(|one, next| way(one) == way(next)) {
        let (source, type_of_service) = way(&run[0]);
        match ports.get(&source) {
            Some(port) => port.send(source, type_of_service, run, |index| failed.add(first + index)),
            None => (first..first + run.len()).for_each(|index| failed.add(index)),
        }
        first += run.len();
    }
}

impl Port {
    fn send(&self, source: SocketAddr, wanted: u8, run: &[Leaving<'_>], mut failed: impl FnMut(usize)) {
        let socket = socket2::SockRef::from(self.socket.as_ref());
        // The socket keeps what it was last told: a stream's packets mostly have one value, so most of them
        // need no system call for it. Nobody else tells it another before these packets are sent.
        let mut told = self.type_of_service.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = || match source {
            // With IP_TOS the kernel sets the priority too, from a table of its own (ip(7), IP_TOS): once more, then.
            SocketAddr::V4(_) => {
                socket.set_tos_v4(u32::from(wanted)).and_then(|()| self.priority.mark(&socket))
            }
            SocketAddr::V6(_) => socket.set_tclass_v6(u32::from(wanted)),
        };
        if *told != wanted && tell().is_ok() {
            *told = wanted;
        }
        let messages: ArrayVec<Message<'_>, BATCH> = run
            .iter()
            .map(|packet| Message {
                to: packet.departure.destination.into(),
                headers: &[],
                payload: packet.payload,
            })
            .collect();
        batch::send(self.socket.as_fd(), &messages, |index, error| {
            debug!(%error, %source, destination = %run[index].departure.destination, "sending media");
            failed(index);
        });
    }
}

#[cfg(test)]
mod tests {
    use relay_ebpf::rtp::Payload;

    use super::{super::Received, *};
    use crate::datapath::{flows::Flows, paths::Departure, shared::SharedArray};

    #[tokio::test]
    async fn each_packet_leaves_with_its_own_type_of_service() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        ReceiveBatch::prepare(&receiver, Domain::IPV4).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.set_nonblocking(true).unwrap();
        let source = sender.local_addr().unwrap();
        let ports = RwLock::new(HashMap::new());
        let port = Port {
            socket: Arc::new(UdpSocket::from_std(sender).unwrap()),
            type_of_service: Mutex::default(),
            priority: Priority::try_from(5).unwrap(),
            task: tokio::spawn(async {}),
        };
        ports.write().unwrap().insert(source, port);
        let sent = [0xB8, 0xB9, 0x60, 0x60, 0];
        let received = Received { local: source, source, type_of_service: 0, stamp_ns: None, payload: b"" };
        for type_of_service in sent {
            let (destination, mut failed) = (receiver.local_addr().unwrap(), Failed::default());
            let departure = |source| Departure {
                source,
                destination,
                type_of_service,
                content: Payload::Rtp,
                stats: 0,
                bytes: 29,
            };
            let leaving = [departure(destination), departure(source)]
                .map(|departure| Leaving::of(departure, &received, b"x"));
            send(&ports, &leaving, &mut failed);
            assert_eq!(
                failed,
                Failed::of(&[0]),
                "from a port that is not ours nothing goes, and the rest does"
            );
            let ports = ports.read().unwrap();
            let socket = socket2::SockRef::from(ports[&source].socket.as_ref());
            assert_eq!(
                socket.priority().unwrap(),
                5,
                "{type_of_service}: and not that of the kernel's table"
            );
        }
        let mut batch = ReceiveBatch::new();
        let received = batch.receive(receiver.as_fd(), None, Wait::No).unwrap();
        assert_eq!(received.iter().map(|packet| packet.type_of_service).collect::<Vec<_>>(), sent);
    }

    #[tokio::test]
    async fn a_flood_lets_others_have_their_turn() {
        const FLOOD: usize = 4 * BATCH;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..FLOOD {
            sender.send_to(b"x", local).unwrap();
        }
        let flows = Flows::new(SharedArray::on_heap(4), None, Vec::new());
        let (rtcp, _copies) = tokio::sync::mpsc::channel(1);
        let shared = Shared::new(flows, rtcp);
        let socket = Arc::new(UdpSocket::from_std(socket).unwrap());
        let task = tokio::spawn(serve(socket, local, Arc::default(), shared.clone()));
        let taken = || {
            let counter = &shared.counters.reasons[relay_ebpf::Reason::NoFlow as usize];
            counter.load(std::sync::atomic::Ordering::Relaxed) as usize
        };
        while taken() == 0 {
            yield_now().await;
        }
        assert_eq!(taken(), BATCH);
        while taken() < FLOOD {
            yield_now().await;
        }
        task.abort();
    }
}
