//! Where attachments and tables are pinned, so that they outlive the process: in bpffs, by network namespace and layout.
//!
//! Attachments are always pinned where there is a bpffs that this process can write and others cannot, so that the kernel
//! goes on forwarding when the daemon dies. What the next process makes of them is [`super::former`]'s.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use relay_ebpf::tables::LAYOUT_VERSION;
use tracing::warn;

use super::programs::{Programs, RELAY, TC, TC_BEHIND, TC_LAYER3};

/// Where a bpffs is looked for. The first is the package's own, for a daemon that is not root.
const PLACES: [&str; 2] = ["/run/branchline-bpf", "/sys/fs/bpf"];
/// Its type in the list of mounts.
const BPFFS: &str = "bpf";
/// Our directory there.
const DIRECTORY: &str = "branchline";
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

    /// Of this layout.
    pub(super) fn directory(&self) -> PathBuf {
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
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let layouts = fs::read_dir(&self.all).into_iter().flatten().flatten();
        layouts.map(|layout| layout.path().join(&self.namespace)).filter(|path| path.is_dir()).collect()
    }
}

/// A name without dots, which bpffs keeps for itself.
fn escaped(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The program and the interface of an attachment, by the name of its pin.
pub(super) fn attachment(pin: &str) -> Option<(&'static str, String)> {
    PREFIXES.iter().find_map(|(prefix, program)| Some((*program, interface_of(pin.strip_prefix(prefix)?))))
}

fn interface_of(escaped: &str) -> String {
    escaped.replace("%2e", ".").replace("%25", "%")
}

/// Removes a pin.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, path = %path.display(), "datapath: a pin cannot be removed; remove it by hand");
    }
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
