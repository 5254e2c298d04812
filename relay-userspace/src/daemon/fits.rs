//! What a configuration asks of this host, and whether the host has it: interfaces, addresses, ports, certificates.
//!
//! The start fails on what is missing. Whoever applies a configuration, or asks for a restart, is told before: a daemon
//! that ends at its start takes the pages with it on which the mistake could be mended. Two more things are refused there
//! that a start lets pass with a symptom, because they are never meant: phones and servers behind two interfaces in
//! subnets that overlap, and a server that is among the phones or is the appliance itself.
//!
//! The rules on addresses are pure: what the host has is read before.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
    path::Path,
};

use ipnet::IpNet;

use super::settings::Ready;
use crate::{
    config::{Config, ConfigError, Host as ServerHost, STREAM_KEYS, changes},
    net::{
        NetworkId, Role, Transport,
        netlink::{self, InterfaceAddress, Link},
    },
    tls::{Authorities, Identity, LegacyAcceptor, TlsError, own_files},
};

/// Never a network's interface.
const LOOPBACK: &str = "lo";
/// UDP port of NTP (RFC 5905 section 7.2).
const NTP: u16 = 123;

/// The ports that the kernel gives to sockets that ask for any (`ip-sysctl`).
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// So many of them have to be left for this process and others: each connection that is opened takes one, each question
/// to a name server, each of the relay's own sockets.
const LEFT_FOR_OTHERS: usize = 256;

/// What this host has.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    links: Vec<Link>,
    addresses: Vec<InterfaceAddress>,
    /// What the kernel gives to sockets that ask for any port; none if it does not say.
    ephemeral: Option<RangeInclusive<u16>>,
}

impl Host {
    /// Reads it from the kernel.
    pub(super) async fn read() -> Result<Self, netlink::Error> {
        let netlink = netlink::connect()?;
        let ephemeral = fs::read_to_string(EPHEMERAL).ok().and_then(|text| {
            let (first, last) = text.trim().split_once(char::is_whitespace)?;
            Some(first.parse().ok()?..=last.trim().parse().ok()?)
        });
        Ok(Self { links: netlink.links().await?, addresses: netlink.addresses().await?, ephemeral })
    }

    /// Interfaces with their addresses, but for loopback.
    pub(super) fn interfaces(&self) -> Vec<(String, Vec<IpNet>)> {
        let shown = self.links.iter().filter(|link| link.name != LOOPBACK);
        shown.map(|link| (link.name.clone(), self.nets(link.index).collect())).collect()
    }

    /// An interface's addresses with their subnets.
    ///
    /// IPv4 first. Link-local ones are left out: what others are told has to mean the same everywhere.
    fn nets(&self, interface: u32) -> impl Iterator<Item = IpNet> {
        let own = move |ipv6: bool| {
            self.addresses
                .iter()
                .filter(move |address| address.interface == interface && address.ip.is_ipv6() == ipv6)
                .filter(|address| !matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
                .filter_map(|address| IpNet::new(address.ip, address.prefix).ok())
        };
        own(false).chain(own(true))
    }

    /// The subnet of a network's address.
    fn net(&self, ready: &Ready<'_>) -> Option<IpNet> {
        let link = self.links.iter().find(|link| link.name == ready.network.interface)?;
        self.nets(link.index).find(|net| net.addr() == ready.address)
    }
}

/// What this host does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The network that it is about, if it is about one.
    pub(super) network: Option<NetworkId>,
    /// The key.
    pub(super) key: &'static str,
    /// What is wrong, and what to do.
    pub(super) message: String,
}

impl Misfit {
    fn of(ready: &Ready<'_>, key: &'static str, message: String) -> Self {
        Self { network: Some(ready.id), key, message }
    }

    /// As an error of the file whose text it is about.
    pub(super) fn in_file(self, file: &Path, text: &str, config: &Config) -> ConfigError {
        let line = self.network.and_then(|network| config.line_of_network(text, network));
        ConfigError { file: file.to_owned(), line, key: self.key.to_owned(), message: self.message }
    }
}

