//! Attaching the relay to interfaces, and knowing in which mode the kernel really runs it.
//!
//! Native XDP where the driver has it, generic XDP otherwise. The kernel is asked afterwards which of the
//! two it is: the mode that is logged, exported and shown is the kernel's word, not ours.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::programs::{ProgramError, XdpMode, links::FdLink};
use relay_ebpf::tables::LAYOUT_VERSION;
use serde::Serialize;
use thiserror::Error;
use tracing::info;

use super::programs::{Programs, ProgramsError, RELAY};
use crate::net::netlink::{self, Attached, Link};

/// How a program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, before the kernel has made a packet of the frame.
    Native,
    /// In the network stack, on any device, at some cost per packet.
    Generic,
}

impl Mode {
    /// The word for it in tables and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An interface that the relay is attached to.
#[derive(Debug, Clone, Serialize)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its number in the kernel.
    pub index: u32,
    /// The mode, as the kernel states it.
    pub mode: Mode,
    /// Why it is not native.
    pub why_not_native: Option<String>,
    /// Its place in the map of devices.
    #[serde(skip)]
    pub device: u32,
}

/// An interface that the relay was attached to, and is no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAttachment {
    /// Its name.
    pub interface: String,
    /// What has happened.
    pub why: &'static str,
}

/// Why the relay could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("interface {0} does not exist; `ip link` lists those that do")]
    NoInterface(String),
    /// Another XDP program is attached there.
    #[error(
        "interface {interface} has another XDP program attached (id {program}); detach it (`ip link set dev {interface} xdp off`) or set datapath.engine = \"userspace\""
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The kernel's number of the program.
        program: u32,
    },
    /// The kernel refused both modes.
    #[error(
        "interface {interface}: the kernel attached the relay neither natively ({native}) nor generically ({generic})"
    )]
    Refused {
        /// The interface.
        interface: String,
        /// Why not natively.
        native: String,
        /// Why not generically.
        generic: String,
    },
    /// The kernel says that nothing is attached after all.
    #[error("interface {0}: the relay was attached, but the kernel does not list it")]
    Vanished(String),
    /// The attachment could not be kept beyond this process.
    #[error(
        "interface {interface}: the attachment cannot be pinned at {path}: {error} (datapath.keep_when_stopped needs bpffs: `mount -t bpf bpf /sys/fs/bpf`)"
    )]
    Pin {
        /// The interface.
        interface: String,
        /// Where.
        path: String,
        /// Why.
        error: String,
    },
    /// Netlink failed.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// The programs failed.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// Whether an attachment outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It ends with the process, however that ends.
    Process,
    /// It stays, and the kernel goes on forwarding the flows that stand, until a daemon is started again.
    Pinned,
}

/// Where all pinned attachments are.
const PINS: &str = "/sys/fs/bpf/branchline";

/// Where this version pins attachments. The version of the tables' layout is in the path: a program with
/// another layout is never mistaken for one of ours. So is the network namespace, in which an interface's
/// name means something.
fn pin_directory(layout: &Path) -> Result<PathBuf, std::io::Error> {
    let namespace = fs::metadata("/proc/self/ns/net")?.ino();
    Ok(layout.join(namespace.to_string()))
}

/// How long the kernel may take to let go of an attachment that is no longer pinned.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Takes away what earlier daemons left attached on purpose, whatever their version, before anything new
/// is attached.
///
/// # Errors
/// If a pin cannot be removed, or netlink fails.
pub async fn release_pinned(netlink: &netlink::Handle) -> Result<(), AttachError> {
    let layouts = fs::read_dir(PINS).into_iter().flatten().flatten();
    let pins = layouts
        .filter_map(|layout| pin_directory(&layout.path()).ok())
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|pins| pins.flatten());
    for pin in pins {
        let interface = pin.file_name().to_string_lossy().into_owned();
        info!(interface, "datapath: an earlier daemon's attachment goes; its flows have no calls any more");
        fs::remove_file(pin.path()).map_err(|error| AttachError::Pin {
            interface: interface.clone(),
            path: pin.path().display().to_string(),
            error: error.to_string(),
        })?;
        let deadline = Instant::now() + LETTING_GO;
        while Instant::now() < deadline
            && netlink.link(&interface).await?.is_some_and(|link| link.xdp != Attached::Nothing)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// Attaches the relay to an interface and gives it a place in the map of devices.
///
/// # Errors
/// See [`AttachError`]; then nothing is attached.
pub async fn attach(
    netlink: &netlink::Handle,
    programs: &mut Programs,
    interface: &str,
    device: u32,
    lifetime: Lifetime,
) -> Result<Attachment, AttachError> {
    let link =
        netlink.link(interface).await?.ok_or_else(|| AttachError::NoInterface(interface.to_owned()))?;
    if let Attached::Program { program, .. } = link.xdp {
        return Err(AttachError::Occupied { interface: interface.to_owned(), program });
    }
    let relay = programs.xdp(RELAY)?;
    let (id, why_not_native) = match relay.attach_to_if_index(link.index, XdpMode::Driver) {
        Ok(id) => (id, None),
        Err(native) => match relay.attach_to_if_index(link.index, XdpMode::Skb) {
            Ok(id) => (id, Some(reason(&native))),
            Err(generic) => {
                return Err(AttachError::Refused {
                    interface: interface.to_owned(),
                    native: reason(&native),
                    generic: reason(&generic),
                });
            }
        },
    };
    if lifetime == Lifetime::Pinned {
        let directory = pin_directory(&Path::new(PINS).join(format!("v{LAYOUT_VERSION}")));
        let pin = directory.unwrap_or_default().join(interface);
        let refused = |error: String| AttachError::Pin {
            interface: interface.to_owned(),
            path: pin.display().to_string(),
            error,
        };
        fs::create_dir_all(pin.parent().unwrap_or(&pin)).map_err(|error| refused(error.to_string()))?;
        let link = relay.take_link(id).map_err(|error| refused(reason(&error)))?;
        let link = FdLink::try_from(link).map_err(|error| refused(error.to_string()))?;
        link.pin(&pin).map_err(|error| refused(error.to_string()))?;
    }
    programs.set_device(device, link.index)?;
    let now: Option<Link> = netlink.link(interface).await?;
    let mode = match now.map(|link| link.xdp) {
        Some(Attached::Program { native: true, .. }) => Mode::Native,
        Some(Attached::Program { native: false, .. }) => Mode::Generic,
        _ => return Err(AttachError::Vanished(interface.to_owned())),
    };
    Ok(Attachment { interface: interface.to_owned(), index: link.index, mode, why_not_native, device })
}

/// What the kernel said, to its innermost cause.
fn reason(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Whether an interface takes the relay natively: it is attached, for a moment and with no flows to
/// forward, and detached again.
///
/// # Errors
/// Why it does not.
pub fn probe_mode(programs: &mut Programs, interface: u32) -> Result<(), String> {
    let relay = programs.xdp(RELAY).map_err(|error| error.to_string())?;
    let id = relay.attach_to_if_index(interface, XdpMode::Driver).map_err(|error| reason(&error))?;
    relay.detach(id).map_err(|error| reason(&error))
}
