use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::net::NetworkId;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn hop() -> Hop {
    Hop::udp(NetworkId(0), "192.0.2.11:5060".parse().unwrap())
}

fn limits(count: usize) -> Limits {
    Limits { count, bytes: usize::MAX }
}

fn request(method: &str, branch: &str) -> Message {
    request_to(method, branch, "")
}

fn request_to(method: &str, branch: &str, to_tag: &str) -> Message {
    let text = format!(
        "{method} sip:100@198.51.100.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.11{branch}\r\nFrom: <sip:a@b>;tag=f\r\n\
         To: <sip:b@c>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
    );
    Message::parse(&Bytes::from(text)).unwrap()
}

fn machine() -> (Transactions, Instant) {
    (Transactions::new(Timers::default(), limits(100), [1, 2]), Instant::now())
}

/// The statuses or methods of what is sent from `from` for `length`, with the time of each in milliseconds.
fn play(machine: &mut Transactions, from: Instant, length: Duration) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    let mut now = from;
    loop {
        while let Some(sent) = machine.poll_transmit() {
            let what = sent.status.map_or_else(|| sent.method.to_owned(), |status| status.to_string());
            seen.push((u64::try_from((now - from).as_millis()).unwrap(), what));
        }
        match machine.poll_timeout() {
            Some(at) if at <= from + length => {
                now = at;
                machine.handle_timeout(now);
            }
            _ => return seen,
        }
    }
}

fn send(machine: &mut Transactions, now: Instant, method: &str) -> (ClientId, Message) {
    let (id, branch) = machine.reserve(7);
    let message = request(method, &format!(";branch={branch}"));
    machine.send_request(now, id, branch, hop(), message.method(), message.raw().clone());
    (id, message)
}

fn response(request: &Message, status: u16) -> Message {
    Message::parse(&wire::respond(request, hop().address, &Reply::new(status, b"t"))).unwrap()
}

fn times(seen: &[(u64, String)], what: &str) -> Vec<u64> {
    seen.iter().filter(|(_, sent)| sent == what).map(|(at, _)| *at).collect()
}

