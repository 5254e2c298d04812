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
    credentials::Credential,
    machine::{Output, Proxy},
    measure::{DropReason, EmergencyWay, Measure},
    prove::Verdict,
    request::Refuse,
    routing::Alone,
};
use crate::{
    config::{ChallengePolicy, Unproven},
    net::Role,
    registrar::Token,
    sip::{
        Hop,
        transaction::{ServerId, keyed_hash},
        wire::{Message, Method, NameAddr, Reply},
    },
    upstream::{GroupId, SurvivalChange},
};

/// How many phones are told something at a time, and how often.
const TOLD_AT_ONCE: usize = 10;
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// What the phones are being told, a few at a time.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    waiting: VecDeque<(Token, std::sync::Arc<str>)>,
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
    /// Since when the phones of some group are on their own; `None` while servers serve all.
    #[must_use]
    pub fn alone_since(&self) -> Option<Instant> {
        self.groups.alone().map(|(_, since)| since).min()
    }

    /// The groups whose phones are on their own, by name.
    pub fn groups_alone(&self) -> impl Iterator<Item = &str> {
        self.groups.alone().map(|(name, _)| name)
    }

    /// How the destinations of server plans are.
    #[must_use]
    pub fn plan_destinations(&self) -> Vec<crate::upstream::PeerState> {
        self.plans.states()
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
        if message.method() != &Method::Register || !from_phone {
            return false;
        }
        let group = self.group_of(hop, message);
        let alone = match servers {
            Tried::NotYet => self.groups.alone_since(group).is_some(),
            Tried::InVain => self.groups.has_failed(group),
        };
        if !alone {
            return false;
        }
        let Some(alone) = self.settings.routing.alone.clone() else { return false };
        match self.proof_of(now, hop, message, &alone) {
            Proof::Enough => self.grant(now, server, hop, message, &alone),
            Proof::Challenge { realm, algorithm, stale } => {
                let stale = if stale { ", stale=true" } else { "" };
                self.challenge_in(now, server, message, &realm, &algorithm, stale);
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

    fn proof_of(&mut self, now: Instant, hop: Hop, message: &Message, alone: &Alone) -> Proof {
        let user =
            NameAddr::parse(message.to_value()).and_then(|to| to.parsed_uri()).and_then(|uri| uri.user);
        let credential = user.and_then(|user| self.credentials.of(user)).cloned();
        if credential.is_some() && self.challenges(hop) {
            // It has proved itself before it came here.
            return Proof::Enough;
        }
        let never = self.settings.trusts_peer(hop.address.ip())
            || self.settings.network(hop.network).is_some_and(|own| own.challenge == ChallengePolicy::Never);
        let digest = self.registrar.digest_of(message).cloned().filter(|_| !never);
        let can_tell = |credential: &Credential, (realm, algorithm): &(String, String)| {
            let function = algorithm.strip_suffix("-sess").unwrap_or(algorithm);
            credential.secret(credential.user.as_bytes(), realm.as_bytes(), function).is_some()
        };
        if let (Some(credential), Some((realm, algorithm))) = (credential, digest)
            && can_tell(&credential, &(realm.clone(), algorithm.clone()))
        {
            return match self.verify(now, message, &credential) {
                Verdict::Right => Proof::Enough,
                Verdict::Missing => Proof::Challenge { realm, algorithm, stale: false },
                Verdict::Stale => Proof::Challenge { realm, algorithm, stale: true },
                Verdict::Wrong => Proof::Refused("the credentials are wrong"),
            };
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

    /// Looks whether the office is on its own now. Says whether that has changed.
    pub(super) fn mind_survival(&mut self, now: Instant) -> bool {
        let changes = self.groups.mind(now);
        let any = !changes.is_empty();
        for (group, change) in changes {
            self.survival_changed(now, group, change);
        }
        any
    }

    pub(super) fn survival_changed(&mut self, now: Instant, group: GroupId, change: SurvivalChange) {
        if change == SurvivalChange::Entered {
            self.measure(Measure::SurvivalEntered);
        }
        let name = self.groups.settings(group).map(|group| group.name.clone()).unwrap_or_default();
        self.tell(Output::Survival(name, change));
        let message = self.settings.routing.alone.as_ref().and_then(|alone| alone.message.clone());
        let Some((alone, served)) = message else { return };
        let text: std::sync::Arc<str> = if change == SurvivalChange::Entered { alone } else { served }.into();
        // Who waits to be told something of another group is told that first.
        let mut waiting = std::mem::take(&mut self.announcement.waiting);
        waiting.retain(|(token, _)| {
            self.registrar.binding(*token).is_some_and(|binding| self.group_of_aor(&binding.aor) != group)
        });
        let concerned = self.registrar.bindings().filter(|binding| self.group_of_aor(&binding.aor) == group);
        waiting.extend(concerned.map(|binding| (binding.token, text.clone())));
        self.announcement = Announcement { waiting, next: Some(now) };
    }

    /// Tells the next few phones what they are to be told.
    pub(super) fn announce(&mut self, now: Instant) {
        if self.announcement.next.is_none_or(|at| at > now) {
            return;
        }
        for _ in 0..TOLD_AT_ONCE {
            let Some((token, text)) = self.announcement.waiting.pop_front() else { break };
            self.tell_phone(now, token, &text);
        }
        self.announcement.next = (!self.announcement.waiting.is_empty()).then(|| now + TOLD_EVERY);
    }

    fn tell_phone(&mut self, now: Instant, token: Token, body: &str) {
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
