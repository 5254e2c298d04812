//! What this host has and lacks for the appliance: kernel, BPF, capabilities, and for each interface its
//! driver, the mode that XDP would get, offloads, MTU, and the routes that would go astray.

use std::{fs, net::Ipv4Addr, path::Path};

use caps::{CapSet, Capability};
use serde::Serialize;

use crate::{
    config::{Config, Host},
    control::StatusView,
    datapath::kernel::{
        attach::probe_mode,
        programs::{KernelLog, Options, Programs},
    },
    net::{
        Transport,
        descriptors::{Descriptors, SOCKETS_OF_A_CALL},
        netlink::{self, Attached, Link},
        routes,
    },
};

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Missing,
}

/// Whether interfaces may be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attach {
    /// The program is attached for a moment, to see whether the driver takes it.
    Try,
    /// They are only looked at.
    Leave,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// What.
    pub(super) subject: String,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

fn finding(subject: impl Into<String>, verdict: Verdict, found: impl Into<String>, advice: &str) -> Finding {
    let advice = (!advice.is_empty()).then(|| advice.to_owned());
    Finding { subject: subject.into(), verdict, found: found.into(), advice }
}

/// Looks at everything.
pub(super) async fn examine(
    config: Option<&Config>,
    attach: Attach,
    running: Option<&StatusView>,
) -> Vec<Finding> {
    let mut findings = vec![kernel(), btf(), bpffs()];
    findings.extend(capabilities());
    let programs = load();
    findings.push(open_files(Descriptors::most(), running, programs.is_ok()));
    findings.push(match &programs {
        Ok(_) => finding("kernel programs", Verdict::Good, "the kernel's verifier accepts them", ""),
        Err(error) => finding(
            "kernel programs",
            Verdict::Missing,
            error.clone(),
            "without them all media goes through userspace; run as root, on a kernel with BPF",
        ),
    });
    match network(config, programs.ok().filter(|_| attach == Attach::Try)).await {
        Ok(more) => findings.extend(more),
        Err(error) => findings.push(finding("netlink", Verdict::Missing, error.to_string(), "")),
    }
    findings
}

/// The table for people.
pub(super) fn show(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Missing => "MISSING",
        };
        text += &format!("{mark}  {:width$}  {}\n", finding.subject, finding.found);
        if let Some(advice) = &finding.advice {
            text += &format!("{:7}  {:width$}  -> {advice}\n", "", "");
        }
    }
    text
}

fn kernel() -> Finding {
    /// `bpf_xdp_load_bytes`, which copies RTCP to userspace, came with 5.18.
    const OLDEST: (u32, u32) = (5, 18);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return finding("kernel", Verdict::Good, release, "");
    }
    let advice = format!("the kernel datapath needs {}.{} or newer", OLDEST.0, OLDEST.1);
    finding("kernel", Verdict::Missing, release, &advice)
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        finding("BTF", Verdict::Good, "/sys/kernel/btf/vmlinux", "")
    } else {
        finding(
            "BTF",
            Verdict::Warning,
            "the kernel was built without",
            "not needed, but kernel logs are poorer",
        )
    }
}

fn bpffs() -> Finding {
    let mounted = fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("bpf"));
    if mounted {
        finding("bpffs", Verdict::Good, "mounted", "")
    } else {
        let advice = "without it calls in the kernel end when the daemon does: `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`";
        finding("bpffs", Verdict::Warning, "not mounted", advice)
    }
}

fn capabilities() -> Vec<Finding> {
    [
        (Capability::CAP_BPF, "loads the kernel programs"),
        (Capability::CAP_PERFMON, "lets them read packets without bounds that userspace must prove"),
        (Capability::CAP_NET_ADMIN, "attaches them, and reads neighbours"),
        (Capability::CAP_NET_RAW, "lets the relay send from any of its media ports"),
    ]
    .into_iter()
    .map(|(capability, what)| {
        let there = caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        let verdict = if there { Verdict::Good } else { Verdict::Missing };
        finding(
            capability.to_string(),
            verdict,
            format!("{what}: {}", if there { "there" } else { "not there" }),
            "",
        )
    })
    .collect()
}

