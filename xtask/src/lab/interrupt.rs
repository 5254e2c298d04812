//! Ctrl-C, SIGTERM and the end of a terminal end every wait with an error, so that destructors undo what was made.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::POLL;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process at once; but one that was started not to
/// hear of the end of its terminal (`nohup`) goes on not to.
pub fn listen() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is safe at any moment in any thread.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if signal == libc::SIGHUP && before == libc::SIG_IGN {
            // SAFETY: it is what was there.
            unsafe { libc::signal(signal, before) };
        }
    }
}

/// Whether the run was interrupted.
#[must_use]
pub fn happened() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Waits.
///
/// # Errors
/// The run was interrupted.
pub fn sleep(time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    wait_until(time + POLL, "", || Ok((Instant::now() >= deadline).then_some(())))
}

/// By this the limits of waits are multiplied: an emulated machine is slow, and one that others use is slower still.
pub const PATIENCE: &str = "BRANCHLINE_LAB_PATIENCE";

/// The factor that [`PATIENCE`] asks for; 1 without one.
fn patience() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let read = || std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok());
    *FACTOR.get_or_init(|| read().unwrap_or(1).clamp(1, 100))
}

/// Waits until `ready` returns something, and returns that. The limit is multiplied by what [`PATIENCE`] says.
///
/// # Errors
/// `ready` failed, the run was interrupted, or the time is up; then the message says that there was no `what`.
pub fn wait_until<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = limit * patience();
    let deadline = Instant::now() + limit;
    loop {
        if happened() {
            bail!("interrupted");
        }
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("no {what} within {:.1} s", limit.as_secs_f64());
        }
        thread::sleep(POLL);
    }
}
