//! Contacts of REGISTER on their way to the server and back.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;

use super::{Own, Refusal, Registrar, TOKEN_PARAM, Token, address_of_record, parse_token};
use crate::{
    log::escaped,
    net::Transport,
    sip::{
        Hop, Number,
        digest::Given,
        transaction::keyed_hash,
        wire::{Editor, HeaderName, Message, NameAddr, Uri},
    },
};

/// A REGISTER on its way: what its 200 will be held against.
#[derive(Clone, Debug)]
pub struct Pending {
    pub(super) aor: Bytes,
    pub(super) user: Bytes,
    pub(super) source: Hop,
    pub(super) call_id: Bytes,
    pub(super) cseq: u32,
    pub(super) user_agent: Option<String>,
    /// `Contact: *`
    pub(super) wildcard: bool,
    pub(super) contacts: Vec<(Token, Bytes, Option<u32>)>,
    pub(super) expires: Option<u32>,
    /// The server that it goes to.
    server: Option<SocketAddr>,
    /// The realm of the challenge that the phone answers itself, and the algorithm.
    digest: Option<(String, String)>,
    /// The appliance in the rewritten Contacts.
    server_side: Own,
}

/// What an expiry is when neither side names one (RFC 3261 10.2.1.1).
const DEFAULT_EXPIRES: u32 = 3600;
/// What is kept of a User-Agent.
const USER_AGENT_BYTES: usize = 128;

impl Pending {
    /// The server that it goes to.
    pub fn goes_to(&mut self, server: SocketAddr) {
        self.server = Some(server);
    }

    /// The tokens of its contacts.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.contacts.iter().map(|(token, ..)| *token).collect()
    }

    /// Whether it ends all bindings of its address-of-record.
    #[must_use]
    pub fn ends_all(&self) -> bool {
        self.wildcard
    }
}

impl Registrar {
    /// Rewrites the Contacts of a REGISTER from a phone. `server_side` is how the server will reach the appliance.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the REGISTER is not to be relayed.
    pub fn rewrite_request(
        &self,
        editor: &mut Editor<'_>,
        source: Hop,
        server_side: Own,
    ) -> Result<Pending, Refusal> {
        let message = editor.message();
        let (aor, user) = address_of_record(message);
        let mut pending = Pending {
            aor,
            user,
            source,
            call_id: message.call_id_bytes(),
            cseq: message.cseq(),
            user_agent: user_agent(message),
            wildcard: false,
            contacts: Vec::new(),
            expires: message.expires(),
            server: None,
            digest: given(message),
            server_side,
        };
        for value in message.values(HeaderName::Contact) {
            let contact = NameAddr::parse(value).ok_or(Refusal::Contact)?;
            if contact.is_wildcard() {
                pending.wildcard = true;
                continue;
            }
            let Some(uri) = contact.parsed_uri() else { return Err(Refusal::Contact) };
            if !uri.is_sip() {
                continue; // `tel:`, `mailto:`: not a way to this phone
            }
            let token = self.token(&pending, &uri);
            if pending.contacts.len() >= self.limits.per_aor {
                return Err(Refusal::TooManyContacts);
            }
            pending.contacts.push((token, Bytes::copy_from_slice(contact.uri), contact.expires()));
            let rewritten = rewritten_contact(&uri, server_side, Some(token));
            replace_uri(editor, &contact, &rewritten);
        }
        self.room_for(&pending)?;
        Ok(pending)
    }

