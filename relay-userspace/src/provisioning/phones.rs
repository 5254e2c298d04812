//! What each phone has asked the appliance for so far: the stages of its start, with times.
//!
//! A phone is known by its hardware address where DHCP, the neighbour table or a file's name tells it, otherwise by
//! its IP address. When a hardware address becomes known later, the two records become one. Invariant: an IP address
//! and a hardware address each belong to one record at most; there are at most [`MOST_PHONES`] records, and the one
//! that was silent longest gives way.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::log::escaped;

/// Most phones that are remembered: several times a large office.
const MOST_PHONES: usize = 2000;
/// Characters of a detail that are kept.
const MOST_DETAIL: usize = 200;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HardwareAddress(pub [u8; 6]);

impl HardwareAddress {
    /// Twelve hexadecimal digits, as phones put them into the names of their files.
    #[must_use]
    pub fn from_digits(digits: &str) -> Option<Self> {
        let bytes = digits.as_bytes();
        if bytes.len() != 12 {
            return None;
        }
        let mut address = [0; 6];
        for (byte, pair) in address.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |character: u8| char::from(character).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(address))
    }

    /// Whether it can be a phone's: neither a group's nor nobody's.
    #[must_use]
    pub fn is_a_host(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a phone did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It asked the office's DHCP server for an address.
    DhcpSeen,
    /// Its DHCPINFORM was answered.
    InformAnswered,
    /// It asked for the time.
    TimeAsked,
    /// It asked for a firmware file.
    FirmwareAsked,
    /// It asked for a configuration file.
    ConfigurationAsked,
    /// It asked for another file.
    FileAsked,
    /// It sent a file.
    FileSent,
    /// It sent a line of its log.
    LogReceived,
}

impl Stage {
    /// All of them, in the order of a phone's start.
    pub const ALL: [Self; 8] = [
        Self::DhcpSeen,
        Self::InformAnswered,
        Self::TimeAsked,
        Self::FirmwareAsked,
        Self::ConfigurationAsked,
        Self::FileAsked,
        Self::FileSent,
        Self::LogReceived,
    ];

    /// Its name in the command line's output.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::DhcpSeen => "dhcp_seen",
            Self::InformAnswered => "inform_answered",
            Self::TimeAsked => "time_asked",
            Self::FirmwareAsked => "firmware_asked",
            Self::ConfigurationAsked => "configuration_asked",
            Self::FileAsked => "file_asked",
            Self::FileSent => "file_sent",
            Self::LogReceived => "log_received",
        }
    }
}

/// How a phone was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// By its IP address.
    Address(IpAddr),
    /// By its hardware address.
    Hardware(HardwareAddress),
    /// By both.
    Both(HardwareAddress, IpAddr),
}

impl Who {
    fn parts(self) -> (Option<HardwareAddress>, Option<IpAddr>) {
        match self {
            Self::Address(ip) => (None, Some(ip)),
            Self::Hardware(hardware) => (Some(hardware), None),
            Self::Both(hardware, ip) => (Some(hardware), Some(ip)),
        }
    }
}

/// A phone and what it did, for people and programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneActivity {
    /// Its hardware address, lower case with colons.
    pub hardware_address: Option<String>,
    /// Its IP address.
    pub address: Option<String>,
    /// What it called itself in DHCP (option 60).
    pub vendor_class: Option<String>,
    /// What it called itself in HTTP.
    pub user_agent: Option<String>,
    /// When it was first heard of, in milliseconds since 1970; 0 if only by its registration.
    pub first_seen_unix_ms: u64,
    /// When it was last heard of.
    pub last_seen_unix_ms: u64,
    /// What it did, in the order of a phone's start.
    pub stages: Vec<StageView>,
}

/// One stage of a phone's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageView {
    /// As [`Stage::as_label`] names it.
    pub stage: String,
    /// How often.
    pub count: u64,
    /// When last, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What exactly, the last time.
    pub detail: String,
}

#[derive(Debug, Clone)]
struct Record {
    count: u64,
    at: u64,
    detail: String,
}

#[derive(Debug, Clone, Default)]
struct Phone {
    hardware: Option<HardwareAddress>,
    address: Option<IpAddr>,
    vendor_class: Option<String>,
    user_agent: Option<String>,
    first: u64,
    last: u64,
    stages: BTreeMap<Stage, Record>,
}

