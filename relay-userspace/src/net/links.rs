//! Changes of interfaces: of those that a trial makes in a namespace of its own, or was given for it.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::NeighbourState,
};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::netlink::{Error, Handle};

impl Handle {
    /// Makes a virtual cable with these two ends.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_cable(&self, ends: [&str; 2]) -> Result<(), Error> {
        Ok(self.handle.link().add(LinkVeth::new(ends[0], ends[1]).build()).execute().await?)
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn switch_on(&self, interface: u32) -> Result<(), Error> {
        Ok(self.handle.link().set(LinkUnspec::new_with_index(interface).up().build()).execute().await?)
    }

    /// Whether an interface is switched on, whether or not it has a carrier.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn is_switched_on(&self, interface: u32) -> Result<bool, Error> {
        let link = self.handle.link().get().match_index(interface).execute().try_next().await?;
        Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up)))
    }

    /// The interfaces, by number, that are parts of another: of a bridge, or of a bond.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn parts(&self) -> Result<Vec<u32>, Error> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let is_part = |link: &&LinkMessage| {
            let of =
                |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Controller(of) if *of != 0);
            link.attributes.iter().any(of)
        };
        Ok(links.iter().filter(is_part).map(|link| link.header.index).collect())
    }

    /// Moves an interface into another network namespace. What it had of addresses and routes is gone.
    ///
    /// # Errors
    /// If the kernel refuses, as it does for devices that belong to their namespace.
    pub async fn move_to(&self, interface: u32, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(interface).setns_by_fd(namespace.as_raw_fd()).build();
        Ok(self.handle.link().set(message).execute().await?)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_address(&self, interface: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        Ok(self.handle.address().add(interface, address.into(), prefix).execute().await?)
    }

    /// Tells the kernel a neighbour's hardware address, for good.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_neighbour(&self, interface: u32, ip: IpAddr, address: [u8; 6]) -> Result<(), Error> {
        let request = self.handle.neighbours().add(interface, ip).state(NeighbourState::Permanent);
        Ok(request.link_layer_address(&address).replace().execute().await?)
    }
}
