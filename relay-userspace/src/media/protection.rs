//! Whether each leg of a stream is SRTP or RTP: what each network's policy makes of an offer, and the keys of the legs
//! where the appliance translates between them.
//!
//! Where both sides can have what the offer says, it passes untouched, keys and all, and the kernel carries the stream.
//! Otherwise each leg has keys of its own: the offerer is answered with one of the appliance's, and the other party is
//! offered others. Invariants: a party that requires SRTP never has a leg without; a key is repeated for as long as its
//! suite and the party's own key stay as they are, and with it go the roll-over counters; whoever sends with a new key
//! is sent to with a new one.
//!
//! RFC 4568 (keys in session descriptions), RFC 8643 (SRTP offered in `RTP/AVP`).

use std::sync::Arc;

use super::stream::Side;
use crate::{
    datapath::{Incoming, Outgoing, Translation},
    net::SrtpPolicy,
    sdp::{Crypto, Media, Protocol, Rewriter, Target},
    srtp::{Inbound, KeyError, MasterKey, Outbound, Random, Suite},
};

/// The suites that are offered, in their order; the tag of each is its place. Short tags are taken, not offered, and more
/// lines would make the offer too long for a datagram that is not fragmented.
const OFFERED: [Suite; 4] =
    [Suite::AeadAes256Gcm, Suite::AeadAes128Gcm, Suite::Aes256CmSha1_80, Suite::Aes128CmSha1_80];
const CRYPTO: &str = "crypto";
/// What else would have the other party protect the media by itself (RFC 8122, RFC 4145, RFC 8842).
const DTLS: [&str; 3] = ["fingerprint", "setup", "tls-id"];

/// How a party's media comes and goes.
#[derive(Debug, Clone)]
pub(super) enum Leg {
    /// As it is: RTP, or what the parties protect from end to end.
    Plain,
    /// The party has been offered keys and has not answered.
    Awaited,
    /// SRTP with these keys: the party's, and ours.
    Keyed { inbound: Arc<Inbound>, outbound: Arc<Outbound>, tag: u32 },
}

impl Leg {
    /// What becomes of packets that come by this leg and leave by the other.
    pub(super) fn towards(&self, other: &Self) -> Option<Translation> {
        let from = match self {
            Self::Plain => Incoming::Plain,
            Self::Awaited => Incoming::Awaited,
            Self::Keyed { inbound, .. } => Incoming::Keyed(Arc::clone(inbound)),
        };
        let to = match other {
            Self::Plain => Outgoing::Plain,
            Self::Awaited => Outgoing::Awaited,
            Self::Keyed { outbound, .. } => Outgoing::Keyed(Arc::clone(outbound)),
        };
        match (&from, &to) {
            (Incoming::Plain, Outgoing::Plain) => None,
            _ => Some(Translation { from, to }),
        }
    }
}

/// What an offer has of a stream, or what the other party is to be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `RTP/AVP`.
    Plain,
    /// `RTP/AVP` with keys: SRTP if the other party can (RFC 8643).
    Optional,
    /// `RTP/SAVP` with keys.
    Secure,
    /// SRTP whose keys are not ours to read: DTLS, or suites that nobody here has.
    Foreign,
}

/// What an offer becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// It passes as it is.
    Pass,
    /// The appliance translates.
    Translate {
        /// Whether the offerer is answered with SRTP.
        offerer: Answered,
        /// What the other party is offered.
        towards: Form,
    },
}

/// How an offerer is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Rtp,
    Srtp,
}

/// Why an offer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The offerer's network takes SRTP only.
    NeedsSrtp,
    /// The offerer's network takes RTP only.
    NeedsRtp,
    /// The other network's policy would have it translated, and it cannot be.
    CannotTranslate,
}

