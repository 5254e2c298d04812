//! Calls in which the appliance has something to say itself, because a peer is configured to get what the other side does
//! not send: session timers, offers, transfers.
//!
//! Such a call is still one dialog from end to end: Call-ID and tags pass. What the appliance says in it, it says in the
//! name of the other party, under the next number that party would have used; from then on that party's numbers are raised
//! on their way out, and taken back on the way home (`credentials::Offsets`, RFC 3261 section 12.2.1.1). For each side is
//! kept what such a request needs: name, route set, the last description it sent, what it supports.
//!
//! Invariants: of calls whose peers are configured for nothing, nothing is kept here, and their messages pass byte for
//! byte. At any time one offer of the appliance's own is under way in a call, and none while one of the parties' is.

mod credentials;
pub(super) mod face;
pub(super) mod kept;
mod listen;
mod offers;
pub(super) mod origin;
pub(super) mod speak;
pub(super) mod timers;
pub(super) mod transfer;

use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::{face::Face, origin::Origin, timers::Clock, transfer::Transfer};
use super::{
    call::{Call, Kind, Party},
    identity,
    machine::{Proxy, Relay},
    measure::DropReason,
    request::Refuse,
};
use crate::{
    config::{Conversions, DelayedOffers, ReferStyle},
    sip::{
        Hop,
        transaction::{ClientId, ServerId},
        wire::{HeaderName, Message, Method, scan},
    },
};

/// Routes of one side that are kept.
const MOST_ROUTES: usize = 8;

/// What is kept of one side of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Voice {
    /// What stands for it in From or To, its tag included.
    pub(super) name: String,
    /// What it does not want to be told of it (RFC 3323).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) privacy: Option<String>,
    /// The route set toward it, without the appliance itself.
    pub(super) routes: Vec<String>,
    /// The last session description that it sent, as it came.
    pub(super) said: Option<String>,
    /// Whether it takes UPDATE.
    pub(super) update: bool,
    /// Whether it keeps session timers (RFC 4028).
    pub(super) timer: bool,
    /// What becomes of a REFER that goes to it.
    pub(super) refer: ReferStyle,
    /// What becomes of an INVITE without a description that goes to it.
    pub(super) delayed_offers: DelayedOffers,
    /// Seconds of the session timer that is kept with it.
    pub(super) seconds: u32,
}

impl Voice {
    fn new(conversions: &Conversions) -> Self {
        Self {
            refer: conversions.refer,
            delayed_offers: conversions.delayed_offers,
            seconds: conversions.session_timer_seconds,
            ..Self::default()
        }
    }

    /// Takes what a message of this side says of what it supports.
    pub(super) fn learn(&mut self, message: &Message) {
        self.timer = timers::is_supported(message);
        let is_allow = |spelling: &[u8]| spelling.eq_ignore_ascii_case(b"allow");
        let mut allow = message.headers().filter(|header| is_allow(header.spelling)).peekable();
        // One that says nothing has said it before.
        if allow.peek().is_some() {
            self.update =
                allow.flat_map(|header| scan::split_commas(header.value)).any(|method| method == b"UPDATE");
        }
    }
}

/// What is kept of a call in which the appliance may have to speak.
#[derive(Debug, Default)]
pub(super) struct Conversing {
    /// Of the caller and of the callee.
    voices: [Voice; 2],
    /// The callee's tag in the dialog that was answered; there alone the appliance speaks.
    pub(super) tag: Option<Bytes>,
    /// What the caller and the callee were told of each other's sessions.
    origins: [Option<Origin>; 2],
    /// The session timers that are kept with the caller and with the callee.
    clocks: [Option<Clock>; 2],
    /// The least interval that was asked for by 422.
    pub(super) least: u32,
    /// Who owes the answer to an offer that was made of the other's answer.
    pub(super) owes: Option<Party>,
    /// An offer of the appliance's own that is under way.
    pub(super) pending: Option<ClientId>,
    /// To whom a description has to be told, and when.
    pub(super) tell: Option<(Instant, Party, speak::Purpose)>,
    /// The dialog by which the caller knows the call, where that is another one.
    pub(super) face: Option<Face>,
    /// It is the call to the target of a transfer: its caller is the appliance, as long as nobody is joined to it.
    pub(super) within: bool,
    /// A transfer that is under way.
    pub(super) transfer: Option<Box<Transfer>>,
    /// The party whose leg is over: the other one was transferred.
    pub(super) parted: Option<Party>,
    /// When that party is told so, if it does not hang up itself.
    pub(super) leave: Option<(Instant, Party)>,
    /// The number of the INVITE that came from within, for its ACK.
    pub(super) invited: Option<u32>,
    /// When something is due.
    pub(super) due: Option<Instant>,
}

