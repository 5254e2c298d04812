//! Transfers: a REFER to a peer that takes none is carried out here, and the peer gets a re-INVITE.
//!
//! The transferor is told 202 and, by NOTIFY, what becomes of it. The target is called in the transferee's name with the
//! transferee's last description: that INVITE comes from within, as if the transferee had sent it, and goes the ordinary ways
//! with all that belongs to them (failover, credentials, admission, forking); its responses end here. When the target
//! answers, the transferee gets the target's description, and its answer joins both: from then on they are one call, in which
//! the transferee goes on in the dialog that it had (`face`). The transferor's leg ends by its BYE, or by ours.
//! RFC 3515, RFC 3891, RFC 3892, RFC 5589 section 6 (with the appliance in the transferee's place).
//!
//! Invariants: where the target may be is decided as for a call of the transferor itself, so nobody reaches by REFER what it
//! could not call. One transfer at a time in a call. As long as the transferee has not taken the target's description, a
//! failure leaves the old call as it was.

mod outcome;
mod refer;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::refer::{Asked, dialog_of};
use super::{
    origin::told,
    speak::{Purpose, SDP_TYPE, Words},
};
use crate::{
    config::ReferStyle,
    media::MediaRelay,
    net::Role,
    proxy::{
        call::{Kind, Party},
        credentials::Credential,
        failover::to_phone,
        machine::Proxy,
        measure::{DropReason, Outcome},
        request::{Plan, Refuse},
        ways::Way,
    },
    sip::{
        Hop,
        transaction::{ServerId, keyed_hash},
        wire::{Message, Method, NameAddr, Reply, multipart},
    },
};

/// How long the transferor has to hang up when the transfer is done.
const LEAVE: Duration = Duration::from_secs(5);
/// How long a subscription of a transferor is said to live: longer than a phone may ring.
const SUBSCRIBED_SECONDS: u32 = 600;

/// How the branch of an INVITE from within begins.
const WITHIN: &[u8] = b"z9hG4bKwithin";

/// Whether a request looks like one from within.
pub(in crate::proxy) fn bears_mark(request: &Message) -> bool {
    request.via().branch().is_some_and(|branch| branch.starts_with(WITHIN))
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The target is being called.
    Calling,
    /// It has answered, and the transferee is being told.
    Joining,
}

/// A transfer that is under way, in the call of transferor and transferee.
#[derive(Debug)]
pub(in crate::proxy) struct Transfer {
    transferor: Party,
    /// The REFER's number, by which its subscription is known.
    event: u32,
    /// Whether the transferor wants to be told nothing.
    silent: bool,
    /// Whether it has hung up.
    gone: bool,
    /// The INVITE to the target, from within, and its Call-ID.
    server: ServerId,
    call_id: Bytes,
    /// The registration that pays for it, if a server wants credentials: the transferor's own.
    payer: Option<String>,
    stage: Stage,
    /// The last status that the transferor was told.
    told: u16,
    /// What the target has answered, as the transferee gets it.
    answer: Vec<u8>,
}

impl Proxy {
    /// Whether a request is for the appliance where it speaks itself. What it does with it is done then.
    pub(in crate::proxy) fn attends(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: ServerId,
        hop: Hop,
        message: &Message,
    ) -> bool {
        let Some(to_tag) = message.to_tag() else { return false };
        let found = self.by_call_id.get(message.call_id()).and_then(|numbers| {
            numbers.iter().rev().find_map(|number| {
                let call = self.calls.get(number)?;
                call.conversing.as_ref()?;
                let (party, index) = call.sender(hop.network, message.from_tag(), to_tag)?;
                Some((*number, party, call.dialogs.get(index)?.callee.tag.clone()))
            })
        });
        let Some((number, party, dialog)) = found else { return false };
        let method = message.method();
        let Some(call) = self.calls.get_mut(&number) else { return false };
        let live = call.is_live();
        let Some(conversing) = call.conversing.as_deref_mut() else { return false };
        let answer = |proxy: &mut Self, status| {
            let tag = proxy.local_tag(message);
            proxy.transactions.reply(now, server, &Reply::new(status, &tag));
            true
        };
        // In a dialog beside the one that was answered nothing is converted. Where the appliance is itself one of its ends
        // nobody else knows it.
        if conversing.tag.as_ref().is_some_and(|answered| *answered != dialog) {
            if conversing.face.is_none() && !conversing.within {
                return false;
            }
            if method == &Method::Bye {
                self.end_dialog(now, media, number, &dialog);
                return answer(self, 200);
            }
            return answer(self, 481);
        }
        if conversing.parted == Some(party) {
            if method == &Method::Bye {
                conversing.leave = None;
                self.reschedule(number);
                return answer(self, 200);
            }
            self.drop(DropReason::NoDialog);
            return answer(self, 481);
        }
        // Until the transferee is joined to it, the target speaks with nobody.
        if conversing.within && party == Party::Callee {
            if method == &Method::Bye {
                answer(self, 200);
                self.finish_call(now, media, number, Outcome::Answered);
                return true;
            }
            return answer(self, if live { 491 } else { 481 });
        }
        if let Some(transfer) = conversing.transfer.as_deref_mut() {
            let by_transferor = party == transfer.transferor;
            match method {
                Method::Bye if by_transferor => {
                    transfer.gone = true;
                    return answer(self, 200);
                }
                Method::Bye => {
                    let gone = transfer.gone;
                    self.abort_transfer(now, media, number);
                    if gone {
                        answer(self, 200);
                        self.finish_call(now, media, number, Outcome::Answered);
                    }
                    return gone;
                }
                Method::Refer | Method::Invite | Method::Update => return answer(self, 491),
                _ => return transfer.gone && answer(self, 480),
            }
        }
        let transferee = conversing.voice(party.other());
        let converts = method == &Method::Refer
            && live
            && transferee.refer == ReferStyle::Reinvite
            && transferee.said.is_some()
            && conversing.tag.is_some();
        if !converts {
            return false;
        }
        if let Err(refuse) = self.transfer(now, media, server, (number, party, hop), message) {
            self.refuse(now, server, message, refuse);
        }
        true
    }

