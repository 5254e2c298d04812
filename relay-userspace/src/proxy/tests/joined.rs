//! Calls after a transfer: one party knows them by another dialog than the other.

use std::time::Duration;

use super::{harness::*, transfers::*};
use crate::{
    config::{Conversions, ReferStyle},
    proxy::{CallRecord, Conversion, Measure, Peers, Proxy, Settings},
    store::Epoch,
};

#[test]
fn after_a_transfer_each_party_goes_on_in_its_own_dialog() {
    let mut world = world();
    let invite = transferred(&mut world);
    let new = value(&invite, "Call-ID");
    // The phone asks, and is answered in the dialog that it knows.
    let info = from_phone("INFO", "sip:100@192.0.2.1:8060;x=1", "n1", 2, ";tag=s", "", "");
    let sent = find(&world.phone(&info), SERVERS, "INFO sip:300@198.51.100.30:5080");
    assert_eq!((value(&sent, "Call-ID"), value(&sent, "CSeq")), (new.clone(), "2 INFO".into()));
    assert_eq!(value(&sent, "To"), format!("{};tag=t", value(&invite, "To")));
    assert_eq!(value(&sent, "From"), value(&invite, "From"));
    let ok = find(&world.server(&answer(&sent, 200, "OK", "t", "", "")), PHONES, "SIP/2.0 200");
    assert_eq!((value(&ok, "Call-ID"), value(&ok, "CSeq")), ("c1".into(), "2 INFO".into()));
    assert_eq!(
        (value(&ok, "From"), value(&ok, "To")),
        ("\"Zoë\" <sip:200@example.com>;tag=p".into(), "<sip:100@example.com>;tag=s".into())
    );
    // The target offers something else, and the phone answers; the ACK finds its way.
    let contact = "Contact: <sip:300@198.51.100.30:5080>\n";
    let held = from_target(&invite, "INVITE", 1, contact, &sdp("198.51.100.30", 7000, "a=sendonly\n"));
    let sent = find(&world.server(&held), PHONES, "INVITE sip:200@192.0.2.11:5060");
    // 1 was the transfer's own.
    assert_eq!(
        (value(&sent, "Call-ID"), value(&sent, "From")),
        ("c1".into(), "<sip:100@example.com>;tag=s".into())
    );
    let number: u32 = value(&sent, "CSeq").split(' ').next().unwrap().parse().unwrap();
    assert!(number > 1, "{number}");
    let ok = answer(
        &sent,
        200,
        "OK",
        "p",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, "a=recvonly\n"),
    );
    let ok = find(&world.phone(&ok), SERVERS, "SIP/2.0 200");
    assert_eq!((value(&ok, "Call-ID"), value(&ok, "CSeq")), (new.clone(), "1 INVITE".into()));
    assert_eq!(value(&ok, "From"), format!("{};tag=t", value(&invite, "To")));
    let ack = find(&world.server(&from_target(&invite, "ACK", 1, "", "")), PHONES, "ACK");
    assert_eq!(value(&ack, "CSeq"), format!("{number} ACK"));
    // The target hangs up.
    let bye = find(&world.server(&from_target(&invite, "BYE", 2, "", "")), PHONES, "BYE");
    assert_eq!((value(&bye, "Call-ID"), value(&bye, "CSeq")), ("c1".into(), format!("{} BYE", number + 1)));
    let ok = find(&world.phone(&answer(&bye, 200, "OK", "p", "", "")), SERVERS, "SIP/2.0 200");
    assert_eq!(value(&ok, "Call-ID"), new);
    assert_eq!(world.proxy.active_calls(), 0);
    world.wait(MINUTE * 2);
    world.assert_empty();
    assert!(
        world.proxy.faces.is_empty() && world.proxy.transfers.is_empty() && world.proxy.spoken.is_empty()
    );
}

