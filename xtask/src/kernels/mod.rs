//! `cargo xtask kernels`: the appliance on other kernels than this machine's own.
//!
//! Debian's kernels are booted in QEMU under software emulation, with this machine's file system as theirs (read-only,
//! what they write stays in their memory), and run the packet rows and the tests of `relay-userspace/tests/guest` there.
//! A kernel is unpacked under the target directory and never installed. What comes out is a table of what works on each,
//! with the reasons of what does not. Emulation is slow: no time is ever judged.
//!
//! | module | its one job |
//! |---|---|
//! | `debian` | which kernels there are, and how they get here |
//! | `modules` | which modules a guest needs, in the order in which they load |
//! | `initramfs` | the archive that the kernel starts from, and the script that it runs first |
//! | `checks` | what is tried in each guest |
//! | `guest` | a guest from its start to its end, and what it has reported |
//! | `table` | what worked where |

mod checks;
mod debian;
mod guest;
mod initramfs;
mod modules;
mod table;

use anyhow::{Result, bail};

use self::checks::{Depth, Programs};
use self::debian::{Expectation, Line};
use self::table::Row;
use crate::setup::{self, Group};
use crate::ui::{self, Outcome, Step};

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of kernel lines, for example `6.1`; all when there are none.
    pub lines: Vec<String>,
    /// How much is tried on each.
    pub extent: Extent,
}

/// How much is tried on each kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    #[default]
    Full,
    /// What differs most between kernels: loading, packet rows, TC, tags.
    Quick,
}

/// Boots the kernels one after the other and prints the table.
///
/// # Errors
/// The set-up is not complete, a line is unknown, a kernel cannot be fetched, or something did not work on a kernel that
/// it has to work on.
pub fn run(options: &Options) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "the guests run this machine's programs, and so far only x86_64 machines are known to boot them"
        );
    }
    let lines = debian::named(&options.lines)?;
    setup::run(Group::Test)?;
    ui::heading("What runs in the guests");
    let programs = Programs::build()?;
    let depth = match options.extent {
        Extent::Full => Depth::Full,
        Extent::Quick => Depth::Quick,
    };
    ui::heading("Kernels");
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for line in lines {
        let mut step = Step::begin(format!("Linux {}", line.name));
        match on(line, &programs, depth, &mut step) {
            Ok(row) => {
                let worked = row.cells.iter().filter(|(_, cell)| cell.worked()).count();
                let outcome = if row.all_work() { Outcome::Done } else { Outcome::Failed };
                step.end(outcome, &format!("{}: {worked} of {} work", row.kernel, row.cells.len()));
                if row.must_work && !row.all_work() {
                    failed.push(format!("not everything works on {}", row.kernel));
                }
                rows.push(row);
            }
            Err(error) => {
                step.end(Outcome::Failed, "see below");
                failed.push(format!("Linux {}: {error:#}", line.name));
            }
        }
    }
    println!("\n{}", table::show(&rows));
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

fn on(line: &Line, programs: &Programs, depth: Depth, step: &mut Step) -> Result<Row> {
    let kernel = debian::ensure(line, step)?;
    let cells = guest::run(&kernel, programs, depth, step)?;
    Ok(Row {
        kernel: kernel.release,
        must_work: line.expectation == Expectation::Works,
        cells: checks::of(depth).map(|check| check.column).zip(cells).collect(),
    })
}
