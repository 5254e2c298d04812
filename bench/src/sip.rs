//! Calls and registrations a second: the daemon beside Kamailio with rtpengine, as edge of an office, on one core.
//!
//! Both anchor the media of every call: the description that each side gets names a port of the edge, installed and taken
//! away with the call. SIPp makes the calls and answers them on the other core; no media is sent. CPU is that of the
//! contender's processes by the scheduler's account, so what the kernel does for their datagrams outside of system calls
//! is in nobody's figure. A rate is held if every call at it succeeds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::demo::appliance::{self, Appliance, Settings};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::{Job, Messages, Scenario, Sipp};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Running, interrupt};

use crate::contender;
use crate::cores::{self, Core};
use crate::report::{Spread, Target};
use crate::testbed::Testbed;

/// The rates at which the CPU of a call, and of a registration, is compared.
const CALLS_COMPARED: u32 = 200;
const REGISTRATIONS_COMPARED: u32 = 400;
/// The rates that are tried for calls, up from the one that the round before held, or down from it if it is not held any
/// more: SIPp on one core makes and answers no more than the last.
const LADDER: [u32; 5] = [400, 600, 800, 1000, 1200];
/// Calls before anything is measured.
const WARM_UP: u32 = 50;
/// A run takes its time, and this at most: what an edge answers later it does not hold.
const PATIENCE: Duration = Duration::from_secs(20);
/// The phone that calls, and registers first.
const PHONE: u8 = 3;
/// Users that register in turn.
const USERS: u32 = 2000;
/// What is waited for comes within a moment.
const LIMIT: Duration = Duration::from_secs(30);

/// Who is the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The daemon.
    Ours,
    /// Kamailio with rtpengine in userspace.
    Kamailio,
}

impl Edge {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Ours, Self::Kamailio];

    /// For tables.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "branchline",
            Self::Kamailio => "kamailio+rtpengine",
        }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// INVITE, 180, 200, ACK, BYE, 200, with media anchored.
    Calls,
    /// REGISTER, 401, REGISTER, 200.
    Registrations,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Registrations => "registrations",
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    edge: Edge,
    round: usize,
    work: Work,
    /// Per second, as asked for.
    rate: u32,
    asked: u32,
    successful: u64,
    /// Retransmissions by the phones.
    retransmissions: u64,
    /// CPU of all its processes, and of rtpengine alone.
    cpu: Duration,
    relay_cpu: Duration,
    took: Duration,
}

impl Run {
    fn held(&self) -> bool {
        self.successful == u64::from(self.asked)
    }

    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / f64::from(self.asked)
    }
}

/// A contender in its place.
pub(crate) struct InPlace {
    edge: Edge,
    appliance: Option<Appliance>,
    /// Kamailio, then rtpengine.
    processes: Vec<Running>,
}

impl InPlace {
    /// Puts it there, its threads on the core that forwards.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn put(bed: &Testbed, edge: Edge) -> Result<Self> {
        let mut place = Self { edge, appliance: None, processes: Vec::new() };
        match edge {
            Edge::Ours => place.appliance = Some(daemon(bed)?),
            Edge::Kamailio => {
                let (relay, _) = contender::rtpengine::start(
                    bed,
                    0,
                    contender::Media::Plain,
                    contender::rtpengine::By::Process,
                )?;
                place.processes = vec![kamailio(bed)?, relay];
            }
        }
        for thread in place.threads(0)?.into_iter().chain(place.threads(1)?) {
            cores::pin(thread, Core::FORWARDING)?;
        }
        Ok(place)
    }

    /// The threads of its processes from the first, or from the second on.
    fn threads(&self, from: usize) -> Result<Vec<u32>> {
        let pids = self.appliance.iter().map(Appliance::pid).chain(self.processes.iter().map(Running::pid));
        let mut threads = Vec::new();
        for pid in pids.skip(from) {
            threads.extend(cores::threads_of_family(pid)?);
        }
        Ok(threads)
    }

    fn cpu(&self) -> Result<[Duration; 2]> {
        Ok([cores::run_time(&self.threads(0)?)?, cores::run_time(&self.threads(1)?)?])
    }
}

