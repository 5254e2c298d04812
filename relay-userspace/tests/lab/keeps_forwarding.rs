//! With `datapath.keep_when_stopped` the kernel goes on forwarding the calls that stand when the daemon is
//! killed; the next daemon takes its attachments away.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use xtask::{
    demo::appliance::{Appliance, Settings},
    lab::interrupt,
};

use crate::site::{LIMIT, Site, engine, settings};

/// bpffs, which every distribution's init mounts, and a bare laboratory machine may lack.
struct Bpffs {
    ours: bool,
}

impl Bpffs {
    const PLACE: &str = "/sys/fs/bpf";

    fn mount() -> Result<Self> {
        let mounted = std::fs::read_to_string("/proc/self/mounts")?;
        let there = mounted.lines().any(|line| line.split(' ').nth(1) == Some(Self::PLACE));
        if !there {
            let done = Command::new("mount").args(["-t", "bpf", "bpf", Self::PLACE]).status()?;
            ensure!(done.success(), "bpffs cannot be mounted at {}", Self::PLACE);
        }
        Ok(Self { ours: !there })
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if self.ours {
            // Lazily: another test of ours may still look at it.
            let _ = Command::new("umount").args(["-l", Self::PLACE]).status();
        }
    }
}

fn pins() -> Vec<String> {
    let layouts =
        std::fs::read_dir(Path::new(Bpffs::PLACE).join("branchline")).into_iter().flatten().flatten();
    layouts
        .flat_map(|layout| std::fs::read_dir(layout.path()).into_iter().flatten().flatten())
        .flat_map(|namespace| std::fs::read_dir(namespace.path()).into_iter().flatten().flatten())
        .map(|pin| pin.path().display().to_string())
        .collect()
}

#[test]
fn the_kernel_goes_on_forwarding_when_told_to_and_the_next_daemon_takes_over() -> Result<()> {
    let _bpffs = Bpffs::mount()?;
    let before = pins();
    let kept =
        Settings { datapath: "engine = \"kernel\"\nkeep_when_stopped = true\n".to_owned(), ..settings() };
    let mut site = Site::start(kept)?;
    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    assert_eq!(pins().len(), before.len() + 2, "one for each interface");

    site.appliance.stop(libc::SIGKILL)?;
    let heard = |site: &Site| site.legs()[1].iter().map(|leg| leg.received).sum::<u64>();
    let at_death = heard(&site);
    interrupt::wait_until(LIMIT, "media without a daemon", || {
        Ok((heard(&site) > at_death + 100).then_some(()))
    })?;

    site.settings = engine("kernel");
    site.appliance = Appliance::start_with(&site.lab, &site.settings)?;
    assert_eq!(pins(), before, "the next daemon was told to keep nothing");
    assert_eq!(site.status()?.flows, 0);
    site.a_call_works()
}
