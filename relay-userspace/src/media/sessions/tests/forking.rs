//! One offer, several answers (RFC 3261 section 13.2.2.4): each branch has streams of its own.

use super::*;
use crate::datapath::Fork;

/// A call from the office that two phones behind the server answer early; the port announced to the server, and the
/// ports announced to the caller in each branch.
fn forked(sessions: &mut Sessions, installed: &mut Installed) -> (u16, u16, u16) {
    let now = Instant::now();
    let out = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    installed.apply(out.changes);
    let mut early = |address: &str, port: u16, tag: &[u8]| {
        let back = sessions.answer(now, &answer(&audio(address, port, ""), b"a", tag)).unwrap();
        installed.apply(back.changes);
        port_of(&back.sdp, 0)
    };
    let first = early("10.62.0.21", 7000, b"b");
    let second = early("10.62.0.22", 8000, b"c");
    (port_of(&out.sdp, 0), first, second)
}

fn used(sessions: &Sessions) -> [usize; 2] {
    [sessions.ports()[0].used, sessions.ports()[1].used]
}

#[test]
fn each_branch_has_ports_of_its_own_towards_the_caller_and_shares_the_one_that_was_offered() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (outside, first, second) = forked(&mut sessions, &mut installed);
    assert_ne!(first, second);
    assert_eq!((installed.0.len(), used(&sessions)), (6, [4, 2]));
    for (inside, party) in [(first, at("10.62.0.21", 7000)), (second, at("10.62.0.22", 8000))] {
        let flow = &installed.0[&at("10.61.0.1", inside)];
        assert_eq!((flow.destination, flow.out_source), (Some(party), at("10.62.0.1", outside)));
        assert_eq!(flow.signalled, Some(at("10.61.0.11", 4000)));
    }
    let shared = &installed.0[&at("10.62.0.1", outside)];
    let parties: Vec<_> = std::iter::once(shared.party()).chain(shared.forks.iter().cloned()).collect();
    let expected = |inside, ip: &str, port| Fork {
        signalled: Some(at(ip, port)),
        out_source: at("10.61.0.1", inside),
        destination: Some(at("10.61.0.11", 4000)),
        clock_rate: 8000,
        turns: 0,
        rtcp: None,
        srtp: None,
    };
    let both = [expected(second, "10.62.0.22", 8000), expected(first, "10.62.0.21", 7000)];
    assert_eq!(parties, both, "who answered last is the flow's own");
}

#[test]
fn the_branch_that_wins_keeps_its_ports_and_the_others_are_given_back_after_a_while() {
    for (winner, loser) in [(&b"b"[..], &b"c"[..]), (b"c", b"b")] {
        let (mut sessions, mut installed) = (sessions(), Installed::default());
        let (outside, first, second) = forked(&mut sessions, &mut installed);
        let now = Instant::now();
        let (address, port, inside) =
            if winner == b"b" { ("10.62.0.21", 7000, first) } else { ("10.62.0.22", 8000, second) };
        let back = sessions.answer(now, &answer(&audio(address, port, ""), b"a", winner)).unwrap();
        assert_eq!(port_of(&back.sdp, 0), inside, "as its early answer said");
        installed.apply(back.changes);
        installed.apply(sessions.release(now, b"call", loser));
        let shared = &installed.0[&at("10.62.0.1", outside)];
        assert_eq!((shared.signalled, shared.out_source), (Some(at(address, port)), at("10.61.0.1", inside)));
        assert_eq!(shared.forks, [], "nobody else sends there");
        assert_eq!((installed.0.len(), used(&sessions)), (6, [4, 2]), "the last packets are under way");
        installed.apply(sessions.reap(now + LINGER));
        assert_eq!((installed.0.len(), used(&sessions)), (4, [2, 2]));

        installed.apply(sessions.release(now, b"call", winner));
        assert_eq!(installed.0.len(), 4, "the last branch stays until the call ends");
        sessions.delete(now, b"call");
        installed.apply(sessions.reap(now + LINGER));
        assert_eq!((installed.0.len(), used(&sessions)), (0, [0, 0]));
    }
}

