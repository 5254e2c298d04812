//! Calls that talk, more and more of them, and what the daemon takes of memory for them.
//!
//! Each call's stream from phone to server carries the packets of both directions of G.711 in 20 ms, so the appliance has as
//! many to forward as in life; the other direction is silent.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use branchline::control::StatusView;
use branchline::metrics::names;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::interrupt;
use xtask::lab::network::APPLIANCE_OFFICE;
use xtask::lab::traffic::APPLIANCE_SIP;

use super::Plan;
use super::standing::{Standing, forget, server};
use crate::apart::Apart;
use crate::contender::EXPEDITED;
use crate::cores::{self, Core};
use crate::memory::GIVEN_BACK;
use crate::report::{Spread, Target};
use crate::sip;
use crate::stalls::{Recorder, Stall};
use crate::testbed::Testbed;
use crate::throughput::{REACHED, TOGETHER};
use crate::traffic::{Load, Ran, Rate};

/// Packets a second of a call: 50 in each direction.
pub(super) const PACKETS_OF_A_CALL: f64 = 100.0;
/// Calls that are set up in a second.
const SET_UP: u32 = 800;
/// A daemon at rest takes less than this part of a core.
const REST: f64 = 0.15;
/// Over this time.
const REST_TIME: Duration = Duration::from_millis(500);
/// What is waited for comes within this.
const LIMIT: Duration = Duration::from_secs(90);
/// From so many calls on the transactions of a step are waited for before the next one, whose own then take their room.
const SETTLES: usize = 5_000;
/// Runs that do not add up are made again so often.
const ATTEMPTS: u32 = 3;

/// So many calls talked for a moment.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(super) calls: usize,
    pub(super) round: usize,
    ran: Ran,
    /// Packets that the flows say they forwarded: in the kernel, and in userspace.
    forwarded: [u64; 2],
    /// Packets that found the queue in front of the appliance full, by the kernel's count.
    no_room: u64,
    /// Of the kernel's receiving thread and of the daemon.
    cpu: Duration,
    /// When the receiving thread left its queue alone for too long, or why that is not known.
    pub(super) stalls: Result<Vec<Stall>, String>,
    repeated: u32,
}

impl Run {
    /// Packets a second that are to be sent.
    pub(super) fn asked(&self) -> f64 {
        self.calls as f64 * PACKETS_OF_A_CALL
    }

    /// Packets a second that were sent.
    fn reached(&self) -> f64 {
        self.ran.sent as f64 / self.ran.time.as_secs_f64()
    }

    /// Lost before the appliance counted them, and behind it.
    pub(super) fn lost(&self) -> [u64; 2] {
        let all = self.forwarded[0] + self.forwarded[1];
        [self.ran.sent.saturating_sub(all), all.saturating_sub(self.ran.received.packets)]
    }

    fn kernel_share(&self) -> f64 {
        self.forwarded[0] as f64 / (self.forwarded[0] + self.forwarded[1]).max(1) as f64
    }

    fn is_held(&self) -> bool {
        self.ran.lost() == 0 && self.reached() >= REACHED * self.asked()
    }
}

/// How long memory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// While calls talk.
    Briefly,
    /// Until the transactions by which they were set up are over, which takes half a minute.
    UntilSettled,
}

/// When memory was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before there was a call.
    Without,
    /// When the calls stood and the daemon was at rest.
    Standing,
    /// When the transactions by which they were set up were over.
    Settled,
}

impl When {
    const fn name(self) -> &'static str {
        match self {
            Self::Without => "before",
            Self::Standing => "standing",
            Self::Settled => "settled",
        }
    }
}

/// What the daemon held in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    calls: usize,
    when: When,
    /// Of the process alone, and with what it shares: its file, and the kernel's tables.
    anonymous_kib: u64,
    resident_kib: u64,
    /// What traces say they take of that.
    traces: u64,
    transactions: usize,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(super) runs: Vec<Run>,
    pub(super) memory: Vec<Memory>,
    /// Threads of other processes that were kept off the core that forwards, if they were.
    moved: Option<usize>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The most packets a second that arrived in a run that lost hardly any; where each lost more, what arrived at most.
    #[must_use]
    pub(super) fn carried(&self) -> f64 {
        /// One in so many: of which half is far from what is too much, also on a machine that pauses.
        const HARDLY_ANY: u64 = 1_000;
        let arrived = |run: &Run| run.ran.received.packets as f64 / run.ran.time.as_secs_f64();
        let good = self.runs.iter().filter(|run| run.ran.lost() * HARDLY_ANY <= run.ran.sent);
        let most = good.map(arrived).fold(0.0, f64::max);
        if most > 0.0 { most } else { self.runs.iter().map(arrived).fold(0.0, f64::max) }
    }
}

