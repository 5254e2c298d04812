//! Phones that are registered with two servers at once, so that both can call them.
//!
//! Either the phone does it itself: it sends a REGISTER for each server and names that server in it, by a Route or by the
//! Request-URI, and so does what else it sends. Or the appliance does it for the phone: when a server has granted a
//! registration, the next of its group gets one with the same Contact, which the appliance refreshes, ends, and answers
//! challenges for with the phone's authentication entry. The phone hears nothing of it.
//!
//! Invariants: a second registration belongs to a binding, asks for no longer than that lasts, and ends with it; it is
//! never with the server that the binding was granted by. RFC 3261 section 10.2.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    failover::host_of,
    machine::{Proxy, Relay},
    measure::{Measure, SecondRegistration},
};

use crate::{
    config::{DualRegistration, Host},
    registrar::{Token, rewritten_contact},
    sip::{
        Hop,
        deadlines::Deadlines,
        digest::{Challenge, Request},
        transaction::{ClientId, keyed_hash},
        wire::{HeaderName, Message, Method, Uri, scan},
    },
    upstream::{Failure, GroupId, Rank, Target},
};

/// How often one REGISTER is sent again for challenges: once with credentials, and once more when the nonce was stale.
const MOST_ANSWERS: u8 = 2;
/// When a second registration that failed is tried again: after this, and after twice as long each further time, up to 32
/// minutes.
const AGAIN: Duration = Duration::from_secs(60);
const MOST_DOUBLED: u32 = 6;
/// One is refreshed no more often than this.
const SHORTEST_REFRESH: Duration = Duration::from_secs(15);

/// A second registration.
#[derive(Debug)]
struct Second {
    target: Target,
    /// The phone's address-of-record, and its Contact.
    aor: Bytes,
    contact: Bytes,
    call_id: String,
    cseq: u32,
    /// Seconds that the server wants at least (RFC 3261 section 10.2.8).
    least: u32,
    /// How often it was refused in a row: each time it is left alone for longer, since a server may lock out who tries on.
    refusals: u32,
    state: State,
    /// How often challenges to the present REGISTER were answered, and in which realm.
    answered: u8,
    realm: Vec<u8>,
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server was asked, or has refused.
    Asked,
    /// It holds until then.
    Registered(Instant),
    /// It is being ended.
    Ending,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    by_token: HashMap<Token, Second>,
    under_way: HashMap<ClientId, Asked>,
    due: Deadlines<Token>,
}

/// A REGISTER that is under way: whose, to where, and with which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    token: Token,
    hop: Hop,
    cseq: u32,
}

impl Seconds {
    /// The second registration that a REGISTER is the last one of; an earlier one says nothing of it any more.
    fn of(&mut self, asked: Asked) -> Option<&mut Second> {
        let second = self.by_token.get_mut(&asked.token)?;
        (second.target.hop() == asked.hop && second.cseq == asked.cseq).then_some(second)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    /// A transaction is over.
    pub(super) fn gone(&mut self, client: ClientId) {
        self.under_way.remove(&client);
    }

    fn forget(&mut self, token: Token) {
        if let Some(mut second) = self.by_token.remove(&token) {
            self.due.set(token, &mut second.due, None);
        }
    }

    fn at(&mut self, token: Token, at: Instant) {
        if let Some(second) = self.by_token.get_mut(&token) {
            self.due.set(token, &mut second.due, Some(at));
        }
    }
}

impl Proxy {
    /// The servers of a request's group, the best first. Where phones are registered with two servers by themselves, the
    /// one that the request names goes first, and a REGISTER goes to no other: the phone's other one is for those.
    pub(super) fn targets(&self, now: Instant, group: GroupId, message: &Message) -> Vec<Target> {
        let mut targets = self.groups.candidates(now, group);
        let dual = self.groups.settings(group).map(|group| group.dual);
        if dual != Some(DualRegistration::Phone) {
            return targets;
        }
        let route = message
            .addresses(HeaderName::Route)
            .find_map(|route| route.parsed_uri().filter(|uri| !self.settings.is_ours(uri)));
        let Some(uri) = route.or_else(|| message.parsed_request_uri()) else { return targets };
        if !targets.iter().any(|target| is_named(target, &uri)) {
            return targets;
        }
        if message.method() == &Method::Register {
            targets.retain(|target| is_named(target, &uri));
        } else {
            targets.sort_by_key(|target| !is_named(target, &uri));
        }
        targets
    }

