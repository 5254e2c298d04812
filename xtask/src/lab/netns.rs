//! Network namespaces with names that tell whose they are: `bl-<pid>-<run>-<place>`.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;

use super::interrupt;
use crate::process;

/// Where iproute2 keeps named namespaces.
const NAMED: &str = "/var/run/netns";
/// Begins every name of ours.
const PREFIX: &str = "bl-";
/// Between asking a left-over process to end and making it end.
const GRACE: Duration = Duration::from_millis(500);

/// A network namespace that is removed with this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace for a place of a run of this process, its loopback up and IPv6 off.
    ///
    /// # Errors
    /// Not root, or no iproute2.
    pub fn create(run: u32, place: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{run}-{place}", std::process::id());
        process::output(Command::new("ip").args(["netns", "add", &name]))
            .with_context(|| format!("cannot make the network namespace {name}; this needs root"))?;
        let namespace = Self { name };
        // Before any interface exists: no router solicitations and no neighbour discovery in the captures.
        namespace.set("net/ipv6/conf/all/disable_ipv6", "1")?;
        namespace.set("net/ipv6/conf/default/disable_ipv6", "1")?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that keeps it alive and by which it is entered.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// `ip` fails; the message has what it said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        process::output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Has it forget each neighbour that it knows at the moment.
    ///
    /// One by one: `ip neigh flush` looks again until there is none, and gives up where traffic has them found anew as
    /// fast as it forgets them.
    ///
    /// # Errors
    /// `ip` fails, other than for a neighbour that is gone by itself.
    pub fn forget_neighbours(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Neighbour {
            #[serde(rename = "dst")]
            address: IpAddr,
            #[serde(rename = "dev")]
            interface: String,
            state: Vec<String>,
        }
        let known = self.ip(&["-json", "neigh", "show"])?;
        let known: Vec<Neighbour> = serde_json::from_str(&known).context("what `ip neigh show` says")?;
        for Neighbour { address, interface, state } in known {
            if state.iter().any(|state| state == "PERMANENT") {
                continue;
            }
            let forgotten = self.ip(&["neigh", "del", &address.to_string(), "dev", &interface]);
            if let Err(error) = forgotten
                && !format!("{error:#}").contains("No such file or directory")
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// A command that will run in it.
    ///
    /// By nsenter and not by `ip netns exec`: the latter mounts a fresh `/sys`, which hides the BPF file system.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program.as_ref());
        command
    }

    /// Runs a program in it to its end.
    ///
    /// # Errors
    /// As [`process::output`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::output(self.command(program).args(arguments))
    }

    /// Sets a network sysctl in it, by its path under `/proc/sys`.
    ///
    /// # Errors
    /// There is no such sysctl.
    pub fn set(&self, sysctl: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(sysctl);
        let value = value.to_owned();
        // `/proc/sys/net` shows the namespace of the thread that opens it.
        self.enter(move || fs::write(&path, value).with_context(|| format!("cannot set {}", path.display())))?
    }

    /// Waits until a program in it has bound a UDP port, for peers that do not say when they listen.
    ///
    /// # Errors
    /// Nobody has within the limit.
    pub fn wait_for_udp(&self, address: impl Into<SocketAddr>, limit: Duration) -> Result<()> {
        let address = address.into();
        // `/proc/net` is that of the process, not of the thread; addresses stand there in words of the machine's order.
        let (file, octets) = match address.ip() {
            IpAddr::V4(ip) => ("/proc/thread-self/net/udp", ip.octets().to_vec()),
            IpAddr::V6(ip) => ("/proc/thread-self/net/udp6", ip.octets().to_vec()),
        };
        let words = octets.as_chunks::<4>().0.iter();
        let ip: String = words.map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
        let local = format!(": {ip}:{:04X} ", address.port());
        interrupt::wait_until(limit, &format!("program on UDP {address}"), || {
            let sockets = self.enter(move || fs::read_to_string(file))??;
            Ok(sockets.contains(&local).then_some(()))
        })
    }

    /// Runs `work` in a thread of its own inside this namespace. Sockets that it makes stay in it.
    ///
    /// # Errors
    /// The namespace is gone, or `work` panicked.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let joined = self.spawn(work)?.join();
        joined.ok().flatten().ok_or_else(|| anyhow!("a thread in {} panicked", self.name))
    }

    /// As [`Namespace::enter`], without waiting for the end. The thread's value is there once it has entered.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Option<T>>> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let (entered, outcome) = std::sync::mpsc::channel();
        let handle = thread::Builder::new().name(self.name.clone()).spawn(move || {
            // SAFETY: setns with an open descriptor changes only this thread's network namespace.
            let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            let error = (result != 0).then(std::io::Error::last_os_error);
            let failed = error.is_some();
            // The receiver waits for exactly this message.
            let _ = entered.send(error);
            // Never the work in the wrong namespace.
            (!failed).then(work)
        })?;
        match outcome.recv() {
            Ok(None) => Ok(handle),
            Ok(Some(error)) => Err(error).with_context(|| format!("cannot enter {}", path.display())),
            Err(_) => Err(anyhow!("the thread for {} did not start", path.display())),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure here cannot be handled; the next run sweeps.
        let _ = remove(&self.name);
    }
}

/// Removes the namespaces of runs whose process is gone, and ends the processes that they left in them.
///
/// # Errors
/// A left-over namespace cannot be removed.
pub fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(NAMED) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let removed = remove(&name);
            // Another run may sweep at the same time.
            if entry.path().exists() {
                removed.with_context(|| format!("cannot remove {name}, left by an earlier run"))?;
            }
        }
    }
    Ok(())
}

/// The process that made a namespace of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn remove(name: &str) -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // Threads of ours that are still inside are not processes of the run.
        let own = std::process::id().to_string();
        let inside = process::output(Command::new("ip").args(["netns", "pids", name]))?;
        let pids: Vec<i32> =
            inside.lines().filter(|pid| *pid != own).filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // SAFETY: kill has no memory effects; the process is inside a namespace that only a run of ours uses.
            unsafe { libc::kill(pid, signal) };
        }
        thread::sleep(GRACE);
    }
    process::output(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn the_owner_is_read_from_the_name_and_foreign_names_have_none() {
        for (name, expected) in [
            ("bl-1234-0-office", Some(1234)),
            ("bl-x-office", None),
            ("blue", None),
            ("other-1234-office", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }
}