    fn room_for(&self, pending: &Pending) -> Result<(), Refusal> {
        let new = pending.contacts.iter().filter(|(token, ..)| !self.entries.contains_key(token)).count();
        if new > 0 && self.entries.len() + new > self.limits.total {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// The token of a contact. A phone whose address changes within one registration (same Call-ID and contact: a
    /// NAT that gave it another port) keeps its token, so that the server sees a refresh and not a second phone.
    fn token(&self, pending: &Pending, uri: &Uri<'_>) -> Token {
        let known = self.of_aor(&pending.aor).find(|binding| {
            binding.call_id == pending.call_id
                && binding.source.network == pending.source.network
                && Uri::parse(&binding.contact).is_some_and(|other| other.equivalent(uri))
        });
        known.map_or_else(
            || {
                // Of a phone that connects anew for each REGISTER, the port says nothing.
                let source = match pending.source.transport {
                    Transport::Udp => pending.source.address.to_string(),
                    _ => pending.source.address.ip().to_string(),
                };
                let network = pending.source.network.0.to_be_bytes();
                keyed_hash(self.secret, &[&pending.aor, uri.raw, source.as_bytes(), &network])
            },
            |binding| binding.token,
        )
    }

    /// Takes the final response to a REGISTER: turns our Contacts back to what phones sent, and with a 2xx makes,
    /// extends and ends bindings as the server has it.
    pub fn rewrite_response(&mut self, now: Instant, pending: &Pending, editor: &mut Editor<'_>) {
        let response = editor.message();
        let mut granted: Vec<(Token, Option<u32>)> = Vec::new();
        for contact in response.addresses(HeaderName::Contact) {
            let Some(uri) = contact.parsed_uri() else { continue };
            let Some((token, original)) = self.recognise(pending, &uri) else { continue };
            granted.push((token, contact.expires()));
            replace_uri(editor, &contact, &original);
        }
        if !response.status().is_some_and(|status| (200..300).contains(&status)) {
            return;
        }
        if pending.wildcard {
            let tokens: Vec<Token> = self.of_aor(&pending.aor).map(|binding| binding.token).collect();
            for token in tokens {
                self.end(now, token, pending.server, &pending.call_id);
            }
            return;
        }
        for (token, contact, asked) in &pending.contacts {
            let asked = asked.or(pending.expires);
            let listed = granted.iter().find(|(other, _)| other == token);
            // Some servers list no Contacts at all; then the Expires header, or what was asked for, holds.
            let seconds = listed
                .and_then(|(_, expires)| *expires)
                .or(response.expires())
                .or(asked)
                .unwrap_or(DEFAULT_EXPIRES);
            if asked == Some(0) || seconds == 0 {
                self.end(now, *token, pending.server, &pending.call_id);
                continue;
            }
            self.insert(pending.binding(*token, contact.clone(), now, seconds), pending.server);
            let address = (pending.source.network, pending.source.address.ip());
            self.known.registered(now, &pending.aor, &pending.user, address, pending.digest.clone());
        }
        for uri in response.addresses(HeaderName::PAssociatedUri).filter_map(|address| address.parsed_uri()) {
            if let Some(number) = uri.user.and_then(number_of) {
                self.learn(&pending.aor, number.as_str(), super::Told::ByServer);
            }
        }
    }

    /// The token and the phone's own URI of a Contact that the server lists: by token, else, when the server has
    /// dropped the parameter, by address and user if only one fits.
    fn recognise(&self, pending: &Pending, uri: &Uri<'_>) -> Option<(Token, Bytes)> {
        if let Some(token) = uri.params.value(TOKEN_PARAM).and_then(parse_token) {
            let mine = pending.contacts.iter().find(|(other, ..)| *other == token);
            return match mine {
                Some((_, contact, _)) => Some((token, contact.clone())),
                None => self.entries.get(&token).map(|entry| (token, entry.binding.contact.clone())),
            };
        }
        if uri.socket() != Some(pending.server_side.address) {
            return None;
        }
        let mut fitting = pending
            .contacts
            .iter()
            .filter(|(_, contact, _)| Uri::parse(contact).is_some_and(|mine| mine.user == uri.user));
        match (fitting.next(), fitting.next()) {
            (Some((token, contact, _)), None) => Some((*token, contact.clone())),
            _ => None,
        }
    }
}

/// A Contact URI with the appliance's address in the place of the peer's: user and parameters stay, except for what
/// speaks of the peer's own transport or address.
#[must_use]
pub(crate) fn rewritten_contact(uri: &Uri<'_>, own: Own, token: Option<Token>) -> Vec<u8> {
    let mut out = b"sip:".to_vec();
    if let Some(user) = uri.user {
        out.extend_from_slice(user);
        out.push(b'@');
    }
    out.extend_from_slice(own.uri().as_bytes());
    for param in uri.params.iter() {
        let transport = param.name.eq_ignore_ascii_case(b"transport");
        // A phone that writes the default finds it written.
        let udp = own.transport == Transport::Udp
            && param.value.is_some_and(|value| value.eq_ignore_ascii_case(b"udp"));
        let ours = param.name.eq_ignore_ascii_case(TOKEN_PARAM.as_bytes());
        if (transport && !udp) || ours || param.name.eq_ignore_ascii_case(b"maddr") {
            continue;
        }
        out.extend_from_slice(param.whole);
    }
    if let Some(token) = token {
        out.extend_from_slice(format!(";{TOKEN_PARAM}={token:016x}").as_bytes());
    }
    out.extend_from_slice(uri.headers);
    out
}

/// Puts a URI in the place of an address's own. Brackets are added where there were none: URI parameters would
/// otherwise be read as the header's (RFC 3261 20.10).
pub(crate) fn replace_uri(editor: &mut Editor<'_>, address: &NameAddr<'_>, uri: &[u8]) {
    if address.bracketed || !uri.iter().any(|byte| matches!(byte, b';' | b'?' | b',')) {
        editor.replace(address.uri, uri);
    } else {
        editor.replace(address.uri, &[b"<", uri, b">"].concat());
    }
}

/// The realm and the algorithm of the challenge that a REGISTER answers.
fn given(message: &Message) -> Option<(String, String)> {
    /// A longer realm is nobody's.
    const LONGEST_REALM: usize = 256;
    let header = message.header(HeaderName::Authorization)?;
    let given = Given::parse(header.value)?;
    let realm = std::str::from_utf8(given.realm).ok().filter(|realm| realm.len() <= LONGEST_REALM)?;
    Some((realm.to_owned(), given.algorithm()))
}

/// A user part as a number that a phone may be called by; names are found by their user anyway.
pub(crate) fn number_of(user: &[u8]) -> Option<Number> {
    Number::parse(user).filter(|number| number.digits().is_some())
}

/// What a message's User-Agent says, cut to a length that is worth keeping, without control characters.
#[must_use]
pub(crate) fn user_agent(message: &Message) -> Option<String> {
    let value = message.header(HeaderName::UserAgent).or_else(|| message.header(HeaderName::Server))?.value;
    let kept = value.get(..USER_AGENT_BYTES).unwrap_or(value);
    Some(escaped(&String::from_utf8_lossy(kept), USER_AGENT_BYTES))
}
