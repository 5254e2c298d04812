//! Who is signed in.
//!
//! A session ends by signing out, by half an hour without a request, twelve hours after it began, or when its
//! administrator's password changes. They are in memory: a restart signs everybody out.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::Secret;

/// A session without a request for this long has ended.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A session ends after this long in any case.
const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time; beyond, the one that was idle longest gives way.
const MOST: usize = 256;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The administrator.
    pub name: String,
    /// What every form of this session carries.
    pub csrf: Secret,
    began: Instant,
    last_used: Instant,
    notice: Option<Notice>,
}

/// What the next page says about what was just done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It was done.
    Done(String),
    /// It was not.
    Failed(String),
}

/// All sessions, by the hash of their id.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: HashMap<String, Session>,
}

impl Sessions {
    /// Begins a session and returns its id, which goes into the cookie.
    pub fn begin(&mut self, now: Instant, name: &str) -> Secret {
        self.sessions.retain(|_, session| session.lives(now));
        if self.sessions.len() >= MOST {
            let idlest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
            if let Some(hash) = idlest.map(|(hash, _)| hash.clone()) {
                self.sessions.remove(&hash);
            }
        }
        let id = Secret::random();
        let session = Session {
            name: name.to_owned(),
            csrf: Secret::random(),
            began: now,
            last_used: now,
            notice: None,
        };
        self.sessions.insert(Secret::hash(id.as_str()), session);
        id
    }

    /// The session of an id that a request carries; the request keeps it alive.
    pub fn resume(&mut self, now: Instant, id: &str) -> Option<Session> {
        let session = self.sessions.get_mut(&Secret::hash(id)).filter(|session| session.lives(now))?;
        session.last_used = now;
        Some(session.clone())
    }

    /// Whether a session still is; this does not keep it alive.
    #[must_use]
    pub fn lives(&self, now: Instant, id: &str) -> bool {
        self.sessions.get(&Secret::hash(id)).is_some_and(|session| session.lives(now))
    }

    /// Leaves word for the session's next page.
    pub fn leave_notice(&mut self, id: &str, notice: Notice) {
        if let Some(session) = self.sessions.get_mut(&Secret::hash(id)) {
            session.notice = Some(notice);
        }
    }

    /// Takes the word that was left.
    pub fn take_notice(&mut self, id: &str) -> Option<Notice> {
        self.sessions.get_mut(&Secret::hash(id))?.notice.take()
    }

    /// Gives all sessions of an administrator another name.
    pub fn rename(&mut self, old: &str, new: &str) {
        for session in self.sessions.values_mut().filter(|session| session.name == old) {
            new.clone_into(&mut session.name);
        }
    }

    /// Ends all sessions of an administrator but one.
    pub fn end_others_of(&mut self, name: &str, id: &str) {
        let own = Secret::hash(id);
        self.sessions.retain(|hash, session| session.name != name || *hash == own);
    }

    /// Signs out.
    pub fn end(&mut self, id: &str) {
        self.sessions.remove(&Secret::hash(id));
    }

    /// Ends all sessions of an administrator.
    pub fn end_all_of(&mut self, name: &str) {
        self.sessions.retain(|_, session| session.name != name);
    }
}

impl Session {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) < IDLE
            && now.saturating_duration_since(self.began) < ABSOLUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_until_it_is_idle_too_old_or_ended() {
        let start = Instant::now();
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut sessions = Sessions::default();
        let id = sessions.begin(start, "ann");
        assert_eq!(
            sessions.resume(minutes(29), id.as_str()).map(|session| session.name).as_deref(),
            Some("ann")
        );
        assert!(sessions.lives(minutes(58), id.as_str()), "the request at 29 minutes kept it alive");
        assert!(!sessions.lives(minutes(59), id.as_str()), "to look does not keep it alive");
        assert!(sessions.resume(minutes(59), id.as_str()).is_none());

        let id = sessions.begin(start, "ann");
        for quarter in 0..48 {
            assert!(sessions.resume(minutes(15 * quarter), id.as_str()).is_some(), "{quarter}");
        }
        assert!(sessions.resume(minutes(12 * 60), id.as_str()).is_none(), "twelve hours");

        let (first, second) = (sessions.begin(start, "ann"), sessions.begin(start, "bob"));
        sessions.end_all_of("ann");
        assert!(!sessions.lives(start, first.as_str()) && sessions.lives(start, second.as_str()));
        sessions.end(second.as_str());
        assert!(!sessions.lives(start, second.as_str()));
        assert!(!sessions.lives(start, ""), "no id");
    }

    #[test]
    fn ids_and_csrf_tokens_are_all_different_and_the_idlest_session_gives_way() {
        let start = Instant::now();
        let mut sessions = Sessions::default();
        let ids: Vec<_> = (0..=MOST as u64)
            .map(|number| sessions.begin(start + Duration::from_millis(number), "ann"))
            .collect();
        assert_eq!(sessions.sessions.len(), MOST);
        assert!(!sessions.lives(start, ids[0].as_str()) && sessions.lives(start, ids[1].as_str()));
        let [first, second] =
            [1, 2].map(|number: usize| sessions.resume(start, ids[number].as_str()).unwrap());
        assert!(!first.csrf.is(second.csrf.as_str()) && first.csrf.is(first.csrf.as_str()));
        assert!(!first.csrf.is(""), "an empty token is none");
    }
}
