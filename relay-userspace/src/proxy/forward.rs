//! Requests on their way out: what is rewritten in them, and the state that is kept for their responses.
//!
//! RFC 3261 16.6, RFC 5658 (double Record-Route), RFC 6665 (how long subscriptions live).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    call::{Call, CallInfo, CallState, Kind, Party, Side, label},
    identity,
    machine::{Proxy, Relay},
    measure::{DropReason, Measure, Outcome, SurvivalCall},
    request::{Plan, Refuse},
    ways::WayKind,
};
use crate::{
    media::MediaRelay,
    registrar::{Own, Pending, Refusal, replace_uri, rewritten_contact, user_agent},
    sdp,
    sip::{
        transaction::{ClientId, Fallback, Hop, ServerId},
        wire::{self, Editor, HeaderName, Message, Method, Uri, multipart},
    },
};

/// What a request without Max-Forwards gets (RFC 3261 16.6 step 3).
const DEFAULT_HOPS: u32 = 70;
/// How long a subscription made by REFER is kept without a NOTIFY.
const REFER_SECONDS: u64 = 300;

/// What a request wears on its way out besides what every request does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dress<'a> {
    /// Another body.
    pub(super) body: Option<&'a [u8]>,
    /// Further headers.
    pub(super) lines: &'a [(&'static str, String)],
}

