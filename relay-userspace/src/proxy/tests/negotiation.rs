use super::harness::*;
use crate::proxy::CallState;

#[test]
fn a_delayed_offer_is_made_in_the_200_and_answered_in_the_ack() {
    let mut world = World::new();
    let uri = world.register();
    let sent =
        world.server(&from_server("INVITE", &uri, "j1", 1, "", "Contact: <sip:100@198.51.100.20>\n", ""));
    let invite = sent[1].clone();
    assert_eq!(world.media.log, [""; 0]);
    let ok = answer(
        &invite,
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060;line=7>\n",
        &sdp("192.0.2.11", 4000, ""),
    );
    let sent = world.phone(&ok);
    assert!(sent[0].text().contains("c=IN IP4 198.51.100.1\nt=0 0\nm=audio 16384 "));
    let ack = from_server(
        "ACK",
        "sip:200@198.51.100.1:8060;line=7",
        "j2",
        1,
        ";tag=p",
        "",
        &sdp("198.51.100.20", 6000, ""),
    );
    let first = world.server(&ack);
    assert!(first[0].text().contains("c=IN IP4 192.0.2.1\nt=0 0\nm=audio 16388 "));
    // The 200 and the ACK are repeated: the media room hears of neither.
    world.phone(&ok);
    let again = world.server(&ack.replace("z9hG4bKj2", "z9hG4bKj3"));
    assert!(again[0].text().contains("c=IN IP4 192.0.2.1\nt=0 0\nm=audio 16388 "));
    assert_eq!(world.media.log, ["offer p s 0>1", "answer p s 0>1"]);
}

#[test]
fn a_hold_in_either_form_is_an_offer_and_is_seen() {
    let table = [
        ("sendonly", sdp("192.0.2.11", 4000, "a=sendonly\n"), "c=IN IP4 198.51.100.1\n"),
        ("zeros", sdp("0.0.0.0", 4000, ""), "c=IN IP4 0.0.0.0\n"),
    ];
    for (description, body, connection) in table {
        let mut world = World::new();
        establish(&mut world);
        let reinvite = |branch: &str, cseq, body: &str| {
            from_phone(
                "INVITE",
                "sip:100@192.0.2.1:8060;x=1",
                branch,
                cseq,
                ";tag=s",
                "Contact: <sip:200@192.0.2.11:5062>\n",
                body,
            )
        };
        let sent = world.phone(&reinvite("i2", 2, &body));
        let at_server = sent[1].clone();
        assert_eq!(at_server.to, "198.51.100.20:5070", "{description}");
        assert!(at_server.text().contains(connection), "{description}: {}", at_server.text());
        assert!(!at_server.text().contains("Record-Route"), "{description}");
        assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Held, "{description}");
        let sent = world.server(&answer(
            &at_server,
            200,
            "OK",
            "s",
            "Contact: <sip:100@198.51.100.21>\n",
            &sdp("198.51.100.20", 6000, "a=recvonly\n"),
        ));
        assert!(sent[0].text().contains("Contact: <sip:100@192.0.2.1:8060>\n"), "{description}");
        let ack = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a2", 2, ";tag=s", "", ""));
        assert_eq!(
            ack[0].first_line(),
            "ACK sip:100@198.51.100.21 SIP/2.0",
            "{description}: the target was refreshed"
        );
        world.phone(&reinvite("i3", 3, &sdp("192.0.2.11", 4000, "")));
        assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Established, "{description}");
        let expected =
            ["offer p - 0>1", "answer p s 0>1", "offer p s 0>1", "answer p s 0>1", "offer p s 0>1"];
        assert_eq!(world.media.log, expected, "{description}");
    }
}

