//! Calls and subscriptions that stand, as they are kept beyond this process, and taken up by the next.
//!
//! What is kept is what a request within the dialog needs: who the parties are, where each is reached, and by how much
//! their numbers differ. Transactions are not: a request that was under way is repeated by its sender, or times out
//! there. So only dialogs that were confirmed are kept; a call that rings is begun anew by whoever wants it.

use std::{collections::HashMap, net::IpAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    call::{Call, CallInfo, CallState, Dialog, Kind, Side},
    converse::{Conversing, kept::ConversingRecord},
    machine::Proxy,
};
use crate::{
    net::{FormerNetworks, NetworkId},
    sip::Hop,
    store::{Epoch, text},
};

/// A call or subscription as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    kind: Kind,
    call_id: String,
    media_key: String,
    from: String,
    to: String,
    networks: (NetworkId, NetworkId),
    from_agent: Option<String>,
    to_agent: Option<String>,
    state: CallState,
    started_unix_ms: i64,
    answered_unix_ms: Option<i64>,
    forget_unix_ms: Option<i64>,
    media: bool,
    caller: SideRecord,
    callees: Vec<SideRecord>,
    /// The caller's header From, where it is nobody's at the other side.
    #[serde(default)]
    anonymous: Option<String>,
    /// Absent in records of earlier versions, and where nothing is converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conversing: Option<Box<ConversingRecord>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SideRecord {
    tag: String,
    target: Option<String>,
    source: Hop,
    disconnected: bool,
    routes: Vec<IpAddr>,
    /// By how much the server's CSeq numbers are ahead, and the last INVITE's here and there.
    offset: Option<(u32, Option<(u32, u32)>)>,
    /// The highest number of its requests, as the other side knows them.
    #[serde(default)]
    sent: u32,
    /// The number of its last INVITE, as it knows it itself.
    #[serde(default)]
    invited: Option<u32>,
}

/// Why a call is not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotTakenUp {
    /// A network of it is not configured any more.
    #[error("one of its networks is not configured any more")]
    Network,
    /// There is no room.
    #[error("there are as many calls as sip.max_calls allows")]
    Room,
    /// Its subscription has ended meanwhile.
    #[error("it has ended meanwhile")]
    Ended,
}

impl CallRecord {
    /// The name by which the media room knows the call, and which no other call has.
    #[must_use]
    pub fn media_key(&self) -> &str {
        &self.media_key
    }

    /// Whether the media room has heard of it.
    #[must_use]
    pub fn has_media(&self) -> bool {
        self.media
    }
}

/// Calls whose records are to be written anew, by number, with the name of each.
#[derive(Debug, Default)]
pub(super) struct Touched(HashMap<u64, Bytes>);

impl Proxy {
    /// Something of a call has changed that its record tells. Calls that were never answered have no record.
    pub(super) fn touch(&mut self, number: u64) {
        let Some(call) = self.calls.get(&number) else { return };
        if call.is_kept() {
            self.touched.0.insert(number, call.info.media_key.clone());
        }
    }

    /// The same for a call that is known by its name in the media room.
    pub fn touch_named(&mut self, media_key: &[u8]) {
        // A name is a Call-ID, with more behind a zero byte if that is not enough.
        let call_id = media_key.split(|byte| *byte == 0).next().unwrap_or_default();
        let numbers = self.by_call_id.get(call_id).cloned().unwrap_or_default();
        for number in numbers {
            if self.calls.get(&number).is_some_and(|call| call.info.media_key == media_key) {
                self.touch(number);
            }
        }
    }

    /// Of the calls whose records have changed since they were asked for last so many at most, by name; none for those
    /// that have ended.
    pub fn take_touched(&mut self, epoch: &Epoch, most: usize) -> Vec<(String, Option<CallRecord>)> {
        let touched: Vec<(u64, Bytes)> = self.touched.0.extract_if(|_, _| true).take(most).collect();
        if self.touched.0.is_empty() {
            // The table does not shrink by itself.
            self.touched = Touched::default();
        }
        let named = touched.into_iter().filter_map(|(number, name)| Some((number, text(&name)?)));
        named.map(|(number, name)| (name, self.record(number, epoch))).collect()
    }

    /// The records of all calls that stand.
    pub fn records(&self, epoch: &Epoch) -> Vec<CallRecord> {
        self.calls.keys().filter_map(|number| self.record(*number, epoch)).collect()
    }