    /// A server has granted, extended or ended a registration: so does the appliance with the second one.
    pub(super) fn mind_second(&mut self, now: Instant, relay: &Relay) {
        let Some(pending) = &relay.register else { return };
        let dual = self.groups.settings(self.group_of_relay(relay)).map(|group| group.dual);
        if dual != Some(DualRegistration::Appliance) && self.seconds.by_token.is_empty() {
            return;
        }
        let mut tokens = pending.tokens();
        if pending.ends_all() {
            let gone = self.seconds.by_token.keys().filter(|token| self.registrar.binding(**token).is_none());
            tokens.extend(gone.copied());
        }
        for token in tokens {
            match self.seconds.by_token.get(&token) {
                // The phone has come to where its second registration was.
                Some(second) if second.target.address == relay.egress.address => self.seconds.forget(token),
                Some(second) => {
                    let left = self.registrar.binding(token).map(|binding| binding.expires - now);
                    let lasts = matches!((second.state, left), (State::Registered(until), Some(left))
                        if until.saturating_duration_since(now) > left / 2);
                    if lasts {
                        continue;
                    }
                }
                None => {}
            }
            self.renew_second(now, token, Some(relay.egress));
        }
    }

    /// Does what is due of second registrations.
    pub(super) fn tend_seconds(&mut self, now: Instant) {
        while let Some(token) = self.seconds.due.pop(now) {
            if let Some(second) = self.seconds.by_token.get_mut(&token) {
                second.due = None;
            }
            self.renew_second(now, token, None);
        }
    }

    /// Registers, refreshes or ends a binding's second registration. `first` is where the binding was granted just now.
    fn renew_second(&mut self, now: Instant, token: Token, first: Option<Hop>) {
        let binding = self.registrar.binding(token);
        let group = binding.map(|binding| self.group_of_aor(&binding.aor));
        let wanted = group
            .and_then(|group| self.groups.settings(group))
            .is_some_and(|group| group.dual == DualRegistration::Appliance);
        let Some(group) = group.filter(|_| wanted) else {
            // What nobody has ended runs out by itself: it was never asked for longer.
            let ended = first.is_some() || binding.is_some();
            return match self.seconds.by_token.get_mut(&token) {
                Some(second) if matches!(second.state, State::Registered(_)) && ended => {
                    second.state = State::Ending;
                    second.answered = 0;
                    self.send_second(now, token, None);
                }
                _ => self.seconds.forget(token),
            };
        };
        let Some((aor, contact)) = binding.map(|binding| (binding.aor.clone(), binding.contact.clone()))
        else {
            return;
        };
        let known = self.seconds.by_token.get(&token);
        let kept = known
            .filter(|known| matches!(known.state, State::Registered(_)))
            .map(|known| known.target.address);
        let avoided = first.map(|first| first.address).or(self.registrar.granted_by(token));
        let mut candidates = self.groups.candidates(now, group);
        candidates.retain(|target| target.rank == Rank::Equal && Some(target.address) != avoided);
        let found =
            candidates.iter().find(|target| Some(target.address) == kept).or(candidates.first()).cloned();
        let Some(target) = found else { return self.seconds.forget(token) };
        match self.seconds.by_token.get_mut(&token).filter(|known| known.target == target) {
            Some(known) => {
                (known.answered, known.aor, known.contact) = (0, aor, contact);
                // It was ended, and the phone is here again.
                if known.state == State::Ending {
                    known.state = State::Asked;
                }
            }
            None => {
                self.seconds.forget(token);
                let named =
                    [&b"second"[..], &token.to_be_bytes(), target.address.to_string().as_bytes()].concat();
                let call_id = format!("{:016x}", keyed_hash(self.settings.secret, &[&named]));
                let state = State::Asked;
                let second = Second {
                    target,
                    aor,
                    contact,
                    call_id,
                    // Another one with this server may have been there before, by the same Call-ID.
                    cseq: u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(0),
                    least: 0,
                    refusals: 0,
                    state,
                    answered: 0,
                    realm: Vec::new(),
                    due: None,
                };
                self.seconds.by_token.insert(token, second);
            }
        }
        self.send_second(now, token, None);
    }

