//! What an earlier process has left, and how its place is taken.
//!
//! This process fills tables of its own with the flows that the store tells of, and then exchanges the program behind each
//! pinned link, in one step for each interface: no packet meets a half-made datapath, and none is without one. It works the
//! same when the new program has another layout of tables, since none but the statistics are shared; those are taken over
//! where the layout is the same, so that nothing is counted as lost between the two.
//!
//! What was learned is read from the former tables, for the store may be a moment behind. A flow of which the store knows
//! no call is not written to the new tables, and is gone with the former ones.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    maps::MapData,
    programs::{
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
        xdp::XdpLink,
    },
};
use relay_ebpf::{Flow, FlowState, LocalAddresses, PortEntry, headers::Ipv6Address, tables::port_index};
use tracing::{debug, info};

use super::{
    super::shared::{Record, SharedArray},
    pins::{Pins, attachment, remove},
    programs::{Programs, RELAY},
};
use crate::net::netlink::{self, Attached};

/// How long the kernel may take to let go of an attachment that is no longer pinned.
const LETTING_GO: Duration = Duration::from_secs(2);

/// An attachment that a process before has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FormerLink {
    /// The program that it is of.
    pub(super) program: &'static str,
    /// Its interface.
    interface: String,
    path: PathBuf,
}

/// What processes before have left in this network namespace.
#[derive(Debug, Default)]
pub(in super::super) struct Former {
    links: Vec<FormerLink>,
    tables: Option<FormerTables>,
    /// Where tables of this layout are pinned.
    directory: Option<PathBuf>,
}

/// The tables that the kernel forwards by.
#[derive(Debug)]
struct FormerTables {
    addresses: LocalAddresses,
    ports: SharedArray<PortEntry>,
    flows: SharedArray<Flow>,
}

/// What the kernel knows of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct FormerFlow {
    /// The source that was learned.
    pub(in super::super) learned: Option<SocketAddr>,
    /// The place of its statistics.
    pub(in super::super) stats: u32,
}

impl Former {
    /// Looks for it.
    pub(in super::super) fn find(pins: &Pins) -> Self {
        let own = pins.directory();
        let mut links = Vec::new();
        for directory in pins.directories() {
            for pin in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let (path, name) = (pin.path(), pin.file_name().to_string_lossy().into_owned());
                match attachment(&name) {
                    Some((program, interface)) => links.push(FormerLink { program, interface, path }),
                    // Tables of another layout tell this program nothing.
                    None if directory != own => remove(&path),
                    None => {}
                }
            }
        }
        let tables = FormerTables::open(&own);
        Self { links, tables, directory: Some(own) }
    }

    /// Where tables of statistics are pinned that can go on: of this layout, for as many flows.
    pub(in super::super) fn statistics(&self, flows: u32) -> Option<&Path> {
        let directory = self.tables.as_ref().and(self.directory.as_deref())?;
        let stats = MapData::from_pin(directory.join("STATS")).ok()?;
        let fits = entries(&stats) == Some(flows) && directory.join("REFUSED").exists();
        fits.then_some(directory)
    }

    /// What the kernel knows of the flow with this local address and port.
    pub(in super::super) fn flow(&self, local: SocketAddr) -> Option<FormerFlow> {
        self.tables.as_ref()?.flow(local)
    }

    /// The attachment of a program to an interface, if the kernel says that it is the one that is attached there. It is
    /// taken out.
    pub(super) fn take(
        &mut self,
        program: &'static str,
        interface: &str,
        attached: Option<Attached>,
    ) -> Option<FormerLink> {
        let place =
            self.links.iter().position(|link| link.program == program && link.interface == interface)?;
        let link = self.links.get(place)?;
        let is_alive = match (PinnedLink::from_pin(&link.path), attached) {
            (Ok(pinned), Some(Attached::Program { program, .. })) => {
                FdLink::from(pinned).info().is_ok_and(|info| info.program_id() == program)
            }
            (Ok(_), None) => true,
            _ => false,
        };
        is_alive.then(|| self.links.remove(place))
    }

    /// Takes away the attachments that are not `wanted`, and waits until the kernel has let go of them.
    pub(in super::super) async fn release_unless(
        &mut self,
        netlink: &netlink::Handle,
        wanted: impl Fn(&'static str, &str) -> bool,
    ) -> Result<(), netlink::Error> {
        let links = std::mem::take(&mut self.links);
        let (wanted, unwanted) = links.into_iter().partition(|link| wanted(link.program, &link.interface));
        self.links = wanted;
        Self { links: unwanted, ..Self::default() }.release(netlink).await
    }

    /// Takes away what nobody has taken over, and waits until the kernel has let go of it.
    pub(in super::super) async fn release(self, netlink: &netlink::Handle) -> Result<(), netlink::Error> {
        for link in self.links {
            info!(
                interface = link.interface,
                program = link.program,
                "datapath: what an earlier daemon has left attached goes"
            );
            remove(&link.path);
            if link.program == RELAY {
                let_go(netlink, &link.interface).await?;
            }
        }
        Ok(())
    }
}

