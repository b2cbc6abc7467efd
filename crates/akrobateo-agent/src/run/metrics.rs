//! The agent's metrics. Only the metrics of ports and of conntrack do I/O: each scrape reads them from the kernel.

use std::sync::Arc;
use std::time::Duration;

use akrobateo_services::agent_report::AgentReport;
use api_client::ApiMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::kernel_metrics::{KernelMetrics, KernelReader};
use crate::agent::Modes;
use crate::config::NodeConfig;
use crate::probe::{ForwardingMode, MasqueradeReason, PeerPath};

/// All metrics of the agent.
pub(super) struct Metrics {
    pub(super) api: ApiMetrics,
    kernel: Arc<KernelMetrics>,
    /// Attempts to change the rules by result.
    rule_changes: Family<ChangeLabels, Counter>,
    rule_change_seconds: Histogram,
    /// Peers by family and path.
    peers: Family<PeerLabels, Gauge>,
    gauges: Gauges,
    registry: Registry,
}

/// The metrics without labels.
struct Gauges {
    services: Gauge,
    refused_services: Gauge,
    service_ports: Gauge,
    endpoints: Gauge,
    outdated_rules: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChangeLabels {
    /// `ok`, or the step that failed.
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PeerLabels {
    /// `IPv4` or `IPv6`.
    family: &'static str,
    /// `direct`, `tunnel`, `masquerade` or `undecided`.
    way: &'static str,
}

impl Metrics {
    /// Creates the metrics. Without a reader, the metrics of ports and of conntrack have no values.
    pub(super) fn new(reader: Option<KernelReader>) -> Self {
        let mut registry = Registry::with_prefix("akrobateo_agent");
        let api = ApiMetrics::default();
        api.register(&mut registry);
        let kernel = Arc::new(KernelMetrics::new(reader));
        registry.register_collector(Box::new(kernel.clone()));
        let rule_changes = Family::default();
        let help = "Attempts to change the rules by result: ok, or the step that failed";
        registry.register("rule_changes", help, rule_changes.clone());
        // The buckets range from 1 ms to 16 s.
        let rule_change_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let help = "Duration of changes of the rules, until new connections follow the change";
        registry.register_with_unit("rule_change_duration", help, Unit::Seconds, rule_change_seconds.clone());
        let peers = Family::default();
        let help = "Other nodes with an agent, by the path of packets that keep the client's address";
        registry.register("peers", help, peers.clone());
        let gauges = Gauges::register(&mut registry);
        Self { api, kernel, rule_changes, rule_change_seconds, peers, gauges, registry }
    }

    /// Counts an attempt to change the rules. `failed_step` is `None` after a success.
    pub(super) fn count_change(&self, failed_step: Option<&'static str>, duration: Duration) {
        let result = failed_step.unwrap_or("ok");
        self.rule_changes.get_or_create(&ChangeLabels { result }).inc();
        self.rule_change_seconds.observe(duration.as_secs_f64());
    }

    /// Sets the Services in the rules, without their endpoints.
    pub(super) fn set_services(&self, config: &NodeConfig) {
        self.kernel.set_services(&config.services);
    }

    /// Sets the numbers of ports and endpoints in the rules.
    pub(super) fn set_endpoints(&self, config: &NodeConfig) {
        let ports = || {
            let services = config.services.iter().filter(|service| !service.families.is_empty());
            services.flat_map(|service| &service.ports)
        };
        self.gauges.service_ports.set(to_i64(ports().count()));
        self.gauges.endpoints.set(to_i64(ports().map(|port| port.endpoints.len()).sum()));
    }

    /// Sets the numbers of peers.
    pub(super) fn set_modes(&self, modes: &Modes) {
        self.peers.clear();
        for (id, mode) in modes {
            let family = id.family.as_str();
            self.peers.get_or_create(&PeerLabels { family, way: path_label(*mode) }).inc();
        }
    }

    /// Sets the values that a report contains. `has_current_rules` is true if the rules contain the newest plan.
    pub(super) fn set_report(&self, report: &AgentReport, has_current_rules: bool) {
        self.gauges.services.set(to_i64(report.served_count));
        self.gauges.refused_services.set(to_i64(report.all_refused_services().len()));
        self.gauges.outdated_rules.set(i64::from(!has_current_rules));
    }

    /// Returns the metrics in the `OpenMetrics` text format.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Gauges {
    fn register(registry: &mut Registry) -> Self {
        let mut register = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            services: register("services", "Services that the node serves"),
            refused_services: register(
                "refused_services",
                "Services that the node refuses, because a port has another owner",
            ),
            service_ports: register("service_ports", "Ports of the Services that the node serves"),
            endpoints: register("endpoints", "Endpoints of these ports, on all nodes"),
            outdated_rules: register(
                "outdated_rules",
                "1 if the rules do not contain the newest Services and endpoints that the agent knows, otherwise 0",
            ),
        }
    }
}

fn to_i64(count: usize) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

const fn path_label(mode: ForwardingMode) -> &'static str {
    match mode {
        ForwardingMode::Keep(PeerPath::Direct) => "direct",
        ForwardingMode::Keep(PeerPath::Tunnel) => "tunnel",
        ForwardingMode::Masquerade(MasqueradeReason::Undecided) => "undecided",
        ForwardingMode::Masquerade(_) => "masquerade",
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Family;
    use akrobateo_services::agent_report::{PortOwner, PortProblem};

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{Service, ServicePort};
    use crate::probe::TargetId;

    /// Returns the samples of a metric.
    fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.text().unwrap();
        let prefix = format!("akrobateo_agent_{name}");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.filter(|rest| rest.starts_with([' ', '{'])).map(str::to_owned).collect()
    }

