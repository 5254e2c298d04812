//! The ways of a request outside any dialog: servers, phones that are registered here, trunks, in the order in which they
//! are tried.
//!
//! A request of a phone goes to the servers, as it always has; rules may send it elsewhere. When no server can serve, what
//! can be done here is done here, and the servers are the last that is tried: a number for which phones are registered rings these, others go by trunk. An emergency
//! call goes by trunk first, in every mode, because a server far away would call the wrong rescuers.
//!
//! Invariant: nobody who is not registered reaches a trunk or a phone without a server's word, but for emergencies; and
//! what a trunk sends never leaves by a trunk.

use std::{collections::VecDeque, time::Instant};

use super::{
    failover::toward,
    machine::{Proxy, Relay},
    measure::{DropReason, EmergencyWay, Measure},
    request::{Plan, Refuse},
    routing::Precedence,
};
use crate::{
    config::{Destination, Redirects},
    net::Role,
    registrar::{self, Token},
    sip::{
        Hop, Number,
        wire::{HeaderName, Message, Method, NameAddr},
    },
    upstream::{PlanChoice, Rank, Target, TrunkChoice},
};

/// One way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To a central server, with another number if there is one.
    Server(Target, Option<Vec<u8>>),
    /// To phones that are registered here, all at once.
    Phones(Vec<Token>),
    /// By a trunk.
    Trunk(TrunkChoice),
    /// To a destination of a server plan, with another number if there is one.
    Plan(PlanChoice, Option<Vec<u8>>),
    /// To where a server has redirected it: the Request-URI there.
    Elsewhere(Hop, Vec<u8>),
}

impl Way {
    pub(super) fn kind(&self) -> WayKind {
        match self {
            Self::Server(target, _) if target.rank == Rank::Lesser => WayKind::Lesser,
            Self::Server(..) => WayKind::Server,
            Self::Elsewhere(..) => WayKind::Elsewhere,
            Self::Phones(_) => WayKind::Phone,
            Self::Trunk(_) => WayKind::Trunk,
            Self::Plan(..) => WayKind::Plan,
        }
    }
}

/// What kind of way a request has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayKind {
    /// To a central server.
    Server,
    /// To a lesser service, which is used while no server of the group serves.
    Lesser,
    /// To a phone that is registered here, without a server.
    Phone,
    /// By a trunk.
    Trunk,
    /// To a destination of a server plan.
    Plan,
    /// To where a server has redirected it.
    Elsewhere,
}

/// Ways of one request that are kept.
const MOST_WAYS: usize = 32;

impl Proxy {
    /// The plan for a request that is in no dialog, from phones or from a trunk.
    pub(super) fn plan_outside(
        &mut self,
        now: Instant,
        hop: Hop,
        role: Role,
        message: &Message,
        routes: usize,
    ) -> Result<Plan, Refuse> {
        let alone = self.groups.alone_since(self.group_of(hop, message)).is_some();
        let number = dialled(message);
        let mut ways = self.ways(now, hop, role, message, number.as_ref());
        ways.truncate(MOST_WAYS);
        if let Some(plan) = self.plan_next(message, routes, ways) {
            return Ok(plan);
        }
        let known = role == Role::Gateway || self.may_go_alone(hop);
        Err(match (alone, message.method()) {
            (true, Method::Invite | Method::Message) if !known => {
                Refuse::because(403, DropReason::NotRegistered, "Not Registered Here")
            }
            (true, Method::Invite | Method::Message) => Refuse::new(404, DropReason::NoBinding),
            (true, _) => Refuse::because(503, DropReason::NoDestination, "Servers Out Of Reach"),
            (false, _) => Refuse::because(503, DropReason::NoDestination, "No Server"),
        })
    }