    /// Begins a transfer.
    fn transfer(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        server: ServerId,
        (number, transferor, by): (u64, Party, Hop),
        message: &Message,
    ) -> Result<(), Refuse> {
        let gone = || Refuse::new(481, DropReason::NoDialog);
        let asked = Asked::of(message)?;
        let call = self.calls.get(&number).ok_or_else(gone)?;
        let conversing = call.conversing.as_deref().ok_or_else(gone)?;
        let tag = conversing.tag.clone().ok_or_else(gone)?;
        let (transferee, _) = call.sides(transferor.other(), &tag).ok_or_else(gone)?;
        let from = transferee.source;
        let own = self.own(by);
        let contact = format!("Contact: <sip:{}>\r\n", own.uri());
        let quiet = if asked.silent { "Refer-Sub: false\r\n" } else { "" };
        let headers = format!("{contact}{quiet}");
        // Names that nobody else can have.
        let mark = keyed_hash(
            self.settings.secret,
            &[b"transfer", &number.to_be_bytes(), message.call_id(), &message.cseq().to_be_bytes()],
        );
        let address = self.own(from).address;
        let call_id = format!("{mark:016x}@{}", address.ip());
        let invite = |name: &str| {
            let target = transferee.target.as_deref().map_or_else(
                || format!("sip:{}", transferee.source.address),
                |target| String::from_utf8_lossy(target).into_owned(),
            );
            let name = NameAddr::parse(name.as_bytes())?;
            let display = String::from_utf8_lossy(name.display).into_owned();
            let uri = String::from_utf8_lossy(name.uri).into_owned();
            let hops = message.max_forwards().unwrap_or(70).saturating_sub(1);
            let mut text = format!(
                "INVITE {to} SIP/2.0\r\n\
                 Via: SIP/2.0/{transport} {address};branch={within}{mark:016x}\r\n\
                 Max-Forwards: {hops}\r\n\
                 From: {display}<{uri}>;tag={mark:016x}\r\n\
                 To: <{to}>\r\n\
                 Call-ID: {call_id}\r\n\
                 CSeq: 1 INVITE\r\n\
                 Contact: <{target}>\r\n\
                 Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE\r\n",
                to = asked.uri,
                transport = from.transport,
                within = String::from_utf8_lossy(WITHIN),
            );
            if let Some(privacy) = &conversing.voice(transferor.other()).privacy {
                text += &format!("Privacy: {privacy}\r\n");
            }
            if let Some(replaces) = &asked.replaces {
                text += &format!("Replaces: {replaces}\r\n");
            }
            // Nobody has referred whom nobody is to know.
            let hidden = transferor == Party::Caller && call.anonymous.is_some();
            if let Some(referred_by) = asked.referred_by.as_ref().filter(|_| !hidden) {
                text += &format!("Referred-By: {referred_by}\r\n");
            }
            let body = active(conversing.voice(transferor.other()).said.as_deref()?);
            text += &format!("{SDP_TYPE}Content-Length: {}\r\n\r\n{body}", body.len());
            Message::parse(&Bytes::from(text)).ok()
        };
        let malformed = || Refuse::because(400, DropReason::ReferRefused, "Malformed Refer-To");
        let sent = invite(&conversing.voice(transferor.other()).name).ok_or_else(malformed)?;
        // Rules look at who calls: that is who asks for it.
        let judged = invite(&conversing.voice(transferor).name).ok_or_else(malformed)?;
        // What comes by a server is let through by it, and answered as the transferee would have answered it itself.
        let by_server = self.is_in(by, Role::Servers);
        let payer = if by_server { self.payer(from, &sent) } else { self.payer(by, &judged) };
        let tag = self.local_tag(message);
        let reply =
            Reply { status: 202, reason: "Accepted", to_tag: Some(&tag), headers: headers.as_bytes() };
        self.transactions.reply(now, server, &reply);
        let within = self.transactions.open_within(from, &sent);
        let call_id = Bytes::from(call_id);
        self.transfers.insert(call_id.clone(), number);
        if let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        {
            conversing.transfer = Some(Box::new(Transfer {
                transferor,
                event: message.cseq(),
                silent: asked.silent,
                gone: false,
                server: within,
                call_id,
                payer,
                stage: Stage::Calling,
                told: 0,
                answer: Vec::new(),
            }));
        }
        self.tell_transferor(now, number, 100, "Trying");
        let planned = self.plan_transfer(now, by, &judged, asked.replaces.as_deref());
        let done = planned.and_then(|plan| self.forward(now, media, within, from, &sent, &plan));
        if let Err(refuse) = done {
            self.refuse(now, within, &sent, refuse);
        }
        Ok(())
    }