/// What a daemon that runs has open; if none does, what one could that this shell started.
fn open_files(own: Descriptors, running: Option<&StatusView>, with_programs: bool) -> Finding {
    let subject = "open files";
    let raise = "`systemctl edit branchline`: [Service] LimitNOFILE=65536";
    let calls = |sockets: usize| sockets / SOCKETS_OF_A_CALL;
    match running {
        Some(StatusView { open_files, open_files_limit, media_sockets, media_sockets_limit, .. }) => {
            let files = format!("the daemon has {open_files} of {open_files_limit}");
            match media_sockets_limit {
                None => finding(subject, Verdict::Good, format!("{files}; media ports take none"), ""),
                Some(limit) => {
                    let found = format!(
                        "{files}; {media_sockets} of at most {limit} are for media ports, which is {} calls",
                        calls(*limit)
                    );
                    finding(subject, Verdict::Warning, found, raise)
                }
            }
        }
        None if with_programs => {
            let found = format!("at most {}; media ports take none where the kernel steers", own.limit);
            finding(subject, Verdict::Good, found, "")
        }
        None => {
            let found = format!(
                "at most {} as started here; each media port takes one, and {} are kept: room for {} calls",
                own.limit,
                own.kept,
                calls(own.for_media())
            );
            finding(subject, Verdict::Warning, found, raise)
        }
    }
}

fn load() -> Result<Programs, String> {
    Programs::load(Options { addresses: vec![Ipv4Addr::LOCALHOST.into()], flows: 64, log: KernelLog::Off })
        .map_err(|error| error.to_string())
}

async fn network(
    config: Option<&Config>,
    programs: Option<Programs>,
) -> Result<Vec<Finding>, netlink::Error> {
    let netlink = netlink::connect()?;
    let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
    let mut findings = Vec::new();
    let mut programs = programs;
    let wanted: Vec<String> = match config {
        Some(config) => config.networks().map(|(_, network)| network.interface.clone()).collect(),
        None => links.iter().filter(|link| link.address.is_some()).map(|link| link.name.clone()).collect(),
    };
    for name in &wanted {
        match links.iter().find(|link| &link.name == name) {
            None => findings.push(finding(
                format!("interface {name}"),
                Verdict::Missing,
                "does not exist",
                "`ip link` lists those that do; the key is network.interface",
            )),
            Some(link) => findings.extend(interface(link, programs.as_mut())),
        }
    }
    findings.push(overlaps(&links, &netlink.routes().await?));
    if let Some(config) = config {
        for (server, ..) in config.all_servers() {
            let Host::Ip(std::net::IpAddr::V4(ip)) = server.host else { continue };
            findings.push(match netlink.route(ip.into()).await {
                Ok(Some(route)) => {
                    let by = links
                        .iter()
                        .find(|link| link.index == route.interface)
                        .map_or("?", |link| &link.name);
                    finding(
                        "route to a server",
                        Verdict::Good,
                        format!("{ip} by {by}, neighbour {}", route.neighbour),
                        "",
                    )
                }
                Ok(None) | Err(_) => finding(
                    "route to a server",
                    Verdict::Missing,
                    format!("there is none to {ip}"),
                    "`ip route` shows the routes; is the VPN up?",
                ),
            });
        }
        for (_, network) in config.networks() {
            if let Some(port) = network.port(Transport::LegacyTls) {
                findings.push(finding(
                    format!("legacy TLS of {}", network.name),
                    Verdict::Warning,
                    format!("TLS 1.0 to 1.2 with RSA key exchange on port {port}"),
                    "for old phones alone; set network.sip_legacy_tls_port to 0 when they are gone",
                ));
            }
            let own: Vec<String> = links
                .iter()
                .filter(|link| link.name == network.interface)
                .flat_map(|link| addresses.iter().filter(|address| address.interface == link.index))
                .map(|address| address.ip.to_string())
                .collect();
            let wanted = network.address.map(|address| address.to_string());
            let subject = format!("address of {}", network.name);
            findings.push(match wanted {
                Some(address) if own.contains(&address) => finding(subject, Verdict::Good, address, ""),
                None if !own.is_empty() => finding(subject, Verdict::Good, own.join(", "), ""),
                _ => finding(
                    subject,
                    Verdict::Missing,
                    format!(
                        "{} has {}",
                        network.interface,
                        if own.is_empty() { "none".to_owned() } else { own.join(", ") }
                    ),
                    "set it on the interface, or correct network.address",
                ),
            });
        }
    }
    Ok(findings)
}

