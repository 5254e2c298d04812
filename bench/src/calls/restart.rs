//! What a reload, a restart and a crash cost calls that talk: packets of media, and time in which signalling is not answered.
//!
//! Phone and server ask and answer all the while, so that the silence between two answers tells how long nobody was there.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use branchline::control::StatusView;
use branchline::metrics::names;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{APPLIANCE_OFFICE, phone};
use xtask::lab::traffic::APPLIANCE_SIP;
use xtask::lab::{Running, interrupt};

use super::standing::{Standing, forget, server};
use crate::contender::EXPEDITED;
use crate::cores::Core;
use crate::report::Spread;
use crate::sip;
use crate::testbed::Testbed;
use crate::traffic::{Load, Ran, Rate, Turn};

/// Calls that talk, how many are set up in a second, and packets a second of each: G.711 in 20 ms, from the phone.
const CALLS: usize = 200;
const SET_UP: u32 = 200;
const PACKETS: f64 = 50.0;
/// Media passes for so long before and after.
const AROUND: Duration = Duration::from_millis(500);
/// What happens takes less than this.
const LIMIT: Duration = Duration::from_secs(30);
/// The daemon has written what has changed within this.
const WRITTEN: Duration = Duration::from_secs(1);
/// How often the server is asked how it is, from which phone and port.
const ASKED_EVERY: Duration = Duration::from_millis(10);
const ASKING_PHONE: u8 = 1;
const ASKING_PORT: u16 = 5070;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing, for comparison.
    Nothing,
    /// `branchline reload` of a file that has changed.
    Reload,
    /// A restart, as `systemctl restart` makes it: the daemon hands over by SIGUSR2, and the next one starts.
    Restart,
    /// `kill -9`, and the next one starts.
    Kill,
    /// A stop on purpose, which ends the forwarding, and a start.
    StopAndStart,
}

impl Event {
    const ALL: [Self; 5] = [Self::Nothing, Self::Reload, Self::Restart, Self::Kill, Self::StopAndStart];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::Kill => "kill -9, start",
            Self::StopAndStart => "stop, start",
        }
    }

    /// By which signal the daemon ends, if it does.
    const fn signal(self) -> Option<libc::c_int> {
        match self {
            Self::Nothing | Self::Reload => None,
            Self::Restart => Some(libc::SIGUSR2),
            Self::Kill => Some(libc::SIGKILL),
            Self::StopAndStart => Some(libc::SIGTERM),
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    event: Event,
    round: usize,
    ran: Ran,
    /// The longest time between two answers.
    silence: Duration,
    /// Until the reload was done, or the next daemon was ready.
    took: Duration,
}

impl Run {
    /// Lost packets as time in which all calls were silent.
    fn silent(&self) -> Duration {
        Duration::from_secs_f64(self.ran.lost() as f64 / (CALLS as f64 * PACKETS))
    }
}

/// How many steps [`run`] says.
#[must_use]
pub(super) const fn steps(rounds: usize) -> usize {
    rounds * Event::ALL.len()
}

struct Site<'t> {
    bed: &'t Testbed,
    settings: Settings,
    daemon: Appliance,
    standing: Standing,
}

/// Has everything happen in turn, in each round, to the same calls.
///
/// # Errors
/// The daemon does not start, calls are gone afterwards, or packets do not add up.
pub(super) fn run(bed: &Testbed, rounds: usize, mut says: impl FnMut(&str)) -> Result<Vec<Run>> {
    forget(bed)?;
    let _server = server(bed)?;
    let mounts = mounts(bed)?;
    let settings = Settings { launcher: launcher(mounts.pid()), ..sip::settings(bed) };
    let daemon = Appliance::start_with(&bed.lab, &settings)?;
    bed.receive_first()?;
    let edge = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
    let mut site = Site { bed, settings, daemon, standing: Standing::none(edge) };
    site.standing.up_to(bed, CALLS, SET_UP)?;
    bed.traffic.set_streams(&site.standing.routes)?;
    site.warm_up()?;
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for event in Event::ALL {
            let what = format!("{}, round {round}", event.name());
            runs.push(site.measure(event, round).with_context(|| what.clone())?);
            says(&what);
        }
    }
    // The last one leaves nothing pinned.
    site.daemon.stop(libc::SIGTERM)?;
    Ok(runs)
}

