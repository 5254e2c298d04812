//! A daemon that dies in the middle of calls: the kernel goes on forwarding, no packet is lost, and the next daemon takes
//! the calls up and ends them as it would have.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::{
    demo::appliance::Settings,
    lab::{Leg, interrupt},
};

use crate::site::{LIMIT, Site, engine, settings};

/// How long the call that ends by itself goes on, and how long the others do.
const TALK: Duration = Duration::from_secs(12);
const LONG: Duration = Duration::from_secs(120);
/// RTP packets that each end hears while nobody is there, and afterwards.
const ENOUGH: u64 = 100;
/// Within this time the store has what has changed.
const WRITTEN: Duration = Duration::from_secs(1);

/// bpffs, which every distribution's init mounts, and a bare laboratory machine may lack.
struct Bpffs;

/// How many tests want it, and whether one of them has mounted it.
static WANTED: Mutex<(usize, bool)> = Mutex::new((0, false));

impl Bpffs {
    const PLACE: &str = "/sys/fs/bpf";

    fn mount() -> Result<Self> {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        let mounted = fs::read_to_string("/proc/self/mounts")?;
        if !mounted.lines().any(|line| line.split(' ').nth(1) == Some(Self::PLACE)) {
            let done = Command::new("mount").args(["-t", "bpf", "bpf", Self::PLACE]).status()?;
            ensure!(done.success(), "bpffs cannot be mounted at {}", Self::PLACE);
            wanted.1 = true;
        }
        wanted.0 += 1;
        Ok(Self)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.0 -= 1;
        if *wanted == (0, true) {
            *wanted = (0, false);
            let _ = Command::new("umount").args(["-l", Self::PLACE]).status();
        }
    }
}

/// Where the daemon of this site pins, of all layouts.
fn pin_directories(site: &Site) -> Result<Vec<PathBuf>> {
    let namespace = fs::metadata(site.lab.branch.path())?.ino().to_string();
    let layouts = fs::read_dir(Path::new(Bpffs::PLACE).join("branchline")).into_iter().flatten().flatten();
    Ok(layouts.map(|layout| layout.path().join(&namespace)).filter(|path| path.is_dir()).collect())
}

