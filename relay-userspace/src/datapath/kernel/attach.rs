//! Attaching the relay to an interface, and knowing in which mode the kernel really runs it.
//!
//! The ladder, best first: native XDP where the driver has it, generic XDP, TC, and userspace where nothing can be
//! attached. Devices without link layer know TC only. The kernel is asked afterwards which XDP it is: the mode that is
//! logged, exported and shown is the kernel's word, not ours. What somebody else has attached is named and left alone.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        ProgramError, SchedClassifier, TcAttachType, XdpMode,
        links::FdLink,
        loaded_programs,
        tc::{SchedClassifierLinkId, qdisc_add_clsact, qdisc_detach_program},
        xdp::XdpLinkId,
    },
    util::KernelVersion,
};
use serde::Serialize;
use thiserror::Error;
use tracing::{debug, warn};

use super::{
    former::{Former, FormerLink},
    pins::Pins,
    programs::{Programs, ProgramsError, RELAY, TC, TC_BEHIND, TC_LAYER3},
};
use crate::net::{
    AttachChoice,
    netlink::{self, Attached, Link},
};

/// How a program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, before the kernel has made a packet of the frame.
    Native,
    /// In the network stack, on any Ethernet device, at some cost per packet.
    Generic,
    /// By TC, behind XDP's place: the one way there is on devices without link layer.
    Tc,
    /// Not at all: userspace carries what comes by the interface.
    Userspace,
}

impl Mode {
    /// The word for it in tables and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An interface that the relay is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Its name, as the configuration has it.
    pub interface: String,
    /// The interface that the program is on: the same, or the one that an 802.1Q device stands on.
    pub carrier: String,
    /// The number of that in the kernel.
    pub index: u32,
    /// The mode, as the kernel states it.
    pub mode: Mode,
    /// Why it is not native.
    pub why_not_native: Option<String>,
    /// Its place in the map of devices.
    #[serde(skip)]
    pub device: u32,
    /// Whether a TC program stands behind XDP, for packets that leave by an interface which XDP cannot send by.
    pub tc_behind: bool,
}

/// An interface that the relay was attached to, and is no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAttachment {
    /// Its name.
    pub interface: String,
    /// What has happened.
    pub why: String,
}

/// Why the relay could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("interface {0} does not exist; `ip link` lists those that do")]
    NoInterface(String),
    /// The interface stands on another that cannot carry the relay.
    #[error("interface {0}")]
    Carrier(String),
    /// Another XDP program is attached there.
    #[error(
        "interface {interface} has another XDP program attached ({program}); detach it (`ip link set dev {interface} xdp off`) or set attach = \"tc\" or \"userspace\" for its network"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The program's name and number in the kernel.
        program: String,
    },
    /// The kernel refused the mode that is demanded.
    #[error("interface {interface}: the relay cannot be attached in mode \"{mode}\": {why}")]
    Refused {
        /// The interface.
        interface: String,
        /// The mode.
        mode: Mode,
        /// What the kernel said.
        why: String,
    },
    /// The kernel refused every mode, and the kernel's datapath is demanded.
    #[error("interface {interface}: the relay cannot be attached in any mode: {why}")]
    Nowhere {
        /// The interface.
        interface: String,
        /// What the kernel said of each.
        why: String,
    },
    /// The attachment could not be kept beyond this process.
    #[error(
        "interface {interface}: the attachment cannot be pinned at {path}: {error}; `ls -l` there shows what is in the way"
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

/// Whether attachments outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// They end with it, however that ends.
    Process,
    /// They stay when it dies, where there is a bpffs, and the kernel goes on forwarding; see
    /// [`Engine::release`](crate::datapath::Engine::release).
    Pinned,
}

/// What keeps a program attached.
#[derive(Debug)]
pub(super) enum Hold {
    /// A link of XDP's.
    Xdp(XdpLinkId),
    /// A link or filter of TC's, with the program's name.
    Tc(&'static str, SchedClassifierLinkId),
    /// A pin: it stays when the process ends.
    Pin(PathBuf),
    /// That of an earlier process, until its program is exchanged.
    Former(FormerLink),
}

impl Hold {
    /// Lets go of it. The interface may be gone, and with it what was attached.
    pub(super) fn release(self, programs: &mut Programs) {
        let result = match self {
            Self::Xdp(id) => programs.xdp(RELAY).map(|relay| relay.detach(id)),
            Self::Tc(name, id) => programs.tc(name).map(|program| program.detach(id)),
            Self::Pin(path) => {
                let _ = fs::remove_file(path);
                return;
            }
            Self::Former(link) => {
                link.remove();
                return;
            }
        };
        if let Ok(Err(error)) = result {
            debug!(%error, "an attachment had gone before it was let go of");
        }
    }
}

/// What a step down the ladder has led to.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) mode: Mode,
    pub(super) why_not_native: Option<String>,
    pub(super) hold: Option<Hold>,
}

