//! Requests of the appliance's own in a dialog of two others, and what becomes of them.
//!
//! RFC 3261 sections 12.2 (requests in a dialog), 13.2.2.4 (the ACK is repeated with each 2xx) and 14.1 (491).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::origin::told;
use crate::{
    media::{MediaRelay, Offer},
    proxy::{
        call::{Party, Side},
        forward::bears_target,
        identity::nobody,
        machine::Proxy,
        measure::{Conversion, Measure, Outcome},
    },
    registrar::{self, rewritten_contact},
    sip::{
        Hop,
        transaction::{ClientId, Fallback, keyed_hash},
        wire::{Method, NameAddr, Uri},
    },
};

/// How often a request of the appliance's own is tried again when it meets another one.
pub(super) const MOST_TRIES: u8 = 4;
/// How soon it is tried again when one of the parties' offers is under way.
const SOON: Duration = Duration::from_secs(1);

/// What a request of the appliance's own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// To refresh a session, and to see that the peer lives.
    Refresh,
    /// To tell a side what the other has said; how often that was tried.
    Tell(u8),
    /// To join a transferee to its target; how often that was tried.
    Join(u8),
    /// To tell a transferor what has become of its transfer.
    Notify,
    /// To end the call.
    Bye,
}

/// A request of the appliance's own that is under way.
#[derive(Debug)]
pub(in crate::proxy) struct Spoken {
    pub(in crate::proxy) call: u64,
    pub(in crate::proxy) toward: Party,
    pub(in crate::proxy) method: Method,
    pub(in crate::proxy) purpose: Purpose,
    pub(super) number: u32,
    pub(super) egress: Hop,
    /// It went by TCP, being too large for UDP.
    pub(super) large: bool,
    /// A challenge to it was answered.
    pub(super) authorized: bool,
    /// Its further header lines and its body, to send it again.
    pub(super) headers: String,
    pub(super) body: Option<Vec<u8>>,
    /// The ACK, and where it went.
    pub(super) ack: Option<(Hop, Bytes)>,
    /// When an INVITE is given up that rings and has no answer (RFC 3261 section 16.6 step 11).
    pub(in crate::proxy) timer_c: Option<Instant>,
}

/// What a request is made of besides what the dialog knows.
pub(in crate::proxy) struct Words<'a> {
    pub(in crate::proxy) method: Method,
    pub(in crate::proxy) purpose: Purpose,
    /// Further header lines, each with its end; that of the body's type among them.
    pub(in crate::proxy) headers: &'a str,
    pub(in crate::proxy) body: Option<&'a [u8]>,
}

/// The header line of a session description.
pub(in crate::proxy) const SDP_TYPE: &str = "Content-Type: application/sdp\r\n";

impl Proxy {
    /// Where a request to a side goes: along its first route, or to its target.
    pub(in crate::proxy) fn hop_toward(&self, side: &Side, route: Option<&Uri<'_>>) -> Hop {
        let settings = &self.settings;
        let source = side.source;
        let server_side =
            settings.network(source.network).is_some_and(|network| network.role != crate::net::Role::Phones);
        let allowed = |hop: &Hop| {
            let ip = hop.address.ip();
            ip == source.address.ip() || (server_side && (settings.trusts(ip) || side.routes.contains(&ip)))
        };
        let target = side.target.as_deref();
        let next = match route {
            Some(route) => registrar::hop(route, source).filter(allowed),
            // What a server names as its Contact is where it wants requests; a phone's is checked.
            None if server_side => target.and_then(Uri::parse).and_then(|uri| registrar::hop(&uri, source)),
            None if side.disconnected => target.and_then(|target| self.registrar.by_contact(target, source)),
            None => target.map(|target| registrar::destination(target, source)),
        };
        next.unwrap_or(source)
    }