/// Waits until no XDP program is attached to an interface: the kernel lets go of a link a moment after its pin has gone.
pub(super) async fn let_go(netlink: &netlink::Handle, interface: &str) -> Result<(), netlink::Error> {
    let deadline = Instant::now() + LETTING_GO;
    while Instant::now() < deadline
        && netlink.link(interface).await?.is_some_and(|link| link.xdp != Attached::Nothing)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

impl FormerLink {
    /// Exchanges the program behind the link for this process's own, in one step; returns where it is pinned.
    ///
    /// # Errors
    /// What the kernel said; the link is then gone.
    pub(super) fn exchange(self, programs: &mut Programs, pins: &Pins) -> Result<PathBuf, String> {
        let path = pins.of(self.program, &self.interface);
        let exchanged = self.update(programs);
        if exchanged.is_err() {
            remove(&self.path);
        } else if path != self.path {
            fs::rename(&self.path, &path).map_err(|error| {
                remove(&self.path);
                error.to_string()
            })?;
        }
        exchanged.map(|()| path)
    }

    fn update(&self, programs: &mut Programs) -> Result<(), String> {
        fn text(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        let link = FdLink::from(PinnedLink::from_pin(&self.path).map_err(text)?);
        // The pin keeps the link; the descriptor that comes with it is not needed any more.
        if self.program == RELAY {
            let relay = programs.xdp(RELAY).map_err(text)?;
            let link = relay.attach_to_link(XdpLink::try_from(link).map_err(text)?).map_err(text)?;
            relay.take_link(link).map(drop).map_err(text)
        } else {
            let program = programs.tc(self.program).map_err(text)?;
            let link = SchedClassifierLink::try_from(link).map_err(text)?;
            let link = program.attach_to_link(link).map_err(text)?;
            program.take_link(link).map(drop).map_err(text)
        }
    }

    /// Removes it.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

impl FormerTables {
    fn open(directory: &Path) -> Option<Self> {
        fn array<T: Record>(directory: &Path, name: &str) -> Result<SharedArray<T>, String> {
            let map = MapData::from_pin(directory.join(name)).map_err(|error| error.to_string())?;
            let length = entries(&map).ok_or("its size is not to be had")?;
            SharedArray::of_map(map.fd().as_fd(), length).map_err(|error| error.to_string())
        }
        let open = || -> Result<Self, String> {
            let local: SharedArray<LocalAddresses> = array(directory, "LOCAL")?;
            Ok(Self {
                addresses: local.read(0),
                ports: array(directory, "PORTS")?,
                flows: array(directory, "FLOWS")?,
            })
        };
        open().inspect_err(|error| debug!(error, "datapath: no former tables")).ok()
    }

    fn flow(&self, local: SocketAddr) -> Option<FormerFlow> {
        let place = match local.ip() {
            IpAddr::V4(address) => self.addresses.place(address.octets()),
            IpAddr::V6(address) => self.addresses.place_ipv6(&Ipv6Address::new(address.octets())),
        }?;
        let entry = self.ports.read(port_index(place, local.port().to_be_bytes()));
        let flow = self.flows.read(entry.slot());
        if entry.generation() == 0 || flow.generation != entry.generation() {
            return None;
        }
        let is_learned = [FlowState::Forwarding as u8, FlowState::Blocked as u8].contains(&flow.state);
        let ip = match local.ip() {
            IpAddr::V4(_) => IpAddr::from(flow.source_address),
            IpAddr::V6(_) => IpAddr::from(flow.source_ipv6.octets()),
        };
        let source = SocketAddr::new(ip, u16::from_be_bytes(flow.source_port));
        let learned = (is_learned && source.port() != 0).then_some(source);
        Some(FormerFlow { learned, stats: entry.stats() })
    }
}

/// How many entries a map has, as the kernel states it.
fn entries(map: &MapData) -> Option<u32> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("max_entries:")?.trim().parse().ok())
}
