//! Responses: what they mean for calls and bindings, and what is rewritten in them.

use std::time::Instant;

use bytes::Bytes;

use super::{
    alone::Tried,
    call::{CallState, Dialog, Kind, MAX_DIALOGS, Party, Side},
    failover::Instead,
    forward::{bears_target, rewrite_contacts},
    machine::{Proxy, Relay},
    measure::{DropReason, Measure, Outcome},
};
use crate::{
    media::MediaRelay,
    registrar::user_agent,
    sip::{
        digest::Challenge,
        transaction::ClientId,
        wire::{self, Editor, HeaderName, Message, Method, Reply},
    },
    upstream::{Evidence, Failure},
};

/// How long a SUBSCRIBE without Expires holds (RFC 6665 leaves it to the event package; most say an hour).
const SUBSCRIBE_SECONDS: u32 = 3600;
/// 2xx of one INVITE that are kept for their repetition.
const MAX_SUCCESSES: usize = 16;

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// None came in time.
    Timeout,
    /// The transport says that the peer cannot be reached (RFC 3261 8.1.3.1: as if it had answered 503).
    Unreachable,
}

impl Proxy {
    /// A response to a request that was relayed.
    pub(super) fn relay_response(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        message: &Message,
    ) {
        let Some(status) = message.status().filter(|status| *status > 100) else { return };
        if let Some(hop) = self.own_requests.get(&client).copied() {
            return self.probed(now, hop, status);
        }
        if self.second_answered(now, client, message) {
            return;
        }
        if self.spoken.contains_key(&client) {
            return self.heard(now, media, client, status, message);
        }
        // Taken out, so that the rest of the proxy can be used meanwhile; put back below.
        let Some(mut relay) = self.relays.remove(&client) else { return self.drop(DropReason::LateResponse) };
        if relay.large {
            self.tcp_works(now, relay.egress.address);
        } else if status != 503 {
            self.note_traffic(now, relay.egress, Evidence::Answer);
        }
        if relay.superseded {
            self.drop(DropReason::LateResponse);
        } else if message.values(HeaderName::Via).nth(1).is_none() {
            self.drop(DropReason::ResponseWithoutVia);
        } else {
            let inner = self.inward_response(&relay, message);
            let message = inner.as_ref().unwrap_or(message);
            self.relay_one_response(now, media, client, &mut relay, status, message);
        }
        self.relays.insert(client, relay);
    }

    fn relay_one_response(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &mut Relay,
        status: u16,
        message: &Message,
    ) {
        let success = (200..300).contains(&status);
        let tag = message.to_tag().unwrap_or_default();
        if relay.method == Method::Invite {
            let at = (status < 200).then(|| now + self.settings.timer_c);
            self.timer_c.set(client, &mut relay.timer_c, at);
            if success && let Some((_, payload)) = relay.successes.iter().find(|(known, _)| known == tag) {
                return self.transactions.respond(now, relay.server, status, payload.clone());
            }
        }
        if status >= 200 {
            if matches!(status, 401 | 407) && self.answer_challenge(now, media, client, relay, message) {
                return;
            }
            if status == 422
                && relay.least_timer == 0
                && let Some(least) = self.asks_longer(relay, message)
                && self.ask_longer(now, media, client, relay, least)
            {
                return;
            }
            if (300..400).contains(&status) && self.follow(now, media, client, relay, message) {
                return;
            }
            let instead = self.note_way(now, relay, status);
            if self.try_next(now, media, client, relay, instead) {
                self.measure(Measure::FailedOver);
                return;
            }
        }
        let mut editor = Editor::new(message);
        editor.pop_via();
        // The number that the phone knows the request by; ours may be ahead (credentials).
        if let Some(request) = self.transactions.request(relay.server)
            && request.cseq() != message.cseq()
        {
            let number = request.cseq();
            editor.cseq(number);
        }
        let call = relay.call.as_ref().and_then(|(number, ..)| self.calls.get(number));
        let hidden = call.is_some_and(|call| call.anonymous.is_some());
        let request = self.transactions.request(relay.server).filter(|request| {
            hidden
                || (relay.call.is_none()
                    && self.goes_anonymously(request, relay.ingress.network, relay.egress.network))
        });
        self.guard_response(&mut editor, relay, request);
        if status < 300 && bears_target(&relay.method) {
            rewrite_contacts(&mut editor, self.own(relay.ingress));
        }
        if let Some(pending) = &relay.register
            && status >= 200
        {
            self.registrar.rewrite_response(now, pending, &mut editor);
            if success {
                self.measure(Measure::RegistrationDelay(now - relay.started));
            }
        }
        if success && let Some(answer) = &relay.answer {
            if let Some(challenge) = Challenge::parse(&answer.challenge) {
                self.note_realm(&answer.credential, challenge.realm);
            }
            self.note_next_nonce(now, relay, &mut editor);
        }
        self.note_dialog(now, relay, status, message);
        if success {
            self.note_voice(relay, message);
            self.timer_response(now, relay, status, &mut editor);
        }
        if let Some(body) = self.negotiate_response(now, media, relay, message) {
            editor.body(&body);
        }
        if success {
            self.note_winner(now, media, relay, tag);
        }
        if let (true, Some((number, ..))) = (success, &relay.call) {
            self.touch(*number);
        }
        let payload = self.face_response(relay, editor.finish());
        if success && relay.method == Method::Invite && relay.successes.len() < MAX_SUCCESSES {
            relay.successes.push((Bytes::copy_from_slice(tag), payload.clone()));
        }
        if status < 200 {
            return self.transactions.respond(now, relay.server, status, payload);
        }
        if let Some((told, payload)) = self.branch_ended(now, media, client, relay, status, payload) {
            self.transactions.respond(now, relay.server, told, payload);
            self.note_final(now, media, relay, told);
            if success {
                self.mind_second(now, relay);
            }
        }
    }

