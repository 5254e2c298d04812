//! Requests: whether they are let through, where they go, and what is rewritten in them.

use std::{borrow::Cow, net::SocketAddr, time::Instant};

use bytes::Bytes;

use super::{
    call::{Call, CallInfo, CallState, Dialog, Kind, MAX_DIALOGS, Party, Side, label},
    machine::{Proxy, Relay},
    measure::{DropReason, Measure, Outcome},
    settings::host_port,
};
use crate::{
    media::{MediaError, MediaRelay},
    net::{NetworkId, Role},
    registrar::{self, Refusal, replace_uri, rewritten_contact, user_agent},
    sip::{
        transaction::{Hop, ServerId, keyed_hash},
        wire::{self, Editor, HeaderName, Message, Method, Reply, Uri, Via},
    },
};

/// What a request without Max-Forwards gets (RFC 3261 16.6 step 3).
const DEFAULT_HOPS: u32 = 70;
/// How long a subscription made by REFER is kept without a NOTIFY.
const REFER_SECONDS: u64 = 300;

/// Where a request goes and what is changed for it.
#[derive(Debug)]
pub(super) struct Plan {
    egress: Hop,
    /// The new Request-URI.
    uri: Option<Vec<u8>>,
    /// How many Route values are ours.
    routes: usize,
    /// The dialog it is in: call, sender, callee's tag.
    dialog: Option<(u64, Party, Bytes)>,
}

/// Why a request is not relayed, and what its sender is told.
#[derive(Debug)]
pub(super) struct Refuse {
    status: u16,
    reason: Cow<'static, str>,
    headers: Vec<u8>,
    drop: DropReason,
}

impl Refuse {
    fn new(status: u16, drop: DropReason) -> Self {
        let reason = wire::default_reason(status).into();
        Self { status, reason, headers: Vec::new(), drop }
    }

    fn because(status: u16, drop: DropReason, reason: &'static str) -> Self {
        Self { reason: reason.into(), ..Self::new(status, drop) }
    }

    /// What the media room's refusal is in SIP. The Warning tells a person why (RFC 3261 20.43, code 399).
    fn of_media(error: &MediaError, agent: &str) -> Self {
        let (status, drop) = match error {
            MediaError::NoPorts { .. } => (503, DropReason::NoPorts),
            MediaError::Sdp(_) => (488, DropReason::SessionRefused),
            MediaError::Limit { .. } => (503, DropReason::Overload),
            MediaError::UnknownCall | MediaError::Datapath(_) => (500, DropReason::SessionRefused),
        };
        let text: String =
            error.to_string().chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
        let headers = format!("Warning: 399 {agent} \"{text}\"\r\n").into_bytes();
        let reason = match error {
            MediaError::NoPorts { .. } => "No Media Ports".into(),
            _ => wire::default_reason(status).into(),
        };
        Self { status, reason, headers, drop }
    }
}

impl Proxy {
    /// A request that is new: it is answered here or goes on.
    pub(super) fn relay_request(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: ServerId,
        hop: Hop,
        message: &Message,
    ) {
        if self.is_for_us(hop.network, message) {
            let tag = self.local_tag(message);
            return self.transactions.reply(now, server, &Reply::new(200, &tag));
        }
        let planned = self.admit(hop, message).and_then(|routes| self.plan(hop, message, routes));
        let done = planned.and_then(|plan| self.forward(now, media, server, hop, message, &plan));
        if let Err(refuse) = done {
            self.drop(refuse.drop);
            let tag = self.local_tag(message);
            let mut headers = refuse.headers;
            if refuse.status == 503 {
                headers.extend_from_slice(b"Retry-After: 5\r\n");
            }
            let reply = Reply {
                status: refuse.status,
                reason: &refuse.reason,
                to_tag: Some(&tag),
                headers: &headers,
            };
            self.transactions.reply(now, server, &reply);
        }
    }

    /// An ACK to a 2xx goes end to end, without a transaction.
    pub(super) fn relay_ack(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        hop: Hop,
        message: &Message,
    ) {
        let planned = self.admit(hop, message).and_then(|routes| self.plan(hop, message, routes));
        let plan = match planned {
            Ok(plan) => plan,
            Err(refuse) if refuse.drop == DropReason::NoDialog => {
                return self.drop(DropReason::AckWithoutDialog);
            }
            Err(refuse) => return self.drop(refuse.drop),
        };
        let mark = self.loop_mark(hop, message);
        let (_, branch) = self.transactions.reserve(mark);
        let mut editor = Editor::new(message);
        self.edit(&mut editor, hop, &plan, &branch);
        let dialog = plan.dialog.clone().map(|(number, party, tag)| (number, party, Some(tag)));
        match self.negotiate_request(now, media, hop, plan.egress, message, dialog.as_ref()) {
            Ok((_, Some(body))) => editor.body(&body),
            Ok((_, None)) => {}
            Err(_) => self.measure(Measure::MediaRefused),
        }
        self.transactions.send(plan.egress, editor.finish(), message.method());
    }