struct Site<'t> {
    bed: &'t Testbed,
    daemon: Appliance,
    standing: Standing,
    /// Or why there is none.
    recorder: Result<Recorder, String>,
}

/// Sets up more and more calls with one daemon, and has them talk in each round.
///
/// # Errors
/// The daemon does not start, a call is not answered, or the accounts do not add up time after time.
pub(crate) fn run(bed: &Testbed, plan: &Plan, mut says: impl FnMut(&str)) -> Result<Held> {
    forget(bed)?;
    let _server = server(bed)?;
    let base = sip::settings(bed);
    let settings = Settings {
        networks: "media_ports = \"10000-32767\"\n".to_owned(),
        tables: format!("{}[sip]\nmax_calls = 20000\n", base.tables),
        ..base
    };
    let daemon = Appliance::start_with(&bed.lab, &settings)?;
    let edge = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
    let recorder = Recorder::prepare(&bed.names.arrivals).map_err(|error| format!("{error:#}"));
    let mut site = Site { bed, daemon, standing: Standing::none(edge), recorder };
    site.arrange()?;
    let mut held = Held::default();
    held.memory.push(site.memory(When::Without)?);
    for &calls in plan.ladder {
        says(&format!("{calls} calls are set up"));
        site.standing.up_to(bed, calls, SET_UP)?;
        bed.traffic.set_streams(&site.standing.routes)?;
        site.warm_up()?;
        site.rest()?;
        held.memory.push(site.memory(When::Standing)?);
        // SIPp needs both cores to set them up.
        let apart = plan.isolated.then(Apart::keep).transpose()?;
        held.moved = held.moved.max(apart.as_ref().map(Apart::count));
        for round in 1..=plan.rounds {
            let run = site.talk(round, plan.time).with_context(|| format!("{calls} calls, round {round}"))?;
            held.runs.push(run);
            says(&format!("{calls} calls talk, round {round}"));
        }
        drop(apart);
        if plan.memory == Look::UntilSettled && calls >= SETTLES {
            interrupt::wait_until(LIMIT, "end of the transactions", || {
                interrupt::sleep(REST_TIME)?;
                Ok((site.status()?.transactions == 0).then_some(()))
            })?;
            held.memory.push(site.memory(When::Settled)?);
        }
    }
    Ok(held)
}

