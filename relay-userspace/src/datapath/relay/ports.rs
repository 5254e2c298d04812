//! A socket for each media port, where the kernel cannot steer.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::{JoinHandle, yield_now},
};
use tracing::debug;

use super::{BATCH, ReceiveBatch, Shared};
use crate::{datapath::flows::Departure, net::Priority};

thread_local! {
    // Two megabytes: one for each worker thread, not one for each port.
    static MEMORY: RefCell<ReceiveBatch> = RefCell::new(ReceiveBatch::new());
}

struct Port {
    socket: Arc<UdpSocket>,
    /// What the socket sends with, as it was last told.
    type_of_service: AtomicU8,
    /// For the tags of 802.1Q devices.
    priority: Priority,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
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

    /// Binds a port, unless it is bound, and relays what comes to it.
    ///
    /// # Errors
    /// If the port is taken or there are no descriptors left.
    pub(crate) fn open(&self, local: SocketAddr, shared: &Shared) -> io::Result<()> {
        if self.ports.read().unwrap_or_else(PoisonError::into_inner).contains_key(&local) {
            return Ok(());
        }
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
            .insert(local, Port { socket, type_of_service: AtomicU8::new(0), priority: self.priority, task });
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
            MEMORY.with_borrow_mut(|batch| {
                let received = batch.receive(socket.as_fd(), Some(local))?;
                shared.relay(&received, |departure, payload| send(&ports, departure, payload));
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

/// Sends from the socket of the port that the packet is to leave from.
fn send(ports: &RwLock<HashMap<SocketAddr, Port>>, departure: &Departure, payload: &[u8]) -> bool {
    let ports = ports.read().unwrap_or_else(PoisonError::into_inner);
    let Some(port) = ports.get(&departure.source) else { return false };
    let socket = socket2::SockRef::from(port.socket.as_ref());
    // The socket keeps what it was last told: a stream's packets mostly have one value, so most of them
    // need no system call for it. Packets leave a port from one task only, the other direction's.
    let wanted = departure.type_of_service;
    let tell = || match departure.source {
        // With IP_TOS the kernel sets the priority too, from a table of its own (ip(7), IP_TOS): once more, then.
        SocketAddr::V4(_) => socket.set_tos_v4(u32::from(wanted)).and_then(|()| port.priority.mark(&socket)),
        SocketAddr::V6(_) => socket.set_tclass_v6(u32::from(wanted)),
    };
    if port.type_of_service.load(Ordering::Relaxed) != wanted && tell().is_ok() {
        port.type_of_service.store(wanted, Ordering::Relaxed);
    }
    socket.send_to(payload, &departure.destination.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use relay_ebpf::rtp::Payload;

    use super::*;

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
            type_of_service: AtomicU8::new(0),
            priority: Priority::try_from(5).unwrap(),
            task: tokio::spawn(async {}),
        };
        ports.write().unwrap().insert(source, port);
        let sent = [0xB8, 0xB9, 0x60, 0x60, 0];
        for type_of_service in sent {
            let departure = Departure {
                source,
                destination: receiver.local_addr().unwrap(),
                type_of_service,
                content: Payload::Rtp,
                stats: 0,
                bytes: 29,
            };
            assert!(send(&ports, &departure, b"x"));
            let ports = ports.read().unwrap();
            let socket = socket2::SockRef::from(ports[&source].socket.as_ref());
            assert_eq!(
                socket.priority().unwrap(),
                5,
                "{type_of_service}: and not that of the kernel's table"
            );
        }
        let mut batch = ReceiveBatch::new();
        let received = batch.receive(receiver.as_fd(), None).unwrap();
        assert_eq!(received.iter().map(|packet| packet.type_of_service).collect::<Vec<_>>(), sent);
    }
}
