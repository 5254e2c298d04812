//! The tables that the kernel programs read, and the slots in them.

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use relay_ebpf::headers::Ipv6Address;
use relay_ebpf::{Flow, LocalAddresses, NextHop, PortEntry, tables::port_index};

use super::super::shared::SharedArray;

/// How long a slot rests before it is used again: no packet is under way in the kernel for so long.
const REST: Duration = Duration::from_secs(1);

/// Hands out places in an array; a place that is given back rests before it is handed out again.
#[derive(Debug)]
pub(in super::super) struct Slots {
    resting: VecDeque<(Instant, u32)>,
    fresh: u32,
    capacity: u32,
}

impl Slots {
    pub(in super::super) fn new(capacity: u32) -> Self {
        Self { resting: VecDeque::new(), fresh: 0, capacity }
    }

    pub(in super::super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// From now on these places are in use, and no others.
    pub(in super::super) fn reserve(&mut self, now: Instant, places: &HashSet<u32>) {
        self.fresh = places.iter().max().map_or(0, |last| last + 1);
        let others = (0..self.fresh).filter(|place| !places.contains(place));
        self.resting = others.map(|place| (now, place)).collect();
    }

    /// A place that has rested or was never used; none if all are in use or resting.
    pub(in super::super) fn take(&mut self, now: Instant) -> Option<u32> {
        // Used places first: the memory of an appliance with few calls stays small and warm.
        if self.resting.front().is_some_and(|(since, _)| now >= *since + REST) {
            return self.resting.pop_front().map(|(_, slot)| slot);
        }
        if self.fresh < self.capacity {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        None
    }

    /// The place that has rested longest, even if not for long enough.
    pub(in super::super) fn take_early(&mut self, now: Instant) -> Option<u32> {
        self.take(now).or_else(|| self.resting.pop_front().map(|(_, slot)| slot))
    }

    pub(in super::super) fn give_back(&mut self, now: Instant, slot: u32) {
        self.resting.push_back((now, slot));
    }
}

/// The places of a published flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Slot {
    /// Of the record that its port leads to.
    pub(in super::super) flow: u32,
    /// Of the record by which its RTCP leaves, if that is another.
    pub(in super::super) apart: Option<u32>,
}

/// The kernel's tables, or arrays of the same layout in tests.
#[derive(Debug)]
pub(in super::super) struct KernelTables {
    addresses: LocalAddresses,
    ports: SharedArray<PortEntry>,
    flows: SharedArray<Flow>,
    next_hops: SharedArray<NextHop>,
    slots: Slots,
}

impl KernelTables {
    /// Over these arrays; `local` gets the addresses that the programs are to look for.
    pub(in super::super) fn new(
        addresses: &[IpAddr],
        local: &SharedArray<LocalAddresses>,
        ports: SharedArray<PortEntry>,
        flows: SharedArray<Flow>,
        next_hops: SharedArray<NextHop>,
    ) -> Self {
        let mut record = LocalAddresses::default();
        let ipv4 = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        });
        let ipv6 = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Ipv6Address::new(address.octets())),
        });
        record.first_ipv6 = ipv4.clone().count() as u32;
        record.ipv4.iter_mut().zip(ipv4).for_each(|(place, address)| *place = address);
        record.ipv6.iter_mut().zip(ipv6).for_each(|(place, address)| *place = address);
        record.guarded = 1;
        local.write(0, record);
        let slots = Slots::new(flows.length());
        Self { addresses: record, ports, flows, next_hops, slots }
    }

    /// The place of one of the appliance's own addresses.
    pub(in super::super) fn place(&self, address: SocketAddr) -> Option<u32> {
        match address.ip() {
            IpAddr::V4(address) => self.addresses.place(address.octets()),
            IpAddr::V6(address) => self.addresses.place_ipv6(&Ipv6Address::new(address.octets())),
        }
    }

    /// Writes a flow into a slot of its own and turns the port to it; the `old` slots go to rest. `apart` is the
    /// record by which its RTCP leaves, if the sender multiplexes it.
    ///
    /// None, and the port leads nowhere, if there is no slot; there are as many slots as flows can be installed,
    /// and as a last resort one is used that has rested too short.
    pub(in super::super) fn publish(
        &mut self,
        now: Instant,
        place: u32,
        port: u16,
        flow: Flow,
        apart: Option<Flow>,
        old: Option<Slot>,
    ) -> Option<Slot> {
        let Some(slot) = self.take(now, apart.is_some()) else {
            // Every slot holds a published flow, and so do this one's: the only change that is left is
            // to unpublish, write, and publish again.
            self.unpublish(now, place, port, old?);
            return self.publish(now, place, port, flow, apart, None);
        };
        let mut flow = flow;
        if let (Some(apart), Some(index)) = (apart, slot.apart) {
            self.flows.write(index, Flow { generation: flow.generation, ..apart });
            (flow.rtcp_slot, flow.flags) = (index, flow.flags | Flow::RTCP_APART);
        }
        self.flows.write(slot.flow, flow);
        self.point(place, port, PortEntry::new(slot.flow, flow.stats, flow.generation));
        if let Some(old) = old {
            self.rest(now, old);
        }
        Some(slot)
    }

    fn take(&mut self, now: Instant, with_apart: bool) -> Option<Slot> {
        let flow = self.slots.take_early(now)?;
        if !with_apart {
            return Some(Slot { flow, apart: None });
        }
        let Some(apart) = self.slots.take_early(now) else {
            self.slots.give_back(now, flow);
            return None;
        };
        Some(Slot { flow, apart: Some(apart) })
    }

    fn rest(&mut self, now: Instant, slot: Slot) {
        self.slots.give_back(now, slot.flow);
        if let Some(apart) = slot.apart {
            self.slots.give_back(now, apart);
        }
    }

    /// Takes a port's flow away.
    pub(in super::super) fn unpublish(&mut self, now: Instant, place: u32, port: u16, slot: Slot) {
        self.point(place, port, PortEntry::default());
        self.rest(now, slot);
    }

    /// Writes over a slot that is published, as no datapath may.
    pub(super) fn overwrite(&self, slot: u32, flow: Flow) {
        self.flows.write(slot, flow);
    }

    /// Has the kernel guard a port of SIP, which never has a flow.
    pub(in super::super) fn guard(&self, address: SocketAddr) {
        if let Some(place) = self.place(address) {
            self.point(place, address.port(), PortEntry::GUARDED);
        }
    }

    fn point(&self, place: u32, port: u16, entry: PortEntry) {
        self.ports.store_word(port_index(place, port.to_be_bytes()), 0, entry.word());
    }

    /// Writes a next hop: all but the neighbour's hardware address.
    pub(super) fn write_hop(&self, index: u32, hop: NextHop) {
        self.next_hops.write(index, hop);
    }

    /// Writes a next hop's neighbour in one store.
    pub(super) fn store_neighbour(&self, index: u32, hop: &NextHop) {
        self.next_hops.store_word(index, 0, hop.destination.0);
    }

    #[cfg(test)]
    pub(in super::super) fn flow_behind(&self, local: SocketAddr) -> Option<Flow> {
        let entry = self.ports.read(port_index(self.place(local)?, local.port().to_be_bytes()));
        let flow = self.flows.read(entry.slot());
        (entry.generation() != 0 && flow.generation == entry.generation()).then_some(flow)
    }

    /// The record by which the RTCP of a flow leaves.
    #[cfg(test)]
    pub(in super::super) fn rtcp_behind(&self, local: SocketAddr) -> Option<Flow> {
        let flow = self.flow_behind(local).filter(|flow| flow.flags & Flow::RTCP_APART != 0)?;
        Some(self.flows.read(flow.rtcp_slot)).filter(|apart| apart.generation == flow.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_rests_before_it_is_handed_out_again() {
        let start = Instant::now();
        let mut slots = Slots::new(2);
        assert_eq!((slots.take(start), slots.take(start), slots.take(start)), (Some(0), Some(1), None));
        slots.give_back(start, 1);
        assert_eq!(slots.take(start + REST / 2), None);
        assert_eq!(slots.take(start + REST), Some(1));
        slots.give_back(start, 0);
        assert_eq!(slots.take_early(start), Some(0));
    }

    #[test]
    fn places_that_are_reserved_are_not_handed_out() {
        let start = Instant::now();
        let mut slots = Slots::new(4);
        slots.reserve(start, &HashSet::from([0, 2]));
        let later = start + REST;
        assert_eq!([0; 3].map(|_| slots.take(later)), [Some(1), Some(3), None]);
        slots.reserve(start, &HashSet::new());
        assert_eq!(slots.take(start), Some(0));
    }
}
