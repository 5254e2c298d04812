//! How long calls take to be set up, idle and while media passes: captured on the phone's wire and on the server's, so that
//! what phones and server take themselves is not in it.
//!
//! The floor is the kernel as a plain router between the two: no edge at all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, interrupt};

use super::standing::{Standing, caller, forget, server};
use super::wire::{self, SetUp, Wire};
use crate::cores::{self, Core};
use crate::report::Spread;
use crate::sip;
use crate::testbed::Testbed;
use crate::throughput::COMMON_RATE;
use crate::traffic::{Load, Rate, Turn};

/// New calls a second.
const CALLS_PER_SECOND: u32 = 50;
/// Calls that have media meanwhile, and how many of them are set up in a second.
const STANDING: usize = 200;
const SET_UP: u32 = 200;
/// The phone of the calls that are timed.
const PHONE: u8 = 2;
/// Media is under way for so long before calls begin.
const AHEAD: Duration = Duration::from_millis(500);
/// Calls end within the time that their rate takes, and this.
const PATIENCE: Duration = Duration::from_secs(20);
/// Parts of the calls, for quantiles.
const PARTS: [f64; 3] = [0.5, 0.9, 0.99];
/// The media that is meant is sent with this part of its rate.
const REACHED: f64 = 0.5;

/// Who is between phones and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// The kernel as a router.
    Router,
    /// An edge.
    Edge(sip::Edge),
}

impl Between {
    const ALL: [Self; 3] = [Self::Router, Self::Edge(sip::Edge::Ours), Self::Edge(sip::Edge::Kamailio)];

    const fn name(self) -> &'static str {
        match self {
            Self::Router => "none (router)",
            Self::Edge(edge) => edge.name(),
        }
    }

    /// Half of what a held run carried is for who carries that in the kernel.
    fn loads(self, half: f64) -> Vec<Media> {
        let mut loads = vec![Media::None, Media::Common];
        if self != Self::Edge(sip::Edge::Kamailio) {
            loads.push(Media::Half(half));
        }
        loads
    }
}

/// What media passes meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Media {
    /// None.
    None,
    /// What all of them carry.
    Common,
    /// Half of what was carried with hardly any loss, in packets a second.
    Half(f64),
}

impl Media {
    const fn rate(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Common => Some(COMMON_RATE),
            Self::Half(rate) => Some(rate),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Common => "common",
            Self::Half(_) => "half",
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    between: Between,
    round: usize,
    media: Media,
    /// Packets a second that were sent, and the part of them that was lost.
    sent: f64,
    lost: f64,
    calls: u32,
    retransmissions: u64,
    set_ups: Vec<SetUp>,
}

/// How many steps [`run`] says.
#[must_use]
pub(super) const fn steps(rounds: usize) -> usize {
    rounds * Between::ALL.len()
}

/// Times calls by each edge in turn, in each round.
///
/// # Errors
/// An edge does not start, a call fails, or a message of one is missing in the captures.
pub(super) fn run(
    bed: &Testbed,
    rounds: usize,
    calls: u32,
    carried: f64,
    mut says: impl FnMut(&str),
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for between in Between::ALL {
            let what = format!("set-up by {}, round {round}", between.name());
            runs.extend(one(bed, between, round, calls, carried / 2.0).with_context(|| what.clone())?);
            says(&what);
        }
    }
    Ok(runs)
}

/// The kernel as a router between both networks. Dropping it takes that back.
struct Router<'t>(&'t Testbed);

impl<'t> Router<'t> {
    fn between(bed: &'t Testbed) -> Result<Self> {
        let router = Self(bed);
        bed.lab.office.ip(&["route", "add", "default", "via", &APPLIANCE_OFFICE.to_string()])?;
        bed.lab.centre.ip(&["route", "add", "default", "via", &APPLIANCE_CENTRE.to_string()])?;
        router.forward("1")?;
        Ok(router)
    }

    fn forward(&self, whether: &str) -> Result<()> {
        self.0.lab.branch.set("net/ipv4/ip_forward", whether)
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        // The namespaces go soon, and their routes with them.
        let _ = self.0.lab.office.ip(&["route", "delete", "default"]);
        let _ = self.0.lab.centre.ip(&["route", "delete", "default"]);
        let _ = self.forward("0");
    }
}

/// What is taken away after a round.
#[expect(dead_code, reason = "held to be dropped")]
enum InPlace<'t> {
    Router(Router<'t>),
    Edge(sip::InPlace),
}

