//! Where messages come in, and where those who ask are answered.
//!
//! What signalling pays for is a lock that nobody holds for long, and a push. Everything else (finding the Call-ID,
//! masking secrets, bounding, sending to Homer) is done ten times a second by [`Traces::keep`], on a task of the
//! daemon's, or when somebody looks. Between the two is a queue that is bounded in messages and bytes.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Limits, Summary, TraceView, Traced, TracesView,
    head::{self, Start},
    hep,
    message::TracedBytes,
    record,
    recorder::{Counts, Entry, Recorder, Trace, Unstored, Which},
};
use crate::{
    datapath::Way,
    net::Transport,
    sip::{
        Hop,
        secrets::{Secrets, masked},
        wire::{Datagram, Message, classify, scan},
    },
    store::{StoreError, StoredTrace, TraceStore},
};

/// Messages and bytes that wait for [`Traces::keep`]: a second at 10,000 a second.
const QUEUE: usize = 10_000;
const QUEUE_BYTES: usize = 16 << 20;
/// Traces that are written together.
const BATCH: usize = 64;
/// Traces of a list at most.
const MOST_LISTED: usize = 1000;
/// Bytes of messages that are handed out together; one message is handed out however long it is.
const PART: usize = 64 << 10;
/// Characters of an address that is shown.
const MOST_ADDRESS: usize = 128;

/// A network and the appliance's ends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The appliance's address on it.
    pub address: IpAddr,
    /// The ports of SIP in the order of [`Transport::ALL`]; UDP's where there is none.
    pub ports: [u16; Transport::ALL.len()],
}

impl Network {
    fn local(&self, transport: Transport) -> SocketAddr {
        let place = Transport::ALL.iter().position(|known| *known == transport);
        let port = place.and_then(|place| self.ports.get(place)).copied().unwrap_or_default();
        SocketAddr::new(self.address, port)
    }
}

/// Messages that were not looked at yet.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
}

/// A message that is handed on as it is kept.
pub type Exported<'a> = hep::Message<'a>;

