//! Large files pass without being in memory, what has not changed crosses the WAN once, and many phones cause one
//! fetch.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use branchline::control::PhoneView;
use xtask::lab::interrupt;
use xtask::lab::network::phone;
use xtask::lab::nginx::Asked;

use super::{FIRST, Files, Got, RELAY, curl, noise};
use crate::site::{LIMIT, ask};

const MIB: usize = 1 << 20;
const FIRMWARE: &str = "/3111-44600-001.sip.ld";

fn statuses(asked: &[Asked]) -> Vec<(&str, u16)> {
    asked.iter().map(|asked| (asked.method.as_str(), asked.status)).collect()
}

/// The daemon's largest resident size so far, in bytes.
fn peak(files: &Files) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", files.appliance.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

#[test]
fn firmware_streams_and_is_asked_for_again_only_with_its_tag() -> Result<()> {
    let files = Files::start("", "")?;
    let nginx = files.nginx(FIRST, "")?;
    let firmware = noise(60 * MIB);
    files.put(&FIRMWARE[1..], &firmware)?;
    files.put("small.cfg", b"x")?;
    assert_eq!(files.get("/small.cfg")?.status, 200);
    let before = peak(&files)?;
    let first = files.get(FIRMWARE)?;
    assert_eq!((first.status, first.body.len()), (200, firmware.len()));
    assert!(first.body == firmware, "the first copy is the file");
    interrupt::wait_until(LIMIT, "a whole copy", || Ok((files.cached()?.len() == 2).then_some(())))?;
    let second = files.get(FIRMWARE)?;
    assert!(second.status == 200 && second.body == firmware, "the second copy is the file");
    let grown = peak(&files)?.saturating_sub(before);
    assert!(grown < 24 * MIB, "two times 60 MiB took {} MiB", grown / MIB);
    assert_eq!(second.header("content-length"), Some(firmware.len().to_string().as_str()));

    let ranges = [("0-0", 0..1), ("65530-65545", 65_530..65_546), ("-5", firmware.len() - 5..firmware.len())];
    for (range, expected) in ranges {
        let part = files.curl(&["-r", range], FIRMWARE)?;
        assert_eq!((part.status, &part.body[..]), (206, &firmware[expected.clone()]), "{range}");
        let content_range = format!("bytes {}-{}/{}", expected.start, expected.end - 1, firmware.len());
        assert_eq!(part.header("content-range"), Some(content_range.as_str()));
    }
    let beyond = files.curl(&["-r", "99999999-"], FIRMWARE)?;
    assert_eq!((beyond.status, beyond.body.len()), (416, 0));
    let tag = first.header("etag").context("no tag")?.to_owned();
    let same = files.curl(&["-H", &format!("If-None-Match: {tag}")], FIRMWARE)?;
    assert_eq!((same.status, same.body.len()), (304, 0));

    let asked = nginx.asked()?;
    let mut expected = vec![("GET", 200), ("GET", 200)];
    expected.extend([("GET", 304); 6]);
    assert_eq!(statuses(&asked), expected, "{asked:#?}");
    assert!(asked[2..].iter().all(|asked| asked.conditional && !asked.ranged), "{asked:#?}");
    assert!(asked.iter().all(|asked| asked.forwarded_for == phone(0).to_string()), "{asked:#?}");

    // The file changes: the next one gets the new one, and so does who asks for a part of it.
    let newer = noise(5 * MIB)[MIB..].to_vec();
    files.put(&FIRMWARE[1..], &newer)?;
    let part = files.curl(&["-r", "10-19"], FIRMWARE)?;
    assert_eq!((part.status, &part.body[..]), (206, &newer[10..20]));
    assert!(files.get(FIRMWARE)?.body == newer);
    assert_eq!(files.metric("requests_total", &[("source", "upstream")])?, 3.0);
    assert_eq!(files.metric("requests_total", &[("source", "cache"), ("status", "206")])?, 3.0);
    let on_disk: u64 =
        files.cached()?.iter().map(|file| fs::metadata(file).map_or(0, |data| data.len())).sum();
    assert_eq!(files.metric("cache_bytes", &[])?, on_disk as f64);
    Ok(())
}