/// The names of what it has pinned.
fn pins(site: &Site) -> Result<Vec<String>> {
    let all = pin_directories(site)?.into_iter().flat_map(|path| fs::read_dir(path).into_iter().flatten());
    let mut names: Vec<String> =
        all.flatten().map(|pin| pin.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The XDP programs of the branch, by the kernel's numbers.
fn attached(site: &Site) -> Result<Vec<u64>> {
    let links: Vec<Value> = serde_json::from_str(&site.lab.branch.ip(&["-j", "link", "show"])?)?;
    Ok(links.iter().filter_map(|link| link["xdp"]["prog"]["id"].as_u64()).collect())
}

/// What the ends of the standing calls have heard: office, then centre.
fn heard(site: &Site) -> Vec<u64> {
    site.legs().iter().flatten().filter(|leg| !leg.closed).map(|leg| leg.received).collect()
}

/// Waits until every end of every call has heard more.
fn until_heard(site: &Site, what: &str) -> Result<Vec<u64>> {
    let before = heard(site);
    interrupt::wait_until(LIMIT, what, || {
        let now = heard(site);
        let more = before.iter().zip(&now).all(|(before, now)| *now > before + ENOUGH);
        Ok((now.len() == before.len() && more).then_some(now))
    })
    .with_context(|| format!("{what}: {before:?}, then {:?}", heard(site)))
}

/// All that was sent has been heard, in both directions.
fn nothing_is_lost(site: &mut Site) -> Result<()> {
    let ended: Vec<Leg> = site.legs().into_iter().flatten().filter(|leg| leg.closed).collect();
    site.silence()?;
    let last = site.legs_at_end()?;
    for leg in ended.iter().chain(&last) {
        assert_eq!((leg.heard.lost(), leg.strays), (0, 0), "{leg:#?}");
        eprintln!(
            "{}: sent {}, heard {}, longest gap {:?}",
            leg.local, leg.sent, leg.received, leg.longest_gap
        );
    }
    // One side falls silent a moment before the other, whose last packets nobody hears.
    for (from, to) in [(&last[0], &last[1]), (&last[1], &last[0])] {
        assert!(from.sent - to.received <= 2, "{last:#?}");
    }
    Ok(())
}

fn in_kernel() -> Settings {
    engine("kernel")
}

/// Two calls stand, the second for long, and the store knows of them.
fn two_calls(
    settings: Settings,
    carried: &str,
) -> Result<(Site, xtask::lab::sipp::Sipp, xtask::lab::sipp::Sipp)> {
    let site = Site::start(settings)?;
    let short = site.phone_calls(3, TALK)?;
    // One after the other: the server's legs are told apart by their order.
    site.until_flows(4, |flow| flow.datapath == carried)?;
    let long = site.phone_calls(4, LONG)?;
    site.until_flows(8, |flow| flow.datapath == carried && flow.kernel_packets + flow.userspace_packets > 0)?;
    std::thread::sleep(WRITTEN);
    Ok((site, short, long))
}

#[test]
fn the_kernel_loses_no_packet_of_a_killed_daemon_s_calls_and_the_next_one_ends_them() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    let (mut site, mut short, _long) = two_calls(in_kernel(), "kernel")?;
    let programs = attached(&site)?;
    assert_eq!(pins(&site)?, ["FLOWS", "LOCAL", "PORTS", "REFUSED", "STATS", "xdp-eth0", "xdp-eth1"]);

    site.appliance.stop(libc::SIGKILL)?;
    let at_death = heard(&site);
    let without = until_heard(&site, "media without a daemon")?;
    assert_eq!(attached(&site)?, programs, "nothing has happened to the interfaces");
    let counted: u64 = 4 * ENOUGH;
    eprintln!("heard by each end when the daemon was killed: {at_death:?}, before the next one: {without:?}");

    site.start_again()?;
    let flows = site.until_flows(8, |flow| flow.datapath == "kernel")?;
    let rtp: Vec<u64> =
        flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.kernel_packets).collect();
    assert!(rtp.iter().sum::<u64>() > counted, "what was counted goes on: {rtp:?}");
    assert!(flows.iter().all(|flow| flow.lost == 0 && flow.duplicates == 0), "{flows:#?}");
    let exchanged = attached(&site)?;
    assert_eq!(exchanged.len(), 2);
    assert!(exchanged.iter().all(|program| !programs.contains(program)), "{programs:?}, then {exchanged:?}");
    let calls = site.calls()?;
    assert_eq!(calls.iter().map(|call| call.state.as_str()).collect::<Vec<_>>(), ["established"; 2]);
    until_heard(&site, "media with the next daemon")?;

    // The phone hangs up, as it would have.
    short.succeed(LIMIT)?;
    interrupt::wait_until(LIMIT, "the end of one call", || Ok((site.calls()?.len() == 1).then_some(())))?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    nothing_is_lost(&mut site)?;

    // And once more, with what this one has taken up.
    site.appliance.stop(libc::SIGKILL)?;
    site.start_again()?;
    assert_eq!((site.calls()?.len(), site.flows()?.len()), (1, 4));
    site.appliance.stop(libc::SIGTERM)?;
    assert_eq!((attached(&site)?.len(), pins(&site)?.len()), (0, 0), "a stop on purpose leaves nothing");
    Ok(())
}

