//! Symptoms: what is wrong, named in words, from what the other rooms see.
//!
//! The reference products leave their users to guess from symptoms; the appliance has the facts and says what it finds:
//! which server fails at which step, whose certificate is refused, where packets are lost and on which side of the
//! office, who forgot to mark them. [`find`] is a pure function of [`Observations`]: what it says can be tried without a
//! network. It holds for the moment in which it is asked; nothing is kept.

mod rules;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use rules::find;

use crate::{
    quality::{Finding, Verdict},
    upstream::ServerState,
};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Calls work; somebody should look all the same.
    Notice,
    /// Some calls are bad, or will be.
    Warning,
    /// Calls do not work.
    Critical,
}

/// What kind of trouble it is: the label of its metric, and the anchor of its explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No server can be reached: the office is on its own.
    Survival,
    /// A trunk is out of service.
    TrunkOutOfService,
    /// A server cannot be reached.
    ServerUnreachable,
    /// A server's certificate is not believed.
    CertificateNotTrusted,
    /// The same addresses are behind two interfaces.
    OverlappingSubnets,
    /// The host's clock is not set by anybody.
    ClockUnsynchronised,
    /// Media arrives without its mark.
    DscpLost,
    /// Callers notice the delay.
    Latency,
    /// Packets are lost.
    Loss,
    /// Packets come unevenly.
    Jitter,
    /// Neither party of a call is heard.
    NoAudio,
    /// One party of a call is not heard.
    OneWayAudio,
    /// Several phones take calls for one line.
    SharedLine,
    /// A phone was heard of and has not registered.
    PhoneStuck,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Survival,
        Self::TrunkOutOfService,
        Self::ServerUnreachable,
        Self::CertificateNotTrusted,
        Self::OverlappingSubnets,
        Self::ClockUnsynchronised,
        Self::DscpLost,
        Self::Latency,
        Self::Loss,
        Self::Jitter,
        Self::NoAudio,
        Self::OneWayAudio,
        Self::SharedLine,
        Self::PhoneStuck,
    ];

    /// The name in metrics.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Survival => "survival",
            Self::TrunkOutOfService => "trunk_out_of_service",
            Self::ServerUnreachable => "server_unreachable",
            Self::CertificateNotTrusted => "certificate_not_trusted",
            Self::OverlappingSubnets => "overlapping_subnets",
            Self::ClockUnsynchronised => "clock_unsynchronised",
            Self::DscpLost => "dscp_lost",
            Self::Latency => "latency",
            Self::Loss => "loss",
            Self::Jitter => "jitter",
            Self::NoAudio => "no_audio",
            Self::OneWayAudio => "one_way_audio",
            Self::SharedLine => "shared_line",
            Self::PhoneStuck => "phone_stuck",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symptom {
    /// What kind of trouble it is.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is about: a server, a network, a call, a phone.
    pub subject: String,
    /// What is seen.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// One direction of a call's RTP stream, as it arrives.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The call, for people: from and to. Shared, as what follows: there are thousands of streams.
    pub call: Arc<str>,
    /// The call's key: streams of one call have the same.
    pub call_key: Arc<[u8]>,
    /// The network that it comes from.
    pub network: Arc<str>,
    /// The network that it goes to.
    pub to_network: Arc<str>,
    /// What is the matter with the whole stream.
    pub verdict: Verdict,
    /// What is the matter with this direction, and where.
    pub finding: Finding,
    /// RTP packets that should have arrived.
    pub expected: u64,
    /// Those that did not.
    pub lost: u64,
    /// Loss behind the appliance in percent, as RTCP tells.
    pub beyond_percent: Option<f64>,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: Option<f64>,
    /// The code point that the last one came with.
    pub dscp: u8,
    /// From the appliance to the sender and back, by RTCP.
    pub round_trip: Option<Duration>,
    /// The first source whose packets were refused.
    pub refused: Option<String>,
}

/// A phone that was heard of and has no registration.
#[derive(Debug, Clone)]
pub struct Stranded {
    /// Its address, or its hardware address.
    pub phone: String,
    /// What it did last, as its stage is called.
    pub stage: String,
    /// What exactly.
    pub detail: String,
    /// How long ago.
    pub since: Duration,
}

/// What is seen.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// The servers.
    pub servers: Vec<ServerState>,
    /// The trunks, by name, each at each of its addresses.
    pub trunks: Vec<(String, Vec<ServerState>)>,
    /// The groups of servers whose phones are on their own, by name.
    pub alone_groups: Vec<String>,
    /// For how long some have been; `None` while servers serve all.
    pub alone: Option<Duration>,
    /// Pairs of routes that overlap, in words.
    pub overlaps: Vec<String>,
    /// Whether somebody sets the host's clock; `None` where that is not known.
    pub clock_synchronised: Option<bool>,
    /// RTP streams of the calls that stand.
    pub streams: Vec<Stream>,
    /// Lines with the addresses of the phones that are registered for them.
    pub lines: Vec<(String, Vec<String>)>,
    /// Phones that were heard of and have not registered.
    pub stranded: Vec<Stranded>,
}
