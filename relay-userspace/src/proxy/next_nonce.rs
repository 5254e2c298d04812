//! Nonces that servers give out in advance: a request of an entry that answers one needs no challenge.
//!
//! A server that has accepted an answer may say in Authentication-Info which nonce it wants to see next. The next request of
//! that entry to that server, outside of a dialog, answers it at once. Each is used once; a server that has forgotten it
//! challenges, as it would have anyway. RFC 7616 section 3.5, RFC 7615 (the same of proxies).

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    credentials::{Answering, client_bytes},
    machine::{Proxy, Relay},
    request::Plan,
};
use crate::{
    net::Role,
    sip::{
        Hop,
        digest::{Challenge, next_nonce},
        transaction::{ClientId, ServerId, keyed_hash},
        wire::{Editor, Message, Method},
    },
};

/// Nonces that are kept.
const MOST: usize = 10_000;
/// One that was not used for so long is forgotten when room is needed.
const UNUSED: Duration = Duration::from_secs(3600);

/// What is answered with it: registrations are asked for by registrars, all else by proxies, and each keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Use {
    Registration,
    Other,
}

impl Use {
    fn of(method: &Method) -> Self {
        if method == &Method::Register { Self::Registration } else { Self::Other }
    }
}

#[derive(Debug)]
struct Next {
    header: &'static str,
    /// The challenge as it would have come.
    challenge: Bytes,
    told: Instant,
}

/// All of them, by registration id, server and use.
#[derive(Debug, Default)]
pub(super) struct NextNonces(HashMap<(String, SocketAddr, Use), Next>);

impl Proxy {
    /// The plan with an answer to the nonce that its server wants next, if there is one.
    pub(super) fn next_answer(
        &mut self,
        now: Instant,
        (server, client): (ServerId, ClientId),
        hop: Hop,
        message: &Message,
        plan: &Plan,
    ) -> Option<Plan> {
        if self.next_nonces.0.is_empty() || plan.answer.is_some() {
            return None;
        }
        // Servers that challenge calls seldom challenge what belongs to one: its BYE would only use the nonce up.
        if message.to_tag().is_some() {
            return None;
        }
        if !self.is_in(plan.egress, Role::Servers) {
            return None;
        }
        let credential = self.answers_with(server, hop, message)?.clone();
        let key = (credential.registration_id.clone(), plan.egress.address, Use::of(message.method()));
        let Next { header, challenge, told } = self.next_nonces.0.remove(&key)?;
        if now.saturating_duration_since(told) > UNUSED {
            return None;
        }
        let seed = keyed_hash(self.settings.secret, &[b"cnonce", &client_bytes(client), &challenge]);
        let answer = Answering { header, challenge, credential, cnonce: format!("{seed:016x}"), times: 0 };
        Some(Plan { answer: Some(Box::new(answer)), ..plan.clone() })
    }

    /// A server has accepted an answer of ours: takes the nonce that it wants next, and what it says of that out of the
    /// response, since the phone has answered nothing.
    pub(super) fn note_next_nonce(&mut self, now: Instant, relay: &Relay, editor: &mut Editor<'_>) {
        let Some(answer) = &relay.answer else { return };
        let info = if answer.header == "Authorization" {
            "Authentication-Info"
        } else {
            "Proxy-Authentication-Info"
        };
        let message = editor.message();
        for header in message.headers().filter(|header| header.spelling.eq_ignore_ascii_case(info.as_bytes()))
        {
            editor.replace(header.line, b"");
            let Some(challenge) = Challenge::parse(&answer.challenge) else { continue };
            let Some(nonce) = next_nonce(header.value) else { continue };
            let known = &mut self.next_nonces.0;
            if known.len() >= MOST {
                known.retain(|_, next| now.saturating_duration_since(next.told) <= UNUSED);
            }
            let key =
                (answer.credential.registration_id.clone(), relay.egress.address, Use::of(&relay.method));
            if known.len() < MOST || known.contains_key(&key) {
                let challenge = challenge.with_nonce(nonce).into();
                known.insert(key, Next { header: answer.header, challenge, told: now });
            }
        }
    }
}