    fn ways(
        &mut self,
        now: Instant,
        hop: Hop,
        role: Role,
        message: &Message,
        number: Option<&Number>,
    ) -> VecDeque<Way> {
        let group = self.group_of(hop, message);
        let servers = |proxy: &Self, number: Option<&[u8]>| -> Vec<Way> {
            let targets = proxy.targets(now, group, message).into_iter();
            targets.map(|target| Way::Server(target, number.map(<[u8]>::to_vec))).collect()
        };
        let carries_calls = matches!(message.method(), Method::Invite | Method::Message);
        let by_trunk = role == Role::Phones && message.method() == &Method::Invite;
        if by_trunk && let Some(number) = self.settings.routing.emergency(message.request_uri(), number) {
            let trunks = self.trunks.emergency_ways(now, &number);
            let way = if trunks.is_empty() { EmergencyWay::Servers } else { EmergencyWay::Trunk };
            self.measure(Measure::EmergencyCall(way));
            return trunks.into_iter().map(Way::Trunk).chain(servers(self, None)).collect();
        }
        if !carries_calls {
            return servers(self, None).into();
        }
        let registered = role == Role::Gateway || self.may_go_alone(hop);
        let numbering = &self.settings.routing.numbering;
        let phones = |proxy: &Self, number: &Number| -> Option<Way> {
            let tokens = proxy.phones_of(number, hop);
            (registered && !tokens.is_empty()).then_some(Way::Phones(tokens))
        };
        if let Some(number) = number
            && self.settings.routing.precedence == Precedence::RegisteredPhones
            && let Some(way) = phones(self, number)
        {
            return VecDeque::from([way]);
        }
        let rule = self.settings.routing.rule(message.from_value(), message.to_value());
        let ruled = rule.map(|(rule, target)| (rule.destinations.clone(), target));
        if let Some((destinations, target)) = ruled {
            let changed = target.as_deref().and_then(Number::parse);
            let number = changed.as_ref().or(number);
            let mut ways = VecDeque::new();
            for destination in destinations {
                match (destination, number) {
                    (Destination::Servers, _) => ways.extend(servers(self, target.as_deref())),
                    (Destination::Plan(name), _) => {
                        let choices = self.plans.ways(now, &name).into_iter();
                        ways.extend(choices.map(|choice| Way::Plan(choice, target.clone())));
                    }
                    (Destination::Phones, Some(number)) => ways.extend(phones(self, number)),
                    (Destination::Trunks, Some(number)) if by_trunk && registered => {
                        ways.extend(self.trunks.ways(now, number, numbering).into_iter().map(Way::Trunk));
                    }
                    (Destination::Trunk(name), Some(number)) if by_trunk && registered => {
                        ways.extend(
                            self.trunks.ways_by(now, &name, number, numbering).into_iter().map(Way::Trunk),
                        );
                    }
                    _ => {}
                }
            }
            return ways;
        }
        // A server that is there decides alone; these are for when none is, or none answers.
        let mut here = Vec::new();
        if self.settings.routing.alone.is_some()
            && let Some(number) = number
        {
            match phones(self, number) {
                Some(way) => here.push(way),
                None if by_trunk && registered => {
                    here.extend(self.trunks.ways(now, number, numbering).into_iter().map(Way::Trunk));
                }
                None => {}
            }
        }
        // On its own the office does what it can at once. What it cannot do goes to the servers all the same: one may have
        // come back since it was asked.
        let there = servers(self, None).into_iter();
        if self.groups.alone_since(group).is_some() {
            here.into_iter().chain(there).collect()
        } else {
            there.chain(here).collect()
        }
    }

    /// Whether a request is an emergency call.
    pub(super) fn is_emergency(&self, message: &Message) -> bool {
        let number = dialled(message);
        self.settings.routing.emergency(message.request_uri(), number.as_ref()).is_some()
    }

    /// Whether who sends from there may use what is here without a server's word: a phone that is registered.
    fn may_go_alone(&self, hop: Hop) -> bool {
        self.registrar.is_registered_at(hop.network, hop.address.ip())
    }

    /// The phones that a number is for, but for the one that calls: by the user of their address-of-record, by an alias
    /// of their entry, or by a number that a server has used for them.
    fn phones_of(&self, number: &Number, caller: Hop) -> Vec<Token> {
        let spellings = self.settings.routing.numbering.spellings(number);
        let by_user = |user: &String| self.registrar.tokens_of_user(user.as_bytes());
        let by_alias = |alias: &String| match self.credentials.registration_of(alias.as_bytes()) {
            Some(registration_id) => self.registrar.tokens_of_user(registration_id.as_bytes()),
            None => Vec::new(),
        };
        let by_number = |number: &String| self.registrar.tokens_of_number(number);
        let found = (spellings.iter().map(by_user))
            .chain(spellings.iter().map(by_alias))
            .chain(spellings.iter().map(by_number))
            .find(|tokens| !tokens.is_empty());
        let mut tokens = found.unwrap_or_default();
        tokens.retain(|token| self.registrar.binding(*token).is_some_and(|binding| binding.source != caller));
        tokens
    }

