use proptest::prelude::*;

use super::harness::*;
use crate::{
    config::{Conversions, DelayedOffers, ReferStyle},
    proxy::{DropReason, Limits, Measure, Peers, Settings},
    sip::transaction,
};

#[test]
fn ten_thousand_calls_leave_nothing_behind() {
    let mut world = World::new();
    let invite = from_phone(
        "INVITE",
        "sip:100@example.com",
        "i1",
        1,
        "",
        "Contact: <sip:200@192.0.2.11:5060>\n",
        &sdp("192.0.2.11", 4000, ""),
    );
    let ack = from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", "");
    let bye = from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s", "", "");
    for n in 0..10_000u32 {
        let this = |text: &str| {
            text.replace("Call-ID: c1", &format!("Call-ID: c{n}")).replace(";rport", &format!("x{n};rport"))
        };
        let sent = world.phone(&this(&invite));
        let at_server = sent[1].clone();
        match n % 4 {
            0 => {
                world.server(&answer(&at_server, 486, "Busy", "s", "", ""));
            }
            1 => {} // never answered
            _ => {
                world.server(&answer(
                    &at_server,
                    200,
                    "OK",
                    "s",
                    "Contact: <sip:100@198.51.100.20>\n",
                    &sdp("198.51.100.20", 6000, ""),
                ));
                world.phone(&this(&ack));
                let sent = world.phone(&this(&bye));
                if n % 4 == 2 {
                    world.server(&answer(&sent[0], 200, "OK", "s", "", ""));
                }
            }
        }
        if n % 100 == 0 {
            world.wait(std::time::Duration::from_secs(1));
        }
        world.measures.clear();
    }
    world.wait(MINUTE * 6);
    world.assert_empty();
    assert_eq!(world.proxy.ended_calls().count(), 1_000);
    assert_eq!(world.proxy.poll_timeout(), None);
}

#[test]
fn calls_and_transactions_are_bounded() {
    // A phone may have half of the transactions.
    let transactions = transaction::Limits { count: 8, bytes: 1 << 20 };
    let mut world = World::with_limits(Limits { calls: 2, transactions, ..Limits::default() });
    let invite = |n: u32| {
        from_phone("INVITE", "sip:100@example.com", &format!("i{n}"), 1, "", "", "")
            .replace("Call-ID: c1", &format!("Call-ID: c{n}"))
    };
    for n in 0..2 {
        world.phone(&invite(n));
    }
    assert_eq!(world.phone(&invite(2))[1].first_line(), "SIP/2.0 503 Too Many Calls");
    let full = world.phone(&from_phone("FOO", "sip:100@example.com", "f1", 1, "", "", ""));
    assert_eq!(full.len(), 1);
    let full = world.phone(&from_phone("FOO", "sip:100@example.com", "f2", 1, "", "", ""));
    assert_eq!(full[0].first_line(), "SIP/2.0 503 Too many transactions");
    assert!(full[0].text().contains("\nRetry-After: 5\n"));
    assert_eq!(world.count(Measure::Dropped(DropReason::Overload)), 2);
}

/// What the two sides may send: right, wrong, damaged.
#[derive(Clone, Debug)]
enum Step {
    Phone(usize, u8),
    Server(usize, u8),
    Answer(usize, u16, u8),
    Damage(usize, usize, u8),
    Bytes(Vec<u8>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..10, 0u8..4).prop_map(|(method, n)| Step::Phone(method, n)),
        6 => (0usize..10, 0u8..4).prop_map(|(method, n)| Step::Server(method, n)),
        10 => (0usize..8, prop::sample::select(&[100u16, 180, 183, 200, 302, 401, 404, 481, 486, 503][..]), 0u8..3).prop_map(|(which, status, tag)| Step::Answer(which, status, tag)),
        3 => (0usize..10, 0usize..600, any::<u8>()).prop_map(|(method, at, byte)| Step::Damage(method, at, byte)),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Step::Bytes),
        2 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

