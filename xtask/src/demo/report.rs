//! The demo's table for a person, and the promises that it checks.

use std::fmt::Write as _;

use super::measure::{Direction, Latency, Marks, Wire};
use super::metrics::Metrics;
use crate::lab::{Leg, Outcome, Plan, Role};

/// DSCP of RTP and RTCP: expedited forwarding (RFC 3246).
const MEDIA_DSCP: u8 = 46;
/// DSCP of SIP: class selector 3 (RFC 2474).
const SIP_DSCP: u8 = 24;
/// A flow's first packets are relayed in userspace while it learns its source. Of the packets of calls that are
/// not forced there, at least this share has to be the kernel's.
const KERNEL_SHARE: f64 = 0.97;
/// A held call hears nothing for its second third. SIP's round trips take a little of it.
const HOLD_SHARE: f64 = 0.8;
/// ITU-T G.114: from 150 ms one way, people notice. The appliance may take a small part of it.
const LATENCY_LIMIT_NS: u64 = 5_000_000;

/// What the daemon counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Media packets that the kernel forwarded.
    pub kernel: f64,
    /// Media packets that userspace forwarded.
    pub userspace: f64,
    /// Calls that were up at once.
    pub peak_calls: f64,
    /// After the last call: calls, flows, and media ports that are still held.
    pub left_calls: f64,
    /// See `left_calls`.
    pub left_flows: f64,
    /// See `left_calls`.
    pub left_ports: f64,
}

impl Counters {
    /// Takes them from `/metrics`, read after the last call.
    #[must_use]
    pub fn read(metrics: &Metrics, peak_calls: f64) -> Self {
        let packets = |datapath| metrics.sum("branchline_media_packets_total", &[("datapath", datapath)]);
        Self {
            kernel: packets("kernel"),
            userspace: packets("userspace"),
            peak_calls,
            left_calls: metrics.sum("branchline_calls_active", &[]),
            left_flows: metrics.sum("branchline_flows", &[]),
            left_ports: metrics.sum("branchline_media_ports_used", &[]),
        }
    }
}

/// All that a run has shown.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was to be done.
    pub plan: Plan,
    /// What the peers say of it.
    pub outcome: Outcome,
    /// What the wires saw, in the order of [`Direction::ALL`].
    pub wires: [Wire; 2],
    /// What the daemon counted.
    pub counters: Counters,
}

/// Something that the appliance promises, and whether it was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The promise.
    pub text: String,
    /// Whether it was kept.
    pub kept: bool,
    /// What was seen.
    pub seen: String,
}

fn promise(text: impl Into<String>, kept: bool, seen: impl Into<String>) -> Promise {
    Promise { text: text.into(), kept, seen: seen.into() }
}

/// Checks every promise.
#[must_use]
pub fn promises(facts: &Facts) -> Vec<Promise> {
    let planned: u64 = facts.plan.roles().iter().map(|(_, calls)| u64::from(*calls)).sum();
    let (answered, failed) = tallies(&facts.outcome);
    let mut list = vec![
        promise(
            "every phone registers and gets its own Contact back",
            u64::from(facts.outcome.registered) == planned,
            format!("{} of {planned}", facts.outcome.registered),
        ),
        promise(
            "every call is answered and ends as it should",
            answered == planned && failed == 0,
            format!("{answered} of {planned}, {failed} failed"),
        ),
        promise(
            "all calls are up at once",
            facts.counters.peak_calls >= planned as f64,
            format!("{:.0}", facts.counters.peak_calls),
        ),
        both_ways(&facts.outcome),
        hold(facts),
    ];
    for (direction, wire) in Direction::ALL.iter().zip(&facts.wires) {
        list.extend(of_the_wire(direction.name(), wire));
    }
    let forced = packets_of(Role::Userspace, &facts.outcome);
    let kernel_could = facts.counters.kernel + facts.counters.userspace - forced as f64;
    let share = if kernel_could > 0.0 { facts.counters.kernel / kernel_could } else { 0.0 };
    list.push(promise(
        format!(
            "the kernel forwards at least {:.0} % of what is not forced to userspace",
            KERNEL_SHARE * 100.0
        ),
        share >= KERNEL_SHARE,
        format!("{:.1} %", share * 100.0),
    ));
    list.push(promise(
        "the call that is forced to userspace is relayed there",
        forced > 0 && facts.counters.userspace >= forced as f64,
        format!("{:.0} packets in userspace, {forced} of that call", facts.counters.userspace),
    ));
    let Counters { left_calls, left_flows, left_ports, .. } = facts.counters;
    list.push(promise(
        "after the last call nothing is left",
        left_calls + left_flows + left_ports < 1.0,
        format!("{left_calls:.0} calls, {left_flows:.0} flows, {left_ports:.0} ports"),
    ));
    list
}