/// What becomes of an offer between networks with these policies. `now` is what the other party has, while the
/// appliance translates for it already.
pub(super) fn plan(
    offerer: SrtpPolicy,
    target: SrtpPolicy,
    offered: Form,
    now: Option<Form>,
) -> Result<Plan, Refused> {
    match (offerer, offered) {
        (SrtpPolicy::Require, Form::Plain | Form::Foreign) => return Err(Refused::NeedsSrtp),
        (SrtpPolicy::Off, Form::Secure | Form::Foreign) => return Err(Refused::NeedsRtp),
        _ => {}
    }
    let towards = match (target, now) {
        (SrtpPolicy::Require, _) => Form::Secure,
        (SrtpPolicy::Offer, _) => Form::Optional,
        (SrtpPolicy::Off, _) => Form::Plain,
        (SrtpPolicy::Pass, Some(now)) => now,
        (SrtpPolicy::Pass, None) if offerer == SrtpPolicy::Off => Form::Plain,
        (SrtpPolicy::Pass, None) => offered,
    };
    // An optional offer may be answered without SRTP, which is not for us to let happen where it is required.
    // Nor is one with SRTP where there is none to be.
    let strict = matches!(offerer, SrtpPolicy::Require | SrtpPolicy::Off);
    let as_offered = towards == offered && !(offered == Form::Optional && strict);
    if as_offered {
        return Ok(Plan::Pass);
    }
    let answered = match offered {
        Form::Foreign => return Err(Refused::CannotTranslate),
        Form::Plain => Answered::Rtp,
        Form::Secure => Answered::Srtp,
        // Between these two, RTP is what they would agree on.
        Form::Optional if offerer == SrtpPolicy::Pass && towards == Form::Plain => Answered::Rtp,
        Form::Optional if offerer == SrtpPolicy::Off => Answered::Rtp,
        Form::Optional => Answered::Srtp,
    };
    Ok(Plan::Translate { offerer: answered, towards })
}

/// The usable keys of a media description, and why the first of the others is not.
pub(super) fn keys(media: &Media<'_>) -> (Vec<Crypto>, Option<String>) {
    let (mut keys, mut why) = (Vec::new(), None);
    for attribute in media.attributes.iter().filter(|attribute| attribute.name == CRYPTO.as_bytes()) {
        match Crypto::parse(attribute.value.unwrap_or_default()) {
            Ok(crypto) => keys.push(crypto),
            Err(error) => why = why.or_else(|| Some(error.to_string())),
        }
    }
    (keys, why)
}

/// What an offer has of a stream; none if it is no RTP.
pub(super) fn form(media: &Media<'_>, has_keys: bool) -> Option<Form> {
    match (media.protocol, has_keys) {
        (Protocol::Rtp, true) => Some(Form::Optional),
        (Protocol::Rtp, false) => Some(Form::Plain),
        (Protocol::Srtp, true) => Some(Form::Secure),
        (Protocol::Srtp, false) | (Protocol::DtlsSrtp, _) => Some(Form::Foreign),
        (Protocol::Udptl | Protocol::Udp | Protocol::Other, _) => None,
    }
}

/// What the last offer of a stream leads to, until the next one.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) offerer: Side,
    pub(super) plan: Plan,
    /// The protocol of the offer, which its answer repeats (RFC 3264 section 6).
    protocol: String,
    /// The offerer's leg from the answer on.
    pub(super) leg: Leg,
    /// The keys that the other party is offered, by their tags.
    keys: Vec<(u32, Arc<Outbound>)>,
}

impl Proposal {
    /// Chooses the offerer's key, and makes those that are missing. `own` and `other` are the legs as they are.
    pub(super) fn new(
        side: Side,
        plan: Plan,
        media: &Media<'_>,
        offered: &[Crypto],
        (own, other): (&Leg, &Leg),
        random: Random,
    ) -> Result<Self, KeyError> {
        let protocol = String::from_utf8_lossy(media.protocol_raw).into_owned();
        let mut proposal = Self { offerer: side, plan, protocol, leg: Leg::Plain, keys: Vec::new() };
        let Plan::Translate { offerer, towards } = plan else { return Ok(proposal) };
        let of_suite = |suite| offered.iter().find(|crypto| crypto.key.suite() == suite);
        if let (Answered::Srtp, Some(chosen)) = (offerer, Suite::PREFERRED.into_iter().find_map(of_suite)) {
            proposal.leg = match own {
                Leg::Keyed { inbound, outbound, .. } if *inbound.master() == chosen.key => {
                    Leg::Keyed { inbound: inbound.clone(), outbound: outbound.clone(), tag: chosen.tag }
                }
                _ => {
                    let ours = MasterKey::generate(chosen.key.suite(), random)?;
                    Leg::Keyed {
                        inbound: Arc::new(Inbound::new(chosen.key.clone())),
                        outbound: Arc::new(Outbound::new(ours)),
                        tag: chosen.tag,
                    }
                }
            };
        }
        if towards != Form::Plain {
            let current = match other {
                Leg::Keyed { outbound, .. } => Some(outbound),
                Leg::Plain | Leg::Awaited => None,
            };
            // One with a short tag that the party chose itself goes on.
            let further = current.map(|key| key.master().suite()).filter(|suite| !OFFERED.contains(suite));
            for (tag, suite) in (1..).zip(OFFERED.into_iter().chain(further)) {
                let key = match current.filter(|key| key.master().suite() == suite) {
                    Some(key) => Arc::clone(key),
                    None => Arc::new(Outbound::new(MasterKey::generate(suite, random)?)),
                };
                proposal.keys.push((tag, key));
            }
        }
        Ok(proposal)
    }

