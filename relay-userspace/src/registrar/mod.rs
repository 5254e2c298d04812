//! Bindings of phones, learned from the registrations that are relayed to the servers.
//!
//! The appliance is not the registrar. But a server that has a phone's own address as Contact cannot reach it, so the
//! Contact is rewritten to the appliance's address with a token (`;bl=`), and the token leads back to the phone. The
//! token is a keyed hash of address of record, contact and source: nobody can make one up, and a refresh gets the
//! same one. In the 200 the Contacts are turned back, so that the phone sees what it sent.
//!
//! A phone may be registered with two servers at once for one binding; it lasts as long as one of them says.
//!
//! Invariants: a binding exists only after the server's 200 and only as long as the server granted (or, while the office is
//! on its own, as `local` grants); a token belongs
//! to one binding; the number of bindings is bounded, per address of record and in all. RFC 3261 section 10.

mod known;
mod local;
mod rewrite;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;

use known::Known;
pub use known::KnownPhone;
pub(crate) use known::Told;
pub use rewrite::Pending;
pub(crate) use rewrite::{number_of, replace_uri, rewritten_contact, user_agent};

use crate::{
    net::{NetworkId, Transport},
    sip::{
        Hop,
        deadlines::Deadlines,
        wire::{Message, NameAddr, Uri},
    },
};

/// The URI parameter that carries a token.
pub const TOKEN_PARAM: &str = "bl";

/// A token as it stands in a Contact.
pub type Token = u64;

/// How many bindings there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one address of record: a person's phones. Beyond, the one that ends first gives way: a phone that
    /// restarts with a new port each time leaves bindings behind, and must not be locked out by them.
    pub per_aor: usize,
    /// In all.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_aor: 10, total: 10_000 }
    }
}

/// Why a registration is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// [`Limits::total`] is reached.
    #[error("the appliance has no room for another registration")]
    Full,
    /// One REGISTER has more Contacts than [`Limits::per_aor`].
    #[error("too many contacts for one address of record")]
    TooManyContacts,
    /// A Contact cannot be read.
    #[error("malformed Contact header")]
    Contact,
}

/// One phone's contact for one address of record.
#[derive(Clone, Debug)]
pub struct Binding {
    /// User and host of To, the host in lower case.
    pub aor: Bytes,
    /// The user part of the address of record.
    pub user: Bytes,
    /// The phone's Contact URI as it was.
    pub contact: Bytes,
    /// Where its REGISTER came from.
    pub source: Hop,
    /// Whether the connection by which it came has ended.
    pub disconnected: bool,
    /// The registration's Call-ID.
    pub call_id: Bytes,
    /// The last REGISTER's CSeq number.
    pub cseq: u32,
    /// What the phone says it is.
    pub user_agent: Option<String>,
    /// The token in the rewritten Contact.
    pub token: Token,
    /// When the first REGISTER of this binding was granted.
    pub registered: Instant,
    /// When the binding ends.
    pub expires: Instant,
}

impl Binding {
    /// Where requests for this phone go.
    #[must_use]
    pub fn destination(&self) -> Hop {
        if self.disconnected {
            listening(&self.contact, self.source)
        } else {
            destination(&self.contact, self.source)
        }
    }
}

/// Where to send to a phone with this contact that was seen from `source`: down its connection, if that is what it
/// uses (RFC 5626); otherwise to where its contact says that it listens.
#[must_use]
pub fn destination(contact: &[u8], source: Hop) -> Hop {
    if source.transport.is_reliable() { source } else { listening(contact, source) }
}

/// Where a phone listens: the contact's address when its host is the source's, so that port and transport are those
/// that the phone wants; otherwise, behind a NAT, the source itself, as for one that does not listen at all.
fn listening(contact: &[u8], source: Hop) -> Hop {
    if source.transport.is_inward() {
        return source;
    }
    Uri::parse(contact)
        .and_then(|uri| hop(&uri, source))
        .filter(|contact| contact.address.ip() == source.address.ip())
        .unwrap_or(source)
}

