//! The office's own DHCP server, and clients that know nothing of the appliance: one that leases, one that informs.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::netns::Namespace;
use super::network::OUTER;
use super::running::Running;
use crate::process;

/// The server starts at once, and a client has its answer within seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// A running dnsmasq that leases addresses. Dropping it stops it.
#[derive(Debug)]
pub struct Dnsmasq {
    running: Running,
}

impl Dnsmasq {
    /// Starts it on a host of the office, and returns when it serves. It leases `first` to `last`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(host: &Namespace, first: Ipv4Addr, last: Ipv4Addr, dir: &Path) -> Result<Self> {
        let mut command = host.command("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp"]);
        command.args(["--bind-interfaces", &format!("--interface={OUTER}"), "--pid-file="]);
        command.arg(format!("--dhcp-leasefile={}", dir.join("dnsmasq.leases").display()));
        // At once instead of after a ping, as if the address were known to be free.
        command.args(["--no-ping", &format!("--dhcp-range={first},{last},1h")]);
        let mut running = Running::start(&mut command, "dnsmasq", dir)?;
        running.wait_for("sockets bound exclusively", LIMIT)?;
        Ok(Self { running })
    }

    /// What it has logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.running.said()
    }
}

/// Leases an address by udhcpc, as BusyBox has it, and returns what it said. The address is not configured.
///
/// # Errors
/// There is no lease.
pub fn lease(host: &Namespace, vendor_class: &str) -> Result<String> {
    let mut command = host.command("udhcpc");
    // In the foreground, once, without a lease an error.
    command.args(["-i", OUTER, "-f", "-q", "-n", "-s", "/bin/true", "-V", vendor_class]);
    let output = command.output().context("cannot start udhcpc")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    anyhow::ensure!(output.status.success(), "udhcpc ended with {}:\n{said}", output.status);
    Ok(said)
}

/// Sends DHCPINFORM by dhcpcd from an address, and returns what its hook was told of the answer: `name=value` lines.
///
/// # Errors
/// There is no answer.
pub fn inform(host: &Namespace, address: Ipv4Addr, vendor_class: &str, dir: &Path) -> Result<String> {
    let (config, hook, told) = (dir.join("dhcpcd.conf"), dir.join("dhcpcd-hook"), dir.join("dhcpcd-told"));
    fs::write(
        &config,
        format!(
            "define 160 string provisioning_url\noption provisioning_url, tftp_server_name, ntp_servers\n\
             vendorclassid {vendor_class}\nnoipv4ll\nnoarp\nipv4only\n"
        ),
    )?;
    fs::write(&hook, format!("#!/bin/sh\nenv | grep -E '^(reason|new_)' | sort >> {}\n", told.display()))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let _ = fs::remove_file(&told);
    // Its files are in fixed places: it gets a mount namespace of its own, so that the host's stay as they are.
    let private = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && exec \"$@\"";
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", private, "sh", "dhcpcd", "-d", "-B", "-1", "--nodev"]);
    command.arg("-f").arg(&config).arg("-c").arg(&hook);
    command.arg("--inform").arg(format!("{address}/24")).arg(OUTER);
    process::output_within(&mut command, LIMIT)?;
    fs::read_to_string(&told).context("dhcpcd's hook was told nothing")
}
