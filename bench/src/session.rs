//! One run of the bench: which parts are measured, for how long, and what is written of them.
//!
//! Tables go to the terminal and, with the raw data and the plots, into a directory: that of the report when all is
//! measured in full, one below `target/` otherwise, so that a quick look does not replace what was measured with care.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::interrupt;

use crate::apart::Apart;
use crate::appliance::Way;
use crate::contender::Contender;
use crate::other_work::{OtherWork, Watch};
use crate::progress::Progress;
use crate::record::{Measure, Record};
use crate::testbed::{Gathering, Testbed};
use crate::throughput::Plan;
use crate::traffic::{Floor, G711};
use crate::{calls, flood, latency, machine, memory, plots, profile, report, sip, streams, throughput};

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Packets a second, and what a packet costs.
    Throughput,
    /// The same with frames of other lengths.
    Frames,
    /// Delays.
    Latency,
    /// Where the time goes.
    Profile,
    /// Thousands of streams.
    Streams,
    /// Memory.
    Memory,
    /// A flood.
    Flood,
    /// Calls and registrations.
    Sip,
    /// Calls that stand.
    Calls,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Throughput,
        Self::Latency,
        Self::Profile,
        Self::Streams,
        Self::Memory,
        Self::Sip,
        Self::Calls,
        Self::Flood,
        Self::Frames,
    ];

    /// Whether nothing else runs meanwhile that needs cores: calls keep others off their core when they have been set up.
    const fn is_of_packets_alone(self) -> bool {
        match self {
            Self::Throughput | Self::Frames | Self::Latency | Self::Profile | Self::Streams => true,
            Self::Memory | Self::Flood | Self::Sip | Self::Calls => false,
        }
    }
}

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter runs: throughput takes less than two minutes.
    #[arg(long)]
    quick: bool,
    /// Rounds over all contenders. Five, or three quick ones.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: Option<u8>,
    /// Where the report goes.
    #[arg(long)]
    into: Option<PathBuf>,
    /// Only these of throughput, latency and profile, by their names in the tables, and the floor.
    #[arg(long, value_delimiter = ',', value_parser = Contender::named)]
    contenders: Vec<Contender>,
    /// Keep all other processes of the machine off the core that forwards while packets are measured; not while SIPp runs.
    #[arg(long)]
    isolate: bool,
}

/// Rounds over all contenders.
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 3;
/// Lengths of frames besides.
const OTHER_FRAMES: [usize; 3] = [64, 512, 1400];
/// Whose figures with these say nothing that those with G.711's do not.
const G711_ALONE: [Contender; 4] = [
    Contender::Floor(Floor::Readdressed),
    Contender::Ours(Way::Generic),
    Contender::Ours(Way::UserspacePorts),
    Contender::Socket,
];
/// What somebody has written about the figures, beside the report.
const FINDINGS: &str = "findings.md";
/// How long calls are made at one rate.
const SIP_TIME: Duration = Duration::from_secs(4);
const SIP_TIME_QUICK: Duration = Duration::from_secs(3);
/// Calls, each of which has a stream.
const CALLS: usize = 1000;

struct Session {
    options: Options,
    contenders: Vec<Contender>,
    bed: Testbed,
    record: Record,
    floods: Vec<flood::Outcome>,
    signalling: Vec<sip::Run>,
    standing: calls::Outcome,
    held: Vec<memory::Held>,
    profiles: Vec<profile::Profile>,
    /// Parts that are not reported, and why.
    refused: Vec<String>,
}