fn daemon(bed: &Testbed) -> Result<Appliance> {
    Appliance::start_with(&bed.lab, &settings(bed))
}

/// The daemon as it is measured: forwarding in the kernel, and apart from any other of this host.
#[must_use]
pub(crate) fn settings(bed: &Testbed) -> Settings {
    Settings {
        office_interface: bed.names.arrivals.clone(),
        centre: (bed.names.departures.clone(), APPLIANCE_CENTRE.into()),
        datapath: "engine = \"kernel\"\n".to_owned(),
        upstream: "probe_seconds = 0\n".to_owned(),
        // All calls come from one address, as they do from no office.
        tables: "[protection]\nsource_packets_per_second = 0\nunknown_packets_per_second = 0\n".to_owned(),
        launcher: ["unshare", "--mount", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]
            .map(str::to_owned)
            .to_vec(),
        ..Settings::of(appliance::program())
    }
}

fn kamailio(bed: &Testbed) -> Result<Running> {
    let text = include_str!("../scenarios/proxy.cfg")
        .replace("OFFICE", &SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP).to_string())
        .replace("CENTRE", &SocketAddrV4::new(APPLIANCE_CENTRE, APPLIANCE_SIP).to_string())
        .replace("SERVER", &SocketAddrV4::new(SERVER, PEER_SIP).to_string())
        .replace("NG", &contender::rtpengine::NG.to_string());
    let file = bed.lab.dir().join("proxy.cfg");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = bed.command("kamailio");
    command.args(["-DD", "-E", "-m", "256", "-M", "16", "-P"]).arg(bed.lab.dir().join("proxy.pid"));
    command.arg("-f").arg(&file);
    let running = Running::start(&mut command, "proxy", bed.lab.dir())?;
    bed.lab
        .branch
        .wait_for_udp(SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP), LIMIT)
        .with_context(|| running.last_words())?;
    Ok(running)
}

/// Measures both, in turn, in each round.
///
/// # Errors
/// A contender does not start, or does not do its work at the rate that is compared.
pub(crate) fn run(
    bed: &Testbed,
    rounds: usize,
    time: Duration,
    mut says: impl FnMut(&str),
) -> Result<Vec<Run>> {
    bed.receive_first()?;
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for edge in Edge::ALL {
            says(&format!("{}, round {round}", edge.name()));
            let best = held(&runs, edge).remove(&(round - 1));
            runs.extend(
                one(bed, edge, round, time, rung(best))
                    .with_context(|| format!("{}, round {round}", edge.name()))?,
            );
        }
    }
    Ok(runs)
}

/// How many steps [`run`] says.
#[must_use]
pub(crate) fn steps(rounds: usize) -> usize {
    rounds * Edge::ALL.len()
}

/// The rung of the ladder with this rate, the lowest if none has.
fn rung(rate: Option<f64>) -> usize {
    LADDER.iter().position(|known| Some(f64::from(*known)) == rate).unwrap_or(0)
}

/// Measures an edge, and searches what it holds from a rung of the ladder.
fn one(bed: &Testbed, edge: Edge, round: usize, time: Duration, begin: usize) -> Result<Vec<Run>> {
    let mut server = Job::new(Scenario::Server, "server", SERVER, PEER_SIP, 40_000);
    server.messages = Messages::NotKept;
    let server = server.start(&bed.lab.centre, bed.lab.dir())?;
    on_traffic_core(&server)?;
    bed.lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, PEER_SIP), LIMIT)?;
    let place = InPlace::put(bed, edge)?;
    measure(bed, &place, round, Work::Registrations, 100, WARM_UP)?;
    measure(bed, &place, round, Work::Calls, 50, WARM_UP)?;
    let seconds = |rate: u32| (f64::from(rate) * time.as_secs_f64()) as u32;
    let mut runs = vec![
        measure(
            bed,
            &place,
            round,
            Work::Registrations,
            REGISTRATIONS_COMPARED,
            seconds(REGISTRATIONS_COMPARED),
        )?,
        measure(bed, &place, round, Work::Calls, CALLS_COMPARED, seconds(CALLS_COMPARED))?,
    ];
    for run in &runs {
        ensure!(
            run.held(),
            "{} of {} {} at {} a second succeeded",
            run.successful,
            run.asked,
            run.work.name(),
            run.rate
        );
    }
    let mut holds = |rate: u32| -> Result<bool> {
        let run = measure(bed, &place, round, Work::Calls, rate, seconds(rate))?;
        let held = run.held();
        runs.push(run);
        Ok(held)
    };
    let (below, from) = LADDER.split_at(begin);
    let mut up = 0;
    while up < from.len() && holds(from[up])? {
        up += 1;
    }
    if up == 0 {
        for rate in below.iter().rev() {
            if holds(*rate)? {
                break;
            }
        }
    }
    Ok(runs)
}