fn of_the_wire(direction: &str, wire: &Wire) -> Vec<Promise> {
    let marked = |what: &str, marks: &Marks, dscp: u8| {
        let all = !marks.is_empty() && marks.keys().all(|seen| *seen == dscp);
        promise(format!("{direction}: every {what} packet has DSCP {dscp}"), all, marks_seen(marks))
    };
    vec![
        marked("RTP", &wire.rtp_marks, MEDIA_DSCP),
        marked("RTCP", &wire.rtcp_marks, MEDIA_DSCP),
        marked("SIP", &wire.sip_marks, SIP_DSCP),
        promise(
            format!("{direction}: no packet is lost, doubled or made up"),
            wire.rtp_sent > 0 && wire.rtp_lost() + wire.rtcp_lost() + wire.unexpected == 0,
            format!(
                "{} of {} RTP and {} of {} RTCP lost, {} unexpected",
                wire.rtp_lost(),
                wire.rtp_sent,
                wire.rtcp_lost(),
                wire.rtcp_sent,
                wire.unexpected
            ),
        ),
        promise(
            format!("{direction}: every checksum is right"),
            wire.bad_checksums == 0,
            format!("{} wrong", wire.bad_checksums),
        ),
        promise(
            format!("{direction}: half of the packets cross in less than {}", milliseconds(LATENCY_LIMIT_NS)),
            wire.latency.packets > 0 && wire.latency.median_ns < LATENCY_LIMIT_NS,
            milliseconds(wire.latency.median_ns),
        ),
    ]
}

fn both_ways(outcome: &Outcome) -> Promise {
    let heard = |leg: &&Leg| leg.received > 0 && leg.reports_received > 0 && leg.strays == 0;
    let legs = || outcome.office.iter().chain(&outcome.centre);
    let (all, good) = (legs().count(), legs().filter(heard).count());
    promise(
        "both sides of every call hear RTP and RTCP, and only from where the SDP said",
        all > 0 && good == all,
        format!("{good} of {all} sides"),
    )
}

fn hold(facts: &Facts) -> Promise {
    let silence = (facts.plan.talk / 3).mul_f64(HOLD_SHARE);
    let held = facts.outcome.office.iter().find(|leg| *leg.local.ip() == Role::Hold.phone());
    let gap = held.map(|leg| leg.longest_gap).unwrap_or_default();
    // After two thirds without hold a phone has heard two thirds of the packets: it was resumed.
    let resumed = held.is_some_and(|leg| leg.received * 5 > leg.sent * 3);
    promise(
        "the call on hold is silent, and is resumed",
        gap >= silence && resumed,
        format!("{:.1} s of silence, {}", gap.as_secs_f64(), if resumed { "resumed" } else { "not resumed" }),
    )
}

/// Media packets that both sides of a role's calls sent.
fn packets_of(role: Role, outcome: &Outcome) -> u64 {
    let ours: Vec<&str> = outcome
        .office
        .iter()
        .filter(|leg| *leg.local.ip() == role.phone())
        .map(|leg| leg.call.as_str())
        .collect();
    let legs = outcome.office.iter().chain(&outcome.centre);
    legs.filter(|leg| ours.contains(&leg.call.as_str())).map(|leg| leg.sent + leg.reports_sent).sum()
}

