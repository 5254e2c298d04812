use super::harness::*;
use crate::proxy::{CallState, Measure, Outcome};

#[test]
fn a_call_from_the_phone_is_relayed_whole() {
    let mut world = World::new();
    let invite = from_phone(
        "INVITE",
        "sip:100;a=b@192.0.2.1:8060;user=phone",
        "i1",
        1,
        "",
        "Contact: \"Z\" <sip:200@192.0.2.11:5060;line=7>;+x=\"<y>\"\nAlert-Info: <http://x/y>;info=alert\nX-Folded: a\n b\nUser-Agent: Phone/1\n",
        &sdp("192.0.2.11", 4000, "a=x-vendor:1\n"),
    );
    let sent = world.phone(&invite);
    assert_eq!(sent[0].first_line(), "SIP/2.0 100 Trying");
    assert_eq!((sent.len(), sent[1].to.as_str()), (2, SERVER));
    assert_eq!(
        sent[1].text(),
        "INVITE sip:100;a=b@198.51.100.9;user=phone SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
         Record-Route: <sip:198.51.100.1:8060;lr>\nRecord-Route: <sip:192.0.2.1:8060;lr>\n\
         Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKi1;rport=5060;received=192.0.2.11\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\nTo: <sip:100@example.com>\nCall-ID: c1\nCSeq: 1 INVITE\nMax-Forwards: 69\n\
         Contact: \"Z\" <sip:200@198.51.100.1:8060;line=7>;+x=\"<y>\"\nAlert-Info: <http://x/y>;info=alert\nX-Folded: a\n b\nUser-Agent: Phone/1\n\
         Content-Type: application/sdp\nContent-Length: 145\n\n\
         v=0\no=- 1 1 IN IP4 192.0.2.11\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=audio 16384 RTP/AVP 0 101\n\
         a=rtpmap:101 telephone-event/8000\na=x-vendor:1\n"
    );
    let at_server = sent[1].clone();
    assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Trying);

    assert_eq!(world.server(&answer(&at_server, 100, "Trying", "", "", "")), []);
    let sent = world.server(&answer(
        &at_server,
        180,
        "Il sonne",
        "s",
        "Contact: <sip:100@198.51.100.20:5070;x=1>\n",
        "",
    ));
    assert_eq!(
        sent[0].text(),
        "SIP/2.0 180 Il sonne\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKi1;rport=5060;received=192.0.2.11\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\nTo: <sip:100@example.com>;tag=s\nCall-ID: c1\nCSeq: 1 INVITE\n\
         Record-Route: <sip:198.51.100.1:8060;lr>\nRecord-Route: <sip:192.0.2.1:8060;lr>\n\
         Contact: <sip:100@192.0.2.1:8060;x=1>\nContent-Length: 0\n\n"
    );
    assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Early);

    let ok = answer(
        &at_server,
        200,
        "OK",
        "s",
        "Contact: <sip:100@198.51.100.20:5070;x=1>\nServer: Switch/2\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&ok);
    let expected = sdp("192.0.2.1", 16388, "").replace("1 1 IN IP4 192.0.2.1", "1 1 IN IP4 198.51.100.20");
    assert!(sent[0].text().ends_with(&format!("\n\n{expected}")), "{}", sent[0].text());
    let again = world.server(&ok);
    assert_eq!(again, sent, "a repeated 200 goes on as the first did");

    let route = "Route: <sip:192.0.2.1:8060;lr>, <sip:198.51.100.1:8060;lr>\n";
    let sent = world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", route, ""));
    assert_eq!(sent[0].to, "198.51.100.20:5070");
    assert_eq!(
        sent[0].text(),
        "ACK sip:100@198.51.100.20:5070;x=1 SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
         Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKa1;rport=5060;received=192.0.2.11\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\nTo: <sip:100@example.com>;tag=s\nCall-ID: c1\nCSeq: 1 ACK\nMax-Forwards: 69\n\
         Content-Length: 0\n\n"
    );
    {
        let call = world.proxy.calls().next().unwrap();
        assert_eq!(
            (call.state, call.from.as_str(), call.to.as_str()),
            (CallState::Established, "Zoë", "100")
        );
        assert_eq!(
            (call.from_agent.as_deref(), call.to_agent.as_deref()),
            (Some("Phone/1"), Some("Switch/2"))
        );
    }

    let bye = from_server(
        "BYE",
        "sip:200@198.51.100.1:8060;line=7",
        "b1",
        1,
        ";tag=p",
        "Route: <sip:198.51.100.1:8060;lr>,<sip:192.0.2.1:8060;lr>\n",
        "",
    );
    let sent = world.server(&bye);
    assert_eq!(sent[0].to, PHONE);
    assert_eq!(
        sent[0].text(),
        "BYE sip:200@192.0.2.11:5060;line=7 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:8060;branch=z9hG4bKOURS;rport\n\
         Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bKb1;rport=5060;received=198.51.100.9\n\
         From: <sip:100@example.com>;tag=s\nTo: \"Zoë\" <sip:200@example.com>;tag=p\nCall-ID: c1\nCSeq: 1 BYE\nMax-Forwards: 69\n\
         Content-Length: 0\n\n"
    );
    let sent = world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    assert_eq!((sent[0].first_line().as_str(), sent[0].to.as_str()), ("SIP/2.0 200 OK", SERVER));
    assert_eq!(world.media.log, ["offer p - 0>1", "answer p s 0>1", "delete"]);
    assert_eq!(world.proxy.active_calls(), 0);
    assert_eq!(world.proxy.ended_calls().next().unwrap().outcome, Some(Outcome::Answered));
    for measure in [Measure::CallAttempt, Measure::CallAnswered, Measure::CallEnded(Outcome::Answered)] {
        assert_eq!(world.count(measure), 1, "{measure:?}");
    }
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_call_to_the_phone_is_found_by_its_token_and_relayed() {
    let mut world = World::new();
    let uri = world.register();
    let invite = from_server(
        "INVITE",
        &uri,
        "j1",
        1,
        "",
        "Contact: <sip:100@198.51.100.20:5070>\nRecord-Route: <sip:198.51.100.8;lr>\n",
        &sdp("198.51.100.20", 6000, ""),
    );
    let sent = world.server(&invite);
    assert_eq!((sent[1].network, sent[1].to.as_str()), (PHONES, PHONE));
    let text = sent[1].text();
    assert!(
        text.starts_with(
            "INVITE sip:200@192.0.2.11:5060;line=7 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:8060;branch"
        ),
        "{text}"
    );
    assert!(
        text.contains("Record-Route: <sip:192.0.2.1:8060;lr>\nRecord-Route: <sip:198.51.100.1:8060;lr>\nVia")
    );
    assert!(text.contains("Contact: <sip:100@192.0.2.1:8060>\nRecord-Route: <sip:198.51.100.8;lr>\n"));
    let at_phone = sent[1].clone();
    let sent = world.phone(&answer(
        &at_phone,
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060;line=7>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    assert!(sent[0].text().contains("Contact: <sip:200@198.51.100.1:8060;line=7>\n"));
    assert_eq!(world.media.log, ["offer s - 1>0", "answer s p 1>0"]);

    // The phone hangs up: the server's own Route is kept and obeyed, ours are taken out.
    let bye = from_phone(
        "BYE",
        "sip:100@192.0.2.1:8060",
        "b1",
        9,
        ";tag=s",
        "Route: <sip:192.0.2.1:8060;lr>\nRoute: <sip:198.51.100.1:8060;lr>, <sip:198.51.100.8;lr>\n",
        "",
    );
    let sent = world.phone(&bye);
    assert_eq!(sent[0].to, "198.51.100.8:5060");
    assert!(sent[0].text().starts_with("BYE sip:100@198.51.100.20:5070 SIP/2.0\n"));
    assert!(sent[0].text().contains("\nRoute: <sip:198.51.100.8;lr>\n"));
    assert!(!sent[0].text().contains("8060;lr"));
    let sent = world.server(&answer(&sent[0], 200, "OK", "s", "", ""));
    assert_eq!(sent[0].to, PHONE);
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_call_is_cancelled_hop_by_hop() {
    let mut world = World::new();
    let invite = from_phone("INVITE", "sip:100@example.com", "i1", 1, "", "", &sdp("192.0.2.11", 4000, ""));
    let sent = world.phone(&invite);
    let at_server = sent[1].clone();
    let cancel = from_phone(
        "CANCEL",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Reason: SIP;cause=200;text=\"elsewhere\"\n",
        "",
    );
    let sent = world.phone(&cancel);
    assert_eq!(sent.len(), 1, "the CANCEL waits for a provisional response");
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
    let sent = world.server(&answer(&at_server, 180, "Ringing", "s", "", ""));
    let forwarded = sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone();
    assert_eq!(
        forwarded.text(),
        "CANCEL sip:100@example.com SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\nMax-Forwards: 70\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\nTo: <sip:100@example.com>\nCall-ID: c1\nCSeq: 1 CANCEL\n\
         Reason: SIP;cause=200;text=\"elsewhere\"\nContent-Length: 0\n\n"
    );
    assert_eq!(world.server(&answer(&forwarded, 200, "OK", "s", "", "")), []);
    let sent = world.server(&answer(&at_server, 487, "Request Terminated", "s", "", ""));
    assert_eq!(sent[0].first_line(), "ACK sip:100@example.com SIP/2.0");
    assert_eq!(
        (sent[1].first_line().as_str(), sent[1].to.as_str()),
        ("SIP/2.0 487 Request Terminated", PHONE)
    );
    world.phone(&from_phone("ACK", "sip:100@example.com", "i1", 1, ";tag=s", "", ""));
    assert_eq!(world.count(Measure::CallEnded(Outcome::Cancelled)), 1);
    assert_eq!(world.media.log.last().unwrap(), "delete");
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_cancel_that_crosses_the_answer_changes_nothing() {
    let mut world = World::new();
    establish(&mut world);
    let sent = world.phone(&from_phone("CANCEL", "sip:100@example.com", "i1", 1, "", "", ""));
    assert_eq!((sent.len(), sent[0].first_line().as_str()), (1, "SIP/2.0 200 OK"));
    assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Established);
    let stray = world.phone(&from_phone("CANCEL", "sip:100@example.com", "i9", 1, "", "", ""));
    assert_eq!(stray[0].first_line(), "SIP/2.0 481 Call/Transaction Does Not Exist");
}

#[test]
fn a_bye_that_crosses_a_re_invite_ends_the_call_and_both_are_answered() {
    let mut world = World::new();
    establish(&mut world);
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@192.0.2.1:8060;x=1",
        "i2",
        2,
        ";tag=s",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, "a=sendonly\n"),
    ));
    let reinvite = sent.iter().find(|sent| sent.network == SERVERS).unwrap().clone();
    let sent = world.server(&from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 1, ";tag=p", "", ""));
    let sent = world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    assert_eq!(sent[0].first_line(), "SIP/2.0 200 OK");
    let sent = world.server(&answer(&reinvite, 481, "Gone", "s", "", ""));
    assert_eq!(sent[1].first_line(), "SIP/2.0 481 Gone");
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "i2", 2, ";tag=s", "", ""));
    assert_eq!(world.count(Measure::CallEnded(Outcome::Answered)), 1);
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_bye_that_is_challenged_or_not_answered_ends_the_call_only_at_last() {
    let mut world = World::new();
    establish(&mut world);
    let bye =
        |branch: &str, cseq| from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", branch, cseq, ";tag=s", "", "");
    let sent = world.phone(&bye("b1", 2));
    world.server(&answer(&sent[0], 407, "Proxy Authentication Required", "s", "", ""));
    assert_eq!(world.proxy.active_calls(), 1);
    world.phone(&bye("b2", 3));
    let sent = world.wait(MINUTE);
    let told: Vec<String> = sent.iter().filter(|sent| sent.network == PHONES).map(Sent::first_line).collect();
    assert_eq!(told, ["SIP/2.0 100 Trying"], "it has given up itself by then (RFC 4320)");
    assert_eq!(world.proxy.active_calls(), 0);
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn both_dialogs_of_a_fork_live_until_the_last_one_ends() {
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
    for (tag, port) in [("s", 6000), ("u", 7000)] {
        let contact = format!("Contact: <sip:{tag}@198.51.100.20:{port}>\n");
        let sent = world.server(&answer(
            &invite,
            183,
            "Session Progress",
            tag,
            &contact,
            &sdp("198.51.100.20", port, ""),
        ));
        assert!(sent[0].text().contains(&format!("Contact: <sip:{tag}@192.0.2.1:8060>\n")));
        assert!(sent[0].text().contains("m=audio 16388 "));
    }
    for (tag, port) in [("s", 6000), ("u", 7000)] {
        let contact = format!("Contact: <sip:{tag}@198.51.100.20:{port}>\n");
        assert_eq!(
            world.server(&answer(&invite, 200, "OK", tag, &contact, &sdp("198.51.100.20", port, ""))).len(),
            1
        );
    }
    assert_eq!(world.count(Measure::CallAnswered), 1);
    for (tag, port, left) in [("s", 6000, 1), ("u", 7000, 0)] {
        let uri = format!("sip:{tag}@192.0.2.1:8060");
        let ack =
            world.phone(&from_phone("ACK", &uri, &format!("a{tag}"), 1, &format!(";tag={tag}"), "", ""));
        assert_eq!(ack[0].to, format!("198.51.100.20:{port}"));
        assert_eq!(ack[0].first_line(), format!("ACK sip:{tag}@198.51.100.20:{port} SIP/2.0"));
        let bye =
            world.phone(&from_phone("BYE", &uri, &format!("b{tag}"), 2, &format!(";tag={tag}"), "", ""));
        world.server(&answer(&bye[0], 200, "OK", tag, "", ""));
        assert_eq!(world.proxy.active_calls(), left);
    }
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn calls_survive_a_change_of_the_peers_address() {
    let mut settings = settings();
    settings.trusted = vec!["198.51.100.0/24".parse().unwrap()];
    let mut world = World::with(settings);
    establish_inward(&mut world);
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060;line=7", "b1", 2, ";tag=p", "", "")
        .replace('\n', "\r\n");
    let sent = world.receive(SERVERS, "198.51.100.77:5066", bye.as_bytes());
    assert_eq!(sent[0].first_line(), "BYE sip:200@192.0.2.11:5060;line=7 SIP/2.0");
    let sent = world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    assert_eq!(sent[0].to, "198.51.100.77:5066");
}

#[test]
fn a_call_is_ended_on_the_media_rooms_word() {
    let mut world = World::new();
    establish(&mut world);
    world.proxy.end_call(world.now, &mut world.media, b"c1", Outcome::MediaTimeout);
    world.drain();
    assert_eq!(world.count(Measure::CallEnded(Outcome::MediaTimeout)), 1);
    assert!(world.media.live.is_empty());
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_call_between_two_phones_of_the_office_passes_twice_and_each_leg_has_its_own_media() {
    let mut world = World::new();
    let uri = world.register();
    let other = "192.0.2.12:5060";
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:201@192.0.2.12:5060>\n",
        &sdp("192.0.2.12", 4000, ""),
    );
    let leg_out = world.receive(PHONES, other, crlf(&invite).as_bytes())[1].clone();
    // The server is a proxy that stays out of the dialog: it puts its Via on top and aims at the binding.
    let text = String::from_utf8(leg_out.payload.to_vec()).unwrap();
    let back = text.replacen("sip:100@example.com", &uri, 1).replacen(
        "Via:",
        "Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bKserver;rport\r\nVia:",
        1,
    );
    let leg_in = world.receive(SERVERS, SERVER, back.as_bytes())[1].clone();
    assert_eq!((leg_in.network, leg_in.to.as_str()), (PHONES, PHONE));
    assert_eq!(world.media.live.len(), 2);
    assert_eq!(world.proxy.active_calls(), 2);

    let ok = answer(
        &leg_in,
        200,
        "OK",
        "s",
        "Contact: <sip:200@192.0.2.11:5060;line=7>\n",
        &sdp("192.0.2.11", 5000, ""),
    );
    let ok = world.phone(&ok)[0].clone();
    assert_eq!(ok.to, SERVER);
    // The server takes its own Via off; what it sends has the appliance's on top.
    let message = ok.message();
    let mut editor = crate::sip::wire::Editor::new(&message);
    editor.pop_via();
    let ok = world.receive(SERVERS, SERVER, &editor.finish());
    assert_eq!((ok[0].first_line().as_str(), ok[0].to.as_str()), ("SIP/2.0 200 OK", other));
    let message = ok[0].message();
    let mut routes: Vec<_> = message
        .addresses(crate::sip::wire::HeaderName::RecordRoute)
        .map(|route| String::from_utf8(route.uri.to_vec()).unwrap())
        .collect();
    routes.reverse();
    let target = message.addresses(crate::sip::wire::HeaderName::Contact).next().unwrap();
    let target = String::from_utf8(target.uri.to_vec()).unwrap();
    let route: String = routes.iter().map(|route| format!("Route: <{route}>\n")).collect();

    for (method, branch) in [("ACK", "a1"), ("BYE", "b1")] {
        let request = from_phone(method, &target, branch, 2, ";tag=s", &route, "");
        let out = world.receive(PHONES, other, crlf(&request).as_bytes())[0].clone();
        assert_eq!((out.network, out.to.as_str()), (SERVERS, "198.51.100.1:8060"), "{method}: to itself");
        let inward = world.receive(SERVERS, "198.51.100.1:8060", &out.payload)[0].clone();
        assert_eq!(inward.to, PHONE, "{method}");
        assert_eq!(inward.first_line(), format!("{method} sip:200@192.0.2.11:5060;line=7 SIP/2.0"));
        if method == "BYE" {
            let ok = world.phone(&answer(&inward, 200, "OK", "s", "", ""))[0].clone();
            assert_eq!(ok.to, "198.51.100.1:8060");
            let ok = world.receive(SERVERS, "198.51.100.1:8060", &ok.payload);
            assert_eq!(ok[0].to, other);
        }
    }
    assert!(world.media.live.is_empty());
    world.wait(MINUTE * 4);
    world.assert_empty();
}
