//! ICE at a flow's port.

use stun_types::{
    attribute::{AttributeType, RawAttribute, Username},
    message::{BINDING, IntegrityAlgorithm, Message, MessageWriteVec, ShortTermCredentials},
    prelude::*,
};

use super::*;
use crate::datapath::{IceAtPort, IceCredentials};

fn at_port(own: &IceCredentials) -> IceAtPort {
    IceAtPort { own: Arc::new(own.clone()), learns: IceLearning::FromNomination }
}

#[test]
fn a_nominated_source_is_learned_whatever_policy_says_and_nobody_elses_check_is_answered_after_it() {
    let own = IceCredentials { ufrag: "own1".into(), pwd: "a-password-of-22-signs".into() };
    let check = |password: &str, nominates: bool| {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        request.add_attribute(&Username::new("own1:peer").unwrap()).unwrap();
        if nominates {
            request.add_attribute(&RawAttribute::new(AttributeType::new(0x25), &[])).unwrap();
        }
        let credentials = ShortTermCredentials::new(password.to_owned()).into();
        request.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1).unwrap();
        request.finish()
    };
    let (mut flows, now) = (flows_with(&[]), Instant::now());
    let checked = |local, signalled, out, destination| FlowSpec {
        ice: (local == INSIDE).then(|| at_port(&own)),
        ..spec(local, Some(signalled), out, Some(destination), Latching::Signalled)
    };
    flows.install(now, checked(INSIDE, PHONE, OUTSIDE, SERVER)).unwrap();
    flows.install(now, checked(OUTSIDE, SERVER, INSIDE, PHONE)).unwrap();
    assert!(flows.paths().has_checks());
    let elsewhere = "10.61.0.99:7777";
    let arrival = |source: &str, payload: &[u8], flows: &mut Flows| {
        let mut out = Vec::new();
        let arrival = Arrival {
            local: at(INSIDE),
            source: at(source),
            type_of_service: 0,
            payload,
            monotonic_ns: 1,
            unix_ms: 1,
        };
        flows.check(now, &arrival, &mut out).map(|departure| (departure.destination, out.is_empty()))
    };
    let good = check(&own.pwd, false);
    assert_eq!(arrival(elsewhere, &check("not-the-password-of-22", true), &mut flows), None);
    assert_eq!(arrival(elsewhere, &good, &mut flows), Some((at(elsewhere), false)));
    assert_eq!(flows.report(at(INSIDE)).unwrap().learned, None, "it has only asked");
    let media = Arrival {
        local: at(INSIDE),
        source: at(PHONE),
        type_of_service: 0,
        payload: &[0x80; 172],
        monotonic_ns: 2,
        unix_ms: 2,
    };
    assert!(flows.packet(now, &media).is_ok(), "sound goes on from where it may come");
    assert_eq!(flows.report(at(INSIDE)).unwrap().learned, None, "and shuts nobody out");
    assert!(arrival(elsewhere, &check(&own.pwd, true), &mut flows).is_some());
    assert_eq!(flows.report(at(INSIDE)).unwrap().learned.map(|(source, _)| source), Some(at(elsewhere)));
    assert_eq!(flows.report(at(OUTSIDE)).unwrap().destination, Some(at(elsewhere)), "media goes there");
    assert!(arrival(elsewhere, &good, &mut flows).is_some(), "consent is asked for again and again");
    assert_eq!(arrival(PHONE, &good, &mut flows), None, "only signalling opens learning again");
    let restarted = IceCredentials { ufrag: "own2".into(), ..own.clone() };
    let spec = FlowSpec { ice: Some(at_port(&restarted)), ..checked(INSIDE, PHONE, OUTSIDE, SERVER) };
    flows.install(now, spec).unwrap();
    assert_eq!(flows.report(at(INSIDE)).unwrap().learned, None, "a restart does");
    flows.remove(now, at(INSIDE));
    assert!(!flows.paths().has_checks());
}
