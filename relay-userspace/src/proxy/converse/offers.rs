//! Offers for peers that take no INVITE without one.
//!
//! The first INVITE of a call gets the codecs that are configured for the peer and the appliance's own address, for nobody
//! knows yet where the caller's media will be; a later one gets what its sender has said last. The answer in the 200 goes on
//! as the offer that the sender has asked for, and the sender's answer in ACK or PRACK ends here: the media room is told of
//! it as of an offer that the peer has answered already. Where it says something that the peer has to know (streams that
//! are refused, another direction, one codec of several), the peer gets a re-INVITE with it. RFC 3261 section 13.2.1,
//! RFC 3264, RFC 3725 section 4.1.
//!
//! Invariant: what the peer is offered has been through the media room like any other offer, so its media comes to the
//! appliance.

use std::{fmt::Write as _, net::IpAddr, time::Instant};

use bytes::Bytes;

use super::{listen::has_other_keys, origin::told, speak::Purpose};
use crate::{
    config::{Codec, DelayedOffers},
    media::{Answer, MediaError, MediaRelay, Offer},
    proxy::{
        call::{Call, Kind, Party},
        machine::Proxy,
        measure::{Conversion, Measure},
        negotiate::note_bandwidth,
    },
    sdp::{self, Direction},
    sip::{
        Hop,
        wire::{Message, Method},
    },
};

/// The first dynamic payload type (RFC 3551 section 6), and the one that most give to DTMF.
const FIRST_DYNAMIC: u8 = 96;
const DTMF: u8 = 101;
/// Where a party's media is while nobody knows.
const NOWHERE: [&str; 2] = ["IN IP4 0.0.0.0", "IN IP6 ::"];

/// An offer with these codecs, of a party whose media is nowhere yet.
fn description(codecs: &[Codec], session: u64) -> String {
    let mut formats = String::new();
    let mut lines = String::new();
    let mut dynamic = FIRST_DYNAMIC;
    for codec in codecs {
        let number = match codec.payload {
            Some(number) => number,
            None if codec.mapping.starts_with("telephone-event/8000") => DTMF,
            None => {
                if dynamic == DTMF {
                    dynamic += 1;
                }
                dynamic += 1;
                dynamic - 1
            }
        };
        // Writing to a String cannot fail.
        let _ = write!(formats, " {number}");
        let _ = write!(lines, "a=rtpmap:{number} {}\r\n", codec.mapping);
        if let Some(parameters) = &codec.parameters {
            let _ = write!(lines, "a=fmtp:{number} {parameters}\r\n");
        }
    }
    // The port is one that the media room replaces; only 0 would mean something.
    format!(
        "v=0\r\no=branchline {session} 1 {nowhere}\r\ns=-\r\nc={nowhere}\r\nt=0 0\r\nm=audio 9 RTP/AVP{formats}\r\n{lines}a=ptime:20\r\na=sendrecv\r\n",
        nowhere = NOWHERE[0],
    )
}

/// Whether what a party answers has to be told to the one that it answers: in an answer of the second to an offer of the
/// first, a stream is refused, a direction does not fit, or one codec was chosen of several.
fn matters(answer: &[u8], offered: &[u8]) -> bool {
    let (Ok(answer), Ok(offered)) = (sdp::Session::parse(answer), sdp::Session::parse(offered)) else {
        return false;
    };
    let codecs = |media: &sdp::Media<'_>| -> Vec<Vec<u8>> {
        let events: Vec<u8> = media
            .rtpmaps
            .iter()
            .filter(|map| {
                map.encoding.eq_ignore_ascii_case(b"telephone-event")
                    || map.encoding.eq_ignore_ascii_case(b"CN")
            })
            .map(|map| map.payload_type)
            .collect();
        let words = media.formats_raw.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let is_event = |word: &&[u8]| events.iter().any(|event| event.to_string().as_bytes() == *word);
        words.filter(|word| !is_event(word)).map(<[u8]>::to_vec).collect()
    };
    let mirrored = |direction| match direction {
        Direction::SendOnly => Direction::RecvOnly,
        Direction::RecvOnly => Direction::SendOnly,
        both => both,
    };
    answer.media.len() != offered.media.len()
        || answer.media.iter().zip(&offered.media).any(|(answered, stream)| {
            let (theirs, ours) = (answer.direction_of(answered), offered.direction_of(stream));
            let (chosen, several) = (codecs(answered), codecs(stream));
            answered.is_disabled() != stream.is_disabled()
                || (!stream.is_disabled()
                    && (theirs != mirrored(ours)
                        || answer.is_held(answered)
                            != (ours == Direction::RecvOnly || ours == Direction::Inactive)
                        || (several.len() > 1 && chosen.len() < several.len())))
        })
}

