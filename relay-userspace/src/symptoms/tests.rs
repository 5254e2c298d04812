//! Each rule by rows: what is seen, and what is said of it.

use std::time::Duration;

use super::*;
use crate::{
    config::ServerUri,
    quality::Place,
    sip::transport::Step,
    upstream::{Failure, Health, Rank, ServerState},
};

fn server(address: &str, health: Health) -> ServerState {
    ServerState {
        group: "upstream".to_owned(),
        rank: Rank::Equal,
        server: ServerUri::try_from(address.to_owned()).unwrap(),
        address: Some(address.parse().unwrap()),
        transport: None,
        health,
        since: None,
        updated: None,
        known_by: None,
        round_trip: None,
        preferred: false,
        standby: false,
        unresolved: None,
    }
}

const LOSSY: Finding = Finding { verdict: Verdict::Lossy, place: Some(Place::Before) };

fn stream(network: &str) -> Stream {
    Stream {
        call: "1001 to 1002".into(),
        call_key: b"c1".as_slice().into(),
        network: network.into(),
        to_network: "elsewhere".into(),
        verdict: Verdict::Ok,
        finding: Finding { verdict: Verdict::Ok, place: None },
        beyond_percent: None,
        jitter_ms: Some(1.0),
        refused: None,
        expected: 3000,
        lost: 0,
        dscp: 46,
        round_trip: None,
    }
}

/// Kind, severity and the beginning of what is said.
fn said(seen: &Observations) -> Vec<(Kind, Severity, String)> {
    find(seen).into_iter().map(|symptom| (symptom.kind, symptom.severity, symptom.what)).collect()
}

#[test]
fn an_office_in_which_all_is_well_has_no_symptoms() {
    let seen = Observations {
        servers: vec![server("10.0.0.1:5060", Health::Up)],
        clock_synchronised: Some(true),
        streams: vec![stream("office"), stream("wan")],
        lines: vec![("200@example.com".to_owned(), vec!["10.61.0.11".to_owned()])],
        ..Observations::default()
    };
    assert_eq!(find(&seen), []);
    assert_eq!(find(&Observations::default()), []);
}

#[test]
fn a_server_is_named_with_the_step_at_which_it_fails() {
    let connection = |step, why: &str| Health::Down(Failure::Connection(step, why.to_owned()));
    let rows = [
        (
            connection(Step::Route, "No route to host"),
            "it fails at the step \"route\": there is no way to it: No route to host",
        ),
        (connection(Step::Tcp, "refused"), "it fails at the step \"tcp\": no TCP connection: refused"),
        (Health::Down(Failure::Silent), "it fails at the step \"sip\": it does not answer SIP"),
        (Health::Down(Failure::Status(503)), "it fails at the step \"sip\": it answers 503"),
    ];
    for (health, expected) in rows {
        let two = vec![server("10.0.0.1:5060", health.clone()), server("10.0.0.2:5060", Health::Up)];
        let seen = Observations { servers: two, ..Observations::default() };
        assert_eq!(said(&seen), [(Kind::ServerUnreachable, Severity::Warning, expected.to_owned())]);
        let alone =
            Observations { servers: vec![server("10.0.0.1:5060", health)], ..Observations::default() };
        assert_eq!(said(&alone)[0].1, Severity::Critical, "no server is left");
    }
    let refused = connection(Step::Tls, "its certificate is not trusted: it has expired");
    let seen = Observations { servers: vec![server("10.0.0.1:5061", refused)], ..Observations::default() };
    assert_eq!(said(&seen)[0].0, Kind::CertificateNotTrusted);
}

#[test]
fn loss_and_missing_marks_are_told_with_their_side() {
    let seen = Observations {
        streams: vec![
            Stream { lost: 96, finding: LOSSY, ..stream("office") },
            Stream { dscp: 0, ..stream("wan") },
        ],
        ..Observations::default()
    };
    assert_eq!(
        said(&seen),
        [
            (Kind::DscpLost, Severity::Notice, "1 of 1 media streams arrive from it with DSCP 0".to_owned()),
            (
                Kind::Loss,
                Severity::Notice,
                "3.2 % of the packets from network office are lost before they reach the appliance (96 of 3000)".to_owned()
            ),
        ]
    );
    let short = Stream { expected: 50, lost: 25, dscp: 0, ..stream("office") };
    let seen = Observations { streams: vec![short], ..Observations::default() };
    assert_eq!(said(&seen), [], "too few packets to judge");
}

