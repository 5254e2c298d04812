//! The quality of a stream as it is shown: by the command line, the pages and the REST interface.

use serde::{Deserialize, Serialize};

use super::diagnosis::Verdict;

/// One direction of a stream. Empty what was not measured, or not reported by the far end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DirectionQuality {
    /// The network that it comes from.
    pub network: String,
    /// The network that it goes to.
    pub to_network: String,
    /// Where its packets come from.
    pub source: Option<String>,
    /// What is the matter with it: `one_way_audio` when this direction is not heard.
    pub verdict: Verdict,
    /// The same in words.
    pub what: String,
    /// The codec.
    pub codec: Option<String>,
    /// RTP packets that should have arrived.
    pub expected: u64,
    /// Those that arrived, each once.
    pub received: u64,
    /// Those that did not.
    pub lost: u64,
    /// Packets that came again.
    pub duplicates: u32,
    /// Packets that were overtaken.
    pub reordered: u32,
    /// Lost, in percent of those expected.
    pub loss_percent: Option<f64>,
    /// How much longer runs of lost packets are than chance would make them.
    pub burst_ratio: Option<f64>,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: Option<f64>,
    /// Packets that the far end misses.
    pub reported_lost: Option<i32>,
    /// The same in percent.
    pub reported_loss_percent: Option<f64>,
    /// Loss between the far end's last two reports, in percent.
    pub reported_recent_loss_percent: Option<f64>,
    /// Jitter at the far end in milliseconds.
    pub reported_jitter_ms: Option<f64>,
    /// Packets that the far end's jitter buffer threw away, in percent.
    pub reported_discarded_percent: Option<f64>,
    /// The far end's own listening score.
    pub reported_mos_listening: Option<f64>,
    /// The far end's own conversational score.
    pub reported_mos_conversational: Option<f64>,
    /// From the appliance to the sender and back, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Estimate of the network's delay from sender to receiver, in milliseconds.
    pub one_way_ms: Option<f64>,
    /// `narrowband` (ratings to 93.2) or `wideband` (to 129): scores of the two are not to be compared.
    pub scale: Option<String>,
    /// The rating R of the E-model.
    pub r_factor: Option<f64>,
    /// Listening score, 1 to 4.5.
    pub mos_listening: Option<f64>,
    /// Conversational score, 1 to 4.5.
    pub mos_conversational: Option<f64>,
}

/// A stream of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamQuality {
    /// `audio`, `video`, ...
    pub kind: String,
    /// What is the matter with it.
    pub verdict: Verdict,
    /// The worst that was the matter with it since the call was answered.
    pub worst: Verdict,
    /// What is the matter in words, with the side.
    pub what: String,
    /// From the party of the first offer, usually the caller, and to it.
    pub directions: Vec<DirectionQuality>,
}