/// The appliance's address in the place of nowhere: one of zeros stays one in the media room, for it is a hold where
/// somebody else says it.
fn here(offered: Vec<u8>, own: IpAddr) -> Vec<u8> {
    let own = if own.is_ipv4() { format!("IN IP4 {own}") } else { format!("IN IP6 {own}") };
    match String::from_utf8(offered) {
        Ok(text) => NOWHERE.iter().fold(text, |text, nowhere| text.replace(nowhere, &own)).into_bytes(),
        Err(error) => error.into_bytes(),
    }
}

impl Proxy {
    /// The description that an INVITE gets which has none, where the peer takes no such INVITE.
    pub(in crate::proxy) fn lend(
        &self,
        egress: Hop,
        message: &Message,
        call: Option<&(u64, Party, Option<Bytes>)>,
    ) -> Option<Bytes> {
        let (number, party, tag) = call?;
        let kept = self.calls.get(number).filter(|call| call.kind == Kind::Call && call.is_live())?;
        let conversing = kept.conversing.as_deref()?;
        if message.method() != &Method::Invite
            || conversing.voice(party.other()).delayed_offers != DelayedOffers::Offer
            || !message.body().is_empty()
        {
            return None;
        }
        if tag.is_some() {
            return conversing.voice(*party).said.clone().map(Bytes::from);
        }
        let codecs = &self.settings.peers.of(egress.network, egress.address.ip()).offer_codecs;
        Some(description(codecs, *number).into())
    }

    /// Takes a description that was lent through the media room. Returns what goes to the peer; `None` if the networks'
    /// policies on SRTP allow none, and the INVITE goes as it came.
    pub(in crate::proxy) fn offer_lent(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        (ingress, egress): (Hop, Hop),
        message: &Message,
        (number, party, tag): (u64, Party, Option<&Bytes>),
        lent: &[u8],
    ) -> Result<Option<Vec<u8>>, MediaError> {
        let Some(call) = self.calls.get_mut(&number) else { return Ok(None) };
        let to_tag = match party {
            Party::Caller => tag.cloned(),
            Party::Callee => Some(call.caller.tag.clone()),
        };
        let offer = Offer {
            call: &call.info.media_key,
            from_tag: message.from_tag(),
            to_tag: to_tag.as_deref(),
            from: ingress.network,
            to: egress.network,
            sdp: lent,
        };
        let offered = match media.offer(now, &offer) {
            Err(MediaError::Srtp(_)) => return Ok(None),
            offered => offered?,
        };
        call.media = true;
        note_bandwidth(&mut self.admission, call, lent, sdp::Of::Offer);
        let own = self.settings.network(egress.network).map(|network| network.advertised);
        let offered = match (tag, own) {
            (None, Some(own)) => here(offered, own),
            _ => offered,
        };
        Ok(Some(told(call, party.other(), offered)))
    }

