//! Tests of the plans after changes in the cluster, with a scripted API server.

use std::collections::HashMap;
use std::time::Duration;

use akrobateo_services::fixtures::{ServiceBuilder, defaults, node, service};
use akrobateo_services::spec::{ServiceDefaults, WorkloadKind};
use api_client::ApiMetrics;
use api_client::scripted_api::{ReceivedRequest, ScriptedApi, scripted_api};
use serde_json::{Value, json, to_value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::cluster::{TriggerSender, WatchScope};
use crate::run::node_kernel::LocalKernel;

const SERVICES_PATH: &str = "/api/v1/services";
const NODES_PATH: &str = "/api/v1/nodes";
const SLICES_PATH: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn service_object(service: ServiceBuilder, version: &str) -> Value {
    let mut service = to_value(service.build()).unwrap();
    service["metadata"]["resourceVersion"] = json!(version);
    service
}

fn slice_on_node(node: &str, service: &str, address: &str, version: &str) -> Value {
    let mut slice = slice(service, address, version);
    slice["endpoints"][0]["nodeName"] = json!(node);
    slice
}

fn slice(service: &str, address: &str, version: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": service, "resourceVersion": version,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": [{ "addresses": [address] }],
    })
}

struct TestAgent {
    state: AgentState,
    api: ScriptedApi,
    watches: HashMap<String, ReceivedRequest>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
}

impl TestAgent {
    /// Returns an agent that has listed these Services and one endpoint of the Service `web`, and has applied its first
    /// plan.
    async fn new(services: &[Value]) -> Self {
        let (client, mut api) = scripted_api();
        let (sender, triggers) = mpsc::unbounded_channel();
        let metrics = ApiMetrics::default();
        let sender = TriggerSender { sender, list_completed: Trigger::ListCompleted, metrics };
        let scope = WatchScope {
            service_namespace: None,
            agent_namespace: "kube-system",
            instance: "akrobateo",
            watched_pods_node: None,
        };
        let stores = Stores::start_watches(&client, &scope, &sender);
        let node = to_value(node("n1").internal_ip("10.0.0.1").build()).unwrap();
        let lists = [
            (SERVICES_PATH, services.to_vec()),
            (NODES_PATH, vec![node]),
            (SLICES_PATH, vec![slice("web", "10.244.1.10", "6")]),
        ];
        let mut watches = HashMap::new();
        while watches.len() < lists.len() {
            let request = api.next_request_to(&lists.each_ref().map(|(path, _)| *path)).await;
            if request.is_watch() {
                watches.insert(request.path.clone(), request);
            } else {
                let (_, objects) = lists.iter().find(|(path, _)| *path == request.path).unwrap();
                request.answer_list(objects);
            }
        }
        while timeout(Duration::from_millis(1), stores.wait_until_synced()).await.is_err() {
            let request = api.next_request().await;
            api.answer_unscripted_read(request);
        }
        let identity = Identity {
            node_name: "n1".to_owned(),
            instance: "akrobateo".to_owned(),
            namespace: "kube-system".to_owned(),
            proxy_labels: ProxyLabels { instance: "akrobateo".to_owned(), namespace: None },
            node_policy: NodePolicy::default(),
            marks: Marks::default(),
        };
        let defaults = ServiceDefaults { workload: WorkloadKind::Shared, ..defaults() };
        let planner = Planner::new(defaults, Vec::new());
        let mut state =
            AgentState::new(identity, Arc::new(LocalKernel), stores, planner, InstalledServices::default());
        state.network = Some(HostNetwork {
            uplink: "eth0".to_owned(),
            mtu: 1500,
            mac: "02:00:00:00:00:01".parse().ok(),
            local_addresses: vec!["10.0.0.1".parse().unwrap()],
        });
        state.record_all_services();
        let mut agent = Self { state, api, watches, triggers };
        assert!(agent.plan_after_triggers().is_some());
        agent.apply(1);
        agent
    }

    /// Handles the triggers of the watches, and makes a plan. Returns the new configuration.
    fn plan_after_triggers(&mut self) -> Option<NewConfig> {
        let triggers = std::iter::from_fn(|| self.triggers.try_recv().ok()).collect();
        assert!(self.state.on_triggers(triggers, Instant::now()));
        self.state.make_plan(Instant::now())
    }

