//! The log's files, and levels that change while the daemon runs.

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use time::{Duration, OffsetDateTime};
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;

use crate::site::{LIMIT, Site, settings};

/// A directory that goes with its test.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn old_files_are_compressed_or_removed_at_the_start_and_topics_change_while_the_daemon_runs() -> Result<()> {
    let directory = Directory(std::env::temp_dir().join(format!("branchline-logs-{}", std::process::id())));
    let place = &directory.0;
    fs::create_dir_all(place)?;
    // Of past days: one that is still kept, one that is not, and one that is somebody else's.
    let of =
        |days: i64| format!("branchline.{}.log", (OffsetDateTime::now_utc() - Duration::days(days)).date());
    let (kept, old) = (of(3), of(40));
    let text = "a line of that day\n";
    fs::write(place.join(&kept), text)?;
    fs::write(place.join(format!("{old}.gz")), "old")?;
    fs::write(place.join("other.2001-01-01.log"), "not ours")?;
    let levels = format!("[log]\ndirectory = {place:?}\nretention_days = 30\n[log.topics]\nweb = \"warn\"\n");
    let settings = Settings { tables: format!("{}{levels}", settings().tables), ..settings() };
    let site = Site::start(settings)?;
    let names = || -> Result<Vec<String>> {
        let mut names: Vec<String> =
            fs::read_dir(place)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    };
    let compressed = format!("{kept}.gz");
    interrupt::wait_until(LIMIT, "the files of past days to be kept in order", || {
        let names = names()?;
        Ok((names.contains(&compressed) && !names.contains(&kept)).then_some(()))
    })
    .with_context(|| format!("{:?}\n{}", names(), site.appliance.said()))?;
    let names = names()?;
    let today = names.iter().find(|name| name.ends_with(".log") && name.starts_with("branchline.2"));
    let today = today.context("no file of today")?;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"other.2001-01-01.log".to_owned()), "{names:?}");
    let mut read = String::new();
    gunzip(&place.join(&compressed), &mut read)?;
    assert_eq!(read, text);

    let log = site.appliance.ask(&site.lab, &["log"])?;
    let level = |log: &serde_json::Value, topic: &str| {
        let topics = log["topics"].as_array().cloned().unwrap_or_default();
        topics
            .into_iter()
            .find(|one| one["topic"] == topic)
            .map(|one| (one["level"].clone(), one["until_restart"].clone()))
    };
    assert_eq!(level(&log, "web"), Some(("warn".into(), false.into())));
    assert_eq!(level(&log, "media"), Some((serde_json::Value::Null, false.into())));
    let quiet = fs::read_to_string(place.join(today))?;
    assert!(quiet.contains("ready for SIP") && !quiet.contains("flow ended"), "{quiet}");
    site.appliance.ask(&site.lab, &["log", "set", "media", "debug"])?;
    let wrong = site.appliance.ask(&site.lab, &["log", "set", "medium", "debug"]).unwrap_err().to_string();
    assert!(wrong.contains("is no topic; there are sip, media, datapath"), "{wrong}");
    site.a_call_works()?;
    interrupt::wait_until(LIMIT, "the end of a flow to be logged", || {
        Ok(fs::read_to_string(place.join(today))?.contains("flow ended").then_some(()))
    })?;
    site.appliance.ask(&site.lab, &["log", "set", "media", "default"])?;
    let log = site.appliance.ask(&site.lab, &["log"])?;
    assert_eq!(level(&log, "media"), Some((serde_json::Value::Null, false.into())));
    assert_eq!(site.metric("branchline_log_write_failures_total", &[])?, 0.0);
    Ok(())
}

/// What a compressed file has, by a program that is not ours.
fn gunzip(file: &std::path::Path, text: &mut String) -> Result<()> {
    let mut child = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start gzip")?;
    child.stdout.take().context("no output")?.read_to_string(text)?;
    anyhow::ensure!(child.wait()?.success(), "gzip does not read {}", file.display());
    Ok(())
}
