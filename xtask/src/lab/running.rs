//! A program that runs in a namespace, its output in a log file. It is stopped by its own id when it is dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::interrupt;
use crate::process;

/// Between asking a program to end and making it end.
const GRACE: Duration = Duration::from_secs(5);

/// A running program.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command, its output into `<dir>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, name: &str, dir: &Path) -> Result<Self> {
        Self::start_reading(command, name, dir, Stdio::null())
    }

    /// The same for a program that is told by its standard input what to do.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_told(command: &mut Command, name: &str, dir: &Path) -> Result<(Self, ChildStdin)> {
        let mut running = Self::start_reading(command, name, dir, Stdio::piped())?;
        let input = running.child.stdin.take().context("a piped standard input is there")?;
        Ok((running, input))
    }

    fn start_reading(command: &mut Command, name: &str, dir: &Path, input: Stdio) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(input)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::show(command)))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails when it has ended, with the end of its output.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); {}", self.name, self.last_words()),
        }
    }

    /// Waits until its output contains `words`.
    ///
    /// # Errors
    /// It ended, the time is up, or the run was interrupted.
    pub fn wait_for(&mut self, words: &str, limit: Duration) -> Result<()> {
        let what = format!("`{words}` in {}", self.log.display());
        interrupt::wait_until(limit, &what, || {
            if self.said().contains(words) {
                return Ok(Some(()));
            }
            self.still_runs().map(|()| None)
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The time is up, or the run was interrupted.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        interrupt::wait_until(limit, &what, || self.ended())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: kill has no memory effects; the child is not yet waited for, so the id is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Asks it to end by a signal, makes it end if it does not, and says how it ended.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub fn stop(&mut self, signal: libc::c_int) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(signal);
        let deadline = std::time::Instant::now() + GRACE;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(process::POLL);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// The end of its output, for an error message.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!("the end of {}:\n{}", self.log.display(), process::tail(&self.said()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What cannot be stopped here is found in its namespace and stopped there.
        let _ = self.stop(libc::SIGTERM);
    }
}