impl Proxy {
    /// The edits that every relayed request gets (RFC 3261 16.6).
    pub(super) fn edit(&self, editor: &mut Editor<'_>, hop: Hop, plan: &Plan, way: Hop, branch: &str) {
        let message = editor.message();
        let own = self.own(way);
        let transport = way.transport;
        let alias = self.alias(way);
        editor.add_header(
            "Via",
            format_args!("SIP/2.0/{transport} {};branch={branch};rport{alias}", own.address),
        );
        let forms_dialog = matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer);
        if forms_dialog && message.to_tag().is_none() {
            // RFC 5658: one entry for each side, so that each finds an address it can reach on top.
            for end in [own, self.own(hop)] {
                editor.add_header("Record-Route", format_args!("<sip:{};lr>", end.uri()));
            }
        }
        editor.stamp_via(hop.address);
        if let Some(uri) = &plan.uri {
            editor.request_uri(uri);
        }
        editor.drop_routes(plan.routes);
        editor.max_forwards(message.max_forwards().map_or(DEFAULT_HOPS, |hops| hops - 1));
        self.guard_request(editor, hop.network, way.network, plan, own);
        if bears_target(message.method()) {
            rewrite_contacts(editor, own);
        }
    }

    /// How the peer at a hop is told to reach the appliance.
    pub(super) fn own(&self, hop: Hop) -> Own {
        let network = self.settings.network(hop.network);
        let address = network.map(|network| network.advertised(hop.transport));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Own { address: address.unwrap_or(nowhere), transport: hop.transport }
    }

    pub(super) fn forward(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: ServerId,
        hop: Hop,
        message: &Message,
        plan: &Plan,
    ) -> Result<(), Refuse> {
        let method = message.method();
        self.check_privacy(message, hop.network, plan.egress.network)?;
        let mark = self.loop_mark(hop, message);
        let (client, branch) = self.transactions.reserve(mark);
        let with_next = self.next_answer(now, (server, client), hop, message, plan);
        let plan = with_next.as_ref().unwrap_or(plan);
        let call = match &plan.dialog {
            Some((number, party, tag)) => Some((*number, *party, Some(tag.clone()))),
            None if plan.standing.is_some() => plan.standing.clone(),
            None => {
                self.new_call(now, server, hop, plan, message)?.map(|number| (number, Party::Caller, None))
            }
        };
        let lent = self.lend(plan.egress, message, call.as_ref());
        let lent = match (&lent, &call) {
            (Some(lent), Some((number, party, tag))) => {
                let call = (*number, *party, tag.as_ref());
                self.offer_lent(now, media, (hop, plan.egress), message, call, lent)
            }
            _ => Ok(None),
        };
        let is_lent = matches!(lent, Ok(Some(_)));
        let negotiated = match lent {
            Ok(Some(lent)) => Ok((true, Some(lent))),
            Ok(None) => self.negotiate_request(now, media, hop, plan.egress, message, call.as_ref()),
            Err(error) => Err(error),
        };
        let (offered, body) = match negotiated {
            Ok(negotiated) => negotiated,
            Err(error) => {
                let refuse = Refuse::of_media(&error, &self.own(hop).address.to_string());
                self.measure(Measure::MediaRefused);
                if let (Some((number, ..)), None) = (&call, &plan.dialog) {
                    let outcome = match refuse.drop {
                        DropReason::NoPorts => Outcome::NoPorts,
                        DropReason::NoDescriptors => Outcome::NoDescriptors,
                        _ => Outcome::Declined,
                    };
                    self.finish_call(now, media, *number, outcome);
                }
                return Err(refuse);
            }
        };
        if let (Some((number, ..)), Method::Notify) = (&call, method) {
            self.notified(now, *number, message);
        }
        if let (Some((_, Party::Caller, None)), Some((kind, _))) = (&call, &plan.others)
            && self.groups.alone_since(self.group_of(hop, message)).is_some()
        {
            match kind {
                WayKind::Server | WayKind::Lesser | WayKind::Plan | WayKind::Elsewhere => {}
                WayKind::Phone => self.measure(Measure::SurvivalCall(SurvivalCall::Phone)),
                WayKind::Trunk => self.measure(Measure::SurvivalCall(SurvivalCall::Trunk)),
            }
        }
        let mut lines = call
            .as_ref()
            .map_or_else(Vec::new, |(number, party, _)| self.timer_lines(*number, *party, message));
        if is_lent {
            lines.push(("Content-Type", "application/sdp".to_owned()));
        }
        let dress = Dress { body: body.as_deref(), lines: &lines };
        self.note_sent(now, hop, message, call.as_ref());
        let (mut payload, mut register) =
            self.compose(now, hop, message, plan, plan.egress, &branch, dress)?;
        let way = self.way(now, plan.egress, payload.len());
        let mut fallback = None;
        if way != plan.egress {
            let (large, pending) = self.compose(now, hop, message, plan, way, &branch, dress)?;
            fallback = Some(Fallback { hop: plan.egress, payload: std::mem::replace(&mut payload, large) });
            register = pending;
            self.measure(Measure::Large(way.transport));
        }
        let large = fallback.is_some();
        self.transactions.send_request_or(now, client, branch, way, method, payload, fallback);
        if let Some(patience) = plan.patience {
            self.transactions.wait_at_most(now, client, patience);
        }
        let relay = Relay {
            server,
            method: method.clone(),
            ingress: hop,
            egress: plan.egress,
            large,
            from_tag: Bytes::copy_from_slice(message.from_tag()),
            call,
            offered,
            lent: is_lent,
            negotiated: None,
            successes: Vec::new(),
            register,
            started: now,
            cancelled: false,
            others: plan.others.clone(),
            uri: plan.uri.clone(),
            routes: plan.routes,
            answered: plan.answer.as_ref().map_or(0, |answer| answer.times),
            answer: plan.answer.clone(),
            redirected: plan.redirected,
            least_timer: plan.least_timer,
            superseded: false,
            timer_c: None,
        };
        self.fork(now, message, &relay, &plan.forks, dress);
        self.under_way(now, client, relay);
        Ok(())
    }

    /// Notes the number that a request in a call goes out with.
    fn note_sent(
        &mut self,
        now: Instant,
        hop: Hop,
        message: &Message,
        call: Option<&(u64, Party, Option<Bytes>)>,
    ) {
        let Some((number, party, tag)) = call else { return };
        let sent = self.offsets.outward(now, hop.network, message);
        let Some(call) = self.calls.get_mut(number) else { return };
        if message.method() == &Method::Invite
            && let Some(conversing) = call.conversing.as_deref_mut()
        {
            conversing.owes = None;
        }
        let side = match (party, tag) {
            (Party::Caller, _) => Some(&mut call.caller),
            (Party::Callee, Some(tag)) => call.dialog(tag).map(|dialog| &mut dialog.callee),
            (Party::Callee, None) => None,
        };
        if let Some(side) = side {
            side.sent = side.sent.max(sent);
            if message.method() == &Method::Invite {
                side.invited = Some(message.cseq());
            }
        }
    }

    /// Sends a request to further places at the same time, each on a branch of its own.
    fn fork(
        &mut self,
        now: Instant,
        message: &Message,
        first: &Relay,
        forks: &[(Hop, Vec<u8>)],
        dress: Dress<'_>,
    ) {
        for (egress, uri) in forks {
            let mark = self.loop_mark(first.ingress, message);
            let (client, branch) = self.transactions.reserve(mark);
            let plan = Plan { uri: Some(uri.clone()), ..Plan::to(*egress, first.routes) };
            // Nothing of an INVITE is refused here.
            let Ok((payload, _)) = self.compose(now, first.ingress, message, &plan, *egress, &branch, dress)
            else {
                continue;
            };
            self.transactions.send_request(now, client, branch, *egress, message.method(), payload);
            let relay = Relay {
                server: first.server,
                method: first.method.clone(),
                ingress: first.ingress,
                egress: *egress,
                large: false,
                from_tag: first.from_tag.clone(),
                call: first.call.clone(),
                offered: first.offered,
                lent: first.lent,
                negotiated: None,
                successes: Vec::new(),
                register: None,
                started: now,
                cancelled: false,
                others: first.others.clone(),
                uri: plan.uri,
                routes: first.routes,
                answered: 0,
                answer: None,
                redirected: 0,
                least_timer: first.least_timer,
                superseded: false,
                timer_c: None,
            };
            self.under_way(now, client, relay);
        }
    }

    /// A request has left: an INVITE may ring for so long, and can be cancelled.
    fn under_way(&mut self, now: Instant, client: ClientId, mut relay: Relay) {
        if relay.method == Method::Invite {
            let at = Some(now + self.settings.timer_c);
            self.timer_c.set(client, &mut relay.timer_c, at);
            self.forks.entry(relay.server).or_default().begin(client);
        }
        self.relays.insert(client, Box::new(relay));
    }

    /// A request as it goes by a way, and for a REGISTER what its response is held against.
    #[expect(clippy::too_many_arguments, reason = "one for each thing that it is made of")]
    pub(super) fn compose(
        &mut self,
        now: Instant,
        hop: Hop,
        message: &Message,
        plan: &Plan,
        way: Hop,
        branch: &str,
        dress: Dress<'_>,
    ) -> Result<(Bytes, Option<Box<Pending>>), Refuse> {
        let mut editor = Editor::new(message);
        self.edit(&mut editor, hop, plan, way, branch);
        self.number_outward(now, hop.network, &mut editor);
        let mut register = None;
        if message.method() == &Method::Register {
            // Whatever the way: a refresh that is smaller must not look like the registration of another contact.
            let own = self.own(plan.egress);
            let pending = self.registrar.rewrite_request(&mut editor, hop, own);
            let mut pending = pending.map_err(|refusal| refused_registration(&refusal))?;
            pending.goes_to(plan.egress.address);
            register = Some(Box::new(pending));
        }
        if let Some(answer) = &plan.answer {
            let uri = plan.uri.as_deref().unwrap_or(message.request_uri());
            answer.write(&mut editor, uri, dress.body.unwrap_or(message.body()));
        } else if self.challenges(hop) {
            self.keep_own_answers(&mut editor);
        }
        for (name, value) in dress.lines {
            editor.add_header(name, format_args!("{value}"));
        }
        if let Some(body) = dress.body {
            editor.body(body);
            if body.is_empty() {
                let kind = message.headers().filter(|header| header.name == HeaderName::ContentType);
                kind.for_each(|header| editor.replace(header.line, b""));
            }
        }
        if self.faces.is_empty() {
            return Ok((editor.finish(), register));
        }
        let dialog = plan.dialog.as_ref().map(|(number, party, _)| (*number, party.other()));
        let standing = plan.standing.as_ref().map(|(number, party, _)| (*number, party.other()));
        let Some((number, toward)) = dialog.or(standing) else { return Ok((editor.finish(), register)) };
        for route in self.face_routes(number, toward) {
            editor.append_header("Route", format_args!("{route}"));
        }
        Ok((self.face_request(number, toward, editor.finish()), register))
    }

    /// The state for a request that may make a dialog; `None` for others.
    fn new_call(
        &mut self,
        now: Instant,
        server: ServerId,
        hop: Hop,
        plan: &Plan,
        message: &Message,
    ) -> Result<Option<u64>, Refuse> {
        let egress = plan.egress;
        let kind = match message.method() {
            Method::Invite => Kind::Call,
            Method::Subscribe | Method::Refer if message.to_tag().is_none() => Kind::Subscription,
            _ => return Ok(None),
        };
        let emergency = kind == Kind::Call && self.is_emergency(message);
        if !(emergency || self.has_room(kind)) {
            return Err(Refuse::because(503, DropReason::Overload, "Too Many Calls"));
        }
        if kind == Kind::Call {
            self.admit_call(hop, egress, message)?;
        }
        let call_id = message.call_id_bytes();
        // The same call may pass twice, when a server sends a phone's call to another phone of the same office.
        let again = self.by_call_id.get(&call_id).is_some_and(|numbers| {
            numbers.iter().any(|n| self.calls.get(n).is_some_and(|call| call.media && call.is_live()))
        });
        let media_key = if again {
            let network = hop.network.0.to_string();
            [&call_id, &b"\0"[..], network.as_bytes(), b"\0", message.from_tag()].concat().into()
        } else {
            call_id.clone()
        };
        let mut caller = Side::new(message.from_tag(), hop);
        caller.learn(message, &self.settings);
        let info = CallInfo {
            call_id,
            media_key,
            from: label(message.from_value()),
            to: label(message.to_value()),
            from_network: hop.network,
            to_network: egress.network,
            from_agent: user_agent(message),
            to_agent: None,
            state: CallState::Trying,
            started: now,
            answered: None,
            ended: None,
            outcome: None,
        };
        let anonymous = self.goes_anonymously(message, hop.network, egress.network);
        let anonymous = anonymous.then(|| Box::new(identity::remembered(message)));
        let conversing = (kind == Kind::Call)
            .then(|| self.conversing(server, (hop, egress), message, plan.least_timer))
            .flatten();
        if let Some(conversing) = &conversing
            && let Some(refuse) = Self::refuses_timer(conversing, Party::Caller, message)
        {
            return Err(refuse);
        }
        let number = self.add_call(Call {
            kind,
            info,
            caller,
            // Few fork.
            dialogs: Vec::with_capacity(1),
            anonymous,
            media: false,
            attempt_counted: false,
            share: None,
            conversing,
            forget: None,
        });
        if kind == Kind::Subscription {
            self.keep_subscription(now, number, REFER_SECONDS);
        }
        Ok(Some(number))
    }

    /// Whether both networks have room for a call.
    fn admit_call(&self, hop: Hop, egress: Hop, message: &Message) -> Result<(), Refuse> {
        if self.is_emergency(message) {
            return Ok(());
        }
        let kbps = multipart::sdp_range(message)
            .and_then(|range| message.body().get(range))
            .and_then(|sdp| sdp::Session::parse(sdp).ok())
            .map_or(0, |session| session.bandwidth_kbps(sdp::Of::Offer));
        self.admission.admits([hop.network, egress.network], kbps).map_err(|full| {
            let network = self.settings.network(full.network);
            let name = network.map_or_else(|| full.network.to_string(), |network| network.name.clone());
            let of = |most: Option<u32>| most.map_or_else(String::new, |most| format!(" of {most}"));
            let mut refuse = Refuse::because(503, DropReason::NetworkFull, "Network Full");
            let text = format!(
                "network {name} has {}{} calls with {}{} kbit/s, and no room for {kbps} more",
                full.load.calls,
                of(full.capacity.calls),
                full.load.kbps,
                of(full.capacity.kbps),
            );
            refuse.warn(&self.own(hop).address.to_string(), &text);
            refuse
        })
    }

    /// Keeps a subscription for its time and the time that its last messages need.
    pub(super) fn keep_subscription(&mut self, now: Instant, number: u64, seconds: u64) {
        /// A server's Expires is believed up to a day.
        const LONGEST: u64 = 86_400;
        if self.calls.get(&number).is_some_and(|call| call.kind == Kind::Subscription) {
            let linger = self.settings.timers.timeout();
            self.forget_at(number, now + Duration::from_secs(seconds.min(LONGEST)) + linger);
            self.touch(number);
        }
    }

    /// A NOTIFY says how long its subscription lives (RFC 6665 4.1.3).
    fn notified(&mut self, now: Instant, number: u64, message: &Message) {
        let Some(header) = message.header(HeaderName::SubscriptionState) else { return };
        let end = header.value.iter().position(|byte| *byte == b';').unwrap_or(header.value.len());
        let Some((state, params)) = header.value.split_at_checked(end) else { return };
        if wire::scan::trim(state).eq_ignore_ascii_case(b"terminated") {
            self.keep_subscription(now, number, 0);
        } else if let Some(seconds) = wire::Params(params).value("expires").and_then(wire::scan::number) {
            self.keep_subscription(now, number, seconds.into());
        }
    }
}

/// Whether a message of this method names its sender's remote target in Contact (RFC 3261 12, 6665, 3311).
pub(super) fn bears_target(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

/// Puts the appliance's address into every SIP Contact.
pub(super) fn rewrite_contacts(editor: &mut Editor<'_>, own: Own) {
    let message = editor.message();
    for contact in message.addresses(HeaderName::Contact) {
        if let Some(uri) = contact.parsed_uri().filter(Uri::is_sip) {
            replace_uri(editor, &contact, &rewritten_contact(&uri, own, None));
        }
    }
}

pub(super) fn refused_registration(refusal: &Refusal) -> Refuse {
    let (status, reason) = match refusal {
        Refusal::Full => (503, "Too Many Registrations"),
        Refusal::TooManyContacts => (503, "Too Many Contacts"),
        Refusal::Contact => (400, "Malformed Contact Header"),
    };
    Refuse::because(status, DropReason::RegistrationRefused, reason)
}
