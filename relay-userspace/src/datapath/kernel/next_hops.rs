//! Next hops: which neighbour and interface media leaves by, one record for each address that media goes
//! to, shared by all flows that go there.
//!
//! This is the bookkeeping; [`super::resolver`] asks netlink and tells it what it heard. A hop whose
//! neighbour is not known is there all the same: the kernel passes its packets up, userspace sends them,
//! and the stack resolves the neighbour on the way.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use relay_ebpf::{
    NextHop,
    tables::{Link, MAX_NEXT_HOPS},
};

use super::tables::KernelTables;

/// The link layer of an interface that packets leave by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum LinkLayer {
    /// Ethernet.
    Ethernet {
        /// The interface's hardware address.
        source: [u8; 6],
        /// The neighbour's hardware address.
        neighbour: [u8; 6],
        /// The VLAN id of the tag that packets leave with.
        vlan: Option<u16>,
    },
    /// None: a tunnel.
    Nothing,
}

/// What netlink says about the way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Resolution {
    /// The interface by which packets leave: for an 802.1Q device that which it stands on.
    pub index: u32,
    /// Whether its driver can turn packets back that came by it.
    pub turns_back: bool,
    /// Its place in the map of devices.
    pub device: u32,
    /// The MTU of the way in bytes.
    pub mtu: u16,
    /// How packets leave by it.
    pub link: LinkLayer,
    /// Why only TC can send by it; none if XDP can.
    pub by_tc: Option<String>,
}

impl Resolution {
    /// The kernel's record of it.
    fn record(&self) -> NextHop {
        let (destination, source, tag, mut flags) = match &self.link {
            LinkLayer::Ethernet { source, neighbour, vlan } => {
                let tagged = if vlan.is_some() { NextHop::TAGGED } else { 0 };
                (Link::new(*neighbour, 1), *source, vlan.unwrap_or_default().to_be_bytes(), tagged)
            }
            LinkLayer::Nothing => (Link::new([0; 6], 1), [0; 6], [0; 2], NextHop::LAYER3),
        };
        if self.by_tc.is_some() {
            flags |= NextHop::BY_TC;
        }
        NextHop {
            destination,
            source: Link::new(source, self.mtu),
            interface: if self.turns_back { self.index } else { NextHop::ALWAYS_REDIRECT },
            device: self.device,
            tag,
            flags,
            padding: 0,
            index: self.index,
        }
    }
}

#[derive(Debug)]
struct Hop {
    index: u32,
    flows: u32,
    resolution: Result<Resolution, String>,
}

/// All next hops in use.
#[derive(Debug)]
pub(in super::super) struct NextHops {
    hops: HashMap<IpAddr, Hop>,
    free: VecDeque<u32>,
    unresolved: Vec<IpAddr>,
}

impl Default for NextHops {
    fn default() -> Self {
        Self { hops: HashMap::new(), free: (0..MAX_NEXT_HOPS).collect(), unresolved: Vec::new() }
    }
}

impl NextHops {
    /// The index of the way to an address, for one more flow; none if there are too many ways.
    pub(in super::super) fn acquire(&mut self, tables: &KernelTables, to: IpAddr) -> Option<u32> {
        if let Some(hop) = self.hops.get_mut(&to) {
            hop.flows += 1;
            return Some(hop.index);
        }
        if self.free.is_empty() {
            let idle = self.hops.iter().find(|(_, hop)| hop.flows == 0).map(|(to, _)| *to)?;
            self.forget(tables, idle);
        }
        let index = self.free.pop_front()?;
        let resolution = Err("the way there is being looked up".to_owned());
        self.hops.insert(to, Hop { index, flows: 1, resolution });
        self.unresolved.push(to);
        Some(index)
    }

    /// One flow less goes there.
    pub(in super::super) fn release(&mut self, tables: &KernelTables, to: IpAddr) {
        let Some(hop) = self.hops.get_mut(&to) else { return };
        hop.flows = hop.flows.saturating_sub(1);
        // Servers and phones are called again: a way that is known is kept while there is room.
        if hop.flows == 0 && self.free.len() < MAX_NEXT_HOPS as usize / 2 {
            self.forget(tables, to);
        }
    }

    fn forget(&mut self, tables: &KernelTables, to: IpAddr) {
        if let Some(hop) = self.hops.remove(&to) {
            tables.write_hop(hop.index, NextHop::default());
            self.free.push_back(hop.index);
        }
    }

    /// What keeps the kernel from using the way to an address; none if nothing does.
    pub(in super::super) fn missing(&self, to: IpAddr) -> Option<String> {
        self.hops.get(&to).and_then(|hop| hop.resolution.as_ref().err().cloned())
    }

    /// Why only TC can send to an address; none if XDP can, or the way is not known.
    pub(in super::super) fn by_tc(&self, to: IpAddr) -> Option<String> {
        self.hops.get(&to)?.resolution.as_ref().ok()?.by_tc.clone()
    }

    /// Whether there are addresses to look up.
    pub(in super::super) fn has_unresolved(&self) -> bool {
        !self.unresolved.is_empty()
    }

    /// The addresses to look up since the last call.
    pub(super) fn take_unresolved(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.unresolved)
    }

    /// All addresses that media goes to.
    pub(in super::super) fn destinations(&self) -> Vec<IpAddr> {
        self.hops.keys().copied().collect()
    }

    /// Whether the kernel must stop using a way before it learns of another: true if another interface
    /// is to be used, which cannot be changed in one store.
    pub(super) fn must_pause(&self, to: IpAddr, new: &Result<Resolution, String>) -> bool {
        let Some(Ok(old)) = self.hops.get(&to).map(|hop| &hop.resolution) else { return false };
        let without_neighbour = |way: &Resolution| NextHop { destination: Link::default(), ..way.record() };
        new.as_ref().is_ok_and(|new| without_neighbour(new) != without_neighbour(old))
    }

    /// Takes what netlink says about the way to an address.
    pub(in super::super) fn resolved(
        &mut self,
        tables: &KernelTables,
        to: IpAddr,
        new: Result<Resolution, String>,
    ) {
        let Some(hop) = self.hops.get_mut(&to) else { return };
        if hop.resolution == new {
            return;
        }
        match &new {
            Ok(new) => {
                let known = new.record();
                if hop.resolution.is_err() {
                    tables.write_hop(hop.index, NextHop { destination: Link::default(), ..known });
                }
                tables.store_neighbour(hop.index, &known);
            }
            Err(_) => tables.store_neighbour(hop.index, &NextHop::default()),
        }
        hop.resolution = new;
    }
}
