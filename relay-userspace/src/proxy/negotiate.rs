//! Offer and answer: which session description is which, and its way through the media room.
//!
//! A description in a request is an offer and one in its response the answer, except that an INVITE without one has
//! the offer in its response and the answer in ACK or PRACK. What was negotiated is kept as long as it may be
//! repeated, so that a retransmission never runs the media room again. RFC 3264, RFC 3261 13.2.1, RFC 3262 5,
//! RFC 3311.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use bytes::Bytes;

use super::{
    admission::Admission,
    call::{Call, CallState, Kind, Negotiated, Party},
    converse::origin::told,
    machine::{Proxy, Relay},
    measure::Measure,
    settings::Settings,
};
use crate::{
    media::{Answer, MediaError, MediaRelay, Offer},
    sdp,
    sip::{
        transaction::Hop,
        wire::{Message, Method, multipart},
    },
};

impl Proxy {
    /// Takes the session description of a request through the media room. Returns whether it was an offer, and the
    /// body to send on when it changed.
    pub(super) fn negotiate_request(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        ingress: Hop,
        egress: Hop,
        message: &Message,
        call: Option<&(u64, Party, Option<Bytes>)>,
    ) -> Result<(bool, Option<Vec<u8>>), MediaError> {
        const NOTHING: (bool, Option<Vec<u8>>) = (false, None);
        let Some((number, party, dialog_tag)) = call else { return Ok(NOTHING) };
        let method = message.method();
        if !matches!(method, Method::Invite | Method::Update | Method::Prack | Method::Ack) {
            return Ok(NOTHING);
        }
        let Some(range) = multipart::sdp_range(message) else { return Ok(NOTHING) };
        let Some(call) = self.calls.get_mut(number).filter(|call| is_call(call)) else { return Ok(NOTHING) };
        let sdp = message.body().get(range.clone()).unwrap_or_default();
        let body = |rewritten: &[u8]| Some(multipart::replace(message.body(), range.clone(), rewritten));
        if matches!(method, Method::Ack | Method::Prack) && Self::owes(call, *party) {
            if let Some(dialog) = dialog_tag.as_ref().and_then(|tag| call.dialog(tag)) {
                dialog.acked = Some(Negotiated {
                    tag: Bytes::copy_from_slice(message.from_tag()),
                    original: Bytes::copy_from_slice(sdp),
                    rewritten: Bytes::new(),
                });
            }
            if let Some(tag) = dialog_tag {
                self.close_lent(now, media, *number, (*party, tag), sdp);
            }
            return Ok((false, Some(multipart::replace(message.body(), range, b""))));
        }
        let media_key = call.info.media_key.clone();
        let caller_tag = call.caller.tag.clone();
        let dialog = dialog_tag.as_ref().and_then(|tag| call.dialog(tag));
        let recipient_tag = match party {
            Party::Caller => dialog_tag.clone(),
            Party::Callee => Some(caller_tag),
        };
        if let Some(dialog) = dialog
            && matches!(method, Method::Ack | Method::Prack)
        {
            if let Some(done) = &dialog.acked
                && done.original == sdp
            {
                return Ok((false, body(&done.rewritten)));
            }
            if dialog.offer_by == Some(party.other()) {
                let answer = Answer {
                    call: &media_key,
                    from_tag: recipient_tag.as_deref().unwrap_or_default(),
                    to_tag: message.from_tag(),
                    from: egress.network,
                    to: ingress.network,
                    sdp,
                };
                let rewritten = media.answer(now, &answer)?;
                let rewritten = held_as(&self.settings, egress, rewritten);
                let rewritten = Bytes::from(told(call, party.other(), rewritten));
                let Some(dialog) = dialog_tag.as_ref().and_then(|tag| call.dialog(tag)) else {
                    return Ok((false, body(&rewritten)));
                };
                dialog.offer_by = None;
                dialog.acked = Some(Negotiated {
                    tag: Bytes::copy_from_slice(message.from_tag()),
                    original: Bytes::copy_from_slice(sdp),
                    rewritten: rewritten.clone(),
                });
                Self::note_said(call, *party, sdp);
                return Ok((false, body(&rewritten)));
            }
        }
        if method == &Method::Ack {
            return Ok(NOTHING); // nothing was offered: some phones repeat a description here
        }
        let offer = Offer {
            call: &media_key,
            from_tag: message.from_tag(),
            to_tag: recipient_tag.as_deref(),
            from: ingress.network,
            to: egress.network,
            sdp,
        };
        let rewritten = held_as(&self.settings, egress, media.offer(now, &offer)?);
        call.media = true;
        note_hold(call, sdp);
        Self::note_said(call, *party, sdp);
        let rewritten = told(call, party.other(), rewritten);
        note_bandwidth(&mut self.admission, call, sdp, sdp::Of::Offer);
        Ok((true, body(&rewritten)))
    }

