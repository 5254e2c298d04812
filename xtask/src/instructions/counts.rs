//! What is counted, the baseline that it is held against, and how far apart they may be.
//!
//! A count is of one compiler and one architecture: with another, nothing can be said, and it says so. What the kernel
//! tells of its programs is also of one kernel, so elsewhere more is allowed. Margins are wide on purpose: the guard is
//! for what somebody did not mean to do, not for every branch that is added.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Instructions of userspace, as Callgrind counts them.
    Instructions,
    /// Instructions that the verifier looked at to accept a kernel program.
    Verified,
    /// Bytes of a kernel program as the kernel holds it, before it is compiled for the processor.
    Bytes,
    /// Time of the relay in per cent of a program that advances the stream and reads the clock once, as the relay must.
    PercentOfClock,
    /// Time of the relay in per cent of a program that does nothing.
    PercentOfFloor,
}

impl Measure {
    /// What may be added to the baseline, in per cent of it.
    #[must_use]
    pub fn margin(self, kernel: Kernel) -> u64 {
        match (self, kernel) {
            (Self::Instructions, _) | (Self::Verified | Self::Bytes, Kernel::Same) => 10,
            // Verifiers differ in what they look at twice.
            (Self::Verified | Self::Bytes, Kernel::Another) => 100,
            (Self::PercentOfClock, _) => 100,
            // What it costs to call a program at all differs by three between processors.
            (Self::PercentOfFloor, _) => 200,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Instructions => "instructions in userspace",
            Self::Verified => "instructions that the verifier looked at",
            Self::Bytes => "bytes of a kernel program",
            Self::PercentOfClock => "time in % of a step and a reading of the clock",
            Self::PercentOfFloor => "time in % of a program that does nothing",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.unit())
    }
}

/// Whether the kernel is of the line that the baseline was counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// It is.
    Same,
    /// It is not.
    Another,
}

/// Numbers by what they are of and by name.
pub type Rows = BTreeMap<Measure, BTreeMap<String, u64>>;

/// All that was counted, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Release of rustc, for example `1.95.0`.
    pub compiler: String,
    /// The processor's architecture, as Rust names it.
    pub architecture: String,
    /// The kernel's line, for example `6.18`.
    pub kernel: String,
    /// Valgrind's release; told, not compared.
    pub valgrind: String,
    /// The numbers.
    pub rows: Rows,
}

/// What a row came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the margin.
    Held,
    /// Above it.
    More,
    /// Clearly less: the baseline wants to be renewed, so that it guards what was won.
    Less,
    /// In the baseline, and not counted.
    Gone,
    /// Counted, and not in the baseline.
    New,
}

impl Verdict {
    /// Whether it lets nothing through.
    #[must_use]
    pub fn fails(self) -> bool {
        matches!(self, Self::More | Self::Gone | Self::New)
    }

    fn of(here: u64, baseline: u64, margin: u64) -> Self {
        // Per cent of the baseline, without a fraction.
        let (here, limit) = (u128::from(here) * 100, u128::from(baseline) * u128::from(100 + margin));
        if here > limit {
            return Self::More;
        }
        let less = here * u128::from(100 + margin) < u128::from(baseline) * 100 * 100;
        if less { Self::Less } else { Self::Held }
    }
}

/// A row beside its baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What the numbers are of.
    pub measure: Measure,
    /// The row.
    pub name: String,
    /// What was counted.
    pub here: Option<u64>,
    /// What was counted for the baseline.
    pub baseline: Option<u64>,
    /// The two beside each other.
    pub verdict: Verdict,
}

/// Why two counts say nothing about each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incomparable {
    /// They are of other compilers.
    Compiler {
        /// That of the baseline.
        baseline: String,
        /// This one.
        here: String,
    },
    /// They are of other processors.
    Architecture {
        /// That of the baseline.
        baseline: String,
        /// This one.
        here: String,
    },
}

impl fmt::Display for Incomparable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler { baseline, here } => {
                write!(f, "the baseline is of rustc {baseline}, and this is rustc {here}")
            }
            Self::Architecture { baseline, here } => {
                write!(f, "the baseline is of {baseline}, and this is {here}")
            }
        }
    }
}

