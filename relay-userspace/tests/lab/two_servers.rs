//! Two real servers, found by their SRV records; one is killed in the middle of a call. The call goes on, the phones
//! register with the other, and the next call goes by it.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use branchline::control::{FlowView, ServerView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SECOND_SERVER, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, Running, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
/// Phones register anew so often: that is how they come to the other server.
const EXPIRES: u32 = 10;

fn account(index: u8) -> Account {
    Account { expires: EXPIRES, ..Account::of(index) }
}

/// dnsmasq as the centre's DNS, with these records.
pub(crate) fn dns(lab: &Lab, records: &[String]) -> Result<Running> {
    let mut command = lab.centre.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file=",
    ]);
    command.args(["--user=root", "--bind-interfaces", "--local-ttl=1", "--log-queries", "--log-facility=-"]);
    command.arg(format!("--listen-address={SERVER}")).args(records);
    let running = Running::start(&mut command, "dnsmasq", lab.dir())?;
    lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, 53), LIMIT).with_context(|| running.last_words())?;
    Ok(running)
}

/// Two servers of one domain, the first with the better priority.
fn two_servers() -> Vec<String> {
    let of = |(host, address, priority): (&str, Ipv4Addr, u16)| {
        [
            format!("--host-record={host}.lab.example,{address}"),
            format!("--srv-host=_sip._udp.lab.example,{host}.lab.example,{PEER_SIP},{priority},0"),
        ]
    };
    [("one", SERVER, 10), ("two", SECOND_SERVER, 20)].into_iter().flat_map(of).collect()
}

pub(crate) fn server(servers: &[ServerView], address: Ipv4Addr) -> Option<&ServerView> {
    let wanted = format!("{address}:{PEER_SIP}");
    servers.iter().find(|server| server.address.as_deref() == Some(wanted.as_str()))
}

#[test]
fn a_call_outlives_its_server_and_the_next_goes_by_the_other() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _dns = dns(&lab, &two_servers())?;
    let mut first =
        Kamailio::start_with(&lab, &lab.centre, "kamailio-one", SocketAddrV4::new(SERVER, PEER_SIP), None)?;
    let second = Kamailio::start_with(
        &lab,
        &lab.centre,
        "kamailio-two",
        SocketAddrV4::new(SECOND_SERVER, PEER_SIP),
        None,
    )?;
    let settings = Settings {
        servers: vec!["sip:lab.example".to_owned()],
        upstream: format!("dns = [\"{SERVER}\"]\nprobe_seconds = 1\nrecovery_seconds = 5\n"),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    interrupt::wait_until(LIMIT, "both servers up", || {
        let servers = status()?.servers;
        let up = |address| server(&servers, address).is_some_and(|server| server.state == "up");
        Ok((up(SERVER) && up(SECOND_SERVER)).then_some(()))
    })
    .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;

    let host = lab.own_host(1)?;
    let mut caller = Baresip::start(&lab, &lab.office, &account(0), to_appliance(APPLIANCE_OFFICE))?;
    let called = Baresip::start(&lab, &host, &account(1), to_appliance(APPLIANCE_OFFICE))?;
    assert!(server(&status()?.servers, SERVER).is_some_and(|server| server.preferred), "by priority");
    caller.call(&lab.office, USERS[1])?;
    let heard = |least: u64| -> Result<Option<u64>> {
        let flows = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<u64> =
            flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.expected).collect();
        Ok(rtp.iter().min().copied().filter(|fewest| rtp.len() == 4 && *fewest > least))
    };
    let before = interrupt::wait_until(LIMIT, "sound in both directions of both legs", || heard(ENOUGH))
        .with_context(|| appliance.said())?;

    first.kill();
    let down = interrupt::wait_until(LIMIT, "the first server down", || {
        Ok(server(&status()?.servers, SERVER).filter(|server| server.state == "down").cloned())
    })?;
    assert_eq!((down.step.as_deref(), down.reason.as_deref()), (Some("sip"), Some("it does not answer SIP")));
    let after = status()?;
    assert!(
        server(&after.servers, SECOND_SERVER).is_some_and(|server| server.preferred),
        "{:#?}",
        after.servers
    );
    assert!(after.ready, "{:?}", after.not_ready_reason);
    interrupt::wait_until(LIMIT, "the sound going on", || heard(before + ENOUGH))?;

    // What the phones do next: both hang up, since no server is left to tell the other; they register with the other
    // server, and call again.
    caller.hang_up(&lab.office)?;
    called.hang_up(&host)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = status()?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })?;
    interrupt::wait_until(LIMIT, "the phones' registrations at the second server", || {
        let said = second.said();
        Ok(USERS.iter().all(|user| said.contains(&format!("registered {user}"))).then_some(()))
    })?;
    caller.call(&lab.office, USERS[1])?;
    interrupt::wait_until(LIMIT, "sound by the second server", || heard(ENOUGH))
        .with_context(|| format!("{:#?}\n{}", status(), appliance.said()))?;
    caller.wait_for("Call established")?;
    Ok(())
}
