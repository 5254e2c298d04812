//! What the proxy takes anew while it runs.

use std::time::Duration;

use ipnet::IpNet;

use super::Proxy;
use crate::{config::StatusRange, sip::transaction::Timers};

/// What can change without touching a call. It holds for what begins from now on.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Who on a servers' network may send requests, besides the servers' own addresses.
    pub trusted: Vec<IpNet>,
    /// Timers and retransmissions.
    pub timers: Timers,
    /// How long an INVITE may ring.
    pub timer_c: Duration,
    /// Calls that there can be at a time. Those above a lower limit stand until they end.
    pub calls: usize,
    /// Final answers that make the next server be tried.
    pub retry: Vec<StatusRange>,
}

impl Proxy {
    /// Takes changes.
    pub fn reconfigure(&mut self, changes: Changes) {
        let Changes { trusted, timers, timer_c, calls, retry } = changes;
        self.transactions.set_timers(timers);
        self.settings.timers = timers;
        self.settings.trusted = trusted;
        self.settings.timer_c = timer_c;
        self.settings.limits.calls = calls;
        self.settings.upstream.retry = retry;
    }
}
