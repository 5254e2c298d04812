//! What the appliance asks of netlink: interfaces, routes, neighbours, and news of their changes.
//!
//! A thin driver: it turns rtnetlink's messages into the few facts that other rooms need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, State,
        VlanProtocol, VlanQosMapping, XdpAttached,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{MulticastGroup, RouteMessageBuilder};
use thiserror::Error;
use tokio::sync::mpsc;

/// Why netlink could not be asked.
#[derive(Debug, Error)]
pub enum Error {
    /// No netlink socket.
    #[error("no netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused a request.
    #[error("{0}")]
    Request(#[from] rtnetlink::Error),
}

/// What XDP program is on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// None.
    Nothing,
    /// One.
    Program {
        /// The kernel's number of it.
        program: u32,
        /// Whether the driver runs it.
        native: bool,
    },
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet device.
    pub address: Option<[u8; 6]>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it can carry packets.
    pub up: bool,
    /// Its kind, if it is a virtual one: `veth`, `bridge`, ...
    pub kind: Option<String>,
    /// Its XDP program.
    pub xdp: Attached,
    /// Whether its packets begin with the IP header, as those of a tunnel do.
    pub layer3: bool,
    /// The interface that it stands on, by number, if it is a virtual one on another of this namespace.
    pub parent: Option<u32>,
    /// The VLAN id that its packets are tagged with on `parent`, if it is an 802.1Q device.
    pub vlan: Option<u16>,
}

/// The way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface by which packets leave.
    pub interface: u32,
    /// The neighbour that they go to: a gateway, or the address itself.
    pub neighbour: IpAddr,
    /// Whether the address is this host's own.
    pub local: bool,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub interface: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, if it is known and usable.
    pub address: Option<[u8; 6]>,
    /// Whether its address was known but has not been confirmed for a while.
    pub stale: bool,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// An interface came, went or changed.
    Link,
    /// A route came, went or changed.
    Route,
    /// A neighbour did.
    Neighbour(Neighbour),
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: u32,
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
}

/// A netlink socket to ask.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) handle: rtnetlink::Handle,
}

/// News that nobody has taken yet; what is more than this many is lost until all is read again.
const NEWS_QUEUE: usize = 1024;

/// Opens a netlink socket in this process's network namespace, within a tokio runtime.
///
/// # Errors
/// If there is no such socket.
pub fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(Handle { handle })
}

/// Subscribes to changes of interfaces, routes and neighbours, within a tokio runtime.
///
/// # Errors
/// If there is no such socket.
pub fn subscribe() -> Result<mpsc::Receiver<News>, Error> {
    let groups =
        [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    let (sender, news) = mpsc::channel(NEWS_QUEUE);
    tokio::spawn(connection);
    tokio::spawn(async move {
        // The connection ends with its last handle.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            let message = match message.payload {
                NetlinkPayload::InnerMessage(message) => message,
                // The kernel had more news than the socket could hold: anything may have changed.
                NetlinkPayload::Overrun(_) => {
                    let _ = sender.try_send(News::Link);
                    continue;
                }
                _ => continue,
            };
            let item = match message {
                RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => Some(News::Link),
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Some(News::Route),
                RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message).map(News::Neighbour),
                RouteNetlinkMessage::DelNeighbour(message) => neighbour(&message)
                    .map(|gone| News::Neighbour(Neighbour { address: None, stale: false, ..gone })),
                _ => None,
            };
            // A full queue has news enough: its reader looks at everything again now and then.
            if let Some(item) = item
                && let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(item)
            {
                return;
            }
        }
    });
    Ok(news)
}