const METHODS: [&str; 10] =
    ["INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "SUBSCRIBE", "NOTIFY", "REGISTER", "REFER"];

fn request(
    method: usize,
    n: u8,
    side: fn(&str, &str, &str, u32, &str, &str, &str) -> String,
    peer_tag: &str,
) -> String {
    let to_tag = if n.is_multiple_of(2) { "" } else { peer_tag };
    let body = if n < 2 { sdp("192.0.2.11", 4000, "") } else { String::new() };
    let branch = format!(
        "m{}n{n}",
        if METHODS[method] == "INVITE" || METHODS[method] == "CANCEL" || METHODS[method] == "ACK" {
            0
        } else {
            method
        }
    );
    side(
        METHODS[method],
        "sip:200@198.51.100.1:8060",
        &branch,
        u32::from(n),
        to_tag,
        if METHODS[method] == "REFER" {
            "Contact: <sip:200@192.0.2.11:5060>\nRefer-To: <sip:300@example.com>\n"
        } else {
            "Contact: <sip:200@192.0.2.11:5060>\nAllow: UPDATE\n"
        },
        &body,
    )
}

/// Plays steps, and sees that nothing is left when all calls have ended.
fn play(mut world: World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    world.register();
    let mut requests: Vec<Sent> = Vec::new();
    for step in steps {
        let sent = match step {
            Step::Phone(method, n) => world.phone(&request(method, n, from_phone, ";tag=s")),
            Step::Server(method, n) => world.server(&request(method, n, from_server, ";tag=p")),
            Step::Answer(which, status, tag) => match requests.get(which % requests.len().max(1)).cloned() {
                None => Vec::new(),
                Some(request) => {
                    let (tag, body) = [
                        ("s", sdp("198.51.100.20", 6000, "")),
                        ("p", sdp("192.0.2.11", 4000, "")),
                        ("u", String::new()),
                    ][usize::from(tag)]
                    .clone();
                    let text = answer(&request, status, "x", tag, "Contact: <sip:z@198.51.100.20>\n", &body);
                    if request.network == SERVERS { world.server(&text) } else { world.phone(&text) }
                }
            },
            Step::Damage(method, at, byte) => {
                let mut bytes = request(method, 0, from_phone, "").replace('\n', "\r\n").into_bytes();
                let at = at % bytes.len();
                bytes[at] = byte;
                world.receive(PHONES, PHONE, &bytes)
            }
            Step::Bytes(bytes) => world.receive(SERVERS, SERVER, &bytes),
            Step::Wait(milliseconds) => world.wait(std::time::Duration::from_millis(milliseconds)),
        };
        for sent in sent {
            let message = crate::sip::wire::Message::parse(&sent.payload);
            // Who sent what cannot be read gets it back with the 400.
            if sent.payload.starts_with(b"SIP/2.0 400 ") {
                continue;
            }
            prop_assert!(
                message.is_ok(),
                "sent something unreadable: {}",
                String::from_utf8_lossy(&sent.payload)
            );
            if message.unwrap().is_request() && requests.len() < 32 {
                requests.push(sent);
            }
        }
    }
    // Calls that stand are ended by the media room's word; everything else by its timers.
    world.wait(MINUTE * 10);
    let standing: Vec<_> = world.proxy.calls().map(|call| call.media_key.clone()).collect();
    for call in standing {
        world.proxy.end_call(world.now, &mut world.media, &call, crate::proxy::Outcome::Terminated);
    }
    world.wait(MINUTE * 60 * 25);
    world.assert_empty();
    let proxy = &world.proxy;
    prop_assert!(proxy.faces.is_empty() && proxy.transfers.is_empty());
    prop_assert!(proxy.spoken.is_empty() && proxy.conversing_due.is_empty());
    prop_assert_eq!(world.proxy.poll_timeout(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_panics_or_leaves_state_behind(steps in proptest::collection::vec(step(), 1..60)) {
        play(World::new(), steps)?;
    }

    #[test]
    fn nor_does_one_where_everything_is_converted_for_everybody(steps in proptest::collection::vec(step(), 1..60)) {
        let all = Conversions {
            refer: ReferStyle::Reinvite,
            delayed_offers: DelayedOffers::Offer,
            session_timer_seconds: 90,
            ..Conversions::default()
        };
        let peers = Peers::of_networks([(PHONES, all.clone()), (SERVERS, all)], &[]);
        play(World::with(Settings { peers, ..settings() }), steps)?;
    }

    #[test]
    fn bad_messages_leave_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut world = World::new();
        world.receive(PHONES, PHONE, &bytes);
        world.receive(SERVERS, SERVER, &bytes);
        world.assert_empty();
    }
}
