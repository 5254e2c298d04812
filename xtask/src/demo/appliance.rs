//! The appliance in the laboratory: built, configured, started, asked.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::metrics::Metrics;
use crate::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, Lab, SERVER, TO_CENTRE, TO_OFFICE};
use crate::lab::traffic::{PEER_SIP, Role};
use crate::lab::{Running, http, interrupt};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// Where the daemon answers `/metrics`, `/healthz` and `/readyz`, inside the branch's namespace.
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9460);
/// Loading the programs and attaching them takes well under a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Builds the daemon.
///
/// # Errors
/// It does not build.
pub fn build() -> Result<()> {
    let mut step = Step::begin("cargo build");
    step.announce("release; the first time takes minutes");
    let log = workspace::scratch("setup")?.join("build.log");
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(["build", "--release", "--package", "relay-userspace"]);
    process::with_progress(&mut command, &log, &mut step, |line| {
        line.trim_start().starts_with("Compiling").then(|| line.trim().to_owned())
    })
}

/// The daemon's program file.
#[must_use]
pub fn program() -> PathBuf {
    workspace::target_dir().join("release/branchline")
}

/// The configuration that the laboratory's appliance has: two networks, one server, and defaults.
#[must_use]
pub fn configuration(dir: &Path) -> String {
    format!(
        "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"{TO_OFFICE}\"\naddress = \"{APPLIANCE_OFFICE}\"\n\n\
         [[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"{TO_CENTRE}\"\naddress = \"{APPLIANCE_CENTRE}\"\n\n\
         [upstream]\nserver = \"{SERVER}:{PEER_SIP}\"\n\n\
         [datapath]\nforce_userspace = [\"{}/32\"]\n\n\
         [admin]\nlisten = \"{ADMIN}\"\n\n\
         [control]\nsocket = \"{}\"\n",
        Role::Userspace.phone(),
        socket(dir).display()
    )
}

/// The socket by which its command line reaches it.
fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// A running appliance. Dropping it stops it.
#[derive(Debug)]
pub struct Appliance {
    running: Running,
    configuration: PathBuf,
}

impl Appliance {
    /// Starts it in the branch, and returns when it says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the message has the end of its log.
    pub fn start(lab: &Lab) -> Result<Self> {
        let configuration_file = lab.dir().join("branchline.toml");
        fs::write(&configuration_file, configuration(lab.dir()))
            .with_context(|| format!("cannot write {}", configuration_file.display()))?;
        let mut command = lab.branch.command(program());
        command.arg("run").arg("--config").arg(&configuration_file);
        let mut appliance = Self {
            running: Running::start(&mut command, "branchline", lab.dir())?,
            configuration: configuration_file,
        };
        interrupt::wait_until(START_LIMIT, "readiness of the appliance", || {
            appliance.running.still_runs()?;
            Ok(http::get(&lab.branch, ADMIN, "/readyz").ok())
        })
        .with_context(|| appliance.running.last_words())?;
        Ok(appliance)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// It has ended; the message has the end of its log.
    pub fn still_runs(&mut self) -> Result<()> {
        self.running.still_runs()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        self.running.signal(signal);
    }

    /// What `/metrics` says now.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self, lab: &Lab) -> Result<Metrics> {
        Ok(Metrics::parse(&http::get(&lab.branch, ADMIN, "/metrics")?))
    }

    /// Asks it by its own command line, for example `["flows"]`.
    ///
    /// # Errors
    /// The command fails, or does not print JSON.
    pub fn ask(&self, lab: &Lab, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = lab.branch.command(program());
        command.args(arguments).arg("--socket").arg(socket(lab.dir())).args(["--output", "json"]);
        let said = process::output(&mut command)?;
        serde_json::from_str(&said).with_context(|| format!("`{}` printed no JSON", process::show(&command)))
    }

    /// Commands that show a person what goes on.
    #[must_use]
    pub fn how_to_look(&self, lab: &Lab) -> String {
        let enter = |place: &crate::lab::Namespace| format!("nsenter --net={}", place.path().display());
        let branch = enter(&lab.branch);
        let ask = format!("{branch} {}", program().display());
        let config = format!("--config {}", self.configuration.display());
        let socket = format!("--socket {}", socket(lab.dir()).display());
        format!(
            "The calls go on until Ctrl-C. In another terminal, as root:\n  \
             {ask} status {socket}\n  \
             {ask} calls {socket}\n  \
             {ask} flows {socket}\n  \
             {ask} doctor {config}\n  \
             {branch} curl -s http://{ADMIN}/metrics\n  \
             {} tshark -i eth0 -c 20 -T fields -e ip.src -e udp.srcport -e ip.dsfield.dscp udp",
            enter(&lab.centre)
        )
    }
}

/// Builds the daemon and runs it with the given arguments, in place of this process.
///
/// # Errors
/// It does not build or cannot be started.
pub fn run(arguments: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    build()?;
    Err(Command::new(program()).args(arguments).exec())
        .with_context(|| format!("cannot start {}", program().display()))
}
