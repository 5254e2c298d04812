//! Sessions that are kept by one process and taken up by the next.

use super::*;
use crate::{
    media::{NotTakenUp, SessionRecord},
    net::FormerNetworks,
};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn same_networks() -> FormerNetworks {
    FormerNetworks::new(&names(&["office", "centre"]), &names(&["office", "centre"]))
}

/// As the store has it.
fn kept(sessions: &Sessions) -> SessionRecord {
    let record = sessions.record(b"call").unwrap();
    serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap()
}

fn flows(specs: Vec<FlowSpec>) -> BTreeMap<SocketAddr, FlowSpec> {
    specs.into_iter().map(|spec| (spec.local, spec)).collect()
}

#[test]
fn a_session_has_the_same_ports_and_flows_in_the_next_process() {
    let (mut before, mut installed) = (sessions(), Installed::default());
    call(&mut before, &mut installed);
    let hold = audio("10.61.0.11", 4000, "a=sendonly\r\na=rtcp-mux\r\n");
    installed.apply(before.offer(Instant::now(), &offer(&hold, b"a")).unwrap().changes);
    let held = audio("10.62.0.10", 6000, "a=recvonly\r\n");
    installed.apply(before.answer(Instant::now(), &answer(&held, b"a", b"b")).unwrap().changes);

    let mut after = sessions();
    let specs = after.take_up(Instant::now(), b"call", &kept(&before), &same_networks()).unwrap();
    assert_eq!(flows(specs), installed.0);
    assert_eq!(after.query(b"call"), before.query(b"call"));
    assert_eq!(after.ports(), before.ports());

    // It goes on as it would have: the next offer is negotiated over the same ports, and the end gives them back.
    let resume = audio("10.61.0.11", 4000, "");
    let both = [&mut before, &mut after].map(|sessions| {
        let out = sessions.offer(Instant::now(), &offer(&resume, b"a")).unwrap();
        let back =
            sessions.answer(Instant::now(), &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
        (out.sdp, back.sdp)
    });
    assert_eq!(both[0], both[1]);
    after.delete(Instant::now(), b"call");
    after.reap(Instant::now() + LINGER);
    assert!(after.ports().iter().all(|ports| ports.used == 0));
}

#[test]
fn keys_of_translated_legs_go_on() {
    let mut before = with_policies(SrtpPolicy::Require, SrtpPolicy::Off);
    let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n";
    let secure = String::from_utf8(audio("10.61.0.11", 4000, key)).unwrap().replace("RTP/AVP", "RTP/SAVP");
    before.offer(Instant::now(), &offer(secure.as_bytes(), b"a")).unwrap();
    let back = before.answer(Instant::now(), &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    let record = kept(&before);
    assert!(record.is_translated());
    let mut after = with_policies(SrtpPolicy::Require, SrtpPolicy::Off);
    let specs = after.take_up(Instant::now(), b"call", &record, &same_networks()).unwrap();
    assert!(specs.iter().all(|spec| spec.srtp.is_some()));
    // A repeated offer gets the appliance's own key again, in the new process too.
    after.offer(Instant::now(), &offer(secure.as_bytes(), b"a")).unwrap();
    let again = after.answer(Instant::now(), &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    assert_eq!(String::from_utf8(again.sdp).unwrap(), String::from_utf8(back.sdp).unwrap());
}

#[test]
fn what_does_not_fit_any_more_is_refused_and_takes_nothing() {
    let (mut before, mut installed) = (sessions(), Installed::default());
    call(&mut before, &mut installed);
    let record = kept(&before);
    let taken = |sessions: &mut Sessions, networks: &FormerNetworks| {
        sessions.take_up(Instant::now(), b"call", &record, networks).map(drop)
    };
    let swapped = FormerNetworks::new(&names(&["office", "centre"]), &names(&["centre", "office"]));
    let gone = FormerNetworks::new(&names(&["office", "centre"]), &names(&["office"]));
    let address = |former: &str, now: &str| NotTakenUp::Address {
        former: former.parse().unwrap(),
        now: now.parse().unwrap(),
    };
    assert_eq!(taken(&mut sessions(), &gone), Err(NotTakenUp::Network));
    assert_eq!(taken(&mut sessions(), &swapped), Err(address("10.61.0.1", "10.62.0.1")));
    assert_eq!(taken(&mut before, &same_networks()), Err(NotTakenUp::Room));

    let mut after = sessions();
    let mut port = None;
    // All pairs of the centre but one are claimed by others, so that what was claimed of the office goes back.
    while let Some(pair) = after.ports[1].take() {
        port = Some(pair);
    }
    assert!(port.is_some());
    let error = taken(&mut after, &same_networks()).unwrap_err();
    assert!(matches!(error, NotTakenUp::Port(local) if local.ip() == at("10.62.0.1", 0).ip()), "{error}");
    assert_eq!(after.ports()[0].used, 0);
    assert!(after.is_empty());
}
