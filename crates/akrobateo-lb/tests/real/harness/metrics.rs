//! A proxy's metrics, checked more strictly than Prometheus checks them. Does I/O.

use std::collections::{BTreeMap, BTreeSet};

use netns_testkit::{DEADLINE, Namespace, http};

use super::proxy::PROBE_PORT;

/// The values of one scrape, keyed by their series. A series is the metric's name and labels, exactly as in the text.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Scrapes the proxy in `pod`.
    pub fn scrape(pod: &Namespace) -> Self {
        let response = pod.run(|| http::get(("127.0.0.1", PROBE_PORT), "/metrics", DEADLINE)).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self::parse(body)
    }

    fn parse(body: &str) -> Self {
        assert!(body.ends_with('\n'), "the response is truncated: {body:?}");
        let (mut values, mut names) = (BTreeMap::new(), BTreeSet::new());
        // The name of the metric in the last HELP line, and true if the TYPE line of this metric has followed.
        let mut current_metric = None;
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split_once(' ').unwrap().0.to_owned();
                assert!(names.insert(name.clone()), "two HELP lines for {name}");
                current_metric = Some((name, false));
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(current_metric, Some((name.to_owned(), false)), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                current_metric = Some((name.to_owned(), true));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                let name = series.split('{').next().unwrap().to_owned();
                assert!(name.starts_with("akrobateo_lb_"), "{line}");
                assert_eq!(
                    current_metric,
                    Some((name, true)),
                    "the sample follows another metric's TYPE: {line}"
                );
                let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
                assert!(values.insert(series.to_owned(), value).is_none(), "duplicate series: {line}");
            }
        }
        Self(values)
    }

    /// Returns the value of a series, for example `connections_total{protocol="tcp",port="80",family="IPv4"}`.
    pub fn get(&self, series: &str) -> u64 {
        let series = format!("akrobateo_lb_{series}");
        *self.0.get(&series).unwrap_or_else(|| panic!("no series {series} in {:#?}", self.0))
    }

    /// Returns the value of the series of a port such as `tcp/80`; `labels` are additional labels, each with a comma
    /// before it.
    pub fn port_value(&self, name: &str, port: &str, family_index: usize, labels: &str) -> u64 {
        let (protocol, port) = port.split_once('/').unwrap();
        let family = ["IPv4", "IPv6"][family_index];
        self.get(&format!("{name}{{protocol=\"{protocol}\",port=\"{port}\",family=\"{family}\"{labels}}}"))
    }

    /// Returns how many combinations of labels a metric has.
    pub fn count_series(&self, name: &str) -> usize {
        self.0.keys().filter(|series| series.starts_with(&format!("akrobateo_lb_{name}{{"))).count()
    }
}
