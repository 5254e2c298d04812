//! The appliance in the laboratory: built, configured, started, asked.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
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
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9460);
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

/// What the laboratory's appliance has beside two networks, one server, and defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon's program file.
    pub program: PathBuf,
    /// A command that starts the program with fewer rights, for example `setpriv` with its arguments.
    pub launcher: Vec<String>,
    /// The interface to the office.
    pub office_interface: String,
    /// Further keys of the office's network, a line each.
    pub office: String,
    /// The interface to the servers, and the address on it.
    pub centre: (String, IpAddr),
    /// Further keys of both networks, a line each.
    pub networks: String,
    /// Further keys of the table `datapath`, a line each.
    pub datapath: String,
    /// The central servers, as the configuration has them.
    pub servers: Vec<String>,
    /// Further keys of the table `upstream`, a line each.
    pub upstream: String,
    /// Further tables.
    pub tables: String,
    /// What has to answer before it counts as started: `/readyz`, or `/healthz` for one that is not to be ready.
    pub until: &'static str,
}

impl Settings {
    /// Defaults, but for the calls that are forced through userspace.
    #[must_use]
    pub fn of(program: PathBuf) -> Self {
        Self {
            program,
            launcher: Vec::new(),
            office_interface: TO_OFFICE.to_owned(),
            office: String::new(),
            centre: (TO_CENTRE.to_owned(), APPLIANCE_CENTRE.into()),
            networks: String::new(),
            datapath: format!("force_userspace = [\"{}/32\"]\n", Role::Userspace.phone()),
            servers: vec![format!("{SERVER}:{PEER_SIP}")],
            upstream: String::new(),
            tables: String::new(),
            until: "/readyz",
        }
    }

    /// The configuration file's text, with its control socket in `dir`.
    #[must_use]
    pub fn configuration(&self, dir: &Path) -> String {
        let (centre_interface, centre_address) = &self.centre;
        let Self { office_interface, office, networks, datapath, tables, servers, upstream, .. } = self;
        format!(
            "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"{office_interface}\"\n\
             address = \"{APPLIANCE_OFFICE}\"\n{office}{networks}\n\
             [[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"{centre_interface}\"\n\
             address = \"{centre_address}\"\n{networks}\n\
             [upstream]\nservers = {servers:?}\n{upstream}\n\
             [datapath]\n{datapath}\n{}{tables}",
            self.places(dir)
        )
    }

    /// The part of it that says where state, metrics and control are, in `dir` and on this host alone.
    #[must_use]
    pub fn places(&self, dir: &Path) -> String {
        format!(
            "[state]\ndirectory = \"{}\"\n\n\
             [admin]\nlisten = \"{ADMIN}\"\n\n\
             [control]\nsocket = \"{}\"\n\n",
            dir.join("state").display(),
            socket(dir).display()
        )
    }

    /// The command that runs the daemon in the branch with a configuration file.
    #[must_use]
    pub fn command(&self, lab: &Lab, configuration: &Path) -> Command {
        let mut words = self.launcher.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut command = lab.branch.command(words.next().unwrap_or_default());
        command.args(words).arg("run").arg("--config").arg(configuration);
        command
    }
}

/// The socket by which its command line reaches it.
#[must_use]
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// A running appliance. Dropping it stops it.
#[derive(Debug)]
pub struct Appliance {
    running: Running,
    program: PathBuf,
    configuration: PathBuf,
}

impl Appliance {
    /// Starts the release that [`build`] has made, with defaults.
    ///
    /// # Errors
    /// As [`Appliance::start_with`].
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, &Settings::of(program()))
    }

    /// Starts it in the branch, and returns when it says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the message has the end of its log.
    pub fn start_with(lab: &Lab, settings: &Settings) -> Result<Self> {
        Self::start_from(lab, settings, &settings.configuration(lab.dir()))
    }

    /// The same with another configuration file than that of the settings.
    ///
    /// # Errors
    /// As [`Appliance::start_with`].
    pub fn start_from(lab: &Lab, settings: &Settings, text: &str) -> Result<Self> {
        let configuration = lab.dir().join("branchline.toml");
        fs::write(&configuration, text)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut command = settings.command(lab, &configuration);
        let mut appliance = Self {
            running: Running::start(&mut command, "branchline", lab.dir())?,
            program: settings.program.clone(),
            configuration,
        };
        interrupt::wait_until(START_LIMIT, "readiness of the appliance", || {
            appliance.running.still_runs()?;
            Ok(http::get(&lab.branch, ADMIN, settings.until).ok())
        })
        .with_context(|| appliance.running.last_words())?;
        Ok(appliance)
    }

    /// What it has logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// Asks it to end by a signal, and says how it ended.
    ///
    /// # Errors
    /// As [`Running::stop`].
    pub fn stop(&mut self, signal: libc::c_int) -> Result<ExitStatus> {
        self.running.stop(signal)
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
        let mut command = lab.branch.command(&self.program);
        command.args(arguments).arg("--socket").arg(socket(lab.dir())).args(["--output", "json"]);
        let said = process::output(&mut command)?;
        serde_json::from_str(&said).with_context(|| format!("`{}` printed no JSON", process::show(&command)))
    }

    /// Asks it as a person does: the answer is text.
    ///
    /// # Errors
    /// It does not answer.
    pub fn show(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        let mut command = lab.branch.command(&self.program);
        process::output(command.args(arguments).arg("--socket").arg(socket(lab.dir())))
    }

    /// Tells it something by its own command line; what it needs not be seen by others comes from standard input.
    ///
    /// # Errors
    /// The command fails; the message has what it said.
    pub fn tell(&self, lab: &Lab, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = lab.branch.command(&self.program);
        command.args(arguments).arg("--socket").arg(socket(lab.dir()));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        anyhow::ensure!(
            output.status.success(),
            "`{}`: {}",
            process::show(&command),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Commands that show a person what goes on.
    #[must_use]
    pub fn how_to_look(&self, lab: &Lab) -> String {
        // This way /sys is that of the namespace, too.
        let enter = |place: &crate::lab::Namespace| format!("ip netns exec {}", place.name());
        let branch = enter(&lab.branch);
        let ask = format!("{branch} {}", self.program.display());
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
