//! Server plans: named lists of destinations for rules, each tried for its time, in order.
//!
//! A plan is for calls that go elsewhere than to the servers that phones are registered with: a recorder, a conference
//! bridge, another exchange. A destination that has failed goes last, and is tried all the same when no other is left.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    peers::{Peer, PeerState, Peers},
    server::{Evidence, Failure, Output, Resolution, Settings, Target},
};
use crate::{config::ServerUri, sip::Hop};

/// What is told of one destination of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationSettings {
    /// The plan that it is of.
    pub plan: String,
    /// The name by which it is spoken of: the plan's and its place in it.
    pub name: String,
    /// The other end.
    pub peer: Settings,
    /// How long it has to answer at all before the next is tried; `None`: as long as the network's timers say.
    pub patience: Option<Duration>,
}

impl Peer for DestinationSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> &Settings {
        &self.peer
    }
}

/// A way by a plan: where, and for how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanChoice {
    /// Where.
    pub target: Target,
    /// How long it has to answer at all.
    pub patience: Option<Duration>,
}

/// All plans.
#[derive(Debug, Default)]
pub struct Plans(Peers<DestinationSettings>);

impl Plans {
    /// Plans of whose destinations nothing is known yet.
    #[must_use]
    pub fn new(destinations: Vec<DestinationSettings>, now: Instant) -> Self {
        let mut plans = Self::default();
        plans.set(destinations, now);
        plans
    }

    /// Takes other settings. What is known of destinations that stay is kept.
    pub fn set(&mut self, destinations: Vec<DestinationSettings>, now: Instant) {
        self.0.set(destinations, now);
    }

    /// The destinations of a plan, in the order in which they are tried.
    #[must_use]
    pub fn ways(&self, now: Instant, plan: &str) -> Vec<PlanChoice> {
        let mut known: Vec<_> = self.0.iter().filter(|known| known.peer.plan == plan).collect();
        known.sort_by_key(|known| known.group.rests(now));
        let choices = known.into_iter().flat_map(|known| {
            let patience = known.peer.patience;
            known.group.candidates(now).into_iter().map(move |target| PlanChoice { target, patience })
        });
        choices.collect()
    }

    /// Where all destinations are.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.addresses()
    }

    /// The names that they have to prove by their certificates, by address.
    pub fn names(&self) -> impl Iterator<Item = (SocketAddr, String)> {
        self.0.names()
    }

    /// One has answered.
    pub fn succeeded(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.0.succeeded(now, hop, evidence);
    }

    /// One was heard of otherwise.
    pub fn heard(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.0.heard(now, hop, evidence);
    }

    /// One could not be reached, did not answer, or says that it cannot serve.
    pub fn failed(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.0.failed(now, hop, failure);
    }

    /// One cannot be reached at all.
    pub fn found_down(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.0.found_down(now, hop, failure);
    }

    /// What a name resolved to, or why it did not.
    pub fn resolved(&mut self, now: Instant, uri: &ServerUri, result: &Result<Resolution, String>) {
        self.0.resolved(now, uri, result);
    }

    /// When [`Plans::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    /// The next thing to do, and for which destination.
    pub fn poll_output(&mut self) -> Option<(String, Output)> {
        self.0.poll_output()
    }

    /// How the destinations are, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<PeerState> {
        self.0.states()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetworkId;

    fn destination(plan: &str, last: u8, seconds: u64) -> DestinationSettings {
        let contact = ServerUri::try_from(format!("10.62.0.{last}:5060")).unwrap();
        DestinationSettings {
            plan: plan.to_owned(),
            name: format!("{plan}/{last}"),
            peer: Settings::new(NetworkId(1), vec![contact]),
            patience: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn the_destinations_of_a_plan_are_tried_in_order_and_those_that_failed_last() {
        let now = Instant::now();
        let mut plans =
            Plans::new(vec![destination("a", 1, 4), destination("b", 9, 1), destination("a", 2, 2)], now);
        let order = |plans: &Plans| -> Vec<(String, u64)> {
            let ways = plans.ways(now, "a");
            let way = |way: PlanChoice| (way.target.address.to_string(), way.patience.unwrap().as_secs());
            ways.into_iter().map(way).collect()
        };
        let (first, second) = (("10.62.0.1:5060".to_owned(), 4), ("10.62.0.2:5060".to_owned(), 2));
        assert_eq!(order(&plans), [first.clone(), second.clone()]);
        let hop = plans.ways(now, "a")[0].target.hop();
        plans.failed(now, hop, &Failure::Silent);
        assert_eq!(order(&plans), [second.clone(), first.clone()]);
        plans.succeeded(now, hop, Evidence::Probe);
        assert_eq!(order(&plans), [first.clone(), second.clone()]);
        plans.found_down(now, hop, &Failure::Silent);
        assert_eq!(order(&plans), [second, first], "what cannot be connected to has failed too");
        let rested = now + Duration::from_secs(3600);
        assert_eq!(plans.ways(rested, "a")[0].target.hop(), hop, "and has its place again after a rest");
        assert!(plans.ways(now, "no such plan").is_empty());
    }
}
