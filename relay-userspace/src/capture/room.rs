//! The captures that run, and the files of those that have ended.
//!
//! Each running capture is a task that takes copies from its tap and writes them (`work`); the files and what is told of
//! them lie in one directory (`shelf`). Invariant: when a capture has ended, for whatever reason, its tap is closed; the
//! datapath then lets go of the call's flows.

mod shelf;
mod work;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use shelf::{Description, Shelf};
use work::Work;

use super::{
    file::{self, Coat, Writer},
    recording::{End, Recording},
    target::Target,
};
use crate::{
    config,
    datapath::{PacketCopy, Tap, Way, unix_ns},
    metrics::{ServiceMetrics, names},
    net::{Dscp, NetworkId, Transport},
    sip::{
        Hop,
        secrets::{Secrets, masked},
        wire::Message,
    },
    store::Store,
};

/// Copies that are written together.
const BATCH: usize = 256;
const MIB: u64 = 1 << 20;
/// Calls of one capture that are followed at a time; of a busier address, those that came first.
const MOST_CALLS: usize = 1024;
/// How long the daemon waits for a file to be finished when it stops.
const FINISH: Duration = Duration::from_secs(2);

/// Why something cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CaptureError {
    /// No such capture, or no such call.
    #[error("{0}")]
    NotFound(String),
    /// It is not allowed as things are; says what to do.
    #[error("{0}")]
    Refused(String),
    /// A file or the directory.
    #[error("{0}")]
    File(String),
}

/// Whether a file is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// With the appliance's key.
    Sealed,
    /// It is not.
    Plain,
}

/// Whether the keys of media that signalling carries go into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// They are masked.
    #[default]
    Masked,
    /// They are in it: whoever has the file can decrypt SRTP.
    Kept,
}

/// What is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of what.
    pub target: Target,
    /// Whom the file is encrypted to, besides those of the configuration, as age's public keys.
    pub recipients: Vec<String>,
    /// Whether keys of media go into it.
    pub keys: Keys,
    /// For so many seconds at most; the configured limit unless it is given.
    pub seconds: Option<u64>,
    /// Of so many MiB at most; the configured limit unless it is given.
    pub mib: Option<u64>,
    /// Sealed or not; as configured unless it is given.
    pub sealing: Option<Sealing>,
}

/// A capture that runs, for whoever knows the calls and their flows.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its name.
    pub name: String,
    /// Of what.
    pub target: Target,
    /// The addresses whose media is of it.
    pub addresses: Vec<IpNet>,
    /// The calls that are known to be of it.
    pub calls: Vec<Bytes>,
    /// Where copies go.
    pub tap: Tap,
}

/// A network, as an interface in the files.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The appliance's address on it.
    pub address: IpAddr,
    /// The ports of SIP by each transport, as [`Transport::ALL`] has them; UDP's where there is none.
    pub ports: [u16; Transport::ALL.len()],
}

/// A capture, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureView {
    /// Its name.
    pub name: String,
    /// The call's Call-ID; empty if it is of more than one call.
    pub call_id: String,
    /// Of what, in words.
    #[serde(default)]
    pub target: String,
    /// When it began, in seconds since 1970.
    pub started_unix: i64,
    /// When it ended; none while it runs.
    pub ended_unix: Option<i64>,
    /// `running` or `ended`.
    pub state: String,
    /// Why it ended, in words.
    pub reason: Option<String>,
    /// Whether the file is sealed, or encrypted to recipients.
    pub encrypted: bool,
    /// Whom it is encrypted to; none if the appliance can open it.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Whether keys of media are in it.
    #[serde(default)]
    pub with_srtp_keys: bool,
    /// Packets in it.
    pub packets: u64,
    /// Packets that found no room in the queue, and are not in it.
    pub dropped: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// The name to keep it under.
    pub file: String,
}

/// A part of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Whether another part follows.
    pub more: bool,
}

