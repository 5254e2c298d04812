//! Bindings, and the phones that servers have registered, into the store and back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{error, info};

use super::{certificates::now_unix, core::Core};
use crate::{
    net::{NetworkId, Transport},
    registrar::{Binding, KnownPhone},
    sip::Hop,
    store::{Store, StoreError, StoredBinding, StoredPhone, text},
};

/// How often changes are written.
const EVERY: Duration = Duration::from_secs(5);

/// The bindings of the store, as the registrar has them. Those of networks that are gone are left out.
pub(super) fn restore(store: &Store, networks: &[String]) -> Vec<Binding> {
    let (now, unix) = (Instant::now(), now_unix());
    let stored = match store.bindings(unix) {
        Ok(stored) => stored,
        Err(error) => {
            error!(%error, "the phones' bindings cannot be read; calls to a phone wait for its next REGISTER");
            return Vec::new();
        }
    };
    let bindings: Vec<Binding> =
        stored.into_iter().filter_map(|stored| binding(&stored, networks, now, unix)).collect();
    if !bindings.is_empty() {
        info!(count = bindings.len(), "phones are known from before");
    }
    bindings
}

fn binding(stored: &StoredBinding, networks: &[String], now: Instant, unix: i64) -> Option<Binding> {
    let network = networks.iter().position(|name| *name == stored.network)?;
    let source = Hop {
        network: NetworkId(u16::try_from(network).ok()?),
        transport: Transport::of_label(&stored.transport)?,
        address: stored.source.parse().ok()?,
    };
    let seconds = |span: i64| Duration::from_secs(u64::try_from(span).unwrap_or(0));
    Some(Binding {
        aor: stored.aor.clone().into(),
        user: stored.user.clone().into(),
        contact: stored.contact.clone().into(),
        source,
        // The connection ended with the process that had it.
        disconnected: source.transport.is_reliable(),
        call_id: stored.call_id.clone().into(),
        cseq: stored.cseq,
        user_agent: stored.user_agent.clone(),
        token: stored.token,
        registered: now.checked_sub(seconds(unix - stored.registered_unix)).unwrap_or(now),
        expires: now + seconds(stored.expires_unix - unix),
    })
}

/// The phones that servers had registered, as the registrar has them.
pub(super) fn restore_known(store: &Store, networks: &[String], remember: Duration) -> Vec<KnownPhone> {
    let (now, unix) = (Instant::now(), now_unix());
    let since = unix - i64::try_from(remember.as_secs()).unwrap_or(i64::MAX / 2);
    match store.known_phones(since) {
        Ok(stored) => stored.into_iter().map(|stored| known(stored, networks, now, unix)).collect(),
        Err(error) => {
            error!(%error, "the phones that servers have registered cannot be read; without a server nobody is known");
            Vec::new()
        }
    }
}

fn known(stored: StoredPhone, networks: &[String], now: Instant, unix: i64) -> KnownPhone {
    let at = |seen: i64| {
        let ago = Duration::from_secs(u64::try_from(unix - seen).unwrap_or(0));
        now.checked_sub(ago).unwrap_or(now)
    };
    let place = |(network, address, seen): (String, String, i64)| {
        let network = networks.iter().position(|name| *name == network)?;
        Some((NetworkId(u16::try_from(network).ok()?), address.parse().ok()?, at(seen)))
    };
    KnownPhone {
        aor: stored.aor.into(),
        user: stored.user.into(),
        addresses: stored.addresses.into_iter().filter_map(place).collect(),
        numbers: stored.numbers,
        digest: stored.digest,
        seen: at(stored.seen_unix),
    }
}

fn stored_phone(phone: &KnownPhone, networks: &[String], now: Instant, unix: i64) -> Option<StoredPhone> {
    let unix_of =
        |seen: Instant| unix - i64::try_from(now.saturating_duration_since(seen).as_secs()).unwrap_or(0);
    let place = |(network, address, seen): &(NetworkId, std::net::IpAddr, Instant)| {
        Some((networks.get(network.index())?.clone(), address.to_string(), unix_of(*seen)))
    };
    Some(StoredPhone {
        aor: text(&phone.aor)?,
        user: text(&phone.user)?,
        addresses: phone.addresses.iter().filter_map(place).collect(),
        numbers: phone.numbers.clone(),
        digest: phone.digest.clone(),
        seen_unix: unix_of(phone.seen),
    })
}

/// As it is kept; `None` for one with bytes that are no text, whose phone has to register anew.
fn stored(binding: &Binding, networks: &[String], now: Instant, unix: i64) -> Option<StoredBinding> {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    Some(StoredBinding {
        token: binding.token,
        aor: text(&binding.aor)?,
        user: text(&binding.user)?,
        contact: text(&binding.contact)?,
        network: networks.get(binding.source.network.index())?.clone(),
        transport: binding.source.transport.as_label().to_owned(),
        source: binding.source.address.to_string(),
        call_id: text(&binding.call_id)?,
        cseq: binding.cseq,
        user_agent: binding.user_agent.clone(),
        registered_unix: unix - seconds(now.saturating_duration_since(binding.registered)),
        expires_unix: unix + seconds(binding.expires.saturating_duration_since(now)),
    })
}

/// What is there now.
struct Snapshot {
    bindings: Vec<StoredBinding>,
    known: Vec<StoredPhone>,
}

impl Snapshot {
    fn take(core: &Core, networks: &[String]) -> Self {
        let (now, unix) = (Instant::now(), now_unix());
        let state = core.state();
        let bindings = state.proxy.bindings().filter_map(|binding| stored(binding, networks, now, unix));
        let known = state.proxy.known_phones().filter_map(|phone| stored_phone(phone, networks, now, unix));
        Self { bindings: bindings.collect(), known: known.collect() }
    }

    fn write(&self, store: &Store) -> Result<(), StoreError> {
        store.put_bindings(&self.bindings)?;
        store.put_known_phones(&self.known)
    }
}

/// Writes the bindings when they have changed, off the paths of messages, until it is told to stop; what it has begun is
/// then written.
pub(super) async fn keep(core: Arc<Core>, networks: Vec<String>, mut stop: watch::Receiver<()>) {
    // The log says once that it began to fail, and once that it works again.
    let (mut written, mut failing) = (None, false);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let changes = core.state().proxy.binding_changes();
        if written == Some(changes) {
            continue;
        }
        let (store, snapshot) = (Arc::clone(&core.store), Snapshot::take(&core, &networks));
        let done = tokio::task::spawn_blocking(move || snapshot.write(&store)).await;
        match done.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()))
        {
            Ok(()) => {
                written = Some(changes);
                if std::mem::take(&mut failing) {
                    info!("the phones' bindings are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    error!(
                        error,
                        "the phones' bindings cannot be written; after a restart, calls to a phone wait for its next REGISTER"
                    );
                }
            }
        }
    }
}

/// Writes them once more, on the way out.
pub(super) fn keep_last(core: &Core, networks: &[String]) {
    if let Err(error) = Snapshot::take(core, networks).write(&core.store) {
        error!(%error, "the phones' bindings cannot be written");
    }
}
