//! `cargo xtask bench instructions`: the guard against growing unnoticed. Instructions of userspace's steps, size and
//! verification of the kernel's programs, and their time beside programs that do next to nothing, all held against
//! `bench/baseline/instructions.json`.
//!
//! Nothing is compared with an absolute time. The benches of the package `branchline-guard` count; this module runs them,
//! compares and tells.

mod callgrind;
mod counts;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;
use crate::setup;
use crate::ui::{self, Outcome, Step};
use crate::workspace;

pub use counts::{Counts, Incomparable, Kernel, Line, Measure, Rows, Verdict};

/// Where the baseline is, from the tree's root.
const BASELINE: &str = "bench/baseline/instructions.json";
/// How it is renewed.
const RENEW: &str = "cargo xtask bench instructions --renew";
/// The argument with which the bench of the kernel program tells its numbers as [`Rows`] in JSON.
pub const GUARD: &str = "guard";

/// What becomes of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// They are held against it.
    Compare,
    /// They become it.
    Renew,
}

/// Counts, and compares or renews.
///
/// # Errors
/// Something was not counted, or more than the baseline allows.
pub fn run(baseline: Baseline) -> Result<()> {
    let here = count()?;
    let path = workspace::root().join(BASELINE);
    if baseline == Baseline::Renew {
        if let Ok(before) = Counts::read(&path)
            && let Ok(lines) = here.beside(&before)
        {
            tell(&lines);
        }
        here.write(&path)?;
        ui::heading(&format!(
            "{BASELINE} is written: it belongs into the same commit as what changed the counts."
        ));
        return Ok(());
    }
    let baseline = Counts::read(&path)?;
    let lines = match here.beside(&baseline) {
        Ok(lines) => lines,
        Err(why @ Incomparable::Compiler { .. }) => bail!(
            "not comparable: {why}. Who changes the compiler renews the baseline in the same commit: {RENEW}"
        ),
        Err(why @ Incomparable::Architecture { .. }) => {
            ui::heading(&format!("NOT COMPARED: {why}. The guard works where the baseline is from."));
            return Ok(());
        }
    };
    tell(&lines);
    if here.kernel_beside(&baseline) == Kernel::Another {
        let told = format!(
            "This kernel is {}, the baseline is of {}: the verifier's counts and the programs' sizes may be twice the \
             baseline's here.",
            here.kernel, baseline.kernel
        );
        ui::heading(&told);
    }
    if lines.iter().any(|line| line.verdict == Verdict::Less) {
        ui::heading(&format!("Clearly less than before: {RENEW} keeps what was won."));
    }
    let failed: Vec<String> = lines.iter().filter(|line| line.verdict.fails()).map(failure).collect();
    if failed.is_empty() {
        ui::heading(&format!("{} counts are within their margins of {BASELINE}.", lines.len()));
        return Ok(());
    }
    bail!(
        "{} of {} counts are not those of {BASELINE}:\n  {}\nWhere that is meant: {RENEW}",
        failed.len(),
        lines.len(),
        failed.join("\n  ")
    )
}

fn failure(line: &Line) -> String {
    match (line.here, line.baseline) {
        (Some(here), Some(baseline)) => {
            format!("{} ({}): {here}, where the baseline has {baseline}", line.name, line.measure)
        }
        (Some(here), None) => {
            format!("{} ({}): {here}, and the baseline has no such row", line.name, line.measure)
        }
        (None, _) => format!("{} ({}): in the baseline, and not counted", line.name, line.measure),
    }
}

fn tell(lines: &[Line]) {
    let mut measure = None;
    for line in lines {
        if measure != Some(line.measure) {
            measure = Some(line.measure);
            println!("\n{:<66} {:>9} {:>9} {:>6}", line.measure.to_string(), "counted", "baseline", "ratio");
        }
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let ratio = match (line.here, line.baseline) {
            (Some(here), Some(baseline)) if baseline > 0 => format!("{:.3}", here as f64 / baseline as f64),
            _ => "-".to_owned(),
        };
        let mark = match line.verdict {
            Verdict::Held => "",
            Verdict::More => "  TOO MUCH",
            Verdict::Less => "  clearly less",
            Verdict::Gone => "  GONE",
            Verdict::New => "  NEW",
        };
        println!(
            "  {:<64} {:>9} {:>9} {ratio:>6}{mark}",
            line.name,
            number(line.here),
            number(line.baseline)
        );
    }
    println!();
}

/// All counts of this machine.
fn count() -> Result<Counts> {
    let [userspace, program] = build()?;
    let mut step = Step::begin("userspace");
    let instructions = callgrind::count(&userspace, &mut step)?;
    step.end(Outcome::Done, &format!("{} rows counted", instructions.len()));
    let step = Step::begin("kernel programs");
    let told = process::output(Command::new(&program).arg(GUARD))?;
    let mut rows: Rows =
        serde_json::from_str(&told).context("the bench of the kernel program told no rows")?;
    step.end(Outcome::Done, "loaded, and timed in turns with programs that do next to nothing");
    rows.insert(Measure::Instructions, instructions);
    Ok(Counts {
        compiler: setup::compiler()?,
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: kernel_line()?,
        valgrind: callgrind::release()?,
        rows,
    })
}

/// The kernel's line: the first two numbers of its release.
fn kernel_line() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("which kernel is this?")?;
    let numbers: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    Ok(numbers.join("."))
}

/// Builds both benches, and says where they are: that of userspace and that of the kernel program.
fn build() -> Result<[PathBuf; 2]> {
    const BENCHES: [&str; 2] = ["instructions", "program"];
    ui::heading("Building the benches for release");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["bench", "--no-run", "--package", "branchline-guard"]);
    command.args(BENCHES.iter().flat_map(|name| ["--bench", name]));
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    ensure!(output.status.success(), "`{}` failed ({})", process::show(&command), output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| executable(&said, name).with_context(|| format!("cargo built no bench `{name}`"));
    Ok([find(BENCHES[0])?, find(BENCHES[1])?])
}

/// Where cargo says that it has put a bench.
fn executable(said: &str, name: &str) -> Option<PathBuf> {
    said.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["reason"] == "compiler-artifact"
            && message["target"]["name"] == name
            && message["target"]["kind"][0] == "bench";
        is_it.then(|| message["executable"].as_str().map(|path| Path::new(path).to_path_buf()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_found_among_what_cargo_says() {
        let said = r#"{"reason":"compiler-artifact","target":{"name":"program","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"program","kind":["bench"]},"executable":"/t/release/deps/program-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(said, "program"), Some(PathBuf::from("/t/release/deps/program-1")));
        assert_eq!(executable(said, "instructions"), None);
    }

    #[test]
    fn a_failure_names_the_row_and_both_numbers() {
        let line = |here, baseline, verdict| Line {
            measure: Measure::Verified,
            name: "branchline_relay".to_owned(),
            here,
            baseline,
            verdict,
        };
        let told = [
            line(Some(500), Some(400), Verdict::More),
            line(Some(500), None, Verdict::New),
            line(None, Some(400), Verdict::Gone),
        ]
        .map(|line| failure(&line));
        let what = "branchline_relay (instructions that the verifier looked at)";
        assert_eq!(
            told,
            [
                format!("{what}: 500, where the baseline has 400"),
                format!("{what}: 500, and the baseline has no such row"),
                format!("{what}: in the baseline, and not counted"),
            ]
        );
    }
}