    fn send_second(&mut self, now: Instant, token: Token, credentials: Option<(&str, &Message)>) {
        let binding = self.registrar.binding(token);
        let left = binding.map_or(0, |binding| binding.expires.saturating_duration_since(now).as_secs());
        let Some(second) = self.seconds.by_token.get(&token) else { return };
        let (aor, contact) = (second.aor.clone(), second.contact.clone());
        let (target, call_id, cseq) = (second.target.clone(), second.call_id.clone(), second.cseq + 1);
        let expires = match second.state {
            State::Ending => 0,
            State::Asked | State::Registered(_) => u32::try_from(left).unwrap_or(u32::MAX).max(second.least),
        };
        let hop = target.hop();
        let own = self.own(hop);
        let contact = Uri::parse(&contact).map(|uri| rewritten_contact(&uri, own, Some(token)));
        let texts = (std::str::from_utf8(&aor), contact.as_deref().map(std::str::from_utf8));
        let odd = |text: &str| {
            text.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>'))
        };
        let (Ok(aor), Some(Ok(contact))) = texts else { return self.seconds.forget(token) };
        if odd(aor) || odd(contact) {
            return self.seconds.forget(token);
        }
        let (client, branch) = self.transactions.reserve(0);
        let host = host_of(&target);
        let uri = format!("sip:{host}");
        let credentials = credentials.and_then(|(header, response)| {
            let answer = self.second_answer(aor, &uri, response, client)?;
            Some(format!("{header}: {answer}\r\n"))
        });
        let tag = keyed_hash(self.settings.secret, &[b"second", call_id.as_bytes()]);
        let text = format!(
            "REGISTER {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {address};branch={branch};rport{alias}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{aor}>;tag={tag:016x}\r\n\
             To: <sip:{aor}>\r\n\
             Call-ID: {call_id}@{address}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Contact: <{contact}>\r\n\
             Expires: {expires}\r\n\
             {credentials}\
             User-Agent: Branchline/{version}\r\n\
             Content-Length: 0\r\n\r\n",
            alias = self.alias(hop),
            transport = own.transport,
            address = own.address,
            credentials = credentials.unwrap_or_default(),
            version = env!("CARGO_PKG_VERSION"),
        );
        if let Some(second) = self.seconds.by_token.get_mut(&token) {
            second.cseq = cseq;
        }
        // One whose answer gets lost is not forgotten.
        self.seconds.at(token, now + AGAIN);
        self.seconds.under_way.insert(client, Asked { token, hop, cseq });
        self.transactions.send_request(now, client, branch, hop, &Method::Register, text.into());
    }

    /// The answer to a challenge, if there is an authentication entry for it.
    fn second_answer(&self, aor: &str, uri: &str, response: &Message, client: ClientId) -> Option<String> {
        let user = aor.rsplit_once('@').map_or(aor, |(user, _)| user);
        let credential = self.credentials.of(user.as_bytes())?;
        let challenge = second_challenge(response)?;
        let seed = client.number().to_be_bytes();
        let cnonce = format!("{:016x}", keyed_hash(self.settings.secret, &[b"cnonce", &seed]));
        let request = Request { method: b"REGISTER", uri: uri.as_bytes(), body: b"" };
        let secret = credential.secret_for(&challenge)?;
        String::from_utf8(challenge.answer(&request, &credential.user, &secret, &cnonce)).ok()
    }

