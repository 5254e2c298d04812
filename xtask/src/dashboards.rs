//! The check of `dashboards/`: every query names metrics that the daemon exports, and returns data under real calls.
//!
//! The queries are run by Debian's Prometheus, over its HTTP API, as Grafana runs them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::demo::appliance::ADMIN;
use crate::demo::metrics::Metrics;
use crate::lab::{Lab, Running, http, interrupt};
use crate::workspace;

/// Begins the name of every metric of the daemon.
const PREFIX: &str = "branchline_";
/// What the `office` label is in the laboratory.
const OFFICE: &str = "lab";
/// Prometheus asks this often here, so that a short call gives rates.
const SCRAPE: &str = "1s";
/// What `$__rate_interval` is here: several scrapes.
const RATE_INTERVAL: &str = "10s";
/// Where Prometheus listens, inside the branch's namespace.
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
const START_LIMIT: Duration = Duration::from_secs(30);
/// How far back a query looks, and in which steps, in seconds.
const LOOK_BACK: u64 = 60;
const STEP: u64 = 1;

/// One query of one panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// The expression, with the dashboard's variables filled in.
    pub expression: String,
}

/// Where the dashboards and rules lie.
#[must_use]
pub fn dir() -> PathBuf {
    workspace::root().join("dashboards")
}

/// Every query of the office's dashboard.
///
/// # Errors
/// The file is missing or is no dashboard.
pub fn queries() -> Result<Vec<Query>> {
    let path = dir().join("grafana/dashboards/office.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let dashboard: Value = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    queries_of(&dashboard).with_context(|| format!("{}", path.display()))
}

fn queries_of(dashboard: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression =
                target["expr"].as_str().with_context(|| format!("{title}: a target without expr"))?;
            let expression = expression.replace("$office", OFFICE).replace("$__rate_interval", RATE_INTERVAL);
            if expression.contains('$') {
                bail!("{title}: a variable that this check does not know: {expression}");
            }
            queries.push(Query { panel: title.to_owned(), expression });
        }
    }
    Ok(queries)
}

/// The daemon's metrics that an expression or a file of rules names.
#[must_use]
pub fn metrics_named_in(text: &str) -> BTreeSet<String> {
    let in_a_name =
        |character: char| character.is_ascii_alphanumeric() || character == '_' || character == ':';
    text.split(|character| !in_a_name(character))
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// Every metric that the dashboard, the recording rules and the alerts name.
///
/// # Errors
/// A file is missing.
pub fn metrics_in_use() -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> =
        queries()?.iter().flat_map(|query| metrics_named_in(&query.expression)).collect();
    for rules in ["recording.rules.yml", "alerts.rules.yml"] {
        let path = dir().join("prometheus").join(rules);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        names.extend(metrics_named_in(&text));
    }
    Ok(names)
}

/// A Prometheus in the branch's namespace, which asks the appliance there. Dropping it stops it.
#[derive(Debug)]
pub struct Prometheus {
    running: Running,
}

impl Prometheus {
    /// Starts it with the rules of this tree, and returns when it has asked the appliance for the first time.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let rules = dir().join("prometheus");
        let config = lab.dir().join("prometheus.yml");
        fs::write(&config, configuration(&rules))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = lab.branch.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", lab.dir().join("prometheus").display()));
        command.arg(format!("--web.listen-address={PROMETHEUS}"));
        let mut running = Running::start(&mut command, "prometheus", lab.dir())?;
        interrupt::wait_until(START_LIMIT, "answer from Prometheus", || {
            running.still_runs()?;
            Ok(http::get(&lab.branch, PROMETHEUS, "/-/ready").ok())
        })?;
        let mut prometheus = Self { running };
        // It answers before it asks: its list of targets is brought up to date every five seconds.
        interrupt::wait_until(START_LIMIT, "first scrape by Prometheus", || {
            Ok((prometheus.series(lab, "up == 1")? > 0).then_some(()))
        })?;
        Ok(prometheus)
    }

    /// Runs a query over the last minute, and returns how many series have a number in it.
    ///
    /// # Errors
    /// Prometheus does not answer or refuses the query.
    pub fn series(&mut self, lab: &Lab, expression: &str) -> Result<usize> {
        self.running.still_runs()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={now}&step={STEP}",
            http::escape(expression),
            now - LOOK_BACK
        );
        let answer: Value = serde_json::from_str(&http::get(&lab.branch, PROMETHEUS, &path)?)?;
        Ok(with_numbers(&answer))
    }
}

