//! Servers of DNS, as the configuration or the system names them.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// How long one server of DNS may take, and how often each is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// A resolver as the system is set up now: when a VPN comes up, its servers of DNS do too. Without `dns`, the system's
/// servers are asked.
///
/// # Errors
/// The system's servers are not known.
pub fn resolver(dns: &[IpAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if dns.is_empty() {
        Resolver::builder_tokio()?
    } else {
        let servers = dns.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
        Resolver::builder_with_config(
            ResolverConfig::from_name_servers(servers),
            TokioRuntimeProvider::default(),
        )
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = ATTEMPTS;
    builder.build()
}
