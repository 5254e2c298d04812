//! Networks whose parties protect their media differently: what each is offered and answered, and with which keys.

use super::*;
use crate::{
    datapath::{Incoming, Outgoing},
    sdp::Crypto,
    srtp::{Content, Inbound, MasterKey, Outbound, Suite},
};

/// A description with this protocol, and with these lines at its end.
fn described(address: &str, port: u16, protocol: &str, more: &str) -> Vec<u8> {
    let text = String::from_utf8(audio(address, port, more)).unwrap();
    text.replace("RTP/AVP", protocol).into_bytes()
}

/// An `a=crypto` line with a key of one byte, and that key.
fn crypto(tag: u32, suite: Suite, byte: u8) -> (String, MasterKey) {
    let bytes = vec![byte; suite.key_length() + suite.salt_length()];
    let key = MasterKey::new(suite, zeroize::Zeroizing::new(bytes)).unwrap();
    let line = Crypto { tag, key: key.clone() }.expose();
    (format!("a=crypto:{}\r\n", *line), key)
}

/// The keys in a description's first stream.
fn keys_of(sdp: &[u8]) -> Vec<Crypto> {
    let description = Description::parse(sdp).unwrap();
    let lines = description.media[0].attributes.iter().filter(|attribute| attribute.name == b"crypto");
    lines.map(|line| Crypto::parse(line.value.unwrap()).unwrap()).collect()
}

fn protocol_of(sdp: &[u8]) -> String {
    String::from_utf8_lossy(Description::parse(sdp).unwrap().media[0].protocol_raw).into_owned()
}

const SUITE: Suite = Suite::Aes128CmSha1_80;

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 160, 0, 0, 0, 7];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend([0x55; 160]);
    packet
}

/// Carries a packet by a flow's translation as the datapath does, and gives what the receiver reads with its key.
fn carried(flow: &FlowSpec, sender: Option<&Outbound>, receiver: Option<&Inbound>, sequence: u16) -> Vec<u8> {
    let translation = flow.srtp.as_ref().expect("the flow translates");
    let mut packet = rtp(sequence);
    if let Some(sender) = sender {
        sender.protect(Content::Rtp, &mut packet).unwrap();
    }
    match &translation.from {
        Incoming::Plain => {}
        Incoming::Keyed(key) => key.unprotect(Content::Rtp, &mut packet).unwrap(),
        Incoming::Awaited => panic!("no key to read with"),
    }
    assert_eq!(packet, rtp(sequence), "in clear in between");
    match &translation.to {
        Outgoing::Plain => {}
        Outgoing::Keyed(key) => key.protect(Content::Rtp, &mut packet).unwrap(),
        Outgoing::Awaited => panic!("no key to write with"),
    }
    if let Some(receiver) = receiver {
        receiver.unprotect(Content::Rtp, &mut packet).unwrap();
    }
    packet
}

#[test]
fn what_both_sides_have_passes_with_every_byte_of_its_keys() {
    for (office, centre) in [(SrtpPolicy::Pass, SrtpPolicy::Pass), (SrtpPolicy::Require, SrtpPolicy::Require)]
    {
        let (mut sessions, mut installed, now) =
            (with_policies(office, centre), Installed::default(), Instant::now());
        let lines = "a=crypto:1 F8_128_HMAC_SHA1_80 inline:c29tZXRoaW5nIGVsc2U=\r\n".to_owned()
            + &crypto(2, SUITE, 9).0;
        let sent = described("10.61.0.11", 4000, "RTP/SAVP", &lines);
        let offered = sessions.offer(now, &offer(&sent, b"a")).unwrap();
        assert!(offered.sdp.ends_with(lines.as_bytes()));
        installed.apply(offered.changes);
        let line = crypto(2, SUITE, 8).0;
        let sent = described("10.62.0.10", 6000, "RTP/SAVP", &line);
        let answered = sessions.answer(now, &answer(&sent, b"a", b"b")).unwrap();
        assert!(answered.sdp.ends_with(line.as_bytes()));
        installed.apply(answered.changes);
        assert!(installed.0.values().all(|flow| flow.srtp.is_none()));
    }
}