#[test]
fn an_unanswered_invite_is_repeated_with_doubling_delays_and_times_out() {
    let (mut machine, now) = machine();
    let (id, _) = send(&mut machine, now, "INVITE");
    let seen = play(&mut machine, now, MS(40_000));
    assert_eq!(times(&seen, "INVITE"), [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(machine.poll_event(), Some(Event::Timeout(id)));
    assert_eq!(machine.poll_event(), Some(Event::ClientGone(id)));
    assert!(machine.is_empty());
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn an_unanswered_request_is_repeated_up_to_t2() {
    let (mut machine, now) = machine();
    let (id, _) = send(&mut machine, now, "OPTIONS");
    let seen = play(&mut machine, now, MS(40_000));
    let expected: Vec<u64> = [0, 500].into_iter().chain((0..31).map(|n| 1500 + n * 1000)).collect();
    assert_eq!(times(&seen, "OPTIONS"), expected);
    assert_eq!(machine.poll_event(), Some(Event::Timeout(id)));
}

#[test]
fn a_failure_is_acknowledged_and_its_retransmissions_absorbed() {
    let (mut machine, now) = machine();
    let (id, invite) = send(&mut machine, now, "INVITE");
    let busy = response(&invite, 486);
    assert_eq!(machine.receive_response(now, &busy), Response::Pass(id));
    assert_eq!(machine.receive_response(now, &busy), Response::Absorbed);
    let seen = play(&mut machine, now, MS(31_999));
    assert_eq!(seen.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>(), ["INVITE", "ACK", "ACK"]);
    assert_eq!(machine.len(), 1);
    play(&mut machine, now, MS(32_000));
    assert!(machine.is_empty());
    assert_eq!(machine.receive_response(now, &busy), Response::Stray);
}

#[test]
fn every_success_passes_while_the_invite_is_accepted() {
    let (mut machine, now) = machine();
    let (id, invite) = send(&mut machine, now, "INVITE");
    assert_eq!(machine.receive_response(now, &response(&invite, 180)), Response::Pass(id));
    for _ in 0..2 {
        assert_eq!(machine.receive_response(now, &response(&invite, 200)), Response::Pass(id));
    }
    assert_eq!(machine.receive_response(now, &response(&invite, 486)), Response::Absorbed);
    assert_eq!(play(&mut machine, now, MS(40_000)), [(0, "INVITE".to_owned())]);
    assert_eq!(machine.poll_event(), Some(Event::ClientGone(id)));
}

#[test]
fn a_cancel_waits_for_a_provisional_response_and_bounds_the_wait_for_the_final_one() {
    let (mut machine, now) = machine();
    let (id, invite) = send(&mut machine, now, "INVITE");
    machine.cancel(now, id, b"Reason: SIP;cause=200\r\n");
    assert_eq!(play(&mut machine, now, MS(0)), [(0, "INVITE".to_owned())]);
    machine.receive_response(now, &response(&invite, 180));
    let cancel = machine.poll_transmit().unwrap();
    assert!(cancel.payload.starts_with(b"CANCEL sip:100@198.51.100.9 SIP/2.0\r\n"));
    assert!(cancel.payload.windows(23).any(|window| window == b"Reason: SIP;cause=200\r\n"));
    let cancel = Message::parse(&cancel.payload).unwrap();
    assert_eq!(machine.receive_response(now, &response(&cancel, 200)), Response::Absorbed);
    machine.cancel(now, id, b"");
    assert_eq!(play(&mut machine, now, MS(32_000)), []);
    assert_eq!(machine.poll_event(), Some(Event::Timeout(id)));
}

#[test]
fn responses_of_others_are_strays() {
    let (mut machine, now) = machine();
    let (_, invite) = send(&mut machine, now, "INVITE");
    let guessed = response(&request("INVITE", ";branch=z9hG4bKbl1.0000000000000000.0000000000000007"), 200);
    assert_eq!(machine.receive_response(now, &guessed), Response::Stray);
    let text = String::from_utf8(response(&invite, 200).raw().to_vec()).unwrap().replace("1 INVITE", "1 BYE");
    let other = Message::parse(&Bytes::from(text)).unwrap();
    assert_eq!(machine.receive_response(now, &other), Response::Stray);
}

#[test]
fn a_loop_mark_is_read_back_only_from_a_branch_of_ours() {
    let (mut machine, _) = machine();
    let (_, branch) = machine.reserve(42);
    assert_eq!(machine.loop_mark(branch.as_bytes()), Some(42));
    let other = Transactions::new(Timers::default(), limits(1), [3, 4]);
    assert_eq!(other.loop_mark(branch.as_bytes()), None);
    assert_eq!(machine.loop_mark(b"z9hG4bKother"), None);
}

#[test]
fn an_invite_is_answered_100_and_its_failure_repeated_until_the_ack() {
    let (mut machine, now) = machine();
    let invite = request("INVITE", ";branch=z9hG4bK1");
    let Incoming::New(id) = machine.receive_request(now, hop(), &invite, Share::Whole) else { panic!() };
    assert!(matches!(machine.receive_request(now, hop(), &invite, Share::Whole), Incoming::Absorbed));
    machine.reply(now, id, &Reply::new(486, b"t"));
    machine.reply(now, id, &Reply::new(503, b"t"));
    let seen = play(&mut machine, now, MS(4_000));
    assert_eq!(times(&seen, "100"), [0, 0]);
    assert_eq!(times(&seen, "486"), [0, 500, 1500, 2500, 3500]);
    let ack = request_to("ACK", ";branch=z9hG4bK1", ";tag=t");
    let later = now + MS(4_000);
    assert!(matches!(machine.receive_request(later, hop(), &ack, Share::Whole), Incoming::AckOfFailure));
    assert!(matches!(machine.receive_request(later, hop(), &invite, Share::Whole), Incoming::Absorbed));
    assert_eq!(play(&mut machine, later, MS(5_000)), []);
    assert_eq!(machine.poll_event(), Some(Event::ServerGone(id)));
    assert!(machine.is_empty());
}

#[test]
fn an_ack_that_never_comes_ends_with_timer_h() {
    let (mut machine, now) = machine();
    let Incoming::New(id) =
        machine.receive_request(now, hop(), &request("INVITE", ";branch=z9hG4bK1"), Share::Whole)
    else {
        panic!()
    };
    machine.reply(now, id, &Reply::new(486, b"t"));
    play(&mut machine, now, MS(32_000));
    assert!(machine.is_empty());
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn after_a_success_the_invite_is_absorbed_and_the_ack_goes_on() {
    let (mut machine, now) = machine();
    let invite = request("INVITE", ";branch=z9hG4bK1");
    let Incoming::New(id) = machine.receive_request(now, hop(), &invite, Share::Whole) else { panic!() };
    for _ in 0..2 {
        machine.respond(now, id, 200, Bytes::from_static(b"200"));
    }
    assert!(matches!(machine.receive_request(now, hop(), &invite, Share::Whole), Incoming::Absorbed));
    let same_branch = request_to("ACK", ";branch=z9hG4bK1", ";tag=t");
    let own_branch = request_to("ACK", ";branch=z9hG4bK2", ";tag=t");
    for ack in [same_branch, own_branch] {
        assert!(matches!(machine.receive_request(now, hop(), &ack, Share::Whole), Incoming::AckOfSuccess));
    }
    let seen = play(&mut machine, now, MS(32_000));
    assert_eq!(times(&seen, "200"), [0, 0]);
    assert!(machine.is_empty());
}

#[test]
fn a_request_that_came_before_is_answered_as_before() {
    let (mut machine, now) = machine();
    let bye = request("BYE", ";branch=z9hG4bK1");
    let Incoming::New(id) = machine.receive_request(now, hop(), &bye, Share::Whole) else { panic!() };
    assert!(matches!(machine.receive_request(now, hop(), &bye, Share::Whole), Incoming::Absorbed));
    assert_eq!(play(&mut machine, now, MS(0)), []);
    machine.reply(now, id, &Reply::new(200, b"t"));
    assert!(matches!(machine.receive_request(now, hop(), &bye, Share::Whole), Incoming::Absorbed));
    assert_eq!(times(&play(&mut machine, now, MS(31_999)), "200"), [0, 0]);
    assert_eq!(machine.len(), 1);
}

#[test]
fn server_transactions_are_told_apart_by_branch_sender_and_method_and_matched_without_a_cookie() {
    let table = [
        ("same", ";branch=z9hG4bK1", "INVITE", ";branch=z9hG4bK1", "INVITE", true),
        ("other branch", ";branch=z9hG4bK1", "INVITE", ";branch=z9hG4bK2", "INVITE", false),
        ("other port", ":5070;branch=z9hG4bK1", "INVITE", ":5071;branch=z9hG4bK1", "INVITE", false),
        ("other method", ";branch=z9hG4bK1", "INFO", ";branch=z9hG4bK1", "BYE", false),
        ("RFC 2543, no branch", "", "INVITE", "", "INVITE", true),
        ("RFC 2543, other Via", ";branch=1", "INVITE", ";branch=2", "INVITE", false),
    ];
    for (description, first, first_method, second, second_method, same) in table {
        let (mut machine, now) = machine();
        machine.receive_request(now, hop(), &request(first_method, first), Share::Whole);
        let incoming = machine.receive_request(now, hop(), &request(second_method, second), Share::Whole);
        assert_eq!(matches!(incoming, Incoming::Absorbed), same, "{description}");
    }
    let (mut machine, now) = machine();
    let Incoming::New(invite) = machine.receive_request(now, hop(), &request("INVITE", ""), Share::Whole)
    else {
        panic!()
    };
    let cancel = machine.receive_request(now, hop(), &request("CANCEL", ""), Share::Whole);
    assert!(matches!(cancel, Incoming::Cancel(_, Some(found)) if found == invite));
    machine.reply(now, invite, &Reply::new(487, b"t"));
    let ack = machine.receive_request(now, hop(), &request_to("ACK", "", ";tag=t"), Share::Whole);
    assert!(matches!(ack, Incoming::AckOfFailure));
}

#[test]
fn the_number_of_transactions_is_bounded() {
    let mut machine = Transactions::new(Timers::default(), limits(2), [1, 2]);
    let now = Instant::now();
    for n in 0..2 {
        let request = request("OPTIONS", &format!(";branch=z9hG4bK{n}"));
        assert!(matches!(machine.receive_request(now, hop(), &request, Share::Whole), Incoming::New(_)));
    }
    let request = request("OPTIONS", ";branch=z9hG4bK9");
    assert!(matches!(machine.receive_request(now, hop(), &request, Share::Whole), Incoming::Full));
    assert_eq!(machine.len(), 2);
}

/// A request of 40,000 bytes.
fn large(n: u32) -> Message {
    let body = "x".repeat(40_000);
    let small = request("MESSAGE", &format!(";branch=z9hG4bK{n}"));
    Message::parse(&[small.raw(), body.as_bytes()].concat().into()).unwrap()
}

#[test]
fn the_bytes_that_transactions_keep_are_bounded_and_given_back() {
    let bounded = Limits { count: 100, bytes: 200_000 };
    let mut machine = Transactions::new(Timers::default(), bounded, [1, 2]);
    let now = Instant::now();
    let mut servers = Vec::new();
    for n in 0.. {
        match machine.receive_request(now, hop(), &large(n), Share::Whole) {
            Incoming::New(id) => servers.push(id),
            Incoming::Full => break,
            other => panic!("{other:?}"),
        }
        let (client, branch) = machine.reserve(7);
        machine.send_request(now, client, branch, hop(), &Method::Options, large(n).raw().clone());
    }
    assert_eq!(servers.len(), 3, "80,000 bytes each");
    let held = machine.held_bytes();
    assert!((240_000..250_000).contains(&held), "{held}");
    // What was answered no longer keeps the request, and there is room again.
    machine.reply(now, servers[0], &Reply::new(200, b"t"));
    machine.reply(now, servers[1], &Reply::new(200, b"t"));
    assert!(machine.held_bytes() < held - 79_000);
    assert!(matches!(machine.receive_request(now, hop(), &large(9), Share::Whole), Incoming::New(_)));
    for id in servers {
        machine.reply(now, id, &Reply::new(200, b"t"));
    }
    let last = ServerId(machine.next_id - 1);
    machine.reply(now, last, &Reply::new(200, b"t"));
    machine.handle_timeout(now + Timers::default().timeout() + MS(1000));
    assert_eq!((machine.len(), machine.held_bytes(), machine.by_source.len()), (0, 0, 0));
}

#[test]
fn one_phone_leaves_room_for_the_others_and_a_server_need_not() {
    let mut machine = Transactions::new(Timers::default(), limits(10), [1, 2]);
    let (now, other) = (Instant::now(), Hop::udp(NetworkId(0), "192.0.2.12:5060".parse().unwrap()));
    let request = |n: u32| request("OPTIONS", &format!(";branch=z9hG4bK{n}"));
    let mut take = |n, hop, share| match machine.receive_request(now, hop, &request(n), share) {
        Incoming::New(_) => true,
        Incoming::Full => false,
        other => panic!("{other:?}"),
    };
    assert_eq!((0..10).filter(|n| take(*n, hop(), Share::Half)).count(), 5);
    assert!(take(20, other, Share::Half), "another phone has its own half");
    assert_eq!((30..40).filter(|n| take(*n, hop(), Share::Whole)).count(), 4, "all that is left");
}

proptest! {
    /// Whatever the order of inputs, no transaction that was answered outlives its timers.
    #[test]
    fn transactions_end(steps in proptest::collection::vec((0u8..8, 0u8..3, 0u64..3000), 1..60)) {
        let (mut machine, mut now) = machine();
        let mut sent: Vec<(ClientId, Message)> = Vec::new();
        let mut servers: Vec<ServerId> = Vec::new();
        for (what, which, wait) in steps {
            now += MS(wait);
            machine.handle_timeout(now);
            let method = ["INVITE", "BYE", "FOO"][usize::from(which)];
            match what {
                0 => sent.push(send(&mut machine, now, method)),
                1 => for (_, request) in &sent { machine.receive_response(now, &response(request, 180)); },
                2 => for (_, request) in &sent { machine.receive_response(now, &response(request, 200)); },
                3 => for (_, request) in &sent { machine.receive_response(now, &response(request, 500)); },
                4 => for (id, _) in &sent { machine.cancel(now, *id, b"Reason: x\r\n"); },
                5 => if let Incoming::New(id) = machine.receive_request(now, hop(), &request(method, &format!(";branch=z9hG4bK{wait}")), Share::Whole) { servers.push(id); },
                6 => for id in &servers { machine.reply(now, *id, &Reply::new(200, b"t")); },
                _ => for id in &servers { machine.reply(now, *id, &Reply::new(486, b"t")); },
            }
        }
        for (id, _) in &sent { machine.cancel(now, *id, b"Reason: x\r\n"); }
        for (_, request) in &sent { machine.receive_response(now, &response(request, 487)); }
        for id in &servers { machine.reply(now, *id, &Reply::new(486, b"t")); }
        play(&mut machine, now, MS(120_000));
        prop_assert!(machine.is_empty());
        prop_assert_eq!(machine.poll_timeout(), None);
        prop_assert!(machine.server_keys.is_empty());
        prop_assert_eq!((machine.held_bytes(), machine.by_source.len()), (0, 0));
    }
}

#[test]
fn a_request_whose_connection_does_not_come_about_goes_by_the_other_transport_as_if_for_the_first_time() {
    let (mut machine, now) = machine();
    let (id, branch) = machine.reserve(7);
    let by_tcp = request("INVITE", &format!(";branch={branch};by=tcp"));
    let by_udp = request("INVITE", &format!(";branch={branch}"));
    let tcp = Hop { transport: Transport::Tcp, ..hop() };
    let fallback = Fallback { hop: hop(), payload: by_udp.raw().clone() };
    let payload = by_tcp.raw().clone();
    machine.send_request_or(now, id, branch, tcp, &Method::Invite, payload, Some(fallback));
    assert_eq!(machine.held_bytes(), by_tcp.raw().len() + by_udp.raw().len());
    let sent = machine.poll_transmit().unwrap();
    assert_eq!((sent.hop, &sent.payload), (tcp, by_tcp.raw()));
    machine.unreachable(now, tcp);
    assert_eq!(machine.poll_event(), Some(Event::FellBack(id, tcp)));
    assert_eq!(machine.poll_event(), None, "the room above has nothing to do");
    assert_eq!(machine.held_bytes(), by_udp.raw().len());
    let seen = play(&mut machine, now, MS(3_000));
    assert_eq!(times(&seen, "INVITE"), [0, 500, 1500], "over UDP it is repeated");
    machine.unreachable(now, tcp);
    assert_eq!(machine.poll_event(), None);
    assert_eq!(machine.receive_response(now, &response(&by_udp, 180)), Response::Pass(id));
    // There is no second way.
    let (other, branch) = machine.reserve(7);
    let message = request("OPTIONS", &format!(";branch={branch}"));
    machine.send_request(now, other, branch, tcp, &Method::Options, message.raw().clone());
    machine.unreachable(now, tcp);
    assert_eq!(machine.poll_event(), Some(Event::Unreachable(other)));
}

#[test]
fn the_other_form_of_a_request_is_not_kept_once_its_peer_was_heard() {
    for status in [180, 200, 486] {
        let (mut machine, now) = machine();
        let (id, branch) = machine.reserve(7);
        let message = request("INVITE", &format!(";branch={branch}"));
        let tcp = Hop { transport: Transport::Tcp, ..hop() };
        let fallback = Fallback { hop: hop(), payload: message.raw().clone() };
        machine.send_request_or(now, id, branch, tcp, &Method::Invite, message.raw().clone(), Some(fallback));
        assert_eq!(machine.receive_response(now, &response(&message, status)), Response::Pass(id));
        machine.unreachable(now, tcp);
        assert_eq!(machine.poll_event(), None, "{status}: it goes nowhere else");
        play(&mut machine, now, MS(600_000));
        machine.cancel(now, id, b"");
        play(&mut machine, now, MS(600_000));
        assert!(status == 180 || machine.held_bytes() == 0, "{status}");
    }
}
