//! 802.1Q devices: the tag is put on, kept, changed and taken off, with the priorities of the configuration, whoever
//! sends: XDP, userspace, or SIP's sockets. Judged by captures of the wire below the devices.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use xtask::demo::appliance::Settings;
use xtask::lab::capture::fields;
use xtask::lab::network::{
    APPLIANCE_CENTRE, APPLIANCE_OFFICE, OUTER, PHONE_ADDRESSES, SECOND_SERVER, SERVER, TO_CENTRE, TO_OFFICE,
    phone,
};
use xtask::lab::traffic::APPLIANCE_SIP;
use xtask::lab::{Lab, Namespace, interrupt};

use crate::ladder::until_carried;
use crate::site::{LIMIT, Site, engine};

/// How long a call goes on at most; it ends with the test.
const TALK: Duration = Duration::from_secs(300);
/// Media packets that a capture has at least: those that the flows were waited for with, and a margin for its start.
const ENOUGH: usize = 40;
/// 802.1p priorities of voice, and of call signalling, as the defaults have them (IEEE 802.1Q table I-2; Cisco's).
const VOICE: &str = "5";
const SIGNALLING: &str = "3";

/// What a packet has in its tag, and its code point.
#[derive(Debug, PartialEq, Eq)]
struct Tags {
    id: String,
    priority: String,
    dscp: String,
}

/// A capture's packets from an address of the appliance: signalling, then media.
fn seen(file: &Path, from: impl std::fmt::Display) -> Result<[Vec<Tags>; 2]> {
    let filter = format!("ip.src == {from} && udp && !icmp");
    let rows = fields(file, &filter, &["udp.srcport", "vlan.id", "vlan.priority", "ip.dsfield.dscp"])?;
    let (mut signalling, mut media) = (Vec::new(), Vec::new());
    for row in rows {
        let mut row = row.into_iter();
        let mut next = || row.next().unwrap_or_default();
        let of_sip = next() == APPLIANCE_SIP.to_string();
        let tags = Tags { id: next(), priority: next(), dscp: next() };
        if of_sip { signalling.push(tags) } else { media.push(tags) }
    }
    Ok([signalling, media])
}

/// Moves a network onto an 802.1Q device of either end.
fn on_vlan(ends: [(&Namespace, &str, Vec<String>); 2], id: u16) -> Result<()> {
    for (namespace, parent, addresses) in ends {
        let device = format!("{parent}.{id}");
        // In the frame, as on a wire, where XDP sees it. Otherwise veth carries the tag beside the packet.
        namespace.run("ethtool", &["-K", parent, "txvlan", "off", "rxvlan", "off"])?;
        namespace.ip(&["address", "flush", "dev", parent])?;
        namespace.ip(&[
            "link",
            "add",
            "link",
            parent,
            "name",
            &device,
            "type",
            "vlan",
            "id",
            &id.to_string(),
        ])?;
        for address in addresses {
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", &device])?;
        }
        namespace.ip(&["link", "set", &device, "up"])?;
    }
    Ok(())
}

/// A site whose networks are on VLANs, or not.
fn site(office: Option<u16>, centre: Option<u16>, datapath: &str) -> Result<Site> {
    let device =
        |parent: &str, id: Option<u16>| id.map_or_else(|| parent.to_owned(), |id| format!("{parent}.{id}"));
    let settings = Settings {
        office_interface: device(TO_OFFICE, office),
        centre: (device(TO_CENTRE, centre), APPLIANCE_CENTRE.into()),
        ..engine(datapath)
    };
    Site::start_on(settings, |lab: &Lab| {
        let text = |address: std::net::Ipv4Addr| address.to_string();
        if let Some(id) = office {
            let phones = (0..PHONE_ADDRESSES).map(phone).map(text).collect();
            let own = vec![text(APPLIANCE_OFFICE)];
            on_vlan([(&lab.branch, TO_OFFICE, own), (&lab.office, OUTER, phones)], id)?;
        }
        if let Some(id) = centre {
            let servers = vec![text(SERVER), text(SECOND_SERVER)];
            let own = vec![text(APPLIANCE_CENTRE)];
            on_vlan([(&lab.branch, TO_CENTRE, own), (&lab.centre, OUTER, servers)], id)?;
        }
        Ok(())
    })
}

/// A call between such networks, carried by `carried`; what leaves the appliance has the tags that belong to it.
fn a_call_between(office: Option<u16>, centre: Option<u16>, datapath: &str, carried: &str) -> Result<()> {
    let site = site(office, centre, datapath)?;
    let captures = site.captures()?;
    let _call = site.phone_calls(3, TALK)?;
    until_carried(&site, carried, carried)?;
    let [office_wire, centre_wire] = captures;
    let files = [office_wire.end()?, centre_wire.end()?];
    for (file, own, id) in files
        .iter()
        .zip([(APPLIANCE_OFFICE, office), (APPLIANCE_CENTRE, centre)])
        .map(|(file, it)| (file, it.0, it.1))
    {
        let expected = [(1, SIGNALLING, "24"), (ENOUGH, VOICE, "46")];
        for (found, (least, priority, dscp)) in seen(file, own)?.into_iter().zip(expected) {
            let expected = Tags {
                id: id.map(|id| id.to_string()).unwrap_or_default(),
                priority: id.map(|_| priority.to_owned()).unwrap_or_default(),
                dscp: dscp.to_owned(),
            };
            assert!(found.len() >= least, "{} packets from {own} with DSCP {dscp}", found.len());
            if let Some(other) = found.iter().find(|tags| **tags != expected) {
                anyhow::bail!("from {own}, expected {expected:?}, found {other:?}");
            }
            println!("{} packets from {own}: {expected:?}", found.len());
        }
    }
    Ok(())
}

#[test]
fn a_tag_is_put_on_and_taken_off_by_xdp() -> Result<()> {
    a_call_between(None, Some(200), "kernel", "kernel")
}

#[test]
fn a_tag_is_kept_by_xdp() -> Result<()> {
    a_call_between(Some(100), Some(100), "kernel", "kernel")
}

#[test]
fn a_tag_is_changed_by_xdp() -> Result<()> {
    a_call_between(Some(100), Some(200), "kernel", "kernel")
}

#[test]
fn userspace_s_media_and_sip_have_the_priorities_of_the_configuration() -> Result<()> {
    a_call_between(Some(100), Some(200), "userspace", "userspace")
}

#[test]
fn two_tags_are_the_stack_s_business_and_counted() -> Result<()> {
    const INNER: [&str; 2] = ["10.64.0.1", "10.64.0.2"];
    let site = site(Some(100), None, "kernel")?;
    for (namespace, parent, address) in
        [(&site.lab.branch, TO_OFFICE, INNER[0]), (&site.lab.office, OUTER, INNER[1])]
    {
        let (outer, inner) = (format!("{parent}.100"), format!("{parent}.100.7"));
        namespace.ip(&["link", "add", "link", &outer, "name", &inner, "type", "vlan", "id", "7"])?;
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", &inner])?;
        namespace.ip(&["link", "set", &inner, "up"])?;
    }
    let counted = || site.metric("branchline_media_passed_total", &[("reason", "stacked_vlan")]);
    let before = counted()?;
    let answered = interrupt::wait_until(LIMIT, "an answer through two tags", || {
        Ok(site.lab.office.run("ping", &["-c", "3", "-i", "0.2", "-W", "2", INNER[0]]).ok())
    })?;
    println!("{}", answered.lines().last().unwrap_or_default());
    interrupt::wait_until(LIMIT, "the packets in the counter", || {
        Ok((counted()? >= before + 3.0).then_some(()))
    })
}
