//! The servers: which one a request goes to, what is tried when it fails, and the probes.
//!
//! A request of a phone outside any dialog goes the best way that there is (`ways`): to the best server of the group, if no
//! rule says otherwise. When that one cannot be reached, does
//! not answer, or answers with a code that the configuration names, the same request goes to the next one, and the phone
//! sees only the last answer. Requests in a dialog stay with the server that the dialog is with: calls that stand
//! survive. RFC 3263 section 4.3, RFC 3261 section 16.7 (step 6 is done one branch at a time).

use std::{net::SocketAddr, time::Instant};

use super::{
    machine::{Output, Proxy, Relay},
    request::Plan,
    settings::host_port,
    ways::WayKind,
};
use crate::{
    config::Host,
    media::MediaRelay,
    net::{Family, Transport},
    registrar,
    sip::{
        Hop,
        transaction::{ClientId, keyed_hash},
        wire::{Message, Method, Uri},
    },
    upstream::{self, Evidence, Failure, Target},
};

impl Proxy {
    /// How the servers are.
    #[must_use]
    pub fn servers(&self) -> Vec<upstream::ServerState> {
        self.groups.states()
    }

    /// Asks every server how it is: something has changed that may have brought one back.
    pub fn probe_servers(&mut self, now: Instant, media: &mut dyn MediaRelay) {
        self.groups.probe_now(now);
        self.groups.handle_timeout(now);
        self.flush(now, media);
    }

    /// The names that servers and trunks have to prove by their certificates, by address.
    #[must_use]
    pub fn server_names(&self) -> std::collections::HashMap<SocketAddr, String> {
        let mut names = self.groups.names();
        names.extend(self.trunks.names());
        names.extend(self.plans.names());
        names
    }

    /// By which family of addresses a server is reached: that of the appliance's own on its network.
    #[must_use]
    pub fn server_family(&self, server: &crate::config::ServerUri) -> Family {
        let network = self.groups.network_of(server).unwrap_or(self.settings.upstream.network);
        self.settings.network(network).map_or(Family::Ipv4, |own| Family::of(own.bound))
    }

    /// What a server's name resolved to, or why it did not.
    pub fn resolved(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: &crate::config::ServerUri,
        result: &Result<upstream::Resolution, String>,
    ) {
        let result = &result.clone().and_then(|found| self.elsewhere(found));
        self.trunks.resolved(now, server, result);
        self.plans.resolved(now, server, result);
        self.groups.resolved(now, server, result);
        self.note_addresses();
        self.groups.handle_timeout(now);
        self.flush(now, media);
    }

