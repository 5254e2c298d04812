//! Kamailio as the central server: a real registrar and proxy that knows nothing of the laboratory.

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::network::Lab;
use super::running::Running;
use crate::workspace;

/// The domain of its users. A user's password is `lab` and the user's name.
pub const REALM: &str = "lab.example";
/// It loads its modules in well under a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);

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
    pub fn start(lab: &Lab, listen: SocketAddrV4) -> Result<Self> {
        let template = workspace::root().join("xtask/scenarios/kamailio.cfg");
        let text =
            fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        let dir = lab.dir().join("kamailio");
        fs::create_dir_all(&dir)?;
        let config = dir.join("kamailio.cfg");
        let text = text
            .replace("udp:LISTEN", &format!("udp:{listen}"))
            .replace("\"REALM\"", &format!("\"{REALM}\""));
        fs::write(&config, text)?;
        let mut command = lab.centre.command("kamailio");
        // In the foreground, its log to standard error, its files in the laboratory's directory.
        command.arg("-f").arg(&config).args(["-DD", "-E"]);
        command.arg("-w").arg(&dir).arg("-Y").arg(&dir);
        let mut running = Running::start(&mut command, "kamailio", lab.dir())?;
        lab.centre.wait_for_udp(listen, START_LIMIT).with_context(|| running.last_words())?;
        running.still_runs()?;
        Ok(Self { running })
    }

    /// What it has logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.running.said()
    }
}
