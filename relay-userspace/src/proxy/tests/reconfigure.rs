use std::time::Duration;

use super::harness::*;
use crate::{proxy::Changes, sip::transaction::Timers};

/// An address on the servers' network that is no server's.
const STRANGER: &str = "198.51.100.77:5060";

fn changes() -> Changes {
    let settings = settings();
    Changes {
        tcp_above: None,
        trusted: settings.trusted,
        timers: settings.timers,
        timer_c: settings.timer_c,
        calls: settings.limits.calls,
        capacities: settings.capacities,
        peers: settings.peers,
        retry: settings.upstream.retry,
        redirects: settings.upstream.redirects,
        silence: settings.upstream.silence,
        dual: crate::config::DualRegistration::Off,
        groups: Vec::new(),
        servers: settings.upstream.servers,
        probe: None,
        patience: Duration::ZERO,
        routing: settings.routing,
        recovery: Duration::from_secs(60),
    }
}

fn invite(call: &str, branch: &str) -> String {
    let headers = "Contact: <sip:200@192.0.2.11:5060>\n";
    from_phone("INVITE", "sip:100@example.com", branch, 1, "", headers, &sdp("192.0.2.11", 4000, ""))
        .replace("Call-ID: c1", &format!("Call-ID: {call}"))
}

fn first_line(sent: &Sent) -> String {
    String::from_utf8_lossy(&sent.payload).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_call_that_stands_goes_on_and_the_limit_holds_for_the_next() {
    let mut world = World::new();
    let sent = world.phone(&invite("c1", "i1"));
    let contact = "Contact: <sip:100@198.51.100.20>\n";
    world.server(&answer(&sent[1], 200, "OK", "s", contact, &sdp("198.51.100.20", 6000, "")));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    world.proxy.reconfigure(world.now, &mut world.media, Changes { calls: 1, ..changes() });
    assert_eq!(world.proxy.active_calls(), 1);
    let refused = world.phone(&invite("c2", "i2"));
    assert_eq!(first_line(refused.last().unwrap()), "SIP/2.0 503 Too Many Calls");
    let bye = world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s", "", ""));
    assert!(first_line(&bye[0]).starts_with("BYE "), "{}", first_line(&bye[0]));
    world.server(&answer(&bye[0], 200, "OK", "s", "", ""));
    world.wait(Duration::from_secs(60));
    assert!(first_line(&world.phone(&invite("c3", "i3"))[1]).starts_with("INVITE "), "there is room again");
}

#[test]
fn timers_and_trust_hold_from_the_change_on() {
    let mut world = World::new();
    let options = |branch: &str| from_phone("OPTIONS", "sip:100@example.com", branch, 1, "", "", "");
    world.phone(&options("o1"));
    assert_eq!(world.wait(Duration::from_millis(450)).len(), 0, "T1 is 500 ms");
    let strange = from_server("OPTIONS", "sip:200@192.0.2.1:8060", "s1", 1, "", "", "").replace('\n', "\r\n");
    let refused = world.receive(SERVERS, STRANGER, strange.as_bytes());
    assert_eq!(first_line(&refused[0]), "SIP/2.0 403 Forbidden");

    let timers = Timers { t1: Duration::from_millis(100), ..Timers::default() }.into();
    let trusted = vec!["198.51.100.64/26".parse().unwrap()];
    world.wait(Duration::from_secs(40));
    world.proxy.reconfigure(world.now, &mut world.media, Changes { timers, trusted, ..changes() });
    world.phone(&options("o2"));
    assert_eq!(world.wait(Duration::from_millis(150)).len(), 1, "repeated after 100 ms");
    let strange = strange.replace("s1", "s2");
    let taken = world.receive(SERVERS, STRANGER, strange.as_bytes());
    assert_eq!(first_line(&taken[0]), "SIP/2.0 404 Not Found", "trusted, but no phone has this address");
}