/// How far a capture is.
#[derive(Debug, Default)]
struct Progress {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

/// A capture that runs.
struct Running {
    description: Description,
    target: Target,
    keys: Keys,
    /// The addresses whose calls are of it.
    addresses: Vec<IpNet>,
    /// Calls that are of it: the one, or those that an address takes part in.
    calls: HashSet<Bytes>,
    tap: Tap,
    most_bytes: u64,
    progress: Arc<Progress>,
    stop: Option<oneshot::Sender<End>>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Takes a call, if there is room for it.
    fn take(&mut self, call_id: &Bytes) {
        if self.calls.len() < MOST_CALLS {
            self.calls.insert(call_id.clone());
        }
    }
}

/// All captures.
pub struct Captures {
    shelf: Shelf,
    store: Arc<Store>,
    networks: Vec<Network>,
    settings: Mutex<config::Capture>,
    running: Mutex<HashMap<String, Running>>,
    /// Descriptions of captures that have ended which the disk did not take; tried again whenever somebody looks.
    unwritten: Mutex<HashMap<String, Description>>,
    /// How many run: what every SIP message asks first.
    count: AtomicUsize,
    /// Told when one has ended.
    ended: Notify,
    metrics: ServiceMetrics,
}

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captures").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

impl Captures {
    /// Opens the directory, which is made if it is not there. Captures that the last daemon did not end are marked.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(
        directory: &Path,
        settings: config::Capture,
        networks: Vec<Network>,
        store: Arc<Store>,
        metrics: &ServiceMetrics,
    ) -> Result<Self, CaptureError> {
        let wrong = |error: io::Error| {
            CaptureError::File(format!(
                "{}: {error}; make it for the daemon's user, or set capture.directory",
                directory.display()
            ))
        };
        let captures = Self {
            store,
            networks,
            settings: Mutex::new(settings),
            running: Mutex::default(),
            unwritten: Mutex::default(),
            count: AtomicUsize::new(0),
            ended: Notify::new(),
            metrics: metrics.clone(),
            shelf: Shelf::open(directory).map_err(wrong)?,
        };
        for (name, mut description) in captures.shelf.on_disk().map_err(wrong)? {
            if description.end.is_none() {
                description.end = Some(End::Interrupted);
                captures.describe_or_keep(&name, description);
            }
        }
        Ok(captures)
    }

