//! Instants of this process and times that mean something to the next one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment by both clocks: instants are counted from it, and times since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    /// By this process's clock.
    pub now: Instant,
    /// In milliseconds since 1970.
    pub unix_ms: i64,
}

impl Epoch {
    /// Now.
    #[must_use]
    pub fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: Instant::now(), unix_ms: milliseconds(unix) }
    }

    /// An instant in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self, at: Instant) -> i64 {
        let later = milliseconds(at.saturating_duration_since(self.now));
        let earlier = milliseconds(self.now.saturating_duration_since(at));
        self.unix_ms.saturating_add(later).saturating_sub(earlier)
    }

    /// The instant of a time since 1970; now, for one that this process's clock cannot tell.
    #[must_use]
    pub fn instant(&self, unix_ms: i64) -> Instant {
        let ahead = unix_ms.saturating_sub(self.unix_ms);
        let span = Duration::from_millis(ahead.unsigned_abs());
        let at = if ahead < 0 { self.now.checked_sub(span) } else { self.now.checked_add(span) };
        at.unwrap_or(self.now)
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_the_same_after_having_been_a_time() {
        let epoch = Epoch { now: Instant::now(), unix_ms: 1_700_000_000_000 };
        for (offset_ms, unix_ms) in [(0, 1_700_000_000_000), (1500, 1_700_000_001_500)] {
            let at = epoch.now + Duration::from_millis(offset_ms);
            assert_eq!((epoch.unix_ms(at), epoch.instant(unix_ms)), (unix_ms, at));
        }
        assert_eq!(epoch.instant(1_699_999_999_000), epoch.now - Duration::from_secs(1));
    }
}