impl Conversing {
    pub(super) fn voice(&self, party: Party) -> &Voice {
        let [caller, callee] = &self.voices;
        match party {
            Party::Caller => caller,
            Party::Callee => callee,
        }
    }

    pub(super) fn voice_mut(&mut self, party: Party) -> &mut Voice {
        let [caller, callee] = &mut self.voices;
        match party {
            Party::Caller => caller,
            Party::Callee => callee,
        }
    }

    pub(super) fn clock(&mut self, party: Party) -> &mut Option<Clock> {
        let [caller, callee] = &mut self.clocks;
        match party {
            Party::Caller => caller,
            Party::Callee => callee,
        }
    }

    pub(super) fn origin(&mut self, party: Party) -> &mut Option<Origin> {
        let [caller, callee] = &mut self.origins;
        match party {
            Party::Caller => caller,
            Party::Callee => callee,
        }
    }

    /// Sets to whom a description has to be told. A transferee that waits for its target is not told anything else before.
    pub(super) fn tell(&mut self, at: Instant, toward: Party, purpose: speak::Purpose) {
        let joins = |purpose: &speak::Purpose| matches!(purpose, speak::Purpose::Join(_));
        if joins(&purpose) || !self.tell.iter().any(|(.., waiting)| joins(waiting)) {
            self.tell = Some((at, toward, purpose));
        }
    }

    /// Nobody is to be joined any more.
    pub(super) fn forget_join(&mut self) {
        self.tell.take_if(|(.., purpose)| matches!(purpose, speak::Purpose::Join(_)));
    }

    /// When something is to be done next.
    fn next(&self) -> Option<Instant> {
        let clocks = self.clocks.iter().flatten().map(|clock| clock.next);
        let tell = self.tell.iter().map(|(at, ..)| *at);
        clocks.chain(tell).chain(self.leave.iter().map(|(at, _)| *at)).min()
    }
}

impl Conversions {
    fn is_any(&self) -> bool {
        self.refer != ReferStyle::Pass
            || self.delayed_offers != DelayedOffers::Pass
            || self.session_timer_seconds > 0
    }
}

impl Proxy {
    /// What is kept of a call that begins, if one of its peers is configured for something, or if it comes from within.
    pub(super) fn conversing(
        &self,
        server: ServerId,
        (hop, egress): (Hop, Hop),
        message: &Message,
        least: u32,
    ) -> Option<Box<Conversing>> {
        let of = |hop: Hop| self.settings.peers.of(hop.network, hop.address.ip());
        let (near, far) = (of(hop), of(egress));
        // The appliance itself is a party of the call to the target of a transfer, whatever is configured by now.
        let within = self.is_from_within(server, message);
        if !within && !near.is_any() && !far.is_any() {
            return None;
        }
        let mut caller = Voice::new(near);
        caller.learn(message);
        caller.name = String::from_utf8(message.from_value().to_vec()).ok()?;
        caller.privacy = identity::wish(message);
        caller.routes = message
            .values(HeaderName::RecordRoute)
            .take(MOST_ROUTES)
            .map(|route| String::from_utf8_lossy(route).into_owned())
            .collect();
        Some(Box::new(Conversing {
            voices: [caller, Voice::new(far)],
            least,
            within,
            ..Conversing::default()
        }))
    }

    /// The routes toward who answers a first INVITE, from the appliance on.
    fn routes_beyond(&self, message: &Message) -> Vec<String> {
        let beyond = message
            .addresses(HeaderName::RecordRoute)
            .take_while(|route| route.parsed_uri().is_some_and(|uri| !self.settings.is_ours(&uri)));
        let mut routes: Vec<String> =
            beyond.take(MOST_ROUTES).map(|route| String::from_utf8_lossy(route.value).into_owned()).collect();
        routes.reverse();
        routes
    }

