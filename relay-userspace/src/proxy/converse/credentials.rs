//! A server's challenge to a request of the appliance's own, answered with the entry of the phone in whose name it was.

use std::time::Instant;

use super::speak::{Spoken, Words};
use crate::{
    net::Role,
    proxy::{call::Party, machine::Proxy, measure::Measure},
    sip::{
        digest::{Challenge, Request},
        transaction::keyed_hash,
        wire::{HeaderName, Message, NameAddr},
    },
};

impl Proxy {
    /// Sends a request once more, with credentials. Says whether there was something to answer with.
    pub(super) fn answer_own_challenge(&mut self, now: Instant, spoken: &Spoken, response: &Message) -> bool {
        if spoken.authorized {
            return false;
        }
        let Some((header, value)) = self.own_credentials(spoken, response) else { return false };
        let headers = format!("{header}: {value}\r\n{}", spoken.headers);
        let words = Words {
            method: spoken.method.clone(),
            purpose: spoken.purpose,
            headers: &headers,
            body: spoken.body.as_deref(),
        };
        let Some(client) = self.speak(now, spoken.call, spoken.toward, &words) else { return false };
        if let Some(again) = self.spoken.get_mut(&client) {
            again.authorized = true;
        }
        self.measure(Measure::ChallengeAnswered);
        true
    }

    fn own_credentials(&self, spoken: &Spoken, response: &Message) -> Option<(&'static str, String)> {
        let call = self.calls.get(&spoken.call)?;
        let conversing = call.conversing.as_deref()?;
        let (recipient, sender) = call.sides(spoken.toward, conversing.tag.as_ref()?)?;
        let role = |party: Party| {
            let side = if party == spoken.toward { recipient } else { sender };
            self.settings.network(side.source.network).map(|network| network.role)
        };
        // As with relayed requests: nobody but a server is handed an answer to a nonce of its own choice.
        if role(spoken.toward) != Some(Role::Servers) || role(spoken.toward.other()) != Some(Role::Phones) {
            return None;
        }
        let name = NameAddr::parse(conversing.voice(spoken.toward.other()).name.as_bytes())?;
        let credential = self.credentials.of(name.parsed_uri()?.user?)?;
        let (found, header) = if response.status() == Some(407) {
            (HeaderName::ProxyAuthenticate, "Proxy-Authorization")
        } else {
            (HeaderName::WwwAuthenticate, "Authorization")
        };
        let mut challenges = response.headers().filter(|line| line.name == found);
        let challenge = challenges.find_map(|line| Challenge::parse(line.value))?;
        let target = recipient.target.clone()?;
        let request = Request {
            method: spoken.method.as_bytes(),
            uri: &target,
            body: spoken.body.as_deref().unwrap_or_default(),
        };
        let nonce = keyed_hash(
            self.settings.secret,
            &[b"own", &target, &call.info.call_id, &spoken.number.to_be_bytes()],
        );
        let secret = credential.secret_for(&challenge)?;
        let value = challenge.answer(&request, &credential.user, &secret, &format!("{nonce:016x}"));
        Some((header, String::from_utf8_lossy(&value).into_owned()))
    }
}
