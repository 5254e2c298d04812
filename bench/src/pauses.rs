//! How often the machine takes a core away from whoever has it: a hypervisor, or firmware. No thread's precedence helps
//! against it, so this is how quiet a machine is at best, whoever forwards.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cores::{self, Core};

/// A pause in which the queue of a veth (256 packets) overflows at a million packets a second.
const LONG: Duration = Duration::from_micros(256);
/// The core is looked at for so long, so many times, and has time for others in between: the kernel takes it from a thread
/// of this precedence that leaves them none.
const SPELL: Duration = Duration::from_millis(40);
const SPELLS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(4);

/// The pauses that a thread saw which comes before all others and only reads the clock.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    looked: Duration,
    long: u32,
    /// What of them was more than the queue holds.
    beyond: Duration,
    longest: Duration,
}

impl Pauses {
    /// Looks at the core that forwards.
    ///
    /// # Errors
    /// The thread cannot have its core or its precedence.
    pub(crate) fn look() -> Result<Self> {
        let look = || {
            cores::pin(0, Core::FORWARDING)?;
            cores::put_before_all(0)?;
            let mut pauses = Self::default();
            for _ in 0..SPELLS {
                pauses.spell();
                thread::sleep(BETWEEN);
            }
            Ok(pauses)
        };
        // The thread ends with its precedence.
        thread::spawn(look).join().ok().context("the thread that looks for pauses has panicked")?
    }

    fn spell(&mut self) {
        let started = Instant::now();
        let mut last = started;
        while last - started < SPELL {
            let now = Instant::now();
            self.note(now - last);
            last = now;
        }
        self.looked += last - started;
    }

    fn note(&mut self, gap: Duration) {
        if let Some(beyond) = gap.checked_sub(LONG) {
            self.long += 1;
            self.beyond += beyond;
        }
        self.longest = self.longest.max(gap);
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "in {:.1} s {} of more than {:.3} ms, {:.2} ms beyond that in all, the longest {:.2} ms",
            self.looked.as_secs_f64(),
            self.long,
            milliseconds(LONG),
            milliseconds(self.beyond),
            milliseconds(self.longest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_from_where_the_queue_overflows() {
        let mut pauses = Pauses { looked: Duration::from_secs(4), ..Pauses::default() };
        for micros in [1, 255, 300, 1256] {
            pauses.note(Duration::from_micros(micros));
        }
        let said = "in 4.0 s 2 of more than 0.256 ms, 1.04 ms beyond that in all, the longest 1.26 ms";
        assert_eq!(pauses.to_string(), said);
    }
}
