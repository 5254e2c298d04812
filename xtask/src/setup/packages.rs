//! Debian packages: which ones each group needs, which are missing, and their installation.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use super::{Found, Group};
use crate::process;
use crate::ui::Step;
use crate::workspace;

/// What linking bpf-linker takes beside LLVM: a C++ compiler with its library, and the zlib that LLVM names. And what the
/// daemon takes: OpenSSL for old phones, and what tells where it is; what jemalloc is built by.
const NATIVE_BUILD: &[&str] = &["g++", "make", "zlib1g-dev", "libssl-dev", "pkg-config"];
/// The laboratory: namespaces, veth offloads, phones and servers, captures on the wire and their reading.
const LABORATORY: &[&str] = &["iproute2", "ethtool", "sip-tester", "tcpdump", "tshark"];
/// What the bench puts beside the appliance: address translation in the kernel, another relay, another proxy. And what
/// counts instructions, and what samples where they are.
const BENCH: &[&str] = &["nftables", "rtpengine-daemon", "kamailio", "valgrind", "linux-perf"];
/// What the tests need beyond the laboratory: Prometheus and promtool (one package), ping, a real server with
/// real phones; and for the office's services a DHCP server with two clients (one leases, the other informs), a
/// clock's client, `logger`, an HTTP client and server; and for the pages a browser with what drives it; and for
/// traces what people read them with; and a tunnel.
const TESTS: &[&str] = &[
    "prometheus",
    "iputils-ping",
    "kamailio",
    "kamailio-tls-modules",
    "baresip-core",
    "linphone-cli",
    "libsrtp2-dev",
    "dnsmasq-base",
    "udhcpc",
    "dhcpcd-base",
    "chrony",
    "bsdutils",
    "curl",
    "nginx-light",
    "debootstrap",
    "openssl",
    "coturn",
    "age",
    "nodejs",
    "chromium",
    "sngrep",
    "wireguard-go",
    "wireguard-tools",
];
/// Other kernels in guests: the emulator, a guest's first programs, and what reads a kernel's modules.
const GUESTS: &[&str] = &["qemu-system-x86", "busybox-static", "kmod", "xz-utils"];
/// Packages that bring a service, which must neither start now nor at the next boot.
const SERVICES: &[&str] = &[
    "prometheus",
    "prometheus-node-exporter",
    "kamailio",
    "chrony",
    "nginx",
    "nftables",
    "rtpengine-daemon",
    "coturn",
];
/// `invoke-rc.d` asks this program whether a service may start (Debian's policy-rc.d interface).
const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";
/// Exit status 101 of `policy-rc.d`: action forbidden by policy.
const POLICY_FORBIDS: &str =
    "#!/bin/sh\n# Put here by branchline's set-up while it installs packages.\nexit 101\n";

/// Looks which of the group's packages are missing and installs them.
pub(super) fn ensure(group: Group, step: &mut Step) -> Result<Found> {
    let wanted = wanted(group, Toolchain::of_the_workspace()?.llvm_major);
    if process::find("dpkg-query").is_none() || process::find("apt-get").is_none() {
        return without_apt(&wanted);
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(Found::Present(format!("{} packages", wanted.len())));
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!("not root, so nothing was installed; run as root:\n    {by_hand}");
    }
    step.announce(&format!("installing {}", missing.join(" ")));
    let log = workspace::scratch("setup")?.join("apt.log");
    let mut update = apt_get();
    update.arg("update");
    process::with_progress(&mut update, &log, step, |line| Some(format!("package lists: {line}")))?;
    for package in &missing {
        if candidate(package)?.is_none() {
            bail!(
                "the package {package} is in none of this system's apt sources; add a source that has it, or \
                 install what it provides another way"
            );
        }
    }
    let policy = ServicesStayStopped::begin()?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    process::with_progress(&mut install, &log, step, |line| {
        let telling = ["Get:", "Unpacking ", "Setting up "].iter().any(|start| line.starts_with(start));
        telling.then(|| line.to_owned())
    })
    .with_context(|| format!("by hand: {by_hand}"))?;
    drop(policy);
    disable_services(&missing)?;
    Ok(Found::Installed(missing.join(" ")))
}

