//! STUN on the SIP port.

use super::harness::*;
use crate::{
    net::Transport,
    proxy::{DropReason, Measure},
};

/// A binding request, and the beginning of what answers it.
const REQUEST: &[u8] = b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction.";
const SUCCESS: &[u8] = b"\x01\x01\x00\x0c\x21\x12\xa4\x42transaction.";

#[test]
fn phones_and_servers_are_told_their_address_and_nobody_else_on_the_servers_side() {
    let mut world = World::new();
    for (network, source) in [(PHONES, PHONE), (PHONES, "203.0.113.7:40000"), (SERVERS, SERVER)] {
        let sent = world.receive(network, source, REQUEST);
        assert_eq!((sent.len(), sent[0].to.as_str()), (1, source));
        assert_eq!(&sent[0].payload[..SUCCESS.len()], SUCCESS);
    }
    assert_eq!(world.receive(SERVERS, "203.0.113.7:40000", REQUEST), []);
    assert_eq!(world.receive(PHONES, PHONE, &REQUEST.repeat(2)), [], "not well-formed");
    assert_eq!(world.count(Measure::StunAnswered), 3);
    assert_eq!(world.count(Measure::Dropped(DropReason::Stun)), 2);
}

#[test]
fn stun_is_for_datagrams_alone() {
    let mut world = World::new();
    let phone = super::transports::hop(PHONES, Transport::Tcp, PHONE);
    world.proxy.receive(world.now, &mut world.media, phone, &REQUEST.into());
    assert_eq!(world.drain(), []);
    assert_eq!(world.count(Measure::Dropped(DropReason::Stun)), 1);
}
