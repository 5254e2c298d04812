//! The servers: which one a request goes to, what is tried when it fails, and the probes.
//!
//! A request of a phone outside any dialog goes to the best server of the group. When that one cannot be reached, does
//! not answer, or answers with a code that the configuration names, the same request goes to the next one, and the phone
//! sees only the last answer. Requests in a dialog stay with the server that the dialog is with: calls that stand
//! survive. RFC 3263 section 4.3, RFC 3261 section 16.7 (step 6 is done one branch at a time).

use std::{collections::VecDeque, time::Instant};

use super::{
    machine::{Output, Proxy, Relay},
    request::Plan,
    settings::{Upstream, host_port},
};
use crate::{
    config::Host,
    media::MediaRelay,
    net::Family,
    registrar,
    sip::{
        Hop,
        transaction::{ClientId, keyed_hash},
        wire::{Message, Method, Uri},
    },
    upstream::{self, Failure, Group, Target},
};

impl Proxy {
    /// A group as the settings have it.
    pub(super) fn group(upstream: &Upstream, now: Instant) -> Group {
        let settings = upstream::Settings {
            servers: upstream.servers.clone(),
            probe: upstream.probe,
            recovery: upstream.recovery,
        };
        Group::new(settings, now)
    }

    /// How the servers are.
    #[must_use]
    pub fn servers(&self) -> Vec<upstream::ServerState> {
        self.upstream.states()
    }

    /// Asks every server how it is: something has changed that may have brought one back.
    pub fn probe_servers(&mut self, now: Instant, media: &mut dyn MediaRelay) {
        self.upstream.probe_now(now);
        self.upstream.handle_timeout(now);
        self.flush(now, media);
    }

    /// The names that servers have to prove by their certificates, by address.
    #[must_use]
    pub fn server_names(&self) -> std::collections::HashMap<std::net::SocketAddr, String> {
        self.upstream.names()
    }

    /// By which family of addresses the servers are reached: that of the appliance's own on their network.
    #[must_use]
    pub fn server_family(&self) -> Family {
        self.settings
            .network(self.settings.upstream.network)
            .map_or(Family::Ipv4, |own| Family::of(own.bound))
    }

    /// What a server's name resolved to, or why it did not.
    pub fn resolved(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: &crate::config::ServerUri,
        result: Result<upstream::Resolution, String>,
    ) {
        self.upstream.resolved(now, server, result);
        self.settings.upstream.addresses = self.upstream.addresses().collect();
        self.upstream.handle_timeout(now);
        self.flush(now, media);
    }

    /// Where a target is.
    pub(super) fn hop_of(&self, target: &Target) -> Hop {
        Hop { network: self.settings.upstream.network, transport: target.transport, address: target.address }
    }

    /// The plan for a phone's request outside any dialog; `None` when there is no server to try.
    pub(super) fn plan_upstream(
        &self,
        message: &Message,
        routes: usize,
        mut targets: VecDeque<Target>,
    ) -> Option<Plan> {
        let target = targets.pop_front()?;
        let uri = message.parsed_request_uri().filter(|uri| self.settings.is_ours(uri));
        Some(Plan {
            egress: self.hop_of(&target),
            uri: uri.and_then(|uri| toward(&uri, &target)),
            routes,
            dialog: None,
            others: Some(targets),
            answer: None,
        })
    }

    /// A response came to a request that the group chose the server for. Says whether the next server is to be tried
    /// instead of passing it on.
    pub(super) fn note_server(&mut self, now: Instant, relay: &Relay, status: u16) -> bool {
        if relay.others.is_none() {
            return false;
        }
        let retry = self.settings.upstream.retry.iter().any(|range| range.contains(status));
        match status {
            503 => self.upstream.failed(now, relay.egress, Failure::Status(status)),
            200..500 if !retry => self.upstream.chosen(now, relay.egress),
            _ => self.upstream.succeeded(now, relay.egress),
        }
        retry
    }