/// The packages of a group, without doubles.
fn wanted(group: Group, llvm_major: u32) -> Vec<String> {
    // bpf-linker asks llvm-config for LLVM's libraries, and llvm-config fails where Polly's are missing.
    let llvm = [format!("llvm-{llvm_major}-dev"), format!("libpolly-{llvm_major}-dev")];
    let mut wanted: BTreeSet<String> = llvm.into_iter().collect();
    let mut add = |packages: &[&str]| wanted.extend(packages.iter().map(|&name| name.to_owned()));
    add(NATIVE_BUILD);
    if group >= Group::Demo {
        add(LABORATORY);
    }
    if group >= Group::Bench {
        add(BENCH);
    }
    if group >= Group::Test {
        add(TESTS);
        add(GUESTS);
        // Node.js from elsewhere brings its own npm, beside which Debian's cannot be installed.
        if process::find("npm").is_none() {
            add(&["npm"]);
        }
    }
    wanted.into_iter().collect()
}

fn without_apt(wanted: &[String]) -> Result<Found> {
    bail!(
        "this system has no apt. Install what these Debian packages provide, under your system's names, and make \
         sure that llvm-config, g++, sipp, tcpdump, tshark, prometheus, promtool, kamailio, baresip, linphonec, qemu-system-x86_64, busybox, depmod, xz, node, npm and chromium are on the \
         path as far as they are listed here:\n    {}",
        wanted.join(" ")
    )
}

/// Those of the packages that dpkg does not list as installed.
fn missing(wanted: &[String]) -> Result<Vec<String>> {
    // dpkg-query exits non-zero when it does not know one of the names; what it knows is still printed.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("cannot start dpkg-query")?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(not_installed(wanted, &said))
}

fn not_installed(wanted: &[String], dpkg_says: &str) -> Vec<String> {
    let installed: BTreeSet<&str> =
        dpkg_says.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().filter(|name| !installed.contains(name.as_str())).cloned().collect()
}

/// The version apt would install, if it knows the package.
fn candidate(package: &str) -> Result<Option<String>> {
    let said = process::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    let version = said.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).map(str::to_owned);
    Ok(version.filter(|version| version != "(none)"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Half-configured questions would wait for an answer that nobody gives.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

/// While it lives, packages that are installed do not start their services.
struct ServicesStayStopped {
    ours: Option<PathBuf>,
}

impl ServicesStayStopped {
    fn begin() -> Result<Self> {
        let path = Path::new(POLICY_RC_D);
        // One that is there is the administrator's and stays; `disable_services` has the last word.
        if path.exists() {
            return Ok(Self { ours: None });
        }
        fs::write(path, POLICY_FORBIDS).with_context(|| format!("cannot write {POLICY_RC_D}"))?;
        let guard = Self { ours: Some(path.to_path_buf()) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for ServicesStayStopped {
    fn drop(&mut self) {
        if let Some(path) = &self.ours {
            // Nothing can be done about a failure in a destructor, and it was ours a moment ago.
            let _ = fs::remove_file(path);
        }
    }
}

/// Under systemd a new service is enabled for the next boot: undo that for what this run has installed.
fn disable_services(installed: &[String]) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    for service in SERVICES.iter().filter(|name| installed.iter().any(|package| package == *name)) {
        process::output(Command::new("systemctl").args(["disable", "--now", service]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_contains_the_one_before() {
        let groups = [Group::Build, Group::Demo, Group::Bench, Group::Test, Group::All];
        for pair in groups.windows(2) {
            let (small, large) = (wanted(pair[0], 22), wanted(pair[1], 22));
            assert!(small.iter().all(|name| large.contains(name)), "{pair:?}");
        }
        let build =
            ["g++", "libpolly-22-dev", "libssl-dev", "llvm-22-dev", "make", "pkg-config", "zlib1g-dev"];
        assert_eq!(wanted(Group::Build, 22), build);
    }

    #[test]
    fn a_package_that_is_unknown_or_only_configured_is_missing() {
        let wanted = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(not_installed(&wanted, "a installed\nb config-files\n"), ["b", "c"]);
    }
}
