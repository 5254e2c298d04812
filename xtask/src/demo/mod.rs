//! `cargo xtask demo`: an office, its appliance and its central server on one machine, twenty overlapping calls,
//! and a table of what the wires on both sides saw. It fails when a promise is broken.

pub mod appliance;
pub mod measure;
pub mod metrics;
pub mod report;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::appliance::Appliance;
use self::measure::Direction;
use self::report::{Counters, Facts};
use crate::lab::network::{self, Lab, Routes};
use crate::lab::traffic::Via;
use crate::lab::{Capture, Outcome, Plan, Role, Traffic, interrupt};
use crate::setup::{self, Group};
use crate::ui::{self, Outcome as Ended, Step};

/// How long the calls of `--keep` go on.
const KEEP_TALK: Duration = Duration::from_secs(24 * 3600);
/// After the last call: flows are removed, and counters have been read by the daemon.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two looks at the calls that are up.
const LOOK: Duration = Duration::from_millis(500);

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many calls.
    pub calls: u32,
    /// How long each talks.
    pub talk: Duration,
    /// Whether it goes on until Ctrl-C.
    pub keep: Keep,
}

/// Whether the demo stays up after its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is taken down.
    No,
    /// It stays, with calls, until Ctrl-C.
    UntilInterrupted,
}

/// Runs the demo.
///
/// # Errors
/// It cannot be set up, or a promise is broken.
pub fn run(options: Options) -> Result<()> {
    interrupt::listen();
    setup::run(Group::Demo)?;
    ui::heading("Demo");
    step("build", || appliance::build().map(|()| "the appliance, release".to_owned()))?;
    let lab = step("networks", || Lab::create(Routes::None))?;
    let plan = Plan { calls: options.calls, talk: options.talk, via: Via::Appliance };
    let (facts, appliance) = observe(&lab, plan)?;
    println!("\n{}", report::table(&facts));
    let promises = report::promises(&facts);
    println!("{}", report::list(&promises));
    println!("Logs and captures: {}", lab.dir().display());
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    if options.keep == Keep::UntilInterrupted {
        keep(&lab, &appliance, plan)?;
    }
    if broken > 0 {
        bail!("{broken} of {} promises are broken", promises.len());
    }
    Ok(())
}

/// Starts the appliance, makes the calls, and gathers what is to be reported.
fn observe(lab: &Lab, plan: Plan) -> Result<(Facts, Appliance)> {
    let mut appliance = step("appliance", || Appliance::start(lab))?;
    let captures = [
        Capture::start(&lab.office, network::OUTER, "office", lab.dir())?,
        Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?,
    ];
    let mut traffic = step("phones", || Traffic::begin(lab, plan))?;
    let mut calls = Step::begin("calls");
    calls.announce(&format!("{} overlapping, {} s each", plan.calls, plan.talk.as_secs()));
    traffic.call(lab)?;
    let peak = watch(&mut appliance, lab, plan, &mut calls)?;
    let outcome = traffic.finish()?;
    calls.end(Ended::Done, &format!("at most {peak:.0} at once"));
    for complaint in &outcome.complaints {
        ui::line(complaint);
    }
    interrupt::sleep(SETTLE)?;
    appliance.still_runs()?;
    let counters = Counters::read(&appliance.metrics(lab)?, peak);
    let reading = Step::begin("captures");
    let [office, centre] = captures;
    let (office, centre) = (office.finish()?, centre.finish()?);
    reading.end(Ended::Done, &format!("{} and {} packets read", office.len(), centre.len()));
    let forced = forced_sources(&outcome);
    let wires = Direction::ALL.map(|direction| measure::measure(direction, &office, &centre, &forced));
    Ok((Facts { plan, outcome, wires, counters }, appliance))
}

/// Watches the calls while they talk, and returns how many were up at once.
fn watch(appliance: &mut Appliance, lab: &Lab, plan: Plan, step: &mut Step) -> Result<f64> {
    let end = Instant::now() + plan.talk;
    let mut peak: f64 = 0.0;
    while Instant::now() < end {
        appliance.still_runs()?;
        let active = appliance.metrics(lab)?.sum("branchline_calls_active", &[]);
        peak = peak.max(active);
        step.note(&format!("{active:.0} calls up"));
        interrupt::sleep(LOOK)?;
    }
    Ok(peak)
}

/// The RTP sources of both sides of the calls that were forced through userspace. Call-ID passes unchanged.
fn forced_sources(outcome: &Outcome) -> HashSet<u32> {
    let forced: HashSet<&str> = outcome
        .office
        .iter()
        .filter(|leg| *leg.local.ip() == Role::Userspace.phone())
        .map(|leg| leg.call.as_str())
        .collect();
    let legs = outcome.office.iter().chain(&outcome.centre);
    legs.filter(|leg| forced.contains(leg.call.as_str())).map(|leg| leg.ssrc).collect()
}

fn keep(lab: &Lab, appliance: &Appliance, plan: Plan) -> Result<()> {
    let mut traffic = Traffic::begin(lab, Plan { talk: KEEP_TALK, ..plan })?;
    traffic.call(lab)?;
    println!("{}", appliance.how_to_look(lab));
    while !interrupt::happened() {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// A step's value, with a detail for its line.
trait Detail {
    fn detail(&self) -> String;
}

impl Detail for String {
    fn detail(&self) -> String {
        self.clone()
    }
}

impl Detail for Lab {
    fn detail(&self) -> String {
        [&self.office, &self.branch, &self.centre].map(|place| place.name().to_owned()).join(" - ")
    }
}

impl Detail for Appliance {
    fn detail(&self) -> String {
        format!("ready, process {}", self.pid())
    }
}

impl Detail for Traffic {
    fn detail(&self) -> String {
        format!("{} registered", self.registered)
    }
}

fn step<T: Detail>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = Step::begin(title);
    match work() {
        Ok(value) => {
            step.end(Ended::Done, &value.detail());
            Ok(value)
        }
        Err(error) => {
            step.end(Ended::Failed, "");
            Err(error).with_context(|| format!("the demo stopped at: {title}"))
        }
    }
}