    /// Whether it is a question to the appliance itself: a server's probe.
    fn is_for_us(&self, network: NetworkId, message: &Message) -> bool {
        message.method() == &Method::Options
            && message.to_tag().is_none()
            && self.settings.network(network).is_some_and(|network| network.role == Role::Servers)
            && message
                .parsed_request_uri()
                .is_some_and(|uri| uri.user.is_none() && self.settings.is_ours(&uri))
    }

    /// The checks of RFC 3261 16.3. Returns how many Route values on top are ours (16.4).
    fn admit(&self, hop: Hop, message: &Message) -> Result<usize, Refuse> {
        if message.max_forwards() == Some(0) {
            return Err(Refuse::new(483, DropReason::TooManyHops));
        }
        let mark = self.loop_mark(hop, message);
        let mut vias = message.values(HeaderName::Via).filter_map(Via::parse);
        if vias.any(|via| via.branch().and_then(|b| self.transactions.loop_mark(b)) == Some(mark)) {
            return Err(Refuse::new(482, DropReason::Loop));
        }
        let mut unknown = message.values(HeaderName::ProxyRequire).peekable();
        if unknown.peek().is_some() && message.method() != &Method::Ack {
            let mut refuse = Refuse::new(420, DropReason::UnknownExtension);
            for extension in unknown {
                refuse.headers.extend_from_slice(b"Unsupported: ");
                refuse.headers.extend_from_slice(extension);
                refuse.headers.extend_from_slice(b"\r\n");
            }
            return Err(refuse);
        }
        let routes = message.addresses(HeaderName::Route);
        Ok(routes
            .take_while(|route| route.parsed_uri().is_some_and(|uri| self.settings.is_ours(&uri)))
            .count())
    }

    /// What makes a request the same one when it comes again (RFC 5393 4.2): a spiral has another Request-URI.
    fn loop_mark(&self, hop: Hop, message: &Message) -> u64 {
        keyed_hash(
            self.settings.secret,
            &[
                &hop.network.0.to_be_bytes(),
                message.request_uri(),
                message.from_tag(),
                message.to_tag().unwrap_or_default(),
                message.call_id(),
                &message.cseq().to_be_bytes(),
            ],
        )
    }

    /// Where a request goes.
    fn plan(&mut self, hop: Hop, message: &Message, routes: usize) -> Result<Plan, Refuse> {
        let found = self.find_dialog(hop, message);
        if let Some((number, party, dialog)) = found
            && let Some(plan) = self.plan_in_dialog(hop, message, routes, number, party, dialog)
        {
            return Ok(plan);
        }
        let needs_dialog = matches!(
            message.method(),
            Method::Ack | Method::Invite | Method::Update | Method::Prack | Method::Bye
        );
        if (message.to_tag().is_some() && needs_dialog) || message.method() == &Method::Ack {
            return Err(Refuse::new(481, DropReason::NoDialog));
        }
        let role = self.settings.network(hop.network).map_or(Role::Phones, |network| network.role);
        let uri = message.parsed_request_uri();
        if role == Role::Servers {
            let binding = uri.and_then(|uri| self.registrar.find(&uri));
            let Some(binding) = binding else {
                return Err(if message.to_tag().is_some() {
                    Refuse::new(481, DropReason::NoDialog)
                } else {
                    Refuse::new(404, DropReason::NoBinding)
                });
            };
            return Ok(Plan {
                egress: Hop { network: binding.network, address: binding.destination() },
                uri: Some(binding.contact.to_vec()),
                routes,
                dialog: None,
            });
        }
        let Some(address) = self.settings.upstream.servers.first().copied() else {
            return Err(Refuse::because(503, DropReason::NoDestination, "No Server"));
        };
        let uri = uri.filter(|uri| self.settings.is_ours(uri)).and_then(|uri| with_host(&uri, address));
        Ok(Plan {
            egress: Hop { network: self.settings.upstream.network, address },
            uri,
            routes,
            dialog: None,
        })
    }