    /// An INVITE that got a description is answered: its sender owes an answer of its own.
    pub(in crate::proxy) fn note_lent(&mut self, number: u64, sender: Party) {
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.owes = Some(sender);
        }
    }

    /// Whether a party owes the answer to an offer that was made of another's answer.
    pub(in crate::proxy) fn owes(call: &Call, party: Party) -> bool {
        call.conversing.as_deref().is_some_and(|conversing| conversing.owes == Some(party))
    }

    /// A party's answer in ACK or PRACK to what it was sent as an offer. The peer has answered long ago.
    pub(in crate::proxy) fn close_lent(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        (sender, tag): (Party, &Bytes),
        sdp: &[u8],
    ) {
        let Some(matters) = self.settle(now, media, number, (sender, tag), sdp) else { return };
        self.converted(Conversion::DelayedOffer);
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.owes = None;
            if matters {
                conversing.tell(now, sender.other(), Purpose::Tell(1));
            }
        }
        self.reschedule(number);
    }

    /// Takes what a party answers through the media room as an offer that the other one has answered already. Says whether
    /// the other one has to be told of it.
    pub(in crate::proxy) fn settle(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        number: u64,
        (sender, tag): (Party, &Bytes),
        sdp: &[u8],
    ) -> Option<bool> {
        let call = self.calls.get_mut(&number).filter(|call| call.is_live())?;
        let conversing = call.conversing.as_deref()?;
        let answered = conversing.voice(sender.other()).said.clone()?;
        let (offerer, answerer) = call.sides(sender, tag)?;
        let offer = Offer {
            call: &call.info.media_key,
            from_tag: &offerer.tag,
            to_tag: Some(&answerer.tag),
            from: offerer.source.network,
            to: answerer.source.network,
            sdp,
        };
        let answer = Answer {
            call: &call.info.media_key,
            from_tag: &offerer.tag,
            to_tag: &answerer.tag,
            from: offerer.source.network,
            to: answerer.source.network,
            sdp: answered.as_bytes(),
        };
        let taken = media.offer(now, &offer).and_then(|_| media.answer(now, &answer));
        if taken.is_err() {
            self.measure(Measure::MediaRefused);
            return None;
        }
        let before = call.conversing.as_deref().and_then(|conversing| conversing.voice(sender).said.clone());
        Self::note_said(call, sender, sdp);
        let other_keys = before.is_some_and(|before| has_other_keys(before.as_bytes(), sdp));
        Some(other_keys || matters(sdp, answered.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_our_own_can_be_read_and_has_the_codecs_in_their_order() {
        let mut codecs = Codec::usual();
        codecs.push(Codec::try_from("iLBC/8000".to_owned()).unwrap());
        let text = description(&codecs, 7);
        let session = sdp::Session::parse(text.as_bytes()).unwrap();
        assert_eq!(session.media[0].formats_raw, b"8 0 9 18 96 101 97");
        assert!(text.contains("a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=rtpmap:97 iLBC/8000\r\n"));
    }

    #[test]
    fn a_peer_is_told_of_an_answer_that_says_more_than_where_media_goes() {
        let sdp = |formats: &str, more: &str| {
            format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
            )
        };
        let refused = sdp("8", "").replace("audio 4000", "audio 0");
        let rows = [
            ("the same", sdp("8 101", ""), sdp("8 101", ""), false),
            ("without DTMF", sdp("8", ""), sdp("8 101", ""), false),
            ("one of two codecs", sdp("0 101", ""), sdp("8 0 101", ""), true),
            ("both of two codecs", sdp("0 8", ""), sdp("8 0 101", ""), false),
            ("a hold", sdp("8", "a=sendonly\r\n"), sdp("8", ""), true),
            (
                "an old hold",
                sdp("8", "").replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0"),
                sdp("8", ""),
                true,
            ),
            ("what fits", sdp("8", "a=recvonly\r\n"), sdp("8", "a=sendonly\r\n"), false),
            ("a stream refused", refused, sdp("8", ""), true),
        ];
        for (description, answer, offered, expected) in rows {
            assert_eq!(matters(answer.as_bytes(), offered.as_bytes()), expected, "{description}");
        }
    }
}