    /// Takes the session description of a response through the media room. Returns the body to send on when it
    /// changed. A description that the media room refuses goes on with all its streams refused, and is counted: the
    /// request that it answers has been accepted by the other side, which only the parties can undo, and no address
    /// of one side may reach the other.
    pub(super) fn negotiate_response(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        relay: &mut Relay,
        message: &Message,
    ) -> Option<Vec<u8>> {
        let (number, party, dialog) = relay.call.clone()?;
        let initial = dialog.is_none();
        if !message.status().is_some_and(|status| (101..300).contains(&status)) {
            return None;
        }
        let delayed = !relay.offered && relay.method == Method::Invite;
        if !relay.offered && !delayed {
            return None;
        }
        let range = multipart::sdp_range(message)?;
        let call = self.calls.get_mut(&number).filter(|call| is_call(call))?;
        let sdp = message.body().get(range.clone())?;
        let tag = message.to_tag().unwrap_or_default();
        let known = relay.negotiated.as_ref().filter(|done| done.tag == tag && done.original == sdp);
        if let Some(done) = known {
            return Some(multipart::replace(message.body(), range, &done.rewritten));
        }
        let media_key = call.info.media_key.clone();
        let result = if delayed {
            media.offer(
                now,
                &Offer {
                    call: &media_key,
                    from_tag: tag,
                    to_tag: Some(&relay.from_tag),
                    from: relay.egress.network,
                    to: relay.ingress.network,
                    sdp,
                },
            )
        } else {
            media.answer(
                now,
                &Answer {
                    call: &media_key,
                    from_tag: &relay.from_tag,
                    to_tag: tag,
                    from: relay.ingress.network,
                    to: relay.egress.network,
                    sdp,
                },
            )
        };
        let rewritten = match result {
            Ok(rewritten) if delayed => held_as(&self.settings, relay.ingress, rewritten),
            Ok(rewritten) => {
                // Who was held in another way than the other side meant answers to that.
                let offer = self.transactions.request(relay.server);
                let rewritten = if self.settings.hold_of(relay.egress).is_some() {
                    answer_to(offer, rewritten)
                } else {
                    rewritten
                };
                held_as(&self.settings, relay.ingress, rewritten)
            }
            Err(_) => {
                self.measure(Measure::MediaRefused);
                return Some(multipart::replace(message.body(), range, &without_streams(sdp)));
            }
        };
        // Each branch of a forked INVITE answers for itself.
        if initial && let Some(conversing) = call.conversing.as_deref_mut() {
            *conversing.origin(party) = None;
        }
        let rewritten = told(call, party, rewritten);
        let of = if delayed { sdp::Of::Offer } else { sdp::Of::Answer };
        note_bandwidth(&mut self.admission, call, sdp, of);
        Self::note_said(call, party.other(), sdp);
        if delayed {
            call.media = true;
            note_hold(call, sdp);
            let dialog_tag = match party {
                Party::Caller => Bytes::copy_from_slice(tag),
                Party::Callee => relay.from_tag.clone(),
            };
            if let Some(dialog) = call.dialog(&dialog_tag) {
                dialog.offer_by = Some(party.other());
                dialog.acked = None;
            }
        }
        let body = multipart::replace(message.body(), range, &rewritten);
        relay.negotiated = Some(Negotiated {
            tag: Bytes::copy_from_slice(tag),
            original: Bytes::copy_from_slice(sdp),
            rewritten: rewritten.into(),
        });
        if relay.lent {
            self.note_lent(number, party);
        }
        Some(body)
    }
}

/// A description in the way in which the peer at a hop is held.
fn held_as(settings: &Settings, peer: Hop, sdp: Vec<u8>) -> Vec<u8> {
    let Some(way) = settings.hold_of(peer) else { return sdp };
    let Some(own) = settings.network(peer.network).map(|network| network.advertised) else { return sdp };
    sdp::Session::parse(&sdp).ok().and_then(|session| sdp::hold_by(&session, way, own)).unwrap_or(sdp)
}

/// An answer that fits what was offered in a request.
fn answer_to(request: Option<&Message>, sdp: Vec<u8>) -> Vec<u8> {
    let offered = request.and_then(|request| request.body().get(multipart::sdp_range(request)?));
    let Some(Ok(offer)) = offered.map(sdp::Session::parse) else { return sdp };
    sdp::Session::parse(&sdp).ok().and_then(|answer| sdp::fitting_answer(&answer, &offer)).unwrap_or(sdp)
}

/// The description with port 0 for each stream (RFC 3264 section 6); nothing of one that cannot be read.
fn without_streams(sdp: &[u8]) -> Vec<u8> {
    let Ok(session) = sdp::Session::parse(sdp) else { return Vec::new() };
    let mut rewriter = sdp::Rewriter::new(&session);
    rewriter.set_all_connections(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for index in 0..session.media.len() {
        rewriter.set_port(index, 0);
        rewriter.remove_attributes(sdp::Target::Media(index), "crypto");
    }
    rewriter.ice(sdp::Ice::Remove);
    rewriter.finish()
}

/// Whether it has media: a subscription has none, and an ended call none any more.
fn is_call(call: &Call) -> bool {
    call.kind == Kind::Call && call.is_live()
}

/// An offer in an answered call says whether one side holds the other.
fn note_hold(call: &mut Call, sdp: &[u8]) {
    if matches!(call.info.state, CallState::Established | CallState::Held) {
        let held = sdp::Session::parse(sdp).is_ok_and(|session| session.all_held());
        call.info.state = if held { CallState::Held } else { CallState::Established };
    }
}

/// A description says what the call takes of its networks' lines from now on.
pub(super) fn note_bandwidth(admission: &mut Admission, call: &mut Call, sdp: &[u8], of: sdp::Of) {
    if let Some(share) = &mut call.share
        && let Ok(session) = sdp::Session::parse(sdp)
    {
        admission.change(share, session.bandwidth_kbps(of));
    }
}
