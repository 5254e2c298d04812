//! What of the datapath outlives the process: attachments and tables, pinned in bpffs, and what the next process makes of
//! those that it finds.
//!
//! Attachments are always pinned where there is a bpffs, so that the kernel goes on forwarding when the daemon dies. The
//! next daemon fills tables of its own with the flows that the store tells of, and then exchanges the program behind each
//! pinned link, in one step for each interface: no packet meets a half-made datapath, and none is without one. It works
//! the same when the new program has another layout of tables, since none but the statistics are shared; those are taken
//! over where the layout is the same, so that nothing is counted as lost between the two.
//!
//! What was learned is read from the former tables, for the store may be a moment behind. A flow of which the store knows
//! no call is not written to the new tables, and is gone with the former ones.

use std::{
    fs, io,
    net::{self, IpAddr},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
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
use relay_ebpf::{
    Flow, FlowState, LocalAddresses, PortEntry,
    headers::Ipv6Address,
    tables::{LAYOUT_VERSION, port_index},
};
use tracing::{debug, info, warn};

use super::{
    super::shared::{Record, SharedArray},
    programs::{Programs, RELAY, TC, TC_BEHIND, TC_LAYER3},
};
use crate::net::netlink::{self, Attached};

/// Where a bpffs is looked for. The first is the package's own, for a daemon that is not root.
const PLACES: [&str; 2] = ["/run/branchline-bpf", "/sys/fs/bpf"];
/// Its type in the list of mounts.
const BPFFS: &str = "bpf";
/// Our directory there.
const DIRECTORY: &str = "branchline";
/// How long the kernel may take to let go of an attachment that is no longer pinned.
const LETTING_GO: Duration = Duration::from_secs(2);

/// The tables that are pinned: those by which a next daemon learns what the kernel has learned, and those that go on.
const TABLES: [&str; 3] = ["LOCAL", "PORTS", "FLOWS"];
/// The tables that go on where they are as large as those that are wanted.
pub(super) const STATISTICS: [&str; 2] = ["STATS", "REFUSED"];

fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().chain(STATISTICS)
}

/// What an attachment's pin is called: a prefix by its program, then the interface.
const PREFIXES: [(&str, &str); 4] =
    [("xdp-", RELAY), ("tc-", TC), ("tclayer3-", TC_LAYER3), ("tcbehind-", TC_BEHIND)];

/// The name that the one process binds which has the pins of a network namespace: in the abstract namespace of Unix
/// sockets, of which each network namespace has its own, and which forgets the name when the process ends.
const OWNER: &[u8] = b"branchline-datapath";

/// The place of this process's pins: those of its network namespace, in which an interface's name means something, and
/// of its layout of tables. Invariant: one process at a time has them; what another has pinned is nobody's heritage.
#[derive(Debug, Clone)]
pub(in super::super) struct Pins {
    /// Kept for as long as the pins are this process's.
    _owner: Arc<UnixDatagram>,
    /// Of all layouts.
    all: PathBuf,
    /// The network namespace.
    namespace: String,
}

