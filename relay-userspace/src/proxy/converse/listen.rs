//! What comes back to requests of the appliance's own: answers are taken, and told to the other side where they say more than
//! where media is. RFC 3261 section 13.2.2.4, RFC 3264 section 8.

use std::time::Instant;

use super::speak::{MOST_TRIES, Purpose, Spoken, Words};
use crate::{
    media::{Answer, MediaRelay},
    proxy::{call::Party, machine::Proxy, measure::Measure, response::Silence},
    sdp,
    sip::{
        transaction::ClientId,
        wire::{Message, Method, multipart},
    },
};

/// How often keys that one side changes with an answer are told to the other, and that one's answer back.
const MOST_CHANGES: u8 = 2;

impl Proxy {
    /// A response to a request of the appliance's own has come.
    pub(in crate::proxy) fn heard(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        status: u16,
        message: &Message,
    ) {
        let Some(mut spoken) = self.spoken.remove(&client) else { return };
        if spoken.large {
            self.tcp_works(now, spoken.egress.address);
        }
        if let Some((hop, ack)) = spoken.ack.clone() {
            if (200..300).contains(&status) {
                self.transactions.send(hop, ack, &Method::Ack);
            }
        } else if status >= 200 {
            self.timer_c.set(client, &mut spoken.timer_c, None);
            if (200..300).contains(&status) && spoken.method == Method::Invite {
                self.acknowledge(now, &mut spoken, message);
            }
            if !(matches!(status, 401 | 407) && self.answer_own_challenge(now, &spoken, message)) {
                self.spoken_ended(now, media, client, &spoken, status, Some(message));
            }
        }
        self.spoken.insert(client, spoken);
    }

    fn acknowledge(&mut self, now: Instant, spoken: &mut Spoken, message: &Message) {
        // The 2xx may name another target than before (RFC 3261 section 12.2.1.2).
        if let Some(call) = self.calls.get_mut(&spoken.call)
            && let Some(tag) = call.conversing.as_deref().and_then(|conversing| conversing.tag.clone())
            && let Some(index) = call.dialogs.iter().position(|dialog| dialog.callee.tag == tag)
            && let Some(side) = call.side(spoken.toward, index)
        {
            side.learn(message, &self.settings);
        }
        let Some(egress) = self.way_toward(spoken.call, spoken.toward) else { return };
        let (_, branch) = self.transactions.reserve(0);
        let words = Words { method: Method::Ack, purpose: spoken.purpose, headers: "", body: None };
        let made = |way| self.word(spoken.call, spoken.toward, way, &branch, spoken.number, &words);
        let Some(payload) = made(egress) else { return };
        let way = self.way_of_ack(now, egress, payload.len());
        let payload = if way == egress { Some(payload) } else { made(way) };
        let Some(payload) = payload else { return };
        self.transactions.send(way, payload.clone(), &Method::Ack);
        spoken.ack = Some((way, payload));
    }

    /// A request of the appliance's own has no answer.
    pub(in crate::proxy) fn unheard(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        silence: Silence,
    ) {
        let Some(mut spoken) = self.spoken.remove(&client) else { return };
        self.timer_c.set(client, &mut spoken.timer_c, None);
        let status = if silence == Silence::Timeout { 408 } else { 503 };
        self.spoken_ended(now, media, client, &spoken, status, None);
        self.spoken.insert(client, spoken);
    }

