//! Attaching the relay to interfaces, and knowing in which mode the kernel really runs it.
//!
//! Native XDP where the driver has it, generic XDP otherwise. The kernel is asked afterwards which of the
//! two it is: the mode that is logged, exported and shown is the kernel's word, not ours.

use std::fmt;

use aya::programs::{ProgramError, XdpMode};
use serde::Serialize;
use thiserror::Error;

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
    /// Netlink failed.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// The programs failed.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
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
) -> Result<Attachment, AttachError> {
    let link =
        netlink.link(interface).await?.ok_or_else(|| AttachError::NoInterface(interface.to_owned()))?;
    if let Attached::Program { program, .. } = link.xdp {
        return Err(AttachError::Occupied { interface: interface.to_owned(), program });
    }
    let relay = programs.xdp(RELAY)?;
    let why_not_native = match relay.attach_to_if_index(link.index, XdpMode::Driver) {
        Ok(_) => None,
        Err(native) => match relay.attach_to_if_index(link.index, XdpMode::Skb) {
            Ok(_) => Some(reason(&native)),
            Err(generic) => {
                return Err(AttachError::Refused {
                    interface: interface.to_owned(),
                    native: reason(&native),
                    generic: reason(&generic),
                });
            }
        },
    };
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