/// The hop that a URI with an address means, for a peer that was seen at `source`: a URI without a transport means
/// the one that the peer uses. `None` when its host is a name.
#[must_use]
pub fn hop(uri: &Uri<'_>, source: Hop) -> Option<Hop> {
    // In a URI both kinds of TLS are one, and so are both of WebSocket: the one that the peer uses is meant.
    let named = uri.transport().filter(|named| named.as_uri() != source.transport.as_uri());
    let transport = named.unwrap_or(source.transport);
    let port = uri.port.unwrap_or(transport.default_port());
    Some(Hop { network: source.network, transport, address: SocketAddr::new(uri.ip()?, port) })
}

/// How a peer is told to reach the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// At this address and port.
    pub address: SocketAddr,
    /// By this transport.
    pub transport: Transport,
}

impl Own {
    /// What follows the scheme, or the user part, in a URI. UDP is what a URI without the parameter means
    /// (RFC 3263 section 4.1), and is not written.
    #[must_use]
    pub fn uri(&self) -> String {
        match self.transport {
            Transport::Udp => self.address.to_string(),
            other => format!("{};transport={}", self.address, other.as_uri()),
        }
    }
}

#[derive(Debug)]
struct Entry {
    binding: Binding,
    /// By whom it was granted; the binding ends with the last of them. Never empty.
    grants: Vec<Grant>,
    deadline: Option<Instant>,
}

/// A registration of a binding with one server.
#[derive(Debug)]
struct Grant {
    /// The server; `None` for the appliance itself, and for what an earlier run knew.
    server: Option<SocketAddr>,
    call_id: Bytes,
    expires: Instant,
}

/// Servers that one binding may be registered with at a time.
const MOST_GRANTS: usize = 4;

impl Grant {
    /// Whether another one takes its place: of the same server, or of the same registration that has moved to another.
    fn is_followed_by(&self, server: Option<SocketAddr>, call_id: &[u8]) -> bool {
        self.server == server || self.call_id == call_id
    }
}

/// All bindings.
#[derive(Debug)]
pub struct Registrar {
    secret: [u64; 2],
    limits: Limits,
    entries: HashMap<Token, Entry>,
    by_aor: HashMap<Bytes, Vec<Token>>,
    by_user: HashMap<Bytes, Vec<Token>>,
    /// How many bindings there are from an address.
    by_address: HashMap<(NetworkId, IpAddr), usize>,
    deadlines: Deadlines<Token>,
    known: Known,
    changes: u64,
}

impl Registrar {
    /// None yet. `secret` is random; tokens of one run are those of the next when it is the same.
    #[must_use]
    pub fn new(limits: Limits, secret: [u64; 2]) -> Self {
        Self {
            secret,
            limits,
            entries: HashMap::new(),
            by_aor: HashMap::new(),
            by_user: HashMap::new(),
            by_address: HashMap::new(),
            deadlines: Deadlines::default(),
            known: Known::new(limits.total),
            changes: 0,
        }
    }

    /// Takes bindings of an earlier run.
    pub fn restore(&mut self, bindings: impl IntoIterator<Item = Binding>) {
        for binding in bindings {
            self.insert(binding, None);
        }
    }

    /// Takes phones of an earlier run that were registered then.
    pub fn restore_known(&mut self, phones: impl IntoIterator<Item = KnownPhone>) {
        phones.into_iter().for_each(|phone| self.known.restore(phone));
    }

    /// The phones that a server has registered before, whether they are registered now or not.
    pub fn known(&self) -> impl Iterator<Item = &KnownPhone> {
        self.known.iter()
    }

    /// Whether a server has registered this address-of-record from this address before, and not too long ago.
    #[must_use]
    pub fn is_known_at(
        &self,
        message: &Message,
        network: NetworkId,
        address: IpAddr,
        now: Instant,
        most: Duration,
    ) -> bool {
        let (aor, _) = address_of_record(message);
        self.known.get(&aor).is_some_and(|phone| {
            phone.addresses.iter().any(|(known, ip, seen)| {
                (*known, *ip) == (network, address) && now.saturating_duration_since(*seen) <= most
            })
        })
    }

