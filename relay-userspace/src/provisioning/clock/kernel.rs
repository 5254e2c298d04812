//! What the kernel knows of its own clock (adjtimex(2)).
#![expect(unsafe_code, reason = "no safe binding to adjtimex is among the dependencies")]

use std::time::Duration;

/// The state of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelClock {
    /// Nobody disciplines it.
    Unsynchronised,
    /// It is disciplined.
    Synchronised {
        /// Within which it is right, by the discipline's own account; it grows while the discipline is silent.
        most_error: Duration,
        /// Whether a leap second comes at the end of the day.
        leap: Leap,
    },
}

/// A leap second at the end of the day (RFC 5905 figure 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leap {
    /// None.
    None,
    /// One more.
    Insert,
    /// One less.
    Delete,
}

impl KernelClock {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Self {
        // SAFETY: timex is a plain structure of integers, for which all zeros are valid; modes = 0 asks only.
        let mut state: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a timex of ours that lives through the call, which writes only to it.
        let result = unsafe { libc::adjtimex(&raw mut state) };
        Self::of(result, state.status, state.maxerror)
    }

    /// From adjtimex's result, status bits and largest error in microseconds.
    pub(super) fn of(result: i32, status: i32, most_error_us: libc::c_long) -> Self {
        if result < 0 || result == libc::TIME_ERROR || status & libc::STA_UNSYNC != 0 {
            return Self::Unsynchronised;
        }
        let leap = match result {
            libc::TIME_INS => Leap::Insert,
            libc::TIME_DEL => Leap::Delete,
            _ => Leap::None,
        };
        Self::Synchronised {
            most_error: Duration::from_micros(u64::try_from(most_error_us).unwrap_or_default()),
            leap,
        }
    }
}
