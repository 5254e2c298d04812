//! Transfers that the appliance makes for a peer that takes no REFER.

use std::time::Duration;

use super::{harness::*, survival};
use crate::{
    config::{Conversions, ReferStyle},
    net::NetworkId,
    proxy::{Conversion, DropReason, Measure, Peers, Settings},
    upstream::Emergency,
};

pub(super) fn converting(phones: ReferStyle, servers: ReferStyle) -> Settings {
    let of = |refer| Conversions { refer, ..Conversions::default() };
    let peers = Peers::of_networks([(PHONES, of(phones)), (SERVERS, of(servers))], &[]);
    Settings { peers, ..settings() }
}

/// The phone, which takes no REFER, is in a call with the server's party.
pub(super) fn world() -> World {
    let mut world = World::with(converting(ReferStyle::Reinvite, ReferStyle::Pass));
    establish(&mut world);
    world.media.log.clear();
    world
}

pub(super) fn refer(number: u32, headers: &str) -> String {
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    let headers = format!("{contact}{headers}");
    from_server("REFER", "sip:200@198.51.100.1:8060", &format!("r{number}"), number, ";tag=p", &headers, "")
}

pub(super) fn find(sent: &[Sent], network: NetworkId, start: &str) -> Sent {
    sent.iter()
        .find(|sent| sent.network == network && sent.first_line().starts_with(start))
        .unwrap_or_else(|| panic!("no {start} in {:?}", sent.iter().map(Sent::text).collect::<Vec<_>>()))
        .clone()
}

pub(super) fn none(sent: &[Sent], network: NetworkId, start: &str) {
    assert!(
        !sent.iter().any(|sent| sent.network == network && sent.first_line().starts_with(start)),
        "{sent:?}"
    );
}