    /// Writes a description, or keeps it in memory until the disk takes it: a full disk keeps no daemon from starting,
    /// and a capture that has ended because of it is shown as ended.
    fn describe_or_keep(&self, name: &str, description: Description) {
        if let Err(error) = self.shelf.describe(name, &description) {
            warn!(%error, capture = name, "the description of a capture cannot be written; it is kept in memory");
            self.unwritten().insert(name.to_owned(), description);
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<String, Description>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new limits, for captures that begin from now on.
    pub fn reconfigure(&self, settings: config::Capture) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> config::Capture {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a capture, within a tokio runtime; its name and its tap. That the call stands is for the caller to know.
    ///
    /// # Errors
    /// A limit is reached, the call is captured already, or the file cannot be made.
    pub fn start(self: &Arc<Self>, wanted: &Wanted) -> Result<(String, Tap), CaptureError> {
        let limits = self.limits();
        let within = |what: &str, key: &str, value: Option<u64>, most: u64| match value.unwrap_or(most) {
            value if (1..=most).contains(&value) => Ok(value),
            value => {
                Err(CaptureError::Refused(format!("{value} {what} is out of range: 1 to {most} ({key})")))
            }
        };
        let seconds = within("seconds", "capture.max_seconds", wanted.seconds, limits.max_seconds)?;
        let most_bytes = within("MiB", "capture.max_mib", wanted.mib, limits.max_mib)? * MIB;
        let mut recipients = limits.recipients.clone();
        recipients.extend(wanted.recipients.iter().filter(|new| !limits.recipients.contains(new)).cloned());
        if recipients.len() > config::MOST_RECIPIENTS {
            let most = config::MOST_RECIPIENTS;
            return Err(CaptureError::Refused(format!(
                "{} recipients; there can be {most}",
                recipients.len()
            )));
        }
        let keys = recipients.iter().map(|recipient| config::age_recipient(recipient));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(CaptureError::Refused)?;
        let sealed = recipients.is_empty()
            && wanted.sealing.map_or(limits.encrypt, |sealing| sealing == Sealing::Sealed);

        let mut running = self.running();
        if let Some((name, _)) = running.iter().find(|(_, one)| one.target == wanted.target) {
            let what = if matches!(wanted.target, Target::Call(_)) { "call" } else { "phone or address" };
            return Err(CaptureError::Refused(format!("this {what} is being captured already, as {name}")));
        }
        if running.len() >= limits.max_running {
            return Err(CaptureError::Refused(format!(
                "{} captures run already (capture.max_running); stop one",
                running.len()
            )));
        }
        let reserved: u64 = running.values().map(|one| one.most_bytes).sum();
        let kept = self
            .shelf
            .bytes(|name| !running.contains_key(name))
            .map_err(|error| self.shelf.file_error(&error))?;
        if kept + reserved + most_bytes > limits.total_mib * MIB {
            return Err(CaptureError::Refused(format!(
                "captures take {} MiB and those that run may take {} more; with this one they would exceed {} MiB \
                 (capture.total_mib): remove some",
                kept / MIB,
                reserved / MIB,
                limits.total_mib
            )));
        }

        let now = OffsetDateTime::now_utc();
        let words = wanted.target.to_string();
        let name = self.shelf.new_name(&words, now);
        let (call_id, calls) = match &wanted.target {
            Target::Call(call) => (call.clone(), HashSet::from([Bytes::copy_from_slice(call.as_bytes())])),
            Target::Phone(_) | Target::Address(_) => (String::new(), HashSet::new()),
        };
        let description = Description {
            call_id,
            target: words.clone(),
            started_unix: now.unix_timestamp(),
            encrypted: sealed || !recipients.is_empty(),
            recipients,
            with_srtp_keys: wanted.keys == Keys::Kept,
            ended_unix: None,
            end: None,
            packets: 0,
            dropped: 0,
            bytes: 0,
        };
        let labels: Vec<String> = self.networks.iter().map(|network| network.name.clone()).collect();
        let what = match (&wanted.target, wanted.keys) {
            (Target::Call(call), Keys::Masked) => format!("Call-ID {call}"),
            (Target::Call(call), Keys::Kept) => format!("Call-ID {call}, with keys of SRTP"),
            (_, Keys::Masked) => words.clone(),
            (_, Keys::Kept) => format!("{words}, with keys of SRTP"),
        };
        let (recording, head) = Recording::begin(most_bytes, &what, &labels);
        let path = self.shelf.content_path(&name, &description);
        let coat = match (keys.is_empty(), sealed) {
            (false, _) => Coat::Age(keys),
            (true, true) => Coat::Sealed(Arc::clone(&self.store)),
            (true, false) => Coat::Plain,
        };
        let make = || -> io::Result<Writer> {
            let mut writer = Writer::create(&path, coat)?;
            writer.write(&head)?;
            self.shelf.describe(&name, &description)?;
            Ok(writer)
        };
        let writer = make().map_err(|error| {
            // Nobody would know of what is left of it, and it takes room.
            for path in [path.clone(), self.shelf.draft_path(&name), self.shelf.description_path(&name)] {
                let _ = fs::remove_file(path);
            }
            self.shelf.file_error(&error)
        })?;
        let (tap, tapped) = Tap::new(self.networks.len());
        let (stop, stopped) = oneshot::channel();
        let progress = Arc::new(Progress { bytes: AtomicU64::new(head.len() as u64), ..Progress::default() });
        let work = Work { tapped, recording, writer: Some(writer), progress: Arc::clone(&progress) };
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let task = tokio::spawn(Arc::clone(self).run(name.clone(), work, stopped, deadline));
        running.insert(
            name.clone(),
            Running {
                description,
                target: wanted.target.clone(),
                keys: wanted.keys,
                addresses: Vec::new(),
                calls,
                tap: tap.clone(),
                most_bytes,
                progress,
                stop: Some(stop),
                task: Some(task),
            },
        );
        self.count.store(running.len(), Ordering::Release);
        self.metrics.captures_running.set(running.len() as i64);
        drop(running);
        info!(of = words, capture = name, seconds, sealed, keys = ?wanted.keys, "capture begins");
        Ok((name, tap))
    }

    /// Takes copies until the end, which is then described.
    async fn run(
        self: Arc<Self>,
        name: String,
        mut work: Work,
        mut stop: oneshot::Receiver<End>,
        deadline: Instant,
    ) {
        let end = loop {
            tokio::select! {
                biased;
                why = &mut stop => break why.unwrap_or(End::Shutdown),
                () = sleep_until(deadline) => break End::Time,
                copies = work.tapped.next(BATCH) => {
                    if let Err(end) = work.write(&copies).await {
                        break end;
                    }
                }
            }
        };
        let end = work.finish(end).await;
        let progress = &work.progress;
        let (packets, dropped) =
            (progress.packets.load(Ordering::Relaxed), progress.dropped.load(Ordering::Relaxed));
        let description = {
            let running = self.running();
            let Some(one) = running.get(&name) else { return };
            Description {
                ended_unix: Some(OffsetDateTime::now_utc().unix_timestamp()),
                end: Some(end.clone()),
                packets,
                dropped,
                bytes: progress.bytes.load(Ordering::Relaxed),
                ..one.description.clone()
            }
        };
        let (captures, described) = (Arc::clone(&self), name.clone());
        let call = description.target.clone();
        // A task that blocks does not end early; its failure would be that of the whole daemon.
        let _ = spawn_blocking(move || captures.describe_or_keep(&described, description)).await;
        {
            let mut running = self.running();
            running.remove(&name);
            self.count.store(running.len(), Ordering::Release);
            self.metrics.captures_running.set(running.len() as i64);
        }
        let packets_metric = &self.metrics.capture_packets;
        packets_metric.with_label_values(&[names::capture::WRITTEN]).inc_by(packets);
        packets_metric.with_label_values(&[names::capture::DROPPED]).inc_by(dropped);
        if let End::Failed(why) = &end {
            self.metrics.capture_failures.inc();
            warn!(call, capture = name, reason = why, "capture failed");
        } else {
            info!(call, capture = name, packets, dropped, reason = end.words(), "capture ended");
        }
        self.ended.notify_one();
    }

    /// Waits until a capture has ended.
    pub async fn one_ended(&self) {
        self.ended.notified().await;
    }

    /// The captures that run.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let running = self.running();
        let sighting = |(name, one): (&String, &Running)| Sighting {
            name: name.clone(),
            target: one.target.clone(),
            addresses: one.addresses.clone(),
            calls: one.calls.iter().cloned().collect(),
            tap: one.tap.clone(),
        };
        running.iter().map(sighting).collect()
    }

    /// Whether any capture runs.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// The addresses that a capture is of now.
    pub fn place(&self, name: &str, addresses: Vec<IpNet>) {
        if let Some(one) = self.running().get_mut(name) {
            one.addresses = addresses;
        }
    }

    /// A call is found to be of a capture.
    pub fn belongs(&self, name: &str, call_id: &Bytes) {
        if let Some(one) = self.running().get_mut(name) {
            one.take(call_id);
        }
    }

    /// Copies a SIP message, if it is of a call that is captured. `dscp` is what it left with.
    pub fn message(&self, way: Way, hop: Hop, payload: &Bytes, dscp: Dscp) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let Ok(message) = Message::parse(payload) else { return };
        let call_id = message.call_id();
        let mut taps = Vec::new();
        for one in self.running().values_mut() {
            let ours = one.addresses.iter().any(|net| net.contains(&hop.address.ip()));
            if ours && !one.calls.contains(call_id) {
                one.take(&Bytes::copy_from_slice(call_id));
            }
            if ours || one.calls.contains(call_id) {
                taps.push((one.tap.clone(), one.keys));
            }
        }
        for (tap, keys) in taps {
            let payload =
                if keys == Keys::Kept { payload.clone() } else { masked(payload, Secrets::MediaKeys) };
            if let Some(copy) = self.message_copy(way, hop, &payload, dscp) {
                tap.offer(copy);
            }
        }
    }

    fn message_copy(&self, way: Way, hop: Hop, payload: &Bytes, dscp: Dscp) -> Option<PacketCopy> {
        let network: &Network = self.networks.get(hop.network.index())?;
        let remark = match hop.transport {
            Transport::Udp => None,
            Transport::Tcp => Some("SIP over TCP, shown as UDP".to_owned()),
            Transport::Tls | Transport::LegacyTls => Some("SIP over TLS, shown as UDP in clear".to_owned()),
            Transport::Ws => Some("SIP over WebSocket, shown as UDP".to_owned()),
            Transport::Wss => Some("SIP over WebSocket in TLS, shown as UDP in clear".to_owned()),
        };
        let port =
            Transport::ALL.iter().zip(network.ports).find(|(transport, _)| **transport == hop.transport);
        let own = SocketAddr::new(network.address, port.map_or(0, |(_, port)| port));
        let (source, destination) = if way == Way::In { (hop.address, own) } else { (own, hop.address) };
        Some(PacketCopy {
            unix_ns: unix_ns(),
            network: NetworkId(hop.network.0),
            way,
            source,
            destination,
            // What a message came with is not told by the socket.
            type_of_service: if way == Way::In { 0 } else { dscp.type_of_service() },
            payload: payload.clone(),
            remark,
        })
    }

    /// Stops a capture; its file is whole a moment later.
    ///
    /// # Errors
    /// There is no such one that runs.
    pub fn stop(&self, name: &str) -> Result<(), CaptureError> {
        self.end(|running, _| running == name, &End::Stopped)
            .then_some(())
            .ok_or_else(|| CaptureError::NotFound(format!("no capture {name:?} runs")))
    }

    /// Ends the captures of calls that do not stand any more, and forgets such calls of the others.
    pub fn calls_stand(&self, mut stands: impl FnMut(&[u8]) -> bool) {
        // The question takes another lock, which must not be taken while this room's is held.
        let gone: Vec<Bytes> = {
            let calls = self.sightings().into_iter().flat_map(|sighting| sighting.calls);
            calls.filter(|call| !stands(call)).collect()
        };
        if gone.is_empty() {
            return;
        }
        for one in self.running().values_mut().filter(|one| !matches!(one.target, Target::Call(_))) {
            one.calls.retain(|call| !gone.contains(call));
        }
        let is_gone = |call: &str| gone.iter().any(|gone| gone == call.as_bytes());
        self.end(|_, one| matches!(&one.target, Target::Call(call) if is_gone(call)), &End::CallEnded);
    }

    fn end(&self, mut which: impl FnMut(&str, &Running) -> bool, end: &End) -> bool {
        let mut found = false;
        for (name, one) in self.running().iter_mut() {
            if which(name, one) {
                found = true;
                if let Some(stop) = one.stop.take() {
                    // One that has just ended by itself does not listen any more.
                    let _ = stop.send(end.clone());
                }
            }
        }
        found
    }

    /// Ends all captures, and waits a moment for their files.
    pub async fn shutdown(&self) {
        let tasks: Vec<JoinHandle<()>> =
            self.running().values_mut().filter_map(|one| one.task.take()).collect();
        self.end(|_, _| true, &End::Shutdown);
        for task in tasks {
            let _ = timeout(FINISH, task).await;
        }
    }

    /// All captures, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<CaptureView>, CaptureError> {
        self.unwritten().retain(|name, description| self.shelf.describe(name, description).is_err());
        let found = self.shelf.on_disk().map_err(|error| self.shelf.file_error(&error))?;
        let (running, unwritten) = (self.running(), self.unwritten());
        let mut views: Vec<CaptureView> = found
            .into_iter()
            .map(|(name, description)| match running.get(&name) {
                None => {
                    let description = unwritten.get(&name).unwrap_or(&description);
                    view(name, description)
                }
                Some(one) => {
                    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
                    let description = Description {
                        packets: load(&one.progress.packets),
                        dropped: load(&one.progress.dropped),
                        bytes: load(&one.progress.bytes),
                        ended_unix: None,
                        end: None,
                        ..description
                    };
                    view(name, &description)
                }
            })
            .collect();
        views.sort_by(|a, b| (b.started_unix, &b.name).cmp(&(a.started_unix, &a.name)));
        Ok(views)
    }

