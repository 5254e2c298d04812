//! `branchline bench-self`: what it prints adds up, it leaves nothing behind, and it takes no interface that is in use. No
//! time is asserted anywhere.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::{Lab, Namespace, Routes, Running};

use crate::site::turn;

/// The daemon's program, as cargo has built it for this test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_branchline");
/// Making and removing takes seconds; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// The two ends of a cable, both of one host.
const ENDS: [&str; 2] = ["one", "other"];

/// What it said, which must be JSON, and must have come to an end.
fn told(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    assert_eq!(output.status.success(), !told["held"].is_null(), "{said}");
    Ok(told)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Whether all that is printed follows from what was counted.
fn check_sums(told: &Value) -> Result<()> {
    let points = [&told["saturated"], &told["held"]];
    for point in points.into_iter().filter(|point| !point.is_null()) {
        let get = |name: &str| number(&point[name]);
        assert_eq!(get("sent"), get("arrived") + get("lost"), "{point}");
        assert!(get("arrived") > 0.0 && get("cpu_ns_per_packet") > 0.0, "{point}");
        let off = |value: f64, expected: f64| (value / expected - 1.0).abs();
        assert!(off(get("packets_per_second"), get("arrived") / get("seconds")) < 1e-6, "{point}");
        let busy = get("arrived") * get("cpu_ns_per_packet") / 1e9 / get("seconds");
        assert!(off(get("busy"), busy.min(1.0)) < 1e-6, "{point}");
    }
    let held = &told["held"];
    let rate = if held.is_null() { 0.0 } else { number(&held["packets_per_second"]) };
    if !held.is_null() {
        assert!(number(&held["lost"]) <= 1e-5 * number(&held["sent"]), "{held}");
    }
    let (carried, busy) =
        (number(&told["saturated"]["packets_per_second"]), number(&told["saturated"]["busy"]));
    let limit = match busy {
        _ if held.is_null() || rate < 0.5 * carried && number(&held["busy"]) < 0.5 => "pauses",
        0.9.. => "forwarding_core",
        _ => "generator",
    };
    assert_eq!(told["limit"], limit, "{told}");
    let calls = told["calls"].as_array().context("no calls")?;
    let names: Vec<&str> = calls.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["G.711", "G.722", "G.729", "Opus at 32 kbit/s"]);
    for row in calls {
        // Two directions of 50 packets a second, and 54 bytes of headers; 24 around a frame on a cable.
        assert_eq!((number(&row["packets_per_second"]), number(&row["packet_ms"])), (100.0, 20.0), "{row}");
        assert_eq!(number(&row["frame_bytes"]), number(&row["payload_bytes"]) + 54.0, "{row}");
        if row["limited_by_cable"] == false {
            assert_eq!(number(&row["calls"]), (rate / 100.0).floor(), "{row}");
        }
        let megabits = number(&row["calls"]) * 50.0 * (number(&row["frame_bytes"]) + 24.0) * 8.0 / 1e6;
        assert!((number(&row["megabits_each_way"]) - megabits).abs() < 1e-6, "{row}");
    }
    assert_eq!(number(&told["frame_bytes"]), number(&calls[0]["frame_bytes"]), "what was sent is G.711");
    ensure!(told["warnings"].is_array(), "no warnings: {told}");
    Ok(())
}

fn in_branch(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.branch.command(PROGRAM);
    command.arg("bench-self").args(arguments);
    command.output().with_context(|| format!("{PROGRAM} does not start"))
}

fn links(namespace: &Namespace) -> Result<Vec<String>> {
    let text = namespace.ip(&["-oneline", "link", "show"])?;
    let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
    let mut links: Vec<String> = text.lines().filter_map(name).collect();
    links.sort();
    Ok(links)
}

fn laboratory() -> Result<Lab> {
    let lab = Lab::create(Routes::None)?;
    lab.branch.ip(&["link", "add", ENDS[0], "type", "veth", "peer", "name", ENDS[1]])?;
    for end in ENDS {
        lab.branch.ip(&["link", "set", end, "up"])?;
    }
    Ok(lab)
}

#[test]
fn what_bench_self_prints_adds_up_and_nothing_is_left() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let before = links(&lab.branch)?;
    let output = in_branch(&lab, &["--seconds", "2", "--output", "json"])?;
    let told = told(&output)?;
    check_sums(&told)?;
    assert_eq!((&told["between"], &told["mode"]), (&Value::Null, &Value::from("native")), "{told}");
    assert_eq!(links(&lab.branch)?, before);
    Ok(())
}

#[test]
fn bench_self_between_two_interfaces_gives_them_back() -> Result<()> {
    let _turn = turn();
    let lab = laboratory()?;
    let before = links(&lab.branch)?;
    let between = ["--between", ENDS[0], ENDS[1], "--seconds", "2", "--output", "json"];
    let output = in_branch(&lab, &between)?;
    let told = told(&output)?;
    check_sums(&told)?;
    assert_eq!(told["between"], Value::from(ENDS.to_vec()));
    assert_eq!(links(&lab.branch)?, before);
    for end in ENDS {
        let state = lab.branch.ip(&["-oneline", "link", "show", "dev", end])?;
        assert!(state.contains("UP"), "{state}");
        assert!(!state.contains("xdp"), "{state}");
    }
    Ok(())
}

#[test]
fn bench_self_takes_no_interface_that_is_in_use_unless_told_so() -> Result<()> {
    let _turn = turn();
    let lab = laboratory()?;
    lab.branch.ip(&["address", "add", "203.0.113.7/24", "dev", ENDS[1]])?;
    lab.branch.ip(&["route", "add", "default", "via", "203.0.113.1", "dev", ENDS[1]])?;
    let configuration = lab.dir().join("bench-self.toml");
    let text = format!(
        "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"{}\"\n[[network]]\nname = \"wan\"\nrole = \
         \"servers\"\ninterface = \"eth9\"\n[upstream]\nservers = [\"203.0.113.10:5060\"]\n",
        ENDS[0]
    );
    std::fs::write(&configuration, text)?;
    let configuration = configuration.display().to_string();
    let between = ["--config", &configuration, "--between", ENDS[0], ENDS[1], "--seconds", "2"];
    let refused = in_branch(&lab, &between)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{said}");
    for part in [
        "one is an interface of the appliance's configuration",
        "other has a default route: this host would be cut off",
        "other has addresses, which it would lose: 203.0.113.7",
        "--take-interfaces",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // It has not been touched.
    assert!(lab.branch.ip(&["route"])?.contains("default via 203.0.113.1"));
    let mut overruled = between.to_vec();
    overruled.extend(["--take-interfaces", "--output", "json"]);
    check_sums(&told(&in_branch(&lab, &overruled)?)?)
}

#[test]
fn bench_self_that_is_interrupted_gives_back_what_it_took() -> Result<()> {
    let _turn = turn();
    let lab = laboratory()?;
    let before = links(&lab.branch)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = lab.branch.command(PROGRAM);
        command.args(["bench-self", "--between", ENDS[0], ENDS[1], "--seconds", "120"]);
        let mut running = Running::start(&mut command, "bench-self", lab.dir())?;
        running.wait_for("run 1 of", LIMIT)?;
        assert_ne!(links(&lab.branch)?, before, "they were taken");
        running.signal(signal);
        let status = running.wait(LIMIT)?;
        assert!(!status.success() && running.said().contains("interrupted"), "{status}: {}", running.said());
        assert_eq!(links(&lab.branch)?, before, "signal {signal}");
    }
    Ok(())
}
