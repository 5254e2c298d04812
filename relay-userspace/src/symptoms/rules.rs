//! One rule for each kind of trouble.

use std::{collections::BTreeMap, time::Duration};

use super::{Kind, Observations, Severity, Stream, Symptom};
use crate::{
    config::UPSTREAM_GROUP,
    quality::{Place, Verdict},
    upstream::{Failure, Health, ServerState},
};

/// One-way delay that callers notice, and that hurts (ITU-T G.114).
const NOTICEABLE: Duration = Duration::from_millis(150);
const SEVERE: Duration = Duration::from_millis(300);
/// Packets of a stream before its mark is judged: four seconds.
const ENOUGH: u64 = 200;
/// Loss that makes speech hard to follow, in packets of a hundred.
const BAD: f64 = 5.0;
/// How long after its last sign a phone should have registered.
const REGISTERED_WITHIN: Duration = Duration::from_secs(180);
/// Calls, phones and lines that are named; more of them are counted.
const NAMED: usize = 20;

/// What is wrong, the worst first.
#[must_use]
pub fn find(seen: &Observations) -> Vec<Symptom> {
    let mut found = Vec::new();
    if let Some(length) = seen.alone {
        let several = seen.servers.iter().any(|server| server.group != UPSTREAM_GROUP);
        let (servers, office) = if several {
            (format!("no server of {}", seen.alone_groups.join(", ")), "its phones are on their own")
        } else {
            ("no server".to_owned(), "the office is on its own")
        };
        found.push(Symptom {
            kind: Kind::Survival,
            severity: Severity::Critical,
            subject: "servers".to_owned(),
            what: format!(
                "{servers} can be reached for {} s: {office}; calls within the office and by its trunks work",
                length.as_secs()
            ),
            advice: "see why each server fails; phones return by themselves when one is back".to_owned(),
        });
    }
    trunks(&seen.trunks, &mut found);
    servers(&seen.servers, &mut found);
    for pair in &seen.overlaps {
        found.push(Symptom {
            kind: Kind::OverlappingSubnets,
            severity: Severity::Warning,
            subject: "routes".to_owned(),
            what: format!("the same subnet is behind two interfaces: {pair}"),
            advice: "hosts in the overlap are reached by one of the two only; renumber one side".to_owned(),
        });
    }
    if seen.clock_synchronised == Some(false) {
        found.push(Symptom {
            kind: Kind::ClockUnsynchronised,
            severity: Severity::Warning,
            subject: "clock".to_owned(),
            what: "nobody sets this host's clock; phones that take their time from it check certificates against it"
                .to_owned(),
            advice: "install and start a time service such as chrony, and see that its servers can be reached".to_owned(),
        });
    }
    unmarked(&seen.streams, &mut found);
    delayed(&seen.streams, &mut found);
    lossy(&seen.streams, &mut found);
    unheard(&seen.streams, &mut found);
    for (line, phones) in seen.lines.iter().filter(|(_, phones)| phones.len() > 1).take(NAMED) {
        found.push(Symptom {
            kind: Kind::SharedLine,
            severity: Severity::Notice,
            subject: line.clone(),
            what: format!("{} phones are registered for one line: {}", phones.len(), phones.join(", ")),
            advice: "all of them ring; if that is not meant, one has another's configuration".to_owned(),
        });
    }
    for phone in seen.stranded.iter().filter(|phone| phone.since >= REGISTERED_WITHIN).take(NAMED) {
        found.push(Symptom {
            kind: Kind::PhoneStuck,
            severity: Severity::Notice,
            subject: phone.phone.clone(),
            what: format!(
                "it has not registered; the last that was seen of it, {} min ago: {} ({})",
                phone.since.as_secs() / 60,
                phone.stage,
                phone.detail
            ),
            advice: next_step(&phone.stage).to_owned(),
        });
    }
    found.sort_by_key(|symptom| std::cmp::Reverse(symptom.severity));
    found
}

