//! nginx as a central server of files, with a log of what it was asked.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::interrupt;
use super::netns::Namespace;
use super::running::Running;

/// It starts in well under a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// One line for each request; what is not there is a dash.
const FORMAT: &str =
    "$request_method $request_uri $status $http_if_none_match $http_range $http_x_forwarded_for";

/// One request as nginx logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// Whether it came with an entity tag to compare.
    pub conditional: bool,
    /// Whether it came with a range.
    pub ranged: bool,
    /// For whom.
    pub forwarded_for: String,
}

/// A running nginx. Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    running: Running,
    log: PathBuf,
}

impl Nginx {
    /// Starts it with the files in `root`, and returns when it listens. `keys` are further lines of the server's
    /// block, for example `limit_rate 10m;`, and `listen` may be followed by ` ssl`.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn start(
        host: &Namespace,
        name: &str,
        address: SocketAddrV4,
        root: &Path,
        keys: &str,
        dir: &Path,
    ) -> Result<Self> {
        let place = dir.join(name);
        fs::create_dir_all(&place)?;
        let log = place.join("access.log");
        let mut text = String::new();
        let shown = place.display();
        writeln!(
            text,
            "daemon off;\nuser root;\nworker_processes 1;\npid {shown}/pid;\nerror_log {shown}/error.log;"
        )?;
        writeln!(
            text,
            "events {{ }}\nhttp {{\n  log_format asked '{FORMAT}';\n  access_log {} asked;",
            log.display()
        )?;
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "  {kind}_temp_path {shown}/{kind};")?;
        }
        let ssl = if keys.contains("ssl_certificate") { " ssl" } else { "" };
        writeln!(text, "  client_max_body_size 100m;\n  server {{\n    listen {address}{ssl};\n    {keys}")?;
        writeln!(
            text,
            "    location / {{ root {}; dav_methods PUT; create_full_put_path on; }}\n  }}\n}}",
            root.display()
        )?;
        let config = place.join("nginx.conf");
        fs::write(&config, text)?;
        let mut command = host.command("nginx");
        command.arg("-c").arg(&config).arg("-e").arg(place.join("start.log"));
        let mut running = Running::start(&mut command, name, dir)?;
        let port = format!(":{:04X} ", address.port());
        interrupt::wait_until(START_LIMIT, "nginx listening", || {
            running.still_runs()?;
            let sockets = host.enter(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
            Ok(sockets.lines().any(|line| line.contains(&port) && line.contains(" 0A ")).then_some(()))
        })
        .with_context(|| running.last_words())?;
        Ok(Self { running, log })
    }

    /// What it was asked so far.
    ///
    /// # Errors
    /// Its log is not as expected.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        let text = fs::read_to_string(&self.log)?;
        text.lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let [method, target, status, tag, range, forwarded_for] = words[..] else {
                    anyhow::bail!("nginx logged: {line}");
                };
                Ok(Asked {
                    method: method.to_owned(),
                    target: target.to_owned(),
                    status: status.parse()?,
                    conditional: tag != "-",
                    ranged: range != "-",
                    forwarded_for: forwarded_for.to_owned(),
                })
            })
            .collect()
    }

    /// Stops it.
    ///
    /// # Errors
    /// As [`Running::stop`].
    pub fn stop(&mut self) -> Result<()> {
        self.running.stop(libc::SIGTERM).map(drop)
    }
}