    /// A branch of an INVITE, or another request, has its final answer. Returns what its sender is told now; nothing when
    /// other branches go on, or one of them was answered.
    fn branch_ended(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        relay: &Relay,
        status: u16,
        payload: Bytes,
    ) -> Option<(u16, Bytes)> {
        let Some(fork) = self.forks.get_mut(&relay.server).filter(|_| relay.method == Method::Invite) else {
            return Some((status, payload));
        };
        if status < 300 {
            fork.answered = true;
            fork.end(client);
            self.cancel_branches(now, relay, b"Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n");
            return Some((status, payload));
        }
        let answered = fork.answered;
        let told = fork.fail(client, status, payload).filter(|_| !answered);
        if status >= 600 {
            self.cancel_branches(now, relay, b"");
        }
        if told.is_none() {
            self.drop_branch(media, now, relay);
        }
        told
    }

    /// Cancels what has not ended of an INVITE's branches (RFC 3261 16.7 step 10).
    fn cancel_branches(&mut self, now: Instant, relay: &Relay, headers: &[u8]) {
        let open = self.forks.get(&relay.server).map(|fork| fork.open.clone()).unwrap_or_default();
        for other in open {
            if let Some(relay) = self.relays.get_mut(&other) {
                relay.cancelled = true;
            }
            self.transactions.cancel(now, other, headers);
        }
    }

    /// The early dialogs of a branch that has failed while others go on.
    fn drop_branch(&mut self, media: &mut dyn MediaRelay, now: Instant, relay: &Relay) {
        let Some((number, Party::Caller, None)) = &relay.call else { return };
        let Some(call) = self.calls.get_mut(number) else { return };
        let gone = |dialog: &Dialog| !dialog.confirmed && dialog.callee.source == relay.egress;
        for dialog in call.dialogs.iter().filter(|dialog| gone(dialog)) {
            media.release(now, &call.info.media_key, &dialog.callee.tag);
        }
        call.dialogs.retain(|dialog| !gone(dialog));
    }