/// Measures parts, and writes what came of them.
///
/// # Errors
/// A part cannot be measured or does not add up: then it is not in what is written, and the report stays as it was. Or the run was
/// interrupted: then nothing is written but the runs that there were.
pub(crate) fn run(options: &Options, parts: &[Part]) -> Result<()> {
    let started = Instant::now();
    let isolates = |part: &Part| part.is_of_packets_alone() || *part == Part::Calls;
    ensure!(
        !options.isolate || parts.iter().any(isolates),
        "--isolate is for packets: throughput, latency, profile, streams and calls"
    );
    interrupt::listen();
    let (mut machine, others) = machine::describe()?;
    let watch = Watch::begin()?;
    let mut session = Session {
        options: options.clone(),
        contenders: options.contenders(),
        bed: Testbed::create()?,
        record: Record::default(),
        floods: Vec::new(),
        signalling: Vec::new(),
        standing: calls::Outcome::default(),
        held: Vec::new(),
        profiles: Vec::new(),
        refused: Vec::new(),
    };
    let scratch = xtask::workspace::scratch("bench")?;
    for part in parts {
        let before = session.record.lines.len();
        let result = session.measure(*part);
        // Also of a part that failed: it shows why.
        session.record.write(&scratch.join("runs.csv"))?;
        if let Err(error) = result {
            if interrupt::happened() {
                return Err(error);
            }
            // What does not add up is not reported, nor what was measured on the way there.
            session.record.lines.truncate(before);
            session.refused.push(format!("{part:?}: {error:#}"));
        }
    }
    // The report is only replaced by one that has as much in it.
    let is_report = parts == Part::ALL && options.is_in_full() && session.refused.is_empty();
    let report = || if is_report { xtask::workspace::root().join("bench/report") } else { scratch };
    let directory = options.into.clone().unwrap_or_else(report);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let stolen = watch.stolen()? * 100.0;
    // Writing to a string cannot fail. So below.
    if options.isolate {
        let _ = writeln!(
            machine,
            "- `--isolate`: the core that forwards was closed to all other processes while packets were measured"
        );
    }
    let _ = writeln!(machine, "- taken by the hypervisor while this was measured: {stolen:.2} % of a core");
    let text = session.write(&directory, &machine, &others, started.elapsed())?;
    println!("\n{text}");
    println!("Written to {}.", directory.display());
    ensure!(session.refused.is_empty(), "not reported: {}", session.refused.join("\n"));
    Ok(())
}

impl Options {
    /// Whether all of a part is measured, and as it is described.
    fn is_in_full(&self) -> bool {
        let Self { quick, rounds, into: _, contenders, isolate } = self;
        !quick
            && rounds.is_none_or(|rounds| usize::from(rounds) >= ROUNDS)
            && contenders.is_empty()
            && !isolate
    }

    /// Who takes part, the floor first.
    fn contenders(&self) -> Vec<Contender> {
        let named = |it: &Contender| *it == Contender::FLOOR || self.contenders.contains(it);
        // Who is asked for by name and cannot run says so when it is put in place.
        let takes_part =
            |it: &Contender| if self.contenders.is_empty() { it.is_to_be_had().is_ok() } else { named(it) };
        Contender::ALL.into_iter().filter(takes_part).collect()
    }
}

impl Session {
    fn rounds(&self) -> usize {
        self.options.rounds.map_or(if self.options.quick { ROUNDS_QUICK } else { ROUNDS }, usize::from)
    }

    fn time(&self) -> Duration {
        if self.options.quick { Duration::from_millis(200) } else { Duration::from_millis(600) }
    }

    fn plan(&self, frame: usize, bisections: usize) -> Plan {
        Plan {
            rounds: self.rounds(),
            time: self.time(),
            calls: CALLS,
            frame,
            contenders: self.contenders.clone(),
            bisections,
        }
    }