#[test]
fn a_phone_with_srtp_talks_to_a_centre_without() {
    let (mut sessions, mut installed, now) =
        (with_policies(SrtpPolicy::Require, SrtpPolicy::Off), Installed::default(), Instant::now());
    let lines = crypto(4, Suite::Aes128CmSha1_32, 3).0 + &crypto(7, SUITE, 9).0;
    let sent = described("10.61.0.11", 4000, "RTP/SAVP", &lines);
    let offered = sessions.offer(now, &offer(&sent, b"a")).unwrap();
    let outside = port_of(&offered.sdp, 0);
    let expected = described("10.62.0.1", outside, "RTP/AVP", "");
    let text = |sdp: &[u8]| String::from_utf8(sdp.to_vec()).unwrap();
    assert_eq!(text(&offered.sdp), text(&expected).replacen("IP4 10.62.0.1", "IP4 10.61.0.11", 1));
    installed.apply(offered.changes);

    let sent = audio("10.62.0.10", 6000, "");
    let answered = sessions.answer(now, &answer(&sent, b"a", b"b")).unwrap();
    installed.apply(answered.changes);
    // The better of both is chosen, and its tag repeated.
    let ours = keys_of(&answered.sdp).remove(0);
    assert_eq!((ours.tag, ours.key.suite(), keys_of(&answered.sdp).len()), (7, SUITE, 1));
    let inside = port_of(&answered.sdp, 0);
    let line = format!("a=crypto:{}\r\n", *ours.expose());
    let expected = described("10.61.0.1", inside, "RTP/SAVP", &line);
    assert_eq!(text(&answered.sdp), text(&expected).replacen("IP4 10.61.0.1", "IP4 10.62.0.10", 1));

    let phone = (Outbound::new(crypto(7, SUITE, 9).1), Inbound::new(ours.key));
    let (out, back) = (at("10.61.0.1", inside), at("10.62.0.1", outside));
    assert_eq!(carried(&installed.0[&out], Some(&phone.0), None, 65_535), rtp(65_535));
    assert_eq!(carried(&installed.0[&back], None, Some(&phone.1), 65_535), rtp(65_535));
    // The flows of RTCP have the same keys.
    let rtcp = &installed.0[&at("10.61.0.1", inside + 1)];
    assert_eq!(rtcp.srtp, installed.0[&out].srtp);
    assert_eq!(rtcp.srtp.as_ref().unwrap().to_string(), "AES_CM_128_HMAC_SHA1_80 to RTP");

    // A hold with the same key keeps the roll-over counter, which no new key would know.
    let sent = described("10.61.0.11", 4000, "RTP/SAVP", &(lines.clone() + "a=sendonly\r\n"));
    let again = Offer { to_tag: Some(b"b"), ..offer(&sent, b"a") };
    installed.apply(sessions.offer(now, &again).unwrap().changes);
    let sent = audio("10.62.0.10", 6000, "a=recvonly\r\n");
    let answered = sessions.answer(now, &answer(&sent, b"a", b"b")).unwrap();
    installed.apply(answered.changes);
    assert_eq!(keys_of(&answered.sdp)[0].expose(), Crypto { tag: 7, key: phone.1.master().clone() }.expose());
    assert_eq!(carried(&installed.0[&out], Some(&phone.0), None, 0), rtp(0));
    assert_eq!(carried(&installed.0[&back], None, Some(&phone.1), 0), rtp(0));

    // Another key of the phone's: it gets another one, and both begin anew.
    let sent = described("10.61.0.11", 4000, "RTP/SAVP", &crypto(1, SUITE, 10).0);
    let again = Offer { to_tag: Some(b"b"), ..offer(&sent, b"a") };
    installed.apply(sessions.offer(now, &again).unwrap().changes);
    let sent = audio("10.62.0.10", 6000, "");
    let answered = sessions.answer(now, &answer(&sent, b"a", b"b")).unwrap();
    installed.apply(answered.changes);
    let newer = keys_of(&answered.sdp).remove(0);
    assert!(newer.key != *phone.1.master());
    let phone = (Outbound::new(crypto(1, SUITE, 10).1), Inbound::new(newer.key));
    assert_eq!(carried(&installed.0[&out], Some(&phone.0), None, 0), rtp(0));
    assert_eq!(carried(&installed.0[&back], None, Some(&phone.1), 0), rtp(0));
}

