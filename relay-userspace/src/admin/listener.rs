//! HTTPS: connections are accepted, counted, agreed on in TLS, and served, each with a limit and a time.
//!
//! A connection that does not finish its TLS handshake or its request's head in ten seconds is closed, so is one that
//! has nothing to say for as long, and one that takes nothing of an answer for half a minute; there are so many at a
//! time, and so many from one address.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{guard::Source, state::Web};
use crate::{metrics::names, net::Patient};

/// Connections at a time.
const CONNECTIONS: usize = 256;
/// Connections from one address at a time; a browser makes six.
const CONNECTIONS_OF_ONE: usize = 64;
/// Time for the TLS handshake, and for a request's head.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a browser may take nothing of what is sent to it.
pub(super) const TAKES: Duration = Duration::from_secs(30);
/// Bytes of a request's head; hyper's smallest bound is 8 KiB.
pub(super) const HEAD: usize = 16 * 1024;
/// Header fields of a request.
pub(super) const FIELDS: usize = 64;
/// How long to wait after a connection could not be accepted.
pub(super) const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// The first byte of a TLS handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// To somebody who speaks plain HTTP.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 63\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS: put https:// in front of the address.\r\n";

/// Binds the listener; `key` is the configuration's, for the message.
///
/// # Errors
/// A sentence that names the address and the key to change.
pub async fn bind(listen: SocketAddr, key: &str) -> Result<TcpListener, String> {
    TcpListener::bind(listen).await.map_err(|error| {
        format!("{key}: {listen} cannot be bound: {error}; another program may have it (`ss -ltnp`)")
    })
}

/// How many connections each address has.
#[derive(Debug, Default)]
pub(super) struct Guests {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place; dropping it gives it back.
pub(super) struct Place {
    guests: Arc<Mutex<Guests>>,
    address: IpAddr,
}

impl Place {
    /// None when there are as many as may be.
    pub(super) fn take(guests: &Arc<Mutex<Guests>>, address: IpAddr) -> Option<Self> {
        let mut inside = guests.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = inside.by_address.get(&address).copied().unwrap_or(0);
        if inside.all >= CONNECTIONS || of_one >= CONNECTIONS_OF_ONE {
            return None;
        }
        inside.all += 1;
        inside.by_address.insert(address, of_one + 1);
        Some(Self { guests: Arc::clone(guests), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all = inside.all.saturating_sub(1);
        let left = inside.by_address.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            inside.by_address.remove(&self.address);
        } else {
            inside.by_address.insert(self.address, left);
        }
    }
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, web: Web) -> Infallible {
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let guests = Arc::new(Mutex::new(Guests::default()));
    // They end with the listener: none outlives the daemon's stop.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "pages: a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        let Some(place) = Place::take(&guests, address) else {
            web.refused(names::web::CONNECTIONS);
            continue;
        };
        let (acceptor, router, web) = (acceptor.clone(), router.clone(), web.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, address, acceptor, router, &web).await {
                debug!(%error, %peer, "pages: connection");
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    address: IpAddr,
    acceptor: TlsAcceptor,
    router: Router,
    web: &Web,
) -> io::Result<()> {
    // Small answers are to leave at once.
    stream.set_nodelay(true)?;
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let count = |_: &io::Error| web.refused(names::web::TLS);
    let mut first = [0];
    let length = timeout(PATIENCE, stream.peek(&mut first)).await.unwrap_or_else(late).inspect_err(count)?;
    if length == 1 && first != [HANDSHAKE] {
        web.refused(names::web::TLS);
        let mut stream = Patient::new(stream, TAKES);
        stream.write_all(SPEAK_TLS).await?;
        stream.shutdown().await?;
        return Err(io::Error::other("it does not speak TLS"));
    }
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let stream = timeout(PATIENCE, acceptor.accept(stream)).await.unwrap_or_else(late).inspect_err(count)?;
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Source(address));
        inner.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(Patient::new(stream, TAKES)), service)
        .await
        .map_err(|error| refused_head(error, |reason| web.refused(reason)))
}

/// Counts a head that could not be read or did not come, and an answer that was not taken.
pub(super) fn refused_head(error: hyper::Error, refused: impl FnOnce(&str)) -> io::Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
    if error.is_parse() || error.is_parse_too_large() {
        refused(names::web::HEAD);
    } else if error.is_timeout() {
        refused(names::web::SILENT);
    } else if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut) {
        refused(names::web::UNREAD);
    }
    io::Error::other(error)
}
