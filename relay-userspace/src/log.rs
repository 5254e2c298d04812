//! The log on standard error, and its filter, which can change while the daemon runs.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// A way to the log's filter.
#[derive(Debug, Clone)]
pub struct LogLevel {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

impl LogLevel {
    /// Sets the filter, as the key `log.level` has it. Without effect when `RUST_LOG` was set at the start.
    ///
    /// # Errors
    /// It is no filter.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        match &self.handle {
            Some(handle) => handle.reload(filter).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

/// Begins to log. `RUST_LOG` wins, for a moment's troubleshooting; a level that is no filter counts as none.
#[must_use]
pub fn start(level: &str) -> LogLevel {
    let from_environment = EnvFilter::try_from_default_env().ok();
    let fixed = from_environment.is_some();
    let filter = from_environment.or_else(|| EnvFilter::try_new(level).ok()).unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    LogLevel { handle: (!fixed).then_some(handle) }
}
