//! Prometheus' text format, as far as the daemon's `/metrics` uses it.

use std::collections::{BTreeMap, BTreeSet};

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name; a histogram's parts end in `_bucket`, `_sum`, `_count`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All that `/metrics` said.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    declared: BTreeSet<String>,
}

impl Metrics {
    /// Reads the text format. Lines that are not understood are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let declared = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Self { samples, declared }
    }

    /// The sum of a metric's samples that carry all of these labels; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value))
            })
            .map(|sample| sample.value)
            .sum()
    }

    /// Whether a metric is exported: by its name, or declared by its `TYPE` line without a sample yet.
    #[must_use]
    pub fn exports(&self, name: &str) -> bool {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        [name, family].iter().any(|name| self.declared.contains(*name))
            || self.samples.iter().any(|sample| sample.name == name)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.trim().rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        other => other.parse().ok()?,
    };
    let Some((name, rest)) = head.split_once('{') else {
        return Some(Sample { name: head.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = closing_quote(after)?;
        let label = after[..end].replace("\\\"", "\"").replace("\\n", "\n").replace("\\\\", "\\");
        labels.insert(key.trim_start_matches(',').to_owned(), label);
        rest = &after[end + 1..];
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, character)| {
        let closes = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        closes.then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const TEXT: &str = "# HELP a Things.\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 3\na{x=\"2\"} 4.5\n\
                        # TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.25\nh_count 2\n# TYPE none gauge\n";

    #[test]
    fn samples_are_summed_by_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a", &[]), 7.5);
        assert_eq!(metrics.sum("a", &[("x", "1")]), 3.0);
        assert_eq!(metrics.sum("a", &[("y", "q\"}")]), 3.0);
        assert_eq!(metrics.sum("b", &[]), 0.0);
    }

    #[test]
    fn a_metric_is_exported_by_sample_by_declaration_and_by_its_parts() {
        let metrics = Metrics::parse(TEXT);
        for (name, exported) in [("a", true), ("h_bucket", true), ("h", true), ("none", true), ("b", false)] {
            assert_eq!(metrics.exports(name), exported, "{name}");
        }
    }
}