#[test]
fn many_phones_that_want_one_file_cause_one_fetch() -> Result<()> {
    const PHONES: u8 = 8;
    let files = Files::start("", "")?;
    // Slow enough that the phones meet.
    let nginx = files.nginx(FIRST, "limit_rate 4m;")?;
    let firmware = noise(6 * MIB);
    files.put(&FIRMWARE[1..], &firmware)?;
    let lab = &files.lab;
    thread::scope(|scope| -> Result<()> {
        let phones: Vec<_> = (0..PHONES)
            .map(|number| {
                scope.spawn(move || -> Result<Got> {
                    let own = phone(number).to_string();
                    curl(&lab.office, lab.dir(), RELAY, &["--interface", &own], FIRMWARE)
                })
            })
            .collect();
        for phone in phones {
            let got = phone.join().map_err(|_| anyhow::anyhow!("a phone panicked"))??;
            assert!(got.status == 200 && got.body == firmware, "{}: {} bytes", got.status, got.body.len());
        }
        Ok(())
    })?;
    // Phones that came after its end have compared; those that came before it have shared it.
    let asked = nginx.asked()?;
    let whole = asked.iter().filter(|asked| asked.status == 200).count();
    assert_eq!(whole, 1, "{asked:#?}");
    assert!(asked.len() < usize::from(PHONES), "{asked:#?}");

    // A phone that reads a little and goes away ends nothing: the next one has the file from the copy.
    files.put("other.img", &firmware)?;
    let mut command: Command = files.lab.office.command("curl");
    command.args(["-sS", "-m", "1", "-o", "/dev/null", "--limit-rate", "1k", &format!("{RELAY}/other.img")]);
    assert!(!command.output()?.status.success(), "it goes away");
    let got = files.get("/other.img")?;
    assert!(got.status == 200 && got.body == firmware);
    let whole =
        nginx.asked()?.iter().filter(|asked| asked.target == "/other.img" && asked.status == 200).count();
    assert_eq!(whole, 1);
    Ok(())
}

#[test]
fn what_phones_send_arrives_and_misses_always_reach_the_server() -> Result<()> {
    let files = Files::start("upload_mib = 8\n", "")?;
    let nginx = files.nginx(FIRST, "")?;
    let log = noise(5 * MIB);
    let sent = files.lab.dir().join("sent.log");
    fs::write(&sent, &log)?;
    let sent = sent.display().to_string();
    let put = files.curl(&["-T", &sent], "/0004f2010203-app.log")?;
    assert_eq!(put.status, 201);
    assert!(fs::read(files.root.join("0004f2010203-app.log"))? == log, "the file is the file");
    let chunked = files.curl(&["-T", &sent, "-H", "Transfer-Encoding: chunked"], "/0004f2010203-boot.log")?;
    assert_eq!(chunked.status, 201);
    assert!(fs::read(files.root.join("0004f2010203-boot.log"))? == log, "the file is the file");
    assert_eq!(
        files.curl(&["-d", "x=1"], "/0004f2010203.cfg")?.status,
        404,
        "by nginx, which has no such file"
    );
    for _ in 0..2 {
        assert_eq!(files.get("/0004f2010203.cfg")?.status, 404);
    }
    files.put("0004f2010203.cfg", b"password=swordfish")?;
    assert_eq!(files.get("/0004f2010203.cfg")?.body, b"password=swordfish");
    fs::remove_file(files.root.join("0004f2010203.cfg"))?;
    assert_eq!(files.get("/0004f2010203.cfg")?.status, 404, "what the server no longer has is gone here too");
    assert!(files.cached()?.is_empty());
    let asked = nginx.asked()?;
    assert_eq!(
        statuses(&asked),
        [("PUT", 201), ("PUT", 201), ("POST", 404), ("GET", 404), ("GET", 404), ("GET", 200), ("GET", 404)]
    );

    let phones: Vec<PhoneView> = ask(&files.appliance, &files.lab, "phones")?;
    let [seen] = &phones[..] else { anyhow::bail!("{phones:#?}") };
    let stages: BTreeMap<&str, (u64, &str)> = seen
        .activity
        .stages
        .iter()
        .map(|stage| (stage.stage.as_str(), (stage.count, stage.detail.as_str())))
        .collect();
    assert_eq!(stages["configuration_asked"], (4, "GET /0004f2010203.cfg: 404, 153 bytes, upstream"));
    assert_eq!(stages["file_sent"].0, 3);
    Ok(())
}

#[test]
fn configurations_are_sealed_on_disk_and_survive_a_restart() -> Result<()> {
    let mut files = Files::start("", "")?;
    let mut nginx = files.nginx(FIRST, "")?;
    files.put("0004f2010203.cfg", b"password=swordfish")?;
    assert_eq!(files.get("/0004f2010203.cfg")?.status, 200);
    let [file] = &files.cached()?[..] else { anyhow::bail!("{:?}", files.cached()) };
    let stored = fs::read(file)?;
    for secret in [&b"swordfish"[..], b"0004f2010203"] {
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    nginx.stop()?;
    files.restart()?;
    let stale = files.get("/0004f2010203.cfg")?;
    assert_eq!((stale.status, &stale.body[..]), (200, &b"password=swordfish"[..]));
    assert_eq!(stale.header("warning"), Some("110 branchline \"Response is Stale\""));
    Ok(())
}
