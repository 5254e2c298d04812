//! Servers take over from each other; without any, the last good copy is served and said to be old; a full disk is
//! nobody's problem.

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use xtask::demo::appliance::Settings;
use xtask::lab::network::SERVER;
use xtask::lab::{Running, interrupt};
use xtask::process;

use super::{FIRST, Files, SECOND, noise};
use crate::site::{LIMIT, settings};

#[test]
fn servers_take_over_and_the_last_good_copy_is_served_when_all_are_gone() -> Result<()> {
    let files = Files::start("connect_timeout_ms = 500\n", "")?;
    let (mut first, mut second) = (files.nginx(FIRST, "")?, files.nginx(SECOND, "")?);
    files.put("a.cfg", b"one")?;
    assert_eq!(files.get("/a.cfg")?.body, b"one");
    assert_eq!((first.asked()?.len(), second.asked()?.len()), (1, 0));

    first.stop()?;
    files.put("a.cfg", b"two, by the second server")?;
    assert_eq!(files.get("/a.cfg")?.body, b"two, by the second server");
    assert_eq!(files.get("/a.cfg")?.status, 200);
    // The copy of the first server is not compared by the second one's tags.
    assert!(!second.asked()?[0].conditional && second.asked()?[1].conditional, "{:#?}", second.asked()?);
    assert_eq!(files.metric("upstream_failures_total", &[("server", &format!("http://{FIRST}"))])?, 1.0);

    second.stop()?;
    for _ in 0..3 {
        let stale = files.get("/a.cfg")?;
        assert_eq!((stale.status, &stale.body[..]), (200, &b"two, by the second server"[..]));
        assert_eq!(stale.header("warning"), Some("110 branchline \"Response is Stale\""));
        assert!(stale.header("age").is_some());
    }
    let part = files.curl(&["-r", "0-2"], "/a.cfg")?;
    assert_eq!((part.status, &part.body[..]), (206, &b"two"[..]));
    let head = files.curl(&["-I"], "/a.cfg")?;
    assert_eq!((head.status, head.header("content-length")), (200, Some("25")));
    assert_eq!(files.get("/b.cfg")?.status, 502);
    let authorized = files.curl(&["-u", "phone:word"], "/a.cfg")?;
    assert_eq!(authorized.status, 502, "with credentials of its own it is for the server to say");
    assert_eq!(files.metric("requests_total", &[("source", "stale")])?, 5.0);
    let said = files.appliance.said();
    assert_eq!(said.matches("no server of files can be reached").count(), 1, "{said}");

    let first = files.nginx(FIRST, "")?;
    files.put("a.cfg", b"three")?;
    interrupt::wait_until(LIMIT, "the new file", || {
        let fresh = files.get("/a.cfg")?;
        Ok((fresh.body == b"three" && fresh.header("warning").is_none()).then_some(()))
    })?;
    assert!(first.asked()?.iter().all(|asked| asked.status == 200));
    assert!(files.appliance.said().contains("a server of files can be reached again"));
    Ok(())
}

#[test]
fn a_server_that_fails_by_itself_is_passed_over_and_one_that_refuses_is_not() -> Result<()> {
    let files = Files::start("", "")?;
    let first = files.nginx(FIRST, "location /broken { return 503; } location /denied { return 403; }")?;
    let second = files.nginx(SECOND, "location /both { return 500; }")?;
    files.put("broken", b"by the second")?;
    assert_eq!(files.get("/denied/x.cfg")?.status, 403);
    assert_eq!(second.asked()?, []);
    assert_eq!(files.get("/broken")?.body, b"by the second");
    drop(first);
    assert_eq!(files.get("/both")?.status, 500, "the last answer that there is");
    Ok(())
}

#[test]
fn every_address_of_a_name_is_tried_and_redirections_come_back_to_the_relay() -> Result<()> {
    const NAME: &str = "provision.lab.example";
    /// Nobody has this address: what is sent there is lost, or comes back as unreachable.
    const NOBODY: &str = "10.62.0.99";
    let url = format!("http://{NAME}:{}", FIRST.port());
    let tables = Settings {
        upstream: format!("dns = [\"{SERVER}\"]\n"),
        tables: format!("[provisioning]\nservers = [\"{url}\"]\n"),
        ..settings()
    };
    let mut files = Files::start_with(tables, |lab| {
        let mut command = lab.centre.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
            "--pid-file=",
        ]);
        command.args(["--user=root", "--bind-interfaces", &format!("--listen-address={SERVER}")]);
        for address in [NOBODY, &SERVER.to_string()] {
            command.arg(format!("--host-record={NAME},{address}"));
        }
        let running = Running::start(&mut command, "dnsmasq", lab.dir())?;
        lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, 53), LIMIT)?;
        Ok(Some(running))
    })?;
    let redirection = format!("location /old {{ return 302 {url}/new/a.cfg; }}");
    let _nginx = files.nginx(FIRST, &redirection)?;
    files.put("a.cfg", b"found")?;
    // The records come in turns. A connection that is kept would hide the lost address: each time a new daemon.
    for _ in 0..4 {
        assert_eq!(files.get("/a.cfg")?.body, b"found");
        files.restart()?;
    }
    let tried = files.lab.branch.ip(&["neighbour", "show", NOBODY])?;
    assert!(tried.contains(NOBODY), "nobody looked for {NOBODY}");
    let old = files.get("/old/a.cfg")?;
    assert_eq!((old.status, old.header("location")), (302, Some("/new/a.cfg")));
    Ok(())
}

/// A small file system in place of the cache's directory.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = process::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn on_a_full_disk_files_are_relayed_all_the_same() -> Result<()> {
    let mut disk = None;
    let servers = [format!("http://{FIRST}")];
    let files = Files::start_to(&servers, "", |lab| {
        let directory = lab.dir().join("state/provisioning");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut mount = Command::new("mount");
        process::output(mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&directory))?;
        disk = Some(SmallDisk(directory));
        Ok(String::new())
    })?;
    let _nginx = files.nginx(FIRST, "")?;
    let large = noise(3 << 20);
    files.put("large.img", &large)?;
    files.put("small.cfg", b"small")?;
    for _ in 0..2 {
        let got = files.get("/large.img")?;
        assert!(got.status == 200 && got.body == large, "{} {}", got.status, got.body.len());
    }
    assert!(files.cached()?.is_empty());
    assert_eq!(files.metric("not_cached_total", &[])?, 2.0);
    let said = files.appliance.said();
    assert_eq!(said.matches("files cannot be cached").count(), 1, "{said}");
    assert_eq!(files.get("/small.cfg")?.body, b"small");
    interrupt::wait_until(LIMIT, "the small one", || Ok((files.cached()?.len() == 1).then_some(())))?;
    assert!(files.metric("cache_bytes", &[])? > 0.0);
    drop(disk);
    Ok(())
}
