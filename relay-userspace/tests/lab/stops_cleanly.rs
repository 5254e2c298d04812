//! A daemon that is stopped in the middle of a call leaves nothing behind; one that is started then goes on with the call.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::demo::appliance;
use xtask::lab::{Lab, interrupt};

use crate::site::{LIMIT, Site, engine};

/// `linux/bpf.h`: the command that asks for attached programs, and the point at which `sk_lookup` programs are.
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_SK_LOOKUP: u32 = 36;

/// The part of `union bpf_attr` that [`BPF_PROG_QUERY`] reads and writes.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    programs: u32,
    reserved: u32,
}

/// How many `sk_lookup` programs are attached to the branch.
fn steering(lab: &Lab) -> Result<u32> {
    let namespace = File::open(lab.branch.path())?;
    let target = u32::try_from(namespace.as_raw_fd())?;
    let mut query = Query { target, attach_type: BPF_SK_LOOKUP, ..Query::default() };
    // SAFETY: the attribute is of the length that is given, and outlives the call; the kernel writes into it only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("BPF_PROG_QUERY needs root");
    }
    Ok(query.programs)
}

/// The interfaces of the branch that have an XDP program attached.
fn attached(lab: &Lab) -> Result<Vec<String>> {
    let links: Vec<Value> = serde_json::from_str(&lab.branch.ip(&["-j", "link", "show"])?)?;
    let with_program = links.iter().filter(|link| link["xdp"].is_object());
    Ok(with_program.filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_daemon_that_is_told_to_stop_detaches_and_the_next_one_goes_on_with_the_call() -> Result<()> {
    let mut site = Site::start(engine("kernel"))?;
    let _call = site.phone_calls(3, Duration::from_secs(60))?;
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    assert_eq!(attached(&site.lab)?, ["eth0", "eth1"]);
    assert_eq!(steering(&site.lab)?, 1);

    let status = site.appliance.stop(libc::SIGTERM)?;
    assert!(status.success(), "{status}; {}", site.appliance.said());
    assert_eq!(attached(&site.lab)?, Vec::<String>::new(), "no attachment is left");
    assert_eq!(steering(&site.lab)?, 0, "no port is steered any more");
    assert!(!appliance::socket(site.lab.dir()).exists(), "the control socket is gone");

    site.start_again()?;
    let heard = |site: &Site| site.legs().map(|legs| legs.last().map_or(0, |leg| leg.received));
    let before = heard(&site);
    site.until_flows(4, |flow| flow.datapath == "kernel" && flow.kernel_packets > 0)?;
    interrupt::wait_until(LIMIT, "media", || {
        let more = heard(&site).iter().zip(before).all(|(now, before)| *now > before + 50);
        Ok(more.then_some(()))
    })?;
    site.a_call_works()
}