/// Who keeps a BPF file system of this bench's own mounted, for one daemon after the other: pins outlive them in it.
fn mounts(bed: &Testbed) -> Result<Running> {
    const READY: &str = "mounted";
    let mut command = bed.lab.branch.command("unshare");
    let script = format!("mount -t bpf bpf /sys/fs/bpf && echo {READY} && exec sleep infinity");
    command.args(["--mount", "sh", "-c", &script]);
    let mut running = Running::start(&mut command, "mounts", bed.lab.dir())?;
    running.wait_for(READY, LIMIT)?;
    Ok(running)
}

/// Starts a daemon there, on its core from the first moment on.
fn launcher(mounts: u32) -> Vec<String> {
    let core = Core::FORWARDING.0.to_string();
    let mount = format!("--mount=/proc/{mounts}/ns/mnt");
    ["taskset", "--cpu-list", &core, "nsenter", &mount, "--"].map(str::to_owned).to_vec()
}

impl Site<'_> {
    fn load(&self, time: Duration) -> Load {
        Load {
            expects: Some(EXPEDITED),
            ..Load::new(Rate::PerSecond(self.standing.routes.len() as f64 * PACKETS), time)
        }
    }

    fn status(&self) -> Result<StatusView> {
        Ok(serde_json::from_value(self.daemon.ask(&self.bed.lab, &["status"])?)?)
    }

    fn warm_up(&self) -> Result<()> {
        self.bed.traffic.run(&self.bed.lab.office, CALLS, self.load(Duration::from_secs(1)))?;
        let carried = self.daemon.metrics(&self.bed.lab)?.sum(names::FLOWS, &[("datapath", "kernel")]);
        ensure!(carried >= CALLS as f64, "of {CALLS} streams {carried} are in the kernel");
        Ok(())
    }

    fn measure(&mut self, event: Event, round: usize) -> Result<Run> {
        interrupt::sleep(WRITTEN)?;
        let office = &self.bed.lab.office;
        let asker = Asker::start(self.bed, &format!("{}{round}", event as u8))?;
        let flight = self.bed.traffic.begin(office, CALLS, self.load(2 * LIMIT), Turn::Fair)?;
        interrupt::sleep(AROUND)?;
        let started = Instant::now();
        self.happen(event, round)?;
        let took = started.elapsed();
        interrupt::sleep(AROUND)?;
        let ran = flight.cut_short()?;
        let (from, answers, to) = asker.end()?;
        let silence = longest_silence(from, &answers, to);
        ensure!(
            ran.received.packets > 0 && ran.received.packets <= ran.sent,
            "{} packets were sent, {} arrived",
            ran.sent,
            ran.received.packets
        );
        ensure!(
            ran.received.wrong_service == 0 && ran.received.wrong_content == 0,
            "{} packets with a wrong DSCP, {} with a wrong checksum",
            ran.received.wrong_service,
            ran.received.wrong_content
        );
        let stand = self.status()?.calls_active;
        ensure!(stand == CALLS, "of {CALLS} calls {stand} stand afterwards");
        Ok(Run { event, round, ran, silence, took })
    }

    fn happen(&mut self, event: Event, round: usize) -> Result<()> {
        let lab = &self.bed.lab;
        if let Some(signal) = event.signal() {
            self.daemon.stop(signal)?;
            self.daemon = Appliance::start_with(lab, &self.settings)?;
            return Ok(());
        }
        if event == Event::Reload {
            let changed = format!("{}[media]\ntimeout_seconds = {}\n", self.settings.tables, 3000 + round);
            let settings = Settings { tables: changed, ..self.settings.clone() };
            let file = lab.dir().join("branchline.toml");
            fs::write(&file, settings.configuration(lab.dir()))
                .with_context(|| format!("cannot write {}", file.display()))?;
            self.daemon.tell(lab, &["reload"], "")?;
        }
        Ok(())
    }
}

/// Beginning, arrivals of answers, end.
type Answers = (Instant, Vec<Instant>, Instant);

/// A phone that asks the server how it is, again and again.
struct Asker {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Option<Result<Answers>>>,
}

impl Asker {
    fn start(bed: &Testbed, name: &str) -> Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let (told, name) = (Arc::clone(&ends), name.to_owned());
        let thread = bed.lab.office.spawn(move || ask(&name, &told))?;
        Ok(Self { ends, thread })
    }

    fn end(self) -> Result<Answers> {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().ok().flatten().ok_or_else(|| anyhow!("the asking thread panicked"))?
    }
}

