//! Where the time of a packet goes: the forwarding core, sampled by `perf` while a contender carries packets, as
//! nanoseconds of each function.
//!
//! Samples are taken by the clock and not by a counter of the processor, which virtual machines seldom have. An
//! instruction that waits for memory is found waiting, so what a cache line from another core costs stands with the
//! function that looked at it first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{Running, interrupt};

use crate::appliance::Way;
use crate::contender::{Contender, InPlace, Media};
use crate::cores::Core;
use crate::progress::Progress;
use crate::streams;
use crate::testbed::Testbed;
use crate::throughput::{COMMON_RATE, TOGETHER};
use crate::traffic::{Floor, Load, Rate};

/// Samples a second.
const FREQUENCY: u32 = 4000;
/// How long packets are carried.
const TIME: Duration = Duration::from_secs(2);
/// What `perf` takes until it samples; what it misses is missing in samples, and not in the figures.
const BEGINS: Duration = Duration::from_millis(700);
/// `perf` has written everything by then.
const ENDS: Duration = Duration::from_secs(30);
/// A function that takes this part of no contender's time is not listed by its name.
const LISTED: f64 = 0.02;
/// Fewer samples than these say nothing.
const LEAST: u64 = 500;

/// What is compared in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The kernel's ways, with more than they can carry.
    Saturation,
    /// Processes, with what all can carry.
    Common,
    /// Processes, with more than they can carry.
    Flooded,
    /// One way with few streams and with many.
    Streams,
}

impl Scene {
    fn title(self) -> String {
        match self {
            Self::Saturation => "At saturation".to_owned(),
            Self::Common => format!("At {COMMON_RATE:.0} packets a second"),
            Self::Flooded => "Processes at saturation".to_owned(),
            Self::Streams => format!("At {:.0} packets a second in so many streams", streams::RATE),
        }
    }

    /// Whether processes are compared, whose time is in system calls.
    const fn is_of_processes(self) -> bool {
        matches!(self, Self::Common | Self::Flooded)
    }

    fn rate(self) -> Rate {
        match self {
            Self::Saturation | Self::Flooded => Rate::Unlimited,
            Self::Common => Rate::PerSecond(COMMON_RATE),
            Self::Streams => Rate::PerSecond(streams::RATE),
        }
    }
}

const NATIVE: Contender = Contender::Ours(Way::Native);
const USERSPACE: Contender = Contender::Ours(Way::Userspace);
const RTPENGINE: Contender = Contender::Rtpengine(Media::Plain);
/// Who is looked at, and with how many streams if not with as many as elsewhere.
type Looked = (Contender, Option<usize>);

/// What is looked at where.
const LOOKED_AT: [(Scene, &[Looked]); 4] = [
    (
        Scene::Saturation,
        &[(Contender::FLOOR, None), (Contender::Floor(Floor::Readdressed), None), (NATIVE, None)],
    ),
    (Scene::Common, &[(USERSPACE, None), (RTPENGINE, None)]),
    (Scene::Flooded, &[(USERSPACE, None), (RTPENGINE, None)]),
    (Scene::Streams, &[(NATIVE, Some(streams::COUNTS[0])), (NATIVE, Some(streams::COUNTS[1]))]),
];

/// Where a contender's time went.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// In which table it stands.
    pub scene: Scene,
    /// Who carried what.
    pub what: String,
    /// CPU for each packet, by the scheduler's account.
    pub cpu_ns: f64,
    /// Samples in its threads, by function.
    pub samples: Samples,
    /// The same by what the thread was about: receiving, a system call, or the process's own work.
    pub errands: Samples,
}

/// How many samples were taken in what.
type Samples = BTreeMap<String, u64>;

impl Profile {
    /// Nanoseconds of a packet that a function takes.
    fn ns(&self, function: &str) -> f64 {
        self.part(&self.samples, function)
    }

    fn part(&self, of: &Samples, name: &str) -> f64 {
        let own = of.get(name).copied().unwrap_or(0);
        self.cpu_ns * own as f64 / of.values().sum::<u64>().max(1) as f64
    }
}

