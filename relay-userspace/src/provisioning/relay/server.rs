//! The listeners: connections of phones, with TLS or without, each with limits.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::exchange::Relay;
use crate::{metrics::names::provisioning as labels, net::Patient};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// A phone must have sent its request's head, or its TLS greeting, within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the longest head of a request, and its most headers.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// The first byte of TLS: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// After a connection could not be accepted: no descriptors are left, for example.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How many connections there can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connections {
    pub(super) total: usize,
    pub(super) each: usize,
    /// How long a phone may take nothing of what is sent to it.
    pub(super) idle: Duration,
}

/// Connections by phone, on all listeners.
#[derive(Debug, Default)]
pub(super) struct Open {
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One of them; it is given back when it is dropped.
struct Place {
    open: Arc<Open>,
    phone: IpAddr,
}

impl Open {
    fn place(self: &Arc<Self>, phone: IpAddr, limits: Connections) -> Result<Place, &'static str> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, each) = &mut *counts;
        if *total >= limits.total {
            return Err(labels::TOO_MANY);
        }
        let own = each.entry(phone).or_default();
        if *own >= limits.each {
            return Err(labels::TOO_MANY_OF_ONE);
        }
        *own += 1;
        *total += 1;
        Ok(Place { open: Arc::clone(self), phone })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, each) = &mut *counts;
        *total -= 1;
        if let Some(own) = each.get_mut(&self.phone) {
            *own -= 1;
            if *own == 0 {
                each.remove(&self.phone);
            }
        }
    }
}

/// Listens on one interface's address.
pub(super) fn listen(interface: &str, address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from((address, port));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // After a restart, connections of the one before may still be closing.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves for as long as it is polled; the connections end with it.
pub(super) async fn serve(
    listener: TcpListener,
    relay: Arc<Relay>,
    tls: TlsAcceptor,
    open: Arc<Open>,
    limits: Connections,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, phone) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                warn!(%error, "a connection of a phone could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match open.place(phone, limits) {
            Ok(place) => {
                let (relay, tls) = (Arc::clone(&relay), tls.clone());
                connections.spawn(async move {
                    if let Err(why) = converse(stream, phone, &relay, tls, limits.idle).await {
                        relay.metrics.provisioning_refused.with_label_values(&[why]).inc();
                        debug!(%phone, why, "a phone's connection ended");
                    }
                    drop(place);
                });
            }
            Err(why) => relay.metrics.provisioning_refused.with_label_values(&[why]).inc(),
        }
    }
}

async fn converse(
    stream: TcpStream,
    phone: IpAddr,
    relay: &Arc<Relay>,
    tls: TlsAcceptor,
    idle: Duration,
) -> Result<(), &'static str> {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    match timeout(PATIENCE, stream.peek(&mut first)).await {
        Err(_) => return Err(labels::SILENT),
        // Opened and closed: somebody looks whether the port answers.
        Ok(Ok(0) | Err(_)) => return Ok(()),
        Ok(Ok(_)) => {}
    }
    if first == [HANDSHAKE] {
        match timeout(PATIENCE, tls.accept(stream)).await {
            Err(_) => Err(labels::SILENT),
            Ok(Err(_)) => Err(labels::TLS),
            Ok(Ok(stream)) => requests(stream, phone, relay, idle).await,
        }
    } else {
        requests(stream, phone, relay, idle).await
    }
}

async fn requests<S>(stream: S, phone: IpAddr, relay: &Arc<Relay>, idle: Duration) -> Result<(), &'static str>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let relay = Arc::clone(relay);
        async move { Ok::<_, Infallible>(relay.handle(phone, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, idle)), service);
    match connection.await {
        Err(error) if error.is_parse_too_large() => Err(labels::HEAD_TOO_LARGE),
        Err(error) if error.is_parse() => Err(labels::MALFORMED),
        Err(error) if error.is_timeout() => Err(labels::SILENT),
        // The phone has gone away, which it may.
        _ => Ok(()),
    }
}