/// Attaches the relay to an interface in the best mode that it takes, or in the one that is demanded.
///
/// # Errors
/// If a mode is demanded and not to be had; then nothing is attached.
pub(super) fn descend(
    programs: &mut Programs,
    link: &Link,
    choice: AttachChoice,
    pins: Option<&Pins>,
    former: &mut Former,
) -> Result<Step, AttachError> {
    let refused = |mode, why: String| AttachError::Refused { interface: link.name.clone(), mode, why };
    let other = match link.xdp {
        Attached::Program { program, .. } => Some(program_name(program)),
        Attached::Nothing => None,
    };
    let mut reasons: Vec<String> = Vec::new();
    let (native, generic) = match choice {
        AttachChoice::Auto => (true, true),
        AttachChoice::Native => (true, false),
        AttachChoice::Generic => (false, true),
        AttachChoice::Tc | AttachChoice::Userspace => {
            reasons.push(format!(
                "attach = \"{}\" is configured",
                if choice == AttachChoice::Tc { "tc" } else { "userspace" }
            ));
            (false, false)
        }
    };
    if let Some(step) = taken_over(link, choice, former) {
        return Ok(step);
    }
    if choice == AttachChoice::Userspace {
        return Ok(Step { mode: Mode::Userspace, why_not_native: reasons.pop(), hold: None });
    }
    for (mode, flag, wanted) in
        [(Mode::Native, XdpMode::Driver, native), (Mode::Generic, XdpMode::Skb, generic)]
    {
        if !wanted {
            continue;
        }
        if link.layer3 {
            let why = format!("{} has no link layer, and so no XDP", link.name);
            if choice != AttachChoice::Auto {
                return Err(refused(mode, why));
            }
            reasons.push(why);
            break;
        }
        if let Some(program) = &other {
            if choice != AttachChoice::Auto {
                return Err(AttachError::Occupied { interface: link.name.clone(), program: program.clone() });
            }
            reasons.push(format!("another XDP program is attached ({program})"));
            break;
        }
        match programs.xdp(RELAY)?.attach_to_if_index(link.index, flag) {
            Ok(id) => {
                let hold = match hold_xdp(programs, &link.name, id, pins) {
                    Ok(hold) => hold,
                    // The link has gone with the pin that it did not get.
                    Err(error) => {
                        warn!(%error, "datapath: calls by this interface end when the daemon does");
                        let again = programs.xdp(RELAY)?.attach_to_if_index(link.index, flag);
                        Hold::Xdp(again.map_err(|error| refused(mode, reason(&error)))?)
                    }
                };
                if choice == AttachChoice::Generic {
                    reasons.push("attach = \"generic\" is configured".to_owned());
                }
                let why = Some(reasons.join("; ")).filter(|why| !why.is_empty());
                return Ok(Step { mode, why_not_native: why, hold: Some(hold) });
            }
            Err(error) if choice != AttachChoice::Auto => return Err(refused(mode, reason(&error))),
            Err(error) => reasons.push(format!("not {mode}: {}", reason(&error))),
        }
    }
    match attach_tc(programs, link, if link.layer3 { TC_LAYER3 } else { TC }, pins, former) {
        Ok(hold) => Ok(Step { mode: Mode::Tc, why_not_native: Some(reasons.join("; ")), hold: Some(hold) }),
        Err(why) if choice == AttachChoice::Tc => Err(refused(Mode::Tc, why)),
        Err(why) => {
            reasons.push(format!("not tc: {why}"));
            Ok(Step { mode: Mode::Userspace, why_not_native: Some(reasons.join("; ")), hold: None })
        }
    }
}

