//! Calls and dialogs: who the two parties are and how to reach each.

use std::{net::IpAddr, time::Instant};

use bytes::Bytes;

use super::{admission::Share, converse::Conversing, measure::Outcome, settings::Settings};
use crate::{
    log::escaped,
    net::NetworkId,
    sip::{
        Hop,
        wire::{HeaderName, Message, NameAddr},
    },
};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// The INVITE is on its way.
    Trying,
    /// The other side rings, or plays something before it answers.
    Early,
    /// Answered.
    Established,
    /// Answered, and one side has put the other on hold.
    Held,
    /// A BYE is on its way.
    Ending,
    /// Over.
    Ended,
}

impl CallState {
    /// The name in metrics and pages.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Early => "early",
            Self::Established => "established",
            Self::Held => "held",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// What can be said of a call.
#[derive(Clone, Debug)]
pub struct CallInfo {
    /// Its Call-ID.
    pub call_id: Bytes,
    /// The name by which the media room knows it: the Call-ID, unless the same call passes the appliance twice.
    pub media_key: Bytes,
    /// The caller: display name, else user.
    pub from: String,
    /// The called party.
    pub to: String,
    /// The caller's network.
    pub from_network: NetworkId,
    /// The called party's network.
    pub to_network: NetworkId,
    /// The caller's User-Agent.
    pub from_agent: Option<String>,
    /// The called party's User-Agent or Server.
    pub to_agent: Option<String>,
    /// Where it stands.
    pub state: CallState,
    /// When its INVITE came.
    pub started: Instant,
    /// When it was answered.
    pub answered: Option<Instant>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// One of the two parties of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// Who sent the request that made the dialog.
    Caller,
    /// Who answered it.
    Callee,
}

impl Party {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// One side of a dialog.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) tag: Bytes,
    /// Its Contact URI as it was: the dialog's remote target for the other side.
    pub(super) target: Option<Bytes>,
    /// Where its messages come from.
    pub(super) source: Hop,
    /// Whether the connection by which they came has ended.
    pub(super) disconnected: bool,
    /// The addresses in its Record-Route: further hops that requests may be sent to.
    pub(super) routes: Vec<IpAddr>,
    /// The highest number of its requests, as the other side knows them.
    pub(super) sent: u32,
    /// The number of its last INVITE, as it knows it itself: an ACK that comes again has it too.
    pub(super) invited: Option<u32>,
}

/// Addresses of a Record-Route that are kept.
const MAX_ROUTES: usize = 8;

impl Side {
    pub(super) fn new(tag: &[u8], source: Hop) -> Self {
        Self {
            tag: Bytes::copy_from_slice(tag),
            target: None,
            source,
            disconnected: false,
            routes: Vec::new(),
            sent: 0,
            invited: None,
        }
    }

    /// A message came from this side.
    pub(super) fn heard(&mut self, source: Hop) {
        self.source = source;
        self.disconnected = false;
    }

    /// Takes what a message from this side says about how to reach it. Record-Routes count only above our own: those
    /// below came from the other side, and must not tell where its requests may go.
    pub(super) fn learn(&mut self, message: &Message, settings: &Settings) {
        // It will be a Request-URI one day: one that cannot be read, or has white space in it, must not.
        if let Some(contact) = message.addresses(HeaderName::Contact).next()
            && contact.parsed_uri().is_some()
            && self.target.as_deref() != Some(contact.uri)
        {
            self.target = Some(Bytes::copy_from_slice(contact.uri));
        }
        let uris = message.addresses(HeaderName::RecordRoute).map_while(|route| route.parsed_uri());
        for ip in uris.take_while(|uri| !settings.is_ours(uri)).filter_map(|uri| uri.ip()) {
            if self.routes.len() < MAX_ROUTES && !self.routes.contains(&ip) {
                self.routes.push(ip);
            }
        }
    }
}

/// What a session description was turned into, so that its repetition is not negotiated again.
#[derive(Clone, Debug)]
pub(super) struct Negotiated {
    pub(super) tag: Bytes,
    pub(super) original: Bytes,
    pub(super) rewritten: Bytes,
}

/// A dialog, early or confirmed.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) callee: Side,
    pub(super) confirmed: bool,
    /// It ended by BYE and is kept only for what still crosses.
    pub(super) over: bool,
    /// Who has made an offer in a response that ACK or PRACK will answer.
    pub(super) offer_by: Option<Party>,
    /// The answer in the last ACK or PRACK.
    pub(super) acked: Option<Negotiated>,
}