#[test]
fn a_call_to_phones_that_require_srtp_offers_them_keys_and_each_branch_has_its_own() {
    let (mut sessions, mut installed, now) =
        (with_policies(SrtpPolicy::Pass, SrtpPolicy::Require), Installed::default(), Instant::now());
    let sent = audio("10.61.0.11", 4000, "");
    let offered = sessions.offer(now, &offer(&sent, b"a")).unwrap();
    assert_eq!(protocol_of(&offered.sdp), "RTP/SAVP");
    let ours = keys_of(&offered.sdp);
    let suites: Vec<&str> = ours.iter().map(|key| key.key.suite().name()).collect();
    assert_eq!(
        suites,
        ["AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_256_CM_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_80"]
    );
    let outside = port_of(&offered.sdp, 0);
    installed.apply(offered.changes);
    let waiting = installed.0[&at("10.62.0.1", outside)].srtp.clone().unwrap();
    assert_eq!(waiting.from, Incoming::Awaited, "nothing is let in before there is a key");

    let mut inside = Vec::new();
    for (tag, byte, port) in [(&b"b"[..], 20, 7000), (b"c", 21, 8000)] {
        let sent = described("10.62.0.10", port, "RTP/SAVP", &crypto(4, SUITE, byte).0);
        let answered = sessions.answer(now, &answer(&sent, b"a", tag)).unwrap();
        assert_eq!((protocol_of(&answered.sdp), keys_of(&answered.sdp).len()), ("RTP/AVP".to_owned(), 0));
        inside.push(port_of(&answered.sdp, 0));
        installed.apply(answered.changes);
    }
    let phone = Inbound::new(ours[3].key.clone());
    assert_eq!(carried(&installed.0[&at("10.61.0.1", inside[0])], None, Some(&phone), 1), rtp(1));
    assert_eq!(carried(&installed.0[&at("10.61.0.1", inside[1])], None, Some(&phone), 2), rtp(2));
    let shared = &installed.0[&at("10.62.0.1", outside)];
    for (party, byte) in std::iter::once(shared.party()).chain(shared.forks.iter().cloned()).zip([21, 20]) {
        let sender = Outbound::new(crypto(4, SUITE, byte).1);
        assert_eq!(carried(&shared.with_party(party), Some(&sender), None, 1), rtp(1));
    }

    // The phone that has answered offers anew, by SRTP; the other side goes on with RTP.
    sessions.release(now, b"call", b"b");
    let sent = described("10.62.0.10", 8000, "RTP/SAVP", &crypto(1, SUITE, 21).0);
    let back = Offer { to_tag: Some(b"a"), ..offer_back(&sent, b"c") };
    let offered = sessions.offer(now, &back).unwrap();
    assert_eq!((protocol_of(&offered.sdp), keys_of(&offered.sdp).len()), ("RTP/AVP".to_owned(), 0));
    let sent = audio("10.61.0.11", 4000, "");
    let reply = Answer { from: CENTRE, to: OFFICE, ..answer(&sent, b"c", b"a") };
    let answered = sessions.answer(now, &reply).unwrap();
    assert_eq!(*keys_of(&answered.sdp)[0].expose(), *Crypto { tag: 1, key: ours[3].key.clone() }.expose());
}

