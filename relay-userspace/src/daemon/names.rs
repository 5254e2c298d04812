//! Servers' names to addresses. RFC 3263: a name alone by NAPTR records, one with a transport by SRV records, one with a
//! port by its addresses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType},
    },
};
use rand::RngExt as _;
use tracing::debug;

use super::core::Core;
use crate::{
    config::{ChosenBy, Host, ServerUri},
    net::{Family, Transport, dns::resolver},
    upstream::{DomainService, NaptrRecord, Resolution, SrvRecord, Wanted, order, services, usual_services},
};

/// SRV records that are put into order, the first by priority.
const MOST_RECORDS: usize = 64;
/// SRV targets whose addresses are looked up.
const MOST_TARGETS: usize = 8;
/// How long all look-ups for one server may take.
const LONGEST: Duration = Duration::from_secs(30);

/// Resolves a server's name and tells the proxy. Boxed: what the proxy then wants done may be to resolve again.
pub(super) fn resolve(core: Arc<Core>, server: ServerUri, dns: Vec<IpAddr>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Host::Name(name) = &server.host else { return };
        let family = core.state().proxy.server_family(&server);
        let result = look_up(&server, name, &dns, family).await;
        debug!(%server, ?result, "name resolved");
        core.resolved(&server, result).await;
    })
}

/// Looks a server up. What DNS says is followed for so many names and so long, whatever it says.
async fn look_up(
    server: &ServerUri,
    name: &str,
    dns: &[IpAddr],
    family: Family,
) -> Result<Resolution, String> {
    let resolver =
        resolver(dns).map_err(|error| format!("the system's servers of DNS are not known: {error}"))?;
    let looked_up = tokio::time::timeout(LONGEST, find(&resolver, server, name, family)).await;
    looked_up.unwrap_or_else(|_| Err(format!("{name}: DNS took longer than {} s", LONGEST.as_secs())))
}

async fn find(
    resolver: &TokioResolver,
    server: &ServerUri,
    name: &str,
    family: Family,
) -> Result<Resolution, String> {
    if let Some(port) = server.port {
        return by_address(resolver, name, server.transport, port, family).await;
    }
    let wanted = if server.transport == Transport::Tls { Wanted::Secure } else { Wanted::Any };
    let mut ttl = Duration::MAX;
    if server.chosen_by == ChosenBy::Domain {
        for equals in services(naptr(resolver, name, &mut ttl).await?, wanted) {
            let mut records = Vec::new();
            for service in &equals {
                // One that leads nowhere is passed over; the others may do.
                records.extend(srv(resolver, service, &mut ttl).await.unwrap_or_default());
            }
            if !records.is_empty() {
                return targets(resolver, records, ttl, family).await;
            }
        }
    }
    let usual = usual_services(name, wanted).into_iter();
    let mut trouble = None;
    for service in usual.filter(|it| server.chosen_by == ChosenBy::Domain || it.transport == server.transport)
    {
        match srv(resolver, &service, &mut ttl).await {
            Ok(records) if records.is_empty() => {}
            Ok(records) => return targets(resolver, records, ttl, family).await,
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) => Err(error),
        // RFC 3263 section 4.2: without SRV records the name itself is looked up.
        None => by_address(resolver, name, server.transport, server.transport.default_port(), family).await,
    }
}

/// A name's addresses with a port.
async fn by_address(
    resolver: &TokioResolver,
    name: &str,
    transport: Transport,
    port: u16,
    family: Family,
) -> Result<Resolution, String> {
    let (addresses, ttl) = addresses(resolver, name, port, family).await?;
    Ok(Resolution { places: addresses.into_iter().map(|address| (transport, address)).collect(), ttl })
}

/// The addresses of the targets of SRV records, in their order; all of one target before those of the next.
async fn targets(
    resolver: &TokioResolver,
    records: Vec<SrvRecord>,
    mut ttl: Duration,
    family: Family,
) -> Result<Resolution, String> {
    let mut records = records;
    records.sort_by_key(|record| record.priority);
    records.truncate(MOST_RECORDS);
    let records = order(records, |most| rand::rng().random_range(0..=most));
    let mut places = Vec::new();
    let mut trouble = None;
    for target in records.into_iter().take(MOST_TARGETS) {
        match addresses(resolver, &target.host, target.port, family).await {
            Ok((found, its_ttl)) => {
                places.extend(found.into_iter().map(|address| (target.transport, address)));
                ttl = ttl.min(its_ttl);
            }
            // The others may do.
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) if places.is_empty() => Err(error),
        _ => Ok(Resolution { places, ttl }),
    }
}

/// A domain's NAPTR records. None, if it has none, and if a forwarder of DNS knows no such records: then the others have to
/// do. Silence says neither: a domain that wants TLS must not become one of UDP for it.
async fn naptr(resolver: &TokioResolver, name: &str, ttl: &mut Duration) -> Result<Vec<NaptrRecord>, String> {
    let found = match resolver.lookup(format!("{}.", name.trim_end_matches('.')), RecordType::NAPTR).await {
        Ok(found) => found,
        Err(error) => {
            let unknown = matches!(
                &error,
                NetError::Dns(DnsError::ResponseCode(
                    ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr
                ))
            );
            if !(unknown || error.is_no_records_found() || error.is_nx_domain()) {
                return Err(format!("{name}: {error}"));
            }
            debug!(name, %error, "no NAPTR records");
            return Ok(Vec::new());
        }
    };
    *ttl = left(&found).min(*ttl);
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::NAPTR(naptr) => Some(NaptrRecord {
            order: naptr.order,
            preference: naptr.preference,
            flags: naptr.flags.to_vec(),
            services: naptr.services.to_vec(),
            regexp: naptr.regexp.to_vec(),
            replacement: naptr.replacement.to_utf8().trim_end_matches('.').to_owned(),
        }),
        _ => None,
    });
    Ok(records.collect())
}

/// The SRV records of a name; empty if it has none.
async fn srv(
    resolver: &TokioResolver,
    service: &DomainService,
    ttl: &mut Duration,
) -> Result<Vec<SrvRecord>, String> {
    let found = match resolver.lookup(format!("{}.", service.name), RecordType::SRV).await {
        Ok(found) => found,
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", service.name)),
    };
    *ttl = left(&found).min(*ttl);
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(SrvRecord {
            transport: service.transport,
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
        }),
        _ => None,
    });
    // RFC 2782: a target "." says that there is no such service here.
    Ok(records.filter(|record| !record.host.is_empty()).collect())
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
