//! When the kernel's receiving thread left its queue alone for longer than the queue lasts, and why: the kernel's own record of
//! it (tracefs, `Documentation/trace/ftrace.rst` of Linux), to be laid beside what was lost in the same run.
//!
//! Written down are the ends of the thread's polls (`napi:napi_poll`), when it gave its core away and from whom it got it back
//! (`sched:sched_switch`), and when it was told to come back, from which core and in whose time (`sched:sched_waking`). Its own
//! core's timer tells it to look again soon after it found nothing; the core that sends tells it when the first packet comes since
//! it gave up looking, so until then there was none, and nobody was kept waiting.
//!
//! Kernels were seen that do not write down every switch: none from an idle core, and not all from threads. Where that by which the
//! thread came back is missing, the core was with the one in whose time the timer told the thread to come back, or else with the
//! one that had got it; and the time without the core has the time of the first poll in it, some 20 to 60 microseconds. A
//! hypervisor that takes a core away is not seen as such: the time is that of whoever had the core.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::cores::{self, Core};

/// Packets that the queue of a veth holds (`VETH_RING_SIZE`, drivers/net/veth.c of Linux).
pub(crate) const QUEUE: f64 = 256.0;
/// Packets that a poll takes at most. Who finds fewer found no full queue.
const BUDGET: u32 = 64;
/// Of the core that forwards, and of the one that sends, from which the thread is told to come back: a second with a million
/// packets takes some 10 MiB of the first.
const BUFFERS_KIB: [(Core, u32); 2] = [(Core::FORWARDING, 48 << 10), (Core::TRAFFIC, 16 << 10)];
/// What recordings are called, by the process that makes them.
const NAME: &str = "branchline-bench-";
const TRACING: &str = "/sys/kernel/tracing";

/// Who had the core when the thread was to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody: an idle core has to be woken, in a virtual machine by the hypervisor.
    Nobody,
    /// The daemon that is measured.
    Appliance,
    /// A thread of the kernel.
    Kernel,
    /// Any other process of the machine.
    Other,
}

impl Holder {
    /// Which one it is, by its number; one that has ended is some process.
    fn of(thread: u32, appliance: &[u32]) -> Self {
        /// In `/proc/N/stat`.
        const FLAGS: usize = 9;
        /// `PF_KTHREAD`, include/linux/sched.h.
        const KERNEL_THREAD: u64 = 0x0020_0000;
        if thread == IDLE {
            return Self::Nobody;
        }
        if appliance.contains(&thread) {
            return Self::Appliance;
        }
        let flags = cores::stat::<u64>(thread, FLAGS);
        if flags.is_some_and(|flags| flags & KERNEL_THREAD != 0) { Self::Kernel } else { Self::Other }
    }
}

/// What most of a stall was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It slept until a timer of its core told it to look again, which was late while the core was idle.
    Late,
    /// The same while somebody else had the core, with interrupts off if it was not the hypervisor.
    LateBehind,
    /// It was told, and did not get its core, which this one had.
    Waited(Holder),
    /// It had its core all the time, and the core did not run: interrupts, or the hypervisor.
    Stopped,
}

impl Cause {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Late,
        Self::LateBehind,
        Self::Waited(Holder::Nobody),
        Self::Waited(Holder::Appliance),
        Self::Waited(Holder::Kernel),
        Self::Waited(Holder::Other),
        Self::Stopped,
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Late => "its timer was late on an idle core",
            Self::LateBehind => "its timer was late in another's time",
            Self::Waited(Holder::Nobody) => "waited for an idle core",
            Self::Waited(Holder::Appliance) => "waited for the daemon",
            Self::Waited(Holder::Kernel) => "waited for a kernel thread",
            Self::Waited(Holder::Other) => "waited for another process",
            Self::Stopped => "its core stood still",
        })
    }
}