    /// One part of a capture's content, opened if it is sealed; parts are numbered from 0.
    ///
    /// # Errors
    /// There is no such capture, or its file cannot be read or opened.
    pub fn part(&self, name: &str, number: u64) -> Result<Part, CaptureError> {
        let description = self.shelf.known(name)?;
        let path = self.shelf.content_path(name, &description);
        let (content, more) = file::read(&path, description.sealed().then_some(&*self.store), number)
            .map_err(|error| CaptureError::File(format!("{}: {error}", path.display())))?;
        Ok(Part { content, more })
    }

    /// Removes a capture that has ended.
    ///
    /// # Errors
    /// There is no such one, it runs, or its file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), CaptureError> {
        let description = self.shelf.known(name)?;
        if self.running().contains_key(name) {
            return Err(CaptureError::Refused(format!("capture {name} runs; stop it first")));
        }
        // The description goes last: while it is there, the file is known.
        fs::remove_file(self.shelf.content_path(name, &description))
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .and_then(|()| fs::remove_file(self.shelf.description_path(name)))
            .map_err(|error| self.shelf.file_error(&error))?;
        self.unwritten().remove(name);
        Ok(())
    }

    /// Bytes that captures take on disk, and that they may take.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn room(&self) -> Result<(u64, u64), CaptureError> {
        let used = self.shelf.bytes(|_| true).map_err(|error| self.shelf.file_error(&error))?;
        Ok((used, self.limits().total_mib * MIB))
    }
}

fn view(name: String, description: &Description) -> CaptureView {
    CaptureView {
        file: if description.recipients.is_empty() {
            format!("{name}.pcapng")
        } else {
            format!("{name}.pcapng.age")
        },
        call_id: description.call_id.clone(),
        // Those of before there was anything else than calls.
        target: if description.target.is_empty() {
            description.call_id.clone()
        } else {
            description.target.clone()
        },
        recipients: description.recipients.clone(),
        with_srtp_keys: description.with_srtp_keys,
        started_unix: description.started_unix,
        ended_unix: description.ended_unix,
        state: if description.end.is_some() { "ended" } else { "running" }.to_owned(),
        reason: description.end.as_ref().map(End::words),
        encrypted: description.encrypted,
        packets: description.packets,
        dropped: description.dropped,
        bytes: description.bytes,
        name,
    }
}

#[cfg(test)]
mod tests;