impl Handle {
    /// An interface by its name.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name))
    }

    /// All interfaces.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        Ok(links.iter().map(link).collect())
    }

    /// Has an 802.1Q device put these 802.1p priorities into the tags of packets whose sockets have the same number as
    /// their priority; others stay as they are.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn set_vlan_priorities(&self, link: &Link, priorities: &[u8]) -> Result<(), Error> {
        let mappings = priorities.iter().map(|&it| VlanQosMapping::Mapping(it.into(), it.into()));
        let data = InfoData::Vlan(vec![InfoVlan::EgressQos(mappings.collect())]);
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes =
            vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)])];
        Ok(self.handle.link().change(message).execute().await?)
    }

    /// All addresses of all interfaces.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn addresses(&self) -> Result<Vec<InterfaceAddress>, Error> {
        let addresses: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
        Ok(addresses
            .iter()
            .filter_map(|message| {
                let ip = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(ip) => Some(*ip),
                    _ => None,
                });
                let ip = ip.or_else(|| {
                    message.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Address(ip) => Some(*ip),
                        _ => None,
                    })
                })?;
                Some(InterfaceAddress {
                    interface: message.header.index,
                    ip,
                    prefix: message.header.prefix_len,
                })
            })
            .collect())
    }

    /// The way to an address, as the kernel would choose it now.
    ///
    /// # Errors
    /// If there is none, or the kernel refuses to say.
    pub async fn route(&self, to: IpAddr) -> Result<Option<Route>, Error> {
        let request = match to {
            IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build(),
            IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build(),
        };
        let answer: Option<RouteMessage> = self.handle.route().get(request).execute().try_next().await?;
        Ok(answer.and_then(|message| route(&message, to)))
    }

    /// All IPv4 routes' destinations with their prefix length and interface; for the doctor.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn routes(&self) -> Result<Vec<(Ipv4Addr, u8, u32)>, Error> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self.handle.route().get(request).execute().try_collect().await?;
        Ok(routes
            .iter()
            .filter(|message| message.header.kind == RouteType::Unicast)
            .filter_map(|message| {
                let mut destination = Ipv4Addr::UNSPECIFIED;
                let mut interface = None;
                for attribute in &message.attributes {
                    match attribute {
                        RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = *ip,
                        RouteAttribute::Oif(index) => interface = Some(*index),
                        _ => {}
                    }
                }
                Some((destination, message.header.destination_prefix_length, interface?))
            })
            .collect())
    }

    /// All neighbours.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let messages: Vec<NeighbourMessage> = self.handle.neighbours().get().execute().try_collect().await?;
        Ok(messages.iter().filter_map(neighbour).collect())
    }

    /// Asks the kernel to find out, or to confirm, a neighbour's hardware address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn probe(&self, interface: u32, ip: IpAddr) -> Result<(), Error> {
        self.handle
            .neighbours()
            .add(interface, ip)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await?;
        Ok(())
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        address: None,
        mtu: 0,
        up: false,
        kind: None,
        xdp: Attached::Nothing,
        layer3: is_layer3(message.header.link_layer_type),
        parent: None,
        vlan: None,
    };
    let (mut program, mut attached) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) if message.header.link_layer_type == LinkLayerType::Ether => {
                link.address = address.as_slice().try_into().ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::OperState(state) => link.up = matches!(state, State::Up | State::Unknown),
            LinkAttribute::Link(parent) => link.parent = Some(*parent),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind_name(kind)),
                        LinkInfo::Data(InfoData::Vlan(vlan)) => link.vlan = vlan_id(vlan),
                        _ => {}
                    }
                }
            }
            LinkAttribute::Xdp(xdps) => {
                for xdp in xdps {
                    match xdp {
                        LinkXdp::Attached(how) => attached = Some(*how),
                        LinkXdp::ProgId(id) => program = *id,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.xdp = match attached {
        None | Some(XdpAttached::None) => Attached::Nothing,
        Some(XdpAttached::SocketBuffer) => Attached::Program { program, native: false },
        Some(_) => Attached::Program { program, native: true },
    };
    link
}

/// Whether packets of such devices have no link layer: the kernel's own list (`dev_is_mac_header_xmit`), but for
/// `ARPHRD_VOID`, as which the library reads types that it does not know.
fn is_layer3(kind: LinkLayerType) -> bool {
    use LinkLayerType as Type;
    matches!(
        kind,
        Type::None
            | Type::Tunnel
            | Type::Tunnel6
            | Type::Sit
            | Type::Ipgre
            | Type::Ip6gre
            | Type::Rawip
            | Type::Pimreg
            | Type::Ppp
    )
}

/// The VLAN id of an 802.1Q device; none for other tags.
fn vlan_id(infos: &[InfoVlan]) -> Option<u16> {
    let foreign = |info: &InfoVlan| matches!(info, InfoVlan::Protocol(protocol) if *protocol != VlanProtocol::Ieee8021Q);
    if infos.iter().any(foreign) {
        return None;
    }
    infos.iter().find_map(|info| if let InfoVlan::Id(id) = info { Some(*id) } else { None })
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

fn route(message: &RouteMessage, to: IpAddr) -> Option<Route> {
    let mut interface = None;
    let mut neighbour = to;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = IpAddr::V4(*gateway),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => neighbour = IpAddr::V6(*gateway),
            _ => {}
        }
    }
    Some(Route { interface: interface?, neighbour, local: message.header.kind == RouteType::Local })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let (mut ip, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => ip = Some(IpAddr::V4(*to)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => ip = Some(IpAddr::V6(*to)),
            NeighbourAttribute::LinkLayerAddress(bytes) => address = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    Some(Neighbour {
        interface: message.header.ifindex,
        ip: ip?,
        address: address.filter(|_| usable),
        stale: message.header.state == NeighbourState::Stale,
    })
}
