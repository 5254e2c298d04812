//! Start-up and shutdown.

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use sd_notify::NotifyState;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;
use tokio::{
    net::UdpSocket,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::{info, warn};

use super::{
    addresses, bindings,
    certificates::{Certificates, now_unix},
    core::Core,
    fits, host,
    kept::Kept,
    measures::{Measures, NetworkLabels},
    observe::observe,
    plane::MediaPlane,
    quality::Ledger,
    reload::Reloader,
    services::{self, Office, Services},
    settings::{Ready, engine_settings, media_settings, proxy_settings, stream_settings},
    standing,
    traces::{self, Tracing},
    views::{NetworkFacts, Views},
};
use crate::{
    admin::{self, Appliance, Setup, Web},
    capture::{self, CaptureError, Captures},
    config::{ClientCertificates, Config, STREAM_KEYS, Tls},
    control,
    datapath::{Engine, EngineError},
    log::LogControl,
    media::Sessions,
    metrics::{Metrics, MetricsError, names},
    net::{DatapathChoice, Marking, Role, Transport, descriptors, netlink, set_receive_queue},
    proxy::{self, Proxy},
    sip::{
        digest::Ha1,
        transport::{self, Streams},
    },
    store::{Entry, KeptDigest, Store, StoreError},
    tls::{self, Authorities, Identity, TlsError, Trust},
};

/// Bytes of the receive queue of a SIP socket: a second of 5,000 messages of the usual size.
const RECEIVE_QUEUE: usize = 4 << 20;

/// How long the last write may take that is under way when the daemon stops: a slow disk with thousands of calls.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Something about a network.
    #[error("network \"{network}\": {message}")]
    Network {
        /// Its name.
        network: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The datapath.
    #[error("datapath: {0}")]
    Engine(#[from] EngineError),
    /// The store.
    #[error("state: {0} (key state.directory)")]
    Store(#[from] StoreError),
    /// The directory of captures.
    #[error("captures: {0}")]
    Captures(#[from] CaptureError),
    /// Certificates and keys.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Netlink.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The HTTP or the control socket.
    #[error("{0}")]
    Listener(String),
    /// One of the office's services.
    #[error("[{table}]: {message}")]
    Service {
        /// Its table in the configuration.
        table: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Signals.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

impl StartError {
    fn misfit(config: &Config, misfit: &fits::Misfit) -> Self {
        let mut networks = config.networks();
        let network = networks.find(|(id, _)| Some(*id) == misfit.network);
        Self::Network {
            network: network.map_or_else(String::new, |(_, network)| network.name.clone()),
            message: format!("{} (key {})", misfit.message, misfit.key),
        }
    }
}

/// How the daemon came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was told to stop for a successor, which goes on with the calls that stand.
    HandedOver,
    /// It was told to start anew, with the configuration as it is then.
    Restart,
}

/// Runs until a signal asks it to stop, or somebody asks it to start anew. `override_datapath` is what the command line wants, whatever the file says.
///
/// # Errors
/// What is missing for a start.
pub async fn run(
    config: &Config,
    file: &Path,
    override_datapath: Option<DatapathChoice>,
    log: LogControl,
) -> Result<Ended, StartError> {
    info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), "branchline starts");
    let here = fits::Host::read().await?;
    let misfit = |misfit: fits::Misfit| StartError::misfit(config, &misfit);
    let networks = fits::find_addresses(config, &here).map_err(misfit)?;
    fits::check_shared_addresses(&networks).map_err(misfit)?;
    fits::check_ports_are_left(&networks, &here).map_err(misfit)?;
    fits::check_families(config, &networks).map_err(misfit)?;
    let store = Arc::new(Store::open(&config.state.directory)?);
    let listener = admin::bind(config.admin.listen).await.map_err(StartError::Listener)?;
    let pages = admin::bind_tls(config.web.listen, "web.listen").await.map_err(StartError::Listener)?;
    let rest = match config.web.rest() {
        Some(listen) => Some(admin::bind_tls(listen, "web.rest_port").await.map_err(StartError::Listener)?),
        None => None,
    };
    let control = control::bind(&config.control.socket).map_err(StartError::Listener)?;
    let sockets = networks
        .iter()
        .map(|network| bind_sip(network, config.dscp.of_sip()).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;

    let trust = Arc::new(Trust::default());
    let certificates = Certificates::new(Arc::clone(&store), Arc::clone(&trust))?;
    let addresses = own_addresses(&networks).await?;
    let (identity, authorities) =
        (identity(config, &addresses)?, Authorities::open(config.tls.authorities.as_deref())?);
    let settings = stream_settings(config, &networks, &identity, &authorities, &trust)?;
    for ready in &networks {
        let Some(port) = ready.network.port(Transport::LegacyTls) else { continue };
        settings.legacy.check()?;
        warn!(
            network = ready.network.name,
            port,
            "LEGACY TLS is open for old phones (TLS 1.0 to 1.2, RSA key exchange, no forward secrecy): use it for them \
             alone, and switch it off when they are gone (network.sip_legacy_tls_port)"
        );
    }
    let (streams, connections) = Streams::start(settings).map_err(|error| cannot_bind(&networks, &error))?;

    let ranges: Vec<_> = networks.iter().map(|ready| ready.network.media_ports.range()).collect();
    if let Err(error) = host::reserve_ports(&ranges) {
        warn!(%error, "the media ports cannot be kept from other programs (net.ipv4.ip_local_reserved_ports)");
    }
    let metrics = Metrics::new()?;
    let captures = Arc::new(captures(config, &networks, &store, &metrics)?);
    let to_servers = services::relay_identity(config)
        .map_err(|message| StartError::Service { table: "provisioning", message })?;
    let shown = services::Shown {
        to_phones: &identity,
        to_servers: to_servers.as_ref().unwrap_or(&identity),
        authorities: &authorities,
    };
    let (traces, to_homer) = Tracing::open(config, &networks, &metrics.services);
    let Services { phones, logs, tasks: service_tasks } =
        services::start(config, &offices(&networks), &metrics.services, &certificates, &shown)?;
    let kept = Arc::new(Kept::new(
        std::iter::once(identity.clone()).chain(to_servers.clone()).collect(),
        authorities.clone(),
    ));
    let names: Vec<String> = networks.iter().map(|ready| ready.network.name.clone()).collect();
    let mut sessions = Sessions::new(media_settings(config, &networks));
    let mut settings = proxy_settings(config, &networks);
    settings.lasting_secret = store.lasting_secret("registrar")?;
    let mut proxy = Proxy::new(settings, Instant::now());
    proxy.restore_bindings(bindings::restore(&store, &names));
    let remember = Duration::from_secs(config.survival.remember_days * 24 * 3600);
    proxy.restore_known(bindings::restore_known(&store, &names, remember));
    proxy.set_credentials(credentials(&store)?);
    let mut standing = standing::take_up(&store, &names, &mut proxy, &mut sessions);
    let descriptors = descriptors::raise_limit();
    let (engine, copies) =
        Engine::start(&engine_settings(config, &networks), std::mem::take(&mut standing.flows)).await?;
    let engine = Arc::new(engine);
    if engine.sockets().is_some() {
        warn!(
            limit = descriptors.limit,
            kept = descriptors.kept,
            calls = descriptors.for_media() / descriptors::SOCKETS_OF_A_CALL,
            "each media port takes a socket: there are descriptors for so many calls with one stream"
        );
    }

    let datapath =
        if engine.why_userspace().is_none() { names::datapath::KERNEL } else { names::datapath::USERSPACE };
    metrics.datapath_info.with_label_values(&[datapath, engine.why_userspace().unwrap_or_default()]).set(1);
    let labels = networks
        .iter()
        .map(|ready| NetworkLabels {
            name: ready.network.name.clone(),
            role: ready.network.role,
            interface: ready.network.interface.clone(),
        })
        .collect();
    let quality = Arc::new(Mutex::new(Ledger::new(&names)));
    let mut plane = MediaPlane::new(sessions, Arc::clone(&engine), Arc::clone(&quality));
    plane.take_up(standing.owners);
    streams.set_names(proxy.server_names());
    let core = Arc::new(Core::new(
        proxy,
        plane,
        quality,
        engine,
        Measures::new(metrics, labels),
        sockets,
        streams,
        certificates,
        Arc::clone(&store),
        captures,
        traces,
        config,
    ));
    let pages_tls = pages_tls(config, &identity, &authorities)?;
    let setup = Arc::new(Setup::new(config.web.listen, &addresses));
    let inventory = Arc::clone(&phones);
    let views = Arc::new(Views {
        core: Arc::clone(&core),
        networks: networks.iter().map(facts).collect(),
        started: Instant::now(),
        started_unix: now_unix(),
        setup: Arc::clone(&setup),
        reloader: Reloader::new(
            file,
            config,
            override_datapath,
            log.clone(),
            Arc::clone(&core),
            Arc::clone(&kept),
        ),
        kept: Arc::clone(&kept),
        phones,
        logs,
    });
    let web =
        Web::new(Arc::clone(&views) as Arc<dyn Appliance>, Arc::clone(&store), setup, &core.measures.metrics);

    let mut tasks: Vec<JoinHandle<()>> = service_tasks;
    tasks.push(tokio::spawn(log.keep_files()));
    tasks.push(tokio::spawn(kept.watch()));
    for ready in &networks {
        tasks.push(tokio::spawn(Arc::clone(&core).receive(ready.id)));
    }
    tasks.push(tokio::spawn(Arc::clone(&core).connections(connections)));
    tasks.push(tokio::spawn(Arc::clone(&core).keep_time()));
    tasks.push(tokio::spawn(Arc::clone(&core).look_around()));
    tasks.push(tokio::spawn(Arc::clone(&core).read_rtcp(copies)));
    tasks.push(tokio::spawn(Arc::clone(&core).release_captures()));
    tasks.push(tokio::spawn(traces::export(to_homer)));
    let observed = Arc::clone(&views);
    let refused = core.measures.metrics.web_refused.clone();
    tasks.push(tokio::spawn(async move {
        admin::serve(listener, observed, refused).await;
    }));
    let served = web.clone();
    let (router, tls) = (admin::pages(&web), Arc::clone(&pages_tls));
    tasks.push(tokio::spawn(async move {
        admin::serve_tls(pages, tls, router, served).await;
    }));
    if let Some(listener) = rest {
        let router = admin::rest(&web);
        tasks.push(tokio::spawn(async move {
            admin::serve_tls(listener, pages_tls, router, web).await;
        }));
    }
    tasks.push(tokio::spawn(reload_on_signal(Arc::clone(&views))?));
    if store.administrators()?.is_empty() {
        let link = views.setup.issue(Instant::now());
        for link in &link.links {
            warn!("nobody can sign in yet; set an administrator by this link, once, within a day: {link}");
        }
    }
    let watched = Arc::clone(&views);
    tasks.push(tokio::spawn(async move {
        control::serve(control, views).await;
    }));
    for ready in &networks {
        let port = |transport| ready.network.port(transport).unwrap_or(0);
        info!(
            network = ready.network.name,
            udp = %ready.bound(),
            tcp = port(Transport::Tcp),
            tls = port(Transport::Tls),
            legacy_tls = port(Transport::LegacyTls),
            ws = port(Transport::Ws),
            wss = port(Transport::Wss),
            "ready for SIP"
        );
    }
    info!(metrics = %config.admin.listen, pages = %config.web.listen, "ready");

    if config.is_empty() {
        warn!(
            "not configured yet: no network and no server is named; name them on the page, or in {}",
            file.display()
        );
    }
    tasks.push(tokio::spawn(observe(Arc::clone(&core), inventory)));
    // These write, and end when they have: a write that is cut off could come after the last one.
    let (stop, stopped) = watch::channel(());
    let keepers = [
        tokio::spawn(bindings::keep(Arc::clone(&core), names.clone(), stopped.clone())),
        tokio::spawn(standing::keep(Arc::clone(&core), names.clone(), standing.names, stopped.clone())),
        tokio::spawn(traces::keep(Arc::clone(&core), stopped.clone())),
    ];
    let found = networks.iter().map(|ready| (ready.network.name.clone(), ready.address)).collect();
    tasks.push(tokio::spawn(addresses::watch(watched, config.clone(), found)));
    tasks.push(tokio::spawn(supervised(Arc::clone(&core))));

    let (reason, ended) = tokio::select! {
        signal = stop_signal() => signal.map_err(StartError::Signals)?,
        () = core.restart.notified() => ("restart", Ended::Restart),
    };
    // A process that says that it stops is waited for and replaced; one that starts anew in place reloads.
    tell_supervisor(if ended == Ended::Restart { NotifyState::Reloading } else { NotifyState::Stopping });
    info!(reason, calls = core.state().proxy.active_calls(), "branchline stops");
    core.captures.shutdown().await;
    for task in &tasks {
        task.abort();
    }
    // From here on no message and no packet changes anything, and what there is is written.
    for task in tasks {
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
    }
    drop(stop);
    for keeper in keepers {
        let _ = tokio::time::timeout(LAST_WRITE, keeper).await;
    }
    bindings::keep_last(&core, &names);
    standing::keep_last(&core, &names);
    traces::keep_last(&core);
    let leaves = ended != Ended::Stopped || config.datapath.keep_when_stopped;
    match core.engine.why_not_pinned() {
        None if leaves => {
            info!("the kernel goes on forwarding the calls that stand until a daemon takes them up");
        }
        Some(why) if leaves => info!(why, "the calls that stand wait for the next daemon"),
        _ => core.engine.release(),
    }
    let _ = std::fs::remove_file(&config.control.socket);
    Ok(ended)
}

/// Tells systemd, when it is the one that started this process.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd cannot be told");
    }
}

/// Tells systemd that the daemon is ready, and then, as often as its watchdog wants to hear it, that it lives: that the
/// state machine can be reached, not only that a timer runs.
async fn supervised(core: Arc<Core>) {
    tell_supervisor(NotifyState::Ready);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(limit / 2);
    loop {
        tick.tick().await;
        drop(core.state());
        tell_supervisor(NotifyState::Watchdog);
    }
}

/// Reads the configuration again at each SIGHUP.
fn reload_on_signal(views: Arc<Views>) -> Result<impl Future<Output = ()>, StartError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            // What came of it is logged, and shown with the status.
            let _ = views.reloader.reload();
        }
    })
}