impl Pins {
    /// Where there is a bpffs that can be written.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub(in super::super) fn find() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let is_bpffs = |place: &&&str| {
            mounts.lines().any(|line| {
                let mut words = line.split(' ').skip(1);
                words.next() == Some(**place) && words.next() == Some(BPFFS)
            })
        };
        let namespace = fs::metadata("/proc/self/ns/net").map_err(|error| error.to_string())?.ino();
        let name = SocketAddr::from_abstract_name(OWNER).map_err(|error| error.to_string())?;
        let owner = UnixDatagram::bind_addr(&name).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => "another daemon has this network namespace's datapath".to_owned(),
            _ => error.to_string(),
        })?;
        let owner = Arc::new(owner);
        let mut why = "no bpffs is mounted: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`".to_owned();
        for place in PLACES.iter().filter(is_bpffs) {
            let all = Path::new(place).join(DIRECTORY);
            let pins = Self { _owner: Arc::clone(&owner), all, namespace: namespace.to_string() };
            match pins.prove() {
                Ok(()) => return Ok(pins),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Makes the directory, and shows that this process alone can put pins there: whoever else could would keep programs
    /// attached, or take pins away.
    fn prove(&self) -> Result<(), String> {
        const PRIVATE: u32 = 0o700;
        const OTHERS_WRITE: u32 = 0o022;
        let directory = self.directory();
        let wrong = |what: &str, path: &Path| {
            format!("{}: {what}; remove it by hand, as root, and start again", path.display())
        };
        let private = |error: io::Error| wrong(&error.to_string(), &directory);
        fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(&directory).map_err(private)?;
        let own = nix::unistd::geteuid().as_raw();
        for path in directory.ancestors().take_while(|path| path.starts_with(&self.all)) {
            let found = fs::metadata(path).map_err(private)?;
            if found.uid() != own || found.mode() & OTHERS_WRITE != 0 {
                return Err(wrong("it belongs to another user, or others may write there", path));
            }
        }
        let trial = directory.join("trial");
        // One may be left of a process that was killed just here.
        let _ = fs::remove_dir(&trial);
        fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).map_err(private)
    }

    fn directory(&self) -> PathBuf {
        self.all.join(format!("v{LAYOUT_VERSION}")).join(&self.namespace)
    }

    /// Where an attachment of a program to an interface is pinned.
    pub(super) fn of(&self, program: &str, interface: &str) -> PathBuf {
        let prefix = PREFIXES.iter().find(|(_, name)| *name == program).map_or("", |(prefix, _)| prefix);
        self.directory().join(format!("{prefix}{}", escaped(interface)))
    }

    /// Pins the tables beside those of the process before.
    pub(in super::super) fn prepare(&self, programs: &Programs) {
        for name in tables() {
            let path = self.fresh(name);
            let _ = fs::remove_file(&path);
            let map = programs.map(name).map_err(|error| error.to_string());
            if let Err(error) = map.and_then(|map| map.pin(&path).map_err(|error| error.to_string())) {
                warn!(table = name, error, path = %path.display(), "datapath: a table cannot be pinned");
            }
        }
    }

    /// The tables are those that the kernel forwards by: they take the place of those of the process before.
    pub(in super::super) fn commit(&self) {
        for name in tables() {
            if let Err(error) = fs::rename(self.fresh(name), self.directory().join(name)) {
                warn!(table = name, %error, "datapath: the pin of a table cannot be renamed");
            }
        }
        for directory in self.directories().into_iter().filter(|other| *other != self.directory()) {
            let _ = fs::remove_dir(&directory);
            let _ = directory.parent().map(fs::remove_dir);
        }
    }

    /// Everything that is pinned.
    pub(in super::super) fn list(&self) -> Vec<PathBuf> {
        let all = self.directories().into_iter().flat_map(|path| fs::read_dir(path).into_iter().flatten());
        all.flatten().map(|pin| pin.path()).collect()
    }

    /// Removes all pins but these.
    pub(in super::super) fn release_but(&self, kept: &[PathBuf]) {
        self.list().iter().filter(|pin| !kept.contains(pin)).for_each(|pin| remove(pin));
    }

    fn fresh(&self, table: &str) -> PathBuf {
        self.directory().join(format!("{table}-next"))
    }

    /// Removes all pins of this network namespace: what is attached by them goes.
    pub(in super::super) fn release(&self) {
        for directory in self.directories() {
            for pin in fs::read_dir(&directory).into_iter().flatten().flatten() {
                remove(&pin.path());
            }
            let _ = fs::remove_dir(&directory);
            let _ = directory.parent().map(fs::remove_dir);
        }
        let _ = fs::remove_dir(&self.all);
    }

    /// The directories of this network namespace, of every layout.
    fn directories(&self) -> Vec<PathBuf> {
        let layouts = fs::read_dir(&self.all).into_iter().flatten().flatten();
        layouts.map(|layout| layout.path().join(&self.namespace)).filter(|path| path.is_dir()).collect()
    }
}

/// A name without dots, which bpffs keeps for itself.
fn escaped(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn interface_of(escaped: &str) -> String {
    escaped.replace("%2e", ".").replace("%25", "%")
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, path = %path.display(), "datapath: a pin cannot be removed; remove it by hand");
    }
}

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
    pub(in super::super) learned: Option<net::SocketAddr>,
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
                let program = PREFIXES
                    .iter()
                    .find_map(|(prefix, program)| Some((*program, interface_of(name.strip_prefix(prefix)?))));
                match program {
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
    pub(in super::super) fn flow(&self, local: net::SocketAddr) -> Option<FormerFlow> {
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

    fn flow(&self, local: net::SocketAddr) -> Option<FormerFlow> {
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
        let source = net::SocketAddr::new(ip, u16::from_be_bytes(flow.source_port));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_s_name_is_one_of_a_pin_and_back() {
        for name in ["eth0", "eth0.5", "a%2eb", "x-y"] {
            let escaped = escaped(name);
            assert!(!escaped.contains('.'), "{escaped}");
            assert_eq!(interface_of(&escaped), name);
        }
    }
}
