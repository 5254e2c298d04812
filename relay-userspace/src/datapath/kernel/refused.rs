//! The sources whose packets the kernel refused, as its table of them says.
//!
//! The table is shared by all flows and bounded: under a flood from many sources the one that was heard longest ago gives
//! way, and the flow's own counter still has every packet. Invariant: what is kept of a flow goes with it, as its place
//! in the statistics is given to another.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use aya::maps::{HashMap as Table, Map, MapData, MapError};
use relay_ebpf::tables::{RefusedPackets, RefusedSource};
use tracing::warn;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::super::{
    flow::{self, Refuser},
    shared::{monotonic_ns, realtime_ns},
};

/// A [`RefusedSource`] as the kernel takes it.
type Key = [u8; size_of::<RefusedSource>()];
/// A [`RefusedPackets`] as the kernel gives it.
type Value = [u64; size_of::<RefusedPackets>() / 8];

/// The kernel's table of refused sources.
#[derive(Debug)]
pub struct RefusedSources {
    table: Table<MapData, Key, Value>,
}

impl RefusedSources {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { table: Table::try_from(map)? })
    }

    /// The sources that each flow refused, by the flow's place in the statistics; those that came first stand first.
    #[must_use]
    pub fn all(&self) -> HashMap<u32, Vec<flow::RefusedSource>> {
        let mut all: HashMap<u32, Vec<flow::RefusedSource>> = HashMap::new();
        // The kernel's clock counts from its start.
        let started_ns = realtime_ns().saturating_sub(monotonic_ns());
        let unix_ms = |ns: u64| started_ns.saturating_add(ns) / 1_000_000;
        for (key, [packets, first_ns, last_ns]) in self.entries() {
            all.entry(key.stats).or_default().push(flow::RefusedSource {
                source: source(&key),
                packets,
                first_unix_ms: unix_ms(first_ns),
                last_unix_ms: unix_ms(last_ns),
                by: Refuser::Kernel,
            });
        }
        all.values_mut().for_each(|sources| sources.sort_by_key(|source| source.first_unix_ms));
        all
    }

    /// Forgets what a flow refused.
    pub(in super::super) fn forget(&mut self, stats: u32) {
        let keys: Vec<RefusedSource> =
            self.entries().map(|(key, _)| key).filter(|key| key.stats == stats).collect();
        for key in keys {
            let mut bytes: Key = [0; size_of::<RefusedSource>()];
            bytes.copy_from_slice(key.as_bytes());
            match self.table.remove(&bytes) {
                // The kernel has made room for another meanwhile.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => warn!(%error, "a refused source cannot be forgotten"),
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (RefusedSource, Value)> {
        self.table.iter().filter_map(|entry| {
            let (key, value) = entry.ok()?;
            Some((RefusedSource::read_from_bytes(&key).ok()?, value))
        })
    }
}

fn source(key: &RefusedSource) -> SocketAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(key.address.as_bytes());
    let address = Ipv6Addr::from(octets);
    let ip = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(ip, u16::from_be_bytes(key.port))
}
