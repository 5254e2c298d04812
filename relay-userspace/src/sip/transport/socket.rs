//! How the sockets are made: marked with the signalling's code point, from the network's own address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::net::Marking;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;
/// A peer that is gone without a word is noticed after this long, and then this long between these many questions.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMES: u32 = 4;
/// What is sent must be acknowledged within this time, or the connection is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// A listener.
pub(super) fn listen(address: SocketAddr, marking: Marking) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Answers to a SYN carry the listener's mark.
    marking.mark(&SockRef::from(&socket), address.ip())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Settings of a connection that was accepted.
pub(super) fn prepare(stream: &TcpStream, marking: Marking) -> io::Result<()> {
    let socket = SockRef::from(stream);
    marking.mark(&SockRef::from(stream), stream.local_addr()?.ip())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_TIMES),
    )
}

/// A connection from one of the appliance's addresses.
pub(super) async fn connect(own: IpAddr, peer: SocketAddr, marking: Marking) -> io::Result<TcpStream> {
    let socket = if own.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    marking.mark(&SockRef::from(&socket), own)?;
    socket.bind(SocketAddr::new(own, 0))?;
    let stream = socket.connect(peer).await?;
    prepare(&stream, marking)?;
    Ok(stream)
}
