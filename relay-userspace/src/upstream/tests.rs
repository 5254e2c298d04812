//! The group, driven by hand.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    config::ServerUri,
    net::{NetworkId, Transport},
    sip::{Hop, transport::Step},
};

const PROBE: Duration = Duration::from_secs(30);
const RECOVERY: Duration = Duration::from_secs(60);

fn uri(text: &str) -> ServerUri {
    ServerUri::try_from(text.to_owned()).unwrap()
}

fn group(servers: &[&str], now: Instant) -> Group {
    let servers = servers.iter().map(|server| uri(server)).collect();
    Group::new(
        Settings { probe: Some(PROBE), recovery: RECOVERY, ..Settings::new(NetworkId(1), servers) },
        now,
    )
}

fn hop(address: &str) -> Hop {
    Hop::udp(NetworkId(1), address.parse().unwrap())
}

fn order_of(group: &Group, now: Instant) -> Vec<String> {
    group.candidates(now).iter().map(|target| target.address.to_string()).collect()
}

fn outputs(group: &mut Group) -> Vec<Output> {
    std::iter::from_fn(|| group.poll_output()).collect()
}

const A: &str = "10.0.0.1:5060";
const B: &str = "10.0.0.2:5060";

#[test]
fn the_first_is_tried_first_until_another_has_answered_in_its_place() {
    let now = Instant::now();
    let mut group = group(&[A, B], now);
    assert_eq!(order_of(&group, now), [A, B]);
    group.failed(now, hop(A), Failure::Silent);
    assert_eq!(order_of(&group, now), [B, A], "the one that failed is left alone, not given up");
    group.chosen(now, hop(B));
    let later = now + RECOVERY;
    assert_eq!(order_of(&group, later), [B, A], "the last one known good stays");
    group.succeeded(later, hop(A), Evidence::Probe);
    assert_eq!(
        order_of(&group, later),
        [B, A],
        "a probe's answer moves nothing while the preferred one is well"
    );
    group.failed(later, hop(B), Failure::Status(503));
    assert_eq!(order_of(&group, later), [A, B]);
    let states = group.states();
    assert_eq!((states[0].preferred, states[1].preferred), (true, false));
    assert_eq!(states[1].health, Health::Down(Failure::Status(503)));
}

#[test]
fn before_the_first_request_the_order_of_the_list_counts_and_not_who_answers_a_probe_first() {
    let now = Instant::now();
    let mut group = group(&[A, B], now);
    group.succeeded(now, hop(B), Evidence::Probe);
    assert_eq!(order_of(&group, now), [B, A], "nothing was heard of the first yet");
    group.succeeded(now, hop(A), Evidence::Probe);
    assert_eq!(order_of(&group, now), [A, B]);
    group.chosen(now, hop(B));
    group.succeeded(now, hop(A), Evidence::Probe);
    assert_eq!(order_of(&group, now), [B, A], "from the first request on, the last one known good");
}

#[test]
fn each_server_is_probed_and_its_changes_are_told_once() {
    let now = Instant::now();
    let mut group = group(&[A, "sip:10.0.0.2;transport=tls"], now);
    assert_eq!(group.poll_timeout(), Some(now));
    group.handle_timeout(now);
    let probes = outputs(&mut group);
    assert!(
        matches!(&probes[..], [Output::Probe(a), Output::Probe(b)]
        if a.address.to_string() == A && b.address.to_string() == "10.0.0.2:5061"),
        "{probes:?}"
    );
    assert_eq!(group.poll_timeout(), Some(now + PROBE));
    let answered = now + Duration::from_millis(20);
    group.succeeded(answered, hop(A), Evidence::Probe);
    group.succeeded(answered, hop(A), Evidence::Probe);
    let told = outputs(&mut group);
    assert!(
        matches!(&told[..], [Output::Changed { health: Health::Up, .. }, Output::Preferred(_)]),
        "{told:?}"
    );
    assert_eq!(group.states()[0].round_trip, Some(Duration::from_millis(20)));
    let later = answered + PROBE;
    group.succeeded(later, hop(A), Evidence::Probe);
    let [first, second] = &group.states()[..] else { panic!("two servers") };
    assert_eq!((first.since, first.updated), (Some(answered), Some(later)), "up as before, heard of again");
    assert_eq!((second.since, second.updated), (Some(now), None), "nothing was heard of it");
    let tls = Hop { transport: Transport::Tls, ..hop("10.0.0.2:5061") };
    group.failed(answered, tls, Failure::Connection(Step::Tcp, "refused".to_owned()));
    let told = outputs(&mut group);
    assert!(
        matches!(&told[..], [Output::Changed { health: Health::Down(failure), .. }]
        if failure.to_string() == "no TCP connection: refused" && failure.step() == "tcp"),
        "{told:?}"
    );
}