    /// What a name resolved to but for what cannot be a server: nobody's addresses, and the appliance's own ports, by which it
    /// would ask itself how its servers are, and find them well.
    fn elsewhere(&self, mut found: upstream::Resolution) -> Result<upstream::Resolution, String> {
        let is_own = |transport: Transport, address: SocketAddr| {
            self.settings.networks.iter().any(|own| {
                [own.bound, own.advertised].contains(&address.ip())
                    && own.ports.open(transport) == Some(address.port())
            })
        };
        let before = found.places.len();
        found.places.retain(|(transport, address)| {
            let ip = address.ip();
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_own(*transport, *address))
        });
        if found.places.is_empty() && before > 0 {
            return Err("it leads to this appliance itself, or to nobody".to_owned());
        }
        Ok(found)
    }

    /// Takes note of where servers and the destinations of plans are: these may send requests.
    pub(super) fn note_addresses(&mut self) {
        self.settings.server_addresses = self.groups.addresses().chain(self.plans.addresses()).collect();
    }

    /// A response came to a request whose way was chosen here. Says what may be tried instead of passing it on.
    pub(super) fn note_way(&mut self, now: Instant, relay: &Relay, status: u16) -> Instead {
        let Some((kind, _)) = relay.others else { return Instead::Nothing };
        let retry = self.is_retried(relay, status);
        match (kind, status) {
            (WayKind::Phone, _) => return Instead::Nothing,
            (WayKind::Elsewhere, _) => {}
            (WayKind::Plan, 503) => self.plans.failed(now, relay.egress, &Failure::Status(status)),
            (WayKind::Plan, _) => self.plans.succeeded(now, relay.egress, Evidence::Answer),
            (WayKind::Server | WayKind::Lesser, 503) => {
                self.groups.failed(now, relay.egress, &Failure::Status(status));
            }
            (WayKind::Server, 200..500) if !retry => {
                let group = self.group_of_relay(relay);
                self.groups.chosen(now, group, relay.egress);
            }
            (WayKind::Server | WayKind::Lesser, _) => {
                self.groups.succeeded(now, relay.egress, Evidence::Answer);
            }
            (WayKind::Trunk, 503) => self.trunks.failed(now, relay.egress, &Failure::Status(status)),
            (WayKind::Trunk, _) => self.trunks.succeeded(now, relay.egress, Evidence::Answer),
        }
        let emergency = kind == WayKind::Trunk
            && self.transactions.request(relay.server).is_some_and(|request| self.is_emergency(request));
        match (retry, status) {
            // Rescuers that are busy or refuse have been reached; for all else somebody else may reach them.
            (_, 300..) if emergency && !matches!(status, 486 | 487 | 600 | 603) => Instead::Anything,
            (false, _) => Instead::Nothing,
            (true, 503) => Instead::Anything,
            // A server that answers decides; the office does not know better than it.
            (true, _) => Instead::OfThisKind,
        }
    }

    /// A server or a trunk has sent something that is no answer to a probe: as long as it does, it is not asked how it is.
    pub(super) fn note_traffic(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups.heard(now, hop, evidence);
        self.trunks.heard(now, hop, evidence);
        self.plans.heard(now, hop, evidence);
    }

    /// The peer of a request was silent.
    pub(super) fn note_silence(&mut self, now: Instant, relay: &Relay) {
        match relay.others {
            Some((WayKind::Server | WayKind::Lesser, _)) => {
                self.groups.failed(now, relay.egress, &Failure::Silent);
            }
            Some((WayKind::Trunk, _)) => self.trunks.failed(now, relay.egress, &Failure::Silent),
            Some((WayKind::Plan, _)) => self.plans.failed(now, relay.egress, &Failure::Silent),
            Some((WayKind::Phone | WayKind::Elsewhere, _)) | None => {}
        }
        self.mind_survival(now);
    }

    /// Sends a request to where a server has redirected it. Says whether there was such a place.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
        response: &Message,
    ) -> bool {
        let places = self.redirections(relay, response);
        if places.is_empty() {
            return false;
        }
        // Whatever waits is tried when none of these will have it.
        let mut places = places;
        if let Some((_, waiting)) = &relay.others {
            places.extend(waiting.iter().cloned());
        }
        relay.others = Some((WayKind::Elsewhere, places));
        relay.redirected += 1;
        self.try_next(now, media, client, relay, Instead::Anything)
    }

    /// Sends a request the next way. Says whether there was one to try.
    pub(super) fn try_next(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
        instead: Instead,
    ) -> bool {
        if relay.cancelled || instead == Instead::Nothing {
            return false;
        }
        let Some((kind, mut others)) = relay.others.take() else { return false };
        if instead == Instead::OfThisKind {
            others.retain(|way| way.kind() == kind);
        }
        // Of a request that was sent several ways at once the last to fail goes on.
        if self.forks.get(&relay.server).is_some_and(|fork| fork.open.iter().any(|other| *other != client)) {
            return false;
        }
        let Some(message) = self.transactions.request(relay.server).cloned() else { return false };
        let Some(mut plan) = self.plan_next(&message, relay.routes, others) else { return false };
        plan.redirected = relay.redirected;
        plan.least_timer = relay.least_timer;
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
        if let Some(fork) = self.forks.get_mut(&relay.server) {
            fork.end(client);
        }
        self.timer_c.set(client, &mut relay.timer_c, None);
        if let Some((number, _, None)) = relay.call.take() {
            // The next sending begins the call anew, as one that answers a challenge does.
            self.discard_call(now, media, number);
        }
    }

    /// Asks a server how it is (RFC 3261 section 11).
    pub(super) fn probe(&mut self, now: Instant, target: &Target) {
        let hop = target.hop();
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
        self.own_requests.insert(client, hop);
        self.transactions.send_request(now, client, branch, hop, &Method::Options, text.into());
    }

    /// A response to a probe. Any answer shows that a server lives, but one that it is out of service.
    pub(super) fn probed(&mut self, now: Instant, hop: Hop, status: u16) {
        match status {
            ..200 => {}
            503 => self.out_of_reach(now, hop, &Failure::Status(status)),
            _ => {
                self.groups.succeeded(now, hop, Evidence::Probe);
                self.trunks.succeeded(now, hop, Evidence::Probe);
                self.plans.succeeded(now, hop, Evidence::Probe);
            }
        }
    }

    /// Who is asked there, server or trunk, cannot serve.
    pub(super) fn out_of_reach(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups.found_down(now, hop, failure);
        self.trunks.found_down(now, hop, failure);
        self.plans.found_down(now, hop, failure);
    }

    /// Does what the group asks for. Says whether there was anything.
    pub(super) fn tend_servers(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(output) = self.groups.poll_output() {
            any = true;
            match output {
                upstream::Output::Probe(target) => self.probe(now, &target),
                other => self.tell(Output::Upstream(other)),
            }
        }
        while let Some((trunk, output)) = self.trunks.poll_output() {
            any = true;
            match output {
                upstream::Output::Probe(target) => self.probe(now, &target),
                other => self.tell(Output::Trunk(trunk, other)),
            }
        }
        while let Some((destination, output)) = self.plans.poll_output() {
            any = true;
            match output {
                upstream::Output::Probe(target) => self.probe(now, &target),
                other => self.tell(Output::Destination(destination, other)),
            }
        }
        any | self.mind_survival(now)
    }
}

/// What may be tried when a request has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// Nothing: the answer stands.
    Nothing,
    /// Another server, or another trunk.
    OfThisKind,
    /// Whatever there is.
    Anything,
}

/// The host, and the port if it is to be named, of a server or trunk in a URI.
pub(super) fn host_of(target: &Target) -> String {
    match &target.server.host {
        Host::Ip(_) => host_port(target.address),
        Host::Name(name) => match target.server.port {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        },
    }
}

/// A Request-URI of ours, turned to a server: its name, or its address and port, and another number if there is one; what
/// it said of the transport to the appliance goes.
pub(super) fn toward(uri: &Uri<'_>, number: Option<&[u8]>, target: &Target) -> Option<Vec<u8>> {
    let place = crate::splice::offset_in(uri.raw, uri.host_port)?;
    let host = host_of(target);
    let mut out = match number {
        Some(number) => [b"sip:", number, b"@", host.as_bytes()].concat(),
        None => [uri.raw.get(..place.start)?, host.as_bytes()].concat(),
    };
    for param in uri.params.iter().filter(|param| !param.name.eq_ignore_ascii_case(b"transport")) {
        out.extend_from_slice(param.whole);
    }
    out.extend_from_slice(uri.headers);
    Some(out)
}

/// The plan for a server's request to a phone.
pub(super) fn to_phone(binding: &registrar::Binding, routes: usize) -> Plan {
    Plan { uri: Some(binding.contact.to_vec()), ..Plan::to(binding.destination(), routes) }
}
