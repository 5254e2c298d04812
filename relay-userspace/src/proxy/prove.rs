//! Challenging phones: whoever speaks for an authentication entry has to know its password.
//!
//! The appliance answers a server's challenges for such a phone, so without this anybody on the phones' network who writes
//! the right name into From would be let in by the server. On a network with `challenge = "always"` the phone proves itself
//! to the appliance, with 401 for REGISTER and 407 for all else, and its request goes on without what was for the appliance.
//! On its own the office challenges registrations anyway (`alone`).
//!
//! Invariants: a count of a nonce is good once, so what was captured cannot be sent again; servers, trusted peers and
//! emergency calls are never challenged. RFC 7616 sections 3.3 and 3.4, RFC 3261 section 22.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    credentials::Credential,
    machine::Proxy,
    measure::{DropReason, Measure},
    request::Refuse,
};
use crate::{
    config::ChallengePolicy,
    sip::{
        Hop,
        digest::Given,
        transaction::{ServerId, keyed_hash},
        wire::{Editor, HeaderName, Message, Method, NameAddr, Reply},
    },
};

/// How long a nonce may be answered.
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Nonces whose counts are kept. The oldest give way; then they are too old to be answered.
const MOST_NONCES: usize = 20_000;

/// What is known of the nonces that were given out.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    next: u64,
    /// The highest count that each was answered with, of those that were answered.
    counts: BTreeMap<u64, u32>,
    /// Those before are not answered any more.
    first: u64,
}

/// A nonce of ours: it says when it was made, and which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nonce {
    made: u64,
    number: u64,
}

/// What an answer to a challenge of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right, and new.
    Right,
    /// There is none to a nonce of ours.
    Missing,
    /// It is right, but the nonce is too old, or this count of it was used before.
    Stale,
    /// It is wrong.
    Wrong,
}

impl Nonces {
    /// Takes a count of a nonce. Says whether it is a new one.
    fn take(&mut self, number: u64, count: u32) -> bool {
        let highest = self.counts.get(&number).copied().unwrap_or(0);
        if number < self.first || count <= highest {
            return false;
        }
        self.counts.insert(number, count);
        while self.counts.len() > MOST_NONCES {
            let Some((oldest, _)) = self.counts.pop_first() else { break };
            self.first = oldest + 1;
        }
        true
    }
}

impl Proxy {
    /// A nonce says when it was made, which it is, and that we made it.
    pub(super) fn nonce(&mut self, now: Instant) -> String {
        let made = now.saturating_duration_since(self.started).as_secs();
        let number = self.nonces.next;
        self.nonces.next += 1;
        format!("{made:x}.{number:x}.{:016x}", self.nonce_mark(Nonce { made, number }))
    }

    fn nonce_mark(&self, nonce: Nonce) -> u64 {
        let Nonce { made, number } = nonce;
        keyed_hash(self.settings.secret, &[b"nonce", &made.to_be_bytes(), &number.to_be_bytes()])
    }

    fn our_nonce(&self, nonce: &[u8]) -> Option<Nonce> {
        let text = std::str::from_utf8(nonce).ok()?;
        let (made, rest) = text.split_once('.')?;
        let (number, mark) = rest.split_once('.')?;
        let read = |text: &str| u64::from_str_radix(text, 16).ok();
        let nonce = Nonce { made: read(made)?, number: read(number)? };
        (read(mark)? == self.nonce_mark(nonce)).then_some(nonce)
    }

    /// What a request's answer to a challenge of ours is worth.
    pub(super) fn verify(&mut self, now: Instant, message: &Message, credential: &Credential) -> Verdict {
        let answers = message.headers().filter(|header| bears_answer(header.name));
        let mut answers = answers.filter_map(|header| Given::parse(header.value));
        let found = answers.find_map(|given| Some((given, self.our_nonce(given.nonce)?)));
        let Some((given, nonce)) = found else { return Verdict::Missing };
        let secret = credential.secret(given.user, given.realm, &given.hash_function());
        let Some(secret) = secret else { return Verdict::Missing };
        let method = message.method().as_bytes();
        if given.user != credential.user.as_bytes() || !given.is_right(method, message.body(), &secret) {
            return Verdict::Wrong;
        }
        let realm = given.realm.to_vec();
        let age = now.saturating_duration_since(self.started);
        let fresh = age <= Duration::from_secs(nonce.made) + NONCE_LIFE;
        // Who counts nothing, as RFC 2069 has it, may answer once.
        if fresh && self.nonces.take(nonce.number, given.count().unwrap_or(u32::MAX)) {
            // The appliance's own realm is nothing that a server has taken: it only joins those of servers.
            if !credential.digests.is_empty() {
                self.note_realm(credential, &realm);
            }
            Verdict::Right
        } else {
            Verdict::Stale
        }
    }