fn one(bed: &Testbed, between: Between, round: usize, calls: u32, half: f64) -> Result<Vec<Run>> {
    forget(bed)?;
    let _server = server(bed)?;
    let (edge, _in_place) = match between {
        Between::Router => (SocketAddrV4::new(SERVER, PEER_SIP), InPlace::Router(Router::between(bed)?)),
        Between::Edge(edge) => {
            let edge = InPlace::Edge(sip::InPlace::put(bed, edge)?);
            (SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP), edge)
        }
    };
    let [arrivals, sink] = [cores::receiver(&bed.names.arrivals)?, cores::receiver(&bed.names.sink)?];
    cores::pin(arrivals, Core::FORWARDING)?;
    // Where the edge's process has its turn on this core, the kernel's thread is not to keep it from that.
    cores::put_among_all(arrivals)?;
    cores::pin(sink, Core::TRAFFIC)?;
    cores::put_before_all(sink)?;
    let mut standing = Standing::none(edge);
    standing.up_to(bed, STANDING, SET_UP)?;
    bed.traffic.set_streams(&standing.routes)?;
    let captures = [
        Capture::start(&bed.lab.office, &bed.names.generator, "wire-of-phones", bed.lab.dir())?,
        Capture::start(&bed.lab.centre, &bed.names.sink, "wire-of-server", bed.lab.dir())?,
    ];
    let mut timed = Vec::new();
    for media in between.loads(half) {
        timed.push(time(bed, edge, between, round, media, calls)?);
    }
    let mut wires = Vec::new();
    for capture in captures {
        let file = capture.end()?;
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        wires.push(wire::read(&bytes).with_context(|| file.display().to_string())?);
    }
    let [phones, servers] = <[Wire; 2]>::try_from(wires).ok().context("two captures")?;
    timed.into_iter().map(|(pid, run)| evaluated(run, pid, &phones, &servers)).collect()
}

/// One rate of media, and calls meanwhile; and by which process, whose number is in their Call-ID.
fn time(
    bed: &Testbed,
    edge: SocketAddrV4,
    between: Between,
    round: usize,
    media: Media,
    calls: u32,
) -> Result<(u32, Run)> {
    let takes = Duration::from_secs_f64(f64::from(calls) / f64::from(CALLS_PER_SECOND));
    let flight = match media.rate() {
        None => None,
        Some(rate) => {
            let load = Load::new(Rate::PerSecond(rate), takes + PATIENCE);
            Some(bed.traffic.begin(&bed.lab.office, STANDING, load, Turn::Fair)?)
        }
    };
    interrupt::sleep(AHEAD)?;
    let mut job = caller("timed", phone(PHONE), edge);
    (job.rate, job.calls) = (CALLS_PER_SECOND, Some(calls));
    let mut sipp = job.start(&bed.lab.office, bed.lab.dir())?;
    sip::on_traffic_core(&sipp)?;
    let pid = sipp.pid();
    sipp.succeed(takes + PATIENCE)?;
    let retransmissions = sipp.statistic("Retransmissions(C)")?.parse()?;
    let (mut sent, mut lost) = (0.0, 0.0);
    if let Some(flight) = flight {
        let ran = flight.cut_short()?;
        sent = ran.sent as f64 / ran.time.as_secs_f64();
        lost = ran.lost() as f64 / ran.sent.max(1) as f64;
        ensure!(
            ran.received.wrong_content == 0 && ran.received.packets > 0,
            "of {} packets {} arrived, {} with a wrong checksum",
            ran.sent,
            ran.received.packets,
            ran.received.wrong_content
        );
        ensure!(
            sent >= REACHED * media.rate().unwrap_or(0.0),
            "{sent:.0} packets a second were sent where {media:?} was meant"
        );
    }
    let run = Run { between, round, media, sent, lost, calls, retransmissions, set_ups: Vec::new() };
    Ok((pid, run))
}

/// The run with the times of its calls.
fn evaluated(mut run: Run, pid: u32, phones: &Wire, servers: &Wire) -> Result<Run> {
    // SIPp's Call-ID is the call's number, the process's, and the address.
    let mark = format!("-{pid}@");
    let own = phones.iter().filter(|(call, _)| call.contains(&mark));
    let set_ups: Vec<SetUp> =
        own.filter_map(|(call, at_phone)| wire::set_up(*at_phone, *servers.get(call)?)).collect();
    ensure!(
        set_ups.len() == run.calls as usize,
        "of {} calls {} are whole in both captures",
        run.calls,
        set_ups.len()
    );
    run.set_ups = set_ups;
    Ok(run)
}

