//! The relay as the daemon starts it.

use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, ServerConfig};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    Credentials,
    cache::Cache,
    exchange::{Limits, Relay},
    server::{self, Connections, Open},
    upstream::{self, Upstream},
};
use crate::{config, metrics::ServiceMetrics, provisioning::Inventory, store::Store};

/// Where it listens on one network.
#[derive(Debug, Clone, Copy)]
pub struct Listen<'a> {
    /// The interface.
    pub interface: &'a str,
    /// The appliance's address there.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// TLS of both sides.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Toward phones.
    pub phones: Arc<ServerConfig>,
    /// Toward servers.
    pub servers: Arc<ClientConfig>,
}

/// The relay with its listeners, bound and not yet running.
pub struct Service {
    relay: Arc<Relay>,
    listeners: Vec<TcpListener>,
    tls: TlsAcceptor,
    connections: Connections,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service with {} listeners", self.listeners.len())
    }
}

impl Service {
    /// A relay without listeners, its cache in `directory`. Names are looked up at `dns`, or by the system's servers.
    ///
    /// # Errors
    /// The cache's directory cannot be made or read.
    #[expect(clippy::too_many_arguments, reason = "what it is made of, each from another room")]
    pub fn new(
        settings: &config::Provisioning,
        dns: &[IpAddr],
        credentials: Option<Credentials>,
        tls: &Tls,
        directory: &Path,
        store: &Arc<Store>,
        phones: Arc<Inventory>,
        metrics: ServiceMetrics,
    ) -> io::Result<Self> {
        let idle = Duration::from_secs(settings.idle_timeout_seconds);
        let cache = match settings.cache_mib {
            0 => None,
            mib => {
                let gauge = metrics.provisioning_cache_bytes.clone();
                Some(Arc::new(Cache::open(directory, mib << 20, Arc::clone(store), gauge)?))
            }
        };
        let upstream = Upstream::new(
            upstream::Settings {
                servers: settings.servers.clone(),
                dns: dns.to_vec(),
                credentials,
                connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
                idle_timeout: idle,
            },
            ClientConfig::clone(&tls.servers),
            metrics.provisioning_upstream_failures.clone(),
        );
        let limits =
            Limits { idle, cached_file: settings.cache_file_mib << 20, upload: settings.upload_mib << 20 };
        Ok(Self {
            relay: Arc::new(Relay::new(upstream, cache, limits, phones, metrics)),
            listeners: Vec::new(),
            tls: TlsAcceptor::from(Arc::clone(&tls.phones)),
            connections: Connections {
                total: settings.connections,
                each: settings.connections_per_phone,
                idle,
            },
        })
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// The port is not to be had there.
    pub fn listen(&mut self, listen: Listen<'_>) -> io::Result<()> {
        self.listeners.push(server::listen(listen.interface, listen.address, listen.port)?);
        Ok(())
    }

    /// Serves for as long as it is polled.
    pub async fn run(self) {
        let open = Arc::<Open>::default();
        let mut serving = JoinSet::new();
        for listener in self.listeners {
            let (relay, tls, open) = (Arc::clone(&self.relay), self.tls.clone(), Arc::clone(&open));
            serving.spawn(server::serve(listener, relay, tls, open, self.connections));
        }
        while serving.join_next().await.is_some() {}
    }
}