/// Who is handed each message as it is kept, however it comes to be kept: he must neither wait nor ask for traces.
pub type Export = Box<dyn Fn(&Exported<'_>) + Send + Sync>;

/// All traces.
pub struct Traces {
    enabled: AtomicBool,
    networks: Vec<Network>,
    waiting: Mutex<Waiting>,
    /// Messages that found no room there.
    lost: AtomicU64,
    recorder: Mutex<Recorder>,
    /// The file, or why there is none.
    store: Result<Arc<TraceStore>, String>,
    /// Bytes that it may take.
    store_limit: AtomicU64,
    export: Export,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

impl Traces {
    /// A room for these networks. Without a store, traces are in memory alone, and the reason is shown.
    #[must_use]
    pub fn new(
        networks: Vec<Network>,
        limits: Limits,
        store: Result<TraceStore, StoreError>,
        export: Export,
    ) -> Self {
        Self {
            enabled: AtomicBool::new(true),
            networks,
            waiting: Mutex::default(),
            lost: AtomicU64::new(0),
            recorder: Mutex::new(Recorder::new(limits)),
            store: store.map(Arc::new).map_err(|error| error.to_string()),
            store_limit: AtomicU64::new(0),
            export,
        }
    }

    /// Takes new settings. Traces that are there stay, as far as there is room.
    pub fn reconfigure(&self, enabled: bool, limits: Limits, store_limit: u64) {
        self.enabled.store(enabled, Ordering::Relaxed);
        self.store_limit.store(store_limit, Ordering::Relaxed);
        self.recorder().set_limits(limits);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message came or went, at so many nanoseconds since 1970.
    pub fn message(&self, unix_ns: u64, way: Way, hop: Hop, payload: &Bytes) {
        if !self.enabled.load(Ordering::Relaxed) || classify(payload) != Datagram::Sip {
            return;
        }
        let entry = Entry { unix_us: unix_ns / 1000, way, hop, bytes: payload.clone() };
        let mut waiting = self.waiting();
        if waiting.entries.len() >= QUEUE || waiting.bytes + payload.len() > QUEUE_BYTES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += payload.len();
        waiting.entries.push(entry);
    }

    /// Takes what has come and gone since the last time into the traces, and hands each message on, its secrets masked.
    pub fn keep(&self) {
        // Taken with the recorder's lock held, so that two who look at once do not mix up the order.
        let mut recorder = self.recorder();
        let waiting = std::mem::take(&mut *self.waiting());
        for entry in waiting.entries {
            let entry = Entry { bytes: masked(&entry.bytes, Secrets::All), ..entry };
            if let Some(network) = self.networks.get(entry.hop.network.index()) {
                let (remote, local) = (entry.hop.address, network.local(entry.hop.transport));
                let (source, destination) =
                    if entry.way == Way::In { (remote, local) } else { (local, remote) };
                (self.export)(&Exported {
                    unix_us: entry.unix_us,
                    transport: entry.hop.transport,
                    source,
                    destination,
                    call_id: head::call_id(&entry.bytes).unwrap_or_default(),
                    payload: &entry.bytes,
                });
            }
            recorder.record(entry);
        }
    }

    /// Looks which traces have ended. `stands` says of a Call-ID whether its call does.
    pub fn look(&self, unix_ns: u64, stands: impl FnMut(&[u8]) -> bool) {
        self.recorder().look(unix_ns / 1000, stands);
    }

    /// Writes calls that have ended, some of them; whether there may be more. Blocks.
    ///
    /// # Errors
    /// The store's; what was to be written is then in memory alone.
    pub fn store_ended(&self) -> Result<bool, StoreError> {
        self.store_some(Which::Ended)
    }

    /// Writes all calls, on the way out. Blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn store_all(&self) -> Result<(), StoreError> {
        self.keep();
        while self.store_some(Which::All)? {}
        Ok(())
    }

    fn store_some(&self, which: Which) -> Result<bool, StoreError> {
        let (Ok(store), limit) = (&self.store, self.store_limit.load(Ordering::Relaxed)) else {
            return Ok(false);
        };
        if limit == 0 && store.bytes() == 0 {
            return Ok(false);
        }
        let unstored = self.recorder().take_unstored(which, BATCH);
        let rows: Vec<StoredTrace> = unstored.iter().filter_map(|one| self.row(one)).collect();
        if rows.is_empty() && store.bytes() <= limit {
            return Ok(false);
        }
        store.put(&rows, limit).inspect_err(|_| {
            let mut recorder = self.recorder();
            unstored.iter().for_each(|one| recorder.put_back(one));
        })?;
        Ok(unstored.len() == BATCH)
    }

    fn row(&self, unstored: &Unstored) -> Option<StoredTrace> {
        let messages: Vec<Traced> = unstored.entries.iter().map(|entry| self.traced(entry)).collect();
        let about = About::of(unstored.entries.iter().map(|entry| &entry.bytes));
        Some(StoredTrace {
            call_id: text(&unstored.call_id),
            method: about.method,
            from: about.from,
            to: about.to,
            begun_unix_us: unstored.entries.first()?.unix_us,
            last_unix_us: unstored.entries.last()?.unix_us,
            messages: messages.len() as u64,
            left_out: unstored.left_out,
            status: about.status,
            record: record::write(&messages).ok()?,
        })
    }

    fn traced(&self, entry: &Entry) -> Traced {
        let network = self.networks.get(entry.hop.network.index());
        let TracedBytes { text, base64 } = TracedBytes::of(&entry.bytes);
        Traced {
            unix_us: entry.unix_us,
            network: network.map_or_else(|| entry.hop.network.to_string(), |network| network.name.clone()),
            transport: entry.hop.transport,
            direction: entry.way,
            remote: entry.hop.address,
            local: network.map_or(entry.hop.address, |network| network.local(entry.hop.transport)),
            message: text,
            message_base64: base64,
        }
    }

    /// What became of what was recorded, messages that found no room in the queue, and bytes in memory.
    #[must_use]
    pub fn counts(&self) -> (Counts, u64, usize) {
        let recorder = self.recorder();
        (recorder.counts(), self.lost.load(Ordering::Relaxed), recorder.room().0)
    }

    /// The last traces, up to so many. Blocks.
    #[must_use]
    pub fn list(&self, most: usize) -> TracesView {
        self.keep();
        let most = most.min(MOST_LISTED);
        let mut view = TracesView::default();
        let mut known: HashMap<String, usize> = HashMap::new();
        {
            let recorder = self.recorder();
            let (bytes, limit) = recorder.room();
            (view.kept, view.bytes, view.bytes_limit) = (recorder.len() as u64, bytes as u64, limit as u64);
            view.evicted = recorder.counts().evicted + recorder.counts().evicted_live;
            for (call_id, trace) in recorder.traces().into_iter().take(most) {
                let summary = summary(call_id, trace);
                known.insert(summary.call_id.clone(), view.traces.len());
                view.traces.push(summary);
            }
        }
        view.lost = self.lost.load(Ordering::Relaxed);
        match self.store.as_ref().map(|store| (store, store.last(most))) {
            Ok((store, Ok(stored))) => {
                view.stored_bytes = store.bytes();
                view.stored_bytes_limit = self.store_limit.load(Ordering::Relaxed);
                // What is in memory has been stored, perhaps, and an earlier part of it only there.
                for part in stored {
                    match known.get(&part.call_id).copied() {
                        None => {
                            known.insert(part.call_id.clone(), view.traces.len());
                            view.traces.push(of_store(part));
                        }
                        Some(at) => join(&mut view.traces, at, &part),
                    }
                }
            }
            Ok((_, Err(error))) => view.not_stored = Some(error.to_string()),
            Err(why) => view.not_stored = Some(why.clone()),
        }
        view.traces.sort_by_key(|trace| std::cmp::Reverse(trace.last_unix_us));
        view.traces.truncate(most);
        view
    }

    /// The trace of a Call-ID; none if nothing is known of it. Blocks.
    #[must_use]
    pub fn trace(&self, call_id: &str) -> Option<TraceView> {
        self.keep();
        let parts = self.store.as_ref().ok().map(|store| store.of(call_id));
        let parts = parts.and_then(Result::ok).unwrap_or_default();
        let live = {
            let recorder = self.recorder();
            recorder.trace(call_id.as_bytes()).map(|trace| {
                let messages: Vec<Traced> = trace.entries().map(|entry| self.traced(entry)).collect();
                (summary(call_id.as_bytes(), trace), messages)
            })
        };
        let begun = live.as_ref().and_then(|(_, messages)| messages.first()).map(|first| first.unix_us);
        let mut summary: Option<Summary> = None;
        let mut all: Vec<Traced> = Vec::new();
        // What is in memory is there from its beginning, so of the store only what is older is wanted.
        for part in parts.into_iter().filter(|part| begun.is_none_or(|begun| part.begun_unix_us < begun)) {
            let messages = record::read(&part.record).unwrap_or_default();
            all.extend(messages.into_iter().filter(|one| begun.is_none_or(|begun| one.unix_us < begun)));
            summary = Some(match summary {
                None => of_store(part),
                Some(before) => after(before, of_store(part)),
            });
        }
        if let Some((now, messages)) = live {
            all.extend(messages);
            summary = Some(match summary {
                None => now,
                Some(before) => after(before, now),
            });
        }
        let mut summary = summary?;
        summary.messages = all.len() as u64;
        Some(TraceView { summary, messages: all, more: false })
    }

    /// A part of a trace: the messages from so many on. Blocks.
    #[must_use]
    pub fn part(&self, call_id: &str, from: usize) -> Option<TraceView> {
        let TraceView { summary, messages, .. } = self.trace(call_id)?;
        let (mut room, mut part) = (PART, Vec::new());
        let mut rest = messages.into_iter().skip(from).peekable();
        while let Some(message) = rest.next_if(|message| part.is_empty() || message.size() <= room) {
            room = room.saturating_sub(message.size());
            part.push(message);
        }
        Some(TraceView { summary, messages: part, more: rest.peek().is_some() })
    }
}

/// What messages say of the whole.
#[derive(Default)]
struct About {
    method: String,
    from: String,
    to: String,
    status: Option<String>,
}

impl About {
    fn of<'b>(messages: impl DoubleEndedIterator<Item = &'b Bytes> + Clone) -> Self {
        let read = |bytes: &Bytes| {
            Message::parse(bytes)
                .or_else(|rejected| rejected.answerable.map(|message| *message).ok_or(()))
                .ok()
        };
        let is_response = |bytes: &&Bytes| matches!(head::start(bytes), Start::Response(_));
        let status = messages.clone().rev().find(is_response).map(|bytes| match read(bytes) {
            Some(message) => {
                let status = message.status().unwrap_or(0);
                format!("{status} {} ({})", text(message.reason()), message.method().as_label())
            }
            None => match head::start(bytes) {
                Start::Response(status) => status.to_string(),
                Start::Request(_) => String::new(),
            },
        });
        let mut messages = messages;
        let Some(first) = messages.next() else { return Self { status, ..Self::default() } };
        let method = match head::start(first) {
            Start::Request(method) => text(method),
            Start::Response(_) => String::new(),
        };
        match read(first) {
            Some(message) => Self {
                method: message.method().as_label().to_owned(),
                from: address(message.from_value()),
                to: address(message.to_value()),
                status,
            },
            None => Self { method, status, ..Self::default() },
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address without what follows it.
fn address(value: &[u8]) -> String {
    let end = scan::find_outside(value, b";", scan::Brackets::Skip).unwrap_or(value.len());
    text(scan::trim(value.get(..end).unwrap_or_default())).chars().take(MOST_ADDRESS).collect()
}

fn summary(call_id: &[u8], trace: &Trace) -> Summary {
    let entries: Vec<&Bytes> = trace.entries().map(|entry| &entry.bytes).collect();
    let about = About::of(entries.into_iter());
    Summary {
        call_id: text(call_id),
        method: about.method,
        from: about.from,
        to: about.to,
        begun_unix_us: trace.entries().next().map_or(trace.last_us(), |entry| entry.unix_us),
        last_unix_us: trace.last_us(),
        messages: trace.kept() as u64,
        left_out: trace.left_out,
        status: about.status,
        state: if trace.is_ended() { "ended" } else { "live" }.to_owned(),
    }
}

fn of_store(part: StoredTrace) -> Summary {
    Summary {
        call_id: part.call_id,
        method: part.method,
        from: part.from,
        to: part.to,
        begun_unix_us: part.begun_unix_us,
        last_unix_us: part.last_unix_us,
        messages: part.messages,
        left_out: part.left_out,
        status: part.status,
        state: "stored".to_owned(),
    }
}

/// A part and the one after it.
fn after(before: Summary, now: Summary) -> Summary {
    Summary {
        messages: before.messages + now.messages,
        left_out: before.left_out + now.left_out,
        status: now.status.or(before.status),
        last_unix_us: now.last_unix_us,
        state: now.state,
        ..before
    }
}

/// Adds a part of the store to a summary in a list, if it is an earlier one.
fn join(list: &mut [Summary], at: usize, part: &StoredTrace) {
    if let Some(known) = list.get_mut(at)
        && part.last_unix_us < known.begun_unix_us
    {
        *known = after(of_store(part.clone()), known.clone());
    }
}

#[cfg(test)]
mod tests;
