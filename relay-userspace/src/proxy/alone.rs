//! The office on its own: registrations that are granted here, and what phones are told of it.
//!
//! Whom a server has registered before is registered here too, from the address that it had then; a phone that answers
//! challenges itself, and whose password is in an authentication entry, has to answer one of ours. Strangers are refused.
//! What is granted is short, so that phones soon ask a server that is back, and of another length for each, so that they
//! do not all ask in one moment. RFC 3261 sections 10.3 and 22, RFC 3428 (MESSAGE).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    machine::{Output, Proxy},
    measure::{DropReason, EmergencyWay, Measure},
    request::Refuse,
    routing::Alone,
};
use crate::{
    config::Unproven,
    net::Role,
    registrar::Token,
    sip::{
        Hop,
        digest::Given,
        transaction::{ServerId, keyed_hash},
        wire::{HeaderName, Message, Method, NameAddr, Reply},
    },
    upstream::{Service, SurvivalChange},
};

/// How long a nonce may be answered.
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// How many phones are told something at a time, and how often.
const TOLD_AT_ONCE: usize = 10;
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// What the phones are being told, a few at a time.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    text: String,
    waiting: VecDeque<Token>,
    next: Option<Instant>,
}

impl Announcement {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

/// Whether the servers were tried with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// They were not.
    NotYet,
    /// They were, and none has answered.
    InVain,
}

/// What a credential says of a registration.
enum Proof {
    /// It is good enough.
    Enough,
    /// A challenge has to be answered, of this realm and algorithm; `stale` when only the nonce was old.
    Challenge { realm: String, algorithm: String, stale: bool },
    /// It is not accepted.
    Refused(&'static str),
}

impl Proxy {
    /// Since when the office is on its own; `None` while a server serves.
    #[must_use]
    pub fn alone_since(&self) -> Option<Instant> {
        self.survival.since()
    }

    /// How the trunks are.
    #[must_use]
    pub fn trunks(&self) -> Vec<crate::upstream::PeerState> {
        self.trunks.states()
    }

    /// By which way emergency calls leave first.
    #[must_use]
    pub fn emergency_way(&self) -> EmergencyWay {
        if self.trunks.carry_emergencies() { EmergencyWay::Trunk } else { EmergencyWay::Servers }
    }

    /// Answers a REGISTER here, if the office is on its own. Says whether it did: whom it does not know it leaves to the
    /// servers as long as these were not tried.
    pub(super) fn registers_here(
        &mut self,
        now: Instant,
        server: ServerId,
        hop: Hop,
        message: &Message,
        servers: Tried,
    ) -> bool {
        let from_phone = self.settings.network(hop.network).is_some_and(|own| own.role == Role::Phones);
        let alone = match servers {
            Tried::NotYet => self.survival.since().is_some(),
            Tried::InVain => self.upstream.has_failed(),
        };
        if message.method() != &Method::Register || !from_phone || !alone {
            return false;
        }
        let Some(alone) = self.settings.routing.alone.clone() else { return false };
        match self.proof_of(now, hop, message, &alone) {
            Proof::Enough => self.grant(now, server, hop, message, &alone),
            Proof::Challenge { realm, algorithm, stale } => {
                let nonce = self.nonce(now);
                let stale = if stale { ", stale=true" } else { "" };
                let headers = format!(
                    "WWW-Authenticate: Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}\r\n"
                );
                let tag = self.local_tag(message);
                let reply = Reply { headers: headers.as_bytes(), ..Reply::new(401, &tag) };
                self.transactions.reply(now, server, &reply);
            }
            // One may have come back since it was asked.
            Proof::Refused(_) if servers == Tried::NotYet => return false,
            Proof::Refused(why) => {
                let mut refuse = Refuse::new(403, DropReason::StrangePhone);
                refuse.warn(&self.own(hop).address.to_string(), why);
                self.refuse(now, server, message, refuse);
            }
        }
        true
    }

    fn proof_of(&self, now: Instant, hop: Hop, message: &Message, alone: &Alone) -> Proof {
        let user =
            NameAddr::parse(message.to_value()).and_then(|to| to.parsed_uri()).and_then(|uri| uri.user);
        let credential = user.and_then(|user| self.credentials.of(user));
        if let (Some(credential), Some((realm, algorithm))) = (credential, self.registrar.digest_of(message))
        {
            let challenge =
                |stale| Proof::Challenge { realm: realm.clone(), algorithm: algorithm.clone(), stale };
            let given = message
                .headers()
                .filter(|header| header.name == HeaderName::Authorization)
                .filter_map(|header| Given::parse(header.value))
                .find(|given| given.realm == realm.as_bytes() && self.is_ours_nonce(given.nonce));
            let Some(given) = given else { return challenge(false) };
            let method = message.method().as_bytes();
            if given.user != credential.user.as_bytes()
                || !given.is_right(method, message.body(), &credential.password)
            {
                return Proof::Refused("the credentials are wrong");
            }
            return if self.is_fresh(now, given.nonce) { Proof::Enough } else { challenge(true) };
        }
        if alone.unproven == Unproven::Refuse {
            return Proof::Refused("no server is in reach, and no credentials of this phone are known here");
        }
        let (network, address) = (hop.network, hop.address.ip());
        if self.registrar.is_known_at(message, network, address, now, alone.remember) {
            Proof::Enough
        } else {
            Proof::Refused(
                "no server is in reach, and none has registered this phone from this address before",
            )
        }
    }

