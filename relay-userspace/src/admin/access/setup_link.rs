//! The one-time link by which an administrator is set: at the first start, and when a password is lost.

use std::time::{Duration, Instant};

use super::Secret;

/// How long a link can be used.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// The link that can be used, if there is one. A new one makes the last one invalid.
#[derive(Debug, Default)]
pub struct SetupLink {
    current: Option<(Secret, Instant)>,
}

impl SetupLink {
    /// Makes a link and returns its token.
    pub fn issue(&mut self, now: Instant) -> Secret {
        let token = Secret::random();
        self.current = Some((token.clone(), now));
        token
    }

    /// Whether a link can still be used.
    #[must_use]
    pub fn is_valid(&self, now: Instant, claimed: &str) -> bool {
        self.current.as_ref().is_some_and(|(token, issued)| {
            now.saturating_duration_since(*issued) < VALID && token.is(claimed)
        })
    }

    /// Uses a link up; says whether it could be used.
    pub fn redeem(&mut self, now: Instant, claimed: &str) -> bool {
        let valid = self.is_valid(now, claimed);
        if valid {
            self.current = None;
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_for_a_day_and_until_there_is_a_newer_one() {
        let start = Instant::now();
        let mut link = SetupLink::default();
        assert!(!link.redeem(start, ""), "there is none");
        let first = link.issue(start);
        assert!(link.is_valid(start, first.as_str()));
        assert!(!link.is_valid(start, "guess"));
        assert!(!link.redeem(start + VALID, first.as_str()), "a day later");
        let second = link.issue(start);
        assert!(!link.redeem(start, first.as_str()), "there is a newer one");
        assert!(link.redeem(start, second.as_str()));
        assert!(!link.redeem(start, second.as_str()), "used");
    }
}
