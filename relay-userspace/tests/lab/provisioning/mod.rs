//! Phones (curl) fetch and send files through the appliance; nginx has them.

mod caching;
mod credentials;
mod failover;
mod hostile;

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;

use anyhow::{Context as _, Result};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::SERVER;
use xtask::lab::nginx::Nginx;
use xtask::lab::{Lab, Namespace, Routes, Running};
use xtask::process;

use crate::site::{LIMIT, settings, turn};

/// The server's ports: the preferred one and the other.
pub(crate) const FIRST: SocketAddrV4 = SocketAddrV4::new(SERVER, 8088);
pub(crate) const SECOND: SocketAddrV4 = SocketAddrV4::new(SERVER, 8098);
/// The relay as phones see it.
pub(crate) const RELAY: &str = "http://10.61.0.1:8088";

/// The laboratory with the relay and files on a server.
pub(crate) struct Files {
    pub(crate) appliance: Appliance,
    settings: Settings,
    pub(crate) root: PathBuf,
    pub(crate) lab: Lab,
    _beside: Option<Running>,
    _turn: MutexGuard<'static, ()>,
}

/// An answer that curl got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Got {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().rev().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Files {
    /// Starts the appliance with a relay to both servers, which are not started. `keys` are further lines of its
    /// table, `tables` further tables.
    pub(crate) fn start(keys: &str, tables: &str) -> Result<Self> {
        Self::start_to(&[format!("http://{FIRST}"), format!("http://{SECOND}")], keys, |_| {
            Ok(tables.to_owned())
        })
    }

    pub(crate) fn start_to(
        servers: &[String],
        keys: &str,
        tables: impl FnOnce(&Lab) -> Result<String>,
    ) -> Result<Self> {
        let (turn, lab) = (turn(), Lab::create(Routes::None)?);
        // What `tables` ends with may be keys of the table.
        let tables = tables(&lab)?;
        let header = if tables.contains("[provisioning]") { "" } else { "[provisioning]\n" };
        let tables = format!("{tables}{header}servers = {servers:?}\n{keys}");
        Self::start_in(turn, lab, Settings { tables, ..settings() }, |_| Ok(None))
    }

    /// Starts the appliance with settings of its own, after what `beside` starts in the laboratory.
    pub(crate) fn start_with(
        settings: Settings,
        beside: impl FnOnce(&Lab) -> Result<Option<Running>>,
    ) -> Result<Self> {
        Self::start_in(turn(), Lab::create(Routes::None)?, settings, beside)
    }

    fn start_in(
        turn: MutexGuard<'static, ()>,
        lab: Lab,
        settings: Settings,
        beside: impl FnOnce(&Lab) -> Result<Option<Running>>,
    ) -> Result<Self> {
        let root = lab.dir().join("files");
        fs::create_dir_all(&root)?;
        let beside = beside(&lab)?;
        let appliance = Appliance::start_with(&lab, &settings)?;
        Ok(Self { appliance, settings, root, lab, _beside: beside, _turn: turn })
    }

    /// Stops the appliance and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.appliance.stop(libc::SIGTERM)?;
        self.appliance = Appliance::start_with(&self.lab, &self.settings)?;
        Ok(())
    }

    /// Starts a server.
    pub(crate) fn nginx(&self, address: SocketAddrV4, keys: &str) -> Result<Nginx> {
        let name = format!("nginx-{}", address.port());
        Nginx::start(&self.lab.centre, &name, address, &self.root, keys, self.lab.dir())
    }

    /// Puts a file on the servers.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        Ok(fs::write(self.root.join(name), content)?)
    }

    /// curl in the office, from the office's first address.
    pub(crate) fn curl(&self, arguments: &[&str], path: &str) -> Result<Got> {
        curl(&self.lab.office, self.lab.dir(), RELAY, arguments, path)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Got> {
        self.curl(&[], path)
    }

    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.appliance.metrics(&self.lab)?.sum(&format!("branchline_provisioning_{name}"), labels))
    }

    /// The relay's copies on disk.
    pub(crate) fn cached(&self) -> Result<Vec<PathBuf>> {
        let directory = self.lab.dir().join("state/provisioning");
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }
}

pub(crate) fn curl(host: &Namespace, dir: &Path, base: &str, arguments: &[&str], path: &str) -> Result<Got> {
    let unique = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let (head, body) = (dir.join(format!("curl-head-{unique}")), dir.join(format!("curl-body-{unique}")));
    for file in [&head, &body] {
        fs::write(file, "")?;
    }
    let mut command: Command = host.command("curl");
    command.args(["-sS", "--path-as-is", "-w", "%{http_code}", "-o"]).arg(&body).arg("-D").arg(&head);
    command.args(arguments).arg(format!("{base}{path}"));
    let said = process::output_within(&mut command, LIMIT)?;
    Ok(Got {
        status: said.trim().parse().with_context(|| said.clone())?,
        head: fs::read_to_string(&head)?,
        body: fs::read(&body)?,
    })
}

/// Bytes that do not repeat and cannot be compressed.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