fn configuration(rules: &Path) -> String {
    format!(
        "global: {{scrape_interval: {SCRAPE}, evaluation_interval: {SCRAPE}}}\n\
         rule_files: [\"{0}/recording.rules.yml\", \"{0}/alerts.rules.yml\"]\n\
         scrape_configs:\n  - job_name: branchline\n    static_configs:\n      \
         - {{targets: [\"{ADMIN}\"], labels: {{office: {OFFICE}}}}}\n",
        rules.display()
    )
}

/// How many series of an answer have a value that is a number: a rate of nothing by nothing is `NaN`.
fn with_numbers(answer: &Value) -> usize {
    let is_number = |value: &Value| {
        value[1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
    };
    let has_numbers =
        |series: &&Value| series["values"].as_array().is_some_and(|values| values.iter().any(is_number));
    answer["data"]["result"].as_array().map_or(0, |series| series.iter().filter(has_numbers).count())
}

/// Checks all of it against what the daemon exports and what Prometheus has; one line for every fault.
///
/// # Errors
/// A file of `dashboards/` is missing, or Prometheus does not answer.
pub fn faults(lab: &Lab, metrics: &Metrics, prometheus: &mut Prometheus) -> Result<Vec<String>> {
    let mut faults: Vec<String> = metrics_in_use()?
        .into_iter()
        .filter(|name| !metrics.exports(name))
        .map(|name| format!("{name} is used in dashboards/, and the daemon does not export it"))
        .collect();
    for query in queries()? {
        match prometheus.series(lab, &query.expression) {
            Ok(0) => faults.push(format!("panel `{}` is empty: {}", query.panel, query.expression)),
            Ok(_) => {}
            Err(error) => faults.push(format!("panel `{}`: {error:#}", query.panel)),
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_are_found_in_expressions_and_recorded_names_are_not() {
        let text =
            "sum by (le) (rate(branchline_a_bucket{office=\"x\"}[5m])) / office:branchline:y > branchline_b";
        let names: Vec<String> = metrics_named_in(text).into_iter().collect();
        assert_eq!(names, ["branchline_a_bucket", "branchline_b"]);
    }

    #[test]
    fn every_panel_of_the_dashboard_has_a_query_and_its_place() {
        let queries = queries().unwrap();
        assert!(queries.len() > 25, "{}", queries.len());
        assert!(queries.iter().all(|query| !metrics_named_in(&query.expression).is_empty()));
        let text = fs::read_to_string(dir().join("grafana/dashboards/office.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{} overlaps another panel", panel["title"]);
                }
            }
        }
    }

    #[test]
    fn every_alert_has_a_test_in_which_it_fires_and_its_line_in_the_documentation() {
        let read = |path: &str| fs::read_to_string(dir().join(path)).unwrap();
        let (alerts, tests) = (read("prometheus/alerts.rules.yml"), read("prometheus/rules.test.yml"));
        let documentation = read("../docs/dashboards.md");
        let names: Vec<&str> =
            alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert_eq!(names.len(), alerts.matches("summary:").count());
        for name in &names {
            let fires = format!("alertname: {name}\n        exp_alerts:\n");
            assert!(tests.contains(&fires), "{name} fires in no test");
            assert!(documentation.contains(&format!("| `{name}` |")), "{name} is not in docs/dashboards.md");
        }
        assert_eq!(
            names.len(),
            documentation.lines().filter(|line| is_alert(line)).count(),
            "{documentation}"
        );
    }

    /// A row of the documentation's table of alerts.
    fn is_alert(line: &str) -> bool {
        ["critical", "warning", "info"].iter().any(|severity| line.contains(&format!("` | {severity} |")))
    }

    #[test]
    fn a_series_of_nan_is_empty() {
        let answer = |value: &str| serde_json::json!({"data": {"result": [{"metric": {}, "values": [[1, "NaN"], [2, value]]}]}});
        assert_eq!(with_numbers(&answer("NaN")), 0);
        assert_eq!(with_numbers(&answer("0")), 1);
        assert_eq!(with_numbers(&serde_json::json!({"data": {"result": []}})), 0);
    }
}