impl Site<'_> {
    fn arrange(&self) -> Result<()> {
        self.bed.receive_first()?;
        for thread in self.daemon_threads()? {
            cores::pin(thread, Core::FORWARDING)?;
        }
        Ok(())
    }

    fn daemon_threads(&self) -> Result<Vec<u32>> {
        cores::threads_of_family(self.daemon.pid())
    }

    fn status(&self) -> Result<StatusView> {
        Ok(serde_json::from_value(self.daemon.ask(&self.bed.lab, &["status"])?)?)
    }

    /// Every stream's first packets, until the kernel has all of them.
    fn warm_up(&self) -> Result<()> {
        const RATE: f64 = 20_000.0;
        const PACKETS: f64 = 3.0;
        const TRIES: u32 = 10;
        let calls = self.standing.routes.len();
        let time = Duration::from_secs_f64((PACKETS * calls as f64 / RATE).max(0.2));
        let mut carried = 0.0;
        for _ in 0..TRIES {
            self.send(Rate::PerSecond(RATE), 1, time)?;
            interrupt::sleep(REST_TIME)?;
            carried = self.daemon.metrics(&self.bed.lab)?.sum(names::FLOWS, &[("datapath", "kernel")]);
            // Nothing comes back, and no RTCP: the other flows go on learning.
            if carried >= calls as f64 {
                return Ok(());
            }
        }
        bail!("of {calls} streams {carried} are in the kernel")
    }

    /// Until the daemon has written and forgotten what there was to write and forget.
    fn rest(&self) -> Result<()> {
        interrupt::wait_until(LIMIT, "rest of the daemon", || {
            let (before, started) = (cores::run_time(&self.daemon_threads()?)?, Instant::now());
            interrupt::sleep(REST_TIME)?;
            let busy = cores::run_time(&self.daemon_threads()?)?.saturating_sub(before);
            Ok((busy < started.elapsed().mul_f64(REST)).then_some(()))
        })
    }

    fn send(&self, rate: Rate, together: u32, time: Duration) -> Result<Ran> {
        let load = Load { together, expects: Some(EXPEDITED), ..Load::new(rate, time) };
        self.bed.traffic.run(&self.bed.lab.office, self.standing.routes.len(), load)
    }

    fn talk(&self, round: usize, time: Duration) -> Result<Run> {
        let mut repeated = 0;
        loop {
            match self.attempt(round, time) {
                Ok(run) => return Ok(Run { repeated, ..run }),
                Err(error) if interrupt::happened() || repeated + 1 >= ATTEMPTS => return Err(error),
                Err(_) => {
                    repeated += 1;
                    interrupt::sleep(REST_TIME)?;
                }
            }
        }
    }

    fn attempt(&self, round: usize, time: Duration) -> Result<Run> {
        let calls = self.standing.routes.len();
        let rate = calls as f64 * PACKETS_OF_A_CALL;
        let daemon = self.daemon_threads()?;
        let threads = [daemon.as_slice(), &[cores::receiver(&self.bed.names.arrivals)?]].concat();
        let counted = self.status()?;
        let recording = self.recorder.as_ref().map_err(String::clone).and_then(|it| {
            it.begin().map_err(|error| format!("{error:#}"))?;
            Ok(it)
        });
        let no_room = self.bed.no_room()?;
        let (cpu, started) = (cores::run_time(&threads)?, Instant::now());
        let ran = self.send(Rate::PerSecond(rate), TOGETHER, time)?;
        let (cpu, window) = (cores::run_time(&threads)?.saturating_sub(cpu), started.elapsed());
        let no_room = self.bed.no_room()? - no_room;
        // Some threads of the daemon come and go.
        let daemon = [daemon, self.daemon_threads()?].concat();
        let stalls = recording.and_then(|it| it.end(rate, &daemon).map_err(|error| format!("{error:#}")));
        let after = self.status()?;
        let forwarded = [
            after.kernel_packets - counted.kernel_packets,
            after.userspace_packets - counted.userspace_packets,
        ];
        check(&ran, forwarded, no_room)?;
        let most = window.mul_f64(1.02) + Duration::from_millis(10);
        ensure!(!cpu.is_zero() && cpu <= most, "{cpu:?} on one core within {window:?}");
        ensure!(after.calls_active == calls, "of {calls} calls {} stand", after.calls_active);
        Ok(Run { calls, round, ran, forwarded, no_room, cpu, stalls, repeated: 0 })
    }

    fn memory(&self, when: When) -> Result<Memory> {
        interrupt::sleep(GIVEN_BACK)?;
        let [anonymous_kib, resident_kib] = resident(self.daemon.pid())?;
        let traces = self.daemon.metrics(&self.bed.lab)?.sum(names::TRACE_BYTES, &[]) as u64;
        let status = self.status()?;
        let (calls, transactions) = (self.standing.routes.len(), status.transactions);
        Ok(Memory { calls, when, anonymous_kib, resident_kib, traces, transactions })
    }
}

/// Fails if what was sent, what the queue in front had no room for, what the flows counted and what arrived do not fit.
fn check(ran: &Ran, forwarded: [u64; 2], no_room: u64) -> Result<()> {
    let all = forwarded[0] + forwarded[1];
    let arrived = ran.received.packets;
    ensure!(arrived > 0, "of {} packets none arrived: nothing was measured", ran.sent);
    ensure!(
        arrived <= all && all <= ran.sent,
        "{} packets were sent, the flows counted {all}, {arrived} arrived",
        ran.sent
    );
    ensure!(
        all + no_room <= ran.sent,
        "{} packets were sent, the queue had no room for {no_room}, and the flows counted {all}",
        ran.sent
    );
    ensure!(
        ran.received.wrong_service == 0 && ran.received.wrong_content == 0,
        "{} packets with a wrong DSCP, {} with a wrong checksum",
        ran.received.wrong_service,
        ran.received.wrong_content
    );
    Ok(())
}