/// The address of each network: the configured one, which must be the interface's, or its first.
pub(super) fn find_addresses<'a>(config: &'a Config, host: &Host) -> Result<Vec<Ready<'a>>, Misfit> {
    config
        .networks()
        .map(|(id, network)| {
            let wrong = |key, message: String| Misfit { network: Some(id), key, message };
            let interface = &network.interface;
            let link = host.links.iter().find(|link| link.name == *interface).ok_or_else(|| {
                let names: Vec<&str> = host.links.iter().map(|link| link.name.as_str()).collect();
                let message = format!("interface {interface} does not exist; there are {}", names.join(", "));
                wrong("network.interface", message)
            })?;
            let own: Vec<IpAddr> = host.nets(link.index).map(|net| net.addr()).collect();
            let address = match network.address {
                None => *own.first().ok_or_else(|| {
                    let message = format!("interface {interface} has no address; give it one first");
                    wrong("network.interface", message)
                })?,
                Some(address) if own.contains(&address) => address,
                Some(address) => {
                    let has = match own.as_slice() {
                        [] => "it has none".to_owned(),
                        own => {
                            let own: Vec<String> = own.iter().map(ToString::to_string).collect();
                            format!("it has {}", own.join(", "))
                        }
                    };
                    let message = format!("{address} is not an address of interface {interface}; {has}");
                    return Err(wrong("network.address", message));
                }
            };
            let mtu = usize::try_from(link.mtu).ok().filter(|mtu| *mtu > 0);
            Ok(Ready { id, network, address, mtu })
        })
        .collect()
}

