//! Whether the office has to do without its servers.
//!
//! [`Survival`] is told how the servers are and says when the office is on its own: as soon as none of them can serve, and
//! until one has served for a while, so that a server that comes and goes does not send the phones back and forth.

use std::time::{Duration, Instant};

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurvivalSettings {
    /// How long the servers have to be out of service before the office is on its own.
    pub enter_after: Duration,
    /// How long a server has to serve before the office relies on it again.
    pub leave_after: Duration,
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurvivalChange {
    /// The office is on its own from now on.
    Entered,
    /// It has a server again; it was on its own for so long.
    Left(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A server serves, or nothing else is known yet.
    Served,
    /// None does, since then.
    Losing(Instant),
    /// The office is on its own, since then.
    Alone(Instant),
    /// It is, since the first; since the second a server serves.
    Returning(Instant, Instant),
}

/// Whether the office has to do without its servers.
#[derive(Debug)]
pub struct Survival {
    settings: Option<SurvivalSettings>,
    state: State,
}

impl Survival {
    /// Served. `None`: it is never on its own, whatever becomes of the servers.
    #[must_use]
    pub fn new(settings: Option<SurvivalSettings>) -> Self {
        Self { settings, state: State::Served }
    }

    /// Takes other settings; says what changes by that.
    pub fn set(&mut self, settings: Option<SurvivalSettings>, now: Instant) -> Option<SurvivalChange> {
        self.settings = settings;
        match (settings, self.since()) {
            (None, Some(since)) => {
                self.state = State::Served;
                Some(SurvivalChange::Left(now.saturating_duration_since(since)))
            }
            (None, None) => {
                self.state = State::Served;
                None
            }
            (Some(_), _) => None,
        }
    }

    /// Since when the office is on its own; `None` while it is not.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        match self.state {
            State::Alone(since) | State::Returning(since, _) => Some(since),
            State::Served | State::Losing(_) => None,
        }
    }

    /// When [`Survival::update`] has to be called although nothing has changed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let settings = self.settings?;
        match self.state {
            State::Losing(since) => Some(since + settings.enter_after),
            State::Returning(_, since) => Some(since + settings.leave_after),
            State::Served | State::Alone(_) => None,
        }
    }

    /// Takes whether any server can serve at `now`; says what changes by that.
    pub fn update(&mut self, now: Instant, servers: Service) -> Option<SurvivalChange> {
        let settings = self.settings?;
        self.state = match (self.state, servers) {
            (State::Served, Service::None) => State::Losing(now),
            (State::Losing(_), Service::Some) => State::Served,
            (State::Alone(since), Service::Some) => State::Returning(since, now),
            (State::Returning(since, _), Service::None) => State::Alone(since),
            (same, _) => same,
        };
        match self.state {
            State::Losing(since) if now >= since + settings.enter_after => {
                self.state = State::Alone(now);
                Some(SurvivalChange::Entered)
            }
            State::Returning(since, served) if now >= served + settings.leave_after => {
                self.state = State::Served;
                Some(SurvivalChange::Left(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }
}

/// Whether any server can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One can, or may.
    Some,
    /// Each is out of service.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_office_is_on_its_own_after_a_while_and_served_again_after_a_while() {
        let settings = SurvivalSettings { enter_after: 2 * SECOND, leave_after: 5 * SECOND };
        let start = Instant::now();
        let mut survival = Survival::new(Some(settings));
        let rows = [
            ("served", 0, Service::Some, None, None),
            ("the last server goes", 10, Service::None, None, Some(12)),
            ("one comes back in time", 11, Service::Some, None, None),
            ("and goes again", 20, Service::None, None, Some(22)),
            ("for good", 22, Service::None, Some(SurvivalChange::Entered), None),
            ("one comes back", 60, Service::Some, None, Some(65)),
            ("not for long", 63, Service::None, None, None),
            ("it comes back again", 70, Service::Some, None, Some(75)),
            ("and stays", 75, Service::Some, Some(SurvivalChange::Left(53 * SECOND)), None),
        ];
        for (description, at, servers, change, next) in rows {
            let now = start + at * SECOND;
            assert_eq!(survival.update(now, servers), change, "{description}");
            assert_eq!(survival.poll_timeout(), next.map(|at: u32| start + at * SECOND), "{description}");
        }
    }

    #[test]
    fn an_office_that_is_told_not_to_is_never_on_its_own() {
        let now = Instant::now();
        let mut survival = Survival::new(None);
        assert_eq!(survival.update(now, Service::None), None);
        let settings = SurvivalSettings { enter_after: Duration::ZERO, leave_after: SECOND };
        assert_eq!(survival.set(Some(settings), now), None);
        assert_eq!(survival.update(now, Service::None), Some(SurvivalChange::Entered));
        assert_eq!(survival.set(None, now + SECOND), Some(SurvivalChange::Left(SECOND)));
        assert_eq!(survival.since(), None);
    }
}