/// What a process holds in memory, in KiB: alone, and with what it shares.
fn resident(pid: u32) -> Result<[u64; 2]> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
    };
    let name = read("comm")?;
    ensure!(name.trim() == "branchline", "process {pid} is {}, not the daemon", name.trim());
    memory_of(&read("status")?)
}

fn memory_of(status: &str) -> Result<[u64; 2]> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no {name} in {status:?}"))
    };
    Ok([field("RssAnon:")?, field("VmRSS:")?])
}

fn bytes_per_call(before: &Memory, with: &Memory) -> u64 {
    with.anonymous_kib.saturating_sub(before.anonymous_kib) * 1024 / with.calls.max(1) as u64
}

/// Traces are bounded in all, so they are told apart.
fn traces_per_call(before: &Memory, with: &Memory) -> u64 {
    with.traces.saturating_sub(before.traces) / with.calls.max(1) as u64
}

/// What each call takes by which there are more in the last settled state than in the one before it: what lingers, and what
/// the allocator keeps of what has lingered, is in both.
fn bytes_per_further_call(held: &Held) -> Option<(usize, u64)> {
    let mut settled = held.memory.iter().rev().filter(|memory| memory.when == When::Settled);
    let (last, before) = (settled.next()?, settled.next()?);
    let calls = last.calls.checked_sub(before.calls).filter(|calls| *calls > 0)? as u64;
    let own = |memory: &Memory| (memory.anonymous_kib * 1024).saturating_sub(memory.traces);
    Some((before.calls, own(last).saturating_sub(own(before)) / calls))
}

/// What else might have had the core that forwards, as a sentence.
#[must_use]
pub(super) fn isolation(held: &Held) -> String {
    match held.moved {
        None => String::from("The core that forwards was open to every process of the machine."),
        Some(threads) => format!(
            "The core that forwards was closed to {threads} threads of other processes and of the kernel meanwhile (`--isolate`)."
        ),
    }
}

/// The runs as a table in Markdown.
#[must_use]
pub(super) fn table(held: &Held) -> String {
    let mut text = String::from(
        "| calls | packets/s asked | reached | lost, of all sent | lost before the appliance | of these the queue had no room for | lost behind it | \
         in the kernel | core busy | rounds without loss |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut steps: Vec<usize> = held.runs.iter().map(|run| run.calls).collect();
    steps.dedup();
    for calls in steps {
        let runs: Vec<&Run> = held.runs.iter().filter(|run| run.calls == calls).collect();
        let of = |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(|run| figure(run)).collect());
        let whole = |figure: fn(&Run) -> f64| {
            of(figure)
                .map_or_else(String::new, |it| format!("{:.0} ({:.0}-{:.0})", it.median, it.min, it.max))
        };
        let percent = |figure: fn(&Run) -> f64, digits: usize| {
            of(figure).map_or_else(String::new, |it| format!("{:.digits$} %", it.median * 100.0))
        };
        let kept = runs.iter().filter(|run| run.is_held()).count();
        // Writing to a string cannot fail. So below.
        let _ = writeln!(
            text,
            "| {calls} | {:.0} | {} | {} | {} | {} | {} | {} | {} | {kept} of {} |",
            calls as f64 * PACKETS_OF_A_CALL,
            whole(Run::reached),
            percent(|run| run.ran.lost() as f64 / run.ran.sent.max(1) as f64, 4),
            whole(|run| run.lost()[0] as f64),
            whole(|run| run.no_room as f64),
            whole(|run| run.lost()[1] as f64),
            percent(Run::kernel_share, 3),
            percent(|run| run.cpu.as_secs_f64() / (run.ran.time + run.ran.after).as_secs_f64(), 0),
            runs.len(),
        );
    }
    text
}

