//! ICE-lite at a media port: connectivity checks are answered, and the pair that the other party nominates is where its
//! packets come from and ours go.
//!
//! A lite agent has one address, sends no checks of its own, and never is in control (RFC 8445 sections 2.5 and 6.1.1); so
//! this is a STUN server with the short-term credentials of the session description (section 7.3). What the credentials
//! prove is more than any address could: a nominated source is learned whatever the network's policy on sources says.
//!
//! Invariant: nothing is answered but a binding request whose integrity was made with the password of that very port, so
//! the port tells strangers nothing and multiplies nobody's packets.

use std::{fmt, net::SocketAddr, sync::Arc};

use stun_types::{
    attribute::{AttributeType, Username, XorMappedAddress},
    message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageHeader, MessageWriteVec,
        ShortTermCredentials,
    },
    prelude::*,
};

/// `USE-CANDIDATE` (RFC 8445 section 16.1).
const USE_CANDIDATE: AttributeType = AttributeType::new(0x0025);
/// `MESSAGE-INTEGRITY` is made with SHA-1 in ICE (RFC 8445 section 7.1).
const INTEGRITY: IntegrityAlgorithm = IntegrityAlgorithm::Sha1;
/// Longest check that is looked at: a user name of 513 bytes and all attributes of RFC 8445 fit.
const LONGEST: usize = 800;

/// What the other party needs to check a port: `a=ice-ufrag` and `a=ice-pwd` of the appliance's description.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IceCredentials {
    /// The user name fragment: 4 to 256 characters.
    pub ufrag: String,
    /// The password: 22 to 256 characters. A secret.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// ICE at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceAtPort {
    /// What the party checks with.
    pub own: Arc<IceCredentials>,
    /// From what its source is learned.
    pub learns: IceLearning,
}

/// From what a source is learned at a port that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceLearning {
    /// From media too: whether the party has ICE at all is not known yet.
    FromMedia,
    /// From a nomination alone: what comes from elsewhere before, or by the pair of before a restart, fixes nothing.
    FromNomination,
}

/// What a checked packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// To know that it has arrived.
    Reach,
    /// To be the pair that is used.
    Nominate,
}

/// Whether a packet may be STUN: its first byte, and the magic cookie (RFC 8489 section 6.3).
pub(super) fn may_be_check(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| *first < 4) && payload.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}

/// Reads a connectivity check, and writes its answer. `None` for everything that is none of this port's.
pub(super) fn answer(
    payload: &[u8],
    source: SocketAddr,
    own: &IceCredentials,
    out: &mut Vec<u8>,
) -> Option<Check> {
    let header = MessageHeader::from_bytes(payload).ok()?;
    if payload.len() > LONGEST || usize::from(header.data_length()) + MessageHeader::LENGTH != payload.len() {
        return None;
    }
    let request = Message::from_bytes(payload).ok()?;
    if !request.has_class(MessageClass::Request) || !request.has_method(BINDING) {
        return None;
    }
    let username = request.attribute::<Username>().ok()?;
    // Ours first: the user name is made of both fragments by who is asked (RFC 8445 section 7.2.2).
    if username.username().split(':').next() != Some(own.ufrag.as_str()) {
        return None;
    }
    let credentials = ShortTermCredentials::new(own.pwd.clone()).into();
    request.validate_integrity(&credentials).ok()?;
    let mut response = Message::builder_success(&request, MessageWriteVec::new());
    response.add_attribute(&XorMappedAddress::new(source, request.transaction_id())).ok()?;
    response.add_message_integrity(&credentials, INTEGRITY).ok()?;
    response.add_fingerprint().ok()?;
    out.clear();
    out.extend_from_slice(&response.finish());
    Some(if request.has_attribute(USE_CANDIDATE) { Check::Nominate } else { Check::Reach })
}

#[cfg(test)]
mod tests {
    use stun_types::attribute::RawAttribute;

    use super::*;

    fn own() -> IceCredentials {
        IceCredentials { ufrag: "aBcD".into(), pwd: "0123456789abcdef012345".into() }
    }

    /// A check as a full agent makes it.
    fn check(username: &str, password: &str, nominates: bool) -> Vec<u8> {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        request.add_attribute(&Username::new(username).unwrap()).unwrap();
        request.add_attribute(&RawAttribute::new(AttributeType::new(0x24), &[0x6e, 0, 1, 0xff])).unwrap();
        if nominates {
            request.add_attribute(&RawAttribute::new(USE_CANDIDATE, &[])).unwrap();
        }
        request.add_attribute(&RawAttribute::new(AttributeType::new(0x802a), &[7; 8])).unwrap();
        let credentials = ShortTermCredentials::new(password.to_owned()).into();
        request.add_message_integrity(&credentials, INTEGRITY).unwrap();
        request.add_fingerprint().unwrap();
        request.finish()
    }

    #[test]
    fn a_check_with_the_ports_own_password_is_answered_and_nobody_elses_is() {
        let source: SocketAddr = "192.0.2.7:4242".parse().unwrap();
        let good = check("aBcD:peer", &own().pwd, false);
        let rows: [(&str, Vec<u8>, Option<Check>); 9] = [
            ("a check", good.clone(), Some(Check::Reach)),
            ("a nomination", check("aBcD:peer", &own().pwd, true), Some(Check::Nominate)),
            ("another user", check("xxxx:peer", &own().pwd, true), None),
            ("another password", check("aBcD:peer", "another-password-of-22", true), None),
            ("one that was cut", good[..good.len() - 4].to_vec(), None),
            (
                "one that was changed",
                {
                    let mut bytes = good.clone();
                    bytes[40] ^= 1;
                    bytes
                },
                None,
            ),
            (
                "an indication",
                {
                    let mut bytes = good.clone();
                    bytes[1] |= 0x10;
                    bytes
                },
                None,
            ),
            ("nothing", Vec::new(), None),
            ("RTP", vec![0x80; 172], None),
        ];
        for (what, packet, expected) in rows {
            let mut out = Vec::new();
            assert_eq!(answer(&packet, source, &own(), &mut out), expected, "{what}");
            assert_eq!(out.is_empty(), expected.is_none(), "{what}");
            if expected.is_some() {
                let response = Message::from_bytes(&out).unwrap();
                let credentials = ShortTermCredentials::new(own().pwd).into();
                assert!(response.has_class(MessageClass::Success), "{what}");
                assert!(response.validate_integrity(&credentials).is_ok(), "{what}");
                let mapped = response.attribute::<XorMappedAddress>().unwrap();
                assert_eq!(mapped.addr(response.transaction_id()), source, "{what}");
            }
        }
        assert!(may_be_check(&good) && !may_be_check(&[0x80; 20]) && !may_be_check(&[]));
    }

    #[test]
    fn the_sample_request_of_rfc_5769_is_answered() {
        // Section 2.1: software, priority, ICE role, user, integrity and fingerprint.
        let sample = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
            \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
            \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
            \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
            \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
        let own = IceCredentials { ufrag: "evtj".into(), pwd: "VOkJxbRl1RmTxUk/WvJxBt".into() };
        let check = answer(sample, "192.0.2.1:32853".parse().unwrap(), &own, &mut Vec::new());
        assert_eq!(check, Some(Check::Reach));
    }
}