impl Counts {
    /// Reads a baseline.
    ///
    /// # Errors
    /// It is not there, or not readable.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
    }

    /// Writes a baseline.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether it is of this kernel's line.
    #[must_use]
    pub fn kernel_beside(&self, baseline: &Self) -> Kernel {
        if self.kernel == baseline.kernel { Kernel::Same } else { Kernel::Another }
    }

    /// Holds these counts against a baseline, row by row.
    ///
    /// # Errors
    /// They say nothing about each other.
    pub fn beside(&self, baseline: &Self) -> Result<Vec<Line>, Incomparable> {
        let differ =
            |ours: &str, theirs: &str| (ours != theirs).then(|| (theirs.to_owned(), ours.to_owned()));
        if let Some((baseline, here)) = differ(&self.architecture, &baseline.architecture) {
            return Err(Incomparable::Architecture { baseline, here });
        }
        if let Some((baseline, here)) = differ(&self.compiler, &baseline.compiler) {
            return Err(Incomparable::Compiler { baseline, here });
        }
        let kernel = self.kernel_beside(baseline);
        let get =
            |rows: &Rows, measure, name: &str| rows.get(&measure).and_then(|rows| rows.get(name).copied());
        let names = |rows: &Rows| {
            let pairs =
                rows.iter().flat_map(|(measure, rows)| rows.keys().map(|name| (*measure, name.clone())));
            pairs.collect::<Vec<_>>()
        };
        let mut all = names(&self.rows);
        all.extend(names(&baseline.rows));
        all.sort();
        all.dedup();
        let line = |(measure, name): (Measure, String)| {
            let (here, baseline) = (get(&self.rows, measure, &name), get(&baseline.rows, measure, &name));
            let verdict = match (here, baseline) {
                (Some(here), Some(baseline)) => Verdict::of(here, baseline, measure.margin(kernel)),
                (Some(_), None) => Verdict::New,
                (None, _) => Verdict::Gone,
            };
            Line { measure, name, here, baseline, verdict }
        };
        Ok(all.into_iter().map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "an INVITE is read";

    fn counts(rows: &[(Measure, &str, u64)]) -> Counts {
        let mut all = Rows::new();
        for (measure, name, value) in rows {
            all.entry(*measure).or_default().insert((*name).to_owned(), *value);
        }
        Counts {
            compiler: "1.95.0".to_owned(),
            architecture: "x86_64".to_owned(),
            kernel: "6.18".to_owned(),
            valgrind: "3.19.0".to_owned(),
            rows: all,
        }
    }

    fn verdicts(here: &Counts, baseline: &Counts) -> Vec<Verdict> {
        here.beside(baseline).unwrap().into_iter().map(|line| line.verdict).collect()
    }

    #[test]
    fn a_count_above_the_margin_fails_and_one_far_below_asks_for_a_new_baseline() {
        use Measure::*;
        for (what, measure, here, baseline, expected) in [
            ("the same", Instructions, 1000, 1000, Verdict::Held),
            ("the margin itself", Instructions, 1100, 1000, Verdict::Held),
            ("one above the margin", Instructions, 1101, 1000, Verdict::More),
            ("a little less", Instructions, 910, 1000, Verdict::Held),
            ("clearly less", Instructions, 909, 1000, Verdict::Less),
            ("the verifier looks at more", Verified, 1101, 1000, Verdict::More),
            ("a program has grown", Bytes, 1101, 1000, Verdict::More),
            ("twice the time beside the clock", PercentOfClock, 400, 200, Verdict::Held),
            ("more than that", PercentOfClock, 401, 200, Verdict::More),
            ("three times the time beside the floor", PercentOfFloor, 1200, 400, Verdict::Held),
            ("more than that", PercentOfFloor, 1201, 400, Verdict::More),
            ("something where nothing was", Instructions, 1, 0, Verdict::More),
            ("more than fits", Instructions, u64::MAX, 1, Verdict::More),
        ] {
            let (here, baseline) = (counts(&[(measure, ROW, here)]), counts(&[(measure, ROW, baseline)]));
            assert_eq!(verdicts(&here, &baseline), [expected], "{what}");
        }
    }

    #[test]
    fn only_what_is_held_or_less_lets_a_change_in() {
        let passes = |verdict: Verdict| !verdict.fails();
        let all = [Verdict::Held, Verdict::Less, Verdict::More, Verdict::Gone, Verdict::New].map(passes);
        assert_eq!(all, [true, true, false, false, false]);
    }

    #[test]
    fn a_row_that_is_gone_or_new_fails() {
        let baseline = counts(&[(Measure::Instructions, ROW, 1000), (Measure::Bytes, "branchline_relay", 8)]);
        let here = counts(&[(Measure::Instructions, ROW, 1000), (Measure::Bytes, "branchline_tc", 8)]);
        let lines = here.beside(&baseline).unwrap();
        let told: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.verdict)).collect();
        let expected =
            [(ROW, Verdict::Held), ("branchline_relay", Verdict::Gone), ("branchline_tc", Verdict::New)];
        assert_eq!(told, expected);
        assert_eq!(verdicts(&counts(&[]), &baseline), [Verdict::Gone; 2], "nothing was counted at all");
    }

    #[test]
    fn another_compiler_or_processor_says_nothing_and_another_kernel_is_granted_twice() {
        let baseline = counts(&[(Measure::Verified, "branchline_relay", 1000)]);
        let here = |verified| counts(&[(Measure::Verified, "branchline_relay", verified)]);
        let told = Counts { compiler: "1.96.0".to_owned(), ..here(1000) }.beside(&baseline).unwrap_err();
        assert_eq!(told.to_string(), "the baseline is of rustc 1.95.0, and this is rustc 1.96.0");
        let told = Counts { architecture: "aarch64".to_owned(), ..here(1000) }.beside(&baseline).unwrap_err();
        assert_eq!(told.to_string(), "the baseline is of x86_64, and this is aarch64");
        let on = |kernel: &str, verified| {
            verdicts(&Counts { kernel: kernel.to_owned(), ..here(verified) }, &baseline)
        };
        assert_eq!(on("6.18", 2000), [Verdict::More]);
        assert_eq!(on("6.1", 2000), [Verdict::Held]);
        assert_eq!(on("6.1", 2001), [Verdict::More]);
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("branchline-baseline-{}.json", std::process::id()));
        let baseline =
            counts(&[(Measure::PercentOfClock, "relay, IPv4", 195), (Measure::Instructions, ROW, 1000)]);
        baseline.write(&path).unwrap();
        let read = Counts::read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), baseline);
        let missing = Counts::read(&path).unwrap_err();
        assert!(missing.to_string().contains(&path.display().to_string()), "{missing:#}");
    }
}