fn tallies(outcome: &Outcome) -> (u64, u64) {
    outcome
        .calls
        .iter()
        .fold((0, 0), |(answered, failed), (_, tally)| (answered + tally.successful, failed + tally.failed))
}

/// The table.
#[must_use]
pub fn table(facts: &Facts) -> String {
    let mut text = String::new();
    let mut row = |name: &str, values: &[String]| {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {name:<30}{}",
            values.iter().map(|value| format!("{value:<26}")).collect::<String>()
        );
    };
    let (answered, failed) = tallies(&facts.outcome);
    let of_role =
        |role| facts.plan.roles().iter().find(|(has, _)| *has == role).map_or(0, |(_, calls)| *calls);
    row(
        "Calls",
        &[format!(
            "{} made ({} in, {} held, {} by userspace), {answered} answered, {failed} failed, {:.0} at once",
            answered + failed,
            of_role(Role::Inbound),
            of_role(Role::Hold),
            of_role(Role::Userspace),
            facts.counters.peak_calls
        )],
    );
    row("Registrations", &[facts.outcome.registered.to_string()]);
    let Counters { kernel, userspace, .. } = facts.counters;
    let share = if kernel + userspace > 0.0 { kernel / (kernel + userspace) * 100.0 } else { 0.0 };
    row(
        "Media packets",
        &[format!("{kernel:.0} in the kernel, {userspace:.0} in userspace: {share:.1} % in the kernel")],
    );
    row("", &[]);
    row("On the wire", &Direction::ALL.map(|direction| direction.name().to_owned()));
    let mut each = |name: &str, value: &dyn Fn(&Wire) -> String| {
        row(name, &[value(&facts.wires[0]), value(&facts.wires[1])]);
    };
    each("RTP out of in", &|wire| format!("{} of {}", wire.rtp_arrived, wire.rtp_sent));
    each("RTCP out of in", &|wire| format!("{} of {}", wire.rtcp_arrived, wire.rtcp_sent));
    each("RTP lost", &|wire| wire.rtp_lost().to_string());
    each("DSCP of RTP", &|wire| marks_seen(&wire.rtp_marks));
    each("DSCP of RTCP", &|wire| marks_seen(&wire.rtcp_marks));
    each("DSCP of SIP", &|wire| marks_seen(&wire.sip_marks));
    each("largest jitter, in / out", &|wire| {
        format!("{} / {}", milliseconds(wire.jitter_in_ns), milliseconds(wire.jitter_out_ns))
    });
    each("latency, kernel", &|wire| latency(wire.latency));
    each("latency, userspace", &|wire| latency(wire.forced_latency));
    let _ = writeln!(text, "  (latency: median / 99 % / largest, from one wire to the other)");
    text
}

/// The promises, one a line.
#[must_use]
pub fn list(promises: &[Promise]) -> String {
    promises
        .iter()
        .map(|promise| {
            let mark = if promise.kept { '✓' } else { '✗' };
            format!("  {mark} {}: {}\n", promise.text, promise.seen)
        })
        .collect()
}

fn marks_seen(marks: &Marks) -> String {
    if marks.is_empty() {
        return "none seen".to_owned();
    }
    marks.iter().map(|(dscp, packets)| format!("{dscp} ({packets})")).collect::<Vec<_>>().join(", ")
}

fn latency(latency: Latency) -> String {
    let milliseconds = |ns: u64| format!("{:.2}", ns as f64 / 1e6);
    format!(
        "{} / {} / {} ms",
        milliseconds(latency.median_ns),
        milliseconds(latency.p99_ns),
        milliseconds(latency.max_ns)
    )
}

