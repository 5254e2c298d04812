//! What NAPTR records say of a domain: by which transports its servers are reached, and under which names their SRV records
//! are. RFC 3263 section 4.1, RFC 3403.
//!
//! Only what SIP uses is read: the flag `s`, a service that is known, no regular expression, and a replacement. What else
//! stands there (other services, expressions, records that lead to further NAPTR records and so perhaps in a circle) is
//! passed over, so whatever a domain says, one look is enough. Of very many records the first are looked at.

use crate::net::Transport;

/// Records of one domain that are looked at.
const MOST_RECORDS: usize = 32;
/// Names that come out of them.
const MOST_NAMES: usize = 8;

/// One NAPTR record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaptrRecord {
    /// Smaller ones are looked at first.
    pub order: u16,
    /// Among those of one order, smaller ones go first.
    pub preference: u16,
    /// What the replacement is.
    pub flags: Vec<u8>,
    /// Protocol and resolution service.
    pub services: Vec<u8>,
    /// An expression that makes the next name out of the first.
    pub regexp: Vec<u8>,
    /// The next name, without a dot at its end.
    pub replacement: String,
}

/// A name that has SRV records, and the transport that they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// By what its servers are reached.
    pub transport: Transport,
    /// The name.
    pub name: String,
}

/// Which transports a server may be reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any.
    Any,
    /// TLS alone.
    Secure,
}

/// What the records lead to, the best first. Services of one order and one preference are equals: their SRV records are
/// one set. Empty if no record is of use.
#[must_use]
pub fn services(mut records: Vec<NaptrRecord>, wanted: Wanted) -> Vec<Vec<Service>> {
    records.truncate(MOST_RECORDS);
    records.sort_by_key(|record| (record.order, record.preference));
    let mut sets: Vec<Vec<Service>> = Vec::new();
    let mut before = None;
    let mut seen: Vec<Service> = Vec::new();
    for record in &records {
        let Some(service) = record.service(wanted).filter(|service| !seen.contains(service)) else {
            continue;
        };
        if seen.len() >= MOST_NAMES {
            break;
        }
        seen.push(service.clone());
        let rank = (record.order, record.preference);
        match sets.last_mut().filter(|_| before == Some(rank)) {
            Some(equals) => equals.push(service),
            None => sets.push(vec![service]),
        }
        before = Some(rank);
    }
    sets
}

/// What is looked up where a domain has no NAPTR record that is of use: the first of these that has SRV records.
#[must_use]
pub fn usual_services(domain: &str, wanted: Wanted) -> Vec<Service> {
    let all = [("_sip._udp", Transport::Udp), ("_sip._tcp", Transport::Tcp), ("_sips._tcp", Transport::Tls)];
    all.into_iter()
        .filter(|(_, transport)| wanted == Wanted::Any || *transport == Transport::Tls)
        .map(|(service, transport)| Service { transport, name: format!("{service}.{domain}") })
        .collect()
}

impl NaptrRecord {
    /// Where it leads to, if it is one for SIP.
    fn service(&self, wanted: Wanted) -> Option<Service> {
        const SERVICES: [(&str, Transport); 3] =
            [("SIP+D2U", Transport::Udp), ("SIP+D2T", Transport::Tcp), ("SIPS+D2T", Transport::Tls)];
        let (_, transport) =
            SERVICES.into_iter().find(|(name, _)| self.services.eq_ignore_ascii_case(name.as_bytes()))?;
        let fits = wanted == Wanted::Any || transport == Transport::Tls;
        let leads = self.flags.eq_ignore_ascii_case(b"s") && self.regexp.is_empty();
        (fits && leads && !self.replacement.is_empty())
            .then(|| Service { transport, name: self.replacement.to_ascii_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        order: u16,
        preference: u16,
        flags: &str,
        services: &str,
        regexp: &str,
        replacement: &str,
    ) -> NaptrRecord {
        NaptrRecord {
            order,
            preference,
            flags: flags.as_bytes().to_vec(),
            services: services.as_bytes().to_vec(),
            regexp: regexp.as_bytes().to_vec(),
            replacement: replacement.to_owned(),
        }
    }

    fn said(records: Vec<NaptrRecord>, wanted: Wanted) -> String {
        let sets = services(records, wanted);
        let set = |set: &Vec<Service>| {
            let names =
                set.iter().map(|service| format!("{} {}", service.transport.as_label(), service.name));
            names.collect::<Vec<_>>().join(" = ")
        };
        sets.iter().map(set).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn order_goes_before_preference_and_equals_are_one_set() {
        let records = || {
            vec![
                record(90, 50, "s", "SIP+D2T", "", "_sip._tcp.b.example"),
                record(50, 60, "S", "sip+d2u", "", "_sip._udp.A.example"),
                record(50, 50, "s", "SIPS+D2T", "", "_sips._tcp.a.example"),
                record(90, 50, "s", "SIP+D2U", "", "_sip._udp.b.example"),
            ]
        };
        assert_eq!(
            said(records(), Wanted::Any),
            "tls _sips._tcp.a.example; udp _sip._udp.a.example; tcp _sip._tcp.b.example = udp _sip._udp.b.example"
        );
        assert_eq!(said(records(), Wanted::Secure), "tls _sips._tcp.a.example");
    }

    #[test]
    fn what_sip_does_not_use_is_passed_over() {
        let good = || record(10, 10, "s", "SIP+D2U", "", "x.example");
        let rows = [
            ("an expression", record(1, 1, "s", "SIP+D2U", "!^.*$!sip:x@y!", "evil.example")),
            ("a number's record", record(1, 1, "u", "E2U+sip", "!^.*$!sip:x@y!", "")),
            ("another record of this kind, and so a circle", record(1, 1, "", "SIP+D2U", "", "a.example")),
            ("an address at once", record(1, 1, "a", "SIP+D2U", "", "a.example")),
            ("an unknown service", record(1, 1, "s", "SIP+D2S", "", "a.example")),
            ("a service that is no text", record(1, 1, "s", "SIP+D2\u{fffd}", "", "a.example")),
            ("nowhere", record(1, 1, "s", "SIP+D2U", "", "")),
            ("the same once more", good()),
        ];
        for (description, odd) in rows {
            assert_eq!(said(vec![odd, good()], Wanted::Any), "udp x.example", "{description}");
        }
        assert_eq!(said(Vec::new(), Wanted::Any), "");
    }

    #[test]
    fn of_very_many_records_few_are_followed() {
        let many: Vec<NaptrRecord> =
            (0..2000).map(|n| record(n, 0, "s", "SIP+D2U", "", &format!("{n}.example"))).collect();
        assert_eq!(services(many, Wanted::Any).len(), MOST_NAMES);
    }

    #[test]
    fn without_records_the_usual_names_are_looked_up() {
        let names = |wanted| {
            usual_services("a.example", wanted).into_iter().map(|service| service.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Wanted::Any),
            ["_sip._udp.a.example", "_sip._tcp.a.example", "_sips._tcp.a.example"]
        );
        assert_eq!(names(Wanted::Secure), ["_sips._tcp.a.example"]);
    }
}
