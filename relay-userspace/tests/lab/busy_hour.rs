//! The busy hour of an office in two minutes: 200 phones that register every minute, 20 new calls a second of which some
//! are held and some transferred, and messages that wait for all of them. Every one of them goes as it should, and
//! afterwards nothing is left.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::{Job, Messages, Scenario};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{Site, ask, engine, media_base, to_appliance, turn};

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

#[test]
fn a_real_server_in_the_busy_hour_challenges_every_call_and_leads_it_back_to_a_phone_of_the_office()
-> Result<()> {
    /// Calls a second, from phones whose credentials the appliance has, each of which passes it twice.
    const RATE: u32 = 20;
    const SECONDS: u32 = 60;
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let appliance = Appliance::start_with(&lab, &Settings { tables: TABLES.to_owned(), ..engine("kernel") })?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    let dir = lab.dir();
    registrations("register-first", 50, PHONES).start(&lab.office, dir)?.succeed(LIMIT)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    let calm = || {
        interrupt::wait_until(LIMIT, "end of everything", || {
            let status = status()?;
            Ok((left(&status)[..5] == [0; 5]).then_some(status))
        })
        .with_context(|| format!("{:#?}", status()))
    };
    let before = calm()?;
    assert_eq!(before.registrations, PHONES as usize);

    let mut called = Job::new(
        Scenario::PhoneAnswer,
        "called",
        phone(REGISTERED_AT),
        REGISTERED_PORT,
        media_base(REGISTERED_AT) + 2000,
    );
    (called.calls, called.messages) = (Some(RATE * SECONDS), Messages::NotKept);
    let mut jobs = vec![called.start(&lab.office, dir)?];
    let again = PHONES * SECONDS / EVERY;
    jobs.push(registrations("register", PHONES.div_ceil(EVERY), again).start(&lab.office, dir)?);
    let mut calls = Job::new(Scenario::PhoneCall, "calls", phone(1), PEER_SIP, media_base(1));
    calls.destination = Some(to_appliance(APPLIANCE_OFFICE));
    calls.rows = (0..PHONES).map(|line| vec!["1001".to_owned(), format!("2{line:03}")]).collect();
    (calls.rate, calls.calls, calls.pause, calls.messages) =
        (RATE, Some(RATE * SECONDS), TALK, Messages::NotKept);
    jobs.push(calls.start(&lab.office, dir)?);
    // The called phones' process ends with the last call.
    while let Some(mut job) = jobs.pop() {
        job.succeed(LIMIT).with_context(|| appliance.said())?;
    }

    let after = calm()?;
    assert_eq!(left(&after), left(&before), "calls, sessions, flows, ports, transactions, open files");
    let metrics = appliance.metrics(&lab)?;
    let each = f64::from(RATE * SECONDS);
    assert_eq!(metrics.sum("branchline_challenges_answered_total", &[]), each, "each call was challenged");
    assert_eq!(metrics.sum("branchline_calls_answered_total", &[]), 2.0 * each, "each passed twice");
    assert_eq!(metrics.sum("branchline_calls_ended_total", &[("outcome", "answered")]), 2.0 * each);
    Ok(())
}
