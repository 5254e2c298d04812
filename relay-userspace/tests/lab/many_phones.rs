//! An office of hundreds of phones with several lines each: all register through the appliance with a server that
//! challenges every one of them; each has a binding of its own, by which one in their midst is called.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{PhoneView, StatusView};
use xtask::lab::network::{APPLIANCE_OFFICE, phone};
use xtask::lab::sipp::{Job, Scenario};
use xtask::lab::traffic::PEER_SIP;

use crate::site::{LIMIT, Site, ask, media_base, settings, to_appliance};

/// Hosts that are phones, and the lines of each: 800 registrations. The laboratory has no more addresses; to the
/// appliance each line is a phone's of its own.
const HOSTS: u8 = 8;
const LINES: u32 = 100;
/// Registrations a second of each host.
const RATE: u32 = 50;
/// All of them, on a busy machine.
const ALL: Duration = Duration::from_secs(120);

fn user(host: u8, line: u32) -> String {
    format!("{}{line:03}", 10 + host)
}

#[test]
fn hundreds_of_phones_with_several_lines_register_and_one_in_their_midst_is_called() -> Result<()> {
    let site = Site::start(settings())?;
    let mut jobs = Vec::new();
    for host in 0..HOSTS {
        let name = format!("register-{host}");
        let mut job = Job::new(Scenario::PhoneRegister, &name, phone(host), PEER_SIP, media_base(host));
        job.destination = Some(to_appliance(APPLIANCE_OFFICE));
        job.rows = (0..LINES)
            .map(|line| {
                let user = user(host, line);
                let credentials = format!("[authentication username={user} password=lab{user}]");
                vec![user, credentials]
            })
            .collect();
        job.calls = Some(LINES);
        job.rate = RATE;
        job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
        jobs.push(job.start(&site.lab.office, site.lab.dir())?);
    }
    for mut job in jobs {
        job.succeed(ALL)?;
    }
    let status: StatusView = ask(&site.appliance, &site.lab, "status")?;
    assert_eq!(status.registrations, usize::from(HOSTS) * LINES as usize);
    let phones: Vec<PhoneView> = ask(&site.appliance, &site.lab, "phones")?;
    let mut lines: Vec<usize> = phones.iter().map(|phone| phone.registrations.len()).collect();
    lines.sort_unstable();
    assert_eq!(lines, vec![LINES as usize; usize::from(HOSTS)], "every phone has its lines");

    // Every binding that the server has is another one, and leads to its phone.
    let bindings: HashMap<String, String> = site
        .server
        .logged("BINDING")
        .into_iter()
        .filter_map(|mut words| Some((words.first()?.clone(), words.pop()?)))
        .collect();
    assert_eq!(bindings.len(), status.registrations);
    let (host, line) = (3, 42);
    let binding = bindings.get(&user(host, line)).context("the server has not seen it")?;
    let [mut answer, mut call] = site.server_calls(host, binding, Duration::from_secs(1))?;
    answer.succeed(LIMIT)?;
    call.succeed(LIMIT)?;
    Ok(())
}