fn measure(bed: &Testbed, place: &InPlace, round: usize, work: Work, rate: u32, count: u32) -> Result<Run> {
    let scenario = match work {
        Work::Calls => Scenario::PhoneCall,
        Work::Registrations => Scenario::PhoneRegister,
    };
    let mut job = Job::new(scenario, work.name(), phone(PHONE), PEER_SIP, 20_000);
    job.destination = Some(SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP));
    job.messages = Messages::NotKept;
    (job.rate, job.calls) = (rate, Some(count));
    job.rows = match work {
        Work::Calls => vec![vec!["1003".to_owned(), "9001".to_owned()]],
        Work::Registrations => (0..USERS)
            .map(|user| {
                let user = format!("2{user:04}");
                vec![user.clone(), format!("[authentication username={user} password=lab{user}]")]
            })
            .collect(),
    };
    job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
    let before = place.cpu()?;
    let started = Instant::now();
    let mut phones = job.start(&bed.lab.office, bed.lab.dir())?;
    on_traffic_core(&phones)?;
    // What does not end in time has failed, as far as SIPp has counted it.
    let waited = phones.wait(PATIENCE);
    if interrupt::happened() {
        waited?;
    }
    let took = started.elapsed();
    let after = place.cpu()?;
    let tally = phones.tally()?;
    Ok(Run {
        edge: place.edge,
        round,
        work,
        rate,
        asked: count,
        successful: tally.successful,
        retransmissions: phones.statistic("Retransmissions(C)")?.parse()?,
        cpu: after[0].saturating_sub(before[0]),
        relay_cpu: after[1].saturating_sub(before[1]),
        took,
    })
}