#[test]
fn names_are_resolved_again_when_their_time_is_over_and_keep_their_addresses_when_dns_fails() {
    let now = Instant::now();
    let mut group = group(&["sip:example.com"], now);
    assert_eq!(order_of(&group, now), [""; 0]);
    assert_eq!(group.states()[0].address, None);
    group.handle_timeout(now);
    assert_eq!(outputs(&mut group), [Output::Resolve(uri("sip:example.com"))]);
    let places = [B, A].map(|address| (Transport::Udp, address.parse().unwrap())).into();
    let found = Resolution { places, ttl: Duration::from_secs(300) };
    group.resolved(now, &uri("sip:example.com"), Ok(found));
    assert_eq!(order_of(&group, now), [B, A], "in the order in which the resolver gave them");
    assert_eq!(group.names().len(), 2);
    group.handle_timeout(now);
    outputs(&mut group);
    let later = now + Duration::from_secs(300);
    group.handle_timeout(later);
    assert!(outputs(&mut group).contains(&Output::Resolve(uri("sip:example.com"))));
    group.resolved(later, &uri("sip:example.com"), Err("no answer".to_owned()));
    assert_eq!(order_of(&group, later), [B, A]);
    assert_eq!(group.states()[0].unresolved.as_deref(), Some("no answer"));
    let moved = Resolution { places: vec![(Transport::Udp, A.parse().unwrap())], ttl: Duration::ZERO };
    group.resolved(later, &uri("sip:example.com"), Ok(moved));
    assert_eq!(order_of(&group, later), [A]);
    assert_eq!(group.states()[0].unresolved, None);
}

#[test]
fn other_settings_keep_what_is_known_of_the_servers_that_stay() {
    let now = Instant::now();
    let mut group = group(&[A, B], now);
    group.chosen(now, hop(B));
    let servers = vec![uri("10.0.0.3"), uri(B)];
    group.set(Settings { recovery: RECOVERY, ..Settings::new(NetworkId(1), servers) }, now);
    assert_eq!(order_of(&group, now), [B, "10.0.0.3:5060"]);
    assert_eq!(group.poll_timeout(), None, "nothing to probe and nothing to resolve");
}

#[test]
fn srv_records_are_ordered_by_priority_and_drawn_by_weight() {
    let record = |priority, weight, host: &str| SrvRecord {
        // Of two names: priority and weight hold over both.
        transport: if weight == 30 { Transport::Tcp } else { Transport::Udp },
        priority,
        weight,
        port: 5060,
        host: host.to_owned(),
    };
    let records = vec![record(10, 60, "c"), record(0, 0, "a"), record(0, 30, "b"), record(10, 20, "d")];
    let hosts = |draw: fn(u32) -> u32| -> String {
        order(records.clone(), draw).iter().map(|record| record.host.as_str()).collect()
    };
    assert_eq!(hosts(|_| 0), "abcd");
    assert_eq!(hosts(|most| most), "badc");
    let mut seen = std::collections::HashMap::new();
    let mut state = 12_345u32;
    for _ in 0..4000 {
        let draw = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % (most + 1)
        };
        let first = order(vec![record(0, 60, "c"), record(0, 20, "d")], draw).remove(0).host;
        *seen.entry(first).or_insert(0) += 1;
    }
    let share = f64::from(seen["c"]) / 4000.0;
    assert!((0.70..0.80).contains(&share), "three quarters are c's: {share}");
    let equal = vec![record(0, 0, "a"), record(0, 0, "b")];
    assert_eq!(order(equal.clone(), |_| 0)[0].host, "a");
    assert_eq!(order(equal, |most| most)[0].host, "b", "records without weights are drawn evenly");
}

#[test]
fn a_server_has_to_fail_for_a_while_before_it_is_out_of_service_and_is_then_asked_although_none_is() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let settings = Settings {
        when_down: WhenDown::Asked,
        patience: 5 * second,
        recovery: 20 * second,
        ..Settings::new(NetworkId(1), vec![uri(A)])
    };
    let mut group = Group::new(settings, now);
    assert!(!group.is_out_of_service(), "nothing is known yet");
    group.failed(now, hop(A), Failure::Silent);
    assert!(!group.is_out_of_service());
    assert_eq!(group.poll_timeout(), Some(now + 5 * second));
    group.succeeded(now + 2 * second, hop(A), Evidence::Probe);
    group.handle_timeout(now + 6 * second);
    assert!(!group.is_out_of_service(), "it answered in between");
    group.failed(now + 10 * second, hop(A), Failure::Status(503));
    group.handle_timeout(now + 15 * second);
    assert!(group.has_failed() && !group.is_out_of_service(), "it may have been the request's fault");
    group.handle_timeout(now + 15 * second);
    assert!(matches!(outputs(&mut group).last(), Some(Output::Probe(_))), "it is asked how it is at once");
    group.found_down(now + 19 * second, hop(A), Failure::Silent);
    assert!(group.is_out_of_service());
    outputs(&mut group);
    group.handle_timeout(now + 35 * second);
    assert!(matches!(outputs(&mut group)[..], [Output::Probe(_)]), "it is asked again");
    group.succeeded(now + 36 * second, hop(A), Evidence::Probe);
    assert!(!group.is_out_of_service());
    assert_eq!(group.poll_timeout(), None, "and is left alone again");

    let none = Group::new(Settings::new(NetworkId(1), Vec::new()), now);
    assert!(!none.is_out_of_service(), "where none is configured, none is missed");
}