/// The value of a header.
pub(super) fn value(sent: &Sent, name: &str) -> String {
    let text = sent.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

pub(super) fn fragment(sent: &Sent) -> String {
    sent.text().split_once("\n\n").unwrap().1.trim().to_owned()
}

/// The INVITE that follows a REFER to 300.
pub(super) fn begin(world: &mut World) -> Sent {
    let sent =
        world.server(&refer(1, "Refer-To: <sip:300@example.com>\nReferred-By: <sip:100@example.com>\n"));
    find(&sent, SERVERS, "INVITE sip:300@")
}

/// The target's answer. Returns what was sent because of it.
pub(super) fn pick_up(world: &mut World, invite: &Sent) -> Vec<Sent> {
    let contact = "Contact: <sip:300@198.51.100.30:5080>\n";
    world.server(&answer(invite, 200, "OK", "t", contact, &sdp("198.51.100.30", 7000, "")))
}

/// All of it. Returns the INVITE to the target.
pub(super) fn transferred(world: &mut World) -> Sent {
    let invite = begin(world);
    let sent = pick_up(world, &invite);
    let again = find(&sent, PHONES, "INVITE");
    world.phone(&answer(
        &again,
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    ));
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060", "b9", 9, ";tag=p", "", "");
    let sent = world.server(&bye);
    find(&sent, SERVERS, "SIP/2.0 200");
    none(&sent, PHONES, "BYE");
    invite
}

/// A request of the target in its dialog.
pub(super) fn from_target(invite: &Sent, method: &str, number: u32, headers: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!(
        "{method} sip:200@198.51.100.1:8060 SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.30:5080;branch=z9hG4bKt{number}{method}\n\
         From: {to};tag=t\nTo: {from}\nCall-ID: {call}\nCSeq: {number} {method}\n{headers}{kind}Content-Length: {length}\n\n{body}",
        to = value(invite, "To"),
        from = value(invite, "From"),
        call = value(invite, "Call-ID"),
        length = body.replace('\n', "\r\n").len(),
    )
}

#[test]
fn a_blind_transfer_is_an_invite_to_the_target_and_a_re_invite_to_the_transferee() {
    let mut world = world();
    let sent =
        world.server(&refer(1, "Refer-To: <sip:300@example.com>\nReferred-By: <sip:100@example.com>\n"));
    let accepted = find(&sent, SERVERS, "SIP/2.0 202 Accepted");
    assert_eq!(value(&accepted, "CSeq"), "1 REFER");
    none(&sent, PHONES, "");
    let trying = find(&sent, SERVERS, "NOTIFY");
    assert_eq!(
        trying.text(),
        "NOTIFY sip:100@198.51.100.20:5070;x=1 SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
         Max-Forwards: 70\n\
         From: \"Zoë\" <sip:200@example.com>;tag=p\n\
         To: <sip:100@example.com>;tag=s\n\
         Call-ID: c1\n\
         CSeq: 2 NOTIFY\n\
         Contact: <sip:200@198.51.100.1:8060>\n\
         Event: refer;id=1\n\
         Subscription-State: active;expires=600\n\
         Content-Type: message/sipfrag;version=2.0\n\
         Content-Length: 20\n\nSIP/2.0 100 Trying\n"
    );
    let invite = find(&sent, SERVERS, "INVITE");
    let text = invite.text();
    let tag = text.split(";tag=").nth(1).unwrap().split('\n').next().unwrap();
    assert_eq!(
        text.replace(tag, "NEW"),
        format!(
            "INVITE sip:300@example.com SIP/2.0\n\
             Via: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
             Record-Route: <sip:198.51.100.1:8060;lr>\n\
             Record-Route: <sip:192.0.2.1:8060;lr>\n\
             Via: SIP/2.0/UDP 192.0.2.1:8060;branch=z9hG4bKwithinNEW;received=192.0.2.11\n\
             Max-Forwards: 68\n\
             From: \"Zoë\"<sip:200@example.com>;tag=NEW\n\
             To: <sip:300@example.com>\n\
             Call-ID: NEW@192.0.2.1\n\
             CSeq: 1 INVITE\n\
             Contact: <sip:200@198.51.100.1:8060>\n\
             Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE\n\
             Referred-By: <sip:100@example.com>\n\
             Content-Type: application/sdp\n\
             Content-Length: {}\n\n{}",
            sdp("198.51.100.1", 16384, "").replace('\n', "\r\n").len() - 2,
            sdp("198.51.100.1", 16384, "")
                .replace("o=- 1 1 IN IP4 198.51.100.1", "o=- 1 1 IN IP4 192.0.2.11"),
        )
    );
    world.server(&answer(&trying, 200, "OK", "s", "", ""));
    let sent =
        world.server(&answer(&invite, 180, "Ringing", "t", "Contact: <sip:300@198.51.100.30:5080>\n", ""));
    let ringing = find(&sent, SERVERS, "NOTIFY");
    assert_eq!(fragment(&ringing), "SIP/2.0 180 Ringing");
    let sent = pick_up(&mut world, &invite);
    let ack = find(&sent, SERVERS, "ACK sip:300@198.51.100.30:5080");
    assert_eq!((value(&ack, "CSeq"), value(&ack, "Call-ID")), ("1 ACK".into(), value(&invite, "Call-ID")));
    let again = find(&sent, PHONES, "INVITE sip:200@192.0.2.11:5060");
    assert_eq!((value(&again, "Call-ID"), value(&again, "CSeq")), ("c1".into(), "1 INVITE".into()));
    assert_eq!(
        (value(&again, "From"), value(&again, "To")),
        ("<sip:100@example.com>;tag=s".into(), "\"Zoë\" <sip:200@example.com>;tag=p".into())
    );
    assert!(again.text().contains("c=IN IP4 192.0.2.1"), "{}", again.text());
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(value(&find(&sent, PHONES, "ACK"), "CSeq"), "1 ACK");
    let done = find(&sent, SERVERS, "NOTIFY");
    assert_eq!(fragment(&done), "SIP/2.0 200 OK");
    assert_eq!(value(&done, "Subscription-State"), "terminated;reason=noresource");
    assert_eq!(world.count(Measure::Converted(Conversion::Refer)), 1);
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn the_media_of_the_new_call_is_the_transferees_and_the_old_ends() {
    let mut world = world();
    transferred(&mut world);
    let log = &world.media.log;
    let mark = log[0].split(' ').nth(1).unwrap().to_owned();
    assert_eq!(
        log[..],
        [
            format!("offer {mark} - 0>1"),
            format!("answer {mark} t 0>1"),
            format!("offer {mark} t 0>1"),
            format!("answer {mark} t 0>1"),
            "delete".to_owned(),
        ]
    );
}

#[test]
fn a_transferor_that_does_not_hang_up_is_hung_up_with() {
    let mut world = world();
    let invite = begin(&mut world);
    let sent = pick_up(&mut world, &invite);
    world.phone(&answer(&find(&sent, PHONES, "INVITE"), 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    none(&world.wait(Duration::from_secs(4)), SERVERS, "BYE");
    let bye = find(&world.wait(Duration::from_secs(2)), SERVERS, "BYE sip:100@198.51.100.20:5070");
    assert_eq!(value(&bye, "Call-ID"), "c1");
    // Anything else of it belongs to no dialog any more.
    let info = from_server("INFO", "sip:200@198.51.100.1:8060", "n1", 5, ";tag=p", "", "");
    find(&world.server(&info), SERVERS, "SIP/2.0 481");
    assert_eq!(world.proxy.active_calls(), 1);
}

#[test]
fn a_transfer_that_fails_leaves_the_call_as_it_was() {
    let mut world = world();
    let invite = begin(&mut world);
    let sent = world.server(&answer(&invite, 486, "Busy Here", "t", "", ""));
    let told = find(&sent, SERVERS, "NOTIFY");
    assert_eq!(fragment(&told), "SIP/2.0 486 Busy Here");
    none(&sent, PHONES, "");
    assert_eq!(world.count(Measure::Converted(Conversion::ReferFailed)), 1);
    // The transferee does not want it: the target is let go.
    let sent = world.server(&refer(2, "Refer-To: <sip:300@example.com>\n"));
    let invite = find(&sent, SERVERS, "INVITE");
    let sent = pick_up(&mut world, &invite);
    let sent = world.phone(&answer(&find(&sent, PHONES, "INVITE"), 488, "Not Acceptable Here", "p", "", ""));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 488 Not Acceptable Here");
    find(&sent, SERVERS, "BYE sip:300@198.51.100.30:5080");
    assert_eq!(world.proxy.active_calls(), 1);
    // The old call has not noticed.
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", "");
    let bye = find(&world.phone(&bye), SERVERS, "BYE sip:100@198.51.100.20:5070");
    assert_eq!(value(&bye, "Call-ID"), "c1");
    world.server(&answer(&bye, 200, "OK", "s", "", ""));
    world.wait(MINUTE * 2);
    world.assert_empty();
}

#[test]
fn a_transferor_that_hangs_up_at_once_leaves_the_transfer_to_go_on() {
    let mut world = world();
    let invite = begin(&mut world);
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060", "b1", 2, ";tag=p", "", "");
    let sent = world.server(&bye);
    find(&sent, SERVERS, "SIP/2.0 200");
    none(&sent, PHONES, "BYE");
    let sent = pick_up(&mut world, &invite);
    let sent = world.phone(&answer(
        &find(&sent, PHONES, "INVITE"),
        200,
        "OK",
        "p",
        "",
        &sdp("192.0.2.11", 4000, ""),
    ));
    none(&sent, SERVERS, "NOTIFY");
    none(&world.wait(Duration::from_secs(10)), SERVERS, "BYE");
    assert_eq!(world.proxy.active_calls(), 1);

    // And when it fails then, the transferee has nobody left.
    let mut world = self::world();
    let invite = begin(&mut world);
    world.server(&bye);
    let sent = world.server(&answer(&invite, 404, "Not Found", "t", "", ""));
    find(&sent, PHONES, "BYE");
    assert_eq!(world.proxy.active_calls(), 0);
}

#[test]
fn a_transferee_that_hangs_up_ends_the_transfer_too() {
    let mut world = world();
    let invite = begin(&mut world);
    world.server(&answer(&invite, 180, "Ringing", "t", "", ""));
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", "");
    let sent = world.phone(&bye);
    find(&sent, SERVERS, "BYE sip:100@198.51.100.20:5070");
    find(&sent, SERVERS, "CANCEL sip:300@example.com");
    // The answer crosses: the target is let go.
    let sent = pick_up(&mut world, &invite);
    find(&sent, SERVERS, "ACK sip:300@198.51.100.30:5080");
    find(&sent, SERVERS, "BYE sip:300@198.51.100.30:5080");
    none(&sent, PHONES, "INVITE");
}

#[test]
fn a_target_that_hangs_up_before_the_transferee_has_answered_gives_it_back() {
    let mut world = world();
    let invite = begin(&mut world);
    let sent = pick_up(&mut world, &invite);
    let again = find(&sent, PHONES, "INVITE");
    find(&world.server(&from_target(&invite, "UPDATE", 1, "", "")), SERVERS, "SIP/2.0 491");
    let sent = world.server(&from_target(&invite, "BYE", 2, "", ""));
    find(&sent, SERVERS, "SIP/2.0 200");
    none(&sent, PHONES, "BYE");
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 487 Request Terminated");
    let back = find(&sent, PHONES, "INVITE");
    assert!(back.text().contains("o=- 1 1 IN IP4 198.51.100.20"), "{}", back.text());
}

#[test]
fn what_cannot_be_done_is_refused_and_one_transfer_is_made_at_a_time() {
    let rows = [
        ("nothing asked for", "", "SIP/2.0 400"),
        ("nonsense", "Refer-To: >>;;\n", "SIP/2.0 400"),
        ("a page", "Refer-To: <http://example.com>\n", "SIP/2.0 416"),
        ("a BYE", "Refer-To: <sip:3@example.com;method=BYE>\n", "SIP/2.0 501"),
    ];
    for (description, headers, expected) in rows {
        let mut world = world();
        let sent = world.server(&refer(1, headers));
        assert!(sent.len() == 1 && sent[0].first_line().starts_with(expected), "{description}: {sent:?}");
        assert_eq!(world.count(Measure::Dropped(DropReason::ReferRefused)), 1, "{description}");
    }
    let mut world = world();
    begin(&mut world);
    for number in 2..50 {
        let sent = world.server(&refer(number, "Refer-To: <sip:301@example.com>\n"));
        assert!(sent.len() == 1 && sent[0].first_line() == "SIP/2.0 491 Request Pending", "{sent:?}");
    }
    assert_eq!(world.proxy.active_calls(), 2);
    // Hops that are used up, as in a loop of transfers.
    let mut world = self::world();
    let last = refer(1, "Refer-To: <sip:300@example.com>\n").replace("Max-Forwards: 70", "Max-Forwards: 1");
    let sent = world.server(&last);
    assert!(sent.iter().any(|sent| sent.text().ends_with("SIP/2.0 483 Too Many Hops\n")), "{sent:?}");
}

#[test]
fn a_transferor_of_the_office_reaches_what_it_could_call_and_nothing_else() {
    // The server takes no REFER; the phone is the transferor.
    let mut world = World::with(converting(ReferStyle::Pass, ReferStyle::Reinvite));
    establish(&mut world);
    let to = |target: &str, number: u32| {
        let headers = format!("Contact: <sip:200@192.0.2.11:5060>\nRefer-To: <{target}>\n");
        from_phone(
            "REFER",
            "sip:100@192.0.2.1:8060;x=1",
            &format!("r{number}"),
            number,
            ";tag=s",
            &headers,
            "",
        )
    };
    let sent = world.phone(&to("sip:300@example.com", 2));
    find(&sent, PHONES, "SIP/2.0 202");
    let invite = find(&sent, SERVERS, "INVITE sip:300@example.com");
    // In the transferee's name.
    assert!(value(&invite, "From").starts_with("<sip:100@example.com>;tag="), "{}", invite.text());
    assert_eq!(fragment(&find(&sent, PHONES, "NOTIFY")), "SIP/2.0 100 Trying");
    world.server(&answer(&invite, 403, "Forbidden", "t", "", ""));
    // To the appliance itself: as any call there, by the servers.
    let sent = world.phone(&to("sip:192.0.2.1:8060", 3));
    find(&sent, PHONES, "SIP/2.0 202");
    find(&sent, SERVERS, "INVITE");
}

#[test]
fn nobody_reaches_a_trunk_by_a_transfer_who_could_not_call_by_it() {
    // Whether the phone is registered, who asks for the transfer, and whether the target is called by the trunk.
    let rows = [
        ("a phone that is registered", true, PHONES, true),
        ("one that is not", false, PHONES, false),
        ("a server", true, SERVERS, false),
    ];
    for (description, registered, by, expected) in rows {
        let trunks = vec![survival::trunk("isdn", survival::GATEWAY, "0", Emergency::Carried)];
        let settings = survival::settings_with(trunks, Some(survival::alone()));
        let refers = if by == PHONES {
            (ReferStyle::Pass, ReferStyle::Reinvite)
        } else {
            (ReferStyle::Reinvite, ReferStyle::Pass)
        };
        let mut world = World::with(Settings { peers: converting(refers.0, refers.1).peers, ..settings });
        if registered {
            world.register_by_server("200", PHONE, "");
        }
        establish(&mut world);
        world.lose_server();
        let target = "Refer-To: <sip:0711555@example.com>\n";
        let sent = if by == PHONES {
            let headers = format!("Contact: <sip:200@192.0.2.11:5060>\n{target}");
            world.phone(&from_phone("REFER", "sip:100@192.0.2.1:8060;x=1", "r1", 2, ";tag=s", &headers, ""))
        } else {
            world.server(&refer(1, target))
        };
        find(&sent, by, "SIP/2.0 202");
        let by_trunk = sent.iter().any(|sent| {
            sent.network == survival::GATEWAYS && sent.first_line().starts_with("INVITE sip:711555@")
        });
        assert_eq!(by_trunk, expected, "{description}: {sent:?}");
    }
}

#[test]
fn a_refer_passes_where_its_recipient_takes_it_and_outside_calls() {
    let mut world = World::with(converting(ReferStyle::Pass, ReferStyle::Reinvite));
    establish(&mut world);
    let sent = world.server(&refer(1, "Refer-To: <sip:300@example.com>\n"));
    find(&sent, PHONES, "REFER");
    let outside = from_phone("REFER", "sip:100@example.com", "o1", 1, "", "Refer-To: <sip:3@b>\n", "")
        .replace("c1", "c9");
    find(&world.phone(&outside), SERVERS, "REFER");
}

#[test]
fn an_attended_transfer_goes_to_the_party_of_the_transferors_other_call() {
    let mut world = World::with(converting(ReferStyle::Reinvite, ReferStyle::Pass));
    establish(&mut world);
    // The server's party has called another phone too.
    let uri = world.register();
    let other = |text: String| text.replace("Call-ID: c1", "Call-ID: c2").replace(";tag=s", ";tag=s2");
    let invite = other(from_server(
        "INVITE",
        &uri,
        "k1",
        1,
        "",
        "Contact: <sip:100@198.51.100.20:5070>\n",
        &sdp("198.51.100.20", 6100, ""),
    ));
    let invite = find(&world.server(&invite), PHONES, "INVITE");
    world.phone(&answer(
        &invite,
        200,
        "OK",
        "q",
        "Contact: <sip:200@192.0.2.12:5060>\n",
        &sdp("192.0.2.12", 4100, ""),
    ));
    world.server(&other(from_server("ACK", "sip:200@198.51.100.1:8060", "k2", 1, ";tag=q", "", "")));
    let sent = world.server(&refer(
        1,
        "Refer-To: <sip:200@198.51.100.1:8060?Replaces=c2%3Bto-tag%3Dq%3Bfrom-tag%3Ds2>\n",
    ));
    let invite = find(&sent, PHONES, "INVITE");
    assert_eq!(value(&invite, "Replaces"), "c2;to-tag=q;from-tag=s2");
    assert!(invite.first_line().starts_with("INVITE sip:200@192.0.2.12:5060"), "{}", invite.text());
    let contact = "Contact: <sip:200@192.0.2.12:5060>\n";
    let sent = world.phone(&answer(&invite, 200, "OK", "q2", contact, &sdp("192.0.2.12", 4200, "")));
    let again = find(&sent, PHONES, "INVITE sip:200@192.0.2.11:5060");
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(fragment(&find(&sent, SERVERS, "NOTIFY")), "SIP/2.0 200 OK");
}
