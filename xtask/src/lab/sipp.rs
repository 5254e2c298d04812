//! Phones and the central server by SIPp, with the scenarios of `xtask/scenarios/`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::interrupt;
use super::netns::Namespace;
use super::running::Running;
use crate::workspace;

/// SIPp binds the port that `-mp` names for its own echo. The scenarios' SDP therefore offers
/// `[auto_media_port+100]`, and the laboratory's media endpoint has those ports to itself.
const OWN_PORTS: u16 = 100;

/// What a SIPp process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A phone registers.
    PhoneRegister,
    /// A phone calls and hangs up.
    PhoneCall,
    /// A phone calls, holds, resumes, and hangs up.
    PhoneHold,
    /// A phone is called.
    PhoneAnswer,
    /// The server: registrar, and one who answers.
    Server,
    /// The server calls a phone.
    ServerCall,
    /// The server calls a phone without an offer, and keeps a session timer.
    ServerCallDelayed,
    /// A phone calls, transfers the other party, and hangs up.
    PhoneTransfer,
    /// The server tells phones that messages wait.
    ServerNotify,
    /// A phone is told that messages wait.
    PhoneNotified,
}

impl Scenario {
    fn file(self) -> PathBuf {
        let name = match self {
            Self::PhoneRegister => "phone_register.xml",
            Self::PhoneCall => "phone_call.xml",
            Self::PhoneHold => "phone_hold.xml",
            Self::PhoneAnswer => "phone_answer.xml",
            Self::Server => "server.xml",
            Self::ServerCall => "server_call.xml",
            Self::ServerCallDelayed => "server_call_delayed.xml",
            Self::PhoneTransfer => "phone_transfer.xml",
            Self::ServerNotify => "server_notify.xml",
            Self::PhoneNotified => "phone_notified.xml",
        };
        workspace::root().join("xtask/scenarios").join(name)
    }
}

/// Whether a SIPp process writes down what it sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// It does: a failed call can be read.
    Kept,
    /// The scenario's log lines alone: what is needed to send media.
    Orders,
    /// It does not: thousands of calls would fill the disk.
    NotKept,
}

/// What a SIPp process is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The scenario.
    pub scenario: Scenario,
    /// Begins the names of its files; unique in a laboratory.
    pub name: String,
    /// Its own SIP address.
    pub local: SocketAddrV4,
    /// Its first media port; four more for every call.
    pub media_base: u16,
    /// Where it sends its requests; a scenario that answers has none.
    pub destination: Option<SocketAddrV4>,
    /// One row of fields for every call, used in order.
    pub rows: Vec<Vec<String>>,
    /// How many calls it makes or takes; `None` for as many as come.
    pub calls: Option<u32>,
    /// New calls a second.
    pub rate: u32,
    /// Length of the scenario's pauses.
    pub pause: Duration,
    /// Further keys of the scenario, as name and value.
    pub keys: Vec<(String, String)>,
    /// Whether messages and the scenario's log lines are written down; without these there is no media.
    pub messages: Messages,
}

impl Job {
    /// A job with one call a second, no rows and no pauses.
    #[must_use]
    pub fn new(scenario: Scenario, name: &str, address: Ipv4Addr, port: u16, media_base: u16) -> Self {
        Self {
            scenario,
            name: name.to_owned(),
            local: SocketAddrV4::new(address, port),
            media_base,
            destination: None,
            rows: Vec::new(),
            calls: None,
            rate: 1,
            pause: Duration::ZERO,
            keys: Vec::new(),
            messages: Messages::Kept,
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// SIPp cannot be started.
    pub fn start(&self, namespace: &Namespace, dir: &Path) -> Result<Sipp> {
        let file = |kind: &str| dir.join(format!("{}.{kind}", self.name));
        // What an earlier job of this name has written must not be taken for this one's.
        for kind in ["orders", "errors", "messages", "statistics"] {
            let _ = fs::remove_file(file(kind));
        }
        let mut command = namespace.command("sipp");
        command.arg("-sf").arg(self.scenario.file());
        command.args(["-i", &self.local.ip().to_string(), "-p", &self.local.port().to_string()]);
        command.args([
            "-mi",
            &self.local.ip().to_string(),
            "-mp",
            &self.media_base.saturating_sub(OWN_PORTS).to_string(),
        ]);
        command.args(["-r", &self.rate.to_string(), "-d", &self.pause.as_millis().to_string()]);
        // SIPp cannot wait for its terminal here, and its default limits on calls in progress are for slow peers.
        command.args(["-nostdin", "-l", "10000"]);
        command.arg("-trace_err").arg("-error_file").arg(file("errors"));
        if self.messages != Messages::NotKept {
            command.arg("-trace_logs").arg("-log_file").arg(file("orders"));
        }
        if self.messages == Messages::Kept {
            command.arg("-trace_msg").arg("-message_file").arg(file("messages"));
        }
        command.arg("-trace_stat").arg("-stf").arg(file("statistics")).args(["-fd", "1"]);
        if !self.rows.is_empty() {
            let rows: Vec<String> = self.rows.iter().map(|row| format!("{};\n", row.join(";"))).collect();
            let path = file("csv");
            fs::write(&path, format!("SEQUENTIAL\n{}", rows.concat()))
                .with_context(|| format!("cannot write {}", path.display()))?;
            command.arg("-inf").arg(path);
        }
        if let Some(calls) = self.calls {
            command.args(["-m", &calls.to_string()]);
        }
        for (key, value) in &self.keys {
            command.args(["-key", key, value]);
        }
        if let Some(destination) = self.destination {
            command.arg(destination.to_string());
        }
        Ok(Sipp {
            running: Running::start(&mut command, &self.name, dir)?,
            job: self.clone(),
            orders: file("orders"),
            errors: file("errors"),
            messages: file("messages"),
            statistics: file("statistics"),
        })
    }
}

/// How the calls of a SIPp process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that went as the scenario says.
    pub successful: u64,
    /// Calls that did not.
    pub failed: u64,
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    running: Running,
    job: Job,
    orders: PathBuf,
    errors: PathBuf,
    messages: PathBuf,
    statistics: PathBuf,
}

impl Sipp {
    /// The file with the scenario's log lines, which are orders to the media endpoint.
    #[must_use]
    pub fn orders(&self) -> &Path {
        &self.orders
    }