    /// Sends a request to the next server. Says whether there was one to try.
    pub(super) fn try_next(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
    ) -> bool {
        if relay.cancelled {
            return false;
        }
        let Some(others) = relay.others.take().filter(|others| !others.is_empty()) else { return false };
        let Some(message) = self.transactions.request(relay.server).cloned() else { return false };
        let Some(plan) = self.plan_upstream(&message, relay.routes, others) else { return false };
        self.supersede(now, media, client, relay);
        if let Err(refuse) = self.forward(now, media, relay.server, relay.ingress, &message, &plan) {
            self.refuse(now, relay.server, &message, refuse);
        }
        true
    }

    /// A request is sent once more in another form: what comes of the first sending means nothing any more.
    pub(super) fn supersede(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
    ) {
        relay.superseded = true;
        self.timer_c.set(client, &mut relay.timer_c, None);
        if let Some((number, _, None)) = relay.call.take() {
            // The next sending begins the call anew, as one that answers a challenge does.
            self.discard_call(now, media, number);
        }
    }

    /// Asks a server how it is (RFC 3261 section 11).
    pub(super) fn probe(&mut self, now: Instant, target: &Target) {
        let hop = self.hop_of(target);
        let own = self.own(hop);
        let (client, branch) = self.transactions.reserve(0);
        let host = match &target.server.host {
            Host::Ip(_) => host_port(target.address),
            Host::Name(name) => name.clone(),
        };
        let tag = keyed_hash(self.settings.secret, &[b"probe", branch.as_bytes()]);
        let text = format!(
            "OPTIONS sip:{host} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {address};branch={branch};rport{alias}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:branchline@{address}>;tag={tag:016x}\r\n\
             To: <sip:{host}>\r\n\
             Call-ID: {branch}@{address}\r\n\
             CSeq: 1 OPTIONS\r\n\
             Contact: <sip:branchline@{contact}>\r\n\
             User-Agent: Branchline/{version}\r\n\
             Accept: application/sdp\r\n\
             Content-Length: 0\r\n\r\n",
            alias = self.alias(hop),
            transport = own.transport,
            address = own.address,
            contact = own.uri(),
            version = env!("CARGO_PKG_VERSION"),
        );
        self.probes.insert(client, hop);
        self.transactions.send_request(now, client, branch, hop, &Method::Options, text.into());
    }

    /// A response to a probe. Any answer shows that a server lives, but one that it is out of service.
    pub(super) fn probed(&mut self, now: Instant, hop: Hop, status: u16) {
        match status {
            ..200 => {}
            503 => self.upstream.failed(now, hop, Failure::Status(status)),
            _ => self.upstream.succeeded(now, hop),
        }
    }

    /// Does what the group asks for. Says whether there was anything.
    pub(super) fn tend_servers(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(output) = self.upstream.poll_output() {
            any = true;
            match output {
                upstream::Output::Probe(target) => self.probe(now, &target),
                other => self.tell(Output::Upstream(other)),
            }
        }
        any
    }
}

/// A Request-URI of ours, turned to a server: its name, or its address and port; what it said of the transport to the
/// appliance goes.
fn toward(uri: &Uri<'_>, target: &Target) -> Option<Vec<u8>> {
    let place = crate::splice::offset_in(uri.raw, uri.host_port)?;
    let before = uri.raw.get(..place.start)?;
    let host = match &target.server.host {
        Host::Ip(_) => host_port(target.address),
        Host::Name(name) => match target.server.port {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        },
    };
    let mut out = [before, host.as_bytes()].concat();
    for param in uri.params.iter().filter(|param| !param.name.eq_ignore_ascii_case(b"transport")) {
        out.extend_from_slice(param.whole);
    }
    out.extend_from_slice(uri.headers);
    Some(out)
}

/// The plan for a server's request to a phone.
pub(super) fn to_phone(binding: &registrar::Binding, routes: usize) -> Plan {
    Plan {
        egress: binding.destination(),
        uri: Some(binding.contact.to_vec()),
        routes,
        dialog: None,
        others: None,
        answer: None,
    }
}
