//! All groups of servers, and which phone belongs to which.
//!
//! The first is that of `[upstream]`: who fits no other belongs to it. A server may be in several groups; what is heard of
//! it is told to all of them, and each asks it by itself. Whether phones have to do without servers is a question of their
//! group: [`Survival`] is kept for each.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    group::Group,
    server::{Evidence, Failure, Output, Resolution, ServerState, Settings, Target},
    survival::{Service, Survival, SurvivalChange, SurvivalSettings},
};
use crate::{
    config::{DualRegistration, Redirects, ServerUri, StatusRange, UserPattern},
    net::NetworkId,
    sip::Hop,
};

/// What is told of a group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Its name, for people. A group of the configuration may be several here, one for each domain.
    pub name: String,
    /// Its servers, how they are asked how they are, and when they are given up.
    pub servers: Settings,
    /// Which phones belong to it.
    pub members: Members,
    /// Final answers that make the next server be tried.
    pub retry: Vec<StatusRange>,
    /// What becomes of redirections.
    pub redirects: Redirects,
    /// Whether its phones are registered with two servers at once.
    pub dual: DualRegistration,
}

/// Which phones belong to a group, by their addresses-of-record: those that fit both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// What the user is like; none: anything.
    pub users: Vec<UserPattern>,
    /// What the host is, in lower case; none: anything.
    pub domains: Vec<String>,
}

impl Members {
    fn fit(&self, user: &[u8], host: &[u8]) -> bool {
        (self.users.is_empty() || self.users.iter().any(|pattern| pattern.is_match(user)))
            && (self.domains.is_empty()
                || self.domains.iter().any(|domain| host.eq_ignore_ascii_case(domain.as_bytes())))
    }
}

/// A group, by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupId(usize);

#[derive(Debug)]
struct Member {
    settings: GroupSettings,
    group: Group,
    survival: Survival,
}

/// All groups.
#[derive(Debug)]
pub struct Groups(Vec<Member>);

impl Groups {
    /// Groups of which nothing is known yet, the one that is for everybody else first. `alone`: when phones have to do
    /// without servers; `None`: never.
    #[must_use]
    pub fn new(settings: Vec<GroupSettings>, alone: Option<SurvivalSettings>, now: Instant) -> Self {
        let mut groups = Self(Vec::new());
        groups.set(settings, alone, now);
        groups
    }

    /// Takes other settings. What is known of groups and servers that stay is kept. Returns what changes by that.
    pub fn set(
        &mut self,
        settings: Vec<GroupSettings>,
        alone: Option<SurvivalSettings>,
        now: Instant,
    ) -> Vec<(GroupId, SurvivalChange)> {
        let mut old = std::mem::take(&mut self.0);
        for settings in settings {
            let known = old.iter().position(|member| {
                let Member { settings: before, .. } = member;
                before.name == settings.name
                    && (before.members.domains == settings.members.domains
                        // One that stands for a domain each is told apart by it; the others are by their servers.
                        || before.servers.servers == settings.servers.servers)
                    && before.servers.network == settings.servers.network
            });
            match known {
                Some(known) => {
                    let mut member = old.swap_remove(known);
                    member.group.set(settings.servers.clone(), now);
                    self.0.push(Member { settings, ..member });
                }
                None => {
                    let group = Group::new(settings.servers.clone(), now);
                    self.0.push(Member { settings, group, survival: Survival::new(alone) });
                }
            }
        }
        let changed =
            |(place, member): (usize, &mut Member)| Some((GroupId(place), member.survival.set(alone, now)?));
        self.0.iter_mut().enumerate().filter_map(changed).collect()
    }

    /// Whether there is more than one.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// The group of an address-of-record.
    #[must_use]
    pub fn of(&self, user: &[u8], host: &[u8]) -> GroupId {
        let others = self.0.iter().enumerate().skip(1);
        GroupId(
            others.into_iter().find(|(_, it)| it.settings.members.fit(user, host)).map_or(0, |(id, _)| id),
        )
    }

    /// The group of a number that is called from outside, where no host says whose it is.
    #[must_use]
    pub fn of_number(&self, user: &[u8]) -> GroupId {
        let others = self.0.iter().enumerate().skip(1);
        let mut named = others.filter(|(_, it)| !it.settings.members.users.is_empty());
        let found = named.find(|(_, it)| it.settings.members.users.iter().any(|users| users.is_match(user)));
        GroupId(found.map_or(0, |(id, _)| id))
    }

