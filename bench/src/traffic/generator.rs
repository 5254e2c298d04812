//! A generator under way: a thread that is in one system call for as long as packets are sent, and how it is ended.

use std::os::unix::thread::JoinHandleExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use relay_ebpf::traffic::Progress;
use xtask::lab::interrupt;

use super::get;

/// How often it is looked at.
const STEP: Duration = Duration::from_millis(2);

/// A generator under way. Dropping it stops it.
pub(crate) struct Generator {
    programs: Arc<Mutex<Ebpf>>,
    deadline: Instant,
    thread: Option<JoinHandle<Option<Result<()>>>>,
}

impl Generator {
    pub(super) fn of(
        programs: Arc<Mutex<Ebpf>>,
        deadline: Instant,
        thread: JoinHandle<Option<Result<()>>>,
    ) -> Self {
        Self { programs, deadline, thread: Some(thread) }
    }

    /// Waits for its end: packets that it sent, and the time that it took.
    ///
    /// # Errors
    /// The kernel refused, or the run was interrupted.
    pub(crate) fn finish(mut self) -> Result<(u64, Duration)> {
        while !interrupt::happened() && !self.has_ended() {
            std::thread::sleep(STEP.min(self.deadline.saturating_duration_since(Instant::now())));
        }
        self.outcome()
    }

    /// Ends it before its time: packets that it sent, and the time that it took.
    ///
    /// # Errors
    /// The kernel refused, or the run was interrupted.
    pub(super) fn end(mut self) -> Result<(u64, Duration)> {
        self.outcome()
    }

    fn outcome(&mut self) -> Result<(u64, Duration)> {
        self.stop()?;
        if interrupt::happened() {
            bail!("interrupted");
        }
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let progress: Progress = get(&programs, "PROGRESS", 0)?;
        Ok((progress.sent, Duration::from_nanos(progress.last_ns.saturating_sub(progress.first_ns))))
    }

    /// Whether its time is over, or the kernel has refused.
    pub(super) fn has_ended(&self) -> bool {
        Instant::now() >= self.deadline || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn stop(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Again and again: the first signal may come before the system call.
        while !thread.is_finished() {
            // SAFETY: the thread has not been joined, so its handle stands for it.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
            std::thread::sleep(STEP);
        }
        thread.join().ok().flatten().context("the generator's thread panicked")?
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Who drops it does not ask what it came to.
        let _ = self.stop();
    }
}

extern "C" fn on_signal(_signal: libc::c_int) {}

/// From now on a signal ends the system call that a thread is in, and nothing else.
pub(super) fn hear_signals() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    // SAFETY: the handler does nothing. All zeros is an action without flags: system calls are not begun again.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}