    /// The realm and the algorithm of the challenges that this address-of-record answers itself; `None` if it does not.
    #[must_use]
    pub fn digest_of(&self, message: &Message) -> Option<&(String, String)> {
        let (aor, _) = address_of_record(message);
        self.known.get(&aor)?.digest.as_ref()
    }

    /// A server uses a number for an address-of-record.
    pub(crate) fn learn(&mut self, aor: &Bytes, number: &str, told: Told) {
        if self.known.learn(aor, number, told) {
            self.changes += 1;
        }
    }

    /// Whether a phone is registered from this address.
    #[must_use]
    pub fn is_registered_at(&self, network: NetworkId, address: IpAddr) -> bool {
        self.by_address.contains_key(&(network, address))
    }

    /// The binding with that token.
    #[must_use]
    pub fn binding(&self, token: Token) -> Option<&Binding> {
        self.entries.get(&token).map(|entry| &entry.binding)
    }

    /// The bindings of all addresses-of-record with that user, the one that was registered last first.
    #[must_use]
    pub fn tokens_of_user(&self, user: &[u8]) -> Vec<Token> {
        let mut tokens = self.by_user.get(user).cloned().unwrap_or_default();
        tokens.sort_by_key(|token| std::cmp::Reverse(self.binding(*token).map(|binding| binding.expires)));
        tokens
    }

    /// The bindings of the address-of-record that servers use this number for.
    #[must_use]
    pub fn tokens_of_number(&self, number: &str) -> Vec<Token> {
        let aor = self.known.of_number(number).map(|phone| phone.aor.clone());
        aor.map(|aor| self.of_aor(&aor).map(|binding| binding.token).collect()).unwrap_or_default()
    }

