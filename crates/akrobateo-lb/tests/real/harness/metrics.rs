//! A proxy's metrics, read as strictly as Prometheus reads them, and more.

use std::collections::{BTreeMap, BTreeSet};

use super::proxy::PROBE_PORT;
use super::{DEADLINE, Namespace, traffic};

/// One answer of `/metrics`: values by name and labels, as they are written.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Asks the proxy in `pod`.
    pub fn of(pod: &Namespace) -> Self {
        let answer = pod.run(|| traffic::http_get("127.0.0.1", PROBE_PORT, "/metrics", DEADLINE)).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self::parse(body)
    }

    fn parse(body: &str) -> Self {
        assert!(body.ends_with('\n'), "cut off: {body:?}");
        let (mut values, mut told, mut current) = (BTreeMap::new(), BTreeSet::new(), None);
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split_once(' ').unwrap().0.to_owned();
                assert!(told.insert(name.clone()), "told of twice: {name}");
                current = Some((name, false));
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(current, Some((name.to_owned(), false)), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                current = Some((name.to_owned(), true));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                let name = series.split('{').next().unwrap().to_owned();
                assert!(name.starts_with("akrobateo_lb_"), "{line}");
                assert_eq!(current, Some((name, true)), "a sample out of place: {line}");
                let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
                assert!(values.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        Self(values)
    }

    /// The value of a series, as `connections_total{protocol="tcp",port="80",family="IPv4"}`.
    pub fn get(&self, series: &str) -> u64 {
        let all = || panic!("no {series} in {:#?}", self.0);
        self.0.get(&format!("akrobateo_lb_{series}")).copied().unwrap_or_else(all)
    }

    /// The value of a port's series; `more` are further labels.
    pub fn port(&self, name: &str, port: &str, family: usize, more: &str) -> u64 {
        let (protocol, port) = port.split_once('/').unwrap();
        let family = ["IPv4", "IPv6"][family];
        self.get(&format!("{name}{{protocol=\"{protocol}\",port=\"{port}\",family=\"{family}\"{more}}}"))
    }

    /// How many series there are of this name.
    pub fn count(&self, name: &str) -> usize {
        self.0.keys().filter(|series| series.starts_with(&format!("akrobateo_lb_{name}{{"))).count()
    }
}
