//! Rows of userspace: each runs once under Valgrind's Callgrind, which counts while the bench's function `counted` runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::ui::Step;
use crate::workspace;

/// The function in which is counted, as Callgrind finds it among the program's names.
const COUNTED: &str = "--toggle-collect=instructions::counted*";
/// Valgrind runs a program some fifty times slower; a row that takes longer than this does not end.
const LIMIT: Duration = Duration::from_secs(120);

/// Counts every row of this program.
///
/// # Errors
/// Valgrind or a row fails, or nothing was counted.
pub(super) fn count(program: &Path, step: &mut Step) -> Result<BTreeMap<String, u64>> {
    let names = process::output(Command::new(program).arg("list"))?;
    let names: Vec<&str> = names.lines().collect();
    ensure!(!names.is_empty(), "{} has no rows", program.display());
    let file = workspace::scratch("instructions")?.join("callgrind.out");
    let mut counts = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        step.note(&format!("row {} of {}: {name}", index + 1, names.len()));
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", COUNTED])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .args(["count", name]);
        process::output_within(&mut command, LIMIT).with_context(|| format!("the row `{name}`"))?;
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        fs::remove_file(&file)?;
        let count = total(&text).with_context(|| format!("Callgrind told no total of `{name}`"))?;
        ensure!(count > 0, "nothing was counted of `{name}`: Callgrind did not find the function `counted`");
        counts.insert((*name).to_owned(), count);
    }
    Ok(counts)
}

/// Valgrind's release, for example `3.19.0`.
pub(super) fn release() -> Result<String> {
    let said = process::output(Command::new("valgrind").arg("--version"))?;
    Ok(said.trim().trim_start_matches("valgrind-").to_owned())
}

/// The instructions in Callgrind's file: its line `totals:` has one number for each event that was counted, of which
/// there is one.
fn total(file: &str) -> Option<u64> {
    file.lines().find_map(|line| line.strip_prefix("totals:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_read_from_callgrinds_file() {
        let file = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 4321\n\nfn=(12) f\n3 4321\n\ntotals: 4321\n";
        assert_eq!(total(file), Some(4321));
        assert_eq!(total("# callgrind format\nevents: Ir\n"), None);
    }
}