    /// A number that is another one after every change.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All bindings, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.entries.values().map(|entry| &entry.binding)
    }

    /// How many bindings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When [`Registrar::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Ends the bindings whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(token) = self.deadlines.pop(now) {
            if let Some(entry) = self.entries.get_mut(&token) {
                entry.deadline = None;
            }
            self.remove(token);
        }
    }

    /// The binding that a Request-URI from a server means: by its token, else by its user when only one has it.
    #[must_use]
    pub fn find(&self, uri: &Uri<'_>) -> Option<&Binding> {
        let by_token = uri.params.value(TOKEN_PARAM).and_then(parse_token);
        if let Some(entry) = by_token.and_then(|token| self.entries.get(&token)) {
            return Some(&entry.binding);
        }
        match self.by_user.get(uri.user?)?.as_slice() {
            [only] => self.entries.get(only).map(|entry| &entry.binding),
            _ => None,
        }
    }

    /// Where a phone with this contact is reached now: one whose connection has ended may have registered anew.
    #[must_use]
    pub fn by_contact(&self, contact: &[u8], source: Hop) -> Option<Hop> {
        let user = Uri::parse(contact)?.user?;
        let tokens = self.by_user.get(user)?;
        tokens
            .iter()
            .filter_map(|token| self.entries.get(token))
            .map(|entry| &entry.binding)
            .find(|binding| {
                binding.source.network == source.network
                    && binding.source.address.ip() == source.address.ip()
                    && !binding.disconnected
            })
            .map(Binding::destination)
            .or_else(|| Some(listening(contact, source)))
    }

    /// A connection has ended.
    pub fn disconnected(&mut self, hop: Hop) {
        for entry in self.entries.values_mut().filter(|entry| entry.binding.source == hop) {
            entry.binding.disconnected = true;
        }
    }

    /// The server that has granted a binding last, and still does.
    #[must_use]
    pub fn granted_by(&self, token: Token) -> Option<SocketAddr> {
        self.entries.get(&token)?.grants.last()?.server
    }

    fn insert(&mut self, mut binding: Binding, server: Option<SocketAddr>) {
        let token = binding.token;
        let grant = Grant { server, call_id: binding.call_id.clone(), expires: binding.expires };
        self.changes += 1;
        match self.entries.get_mut(&token) {
            Some(entry) => {
                binding.registered = entry.binding.registered;
                entry.grants.retain(|known| !known.is_followed_by(server, &binding.call_id));
                if entry.grants.len() >= MOST_GRANTS {
                    entry.grants.remove(0);
                }
                entry.grants.push(grant);
                let at = entry.grants.iter().map(|grant| grant.expires).max().unwrap_or(binding.expires);
                binding.expires = at;
                let before = std::mem::replace(&mut entry.binding, binding).source;
                let source = entry.binding.source;
                self.deadlines.set(token, &mut entry.deadline, Some(at));
                self.seen_at(source);
                self.gone_from(before);
            }
            None => {
                // A limit may have been reached since the REGISTER passed; the server's 200 stands all the same.
                if self.entries.len() >= self.limits.total {
                    return;
                }
                let oldest =
                    self.of_aor(&binding.aor).min_by_key(|other| other.expires).map(|other| other.token);
                if self.by_aor.get(&binding.aor).is_some_and(|tokens| tokens.len() >= self.limits.per_aor)
                    && let Some(oldest) = oldest
                {
                    self.remove(oldest);
                }
                self.seen_at(binding.source);
                self.by_aor.entry(binding.aor.clone()).or_default().push(token);
                self.by_user.entry(binding.user.clone()).or_default().push(token);
                let mut deadline = None;
                self.deadlines.set(token, &mut deadline, Some(grant.expires));
                self.entries.insert(token, Entry { binding, grants: vec![grant], deadline });
            }
        }
    }

    /// A server has ended a registration of a binding: the binding ends with it, unless it is registered elsewhere too.
    fn end(&mut self, now: Instant, token: Token, server: Option<SocketAddr>, call_id: &[u8]) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        entry.grants.retain(|known| !known.is_followed_by(server, call_id) && known.expires > now);
        match entry.grants.iter().map(|grant| grant.expires).max() {
            Some(at) => {
                entry.binding.expires = at;
                self.deadlines.set(token, &mut entry.deadline, Some(at));
                self.changes += 1;
            }
            None => self.remove(token),
        }
    }

    fn remove(&mut self, token: Token) {
        let Some(mut entry) = self.entries.remove(&token) else { return };
        self.changes += 1;
        self.deadlines.set(token, &mut entry.deadline, None);
        self.gone_from(entry.binding.source);
        for (index, key) in [(&mut self.by_aor, &entry.binding.aor), (&mut self.by_user, &entry.binding.user)]
        {
            if let Some(tokens) = index.get_mut(key) {
                tokens.retain(|other| *other != token);
                if tokens.is_empty() {
                    index.remove(key);
                }
            }
        }
    }

    fn seen_at(&mut self, source: Hop) {
        *self.by_address.entry((source.network, source.address.ip())).or_default() += 1;
    }

    fn gone_from(&mut self, source: Hop) {
        let key = (source.network, source.address.ip());
        if let Some(count) = self.by_address.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&key);
            }
        }
    }

    fn of_aor(&self, aor: &[u8]) -> impl Iterator<Item = &Binding> {
        self.by_aor
            .get(aor)
            .into_iter()
            .flatten()
            .filter_map(|token| self.entries.get(token).map(|entry| &entry.binding))
    }
}

/// Address of record and user of a To value.
fn address_of_record(message: &Message) -> (Bytes, Bytes) {
    let to = NameAddr::parse(message.to_value());
    let uri = to.as_ref().and_then(NameAddr::parsed_uri);
    match uri {
        Some(uri) => {
            let user = uri.user.unwrap_or_default();
            let aor = [user, b"@", &uri.host.to_ascii_lowercase()].concat();
            (aor.into(), Bytes::copy_from_slice(user))
        }
        None => (Bytes::copy_from_slice(message.to_value()), Bytes::new()),
    }
}

fn parse_token(text: &[u8]) -> Option<Token> {
    if text.len() != 16 {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// A time so far ahead that adding a server's Expires to now cannot overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