#[test]
fn one_of_two_that_is_silent_stands_by_where_that_is_how_it_is() {
    let now = Instant::now();
    let servers = vec![uri(A), uri(B)];
    let settings =
        Settings { silence: crate::config::Silence::Standby, ..Settings::new(NetworkId(1), servers) };
    let mut group = Group::new(settings, now);
    let standing_by = |group: &Group| group.states().iter().map(|state| state.standby).collect::<Vec<_>>();
    group.failed(now, hop(B), Failure::Silent);
    assert_eq!(standing_by(&group), [false, false], "nobody answers yet");
    group.succeeded(now, hop(A), Evidence::Probe);
    assert_eq!(standing_by(&group), [false, true]);
    group.failed(now, hop(B), Failure::Status(503));
    assert_eq!(standing_by(&group), [false, false], "it says that it is out of order");
}

#[test]
fn a_server_that_answers_phones_or_sends_requests_is_not_asked_and_one_that_is_down_is_asked_when_it_speaks()
{
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let asked = |group: &mut Group, now: Instant| -> Vec<String> {
        group.handle_timeout(now);
        let probed = |output| match output {
            Output::Probe(target) => Some(target.address.to_string()),
            _ => None,
        };
        outputs(group).into_iter().filter_map(probed).collect()
    };
    let mut group = group(&[A, B], start);
    assert_eq!(asked(&mut group, start), [A, B]);
    group.succeeded(start + second, hop(A), Evidence::Probe);
    group.succeeded(start + second, hop(B), Evidence::Probe);
    group.heard(start + 20 * second, hop(A), Evidence::Answer);
    assert_eq!(asked(&mut group, start + PROBE), [B], "the first has answered a phone");
    group.heard(start + 45 * second, hop(A), Evidence::Request);
    assert_eq!(asked(&mut group, start + 50 * second), [""; 0], "and then called one");
    let known = |group: &Group| group.states()[0].known_by;
    assert_eq!(known(&group), Some(Evidence::Request));
    assert_eq!(group.states()[0].round_trip, Some(second), "of its last probe, and of nothing else");
    assert!(asked(&mut group, start + 45 * second + PROBE).contains(&A.to_owned()), "silent for a period");

    let now = start + 80 * second;
    group.failed(now, hop(A), Failure::Status(503));
    assert_eq!(known(&group), Some(Evidence::Answer));
    group.heard(now + second, hop(A), Evidence::Request);
    assert_eq!(asked(&mut group, now + second), [""; 0], "it was heard of a moment ago");
    group.heard(now + 6 * second, hop(A), Evidence::Request);
    assert_eq!(asked(&mut group, now + 6 * second), [A], "it speaks, so it may be back");
    assert_eq!(group.states()[0].health, Health::Down(Failure::Status(503)), "what it says to that counts");
}

#[test]
fn a_connection_that_a_server_has_made_tells_of_it_by_its_address() {
    let now = Instant::now();
    let mut group = group(&["sip:10.0.0.1;transport=tcp", "sip:10.0.0.2:5060;transport=tcp"], now);
    let tcp = |address: &str| Hop { transport: Transport::Tcp, ..hop(address) };
    group.succeeded(now, tcp(A), Evidence::Probe);
    group.heard(now, tcp("10.0.0.1:41234"), Evidence::Request);
    assert_eq!(group.states()[0].known_by, Some(Evidence::Request));
    group.heard(now, hop("10.0.0.1:41234"), Evidence::Request);
    group.heard(now, tcp("10.0.0.9:41234"), Evidence::Request);
    assert_eq!(group.states()[1].known_by, None);
}

#[test]
fn a_lesser_service_is_used_while_no_equal_serves_and_is_never_the_one_to_try_first() {
    const PROXY: &str = "10.0.0.9:5060";
    let now = Instant::now();
    let settings = Settings { lesser: vec![uri(PROXY)], ..Settings::new(NetworkId(1), vec![uri(A), uri(B)]) };
    let mut group = Group::new(settings, now);
    group.succeeded(now, hop(PROXY), Evidence::Probe);
    assert_eq!(order_of(&group, now), [A, B, PROXY], "it answers, and is lesser all the same");
    group.chosen(now, hop(B));
    group.found_down(now, hop(B), Failure::Silent);
    assert_eq!(order_of(&group, now), [A, PROXY, B]);
    group.found_down(now, hop(A), Failure::Silent);
    assert_eq!(order_of(&group, now)[0], PROXY);
    assert!(!group.is_out_of_service(), "somebody serves");
    group.chosen(now, hop(PROXY));
    group.succeeded(now, hop(A), Evidence::Probe);
    assert_eq!(order_of(&group, now), [A, PROXY, B], "what is new goes to the equal that is back");
    assert!(group.states().iter().all(|state| !state.preferred || state.rank == Rank::Equal));
}