/// What is to hold.
pub(super) fn targets(held: &Held) -> Vec<Target> {
    const CALLS: usize = 10_000;
    const MOST_BYTES: u64 = 8 << 10;
    let runs: Vec<&Run> = held.runs.iter().filter(|run| run.calls == CALLS).collect();
    let kept = runs.iter().filter(|run| run.is_held()).count();
    // Calls that have just been set up still have their transactions, which are not what a call that stands takes.
    let settled = held.memory.iter().filter(|memory| memory.when == When::Settled);
    let bytes: Vec<(usize, u64, u64)> = settled
        .filter_map(|with| {
            let before = held.memory.first()?;
            let traces = traces_per_call(before, with);
            Some((with.calls, bytes_per_call(before, with).saturating_sub(traces), traces))
        })
        .collect();
    let judged = bytes.iter().find(|(calls, ..)| *calls == CALLS);
    vec![
        Target {
            what: format!(
                "{CALLS} calls, {:.0} packets a second: none lost in most rounds",
                CALLS as f64 * PACKETS_OF_A_CALL
            ),
            found: (!runs.is_empty()).then(|| format!("{kept} of {} rounds without a loss", runs.len())),
            holds: (kept * 2 > runs.len()).into(),
        },
        Target {
            what: format!("the daemon's own memory for each of {CALLS} calls, bytes; under {MOST_BYTES}"),
            found: judged.map(|(_, _, traces)| {
                let each = bytes.iter().map(|(calls, bytes, _)| format!("{bytes} of {calls}"));
                let further = bytes_per_further_call(held)
                    .map_or_else(String::new, |(from, bytes)| format!("; {bytes} for each beyond {from}"));
                let each = each.collect::<Vec<_>>().join(", ");
                format!("{each}, settled{further}; and {traces} of traces, which `trace.max_mib` bounds")
            }),
            holds: judged.is_some_and(|(_, bytes, _)| *bytes < MOST_BYTES).into(),
        },
    ]
}

/// Memory as a table in Markdown.
#[must_use]
pub(super) fn memory_table(held: &Held) -> String {
    let mut text = String::from(
        "| calls | when | MiB of its own | MiB resident | transactions that linger | bytes per call | of these, traces |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let Some(before) = held.memory.first() else { return text };
    for with in &held.memory {
        let per_call = |bytes: u64| if with.calls == 0 { "-".to_owned() } else { bytes.to_string() };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {} | {} | {} |",
            with.calls,
            with.when.name(),
            with.anonymous_kib as f64 / 1024.0,
            with.resident_kib as f64 / 1024.0,
            with.transactions,
            per_call(bytes_per_call(before, with)),
            per_call(traces_per_call(before, with)),
        );
    }
    text
}

/// Every run as comma-separated values.
#[must_use]
pub(super) fn csv(held: &Held) -> String {
    let mut text = String::from(
        "calls,round,asked_per_s,sent,reached_per_s,received,lost,late,kernel_packets,userspace_packets,cpu_us,seconds,repeated\n",
    );
    for run in &held.runs {
        let _ = writeln!(
            text,
            "{},{},{:.0},{},{:.0},{},{},{},{},{},{},{:.6},{}",
            run.calls,
            run.round,
            run.asked(),
            run.ran.sent,
            run.reached(),
            run.ran.received.packets,
            run.ran.lost(),
            run.ran.received.late,
            run.forwarded[0],
            run.forwarded[1],
            run.cpu.as_micros(),
            run.ran.time.as_secs_f64(),
            run.repeated,
        );
    }
    text
}

