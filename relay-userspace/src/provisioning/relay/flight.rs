//! Requests for one file at the same time: the first one asks the server, the others wait for what it learns.
//!
//! Invariant: a file has one leader at most; when the leader is gone without a word, one of those who waited leads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::cache::Key;

/// Requests that may wait for one file: several times the phones of a large office.
const MOST_FOLLOWERS: usize = 1024;

/// The files that are being asked for; `T` is what a leader learns.
#[derive(Debug)]
pub(super) struct Flights<T> {
    flights: Arc<Mutex<HashMap<Key, watch::Sender<Option<T>>>>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { flights: Arc::default() }
    }
}

/// The part that a request has.
pub(super) enum Part<T> {
    /// It asks the server.
    Leader(Leader<T>),
    /// It waits.
    Follower(watch::Receiver<Option<T>>),
    /// Too many wait: it asks for itself.
    Alone,
}

/// Tells the others; while it lives, requests for the file follow.
#[derive(Debug)]
pub(super) struct Leader<T> {
    flights: Arc<Mutex<HashMap<Key, watch::Sender<Option<T>>>>>,
    key: Key,
    sender: watch::Sender<Option<T>>,
}

impl<T: Clone> Flights<T> {
    /// Takes part in the request for a file.
    pub(super) fn join(&self, key: Key) -> Part<T> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = flights.get(&key) {
            if sender.receiver_count() >= MOST_FOLLOWERS {
                return Part::Alone;
            }
            return Part::Follower(sender.subscribe());
        }
        let sender = watch::Sender::new(None);
        flights.insert(key, sender.clone());
        Part::Leader(Leader { flights: Arc::clone(&self.flights), key, sender })
    }
}

impl<T: Clone> Leader<T> {
    /// Tells what was learned.
    pub(super) fn tell(&self, learned: T) {
        self.sender.send_replace(Some(learned));
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What the leader learned; none if it went without a word.
pub(super) async fn learned<T: Clone>(mut receiver: watch::Receiver<Option<T>>) -> Option<T> {
    receiver.wait_for(Option::is_some).await.ok().and_then(|learned| learned.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(part: Part<u32>) -> watch::Receiver<Option<u32>> {
        match part {
            Part::Follower(receiver) => receiver,
            Part::Leader(_) | Part::Alone => panic!("no follower"),
        }
    }

    #[tokio::test]
    async fn followers_learn_what_the_leader_learns_and_lead_when_it_is_gone() {
        let flights = Flights::<u32>::default();
        let (key, other) = (Key::of("/a"), Key::of("/b"));
        let Part::Leader(leader) = flights.join(key) else { panic!("the first one leads") };
        let (first, second) = (follower(flights.join(key)), follower(flights.join(key)));
        assert!(matches!(flights.join(other), Part::Leader(_)));
        leader.tell(7);
        assert_eq!(learned(first).await, Some(7));
        assert_eq!(learned(follower(flights.join(key))).await, Some(7), "who comes later");
        drop(leader);
        assert_eq!(learned(second).await, Some(7));
        let Part::Leader(leader) = flights.join(key) else { panic!("the next one leads") };
        let waiting = follower(flights.join(key));
        drop(leader);
        assert_eq!(learned(waiting).await, None);
    }

    #[test]
    fn only_so_many_wait() {
        let flights = Flights::<u32>::default();
        let _leader = flights.join(Key::of("/a"));
        let _waiting: Vec<_> = (0..MOST_FOLLOWERS).map(|_| follower(flights.join(Key::of("/a")))).collect();
        assert!(matches!(flights.join(Key::of("/a")), Part::Alone));
    }
}
