//! Answering a server's challenge for a phone that has an authentication entry.
//!
//! The phone never sees the challenge: the same request goes out again with credentials. A request that is sent again
//! needs a higher CSeq (RFC 3261 section 22.2), so from then on the phone's numbers and the server's differ by an offset
//! that is added on the way out and taken off on the way back. Challenges for phones without an entry pass.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{
    call::Party,
    converse::transfer::bears_mark,
    machine::{Output, Proxy, Relay},
    measure::Measure,
    request::Plan,
};
use crate::{
    media::MediaRelay,
    net::{NetworkId, Role},
    sip::{
        Hop,
        digest::{Challenge, Ha1, Request, Secret},
        transaction::{ClientId, ServerId, keyed_hash},
        wire::{Editor, HeaderName, Message, Method, NameAddr, scan},
    },
};

/// Offsets that are kept. Each belongs to a registration or a dialog of a phone with an entry.
const MOST_OFFSETS: usize = 20_000;
/// An offset that was not needed for so long is forgotten when room is needed: registrations are refreshed sooner.
const UNUSED: Duration = Duration::from_secs(4 * 3600);
/// How often one request is sent again: once with credentials, and once more when the nonce was stale.
const MOST_ANSWERS: u8 = 2;

/// What a phone's challenges are answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The registration that it is for: the user part of the address-of-record.
    pub registration_id: String,
    /// The user name in the digest.
    pub user: String,
    /// The password; empty where only what stands for it in some realms is kept.
    pub password: Zeroizing<String>,
    /// What stands for it in the realms of servers that have taken it.
    pub digests: Vec<Ha1>,
}

impl Credential {
    /// What may be answered with in a realm, by a hash function and as a user; `None` where it is not known.
    pub(super) fn secret(&self, user: &[u8], realm: &[u8], function: &str) -> Option<Secret<'_>> {
        if !self.password.is_empty() {
            return Some(Secret::Password(&self.password));
        }
        let fits = |ha1: &&Ha1| ha1.realm.as_bytes() == realm && ha1.algorithm == function;
        let known = self.digests.iter().find(fits).filter(|_| user == self.user.as_bytes())?;
        Some(Secret::Ha1(&known.hash))
    }

    /// The same for a challenge.
    pub(super) fn secret_for(&self, challenge: &Challenge<'_>) -> Option<Secret<'_>> {
        self.secret(self.user.as_bytes(), challenge.realm, &challenge.hash_function())
    }

    /// Whether what stands for the password in a realm is not kept yet, and can be.
    fn is_new(&self, realm: &str) -> bool {
        !self.password.is_empty() && !self.digests.iter().any(|known| known.realm == realm)
    }
}

/// All credentials, by registration id and by alias.
#[derive(Clone, Debug, Default)]
pub struct Credentials(HashMap<String, Credential>);

impl Credentials {
    /// Adds a credential for its registration id and for aliases. An id of its own goes before another's alias.
    pub fn add(&mut self, credential: &Credential, aliases: &[String]) {
        for alias in aliases {
            self.0.entry(alias.clone()).or_insert_with(|| credential.clone());
        }
        self.0.insert(credential.registration_id.clone(), credential.clone());
    }

    pub(super) fn of(&self, user: &[u8]) -> Option<&Credential> {
        self.0.get(std::str::from_utf8(user).ok()?)
    }

    /// The registration that an alias is for.
    pub(super) fn registration_of(&self, alias: &[u8]) -> Option<&str> {
        self.of(alias).map(|credential| credential.registration_id.as_str())
    }
}

/// A challenge to answer when the request is sent again.
#[derive(Clone, Debug)]
pub(super) struct Answering {
    /// `Authorization` or `Proxy-Authorization`.
    pub(super) header: &'static str,
    pub(super) challenge: Bytes,
    pub(super) credential: Credential,
    pub(super) cnonce: String,
    /// How often this request has been answered for, this time included.
    pub(super) times: u8,
}

/// By how much a server's CSeq numbers are ahead of a phone's.
#[derive(Debug)]
struct Offset {
    value: u32,
    /// The last INVITE: its number at the phone, and at the server. Its ACK, CANCEL and PRACK refer to it.
    invite: Option<(u32, u32)>,
    used: Instant,
}

/// The offsets of all registrations and dialogs that have one.
#[derive(Debug, Default)]
pub(super) struct Offsets(HashMap<(NetworkId, Bytes, Bytes), Offset>);

fn key(network: NetworkId, message: &Message) -> (NetworkId, Bytes, Bytes) {
    // A registration may change its tag with each REGISTER; its Call-ID it keeps (RFC 3261 10.2).
    let tag = if message.method() == &Method::Register { &[][..] } else { message.from_tag() };
    (network, message.call_id_bytes(), Bytes::copy_from_slice(tag))
}