    /// Challenges a request, or says that its answer is wrong, if its sender has to prove himself and has not. Says whether
    /// it did.
    pub(super) fn has_to_prove(
        &mut self,
        now: Instant,
        server: ServerId,
        hop: Hop,
        message: &Message,
    ) -> bool {
        if !self.challenges(hop) {
            return false;
        }
        let method = message.method();
        // What is in a dialog was let in with it; a tag alone proves none, and a REGISTER is never in one.
        if method != &Method::Register && self.find_dialog(hop, message).is_some() {
            return false;
        }
        if matches!(method, Method::Ack | Method::Cancel | Method::Options) {
            return false;
        }
        let Some(credential) = self.credential_of(message).cloned() else { return false };
        // Rescuers are called by anybody.
        if method == &Method::Invite && self.is_emergency(message) {
            return false;
        }
        match self.verify(now, message, &credential) {
            Verdict::Right => false,
            Verdict::Missing => {
                self.challenge(now, server, message, &credential, "");
                true
            }
            Verdict::Stale => {
                self.drop(DropReason::StaleCredentials);
                self.challenge(now, server, message, &credential, ", stale=true");
                true
            }
            Verdict::Wrong => {
                self.measure(Measure::Offence(hop.address.ip()));
                let mut refuse = Refuse::new(403, DropReason::WrongCredentials);
                refuse.warn(&self.own(hop).address.to_string(), "the credentials are wrong");
                self.refuse(now, server, message, refuse);
                true
            }
        }
    }

    /// Whether phones at a hop have to prove themselves while servers serve.
    pub(super) fn challenges(&self, hop: Hop) -> bool {
        let policy = self.settings.network(hop.network).map(|network| network.challenge);
        policy == Some(ChallengePolicy::Always) && !self.settings.trusts_peer(hop.address.ip())
    }

    /// Asks for credentials: in the realm and by the algorithm that this phone has answered before, else in the realm of its
    /// address-of-record by MD5, which every phone knows.
    fn challenge(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message,
        credential: &Credential,
        stale: &str,
    ) {
        let register = message.method() == &Method::Register;
        let known = register.then(|| self.registrar.digest_of(message).cloned()).flatten();
        let value = if register { message.to_value() } else { message.from_value() };
        let party = NameAddr::parse(value);
        let host = party.as_ref().and_then(NameAddr::parsed_uri).map(|uri| uri.host).unwrap_or_default();
        let of_its_host = (String::from_utf8_lossy(host).into_owned(), "MD5".to_owned());
        // Where the password is not kept, in a realm in which what stands for it is.
        let kept = credential.digests.first().map(|ha1| (ha1.realm.clone(), "MD5".to_owned()));
        let mut ways = known.into_iter().chain([of_its_host.clone()]).chain(kept);
        let user = credential.user.as_bytes();
        let found = ways.find(|(realm, algorithm)| {
            let function = algorithm.strip_suffix("-sess").unwrap_or(algorithm);
            credential.secret(user, realm.as_bytes(), function).is_some()
        });
        let (realm, algorithm) = found.unwrap_or(of_its_host);
        self.challenge_in(now, server, message, &realm, &algorithm, stale);
    }

    /// The same in this realm and by this algorithm.
    pub(super) fn challenge_in(
        &mut self,
        now: Instant,
        server: ServerId,
        message: &Message,
        realm: &str,
        algorithm: &str,
        stale: &str,
    ) {
        let nonce = self.nonce(now);
        let (status, header) = if message.method() == &Method::Register {
            (401, "WWW-Authenticate")
        } else {
            (407, "Proxy-Authenticate")
        };
        let realm: String = realm.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
        let headers = format!(
            "{header}: Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}\r\n"
        );
        let tag = self.local_tag(message);
        let reply = Reply { headers: headers.as_bytes(), ..Reply::new(status, &tag) };
        self.transactions.reply(now, server, &reply);
    }

    /// Takes out of a request what its sender answered to the appliance.
    pub(super) fn keep_own_answers(&self, editor: &mut Editor<'_>) {
        let message = editor.message();
        for header in message.headers().filter(|header| bears_answer(header.name)) {
            if Given::parse(header.value).is_some_and(|given| self.our_nonce(given.nonce).is_some()) {
                editor.replace(header.line, b"");
            }
        }
    }
}

fn bears_answer(name: HeaderName) -> bool {
    matches!(name, HeaderName::Authorization | HeaderName::ProxyAuthorization)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_of_a_nonce_is_good_once_and_the_oldest_nonces_give_way() {
        let mut nonces = Nonces::default();
        let rows = [
            (7, 1, true),
            (7, 1, false),
            (7, 3, true),
            (7, 2, false),
            (8, u32::MAX, true),
            (8, u32::MAX, false),
        ];
        for (number, count, expected) in rows {
            assert_eq!(nonces.take(number, count), expected, "{number} {count}");
        }
        for number in 9..MOST_NONCES as u64 + 9 {
            assert!(nonces.take(number, 1));
        }
        assert_eq!(nonces.counts.len(), MOST_NONCES);
        assert!(!nonces.take(7, 9), "it was forgotten, and so cannot be told from a new one");
    }
}
