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

use super::StartError;
use crate::{
    config::Config,
    metrics::{ServiceMetrics, names},
    net::netlink,
    provisioning::{
        HardwareAddress, Inventory, clock, dhcp,
        syslog::{self, Book},
    },
};

/// Where phones' logs are in the state directory.
const SYSLOG: &str = "syslog";
/// How often the neighbour table is asked whose addresses phones have.
const NEIGHBOURS: Duration = Duration::from_secs(10);

/// A network of phones, with its address found.
#[derive(Debug, Clone)]
pub(super) struct Office<'a> {
    pub(super) name: &'a str,
    pub(super) interface: &'a str,
    pub(super) address: Ipv4Addr,
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
            let settings = dhcp_settings(config, office);
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
        let keeper =
            syslog::Keeper::start(&directory, &config.syslog, metrics.clone()).map_err(|error| {
                let message = format!("{}: {error} (key state.directory)", directory.display());
                StartError::Service { table: "syslog", message }
            })?;
        services.logs = Some(keeper.book());
        for office in offices {
            let service = syslog::Service::bind(
                office.interface,
                office.address,
                config.syslog.port,
                keeper.clone(),
            );
            receivers.push(service.map_err(|error| failed("syslog", office, format!("{error} (key syslog.port)")))?);
            info!(network = office.name, address = %office.address, port = config.syslog.port, "receives phones' logs");
        }
    }
    if responders.len() + clocks.len() + receivers.len() > 0 {
        services.tasks.push(tokio::spawn(watch_neighbours(Arc::clone(&services.phones))));
    }
    let (phones, tasks) = (&services.phones, &mut services.tasks);
    tasks.extend(responders.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    tasks.extend(clocks.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    tasks.extend(receivers.into_iter().map(|s| tokio::spawn(s.run(Arc::clone(phones), metrics.clone()))));
    Ok(services)
}

fn dhcp_settings(config: &Config, office: &Office<'_>) -> dhcp::Settings {
    let own = || format!("http://{}:{}", office.address, config.provisioning.http_port);
    dhcp::Settings {
        address: office.address,
        option: config.dhcp.option,
        url: config.dhcp.url.clone().unwrap_or_else(own),
        tftp_server: config.dhcp.tftp_server.clone().unwrap_or_else(|| office.address.to_string()),
        time_server: config.clock.enabled.then_some(office.address),
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
    for why in [names::syslog::TOO_FAST, names::syslog::QUEUE_FULL, names::syslog::NOT_WRITTEN] {
        metrics.syslog_dropped.with_label_values(&[why]);
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
                phones.neighbour(now, IpAddr::V4(neighbour.ip), hardware);
            }
        }
    }
}
