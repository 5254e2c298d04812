//! Which group of servers a request belongs to.
//!
//! It is that of the address-of-record of the phone: the one that it registers (To of REGISTER), or speaks as (From of
//! others). What comes from a gateway belongs to the group of the number that it calls. Where there is no group but
//! `[upstream]`, nothing is looked at.

use super::{
    machine::{Proxy, Relay},
    routing::Routing,
    settings::{Settings, Upstream},
    ways::WayKind,
};
use crate::{
    config::{Redirects, UPSTREAM_GROUP},
    net::Role,
    sip::{
        Hop,
        wire::{Message, Method, NameAddr},
    },
    upstream::{self, GroupId, GroupSettings, Members},
};

impl Proxy {
    /// What the settings tell the groups, `[upstream]` first.
    pub(super) fn group_settings(settings: &Settings) -> Vec<GroupSettings> {
        let when_down = settings.routing.when_down();
        let first = of_upstream(&settings.upstream, &settings.routing);
        let others = settings.groups.iter().cloned().map(|group| GroupSettings {
            servers: upstream::Settings { when_down, ..group.servers },
            ..group
        });
        std::iter::once(first).chain(others).collect()
    }

    /// The group of a request outside any dialog.
    pub(super) fn group_of(&self, hop: Hop, message: &Message) -> GroupId {
        if !self.groups.are_several() {
            return GroupId::default();
        }
        if self.settings.network(hop.network).is_some_and(|network| network.role == Role::Gateway) {
            let user = message.parsed_request_uri().and_then(|uri| uri.user);
            return user.map(|user| self.groups.of_number(user)).unwrap_or_default();
        }
        let value =
            if message.method() == &Method::Register { message.to_value() } else { message.from_value() };
        let party = NameAddr::parse(value);
        let Some(uri) = party.as_ref().and_then(NameAddr::parsed_uri) else { return GroupId::default() };
        // Who withholds his name (RFC 3323 section 4.1.1.3) is still registered with his own servers.
        if uri.host.eq_ignore_ascii_case(b"anonymous.invalid") {
            let binding = self.registrar.bindings().find(|binding| binding.source == hop);
            return binding.map(|binding| self.group_of_aor(&binding.aor)).unwrap_or_default();
        }
        let user = uri.user.unwrap_or_default();
        let found = self.groups.of(user, uri.host);
        match self.credentials.registration_of(user) {
            Some(registration_id) if found == GroupId::default() => {
                self.groups.of(registration_id.as_bytes(), uri.host)
            }
            _ => found,
        }
    }

    /// The group of a request that is on its way.
    pub(super) fn group_of_relay(&self, relay: &Relay) -> GroupId {
        if !self.groups.are_several() {
            return GroupId::default();
        }
        let request = self.transactions.request(relay.server);
        request.map(|request| self.group_of(relay.ingress, request)).unwrap_or_default()
    }

    /// The group of a phone's address-of-record, as bindings have it.
    pub(super) fn group_of_aor(&self, aor: &[u8]) -> GroupId {
        let at = aor.iter().rposition(|byte| *byte == b'@').unwrap_or(aor.len());
        let (user, host) = aor.split_at_checked(at).unwrap_or((aor, b""));
        self.groups.of(user, host.get(1..).unwrap_or_default())
    }

    /// What becomes of the redirections of a request's servers.
    pub(super) fn redirects_of(&self, relay: &Relay) -> Redirects {
        let group = self.groups.settings(self.group_of_relay(relay));
        group.map_or(self.settings.upstream.redirects, |group| group.redirects)
    }

    /// Whether an answer to a request makes the next of its servers be tried.
    pub(super) fn is_retried(&self, relay: &Relay, status: u16) -> bool {
        // Most requests are answered by what no configuration names.
        if status < 300 {
            return false;
        }
        // What is no server of a group is none of its business.
        let beside = matches!(relay.others, Some((WayKind::Trunk | WayKind::Plan, _)));
        if beside && status == 503 {
            return true;
        }
        let group = if beside { GroupId::default() } else { self.group_of_relay(relay) };
        let group = self.groups.settings(group);
        group.is_some_and(|group| group.retry.iter().any(|range| range.contains(status)))
    }
}

/// The group that is always there.
fn of_upstream(upstream: &Upstream, routing: &Routing) -> GroupSettings {
    GroupSettings {
        name: UPSTREAM_GROUP.to_owned(),
        servers: upstream::Settings {
            probe: upstream.probe,
            when_down: routing.when_down(),
            patience: upstream.patience,
            recovery: upstream.recovery,
            silence: upstream.silence,
            ..upstream::Settings::new(upstream.network, upstream.servers.clone())
        },
        members: Members::default(),
        retry: upstream.retry.clone(),
        redirects: upstream.redirects,
        dual: upstream.dual,
    }
}
