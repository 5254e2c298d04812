//! Every run as it was, one line each: the raw data, from which tables and plots are made.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::contender::{Contender, Trial};
use crate::traffic::Rate;

/// What a run was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Measure {
    /// More than can be carried.
    Saturation,
    /// A rate of the search at which too much was lost.
    SearchLost,
    /// A rate of the search that was held.
    SearchHeld,
    /// The rate at which all are compared.
    Common,
    /// Another number of streams.
    Streams,
    /// More packets, one at a time, than can be carried.
    DelaySaturation,
    /// A rate of the search for what is carried of packets one at a time.
    DelaySearch {
        /// Whether it was held.
        held: bool,
    },
    /// Delays at a part of that, in percent.
    Delay(u32),
    /// The floor's at the same rate, after it.
    FloorDelay {
        /// The part.
        percent: u32,
        /// Whose part.
        beside: Contender,
    },
}

impl Measure {
    /// Its name in the data.
    #[must_use]
    pub(crate) fn name(self) -> String {
        match self {
            Self::Saturation => "saturation".to_owned(),
            Self::SearchLost => "search-lost".to_owned(),
            Self::SearchHeld => "search-held".to_owned(),
            Self::Common => "common".to_owned(),
            Self::Streams => "streams".to_owned(),
            Self::DelaySaturation => "delay-saturation".to_owned(),
            Self::DelaySearch { held: true } => "delay-search-held".to_owned(),
            Self::DelaySearch { held: false } => "delay-search-lost".to_owned(),
            Self::Delay(percent) => format!("delay-{percent}"),
            Self::FloorDelay { percent, beside } => format!("delay-{percent}-beside-{}", beside.name()),
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its round.
    pub round: usize,
    /// Who forwarded.
    pub contender: Contender,
    /// How many streams took turns.
    pub streams: usize,
    /// What it was for.
    pub measure: Measure,
    /// What it came to.
    pub trial: Trial,
}

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// In the order in which they were made.
    pub lines: Vec<Line>,
}

impl Record {
    /// Adds one.
    pub(crate) fn keep(
        &mut self,
        round: usize,
        contender: Contender,
        streams: usize,
        measure: Measure,
        trial: &Trial,
    ) {
        self.lines.push(Line { round, contender, streams, measure, trial: trial.clone() });
    }

    /// Writes them as comma-separated values.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from(
            "round,contender,streams,measure,frame_bytes,offered_per_s,sent,received,lost,late,seconds,received_per_s,\
             cpu_ns_per_packet,core_busy,repeated,jitter_ns\n",
        );
        for Line { round, contender, streams, measure, trial } in &self.lines {
            let offered = match trial.load.rate {
                Rate::Unlimited => String::from("unlimited"),
                Rate::PerSecond(rate) => format!("{rate:.0}"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{round},{},{streams},{},{},{offered},{},{},{},{},{:.6},{:.0},{:.1},{:.3},{},{}",
                contender.name(),
                measure.name(),
                trial.load.frame,
                trial.ran.sent,
                trial.ran.received.packets,
                trial.ran.lost(),
                trial.ran.received.late,
                trial.ran.time.as_secs_f64(),
                trial.rate(),
                trial.cpu_ns(),
                trial.busy(),
                trial.repeated,
                trial.ran.jitter_ns().map_or_else(String::new, |ns| format!("{ns:.0}")),
            );
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
