use proptest::prelude::*;

use super::*;
use crate::net::NetworkId;

const SECOND: u64 = 1_000_000;

fn hop() -> Hop {
    Hop::udp(NetworkId(0), "10.61.0.11:5060".parse().unwrap())
}

fn entry(unix_us: u64, way: Way, call_id: &str, start: &str) -> Entry {
    let bytes = Bytes::from(format!("{start}\r\nCall-ID: {call_id}\r\n\r\n"));
    Entry { unix_us, way, hop: hop(), bytes }
}

fn invite(unix_us: u64, call_id: &str) -> Entry {
    entry(unix_us, Way::In, call_id, "INVITE sip:a SIP/2.0")
}

fn register(unix_us: u64, call_id: &str) -> Entry {
    entry(unix_us, Way::In, call_id, "REGISTER sip:a SIP/2.0")
}

/// Room for so many traces of one message each.
fn room_for(traces: usize) -> Limits {
    let cost = TRACE_COST + invite(0, "c0").cost();
    Limits { messages: 200, bytes: cost * traces, total: cost * traces + cost / 2 }
}

fn names(recorder: &Recorder) -> Vec<String> {
    let mut names: Vec<String> =
        recorder.traces().iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
    names.sort();
    names
}

#[test]
fn of_a_long_call_the_first_and_the_last_messages_are_kept_and_the_rest_is_counted() {
    let mut recorder = Recorder::new(Limits { messages: 5, bytes: 1 << 20, total: 1 << 20 });
    for number in 0..9 {
        recorder.record(invite(number, "c"));
    }
    let trace = recorder.trace(b"c").unwrap();
    let times: Vec<u64> = trace.entries().map(|entry| entry.unix_us).collect();
    assert_eq!((times, trace.left_out), (vec![0, 1, 2, 7, 8], 4));
    assert_eq!(recorder.counts(), Counts { messages: 9, left_out: 4, evicted: 0, evicted_live: 0 });
}

#[test]
fn a_message_that_is_larger_than_a_call_may_be_is_left_out_and_those_before_it_stay() {
    let mut recorder = Recorder::new(Limits { messages: 9, bytes: TRACE_COST * 4, total: 1 << 20 });
    recorder.record(invite(1, "c"));
    let large = Bytes::from(format!("BYE sip:a SIP/2.0\r\nCall-ID: c\r\n\r\n{}", "x".repeat(TRACE_COST * 4)));
    recorder.record(Entry { bytes: large, ..invite(2, "c") });
    recorder.record(invite(3, "c"));
    let trace = recorder.trace(b"c").unwrap();
    let times: Vec<u64> = trace.entries().map(|entry| entry.unix_us).collect();
    assert_eq!((times, trace.left_out), (vec![1, 3], 1));
}

#[test]
fn calls_that_ended_first_go_first_and_one_that_goes_on_only_when_none_has_ended() {
    let mut recorder = Recorder::new(room_for(3));
    for (number, call) in ["c0", "c1", "c2"].into_iter().enumerate() {
        recorder.record(invite(number as u64, call));
    }
    // c2 ends, then c0; c1 stands.
    recorder.look(10 * SECOND, |call| call != b"c2");
    recorder.look(20 * SECOND, |call| call == b"c1");
    recorder.record(invite(30 * SECOND, "c3"));
    assert_eq!(names(&recorder), ["c0", "c1", "c3"]);
    recorder.record(invite(31 * SECOND, "c4"));
    assert_eq!(names(&recorder), ["c1", "c3", "c4"]);
    assert_eq!(recorder.counts().evicted, 2);
    recorder.record(invite(32 * SECOND, "c5"));
    assert_eq!(names(&recorder), ["c3", "c4", "c5"], "the one that began first");
    assert_eq!((recorder.counts().evicted, recorder.counts().evicted_live), (2, 1));
}

#[test]
fn a_call_that_has_ended_goes_on_when_another_message_of_it_comes() {
    let mut recorder = Recorder::new(room_for(9));
    recorder.record(invite(0, "c0"));
    recorder.look(4 * SECOND, |_| false);
    assert!(!recorder.trace(b"c0").unwrap().is_ended(), "what crosses the end is waited for");
    recorder.look(10 * SECOND, |_| false);
    assert!(recorder.trace(b"c0").unwrap().is_ended());
    recorder.record(invite(11 * SECOND, "c0"));
    assert!(!recorder.trace(b"c0").unwrap().is_ended());
    recorder.look(20 * SECOND, |_| false);
    assert!(recorder.trace(b"c0").unwrap().is_ended());
}

#[test]
fn registrations_give_way_to_calls_and_are_short() {
    let mut recorder = Recorder::new(room_for(8));
    for number in 0..4 {
        recorder.record(invite(number, &format!("c{number}")));
    }
    for number in 0..4 {
        recorder.record(register(number, &format!("r{number}")));
    }
    recorder.look(60 * SECOND, |_| false);
    recorder.record(invite(61 * SECOND, "c4"));
    recorder.record(invite(62 * SECOND, "c5"));
    assert_eq!(
        names(&recorder),
        ["c0", "c1", "c2", "c3", "c4", "c5", "r2", "r3"],
        "registrations went first"
    );
    recorder.record(invite(63 * SECOND, "c6"));
    assert_eq!(
        names(&recorder),
        ["c1", "c2", "c3", "c4", "c5", "c6", "r2", "r3"],
        "until they take a quarter"
    );

    let mut recorder = Recorder::new(Limits { messages: 200, bytes: 1 << 20, total: 1 << 20 });
    for number in 0..100 {
        recorder.record(register(number, "r"));
        recorder.record(invite(number, "c"));
    }
    assert_eq!(recorder.trace(b"r").unwrap().kept(), OTHERS_MESSAGES);
    assert_eq!(recorder.trace(b"c").unwrap().kept(), 100);
}

