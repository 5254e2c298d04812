//! From the configuration to what each room is told: values only, nothing is opened here.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{Config, Network},
    datapath::{
        Settings as EngineSettings,
        kernel::{attach::Lifetime, keeper::Port, programs::KernelLog},
    },
    media::{Marks, MediaNetwork, Settings as MediaSettings},
    net::{Dscp, NetworkId, Role, Transport},
    proxy,
    sip::{transaction::Timers, transport},
    srtp::system_random,
    tls::{self, Authorities, Identity, LegacyAcceptor, TlsError, Trust},
};

/// A network with its address found.
pub(super) struct Ready<'a> {
    pub(super) id: NetworkId,
    pub(super) network: &'a Network,
    pub(super) address: IpAddr,
    /// Bytes of the largest packet on its interface, if it says.
    pub(super) mtu: Option<usize>,
}

impl Ready<'_> {
    pub(super) fn bound(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.network.sip_port))
    }

    pub(super) fn advertised(&self) -> IpAddr {
        self.network.advertised.unwrap_or(self.address)
    }
}

/// What the datapath is told.
pub(super) fn engine_settings(config: &Config, networks: &[Ready<'_>]) -> EngineSettings {
    EngineSettings {
        wanted: config.datapath.engine,
        ports: networks.iter().map(port).collect(),
        priority: config.dscp.media_priority,
        signalling_priority: config.dscp.sip_priority,
        limits: config.protection.limits(),
        flows: *config.datapath.flows.as_ref(),
        force_userspace: config.datapath.force_userspace.clone(),
        kernel_log: if config.datapath.kernel_log { KernelLog::On } else { KernelLog::Off },
        lifetime: Lifetime::Pinned,
    }
}

fn port(ready: &Ready<'_>) -> Port {
    let network = ready.network;
    Port {
        interface: network.interface.clone(),
        address: ready.address,
        attach: network.attach,
        sip: Transport::ALL.iter().filter_map(|transport| network.port(*transport)).collect(),
    }
}

/// What media sessions are told.
pub(super) fn media_settings(config: &Config, networks: &[Ready<'_>]) -> MediaSettings {
    let marks = marks(config);
    MediaSettings {
        networks: networks
            .iter()
            .map(|ready| MediaNetwork {
                name: ready.network.name.clone(),
                address: ready.address,
                advertised: ready.advertised(),
                ports: ready.network.media_ports.range(),
                latching: ready.network.latching,
                srtp: ready.network.srtp,
                rtp_dscp: marks.rtp,
                rtcp_dscp: marks.rtcp,
            })
            .collect(),
        max_sessions: config.sip.max_calls,
        timeout: Duration::from_secs(config.media.timeout_seconds),
        seed: rand::random(),
        random: system_random,
    }
}

/// TCP and TLS.
pub(super) fn stream_settings(
    config: &Config,
    networks: &[Ready<'_>],
    identity: &Identity,
    authorities: &Authorities,
    trust: &Arc<Trust>,
) -> Result<transport::Settings, TlsError> {
    let tls = &config.tls;
    Ok(transport::Settings {
        networks: networks
            .iter()
            .map(|ready| transport::Listen {
                network: ready.id,
                address: ready.address,
                ports: Transport::CONNECTED
                    .into_iter()
                    .filter_map(|transport| Some((transport, ready.network.port(transport)?)))
                    .collect(),
            })
            .collect(),
        marking: config.dscp.of_sip(),
        connect_timeout: Duration::from_millis(config.sip.tcp_connect_timeout_ms),
        server: tls::server_config(identity, authorities, tls)?,
        legacy: Arc::new(LegacyAcceptor::new(identity, authorities, tls)),
        client: tls::client_config(identity, authorities, trust, tls)?,
        origins: config.sip.websocket_origins.clone(),
        limits: transport::Limits::default(),
    })
}

/// What the proxy is told.
pub(super) fn proxy_settings(config: &Config, networks: &[Ready<'_>]) -> proxy::Settings {
    let sides = networks
        .iter()
        .map(|ready| proxy::Network {
            id: ready.id,
            name: ready.network.name.clone(),
            role: ready.network.role,
            bound: ready.address,
            advertised: ready.advertised(),
            ports: proxy::Ports {
                udp: ready.network.sip_port,
                tcp: ready.network.port(Transport::Tcp),
                tls: ready.network.port(Transport::Tls),
                legacy_tls: ready.network.port(Transport::LegacyTls),
                ws: ready.network.port(Transport::Ws),
                wss: ready.network.port(Transport::Wss),
            },
            mtu: ready.mtu,
        })
        .collect();
    // The configuration was checked to have a network of servers.
    let upstream = networks
        .iter()
        .find(|ready| ready.network.role == Role::Servers)
        .map_or(NetworkId(0), |ready| ready.id);
    let changes = proxy_changes(config);
    let upstream = proxy::Upstream {
        probe: changes.probe,
        recovery: changes.recovery,
        retry: changes.retry,
        ..proxy::Upstream::new(upstream, changes.servers)
    };
    let mut settings = proxy::Settings::new(sides, upstream, rand::random());
    settings.trusted = changes.trusted;
    settings.timers = changes.timers;
    settings.timer_c = changes.timer_c;
    settings.tcp_above = changes.tcp_above;
    settings.limits.calls = changes.calls;
    settings
}

/// What of the proxy's settings can change while it runs.
pub(super) fn proxy_changes(config: &Config) -> proxy::Changes {
    proxy::Changes {
        trusted: config.upstream.trusted.clone(),
        timers: Timers {
            t1: Duration::from_millis(config.sip.timer_t1_ms),
            t2: Duration::from_millis(config.sip.timer_t2_ms),
            invite_retries: config.sip.invite_retries,
            other_retries: config.sip.other_retries,
            ..Timers::default()
        },
        timer_c: config.ring_timeout(),
        tcp_above: Some(config.sip.tcp_above_bytes).filter(|above| *above > 0),
        calls: config.sip.max_calls,
        servers: config.upstream.servers.as_ref().clone(),
        probe: (config.upstream.probe_seconds > 0)
            .then(|| Duration::from_secs(config.upstream.probe_seconds)),
        recovery: Duration::from_secs(config.upstream.recovery_seconds),
        retry: config.upstream.retry_statuses.clone(),
    }
}

/// The code points of media.
pub(super) fn marks(config: &Config) -> Marks {
    let mark = |dscp: Dscp| Some(dscp).filter(|dscp| *dscp != Dscp::DEFAULT);
    Marks { rtp: mark(config.dscp.rtp), rtcp: mark(config.dscp.rtcp) }
}