    fn measure(&mut self, part: Part) -> Result<()> {
        let (rounds, time) = (self.rounds(), self.time());
        let gathering = if part == Part::Latency { Gathering::None } else { Gathering::AsCardsDo };
        self.bed.gather(gathering)?;
        let _apart = (self.options.isolate && part.is_of_packets_alone()).then(Apart::keep).transpose()?;
        match part {
            Part::Throughput => self.throughput(&[self.plan(G711, if self.options.quick { 3 } else { 5 })]),
            Part::Frames => self.throughput(&OTHER_FRAMES.map(|frame| {
                let mut plan = Plan { rounds: rounds.min(3), ..self.plan(frame, 0) };
                plan.contenders.retain(|it| !G711_ALONE.contains(it));
                plan
            })),
            Part::Latency => {
                let plan = latency::Plan::new(rounds, time, CALLS, &self.contenders);
                let mut progress = Progress::begin("latency", plan.runs());
                latency::run(&self.bed, &plan, &mut self.record, &mut progress)?;
                progress.end();
                Ok(())
            }
            Part::Profile => {
                let mut progress = Progress::begin("profile", profile::runs(&self.contenders));
                self.profiles = profile::run(&self.bed, CALLS, &self.contenders, &mut progress)?;
                progress.end();
                Ok(())
            }
            Part::Streams => {
                let mut progress = Progress::begin("streams", streams::runs(rounds));
                streams::run(&self.bed, rounds, time, &mut self.record, &mut progress)?;
                progress.end();
                Ok(())
            }
            Part::Memory => {
                let mut progress = Progress::begin("memory", memory::COUNTS.len());
                self.held = memory::run(&self.bed, |count| progress.step(count))?;
                progress.end();
                Ok(())
            }
            Part::Sip => {
                let mut progress = Progress::begin("sip", sip::steps(rounds));
                let time = if self.options.quick { SIP_TIME_QUICK } else { SIP_TIME };
                self.signalling = sip::run(&self.bed, rounds, time, |what| progress.step(what))?;
                progress.end();
                Ok(())
            }
            Part::Calls => {
                let plan =
                    if self.options.quick { calls::Plan::quick(rounds) } else { calls::Plan::full(rounds) };
                let plan = plan.isolated(self.options.isolate);
                let mut progress = Progress::begin("calls", plan.steps());
                calls::run(&self.bed, &plan, &mut self.standing, |what| progress.step(what))?;
                progress.end();
                Ok(())
            }
            Part::Flood => {
                let mut progress = Progress::begin("flood", flood::FLOODS.len());
                self.floods = flood::run(&self.bed, |flood| progress.step(flood))?;
                progress.end();
                Ok(())
            }
        }
    }

    fn throughput(&mut self, plans: &[Plan]) -> Result<()> {
        let mut progress = Progress::begin("throughput", plans.iter().map(Plan::runs).sum());
        for plan in plans {
            throughput::run(&self.bed, plan, &mut self.record, &mut progress)?;
        }
        progress.end();
        Ok(())
    }

    /// Writes the report, the plots and the raw data, and returns the report.
    fn write(&self, directory: &Path, machine: &str, others: &OtherWork, took: Duration) -> Result<String> {
        let record = &self.record;
        let measured = |wanted: fn(Measure) -> bool| record.lines.iter().any(|line| wanted(line.measure));
        let mut text = String::from("# What was measured\n\n");
        let _ = writeln!(
            text,
            "Made by `cargo xtask bench`; `docs/bench.md` says what each figure means. {} rounds, {:.1} s for a run, {:.0} \
             minutes in all. Medians; in parentheses the smallest and the largest of the rounds. `runs.csv` has every run.\n\n\
             {machine}",
            self.rounds(),
            self.time().as_secs_f64(),
            took.as_secs_f64() / 60.0
        );
        if let Some(warning) = others.warning() {
            let _ = writeln!(text, "{warning}\n");
        }
        if !self.refused.is_empty() {
            let _ = writeln!(text, "## Not reported\n\n- {}\n", self.refused.join("\n- "));
        }
        if directory.join(FINDINGS).exists() {
            let _ = writeln!(
                text,
                "[What these figures say]({FINDINGS}), and why what is to hold does not where it does not.\n"
            );
        }
        if !record.lines.is_empty() {
            let repeated: u32 = record.lines.iter().map(|line| line.trial.repeated).sum();
            let _ = writeln!(
                text,
                "{} runs; {repeated} were made again because packets or times did not add up.\n",
                record.lines.len()
            );
        }
        let targets = self.targets();
        if !targets.is_empty() {
            let _ = writeln!(text, "## Targets\n\n{}", report::targets(&targets));
        }
        if measured(|it| it == Measure::SearchHeld) {
            self.write_throughput(directory, &mut text)?;
        }
        if measured(|it| matches!(it, Measure::Delay(_))) {
            let _ = writeln!(
                text,
                "## Delay from the generator to the sink\n\n`cargo xtask bench latency`; packets come one at a time, and are not \
                 gathered. \"Of what it carries\" is of the rate at which a contender loses no more than one in 1,000 of such \
                 packets, and \"beyond the floor's\" is beside the floor at the same rate in the same round\n\n{}",
                report::latency(record)
            );
        }
        if !self.profiles.is_empty() {
            let _ = writeln!(
                text,
                "## Where the time goes\n\n`cargo xtask bench profile`\n\n{}",
                profile::tables(&self.profiles)
            );
        }
        if measured(|it| it == Measure::Streams) {
            plots::streams(record, &directory.join("streams.svg"))?;
            let _ = writeln!(
                text,
                "## Streams\n\n`cargo xtask bench streams`, {:.0} packets a second, 214 bytes\n\n{}\n\
                 ![CPU per packet by streams](streams.svg)\n",
                streams::RATE,
                report::streams(record)
            );
        }
        if !self.held.is_empty() {
            let _ =
                writeln!(text, "## Memory\n\n`cargo xtask bench memory`\n\n{}", memory::table(&self.held));
        }
        if !self.signalling.is_empty() {
            sip::write(&self.signalling, &directory.join("sip.csv"))?;
            let _ = writeln!(
                text,
                "## Calls and registrations\n\n`cargo xtask bench sip`, each edge on one core, no media sent; `sip.csv` has \
                 every run\n\n{}",
                sip::table(&self.signalling)
            );
        }
        if !self.standing.is_empty() {
            calls::write(&self.standing, directory)?;
            text += &calls::text(&self.standing);
        }
        if !self.floods.is_empty() {
            let _ = writeln!(
                text,
                "## A flood of the SIP port\n\n`cargo xtask bench flood`\n\n{}",
                flood::table(&self.floods)
            );
        }
        record.write(&directory.join("runs.csv"))?;
        fs::write(directory.join("README.md"), &text)?;
        Ok(text)
    }

