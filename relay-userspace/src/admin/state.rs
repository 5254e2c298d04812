//! What all handlers share.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::IntCounterVec;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::{sync::Semaphore, task::spawn_blocking, time::sleep};
use zeroize::Zeroizing;

use super::{
    access::{Attempts, Busy, Passwords, Sessions},
    appliance::{Appliance, Which},
    apply::ApplyError,
    setup::Setup,
};
use crate::{
    control::{CallView, StatusView},
    metrics::{Metrics, names},
    store::{Store, StoreError},
};

/// Live views at a time, all browsers together.
const LIVE_VIEWS: usize = 64;
/// A view that is younger is shown again instead of being made anew: ten browsers cost what one does.
const FRESH: Duration = Duration::from_millis(900);

/// An answer has left after this long.
const ANSWER_FIRST: Duration = Duration::from_millis(300);

/// Why a request fails though nothing is wrong with it.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many passwords at a time.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// A worker was lost.
    #[error("the work was not finished")]
    Lost,
}

/// Why nobody was signed in.
#[derive(Debug)]
pub(super) enum Denied {
    /// Name or password are wrong; which of them is nobody's business.
    Wrong,
    /// Too many wrong attempts; how long to wait.
    Wait(Duration),
    /// Nothing to do with the one who asks.
    Failure(Failure),
}

struct Shared {
    appliance: Arc<dyn Appliance>,
    store: Arc<Store>,
    setup: Arc<Setup>,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    passwords: Passwords,
    live_views: Arc<Semaphore>,
    has_administrator: AtomicBool,
    status: Mutex<Option<(Instant, Arc<StatusView>)>>,
    calls: Mutex<Option<(Instant, Arc<Vec<CallView>>)>>,
    applying: tokio::sync::Mutex<()>,
    requests: IntCounterVec,
    refused: IntCounterVec,
}

/// What all handlers share; cheap to clone.
#[derive(Clone)]
pub struct Web(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Web {
    /// Nobody is signed in yet.
    #[must_use]
    pub fn new(
        appliance: Arc<dyn Appliance>,
        store: Arc<Store>,
        setup: Arc<Setup>,
        metrics: &Metrics,
    ) -> Self {
        Self(Arc::new(Shared {
            appliance,
            store,
            setup,
            sessions: Mutex::default(),
            attempts: Mutex::default(),
            passwords: Passwords::default(),
            live_views: Arc::new(Semaphore::new(LIVE_VIEWS)),
            has_administrator: AtomicBool::new(false),
            status: Mutex::default(),
            calls: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            requests: metrics.web_requests.clone(),
            refused: metrics.web_refused.clone(),
        }))
    }

    pub(super) fn appliance(&self) -> &dyn Appliance {
        &*self.0.appliance
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.0.setup
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.0.sessions)
    }

    pub(super) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(super) fn live_views(&self) -> &Arc<Semaphore> {
        &self.0.live_views
    }

    pub(super) fn applying(&self) -> &tokio::sync::Mutex<()> {
        &self.0.applying
    }

    /// Counts a refusal; `reason` is one of [`names::web`].
    pub(super) fn refused(&self, reason: &str) {
        self.0.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn answered(&self, class: &str) {
        self.0.requests.with_label_values(&[class]).inc();
    }

    /// How the appliance is, at most a second ago.
    pub(super) fn status(&self) -> Arc<StatusView> {
        let mut kept = lock(&self.0.status);
        match &*kept {
            Some((at, status)) if at.elapsed() < FRESH => Arc::clone(status),
            _ => {
                let status = Arc::new(self.0.appliance.status());
                *kept = Some((Instant::now(), Arc::clone(&status)));
                status
            }
        }
    }

    /// The live calls, at most a second ago.
    pub(super) fn live_calls(&self) -> Arc<Vec<CallView>> {
        let mut kept = lock(&self.0.calls);
        match &*kept {
            Some((at, calls)) if at.elapsed() < FRESH => Arc::clone(calls),
            _ => {
                let calls = Arc::new(self.0.appliance.calls(Which::Live));
                *kept = Some((Instant::now(), Arc::clone(&calls)));
                calls
            }
        }
    }

    /// Starts the appliance anew, once the answer to whoever asked has left.
    ///
    /// # Errors
    /// It could not start with the file as it is, and goes on.
    pub(super) async fn restart_soon(&self) -> Result<(), ApplyError> {
        let ready = self.work(|appliance| appliance.can_start()).await?;
        ready?;
        let web = self.clone();
        tokio::spawn(async move {
            sleep(ANSWER_FIRST).await;
            web.appliance().restart();
        });
        Ok(())
    }

    /// What has changed is shown at once.
    pub(super) fn forget_status(&self) {
        *lock(&self.0.status) = None;
    }

    /// Works on the store, off the threads that serve.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.0.store);
        Ok(spawn_blocking(move || work(&store)).await.map_err(|_| Failure::Lost)??)
    }

    /// Has the appliance do what may wait for the store, off the threads that serve.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Appliance) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let appliance = Arc::clone(&self.0.appliance);
        Ok(spawn_blocking(move || work(&*appliance)).await.map_err(|_| Failure::Lost)??)
    }

    /// Has the appliance do what may wait for a disk, off the threads that serve.
    ///
    /// # Errors
    /// The worker was lost.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Appliance) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let appliance = Arc::clone(&self.0.appliance);
        spawn_blocking(move || work(&*appliance)).await.map_err(|_| Failure::Lost)
    }

    /// Whether anybody can sign in. Once there is an administrator there always is one.
    pub(super) async fn has_administrator(&self) -> Result<bool, Failure> {
        if self.0.has_administrator.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let found = self.store(|store| Ok(!store.administrators()?.is_empty())).await?;
        self.0.has_administrator.store(found, Ordering::Relaxed);
        Ok(found)
    }

    /// Checks a name and a password. Wrong ones are counted against source and name, and take as long as right ones.
    pub(super) async fn check_password(
        &self,
        source: IpAddr,
        name: &str,
        password: Zeroizing<String>,
    ) -> Result<(), Denied> {
        self.may_try(source, Some(name)).map_err(Denied::Wait)?;
        let wanted = name.to_owned();
        let known = self.store(move |store| store.administrator_password(&wanted)).await;
        let known = known.map_err(Denied::Failure)?;
        match self.0.passwords.verify(password, known).await {
            Ok(true) => {
                lock(&self.0.attempts).right(source);
                Ok(())
            }
            Ok(false) => {
                self.wrong_attempt(source, Some(name), names::web::WRONG_PASSWORD);
                Err(Denied::Wrong)
            }
            Err(busy) => Err(Denied::Failure(busy.into())),
        }
    }

    /// Whether a source may try now, or how long it has to wait.
    pub(super) fn may_try(&self, source: IpAddr, account: Option<&str>) -> Result<(), Duration> {
        lock(&self.0.attempts)
            .check(Instant::now(), source, account)
            .inspect_err(|_| self.refused(names::web::TOO_MANY_ATTEMPTS))
    }

    /// Counts a wrong attempt.
    pub(super) fn wrong_attempt(&self, source: IpAddr, account: Option<&str>, reason: &str) {
        lock(&self.0.attempts).wrong(Instant::now(), source, account);
        self.refused(reason);
    }
}

/// Now, in seconds since 1970.
pub(super) fn now_unix() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
