//! Starts the office's services that the configuration asks for, each in a task of its own.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::{StartError, certificates::Certificates};
use crate::{
    config::{self, ClientCertificates, Config},
    metrics::{ServiceMetrics, names},
    net::netlink,
    provisioning::{
        HardwareAddress, Inventory, clock, dhcp,
        relay::{self, Credentials, Listen, Refusal},
        syslog::{self, Book},
    },
    tls::{Authorities, Identity, Trust, client_config, server_config},
};

/// Where phones' logs are in the state directory.
const SYSLOG: &str = "syslog";
/// Where the relay's copies of files are.
const CACHE: &str = "provisioning";
/// How often the neighbour table is asked whose addresses phones have.
const NEIGHBOURS: Duration = Duration::from_secs(10);
/// How often certificates that were met are noted.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// A network of phones, with its address found.
#[derive(Debug, Clone)]
pub(super) struct Office<'a> {
    pub(super) name: &'a str,
    pub(super) interface: &'a str,
    pub(super) address: IpAddr,
}

/// The certificates that the relay of files shows, and whom it believes.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) to_phones: &'a Identity,
    pub(super) to_servers: &'a Identity,
    pub(super) authorities: &'a Authorities,
}

/// What runs.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// What each phone has asked for.
    pub(super) phones: Arc<Inventory>,
    /// The last lines of their logs, if these are received.
    pub(super) logs: Option<Arc<Book>>,
    /// To be ended with the daemon.
    pub(super) tasks: Vec<JoinHandle<()>>,
}