/// How many profiles there will be.
#[must_use]
pub(crate) fn runs(wanted: &[Contender]) -> usize {
    LOOKED_AT.iter().flat_map(|(_, looked_at)| *looked_at).filter(|(it, _)| wanted.contains(it)).count()
}

/// Takes all profiles.
///
/// # Errors
/// `perf` is missing or may not sample, a contender does not start, or its accounts do not add up.
pub(crate) fn run(
    bed: &Testbed,
    calls: usize,
    wanted: &[Contender],
    progress: &mut Progress,
) -> Result<Vec<Profile>> {
    let mut all = Vec::new();
    for (scene, looked_at) in LOOKED_AT {
        for (contender, streams) in looked_at.iter().filter(|(it, _)| wanted.contains(it)) {
            let what = match streams {
                Some(streams) => format!("{}, {streams}", contender.name()),
                None => contender.name().to_owned(),
            };
            progress.says(&what);
            let profile = one(bed, streams.unwrap_or(calls), scene, *contender)?;
            progress.step(&what);
            all.push(Profile { what, ..profile });
        }
    }
    Ok(all)
}

/// CPU for each packet, and samples.
fn one(bed: &Testbed, calls: usize, scene: Scene, contender: Contender) -> Result<Profile> {
    let in_place = match scene {
        Scene::Streams => streams::put(bed, contender, calls)?,
        _ => InPlace::put(bed, contender, calls)?,
    };
    let load = Load { together: TOGETHER, ..Load::new(scene.rate(), TIME) };
    let data = bed.lab.dir().join(format!("{}.data", contender.name()));
    let mut perf = Command::new("perf");
    perf.args(["record", "--event", "cpu-clock", "--quiet", "--freq", &FREQUENCY.to_string()]);
    perf.args(["--clockid", "monotonic"]);
    if scene.is_of_processes() {
        perf.args(["--call-graph", "fp"]);
    }
    perf.args(["--cpu", &Core::FORWARDING.0.to_string(), "--output"]).arg(&data);
    let mut perf = Running::start(&mut perf, "perf", bed.lab.dir())
        .context("`perf` is not to be had; it is in Debian's package linux-perf")?;
    interrupt::sleep(BEGINS)?;
    perf.still_runs()?;
    let trial = in_place.measure(load)?;
    perf.signal(libc::SIGINT);
    perf.wait(ENDS)?;
    let threads = in_place.threads()?;
    drop(in_place);
    let samples = by_function(&read(&data, &threads, &trial.window_ns, &REPORT)?);
    let errands = if scene.is_of_processes() {
        by_errand(&read(&data, &threads, &trial.window_ns, &SCRIPT)?)
    } else {
        Samples::new()
    };
    let taken = samples.values().sum::<u64>();
    ensure!(
        taken >= LEAST,
        "{}: {taken} samples are no profile; perf said: {}",
        contender.name(),
        perf.last_words()
    );
    Ok(Profile { scene, what: contender.name().to_owned(), cpu_ns: trial.cpu_ns(), samples, errands })
}

/// Samples by function, without what called them.
const REPORT: [&str; 9] = [
    "report",
    "--stdio",
    "--no-children",
    "--call-graph",
    "none",
    "--fields",
    "sample,symbol",
    "--field-separator",
    "\t",
];
/// Each sample, with what called it.
const SCRIPT: [&str; 3] = ["script", "--fields", "tid,time,ip,sym"];

/// What `perf` says of samples of these threads that were taken within the window: before and after it the same threads answer
/// for what they have forwarded.
fn read(data: &Path, threads: &[u32], window_ns: &Range<u64>, how: &[&str]) -> Result<String> {
    let [from, to] = [window_ns.start, window_ns.end].map(seconds);
    let threads: Vec<String> = threads.iter().map(u32::to_string).collect();
    let mut perf = Command::new("perf");
    perf.args(how)
        .args(["--tid", &threads.join(","), "--time", &format!("{from},{to}"), "--input"])
        .arg(data);
    xtask::process::output(&mut perf)
}

