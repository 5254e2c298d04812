//! The busy hour of an office in two minutes: 200 phones that register every minute, 20 new calls a second of which some
//! are held and some transferred, and messages that wait for all of them. Every one of them goes as it should, and
//! afterwards nothing is left.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::{Job, Messages, Scenario};
use xtask::lab::traffic::PEER_SIP;

use crate::site::{Site, engine, media_base, to_appliance};

/// How long calls begin.
const BUSY: u32 = 120;
/// Phones, and how often each registers, in seconds.
const PHONES: u32 = 200;
const EVERY: u32 = 60;
/// New calls a second by kind: plain, held, transferred.
const CALLS: [(Scenario, &str, u8, u32); 3] = [
    (Scenario::PhoneCall, "plain", 1, 12),
    (Scenario::PhoneHold, "held", 2, 6),
    (Scenario::PhoneTransfer, "transferred", 3, 2),
];
/// Phones that are told of their messages a second: each once in the time.
const TOLD: u32 = 2;
/// Where the phones' registrations are, and who takes what comes to them.
const REGISTERED_AT: u8 = 4;
const REGISTERED_PORT: u16 = 5070;
/// How long a call talks, between each two of its requests.
const TALK: Duration = Duration::from_secs(1);
/// All of it takes its time; on a machine that is busy otherwise, longer.
const LIMIT: Duration = Duration::from_secs(400);
/// All calls come from three addresses; transactions live for six seconds instead of half a minute.
const TABLES: &str =
    "[sip]\ntimer_t1_ms = 100\n[protection]\nsource_packets_per_second = 0\nunknown_packets_per_second = 0\n";

fn registrations(name: &str, rate: u32, count: u32) -> Job {
    let mut job =
        Job::new(Scenario::PhoneRegister, name, phone(REGISTERED_AT), PEER_SIP, media_base(REGISTERED_AT));
    job.destination = Some(to_appliance(APPLIANCE_OFFICE));
    job.rows = (0..PHONES)
        .map(|line| {
            let user = format!("2{line:03}");
            vec![user.clone(), format!("[authentication username={user} password=lab{user}]")]
        })
        .collect();
    (job.rate, job.calls) = (rate, Some(count));
    job.keys = vec![("contact_port".to_owned(), REGISTERED_PORT.to_string())];
    job
}

fn left(status: &StatusView) -> [usize; 6] {
    let ports = status.networks.iter().map(|network| network.ports_used).sum();
    [status.calls_active, status.media_sessions, status.flows, ports, status.transactions, status.open_files]
}

#[test]
fn two_hundred_phones_and_twenty_calls_a_second_for_two_minutes_lose_nothing_and_leave_nothing() -> Result<()>
{
    let site = Site::start(Settings { tables: TABLES.to_owned(), ..engine("kernel") })?;
    let dir = site.lab.dir();
    registrations("register-first", 50, PHONES).start(&site.lab.office, dir)?.succeed(LIMIT)?;
    let bindings: HashMap<String, String> = site
        .server
        .logged("BINDING")
        .into_iter()
        .filter_map(|mut words| Some((words.first()?.clone(), words.pop()?)))
        .collect();
    assert_eq!(bindings.len(), PHONES as usize);
    let calm = || {
        interrupt::wait_until(LIMIT, "end of everything", || {
            let status = site.status()?;
            Ok((left(&status)[..5] == [0; 5]).then_some(status))
        })
        .with_context(|| format!("{:#?}", site.status()))
    };
    let before = calm()?;

    let mut jobs = Vec::new();
    let mut notified = Job::new(
        Scenario::PhoneNotified,
        "notified",
        phone(REGISTERED_AT),
        REGISTERED_PORT,
        media_base(REGISTERED_AT) + 2000,
    );
    notified.calls = Some(PHONES);
    jobs.push(notified.start(&site.lab.office, dir)?);
    jobs.push(
        registrations("register", PHONES.div_ceil(EVERY), PHONES * BUSY / EVERY)
            .start(&site.lab.office, dir)?,
    );
    for (scenario, name, host, rate) in CALLS {
        let mut job = Job::new(scenario, name, phone(host), PEER_SIP, media_base(host));
        job.destination = Some(to_appliance(APPLIANCE_OFFICE));
        job.rows = vec![vec![format!("10{host:02}"), "9001".to_owned()]];
        (job.rate, job.calls, job.pause, job.messages) = (rate, Some(rate * BUSY), TALK, Messages::NotKept);
        jobs.push(job.start(&site.lab.office, dir)?);
    }
    let mut notifies = Job::new(Scenario::ServerNotify, "notifies", SERVER, 5080, 55_000);
    notifies.destination = Some(to_appliance(APPLIANCE_CENTRE));
    notifies.rows = bindings.values().map(|binding| vec!["9999".to_owned(), binding.clone()]).collect();
    (notifies.rate, notifies.calls) = (TOLD, Some(PHONES));
    jobs.push(notifies.start(&site.lab.centre, dir)?);
    for mut job in jobs {
        job.succeed(LIMIT).with_context(|| site.appliance.said())?;
    }

    let after = calm()?;
    assert_eq!(left(&after), left(&before), "calls, sessions, flows, ports, transactions, open files");
    assert_eq!(after.registrations, PHONES as usize);
    let calls: u32 = CALLS.iter().map(|(.., rate)| rate * BUSY).sum();
    assert_eq!(site.metric("branchline_calls_answered_total", &[])?, f64::from(calls));
    assert_eq!(
        site.metric("branchline_calls_ended_total", &[("outcome", "answered")])?,
        f64::from(calls),
        "no call failed"
    );
    assert_eq!(site.metric("branchline_media_refused_total", &[])?, 0.0);
    assert!(!site.appliance.said().contains("panicked"), "{}", site.appliance.said());
    Ok(())
}
