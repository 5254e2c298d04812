//! Keeps the relay attached: to each configured interface, in the mode that it takes, also when it goes away and comes
//! back.
//!
//! [`Keeper::settle`] brings what is attached into line with what interfaces there are; it is called with every news of
//! them, and changes nothing where nothing has changed. An 802.1Q device has no program of its own: its packets pass the
//! interface that it stands on with their tag, and the program is there, once, however many such devices there are.
//!
//! Where one interface is reached by XDP and another is not, packets between the two take both: XDP passes what leaves by
//! the other, and a TC program behind it forwards it. On an appliance that needs none of these none is attached.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{info, warn};

use super::{
    attach::{
        AttachError, Attachment, Hold, LostAttachment, Mode, attach_behind, descend, is_taken_over, xdp_mode,
    },
    former::{Former, let_go},
    pins::Pins,
    programs::{Programs, RELAY},
};
use crate::net::{
    AttachChoice,
    netlink::{self, Attached, Link},
};

/// Where media is to come and go: a network, as the datapath sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The interface.
    pub interface: String,
    /// The address that media ports are on.
    pub address: IpAddr,
    /// Where the relay is to be attached.
    pub attach: AttachChoice,
    /// The ports of SIP at the address, which are guarded.
    pub sip: Vec<u16>,
}

/// How the packets of an address come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Ingress {
    /// XDP meets them; whether TC stands behind.
    Xdp {
        /// It does.
        tc_behind: bool,
    },
    /// TC meets them, because of this.
    Tc(String),
    /// No program does; the attachment says why.
    Nothing,
}

/// How packets can be sent by an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Egress {
    /// Its place in the map of devices.
    pub(super) device: u32,
    /// Why only TC can; none if XDP can.
    pub(super) by_tc: Option<String>,
}

/// What is attached, for those who show it.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Known {
    pub(in super::super) attachments: Vec<Attachment>,
    pub(in super::super) lost: Vec<LostAttachment>,
}

/// A program on an interface.
#[derive(Debug)]
struct Place {
    carrier: String,
    index: u32,
    device: u32,
    mode: Mode,
    why_not_native: Option<String>,
    hold: Option<Hold>,
    behind: Option<Hold>,
    /// Why there is none behind although one is needed.
    why_none_behind: Option<String>,
    layer3: bool,
}

/// Keeps the relay attached.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    ports: Vec<Port>,
    /// Where attachments are pinned; none if they end with the process.
    pins: Option<Pins>,
    places: Vec<Place>,
    /// Devices' places by the names of their interfaces: one that comes back gets its own again.
    devices: Vec<String>,
    known: Arc<Mutex<Known>>,
}

impl Keeper {
    /// Nothing is attached yet.
    pub(in super::super) fn new(ports: Vec<Port>, pins: Option<Pins>) -> Self {
        Self { ports, pins, places: Vec::new(), devices: Vec::new(), known: Arc::default() }
    }

    /// What is attached, for those who show it.
    pub(in super::super) fn known(&self) -> Arc<Mutex<Known>> {
        Arc::clone(&self.known)
    }

    /// Whether an attachment that an earlier process has left is as it is wanted now.
    pub(in super::super) fn wants(
        &self,
        links: &HashMap<u32, Link>,
        program: &'static str,
        interface: &str,
    ) -> bool {
        let mut carried = self.ports.iter().filter_map(|port| {
            let carrier = by_name(links, &port.interface).and_then(|link| carrier(links, link).ok())?;
            (carrier.name == interface).then_some((carrier, port.attach))
        });
        let Some((carrier, choice)) = carried.next() else { return false };
        match program {
            RELAY => is_taken_over(carrier, choice),
            _ => matches!(choice, AttachChoice::Auto | AttachChoice::Tc) || carrier.layer3,
        }
    }