/// A time in which the thread took nothing from its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    /// Since the thread's first packets of the run.
    pub at: Duration,
    /// What it was made of: asleep, told but without the core, or with the core.
    pub asleep: Duration,
    pub waited: Duration,
    pub running: Duration,
    /// Who had the core before it in the end.
    pub holder: Holder,
    /// In whose time its core's timer told it to look again.
    pub told: Holder,
}

impl Stall {
    /// How long it was.
    pub(crate) fn length(&self) -> Duration {
        self.asleep + self.waited + self.running
    }

    /// What most of it was.
    pub(crate) fn cause(&self) -> Cause {
        if self.waited >= self.asleep.max(self.running) {
            Cause::Waited(self.holder)
        } else if self.asleep >= self.running {
            if self.told == Holder::Nobody { Cause::Late } else { Cause::LateBehind }
        } else {
            Cause::Stopped
        }
    }

    /// Packets beyond what the queue holds that come meanwhile at a rate.
    pub(crate) fn beyond(&self, rate: f64) -> f64 {
        (self.length().as_secs_f64() * rate - QUEUE).max(0.0)
    }
}

/// A recording of one receiving thread. Dropping it leaves nothing of it in the kernel.
#[derive(Debug)]
pub(crate) struct Recorder {
    name: String,
    thread: u32,
}

impl Recorder {
    /// Prepares one for the thread that receives for an interface.
    ///
    /// # Errors
    /// There is no such thread, or this kernel does not record, or does not let this process.
    pub(crate) fn prepare(interface: &str) -> Result<Self> {
        let thread = cores::receiver(interface)?;
        let own = Self { name: format!("{NAME}{}", std::process::id()), thread };
        let (name, filters) = (own.name.clone(), filters(interface, thread));
        in_tracing(move |root| {
            remove_left_behind(root)?;
            let instance = root.join("instances").join(name);
            fs::create_dir(&instance).with_context(|| format!("cannot create {}", instance.display()))?;
            write(&instance, "tracing_on", "0")?;
            // Which the generator goes by as well.
            write(&instance, "trace_clock", "mono")?;
            for (core, size) in BUFFERS_KIB {
                write(&instance, &format!("per_cpu/cpu{}/buffer_size_kb", core.0), &size.to_string())?;
            }
            for (event, filter) in filters {
                write(&instance, &format!("events/{event}/filter"), &filter)?;
                write(&instance, &format!("events/{event}/enable"), "1")?;
            }
            Ok(())
        })?;
        Ok(own)
    }

    /// Begins afresh.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn begin(&self) -> Result<()> {
        self.with_instance(|instance| {
            // Opened to be written anew, it is emptied.
            write(instance, "trace", "")?;
            write(instance, "tracing_on", "1")
        })
    }

    /// Ends, and says when the queue was left alone for longer than it lasts at a rate of packets a second.
    ///
    /// # Errors
    /// The kernel could not record all of it, or what it says is not understood.
    pub(crate) fn end(&self, rate: f64, appliance: &[u32]) -> Result<Vec<Stall>> {
        let (thread, appliance) = (self.thread, appliance.to_vec());
        self.with_instance(move |instance| {
            write(instance, "tracing_on", "0")?;
            for core in fs::read_dir(instance.join("per_cpu"))? {
                let file = core?.path().join("stats");
                ensure_complete(&fs::read_to_string(&file)?)
                    .with_context(|| format!("by {}", file.display()))?;
            }
            let mut reading = Reading::new(thread, Duration::from_secs_f64(QUEUE / rate), &appliance);
            for line in BufReader::new(File::open(instance.join("trace"))?).lines() {
                if let Some((at, event)) = parse(&line?)? {
                    reading.note(at, event);
                }
            }
            ensure!(reading.first.is_some(), "the kernel recorded no poll of a queue with packets");
            Ok(reading.stalls)
        })
    }

    fn with_instance<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let name = self.name.clone();
        in_tracing(move |root| what(&root.join("instances").join(name)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // What is left is removed by the next recording.
        let _ = self.with_instance(|instance| Ok(fs::remove_dir(instance)?));
    }
}