impl Phone {
    /// Takes over what another record of the same phone has.
    fn absorb(&mut self, other: Self) {
        for (stage, theirs) in other.stages {
            match self.stages.get_mut(&stage) {
                None => drop(self.stages.insert(stage, theirs)),
                Some(ours) => {
                    ours.count += theirs.count;
                    if theirs.at > ours.at {
                        (ours.at, ours.detail) = (theirs.at, theirs.detail);
                    }
                }
            }
        }
        self.vendor_class = self.vendor_class.take().or(other.vendor_class);
        self.user_agent = self.user_agent.take().or(other.user_agent);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

#[derive(Debug, Default)]
struct Phones {
    next: u64,
    phones: HashMap<u64, Phone>,
    by_hardware: HashMap<HardwareAddress, u64>,
    by_address: HashMap<IpAddr, u64>,
}

impl Phones {
    /// The record for a phone: found, put together, or made.
    fn find(&mut self, now: u64, who: Who) -> Option<&mut Phone> {
        let (hardware, address) = who.parts();
        let by_hardware = hardware.and_then(|hardware| self.by_hardware.get(&hardware).copied());
        let by_address = address.and_then(|address| self.by_address.get(&address).copied());
        // A record that is only an address's is that of whoever is now known to have the address.
        let nameless =
            by_address.filter(|id| self.phones.get(id).is_some_and(|phone| phone.hardware.is_none()));
        let id = match (hardware, by_hardware) {
            (None, _) => by_address,
            (Some(_), Some(id)) => {
                if let Some(nameless) = nameless.and_then(|nameless| self.phones.remove(&nameless))
                    && let Some(phone) = self.phones.get_mut(&id)
                {
                    phone.absorb(nameless);
                }
                Some(id)
            }
            (Some(_), None) => nameless,
        };
        let id = id.unwrap_or_else(|| {
            self.make_room();
            self.next += 1;
            self.phones.insert(self.next, Phone { first: now, ..Phone::default() });
            self.next
        });
        if let Some(hardware) = hardware {
            self.by_hardware.insert(hardware, id);
        }
        let mut left = None;
        if let Some(address) = address {
            if let Some(before) = self.by_address.insert(address, id).filter(|before| *before != id)
                && let Some(phone) = self.phones.get_mut(&before)
            {
                phone.address = None;
            }
            left = self.phones.get(&id).and_then(|phone| phone.address).filter(|before| *before != address);
        }
        if let Some(left) = left {
            self.by_address.remove(&left);
        }
        let phone = self.phones.get_mut(&id)?;
        phone.hardware = hardware.or(phone.hardware);
        phone.address = address.or(phone.address);
        Some(phone)
    }

    fn make_room(&mut self) {
        if self.phones.len() < MOST_PHONES {
            return;
        }
        let oldest = self.phones.iter().min_by_key(|(_, phone)| phone.last).map(|(id, _)| *id);
        let Some(phone) = oldest.and_then(|id| self.phones.remove(&id)) else { return };
        phone.hardware.map(|hardware| self.by_hardware.remove(&hardware));
        phone.address.map(|address| self.by_address.remove(&address));
    }
}

/// All phones that have been heard of. Every method locks for a moment only.
#[derive(Debug, Default)]
pub struct Inventory {
    phones: Mutex<Phones>,
}

impl Inventory {
    fn lock(&self) -> MutexGuard<'_, Phones> {
        self.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a phone did something.
    pub fn note(&self, now: SystemTime, who: Who, stage: Stage, detail: &str) {
        let now = unix_ms(now);
        let mut phones = self.lock();
        let Some(phone) = phones.find(now, who) else { return };
        phone.last = now;
        let record =
            phone.stages.entry(stage).or_insert_with(|| Record { count: 0, at: now, detail: String::new() });
        record.count += 1;
        record.at = now;
        record.detail = shown(detail);
    }

    /// Notes what a phone calls itself in DHCP.
    pub fn vendor_class(&self, now: SystemTime, who: Who, class: &str) {
        if let Some(phone) = self.lock().find(unix_ms(now), who) {
            phone.vendor_class = Some(shown(class));
        }
    }

    /// Notes what a phone calls itself in HTTP.
    pub fn user_agent(&self, now: SystemTime, who: Who, agent: &str) {
        if let Some(phone) = self.lock().find(unix_ms(now), who) {
            phone.user_agent = Some(shown(agent));
        }
    }

    /// Tells whose an IP address is; it is of interest only if a phone was heard of by it.
    pub fn neighbour(&self, now: SystemTime, address: IpAddr, hardware: HardwareAddress) {
        let mut phones = self.lock();
        if phones.by_address.contains_key(&address) {
            phones.find(unix_ms(now), Who::Both(hardware, address));
        }
    }

    /// Takes a phone at its word about its hardware address, where nothing better is known of either.
    pub fn claimed(&self, now: SystemTime, address: IpAddr, hardware: HardwareAddress) {
        let mut phones = self.lock();
        let known = phones.by_address.get(&address).and_then(|id| phones.phones.get(id)?.hardware);
        if known.is_none() && !phones.by_hardware.contains_key(&hardware) {
            phones.find(unix_ms(now), Who::Both(hardware, address));
        }
    }

    /// All of them, the one that was heard of last first.
    #[must_use]
    pub fn phones(&self) -> Vec<PhoneActivity> {
        let phones = self.lock();
        let mut all: Vec<PhoneActivity> = phones.phones.values().map(view).collect();
        drop(phones);
        all.sort_by(|a, b| {
            (b.last_seen_unix_ms, &a.address, &a.hardware_address).cmp(&(
                a.last_seen_unix_ms,
                &b.address,
                &b.hardware_address,
            ))
        });
        all
    }
}

fn view(phone: &Phone) -> PhoneActivity {
    PhoneActivity {
        hardware_address: phone.hardware.map(|hardware| hardware.to_string()),
        address: phone.address.map(|address| address.to_string()),
        vendor_class: phone.vendor_class.clone(),
        user_agent: phone.user_agent.clone(),
        first_seen_unix_ms: phone.first,
        last_seen_unix_ms: phone.last.max(phone.first),
        stages: phone
            .stages
            .iter()
            .map(|(stage, record)| StageView {
                stage: stage.as_label().to_owned(),
                count: record.count,
                at_unix_ms: record.at,
                detail: record.detail.clone(),
            })
            .collect(),
    }
}

/// Milliseconds since 1970; 0 before.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a phone sent, fit to be shown: no control characters, not too long.
pub(super) fn shown(text: &str) -> String {
    escaped(text, MOST_DETAIL)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const MAC: HardwareAddress = HardwareAddress([0, 4, 0xf2, 1, 2, 3]);
    const OTHER: HardwareAddress = HardwareAddress([0, 4, 0xf2, 9, 9, 9]);

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 61, 0, last).into()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn identities(inventory: &Inventory) -> Vec<(Option<String>, Option<String>, usize)> {
        let phones = inventory.phones();
        phones.into_iter().map(|phone| (phone.hardware_address, phone.address, phone.stages.len())).collect()
    }

    #[test]
    fn a_phone_met_by_its_address_becomes_one_with_its_hardware_address() {
        let inventory = Inventory::default();
        inventory.note(at(1), Who::Address(ip(11)), Stage::TimeAsked, "version 4");
        inventory.note(at(2), Who::Hardware(MAC), Stage::DhcpSeen, "DISCOVER");
        assert_eq!(inventory.phones().len(), 2);
        inventory.neighbour(at(3), ip(11), MAC);
        inventory.note(at(4), Who::Address(ip(11)), Stage::TimeAsked, "version 3");
        let expected = PhoneActivity {
            hardware_address: Some("00:04:f2:01:02:03".to_owned()),
            address: Some("10.61.0.11".to_owned()),
            vendor_class: None,
            user_agent: None,
            first_seen_unix_ms: 1000,
            last_seen_unix_ms: 4000,
            stages: vec![
                StageView {
                    stage: "dhcp_seen".to_owned(),
                    count: 1,
                    at_unix_ms: 2000,
                    detail: "DISCOVER".to_owned(),
                },
                StageView {
                    stage: "time_asked".to_owned(),
                    count: 2,
                    at_unix_ms: 4000,
                    detail: "version 3".to_owned(),
                },
            ],
        };
        assert_eq!(inventory.phones(), [expected]);
    }

    #[test]
    fn an_address_that_goes_to_another_phone_leaves_the_first_ones_record() {
        let inventory = Inventory::default();
        inventory.note(at(1), Who::Both(MAC, ip(11)), Stage::DhcpSeen, "");
        inventory.note(at(2), Who::Both(OTHER, ip(11)), Stage::DhcpSeen, "");
        inventory.note(at(3), Who::Address(ip(11)), Stage::TimeAsked, "");
        let rows = identities(&inventory);
        assert_eq!(
            rows,
            [(Some(OTHER.to_string()), Some(ip(11).to_string()), 2), (Some(MAC.to_string()), None, 1)]
        );
        // The first one comes back with another address; the old address is nobody's then.
        inventory.note(at(4), Who::Both(OTHER, ip(12)), Stage::DhcpSeen, "");
        inventory.note(at(5), Who::Address(ip(11)), Stage::TimeAsked, "");
        assert_eq!(inventory.phones().len(), 3);
    }

    #[test]
    fn the_phone_that_was_silent_longest_gives_way() {
        let inventory = Inventory::default();
        for number in 0..=MOST_PHONES as u32 {
            let who = Who::Address(Ipv4Addr::from(0x0a00_0000 + number).into());
            inventory.note(at(u64::from(number) + 1), who, Stage::TimeAsked, "");
        }
        let phones = inventory.phones();
        assert_eq!(phones.len(), MOST_PHONES);
        assert!(phones.iter().all(|phone| phone.address.as_deref() != Some("10.0.0.0")));
        assert_eq!(inventory.lock().by_address.len(), MOST_PHONES);
    }

    #[test]
    fn what_a_phone_sends_is_shown_without_control_characters() {
        assert_eq!(shown("a\u{1b}[31mb\u{202e}c\r\n"), "a\\u{1b}[31mb\\u{202e}c\\u{d}\\u{a}");
        assert_eq!(shown(&"x".repeat(5000)).len(), MOST_DETAIL);
    }

    #[test]
    fn hardware_addresses_are_read_from_twelve_digits() {
        for (text, expected) in [
            ("0004F2010203", Some(MAC)),
            ("0004f2010203", Some(MAC)),
            ("0004f201020", None),
            ("0004f201020g", None),
            ("+004f2010203", None),
            ("ä004f201020", None),
        ] {
            assert_eq!(HardwareAddress::from_digits(text), expected, "{text}");
        }
    }
}
