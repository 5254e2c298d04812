use super::harness::*;
use crate::proxy::{DropReason, Measure, Outcome};

fn invite() -> String {
    from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    )
}

#[test]
fn failures_are_acknowledged_here_and_passed_on_with_their_outcome() {
    let table = [
        (486, "Besetzt", Outcome::Busy),
        (404, "Not Found", Outcome::NotFound),
        (503, "Service Unavailable", Outcome::ServerFailure),
        (480, "Temporarily Unavailable", Outcome::NoAnswer),
        (603, "Decline", Outcome::Declined),
        (302, "Moved", Outcome::Redirected),
    ];
    for (status, reason, outcome) in table {
        let mut world = World::new();
        let sent = world.phone(&invite());
        let at_server = sent[1].clone();
        let failure = answer(&at_server, status, reason, "s", "Contact: <sip:elsewhere@203.0.113.4>\n", "");
        let sent = world.server(&failure);
        assert_eq!(sent[0].first_line(), "ACK sip:100@example.com SIP/2.0");
        assert_eq!(sent[1].first_line(), format!("SIP/2.0 {status} {reason}"));
        assert!(sent[1].text().contains("\nContact: <sip:elsewhere@203.0.113.4>\n"), "{status}");
        assert_eq!(
            world.server(&failure).len(),
            1,
            "{status}: a repeated failure is only acknowledged again"
        );
        assert_eq!(
            world.wait(std::time::Duration::from_millis(500))[0].payload,
            sent[1].payload,
            "{status}: repeated until the ACK"
        );
        assert_eq!(world.phone(&from_phone("ACK", "sip:100@example.com", "i1", 1, ";tag=s", "", "")), []);
        assert_eq!(world.count(Measure::CallEnded(outcome)), 1, "{status}");
        assert_eq!(world.media.log.last().unwrap(), "delete");
        world.wait(MINUTE * 4);
        world.assert_empty();
    }
}

#[test]
fn a_challenged_invite_is_the_same_attempt_as_the_one_that_answers_it() {
    let mut world = World::new();
    let sent = world.phone(&invite());
    world.server(&answer(&sent[1], 407, "Proxy Authentication Required", "x", "", ""));
    world.phone(&from_phone("ACK", "sip:100@example.com", "i1", 1, ";tag=x", "", ""));
    assert_eq!((world.proxy.active_calls(), world.count(Measure::CallAttempt)), (0, 0));
    assert!(world.media.live.is_empty());
    let sent = world.phone(&invite().replace("z9hG4bKi1", "z9hG4bKi2").replace("CSeq: 1 ", "CSeq: 2 "));
    world.server(&answer(&sent[1], 180, "Ringing", "s", "", ""));
    assert_eq!((world.proxy.active_calls(), world.count(Measure::CallAttempt)), (1, 1));
}

#[test]
fn a_repeated_invite_is_answered_again_and_goes_no_further() {
    let mut world = World::new();
    let first = world.phone(&invite());
    let again = world.phone(&invite());
    assert_eq!(again, first[..1]);
    assert_eq!(world.media.log.len(), 1);
}

#[test]
fn an_invite_that_nobody_answers_is_repeated_and_then_answered_408() {
    let mut world = World::new();
    world.phone(&invite());
    let sent = world.wait(MINUTE);
    assert_eq!(sent.iter().filter(|sent| sent.network == SERVERS).count(), 6);
    assert!(sent.iter().any(|sent| sent.first_line() == "SIP/2.0 408 Request Timeout"));
    assert_eq!(world.count(Measure::CallEnded(Outcome::Timeout)), 1);
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn an_invite_that_rings_for_ever_is_cancelled_by_timer_c() {
    let mut world = World::new();
    let sent = world.phone(&invite());
    let at_server = sent[1].clone();
    world.server(&answer(&at_server, 180, "Ringing", "s", "", ""));
    world.wait(MINUTE * 2);
    world.server(&answer(&at_server, 180, "Ringing", "s", "", ""));
    assert_eq!(
        world.wait(MINUTE * 3 - std::time::Duration::from_secs(1)),
        [],
        "a provisional response starts it anew"
    );
    let sent = world.wait(std::time::Duration::from_secs(1));
    assert_eq!(sent[0].first_line(), "CANCEL sip:100@example.com SIP/2.0");
    let sent = world.wait(MINUTE);
    assert!(sent.iter().any(|sent| sent.first_line() == "SIP/2.0 408 Request Timeout"));
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn without_media_ports_the_call_is_refused_and_says_why() {
    let mut world = World::new();
    world.media.full = true;
    let sent = world.phone(&invite());
    assert_eq!(sent.len(), 2);
    let text = sent[1].text();
    assert!(text.starts_with("SIP/2.0 503 No Media Ports\n"), "{text}");
    assert!(text.contains("\nWarning: 399 192.0.2.1:8060 \"no free media ports on network centre: 4 of 4 are in use\"\nRetry-After: 5\n"), "{text}");
    assert_eq!(world.count(Measure::Dropped(DropReason::NoPorts)), 1);
    assert_eq!(world.count(Measure::CallEnded(Outcome::NoPorts)), 1);
    world.wait(MINUTE);
    world.wait(MINUTE);
    world.assert_empty();
}

#[test]
fn a_description_that_cannot_be_read_is_refused_with_its_line() {
    let mut world = World::new();
    let sent = world.phone(&from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "",
        "v=0\nm=audio x RTP/AVP 0\n",
    ));
    let text = sent[1].text();
    assert!(text.starts_with("SIP/2.0 488 Not Acceptable Here\n"), "{text}");
    assert!(text.contains("session description, line 2: malformed media line\""), "{text}");
}

#[test]
fn an_answer_that_the_media_room_refuses_goes_on_with_its_streams_refused_and_no_address() {
    let mut world = World::new();
    let at_server = world.phone(&invite())[1].clone();
    // The media room has lost the call meanwhile, so it knows of no offer.
    world.media.live.clear();
    let contact = "Contact: <sip:100@198.51.100.20>\n";
    let readable = sdp("198.51.100.20", 6000, "");
    let text = world.server(&answer(&at_server, 183, "Progress", "s", contact, &readable))[0].text();
    let refused =
        readable.replace("c=IN IP4 198.51.100.20", "c=IN IP4 0.0.0.0").replace("m=audio 6000", "m=audio 0");
    assert!(text.ends_with(&format!("\n\n{refused}")), "{text}");
    let text = world.server(&answer(&at_server, 200, "OK", "s", contact, "v=0\nm=x\n"))[0].text();
    assert!(text.ends_with("Content-Length: 0\n\n"), "{text}");
    assert_eq!(world.count(Measure::MediaRefused), 2);
}

#[test]
fn malformed_requests_are_answered_with_the_problem_and_others_dropped() {
    let mut world = World::new();
    let sent = world.phone(&invite().replace("Max-Forwards: 70", "Max-Forwards: x"));
    assert!(
        sent[0].first_line().starts_with("SIP/2.0 400 malformed Max-Forwards header at byte "),
        "{}",
        sent[0].first_line()
    );
    assert_eq!(world.phone("INVITE sip:a@b SIP/2.0\n\n"), []);
    assert_eq!(
        world.phone(&invite().replace("INVITE", "ACK").replace("Max-Forwards: 70", "Max-Forwards: x")),
        []
    );
    assert_eq!(world.server("SIP/2.0 200 OK\n\n"), []);
    assert_eq!(world.count(Measure::Dropped(DropReason::Malformed)), 1);
    assert_eq!(world.count(Measure::Dropped(DropReason::Unreadable)), 3);
    world.assert_empty();
}