#[test]
fn joined_dialogs_outlive_the_process() {
    let mut world = world();
    let invite = transferred(&mut world);
    let epoch = Epoch { now: world.now, unix_ms: 1_000_000_000 };
    let text = serde_json::to_string(&world.proxy.records(&epoch)).unwrap();
    let records: Vec<CallRecord> = serde_json::from_str(&text).unwrap();
    assert_eq!(records.len(), 1);
    world.proxy = Proxy::new(converting(ReferStyle::Reinvite, ReferStyle::Pass), world.now);
    world.proxy.take_up(&records[0], &super::standing::same_networks(), &epoch).unwrap();
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", "");
    let bye = find(&world.phone(&bye), SERVERS, "BYE sip:300@198.51.100.30:5080");
    assert_eq!(value(&bye, "Call-ID"), value(&invite, "Call-ID"));
    let ok = find(&world.server(&answer(&bye, 200, "OK", "t", "", "")), PHONES, "SIP/2.0 200");
    assert_eq!((value(&ok, "Call-ID"), value(&ok, "CSeq")), ("c1".into(), "2 BYE".into()));
}

#[test]
fn a_call_that_was_transferred_is_transferred_again_by_either_party() {
    let mut world = world();
    let first = transferred(&mut world);
    // The target transfers the phone to 400.
    let contact = "Contact: <sip:300@198.51.100.30:5080>\nRefer-To: <sip:400@example.com>\n";
    let sent = world.server(&from_target(&first, "REFER", 1, contact, ""));
    assert_eq!(value(&find(&sent, SERVERS, "SIP/2.0 202"), "Call-ID"), value(&first, "Call-ID"));
    let second = find(&sent, SERVERS, "INVITE sip:400@example.com");
    let contact = "Contact: <sip:400@198.51.100.40:5090>\n";
    let sent = world.server(&answer(&second, 200, "OK", "u", contact, &sdp("198.51.100.40", 8000, "")));
    let again = find(&sent, PHONES, "INVITE sip:200@192.0.2.11:5060");
    // The phone still knows its first dialog, and the numbers rise.
    assert_eq!((value(&again, "Call-ID"), value(&again, "CSeq")), ("c1".into(), "2 INVITE".into()));
    assert_eq!(value(&again, "From"), "<sip:100@example.com>;tag=s");
    let sent = world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, "")));
    assert_eq!(value(&find(&sent, PHONES, "ACK"), "Call-ID"), "c1");
    let done = find(&sent, SERVERS, "NOTIFY sip:300@198.51.100.30:5080");
    assert_eq!(
        (value(&done, "Call-ID"), fragment(&done)),
        (value(&first, "Call-ID"), "SIP/2.0 200 OK".into())
    );
    find(&world.server(&from_target(&first, "BYE", 2, "", "")), SERVERS, "SIP/2.0 200");
    assert_eq!(world.count(Measure::Converted(Conversion::Refer)), 2);
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", "");
    let bye = find(&world.phone(&bye), SERVERS, "BYE sip:400@198.51.100.40:5090");
    assert_eq!(value(&bye, "Call-ID"), value(&second, "Call-ID"));
    let ok = find(&world.server(&answer(&bye, 200, "OK", "u", "", "")), PHONES, "SIP/2.0 200");
    assert_eq!(value(&ok, "Call-ID"), "c1");
    world.wait(MINUTE * 2);
    world.assert_empty();
    assert!(world.proxy.faces.is_empty() && world.proxy.transfers.is_empty());
}

