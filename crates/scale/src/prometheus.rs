//! The text format of Prometheus, as far as the measurement needs it. Pure.

use std::collections::BTreeMap;

/// All samples of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads all samples. Ignores comments and other lines.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect())
    }

    /// Returns the sum of all samples with this name and these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has_label = |sample: &Sample, (name, value): &(&str, &str)| {
            sample.labels.get(*name).is_some_and(|it| it == value)
        };
        let samples = self
            .0
            .iter()
            .filter(|sample| sample.name == name && labels.iter().all(|label| has_label(sample, label)));
        samples.map(|sample| sample.value).sum()
    }

    /// Returns the sum of the samples with this name for each combination of the values of these labels.
    pub(crate) fn sums_by(&self, name: &str, labels: &[&str]) -> BTreeMap<Vec<String>, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.iter().filter(|sample| sample.name == name) {
            let value = |label: &&str| sample.labels.get(*label).cloned().unwrap_or_default();
            *sums.entry(labels.iter().map(value).collect()).or_default() += sample.value;
        }
        sums
    }
}

/// Parses `name{label="value",…} value`. The label values of the API server contain no quotation marks.
fn parse_line(line: &str) -> Option<Sample> {
    let (description, value) = line.rsplit_once(' ')?;
    let (name, labels) = description.split_once('{').unwrap_or((description, ""));
    let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
        let (name, value) = label.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_labels() {
        let text = "# HELP a help\n\
            a_total{code=\"200\",verb=\"GET\"} 3\n\
            a_total{code=\"200\",verb=\"PATCH\"} 4\n\
            a_total{code=\"404\",verb=\"GET\"} 1e1\n\
            b 7\n";
        let samples = Samples::parse(text);
        assert!((samples.sum("a_total", &[("verb", "GET")]) - 13.0).abs() < 1e-9);
        assert!((samples.sum("b", &[]) - 7.0).abs() < 1e-9);
        let by_code = samples.sums_by("a_total", &["code"]);
        assert_eq!(by_code.keys().flatten().collect::<Vec<_>>(), ["200", "404"]);
        assert!((by_code[&vec!["200".to_owned()]] - 7.0).abs() < 1e-9);
    }
}
