//! What the guard holds against its baseline: see `cargo xtask bench instructions`.

use std::collections::BTreeMap;

use branchline::datapath::kernel::programs::{
    KernelLog, Options, Programs, RELAY, STEER, TC, TC_BEHIND, TC_LAYER3,
};
use xtask::instructions::{Measure, Rows};

use crate::ratio;

/// The row that the relay is held beside: what any relay that measures jitter has to do.
pub(crate) const CLOCK: &str = "step, a reading of the clock, and XDP_TX";
/// Rows that the guard looks at.
const GUARDED: [&str; 4] = [
    "step and relay, IPv4",
    "step and relay, IPv6",
    "step and relay, IPv4 to IPv6 and back",
    "step and relay, IPv4 with a ceiling",
];
/// The programs of an appliance.
const PROGRAMS: [&str; 5] = [RELAY, TC, TC_LAYER3, TC_BEHIND, STEER];

/// All rows of the guard: the programs' sizes, and these rows' times.
pub(crate) fn rows(names: &[&str], times: &[Vec<f64>]) -> Result<Rows, Box<dyn std::error::Error>> {
    let options = Options { addresses: Vec::new(), flows: 1, log: KernelLog::Off };
    let mut programs = Programs::load(options)?;
    let (mut verified, mut bytes) = (BTreeMap::new(), BTreeMap::new());
    for name in PROGRAMS {
        let size = programs.size(name)?;
        // A kernel before 5.16 does not tell; then the row is missed, and named.
        if let Some(instructions) = size.verified_instructions {
            verified.insert(name.to_owned(), instructions.into());
        }
        if let Some(translated) = size.translated_bytes {
            bytes.insert(name.to_owned(), translated.into());
        }
    }
    let named = |name: &str| {
        let at = names.iter().position(|known| *known == name);
        at.and_then(|at| times.get(at)).ok_or_else(|| format!("there is no row `{name}`"))
    };
    let (mut of_clock, mut of_floor) = (BTreeMap::new(), BTreeMap::new());
    for name in GUARDED {
        let per_cent = |other: &[f64]| Ok::<_, String>((ratio(named(name)?, other) * 100.0).round() as u64);
        of_clock.insert(name.to_owned(), per_cent(named(CLOCK)?)?);
        of_floor.insert(name.to_owned(), per_cent(&times[0])?);
    }
    Ok(Rows::from([
        (Measure::Verified, verified),
        (Measure::Bytes, bytes),
        (Measure::PercentOfClock, of_clock),
        (Measure::PercentOfFloor, of_floor),
    ]))
}