/// The value that this part of the figures does not exceed (nearest rank).
fn quantile(mut figures: Vec<f64>, part: f64) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() as f64 * part).ceil() as usize;
    figures.into_iter().nth(rank.saturating_sub(1))
}

/// The runs as a table in Markdown.
#[must_use]
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| edge | media, packets/s | of these lost | INVITE and 180 in the edge, us: p50 | p90 | p99 | 200 in the edge, us: p50 | p99 | \
         INVITE to 180 at the phone, us: p50 | p99 | retransmissions |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for between in Between::ALL {
        let media: BTreeSet<&str> =
            runs.iter().filter(|run| run.between == between).map(|run| run.media.name()).collect();
        // Less first, by the order of the names that were measured.
        for name in ["none", "common", "half"].into_iter().filter(|name| media.contains(name)) {
            let fitting: Vec<&Run> =
                runs.iter().filter(|run| run.between == between && run.media.name() == name).collect();
            let at = |figure: fn(&SetUp) -> f64, part: f64| {
                let of_run = |run: &&Run| quantile(run.set_ups.iter().map(figure).collect(), part);
                Spread::of(fitting.iter().filter_map(of_run).collect()).map_or_else(
                    || "-".to_owned(),
                    |it| format!("{:.0} ({:.0}-{:.0})", it.median, it.min, it.max),
                )
            };
            let middle = |figure: fn(&Run) -> f64| {
                Spread::of(fitting.iter().map(|run| figure(run)).collect()).map_or(0.0, |it| it.median)
            };
            let ringing = PARTS.map(|part| at(|it| it.ringing, part));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.3} % | {} | {} | {} | {} | {} | {} |",
                between.name(),
                middle(|run| run.sent),
                middle(|run| run.lost) * 100.0,
                ringing.join(" | "),
                at(|it| it.answer, 0.5),
                at(|it| it.answer, 0.99),
                at(|it| it.seen, 0.5),
                at(|it| it.seen, 0.99),
                fitting.iter().map(|run| run.retransmissions).sum::<u64>(),
            );
        }
    }
    text
}

/// Every call as comma-separated values.
#[must_use]
pub(super) fn csv(runs: &[Run]) -> String {
    let mut text = String::from("edge,round,media,sent_per_s,lost_part,ringing_us,answer_us,seen_us\n");
    for run in runs {
        for it in &run.set_ups {
            let _ = writeln!(
                text,
                "{},{},{},{:.0},{:.6},{:.1},{:.1},{:.1}",
                run.between.name(),
                run.round,
                run.media.name(),
                run.sent,
                run.lost,
                it.ringing,
                it.answer,
                it.seen
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_value_at_its_rank() {
        let figures: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (part, expected) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(quantile(figures.clone(), part), Some(expected), "{part}");
        }
        assert_eq!(quantile(vec![7.0], 0.5), Some(7.0));
        assert_eq!(quantile(Vec::new(), 0.5), None);
    }

    #[test]
    fn a_call_that_is_on_one_wire_only_spoils_its_run() {
        let passed = |times: [u64; 3]| {
            let [invite, ringing, answer] = times.map(Some);
            wire::Passed { invite, ringing, answer }
        };
        let name = "1-7@10.61.0.11".to_owned();
        let phones = Wire::from([
            (name.clone(), passed([0, 5_000, 9_000])),
            ("1-8@10.61.0.11".to_owned(), passed([0, 1, 2])),
        ]);
        let run = Run {
            between: Between::Router,
            round: 1,
            media: Media::None,
            sent: 0.0,
            lost: 0.0,
            calls: 1,
            retransmissions: 0,
            set_ups: Vec::new(),
        };
        let servers = Wire::from([(name, passed([1_000, 4_000, 8_000]))]);
        let found = evaluated(run.clone(), 7, &phones, &servers).unwrap();
        assert_eq!(found.set_ups, [SetUp { ringing: 2.0, answer: 1.0, seen: 5.0 }]);
        assert!(evaluated(run, 7, &phones, &Wire::new()).is_err());
    }

    #[test]
    fn each_edge_is_loaded_with_what_it_carries() {
        for between in Between::ALL {
            let names: Vec<&str> = between.loads(1.0).into_iter().map(Media::name).collect();
            let half = between != Between::Edge(sip::Edge::Kamailio);
            assert_eq!(names, if half { vec!["none", "common", "half"] } else { vec!["none", "common"] });
        }
    }
}