/// Binds every port first and then starts, so that a port that is taken leaves nothing half started.
pub(super) fn start(
    config: &Config,
    offices: &[Office<'_>],
    metrics: &ServiceMetrics,
    certificates: &Certificates,
    shown: &Shown<'_>,
) -> Result<Services, StartError> {
    let failed = |table: &'static str, office: &Office<'_>, why: String| StartError::Service {
        table,
        message: format!("network \"{}\": {why}", office.name),
    };
    begin_at_zero(metrics);
    let mut services = Services::default();
    let (mut responders, mut clocks, mut receivers) = (Vec::new(), Vec::new(), Vec::new());
    if config.dhcp.enabled {
        for office in offices {
            let IpAddr::V4(address) = office.address else {
                info!(network = office.name, "has an IPv6 address: no DHCPINFORM there, which is IPv4's");
                continue;
            };
            let settings = dhcp_settings(config, address);
            let service = dhcp::Service::bind(office.interface, settings);
            responders.push(service.map_err(|error| failed("dhcp", office, error.to_string()))?);
            info!(network = office.name, "answers DHCPINFORM");
        }
    }
    if config.clock.enabled {
        for office in offices {
            let service = clock::Service::bind(office.interface, office.address, &config.clock);
            clocks.push(service.map_err(|error| failed("clock", office, error.to_string()))?);
            info!(network = office.name, address = %office.address, "tells the time");
        }
    }
    if config.syslog.enabled {
        let directory = config.state.directory.join(SYSLOG);
        let keeper = syslog::Keeper::start(&directory, &config.syslog, metrics.clone()).map_err(|error| {
            let message = format!("{}: {error} (key state.directory)", directory.display());
            StartError::Service { table: "syslog", message }
        })?;
        services.logs = Some(keeper.book());
        for office in offices {
            let service =
                syslog::Service::bind(office.interface, office.address, config.syslog.port, keeper.clone());
            receivers.push(
                service.map_err(|error| failed("syslog", office, format!("{error} (key syslog.port)")))?,
            );
            info!(network = office.name, address = %office.address, port = config.syslog.port, "receives phones' logs");
        }
    }
    let relay = if config.provisioning.servers.is_empty() {
        None
    } else {
        Some(bind_relay(config, offices, metrics, &services.phones, certificates, shown)?)
    };
    if responders.len() + clocks.len() + receivers.len() + usize::from(relay.is_some()) > 0 {
        services.tasks.push(tokio::spawn(watch_neighbours(Arc::clone(&services.phones))));
    }
    let (phones, tasks) = (&services.phones, &mut services.tasks);
    tasks.extend(responders.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    tasks.extend(clocks.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    tasks.extend(receivers.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    if let Some(relay) = relay {
        tasks.push(tokio::spawn(relay.run()));
        tasks.push(tokio::spawn(note_certificates(certificates.clone())));
    }
    Ok(services)
}

/// The relay of files with a listener for each port on each network.
fn bind_relay(
    config: &Config,
    offices: &[Office<'_>],
    metrics: &ServiceMetrics,
    phones: &Arc<Inventory>,
    certificates: &Certificates,
    shown: &Shown<'_>,
) -> Result<relay::Service, StartError> {
    let wrong = |message: String| StartError::Service { table: "provisioning", message };
    let settings = &config.provisioning;
    let state = &config.state.directory;
    let tls = relay_tls(config, shown, certificates.in_force()).map_err(wrong)?;
    let directory = state.join(CACHE);
    let credentials = credentials(settings).map_err(wrong)?;
    let service = relay::Service::new(
        settings,
        &config.upstream.dns,
        credentials,
        &tls,
        &directory,
        certificates.store(),
        Arc::clone(phones),
        metrics.clone(),
    );
    let mut service =
        service.map_err(|error| wrong(format!("{}: {error} (key state.directory)", directory.display())))?;
    for office in offices {
        let ports = [("http_port", settings.http_port), ("https_port", settings.https_port)];
        for (key, port) in ports.into_iter().filter(|(_, port)| *port != 0) {
            let listen = Listen { interface: office.interface, address: office.address, port };
            service.listen(listen).map_err(|error| {
                wrong(format!(
                    "network \"{}\": TCP {}:{port}: {error}; `ss -ltnp` names a program that has the port, or \
                     change provisioning.{key}",
                    office.name, office.address
                ))
            })?;
            info!(network = office.name, address = %office.address, port, "relays files");
        }
    }
    Ok(service)
}

/// What the relay shows to the servers of files, if it is something of its own.
pub(super) fn relay_identity(config: &Config) -> Result<Option<Identity>, String> {
    match (&config.provisioning.client_certificate, &config.provisioning.client_private_key) {
        (Some(certificate), Some(key)) if !config.provisioning.servers.is_empty() => {
            Identity::open(&config.state.directory, Some(certificate), Some(key), &[], &[])
                .map(Some)
                .map_err(|error| error.to_string())
        }
        _ => Ok(None),
    }
}

fn relay_tls(config: &Config, shown: &Shown<'_>, trust: &Arc<Trust>) -> Result<relay::Tls, String> {
    let settings = &config.tls;
    // A phone fetches its certificate here before it has one.
    let open = config::Tls { client_certificates: ClientCertificates::Off, ..settings.clone() };
    let phones =
        server_config(shown.to_phones, shown.authorities, &open).map_err(|error| error.to_string())?;
    let servers = client_config(shown.to_servers, shown.authorities, trust, settings)
        .map_err(|error| error.to_string())?;
    Ok(relay::Tls { phones, servers })
}

/// The user and password for the servers.
fn credentials(settings: &config::Provisioning) -> Result<Option<Credentials>, String> {
    let (Some(user), Some(file)) = (&settings.user, &settings.password_file) else { return Ok(None) };
    let wrong = |why: String| format!("{}: {why} (key provisioning.password_file)", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let password = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
    drop(Zeroizing::new(text));
    if password.is_empty() {
        return Err(wrong("its first line, the password, is empty".to_owned()));
    }
    Ok(Some(Credentials { user: user.clone(), password }))
}

fn dhcp_settings(config: &Config, address: Ipv4Addr) -> dhcp::Settings {
    let own = || format!("http://{address}:{}", config.provisioning.http_port);
    dhcp::Settings {
        address,
        option: config.dhcp.option,
        url: config.dhcp.url.clone().unwrap_or_else(own),
        tftp_server: config.dhcp.tftp_server.clone().unwrap_or_else(|| address.to_string()),
        time_server: config.clock.enabled.then_some(address),
    }
}

/// Series that begin at zero can be seen to rise; those that begin with their first event cannot.
fn begin_at_zero(metrics: &ServiceMetrics) {
    for why in dhcp::Dropped::ALL {
        metrics.dhcp_dropped.with_label_values(&[why.as_label()]);
    }
    for outcome in clock::Outcome::ALL {
        metrics.clock_requests.with_label_values(&[outcome.as_label()]);
    }
    for why in Refusal::ALL.map(Refusal::as_label).into_iter().chain(names::provisioning::REFUSED) {
        metrics.provisioning_refused.with_label_values(&[why]);
    }
    for why in [names::syslog::TOO_FAST, names::syslog::QUEUE_FULL, names::syslog::NOT_WRITTEN] {
        metrics.syslog_dropped.with_label_values(&[why]);
    }
    for kind in names::dhcp::ALL {
        metrics.dhcp_messages.with_label_values(&[kind]);
    }
    for severity in names::syslog::SEVERITIES {
        metrics.syslog_messages.with_label_values(&[severity]);
    }
    // The usual request; others begin with their first.
    for source in [names::provisioning::UPSTREAM, names::provisioning::CACHE, names::provisioning::STALE] {
        metrics.provisioning_requests.with_label_values(&["GET", "200", source]);
        metrics.provisioning_bytes.with_label_values(&[source]);
    }
}

/// Notes the certificates of servers of files that were met and not believed, so that an operator can look at them.
async fn note_certificates(certificates: Certificates) {
    let mut tick = interval(CERTIFICATES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        certificates.met("");
    }
}

/// Tells the inventory now and then whose IP addresses are whose hardware.
async fn watch_neighbours(phones: Arc<Inventory>) {
    let netlink = match netlink::connect() {
        Ok(netlink) => netlink,
        Err(error) => {
            debug!(%error, "phones are known by their IP addresses only");
            return;
        }
    };
    let mut tick = interval(NEIGHBOURS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Ok(neighbours) = netlink.neighbours().await else { continue };
        let now = SystemTime::now();
        for neighbour in neighbours {
            let Some(hardware) = neighbour.address.map(HardwareAddress) else { continue };
            if hardware.is_a_host() {
                phones.neighbour(now, neighbour.ip, hardware);
            }
        }
    }
}