    /// The first INVITE was answered: the callee's voice is known now.
    pub(super) fn note_voice(&mut self, relay: &Relay, message: &Message) {
        let Some((number, Party::Caller, None)) = &relay.call else { return };
        let conversing = self.calls.get(number).and_then(|call| call.conversing.as_deref());
        if conversing.is_none_or(|known| known.tag.is_some()) {
            return;
        }
        let routes = self.routes_beyond(message);
        let Some(conversing) = self.calls.get_mut(number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        let own = self.settings.peers.of(relay.egress.network, relay.egress.address.ip());
        let said = conversing.voice_mut(Party::Callee).said.take();
        let mut callee = Voice { said, ..Voice::new(own) };
        callee.learn(message);
        // Who was called, with the tag of who has answered: that is the dialog's name of it (RFC 3261 section 12.1), and
        // what a response says beside the tag is the word of whoever sends it.
        let name = self.transactions.request(relay.server).map_or(message.to_value(), Message::to_value);
        callee.name = String::from_utf8_lossy(name).into_owned();
        if let Some(tag) = message.to_tag() {
            callee.name = format!("{};tag={}", callee.name.trim_end(), String::from_utf8_lossy(tag));
        }
        callee.privacy = identity::wish(message);
        callee.routes = routes;
        *conversing.voice_mut(Party::Callee) = callee;
        conversing.tag = message.to_tag().map(Bytes::copy_from_slice);
    }

    /// A side has sent a session description.
    pub(super) fn note_said(call: &mut Call, party: Party, sdp: &[u8]) {
        if let Some(conversing) = call.conversing.as_deref_mut() {
            conversing.voice_mut(party).said = Some(String::from_utf8_lossy(sdp).into_owned());
        }
    }

    /// Whether a request of a party can go on in a call: not one that meets an offer of the appliance's own, nor one with a
    /// session timer that is too short.
    pub(super) fn take_part(&self, number: u64, party: Party, message: &Message) -> Result<(), Refuse> {
        let Some(call) = self.calls.get(&number) else { return Ok(()) };
        let Some(conversing) = call.conversing.as_deref() else { return Ok(()) };
        let offers = message.method() == &Method::Invite
            || (message.method() == &Method::Update && !message.body().is_empty());
        if offers && conversing.pending.is_some() {
            return Err(Refuse::new(491, DropReason::Glare));
        }
        Self::refuses_timer(conversing, party, message).map_or(Ok(()), Err)
    }

    /// Whether an offer of one of the parties is under way in a call.
    pub(super) fn is_negotiating(&self, number: u64) -> bool {
        self.relays.values().any(|relay| {
            matches!(relay.method, Method::Invite | Method::Update)
                && relay.call.as_ref().is_some_and(|(call, ..)| *call == number)
                && self.transactions.request(relay.server).is_some()
        })
    }

    /// Sets when the call is looked at again.
    pub(super) fn reschedule(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(conversing) = call.conversing.as_deref_mut() {
            let next = conversing.next();
            self.conversing_due.set(number, &mut conversing.due, next);
        }
    }

    /// Forgets when: the call is gone.
    pub(super) fn unschedule(&mut self, number: u64, call: &mut Call) {
        if let Some(conversing) = call.conversing.as_deref_mut() {
            self.conversing_due.set(number, &mut conversing.due, None);
        }
    }

    /// Does what is due in calls in which the appliance speaks.
    pub(super) fn converse(&mut self, now: Instant, media: &mut dyn crate::media::MediaRelay) {
        while let Some(number) = self.conversing_due.pop(now) {
            let Some(call) = self.calls.get_mut(&number) else { continue };
            let live = call.kind == Kind::Call && call.is_live();
            let Some(conversing) = call.conversing.as_deref_mut() else { continue };
            conversing.due = None;
            if let Some((_, party, purpose)) = conversing.tell.take_if(|(at, ..)| *at <= now)
                && live
            {
                self.tell_description(now, media, number, party, purpose);
            }
            self.leave_due(now, number);
            for party in [Party::Caller, Party::Callee] {
                self.timer_due(now, media, number, party);
            }
            self.reschedule(number);
        }
    }
}

impl Conversing {
    pub(super) fn clock_of(&self, party: Party) -> Option<&Clock> {
        let [caller, callee] = &self.clocks;
        match party {
            Party::Caller => caller.as_ref(),
            Party::Callee => callee.as_ref(),
        }
    }
}