fn ask(name: &str, ends: &AtomicBool) -> Result<Answers> {
    let own = SocketAddrV4::new(phone(ASKING_PHONE), ASKING_PORT);
    let socket = UdpSocket::bind(own).with_context(|| format!("{own} is taken"))?;
    let edge = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
    let (from, mut arrivals, mut number) = (Instant::now(), Vec::new(), 0u32);
    let mut due = from;
    while !ends.load(Ordering::SeqCst) {
        if Instant::now() >= due {
            due += ASKED_EVERY;
            number += 1;
            // Where nobody is, the answer that nobody is there is none.
            let _ = socket.send_to(question(own, edge, name, number).as_bytes(), edge);
        }
        let rest = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(500));
        socket.set_read_timeout(Some(rest))?;
        let mut answer = [0; 2048];
        if let Ok(length) = socket.recv(&mut answer)
            && answer[..length].starts_with(b"SIP/2.0 200 ")
        {
            arrivals.push(Instant::now());
        }
    }
    Ok((from, arrivals, Instant::now()))
}

fn question(own: SocketAddrV4, edge: SocketAddrV4, name: &str, number: u32) -> String {
    format!(
        "OPTIONS sip:9001@{edge} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK-{name}-{number}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:1001@lab.example>;tag=a{number}\r\n\
         To: <sip:9001@{edge}>\r\n\
         Call-ID: {name}-{number}@{own}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// The longest time between two answers, or between one and the beginning or the end.
fn longest_silence(from: Instant, answers: &[Instant], to: Instant) -> Duration {
    let times: Vec<Instant> = [from].into_iter().chain(answers.iter().copied()).chain([to]).collect();
    times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
}

/// The runs as a table in Markdown.
#[must_use]
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| what happens | RTP packets lost | of those sent | calls silent for, ms | signalling silent for, ms | done after, ms |\n\
         |---|---|---|---|---|---|\n",
    );
    for event in Event::ALL {
        let fitting: Vec<&Run> = runs.iter().filter(|run| run.event == event).collect();
        let shown = |figure: fn(&Run) -> f64| {
            Spread::of(fitting.iter().map(|run| figure(run)).collect()).map_or_else(
                || "-".to_owned(),
                |it| format!("{:.0} ({:.0}-{:.0})", it.median, it.min, it.max),
            )
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            event.name(),
            shown(|run| run.ran.lost() as f64),
            shown(|run| run.ran.sent as f64),
            shown(|run| run.silent().as_secs_f64() * 1e3),
            shown(|run| run.silence.as_secs_f64() * 1e3),
            shown(|run| run.took.as_secs_f64() * 1e3),
        );
    }
    text
}

/// Every run as comma-separated values.
#[must_use]
pub(super) fn csv(runs: &[Run]) -> String {
    let mut text =
        String::from("event,round,sent,received,lost,late,seconds,signalling_silent_ms,done_after_ms\n");
    for run in runs {
        let _ = writeln!(
            text,
            "\"{}\",{},{},{},{},{},{:.3},{:.1},{:.1}",
            run.event.name(),
            run.round,
            run.ran.sent,
            run.ran.received.packets,
            run.ran.lost(),
            run.ran.received.late,
            run.ran.time.as_secs_f64(),
            run.silence.as_secs_f64() * 1e3,
            run.took.as_secs_f64() * 1e3,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use relay_ebpf::traffic::Received;

    use super::*;

    #[test]
    fn the_longest_silence_is_between_two_answers_or_at_an_end() {
        let from = Instant::now();
        let at = |ms: u64| from + Duration::from_millis(ms);
        let rows: [(&str, &[u64], u64); 4] = [
            ("in the middle", &[10, 20, 320, 330], 300),
            ("at the beginning", &[200, 210, 300], 200),
            ("at the end", &[10, 20], 380),
            ("nobody answers", &[], 400),
        ];
        for (description, answers, expected) in rows {
            let answers: Vec<Instant> = answers.iter().map(|ms| at(*ms)).collect();
            let found = longest_silence(from, &answers, at(400));
            assert_eq!(found, Duration::from_millis(expected), "{description}");
        }
    }

    #[test]
    fn lost_packets_are_time_in_which_all_calls_are_silent() {
        let received = Received { packets: 19_000, ..Received::default() };
        let ran = Ran {
            sent: 20_000,
            time: Duration::from_secs(2),
            after: Duration::ZERO,
            received,
            delays: Vec::new(),
        };
        let run = Run { event: Event::Kill, round: 1, ran, silence: Duration::ZERO, took: Duration::ZERO };
        // 10,000 a second.
        assert_eq!(run.silent(), Duration::from_millis(100));
    }
}