    /// The dialog a request belongs to, by Call-ID, tags and the network it came on.
    fn find_dialog(&mut self, hop: Hop, message: &Message) -> Option<(u64, Party, usize)> {
        let to_tag = message.to_tag()?;
        let from_tag = message.from_tag();
        let numbers = self.by_call_id.get(message.call_id())?;
        for number in numbers.iter().rev() {
            let found = self.calls.get(number)?.sender(hop.network, from_tag, to_tag);
            if let Some((party, dialog)) = found {
                return Some((*number, party, dialog));
            }
        }
        // RFC 6665 4.4.1: a NOTIFY makes the dialog when it comes before the 200 to SUBSCRIBE.
        for number in numbers.iter().rev() {
            let call = self.calls.get_mut(number)?;
            let fits = call.kind == Kind::Subscription
                && message.method() == &Method::Notify
                && call.caller.tag == to_tag
                && call.info.to_network == hop.network
                && call.dialogs.len() < MAX_DIALOGS;
            if fits {
                call.dialogs.push(Dialog::new(Side::new(from_tag, hop.network, hop.address)));
                return Some((*number, Party::Callee, call.dialogs.len() - 1));
            }
        }
        None
    }

    fn plan_in_dialog(
        &mut self,
        hop: Hop,
        message: &Message,
        routes: usize,
        number: u64,
        party: Party,
        dialog: usize,
    ) -> Option<Plan> {
        let settings = &self.settings;
        let call = self.calls.get_mut(&number)?;
        if call.kind == Kind::Call && message.method() == &Method::Bye && call.is_live() {
            call.info.state = CallState::Ending;
        }
        let sender = call.side(party, dialog)?;
        sender.source = hop.address;
        if bears_target(message.method()) {
            sender.learn(message, settings);
        }
        let tag = call.dialogs.get(dialog)?.callee.tag.clone();
        let recipient = call.side(party.other(), dialog)?;
        let server_side =
            settings.network(recipient.network).is_some_and(|network| network.role == Role::Servers);
        let allowed = |address: &SocketAddr| {
            let ip = address.ip();
            ip == recipient.source.ip()
                || (server_side && (settings.trusts(ip) || recipient.routes.contains(&ip)))
        };
        let target = recipient.target.as_deref();
        let address = match message.addresses(HeaderName::Route).nth(routes) {
            Some(route) => route.parsed_uri().and_then(|uri| uri.socket()).filter(allowed),
            // What a server names as its Contact is where it wants requests; a phone's is checked.
            None if server_side => target.and_then(Uri::parse).and_then(|uri| uri.socket()),
            None => target.map(|target| registrar::destination(target, recipient.source)),
        };
        let ours = message.parsed_request_uri().is_some_and(|uri| settings.is_ours(&uri));
        let uri = target.filter(|_| ours).map(<[u8]>::to_vec);
        let egress = Hop { network: recipient.network, address: address.unwrap_or(recipient.source) };
        Some(Plan { egress, uri, routes, dialog: Some((number, party, tag)) })
    }

