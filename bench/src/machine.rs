//! What the figures were measured on, for who was not there.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::contender::Contender;
use crate::other_work::OtherWork;
use crate::pauses::Pauses;

/// The machine, its software and the date, as lines of a list in Markdown, and what else it has to do.
///
/// # Errors
/// The system does not say.
pub(crate) fn describe() -> Result<(String, OtherWork)> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let version = |program: &str, argument: &str| {
        let line = said(program, &[argument]);
        if line.is_empty() { "not installed".to_owned() } else { line }
    };
    let cpus = read("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1)).map_or_else(String::new, |value| value.trim().to_owned())
    };
    let virtual_machine =
        if cpus.contains("hypervisor") { "a virtual machine" } else { "no virtual machine" };
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let module = match Contender::RtpengineKernel.is_to_be_had() {
        Ok(()) => "takes part".to_owned(),
        Err(error) => format!("is not measured: {error:#}"),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {name}: {value}");
    };
    line("date", &said("date", &["--utc", "--iso-8601=minutes"]));
    line("CPU", &format!("{}, {cores} cores, {virtual_machine}", field("model name")));
    line("kernel", &read("/proc/sys/kernel/osrelease")?);
    line("rtpengine's kernel module", &module);
    let (pauses, others) = OtherWork::beside(Pauses::look)?;
    line("other work before the run", &others.to_string());
    line("pauses of the core that forwards", &pauses.to_string());
    // Reports are written while others are made, and are no source.
    let changed = said("git", &["status", "--porcelain", "--", ":(top)", ":(top,exclude)bench/report"]);
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    line(
        "this source",
        &if changed.is_empty() { commit } else { format!("{commit}, changed since: {changed} ...") },
    );
    line("rtpengine", &version("rtpengine", "--version"));
    line("nftables", &version("nft", "--version"));
    Ok((text, others))
}