fn trunks(trunks: &[(String, Vec<ServerState>)], found: &mut Vec<Symptom>) {
    for (name, servers) in trunks {
        let why = |server: &ServerState| match (&server.health, &server.unresolved) {
            (_, Some(why)) if server.address.is_none() => Some(format!("its name does not resolve: {why}")),
            (Health::Down(failure), _) => Some(failure.to_string()),
            (Health::Up | Health::Unknown, _) => None,
        };
        let reasons: Vec<String> = servers.iter().filter_map(why).collect();
        if reasons.len() == servers.len() && !reasons.is_empty() {
            found.push(Symptom {
                kind: Kind::TrunkOutOfService,
                severity: Severity::Warning,
                subject: name.clone(),
                what: format!("the trunk is out of service: {}", reasons.join("; ")),
                advice: "calls and emergency calls do not leave by it; look at the gateway and its network"
                    .to_owned(),
            });
        }
    }
}

fn servers(servers: &[ServerState], found: &mut Vec<Symptom>) {
    let failure = |server: &ServerState| match (&server.health, &server.unresolved) {
        (_, Some(why)) if server.address.is_none() => {
            Some(("name", format!("its name does not resolve: {why}")))
        }
        (Health::Down(failure), _) if !server.standby => Some((failure.step(), failure.to_string())),
        _ => None,
    };
    for server in servers {
        let mut group = servers.iter().filter(|other| other.group == server.group);
        let all = group.all(|server| failure(server).is_some());
        let Some((step, why)) = failure(server) else { continue };
        let address = server.address.map_or_else(String::new, |address| format!(" at {address}"));
        let certificate = matches!(&server.health, Health::Down(Failure::Connection(_, why)) if why.contains("certificate"));
        let advice = match step {
            _ if certificate => {
                "look at the certificate, and trust it on the page or with `branchline certificates`"
            }
            "name" => "check the name, and that this host's servers of DNS answer (`upstream.dns`)",
            "route" => "check the VPN, the interface and the routes (`branchline doctor`)",
            "tcp" => "check the port, and the firewalls on the way",
            "tls" => "check that the server speaks TLS on this port, and which suites and versions",
            _ => "check that the server runs and lets this address in",
        };
        found.push(Symptom {
            kind: if certificate { Kind::CertificateNotTrusted } else { Kind::ServerUnreachable },
            severity: if all { Severity::Critical } else { Severity::Warning },
            subject: format!("{}{address}", server.server),
            what: format!("it fails at the step \"{step}\": {why}"),
            advice: advice.to_owned(),
        });
    }
}

/// Marks are lost on the way by networks, not by single calls.
fn unmarked(streams: &[Stream], found: &mut Vec<Symptom>) {
    let mut networks: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for stream in streams.iter().filter(|stream| stream.expected >= ENOUGH) {
        let (all, unmarked) = networks.entry(&stream.network).or_default();
        *all += 1;
        *unmarked += usize::from(stream.dscp == 0);
    }
    for (network, (all, unmarked)) in networks.into_iter().filter(|(_, (_, unmarked))| *unmarked > 0) {
        found.push(Symptom {
            kind: Kind::DscpLost,
            severity: Severity::Notice,
            subject: format!("network {network}"),
            what: format!("{unmarked} of {all} media streams arrive from it with DSCP 0"),
            advice:
                "the sender does not mark, or a router or provider on the way clears the mark: they have no \
                     priority before the appliance; what leaves it is marked"
                    .to_owned(),
        });
    }
}

/// The delay from mouth to ear that the network adds is about half of both round trips.
fn delayed(streams: &[Stream], found: &mut Vec<Symptom>) {
    let mut calls: BTreeMap<&[u8], Vec<(&Stream, Duration)>> = BTreeMap::new();
    for stream in streams {
        if let Some(time) = stream.round_trip {
            calls.entry(&stream.call_key).or_default().push((stream, time));
        }
    }
    let slow = calls.values().filter_map(|sides| {
        let one_way = sides.iter().map(|(_, time)| *time).sum::<Duration>() / 2;
        let far = sides.iter().max_by_key(|(_, time)| *time)?;
        (one_way >= NOTICEABLE).then_some((one_way, *far))
    });
    for (one_way, (far, time)) in slow.take(NAMED) {
        found.push(Symptom {
            kind: Kind::Latency,
            severity: if one_way >= SEVERE { Severity::Warning } else { Severity::Notice },
            subject: far.call.to_string(),
            what: format!(
                "about {} ms from one party to the other; most of it toward network {}: {} ms there and back",
                one_way.as_millis(),
                far.network,
                time.as_millis()
            ),
            advice: "callers begin to interrupt each other above 150 ms; look at the line and the VPN of that side"
                .to_owned(),
        });
    }
}