#[test]
fn optional_srtp_is_what_the_other_party_makes_of_it() {
    let rows = [
        ("it can", "RTP/AVP", crypto(4, SUITE, 5).0, Some("RTP to AES_CM_128_HMAC_SHA1_80")),
        (
            "it can, and says so in the protocol",
            "RTP/SAVP",
            crypto(4, SUITE, 5).0,
            Some("RTP to AES_CM_128_HMAC_SHA1_80"),
        ),
        ("it cannot", "RTP/AVP", String::new(), None),
    ];
    for (what, protocol, line, expected) in rows {
        let (mut sessions, mut installed, now) =
            (with_policies(SrtpPolicy::Pass, SrtpPolicy::Offer), Installed::default(), Instant::now());
        let sent = described("10.61.0.11", 4000, "RTP/AVPF", "");
        let offered = sessions.offer(now, &offer(&sent, b"a")).unwrap();
        assert_eq!(
            (protocol_of(&offered.sdp).as_str(), keys_of(&offered.sdp).len()),
            ("RTP/AVPF", 4),
            "{what}"
        );
        installed.apply(offered.changes);
        let sent = described("10.62.0.10", 6000, protocol, &line);
        let answered = sessions.answer(now, &answer(&sent, b"a", b"b")).unwrap();
        installed.apply(answered.changes);
        assert_eq!(
            (protocol_of(&answered.sdp).as_str(), keys_of(&answered.sdp).len()),
            ("RTP/AVPF", 0),
            "{what}"
        );
        let flow = &installed.0[&at("10.61.0.1", port_of(&answered.sdp, 0))];
        assert_eq!(flow.srtp.as_ref().map(ToString::to_string).as_deref(), expected, "{what}");
    }
}

#[test]
fn what_the_policies_do_not_allow_is_refused_and_leaves_nothing_behind() {
    let key = crypto(1, SUITE, 5).0;
    let weak = key.trim_end().to_owned() + " UNAUTHENTICATED_SRTP\r\n";
    let (require, off, pass) = (SrtpPolicy::Require, SrtpPolicy::Off, SrtpPolicy::Pass);
    let rows = [
        (
            require,
            off,
            "RTP/AVP",
            String::new(),
            "SRTP: network office takes only SRTP with keys by SDES, and stream 1 (audio) offers none that can be used",
        ),
        (
            require,
            off,
            "RTP/SAVP",
            weak,
            "SRTP: network office takes only SRTP with keys by SDES, and stream 1 (audio) offers none that can be used \
             (a=crypto: session parameter UNAUTHENTICATED_SRTP is not supported)",
        ),
        (
            off,
            pass,
            "RTP/SAVP",
            key,
            "SRTP: network office takes only RTP, and stream 1 (audio) offers only SRTP",
        ),
        (
            pass,
            off,
            "UDP/TLS/RTP/SAVP",
            String::new(),
            "SRTP: stream 1 (audio) offers SRTP whose keys cannot be read, and network centre has another policy",
        ),
    ];
    for (office, centre, protocol, lines, expected) in rows {
        let mut sessions = with_policies(office, centre);
        let sent = described("10.61.0.11", 4000, protocol, &lines);
        let refused = sessions.offer(Instant::now(), &offer(&sent, b"a")).unwrap_err();
        assert_eq!(refused.to_string(), expected);
        assert!(sessions.is_empty() && sessions.ports().iter().all(|ports| ports.used == 0));
    }
    // An answer, too; the call is then as it was.
    let mut sessions = with_policies(pass, require);
    sessions.offer(Instant::now(), &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    for (lines, why) in [
        (String::new(), "it chooses none of the keys that were offered"),
        (crypto(9, SUITE, 1).0, "it chooses none of the keys that were offered"),
        (crypto(1, SUITE, 1).0, "it chooses none of the keys that were offered"),
    ] {
        let sent = described("10.62.0.10", 6000, "RTP/SAVP", &lines);
        let refused = sessions.answer(Instant::now(), &answer(&sent, b"a", b"b")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("SRTP: the answer from network centre for stream 1 (audio): {why}")
        );
    }
    let sent = described("10.62.0.10", 6000, "RTP/SAVP", &crypto(4, SUITE, 1).0);
    sessions.answer(Instant::now(), &answer(&sent, b"a", b"b")).unwrap();
}
