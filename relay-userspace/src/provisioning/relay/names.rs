//! Names of servers of files to addresses, all of which are tried in order.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::net::dns::resolver;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Asks the servers of DNS that the configuration names, or the system's.
#[derive(Debug, Clone)]
pub(super) struct Names {
    dns: Arc<[IpAddr]>,
}

impl Names {
    pub(super) fn new(dns: &[IpAddr]) -> Self {
        Self { dns: dns.into() }
    }
}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let dns = Arc::clone(&self.dns);
        Box::pin(async move {
            let found = resolver(&dns).map_err(io::Error::other)?.lookup_ip(name.as_str()).await;
            // The port is the URL's; the connector puts it in.
            let addresses = found.map_err(io::Error::other)?;
            let addresses: Vec<SocketAddr> =
                addresses.iter().take(MOST_ADDRESSES).map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}
