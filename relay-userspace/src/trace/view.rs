//! Traces as they are listed and shown.

use serde::{Deserialize, Serialize};

use super::{Step, Traced, steps};

/// A trace in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The Call-ID.
    pub call_id: String,
    /// The method of its first request.
    pub method: String,
    /// The address in From of its first message.
    pub from: String,
    /// The one in To.
    pub to: String,
    /// When it began, in microseconds since 1970.
    pub begun_unix_us: u64,
    /// When the last message passed.
    pub last_unix_us: u64,
    /// Messages that are kept.
    pub messages: u64,
    /// Messages that are not: it was too long.
    pub left_out: u64,
    /// The last response, with the method that it answers.
    pub status: Option<String>,
    /// `live`, `ended`, or `stored`: from before the daemon began.
    pub state: String,
}

/// The traces, those in which something was said last first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TracesView {
    /// Those that were asked for.
    pub traces: Vec<Summary>,
    /// Traces in memory.
    pub kept: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that they may take.
    pub bytes_limit: u64,
    /// Traces that were let go of because the budget was used up.
    pub evicted: u64,
    /// Messages that came while the queue was full.
    pub lost: u64,
    /// Bytes of traces in the store.
    pub stored_bytes: u64,
    /// Bytes that they may take.
    pub stored_bytes_limit: u64,
    /// Why none is stored.
    pub not_stored: Option<String>,
}

/// A trace, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceView {
    /// What it is.
    pub summary: Summary,
    /// Its messages, in their order.
    pub messages: Vec<Traced>,
    /// Whether others follow.
    pub more: bool,
}

/// A trace as programs are told it: what it is, and each message with what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it is.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its messages, in their order.
    pub ladder: Vec<Rung>,
}

/// A message, and what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// What it is.
    #[serde(flatten)]
    pub step: Step,
    /// The message.
    #[serde(flatten)]
    pub message: Traced,
}

impl Report {
    /// Of a trace that is whole.
    #[must_use]
    pub fn of(trace: TraceView) -> Self {
        let steps = steps(&trace.messages);
        let rungs = steps.into_iter().zip(trace.messages).map(|(step, message)| Rung { step, message });
        Self { summary: trace.summary, ladder: rungs.collect() }
    }
}
