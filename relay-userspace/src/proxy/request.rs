//! Requests: whether they are let through, and where they go.
//!
//! RFC 3261 16.3 to 16.5, RFC 5393 (loops). A request goes to the servers, to a registered phone or along a dialog.

use std::{
    borrow::Cow,
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    alone::Tried,
    call::{CallState, Dialog, Kind, MAX_DIALOGS, Party, Side},
    credentials::Answering,
    failover::to_phone,
    forward::{Dress, bears_target},
    machine::Proxy,
    measure::{DropReason, Measure},
    ways::{Way, WayKind},
};
use crate::{
    media::{MediaError, MediaRelay},
    net::{NetworkId, Role},
    registrar,
    sip::{
        transaction::{Hop, ServerId, keyed_hash},
        wire::{self, HeaderName, Message, Method, NameAddr, Reply, Via},
    },
};

/// Where a request goes and what is changed for it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) egress: Hop,
    /// The new Request-URI.
    pub(super) uri: Option<Vec<u8>>,
    /// How many Route values are ours.
    pub(super) routes: usize,
    /// The dialog it is in: call, sender, callee's tag.
    pub(super) dialog: Option<(u64, Party, Bytes)>,
    /// What kind of way it goes, and those that may be tried next; `None` when there was nothing to choose.
    pub(super) others: Option<(WayKind, VecDeque<Way>)>,
    /// How long it is waited for an answer at all; `None`: as long as the network's timers say.
    pub(super) patience: Option<Duration>,
    /// Where else it goes at the same time, with the Request-URI there.
    pub(super) forks: Vec<(Hop, Vec<u8>)>,
    /// How often a server has redirected it.
    pub(super) redirected: u8,
    /// The challenge that it answers.
    pub(super) answer: Option<Box<Answering>>,
    /// The call that it is in already, when it is sent once more.
    pub(super) standing: Option<(u64, Party, Option<Bytes>)>,
    /// The least session timer that its recipient takes, in seconds; 0 if it has said nothing.
    pub(super) least_timer: u32,
}

impl Plan {
    /// To one place, without a choice.
    pub(super) fn to(egress: Hop, routes: usize) -> Self {
        Self {
            egress,
            uri: None,
            routes,
            dialog: None,
            others: None,
            patience: None,
            forks: Vec::new(),
            redirected: 0,
            answer: None,
            standing: None,
            least_timer: 0,
        }
    }
}

/// Why a request is not relayed, and what its sender is told.
#[derive(Debug)]
pub(super) struct Refuse {
    status: u16,
    reason: Cow<'static, str>,
    headers: Vec<u8>,
    pub(super) drop: DropReason,
}

impl Refuse {
    pub(super) fn new(status: u16, drop: DropReason) -> Self {
        let reason = wire::default_reason(status).into();
        Self { status, reason, headers: Vec::new(), drop }
    }

    pub(super) fn because(status: u16, drop: DropReason, reason: &'static str) -> Self {
        Self { reason: reason.into(), ..Self::new(status, drop) }
    }

    /// A further header line, with its end.
    pub(super) fn add(&mut self, line: &str) {
        self.headers.extend_from_slice(line.as_bytes());
    }

    /// Tells a person why (RFC 3261 20.43, code 399).
    pub(super) fn warn(&mut self, agent: &str, text: &str) {
        let text: String = text.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
        self.headers.extend_from_slice(format!("Warning: 399 {agent} \"{text}\"\r\n").as_bytes());
    }

    /// What the media room's refusal is in SIP. The Warning tells a person why (RFC 3261 20.43, code 399).
    pub(super) fn of_media(error: &MediaError, agent: &str) -> Self {
        let (status, drop) = match error {
            MediaError::NoPorts { .. } => (503, DropReason::NoPorts),
            MediaError::NoDescriptors { .. } => (503, DropReason::NoDescriptors),
            MediaError::Sdp(_) | MediaError::Srtp(_) => (488, DropReason::SessionRefused),
            MediaError::Limit { .. } => (503, DropReason::Overload),
            MediaError::UnknownCall | MediaError::Datapath(_) => (500, DropReason::SessionRefused),
        };
        let reason = match error {
            MediaError::NoPorts { .. } => "No Media Ports".into(),
            MediaError::NoDescriptors { .. } => "No Media Sockets".into(),
            _ => wire::default_reason(status).into(),
        };
        let mut refuse = Self { status, reason, headers: Vec::new(), drop };
        refuse.warn(agent, &error.to_string());
        refuse
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
        if self.has_to_prove(now, server, hop, message)
            || self.registers_here(now, server, hop, message, Tried::NotYet)
        {
            return;
        }
        if self.attends(now, media, server, hop, message) {
            return;
        }
        let planned = self.admit(hop, message).and_then(|routes| self.plan(now, hop, message, routes));
        let done = planned.and_then(|plan| self.forward(now, media, server, hop, message, &plan));
        if let Err(refuse) = done {
            self.refuse(now, server, message, refuse);
        }
    }