/// Keeps a SIPp on the core of phones and servers.
///
/// # Errors
/// It has ended.
pub(crate) fn on_traffic_core(sipp: &Sipp) -> Result<()> {
    for pid in cores::family(sipp.pid()) {
        for thread in cores::threads(pid)? {
            cores::pin(thread, Core::TRAFFIC)?;
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

/// The runs of an edge at the rate at which edges are compared.
fn compared(runs: &[Run], edge: Edge, work: Work, rate: u32) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |run| run.edge == edge && run.work == work && run.rate == rate)
}

/// CPU of ours by that of theirs, in each round.
fn ratios(runs: &[Run], work: Work, rate: u32) -> Vec<f64> {
    let ratio = |ours: &Run| {
        let theirs = compared(runs, Edge::Kamailio, work, rate).find(|run| run.round == ours.round)?;
        Some(ours.cpu_each() / theirs.cpu_each())
    };
    compared(runs, Edge::Ours, work, rate).filter_map(ratio).collect()
}

/// The most calls a second that an edge held, in each round.
fn held(runs: &[Run], edge: Edge) -> BTreeMap<usize, f64> {
    let mut best = BTreeMap::new();
    for run in runs.iter().filter(|run| run.edge == edge) {
        let known: &mut f64 = best.entry(run.round).or_default();
        if run.work == Work::Calls && run.held() {
            *known = known.max(f64::from(run.rate));
        }
    }
    best
}

/// What is to hold.
#[must_use]
pub(crate) fn targets(runs: &[Run]) -> Vec<Target> {
    let (ours, theirs) = (held(runs, Edge::Ours), held(runs, Edge::Kamailio));
    let more = ours.iter().filter_map(|(round, rate)| Some(rate / theirs.get(round)?)).collect();
    vec![
        Target::of(
            "branchline: calls a second that it holds, x kamailio+rtpengine; more than 1",
            Spread::of(more),
            |it| it > 1.0,
        ),
        Target::of(
            "branchline: CPU of a call, x kamailio+rtpengine; at most 0.5",
            Spread::of(ratios(runs, Work::Calls, CALLS_COMPARED)),
            |it| it <= 0.5,
        ),
    ]
}

/// The runs as tables in Markdown.
#[must_use]
pub(crate) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| edge | CPU per call, us | of that the media relay's | CPU per registration, us | calls/s held | retransmissions \
         at the compared rate |\n|---|---|---|---|---|---|\n",
    );
    let shown = |figure: Option<(f64, f64, f64)>| {
        figure.map_or_else(
            || "-".to_owned(),
            |(median, least, most)| format!("{median:.0} ({least:.0}-{most:.0})"),
        )
    };
    for edge in Edge::ALL {
        let calls = || compared(runs, edge, Work::Calls, CALLS_COMPARED);
        let registrations = compared(runs, edge, Work::Registrations, REGISTRATIONS_COMPARED);
        let relay = calls().map(|run| run.relay_cpu.as_secs_f64() * 1e6 / f64::from(run.asked)).collect();
        // Writing to a string cannot fail. So below.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            edge.name(),
            shown(median(calls().map(Run::cpu_each).collect())),
            if edge == Edge::Ours { "(in it)".to_owned() } else { shown(median(relay)) },
            shown(median(registrations.map(Run::cpu_each).collect())),
            shown(median(held(runs, edge).into_values().collect())),
            calls().map(|run| run.retransmissions).sum::<u64>(),
        );
    }
    for (work, rate) in [(Work::Calls, CALLS_COMPARED), (Work::Registrations, REGISTRATIONS_COMPARED)] {
        if let Some((median, least, most)) = median(ratios(runs, work, rate)) {
            let _ = writeln!(
                text,
                "\nCPU of {} at {rate} a second, ours by theirs in the same round: **{median:.2}** ({least:.2}-{most:.2}).",
                work.name()
            );
        }
    }
    text
}

/// Writes every run.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(runs: &[Run], file: &Path) -> Result<()> {
    let mut text =
        String::from("edge,round,work,rate,asked,successful,retransmissions,cpu_us,relay_cpu_us,took_s\n");
    for run in runs {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{:.3}",
            run.edge.name(),
            run.round,
            run.work.name(),
            run.rate,
            run.asked,
            run.successful,
            run.retransmissions,
            run.cpu.as_micros(),
            run.relay_cpu.as_micros(),
            run.took.as_secs_f64()
        );
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(edge: Edge, round: usize, cpu_us: u64) -> Run {
        Run {
            edge,
            round,
            work: Work::Calls,
            rate: CALLS_COMPARED,
            asked: 1000,
            successful: 1000,
            retransmissions: 0,
            cpu: Duration::from_micros(cpu_us),
            relay_cpu: Duration::ZERO,
            took: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_search_begins_where_the_round_before_ended() {
        assert_eq!([None, Some(200.0), Some(400.0), Some(1200.0)].map(rung), [0, 0, 0, 4]);
    }

    #[test]
    fn ratios_are_of_the_same_round_and_their_median_counts() {
        let runs: Vec<Run> = [(1, 100_000, 200_000), (2, 300_000, 400_000), (3, 100_000, 1_000_000)]
            .into_iter()
            .flat_map(|(round, ours, theirs)| {
                [of(Edge::Ours, round, ours), of(Edge::Kamailio, round, theirs)]
            })
            .collect();
        let text = table(&runs);
        assert!(text.contains("| branchline | 100 (100-300) |"), "{text}");
        assert!(text.contains("**0.50** (0.10-0.75)"), "{text}");
    }
}