/// What is written down, and of which thread.
fn filters(interface: &str, thread: u32) -> [(&'static str, String); 3] {
    [
        ("napi/napi_poll", format!("dev_name == \"{interface}\"")),
        ("sched/sched_switch", format!("prev_pid == {thread} || next_pid == {thread}")),
        ("sched/sched_waking", format!("pid == {thread}")),
    ]
}

/// Does something where the kernel's tracing is to be found: mounted for a thread of its own, and so for nobody else.
fn in_tracing<T: Send + 'static>(what: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
    let inside = move || {
        // The thread, not the process, is taken out of what others see as mounted.
        unshare(CloneFlags::CLONE_NEWNS).context("no mounts of its own for a thread")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("mounts cannot be kept from others")?;
        mount(Some("tracefs"), TRACING, Some("tracefs"), MsFlags::empty(), nothing)
            .context("this kernel has no tracefs, or does not let it be used")?;
        what(Path::new(TRACING))
    };
    thread::spawn(inside).join().ok().context("the thread that reads the kernel's record has panicked")?
}

/// Removes recordings of processes that have ended without doing so.
fn remove_left_behind(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root.join("instances"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(NAME) else { continue };
        if !Path::new("/proc").join(process).exists() {
            fs::remove_dir(entry.path()).with_context(|| format!("{name} was left behind and stays"))?;
        }
    }
    Ok(())
}

fn write(instance: &Path, file: &str, value: &str) -> Result<()> {
    let path = instance.join(file);
    fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
}

/// Fails if a core's buffer was too small, by its own account.
fn ensure_complete(stats: &str) -> Result<()> {
    for name in ["overrun", "commit overrun", "dropped events"] {
        let lost = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        ensure!(lost.is_none_or(|lost| lost.trim() == "0"), "{name}: {}", lost.unwrap_or_default());
    }
    Ok(())
}

/// What the kernel wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A poll has ended, and took so many packets.
    Polled { packets: u32 },
    /// A thread gave its core to another one; it would have gone on, or it sleeps.
    Switched { from: u32, to: u32, goes_on: bool },
    /// The one that receives is to come back, says this core in the time of a thread.
    Woken { by: u32, of: u32 },
}

/// A line of `trace`, for example
/// `napi/a1-5-77  [001] d..2.  12.000345: sched_switch: prev_comm=napi/a1-5 prev_pid=77 prev_prio=98 prev_state=S ==> …`;
/// none for comments.
fn parse(line: &str) -> Result<Option<(Duration, Event)>> {
    let found = ["napi_poll", "sched_switch", "sched_waking"].into_iter().find_map(|name| {
        let (before, rest) = line.split_once(&format!(": {name}: "))?;
        Some((before, name, rest))
    });
    let Some((before, name, rest)) = found else {
        ensure!(line.trim().is_empty() || line.starts_with('#'), "not an event that was asked for: {line:?}");
        return Ok(None);
    };
    // Names may have anything in them, also these words, so the last one counts.
    let number = |behind: &str| -> Result<u32> {
        let digits: String = rest
            .rsplit_once(behind)
            .map(|(_, value)| value.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        digits.parse().with_context(|| format!("no number behind {behind:?} in {line:?}"))
    };
    let at = before.split_whitespace().next_back().and_then(time);
    let at = at.with_context(|| format!("no time in {line:?}"))?;
    let (task, behind) = before.rsplit_once('[').with_context(|| format!("no core in {line:?}"))?;
    let core = behind.split_once(']').and_then(|(core, _)| core.parse().ok());
    let core = core.with_context(|| format!("no core in {line:?}"))?;
    let event = match name {
        "napi_poll" => Event::Polled { packets: number(" work ")? },
        "sched_switch" => {
            let goes_on = rest.rsplit_once(" prev_state=").is_some_and(|(_, state)| state.starts_with('R'));
            Event::Switched { from: number(" prev_pid=")?, to: number(" next_pid=")?, goes_on }
        }
        "sched_waking" => {
            let of = task.trim_end().rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            Event::Woken { by: core, of: of.with_context(|| format!("no thread in {line:?}"))? }
        }
        other => bail!("{other} was not asked for"),
    };
    Ok(Some((at, event)))
}

/// Seconds with six digits behind the point.
fn time(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    (micros.len() == 6).then_some(())?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

/// The number of the thread that a core has when it has nothing to do.
const IDLE: u32 = 0;

/// Where the thread was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Running,
    Asleep,
    Waiting,
}

/// A record that is being read, from one poll to the next.
struct Reading<'a> {
    /// The thread that receives.
    thread: u32,
    /// Longer is a stall.
    limit: Duration,
    appliance: &'a [u32],
    /// When the first packets were taken. Before that nothing was left alone.
    first: Option<Duration>,
    place: Place,
    since: Duration,
    asleep: Duration,
    waited: Duration,
    running: Duration,
    /// Who got the core when the thread left it, in whose time its timer told it to come back, and from whom it came back.
    to: u32,
    told: Option<u32>,
    from: Option<u32>,
    stalls: Vec<Stall>,
}