    /// Answers a request that is not relayed.
    pub(super) fn refuse(&mut self, now: Instant, server: ServerId, message: &Message, refuse: Refuse) {
        self.drop(refuse.drop);
        let tag = self.local_tag(message);
        let mut headers = refuse.headers;
        if refuse.status == 503 {
            headers.extend_from_slice(b"Retry-After: 5\r\n");
        }
        let reply =
            Reply { status: refuse.status, reason: &refuse.reason, to_tag: Some(&tag), headers: &headers };
        self.transactions.reply(now, server, &reply);
    }

    /// An ACK to a 2xx goes end to end, without a transaction.
    pub(super) fn relay_ack(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        hop: Hop,
        message: &Message,
    ) {
        let planned = self.admit(hop, message).and_then(|routes| self.plan(now, hop, message, routes));
        let plan = match planned {
            Ok(plan) => plan,
            Err(refuse) if refuse.drop == DropReason::NoDialog => {
                return self.drop(DropReason::AckWithoutDialog);
            }
            Err(refuse) => return self.drop(refuse.drop),
        };
        let mark = self.loop_mark(hop, message);
        let (_, branch) = self.transactions.reserve(mark);
        let dialog = plan.dialog.clone().map(|(number, party, tag)| (number, party, Some(tag)));
        let body = match self.negotiate_request(now, media, hop, plan.egress, message, dialog.as_ref()) {
            Ok((_, body)) => body,
            Err(_) => {
                self.measure(Measure::MediaRefused);
                None
            }
        };
        let dress = Dress { body: body.as_deref(), lines: &[] };
        let composed = self.compose(now, hop, message, &plan, plan.egress, &branch, dress);
        let Ok((mut payload, _)) = composed else { return };
        let way = self.way_of_ack(now, plan.egress, payload.len());
        if way != plan.egress
            && let Ok((large, _)) = self.compose(now, hop, message, &plan, way, &branch, dress)
        {
            payload = large;
            self.measure(Measure::Large(way.transport));
        }
        self.transactions.send(way, payload, message.method());
    }

    /// Whether it is a question to the appliance itself: a server's probe.
    fn is_for_us(&self, network: NetworkId, message: &Message) -> bool {
        message.method() == &Method::Options
            && message.to_tag().is_none()
            && self.settings.network(network).is_some_and(|network| network.role != Role::Phones)
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
    pub(super) fn loop_mark(&self, hop: Hop, message: &Message) -> u64 {
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
    fn plan(&mut self, now: Instant, hop: Hop, message: &Message, routes: usize) -> Result<Plan, Refuse> {
        let found = self.find_dialog(hop, message);
        if let Some((number, party, _)) = found {
            self.take_part(number, party, message)?;
        }
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
        if role == Role::Servers {
            let binding = message.parsed_request_uri().and_then(|uri| self.registrar.find(&uri));
            let Some(binding) = binding else {
                return Err(if message.to_tag().is_some() {
                    Refuse::new(481, DropReason::NoDialog)
                } else {
                    Refuse::new(404, DropReason::NoBinding)
                });
            };
            let plan = to_phone(binding, routes);
            self.learn_number(message, &binding.aor.clone());
            return Ok(plan);
        }
        self.plan_outside(now, hop, role, message, routes)
    }

    /// A server calls a phone by this number: so may the office, when it is on its own.
    fn learn_number(&mut self, message: &Message, aor: &Bytes) {
        if message.method() == &Method::Invite
            && let Some(to) = NameAddr::parse(message.to_value()).and_then(|to| to.parsed_uri())
            && let Some(number) = to.user.and_then(registrar::number_of)
        {
            self.registrar.learn(aor, number.as_str(), registrar::Told::ByCaller);
        }
    }

    /// The dialog a request belongs to, by Call-ID, tags and the network it came on.
    pub(super) fn find_dialog(&mut self, hop: Hop, message: &Message) -> Option<(u64, Party, usize)> {
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
                call.dialogs.push(Dialog::new(Side::new(from_tag, hop)));
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
        sender.heard(hop);
        if bears_target(message.method()) {
            sender.learn(message, settings);
        }
        let tag = call.dialogs.get(dialog)?.callee.tag.clone();
        let (recipient, _) = self.calls.get(&number)?.sides(party.other(), &tag)?;
        let ours = message.parsed_request_uri().is_some_and(|uri| settings.is_ours(&uri));
        let route = message.addresses(HeaderName::Route).nth(routes);
        let egress = match route {
            // A route that cannot be followed leads to where the side was heard last.
            Some(route) => match route.parsed_uri() {
                Some(uri) => self.hop_toward(recipient, Some(&uri)),
                None => recipient.source,
            },
            None => {
                let route = self.face_routes(number, party.other()).first();
                let route = route.and_then(|route| NameAddr::parse(route.as_bytes()));
                let uri = route.and_then(|route| route.parsed_uri());
                self.hop_toward(recipient, uri.as_ref())
            }
        };
        let uri = recipient.target.as_ref().filter(|_| ours).map(|target| target.to_vec());
        self.touch(number);
        let dialog = Some((number, party, tag));
        Some(Plan { uri, dialog, ..Plan::to(egress, routes) })
    }
}
