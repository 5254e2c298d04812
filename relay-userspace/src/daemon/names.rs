//! Servers' names to addresses. RFC 3263: a name without a port by SRV records, one with a port by its addresses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    lookup::Lookup,
    proto::rr::{RData, RecordType},
};
use rand::RngExt as _;
use tracing::debug;

use super::core::Core;
use crate::{
    config::{Host, ServerUri},
    net::{Family, Transport, dns::resolver},
    upstream::{Resolution, SrvRecord, order},
};

/// SRV targets whose addresses are looked up.
const MOST_TARGETS: usize = 8;

/// Resolves a server's name and tells the proxy. Boxed: what the proxy then wants done may be to resolve again.
pub(super) fn resolve(core: Arc<Core>, server: ServerUri, dns: Vec<IpAddr>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Host::Name(name) = &server.host else { return };
        let family = core.state().proxy.server_family();
        let result = look_up(&server, name, &dns, family).await;
        debug!(%server, ?result, "name resolved");
        core.resolved(&server, result).await;
    })
}

async fn look_up(
    server: &ServerUri,
    name: &str,
    dns: &[IpAddr],
    family: Family,
) -> Result<Resolution, String> {
    let resolver =
        resolver(dns).map_err(|error| format!("the system's servers of DNS are not known: {error}"))?;
    if let Some(port) = server.port {
        let (addresses, ttl) = addresses(&resolver, name, port, family).await?;
        return Ok(Resolution { addresses, ttl });
    }
    let service = match server.transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        // No server is reached by those of phones (config::ServerUri).
        Transport::Tls | Transport::LegacyTls | Transport::Ws | Transport::Wss => "_sips._tcp",
    };
    let records = match resolver.lookup(format!("{service}.{name}."), RecordType::SRV).await {
        Ok(found) => found,
        // RFC 3263 section 4.2: without SRV records the name itself is looked up.
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
            let port = server.transport.default_port();
            let (addresses, ttl) = addresses(&resolver, name, port, family).await?;
            return Ok(Resolution { addresses, ttl });
        }
        Err(error) => return Err(format!("{service}.{name}: {error}")),
    };
    let mut ttl = left(&records);
    let mut targets = Vec::new();
    for record in records.answers() {
        if let RData::SRV(srv) = &record.data {
            let host = srv.target.to_utf8();
            targets.push(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: host.trim_end_matches('.').to_owned(),
            });
        }
    }
    let targets = order(targets, |most| rand::rng().random_range(0..=most));
    let mut resolution = Resolution { addresses: Vec::new(), ttl };
    let mut trouble = None;
    for target in targets.into_iter().take(MOST_TARGETS) {
        match addresses(&resolver, &target.host, target.port, family).await {
            Ok((found, its_ttl)) => {
                resolution.addresses.extend(found);
                ttl = ttl.min(its_ttl);
            }
            // The others may do.
            Err(error) => trouble = Some(error),
        }
    }
    resolution.ttl = ttl;
    match trouble {
        Some(error) if resolution.addresses.is_empty() => Err(error),
        _ => Ok(resolution),
    }
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
    family: Family,
) -> Result<(Vec<SocketAddr>, Duration), String> {
    // The servers are reached from one address, and so by its family.
    let records = match family {
        Family::Ipv4 => RecordType::A,
        Family::Ipv6 => RecordType::AAAA,
    };
    let found = resolver
        .lookup(format!("{}.", name.trim_end_matches('.')), records)
        .await
        .map_err(|error| format!("{name}: {error}"))?;
    let ips = found.answers().iter().filter_map(|record| match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    });
    let addresses: Vec<SocketAddr> = ips.map(|ip| SocketAddr::new(ip, port)).collect();
    Ok((addresses, left(&found)))
}

/// How long an answer holds.
fn left(lookup: &Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(Instant::now())
}
