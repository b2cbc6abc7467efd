//! The operator's metrics. Each label must have few possible values, so labels never contain names of objects or texts
//! of errors. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use akrobateo_services::key::ServiceKey;
use api_client::ApiMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The number of agents in each state, also in states without an agent.
pub(crate) type AgentCounts = BTreeMap<&'static str, usize>;

/// All metrics of the operator.
pub(crate) struct Metrics {
    /// Requests to the API server, and watches.
    pub(crate) api: ApiMetrics,
    /// Reconciliations by result.
    pub(crate) reconciliations: Family<ReconcileLabels, Counter>,
    /// The duration of reconciliations.
    pub(crate) reconcile_seconds: Histogram,
    /// Services by the reason of their condition `akrobateo.io/Exposed`.
    services: Family<ServiceLabels, Gauge>,
    /// The value of the label `state` under which each Service is counted.
    states_by_service: Mutex<HashMap<ServiceKey, &'static str>>,
    /// Proxies that were created before the last change of their Service.
    outdated_proxies: Gauge,
    /// The number of outdated proxies of each Service with outdated proxies.
    outdated_proxy_counts_by_service: Mutex<HashMap<ServiceKey, usize>>,
    /// Node agents by state.
    agents: Family<AgentLabels, Gauge>,
    /// 1 if this replica is the leader, otherwise 0.
    pub(crate) leader: Gauge<f64, AtomicU64>,
    registry: Registry,
}

/// Labels of [`Metrics::reconciliations`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReconcileLabels {
    /// `ok`, or the step that failed.
    pub(crate) result: &'static str,
}

/// Labels of [`Metrics::services`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    /// The reason of the condition `akrobateo.io/Exposed`.
    state: &'static str,
}

/// Labels of [`Metrics::agents`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentLabels {
    /// The state of the agent, for example `silent`.
    state: &'static str,
}

impl Metrics {
    /// Returns metrics with all values at zero.
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("akrobateo");
        let api = ApiMetrics::default();
        api.register(&mut registry);
        // The buckets range from 1 ms to 16 s.
        let reconcile_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let (reconciliations, services) = (Family::default(), Family::default());
        let leader = Gauge::default();
        registry.register(
            "reconciles",
            "Reconciliations by result: ok, or the step that failed",
            reconciliations.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of reconciliations",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        registry.register(
            "services",
            "Services by the reason of the condition akrobateo.io/Exposed",
            services.clone(),
        );
        let outdated_proxies = Gauge::default();
        let help = "Proxies that still use the image or the Service's settings from before the last change";
        registry.register("outdated_proxies", help, outdated_proxies.clone());
        let agents = Family::default();
        registry.register("agents", "Node agents by state", agents.clone());
        registry.register("leader", "1 if this replica is the leader, otherwise 0", leader.clone());
        let states_by_service = Mutex::default();
        Arc::new(Self {
            api,
            reconciliations,
            reconcile_seconds,
            services,
            states_by_service,
            outdated_proxies,
            outdated_proxy_counts_by_service: Mutex::default(),
            agents,
            leader,
            registry,
        })
    }

    /// Counts a Service under its state. With the state `None` the Service is no longer counted.
    pub(crate) fn set_service_state(&self, key: &ServiceKey, state: Option<&'static str>) {
        let mut states_by_service = self.states_by_service.lock().unwrap_or_else(PoisonError::into_inner);
        let previous_state = match state {
            Some(state) => states_by_service.insert(key.clone(), state),
            None => states_by_service.remove(key),
        };
        if let Some(state) = previous_state {
            self.services.get_or_create(&ServiceLabels { state }).dec();
        }
        if let Some(state) = state {
            self.services.get_or_create(&ServiceLabels { state }).inc();
        }
    }

    /// Records the number of outdated proxies of a Service.
    pub(crate) fn set_outdated_proxies(&self, key: &ServiceKey, count: usize) {
        let mut counts_by_service =
            self.outdated_proxy_counts_by_service.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            counts_by_service.remove(key);
        } else {
            counts_by_service.insert(key.clone(), count);
        }
        self.outdated_proxies.set(counts_by_service.values().sum::<usize>().try_into().unwrap_or(i64::MAX));
    }

    /// Sets the number of node agents in each state.
    pub(crate) fn set_agents(&self, counts: &AgentCounts) {
        for (state, count) in counts {
            self.agents.get_or_create(&AgentLabels { state }).set((*count).try_into().unwrap_or(i64::MAX));
        }
    }

    /// Resets the metrics that only the leader sets.
    pub(crate) fn on_lost_leadership(&self) {
        self.leader.set(0.0);
        self.states_by_service.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.services.clear();
        self.outdated_proxy_counts_by_service.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.outdated_proxies.set(0);
        self.agents.clear();
    }

    /// Returns the metrics in the `OpenMetrics` text format.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
