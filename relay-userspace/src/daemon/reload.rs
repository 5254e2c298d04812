//! Reading the configuration file again while calls stand: checked whole, then applied key by key as far as that goes.
//!
//! What needs a restart is compared with what the daemon started with, so a change that is taken back waits no more.
//! A file that is not valid changes nothing; it is told in the log and on every page.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{runtime::Handle, task::block_in_place};
use tracing::{error, info, warn};

use super::{
    core::Core,
    fits::{self, Examine, Host},
    kept::Kept,
    settings::{marks, proxy_changes},
};
use crate::{
    config::{Config, ConfigError, changes, keys::Effect},
    control::ReloadedView,
    log::LogControl,
    metrics::names,
    net::DatapathChoice,
};

/// What is known of the configuration.
struct Known {
    /// The file as it was applied last.
    applied: Config,
    waiting: Vec<String>,
    error: Option<String>,
}

/// Reads the file again when it is asked to.
pub(super) struct Reloader {
    file: PathBuf,
    /// What the daemon started with.
    started: Config,
    /// What the command line has set, whatever the file says.
    datapath: Option<DatapathChoice>,
    log: LogControl,
    core: Arc<Core>,
    kept: Arc<Kept>,
    known: Mutex<Known>,
}

impl Reloader {
    pub(super) fn new(
        file: &Path,
        started: &Config,
        datapath: Option<DatapathChoice>,
        log: LogControl,
        core: Arc<Core>,
        kept: Arc<Kept>,
    ) -> Self {
        Self {
            // Later the working directory may be another.
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            started: started.clone(),
            datapath,
            log,
            core,
            kept,
            known: Mutex::new(Known { applied: started.clone(), waiting: Vec::new(), error: None }),
        }
    }

    pub(super) fn log(&self) -> &LogControl {
        &self.log
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Keys that wait for a restart, and what is wrong with the file.
    pub(super) fn state(&self) -> (Vec<String>, Option<String>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.waiting.clone(), known.error.clone())
    }

    /// What this host has; none when the kernel does not say.
    pub(super) fn host(&self) -> Option<Host> {
        let read = block_in_place(|| Handle::current().block_on(Host::read()));
        read.inspect_err(|error| warn!(%error, "the host's interfaces cannot be read")).ok()
    }

    /// Whether this host has what a configuration, whose text is given, asks of it.
    pub(super) fn examine(&self, config: &Config, text: &str, examine: Examine) -> Result<(), ConfigError> {
        let Some(host) = self.host() else { return Ok(()) };
        fits::check(config, &self.started, &host, examine)
            .map_err(|misfit| misfit.in_file(&self.file, text, config))
    }

    /// Whether a daemon could start with the file as it is.
    pub(super) fn can_start(&self) -> Result<(), ConfigError> {
        let config = Config::read(&self.file)?;
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        self.examine(&config, &text, Examine::Everything)
    }

    /// Reads the file and applies it.
    pub(super) fn reload(&self) -> Result<ReloadedView, ConfigError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reloads = &self.core.measures.metrics.configuration_reloads;
        let mut config = Config::read(&self.file).inspect_err(|error| {
            error!(%error, "the configuration is not valid; what ran before runs on");
            reloads.with_label_values(&[names::reload::REFUSED]).inc();
            known.error = Some(error.to_string());
        })?;
        if let Some(wanted) = self.datapath {
            config.datapath.engine = wanted;
        }
        let of = |before: &Config, effect| -> Vec<String> {
            let changed = changes::between(before, &config).into_iter();
            changed.filter(|changed| changed.effect == effect).map(|changed| changed.key).collect()
        };
        let applied = of(&known.applied, Effect::Running);
        let waiting = of(&self.started, Effect::Restart);
        self.core.reconfigure(proxy_changes(&config), marks(&config), &config);
        if let Err(error) = self.log.set(&config.log) {
            error!(%error, level = config.log.level, "the log level cannot be set");
        }
        block_in_place(|| self.kept.renew());
        reloads.with_label_values(&[names::reload::APPLIED]).inc();
        info!(?applied, ?waiting, "configuration read again");
        *known = Known { applied: config, waiting: waiting.clone(), error: None };
        Ok(ReloadedView { applied, waiting_for_restart: waiting })
    }
}