#[test]
fn delay_counts_from_party_to_party_over_both_sides() {
    let rows = [
        ("little", 100, 100, None),
        ("noticeable", 280, 40, Some(Severity::Notice)),
        ("severe", 600, 40, Some(Severity::Warning)),
    ];
    for (description, wan, office, expected) in rows {
        let with =
            |network: &str, ms| Stream { round_trip: Some(Duration::from_millis(ms)), ..stream(network) };
        let seen = Observations {
            streams: vec![with("wan", wan), with("office", office)],
            ..Observations::default()
        };
        let found = said(&seen);
        assert_eq!(found.first().map(|found| found.1), expected, "{description}");
        if let Some((kind, _, what)) = found.first() {
            assert_eq!(*kind, Kind::Latency);
            assert!(what.contains("most of it toward network wan"), "{what}");
        }
    }
}

#[test]
fn a_party_that_is_not_heard_is_told_unless_there_is_a_reason() {
    let unheard = Finding { verdict: Verdict::OneWayAudio, place: None };
    let one_way = Stream { expected: 0, verdict: Verdict::OneWayAudio, finding: unheard, ..stream("wan") };
    let nobody = Stream { verdict: Verdict::NoAudio, ..one_way.clone() };
    let held = Finding { verdict: Verdict::Held, place: None };
    let beyond = Finding { verdict: Verdict::Lossy, place: Some(Place::Beyond) };
    let uneven = Finding { verdict: Verdict::HighJitter, place: None };
    type Row<'a> = (&'a str, Vec<Stream>, Vec<(Kind, &'a str)>);
    let rows: [Row<'_>; 7] = [
        (
            "one way",
            vec![stream("office"), one_way.clone()],
            vec![(
                Kind::OneWayAudio,
                "not a packet has come from network wan, while the other party is heard",
            )],
        ),
        (
            "one way any more",
            vec![Stream { expected: 900, ..one_way.clone() }],
            vec![(
                Kind::OneWayAudio,
                "nothing comes from network wan any more, while the other party is heard",
            )],
        ),
        (
            "from elsewhere",
            vec![Stream { refused: Some("10.0.0.9:4000".to_owned()), ..one_way }],
            vec![(
                Kind::OneWayAudio,
                "not a packet has come from network wan by the address that was signalled, but from 10.0.0.9:4000, which is refused",
            )],
        ),
        (
            "nobody, told once",
            vec![nobody.clone(), nobody],
            vec![(Kind::NoAudio, "the call is answered, and neither party is heard")],
        ),
        ("on hold", vec![Stream { finding: held, ..stream("wan") }], vec![]),
        (
            "lost behind",
            vec![Stream { finding: beyond, beyond_percent: Some(2.5), ..stream("wan") }],
            vec![(
                Kind::Loss,
                "2.5 % of the packets to network elsewhere are lost behind the appliance, as RTCP from there reports",
            )],
        ),
        (
            "uneven",
            vec![Stream { finding: uneven, jitter_ms: Some(44.0), ..stream("wan") }],
            vec![(Kind::Jitter, "packets from network wan come unevenly: 44 ms of jitter")],
        ),
    ];
    for (description, streams, expected) in rows {
        let found = find(&Observations { streams, ..Observations::default() });
        let said: Vec<(Kind, &str)> =
            found.iter().map(|symptom| (symptom.kind, symptom.what.as_str())).collect();
        assert_eq!(said, expected, "{description}");
    }
}

#[test]
fn a_stuck_phone_is_told_with_its_last_stage_and_the_likely_cause() {
    let phone = |seconds| Stranded {
        phone: "10.61.0.30".to_owned(),
        stage: "configuration_asked".to_owned(),
        detail: "/0004f2aabbcc.cfg 404".to_owned(),
        since: Duration::from_secs(seconds),
    };
    let seen = Observations { stranded: vec![phone(240)], ..Observations::default() };
    let found = find(&seen);
    assert_eq!(
        found[0].what,
        "it has not registered; the last that was seen of it, 4 min ago: configuration_asked (/0004f2aabbcc.cfg 404)"
    );
    assert!(
        found[0].advice.starts_with("next it registers: does its configuration exist"),
        "{}",
        found[0].advice
    );
    let seen = Observations { stranded: vec![phone(60)], ..Observations::default() };
    assert_eq!(find(&seen), [], "it may still be starting");
}

#[test]
fn the_worst_comes_first_and_every_kind_has_a_name_of_its_own() {
    let seen = Observations {
        servers: vec![server("10.0.0.1:5060", Health::Down(Failure::Silent))],
        overlaps: vec!["10.0.0.0/8 by eth0 and 10.0.1.0/24 by eth1".to_owned()],
        clock_synchronised: Some(false),
        lines: vec![("200@example.com".to_owned(), vec!["10.61.0.11".to_owned(), "10.61.0.12".to_owned()])],
        ..Observations::default()
    };
    let severities: Vec<Severity> = find(&seen).iter().map(|symptom| symptom.severity).collect();
    assert_eq!(severities, [Severity::Critical, Severity::Warning, Severity::Warning, Severity::Notice]);
    let names: std::collections::HashSet<&str> = Kind::ALL.iter().map(|kind| kind.as_label()).collect();
    assert_eq!(names.len(), Kind::ALL.len());
}