    /// None for one that has ended or was never answered, and for one with bytes that are no text, as no SIP has.
    fn record(&self, number: u64, epoch: &Epoch) -> Option<CallRecord> {
        let call = self.calls.get(&number).filter(|call| call.is_live() && call.is_kept())?;
        // A target that nobody is joined to yet.
        if call.conversing.as_deref().is_some_and(|conversing| conversing.within) {
            return None;
        }
        let info = &call.info;
        let side = |side: &Side| self.side_record(&info.call_id, side);
        let confirmed = call.dialogs.iter().filter(|dialog| dialog.confirmed && !dialog.over);
        Some(CallRecord {
            kind: call.kind,
            call_id: text(&info.call_id)?,
            media_key: text(&info.media_key)?,
            from: info.from.clone(),
            to: info.to.clone(),
            networks: (info.from_network, info.to_network),
            from_agent: info.from_agent.clone(),
            to_agent: info.to_agent.clone(),
            state: info.state,
            started_unix_ms: epoch.unix_ms(info.started),
            answered_unix_ms: info.answered.map(|at| epoch.unix_ms(at)),
            forget_unix_ms: call.forget.map(|at| epoch.unix_ms(at)),
            media: call.media,
            caller: side(&call.caller)?,
            callees: confirmed.map(|dialog| side(&dialog.callee)).collect::<Option<_>>()?,
            anonymous: match &call.anonymous {
                Some(from) => Some(text(from)?),
                None => None,
            },
            conversing: call.conversing.as_ref().map(|conversing| Box::new(conversing.record(epoch))),
        })
    }

    fn side_record(&self, call_id: &Bytes, side: &Side) -> Option<SideRecord> {
        Some(SideRecord {
            tag: text(&side.tag)?,
            target: match &side.target {
                Some(target) => Some(text(target)?),
                None => None,
            },
            source: side.source,
            disconnected: side.disconnected,
            routes: side.routes.clone(),
            offset: self.offsets.of(side.source.network, call_id, &side.tag),
            sent: side.sent,
            invited: side.invited,
        })
    }

    /// Takes up a call of an earlier run.
    ///
    /// # Errors
    /// Why it is left to its parties.
    pub fn take_up(
        &mut self,
        record: &CallRecord,
        networks: &FormerNetworks,
        epoch: &Epoch,
    ) -> Result<(), NotTakenUp> {
        let network = |former| networks.now(former).ok_or(NotTakenUp::Network);
        if !self.has_room(record.kind) {
            return Err(NotTakenUp::Room);
        }
        let forget = record.forget_unix_ms.map(|at| epoch.instant(at));
        if record.kind == Kind::Subscription && forget.is_none_or(|at| at <= epoch.now) {
            return Err(NotTakenUp::Ended);
        }
        let side = |kept: &SideRecord| -> Result<Side, NotTakenUp> {
            let source = Hop { network: network(kept.source.network)?, ..kept.source };
            Ok(Side {
                tag: kept.tag.clone().into(),
                target: kept.target.clone().map(Bytes::from),
                source,
                // The connection ended with the process that had it.
                disconnected: kept.disconnected || source.transport.is_reliable(),
                routes: kept.routes.clone(),
                sent: kept.sent,
                invited: kept.invited,
            })
        };
        let (caller, call_id) = (side(&record.caller)?, Bytes::from(record.call_id.clone()));
        let callees = record.callees.iter().map(side).collect::<Result<Vec<_>, _>>()?;
        let kept = std::iter::once(&record.caller).chain(&record.callees);
        let offsets = kept
            .zip(std::iter::once(&caller).chain(&callees))
            .filter_map(|(kept, side)| Some((side.source.network, side.tag.clone(), kept.offset?)));
        for (network, tag, offset) in offsets.collect::<Vec<_>>() {
            self.offsets.take_up(epoch.now, network, &call_id, &tag, offset);
        }
        let info = CallInfo {
            call_id,
            media_key: record.media_key.clone().into(),
            from: record.from.clone(),
            to: record.to.clone(),
            from_network: network(record.networks.0)?,
            to_network: network(record.networks.1)?,
            from_agent: record.from_agent.clone(),
            to_agent: record.to_agent.clone(),
            // Who was hanging up asks again.
            state: if record.state == CallState::Held { CallState::Held } else { CallState::Established },
            started: epoch.instant(record.started_unix_ms),
            answered: record.answered_unix_ms.map(|at| epoch.instant(at)),
            ended: None,
            outcome: None,
        };
        let confirmed = |callee| Dialog { confirmed: true, ..Dialog::new(callee) };
        let number = self.add_call(Call {
            kind: record.kind,
            info,
            caller,
            dialogs: callees.into_iter().map(confirmed).collect(),
            anonymous: record.anonymous.clone().map(|from| Box::new(from.into())),
            media: record.media,
            attempt_counted: true,
            share: None,
            conversing: record.conversing.as_ref().map(|record| Box::new(Conversing::take_up(record, epoch))),
            forget: None,
        });
        self.reschedule(number);
        self.enter_face(number);
        if let Some(at) = forget {
            self.forget_at(number, at);
        }
        // What is kept of it is written anew: it has been reached in another way since, and its keys are in use again.
        self.touch(number);
        Ok(())
    }
}

impl Call {
    /// Whether there is something to keep.
    fn is_kept(&self) -> bool {
        self.dialogs.iter().any(|dialog| dialog.confirmed)
    }
}