async fn stop_signal() -> io::Result<(&'static str, Ended)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // What systemd sends for `systemctl restart` (RestartKillSignal= in the unit).
    let mut hand_over = signal(SignalKind::user_defined2())?;
    Ok(tokio::select! {
        _ = terminate.recv() => ("SIGTERM", Ended::Stopped),
        _ = interrupt.recv() => ("SIGINT", Ended::Stopped),
        _ = hand_over.recv() => ("SIGUSR2", Ended::HandedOver),
    })
}

fn bind_sip(ready: &Ready<'_>, marking: Marking) -> Result<UdpSocket, StartError> {
    let bound = ready.bound();
    let bind = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(bound), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        set_receive_queue(&socket, RECEIVE_QUEUE);
        if bound.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        marking.mark(&SockRef::from(&socket), bound.ip())?;
        socket.bind(&bound.into())?;
        UdpSocket::from_std(socket.into())
    };
    bind().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port (`ss -lunp` names it), or change network.sip_port"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "see `branchline doctor`",
        };
        StartError::Network {
            network: ready.network.name.clone(),
            message: format!("SIP port {bound} cannot be bound: {error}; {hint}"),
        }
    })
}

/// The networks of phones.
fn offices<'a>(networks: &'a [Ready<'a>]) -> Vec<Office<'a>> {
    let phones = networks.iter().filter(|ready| ready.network.role == Role::Phones);
    phones
        .map(|ready| Office {
            name: &ready.network.name,
            interface: &ready.network.interface,
            address: ready.address,
        })
        .collect()
}

/// The appliance's own addresses and those that others are told; as long as no network is named, all of the host's,
/// among which theirs will be.
async fn own_addresses(networks: &[Ready<'_>]) -> Result<Vec<IpAddr>, StartError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ready in networks {
        addresses.extend([ready.address, ready.advertised()]);
    }
    if networks.is_empty() {
        let own = netlink::connect()?.addresses().await?.into_iter().map(|address| address.ip);
        addresses.extend(own.filter(|ip| ip.is_ipv4() && !ip.is_loopback()));
    }
    addresses.dedup();
    Ok(addresses)
}

/// The room of captures.
fn captures(
    config: &Config,
    networks: &[Ready<'_>],
    store: &Arc<Store>,
    metrics: &Metrics,
) -> Result<Captures, CaptureError> {
    let networks = networks.iter().map(|ready| {
        let udp = ready.network.sip_port;
        let port = |transport| ready.network.port(transport).unwrap_or(udp);
        capture::Network {
            name: ready.network.name.clone(),
            address: ready.address,
            ports: Transport::ALL.map(port),
        }
    });
    let configured = config.capture.directory.clone();
    let directory = configured.unwrap_or_else(|| config.state.directory.join("captures"));
    Captures::open(
        &directory,
        config.capture.clone(),
        networks.collect(),
        Arc::clone(store),
        &metrics.services,
    )
}

/// The certificate that the appliance shows, to phones, servers and browsers.
fn identity(config: &Config, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
    let (certificate, key) = (config.tls.certificate.as_deref(), config.tls.private_key.as_deref());
    let identity = Identity::open(&config.state.directory, certificate, key, &[host::name()], addresses)?;
    for address in addresses.iter().filter(|address| !identity.names().contains(&address.to_string())) {
        warn!(
            %address,
            "the appliance's certificate is not for this address: phones that check it refuse TLS there; where it has \
             made it itself it makes another when own.pem and own.key in {} are removed before a start",
            config.state.directory.join("tls").display()
        );
    }
    Ok(identity)
}

/// TLS of the pages: browsers are never asked for a certificate, whatever phones have to show.
fn pages_tls(
    config: &Config,
    identity: &Identity,
    authorities: &Authorities,
) -> Result<Arc<ServerConfig>, TlsError> {
    let settings = Tls { client_certificates: ClientCertificates::Off, ..config.tls.clone() };
    tls::server_config(identity, authorities, &settings)
}

fn cannot_bind(networks: &[Ready<'_>], error: &transport::BindError) -> StartError {
    let network = networks.iter().find(|ready| ready.id == error.network);
    let key = STREAM_KEYS.iter().find(|(transport, _)| *transport == error.transport);
    let key = key.map_or("network.sip_tcp_port", |(_, key)| *key);
    StartError::Network {
        network: network.map_or_else(String::new, |ready| ready.network.name.clone()),
        message: format!("{error}; `ss -ltnp` names who has it, or change {key} (0: none)"),
    }
}

/// The authentication entries.
pub(super) fn credentials(store: &Store) -> Result<proxy::Credentials, StoreError> {
    let mut credentials = proxy::Credentials::default();
    for entry in store.entries()? {
        let Entry { registration_id, user, password, digests, aliases } = entry;
        let digests =
            digests.into_iter().map(|KeptDigest { algorithm, realm, hash }| Ha1 { algorithm, realm, hash });
        let digests = digests.collect();
        credentials.add(&proxy::Credential { registration_id, user, password, digests }, &aliases);
    }
    Ok(credentials)
}

fn facts(ready: &Ready<'_>) -> NetworkFacts {
    let role = match ready.network.role {
        Role::Phones => "phones",
        Role::Servers => "servers",
        Role::Gateway => "gateway",
    };
    NetworkFacts {
        name: ready.network.name.clone(),
        role: role.to_owned(),
        interface: ready.network.interface.clone(),
        sip: ready.bound(),
        listeners: Transport::ALL
            .into_iter()
            .filter_map(|transport| Some((transport, ready.network.port(transport)?)))
            .collect(),
    }
}
