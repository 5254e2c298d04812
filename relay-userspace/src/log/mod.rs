//! The log: on standard error and, if the configuration names a directory, in a file for each day. Its filter, with a
//! level for each topic, can change while the daemon runs.
//!
//! - `topics` says which modules belong to a topic, and makes the filter: pure.
//! - `files` says which files are due to be compressed or removed, and does it.
//! - `escape` makes what peers say fit to be shown: pure.
//! - `writer` is the way to the disk, which may be full.
//!
//! Invariant: nobody waits for the disk. Lines that find no room in the queue are counted and lost.

mod escape;
mod files;
mod topics;
mod writer;

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use escape::escaped;
use serde::{Deserialize, Serialize};
pub use topics::Topic;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::config::{self, LogWord};

/// The log as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// The level of what no topic sets, as the key `log.level`.
    pub level: String,
    /// The topics.
    pub topics: Vec<TopicView>,
    /// Where the files are, if they are.
    pub directory: Option<String>,
    /// Days that a file is kept.
    pub retention_days: u64,
    /// Whether `RUST_LOG` was set at the start: it wins over all levels.
    pub fixed: bool,
    /// Lines that were lost since the start: the queue was full.
    pub lines_lost: u64,
    /// Writes that failed since the start: the disk is full.
    pub write_failures: u64,
}

/// A topic's level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicView {
    /// Its name.
    pub topic: String,
    /// Its level; none: it follows the base.
    pub level: Option<String>,
    /// Whether it was set until the restart, besides the configuration.
    pub until_restart: bool,
}

#[derive(Debug)]
struct State {
    config: config::Log,
    /// Set until the restart.
    overrides: BTreeMap<Topic, LogWord>,
}

struct Inner {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    state: Mutex<State>,
    /// Where the files are since the start.
    directory: Option<PathBuf>,
    lost: Option<ErrorCounter>,
    failures: Arc<AtomicU64>,
    /// Writes what waits when the last handle goes.
    _guard: Option<WorkerGuard>,
}

/// A way to the log; clones are of the same one.
#[derive(Clone)]
pub struct LogControl(Arc<Inner>);

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogControl").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

impl LogControl {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new configuration. The filter is without effect when `RUST_LOG` was set at the start; what was set
    /// until the restart stays.
    ///
    /// # Errors
    /// The level is no filter.
    pub fn set(&self, config: &config::Log) -> Result<(), String> {
        let mut state = self.state();
        state.config = config.clone();
        self.enforce(&state)
    }

    /// Sets a topic's level until the restart; none: as configured again.
    ///
    /// # Errors
    /// `RUST_LOG` was set at the start and wins.
    pub fn set_topic(&self, topic: Topic, level: Option<LogWord>) -> Result<(), String> {
        if self.0.handle.is_none() {
            return Err("RUST_LOG was set when the daemon started, and wins over all levels".to_owned());
        }
        let mut state = self.state();
        match level {
            Some(level) => state.overrides.insert(topic, level),
            None => state.overrides.remove(&topic),
        };
        self.enforce(&state)
    }

    fn enforce(&self, state: &State) -> Result<(), String> {
        let filter = topics::filter(&state.config, &state.overrides);
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        match &self.0.handle {
            Some(handle) => handle.reload(filter).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// The log as it stands.
    #[must_use]
    pub fn view(&self) -> LogView {
        let state = self.state();
        let topics = Topic::ALL.into_iter().map(|topic| {
            let until_restart = state.overrides.get(&topic).copied();
            let level = until_restart.or(topic.configured(&state.config.topics));
            TopicView {
                topic: topic.as_label().to_owned(),
                level: level.map(|level| level.as_label().to_owned()),
                until_restart: until_restart.is_some(),
            }
        });
        LogView {
            level: state.config.level.clone(),
            topics: topics.collect(),
            directory: self.0.directory.as_ref().map(|directory| directory.display().to_string()),
            retention_days: state.config.retention_days,
            fixed: self.0.handle.is_none(),
            lines_lost: self.0.lost.as_ref().map_or(0, |lost| lost.dropped_lines() as u64),
            write_failures: self.0.failures.load(Ordering::Relaxed),
        }
    }

    /// Compresses and removes files when they are due, for as long as it is polled.
    pub async fn keep_files(self) {
        let Some(directory) = self.0.directory.clone() else { return };
        files::keep(directory, move || self.state().config.clone()).await;
    }
}

/// Begins to log. `RUST_LOG` wins, for a moment's troubleshooting; a level that is no filter counts as none. A
/// directory that cannot be written is told on standard error: the phones are served without a log, too.
#[must_use]
pub fn start(config: &config::Log) -> LogControl {
    let from_environment = EnvFilter::try_from_default_env().ok();
    let fixed = from_environment.is_some();
    let configured = || EnvFilter::try_new(topics::filter(config, &BTreeMap::new())).ok();
    let filter = from_environment.or_else(configured).unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let failures = Arc::new(AtomicU64::new(0));
    let opened = config.directory.as_ref().map(|directory| writer::open(directory, &failures));
    let (files, why_not): (Option<(NonBlocking, WorkerGuard)>, _) = match opened {
        Some(Ok(files)) => (Some(files), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let (queue, guard) = files.unzip();
    let lost = queue.as_ref().map(NonBlocking::error_counter);
    let in_files = queue.map(|queue| tracing_subscriber::fmt::layer().with_ansi(false).with_writer(queue));
    tracing_subscriber::registry().with(filter).with(lines).with(in_files).init();
    if let Some(error) = &why_not {
        failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "no log files are written (key log.directory)");
    }
    LogControl(Arc::new(Inner {
        handle: (!fixed).then_some(handle),
        state: Mutex::new(State { config: config.clone(), overrides: BTreeMap::new() }),
        directory: config.directory.clone().filter(|_| why_not.is_none()),
        lost,
        failures,
        _guard: guard,
    }))
}
