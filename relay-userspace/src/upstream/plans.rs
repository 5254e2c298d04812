//! Server plans: named lists of destinations for rules, each tried for its time, in order.
//!
//! A plan is for calls that go elsewhere than to the servers that phones are registered with: a recorder, a conference
//! bridge, another exchange. A destination that has failed goes last, and is tried all the same when no other is left.

use std::time::{Duration, Instant};

use super::{
    peers::{Peer, Peers},
    server::{Settings, Target},
};

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

/// The destinations of all plans.
pub type Plans = Peers<DestinationSettings>;

impl Plans {
    /// The destinations of a plan, in the order in which they are tried.
    #[must_use]
    pub fn ways(&self, now: Instant, plan: &str) -> Vec<PlanChoice> {
        let mut known: Vec<_> = self.iter().filter(|known| known.peer.plan == plan).collect();
        known.sort_by_key(|known| known.group.rests(now));
        let choices = known.into_iter().flat_map(|known| {
            let patience = known.peer.patience;
            known.group.candidates(now).into_iter().map(move |target| PlanChoice { target, patience })
        });
        choices.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ServerUri,
        net::NetworkId,
        upstream::{Evidence, Failure},
    };

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