    #[test]
    fn service_with_several_refused_ports_is_counted_once() {
        let refusal = |service: &str, port: &str| PortProblem {
            service: service.to_owned(),
            port: port.to_owned(),
            owner: PortOwner::Process,
        };
        let refused_ports =
            vec![refusal("shop/web", "80/TCP"), refusal("shop/web", "81/TCP"), refusal("shop/api", "82/TCP")];
        let metrics = Metrics::new(None);
        metrics.set_report(&AgentReport { refused_ports, ..AgentReport::default() }, false);
        assert_eq!(samples(&metrics, "refused_services"), [" 2"]);
        assert_eq!(samples(&metrics, "outdated_rules"), [" 1"]);
        metrics.set_report(&AgentReport::default(), true);
        assert_eq!(samples(&metrics, "outdated_rules"), [" 0"]);
    }

    #[test]
    fn peers_are_counted_by_family_and_path() {
        let id = |peer, family| TargetId { peer, family };
        let metrics = Metrics::new(None);
        let unanswered_mode = ForwardingMode::Masquerade(MasqueradeReason::NoAnswer);
        metrics.set_modes(&Modes::from([(id(2, Family::V4), unanswered_mode)]));
        metrics.set_modes(&Modes::from([
            (id(2, Family::V4), ForwardingMode::Keep(PeerPath::Direct)),
            (id(3, Family::V4), ForwardingMode::Keep(PeerPath::Direct)),
            (id(3, Family::V6), unanswered_mode),
            (id(4, Family::V4), ForwardingMode::Masquerade(MasqueradeReason::Undecided)),
        ]));
        let mut peers = samples(&metrics, "peers");
        peers.sort_unstable();
        let expected = [
            r#"{family="IPv4",way="direct"} 2"#,
            r#"{family="IPv4",way="undecided"} 1"#,
            r#"{family="IPv6",way="masquerade"} 1"#,
        ];
        assert_eq!(peers, expected);
    }

    #[test]
    fn rule_changes_are_counted_by_the_failed_step() {
        let metrics = Metrics::new(None);
        metrics.count_change(None, Duration::from_millis(2));
        metrics.count_change(Some("tunnel"), Duration::from_millis(2));
        metrics.count_change(None, Duration::from_millis(2));
        let mut changes = samples(&metrics, "rule_changes_total");
        changes.sort_unstable();
        assert_eq!(changes, [r#"{result="ok"} 2"#, r#"{result="tunnel"} 1"#]);
        assert_eq!(samples(&metrics, "rule_change_duration_seconds_count"), [" 3"]);
    }

    #[test]
    fn service_without_families_has_no_ports() {
        let port = ServicePort {
            protocol: akrobateo_core::Protocol::Tcp,
            port: 80.try_into().unwrap(),
            endpoints: vec![endpoint(10, 1), endpoint(11, 2)],
        };
        let served_service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        let unserved_service = Service { families: Vec::new(), ..served_service.clone() };
        let metrics = Metrics::new(None);
        metrics.set_endpoints(&NodeConfig { services: vec![served_service, unserved_service], ..config() });
        assert_eq!([samples(&metrics, "service_ports"), samples(&metrics, "endpoints")], [[" 1"], [" 2"]]);
    }
}