/// Memory as comma-separated values.
#[must_use]
pub(super) fn memory_csv(held: &Held) -> String {
    let mut text = String::from("calls,when,anonymous_kib,resident_kib,trace_bytes,transactions\n");
    for with in &held.memory {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{}",
            with.calls,
            with.when.name(),
            with.anonymous_kib,
            with.resident_kib,
            with.traces,
            with.transactions,
        );
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use relay_ebpf::traffic::Received;

    use super::*;

    pub(in super::super) fn held(runs: Vec<Run>) -> Held {
        Held { runs, memory: Vec::new(), moved: None }
    }

    pub(in super::super) fn run(calls: usize, sent: u64, forwarded: [u64; 2], arrived: u64) -> Run {
        let received = Received { packets: arrived, ..Received::default() };
        let time = Duration::from_secs(1);
        let ran = Ran { sent, time, after: Duration::ZERO, received, delays: Vec::new() };
        let no_room = sent.saturating_sub(forwarded[0] + forwarded[1]);
        Run { calls, round: 1, ran, forwarded, no_room, cpu: time / 2, stalls: Ok(Vec::new()), repeated: 0 }
    }

    #[test]
    fn what_is_lost_is_lost_before_the_appliance_or_behind_it() {
        let run = run(1000, 100_000, [99_000, 500], 99_400);
        assert_eq!((run.lost(), run.ran.lost()), ([500, 100], 600));
        assert!((run.kernel_share() - 99_000.0 / 99_500.0).abs() < 1e-9);
    }

    #[test]
    fn calls_are_held_when_the_rate_was_reached_and_nothing_lost() {
        let table = [
            ("all that was asked", 100_000, 100_000, true),
            ("one packet is lost", 100_000, 99_999, false),
            ("the generator did not get there", 90_000, 90_000, false),
        ];
        for (description, sent, arrived, held) in table {
            assert_eq!(run(1000, sent, [arrived, 0], arrived).is_held(), held, "{description}");
        }
    }

    #[test]
    fn what_was_carried_is_the_most_that_arrived_with_hardly_any_loss() {
        let runs = vec![
            run(1000, 100_000, [100_000, 0], 100_000),
            run(2500, 250_000, [249_990, 0], 249_990),
            run(10_000, 1_000_000, [900_000, 0], 900_000),
        ];
        let held = held(runs);
        assert!((held.carried() - 249_990.0).abs() < 1e-6);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        let rows = [
            ("all fits", 10, 0, [9, 1], 10, true),
            ("so does what the queue had no room for", 12, 2, [9, 1], 10, true),
            ("more arrived than the flows counted", 10, 0, [8, 0], 9, false),
            ("the flows counted more than was sent", 10, 0, [11, 0], 10, false),
            ("the flows counted what the queue had no room for", 10, 1, [9, 1], 10, false),
            ("nothing arrived", 10, 0, [0, 0], 0, false),
        ];
        for (description, sent, no_room, forwarded, arrived, fits) in rows {
            assert_eq!(
                check(&run(1, sent, forwarded, arrived).ran, forwarded, no_room).is_ok(),
                fits,
                "{description}"
            );
        }
    }

    fn memory(calls: usize, when: When, anonymous_kib: u64, traces: u64) -> Memory {
        Memory { calls, when, anonymous_kib, resident_kib: 0, traces, transactions: 0 }
    }

    #[test]
    fn a_call_takes_what_is_there_beyond_what_was_there_before() {
        let before = memory(0, When::Without, 10_000, 100);
        let with = memory(1000, When::Standing, 18_000, 2_000_100);
        assert_eq!((bytes_per_call(&before, &with), traces_per_call(&before, &with)), (8192, 2000));
    }

    #[test]
    fn a_further_call_takes_what_it_adds_to_a_settled_state() {
        let mut held =
            Held { runs: Vec::new(), memory: vec![memory(5000, When::Settled, 60_000, 0)], moved: None };
        assert_eq!(bytes_per_further_call(&held), None);
        held.memory.push(memory(10_000, When::Standing, 200_000, 0));
        held.memory.push(memory(10_000, When::Settled, 110_000, 1_200_000));
        assert_eq!(bytes_per_further_call(&held), Some((5000, 10_000)));
    }

    #[test]
    fn memory_is_judged_when_it_has_settled() {
        let standing = [memory(0, When::Without, 10_000, 0), memory(10_000, When::Standing, 110_000, 0)];
        let mut held = Held { runs: Vec::new(), memory: standing.to_vec(), moved: None };
        assert_eq!(targets(&held)[1].found, None);
        held.memory.push(memory(10_000, When::Settled, 80_000, 1_000_000));
        let target = targets(&held).remove(1);
        assert_eq!(
            target.found.as_deref(),
            Some("7068 of 10000, settled; and 100 of traces, which `trace.max_mib` bounds")
        );
        assert_eq!(target.holds, true.into());
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tbranchline\nVmRSS:\t   24128 kB\nRssAnon:\t   9216 kB\nRssFile:\t 1 kB\n";
        assert_eq!(memory_of(status).unwrap(), [9216, 24128]);
        assert!(memory_of("Name:\tx\n").is_err());
    }
}