    fn spoken_ended(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: ClientId,
        spoken: &Spoken,
        status: u16,
        message: Option<&Message>,
    ) {
        let number = spoken.call;
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.pending.take_if(|pending| *pending == client);
        }
        let success = (200..300).contains(&status);
        let answer = message
            .filter(|_| success)
            .and_then(|message| Some(message.body().get(multipart::sdp_range(message)?)?.to_vec()));
        // A re-INVITE that was taken has refreshed the session, whatever it was for.
        if success && matches!(spoken.purpose, Purpose::Tell(_) | Purpose::Join(_)) {
            self.refreshed(now, media, spoken, status, message);
        }
        match spoken.purpose {
            Purpose::Tell(tries) if status == 422 && self.offers_longer(spoken, message) => {
                self.tell_at(now, number, spoken.toward, Purpose::Tell(tries));
            }
            Purpose::Join(tries) if status == 422 && self.offers_longer(spoken, message) => {
                self.tell_at(now, number, spoken.toward, Purpose::Join(tries));
            }
            Purpose::Bye | Purpose::Notify => {}
            Purpose::Join(tries) if status == 491 && tries < MOST_TRIES => {
                self.tell_later(now, number, spoken.toward, Purpose::Join(tries + 1));
            }
            Purpose::Join(_) => self.join_answered(now, media, number, status, answer.as_deref()),
            Purpose::Refresh => {
                if let Some(answer) = &answer {
                    self.take_answer(now, media, number, spoken.toward, answer, 0);
                }
                self.refreshed(now, media, spoken, status, message);
            }
            Purpose::Tell(tries) => {
                if let Some(answer) = &answer {
                    self.take_answer(now, media, number, spoken.toward, answer, tries);
                } else if status == 491 && tries < MOST_TRIES {
                    self.tell_later(now, number, spoken.toward, Purpose::Tell(tries + 1));
                }
            }
        }
        self.touch(number);
        self.reschedule(number);
    }

    /// A side has answered an offer of the appliance's own. What the other side has to know of it is told.
    fn take_answer(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        from: Party,
        sdp: &[u8],
        tries: u8,
    ) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.is_live()) else { return };
        let Some(conversing) = call.conversing.as_deref() else { return };
        let Some(tag) = conversing.tag.clone() else { return };
        let before = conversing.voice(from).said.clone();
        let Some((answerer, offerer)) = call.sides(from, &tag) else { return };
        let answer = Answer {
            call: &call.info.media_key,
            from_tag: &offerer.tag,
            to_tag: &answerer.tag,
            from: offerer.source.network,
            to: answerer.source.network,
            sdp,
        };
        if media.answer(now, &answer).is_err() {
            self.measure(Measure::MediaRefused);
            return;
        }
        Self::note_said(call, from, sdp);
        // An answer to what the other side has said says what follows from it, but for its keys. Two sides that go on
        // changing these are not carried to and fro.
        let changed = before.is_some_and(|before| {
            let before = before.as_bytes();
            (tries == 0 && is_other_media(before, sdp))
                || (tries < MOST_CHANGES && has_other_keys(before, sdp))
        });
        if changed && let Some(conversing) = call.conversing.as_deref_mut() {
            conversing.tell(now, from.other(), Purpose::Tell(tries + 1));
        }
    }
}

/// Whether two descriptions of one party differ in what the other one is told of them: streams, direction, formats. Where
/// its media is, is the appliance's business alone.
pub(in crate::proxy) fn is_other_media(before: &[u8], now: &[u8]) -> bool {
    let (Ok(before), Ok(now)) = (sdp::Session::parse(before), sdp::Session::parse(now)) else { return false };
    before.media.len() != now.media.len()
        || before.media.iter().zip(&now.media).any(|(old, new)| {
            old.is_disabled() != new.is_disabled()
                || (!new.is_disabled()
                    && (before.direction_of(old) != now.direction_of(new)
                        || before.is_held(old) != now.is_held(new)
                        || old.kind != new.kind
                        || old.formats_raw != new.formats_raw))
        })
}

/// Whether a party has other keys than before (RFC 4568): where they pass from end to end the other one needs them.
pub(in crate::proxy) fn has_other_keys(before: &[u8], now: &[u8]) -> bool {
    let (Ok(before), Ok(now)) = (sdp::Session::parse(before), sdp::Session::parse(now)) else { return false };
    before.media.iter().zip(&now.media).any(|(old, new)| !new.is_disabled() && keys(old) != keys(new))
}

fn keys<'a>(media: &sdp::Media<'a>) -> Vec<Option<&'a [u8]>> {
    let lines = media.attributes.iter().filter(|attribute| attribute.name == b"crypto");
    // The tag says which of the other one's lines is answered.
    let key = |value: &'a [u8]| value.iter().position(|byte| *byte == b' ').and_then(|at| value.get(at..));
    lines.map(|line| line.value.and_then(key)).collect()
}
