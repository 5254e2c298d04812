//! A WireGuard tunnel between two namespaces: the kernel's own, or wireguard-go over tun devices, since not every kernel
//! has it. Packets in the tunnel have no link layer.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::interrupt;
use super::netns::Namespace;
use super::network::Lab;
use super::running::Running;
use crate::process;

/// Where both ends listen.
const PORT: u16 = 51_820;
/// It makes its device in well under a second; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// One end of a tunnel.
#[derive(Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its address on the network that the tunnel goes over.
    pub outer: Ipv4Addr,
    /// Its addresses inside the tunnel; the first is the one that programs send from.
    pub inner: &'a [Ipv4Addr],
}

/// Who makes the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The program wireguard-go, as tun devices.
    WireguardGo,
    /// The kernel; they go with their namespaces.
    Kernel,
}

/// A running tunnel. Dropping it takes it down.
#[derive(Debug)]
pub struct Tunnel {
    _ends: Vec<Running>,
    /// Names of the device at either end.
    pub devices: [String; 2],
}

impl Tunnel {
    /// Brings a tunnel up.
    ///
    /// # Errors
    /// `wg` fails, or wireguard-go, which needs `/dev/net/tun`, or the kernel has no WireGuard.
    pub fn start(lab: &Lab, ends: &[End<'_>; 2], maker: Maker) -> Result<Self> {
        // The sockets by which `wg` finds a device are in one directory for all namespaces, under the device's name.
        let devices = ["a", "b"].map(|end| format!("wg{}{end}", std::process::id()));
        let keys = [private_key(lab, "a")?, private_key(lab, "b")?];
        let mut started = Vec::new();
        for (end, device) in ends.iter().zip(&devices) {
            match maker {
                Maker::WireguardGo => started.push(wireguard_go(lab, end, device)?),
                Maker::Kernel => drop(end.namespace.ip(&["link", "add", device, "type", "wireguard"])?),
            }
        }
        for (own, other) in [(0, 1), (1, 0)] {
            let (end, peer) = (&ends[own], &ends[other]);
            let public = public_key(&keys[other])?;
            let allowed: Vec<String> = peer.inner.iter().map(|address| format!("{address}/32")).collect();
            let endpoint = SocketAddrV4::new(peer.outer, PORT).to_string();
            end.namespace.run(
                "wg",
                &[
                    "set",
                    &devices[own],
                    "listen-port",
                    &PORT.to_string(),
                    "private-key",
                    &keys[own].display().to_string(),
                    "peer",
                    &public,
                    "endpoint",
                    &endpoint,
                    "allowed-ips",
                    &allowed.join(","),
                ],
            )?;
            for address in end.inner {
                end.namespace.ip(&["address", "add", &format!("{address}/24"), "dev", &devices[own]])?;
            }
            end.namespace.ip(&["link", "set", &devices[own], "up"])?;
        }
        Ok(Self { _ends: started, devices })
    }
}

fn wireguard_go(lab: &Lab, end: &End<'_>, name: &str) -> Result<Running> {
    let mut command = end.namespace.command("wireguard-go");
    command.args(["--foreground", name]).env("LOG_LEVEL", "error");
    let mut running = Running::start(&mut command, name, lab.dir())?;
    interrupt::wait_until(LIMIT, &format!("device {name}"), || {
        running.still_runs()?;
        Ok(end.namespace.run("wg", &["show", name]).ok())
    })?;
    Ok(running)
}

fn private_key(lab: &Lab, name: &str) -> Result<std::path::PathBuf> {
    let file = lab.dir().join(format!("wireguard-{name}.key"));
    fs::write(&file, process::output(Command::new("wg").arg("genkey"))?)?;
    Ok(file)
}

fn public_key(private: &Path) -> Result<String> {
    let file = fs::File::open(private)?;
    let output =
        Command::new("wg").arg("pubkey").stdin(Stdio::from(file)).output().context("cannot run wg")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
