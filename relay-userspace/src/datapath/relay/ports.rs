//! A socket for each media port, where the kernel cannot steer.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Arc, PoisonError, RwLock},
};

use relay_ebpf::headers::ECN_BITS;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket, task::JoinHandle};
use tracing::debug;

use super::{ReceiveBatch, Shared};
use crate::datapath::flows::Departure;

thread_local! {
    // Two megabytes: one for each worker thread, not one for each port.
    static BATCH: RefCell<ReceiveBatch> = RefCell::new(ReceiveBatch::new());
}

struct Port {
    socket: Arc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sockets, by their local address.
#[derive(Default)]
pub(crate) struct PortSockets {
    ports: Arc<RwLock<HashMap<SocketAddr, Port>>>,
}

impl PortSockets {
    /// Binds a port, unless it is bound, and relays what comes to it.
    ///
    /// # Errors
    /// If the port is taken or there are no descriptors left.
    pub(crate) fn open(&self, local: SocketAddr, tos: u8, shared: &Shared) -> io::Result<()> {
        if self.ports.read().unwrap_or_else(PoisonError::into_inner).contains_key(&local) {
            return Ok(());
        }
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        ReceiveBatch::prepare(&socket)?;
        socket.set_tos_v4(u32::from(tos))?;
        socket.bind(&local.into())?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let task = tokio::spawn(serve(Arc::clone(&socket), local, Arc::clone(&self.ports), shared.clone()));
        self.ports.write().unwrap_or_else(PoisonError::into_inner).insert(local, Port { socket, task });
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
            BATCH.with_borrow_mut(|batch| {
                let received = batch.receive(socket.as_fd(), Some(local))?;
                shared.relay(&received, |departure, payload| send(&ports, departure, payload));
                Ok(())
            })
        });
        if let Err(error) = result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            debug!(%error, %local, "receiving media");
        }
    }
}

/// Sends from the socket of the port that the packet is to leave from.
fn send(ports: &RwLock<HashMap<SocketAddr, Port>>, departure: &Departure, payload: &[u8]) -> bool {
    let ports = ports.read().unwrap_or_else(PoisonError::into_inner);
    let Some(port) = ports.get(&departure.source) else { return false };
    let socket = socket2::SockRef::from(port.socket.as_ref());
    // The socket carries the flow's DSCP; only a packet that brings ECN bits needs its own value.
    if departure.type_of_service & ECN_BITS != 0 {
        let _ = socket.set_tos_v4(u32::from(departure.type_of_service));
    }
    let sent = socket.send_to(payload, &departure.destination.into());
    if departure.type_of_service & ECN_BITS != 0 {
        let _ = socket.set_tos_v4(u32::from(departure.type_of_service & !ECN_BITS));
    }
    sent.is_ok()
}
