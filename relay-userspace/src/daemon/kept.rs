//! Certificates and keys while the daemon runs: their files are looked at again, and the own certificate is renewed.
//!
//! What is new is shown and believed from the next handshake on; connections that stand go on. Files that cannot be used
//! (a new certificate whose key is not there yet) change nothing, and are tried again.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::tls::{Authorities, Identity};

/// How often the files are looked at: their dates and sizes, that is.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is asked whether the own certificate has to be renewed. It is, months before its end, but a clock that
/// was wrong at first comes right at any time.
const RENEW: u32 = 720;

/// What tells one state of a file from another.
type Stamp = Option<(SystemTime, u64)>;

/// What the appliance shows and whom it believes.
#[derive(Debug)]
pub(super) struct Kept {
    identities: Vec<Identity>,
    authorities: Authorities,
    stamps: Mutex<HashMap<PathBuf, Stamp>>,
    /// What was wrong when last looked at: it is said once.
    wrong: Mutex<Option<String>>,
}

impl Kept {
    /// `identities`: what is shown to phones, browsers and servers first, and what else is shown to servers.
    pub(super) fn new(identities: Vec<Identity>, authorities: Authorities) -> Self {
        let kept = Self { identities, authorities, stamps: Mutex::default(), wrong: Mutex::default() };
        kept.has_changed();
        kept
    }

    /// What is shown to phones.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identities.first()
    }

    /// How many authorities may vouch for servers.
    pub(super) fn authorities(&self) -> usize {
        self.authorities.len()
    }

    /// Whether a file is another one than when last asked.
    fn has_changed(&self) -> bool {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.identities.iter().flat_map(Identity::files).chain(self.authorities.file());
        let mut changed = false;
        for file in files {
            let stamp = fs::metadata(file).and_then(|found| Ok((found.modified()?, found.len()))).ok();
            changed |= stamps.insert(file.to_owned(), stamp) != Some(stamp);
        }
        changed
    }

    /// Reads everything again.
    pub(super) fn renew(&self) {
        self.has_changed();
        let now = OffsetDateTime::now_utc();
        // First: what is built of a certificate that is shown takes the authorities of that moment.
        let mut wrong = self.authorities.reload().err().map(|error| error.to_string());
        for identity in &self.identities {
            match identity.renew(now) {
                Ok(false) => {}
                Ok(true) => {
                    let until = identity.described().map(|shown| shown.not_after_unix);
                    let until = until.and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
                    let until = until.map_or_else(String::new, |until| until.date().to_string());
                    let file = identity.files()[0].display();
                    info!(certificate = %file, until, "another certificate is shown from now on");
                }
                Err(error) => wrong = Some(error.to_string()),
            }
        }
        let mut before = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = wrong.as_ref().filter(|error| before.as_ref() != Some(error)) {
            error!(error, "certificates cannot be read again; those from before are used on");
        }
        *before = wrong;
    }

    /// Whether something could not be read when last looked at.
    fn waits(&self) -> bool {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Looks at the files now and then.
    pub(super) async fn watch(self: std::sync::Arc<Self>) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0_u32;
        loop {
            tick.tick().await;
            round = round.wrapping_add(1);
            if self.has_changed() || self.waits() || round.is_multiple_of(RENEW) {
                let kept = std::sync::Arc::clone(&self);
                // Keys take a while to make.
                let _ = tokio::task::spawn_blocking(move || kept.renew()).await;
            }
        }
    }
}
