//! Watches whether each network still has the address that the daemon found at its start.
//!
//! A network without a configured address takes its interface's first. A lease may give the interface another one, and
//! then the sockets, what phones and servers are told, and the kernel's tables are all of the old: the daemon starts anew
//! in place, which keeps the phones' bindings and the calls between other networks. An interface that has no address at
//! the moment is waited for.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tracing::{debug, warn};

use super::{fits, views::Views};
use crate::config::Config;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(3);

/// The address of each network.
type Addresses = Vec<(String, IpAddr)>;

/// What the host has now; none if a network has no address that it could use.
async fn now(config: &Config) -> Option<Addresses> {
    let host = fits::Host::read().await.inspect_err(|error| debug!(%error, "reading addresses")).ok()?;
    let ready = fits::find_addresses(config, &host).ok()?;
    Some(ready.into_iter().map(|ready| (ready.network.name.clone(), ready.address)).collect())
}

/// Looks as long as it is polled, or until it has had the daemon start anew. `found` are the addresses that it has started
/// with.
pub(super) async fn watch(views: Arc<Views>, config: Config, found: Addresses) {
    let mut seen = found.clone();
    let mut told = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(addresses) = now(&config).await else { continue };
        // Twice the same: while a lease changes, an interface has one address and then the other.
        let is_steady = std::mem::replace(&mut seen, addresses.clone()) == addresses;
        if addresses == found || !is_steady {
            continue;
        }
        let obstacle = views.reloader.can_start().err().map(|error| error.to_string());
        // What keeps it from starting anew is looked at each time, and told once.
        let news = Some((addresses.clone(), obstacle.clone()));
        if told != news {
            for ((network, before), (_, now)) in found.iter().zip(&addresses).filter(|(old, new)| old != new)
            {
                warn!(network, %before, %now, "the network's interface has another address");
            }
            match &obstacle {
                None => warn!("starting anew with it"),
                Some(error) => warn!(error, "it goes on as it is, since it could not start"),
            }
            told = news;
        }
        if obstacle.is_none() {
            views.core.restart.notify_one();
            return;
        }
    }
}