    /// The first media port.
    #[must_use]
    pub fn media_base(&self) -> u16 {
        self.job.media_base
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        self.running.still_runs()
    }

    /// The words after `verb` of each of the scenario's log lines that begin with it.
    #[must_use]
    pub fn logged(&self, verb: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.orders).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix(verb)?.strip_prefix(' '))
            .map(|rest| rest.split_whitespace().map(str::to_owned).collect())
            .collect()
    }

    /// Waits until all its calls have ended, and says how.
    ///
    /// # Errors
    /// The time is up, or the run was interrupted.
    pub fn wait(&mut self, limit: Duration) -> Result<Tally> {
        let what = format!("end of SIPp's {}", self.job.name);
        interrupt::wait_until(limit, &what, || self.running.ended()).with_context(|| self.complaints())?;
        self.tally()
    }

    /// Waits as [`Sipp::wait`], and fails unless every call went as the scenario says.
    ///
    /// # Errors
    /// A call failed; the message has what SIPp said.
    pub fn succeed(&mut self, limit: Duration) -> Result<Tally> {
        let tally = self.wait(limit)?;
        let wanted = self.job.calls.map(u64::from);
        if tally.failed > 0 || wanted.is_some_and(|calls| calls != tally.successful) {
            bail!("{} of {}: {tally:?}\n{}", self.job.name, wanted.unwrap_or_default(), self.complaints());
        }
        Ok(tally)
    }

    /// Ends one that would answer for ever, after the calls that are in progress.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(&mut self) -> Result<Tally> {
        // SIPp's signal for "no new calls, then end".
        self.running.stop(libc::SIGUSR1)?;
        self.tally()
    }

    /// The numbers so far, from SIPp's statistics file.
    ///
    /// # Errors
    /// SIPp has written none.
    pub fn tally(&self) -> Result<Tally> {
        let text = fs::read_to_string(&self.statistics).with_context(|| {
            format!("SIPp left no {}; {}", self.statistics.display(), self.running.last_words())
        })?;
        tally(&text).with_context(|| format!("{} is not understood", self.statistics.display()))
    }

    /// A column of SIPp's statistics as it stands now, for example `Retransmissions(C)`.
    ///
    /// # Errors
    /// SIPp has written none, or none of this name.
    pub fn statistic(&self, column: &str) -> Result<String> {
        let text = fs::read_to_string(&self.statistics)?;
        let value = statistic(&text, column);
        value.map(str::to_owned).with_context(|| format!("no {column} in {}", self.statistics.display()))
    }

    /// What it complained about, for an error message.
    #[must_use]
    pub fn complaints(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        let head: Vec<&str> = errors.lines().take(25).collect();
        let words = if head.is_empty() { self.running.last_words() } else { head.join("\n") };
        format!("{words}\n(its messages: {})", self.messages.display())
    }
}

/// Reads SIPp's statistics: semicolons, a header line, the last line counts.
fn statistic<'a>(text: &'a str, column: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    let at = lines.next()?.split(';').position(|field| field == column)?;
    lines.next_back()?.split(';').nth(at)
}

/// Calls by how they ended; `(C)` is cumulative.
fn tally(text: &str) -> Option<Tally> {
    let column = |name| statistic(text, name)?.parse().ok();
    Some(Tally { successful: column("SuccessfulCall(C)")?, failed: column("FailedCall(C)")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_statistics_counts() {
        let text = "StartTime;SuccessfulCall(P);SuccessfulCall(C);FailedCall(C);\nx;1;1;0;\nx;4;5;2;\n";
        assert_eq!(tally(text), Some(Tally { successful: 5, failed: 2 }));
        assert_eq!(tally("StartTime;\n"), None);
        assert_eq!(statistic(text, "SuccessfulCall(P)"), Some("4"));
    }
}