    /// What a response says of its dialog: who answers, where that party is to be reached, how far the call is.
    fn note_dialog(&mut self, now: Instant, relay: &mut Relay, status: u16, message: &Message) {
        let Some((number, party, dialog_tag)) = &relay.call else { return };
        let Some(call) = self.calls.get_mut(number) else { return };
        let challenge = matches!(status, 401 | 407);
        let first_invite = relay.method == Method::Invite && dialog_tag.is_none();
        if first_invite && !challenge && !std::mem::replace(&mut call.attempt_counted, true) {
            let delay = now - relay.started;
            self.measure(Measure::CallAttempt);
            self.measure(Measure::SessionRequestDelay(delay));
        }
        let Some(call) = self.calls.get_mut(number) else { return };
        if status >= 300 {
            return;
        }
        match dialog_tag {
            Some(tag) if bears_target(&relay.method) => {
                let index = call.dialogs.iter().position(|dialog| dialog.callee.tag == tag);
                if let Some(side) = index.and_then(|index| call.side(party.other(), index)) {
                    side.learn(message, &self.settings);
                }
            }
            Some(_) => {}
            None => {
                let Some(tag) = message.to_tag() else { return };
                let known = call.dialogs.iter().any(|dialog| dialog.callee.tag == tag);
                if !known && call.dialogs.len() < MAX_DIALOGS {
                    let side = Side::new(tag, relay.egress);
                    call.dialogs.push(Dialog::new(side));
                }
                call.info.to_agent = user_agent(message).or(call.info.to_agent.take());
                let confirmed = status >= 200;
                if let Some(dialog) = call.dialog(tag) {
                    dialog.callee.learn(message, &self.settings);
                    dialog.confirmed |= confirmed;
                }
                if call.kind == Kind::Call && call.is_live() {
                    if !confirmed && call.info.state == CallState::Trying {
                        call.info.state = CallState::Early;
                    }
                    if confirmed && call.info.answered.is_none() {
                        call.info.answered = Some(now);
                        call.info.state = CallState::Established;
                        self.measure(Measure::CallAnswered);
                    }
                }
            }
        }
        if status >= 200 && relay.method == Method::Subscribe {
            let seconds = message.expires().unwrap_or(SUBSCRIBE_SECONDS);
            self.keep_subscription(now, *number, seconds.into());
        }
    }

    /// A branch of a forked INVITE was answered: the media of those that only rang or played something goes. Should
    /// one of them be answered all the same, its 2xx is negotiated anew.
    fn note_winner(&mut self, now: Instant, media: &mut dyn MediaRelay, relay: &mut Relay, tag: &[u8]) {
        let Some((number, Party::Caller, None)) = &relay.call else { return };
        let Some(call) = self.calls.get(number).filter(|call| call.kind == Kind::Call && call.is_live())
        else {
            return;
        };
        let losers = call.dialogs.iter().filter(|dialog| !dialog.confirmed && dialog.callee.tag != tag);
        for loser in losers.map(|dialog| &dialog.callee.tag) {
            media.release(now, &call.info.media_key, loser);
            relay.negotiated.take_if(|done| done.tag == *loser);
            // Branches that were sent at the same time have what they negotiated themselves.
            let open = self.forks.get(&relay.server).map(|fork| fork.open.as_slice()).unwrap_or_default();
            for other in open {
                if let Some(other) = self.relays.get_mut(other) {
                    other.negotiated.take_if(|done| done.tag == *loser);
                }
            }
        }
    }

    /// What a final response ends.
    fn note_final(&mut self, now: Instant, media: &mut dyn MediaRelay, relay: &mut Relay, status: u16) {
        let Some((number, _, dialog_tag)) = relay.call.clone() else { return };
        match (&relay.method, dialog_tag) {
            (Method::Bye, Some(tag)) if !matches!(status, 401 | 407 | 491) => {
                self.measure(Measure::SessionDisconnectDelay(now - relay.started));
                self.end_dialog(now, media, number, &tag);
            }
            (Method::Bye, Some(_)) => {
                if let Some(call) = self.calls.get_mut(&number).filter(|call| call.is_live()) {
                    call.info.state = CallState::Established;
                }
            }
            (Method::Invite, None) if status >= 300 => {
                // The caller was told 487 if he cancelled; a branch that we cancelled says nothing of the call.
                let outcome = Outcome::of_status(status);
                let challenge = matches!(status, 401 | 407);
                self.failed(now, media, number, (!challenge).then_some(outcome));
            }
            (Method::Subscribe | Method::Refer, None) if status >= 300 => {
                self.keep_subscription(now, number, 0);
            }
            _ => {}
        }
    }