    /// What is told of a group.
    #[must_use]
    pub fn settings(&self, id: GroupId) -> Option<&GroupSettings> {
        self.0.get(id.0).map(|member| &member.settings)
    }

    /// Those to try, the best first.
    #[must_use]
    pub fn candidates(&self, now: Instant, id: GroupId) -> Vec<Target> {
        self.0.get(id.0).map(|member| member.group.candidates(now)).unwrap_or_default()
    }

    /// Whether all servers of a group have failed, if only in a request.
    #[must_use]
    pub fn has_failed(&self, id: GroupId) -> bool {
        self.0.get(id.0).is_some_and(|member| member.group.has_failed())
    }

    /// Since when the phones of a group are on their own; `None` while they are not.
    #[must_use]
    pub fn alone_since(&self, id: GroupId) -> Option<Instant> {
        self.0.get(id.0)?.survival.since()
    }

    /// The groups whose phones are on their own, by name, and since when.
    pub fn alone(&self) -> impl Iterator<Item = (&str, Instant)> {
        self.0.iter().filter_map(|member| Some((member.settings.name.as_str(), member.survival.since()?)))
    }

    /// Looks whether phones are on their own now. Returns what changes by that.
    pub fn mind(&mut self, now: Instant) -> Vec<(GroupId, SurvivalChange)> {
        let mut changes = Vec::new();
        for (place, member) in self.0.iter_mut().enumerate() {
            let service = if member.group.is_out_of_service() { Service::None } else { Service::Some };
            changes.extend(member.survival.update(now, service).map(|change| (GroupId(place), change)));
        }
        changes
    }

