//! After thousands of calls nothing of them is left: no call, no session, no flow, no port, no transaction, no
//! descriptor.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;
use xtask::lab::sipp::{Messages, Scenario};

use crate::site::{Site, engine};

const CALLS: u32 = 10_000;
/// New calls a second: a debug build on two processors does this beside its own phones.
const RATE: u32 = 250;
/// Transactions live for 64*T1: with this T1, six seconds instead of half a minute.
const TABLES: &str =
    "[sip]\ntimer_t1_ms = 100\n[protection]\nsource_packets_per_second = 0\nunknown_packets_per_second = 0\n";
/// The calls take 40 s at that rate; a machine that is busy otherwise takes longer.
const LIMIT: Duration = Duration::from_secs(300);

fn left(status: &StatusView) -> [usize; 6] {
    let ports = status.networks.iter().map(|network| network.ports_used).sum();
    [status.calls_active, status.media_sessions, status.flows, ports, status.transactions, status.open_files]
}

fn nothing_is_left_over(datapath: &str) -> Result<()> {
    let site = Site::start(Settings { tables: TABLES.to_owned(), ..engine(datapath) })?;
    site.a_call_works()?;
    let calm = |status: &StatusView| left(status)[..5] == [0; 5];
    let wait_for_calm = || {
        interrupt::wait_until(LIMIT, "end of everything", || {
            let status = site.status()?;
            Ok(calm(&status).then_some(status))
        })
        .with_context(|| format!("{:#?}", site.status()))
    };
    let before = wait_for_calm()?;
    let mut job = site.call(Scenario::PhoneCall, 1, Duration::ZERO);
    (job.calls, job.rate, job.messages) = (Some(CALLS), RATE, Messages::NotKept);
    let started = Instant::now();
    job.start(&site.lab.office, site.lab.dir())?.succeed(LIMIT)?;
    println!("{CALLS} calls over {datapath} in {:.0} s", started.elapsed().as_secs_f64());
    let after = wait_for_calm()?;
    assert_eq!(left(&after), left(&before), "calls, sessions, flows, ports, transactions, open files");
    assert_eq!(site.metric("branchline_calls_answered_total", &[])?, f64::from(CALLS + 1));
    assert_eq!(
        site.metric("branchline_calls_ended_total", &[("outcome", "answered")])?,
        f64::from(CALLS + 1)
    );
    assert!(!site.appliance.said().contains("panicked"), "{}", site.appliance.said());
    Ok(())
}

#[test]
fn ten_thousand_calls_over_the_kernel_leave_nothing_behind() -> Result<()> {
    nothing_is_left_over("kernel")
}
