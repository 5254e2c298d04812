//! What becomes of a flow's packets where one leg is SRTP and the other is not, or has another key.
//!
//! The keys belong to the legs: the flows of RTP and of RTCP share them, and so do a leg's flows before and after a
//! re-INVITE. Invariant: a packet that comes with no key to check it by goes nowhere, and none leaves in clear that was
//! to be encrypted.

use std::{fmt, sync::Arc};

use relay_ebpf::{Reason, rtp::Payload};

use crate::srtp::{Content, Inbound, Outbound, Refusal};

/// What a party sends.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// RTP.
    Plain,
    /// SRTP with this key.
    Keyed(Arc<Inbound>),
    /// SRTP, probably: the party has been offered keys and has not answered yet.
    Awaited,
}

/// What a party is sent.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// RTP.
    Plain,
    /// SRTP with this key.
    Keyed(Arc<Outbound>),
    /// It has not said yet.
    Awaited,
}

/// From one leg to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// What the flow's packets are.
    pub from: Incoming,
    /// What they are to be.
    pub to: Outgoing,
}

impl PartialEq for Incoming {
    /// Whether they are the same key with the same state, not only keys that are alike.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) | (Self::Awaited, Self::Awaited) => true,
            (Self::Keyed(one), Self::Keyed(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Incoming {}

impl PartialEq for Outgoing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) | (Self::Awaited, Self::Awaited) => true,
            (Self::Keyed(one), Self::Keyed(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Outgoing {}

impl Translation {
    /// Checks a packet that came and makes RTP or RTCP of it, in place.
    ///
    /// # Errors
    /// Why it is not let in.
    pub(super) fn open(&self, content: Content, packet: &mut Vec<u8>) -> Result<(), Reason> {
        match &self.from {
            Incoming::Plain => Ok(()),
            Incoming::Keyed(key) => key.unprotect(content, packet).map_err(reason),
            Incoming::Awaited => Err(Reason::SrtpAuthentication),
        }
    }

    /// Makes of RTP or RTCP what the other party takes, in place.
    ///
    /// # Errors
    /// Why it is not sent.
    pub(super) fn seal(&self, content: Content, packet: &mut Vec<u8>) -> Result<(), Reason> {
        match &self.to {
            Outgoing::Plain => Ok(()),
            Outgoing::Keyed(key) => key.protect(content, packet).map_err(reason),
            Outgoing::Awaited => Err(Reason::Blocked),
        }
    }
}

impl fmt::Display for Translation {
    /// `AEAD_AES_128_GCM to RTP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match &self.from {
            Incoming::Plain => "RTP",
            Incoming::Keyed(key) => key.master().suite().name(),
            Incoming::Awaited => "SRTP without a key yet",
        };
        let to = match &self.to {
            Outgoing::Plain => "RTP",
            Outgoing::Keyed(key) => key.master().suite().name(),
            Outgoing::Awaited => "SRTP without a key yet",
        };
        write!(f, "{from} to {to}")
    }
}

/// What a packet is to SRTP; none if it is neither RTP nor RTCP and is carried as it is.
pub(super) fn content(payload: Payload) -> Option<Content> {
    match payload {
        Payload::Rtp => Some(Content::Rtp),
        Payload::Rtcp => Some(Content::Rtcp),
        Payload::Stun | Payload::Dtls | Payload::Other => None,
    }
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::TooShort | Refusal::TooLong => Reason::TooShort,
        Refusal::Authentication => Reason::SrtpAuthentication,
        Refusal::Replay => Reason::SrtpReplay,
        Refusal::Sources => Reason::SrtpSources,
    }
}