#[test]
fn a_call_that_ends_while_it_rings_everywhere_leaves_nothing_behind() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    forked(&mut sessions, &mut installed);
    let now = Instant::now();
    sessions.delete(now, b"call");
    installed.apply(sessions.reap(now + LINGER));
    assert_eq!((installed.0.len(), used(&sessions)), (0, [0, 0]));
}

#[test]
fn what_is_negotiated_in_one_branch_is_that_branch_s_alone() {
    let (mut sessions, mut installed) = (sessions(), Installed::default());
    let (outside, first, second) = forked(&mut sessions, &mut installed);
    let now = Instant::now();
    // The first branch, in an UPDATE, moves its early media to another host.
    let moved = audio("10.62.0.29", 7700, "");
    let out = sessions.offer(now, &offer_back(&moved, b"b")).unwrap();
    assert_eq!(port_of(&out.sdp, 0), first);
    installed.apply(out.changes);
    let phone = audio("10.61.0.11", 4000, "");
    let accepted = Answer { from: CENTRE, to: OFFICE, ..answer(&phone, b"b", b"a") };
    let back = sessions.answer(now, &accepted).unwrap();
    assert_eq!(port_of(&back.sdp, 0), outside);
    installed.apply(back.changes);
    let destination = |inside| installed.0[&at("10.61.0.1", inside)].destination;
    assert_eq!(destination(first), Some(at("10.62.0.29", 7700)));
    assert_eq!(destination(second), Some(at("10.62.0.22", 8000)));
}

#[test]
fn a_branch_without_multiplexing_has_the_rtcp_port_to_itself() {
    let (mut sessions, mut installed, now) = (sessions(), Installed::default(), Instant::now());
    let out = sessions.offer(now, &offer(&audio("10.61.0.11", 4000, "a=rtcp-mux\r\n"), b"a")).unwrap();
    installed.apply(out.changes);
    let outside = port_of(&out.sdp, 0);
    for (address, tag, mux) in [("10.62.0.21", b"b", "a=rtcp-mux\r\n"), ("10.62.0.22", b"c", "")] {
        let back = sessions.answer(now, &answer(&audio(address, 7000, mux), b"a", tag)).unwrap();
        installed.apply(back.changes);
    }
    let rtcp = &installed.0[&at("10.62.0.1", outside + 1)];
    assert_eq!((rtcp.signalled, rtcp.forks.len()), (Some(at("10.62.0.22", 7001)), 0));
    installed.apply(sessions.release(now, b"call", b"c"));
    assert!(!installed.0.contains_key(&at("10.62.0.1", outside + 1)), "the last that needed it is gone");
}

#[test]
fn branches_are_limited_and_one_without_ports_changes_nothing() {
    let now = Instant::now();
    let (mut all, mut installed) = (sessions(), Installed::default());
    let (_, first, _) = forked(&mut all, &mut installed);
    // Ten pairs of ports are there, and the call has two.
    for tag in b'd'..=b'k' {
        let sdp = audio("10.62.0.30", 9000, "");
        installed.apply(all.answer(now, &answer(&sdp, b"a", &[tag])).unwrap().changes);
    }
    let sdp = audio("10.62.0.30", 9000, "");
    let error = all.answer(now, &answer(&sdp, b"a", b"l")).unwrap_err();
    assert!(matches!(error, MediaError::NoPorts { .. }), "{error}");
    assert_eq!(used(&all), [20, 2]);
    assert!(installed.0.contains_key(&at("10.61.0.1", first)));

    let mut settings = sessions().settings;
    settings.networks[0].ports = 20_000..=20_999;
    let mut many = Sessions::new(settings);
    many.offer(now, &offer(&audio("10.61.0.11", 4000, ""), b"a")).unwrap();
    let results: Vec<bool> =
        (0..20u8).map(|tag| many.answer(now, &answer(&sdp, b"a", &[b'b' + tag])).is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| **ok).count(), MAX_BRANCHES);
    let error = many.answer(now, &answer(&sdp, b"a", b"z")).unwrap_err();
    assert_eq!(error.to_string(), "branches of a forked call: the limit is 16");
}