    /// Says something to a side, in the name of the other one. Says whether it could.
    pub(in crate::proxy) fn speak(
        &mut self,
        now: Instant,
        number: u64,
        toward: Party,
        words: &Words<'_>,
    ) -> Option<ClientId> {
        let egress = self.way_toward(number, toward)?;
        let cseq = self.next_number(now, number, toward.other())?;
        let (client, branch) = self.transactions.reserve(0);
        let mut payload = self.word(number, toward, egress, &branch, cseq, words)?;
        let way = self.way(now, egress, payload.len());
        let mut fallback = None;
        if way != egress {
            let large = self.word(number, toward, way, &branch, cseq, words)?;
            fallback = Some(Fallback { hop: egress, payload: std::mem::replace(&mut payload, large) });
            self.measure(Measure::Large(way.transport));
        }
        let mut spoken = Spoken {
            call: number,
            toward,
            method: words.method.clone(),
            purpose: words.purpose,
            number: cseq,
            egress,
            large: fallback.is_some(),
            authorized: false,
            headers: words.headers.to_owned(),
            body: words.body.map(<[u8]>::to_vec),
            ack: None,
            timer_c: None,
        };
        if words.method == Method::Invite {
            let at = Some(now + self.settings.timer_c);
            self.timer_c.set(client, &mut spoken.timer_c, at);
        }
        self.spoken.insert(client, spoken);
        self.transactions.send_request_or(now, client, branch, way, &words.method, payload, fallback);
        if words.body.is_some()
            && matches!(words.method, Method::Invite | Method::Update)
            && let Some(conversing) =
                self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.pending = Some(client);
        }
        self.touch(number);
        Some(client)
    }

    pub(super) fn way_toward(&self, number: u64, toward: Party) -> Option<Hop> {
        let call = self.calls.get(&number)?;
        let conversing = call.conversing.as_deref()?;
        let (recipient, _) = call.sides(toward, conversing.tag.as_ref()?)?;
        let route = conversing.voice(toward).routes.first();
        let route = route.and_then(|route| NameAddr::parse(route.as_bytes()));
        let uri = route.and_then(|route| route.parsed_uri());
        Some(self.hop_toward(recipient, uri.as_ref()))
    }

    /// The next number of a side's requests. Its own run ahead by one more from now on.
    fn next_number(&mut self, now: Instant, number: u64, of: Party) -> Option<u32> {
        let call = self.calls.get_mut(&number)?;
        let tag = call.conversing.as_deref()?.tag.clone()?;
        let call_id = call.info.call_id.clone();
        let index = call.dialogs.iter().position(|dialog| dialog.callee.tag == tag)?;
        let side = call.side(of, index)?;
        // One that has sent nothing yet may begin with 1.
        let by = if side.sent == 0 { 2 } else { 1 };
        let (network, own_tag) = (side.source.network, side.tag.clone());
        let (next, invited) = (side.sent + 1, side.invited);
        if !self.offsets.raise_by(now, (network, call_id, own_tag), by, invited) {
            return None;
        }
        let side = self.calls.get_mut(&number)?.side(of, index)?;
        side.sent = next;
        Some(next)
    }

    /// A request as it goes by a way.
    pub(super) fn word(
        &self,
        number: u64,
        toward: Party,
        way: Hop,
        branch: &str,
        cseq: u32,
        words: &Words<'_>,
    ) -> Option<Bytes> {
        let call = self.calls.get(&number)?;
        let conversing = call.conversing.as_deref()?;
        let (recipient, sender) = call.sides(toward, conversing.tag.as_ref()?)?;
        let own = self.own(way);
        let method = String::from_utf8_lossy(words.method.as_bytes()).into_owned();
        let target = match &recipient.target {
            Some(target) => String::from_utf8_lossy(target).into_owned(),
            None => format!("sip:{}", recipient.source.address),
        };
        // The caller is nobody at the other side, so that is who speaks there.
        let hidden = toward == Party::Callee && call.anonymous.is_some();
        let contact = match sender.target.as_deref().and_then(Uri::parse) {
            _ if hidden => format!("sip:anonymous@{}", own.uri()),
            Some(uri) if uri.is_sip() => {
                String::from_utf8_lossy(&rewritten_contact(&uri, own, None)).into_owned()
            }
            _ => format!("sip:{}", own.uri()),
        };
        let mut text = format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {address};branch={branch};rport{alias}\r\n",
            transport = way.transport,
            address = own.address,
            alias = self.alias(way),
        );
        for route in &conversing.voice(toward).routes {
            text += &format!("Route: {route}\r\n");
        }
        text += &format!(
            "Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n",
            from =
                if hidden { nobody(&call.caller.tag) } else { conversing.voice(toward.other()).name.clone() },
            to = conversing.voice(toward).name,
            call_id = String::from_utf8_lossy(&call.info.call_id),
        );
        if bears_target(&words.method) {
            text += &format!("Contact: <{contact}>\r\n");
        }
        if words.method == Method::Invite {
            text += "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE\r\n";
        }
        text += words.headers;
        let body = words.body.unwrap_or_default();
        text += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut payload = text.into_bytes();
        payload.extend_from_slice(body);
        Some(self.face_request(number, toward, payload.into()))
    }

    /// Acknowledges the 2xx to an INVITE that came from within.
    pub(super) fn acknowledge_within(&mut self, now: Instant, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let sent = call.caller.sent;
        let Some(conversing) = call.conversing.as_deref_mut() else { return };
        let cseq = *conversing.invited.get_or_insert(sent);
        let Some(egress) = self.way_toward(number, Party::Callee) else { return };
        let (_, branch) = self.transactions.reserve(0);
        let words = Words { method: Method::Ack, purpose: Purpose::Join(0), headers: "", body: None };
        let Some(payload) = self.word(number, Party::Callee, egress, &branch, cseq, &words) else { return };
        let way = self.way_of_ack(now, egress, payload.len());
        let large = (way != egress).then(|| self.word(number, Party::Callee, way, &branch, cseq, &words));
        let payload = large.flatten().unwrap_or(payload);
        self.transactions.send(way, payload, &Method::Ack);
    }

    /// A party whose leg is over has not hung up itself.
    pub(super) fn leave_due(&mut self, now: Instant, number: u64) {
        let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        if let Some((_, party)) = conversing.leave.take_if(|(at, _)| *at <= now) {
            let words = Words { method: Method::Bye, purpose: Purpose::Bye, headers: "", body: None };
            self.speak(now, number, party, &words);
        }
    }

    /// Tries an offer again after it has met one of the other side (RFC 3261 section 14.1): whoever made the Call-ID waits
    /// longer.
    pub(in crate::proxy) fn tell_later(
        &mut self,
        now: Instant,
        number: u64,
        toward: Party,
        purpose: Purpose,
    ) {
        let wait = self.glare(now, number, toward.other());
        self.tell_at(now + wait, number, toward, purpose);
    }

    /// Makes an offer when it is time.
    pub(super) fn tell_at(&mut self, at: Instant, number: u64, toward: Party, purpose: Purpose) {
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.tell(at, toward, purpose);
        }
        self.reschedule(number);
    }

    /// How long who sent an offer waits after a 491.
    pub(in crate::proxy) fn glare(&self, now: Instant, number: u64, sender: Party) -> Duration {
        let age = now.saturating_duration_since(self.started).as_nanos() as u64;
        let random = keyed_hash(self.settings.secret, &[b"glare", &number.to_be_bytes(), &age.to_be_bytes()]);
        // 2.1 to 4 s, or 0 to 2 s, in units of 10 ms.
        let units = match sender {
            Party::Caller => 210 + random % 191,
            Party::Callee => random % 201,
        };
        Duration::from_millis(units * 10)
    }

    /// Offers a side what the other one has said last.
    pub(in crate::proxy) fn tell_description(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        toward: Party,
        purpose: Purpose,
    ) {
        if self.is_busy(number) {
            return self.tell_at(now + SOON, number, toward, purpose);
        }
        let offer = match purpose {
            Purpose::Join(_) => self.offer_of_target(number, toward),
            _ => self.offer_of_other(now, media, number, toward),
        };
        let said = offer.and_then(|offer| {
            let conversing = self.calls.get(&number).and_then(|call| call.conversing.as_deref());
            let timer = conversing.map(|conversing| conversing.own_timer_lines(toward)).unwrap_or_default();
            let headers = format!("{timer}{SDP_TYPE}");
            let words = Words { method: Method::Invite, purpose, headers: &headers, body: Some(&offer) };
            self.speak(now, number, toward, &words)
        });
        if said.is_none() && matches!(purpose, Purpose::Join(_)) {
            self.join_answered(now, media, number, 500, None);
        }
    }

    /// Whether an offer is under way in a call, of whomever.
    pub(in crate::proxy) fn is_busy(&self, number: u64) -> bool {
        let conversing = self.calls.get(&number).and_then(|call| call.conversing.as_deref());
        conversing.is_some_and(|conversing| conversing.pending.is_some()) || self.is_negotiating(number)
    }

    /// What the other side of a call has said last, as an offer for this one.
    pub(in crate::proxy) fn offer_of_other(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        toward: Party,
    ) -> Option<Vec<u8>> {
        let call = self.calls.get_mut(&number).filter(|call| call.is_live())?;
        let conversing = call.conversing.as_deref()?;
        let said = conversing.voice(toward.other()).said.as_deref()?;
        let (recipient, sender) = call.sides(toward, conversing.tag.as_ref()?)?;
        let offer = Offer {
            call: &call.info.media_key,
            from_tag: &sender.tag,
            to_tag: Some(&recipient.tag),
            from: sender.source.network,
            to: recipient.source.network,
            sdp: said.as_bytes(),
        };
        let offered = media.offer(now, &offer);
        call.media = true;
        match offered {
            Ok(offer) => Some(told(call, toward, offer)),
            Err(_) => {
                self.measure(Measure::MediaRefused);
                None
            }
        }
    }

    /// Ends a call that has no other end any more: both sides are told.
    pub(in crate::proxy) fn hang_up(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        why: &str,
        outcome: Outcome,
    ) {
        if self.calls.get(&number).is_none_or(|call| !call.is_live()) {
            return;
        }
        let headers = format!("Reason: SIP;cause=408;text=\"{why}\"\r\n");
        for toward in [Party::Caller, Party::Callee] {
            let words = Words { method: Method::Bye, purpose: Purpose::Bye, headers: &headers, body: None };
            self.speak(now, number, toward, &words);
        }
        self.finish_call(now, media, number, outcome);
    }

    /// A call was converted in some way.
    pub(in crate::proxy) fn converted(&mut self, conversion: Conversion) {
        self.measure(Measure::Converted(conversion));
    }
}