    /// The first INVITE failed: early dialogs go, and the call when no dialog is left. `None` for a challenge.
    fn failed(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64, outcome: Option<Outcome>) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.dialogs.retain(|dialog| dialog.confirmed);
        if !call.dialogs.is_empty() {
            return;
        }
        match outcome {
            Some(outcome) => self.finish_call(now, media, number, outcome),
            None => self.discard_call(now, media, number),
        }
    }

    /// A dialog ended by BYE; the call ends with its last one.
    pub(super) fn end_dialog(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64, tag: &[u8]) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(dialog) = call.dialog(tag) {
            dialog.over = true;
        }
        if call.dialogs.iter().any(|dialog| dialog.confirmed && !dialog.over) {
            call.info.state = CallState::Established;
            media.release(now, &call.info.media_key, tag);
            return;
        }
        let outcome = if call.info.answered.is_some() { Outcome::Answered } else { Outcome::Cancelled };
        self.finish_call(now, media, number, outcome);
    }

    /// A relayed request was not answered.
    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        silence: Silence,
    ) {
        if let Some(hop) = self.own_requests.get(&client).copied() {
            if silence == Silence::Timeout {
                self.out_of_reach(now, hop, &Failure::Silent);
            }
            return;
        }
        if self.second_unanswered(now, client) {
            return;
        }
        if self.spoken.contains_key(&client) {
            return self.unheard(now, media, client, silence);
        }
        let Some(mut relay) = self.relays.remove(&client) else { return };
        if relay.superseded {
            return;
        }
        if relay.others.is_some() {
            if silence == Silence::Timeout {
                self.note_silence(now, &relay);
            }
            if self.try_next(now, media, client, &mut relay, Instead::Anything) {
                self.measure(Measure::FailedOver);
                self.relays.insert(client, relay);
                return;
            }
            if let Some(request) = self.transactions.request(relay.server).cloned()
                && self.registers_here(now, relay.server, relay.ingress, &request, Tried::InVain)
            {
                self.relays.insert(client, relay);
                return;
            }
        }
        let (server, cancelled) = (relay.server, relay.cancelled);
        // Its sender has given it up by then, and an answer would only come in its way (RFC 4320 section 4.2).
        let late = relay.method != Method::Invite
            && now - relay.started >= self.settings.timers.of(relay.ingress).timeout();
        if late {
            self.transactions.abandon(now, server);
        }
        let status = match silence {
            _ if cancelled => 487,
            Silence::Timeout if relay.method == Method::Invite => 408,
            // A 408 to anything else says that its whole dialog is lost (RFC 4320 section 4.2, RFC 5057 section 5.1).
            Silence::Timeout => 504,
            Silence::Unreachable => 503,
        };
        let call = relay.call.clone();
        let method = relay.method.clone();
        let started = relay.started;
        let answer = self.transactions.request(server).map(|request| {
            let tag = self.local_tag(request);
            wire::respond(request, relay.ingress.address, &Reply::new(status, &tag))
        });
        let answer = answer.or(late.then(Bytes::new));
        let told = answer.and_then(|payload| self.branch_ended(now, media, client, &relay, status, payload));
        self.relays.insert(client, relay);
        let Some((status, payload)) = told else { return };
        self.transactions.respond(now, server, status, payload);
        let Some((number, _, dialog_tag)) = call else { return };
        match (method, dialog_tag) {
            (Method::Bye, Some(tag)) => {
                self.measure(Measure::SessionDisconnectDelay(now - started));
                self.end_dialog(now, media, number, &tag);
            }
            (Method::Invite, None) => {
                let outcome = match status {
                    408 => Outcome::Timeout,
                    503 if silence == Silence::Unreachable => Outcome::Timeout,
                    told => Outcome::of_status(told),
                };
                self.failed(now, media, number, Some(outcome));
            }
            (Method::Subscribe | Method::Refer, None) => self.keep_subscription(now, number, 0),
            _ => {}
        }
    }

    /// A relayed request's transaction is over: what it kept goes, and early dialogs that never were answered.
    pub(super) fn relay_gone(&mut self, now: Instant, media: &mut dyn MediaRelay, client: ClientId) {
        self.own_requests.remove(&client);
        self.seconds.gone(client);
        if let Some(mut spoken) = self.spoken.remove(&client) {
            self.timer_c.set(client, &mut spoken.timer_c, None);
        }
        let Some(mut relay) = self.relays.remove(&client) else { return };
        self.timer_c.set(client, &mut relay.timer_c, None);
        let mut others = false;
        if let Some(fork) = self.forks.get_mut(&relay.server) {
            fork.end(client);
            others = !fork.open.is_empty();
        }
        if !others
            && relay.method == Method::Invite
            && let Some((number, Party::Caller, None)) = relay.call
            && self.calls.get(&number).is_some_and(|call| call.is_live())
        {
            self.failed(now, media, number, Some(Outcome::Timeout));
        }
    }
}
