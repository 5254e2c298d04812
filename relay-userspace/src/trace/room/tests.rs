use super::*;
use crate::{net::NetworkId, store::tests_support::Directory, trace::tests_support::call};

const MIB: u64 = 1 << 20;

fn networks() -> Vec<Network> {
    let network = |name: &str, address: &str| Network {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        ports: [8060, 8060, 8061, 0, 0, 0],
    };
    vec![network("office", "10.61.0.1"), network("centre", "10.62.0.1")]
}

fn open(directory: &Directory) -> Traces {
    open_with(directory, Box::new(|_| {}))
}

fn open_with(directory: &Directory, export: Export) -> Traces {
    let limits = Limits { messages: 200, bytes: 1 << 20, total: 4 << 20 };
    let traces = Traces::new(networks(), limits, TraceStore::open(directory.path()), export);
    traces.reconfigure(true, limits, MIB);
    traces
}

/// What passes, as a message of the tests has it.
fn pass(traces: &Traces, message: &Traced) {
    let network = NetworkId(u16::from(message.network == "centre"));
    let hop = Hop { network, transport: message.transport, address: message.remote };
    traces.message(message.unix_us * 1000, message.direction, hop, &message.bytes());
}

#[test]
fn a_call_is_listed_and_shown_as_it_came_and_went() {
    let directory = Directory::new("traces-room");
    let exported = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&exported);
    let export: Export = Box::new(move |message| {
        told.lock().unwrap().push((message.source.to_string(), message.call_id.to_vec()));
    });
    let (traces, messages) = (open_with(&directory, export), call());
    messages.iter().for_each(|message| pass(&traces, message));
    let summary = Summary {
        call_id: "c@lab".to_owned(),
        method: "INVITE".to_owned(),
        from: "\"Ann\" <sip:1001@lab>".to_owned(),
        to: "<sip:9001@lab>".to_owned(),
        begun_unix_us: messages[0].unix_us,
        last_unix_us: messages[12].unix_us,
        messages: 13,
        left_out: 0,
        status: Some("200 OK (BYE)".to_owned()),
        state: "live".to_owned(),
    };
    let list = traces.list(10);
    assert_eq!((list.traces, list.kept, list.lost), (vec![summary.clone()], 1, 0));
    assert_eq!(traces.trace("c@lab"), Some(TraceView { summary, messages, more: false }));
    assert_eq!(traces.trace("nobody"), None);
    // Who looks takes nothing away from whom it is handed on to.
    let exported = exported.lock().unwrap();
    assert_eq!(exported.len(), 13);
    assert_eq!(exported[0], ("10.61.0.11:5060".to_owned(), b"c@lab".to_vec()));
    assert_eq!(exported[2].0, "10.62.0.1:8060");
}

#[test]
fn what_is_kept_and_handed_on_has_no_secrets() {
    let directory = Directory::new("traces-secrets");
    let text = "REGISTER sip:lab SIP/2.0\r\nCall-ID: r\r\nAuthorization: Digest username=\"a\", response=\"0f0f\"\r\n\r\n\
                a=crypto:1 X inline:abcd\r\n";
    let export: Export = Box::new(|message| {
        let text = String::from_utf8_lossy(message.payload);
        assert!(
            !text.contains("0f0f") && !text.contains("abcd") && text.contains("username=\"a\""),
            "{text}"
        );
    });
    let traces = open_with(&directory, export);
    pass(&traces, &Traced { message: text.to_owned(), ..call()[0].clone() });
    let kept = traces.trace("r").unwrap().messages[0].message.clone();
    assert_eq!(kept, text.replace("0f0f", "****").replace("abcd", "****"));
}

#[test]
fn a_call_that_goes_on_over_a_restart_is_one_trace() {
    let directory = Directory::new("traces-restart");
    let messages = call();
    let traces = open(&directory);
    messages[..7].iter().for_each(|message| pass(&traces, message));
    traces.store_all().unwrap();
    drop(traces);
    let traces = open(&directory);
    let stored = traces.trace("c@lab").unwrap();
    assert_eq!((stored.summary.state.as_str(), stored.messages.len()), ("stored", 7));
    messages[7..].iter().for_each(|message| pass(&traces, message));
    let whole = traces.trace("c@lab").unwrap();
    assert_eq!(whole.messages, messages);
    assert_eq!((whole.summary.state.as_str(), whole.summary.messages), ("live", 13));
    assert_eq!(whole.summary.begun_unix_us, messages[0].unix_us);
    let list = traces.list(10).traces;
    assert_eq!((list.len(), list[0].messages, list[0].method.as_str()), (1, 13, "INVITE"));

    // It ends, and what the store does not have of it is written.
    traces.look(messages[12].unix_us * 1000 + 60_000_000_000, |_| false);
    assert!(!traces.store_ended().unwrap());
    assert_eq!(traces.trace("c@lab").unwrap().messages, messages, "no message is there twice");
    drop(traces);
    let traces = open(&directory);
    assert_eq!(traces.trace("c@lab").unwrap().messages, messages);
    assert_eq!(traces.list(10).traces[0].status.as_deref(), Some("200 OK (BYE)"));
}

#[test]
fn parts_of_a_trace_make_the_whole() {
    let directory = Directory::new("traces-parts");
    let traces = open(&directory);
    for number in 0..40u64 {
        let text = format!("INVITE sip:a SIP/2.0\r\nCall-ID: c\r\n\r\n{}", "x".repeat(number as usize * 200));
        pass(&traces, &Traced { unix_us: number, message: text, ..call()[0].clone() });
    }
    let (mut messages, mut parts) = (Vec::new(), 0);
    loop {
        let part = traces.part("c", messages.len()).unwrap();
        let bytes: usize = part.messages.iter().map(Traced::size).sum();
        assert!(bytes <= PART && !part.messages.is_empty());
        messages.extend(part.messages);
        parts += 1;
        if !part.more {
            break;
        }
    }
    assert!(parts > 2);
    assert_eq!(messages, traces.trace("c").unwrap().messages);
}

#[test]
fn what_finds_no_room_or_is_not_wanted_is_not_recorded() {
    let directory = Directory::new("traces-bounds");
    let traces = open(&directory);
    let message = &call()[0];
    for _ in 0..QUEUE + 5 {
        pass(&traces, message);
    }
    traces.keep();
    let (counts, lost, bytes) = traces.counts();
    assert_eq!((counts.messages, lost), (QUEUE as u64, 5));
    assert!(bytes < 4 << 20);
    let limits = Limits { messages: 200, bytes: 1 << 20, total: 4 << 20 };
    traces.reconfigure(false, limits, MIB);
    pass(&traces, message);
    pass(&traces, &Traced { message: "\r\n\r\n".to_owned(), ..message.clone() });
    assert_eq!(traces.list(10).traces[0].messages + traces.list(10).traces[0].left_out, QUEUE as u64);
}

#[test]
fn without_a_store_traces_are_in_memory_and_the_reason_is_told() {
    let limits = Limits { messages: 200, bytes: 1 << 20, total: 4 << 20 };
    let nowhere = std::path::Path::new("/nonexistent");
    let traces = Traces::new(networks(), limits, TraceStore::open(nowhere), Box::new(|_| {}));
    traces.reconfigure(true, limits, MIB);
    pass(&traces, &call()[0]);
    traces.store_all().unwrap();
    let list = traces.list(10);
    assert_eq!(list.traces.len(), 1);
    assert!(list.not_stored.unwrap().starts_with("/nonexistent/traces.db: "));
}