impl Offsets {
    /// The number that a request of a phone gets on its way out.
    pub(super) fn outward(&mut self, now: Instant, network: NetworkId, message: &Message) -> u32 {
        if self.0.is_empty() {
            return message.cseq();
        }
        let Some(offset) = self.0.get_mut(&key(network, message)) else { return message.cseq() };
        offset.used = now;
        offset.of(message.method(), message.cseq())
    }

    /// One more for the requests of this registration or dialog. Says whether there was room.
    pub(super) fn raise(
        &mut self,
        now: Instant,
        network: NetworkId,
        message: &Message,
        invited: Option<u32>,
    ) -> bool {
        self.raise_by(now, key(network, message), 1, invited)
    }

    /// The same by more than one, for who has this tag in this dialog. `invited` is the number of its last INVITE, which
    /// went out with that number if nothing was raised before.
    pub(super) fn raise_by(
        &mut self,
        now: Instant,
        key: (NetworkId, Bytes, Bytes),
        by: u32,
        invited: Option<u32>,
    ) -> bool {
        if self.0.len() >= MOST_OFFSETS && !self.0.contains_key(&key) {
            self.0.retain(|_, offset| now.saturating_duration_since(offset.used) < UNUSED);
            if self.0.len() >= MOST_OFFSETS {
                return false;
            }
        }
        let offset = self.0.entry(key).or_insert(Offset {
            value: 0,
            invite: invited.map(|number| (number, number)),
            used: now,
        });
        offset.value = offset.value.saturating_add(by);
        offset.used = now;
        true
    }

    pub(super) fn forget(&mut self, network: NetworkId, call_id: &Bytes, tag: &Bytes) {
        if !self.0.is_empty() {
            self.0.remove(&(network, call_id.clone(), tag.clone()));
        }
    }

    /// The numbers of a dialog's requests from one side: by how much they are ahead, and those of the last INVITE.
    pub(super) fn of(
        &self,
        network: NetworkId,
        call_id: &Bytes,
        tag: &Bytes,
    ) -> Option<(u32, Option<(u32, u32)>)> {
        let offset = self.0.get(&(network, call_id.clone(), tag.clone()))?;
        Some((offset.value, offset.invite))
    }

