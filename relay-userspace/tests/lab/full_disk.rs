//! A state directory and a log directory that are full: the daemon starts, calls are made, each part that cannot write
//! says so once, nothing dies, and when there is room again all of it works without a restart. And a state directory
//! that cannot be written at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::capture::CaptureView;
use branchline::store::{Store, TraceStore};
use xtask::demo::appliance::Settings;
use xtask::lab::network::{APPLIANCE_OFFICE, phone};
use xtask::lab::{Lab, Routes, interrupt};
use xtask::process;

use crate::hostile_sip::resident;
use crate::refuses_to_start::{check, refused};
use crate::site::{LIMIT, Site, settings, turn};

/// Longer than what is done while the call stands.
const TALK: Duration = Duration::from_secs(20);
/// How much the daemon's memory may differ, in KiB.
const FLAT_KIB: u64 = 8192;

/// A small file system over a directory; it goes with its test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Path, size: &str) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let options = format!("size={size},mode=0700");
        process::output(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(directory))?;
        Ok(Self(directory.to_owned()))
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.0.join("ballast"))?;
        for size in [64 << 10, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }

    fn remount(&self, how: &str) -> Result<()> {
        process::output(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0)).map(drop)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = process::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn captures(site: &Site) -> Result<Vec<CaptureView>> {
    Ok(serde_json::from_value(site.appliance.ask(&site.lab, &["capture", "list"])?)?)
}

/// A phone's line goes to the receiver of logs.
fn log_line(site: &Site, text: &str) -> Result<()> {
    let text = text.to_owned();
    site.lab.office.enter(move || {
        UdpSocket::bind((phone(1), 0))
            .and_then(|socket| socket.send_to(text.as_bytes(), (APPLIANCE_OFFICE, 514)))
    })??;
    Ok(())
}

/// Waits until a metric is more than it was.
fn rises(site: &Site, name: &str, labels: &[(&str, &str)], before: f64) -> Result<()> {
    interrupt::wait_until(LIMIT, &format!("{name} {labels:?} to rise"), || {
        Ok((site.metric(name, labels)? > before).then_some(()))
    })
}