impl Dialog {
    pub(super) fn new(callee: Side) -> Self {
        Self { callee, confirmed: false, over: false, offer_by: None, acked: None }
    }
}

/// What a set of dialogs is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A call, made by INVITE.
    Call,
    /// SUBSCRIBE or REFER outside a call.
    Subscription,
}

/// The dialogs that one request outside a dialog made.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) info: CallInfo,
    pub(super) caller: Side,
    pub(super) dialogs: Vec<Dialog>,
    /// The caller's header From, where it is nobody's at the other side (`identity`); in a place apart, for few are.
    pub(super) anonymous: Option<Box<Bytes>>,
    /// Whether the media room has heard of it.
    pub(super) media: bool,
    pub(super) attempt_counted: bool,
    /// What it takes of its networks, while it lives.
    pub(super) share: Option<Share>,
    /// What the appliance needs to speak in it itself; `None` where nothing is converted for its peers.
    pub(super) conversing: Option<Box<Conversing>>,
    /// When it is forgotten: set when it ends, and for subscriptions from the start.
    pub(super) forget: Option<Instant>,
}

/// Dialogs that one INVITE may make by forking.
pub(super) const MAX_DIALOGS: usize = 32;

impl Call {
    pub(super) fn is_live(&self) -> bool {
        self.info.ended.is_none()
    }

    /// The dialog with that callee tag.
    pub(super) fn dialog(&mut self, tag: &[u8]) -> Option<&mut Dialog> {
        self.dialogs.iter_mut().find(|dialog| dialog.callee.tag == tag)
    }

    /// Who sent a message with these tags on that network, and in which dialog.
    pub(super) fn sender(
        &self,
        network: NetworkId,
        from_tag: &[u8],
        to_tag: &[u8],
    ) -> Option<(Party, usize)> {
        self.dialogs.iter().enumerate().find_map(|(index, dialog)| {
            let by_caller = self.caller.source.network == network
                && self.caller.tag == from_tag
                && dialog.callee.tag == to_tag;
            let by_callee = dialog.callee.source.network == network
                && dialog.callee.tag == from_tag
                && self.caller.tag == to_tag;
            match (by_caller, by_callee) {
                (true, _) => Some((Party::Caller, index)),
                (false, true) => Some((Party::Callee, index)),
                (false, false) => None,
            }
        })
    }

    /// That party in the dialog with this callee's tag, and the other one.
    pub(super) fn sides(&self, party: Party, tag: &[u8]) -> Option<(&Side, &Side)> {
        let callee = &self.dialogs.iter().find(|dialog| dialog.callee.tag == tag)?.callee;
        Some(match party {
            Party::Caller => (&self.caller, callee),
            Party::Callee => (callee, &self.caller),
        })
    }

    /// The side of that party in a dialog.
    pub(super) fn side(&mut self, party: Party, dialog: usize) -> Option<&mut Side> {
        match party {
            Party::Caller => Some(&mut self.caller),
            Party::Callee => self.dialogs.get_mut(dialog).map(|dialog| &mut dialog.callee),
        }
    }
}

/// What a person would call the party in a From or To value, on one line and without control characters.
pub(super) fn label(value: &[u8]) -> String {
    /// Longer names are cut: records are kept by the thousand.
    const LABEL: usize = 128;
    let label = NameAddr::parse(value).map_or_else(String::new, |party| party.label());
    escaped(&label, LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_whatever_a_phone_puts_into_it() {
        let rows: [(&str, &[u8], &str); 4] = [
            ("a name", b"\"Ann\" <sip:1@a>", "Ann"),
            (
                "a folded one that looks like a line of the log",
                b"\"Ann\r\n ERROR x\" <sip:1@a>",
                "Ann\\u{d}\\u{a} ERROR x",
            ),
            ("a terminal's escape", b"\"\x1b[2J\" <sip:1@a>", "\\u{1b}[2J"),
            ("none", b"<sip:1@a>", "1"),
        ];
        for (description, value, expected) in rows {
            assert_eq!(label(value), expected, "{description}");
        }
    }
}