impl<'a> Reading<'a> {
    const fn new(thread: u32, limit: Duration, appliance: &'a [u32]) -> Self {
        Self {
            thread,
            limit,
            appliance,
            first: None,
            place: Place::Running,
            since: Duration::ZERO,
            asleep: Duration::ZERO,
            waited: Duration::ZERO,
            running: Duration::ZERO,
            to: IDLE,
            told: None,
            from: None,
            stalls: Vec::new(),
        }
    }

    fn note(&mut self, at: Duration, event: Event) {
        let passed = at.saturating_sub(self.since);
        self.since = at;
        match self.place {
            Place::Running => self.running += passed,
            Place::Asleep => self.asleep += passed,
            Place::Waiting => self.waited += passed,
        }
        match event {
            Event::Switched { from, to, .. } if to == self.thread => {
                self.place = Place::Running;
                self.from = Some(from);
            }
            Event::Switched { to, goes_on, .. } => {
                self.place = if goes_on { Place::Waiting } else { Place::Asleep };
                (self.to, self.told, self.from) = (to, None, None);
            }
            Event::Woken { by, of } if self.place == Place::Asleep => {
                self.place = Place::Waiting;
                if by == Core::FORWARDING.0 as u32 {
                    self.told = Some(of);
                } else {
                    // Until now there was no packet.
                    self.asleep = Duration::ZERO;
                    self.waited = Duration::ZERO;
                    self.running = Duration::ZERO;
                }
            }
            // Who is awake is told as well.
            Event::Woken { .. } => {}
            Event::Polled { packets } => self.polled(at, packets),
        }
    }