#[test]
fn on_a_full_disk_calls_are_made_each_part_says_what_is_wrong_and_room_mends_it_all() -> Result<()> {
    let state = |dir: &Path| dir.join("state");
    let logs = |dir: &Path| dir.join("logs");
    // The first start makes key, database and certificate; the disk fills up afterwards.
    let mut site = Site::start(settings())?;
    let dir = site.lab.dir().to_owned();
    let tables = format!("[syslog]\nenabled = true\n[log]\ndirectory = {:?}\n", logs(&dir));
    site.appliance.stop(libc::SIGTERM)?;
    let saved = dir.join("saved");
    process::output(Command::new("cp").arg("-a").arg(state(&dir)).arg(&saved))?;
    let small = SmallDisk::mount(&state(&dir), "2m")?;
    let small_logs = SmallDisk::mount(&logs(&dir), "256k")?;
    process::output(Command::new("cp").arg("-aT").arg(&saved).arg(state(&dir)))?;
    // A capture that the last daemon did not end, which this one would like to note.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state(&dir).join("captures"))?;
    fs::write(state(&dir).join("captures/old.pcapng"), "x")?;
    fs::write(
        state(&dir).join("captures/old.json"),
        r#"{"call_id":"old","started_unix":1,"encrypted":false}"#,
    )?;
    small.fill()?;
    small_logs.fill()?;

    // It starts all the same, and says what it cannot do.
    site.settings = Settings { tables, ..settings() };
    site.start_again()?;
    let said = site.appliance.said();
    for (words, times) in [
        // What stands, and traces.
        ("there is no room for the database's index: the disk is full", 2),
        ("the description of a capture cannot be written; it is kept in memory", 1),
        ("log files cannot be written", 1),
    ] {
        assert_eq!(said.matches(words).count(), times, "{words}:\n{said}");
    }
    let list = captures(&site)?;
    assert_eq!(list[0].reason.as_deref(), Some("interrupted; the last packets may be missing"), "{list:?}");
    assert!(site.metric("branchline_log_write_failures_total", &[])? > 0.0);

    // Phones register and call; what is to be kept is refused with a reason, or counted.
    site.register(1, "1001")?;
    site.a_call_works()?;
    site.appliance.ask(&site.lab, &["reload"])?;
    let wrong =
        site.appliance.tell(&site.lab, &["entries", "set", "1001"], "secret\n").unwrap_err().to_string();
    assert!(wrong.contains("branchline.db") && wrong.contains("full"), "{wrong}");
    interrupt::wait_until(LIMIT, "word of the bindings", || {
        Ok(site.appliance.said().contains("the phones' bindings cannot be written").then_some(()))
    })?;
    log_line(&site, "<34>Oct 11 22:14:15 phone app: lost")?;
    rises(&site, "branchline_syslog_dropped_total", &[("reason", "not_written")], 0.0)?;
    let before = resident(site.appliance.pid())?;
    let mut call = site.phone_calls(2, TALK)?;
    let call_id = interrupt::wait_until(LIMIT, "an answered call", || {
        Ok(site.calls()?.into_iter().find(|call| call.state == "established").map(|call| call.call_id))
    })?;
    site.until_flows(4, |flow| flow.destination.is_some())?;
    let start = ["capture", "start", "--call-id", &call_id];
    let wrong = site.appliance.ask(&site.lab, &start).unwrap_err().to_string();
    assert!(wrong.contains("captures") && wrong.contains("No space left on device"), "{wrong}");
    let files = || -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(state(&dir).join("captures"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(files()?, ["old.json", "old.pcapng"], "a capture that did not begin leaves nothing");

    // Some room: a capture begins, and ends when that is used up.
    let ballast = state(&dir).join("ballast");
    let length = fs::metadata(&ballast)?.len();
    File::options().write(true).open(&ballast)?.set_len(length - (96 << 10))?;
    let started = site.appliance.ask(&site.lab, &start)?;
    let name = started["name"].as_str().context("no name")?.to_owned();
    small.fill()?;
    let ended = interrupt::wait_until(LIMIT, "the capture to end", || {
        Ok(captures(&site)?.into_iter().find(|one| one.name == name && one.state == "ended"))
    })
    .with_context(|| format!("{:?}", captures(&site)))?;
    let reason = ended.reason.unwrap_or_default();
    assert!(
        reason.contains("could not be written") && reason.contains("No space left on device"),
        "{reason}"
    );
    assert_eq!(site.metric("branchline_capture_failures_total", &[])?, 1.0);
    site.until_flows(4, |flow| flow.datapath == "kernel")?;
    let saved = dir.join("cut.pcapng");
    site.appliance.ask(&site.lab, &["capture", "save", &name, saved.to_str().context("a path")?])?;
    process::output(Command::new("tshark").arg("-n").arg("-r").arg(&saved))
        .context("what is there is whole")?;
    call.succeed(LIMIT)?;
    let after = resident(site.appliance.pid())?;
    assert!(after < before + FLAT_KIB, "{before} KiB before, {after} KiB after");

    // Room, and no restart.
    small.make_room()?;
    small_logs.make_room()?;
    log_line(&site, "<34>Oct 11 22:14:15 phone app: kept")?;
    let file = state(&dir).join(format!("syslog/{}.log", phone(1)));
    interrupt::wait_until(LIMIT, "the phone's line in its file", || {
        Ok(fs::read_to_string(&file).ok().filter(|text| text.ends_with("crit phone app: kept\n")))
    })?;
    site.appliance.tell(&site.lab, &["entries", "set", "1001"], "secret\n")?;
    interrupt::wait_until(LIMIT, "the bindings to be written again", || {
        Ok(site.appliance.said().contains("the phones' bindings are written again").then_some(()))
    })?;
    interrupt::wait_until(LIMIT, "traces to be written again", || {
        Ok(site.appliance.said().contains("traces of calls are written again").then_some(()))
    })?;
    interrupt::wait_until(LIMIT, "log files to be written again", || {
        Ok(site.appliance.said().contains("log files are written again").then_some(()))
    })?;
    assert_eq!(captures(&site)?.len(), 2);
    let described = fs::read_to_string(state(&dir).join(format!("captures/{name}.json")))?;
    assert!(described.contains("failed"), "{described}");
    site.appliance.ask(&site.lab, &["capture", "remove", &name])?;
    let mut call = site.phone_calls(4, Duration::from_secs(2))?;
    call.succeed(LIMIT)?;
    let said = site.appliance.said();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(said.matches("the phones' bindings cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("traces of calls cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("phones' logs cannot be written").count(), 1, "{said}");
    site.appliance.still_runs()?;

    // What was written then is there after all.
    site.appliance.stop(libc::SIGTERM)?;
    let store = Store::open(&state(&dir))?;
    assert_eq!(store.entries()?.len(), 1);
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs())?;
    assert_eq!(store.bindings(now)?.len(), 1);
    assert_eq!(TraceStore::open(&state(&dir))?.last(9)?.len(), 3, "all calls");
    Ok(())
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_and_nothing_starts() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = settings();
    let configuration = settings.configuration(lab.dir());
    let state = lab.dir().join("state");
    let disk = SmallDisk::mount(&state, "2m")?;
    disk.remount("ro")?;
    let place = state.display().to_string();
    let first = refused(&lab, &settings, &configuration)?;
    check(
        "read-only at the first start",
        &first,
        &["state", &place, "Read-only file system", "state.directory"],
    );

    disk.remount("rw")?;
    drop(Store::open(&state)?);
    disk.remount("ro")?;
    let later = refused(&lab, &settings, &configuration)?;
    check(
        "read-only at a later start",
        &later,
        &["state", &place, "Read-only file system", "state.directory"],
    );

    disk.remount("rw")?;
    drop(disk);
    let full = SmallDisk::mount(&state, "64k")?;
    full.fill()?;
    let first = refused(&lab, &settings, &configuration)?;
    check("full at the first start", &first, &["state", &place, "secret.key", "No space left on device"]);
    // Nothing half-made is in the way when there is room.
    full.make_room()?;
    full.remount("size=4m")?;
    let store = Store::open(&state)?;
    assert_eq!(store.entries()?, []);
    Ok(())
}
