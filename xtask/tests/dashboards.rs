//! Dashboards and rules, by Debian's Prometheus and promtool. Needs root and `cargo xtask setup --for test`.
//! That every panel has data under real calls is tested with the daemon, in `relay-userspace/tests/lab`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use xtask::dashboards::{self, Prometheus};
use xtask::demo::appliance::ADMIN;
use xtask::demo::metrics::Metrics;
use xtask::lab::{Lab, Routes};
use xtask::process;

#[test]
fn rules_are_valid_and_their_own_tests_pass() {
    let rules = dashboards::dir().join("prometheus");
    for arguments in [
        &["check", "config", "prometheus.yml"] as &[&str],
        &["check", "rules", "recording.rules.yml", "alerts.rules.yml"],
        &["test", "rules", "rules.test.yml"],
    ] {
        process::output(Command::new("promtool").current_dir(&rules).args(arguments)).unwrap();
    }
}

/// An exporter with every metric that the dashboards use, growing with each scrape, except one.
fn export_all_but(missing: &'static str) -> anyhow::Result<()> {
    let names = dashboards::metrics_in_use()?;
    for (scrape, stream) in TcpListener::bind(ADMIN)?.incoming().enumerate() {
        let mut stream = stream?;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        let mut body = String::new();
        for name in names.iter().filter(|name| *name != missing) {
            let value = if name.ends_with("_mode") { 1 } else { scrape + 1 };
            // Two buckets make a quantile, and one panel asks for the streams up to a score; a metric that is no histogram
            // has the label for nothing.
            let buckets = [("1", "clock_unsynchronised"), ("3.6", "one_way_audio"), ("+Inf", "phone_stuck")];
            for (bound, symptom) in buckets {
                let labels = format!(
                    "datapath=\"kernel\",direction=\"received\",mode=\"native\",method=\"REGISTER\",symptom=\"{symptom}\",le=\"{bound}\""
                );
                body += &format!("{name}{{{labels}}} {value}\n");
            }
        }
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

#[test]
fn the_check_finds_the_one_metric_that_an_exporter_lacks() {
    const MISSING: &str = "branchline_calls_active";
    let lab = Lab::create(Routes::None).unwrap();
    drop(lab.branch.spawn(|| export_all_but(MISSING)).unwrap());
    let mut prometheus = Prometheus::start(&lab).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    let metrics = Metrics::parse(&xtask::lab::http::get(&lab.branch, ADMIN, "/metrics").unwrap());
    let faults = dashboards::faults(&lab, &metrics, &mut prometheus).unwrap();
    assert!(!faults.is_empty() && faults.iter().all(|fault| fault.contains(MISSING)), "{faults:#?}");
}
