//! What becomes of a transfer: the transferor is told, both others are joined, or all goes back to what it was.

use std::time::Instant;

use bytes::Bytes;

use super::{LEAVE, SUBSCRIBED_SECONDS, Stage};
use crate::{
    media::MediaRelay,
    proxy::{
        call::Party,
        converse::{
            Voice,
            face::Face,
            speak::{Purpose, Words},
        },
        identity::nobody,
        machine::Proxy,
        measure::{Conversion, Measure, Outcome},
    },
    sip::wire::{self, Message, Method},
};

impl Proxy {
    /// Tells the transferor how far its transfer is.
    pub(super) fn tell_transferor(&mut self, now: Instant, number: u64, status: u16, reason: &str) {
        let Some(transfer) = self.transfer_of(number) else { return };
        // Only what is news: a target that rings and plays something in turns is no reason to tell each time.
        if transfer.silent || transfer.gone || transfer.told >= status {
            return;
        }
        transfer.told = status;
        let (event, toward) = (transfer.event, transfer.transferor);
        self.notify(now, number, toward, event, status, reason);
    }

    fn notify(&mut self, now: Instant, number: u64, toward: Party, event: u32, status: u16, reason: &str) {
        let state = if status < 200 {
            format!("active;expires={SUBSCRIBED_SECONDS}")
        } else {
            "terminated;reason=noresource".to_owned()
        };
        let headers = format!(
            "Event: refer;id={event}\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag;version=2.0\r\n"
        );
        let body = format!("SIP/2.0 {status} {reason}\r\n");
        let words = Words {
            method: Method::Notify,
            purpose: Purpose::Notify,
            headers: &headers,
            body: Some(body.as_bytes()),
        };
        self.speak(now, number, toward, &words);
    }

    /// The transferee has answered the target's description, or has not.
    pub(in crate::proxy::converse) fn join_answered(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        status: u16,
        answer: Option<&[u8]>,
    ) {
        let Some(call_id) = self.transfer_of(number).map(|transfer| transfer.call_id.clone()) else { return };
        let target = self.call_within(&call_id);
        let target = target.filter(|target| self.is_unjoined(*target));
        match (target, answer) {
            (Some(target), Some(answer)) => self.join(now, media, number, target, answer),
            (None, Some(_)) => {
                // The target has hung up meanwhile: the transferee is given back what it had.
                let toward = self.transfer_of(number).map(|transfer| transfer.transferor.other());
                self.transfer_failed(now, media, number, 487, "Request Terminated");
                if let Some(toward) = toward {
                    self.tell_description(now, media, number, toward, Purpose::Tell(1));
                }
            }
            (_, None) => {
                let status = if status < 300 { 488 } else { status };
                let reason = wire::default_reason(status);
                self.transfer_failed(now, media, number, status, reason);
            }
        }
    }

