//! The metrics of the Service ports, from the counters in the kernel. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use akrobateo_core::{Frontend, Protocol};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::config::Service;
use crate::table::{Outcome, PortCount};

/// The Services by their ports. A Service is `<namespace>/<name>`.
#[derive(Debug, Default)]
pub(super) struct ServiceNames(BTreeMap<Frontend, Arc<str>>);

/// A port of a Service, in both families.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortLabels {
    service: Arc<str>,
    protocol: Protocol,
    port: NonZeroU16,
}

/// The counts of each port, by outcome.
type CountsByPort = BTreeMap<PortLabels, BTreeMap<Outcome, u64>>;

impl ServiceNames {
    pub(super) fn new(services: &[Service]) -> Self {
        let mut names = BTreeMap::new();
        for service in services {
            let name: Arc<str> = service.name.as_str().into();
            names.extend(service.frontends().map(|frontend| (frontend, name.clone())));
        }
        Self(names)
    }
}

/// Adds the counts of both families. Ignores the ports of Services that no longer exist.
pub(super) fn sum_counts(counts: &[PortCount], names: &ServiceNames) -> CountsByPort {
    let mut sums = CountsByPort::new();
    for PortCount { frontend, outcome, count } in counts {
        if let Some(service) = names.0.get(frontend) {
            let labels =
                PortLabels { service: service.clone(), protocol: frontend.protocol, port: frontend.port };
            *sums.entry(labels).or_default().entry(*outcome).or_default() += count;
        }
    }
    sums
}

/// Writes the metrics of all ports.
pub(super) fn encode_ports(encoder: &mut DescriptorEncoder<'_>, counts: &CountsByPort) -> fmt::Result {
    let help = "Forwarded TCP connections, and UDP flows, by the Service's port to which clients connect.";
    let mut metric = encoder.encode_descriptor("connections", help, None, MetricType::Counter)?;
    for (labels, outcomes) in counts {
        if let Some(count) = outcomes.get(&Outcome::Forwarded) {
            labels.encode_count(&mut metric, [], *count)?;
        }
    }
    let help = "Refused connection attempts, by the Service's port and by reason; each retry is counted.";
    let mut metric = encoder.encode_descriptor("refused_connections", help, None, MetricType::Counter)?;
    for (labels, outcomes) in counts {
        for (outcome, count) in outcomes {
            let reason = match outcome {
                Outcome::Forwarded => continue,
                Outcome::NoEndpoint => "no_endpoint",
                Outcome::NotAllowed => "source_ranges",
            };
            labels.encode_count(&mut metric, [("reason", reason)], *count)?;
        }
    }
    Ok(())
}

impl PortLabels {
    fn encode_count<const N: usize>(
        &self,
        metric: &mut MetricEncoder<'_>,
        more_labels: [(&str, &str); N],
        count: u64,
    ) -> fmt::Result {
        let (namespace, name) = self.service.split_once('/').unwrap_or(("", &self.service));
        let (protocol, port) = (self.protocol.to_string(), self.port.to_string());
        let labels = [("namespace", namespace), ("service", name), ("protocol", &protocol), ("port", &port)];
        let labels: Vec<_> = labels.into_iter().chain(more_labels).collect();
        ConstCounter::new(count).encode(metric.encode_family(&labels)?)
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Family;
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::config::ServicePort;
    use crate::config::fixtures::service;

    #[derive(Debug)]
    struct FixedCounts(CountsByPort);

    impl Collector for FixedCounts {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode_ports(&mut encoder, &self.0)
        }
    }

    fn frontend(family: Family, port: u16) -> Frontend {
        Frontend { family, protocol: Protocol::Udp, port: port.try_into().unwrap() }
    }

    #[test]
    fn counts_of_both_families_are_added_and_counts_of_deleted_services_are_omitted() {
        let ports = vec![ServicePort {
            protocol: Protocol::Udp,
            port: 53.try_into().unwrap(),
            endpoints: Vec::new(),
        }];
        let service =
            Service { name: "shop/dns".to_owned(), families: Family::ALL.into(), ports, ..service() };
        let count =
            |family, port, outcome, count| PortCount { frontend: frontend(family, port), outcome, count };
        let counts = [
            count(Family::V4, 53, Outcome::Forwarded, 3),
            count(Family::V4, 53, Outcome::NoEndpoint, 0),
            count(Family::V6, 53, Outcome::Forwarded, 4),
            count(Family::V6, 53, Outcome::NotAllowed, 5),
            count(Family::V4, 54, Outcome::Forwarded, 6),
        ];
        let sums = sum_counts(&counts, &ServiceNames::new(&[service]));
        let mut registry = Registry::with_prefix("a");
        registry.register_collector(Box::new(FixedCounts(sums)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = r#"namespace="shop",service="dns",protocol="udp",port="53""#;
        let expected = [
            format!("a_connections_total{{{labels}}} 7"),
            format!(r#"a_refused_connections_total{{{labels},reason="no_endpoint"}} 0"#),
            format!(r#"a_refused_connections_total{{{labels},reason="source_ranges"}} 5"#),
        ];
        assert_eq!(samples, expected);
    }
}