    /// Attaches to all interfaces for the first time. Where an earlier process has left an attachment that is wanted, the
    /// program behind it is that process's own until [`Keeper::take_over`].
    ///
    /// # Errors
    /// If an interface does not exist, or does not take the mode that is demanded.
    pub(in super::super) fn start(
        &mut self,
        links: &HashMap<u32, Link>,
        programs: &mut Programs,
        former: &mut Former,
    ) -> Result<(), AttachError> {
        for port in self.ports.clone() {
            let link = by_name(links, &port.interface);
            let link = link.ok_or_else(|| AttachError::NoInterface(port.interface.clone()))?;
            let carrier = carrier(links, link).map_err(AttachError::Carrier)?;
            self.attach(carrier, port.attach, programs, former)?;
        }
        self.attach_behind(links, programs, former);
        Ok(())
    }

    /// Exchanges the programs of an earlier process for these, each in one step.
    ///
    /// # Errors
    /// If one could not be exchanged, and none attached in its place.
    pub(in super::super) async fn take_over(
        &mut self,
        netlink: &netlink::Handle,
        links: &HashMap<u32, Link>,
        programs: &mut Programs,
    ) -> Result<(), AttachError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        let mut exchange = |hold: &mut Option<Hold>| match hold.take() {
            Some(Hold::Former(former)) => {
                former.exchange(programs, pins).map(|path| *hold = Some(Hold::Pin(path)))
            }
            other => {
                *hold = other;
                Ok(())
            }
        };
        let mut again = Vec::new();
        for place in &mut self.places {
            let refused = |what: &str, error: String| {
                warn!(
                    interface = place.carrier,
                    what, error, "datapath: an earlier daemon's program cannot be exchanged; attaching anew"
                );
            };
            if let Err(error) = exchange(&mut place.hold) {
                refused("relay", error);
                again.push(place.carrier.clone());
            }
            // One behind XDP that is gone is no reason to take XDP off.
            if let Err(error) = exchange(&mut place.behind) {
                refused("TC behind XDP", error);
            }
        }
        for name in again {
            self.let_go_unless(&name, 0, programs);
            let_go(netlink, &name).await?;
            let port = self.ports.iter().find(|port| {
                let link = by_name(links, &port.interface).and_then(|link| carrier(links, link).ok());
                link.is_some_and(|carrier| carrier.name == name)
            });
            if let (Some(link), Some(choice)) = (by_name(links, &name), port.map(|port| port.attach)) {
                // The kernel's word on what is attached was from before.
                let link = Link { xdp: Attached::Nothing, ..link.clone() };
                self.attach(&link, choice, programs, &mut Former::default())?;
            }
        }
        self.attach_behind(links, programs, &mut Former::default());
        Ok(())
    }

    /// Checks that programs meet the packets of every interface for which nothing else is configured.
    ///
    /// # Errors
    /// Where none does, and why.
    pub(in super::super) fn demand(&self) -> Result<(), AttachError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = known.attachments.iter().find(|known| {
            known.mode == Mode::Userspace
                && self
                    .ports
                    .iter()
                    .any(|port| port.interface == known.interface && port.attach != AttachChoice::Userspace)
        });
        match missing {
            None => Ok(()),
            Some(attachment) => Err(AttachError::Nowhere {
                interface: attachment.interface.clone(),
                why: attachment.why_not_native.clone().unwrap_or_default(),
            }),
        }
    }

    /// Brings what is attached into line with the interfaces that there are.
    pub(in super::super) fn settle(&mut self, links: &HashMap<u32, Link>, programs: &mut Programs) {
        let mut lost = Vec::new();
        for port in self.ports.clone() {
            let link = by_name(links, &port.interface)
                .ok_or_else(|| "the interface is gone".to_owned())
                .and_then(|link| carrier(links, link));
            let why = match link {
                Ok(carrier) => {
                    self.let_go_unless(&carrier.name, carrier.index, programs);
                    let place = self.places.iter().find(|place| place.carrier == carrier.name);
                    match place {
                        Some(place) if place.is_xdp() && xdp_mode(carrier).is_none() => {
                            Err("something has taken the XDP program off; restart to attach it again"
                                .to_owned())
                        }
                        Some(_) => Ok(()),
                        None => self
                            .attach(carrier, port.attach, programs, &mut Former::default())
                            .map_err(|error| error.to_string()),
                    }
                }
                Err(why) => {
                    // What an 802.1Q device stood on may serve others still; it is let go of when it goes itself.
                    self.let_go_unless(&port.interface, 0, programs);
                    Err(why)
                }
            };
            if let Err(why) = why {
                lost.push(LostAttachment { interface: port.interface.clone(), why });
            }
        }
        self.attach_behind(links, programs, &mut Former::default());
        self.note(links, lost);
    }

    /// Lets go of a program whose interface is gone, or has been made anew with another number.
    fn let_go_unless(&mut self, name: &str, index: u32, programs: &mut Programs) {
        if let Some(at) = self.places.iter().position(|place| place.carrier == name && place.index != index) {
            let place = self.places.remove(at);
            info!(interface = name, "datapath: the interface has gone, and the relay with it");
            place.hold.into_iter().chain(place.behind).for_each(|hold| hold.release(programs));
        }
    }

    fn attach(
        &mut self,
        link: &Link,
        choice: AttachChoice,
        programs: &mut Programs,
        former: &mut Former,
    ) -> Result<(), AttachError> {
        if self.places.iter().any(|place| place.carrier == link.name) {
            return Ok(());
        }
        let step = descend(programs, link, choice, self.pins.as_ref(), former)?;
        let device = self.device(&link.name);
        if matches!(step.mode, Mode::Native | Mode::Generic)
            && let Err(error) = programs.set_device(device, link.index)
        {
            step.hold.into_iter().for_each(|hold| hold.release(programs));
            return Err(error.into());
        }
        let (interface, mode) = (&link.name, step.mode);
        match &step.why_not_native {
            None => info!(interface, %mode, "datapath: relay attached"),
            Some(why) => warn!(interface, %mode, %why, "datapath: relay attached, not natively"),
        }
        self.places.push(Place {
            carrier: link.name.clone(),
            index: link.index,
            device,
            mode,
            why_not_native: step.why_not_native,
            hold: step.hold,
            behind: None,
            why_none_behind: None,
            layer3: link.layer3,
        });
        Ok(())
    }

    fn device(&mut self, name: &str) -> u32 {
        let known = self.devices.iter().position(|known| known == name);
        let at = known.unwrap_or_else(|| {
            self.devices.push(name.to_owned());
            self.devices.len() - 1
        });
        at as u32
    }

    /// Attaches TC programs behind XDP if packets may have to leave by an interface that XDP cannot send by.
    fn attach_behind(&mut self, links: &HashMap<u32, Link>, programs: &mut Programs, former: &mut Former) {
        let needed = self.places.iter().any(|place| self.by_tc(place).is_some());
        for place in self.places.iter_mut().filter(|place| place.is_xdp()) {
            if !needed || place.behind.is_some() || place.why_none_behind.is_some() {
                continue;
            }
            let Some(link) = links.get(&place.index) else { continue };
            match attach_behind(programs, link, self.pins.as_ref(), former) {
                Ok(hold) => {
                    info!(
                        interface = place.carrier,
                        "datapath: TC stands behind XDP, for what XDP cannot send"
                    );
                    place.behind = Some(hold);
                }
                Err(why) => {
                    warn!(
                        interface = place.carrier,
                        why, "datapath: no TC behind XDP: userspace carries what XDP cannot send"
                    );
                    place.why_none_behind = Some(why);
                }
            }
        }
    }

    /// Why only TC can send by an interface.
    fn by_tc(&self, place: &Place) -> Option<String> {
        if place.layer3 {
            return Some(format!("{} has no link layer: TC sends by it, XDP cannot", place.carrier));
        }
        // A driver can redirect to one that runs XDP itself, and not to others; generic XDP can to any.
        let some_native = self.places.iter().any(|place| place.mode == Mode::Native);
        (some_native && place.mode != Mode::Native)
            .then(|| format!("{} does not run XDP in its driver: TC sends by it", place.carrier))
    }

    /// How packets can be sent by interfaces.
    pub(in super::super) fn egresses(&self) -> HashMap<u32, Egress> {
        let egress = |place: &Place| Egress { device: place.device, by_tc: self.by_tc(place) };
        self.places.iter().map(|place| (place.index, egress(place))).collect()
    }

    /// How packets for our addresses come in.
    pub(in super::super) fn ingresses(&self) -> HashMap<IpAddr, Ingress> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |port: &Port| {
            if known.lost.iter().any(|lost| lost.interface == port.interface) {
                return Ingress::Nothing;
            }
            let attachment = known.attachments.iter().find(|known| known.interface == port.interface);
            match attachment.map(|known| known.mode) {
                Some(Mode::Native | Mode::Generic) => {
                    Ingress::Xdp { tc_behind: attachment.is_some_and(|known| known.tc_behind) }
                }
                Some(Mode::Tc) => {
                    let why = attachment.and_then(|known| known.why_not_native.clone());
                    Ingress::Tc(why.unwrap_or_default())
                }
                Some(Mode::Userspace) | None => Ingress::Nothing,
            }
        };
        self.ports.iter().map(|port| (port.address, of(port))).collect()
    }

    /// Tells those who show it what is attached, and the log what has been lost.
    pub(in super::super) fn note(&self, links: &HashMap<u32, Link>, lost: Vec<LostAttachment>) {
        let mut attachments: Vec<Attachment> = Vec::new();
        for port in &self.ports {
            let carrier = by_name(links, &port.interface).and_then(|link| carrier(links, link).ok());
            let place = carrier.and_then(|carrier| self.places.iter().find(|it| it.index == carrier.index));
            if let Some((place, carrier)) = place.zip(carrier)
                && !attachments.iter().any(|known| known.interface == port.interface)
            {
                // Which XDP it is, is the kernel's word.
                let mode = if place.is_xdp() { xdp_mode(carrier).unwrap_or(place.mode) } else { place.mode };
                attachments.push(Attachment {
                    interface: port.interface.clone(),
                    carrier: place.carrier.clone(),
                    index: place.index,
                    mode,
                    why_not_native: place.why_not_native.clone(),
                    device: place.device,
                    tc_behind: place.behind.is_some(),
                });
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in lost.iter().filter(|gone| !known.lost.contains(gone)) {
            warn!(
                interface = gone.interface,
                why = gone.why,
                "datapath: the relay is not attached; media that comes by there goes through userspace"
            );
        }
        *known = Known { attachments, lost };
    }
}

impl Place {
    fn is_xdp(&self) -> bool {
        matches!(self.mode, Mode::Native | Mode::Generic)
    }
}

fn by_name<'a>(links: &'a HashMap<u32, Link>, name: &str) -> Option<&'a Link> {
    links.values().find(|link| link.name == name)
}

/// The interface whose packets an interface's are: an 802.1Q device's come by the one that it stands on.
pub(super) fn carrier<'a>(links: &'a HashMap<u32, Link>, link: &'a Link) -> Result<&'a Link, String> {
    if link.vlan.is_none() {
        return Ok(link);
    }
    let name = &link.name;
    let parent = link.parent.and_then(|parent| links.get(&parent));
    match parent {
        None => Err(format!("{name} is a VLAN of an interface that is not in this network namespace")),
        Some(parent) if parent.vlan.is_some() => Err(format!(
            "{name} is a VLAN within a VLAN ({}); the kernel program carries one tag",
            parent.name
        )),
        Some(parent) => Ok(parent),
    }
}