    /// Joins the transferee's dialog with the target's.
    fn join(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64, target: u64, answer: &[u8]) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let call_id = call.info.call_id.clone();
        let Some(conversing) = call.conversing.as_deref_mut() else { return };
        let (Some(tag), Some(transfer)) = (conversing.tag.clone(), conversing.transfer.take()) else {
            return;
        };
        let (transferor, transferee) = (transfer.transferor, transfer.transferor.other());
        let voice = conversing.voice(transferee).clone();
        let origin = conversing.origin(transferee).clone();
        let clock = conversing.clock(transferee).take();
        let peer = match &call.anonymous {
            Some(_) if transferor == Party::Caller => nobody(&call.caller.tag),
            _ => conversing.voice(transferor).name.clone(),
        };
        let former = if transferee == Party::Caller { conversing.face.take() } else { None };
        conversing.parted = Some(transferor);
        if !transfer.gone {
            conversing.leave = Some((now + LEAVE, transferor));
        }
        let Some((side, other)) = call.sides(transferee, &tag) else { return };
        let (side, sent) = (side.clone(), other.sent);
        let other_tag = String::from_utf8_lossy(&other.tag).into_owned();
        let raised = |of: Option<(u32, Option<(u32, u32)>)>| of.map_or(0, |(value, _)| value);
        let own = side.sent.saturating_sub(raised(self.offsets.of(side.source.network, &call_id, &side.tag)));
        if let Some(former) = &former {
            self.leave_face(number, former.call_id.as_bytes());
        }
        let last = sent.saturating_add(former.as_ref().map_or(0, |face| face.ahead));
        let mut face = former.unwrap_or_else(|| Face {
            call_id: String::from_utf8_lossy(&call_id).into_owned(),
            own: voice.name.clone(),
            peer,
            own_tag: String::from_utf8_lossy(&side.tag).into_owned(),
            peer_tag: other_tag,
            ahead: 0,
        });
        let Some(joined) = self.calls.get_mut(&target) else { return };
        let joined_id = joined.info.call_id.clone();
        let callee_tag = joined.conversing.as_deref().and_then(|conversing| conversing.tag.clone());
        let callee = callee_tag.as_ref().and_then(|tag| joined.dialog(tag));
        let callee_sent = callee.map_or(0, |dialog| dialog.callee.sent);
        face.ahead = last.saturating_sub(callee_sent);
        (joined.caller.target, joined.caller.source) = (side.target, side.source);
        (joined.caller.disconnected, joined.caller.routes) = (side.disconnected, side.routes);
        // The INVITE was the appliance's.
        joined.caller.invited = None;
        let (caller_tag, caller_sent) = (joined.caller.tag.clone(), joined.caller.sent);
        if let Some(conversing) = joined.conversing.as_deref_mut() {
            let kept = conversing.voice_mut(Party::Caller);
            (kept.routes, kept.update, kept.timer) = (voice.routes, voice.update, voice.timer);
            *conversing.origin(Party::Caller) = origin;
            // The timer that was kept with the transferee goes on.
            if clock.is_some() {
                *conversing.clock(Party::Caller) = clock;
            }
            conversing.face = Some(face);
            conversing.within = false;
        }
        // The transferee's next number has to be above all that the target has seen.
        let before = raised(self.offsets.of(side.source.network, &joined_id, &caller_tag));
        let wanted = caller_sent.saturating_sub(own);
        if wanted > before {
            let key = (side.source.network, joined_id.clone(), caller_tag);
            self.offsets.raise_by(now, key, wanted - before, None);
        }
        self.enter_face(target);
        self.transfers.remove(&joined_id);
        let matters =
            callee_tag.and_then(|tag| self.settle(now, media, target, (Party::Caller, &tag), answer));
        if matters == Some(true)
            && let Some(conversing) =
                self.calls.get_mut(&target).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.tell(now, Party::Callee, Purpose::Tell(1));
        }
        if !transfer.silent && !transfer.gone {
            self.notify(now, number, transferor, transfer.event, 200, "OK");
        }
        self.converted(Conversion::Refer);
        self.finish_call(now, media, number, Outcome::Answered);
        self.touch(target);
        self.reschedule(target);
        self.reschedule(number);
    }

    /// A transfer has failed: the old call goes on, unless the transferor has left it.
    pub(super) fn transfer_failed(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        status: u16,
        reason: &str,
    ) {
        self.tell_transferor(now, number, status, reason);
        let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        let Some(transfer) = conversing.transfer.take() else { return };
        conversing.forget_join();
        self.transfers.remove(&transfer.call_id);
        self.converted(Conversion::ReferFailed);
        let target = self.call_within(&transfer.call_id);
        if let Some(target) =
            target.filter(|target| transfer.stage == Stage::Joining && self.is_unjoined(*target))
        {
            self.let_go(now, media, target);
        }
        if transfer.gone {
            let words = Words { method: Method::Bye, purpose: Purpose::Bye, headers: "", body: None };
            self.speak(now, number, transfer.transferor.other(), &words);
            self.finish_call(now, media, number, Outcome::Answered);
        }
    }

    /// Whether a response is in a dialog beside the one that was answered first.
    pub(super) fn is_beside(&self, number: u64, message: &Message) -> bool {
        let conversing = self.calls.get(&number).and_then(|call| call.conversing.as_deref());
        let tag = conversing.and_then(|conversing| conversing.tag.as_deref());
        tag.is_some_and(|tag| message.to_tag() != Some(tag))
    }

    /// A second one has answered for the target: it is hung up with (RFC 3261 section 13.2.2.4).
    pub(super) fn dismiss(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        message: &Message,
    ) {
        let Some(tag) = message.to_tag().map(Bytes::copy_from_slice) else { return };
        let routes = self.routes_beyond(message);
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(over) = call.dialog(&tag).map(|dialog| dialog.over) else { return };
        let Some(conversing) = call.conversing.as_deref_mut() else { return };
        let Some(first) = conversing.tag.replace(tag.clone()) else { return };
        // For these two requests it is spoken in this dialog.
        let named = format!(";tag={}", String::from_utf8_lossy(&first));
        let name = conversing.voice(Party::Callee).name.strip_suffix(&named).unwrap_or_default();
        let name = format!("{name};tag={}", String::from_utf8_lossy(&tag));
        let second = Voice { name, routes, ..Voice::default() };
        let kept = std::mem::replace(conversing.voice_mut(Party::Callee), second);
        self.acknowledge_within(now, number);
        if !over {
            let words = Words { method: Method::Bye, purpose: Purpose::Bye, headers: "", body: None };
            let client = self.speak(now, number, Party::Callee, &words);
            // A challenge to it would be answered in the other dialog.
            if let Some(spoken) = client.and_then(|client| self.spoken.get_mut(&client)) {
                spoken.authorized = true;
            }
        }
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.tag = Some(first);
            *conversing.voice_mut(Party::Callee) = kept;
        }
        if !over {
            self.end_dialog(now, media, number, &tag);
        }
    }

    /// The transferee has hung up, or the call has ended otherwise: the target is not called any more.
    pub(in crate::proxy) fn abort_transfer(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64) {
        let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        let Some(transfer) = conversing.transfer.take() else { return };
        conversing.forget_join();
        self.transfers.remove(&transfer.call_id);
        self.measure(Measure::Converted(Conversion::ReferFailed));
        let open = self.forks.get(&transfer.server).map(|fork| fork.open.clone()).unwrap_or_default();
        for client in open {
            if let Some(relay) = self.relays.get_mut(&client) {
                relay.cancelled = true;
            }
            self.transactions.cancel(now, client, b"");
        }
        if transfer.stage == Stage::Joining
            && let Some(target) =
                self.call_within(&transfer.call_id).filter(|target| self.is_unjoined(*target))
        {
            self.let_go(now, media, target);
        }
    }
}
