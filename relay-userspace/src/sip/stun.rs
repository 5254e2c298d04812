//! STUN on the SIP port: a phone asks from which address its datagrams come, and so keeps the way through an address
//! translator open (RFC 5626 section 3.5.2).
//!
//! Only binding requests are answered, without authentication and without state (RFC 8489 section 13, a basic server).
//! What the datagram says of its sender is not used: the answer goes to where it came from.
//!
//! Invariant: an answer is at most [`MOST_TIMES`] as long as its request, so that nobody's flood is worth sending here
//! under another's address.

use std::net::SocketAddr;

use bytes::Bytes;
use stun_types::{
    attribute::{
        AttributeType, ErrorCode, Fingerprint, MessageIntegrity, MessageIntegritySha256, Nonce, Realm,
        UnknownAttributes, Userhash, Username, XorMappedAddress,
    },
    message::{BINDING, Message, MessageClass, MessageHeader, MessageWriteVec},
    prelude::*,
};

/// How many times as long as its request an answer may be.
pub const MOST_TIMES: usize = 3;
/// What a request may have that has to be understood: a basic server knows of credentials and asks for none.
const KNOWN: [AttributeType; 6] = [
    Username::TYPE,
    Userhash::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
];
/// The code of an answer to a request with something that has to be understood and is not (RFC 8489 section 14.8).
const UNKNOWN_ATTRIBUTE: u16 = 420;

/// The answer to a binding request that came from `source`: its address, or which attributes are not known. `None` for
/// everything else.
#[must_use]
pub fn answer(datagram: &[u8], source: SocketAddr) -> Option<Bytes> {
    let header = MessageHeader::from_bytes(datagram).ok()?;
    let length = usize::from(header.data_length());
    if !length.is_multiple_of(4) || length + MessageHeader::LENGTH != datagram.len() {
        return None;
    }
    let request = Message::from_bytes(datagram).ok()?;
    if !request.has_class(MessageClass::Request) || !request.has_method(BINDING) {
        return None;
    }
    let unknown: Vec<AttributeType> = request
        .iter_attributes()
        .map(|(_, attribute)| attribute.get_type())
        .filter(|kind| kind.comprehension_required() && !KNOWN.contains(kind))
        .collect();
    let mut out;
    if unknown.is_empty() {
        out = Message::builder_success(&request, MessageWriteVec::new());
        out.add_attribute(&XorMappedAddress::new(source, request.transaction_id())).ok()?;
    } else {
        out = Message::builder_error(&request, MessageWriteVec::new());
        out.add_attribute(&ErrorCode::new(UNKNOWN_ATTRIBUTE, "Unknown Attribute").ok()?).ok()?;
        out.add_attribute(&UnknownAttributes::new(&unknown)).ok()?;
    }
    // Who tells STUN from other things by it wants to tell the answer too.
    if request.has_attribute(Fingerprint::TYPE) {
        out.add_fingerprint().ok()?;
    }
    Some(Bytes::from(out.finish())).filter(|answer| answer.len() <= MOST_TIMES * datagram.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The transaction of RFC 5769's examples.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

    fn request(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap();
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), &COOKIE, &TRANSACTION, attributes].concat()
    }

    /// The sample request of RFC 5769 section 2.1: software, priority, ICE role, user, integrity and fingerprint.
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    #[test]
    fn a_binding_request_is_answered_with_the_address_of_rfc_5769() {
        // Sections 2.2 and 2.3: the attribute that these addresses become with this transaction.
        let rows: [(&str, &[u8]); 2] = [
            ("192.0.2.1:32853", b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43"),
            (
                "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
                b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9",
            ),
        ];
        for (source, attribute) in rows {
            let answer = answer(&request(0x0001, b""), source.parse().unwrap()).unwrap();
            assert_eq!(answer, request(0x0101, attribute), "{source}");
        }
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named_and_a_fingerprint_is_answered_by_one() {
        let source = "192.0.2.1:32853".parse().unwrap();
        let answer = answer(SAMPLE, source).unwrap();
        let message = Message::from_bytes(&answer).unwrap();
        assert!(message.has_class(MessageClass::Error) && message.has_attribute(Fingerprint::TYPE));
        assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), UNKNOWN_ATTRIBUTE);
        // PRIORITY, of ICE.
        assert!(message.attribute::<UnknownAttributes>().unwrap().has_attribute(AttributeType::new(0x24)));
    }

    #[test]
    fn what_is_no_well_formed_binding_request_is_not_answered() {
        let source = "192.0.2.1:32853".parse().unwrap();
        let mut bad_fingerprint = SAMPLE.to_vec();
        *bad_fingerprint.last_mut().unwrap() ^= 1;
        let rows: [(&str, Vec<u8>); 9] = [
            ("an indication", request(0x0011, b"")),
            ("a response", request(0x0101, b"")),
            ("an allocation (TURN)", request(0x0003, b"")),
            ("a header that is cut off", request(0x0001, b"")[..19].to_vec()),
            ("more than its length says", [request(0x0001, b""), vec![0; 4]].concat()),
            ("less than its length says", request(0x0001, b"\x80\x22\x00\x04soft")[..24].to_vec()),
            ("an attribute that is longer than the rest", request(0x0001, b"\x80\x22\x00\xffsoft")),
            ("a length that is no multiple of 4", request(0x0001, b"\x80\x22\x00\x02so")),
            ("a wrong fingerprint", bad_fingerprint),
        ];
        for (description, datagram) in rows {
            assert_eq!(answer(&datagram, source), None, "{description}");
        }
    }

    proptest! {
        #[test]
        fn no_datagram_is_answered_by_more_than_three_times_its_length(
            kinds in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..20),
            junk in prop::collection::vec(any::<u8>(), 0..200),
            port in any::<u16>(),
        ) {
            let source = SocketAddr::from(([0xfd, 0, 0, 0, 0, 0, 0, 1], port));
            let mut attributes = Vec::new();
            for (kind, value) in kinds {
                attributes.extend_from_slice(&kind.to_be_bytes());
                attributes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
                attributes.extend_from_slice(&value);
                attributes.resize(attributes.len().next_multiple_of(4), 0);
            }
            for datagram in [request(0x0001, &attributes), [request(0x0001, b""), junk.clone()].concat(), junk] {
                if let Some(answer) = answer(&datagram, source) {
                    prop_assert!(answer.len() <= MOST_TIMES * datagram.len());
                }
            }
        }
    }
}