#[test]
fn of_the_appliances_own_probes_the_last_few_are_kept() {
    let mut recorder = Recorder::new(Limits { messages: 200, bytes: 1 << 20, total: 1 << 20 });
    for number in 0..20 {
        let call = format!("p{number:02}");
        recorder.record(entry(number, Way::Out, &call, "OPTIONS sip:a SIP/2.0"));
        recorder.record(entry(number, Way::In, &call, "SIP/2.0 200 OK"));
        // One that is relayed has come first.
        let relayed = format!("o{number:02}");
        recorder.record(entry(number, Way::In, &relayed, "OPTIONS sip:a SIP/2.0"));
        recorder.record(entry(number, Way::Out, &relayed, "OPTIONS sip:a SIP/2.0"));
    }
    let probes = names(&recorder).into_iter().filter(|name| name.starts_with('p')).collect::<Vec<_>>();
    assert_eq!(probes, ["p12", "p13", "p14", "p15", "p16", "p17", "p18", "p19"]);
    assert_eq!(recorder.len(), MOST_PROBES + 20);
}

#[test]
fn the_store_is_given_what_it_does_not_have_of_calls() {
    let mut recorder = Recorder::new(Limits { messages: 4, bytes: 1 << 20, total: 1 << 20 });
    recorder.record(invite(1, "c0"));
    recorder.record(invite(1, "c1"));
    recorder.record(register(1, "r"));
    let told = |recorder: &mut Recorder, which| -> Vec<(String, Vec<u64>, u64)> {
        let unstored = recorder.take_unstored(which, 9);
        let row = |one: Unstored| {
            let times = one.entries.iter().map(|entry| entry.unix_us).collect();
            (String::from_utf8_lossy(&one.call_id).into_owned(), times, one.left_out)
        };
        unstored.into_iter().map(row).collect()
    };
    assert_eq!(told(&mut recorder, Which::Ended), []);
    recorder.look(60 * SECOND, |call| call == b"c1");
    assert_eq!(told(&mut recorder, Which::Ended), [("c0".to_owned(), vec![1], 0)]);
    assert_eq!(told(&mut recorder, Which::Ended), [], "it has it now");
    for number in 2..9 {
        recorder.record(invite(number, "c0"));
    }
    // Two of the first, two of the last; one had been stored.
    assert_eq!(
        told(&mut recorder, Which::All),
        [("c0".to_owned(), vec![2, 7, 8], 4), ("c1".to_owned(), vec![1], 0)]
    );
    recorder.record(invite(10, "c1"));
    let unstored = recorder.take_unstored(Which::All, 9);
    recorder.put_back(&unstored[0]);
    assert_eq!(told(&mut recorder, Which::All), [("c1".to_owned(), vec![10], 0)], "it was not taken");
}

#[test]
fn what_has_no_call_id_is_counted() {
    let mut recorder = Recorder::new(room_for(1));
    recorder.record(Entry { bytes: Bytes::from_static(b"nonsense\r\n\r\n"), ..invite(0, "") });
    assert_eq!((recorder.len(), recorder.counts().left_out), (0, 1));
}

proptest! {
    #[test]
    fn whatever_is_recorded_the_budget_holds_and_every_message_is_accounted_for(
        steps in prop::collection::vec((0u8..12, 0u8..4, 0usize..400, any::<bool>()), 0..200),
        total in 1_000usize..20_000,
    ) {
        let mut recorder = Recorder::new(Limits { messages: 6, bytes: total / 2, total });
        for (at, (call, what, padding, look)) in (0u64..).zip(steps) {
            let starts = ["INVITE a SIP/2.0", "OPTIONS a SIP/2.0", "REGISTER a SIP/2.0", "SIP/2.0 200 OK"];
            let way = if padding % 2 == 0 { Way::In } else { Way::Out };
            let start = format!("{}\r\nX: {}", starts[usize::from(what)], "x".repeat(padding));
            recorder.record(entry(at * SECOND, way, &format!("c{call}"), &start));
            if look {
                recorder.look(at * SECOND, |call| call.ends_with(b"1"));
            }
            let (bytes, limit) = recorder.room();
            prop_assert!(bytes <= limit, "{bytes} of {limit}");
            let counted: usize = recorder.traces().iter().map(|(_, trace)| trace.bytes).sum();
            prop_assert_eq!(counted, bytes);
            let others = recorder.traces().iter().filter(|(_, trace)| trace.kind != Kind::Call).map(|(_, trace)| trace.bytes).sum::<usize>();
            prop_assert_eq!(others, recorder.others);
            let listed = recorder.live.len() + recorder.ended_calls.len() + recorder.ended_others.len();
            prop_assert_eq!(listed, recorder.len());
            for (_, trace) in recorder.traces() {
                prop_assert_eq!(trace.seen, trace.kept() as u64 + trace.left_out);
            }
        }
    }
}