    /// The other party's leg until it answers.
    pub(super) fn awaited(&self) -> Leg {
        if self.keys.is_empty() { Leg::Plain } else { Leg::Awaited }
    }

    /// The other party's leg by its answer; `current` is what it was.
    ///
    /// # Errors
    /// If it has chosen no key that it was offered, and may not go without.
    pub(super) fn answered(&self, media: &Media<'_>, current: Option<&Leg>) -> Result<Leg, String> {
        let Plan::Translate { towards, .. } = self.plan else { return Ok(Leg::Plain) };
        let (keys, why) = keys(media);
        let chosen = keys.iter().find_map(|crypto| {
            let is_ours = |(tag, key): &&(u32, Arc<Outbound>)| {
                *tag == crypto.tag && key.master().suite() == crypto.key.suite()
            };
            Some((crypto, &self.keys.iter().find(is_ours)?.1))
        });
        match (chosen, towards) {
            (_, Form::Plain) => Ok(Leg::Plain),
            (Some((crypto, outbound)), _) => {
                let inbound = match current {
                    Some(Leg::Keyed { inbound, .. }) if *inbound.master() == crypto.key => {
                        Arc::clone(inbound)
                    }
                    _ => Arc::new(Inbound::new(crypto.key.clone())),
                };
                Ok(Leg::Keyed { inbound, outbound: Arc::clone(outbound), tag: crypto.tag })
            }
            (None, Form::Optional) if media.protocol == Protocol::Rtp && keys.is_empty() && why.is_none() => {
                Ok(Leg::Plain)
            }
            (None, _) => {
                Err(why.unwrap_or_else(|| "it chooses none of the keys that were offered".to_owned()))
            }
        }
    }

    /// Edits an offer for the other party.
    pub(super) fn write_offer(&self, rewriter: &mut Rewriter<'_, '_>, index: usize, media: &Media<'_>) {
        let Plan::Translate { towards, .. } = self.plan else { return };
        self.clear(rewriter, index, media, if towards == Form::Secure { "RTP/SAVP" } else { "RTP/AVP" });
        for (tag, key) in &self.keys {
            add(rewriter, index, *tag, key);
        }
    }

    /// Edits an answer for the offerer.
    pub(super) fn write_answer(&self, rewriter: &mut Rewriter<'_, '_>, index: usize, media: &Media<'_>) {
        if self.plan == Plan::Pass {
            return;
        }
        let secure = self.protocol.to_ascii_uppercase().contains("SAVP");
        self.clear(rewriter, index, media, if secure { "RTP/SAVP" } else { "RTP/AVP" });
        if let (Leg::Keyed { outbound, tag, .. }, false) = (&self.leg, media.is_disabled()) {
            add(rewriter, index, *tag, outbound);
        }
    }

    /// Takes out what a party says of its own protection, and sets the protocol; feedback (`F`) stays what it was.
    fn clear(&self, rewriter: &mut Rewriter<'_, '_>, index: usize, media: &Media<'_>, protocol: &str) {
        let feedback = if self.protocol.ends_with(['F', 'f']) { "F" } else { "" };
        let protocol = format!("{protocol}{feedback}");
        if !media.protocol_raw.eq_ignore_ascii_case(protocol.as_bytes()) {
            rewriter.set_protocol(index, &protocol);
        }
        for name in std::iter::once(CRYPTO).chain(DTLS) {
            rewriter.remove_attributes(Target::Media(index), name);
            rewriter.remove_attributes(Target::Session, name);
        }
    }
}