    /// The plan for the first way that can be gone; the others wait.
    pub(super) fn plan_next(
        &mut self,
        message: &Message,
        routes: usize,
        mut ways: VecDeque<Way>,
    ) -> Option<Plan> {
        while let Some(way) = ways.pop_front() {
            match way {
                Way::Server(target, number) => {
                    let kind = if target.rank == Rank::Lesser { WayKind::Lesser } else { WayKind::Server };
                    let uri = message.parsed_request_uri();
                    let ours = uri.filter(|uri| self.settings.is_ours(uri) || number.is_some());
                    return Some(Plan {
                        uri: ours.and_then(|uri| toward(&uri, number.as_deref(), &target)),
                        others: Some((kind, ways)),
                        ..Plan::to(target.hop(), routes)
                    });
                }
                Way::Plan(PlanChoice { target, patience }, number) => {
                    let uri = message.parsed_request_uri();
                    let ours = uri.filter(|uri| self.settings.is_ours(uri) || number.is_some());
                    return Some(Plan {
                        uri: ours.and_then(|uri| toward(&uri, number.as_deref(), &target)),
                        others: Some((WayKind::Plan, ways)),
                        patience,
                        ..Plan::to(target.hop(), routes)
                    });
                }
                Way::Elsewhere(egress, uri) => {
                    return Some(Plan {
                        uri: Some(uri),
                        others: Some((WayKind::Elsewhere, ways)),
                        ..Plan::to(egress, routes)
                    });
                }
                Way::Trunk(choice) => {
                    let target = choice.target;
                    return Some(Plan {
                        uri: Some(by_trunk(&choice.number, &target)),
                        others: Some((WayKind::Trunk, ways)),
                        ..Plan::to(target.hop(), routes)
                    });
                }
                Way::Phones(tokens) => {
                    let mut legs = tokens.iter().filter_map(|token| self.registrar.binding(*token));
                    let Some(first) = legs.next() else { continue };
                    let (egress, uri) = (first.destination(), first.contact.to_vec());
                    // One description is offered to all of them, so they have to be on one network.
                    let forks = legs
                        .filter(|leg| leg.source.network == egress.network)
                        .map(|leg| (leg.destination(), leg.contact.to_vec()));
                    let forks =
                        if message.method() == &Method::Invite { forks.collect() } else { Vec::new() };
                    return Some(Plan {
                        uri: Some(uri),
                        others: Some((WayKind::Phone, ways)),
                        forks,
                        ..Plan::to(egress, routes)
                    });
                }
            }
        }
        None
    }
}

impl Proxy {
    /// Where a server sends a request elsewhere (RFC 3261 section 8.1.3.4), the best first: only servers and trusted
    /// addresses, so that no answer turns the appliance into a relay to anywhere. A request that was redirected once is
    /// redirected again only from there on, and never more than a few times.
    pub(super) fn redirections(&self, relay: &Relay, message: &Message) -> VecDeque<Way> {
        const MOST_REDIRECTIONS: u8 = 5;
        let followed = self.redirects_of(relay) == Redirects::Follow
            && relay.redirected < MOST_REDIRECTIONS
            && matches!(relay.others, Some((WayKind::Server | WayKind::Lesser | WayKind::Elsewhere, _)))
            && !relay.cancelled;
        if !followed {
            return VecDeque::new();
        }
        let mut found: Vec<(u32, Way)> = Vec::new();
        for contact in message.addresses(HeaderName::Contact).take(MOST_WAYS) {
            let Some(uri) = contact.parsed_uri().filter(|uri| uri.is_sip()) else { continue };
            let Some(hop) = registrar::hop(&uri, relay.egress) else { continue };
            if self.settings.trusts(hop.address.ip()) && !self.settings.is_ours(&uri) {
                found.push((contact.preference(), Way::Elsewhere(hop, contact.uri.to_vec())));
            }
        }
        found.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
        found.into_iter().map(|(_, way)| way).collect()
    }
}

/// The number that is called: the user of the Request-URI.
fn dialled(message: &Message) -> Option<Number> {
    let uri = message.parsed_request_uri()?;
    match uri.user {
        Some(user) => Number::parse(user),
        // A phone that was told to send all to one address names whom it calls in To.
        None => Number::parse(NameAddr::parse(message.to_value())?.parsed_uri()?.user?),
    }
}

/// The Request-URI of a call that leaves by a trunk.
fn by_trunk(number: &str, target: &Target) -> Vec<u8> {
    // What may not stand in a user part as it is (RFC 3261 section 25.1).
    let user = number.replace('#', "%23");
    format!("sip:{user}@{}", super::failover::host_of(target)).into_bytes()
}