/// As `perf` writes a time, exactly: a floating-point number of seconds is none to the nanosecond after some weeks.
fn seconds(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    format!("{}.{:09}", ns / SECOND, ns % SECOND)
}

/// Reads `perf report`: lines of samples, and a symbol behind `[k]` or `[.]`.
fn by_function(report: &str) -> Samples {
    let mut found = Samples::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let Some((samples, symbol)) = line.split_once('\t') else { continue };
        let Ok(samples) = samples.trim().parse::<u64>() else { continue };
        *found.entry(named(symbol.trim())).or_default() += samples;
    }
    found
}

/// The kernel's thread that receives.
const RECEIVES: &str = "receiving, a thread of the kernel";
/// Interrupts, and switching between threads when no system call asked for it.
const ELSEWHERE: &str = "the kernel, in no system call";
const ITSELF: &str = "the process itself";

/// Reads `perf script`: samples as paragraphs, a line of thread and time, then an address and a function for each frame, the
/// innermost first.
fn by_errand(script: &str) -> Samples {
    let mut found = Samples::new();
    for sample in script.split("\n\n") {
        let frames: Vec<&str> = sample.trim_start_matches('\n').lines().skip(1).map(str::trim).collect();
        if let Some(errand) = errand(&frames) {
            *found.entry(errand).or_default() += 1;
        }
    }
    found
}

/// What a thread is about, by its frames; none if there are none.
fn errand(frames: &[&str]) -> Option<String> {
    let innermost = frames.first()?.split_whitespace().next()?;
    // For example `__x64_sys_recvmmsg`.
    let call = |name: &str| Some(format!("`{}`", name.strip_prefix("__")?.split_once("_sys_")?.1));
    // From the outermost: `recvmmsg` has in it what `recvmsg` is made of.
    let outer = frames.iter().rev().filter_map(|frame| frame.split_once(' ')).find_map(|(_, name)| {
        if name.starts_with("napi_threaded_poll") { Some(RECEIVES.to_owned()) } else { call(name) }
    });
    // The upper half of the addresses is the kernel's.
    let in_kernel = u64::from_str_radix(innermost, 16).is_ok_and(|address| address >> 63 == 1);
    Some(outer.unwrap_or_else(|| if in_kernel { ELSEWHERE } else { ITSELF }.to_owned()))
}

/// A function's name without what differs from run to run: a BPF program's tag, and addresses of what has no name.
fn named(symbol: &str) -> String {
    let name = symbol.split_once("] ").map_or(symbol, |(_, name)| name);
    if name.starts_with("0x") {
        return "without a name".to_owned();
    }
    match name.strip_prefix("bpf_prog_").and_then(|name| name.split_once('_')) {
        Some((_, name)) => format!("program {name}"),
        None => name.to_owned(),
    }
}

/// As tables in Markdown, one for each scene.
#[must_use]
pub(crate) fn tables(all: &[Profile]) -> String {
    let mut text = String::new();
    for (scene, _) in LOOKED_AT {
        let columns: Vec<&Profile> = all.iter().filter(|profile| profile.scene == scene).collect();
        if columns.is_empty() {
            continue;
        }
        let names: Vec<&str> = columns.iter().map(|it| it.what.as_str()).collect();
        // Writing to a string cannot fail. So below.
        let _ = writeln!(
            text,
            "{}, nanoseconds of a packet:\n\n| function | {} |",
            scene.title(),
            names.join(" | ")
        );
        let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
        let sum = |part: &dyn Fn(&Profile) -> f64| {
            columns.iter().map(|it| format!("{:.0}", part(it))).collect::<Vec<_>>().join(" | ")
        };
        let listed = largest_first(&columns, |it| &it.samples, LISTED);
        for function in &listed {
            let _ = writeln!(text, "| `{function}` | {} |", sum(&|it| it.ns(function)));
        }
        let rest = |it: &Profile| it.cpu_ns - listed.iter().map(|function| it.ns(function)).sum::<f64>();
        let _ = writeln!(text, "| each of the rest is below {:.0} % | {} |", LISTED * 100.0, sum(&rest));
        let _ = writeln!(text, "| all | {} |\n", sum(&|it| it.cpu_ns));
        if scene.is_of_processes() {
            let _ = writeln!(
                text,
                "The same by what the thread was about:\n\n| errand | {} |",
                names.join(" | ")
            );
            let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
            for errand in largest_first(&columns, |it| &it.errands, 0.0) {
                let _ = writeln!(text, "| {errand} | {} |", sum(&|it| it.part(&it.errands, errand)));
            }
            text.push('\n');
        }
    }
    text
}