fn milliseconds(ns: u64) -> String {
    format!("{:.2} ms", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::rtp::Receiver;
    use crate::lab::sipp::Tally;
    use crate::lab::traffic::Via;

    fn leg(role: Role, call: &str, office: bool) -> Leg {
        let address = if office { role.phone() } else { crate::lab::network::SERVER };
        Leg {
            call: call.to_owned(),
            local: std::net::SocketAddrV4::new(address, 20_000),
            remote: None,
            ssrc: 1,
            sent: 600,
            lost: 0,
            twice: 0,
            overtaken: 0,
            reports_sent: 12,
            heard: Receiver::default(),
            received: if role == Role::Hold && office { 400 } else { 600 },
            reports_received: 12,
            strays: 0,
            longest_gap: if role == Role::Hold && office {
                Duration::from_secs(4)
            } else {
                Duration::from_millis(25)
            },
            closed: true,
        }
    }

    fn good() -> Facts {
        let plan = Plan { calls: 4, talk: Duration::from_secs(12), via: Via::Appliance };
        let roles = plan.roles().map(|(role, _)| role);
        let wire = Wire {
            rtp_sent: 2400,
            rtp_arrived: 2400,
            rtcp_sent: 48,
            rtcp_arrived: 48,
            rtp_marks: Marks::from([(46, 2400)]),
            rtcp_marks: Marks::from([(46, 48)]),
            sip_marks: Marks::from([(24, 30)]),
            latency: Latency { packets: 1800, median_ns: 20_000, p99_ns: 90_000, max_ns: 1_000_000 },
            ..Wire::default()
        };
        Facts {
            plan,
            outcome: Outcome {
                calls: roles.map(|role| (role, Tally { successful: 1, failed: 0 })).to_vec(),
                registered: 4,
                office: roles.iter().map(|role| leg(*role, &format!("{role:?}"), true)).collect(),
                centre: roles.iter().map(|role| leg(*role, &format!("{role:?}"), false)).collect(),
                complaints: Vec::new(),
            },
            wires: [wire.clone(), wire],
            counters: Counters { kernel: 3640.0, userspace: 1256.0, peak_calls: 4.0, ..Counters::default() },
        }
    }

    fn broken(facts: &Facts) -> Vec<String> {
        promises(facts).into_iter().filter(|promise| !promise.kept).map(|promise| promise.text).collect()
    }

    #[test]
    fn a_good_run_keeps_every_promise() {
        assert_eq!(broken(&good()), Vec::<String>::new());
        let table = table(&good());
        assert!(table.contains("46 (2400)") && table.contains("24 (30)"), "{table}");
    }

    #[test]
    fn each_fault_breaks_its_own_promise() {
        type Fault = fn(&mut Facts);
        let rows: [(&str, Fault, &str); 10] = [
            ("a phone is not registered", |facts| facts.outcome.registered = 3, "every phone registers"),
            (
                "a call fails",
                |facts| facts.outcome.calls[0].1 = Tally { successful: 0, failed: 1 },
                "every call is answered",
            ),
            ("calls one after the other", |facts| facts.counters.peak_calls = 1.0, "all calls are up"),
            ("one side hears nothing", |facts| facts.outcome.centre[0].received = 0, "both sides"),
            (
                "hold that is not silent",
                |facts| facts.outcome.office[2].longest_gap = Duration::ZERO,
                "the call on hold",
            ),
            (
                "one packet unmarked",
                |facts| facts.wires[0].rtp_marks = Marks::from([(46, 2399), (0, 1)]),
                "phones to servers: every RTP",
            ),
            (
                "SIP marked as media",
                |facts| facts.wires[1].sip_marks = Marks::from([(46, 30)]),
                "servers to phones: every SIP",
            ),
            ("a packet lost", |facts| facts.wires[1].rtp_arrived -= 1, "servers to phones: no packet"),
            ("nothing in the kernel", |facts| facts.counters.kernel = 0.0, "the kernel forwards"),
            ("a flow left", |facts| facts.counters.left_flows = 1.0, "after the last call"),
        ];
        for (description, fault, expected) in rows {
            let mut facts = good();
            fault(&mut facts);
            let broken = broken(&facts);
            assert!(broken.len() == 1 && broken[0].starts_with(expected), "{description}: {broken:?}");
        }
    }
}
