//! The three namespaces, their addresses, and the wires between them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use super::netns::{self, Namespace};
use crate::workspace;

/// The appliance's address in the office.
pub const APPLIANCE_OFFICE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 1);
/// The appliance's IPv6 address in the office.
pub const APPLIANCE_OFFICE_IPV6: Ipv6Addr = Ipv6Addr::new(0xFD61, 0, 0, 0, 0, 0, 0, 1);
/// The appliance's address towards the centre.
pub const APPLIANCE_CENTRE: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 1);
/// The appliance's IPv6 address towards the centre.
pub const APPLIANCE_CENTRE_IPV6: Ipv6Addr = Ipv6Addr::new(0xFD62, 0, 0, 0, 0, 0, 0, 1);
/// The central server's IPv6 address.
pub const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0xFD62, 0, 0, 0, 0, 0, 0, 0x10);
/// The central server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 10);
/// The address of a second central server.
pub const SECOND_SERVER: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 11);
/// The first phone's address; the others follow.
pub const FIRST_PHONE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
/// How many addresses the office has for phones.
pub const PHONE_ADDRESSES: u8 = 16;
/// The interface in the office and in the centre, and the appliance's interface to the office.
pub const OUTER: &str = "eth0";
/// The appliance's interface to the office.
pub const TO_OFFICE: &str = "eth0";
/// The appliance's interface to the centre.
pub const TO_CENTRE: &str = "eth1";
/// Length of both networks' prefixes.
const PREFIX_LENGTH: u8 = 24;

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Whether office and centre know a way to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// They do not: only the appliance's proxy and relay connect them, as in life.
    None,
    /// The branch forwards packets as a router: to try the laboratory itself, and traffic that passes by.
    ThroughBranch,
}

/// The laboratory's networks. Dropping it removes them.
#[derive(Debug)]
pub struct Lab {
    /// The phones' namespace.
    pub office: Namespace,
    /// The appliance's namespace.
    pub branch: Namespace,
    /// The central server's namespace.
    pub centre: Namespace,
    run: u32,
    dir: PathBuf,
}

impl Lab {
    /// Sweeps what dead runs left, and builds the networks.
    ///
    /// # Errors
    /// Not root, or the kernel lacks veth.
    pub fn create(routes: Routes) -> Result<Self> {
        netns::sweep()?;
        let run = RUNS.fetch_add(1, Ordering::SeqCst);
        let dir = workspace::scratch("lab")?.join(format!("{}-{run}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lab = Self {
            office: Namespace::create(run, "office")?,
            branch: Namespace::create(run, "branch")?,
            centre: Namespace::create(run, "centre")?,
            run,
            dir,
        };
        lab.wire(&lab.office, TO_OFFICE)?;
        lab.wire(&lab.centre, TO_CENTRE)?;
        add_address(&lab.branch, APPLIANCE_OFFICE, TO_OFFICE)?;
        add_address(&lab.branch, APPLIANCE_CENTRE, TO_CENTRE)?;
        for index in 0..PHONE_ADDRESSES {
            add_address(&lab.office, phone(index), OUTER)?;
        }
        add_address(&lab.centre, SERVER, OUTER)?;
        add_address(&lab.centre, SECOND_SERVER, OUTER)?;
        if routes == Routes::ThroughBranch {
            lab.branch.set("net/ipv4/ip_forward", "1")?;
            lab.office.ip(&["route", "add", "default", "via", &APPLIANCE_OFFICE.to_string()])?;
            lab.centre.ip(&["route", "add", "default", "via", &APPLIANCE_CENTRE.to_string()])?;
        }
        Ok(lab)
    }

    /// Gives a phone's address to a namespace of its own on the office's network: a program that leaves the choice
    /// of its source address to the system sends from there, and not from the office's first address.
    ///
    /// # Errors
    /// The kernel lacks macvlan.
    pub fn own_host(&self, index: u8) -> Result<Namespace> {
        let host = Namespace::create(self.run, &format!("phone{index}"))?;
        let address = format!("{}/{PREFIX_LENGTH}", phone(index));
        self.office.ip(&["address", "delete", &address, "dev", OUTER])?;
        let mac = ["type", "macvlan", "mode", "bridge"];
        let link = format!("phone{index}");
        self.office.ip(&[&["link", "add", "link", OUTER, "name", &link], &mac as &[&str]].concat())?;
        self.office.ip(&["link", "set", &link, "netns", host.name(), "name", OUTER])?;
        host.run("ethtool", &["-K", OUTER, "tx", "off"])?;
        add_address(&host, phone(index), OUTER)?;
        host.ip(&["link", "set", OUTER, "up"])?;
        Ok(host)
    }

    /// Where this run keeps logs and captures. It stays after the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Joins a namespace's outer interface to one of the branch's.
    fn wire(&self, outer: &Namespace, inner: &str) -> Result<()> {
        outer.ip(&[
            "link",
            "add",
            OUTER,
            "type",
            "veth",
            "peer",
            "name",
            inner,
            "netns",
            self.branch.name(),
        ])?;
        for (namespace, interface) in [(outer, OUTER), (&self.branch, inner)] {
            // Left on, veth hands over packets with half a checksum, which a redirect would carry out as they are.
            namespace.run("ethtool", &["-K", interface, "tx", "off"])?;
            // A veth takes what XDP sends to it only while its own NAPI runs, and generic offload starts that.
            namespace.run("ethtool", &["-K", interface, "gro", "on"])?;
            namespace.ip(&["link", "set", interface, "up"])?;
        }
        Ok(())
    }
}

/// The IPv6 address of a phone.
#[must_use]
pub fn phone_ipv6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xFD61, 0, 0, 0, 0, 0, 0, 0x11 + u16::from(index))
}

/// Gives an interface an IPv6 address that can be used at once: nobody else in the laboratory has it.
///
/// # Errors
/// The kernel lacks IPv6.
pub fn add_ipv6(namespace: &Namespace, address: Ipv6Addr, interface: &str) -> Result<()> {
    // What a host sends to itself goes by its loopback interface.
    for interface in ["lo", interface] {
        namespace.set(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    namespace.ip(&["address", "add", &format!("{address}/64"), "dev", interface, "nodad"]).map(drop)
}

/// The address of a phone.
#[must_use]
pub fn phone(index: u8) -> Ipv4Addr {
    let [a, b, c, first] = FIRST_PHONE.octets();
    Ipv4Addr::new(a, b, c, first.saturating_add(index))
}

fn add_address(namespace: &Namespace, address: Ipv4Addr, interface: &str) -> Result<()> {
    namespace.ip(&["address", "add", &format!("{address}/{PREFIX_LENGTH}"), "dev", interface]).map(drop)
}
