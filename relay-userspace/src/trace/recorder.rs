//! What was recorded: for each Call-ID its first messages and its last ones, within a budget for all.
//!
//! A long call repeats itself in its middle (session timers, holds), and a registration does nothing else; so of a trace
//! that is full, messages from its middle are left out, and how many is told. When the budget is used up, whole traces
//! go: of those that have ended the one that ended first, and only when none has ended one that goes on. Registrations,
//! subscriptions and the like come all the time, so they give way to calls as soon as they take more than a quarter.
//! The appliance's own probes of servers are kept for as long as there are few.
//!
//! Invariant: what is kept never takes more than the budget, and all that was left out is counted. No I/O, no clock:
//! time comes with each message.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use super::head::{self, Start};
use crate::{datapath::Way, sip::Hop};

/// Of traces that are no calls: messages, and the part of the budget that they may take while there are calls.
const OTHERS_MESSAGES: usize = 40;
const OTHERS_PART: usize = 4;
/// The appliance's own probes of servers whose traces are kept.
const MOST_PROBES: usize = 8;
/// Bytes of memory that a message and a trace take besides what is in them; estimated.
const MESSAGE_COST: usize = size_of::<Entry>() + 48;
const TRACE_COST: usize = size_of::<Trace>() + 256;
/// How long a call that does not stand any more, and whatever is no call, must have been silent to have ended: what
/// crosses the end of a call is over in 64 times T1 (RFC 3261 section 17).
const QUIET_CALL_US: u64 = 5_000_000;
const QUIET_US: u64 = 32_000_000;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages of a call.
    pub messages: usize,
    /// Bytes of a call.
    pub bytes: usize,
    /// Bytes of all.
    pub total: usize,
}

/// A message that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// When, in microseconds since 1970.
    pub(super) unix_us: u64,
    pub(super) way: Way,
    pub(super) hop: Hop,
    pub(super) bytes: Bytes,
}

impl Entry {
    fn cost(&self) -> usize {
        MESSAGE_COST + self.bytes.len()
    }
}

/// What a trace is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call: there was a request that only calls have.
    Call,
    /// Something else.
    Other,
    /// The appliance asked a server how it is.
    Probe,
}

/// The messages of one Call-ID.
#[derive(Debug)]
pub(super) struct Trace {
    /// Which trace it is, in the order of their beginnings.
    number: u64,
    pub(super) kind: Kind,
    /// Its first messages.
    first: Vec<Entry>,
    /// Those after them, of which the oldest give way.
    last: VecDeque<Entry>,
    /// Messages from between them that are not kept.
    pub(super) left_out: u64,
    bytes: usize,
    /// All messages that there were.
    seen: u64,
    /// How many of these the store has been given.
    stored: u64,
    last_us: u64,
    /// In which order it ended; none while it goes on.
    ended: Option<u64>,
}

impl Trace {
    fn new(number: u64, kind: Kind) -> Self {
        Self {
            number,
            kind,
            first: Vec::new(),
            last: VecDeque::new(),
            left_out: 0,
            bytes: TRACE_COST,
            seen: 0,
            stored: 0,
            last_us: 0,
            ended: None,
        }
    }

    /// The messages that are kept, in their order.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.first.iter().chain(&self.last)
    }

    /// How many are kept.
    pub(super) fn kept(&self) -> usize {
        self.first.len() + self.last.len()
    }

    /// Whether it has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// When the last message passed.
    pub(super) fn last_us(&self) -> u64 {
        self.last_us
    }

    /// Takes a message; how many were left out for it, itself perhaps.
    fn push(&mut self, entry: Entry, messages: usize, most_bytes: usize) -> u64 {
        self.seen += 1;
        self.last_us = self.last_us.max(entry.unix_us);
        let cost = entry.cost();
        let half = messages.div_ceil(2);
        if self.last.is_empty() && self.first.len() < half && self.bytes + cost <= most_bytes / 2 {
            self.bytes += cost;
            self.first.push(entry);
            return 0;
        }
        self.bytes += cost;
        self.last.push_back(entry);
        let mut out = 0;
        while self.first.len() + self.last.len() > messages.max(1) || self.bytes > most_bytes {
            let Some(old) = self.last.pop_front() else { break };
            self.bytes -= old.cost();
            out += 1;
        }
        self.left_out += out;
        out
    }
}

/// What of a trace the store does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unstored {
    pub(super) call_id: Bytes,
    pub(super) entries: Vec<Entry>,
    /// Messages among these that are not kept.
    pub(super) left_out: u64,
    /// How many the store had been given before.
    before: u64,
}