    /// Takes up what [`Offsets::of`] has told an earlier run.
    pub(super) fn take_up(
        &mut self,
        now: Instant,
        network: NetworkId,
        call_id: &Bytes,
        tag: &Bytes,
        (value, invite): (u32, Option<(u32, u32)>),
    ) {
        self.0.insert((network, call_id.clone(), tag.clone()), Offset { value, invite, used: now });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Offset {
    fn of(&mut self, method: &Method, number: u32) -> u32 {
        match (method, self.invite) {
            (Method::Ack, Some((own, sent))) if own == number => sent,
            _ => {
                let sent = number.saturating_add(self.value);
                if method == &Method::Invite {
                    self.invite = Some((number, sent));
                }
                sent
            }
        }
    }
}

impl Proxy {
    /// Replaces the authentication entries.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.credentials = credentials;
    }

    /// Answers a challenge for the phone. Says whether it did; otherwise the challenge passes.
    pub(super) fn answer_challenge(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
        response: &Message,
    ) -> bool {
        // A phone or a gateway that challenges would be handed an answer to a nonce of its own choice.
        let by_a_server = self.is_in(relay.egress, Role::Servers);
        if !by_a_server || relay.cancelled {
            return false;
        }
        let Some(request) = self.transactions.request(relay.server).cloned() else { return false };
        let request = self.inner_request(relay.ingress, request);
        let Some(credential) = self.answers_with(relay.server, relay.ingress, &request).cloned() else {
            return false;
        };
        let (name, header) = if response.status() == Some(407) {
            (HeaderName::ProxyAuthenticate, "Proxy-Authorization")
        } else {
            (HeaderName::WwwAuthenticate, "Authorization")
        };
        // Not by `values`: the commas in a challenge do not separate challenges.
        let found = response.headers().filter(|header| header.name == name).find_map(|header| {
            let challenge = Challenge::parse(header.value)?;
            Some((challenge.stale, header.value, credential.secret_for(&challenge).is_some()))
        });
        let Some((stale, challenge, known)) = found else { return false };
        if !known {
            // Its password is not kept any more, and was never used in this realm: it has to be set again.
            self.measure(Measure::CredentialsRefused);
            return false;
        }
        if relay.answered > 0 && (!stale || relay.answered >= MOST_ANSWERS) {
            self.measure(Measure::CredentialsRefused);
            return false;
        }
        let invited = self.invited_by(relay);
        if !self.offsets.raise(now, relay.ingress.network, &request, invited) {
            return false;
        }
        let nonce = keyed_hash(self.settings.secret, &[b"cnonce", &client_bytes(client), challenge]);
        let plan = Plan {
            uri: relay.uri.clone(),
            others: relay.others.clone(),
            redirected: relay.redirected,
            answer: Some(Box::new(Answering {
                header,
                challenge: Bytes::copy_from_slice(challenge),
                credential,
                cnonce: format!("{nonce:016x}"),
                times: relay.answered + 1,
            })),
            standing: relay.call.clone().filter(|(.., tag)| tag.is_some()),
            least_timer: relay.least_timer,
            ..Plan::to(relay.egress, relay.routes)
        };
        self.supersede(now, media, client, relay);
        self.measure(Measure::ChallengeAnswered);
        if let Err(refuse) = self.forward(now, media, relay.server, relay.ingress, &request, &plan) {
            self.refuse(now, relay.server, &request, refuse);
        }
        true
    }

    /// The number of the last INVITE of who has sent a request, if it is one of a call's parties.
    pub(super) fn invited_by(&self, relay: &Relay) -> Option<u32> {
        let (number, party, tag) = relay.call.as_ref()?;
        let call = self.calls.get(number)?;
        match (party, tag) {
            (Party::Caller, _) => call.caller.invited,
            (Party::Callee, tag) => call.sides(Party::Callee, tag.as_ref()?)?.0.invited,
        }
    }

    /// A server has taken an answer of an entry: what stands for the password in its realm can be kept, and in time in the
    /// password's place.
    pub(super) fn note_realm(&mut self, credential: &Credential, realm: &[u8]) {
        /// A longer realm is nobody's.
        const LONGEST_REALM: usize = 256;
        let Ok(realm) = std::str::from_utf8(realm) else { return };
        // As it is now: others may have told it since.
        let now = self.credentials.of(credential.registration_id.as_bytes());
        if realm.len() <= LONGEST_REALM
            && now.is_some_and(|known| known.user == credential.user && known.is_new(realm))
        {
            let (registration_id, realm) = (credential.registration_id.clone(), realm.to_owned());
            self.tell(Output::Realm { registration_id, realm });
        }
    }

    /// What a server's challenge to a request is answered with: the entry of the phone that sent it. One that comes from
    /// within is paid for by who has asked for the transfer, not by the transferee in whose name it is.
    pub(super) fn answers_with(
        &self,
        server: ServerId,
        ingress: Hop,
        request: &Message,
    ) -> Option<&Credential> {
        if self.is_from_within(server, request) {
            return self.transferors_credential(request.call_id());
        }
        // Of a transfer that is over, or somebody who says so.
        if bears_mark(request) || !self.is_in(ingress, Role::Phones) {
            return None;
        }
        self.credential_of(request)
    }

    /// Whether a hop is on a network with this role.
    pub(super) fn is_in(&self, hop: Hop, role: Role) -> bool {
        self.settings.network(hop.network).is_some_and(|network| network.role == role)
    }

    /// The entry of the phone that sent a request: by the address-of-record that it registers, or speaks as.
    pub(super) fn credential_of(&self, request: &Message) -> Option<&Credential> {
        let value =
            if request.method() == &Method::Register { request.to_value() } else { request.from_value() };
        let party = NameAddr::parse(value)?;
        self.credentials.of(party.parsed_uri()?.user?)
    }

    /// Gives a phone's request the number that the server expects, and its PRACK the number of its INVITE there.
    pub(super) fn number_outward(
        &mut self,
        now: Instant,
        network: NetworkId,
        editor: &mut Editor<'_>,
    ) -> u32 {
        let message = editor.message();
        let number = self.offsets.outward(now, network, message);
        if number != message.cseq() {
            editor.cseq(number);
        }
        if message.method() == &Method::Prack
            && let Some(offset) = self.offsets.0.get(&key(network, message))
            && let Some(header) = message.header(HeaderName::RAck)
            && let Some((own, sent)) = offset.invite
        {
            // response-num CSeq-num Method (RFC 3262 section 7.2)
            let mut words = header.value.split(|byte| scan::is_space(*byte)).filter(|word| !word.is_empty());
            if let (Some(_), Some(word)) = (words.next(), words.next())
                && scan::number(word) == Some(own)
                && own != sent
            {
                editor.replace_fmt(word, format_args!("{sent}"));
            }
        }
        number
    }
}

impl Answering {
    /// Puts the credentials into the request, in the place of those that the phone itself had.
    pub(super) fn write(&self, editor: &mut Editor<'_>, uri: &[u8], body: &[u8]) {
        let message = editor.message();
        for header in message.headers() {
            if matches!(header.name, HeaderName::Authorization | HeaderName::ProxyAuthorization) {
                editor.replace(header.line, b"");
            }
        }
        let Some(challenge) = Challenge::parse(&self.challenge) else { return };
        let request = Request { method: message.method().as_bytes(), uri, body };
        let Some(secret) = self.credential.secret_for(&challenge) else { return };
        let value = challenge.answer(&request, &self.credential.user, &secret, &self.cnonce);
        editor.add_header(self.header, format_args!("{}", String::from_utf8_lossy(&value)));
    }
}

pub(super) fn client_bytes(client: ClientId) -> [u8; 8] {
    client.number().to_be_bytes()
}