    fn grant(&mut self, now: Instant, server: ServerId, hop: Hop, message: &Message, alone: &Alone) {
        let own = self.server_side();
        match self.registrar.grant(now, message, hop, own, alone.registration) {
            Ok(contacts) => {
                let tag = self.local_tag(message);
                let reply = Reply { headers: &contacts, ..Reply::new(200, &tag) };
                self.transactions.reply(now, server, &reply);
                self.measure(Measure::RegisteredHere);
            }
            Err(refusal) => {
                let refuse = super::forward::refused_registration(&refusal);
                self.refuse(now, server, message, refuse);
            }
        }
    }

    /// How a server would reach the appliance: tokens do not depend on it.
    fn server_side(&self) -> crate::registrar::Own {
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        self.own(Hop::udp(self.settings.upstream.network, nowhere))
    }

    /// A nonce says when it was made, and that we made it: nothing is kept of it.
    fn nonce(&self, now: Instant) -> String {
        let made = now.saturating_duration_since(self.started).as_secs();
        format!("{made:x}.{:016x}", self.nonce_mark(made))
    }

    fn nonce_mark(&self, made: u64) -> u64 {
        keyed_hash(self.settings.secret, &[b"nonce", &made.to_be_bytes()])
    }

    fn nonce_made(nonce: &[u8]) -> Option<(u64, u64)> {
        let (made, mark) = std::str::from_utf8(nonce).ok()?.split_once('.')?;
        Some((u64::from_str_radix(made, 16).ok()?, u64::from_str_radix(mark, 16).ok()?))
    }

    fn is_ours_nonce(&self, nonce: &[u8]) -> bool {
        Self::nonce_made(nonce).is_some_and(|(made, mark)| mark == self.nonce_mark(made))
    }

    fn is_fresh(&self, now: Instant, nonce: &[u8]) -> bool {
        let age = now.saturating_duration_since(self.started);
        Self::nonce_made(nonce).is_some_and(|(made, _)| age <= Duration::from_secs(made) + NONCE_LIFE)
    }

    /// Looks whether the office is on its own now. Says whether that has changed.
    pub(super) fn mind_survival(&mut self, now: Instant) -> bool {
        let service = if self.upstream.is_out_of_service() { Service::None } else { Service::Some };
        let change = self.survival.update(now, service);
        if let Some(change) = change {
            self.survival_changed(now, change);
        }
        change.is_some()
    }

    pub(super) fn survival_changed(&mut self, now: Instant, change: SurvivalChange) {
        if change == SurvivalChange::Entered {
            self.measure(Measure::SurvivalEntered);
        }
        self.tell(Output::Survival(change));
        let message = self.settings.routing.alone.as_ref().and_then(|alone| alone.message.clone());
        let Some((alone, served)) = message else { return };
        let text = if change == SurvivalChange::Entered { alone } else { served };
        let waiting = self.registrar.bindings().map(|binding| binding.token).collect();
        self.announcement = Announcement { text, waiting, next: Some(now) };
    }

    /// Tells the next few phones what they are to be told.
    pub(super) fn announce(&mut self, now: Instant) {
        if self.announcement.next.is_none_or(|at| at > now) {
            return;
        }
        for _ in 0..TOLD_AT_ONCE {
            let Some(token) = self.announcement.waiting.pop_front() else { break };
            self.tell_phone(now, token);
        }
        self.announcement.next = (!self.announcement.waiting.is_empty()).then(|| now + TOLD_EVERY);
    }

    fn tell_phone(&mut self, now: Instant, token: Token) {
        let Some(binding) = self.registrar.binding(token) else { return };
        let (hop, contact) = (binding.destination(), binding.contact.clone());
        let (Ok(uri), Ok(aor)) =
            (std::str::from_utf8(&contact), std::str::from_utf8(&binding.aor).map(str::to_owned))
        else {
            return;
        };
        let own = self.own(hop);
        let (client, branch) = self.transactions.reserve(0);
        let tag = keyed_hash(self.settings.secret, &[b"announcement", branch.as_bytes()]);
        let body = &self.announcement.text;
        let text = format!(
            "MESSAGE {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {address};branch={branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"Branchline\" <sip:branchline@{address}>;tag={tag:016x}\r\n\
             To: <sip:{aor}>\r\n\
             Call-ID: {branch}@{address}\r\n\
             CSeq: 1 MESSAGE\r\n\
             User-Agent: Branchline/{version}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            transport = own.transport,
            address = own.address,
            version = env!("CARGO_PKG_VERSION"),
            length = body.len(),
        );
        self.own_requests.insert(client, hop);
        self.transactions.send_request(now, client, branch, hop, &Method::Message, text.into());
    }
}