/// Whether XDP as it runs on an interface is as it is wanted now.
pub(super) fn is_taken_over(link: &Link, choice: AttachChoice) -> bool {
    match xdp_mode(link) {
        Some(Mode::Native) => matches!(choice, AttachChoice::Auto | AttachChoice::Native),
        Some(Mode::Generic) => matches!(choice, AttachChoice::Auto | AttachChoice::Generic),
        _ => false,
    }
}

/// The step down the ladder that an earlier process had taken, if it is what is wanted now: nothing happens to the
/// interface until the program is exchanged.
fn taken_over(link: &Link, choice: AttachChoice, former: &mut Former) -> Option<Step> {
    let mode = xdp_mode(link).filter(|_| is_taken_over(link, choice))?;
    let why_not_native = match (choice, mode) {
        (_, Mode::Native) => None,
        (AttachChoice::Generic, _) => Some("attach = \"generic\" is configured".to_owned()),
        _ => Some("as an earlier daemon has attached it, whose attachment goes on".to_owned()),
    };
    let hold = Hold::Former(former.take(RELAY, &link.name, Some(link.xdp))?);
    Some(Step { mode, why_not_native, hold: Some(hold) })
}

/// Attaches the program that takes from XDP what leaves by an interface which XDP cannot send by.
///
/// # Errors
/// What the kernel said.
pub(super) fn attach_behind(
    programs: &mut Programs,
    link: &Link,
    pins: Option<&Pins>,
    former: &mut Former,
) -> Result<Hold, String> {
    attach_tc(programs, link, TC_BEHIND, pins, former)
}

fn hold_xdp(
    programs: &mut Programs,
    interface: &str,
    id: XdpLinkId,
    pins: Option<&Pins>,
) -> Result<Hold, AttachError> {
    let Some(pins) = pins else { return Ok(Hold::Xdp(id)) };
    let path = pins.of(RELAY, interface);
    let refused = |error: String| AttachError::Pin {
        interface: interface.to_owned(),
        path: path.display().to_string(),
        error,
    };
    let link = programs.xdp(RELAY)?.take_link(id).map_err(|error| refused(reason(&error)))?;
    match FdLink::try_from(link) {
        Ok(link) => pin(link, &path).map_err(refused),
        // Before 5.9 there were no links of XDP's, and an attachment stays until it is taken off.
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Pins a link in the place of one that is gone.
fn pin(link: FdLink, path: &Path) -> Result<Hold, String> {
    let _ = fs::remove_file(path);
    link.pin(path).map(|_| Hold::Pin(path.to_owned())).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("{error}{cause}")
    })
}

fn attach_tc(
    programs: &mut Programs,
    link: &Link,
    name: &'static str,
    pins: Option<&Pins>,
    former: &mut Former,
) -> Result<Hold, String> {
    if let Some(former) = former.take(name, &link.name, None) {
        return Ok(Hold::Former(former));
    }
    let program: &mut SchedClassifier = programs.tc(name).map_err(|error| error.to_string())?;
    // Since 6.6 links keep programs at TC, and go with their process or with their pin. Before, a filter stays at a
    // queueing discipline until it is taken off, also one that an earlier daemon has left.
    let has_links = KernelVersion::current().is_ok_and(|running| running >= KernelVersion::new(6, 6, 0));
    if !has_links {
        let _ = qdisc_add_clsact(&link.name);
        let _ = qdisc_detach_program(&link.name, TcAttachType::Ingress, name);
    }
    let id = program.attach(&link.name, TcAttachType::Ingress).map_err(|error| reason(&error))?;
    let Some(pins) = pins.filter(|_| has_links) else { return Ok(Hold::Tc(name, id)) };
    let taken = program.take_link(id).map_err(|error| reason(&error))?;
    pin(FdLink::try_from(taken).map_err(|error| error.to_string())?, &pins.of(name, &link.name))
}

/// The mode of XDP that an interface is in.
pub(super) fn xdp_mode(link: &Link) -> Option<Mode> {
    match link.xdp {
        Attached::Program { native: true, .. } => Some(Mode::Native),
        Attached::Program { native: false, .. } => Some(Mode::Generic),
        Attached::Nothing => None,
    }
}

/// What people know a program by.
fn program_name(id: u32) -> String {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    match info.as_ref().and_then(|info| info.name_as_str()) {
        Some(name) if !name.is_empty() => format!("\"{name}\", id {id}"),
        _ => format!("id {id}"),
    }
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