/// Networks on one address need ports of their own. Whether two of them are on one is certain only with their
/// addresses: one may be configured with the address that another takes from its interface.
pub(super) fn check_shared_addresses(networks: &[Ready<'_>]) -> Result<(), Misfit> {
    for (position, ready) in networks.iter().enumerate() {
        for other in networks.iter().take(position).filter(|other| other.address == ready.address) {
            let (ours, theirs) = (&ready.network.media_ports, &other.network.media_ports);
            let wrong = |key, what: &str| {
                let message = format!("network {:?} is on {} too: {what}", other.network.name, ready.address);
                Misfit::of(ready, key, message)
            };
            if ours.overlaps(theirs) {
                return Err(wrong("network.media_ports", "their media_ports must not overlap"));
            }
            for (sip_port, media) in [(ready.network.sip_port, theirs), (other.network.sip_port, ours)] {
                if media.range().contains(&sip_port) {
                    let what = format!("SIP port {sip_port} of one is among the other's media_ports");
                    return Err(wrong("network.sip_port", &what));
                }
            }
        }
    }
    Ok(())
}

/// Media ports are kept from sockets that ask for any port: there have to be others for these.
pub(super) fn check_ports_are_left(networks: &[Ready<'_>], host: &Host) -> Result<(), Misfit> {
    let Some(ephemeral) = &host.ephemeral else { return Ok(()) };
    let has = |ready: &Ready<'_>, port: &u16| ready.network.media_ports.range().contains(port);
    let left = ephemeral.clone().filter(|port| !networks.iter().any(|ready| has(ready, port))).count();
    // The one that takes most of them is the one to change.
    let taken = |ready: &&Ready<'_>| ephemeral.clone().filter(|port| has(ready, port)).count();
    let Some(most) = networks.iter().max_by_key(taken).filter(|_| left < LEFT_FOR_OTHERS) else {
        return Ok(());
    };
    let (first, last) = (ephemeral.start(), ephemeral.end());
    let message = format!(
        "{} leaves {left} of the ports {first}-{last}, from which the kernel serves every program that asks for any port \
         (net.ipv4.ip_local_port_range): leave at least {LEFT_FOR_OTHERS}, or give the kernel another range",
        most.network.media_ports
    );
    Err(Misfit::of(most, "network.media_ports", message))
}

/// What others are told is of the family of the appliance's address on their network, and servers are reached by it.
pub(super) fn check_families(config: &Config, networks: &[Ready<'_>]) -> Result<(), Misfit> {
    for ready in networks {
        let advertised = ready.advertised();
        if advertised.is_ipv4() != ready.address.is_ipv4() {
            let message =
                format!("{advertised} is of another family than {}, which it stands for", ready.address);
            return Err(Misfit::of(ready, "network.advertised", message));
        }
    }
    for (server, network, key) in config.all_servers() {
        let Some(ready) = networks.iter().find(|ready| Some(ready.id) == network) else { continue };
        if let ServerHost::Ip(ip) = &server.host
            && ip.is_ipv4() != ready.address.is_ipv4()
        {
            let message = format!(
                "{server} is of another family than {}, the appliance's address on network {:?}: give the server, or \
                 that network (network.address), an address of the other's family",
                ready.address, ready.network.name
            );
            return Err(Misfit { network: None, key, message });
        }
    }
    Ok(())
}

/// Phones and servers have to be told apart by where they are.
fn check_apart(config: &Config, networks: &[Ready<'_>], host: &Host) -> Result<(), Misfit> {
    let of_phones = || networks.iter().filter(|ready| ready.network.role == Role::Phones);
    for (position, ready) in networks.iter().enumerate() {
        let before = networks.iter().take(position);
        for other in before.filter(|other| other.network.interface != ready.network.interface) {
            if ready.network.role == other.network.role {
                continue;
            }
            let (Some(ours), Some(theirs)) = (host.net(ready), host.net(other)) else { continue };
            if ours.contains(&theirs.network()) || theirs.contains(&ours.network()) {
                let message = format!(
                    "{} by {} and {} by {} overlap (network {:?}): hosts in both are reached by one of the two only; \
                     choose another interface, or renumber one side",
                    ours.trunc(),
                    ready.network.interface,
                    theirs.trunc(),
                    other.network.interface,
                    other.network.name
                );
                let key =
                    if ready.network.address.is_some() { "network.address" } else { "network.interface" };
                return Err(Misfit::of(ready, key, message));
            }
        }
    }
    let by_servers: BTreeSet<&str> = networks
        .iter()
        .filter(|ready| ready.network.role == Role::Servers)
        .map(|ready| ready.network.interface.as_str())
        .collect();
    let trunks = config.trunks.iter().map(|trunk| (&trunk.contact, "trunk.contact"));
    let plans = config.server_plans.iter().flat_map(|plan| &plan.destinations);
    let plans = plans.map(|to| (&to.contact, "server_plan.destination.contact"));
    for (peer, key) in trunks.chain(plans) {
        let ServerHost::Ip(ip) = &peer.host else { continue };
        if networks.iter().any(|ready| ready.address == *ip && Some(ready.network.sip_port) == peer.port) {
            return Err(Misfit { network: None, key, message: format!("{peer} is this appliance itself") });
        }
    }
    for (server, _, key) in config.all_servers() {
        let ServerHost::Ip(ip) = &server.host else { continue };
        let wrong = |message| Misfit { network: None, key, message };
        if networks.iter().any(|ready| ready.address == *ip && Some(ready.network.sip_port) == server.port) {
            return Err(wrong(format!("{server} is this appliance itself")));
        }
        let among = of_phones()
            .filter(|ready| !by_servers.contains(ready.network.interface.as_str()))
            .find_map(|ready| host.net(ready).filter(|net| net.contains(ip)).map(|net| (ready, net.trunc())));
        if let Some((ready, net)) = among {
            return Err(wrong(format!(
                "{server} is among the phones: {net} is the subnet of network {:?}, by {}",
                ready.network.name, ready.network.interface
            )));
        }
    }
    Ok(())
}

/// Ports that a configuration opens, with their keys; those of networks with them.
fn ports(
    config: &Config,
    networks: &[Ready<'_>],
) -> Vec<(Option<NetworkId>, &'static str, Transport, SocketAddr)> {
    let mut ports = vec![
        (None, "web.listen", Transport::Tcp, config.web.listen),
        (None, "admin.listen", Transport::Tcp, config.admin.listen),
    ];
    ports.extend(config.web.rest().map(|rest| (None, "web.rest_port", Transport::Tcp, rest)));
    for ready in networks {
        for (transport, key) in [(Transport::Udp, "network.sip_port")].into_iter().chain(STREAM_KEYS) {
            let port = ready.network.port(transport);
            ports.extend(port.map(|port| (Some(ready.id), key, transport, (ready.address, port).into())));
        }
    }
    for ready in networks.iter().filter(|ready| ready.network.role == Role::Phones) {
        let relays = !config.provisioning.servers.is_empty();
        let services = [
            (config.clock.enabled, "clock.enabled", Transport::Udp, NTP),
            (config.syslog.enabled, "syslog.port", Transport::Udp, config.syslog.port),
            (relays, "provisioning.http_port", Transport::Tcp, config.provisioning.http_port),
            (relays, "provisioning.https_port", Transport::Tcp, config.provisioning.https_port),
        ];
        for (wanted, key, transport, port) in services {
            if wanted && port != 0 {
                ports.push((None, key, transport, (ready.address, port).into()));
            }
        }
    }
    ports
}

/// Whether ports can be bound. Those that the running daemon has itself, under whatever key, are left out.
fn check_ports(config: &Config, networks: &[Ready<'_>], own: &[(Transport, u16)]) -> Result<(), Misfit> {
    for (network, key, transport, address) in ports(config, networks) {
        let stream = |transport| transport != Transport::Udp;
        let is_own = own.iter().any(|(by, port)| *port == address.port() && stream(*by) == stream(transport));
        // The daemon's own port is free for it later; whether the address is the host's can be tried with any port.
        let address = if is_own { SocketAddr::new(address.ip(), 0) } else { address };
        let bound = match transport {
            Transport::Udp => UdpSocket::bind(address).map(drop),
            _ => TcpListener::bind(address).map(drop),
        };
        bound.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "another program has this port (`ss -lntup` names it)",
                io::ErrorKind::AddrNotAvailable => "no interface has this address",
                io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
                _ => "see `branchline doctor`",
            };
            let place = if is_own { address.ip().to_string() } else { address.to_string() };
            Misfit { network, key, message: format!("{place} cannot be bound: {error}; {hint}") }
        })?;
    }
    Ok(())
}

/// Whether the files of certificates are there and are what they should be, and serve old phones where these are wanted.
fn check_certificates(config: &Config) -> Result<(), Misfit> {
    let wrong =
        |key, error: &dyn std::fmt::Display| Misfit { network: None, key, message: error.to_string() };
    let authorities = Authorities::open(config.tls.authorities.as_deref())
        .map_err(|error| wrong("tls.authorities", &error))?;
    let state = &config.state.directory;
    let [own, own_key] = own_files(state);
    let (certificate, key) = match (&config.tls.certificate, &config.tls.private_key) {
        (Some(certificate), Some(key)) => (certificate, key),
        _ if own.exists() => (&own, &own_key),
        // It will be made.
        _ => return Ok(()),
    };
    let identity = Identity::open(state, Some(certificate), Some(key), &[], &[])
        .map_err(|error| wrong("tls.certificate", &error))?;
    let mut networks = config.networks();
    if let Some((id, _)) = networks.find(|(_, network)| network.port(Transport::LegacyTls).is_some()) {
        LegacyAcceptor::new(&identity, &authorities, &config.tls).check().map_err(|error| {
            let message = match error {
                TlsError::Settings { why, .. } => why,
                other => other.to_string(),
            };
            Misfit { network: Some(id), key: "network.sip_legacy_tls_port", message }
        })?;
    }
    Ok(())
}

/// Whether the files that the relay of files reads are there.
fn check_relay(config: &Config) -> Result<(), Misfit> {
    let relay = &config.provisioning;
    for (key, file) in [
        ("provisioning.password_file", &relay.password_file),
        ("provisioning.client_certificate", &relay.client_certificate),
        ("provisioning.client_private_key", &relay.client_private_key),
    ] {
        let Some(file) = file.as_ref().filter(|_| !relay.servers.is_empty()) else { continue };
        File::open(file).map_err(|error| Misfit {
            network: None,
            key,
            message: format!("{} cannot be read: {error}", file.display()),
        })?;
    }
    Ok(())
}

/// How much is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Examine {
    /// What differs from the running configuration: what is not touched may be on its way back.
    Changes,
    /// Everything, as a start does.
    Everything,
}

/// Whether a daemon can start with a configuration on this host, while one runs with another.
pub(super) fn check(config: &Config, running: &Config, host: &Host, examine: Examine) -> Result<(), Misfit> {
    let changed = changes::between(running, config);
    let differs = |prefix: &str| {
        examine == Examine::Everything || changed.iter().any(|changed| changed.key.starts_with(prefix))
    };
    if differs("tls.") || differs("network") {
        check_certificates(config)?;
    }
    if differs("provisioning.") {
        check_relay(config)?;
    }
    let own: Vec<(Transport, u16)> = {
        // Where a running network's address went is not asked: its ports alone tell.
        let networks: Vec<Ready<'_>> = running
            .networks()
            .map(|(id, network)| Ready { id, network, address: Ipv4Addr::UNSPECIFIED.into(), mtu: None })
            .collect();
        ports(running, &networks).into_iter().map(|(_, _, by, address)| (by, address.port())).collect()
    };
    if differs("network") || differs("upstream.servers") || differs("group") {
        let networks = find_addresses(config, host)?;
        check_shared_addresses(&networks)?;
        check_ports_are_left(&networks, host)?;
        check_families(config, &networks)?;
        // A running appliance that overlaps is told so by a symptom; it may go on.
        if changed.iter().any(|changed| {
            changed.key.starts_with("network") || changed.key == "upstream.servers" || changed.key == "group"
        }) {
            check_apart(config, &networks, host)?;
        }
        return check_ports(config, &networks, &own);
    }
    match find_addresses(config, host) {
        Ok(networks) => check_ports(config, &networks, &own),
        // Not what was changed.
        Err(_) => check_ports(config, &[], &own),
    }
}

#[cfg(test)]
mod tests;