fn lossy(streams: &[Stream], found: &mut Vec<Symptom>) {
    for stream in streams.iter().filter(|stream| stream.finding.verdict == Verdict::Lossy).take(NAMED) {
        let beyond = stream.finding.place == Some(Place::Beyond);
        let share = if beyond {
            stream.beyond_percent.unwrap_or_default()
        } else {
            stream.lost as f64 * 100.0 / stream.expected.max(1) as f64
        };
        found.push(Symptom {
            kind: Kind::Loss,
            severity: if share >= BAD { Severity::Warning } else { Severity::Notice },
            subject: stream.call.to_string(),
            what: if beyond {
                format!(
                    "{share:.1} % of the packets to network {} are lost behind the appliance, as RTCP from there reports",
                    stream.to_network
                )
            } else {
                format!(
                    "{share:.1} % of the packets from network {} are lost before they reach the appliance ({} of {})",
                    stream.network, stream.lost, stream.expected
                )
            },
            advice: "the loss is on that side: look at its line, its Wi-Fi, its switches, and at the queues of its \
                     uplink"
                .to_owned(),
        });
    }
    for stream in streams.iter().filter(|stream| stream.finding.verdict == Verdict::HighJitter).take(NAMED) {
        found.push(Symptom {
            kind: Kind::Jitter,
            severity: Severity::Notice,
            subject: stream.call.to_string(),
            what: format!(
                "packets from network {} come unevenly: {:.0} ms of jitter",
                stream.network,
                stream.jitter_ms.unwrap_or_default()
            ),
            advice: "phones throw away what comes too late: look for full queues and Wi-Fi on that side"
                .to_owned(),
        });
    }
}

fn unheard(streams: &[Stream], found: &mut Vec<Symptom>) {
    let missing = |verdict: Verdict| {
        let unheard = streams.iter().filter(|stream| stream.finding.verdict == Verdict::OneWayAudio);
        unheard.filter(move |stream| stream.verdict == verdict)
    };
    for stream in missing(Verdict::OneWayAudio).take(NAMED) {
        let refused = stream.refused.as_ref();
        found.push(Symptom {
            kind: Kind::OneWayAudio,
            severity: Severity::Warning,
            subject: stream.call.to_string(),
            what: match (stream.expected, refused) {
                (0, None) => format!("not a packet has come from network {}, while the other party is heard", stream.network),
                (0, Some(source)) => format!(
                    "not a packet has come from network {} by the address that was signalled, but from {source}, which is refused",
                    stream.network
                ),
                _ => format!("nothing comes from network {} any more, while the other party is heard", stream.network),
            },
            advice: "a firewall drops the media of that side, or its phone sends from another address than it says: \
                     `branchline flows` lists refused sources"
                .to_owned(),
        });
    }
    let mut told: Vec<&[u8]> = Vec::new();
    for stream in missing(Verdict::NoAudio) {
        if told.contains(&&*stream.call_key) || told.len() >= NAMED {
            continue;
        }
        told.push(&stream.call_key);
        found.push(Symptom {
            kind: Kind::NoAudio,
            severity: Severity::Warning,
            subject: stream.call.to_string(),
            what: "the call is answered, and neither party is heard".to_owned(),
            advice:
                "firewalls drop the media on both sides, or both send elsewhere: check that the ports of \
                     `media_ports` are open toward both networks"
                    .to_owned(),
        });
    }
}

/// What would have come next in a phone's start, and what keeps it from coming.
fn next_step(stage: &str) -> &'static str {
    if stage.contains("dhcp") || stage.contains("inform") {
        "next it asks for its configuration: does the name in option 160 resolve for it, and can it reach ports 8088 and 8089?"
    } else if stage.contains("firmware") {
        "next it asks for its configuration: a phone that only asks for firmware again restarts in a loop"
    } else if stage.contains("configuration") {
        "next it registers: does its configuration exist at the server, is the time right, does it trust the certificate?"
    } else if stage.contains("time") {
        "next it asks for its configuration, or registers: is option 160 set for it?"
    } else {
        "its configuration has no server, or it cannot reach the appliance's SIP port"
    }
}
