//! The highest rate that is held without loss, by bisection: RFC 2544 section 26.1.

/// One packet in so many may be lost.
pub(super) const TOLERANCE: f64 = 1e-5;
/// The search begins so much above what arrived when more was sent than can be carried.
const HEADROOM: f64 = 1.1;
/// A generator that sends this part of a rate has reached it.
const REACHED: f64 = 0.95;

/// What became of a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tried {
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// For how long packets were sent, in seconds.
    pub seconds: f64,
    /// Whether a queue was left to be worked off when no more was sent.
    pub queued: bool,
}

impl Tried {
    /// Whether it was held.
    pub(super) fn was_held(self) -> bool {
        self.sent > 0 && self.lost as f64 <= TOLERANCE * self.sent as f64 && !self.queued
    }
}

/// The search: rates come out, what became of each goes in.
#[derive(Debug)]
pub(super) struct Search {
    low: f64,
    high: f64,
    left: u32,
}

impl Search {
    /// A search below what arrived of a flood, in packets a second, with so many rates to try.
    pub(super) fn below(arrived: f64, tries: u32) -> Self {
        Self { low: 0.0, high: arrived * HEADROOM, left: tries }
    }

    /// The next rate to try, in packets a second; none when the search has ended.
    pub(super) fn next(&self) -> Option<f64> {
        (self.left > 0).then(|| f64::midpoint(self.low, self.high))
    }

    /// Takes what became of the last one, and says whether it was held.
    pub(super) fn tell(&mut self, rate: f64, tried: Tried) -> bool {
        self.left = self.left.saturating_sub(1);
        let held = tried.was_held();
        let reached = tried.sent as f64 / tried.seconds;
        if held && reached >= REACHED * rate {
            self.low = rate;
        } else {
            self.high = rate;
            // A rate that the generator did not reach was not tried: what it reached is what was held.
            if held {
                self.low = self.low.max(reached.min(rate));
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rate: f64, lost: u64) -> Tried {
        Tried { sent: rate as u64, lost, seconds: 1.0, queued: false }
    }

    /// What a path that carries so much makes of a rate.
    fn carried(limit: f64) -> impl Fn(f64) -> Tried {
        move |rate| of(rate, (rate - limit).max(0.0) as u64)
    }

    fn highest(search: &mut Search, path: impl Fn(f64) -> Tried) -> f64 {
        let mut best = 0.0;
        while let Some(rate) = search.next() {
            if search.tell(rate, path(rate)) {
                best = rate.max(best);
            }
        }
        best
    }

    #[test]
    fn the_search_comes_close_to_what_a_path_carries() {
        for limit in [80_000.0, 500_000.0, 1_000_000.0] {
            let best = highest(&mut Search::below(1_000_000.0, 10), carried(limit));
            assert!((0.0..0.01 * 1_000_000.0).contains(&(limit - best)), "{limit}: {best}");
        }
    }

    #[test]
    fn a_generator_that_falls_behind_ends_the_way_upwards() {
        // It sends no more than 300,000, and all of it arrives.
        let best = highest(&mut Search::below(1_000_000.0, 12), |rate| Tried {
            sent: rate.min(3e5) as u64,
            ..of(rate, 0)
        });
        assert!(best > 290_000.0, "{best}");
        let mut search = Search::below(1_000_000.0, 12);
        search.tell(550_000.0, Tried { sent: 300_000, ..of(550_000.0, 0) });
        assert_eq!(
            (search.low, search.high),
            (300_000.0, 550_000.0),
            "held is what it reached, and not more"
        );
    }

    #[test]
    fn what_is_held() {
        for (what, tried, expected) in [
            ("nothing lost", of(1e5, 0), true),
            ("one in 100,000", of(1e5, 1), true),
            ("two in 100,000", of(1e5, 2), false),
            ("a queue was left", Tried { queued: true, ..of(1e5, 0) }, false),
            ("nothing was sent", of(0.0, 0), false),
        ] {
            assert_eq!(tried.was_held(), expected, "{what}");
        }
    }

    #[test]
    fn a_search_ends() {
        let mut search = Search::below(1e6, 3);
        assert_eq!(highest(&mut search, |rate| of(rate, rate as u64)), 0.0);
        assert_eq!(search.next(), None);
    }
}