    /// Where the target is, for a transferor there: as for a call of its own.
    fn plan_transfer(
        &mut self,
        now: Instant,
        by: Hop,
        message: &Message,
        replaces: Option<&str>,
    ) -> Result<Plan, Refuse> {
        if message.max_forwards() == Some(0) {
            return Err(Refuse::new(483, DropReason::TooManyHops));
        }
        if let Some(plan) = replaces.and_then(dialog_of).and_then(|dialog| self.plan_replaced(by, dialog)) {
            return Ok(plan);
        }
        let role = self.settings.network(by.network).map_or(Role::Phones, |network| network.role);
        if role != Role::Servers {
            return self.plan_outside(now, by, role, message, 0);
        }
        // What a server names as being here is a phone; where anybody else is, the servers know.
        let here = message.parsed_request_uri().filter(|uri| self.settings.is_ours(uri));
        let binding = here.and_then(|uri| self.registrar.find(&uri));
        if let Some(binding) = binding {
            return Ok(to_phone(binding, 0));
        }
        let servers = self.groups.candidates(now, self.group_of(by, message)).into_iter();
        let ways: VecDeque<Way> = servers.map(|target| Way::Server(target, None)).collect();
        self.plan_next(message, 0, ways)
            .ok_or_else(|| Refuse::because(503, DropReason::NoDestination, "No Server"))
    }

    /// The other party of a call of the transferor's own, which the new one takes the place of.
    fn plan_replaced(&self, by: Hop, (call_id, to_tag, from_tag): (&[u8], &[u8], &[u8])) -> Option<Plan> {
        let numbers = self.by_call_id.get(call_id)?;
        numbers.iter().filter_map(|number| self.calls.get(number)).find_map(|call| {
            let standing = call.kind == Kind::Call && call.is_live();
            let mut dialogs =
                call.dialogs.iter().filter(|dialog| standing && dialog.confirmed && !dialog.over);
            let (target, own) = dialogs.find_map(|dialog| {
                let sides = [(&call.caller, &dialog.callee), (&dialog.callee, &call.caller)];
                sides.into_iter().find(|(target, own)| target.tag == to_tag && own.tag == from_tag)
            })?;
            let is_its = own.source.network == by.network && own.source.address.ip() == by.address.ip();
            let egress = self.hop_toward(target, None);
            is_its
                .then(|| Plan { uri: target.target.as_ref().map(|uri| uri.to_vec()), ..Plan::to(egress, 0) })
        })
    }