fn interface(link: &Link, programs: Option<&mut Programs>) -> Vec<Finding> {
    let name = &link.name;
    let driver = fs::read_link(format!("/sys/class/net/{name}/device/driver"))
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .or_else(|| link.kind.clone())
        .unwrap_or_else(|| "unknown".to_owned());
    let mut findings = Vec::new();
    let subject = format!("interface {name}");
    let state = format!("driver {driver}, MTU {}, {}", link.mtu, if link.up { "up" } else { "down" });
    let verdict = if link.up { Verdict::Good } else { Verdict::Warning };
    findings.push(finding(&*subject, verdict, state, if link.up { "" } else { "`ip link set dev NAME up`" }));
    findings.push(match (link.xdp, programs) {
        (Attached::Program { program, native }, _) => {
            let mode = if native { "native" } else { "generic" };
            finding(
                format!("{subject}: XDP"),
                Verdict::Warning,
                format!("program {program} is attached, {mode}"),
                "if that is not a running Branchline, detach it: `ip link set dev NAME xdp off`",
            )
        }
        (Attached::Nothing, None) => finding(
            format!("{subject}: XDP"),
            Verdict::Good,
            "nothing is attached; the mode was not tried",
            "`branchline doctor --try-attach` tries it, and may restart the link for a moment",
        ),
        (Attached::Nothing, Some(programs)) => match probe_mode(programs, link.index) {
            Ok(()) => finding(format!("{subject}: XDP"), Verdict::Good, "native mode works", ""),
            Err(why) => finding(
                format!("{subject}: XDP"),
                Verdict::Warning,
                format!("native mode is refused ({why}): generic mode will be used"),
                "a driver with native XDP, or a smaller MTU, would spare the CPU",
            ),
        },
    });
    if link.kind.as_deref() == Some("veth") {
        findings.push(finding(
            format!("{subject}: offloads"),
            Verdict::Warning,
            "a veth device: its peer may leave checksums unfinished, which XDP forwards as they are",
            "on the peer: `ethtool -K NAME tx off`",
        ));
    }
    findings
}

/// The same subnet behind two interfaces makes one of them unreachable without a word.
fn overlaps(links: &[Link], routes: &[(Ipv4Addr, u8, u32)]) -> Finding {
    let found = routes::overlaps(links, routes);
    if found.is_empty() {
        return finding("overlapping subnets", Verdict::Good, "none", "");
    }
    let advice = "hosts in the overlap are reachable by one of the two only; renumber one side";
    finding("overlapping subnets", Verdict::Warning, found.join("; "), advice)
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;

    use super::*;

    #[test]
    fn a_subnet_behind_two_interfaces_is_reported_with_both_routes() {
        let route = |text: &str, interface| {
            let net: Ipv4Net = text.parse().unwrap();
            (net.network(), net.prefix_len(), interface)
        };
        let rows = [
            ("apart", vec![route("10.1.0.0/24", 2), route("10.2.0.0/24", 3)], Verdict::Good),
            ("the same", vec![route("10.1.0.0/24", 2), route("10.1.0.0/24", 3)], Verdict::Warning),
            ("one in the other", vec![route("10.0.0.0/8", 2), route("10.1.0.0/24", 3)], Verdict::Warning),
            ("both by one interface", vec![route("10.0.0.0/8", 2), route("10.1.0.0/24", 2)], Verdict::Good),
            ("the default route", vec![route("0.0.0.0/0", 2), route("10.1.0.0/24", 3)], Verdict::Good),
        ];
        for (description, routes, verdict) in rows {
            let finding = overlaps(&[], &routes);
            assert_eq!(finding.verdict, verdict, "{description}: {}", finding.found);
        }
    }
}