    /// What is to hold of the parts that were measured.
    fn targets(&self) -> Vec<report::Target> {
        let record = &self.record;
        let measured = |wanted: fn(Measure) -> bool| record.lines.iter().any(|line| wanted(line.measure));
        let mut targets = Vec::new();
        if measured(|it| it == Measure::SearchHeld) {
            targets.extend(report::throughput_targets(record, G711));
        }
        if measured(|it| matches!(it, Measure::Delay(_))) {
            targets.extend(report::latency_targets(record));
        }
        if measured(|it| it == Measure::Streams) {
            targets.extend(report::streams_targets(record));
        }
        if !self.signalling.is_empty() {
            targets.extend(sip::targets(&self.signalling));
        }
        targets.extend(calls::targets(&self.standing));
        targets
    }

    fn write_throughput(&self, directory: &Path, text: &mut String) -> Result<()> {
        let record = &self.record;
        for frame in [G711].into_iter().chain(OTHER_FRAMES) {
            if record
                .lines
                .iter()
                .any(|line| line.trial.load.frame == frame && line.measure == Measure::Saturation)
            {
                let _ = writeln!(
                    text,
                    "## Frames of {frame} bytes, {CALLS} streams\n\n`cargo xtask bench throughput`\n\n{}",
                    report::throughput(record, frame)
                );
            }
            if frame == G711 {
                type Figure<'f> = &'f dyn Fn(Contender) -> Option<report::Spread>;
                let plots: [(&str, &str, Figure<'_>); 3] = [
                    ("saturation.svg", "Packets a second that arrive at saturation", &|it| {
                        report::spread(record, frame, it, Measure::Saturation, report::rate)
                    }),
                    ("held.svg", "Highest rate held, packets a second", &|it| {
                        report::held(record, frame, it)
                    }),
                    ("cost.svg", "CPU per packet at the highest rate held, ns", &|it| {
                        report::spread(record, frame, it, Measure::SearchHeld, report::cost)
                    }),
                ];
                for (file, title, figure) in plots {
                    plots::bars(figure, title, &directory.join(file))?;
                    let _ = writeln!(text, "![{title}]({file})\n");
                }
            }
        }
        Ok(())
    }
}