    /// Sends an event of a watch. Returns the new configuration.
    async fn send(&mut self, path: &str, object: Value) -> Option<NewConfig> {
        let watch = match self.watches.remove(path) {
            Some(watch) => watch,
            None => self.api.next_request_to(&[path]).await,
        };
        watch.answer_watch(&[("MODIFIED", object)]);
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.plan_after_triggers()
    }

    fn apply(&mut self, id: u64) {
        self.state.on_data_path_event(DataPathEvent::Applied(id, Ok(()), Duration::ZERO));
    }

    /// Returns the versions of Services and of endpoints in the report.
    fn applied_versions(&self) -> (u64, u64) {
        let applied = self.state.report().unwrap().applied_versions.unwrap();
        (applied.services, applied.endpoint_slices)
    }

    fn awaited_versions(&self) -> (u64, u64) {
        let awaited = self.state.awaited_versions();
        (awaited.services, awaited.endpoint_slices)
    }
}

#[tokio::test(start_paused = true)]
async fn status_write_changes_only_the_versions_in_the_report() {
    let mut agent = TestAgent::new(&[service_object(service("web").tcp(80), "5")]).await;
    assert_eq!((agent.applied_versions(), agent.awaited_versions()), ((5, 6), (5, 0)));
    let published_service = service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    assert_eq!(agent.send(SERVICES_PATH, service_object(published_service, "9")).await, None);
    assert_eq!((agent.applied_versions(), agent.awaited_versions()), ((9, 6), (5, 0)));
    let changed_service = service_object(service("web").tcp(81), "10");
    let NewConfig { id, config, changes_only_endpoints } =
        agent.send(SERVICES_PATH, changed_service).await.unwrap();
    assert_eq!((config.services[0].ports[0].port.get(), changes_only_endpoints), (81, false));
    assert_eq!((agent.applied_versions(), agent.awaited_versions()), ((9, 6), (10, 0)));
    agent.apply(id);
    assert_eq!(agent.applied_versions(), (10, 6));
}

#[tokio::test(start_paused = true)]
async fn operator_waits_only_for_own_endpoints_of_services_with_policy_local() {
    let services = [
        service_object(service("web").tcp(80), "5"),
        service_object(service("local").tcp(81).traffic_policy_local(), "5"),
    ];
    let mut agent = TestAgent::new(&services).await;
    assert_eq!(agent.awaited_versions(), (5, 0));
    let new_config = agent.send(SLICES_PATH, slice("web", "10.244.1.11", "12")).await.unwrap();
    let NewConfig { id, config, changes_only_endpoints } = new_config;
    assert!(changes_only_endpoints);
    let [local, web] = &config.services[..] else { panic!("{:?}", config.services) };
    assert_eq!(web.ports[0].endpoints[0].address.to_string(), "10.244.1.11:8080");
    assert!(local.ports[0].endpoints.is_empty());
    agent.apply(id);
    assert_eq!((agent.applied_versions(), agent.awaited_versions()), ((5, 12), (5, 0)));
    assert_eq!(agent.send(SLICES_PATH, slice("web", "10.244.1.11", "13")).await, None);
    assert_eq!(agent.applied_versions(), (5, 13));
    assert!(agent.send(SLICES_PATH, slice_on_node("n2", "local", "10.244.2.12", "14")).await.is_some());
    assert_eq!(agent.awaited_versions(), (5, 0));
    assert!(agent.send(SLICES_PATH, slice_on_node("n1", "local", "10.244.1.12", "15")).await.is_some());
    assert_eq!(agent.awaited_versions(), (5, 15));
}

#[tokio::test(start_paused = true)]
async fn new_service_does_not_get_the_port_of_a_process_that_has_just_started() {
    let mut agent = TestAgent::new(&[service_object(service("web").tcp(80), "5")]).await;
    // The agent has read the listening sockets before this socket exists.
    let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let changed_service = service_object(service("web").tcp(port), "10");
    let new_config = agent.send(SERVICES_PATH, changed_service).await.unwrap();
    assert!(new_config.config.services.is_empty(), "{:?}", new_config.config.services);
}