    fn polled(&mut self, at: Duration, packets: u32) {
        let (asleep, waited, running) = (self.asleep, self.waited, self.running);
        (self.asleep, self.waited, self.running) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        self.place = Place::Running;
        match self.first {
            None if packets > 0 => self.first = Some(at),
            None => {}
            // Whoever sent nothing for so long left the queue empty.
            Some(first) if asleep + waited + running > self.limit && packets >= BUDGET => {
                let at = at.saturating_sub(first + asleep + waited + running);
                let of = |thread| Holder::of(thread, self.appliance);
                let holder = of(self.from.or(self.told).unwrap_or(self.to));
                let told = of(self.told.unwrap_or(IDLE));
                self.stalls.push(Stall { at, asleep, waited, running, holder, told });
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let rows = [
            ("# tracer: nop", None),
            ("", None),
            (
                " napi/a2302-2651-2429    [001] b.... 30290.392111: napi_poll: napi poll on napi struct 0000000030fc5a93 \
                 for device a2302 work 26 budget 64",
                Some((micros(30_290_392_111), Event::Polled { packets: 26 })),
            ),
            (
                " napi/a2302-2651-2429    [001] d..2. 30290.392113: sched_switch: prev_comm=napi/a2302-2651 prev_pid=2429 \
                 prev_prio=98 prev_state=S ==> next_comm=two words next_pid=75 next_prio=120",
                Some((micros(30_290_392_113), Event::Switched { from: 2429, to: 75, goes_on: false })),
            ),
            (
                " napi/a2302-2651-2429    [001] d..2. 30290.392113: sched_switch: prev_comm=napi/a2302-2651 prev_pid=2429 \
                 prev_prio=98 prev_state=R+ ==> next_comm=migration/1 next_pid=22 next_prio=0",
                Some((micros(30_290_392_113), Event::Switched { from: 2429, to: 22, goes_on: true })),
            ),
            (
                " two words-75      [001] d.h2. 30290.392133: sched_waking: comm=napi/a2302-2651 pid=2429 prio=98 target_cpu=001",
                Some((micros(30_290_392_133), Event::Woken { by: 1, of: 75 })),
            ),
            (
                " <idle>-0       [001] d.h2. 30290.392133: sched_waking: comm=napi/a2302-2651 pid=2429 prio=98 target_cpu=001",
                Some((micros(30_290_392_133), Event::Woken { by: 1, of: 0 })),
            ),
            (
                " a-b [c]-75      [001] d..2. 30290.392140: sched_switch: prev_comm=a-b [c] prev_pid=75 prev_prio=120 \
                 prev_state=S ==> next_comm=napi/a2302-2651 next_pid=2429 next_prio=98",
                Some((micros(30_290_392_140), Event::Switched { from: 75, to: 2429, goes_on: false })),
            ),
        ];
        for (line, expected) in rows {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
        let wrong = [
            (
                "<idle>-0 [001] dnh1. 30184.717669: reschedule_entry: vector=253",
                "not an event that was asked for",
            ),
            (
                "x-1 [001] b.... 1.000: napi_poll: napi poll on napi struct 0 for device a work 1 budget 64",
                "no time",
            ),
            ("x-1 [001] b.... 1.000000: napi_poll: napi poll", "no number behind \" work \""),
        ];
        for (line, said) in wrong {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    const THREAD: u32 = 77;
    /// The daemon's threads are known by their numbers. No process has these, so whose they are is not known.
    const DAEMON: u32 = 500_000_000;
    const OTHER: u32 = 500_000_001;

    const POLLED: Event = Event::Polled { packets: 64 };

    const fn left(to: u32) -> Event {
        Event::Switched { from: THREAD, to, goes_on: false }
    }

    const fn back(from: u32) -> Event {
        Event::Switched { from, to: THREAD, goes_on: false }
    }

    const fn by_timer(of: u32) -> Event {
        Event::Woken { by: Core::FORWARDING.0 as u32, of }
    }

    const fn by_sender() -> Event {
        Event::Woken { by: Core::TRAFFIC.0 as u32, of: 12 }
    }

    fn stalls(events: &[(u64, Event)]) -> Vec<Stall> {
        let mut reading = Reading::new(THREAD, micros(256), &[DAEMON]);
        for (at, event) in events {
            reading.note(micros(*at), *event);
        }
        reading.stalls
    }

    /// What happens, and what most of the stall is.
    type Row<'a> = (&'a str, &'a [(u64, Event)], Cause);

    #[test]
    fn a_stall_says_what_it_was_made_of() {
        let rows: [Row<'_>; 10] = [
            ("never off its core", &[(100, POLLED), (500, POLLED)], Cause::Stopped),
            ("told late", &[(100, POLLED), (110, left(0)), (400, by_timer(0)), (500, POLLED)], Cause::Late),
            (
                "told late in another's time",
                &[(100, POLLED), (110, left(0)), (400, by_timer(OTHER)), (410, back(OTHER)), (500, POLLED)],
                Cause::LateBehind,
            ),
            (
                "told, and the core slept on",
                &[(100, POLLED), (110, left(0)), (130, by_timer(0)), (500, POLLED)],
                Cause::Waited(Holder::Nobody),
            ),
            (
                "given to another who was done, and then the core slept",
                &[(100, POLLED), (110, left(OTHER)), (130, by_timer(0)), (500, POLLED)],
                Cause::Waited(Holder::Nobody),
            ),
            (
                "told in the time of another, whose switch is missing",
                &[(100, POLLED), (110, left(0)), (130, by_timer(OTHER)), (500, POLLED)],
                Cause::Waited(Holder::Other),
            ),
            (
                "told by the sender, and nothing is known but who got the core",
                &[(100, POLLED), (100, left(OTHER)), (100, by_sender()), (500, POLLED)],
                Cause::Waited(Holder::Other),
            ),
            (
                "given to nobody, and another came before it was told",
                &[(100, POLLED), (110, left(0)), (130, by_timer(OTHER)), (480, back(OTHER)), (500, POLLED)],
                Cause::Waited(Holder::Other),
            ),
            (
                "told, and the daemon had the core",
                &[
                    (100, POLLED),
                    (110, left(DAEMON)),
                    (130, by_timer(DAEMON)),
                    (140, by_sender()),
                    (480, back(DAEMON)),
                    (500, POLLED),
                ],
                Cause::Waited(Holder::Appliance),
            ),
            (
                "pushed off its core",
                &[
                    (100, POLLED),
                    (110, Event::Switched { from: THREAD, to: DAEMON, goes_on: true }),
                    (480, back(DAEMON)),
                    (500, POLLED),
                ],
                Cause::Waited(Holder::Appliance),
            ),
        ];
        for (description, events, cause) in rows {
            let found = stalls(events);
            assert_eq!(found.len(), 1, "{description}");
            assert_eq!((found[0].cause(), found[0].length()), (cause, micros(400)), "{description}");
            assert!((found[0].beyond(1e6) - 144.0).abs() < 1e-9, "{description}");
            assert!(found[0].beyond(100_000.0).abs() < f64::EPSILON, "{description}");
        }
        let silence = [(100, POLLED), (110, left(0)), (800, by_sender()), (900, POLLED)];
        assert_eq!(stalls(&silence), [], "nothing was sent");
        let woken_late = [(100, POLLED), (110, left(0)), (800, by_sender()), (1100, POLLED)];
        assert_eq!(stalls(&woken_late)[0].length(), micros(300), "from the first packet on");
    }

    #[test]
    fn a_queue_that_was_not_full_was_not_left_alone() {
        let polled = |packets| Event::Polled { packets };
        assert_eq!(stalls(&[(100, polled(64)), (350, polled(64))]), [], "short");
        assert_eq!(stalls(&[(100, polled(0)), (900, polled(64))]), [], "before the first packet");
        assert_eq!(stalls(&[(100, polled(64)), (900, polled(10))]), [], "few packets came meanwhile");
        let twice = stalls(&[(100, polled(64)), (500, polled(64)), (900, polled(64))]);
        assert_eq!(twice.iter().map(|stall| stall.at).collect::<Vec<_>>(), [micros(0), micros(400)]);
    }

    #[test]
    fn threads_of_the_kernel_are_told_from_processes() {
        let own = std::process::id();
        assert_eq!(Holder::of(own, &[]), Holder::Other);
        assert_eq!(Holder::of(own, &[own]), Holder::Appliance);
        assert_eq!(Holder::of(0, &[]), Holder::Nobody);
        // Number 2 is the parent of the kernel's threads, where processes have no numbers of their own (pid_namespaces(7)).
        let kernel = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
        assert_eq!(Holder::of(2, &[]), if kernel { Holder::Kernel } else { Holder::Other });
    }

    #[test]
    fn a_record_with_holes_is_refused() {
        assert!(ensure_complete("entries: 5\noverrun: 0\ncommit overrun: 0\ndropped events: 0\n").is_ok());
        let error = ensure_complete("entries: 5\noverrun: 12\ncommit overrun: 0\n").unwrap_err();
        assert_eq!(error.to_string(), "overrun: 12");
    }
}