    /// The edits that every relayed request gets (RFC 3261 16.6).
    fn edit(&self, editor: &mut Editor<'_>, hop: Hop, plan: &Plan, branch: &str) {
        let message = editor.message();
        let own = self.advertised(plan.egress.network);
        editor.add_header("Via", format_args!("SIP/2.0/UDP {own};branch={branch};rport"));
        let forms_dialog = matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer);
        if forms_dialog && message.to_tag().is_none() {
            // RFC 5658: one entry for each side, so that each finds an address it can reach on top.
            let other = self.advertised(hop.network);
            editor.add_header("Record-Route", format_args!("<sip:{own};lr>"));
            editor.add_header("Record-Route", format_args!("<sip:{other};lr>"));
        }
        editor.stamp_via(hop.address);
        if let Some(uri) = &plan.uri {
            editor.request_uri(uri);
        }
        editor.drop_routes(plan.routes);
        editor.max_forwards(message.max_forwards().map_or(DEFAULT_HOPS, |hops| hops - 1));
        if bears_target(message.method()) {
            rewrite_contacts(editor, own);
        }
    }

    pub(super) fn advertised(&self, network: NetworkId) -> SocketAddr {
        self.settings
            .network(network)
            .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |network| network.advertised)
    }

    fn forward(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: ServerId,
        hop: Hop,
        message: &Message,
        plan: &Plan,
    ) -> Result<(), Refuse> {
        let method = message.method();
        let mark = self.loop_mark(hop, message);
        let (client, branch) = self.transactions.reserve(mark);
        let mut editor = Editor::new(message);
        self.edit(&mut editor, hop, plan, &branch);
        let mut register = None;
        if method == &Method::Register {
            let own = self.advertised(plan.egress.network);
            let pending = self.registrar.rewrite_request(&mut editor, hop.network, hop.address, own);
            register = Some(Box::new(pending.map_err(|refusal| refused_registration(&refusal))?));
        }
        let call = match &plan.dialog {
            Some((number, party, tag)) => Some((*number, *party, Some(tag.clone()))),
            None => {
                self.new_call(now, hop, plan.egress, message)?.map(|number| (number, Party::Caller, None))
            }
        };
        let negotiated = self.negotiate_request(now, media, hop, plan.egress, message, call.as_ref());
        let offered = match negotiated {
            Ok((offered, body)) => {
                if let Some(body) = body {
                    editor.body(&body);
                }
                offered
            }
            Err(error) => {
                let refuse = Refuse::of_media(&error, &self.advertised(hop.network).to_string());
                self.measure(Measure::MediaRefused);
                if let (Some((number, ..)), None) = (&call, &plan.dialog) {
                    let outcome =
                        if refuse.drop == DropReason::NoPorts { Outcome::NoPorts } else { Outcome::Declined };
                    self.finish_call(now, media, *number, outcome);
                }
                return Err(refuse);
            }
        };
        if let (Some((number, ..)), Method::Notify) = (&call, method) {
            self.notified(now, *number, message);
        }
        self.transactions.send_request(now, client, branch, plan.egress, method, editor.finish());
        let mut relay = Relay {
            server,
            method: method.clone(),
            ingress: hop,
            egress: plan.egress,
            from_tag: Bytes::copy_from_slice(message.from_tag()),
            call,
            offered,
            negotiated: None,
            successes: Vec::new(),
            register,
            started: now,
            cancelled: false,
            timer_c: None,
        };
        if method == &Method::Invite {
            let at = Some(now + self.settings.timer_c);
            self.timer_c.set(client, &mut relay.timer_c, at);
            self.invites.insert(server, client);
        }
        self.relays.insert(client, relay);
        Ok(())
    }

    /// The state for a request that may make a dialog; `None` for others.
    fn new_call(
        &mut self,
        now: Instant,
        hop: Hop,
        egress: Hop,
        message: &Message,
    ) -> Result<Option<u64>, Refuse> {
        let kind = match message.method() {
            Method::Invite => Kind::Call,
            Method::Subscribe | Method::Refer if message.to_tag().is_none() => Kind::Subscription,
            _ => return Ok(None),
        };
        if !self.has_room(kind) {
            return Err(Refuse::because(503, DropReason::Overload, "Too Many Calls"));
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
        let mut caller = Side::new(message.from_tag(), hop.network, hop.address);
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
        let number = self.add_call(Call {
            kind,
            info,
            caller,
            dialogs: Vec::new(),
            media: false,
            attempt_counted: false,
            forget: None,
        });
        if kind == Kind::Subscription {
            self.keep_subscription(now, number, REFER_SECONDS);
        }
        Ok(Some(number))
    }

    /// Keeps a subscription for its time and the time that its last messages need.
    pub(super) fn keep_subscription(&mut self, now: Instant, number: u64, seconds: u64) {
        /// A server's Expires is believed up to a day.
        const LONGEST: u64 = 86_400;
        if self.calls.get(&number).is_some_and(|call| call.kind == Kind::Subscription) {
            let linger = self.settings.timers.timeout();
            self.forget_at(number, now + std::time::Duration::from_secs(seconds.min(LONGEST)) + linger);
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
pub(super) fn rewrite_contacts(editor: &mut Editor<'_>, own: SocketAddr) {
    let message = editor.message();
    for contact in message.addresses(HeaderName::Contact) {
        if let Some(uri) = contact.parsed_uri().filter(Uri::is_sip) {
            replace_uri(editor, &contact, &rewritten_contact(&uri, own, None));
        }
    }
}

/// A URI with another host and port.
fn with_host(uri: &Uri<'_>, address: SocketAddr) -> Option<Vec<u8>> {
    let place = crate::splice::offset_in(uri.raw, uri.host_port)?;
    let (before, after) = (uri.raw.get(..place.start)?, uri.raw.get(place.end..)?);
    Some([before, host_port(address).as_bytes(), after].concat())
}

fn refused_registration(refusal: &Refusal) -> Refuse {
    let (status, reason) = match refusal {
        Refusal::Full => (503, "Too Many Registrations"),
        Refusal::TooManyContacts => (503, "Too Many Contacts"),
        Refusal::Contact => (400, "Malformed Contact Header"),
    };
    Refuse::because(status, DropReason::RegistrationRefused, reason)
}