/// What became of what was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were recorded.
    pub messages: u64,
    /// Messages from the middle of traces that were full, and those that had no Call-ID.
    pub left_out: u64,
    /// Traces that have ended and were let go of.
    pub evicted: u64,
    /// Traces that went on and were let go of all the same.
    pub evicted_live: u64,
}

/// All that is kept.
#[derive(Debug)]
pub(super) struct Recorder {
    limits: Limits,
    traces: HashMap<Bytes, Trace>,
    bytes: usize,
    /// What all that are no calls take.
    others: usize,
    next_number: u64,
    next_end: u64,
    /// Those that go on, by their number; those that have ended, by the order in which they did: calls and others.
    live: BTreeMap<u64, Bytes>,
    ended_calls: BTreeMap<u64, Bytes>,
    ended_others: BTreeMap<u64, Bytes>,
    probes: VecDeque<Bytes>,
    counts: Counts,
}

impl Recorder {
    /// Nothing yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            traces: HashMap::new(),
            bytes: 0,
            others: 0,
            next_number: 0,
            next_end: 0,
            live: BTreeMap::new(),
            ended_calls: BTreeMap::new(),
            ended_others: BTreeMap::new(),
            probes: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Takes new limits. What is kept is cut to the budget at once; what is kept of one Call-ID with its next message.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.evict();
    }

    /// What became of what was recorded.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that are kept, and that there may be.
    pub(super) fn room(&self) -> (usize, usize) {
        (self.bytes, self.limits.total)
    }

    /// How many traces there are.
    pub(super) fn len(&self) -> usize {
        self.traces.len()
    }

    /// Records a message.
    pub(super) fn record(&mut self, entry: Entry) {
        let Some(call_id) = head::call_id(&entry.bytes) else {
            self.counts.left_out += 1;
            return;
        };
        self.counts.messages += 1;
        let kind = kind_of(&entry);
        let key = match self.traces.get_key_value(call_id) {
            Some((key, _)) => key.clone(),
            None => self.begin(Bytes::copy_from_slice(call_id), kind),
        };
        let limits = self.limits;
        let Some(trace) = self.traces.get_mut(&key) else { return };
        let before = trace.bytes;
        let was = trace.kind;
        if kind == Kind::Call {
            trace.kind = Kind::Call;
        }
        let (messages, bytes) = match trace.kind {
            Kind::Call => (limits.messages, limits.bytes),
            Kind::Other | Kind::Probe => (limits.messages.min(OTHERS_MESSAGES), limits.bytes),
        };
        self.counts.left_out += trace.push(entry, messages, bytes);
        let (number, now, after) = (trace.number, trace.kind, trace.bytes);
        if let Some(end) = trace.ended.take() {
            self.ended(was).remove(&end);
            self.live.insert(number, key);
        }
        self.bytes = self.bytes - before + after;
        if was != Kind::Call {
            self.others -= before;
        }
        if now != Kind::Call {
            self.others += after;
        }
        self.evict();
    }

    fn begin(&mut self, key: Bytes, kind: Kind) -> Bytes {
        let trace = Trace::new(self.next_number, kind);
        self.live.insert(self.next_number, key.clone());
        self.next_number += 1;
        self.bytes += trace.bytes;
        if kind != Kind::Call {
            self.others += trace.bytes;
        }
        self.traces.insert(key.clone(), trace);
        if kind == Kind::Probe {
            self.probes.push_back(key.clone());
            if self.probes.len() > MOST_PROBES
                && let Some(old) = self.probes.pop_front()
                && self.traces.get(&old).is_some_and(|trace| trace.kind == Kind::Probe)
            {
                self.remove(&old);
            }
        }
        key
    }

    fn ended(&mut self, kind: Kind) -> &mut BTreeMap<u64, Bytes> {
        if kind == Kind::Call { &mut self.ended_calls } else { &mut self.ended_others }
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(trace) = self.traces.remove(key) else { return };
        self.bytes -= trace.bytes;
        if trace.kind != Kind::Call {
            self.others -= trace.bytes;
        }
        match trace.ended {
            Some(end) => self.ended(trace.kind).remove(&end),
            None => self.live.remove(&trace.number),
        };
    }

    /// Lets go of traces until the rest is within the budget.
    fn evict(&mut self) {
        while self.bytes > self.limits.total {
            let first = |order: &BTreeMap<u64, Bytes>| order.first_key_value().map(|(_, key)| key.clone());
            let (others, calls) = (first(&self.ended_others), first(&self.ended_calls));
            let ended = if self.others > self.limits.total / OTHERS_PART {
                others.or(calls)
            } else {
                calls.or(others)
            };
            let Some(victim) = ended.clone().or_else(|| first(&self.live)) else { return };
            match ended {
                Some(_) => self.counts.evicted += 1,
                None => self.counts.evicted_live += 1,
            }
            self.remove(&victim);
        }
    }

    /// Looks which traces have ended: calls that do not stand, by what is said of them, and whatever else has been silent.
    pub(super) fn look(&mut self, now_us: u64, mut stands: impl FnMut(&[u8]) -> bool) {
        let silent = |trace: &Trace, least: u64| now_us.saturating_sub(trace.last_us) >= least;
        let over = |(_, key): &(&u64, &Bytes)| {
            self.traces.get(*key).is_some_and(|trace| match trace.kind {
                Kind::Call => silent(trace, QUIET_CALL_US) && !stands(key),
                Kind::Other | Kind::Probe => silent(trace, QUIET_US),
            })
        };
        let over: Vec<u64> = self.live.iter().filter(over).map(|(number, _)| *number).collect();
        for number in over {
            let Some(key) = self.live.remove(&number) else { continue };
            let end = self.next_end;
            let Some(trace) = self.traces.get_mut(&key) else { continue };
            self.next_end += 1;
            trace.ended = Some(end);
            let kind = trace.kind;
            self.ended(kind).insert(end, key);
        }
    }

    /// What the store does not have of calls that have ended, or of all calls, up to so many of them. The store is then
    /// taken to have it.
    pub(super) fn take_unstored(&mut self, which: Which, most: usize) -> Vec<Unstored> {
        let live = self.live.values().filter(|_| which == Which::All);
        let keys = self.ended_calls.values().chain(live);
        let new = |key: &&Bytes| {
            let trace = self.traces.get(*key);
            trace.is_some_and(|trace| trace.kind == Kind::Call && trace.stored < trace.seen)
        };
        let keys: Vec<Bytes> = keys.filter(new).take(most).cloned().collect();
        keys.into_iter().filter_map(|call_id| self.unstored(call_id)).collect()
    }

    fn unstored(&mut self, call_id: Bytes) -> Option<Unstored> {
        let trace = self.traces.get_mut(&call_id)?;
        let first = trace.first.len() as u64;
        // The first ones are those from 0; of those after them the last ones up to the last that there was.
        let last = trace.seen - trace.last.len() as u64;
        let numbered = (0..first).zip(&trace.first).chain((last..).zip(&trace.last));
        let entries: Vec<Entry> =
            numbered.filter(|(number, _)| *number >= trace.stored).map(|(_, entry)| entry.clone()).collect();
        let left_out = trace.seen - trace.stored - entries.len() as u64;
        let before = std::mem::replace(&mut trace.stored, trace.seen);
        Some(Unstored { call_id, entries, left_out, before })
    }

    /// The store has not taken it after all.
    pub(super) fn put_back(&mut self, unstored: &Unstored) {
        if let Some(trace) = self.traces.get_mut(&unstored.call_id) {
            trace.stored = trace.stored.min(unstored.before);
        }
    }

    /// The trace of a Call-ID.
    pub(super) fn trace(&self, call_id: &[u8]) -> Option<&Trace> {
        self.traces.get(call_id)
    }

    /// All traces, those that something was said in last first.
    pub(super) fn traces(&self) -> Vec<(&Bytes, &Trace)> {
        let mut all: Vec<_> = self.traces.iter().collect();
        all.sort_by_key(|(_, trace)| std::cmp::Reverse((trace.last_us, trace.number)));
        all
    }
}

/// Of which traces something is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Of those that have ended.
    Ended,
    /// Of all: the daemon ends.
    All,
}

/// Requests that only calls have: of one that stood when the daemon began, the INVITE has passed before (RFC 3261,
/// RFC 3262, RFC 3311, RFC 6086).
const OF_CALLS: [&[u8]; 7] = [b"INVITE", b"ACK", b"BYE", b"CANCEL", b"PRACK", b"UPDATE", b"INFO"];

fn kind_of(entry: &Entry) -> Kind {
    match head::start(&entry.bytes) {
        Start::Request(method) if OF_CALLS.contains(&method) => Kind::Call,
        // What is relayed has come before it goes.
        Start::Request(b"OPTIONS") if entry.way == Way::Out => Kind::Probe,
        Start::Request(_) | Start::Response(_) => Kind::Other,
    }
}

#[cfg(test)]
mod tests;