    /// The addresses of all servers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().flat_map(|member| member.group.addresses())
    }

    /// The names that servers have to prove by their certificates, by address.
    #[must_use]
    pub fn names(&self) -> HashMap<SocketAddr, String> {
        // Where groups differ, the first has the word.
        self.0.iter().rev().flat_map(|member| member.group.names()).collect()
    }

    /// The network that a server is on.
    #[must_use]
    pub fn network_of(&self, server: &ServerUri) -> Option<NetworkId> {
        let has = |member: &&Member| member.settings.servers.all().any(|known| known == server);
        self.0.iter().find(has).map(|member| member.settings.servers.network)
    }

    /// A server has answered a probe, or another request.
    pub fn succeeded(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.succeeded(now, hop, evidence));
    }

    /// A request of a group's phone was answered by this server: that group tries it first from now on.
    pub fn chosen(&mut self, now: Instant, id: GroupId, hop: Hop) {
        for (place, member) in self.0.iter_mut().enumerate() {
            if place == id.0 {
                member.group.chosen(now, hop);
            } else {
                member.group.succeeded(now, hop, Evidence::Answer);
            }
        }
    }

    /// A server was heard of otherwise.
    pub fn heard(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.heard(now, hop, evidence));
    }

    /// A server did not answer a request, or said that it cannot serve.
    pub fn failed(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.failed(now, hop, failure.clone()));
    }

    /// A server has not answered when it was asked how it is, or cannot be reached at all.
    pub fn found_down(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.found_down(now, hop, failure.clone()));
    }

    /// What a name resolved to, or why it did not.
    pub fn resolved(&mut self, now: Instant, uri: &ServerUri, result: &Result<Resolution, String>) {
        self.groups().for_each(|group| group.resolved(now, uri, result.clone()));
    }

    /// When [`Groups::handle_timeout`] and [`Groups::mind`] have to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of = |member: &Member| {
            member.group.poll_timeout().into_iter().chain(member.survival.poll_timeout()).min()
        };
        self.0.iter().filter_map(of).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.groups().for_each(|group| group.handle_timeout(now));
    }

    /// Asks every server how it is as soon as may be.
    pub fn probe_now(&mut self, now: Instant) {
        self.groups().for_each(|group| group.probe_now(now));
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.groups().find_map(Group::poll_output)
    }

    /// How the servers are, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<ServerState> {
        let of = |member: &Member| {
            let name = member.settings.name.clone();
            let states = member.group.states().into_iter();
            states.map(move |state| ServerState { group: name.clone(), ..state }).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.iter_mut().map(|member| &mut member.group)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::Transport;

    fn uri(text: &str) -> ServerUri {
        ServerUri::try_from(text.to_owned()).unwrap()
    }

    fn group(name: &str, servers: &[&str], users: &[&str], domains: &[&str]) -> GroupSettings {
        GroupSettings {
            name: name.to_owned(),
            servers: Settings::new(NetworkId(1), servers.iter().map(|server| uri(server)).collect()),
            members: Members {
                users: users.iter().map(|text| UserPattern::try_from((*text).to_owned()).unwrap()).collect(),
                domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            },
            retry: StatusRange::reference(),
            redirects: Redirects::Follow,
            dual: DualRegistration::Off,
        }
    }

    const A: &str = "10.0.0.1:5060";
    const B: &str = "10.0.0.2:5060";

    fn hop(address: &str) -> Hop {
        Hop::udp(NetworkId(1), address.parse().unwrap())
    }

    fn groups(now: Instant) -> Groups {
        let alone = SurvivalSettings { enter_after: Duration::ZERO, leave_after: Duration::ZERO };
        let all = vec![
            group("upstream", &[A, B], &[], &[]),
            group("support", &[B, A], &["3.."], &[]),
            group("outside", &["10.0.0.3"], &["4.."], &["sip.example"]),
        ];
        Groups::new(all, Some(alone), now)
    }

    #[test]
    fn a_phone_belongs_to_the_first_group_that_its_address_of_record_fits() {
        let groups = groups(Instant::now());
        let name = |id| groups.settings(id).unwrap().name.as_str();
        let rows = [
            ("by number", "300", "a.example", "support"),
            ("by number and domain", "400", "SIP.example", "outside"),
            ("the domain is another", "400", "a.example", "upstream"),
            ("the number is another", "500", "sip.example", "upstream"),
        ];
        for (description, user, host, expected) in rows {
            assert_eq!(name(groups.of(user.as_bytes(), host.as_bytes())), expected, "{description}");
        }
        assert_eq!(name(groups.of_number(b"400")), "outside");
        assert_eq!(name(groups.of_number(b"+49711")), "upstream");
    }

    #[test]
    fn what_is_heard_of_a_server_is_heard_by_all_groups_and_each_remembers_its_own_winner() {
        let now = Instant::now();
        let mut groups = groups(now);
        let (upstream, support) = (GroupId(0), GroupId(1));
        let order = |groups: &Groups, id| -> Vec<String> {
            groups.candidates(now, id).iter().map(|target| target.address.to_string()).collect()
        };
        groups.chosen(now, support, hop(A));
        assert_eq!(
            (order(&groups, upstream), order(&groups, support)),
            (vec![A.into(), B.into()], vec![A.into(), B.into()])
        );
        groups.chosen(now, upstream, hop(B));
        assert_eq!((order(&groups, upstream)[0].as_str(), order(&groups, support)[0].as_str()), (B, A));
        groups.failed(now, hop(A), &Failure::Silent);
        assert_eq!(order(&groups, support)[0], B);
        let states = groups.states();
        let down: Vec<&str> = states
            .iter()
            .filter(|state| state.health == super::super::Health::Down(Failure::Silent))
            .map(|state| state.group.as_str())
            .collect();
        assert_eq!(down, ["upstream", "support"]);
        assert_eq!(states[0].transport, Some(Transport::Udp));
    }

    #[test]
    fn the_phones_of_one_group_are_on_their_own_while_those_of_another_are_served() {
        let now = Instant::now();
        let mut groups = groups(now);
        groups.found_down(now, hop("10.0.0.3:5060"), &Failure::Silent);
        assert_eq!(groups.mind(now), [(GroupId(2), SurvivalChange::Entered)]);
        assert_eq!((groups.alone_since(GroupId(0)), groups.alone_since(GroupId(2))), (None, Some(now)));
        assert_eq!(groups.alone().collect::<Vec<_>>(), [("outside", now)]);
        let settings =
            vec![group("upstream", &[A], &[], &[]), group("outside", &["10.0.0.3"], &[], &["sip.example"])];
        let gone = groups.set(settings, None, now + Duration::from_secs(1));
        assert_eq!(gone, [(GroupId(1), SurvivalChange::Left(Duration::from_secs(1)))]);
    }
}