#[test]
fn a_daemon_that_hands_over_and_one_that_is_told_to_keep_leave_the_kernel_forwarding() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    let kept =
        Settings { datapath: "engine = \"kernel\"\nkeep_when_stopped = true\n".to_owned(), ..settings() };
    for (settings, signal) in [(in_kernel(), libc::SIGUSR2), (kept, libc::SIGTERM)] {
        let (mut site, _short, _long) = two_calls(settings, "kernel")?;
        let status = site.appliance.stop(signal)?;
        assert!(status.success(), "{status}; {}", site.appliance.said());
        until_heard(&site, "media between two daemons")?;
        site.settings = in_kernel();
        site.start_again()?;
        site.until_flows(8, |flow| flow.datapath == "kernel")?;
        nothing_is_lost(&mut site)?;
        site.appliance.stop(libc::SIGTERM)?;
        assert_eq!(pins(&site)?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_daemon_with_another_layout_of_tables_takes_over_without_a_loss_too() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    let (mut site, _short, _long) = two_calls(in_kernel(), "kernel")?;
    site.appliance.stop(libc::SIGKILL)?;
    // What a daemon of another version would have left.
    let own = pin_directories(&site)?.pop().context("no pins")?;
    let other = Path::new(Bpffs::PLACE).join("branchline/v0");
    fs::create_dir_all(&other)?;
    fs::rename(&own, other.join(own.file_name().context("no name")?))?;
    site.start_again()?;
    site.until_flows(8, |flow| flow.datapath == "kernel")?;
    until_heard(&site, "media with the next daemon")?;
    assert_eq!(pin_directories(&site)?, [own], "the pins of the other layout are gone");
    nothing_is_lost(&mut site)?;
    site.appliance.stop(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn generic_xdp_and_tc_go_on_as_well() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    for (rung, carried, pin) in [("generic", "kernel", "xdp-eth0"), ("tc", "tc", "tc-eth0")] {
        let both = Settings { networks: format!("attach = \"{rung}\"\n"), ..in_kernel() };
        let (mut site, _short, _long) = two_calls(both, carried)?;
        assert!(pins(&site)?.contains(&pin.to_owned()), "{rung}: {:?}", pins(&site)?);
        site.appliance.stop(libc::SIGKILL)?;
        until_heard(&site, "media without a daemon")?;
        site.start_again()?;
        site.until_flows(8, |flow| flow.datapath == carried)?;
        until_heard(&site, "media with the next daemon")?;
        nothing_is_lost(&mut site).context(rung)?;
        // Another rung is wanted now: the old attachment goes, the calls stay.
        site.appliance.stop(libc::SIGKILL)?;
        site.settings = in_kernel();
        site.start_again()?;
        site.until_flows(8, |flow| flow.datapath == "kernel")?;
        let left = pins(&site)?.into_iter().filter(|name| name.contains("-eth")).collect::<Vec<_>>();
        assert_eq!(left, ["xdp-eth0", "xdp-eth1"]);
        site.appliance.stop(libc::SIGTERM)?;
    }
    Ok(())
}

#[test]
fn flows_without_a_call_are_cleared() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    let (mut site, _short, _long) = two_calls(in_kernel(), "kernel")?;
    site.appliance.stop(libc::SIGKILL)?;
    until_heard(&site, "media without a daemon")?;
    site.forget_calls()?;
    site.start_again()?;
    assert_eq!((site.status()?.flows, site.calls()?.len()), (0, 0));
    let before = heard(&site);
    std::thread::sleep(WRITTEN);
    assert_eq!(heard(&site), before, "the kernel forwards nothing of them any more");
    site.a_call_works()?;
    site.appliance.stop(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn calls_in_userspace_go_on_when_the_next_daemon_is_there() -> Result<()> {
    let (mut site, mut short, _long) = two_calls(engine("userspace"), "userspace")?;
    site.appliance.stop(libc::SIGKILL)?;
    site.start_again()?;
    site.until_flows(8, |flow| flow.datapath == "userspace")?;
    until_heard(&site, "media with the next daemon")?;
    short.succeed(LIMIT)?;
    interrupt::wait_until(LIMIT, "the end of one call", || Ok((site.calls()?.len() == 1).then_some(())))?;
    site.until_flows(4, |flow| flow.datapath == "userspace")?;
    Ok(())
}
