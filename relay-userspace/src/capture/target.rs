//! What a capture is of: one call, or whatever a phone or an address takes part in while the capture runs.
//!
//! A phone is the addresses that it registered from, looked up again at every look, so that it may move. An address
//! counts by either its signalling or its media: a call belongs to it once a SIP message of the call has come from there
//! or gone there, or once a session description names it as where media comes from or goes.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is to be captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The call with this Call-ID.
    Call(String),
    /// All calls of the phone that is registered for this address-of-record, or for this user.
    Phone(String),
    /// All calls with this address, or one of these.
    Address(IpNet),
}

impl Target {
    /// The one target that is given.
    ///
    /// # Errors
    /// None is given, or several are, or an address that is none; says so.
    pub fn of(call_id: Option<&str>, phone: Option<&str>, address: Option<&str>) -> Result<Self, String> {
        match (call_id, phone, address) {
            (Some(call), None, None) => Ok(Self::Call(call.to_owned())),
            (None, Some(phone), None) => Ok(phone
                .parse()
                .map_or_else(|_| Self::Phone(phone.to_owned()), |ip: IpAddr| Self::Address(ip.into()))),
            (None, None, Some(address)) => parse(address).map(Self::Address),
            _ => Err("name one of call_id, phone and address".to_owned()),
        }
    }

    /// Whether an address-of-record (`user@host`) is the one that is meant.
    #[must_use]
    pub fn is_phone(&self, address_of_record: &str) -> bool {
        let Self::Phone(wanted) = self else { return false };
        let wanted = wanted.strip_prefix("sip:").unwrap_or(wanted);
        let user = address_of_record.split('@').next();
        address_of_record.eq_ignore_ascii_case(wanted) || (!wanted.contains('@') && user == Some(wanted))
    }
}

/// An address, or a prefix of addresses.
fn parse(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc())
        .map_err(|_| format!("{text:?} is no IP address and no prefix, such as 192.0.2.7 or 192.0.2.0/28"))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => f.write_str(call),
            Self::Phone(phone) => write!(f, "phone {phone}"),
            Self::Address(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "address {}", net.addr())
            }
            Self::Address(net) => write!(f, "address {net}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_is_taken_and_told_in_words() {
        for (call, phone, address, expected) in [
            (Some("a@b"), None, None, "a@b"),
            (None, Some("1001@example.com"), None, "phone 1001@example.com"),
            (None, Some("10.61.0.11"), None, "address 10.61.0.11"),
            (None, None, Some("10.61.0.11"), "address 10.61.0.11"),
            (None, None, Some("10.61.0.11/24"), "address 10.61.0.0/24"),
            (None, None, Some("2001:db8::/64"), "address 2001:db8::/64"),
        ] {
            assert_eq!(Target::of(call, phone, address).unwrap().to_string(), expected);
        }
        for (call, phone, address) in [
            (None, None, None),
            (Some("a"), Some("b"), None),
            (None, None, Some("10.61.0.11/33")),
            (None, None, Some("x")),
        ] {
            assert!(Target::of(call, phone, address).is_err(), "{call:?} {phone:?} {address:?}");
        }
    }

    #[test]
    fn a_phone_is_named_by_its_address_of_record_or_its_user() {
        for (wanted, aor, expected) in [
            ("1001@example.com", "1001@example.com", true),
            ("sip:1001@Example.com", "1001@example.com", true),
            ("1001", "1001@example.com", true),
            ("1001", "10011@example.com", false),
            ("1001@example.org", "1001@example.com", false),
        ] {
            assert_eq!(Target::Phone(wanted.to_owned()).is_phone(aor), expected, "{wanted} {aor}");
        }
    }
}
