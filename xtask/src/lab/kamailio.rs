//! Kamailio as the central server: a real registrar and proxy that knows nothing of the laboratory.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::netns::Namespace;
use super::network::Lab;
use super::running::Running;
use crate::workspace;

/// The domain of its users. A user's password is `lab` and the user's name.
pub const REALM: &str = "lab.example";
/// It loads its modules in well under a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What it shows to those who connect by TLS: PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whose certificates the others have to show; none: they are not asked.
    pub authority: Option<PathBuf>,
}

/// A running Kamailio. Dropping it stops it.
#[derive(Debug)]
pub struct Kamailio {
    running: Running,
}

impl Kamailio {
    /// Starts it in the centre, and returns when it listens.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn start(lab: &Lab, listen: impl Into<SocketAddr>) -> Result<Self> {
        Self::start_with(lab, &lab.centre, "kamailio", listen, None)
    }

    /// As [`start`](Self::start); with each answer that it has taken it says which nonce it wants to see next.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn start_with_next_nonces(lab: &Lab, listen: impl Into<SocketAddr>) -> Result<Self> {
        Self::launch(lab, &lab.centre, "kamailio", listen.into(), None, &["WITH_NEXT_NONCE"])
    }

    /// Starts one of several in a host and under a name of its own, with TLS on the next port if it gets a certificate.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn start_with(
        lab: &Lab,
        host: &Namespace,
        name: &str,
        listen: impl Into<SocketAddr>,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        Self::launch(lab, host, name, listen.into(), certificate, &[])
    }

    /// Starts it with what else its configuration is to define.
    fn launch(
        lab: &Lab,
        host: &Namespace,
        name: &str,
        listen: SocketAddr,
        certificate: Option<&Certificate>,
        defined: &[&str],
    ) -> Result<Self> {
        let template = workspace::root().join("xtask/scenarios/kamailio.cfg");
        let text =
            fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        let dir = lab.dir().join(name);
        fs::create_dir_all(&dir)?;
        let config = dir.join("kamailio.cfg");
        let path = |path: Option<&PathBuf>| path.map_or_else(String::new, |path| path.display().to_string());
        let authority = certificate.and_then(|it| it.authority.as_ref());
        let tls = SocketAddr::new(listen.ip(), listen.port() + 1);
        let text = text
            .replace("tls:TLS_LISTEN", &format!("tls:{tls}"))
            .replace("\"CERTIFICATE\"", &format!("\"{}\"", path(certificate.map(|it| &it.chain))))
            .replace("\"KEY\"", &format!("\"{}\"", path(certificate.map(|it| &it.key))))
            .replace("\"AUTHORITY\"", &format!("\"{}\"", path(authority)))
            .replace("udp:LISTEN", &format!("udp:{listen}"))
            .replace("tcp:LISTEN", &format!("tcp:{listen}"))
            .replace("\"REALM\"", &format!("\"{REALM}\""));
        fs::write(&config, text)?;
        let mut command = host.command("kamailio");
        // In the foreground, its log to standard error, its files in the laboratory's directory.
        command.arg("-f").arg(&config).args(["-DD", "-E"]);
        command.arg("-w").arg(&dir).arg("-Y").arg(&dir);
        for word in defined {
            command.arg("-A").arg(word);
        }
        if certificate.is_some() {
            command.arg("-A").arg("WITH_TLS");
        }
        if authority.is_some() {
            command.arg("-A").arg("WITH_MUTUAL_TLS");
        }
        let mut running = Running::start(&mut command, name, lab.dir())?;
        host.wait_for_udp(listen, START_LIMIT).with_context(|| running.last_words())?;
        running.still_runs()?;
        Ok(Self { running })
    }

    /// Ends it and its workers at once, without a word to anybody: as when the power fails.
    pub fn kill(&mut self) {
        let pid = self.running.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        self.running.signal(libc::SIGKILL);
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            // SAFETY: kill has no memory effects; the ids are those of this process's own descendants.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.running.said()
    }
}
