//! Phones that a server has registered before: what the office goes by when it is on its own.
//!
//! A phone is known by its address-of-record, the addresses that it was registered from, and the numbers that servers use
//! for it: those that the server listed when it registered (P-Associated-URI, RFC 7315 section 4.1), and those by which
//! servers have called it, as long as they are nobody else's. Bounded in phones, addresses and numbers; the one that was not seen for longest
//! gives way.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use bytes::Bytes;

use crate::net::NetworkId;

/// Addresses and numbers of one address-of-record.
const MOST_ADDRESSES: usize = 10;
const MOST_NUMBERS: usize = 8;

/// A phone that a server has registered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPhone {
    /// User and host of its address-of-record, the host in lower case.
    pub aor: Bytes,
    /// The user alone.
    pub user: Bytes,
    /// From where it was registered, and when last.
    pub addresses: Vec<(NetworkId, IpAddr, Instant)>,
    /// The numbers that servers use for it.
    pub numbers: Vec<String>,
    /// The realm that it has answered a challenge for itself, and by which algorithm.
    pub digest: Option<(String, String)>,
    /// When a server last registered it.
    pub seen: Instant,
}

/// Who says that a number is a phone's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The server that registered it.
    ByServer,
    /// The caller of a call that a server has led to it.
    ByCaller,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Known {
    phones: HashMap<Bytes, KnownPhone>,
    by_number: HashMap<String, Bytes>,
    most: usize,
}

impl Known {
    pub(super) fn new(most: usize) -> Self {
        Self { phones: HashMap::new(), by_number: HashMap::new(), most }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KnownPhone> {
        self.phones.values()
    }

    pub(super) fn get(&self, aor: &[u8]) -> Option<&KnownPhone> {
        self.phones.get(aor)
    }

    /// Whose number it is.
    pub(super) fn of_number(&self, number: &str) -> Option<&KnownPhone> {
        self.phones.get(self.by_number.get(number)?)
    }

    /// Takes a phone of an earlier run.
    pub(super) fn restore(&mut self, phone: KnownPhone) {
        for number in &phone.numbers {
            self.by_number.insert(number.clone(), phone.aor.clone());
        }
        self.make_room(&phone.aor);
        self.phones.insert(phone.aor.clone(), phone);
    }

    /// A server has registered a phone.
    pub(super) fn registered(
        &mut self,
        now: Instant,
        aor: &Bytes,
        user: &Bytes,
        address: (NetworkId, IpAddr),
        digest: Option<(String, String)>,
    ) {
        self.make_room(aor);
        let phone = self.phones.entry(aor.clone()).or_insert_with(|| KnownPhone {
            aor: aor.clone(),
            user: user.clone(),
            addresses: Vec::new(),
            numbers: Vec::new(),
            digest: None,
            seen: now,
        });
        phone.seen = now;
        phone.digest = digest;
        phone.addresses.retain(|(network, ip, _)| (*network, *ip) != address);
        phone.addresses.insert(0, (address.0, address.1, now));
        phone.addresses.truncate(MOST_ADDRESSES);
    }

    /// A server uses a number for a phone. Says whether that was not known.
    pub(super) fn learn(&mut self, aor: &Bytes, number: &str, told: Told) -> bool {
        // Whom a call is for is what its caller says.
        if told == Told::ByCaller && self.by_number.get(number).is_some_and(|owner| owner != aor) {
            return false;
        }
        let Some(phone) = self.phones.get_mut(aor) else { return false };
        if phone.user == number.as_bytes() || phone.numbers.iter().any(|known| known == number) {
            return false;
        }
        if phone.numbers.len() >= MOST_NUMBERS {
            let oldest = phone.numbers.remove(0);
            self.by_number.remove(&oldest);
        }
        phone.numbers.push(number.to_owned());
        let before = self.by_number.insert(number.to_owned(), aor.clone());
        // A number moves with its owner.
        if let Some(before) =
            before.filter(|before| before != aor).and_then(|before| self.phones.get_mut(&before))
        {
            before.numbers.retain(|known| known != number);
        }
        true
    }

    fn make_room(&mut self, aor: &Bytes) {
        if self.phones.len() < self.most || self.phones.contains_key(aor) {
            return;
        }
        let oldest = self.phones.values().min_by_key(|phone| phone.seen).map(|phone| phone.aor.clone());
        if let Some(oldest) = oldest {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, aor: &Bytes) {
        let Some(phone) = self.phones.remove(aor) else { return };
        for number in phone.numbers {
            self.by_number.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_lead_to_their_phone_move_with_their_owner_and_are_few() {
        let now = Instant::now();
        let mut known = Known::new(2);
        let (one, two) = (Bytes::from_static(b"200@a"), Bytes::from_static(b"201@a"));
        let at = (NetworkId(0), IpAddr::from([192, 0, 2, 1]));
        known.registered(now, &one, &Bytes::from_static(b"200"), at, None);
        known.registered(now + Duration::from_secs(1), &two, &Bytes::from_static(b"201"), at, None);
        assert!(known.learn(&one, "+49711200", Told::ByServer));
        assert!(!known.learn(&one, "+49711200", Told::ByServer), "it is known");
        assert!(!known.learn(&one, "200", Told::ByServer), "its own user is no other number");
        assert_eq!(known.of_number("+49711200").unwrap().aor, one);
        assert!(!known.learn(&two, "+49711200", Told::ByCaller), "a caller takes no number from anybody");
        assert!(known.learn(&two, "+49711200", Told::ByServer));
        assert_eq!(known.of_number("+49711200").unwrap().aor, two);
        assert!(known.get(&one).unwrap().numbers.is_empty());
        for number in 0..20 {
            known.learn(&two, &format!("{number}"), Told::ByCaller);
        }
        assert_eq!(known.get(&two).unwrap().numbers.len(), MOST_NUMBERS);
        assert_eq!(known.by_number.len(), MOST_NUMBERS, "nothing stays behind");

        // A third: the one that was not seen for longest gives way.
        known.registered(now + Duration::from_secs(2), &Bytes::from_static(b"3@a"), &Bytes::new(), at, None);
        assert!(known.get(&one).is_none() && known.get(&two).is_some());
    }
}