    /// A response to an INVITE from within.
    pub(in crate::proxy) fn answered_within(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        status: u16,
        payload: &Bytes,
    ) {
        let Ok(message) = Message::parse(payload) else { return };
        let target = self.call_within(message.call_id());
        let outer = self.transfers.get(message.call_id()).copied();
        let success = (200..300).contains(&status);
        if success && let Some(target) = target {
            if self.is_beside(target, &message) {
                return self.dismiss(now, media, target, &message);
            }
            self.acknowledge_within(now, target);
        }
        let reason = String::from_utf8_lossy(message.reason()).into_owned();
        match (outer, status) {
            (Some(number), 101..200) => self.tell_transferor(now, number, status, &reason),
            (Some(number), 200..300) => {
                let answer = multipart::sdp_range(&message).and_then(|range| message.body().get(range));
                let Some(transfer) = self.transfer_of(number).filter(|known| known.stage == Stage::Calling)
                else {
                    return;
                };
                transfer.stage = Stage::Joining;
                match answer {
                    Some(answer) => {
                        transfer.answer = answer.to_vec();
                        let toward = transfer.transferor.other();
                        self.tell_description(now, media, number, toward, Purpose::Join(0));
                    }
                    None => self.transfer_failed(now, media, number, 488, "Not Acceptable Here"),
                }
            }
            (Some(number), 300..) => self.transfer_failed(now, media, number, status, &reason),
            // Nobody waits for it any more.
            (None, 200..300) => {
                if let Some(target) = target.filter(|target| self.is_unjoined(*target)) {
                    self.let_go(now, media, target);
                }
            }
            _ => {}
        }
    }

    /// Whether a request is the INVITE to the target of a transfer, as it comes from within. What a server makes of it and
    /// sends back here has the same Call-ID.
    pub(in crate::proxy) fn is_from_within(&self, server: ServerId, message: &Message) -> bool {
        self.transfer_within(message.call_id()).is_some_and(|transfer| transfer.server == server)
    }

    fn transfer_within(&self, call_id: &[u8]) -> Option<&Transfer> {
        if self.transfers.is_empty() {
            return None;
        }
        self.calls.get(self.transfers.get(call_id)?)?.conversing.as_deref()?.transfer.as_deref()
    }

    /// What challenges to the INVITE to a target are answered with: the entry of the transferor, who spends it.
    pub(in crate::proxy) fn transferors_credential(&self, call_id: &[u8]) -> Option<&Credential> {
        let payer = self.transfer_within(call_id)?.payer.as_ref()?;
        self.credentials.of(payer.as_bytes())
    }

    /// The registration of a transferor, if it is a phone that is registered where its REFER comes from: a name alone could
    /// be anybody's.
    fn payer(&self, by: Hop, judged: &Message) -> Option<String> {
        if !self.is_in(by, Role::Phones) {
            return None;
        }
        let user = NameAddr::parse(judged.from_value())?.parsed_uri()?.user?;
        let registration = &self.credentials.of(user)?.registration_id;
        let tokens = [user, registration.as_bytes()].map(|user| self.registrar.tokens_of_user(user));
        let mut bindings = tokens.iter().flatten().filter_map(|token| self.registrar.binding(*token));
        let is_here = bindings.any(|binding| {
            binding.source.network == by.network && binding.source.address.ip() == by.address.ip()
        });
        is_here.then(|| registration.clone())
    }

    /// The call to the target of a transfer.
    fn call_within(&self, call_id: &[u8]) -> Option<u64> {
        let is_it = |number: &&u64| {
            let conversing = self.calls.get(number).and_then(|call| call.conversing.as_deref());
            conversing.is_some_and(|conversing| conversing.invited.is_some() || conversing.within)
        };
        self.by_call_id.get(call_id)?.iter().rev().find(is_it).copied()
    }

    fn transfer_of(&mut self, number: u64) -> Option<&mut Transfer> {
        self.calls.get_mut(&number)?.conversing.as_deref_mut()?.transfer.as_deref_mut()
    }

    /// What the transferee of a call is offered: the target's answer.
    pub(super) fn offer_of_target(&mut self, number: u64, toward: Party) -> Option<Vec<u8>> {
        let transfer = self.transfer_of(number).filter(|transfer| transfer.stage == Stage::Joining)?;
        let answer = transfer.answer.clone();
        Some(told(self.calls.get_mut(&number)?, toward, answer))
    }

    fn is_unjoined(&self, number: u64) -> bool {
        let call = self.calls.get(&number).filter(|call| call.is_live());
        call.and_then(|call| call.conversing.as_deref()).is_some_and(|conversing| conversing.face.is_none())
    }

    /// Hangs up with a target that nobody is joined to.
    fn let_go(&mut self, now: Instant, media: &mut dyn MediaRelay, target: u64) {
        let words = Words { method: Method::Bye, purpose: Purpose::Bye, headers: "", body: None };
        self.speak(now, target, Party::Callee, &words);
        self.finish_call(now, media, target, Outcome::Answered);
    }
}

/// A description without a hold: who was put on hold before the transfer speaks again after it.
fn active(said: &str) -> String {
    let kept = said
        .split_inclusive('\n')
        .filter(|line| !matches!(line.trim_end(), "a=sendonly" | "a=recvonly" | "a=inactive"));
    kept.collect()
}
