//! How often somebody may ask: token buckets by asker and for all together.
//!
//! Invariant: there are never more buckets than the limit says, and an asker whose bucket was given up is treated as
//! one who has not asked before.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// What is allowed: so many at once, then one in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// At once.
    pub(super) burst: u32,
    /// Then one in each.
    pub(super) interval: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it will be full again; the emptier, the later.
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, allowance: Allowance) -> bool {
        let full_at = self.full_at.max(now) + allowance.interval;
        if full_at.saturating_duration_since(now) > allowance.interval * allowance.burst {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

/// The verdict on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is within the limits.
    Admitted,
    /// Its asker asks too fast.
    TooFast,
    /// All askers together do.
    Crowded,
}

/// Buckets by asker.
#[derive(Debug)]
pub(super) struct Rates<K> {
    each: Allowance,
    all: Allowance,
    most: usize,
    buckets: HashMap<K, Bucket>,
    total: Option<Bucket>,
}

impl<K: Hash + Eq + Copy> Rates<K> {
    /// Nobody has asked yet. There will be at most `most` buckets.
    pub(super) fn new(each: Allowance, all: Allowance, most: usize) -> Self {
        Self { each, all, most, buckets: HashMap::new(), total: None }
    }

    /// Whether a request is within the limits.
    pub(super) fn admit(&mut self, now: Instant, asker: K) -> Admission {
        let fresh = Bucket { full_at: now };
        let mut bucket = self.buckets.get(&asker).copied().unwrap_or(fresh);
        if !bucket.take(now, self.each) {
            return Admission::TooFast;
        }
        if !self.total.get_or_insert(fresh).take(now, self.all) {
            return Admission::Crowded;
        }
        if !self.buckets.contains_key(&asker) && self.buckets.len() >= self.most {
            // At most as often as the total allows.
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            if self.buckets.len() >= self.most {
                let fullest =
                    self.buckets.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(key, _)| *key);
                fullest.map(|key| self.buckets.remove(&key));
            }
        }
        self.buckets.insert(asker, bucket);
        Admission::Admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(most: usize) -> Rates<u32> {
        Rates::new(
            Allowance { burst: 2, interval: SECOND },
            Allowance { burst: 5, interval: SECOND / 100 },
            most,
        )
    }

    #[test]
    fn an_asker_has_a_burst_and_then_one_in_each_interval() {
        let (mut rates, start) = (rates(10), Instant::now());
        let rows = [
            (0, Admission::Admitted),
            (0, Admission::Admitted),
            (0, Admission::TooFast),
            (999, Admission::TooFast),
            (1000, Admission::Admitted),
            (1000, Admission::TooFast),
            (9000, Admission::Admitted),
            (9000, Admission::Admitted),
            (9000, Admission::TooFast),
        ];
        for (ms, expected) in rows {
            assert_eq!(rates.admit(start + Duration::from_millis(ms), 1), expected, "after {ms} ms");
        }
    }

    #[test]
    fn all_askers_together_have_a_limit_and_memory_has_one() {
        let (mut rates, now) = (rates(3), Instant::now());
        let verdicts: Vec<Admission> = (0..7).map(|asker| rates.admit(now, asker)).collect();
        assert_eq!(&verdicts[..5], [Admission::Admitted; 5]);
        assert_eq!(&verdicts[5..], [Admission::Crowded; 2]);
        assert_eq!(rates.buckets.len(), 3);
    }
}