#[test]
fn a_phone_that_was_transferred_transfers_the_target_from_the_dialog_that_it_knows() {
    let mut world = World::with(converting(ReferStyle::Reinvite, ReferStyle::Reinvite));
    establish(&mut world);
    let first = transferred(&mut world);
    let headers = "Contact: <sip:200@192.0.2.11:5060>\nRefer-To: <sip:400@example.com>\n";
    let sent =
        world.phone(&from_phone("REFER", "sip:100@192.0.2.1:8060;x=1", "r1", 2, ";tag=s", headers, ""));
    assert_eq!(value(&find(&sent, PHONES, "SIP/2.0 202"), "Call-ID"), "c1");
    let told = find(&sent, PHONES, "NOTIFY sip:200@192.0.2.11:5060");
    assert_eq!(
        (value(&told, "Call-ID"), value(&told, "From")),
        ("c1".into(), "<sip:100@example.com>;tag=s".into())
    );
    // In the name of 300, who is transferred.
    let second = find(&sent, SERVERS, "INVITE sip:400@example.com");
    assert!(value(&second, "From").starts_with("<sip:300@example.com>;tag="), "{}", second.text());
    let contact = "Contact: <sip:400@198.51.100.40:5090>\n";
    let sent = world.server(&answer(&second, 200, "OK", "u", contact, &sdp("198.51.100.40", 8000, "")));
    let again = find(&sent, SERVERS, "INVITE sip:300@198.51.100.30:5080");
    assert_eq!(value(&again, "Call-ID"), value(&first, "Call-ID"));
    let sent = world.server(&answer(&again, 200, "OK", "t", "", &sdp("198.51.100.30", 7000, "")));
    let done = find(&sent, PHONES, "NOTIFY");
    assert_eq!((value(&done, "Call-ID"), fragment(&done)), ("c1".into(), "SIP/2.0 200 OK".into()));
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 3, ";tag=s", "", "");
    let sent = world.phone(&bye);
    assert_eq!(value(&find(&sent, PHONES, "SIP/2.0 200"), "Call-ID"), "c1");
    none(&sent, SERVERS, "BYE");
    // 300 and 400 talk by the servers' network alone.
    let bye = from_target(&first, "BYE", 1, "", "");
    let bye = find(&world.server(&bye), SERVERS, "BYE sip:400@198.51.100.40:5090");
    assert_eq!(value(&bye, "Call-ID"), value(&second, "Call-ID"));
    find(&world.server(&answer(&bye, 200, "OK", "u", "", "")), SERVERS, "SIP/2.0 200");
    assert_eq!(world.proxy.active_calls(), 0);
}

#[test]
fn keys_that_pass_from_end_to_end_are_told_when_they_are_others() {
    let mut world = world();
    let invite = begin(&mut world);
    let sent = pick_up(&mut world, &invite);
    let again = find(&sent, PHONES, "INVITE");
    let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:bGFib3JhdG9yeSBrZXkgZm9yIG5vYm9keSBhdCBh\n";
    world.phone(&answer(&again, 200, "OK", "p", "", &sdp("192.0.2.11", 4000, key)));
    let told = find(&world.wait(Duration::ZERO), SERVERS, "INVITE sip:300@198.51.100.30:5080");
    assert!(told.text().contains(key.trim()), "{}", told.text());
    let sent = world.server(&answer(&told, 200, "OK", "t", "", &sdp("198.51.100.30", 7000, "")));
    find(&sent, SERVERS, "ACK sip:300@198.51.100.30:5080");
    none(&world.wait(Duration::from_secs(4)), PHONES, "");
}

#[test]
fn a_joined_call_keeps_a_timer_with_each_side_in_the_dialog_that_the_side_knows() {
    let of = |refer, seconds| Conversions { refer, session_timer_seconds: seconds, ..Conversions::default() };
    let phones = of(ReferStyle::Reinvite, 1800);
    let peers = Peers::of_networks([(PHONES, phones), (SERVERS, of(ReferStyle::Pass, 0))], &[]);
    let mut world = World::with(Settings { peers, ..settings() });
    establish(&mut world);
    transferred(&mut world);
    let sent = world.wait(Duration::from_secs(900));
    let refresh = find(&sent, PHONES, "INVITE sip:200@192.0.2.11:5060");
    assert_eq!(
        (value(&refresh, "Call-ID"), value(&refresh, "From")),
        ("c1".into(), "<sip:100@example.com>;tag=s".into())
    );
    let sent = world.phone(&answer(&refresh, 481, "Gone", "p", "", ""));
    let bye = find(&sent, SERVERS, "BYE sip:300@198.51.100.30:5080");
    assert_ne!(value(&bye, "Call-ID"), "c1");
    assert_eq!(value(&find(&sent, PHONES, "BYE"), "Call-ID"), "c1");
    assert_eq!(world.proxy.active_calls(), 0);
}