#[test]
fn an_offer_in_a_183_is_answered_in_the_prack() {
    let mut world = World::new();
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\nSupported: 100rel\n",
        "",
    ));
    let invite = sent[1].clone();
    let progress = answer(
        &invite,
        183,
        "Progress",
        "s",
        "Contact: <sip:100@198.51.100.20>\nRequire: 100rel\nRSeq: 1\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&progress);
    assert!(sent[0].text().contains("m=audio 16384 "));
    assert!(sent[0].text().contains("\nRSeq: 1\n"));
    let prack = from_phone(
        "PRACK",
        "sip:100@192.0.2.1:8060",
        "k1",
        2,
        ";tag=s",
        "RAck: 1 1 INVITE\n",
        &sdp("192.0.2.11", 4000, ""),
    );
    let sent = world.phone(&prack);
    assert!(sent[0].text().contains("m=audio 16388 ") && sent[0].text().contains("\nRAck: 1 1 INVITE\n"));
    world.server(&answer(&sent[0], 200, "OK", "s", "", ""));
    world.server(&answer(&invite, 200, "OK", "s", "Contact: <sip:100@198.51.100.20>\n", ""));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    assert_eq!(world.media.log, ["offer s p 1>0", "answer s p 1>0"]);
    // UPDATE is an offer whose answer is in its own 200.
    let sent = world.server(&from_server(
        "UPDATE",
        "sip:200@198.51.100.1:8060",
        "u1",
        1,
        ";tag=p",
        "Contact: <sip:100@198.51.100.20>\n",
        &sdp("198.51.100.20", 6002, ""),
    ));
    assert!(sent[0].text().contains("m=audio 16384 "));
    let sent = world.phone(&answer(
        &sent[0],
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    assert!(sent[0].text().contains("m=audio 16388 "));
    assert_eq!(world.media.log[2..], ["offer s p 1>0", "answer s p 1>0"]);
}

#[test]
fn forked_early_media_negotiates_each_branch_and_the_last_answer_wins() {
    let mut world = World::new();
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    let invite = sent[1].clone();
    for (status, tag, port) in [(183, "s", 6000), (183, "s", 6000), (183, "u", 7000), (200, "s", 6000)] {
        world.server(&answer(
            &invite,
            status,
            "x",
            tag,
            "Contact: <sip:100@198.51.100.20>\n",
            &sdp("198.51.100.20", port, ""),
        ));
    }
    let expected = ["offer p - 0>1", "answer p s 0>1", "answer p u 0>1", "answer p s 0>1", "release u"];
    assert_eq!(world.media.log, expected);
}

#[test]
fn the_media_of_a_branch_goes_when_another_is_answered_or_when_it_ends_before_the_others() {
    let mut world = World::new();
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    let invite = sent[1].clone();
    let mut respond = |status, tag: &str, body: &str| {
        world.server(&answer(&invite, status, "x", tag, "Contact: <sip:100@198.51.100.20>\n", body));
        std::mem::take(&mut world.media.log)
    };
    // The winner's description came with its 183 and is not repeated.
    assert_eq!(respond(183, "s", &sdp("198.51.100.20", 6000, "")), ["offer p - 0>1", "answer p s 0>1"]);
    assert_eq!(respond(183, "u", &sdp("198.51.100.21", 7000, "")), ["answer p u 0>1"]);
    assert_eq!(respond(180, "v", ""), Vec::<String>::new());
    assert_eq!(respond(200, "s", ""), ["release u", "release v"]);
    // Another was answered in the same moment: both stand until the caller ends one.
    assert_eq!(respond(200, "u", &sdp("198.51.100.21", 7000, "")), ["answer p u 0>1", "release v"]);
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "i2", 2, ";tag=u", "", "");
    let sent = world.phone(&bye);
    world.server(&answer(sent.last().unwrap(), 200, "OK", "u", "", ""));
    assert_eq!(world.media.log, ["release u"]);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_description_within_a_multipart_body_is_rewritten_and_its_neighbours_stay() {
    let mut world = World::new();
    let body = |sdp: &str| {
        format!(
            "--b\nContent-Type: application/sdp\n\n{sdp}\n--b\nContent-Type: application/x-y\n\nkept\n--b--\n"
        )
    };
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Content-Type: multipart/mixed;boundary=b\n",
        &body(&sdp("192.0.2.11", 4000, "")),
    ));
    let expected = sdp("198.51.100.1", 16384, "").replace("1 1 IN IP4 198.51.100.1", "1 1 IN IP4 192.0.2.11");
    assert!(sent[1].text().ends_with(&format!("\n\n{}", body(&expected))), "{}", sent[1].text());
    assert_eq!(sent[1].message().body().len(), body(&expected).replace('\n', "\r\n").len());
}

#[test]
fn descriptions_in_other_messages_pass_untouched() {
    let mut world = World::new();
    establish(&mut world);
    let body = sdp("192.0.2.11", 4000, "");
    for method in ["MESSAGE", "INFO", "FOO"] {
        let sent =
            world.phone(&from_phone(method, "sip:100@192.0.2.1:8060;x=1", method, 5, ";tag=s", "", &body));
        assert!(sent[0].text().ends_with(&body), "{method}");
    }
    assert_eq!(world.media.log.len(), 2);
}
