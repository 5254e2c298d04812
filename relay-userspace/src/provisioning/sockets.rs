//! UDP sockets of services on well-known ports, each on one interface only.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::{net::UdpSocket, task::yield_now, time::sleep};
use tracing::warn;

use crate::net::set_receive_queue;

/// Datagrams that are taken before others get their turn.
const TURN: usize = 32;
/// Bytes of the receive queue: bursts wait here while the daemon is busy with calls.
const QUEUE: usize = 1 << 20;
/// After an error that does not go away by itself at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// The interface that every host has.
const LOOPBACK: &str = "lo";

/// Why a service's port is not to be had.
#[derive(Debug, Error)]
#[error("UDP {address} on interface {interface}: {error}; {hint}")]
pub struct BindError {
    /// The interface.
    pub interface: String,
    /// Address and port.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
    /// What to do.
    pub hint: &'static str,
}

/// Whether other programs may have the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// No.
    Alone,
    /// Those that agree to it too, and serve other interfaces.
    OnOtherInterfaces,
}

/// Binds a port on one interface.
pub(super) fn bind(interface: &str, address: SocketAddr, sharing: Sharing) -> Result<UdpSocket, BindError> {
    let make = |interface: &str, shared: bool| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_reuse_address(shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        } else {
            socket.set_broadcast(address.ip().is_unspecified())?;
        }
        set_receive_queue(&socket, QUEUE);
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let made = match (make(interface, false), sharing) {
        (Err(error), Sharing::OnOtherInterfaces) if error.kind() == io::ErrorKind::AddrInUse => {
            // Who has the port on every interface has it on the loopback interface too. Who has it on this one alone
            // serves this one, and two cannot: what is sent to this host would reach only one of them.
            let shared = if make(LOOPBACK, false).is_ok() { Err(error) } else { make(interface, true) };
            if shared.is_ok() {
                warn!(
                    interface,
                    port = address.port(),
                    "another program has this UDP port too; if it serves this interface, it no longer gets what is sent to this host alone: give it other interfaces"
                );
            }
            shared
        }
        // From the beginning in a way that lets such a program start later.
        (Ok(alone), Sharing::OnOtherInterfaces) => alone.set_reuse_address(true).map(|()| alone),
        (made, _) => made,
    };
    made.and_then(|socket| UdpSocket::from_std(socket.into())).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port (`ss -lunp` names it): stop it there, or switch this service off"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE, binding to an interface CAP_NET_RAW"
            }
            _ => "is the interface there?",
        };
        BindError { interface: interface.to_owned(), address, error, hint }
    })
}

/// Takes datagrams and sends what `handle` answers, for as long as it is polled. Longer datagrams than `buffer` are
/// cut.
pub(super) async fn serve(
    socket: &UdpSocket,
    buffer: &mut [u8],
    mut handle: impl FnMut(SocketAddr, &[u8]) -> Option<(SocketAddr, Vec<u8>)>,
) {
    loop {
        if socket.readable().await.is_err() {
            sleep(AFTER_ERROR).await;
            continue;
        }
        for _ in 0..TURN {
            // An ICMP error for something that was sent earlier comes out here too; it ends nothing.
            let Ok((length, source)) = socket.try_recv_from(buffer) else { break };
            if let Some((destination, payload)) = handle(source, buffer.get(..length).unwrap_or_default()) {
                // An answer that cannot be sent is as good as lost on the way: the phone asks again.
                let _ = socket.try_send_to(&payload, destination);
            }
        }
        yield_now().await;
    }
}