/// What takes at least a part of anybody's time, the largest first.
fn largest_first<'p>(
    columns: &[&'p Profile],
    samples: impl Fn(&'p Profile) -> &'p Samples,
    least: f64,
) -> Vec<&'p str> {
    let mut largest: BTreeMap<&str, f64> = BTreeMap::new();
    for profile in columns {
        for name in samples(profile).keys() {
            let ns = profile.part(samples(profile), name);
            if ns >= least * profile.cpu_ns {
                let known = largest.entry(name).or_default();
                *known = known.max(ns);
            }
        }
    }
    let mut listed: Vec<_> = largest.into_iter().collect();
    listed.sort_by(|one, other| other.1.total_cmp(&one.1));
    listed.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_nanosecond() {
        assert_eq!(seconds(7_000_000_123_000_000_045), "7000000123.000000045");
    }

    #[test]
    fn functions_are_summed_by_names_that_do_not_differ_between_runs() {
        let report = "# To display the perf.data header info\n#\n\n\
                      120\t[k] veth_xdp_rcv\n\
                      80\t[k] bpf_prog_183b2777e493d89a_branchline_relay\n\
                      5\t[k] 0xffffffffc000ab2a\n3\t[.] 0x00005563770d92d7\n\
                      2\t[.] <core::hash::sip::Hasher<S> as core::hash::Hasher>::write\n";
        let found = by_function(report);
        assert_eq!(found["veth_xdp_rcv"], 120);
        assert_eq!(found["program branchline_relay"], 80);
        assert_eq!(found["without a name"], 8);
        assert_eq!(found["<core::hash::sip::Hasher<S> as core::hash::Hasher>::write"], 2);
        let errands = Samples::from([(RECEIVES.to_owned(), 300), ("`recvmmsg`".to_owned(), 120)]);
        let what = "floor".to_owned();
        let profile = Profile { scene: Scene::Common, what, cpu_ns: 420.0, samples: found, errands };
        assert!((profile.ns("veth_xdp_rcv") - 240.0).abs() < 1e-9);
        let listed = largest_first(&[&profile], |it| &it.samples, LISTED);
        assert_eq!(listed, ["veth_xdp_rcv", "program branchline_relay", "without a name"]);
        let text = tables(&[profile]);
        assert!(text.contains("| `program branchline_relay` | 160 |"), "{text}");
        assert!(text.contains("| all | 420 |"), "{text}");
        assert!(text.contains("| receiving, a thread of the kernel | 300 |\n| `recvmmsg` | 120 |"), "{text}");
    }

    #[test]
    fn a_sample_tells_what_its_thread_was_about() {
        let script = "\n  632 36709.502154: \n\tffffffff815e16cd skb_release_data\n\tffffffff8163c170 ___sys_recvmsg\n\tffffffff8163c177 __x64_sys_recvmmsg\n\
                      \tffffffff821ed511 do_syscall_64\n\t          101b07 __recvmmsg\n\n  \
                      77 36709.502404: \n\tffffffff81000001 veth_poll\n\tffffffff81000002 napi_threaded_poll_loop\n\n  \
                      632 36709.502654: \n\tffffffff81000003 asm_sysvec_apic_timer_interrupt\n\t 5563770d92d7 [unknown]\n\n  \
                      632 36709.502904: \n\t    5563770d92d7 relay::forward\n\t    5563770d9000 [unknown]\n\n  \
                      632 36709.503154: \n\n";
        let expected = ["`recvmmsg`", RECEIVES, ELSEWHERE, ITSELF].map(|errand| (errand.to_owned(), 1));
        assert_eq!(by_errand(script), Samples::from(expected));
    }
}
