//! ICE with one side of a session, as a lite agent.

use super::*;

fn lite() -> Sessions {
    let mut sessions = sessions();
    sessions.settings.networks[0].ice = IcePolicy::Lite;
    sessions
}

fn lines<'s>(sdp: &'s [u8], with: &str) -> Vec<&'s str> {
    std::str::from_utf8(sdp).unwrap().lines().filter(|line| line.starts_with(with)).collect()
}

const PEER: &str = "a=ice-ufrag:peer\r\na=ice-pwd:0123456789012345678901\r\na=candidate:1 1 UDP 1 10.61.0.11 4000 typ host\r\n";

#[test]
fn a_party_with_ice_gets_an_answer_with_one_candidate_for_each_port_and_the_other_hears_nothing_of_it() {
    let (mut sessions, mut installed, now) = (lite(), Installed::default(), Instant::now());
    let out = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, PEER), b"a")).unwrap();
    assert!(lines(&out.sdp, "a=ice").is_empty() && lines(&out.sdp, "a=candidate").is_empty());
    installed.apply(out.changes);
    let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    installed.apply(back.changes);
    let port = port_of(&back.sdp, 0);
    assert_eq!(
        lines(&back.sdp, "a=candidate"),
        [
            format!("a=candidate:1 1 UDP 2130706431 10.61.0.1 {port} typ host"),
            format!("a=candidate:1 2 UDP 2130706430 10.61.0.1 {} typ host", port + 1),
        ]
    );
    let text = String::from_utf8(back.sdp.clone()).unwrap();
    assert!(text.find("a=ice-lite").unwrap() < text.find("m=audio").unwrap(), "{text}");
    let own = installed.0[&at("10.61.0.1", port)].ice.clone().unwrap().own;
    assert_eq!(lines(&back.sdp, "a=ice-ufrag"), [format!("a=ice-ufrag:{}", own.ufrag)]);
    assert_eq!(lines(&back.sdp, "a=ice-pwd"), [format!("a=ice-pwd:{}", own.pwd)]);
    assert!(own.ufrag.len() >= 4 && own.pwd.len() >= 22);
    assert_eq!(installed.0.values().filter(|flow| flow.ice.is_some()).count(), 2, "of the office alone");

    // The same again is no restart; another fragment is.
    let again = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, PEER), b"a")).unwrap();
    installed.apply(again.changes);
    let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    assert_eq!(lines(&back.sdp, "a=ice-ufrag"), [format!("a=ice-ufrag:{}", own.ufrag)]);
    let restart = PEER.replace("ufrag:peer", "ufrag:other");
    sessions.offer(now, &offer(&audio("10.61.0.11", 4000, &restart), b"a")).unwrap();
    let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    assert_ne!(lines(&back.sdp, "a=ice-ufrag"), [format!("a=ice-ufrag:{}", own.ufrag)]);
}

#[test]
fn a_party_that_is_offered_ice_and_has_none_is_as_before() {
    let (mut sessions, mut installed, now) = (lite(), Installed::default(), Instant::now());
    let out = sessions.offer(now, &offer_back(&audio("10.62.0.10", 6000, ""), b"b")).unwrap();
    assert_eq!(lines(&out.sdp, "a=ice-lite").len(), 1);
    installed.apply(out.changes);
    let answered = Answer { from: CENTRE, to: OFFICE, ..answer(b"", b"b", b"a") };
    let plain = audio("10.61.0.11", 4000, "");
    let back = sessions.answer(now, &Answer { sdp: &plain, ..answered }).unwrap();
    installed.apply(back.changes);
    assert!(lines(&back.sdp, "a=ice").is_empty());
    assert!(installed.0.values().all(|flow| flow.ice.is_none()));
}

#[test]
fn what_a_party_checks_with_outlives_the_process() {
    let (mut sessions, mut installed, now) = (lite(), Installed::default(), Instant::now());
    installed.apply(sessions.offer(now, &offer(&audio("10.61.0.11", 4000, PEER), b"a")).unwrap().changes);
    let back = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    installed.apply(back.changes);
    let record = sessions.record(b"call").unwrap();
    let kept = serde_json::to_string(&record).unwrap();
    let former = crate::net::FormerNetworks::new(
        &["office".to_owned(), "centre".to_owned()],
        &["office".to_owned(), "centre".to_owned()],
    );
    let specs = lite().take_up(now, b"call", &serde_json::from_str(&kept).unwrap(), &former).unwrap();
    for spec in specs {
        assert_eq!(spec.ice, installed.0[&spec.local].ice);
    }
}

#[test]
fn who_answers_an_offer_by_one_of_his_own_has_not_restarted_and_a_lite_party_is_not_waited_for() {
    use crate::datapath::IceLearning;
    let (mut sessions, mut installed, now) = (lite(), Installed::default(), Instant::now());
    installed.apply(sessions.offer(now, &offer(&audio("10.61.0.11", 4000, PEER), b"a")).unwrap().changes);
    let first = sessions.answer(now, &answer(&audio("10.62.0.10", 6000, ""), b"a", b"b")).unwrap();
    // The centre offers, and the phone's answer comes in the form of an offer, with another fragment.
    let back = Offer { to_tag: Some(b"a"), ..offer_back(b"", b"b") };
    let there = audio("10.62.0.10", 6000, "");
    sessions.offer(now, &Offer { sdp: &there, ..back }).unwrap();
    let restarted = audio("10.61.0.11", 4000, &PEER.replace("ufrag:peer", "ufrag:other"));
    let settled = sessions.offer(now, &Offer { to_tag: Some(b"b"), ..offer(&restarted, b"a") }).unwrap();
    installed.apply(settled.changes);
    let again = sessions.answer(now, &answer(&there, b"a", b"b")).unwrap();
    assert_eq!(lines(&again.sdp, "a=ice-ufrag"), lines(&first.sdp, "a=ice-ufrag"), "it was told these");

    let mut sessions = lite();
    let party = PEER.replace("a=ice-ufrag", "a=ice-lite\r\na=ice-ufrag");
    let sdp = String::from_utf8(audio("10.61.0.11", 4000, &party)).unwrap();
    let sdp = sdp.replace("a=ice-lite\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n");
    let mut installed = Installed::default();
    installed.apply(sessions.offer(now, &offer(sdp.as_bytes(), b"a")).unwrap().changes);
    installed.apply(sessions.answer(now, &answer(&there, b"a", b"b")).unwrap().changes);
    assert!(installed.0.values().all(|flow| flow.ice.is_none()), "nobody checks");
    let mut full = lite();
    let mut installed = Installed::default();
    installed.apply(full.offer(now, &offer(&audio("10.61.0.11", 4000, PEER), b"a")).unwrap().changes);
    installed.apply(full.answer(now, &answer(&there, b"a", b"b")).unwrap().changes);
    let learns: Vec<IceLearning> =
        installed.0.values().filter_map(|flow| flow.ice.as_ref()).map(|ice| ice.learns).collect();
    assert_eq!(learns, [IceLearning::FromNomination; 2]);
}
