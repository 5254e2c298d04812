//! A phone whose own password is wrong, and an authentication entry at the appliance: a real server challenges its
//! registration and its call, and the appliance answers for it.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use branchline::control::{EntryView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{self, APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;

fn account(index: u8, password: &str) -> Account {
    Account { password: password.to_owned(), expires: 60, ..Account::of(index) }
}

#[test]
fn a_phone_with_an_entry_registers_and_calls_with_the_appliances_credentials() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    let refused = appliance.tell(&lab, &["entries", "set", "10 01"], "lab1001\n").unwrap_err().to_string();
    assert!(refused.contains("registration id \"10 01\": it must have 1 to 256 characters"), "{refused}");
    appliance.tell(&lab, &["entries", "set", "1001", "--alias", "2001"], "lab1001\n")?;
    let entries: Vec<EntryView> = ask(&appliance, &lab, "entries")?;
    assert_eq!(
        (entries.len(), entries[0].registration_id.as_str(), entries[0].user.as_str()),
        (1, "1001", "1001")
    );
    let stored = std::fs::read(lab.dir().join("state/branchline.db"))?;
    assert!(!stored.windows(7).any(|window| window == b"lab1001"), "a password in clear");

    let host = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1, "lab1002"), to_appliance(APPLIANCE_OFFICE))?;
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
    })
    .with_context(|| appliance.said())?;
    let answered = appliance.metrics(&lab)?.sum("branchline_challenges_answered_total", &[]);
    assert!(answered >= 2.0, "its registration and its call: {answered}");
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = ask::<StatusView>(&appliance, &lab, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })?;

    // Without the entry, its own password counts, which is wrong.
    appliance.tell(&lab, &["entries", "remove", "1001"], "")?;
    drop(caller);
    let error = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE));
    assert!(error.is_err(), "it registered with a wrong password");
    Ok(())
}

#[test]
fn phones_with_entries_prove_themselves_to_the_appliance_with_a_server_and_without() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let mut server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let settings = Settings {
        office: "challenge = \"always\"\n".to_owned(),
        upstream: "probe_seconds = 1\n".to_owned(),
        tables: "[survival]\nregistration_seconds = 10\n\n".to_owned(),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    let host = lab.own_host(1)?;

    // The appliance could answer the server for it, but does not for who does not know the password.
    let guess = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE));
    assert!(guess.is_err(), "it registered with a wrong password");
    let metric = |name: &str, labels: &[(&str, &str)]| -> Result<f64> {
        Ok(appliance.metrics(&lab)?.sum(&format!("branchline_{name}"), labels))
    };
    assert!(metric("sip_dropped_total", &[("reason", "wrong_credentials")])? >= 1.0);
    assert!(!server.said().contains("registered 1001"), "{}", server.said());

    let right = Account { expires: 10, ..account(0, "lab1001") };
    let caller = Baresip::start(&lab, &lab.office, &right, to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1, "lab1002"), to_appliance(APPLIANCE_OFFICE))?;
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
    })
    .with_context(|| appliance.said())?;
    let answered = metric("challenges_answered_total", &[])?;
    assert!(answered >= 2.0, "its registration and its call: {answered}");
    caller.hang_up(&lab.office)?;

    server.kill();
    interrupt::wait_until(LIMIT, "a registration here, proved", || {
        Ok((metric("survival_registrations_total", &[])? >= 2.0).then_some(()))
    })
    .with_context(|| appliance.said())?;
    drop(caller);
    let guess = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE));
    assert!(guess.is_err(), "it registered with a wrong password, from a known address");
    Ok(())
}

#[test]
fn an_entry_whose_password_is_forgotten_goes_on_registering_and_calling() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    let host = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE))?;
    interrupt::wait_until(LIMIT, "the realm in which the server has taken it", || {
        let entries: Vec<EntryView> = ask(&appliance, &lab, "entries")?;
        Ok((entries[0].realms == ["lab.example"] && entries[0].password_kept).then_some(()))
    })
    .with_context(|| appliance.said())?;
    drop((caller, appliance));

    // A day later.
    let database = rusqlite::Connection::open(lab.dir().join("state/branchline.db"))?;
    assert_eq!(
        database.execute("UPDATE authentication_entry SET learned_unix = learned_unix - 86400", [])?,
        1
    );
    drop(database);
    let appliance = Appliance::start_with(&lab, &settings())?;
    interrupt::wait_until(LIMIT, "the password forgotten", || {
        let entries: Vec<EntryView> = ask(&appliance, &lab, "entries")?;
        Ok((entries[0].realms == ["lab.example"] && !entries[0].password_kept).then_some(()))
    })
    .with_context(|| appliance.said())?;
    let caller = Baresip::start(&lab, &lab.office, &account(0, "wrong"), to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1, "lab1002"), to_appliance(APPLIANCE_OFFICE))?;
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
    })
    .with_context(|| appliance.said())?;
    Ok(())
}

#[test]
fn a_server_that_says_its_next_nonce_challenges_an_entry_once_for_each_of_its_uses() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let server = Kamailio::start_with_next_nonces(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    let host = lab.own_host(1)?;
    let often = Account { expires: 5, ..account(0, "wrong") };
    let caller = Baresip::start(&lab, &lab.office, &often, to_appliance(APPLIANCE_OFFICE))?;
    let _called = Baresip::start(&lab, &host, &account(1, "lab1002"), to_appliance(APPLIANCE_OFFICE))?;
    let times = |what: &str| server.said().matches(what).count();
    interrupt::wait_until(LIMIT, "four registrations", || Ok((times("registered 1001") >= 4).then_some(())))
        .with_context(|| server.said())?;
    assert_eq!(times("challenged a registration of 1001"), 1, "{}", server.said());

    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    for call in 1..=3 {
        caller.call(&lab.office, USERS[1])?;
        interrupt::wait_until(LIMIT, &format!("sound of call {call}"), || {
            let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
            let rtp: Vec<u64> =
                flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
            Ok((rtp.len() == 4 && rtp.iter().all(|expected| *expected > ENOUGH)).then_some(()))
        })
        .with_context(|| appliance.said())?;
        caller.hang_up(&lab.office)?;
        interrupt::wait_until(LIMIT, &format!("end of call {call}"), || {
            let status = ask::<StatusView>(&appliance, &lab, "status")?;
            Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
        })?;
    }
    assert_eq!(times("challenged a call of 1001"), 1, "{}", server.said());

    // The phones have answered nothing of that, so they are told of no nonce.
    let office = office.finish()?;
    let has = |packet: &Packet, word: &[u8]| packet.payload.windows(word.len()).any(|part| part == word);
    assert!(office.iter().filter(|packet| has(packet, b"SIP/2.0 200 OK")).count() >= 6);
    assert!(!office.iter().any(|packet| has(packet, b"nextnonce") || has(packet, b"Authentication-Info")));
    Ok(())
}
