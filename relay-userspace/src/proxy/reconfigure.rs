//! What the proxy takes anew while it runs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{Capacity, Peers, Proxy, Upstream, routing::Routing};
use crate::{
    config::{DualRegistration, Redirects, ServerUri, Silence, StatusRange},
    media::MediaRelay,
    net::NetworkId,
    sip::transaction::NetworkTimers,
    upstream::GroupSettings,
};

/// What can change without touching a call. It holds for what begins from now on.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Who on a servers' network may send requests, besides the servers' own addresses.
    pub trusted: Vec<IpNet>,
    /// Timers and retransmissions.
    pub timers: NetworkTimers,
    /// How long an INVITE may ring.
    pub timer_c: Duration,
    /// Requests to servers above so many bytes go by TCP instead of UDP; `None`: never.
    pub tcp_above: Option<usize>,
    /// Calls that there can be at a time. Those above a lower limit stand until they end.
    pub calls: usize,
    /// What networks take of calls.
    pub capacities: HashMap<NetworkId, Capacity>,
    /// What is converted for each peer. Calls that stand keep what they have begun with.
    pub peers: Peers,
    /// The servers. What is known of those that stay is kept; dialogs with those that go stay with them.
    pub servers: Vec<ServerUri>,
    /// How often each is asked how it is; `None`: never.
    pub probe: Option<Duration>,
    /// How long one has to fail before it is out of service.
    pub patience: Duration,
    /// How long one that failed is left alone.
    pub recovery: Duration,
    /// Final answers that make the next server be tried.
    pub retry: Vec<StatusRange>,
    /// What becomes of redirections.
    pub redirects: Redirects,
    /// What silence means where another server answers.
    pub silence: Silence,
    /// Whether phones are registered with two servers at once.
    pub dual: DualRegistration,
    /// Groups of servers for some of the phones.
    pub groups: Vec<GroupSettings>,
    /// Rules, trunks, emergency numbers, and what the office does on its own.
    pub routing: Routing,
}

impl Proxy {
    /// Takes changes.
    pub fn reconfigure(&mut self, now: Instant, media: &mut dyn MediaRelay, changes: Changes) {
        let Changes {
            trusted,
            timers,
            timer_c,
            tcp_above,
            calls,
            capacities,
            peers,
            servers,
            probe,
            patience,
            recovery,
            retry,
            redirects,
            silence,
            dual,
            groups,
            routing,
        } = changes;
        self.settings.timers = timers.clone();
        self.transactions.set_timers(timers);
        self.settings.trusted = trusted;
        self.settings.timer_c = timer_c;
        self.settings.tcp_above = tcp_above;
        self.settings.limits.calls = calls;
        self.admission.set(capacities);
        self.settings.peers = peers;
        self.settings.upstream.retry = retry;
        self.settings.upstream.redirects = redirects;
        self.settings.upstream =
            Upstream { servers, probe, patience, recovery, silence, dual, ..self.settings.upstream.clone() };
        self.settings.groups = groups;
        self.trunks.set(routing.trunks.clone(), now);
        self.plans.set(routing.plans.clone(), now);
        let alone = routing.alone.as_ref().map(|alone| alone.when);
        let told = std::mem::replace(&mut self.settings.routing, routing).alone;
        let settings = Self::group_settings(&self.settings);
        for (group, change) in self.groups.set(settings, alone, now) {
            // They are told by what was said of it when it began.
            let now_alone = std::mem::replace(&mut self.settings.routing.alone, told.clone());
            self.survival_changed(now, group, change);
            self.settings.routing.alone = now_alone;
        }
        self.trunks.handle_timeout(now);
        self.plans.handle_timeout(now);
        self.note_addresses();
        self.groups.handle_timeout(now);
        self.flush(now, media);
    }
}