    /// A response to a REGISTER of a second registration. Says whether it is one.
    pub(super) fn second_answered(&mut self, now: Instant, client: ClientId, message: &Message) -> bool {
        let Some(asked) = self.seconds.under_way.get(&client).copied() else { return false };
        let token = asked.token;
        let Some(second) = self.seconds.of(asked) else { return true };
        let (status, hop) = (message.status().unwrap_or_default(), second.target.hop());
        match status {
            ..200 => {}
            _ if second.state == State::Ending && !matches!(status, 401 | 407) => self.seconds.forget(token),
            200..300 => {
                let mine = format!("{token:016x}");
                let contact = message.addresses(HeaderName::Contact).find(|contact| {
                    let uri = contact.parsed_uri();
                    uri.is_some_and(|uri| {
                        uri.params.value(crate::registrar::TOKEN_PARAM) == Some(mine.as_bytes())
                    })
                });
                let granted = contact.and_then(|contact| contact.expires()).or(message.expires());
                let left = self.registrar.binding(token).map(|binding| binding.expires - now);
                let granted = granted.map(|granted| Duration::from_secs(granted.into())).or(left);
                let granted = granted.unwrap_or_default();
                second.state = State::Registered(now + granted);
                second.refusals = 0;
                let realm = std::mem::take(&mut second.realm);
                let user = second.aor.split(|byte| *byte == b'@').next().unwrap_or_default();
                let credential = self.credentials.of(user).filter(|_| second.answered > 0).cloned();
                second.answered = 0;
                if let Some(credential) = credential {
                    self.note_realm(&credential, &realm);
                }
                self.seconds.at(token, now + (granted / 2).max(SHORTEST_REFRESH));
                self.measure(Measure::SecondRegistration(SecondRegistration::Registered));
            }
            401 | 407 => {
                let challenge = second_challenge(message);
                let stale = challenge.as_ref().is_some_and(|challenge| challenge.stale);
                let again = second.answered == 0 || (stale && second.answered < MOST_ANSWERS);
                let user = second.aor.split(|byte| *byte == b'@').next().unwrap_or_default();
                let credential = self.credentials.of(user);
                let realm = challenge
                    .filter(|challenge| credential.is_some_and(|it| it.secret_for(challenge).is_some()));
                if again && let Some(challenge) = realm {
                    second.answered += 1;
                    second.realm = challenge.realm.to_vec();
                    let header = if status == 407 { "Proxy-Authorization" } else { "Authorization" };
                    self.send_second(now, token, Some((header, message)));
                    return true;
                }
                self.second_failed(now, token, SecondRegistration::Refused);
            }
            423 if second.least == 0 => {
                let header =
                    message.headers().find(|header| header.spelling.eq_ignore_ascii_case(b"Min-Expires"));
                /// A server that wants more is not obeyed.
                const MOST: u32 = 3600;
                let least = header.and_then(|header| scan::number(header.value)).unwrap_or(MOST);
                second.least = least.clamp(1, MOST);
                self.send_second(now, token, None);
            }
            503 => {
                self.out_of_reach(now, hop, &Failure::Status(status));
                self.second_failed(now, token, SecondRegistration::Refused);
            }
            _ => self.second_failed(now, token, SecondRegistration::Refused),
        }
        true
    }

    /// A REGISTER of a second registration was not answered. Says whether it is one.
    pub(super) fn second_unanswered(&mut self, now: Instant, client: ClientId) -> bool {
        let Some(asked) = self.seconds.under_way.get(&client).copied() else { return false };
        self.groups.failed(now, asked.hop, &Failure::Silent);
        if self.seconds.of(asked).is_some() {
            self.second_failed(now, asked.token, SecondRegistration::Unanswered);
        }
        true
    }

    fn second_failed(&mut self, now: Instant, token: Token, how: SecondRegistration) {
        self.measure(Measure::SecondRegistration(how));
        let Some(second) = self.seconds.by_token.get_mut(&token) else { return };
        if second.state == State::Ending {
            return self.seconds.forget(token);
        }
        second.state = State::Asked;
        second.refusals = second.refusals.saturating_add(1).min(MOST_DOUBLED);
        let wait = AGAIN * 2_u32.pow(second.refusals - 1);
        self.seconds.at(token, now + wait);
    }

    /// How many second registrations servers hold.
    #[must_use]
    pub fn second_registrations(&self) -> usize {
        let held = |second: &&Second| matches!(second.state, State::Registered(_));
        self.seconds.by_token.values().filter(held).count()
    }
}

/// The challenge in a response.
fn second_challenge(response: &Message) -> Option<Challenge<'_>> {
    let name = if response.status() == Some(407) {
        HeaderName::ProxyAuthenticate
    } else {
        HeaderName::WwwAuthenticate
    };
    let mut headers = response.headers().filter(|header| header.name == name);
    headers.find_map(|header| Challenge::parse(header.value))
}

/// Whether a URI names this server: by its name or its address, and by its port if it has one.
fn is_named(target: &Target, uri: &Uri<'_>) -> bool {
    let by_name =
        matches!(&target.server.host, Host::Name(name) if uri.host.eq_ignore_ascii_case(name.as_bytes()));
    let host = by_name || uri.ip() == Some(target.address.ip());
    let configured = target.server.port.unwrap_or(target.address.port());
    host && uri.port.is_none_or(|port| port == configured || port == target.address.port())
}
