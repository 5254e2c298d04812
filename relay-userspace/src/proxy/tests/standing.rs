//! Calls that are kept by one process and taken up by the next.

use super::harness::*;
use crate::{
    net::{FormerNetworks, NetworkId},
    proxy::{CallRecord, CallState, NotTakenUp, Outcome},
    store::Epoch,
};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn same_networks() -> FormerNetworks {
    FormerNetworks::new(&names(&["office", "centre"]), &names(&["office", "centre"]))
}

/// A phone calls, and the server answers from another address than the one that was asked.
fn established() -> World {
    let mut world = World::new();
    let contact = "Contact: <sip:200@192.0.2.11:5060;line=7>\n";
    let invite =
        from_phone("INVITE", "sip:100@192.0.2.1:8060", "i1", 1, "", contact, &sdp("192.0.2.11", 4000, ""));
    let at_server = world.phone(&invite)[1].clone();
    assert_eq!(kept(&mut world), [], "a call that only rings is not kept");
    let contact = "Contact: <sip:100@198.51.100.20:5070;x=1>\n";
    world.server(&answer(&at_server, 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, "")));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060;x=1", "a1", 1, ";tag=s", "", ""));
    world
}

/// What the store would be given: the records, as they come back from it.
fn kept(world: &mut World) -> Vec<(String, Option<CallRecord>)> {
    let epoch = Epoch { now: world.now, unix_ms: 1_700_000_000_000 };
    let records = world.proxy.take_touched(&epoch, usize::MAX);
    serde_json::from_str(&serde_json::to_string(&records).unwrap()).unwrap()
}

fn next(record: &CallRecord, networks: &FormerNetworks) -> (World, Result<(), NotTakenUp>) {
    let mut world = World::new();
    let epoch = Epoch { now: world.now, unix_ms: 1_700_000_009_000 };
    let taken = world.proxy.take_up(record, networks, &epoch);
    if taken.is_ok() {
        world.media.live.insert(record.media_key().as_bytes().to_vec());
    }
    (world, taken)
}

#[test]
fn a_call_ends_by_bye_of_either_side_in_the_next_process() {
    let mut before = established();
    let records = kept(&mut before);
    let [(name, Some(record))] = &records[..] else { panic!("{records:?}") };
    assert_eq!(name, "c1");
    assert_eq!(kept(&mut before), [], "nothing has changed since");

    let (mut world, taken) = next(record, &same_networks());
    assert_eq!(taken, Ok(()));
    let call = world.proxy.calls().next().unwrap();
    assert_eq!((call.state, call.from.as_str(), call.to.as_str()), (CallState::Established, "Zoë", "100"));
    let since = world.now - call.answered.unwrap();
    assert_eq!(since.as_secs(), 9, "it goes on since it was answered");
    let sent = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060;x=1", "b1", 2, ";tag=s", "", ""));
    assert_eq!(
        (sent[0].first_line().as_str(), sent[0].to.as_str()),
        ("BYE sip:100@198.51.100.20:5070;x=1 SIP/2.0", "198.51.100.20:5070")
    );
    let sent = world.server(&answer(&sent[0], 200, "OK", "s", "", ""));
    assert_eq!((sent[0].first_line().as_str(), sent[0].to.as_str()), ("SIP/2.0 200 OK", PHONE));
    assert_eq!(world.media.log, ["delete"]);
    assert_eq!(world.proxy.ended_calls().next().unwrap().outcome, Some(Outcome::Answered));
    assert_eq!(kept(&mut world), [("c1".to_owned(), None)], "and its record goes");

    let (mut world, _) = next(record, &same_networks());
    let bye = from_server("BYE", "sip:200@198.51.100.1:8060;line=7", "b1", 1, ";tag=p", "", "");
    let sent = world.server(&bye);
    assert_eq!(
        (sent[0].first_line().as_str(), sent[0].to.as_str()),
        ("BYE sip:200@192.0.2.11:5060;line=7 SIP/2.0", PHONE)
    );
    world.phone(&answer(&sent[0], 200, "OK", "p", "", ""));
    assert_eq!(world.proxy.active_calls(), 0);
    world.wait(MINUTE * 4);
    world.assert_empty();
}

#[test]
fn a_call_is_held_and_resumed_in_the_next_process_and_kept_again() {
    let records = kept(&mut established());
    let (mut world, _) = next(records[0].1.as_ref().unwrap(), &same_networks());
    let hold = sdp("192.0.2.11", 4000, "a=sendonly\n");
    let sent = world.phone(&from_phone("INVITE", "sip:100@192.0.2.1:8060;x=1", "i2", 2, ";tag=s", "", &hold));
    assert_eq!(sent[1].to, "198.51.100.20:5070");
    let held = sdp("198.51.100.20", 6000, "a=recvonly\n");
    world.server(&answer(&sent[1], 200, "OK", "s", "", &held));
    assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Held);
    let again = kept(&mut world);
    let (world, _) = next(again[0].1.as_ref().unwrap(), &same_networks());
    assert_eq!(world.proxy.calls().next().unwrap().state, CallState::Held);
}

#[test]
fn a_call_of_a_network_that_is_gone_is_left_and_one_of_a_network_that_moved_is_not() {
    let records = kept(&mut established());
    let record = records[0].1.as_ref().unwrap();
    let gone = FormerNetworks::new(&names(&["office", "centre"]), &names(&["office", "other"]));
    let (world, taken) = next(record, &gone);
    assert_eq!((taken, world.proxy.active_calls()), (Err(NotTakenUp::Network), 0));
    world.assert_empty();
    let moved = FormerNetworks::new(&names(&["x", "y"]), &names(&["y", "x"]));
    let (world, taken) = next(record, &moved);
    assert_eq!(taken, Ok(()));
    assert_eq!(world.proxy.calls().next().unwrap().from_network, NetworkId(1));
}

#[test]
fn a_subscription_goes_on_until_it_would_have_ended() {
    let mut world = World::new();
    let subscribe =
        from_phone("SUBSCRIBE", "sip:100@192.0.2.1:8060", "s1", 1, "", "Event: dialog\nExpires: 600\n", "");
    let at_server = world.phone(&subscribe).pop().unwrap();
    world.server(&answer(&at_server, 200, "OK", "s", "Contact: <sip:100@198.51.100.9>\nExpires: 600\n", ""));
    let records = kept(&mut world);
    let record = records[0].1.as_ref().unwrap();
    let (mut world, taken) = next(record, &same_networks());
    assert_eq!(taken, Ok(()));
    let notify = "Event: dialog\nSubscription-State: active;expires=500\n";
    let sent =
        world.server(&from_server("NOTIFY", "sip:200@198.51.100.1:8060", "n1", 1, ";tag=p", notify, ""));
    assert_eq!(sent[0].to, PHONE, "{sent:?}");

    let mut world = World::new();
    let late = Epoch { now: world.now, unix_ms: 1_700_001_000_000 };
    assert_eq!(world.proxy.take_up(record, &same_networks(), &late), Err(NotTakenUp::Ended));
    world.assert_empty();
}
