//! What the proxy takes anew while it runs.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Proxy;
use crate::{
    config::{ServerUri, StatusRange},
    media::MediaRelay,
    sip::transaction::Timers,
    upstream,
};

/// What can change without touching a call. It holds for what begins from now on.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Who on a servers' network may send requests, besides the servers' own addresses.
    pub trusted: Vec<IpNet>,
    /// Timers and retransmissions.
    pub timers: Timers,
    /// How long an INVITE may ring.
    pub timer_c: Duration,
    /// Requests to servers above so many bytes go by TCP instead of UDP; `None`: never.
    pub tcp_above: Option<usize>,
    /// Calls that there can be at a time. Those above a lower limit stand until they end.
    pub calls: usize,
    /// The servers. What is known of those that stay is kept; dialogs with those that go stay with them.
    pub servers: Vec<ServerUri>,
    /// How often each is asked how it is; `None`: never.
    pub probe: Option<Duration>,
    /// How long one that failed is left alone.
    pub recovery: Duration,
    /// Final answers that make the next server be tried.
    pub retry: Vec<StatusRange>,
}

impl Proxy {
    /// Takes changes.
    pub fn reconfigure(&mut self, now: Instant, media: &mut dyn MediaRelay, changes: Changes) {
        let Changes { trusted, timers, timer_c, tcp_above, calls, servers, probe, recovery, retry } = changes;
        self.transactions.set_timers(timers);
        self.settings.timers = timers;
        self.settings.trusted = trusted;
        self.settings.timer_c = timer_c;
        self.settings.tcp_above = tcp_above;
        self.settings.limits.calls = calls;
        self.settings.upstream.retry = retry;
        self.upstream.set(upstream::Settings { servers, probe, recovery }, now);
        self.settings.upstream.addresses = self.upstream.addresses().collect();
        self.upstream.handle_timeout(now);
        self.flush(now, media);
    }
}