/// What the other party has, for [`plan`]; none while nothing is translated.
pub(super) fn now((own, other): (&Leg, &Leg)) -> Option<Form> {
    match (own, other) {
        (Leg::Plain, Leg::Plain) => None,
        (_, Leg::Plain) => Some(Form::Plain),
        (_, Leg::Awaited) => Some(Form::Optional),
        (_, Leg::Keyed { .. }) => Some(Form::Secure),
    }
}

fn add(rewriter: &mut Rewriter<'_, '_>, index: usize, tag: u32, key: &Arc<Outbound>) {
    let line = Crypto { tag, key: key.master().clone() }.expose();
    rewriter.add_attribute(index, format_args!("{CRYPTO}:{}", *line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_policies_has_a_plan_for_each_offer() {
        use Answered::{Rtp, Srtp};
        use Form::{Foreign, Optional, Plain, Secure};
        use Refused::{CannotTranslate, NeedsRtp, NeedsSrtp};
        use SrtpPolicy::{Off, Offer, Pass, Require};
        let pass = Ok(Plan::Pass);
        let to = |offerer, towards| Ok(Plan::Translate { offerer, towards });
        // Offerer's policy, the other's, and what becomes of RTP, optional SRTP, SRTP and foreign SRTP.
        #[rustfmt::skip]
        let rows = [
            (Pass, Pass, [pass, pass, pass, pass]),
            (Pass, Require, [to(Rtp, Secure), to(Srtp, Secure), pass, Err(CannotTranslate)]),
            (Pass, Offer, [to(Rtp, Optional), pass, to(Srtp, Optional), Err(CannotTranslate)]),
            (Pass, Off, [pass, to(Rtp, Plain), to(Srtp, Plain), Err(CannotTranslate)]),
            (Require, Pass, [Err(NeedsSrtp), to(Srtp, Optional), pass, Err(NeedsSrtp)]),
            (Require, Require, [Err(NeedsSrtp), to(Srtp, Secure), pass, Err(NeedsSrtp)]),
            (Require, Offer, [Err(NeedsSrtp), to(Srtp, Optional), to(Srtp, Optional), Err(NeedsSrtp)]),
            (Require, Off, [Err(NeedsSrtp), to(Srtp, Plain), to(Srtp, Plain), Err(NeedsSrtp)]),
            (Offer, Pass, [pass, pass, pass, pass]),
            (Offer, Require, [to(Rtp, Secure), to(Srtp, Secure), pass, Err(CannotTranslate)]),
            (Offer, Offer, [to(Rtp, Optional), pass, to(Srtp, Optional), Err(CannotTranslate)]),
            (Offer, Off, [pass, to(Srtp, Plain), to(Srtp, Plain), Err(CannotTranslate)]),
            (Off, Pass, [pass, to(Rtp, Plain), Err(NeedsRtp), Err(NeedsRtp)]),
            (Off, Require, [to(Rtp, Secure), to(Rtp, Secure), Err(NeedsRtp), Err(NeedsRtp)]),
            (Off, Offer, [to(Rtp, Optional), to(Rtp, Optional), Err(NeedsRtp), Err(NeedsRtp)]),
            (Off, Off, [pass, to(Rtp, Plain), Err(NeedsRtp), Err(NeedsRtp)]),
        ];
        for (offerer, target, plans) in rows {
            for (offered, expected) in [Plain, Optional, Secure, Foreign].into_iter().zip(plans) {
                assert_eq!(
                    plan(offerer, target, offered, None),
                    expected,
                    "{offerer:?} {target:?} {offered:?}"
                );
            }
        }
        // A party for whom the appliance translates is offered again what it has.
        assert_eq!(plan(Require, Pass, Secure, Some(Plain)), to(Srtp, Plain));
        assert_eq!(plan(Off, Pass, Plain, Some(Secure)), to(Rtp, Secure));
    }
}
