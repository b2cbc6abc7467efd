//! Tests of the watch of the node agents' Leases: each change affects only the Services whose decisions read the
//! changed facts.

use akrobateo_services::agent_report::{
    AGENT_LABEL, AgentReport, AppliedVersions, PortOwner, PortProblem, REPORT_ANNOTATION, lease_name,
};

use super::*;
use crate::decide::AgentStatus;

pub(super) const LEASES_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

pub(super) fn report(node: &str, services: u64) -> AgentReport {
    AgentReport {
        node: node.to_owned(),
        applied_versions: Some(AppliedVersions { services, endpoint_slices: 1 }),
        ..AgentReport::default()
    }
}

/// Returns the Lease with a report. The Lease was renewed at the given second of a fixed minute.
pub(super) fn lease(report: &AgentReport, second: u32) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": lease_name("akrobateo", &report.node), "namespace": "kube-system",
            "resourceVersion": second.to_string(),
            "labels": { AGENT_LABEL: "akrobateo" },
            "annotations": { REPORT_ANNOTATION: report.to_json().unwrap() },
        },
        "spec": { "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z"), "leaseDurationSeconds": 15 },
    })
}

fn shared_service(name: &str, port: u16, version: &str) -> Value {
    let service = service(name).tcp(port).annotation("akrobateo.io/workload", "Shared").build();
    with_resource_version(&service, version)
}

pub(super) struct PlannerWithAgent {
    pub(super) planner: Planner,
    pub(super) api: ScriptedApi,
    pub(super) watches: HashMap<String, ReceivedRequest>,
}

impl PlannerWithAgent {
    /// Returns a planner that has listed the shared Services `web` and `api` and the agent of node `a`.
    async fn new(agent: &AgentReport) -> Self {
        let services = [shared_service("web", 80, "5"), shared_service("api", 81, "6")];
        let (nodes, leases) = ([node_a()], [lease(agent, 1)]);
        let lists: [(&str, &[Value]); 3] =
            [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (LEASES_PATH, &leases)];
        let (planner, api, watches) = planner_with_lists(&lists).await;
        Self { planner, api, watches }
    }

    /// Sends one event of a watch, and returns the affected Services.
    pub(super) async fn send(&mut self, path: &str, event_type: &str, object: Value) -> Vec<String> {
        let watch = match self.watches.remove(path) {
            Some(watch) => watch,
            None => self.api.next_request_to(&[path]).await,
        };
        watch.answer_watch(&[(event_type, object)]);
        let affected_services = next_affected_services(&mut self.planner).await.unwrap_or_default();
        affected_services.into_iter().map(|key| key.name).collect()
    }

    pub(super) async fn renew(&mut self, report: &AgentReport, second: u32) -> Vec<String> {
        self.send(LEASES_PATH, "MODIFIED", lease(report, second)).await
    }

    fn is_silent(&mut self) -> bool {
        self.planner.service_state(&key("web"), at(0)).agents["a"].observed_report.is_silent
    }

    fn status(&mut self, name: &str) -> AgentStatus {
        let state = self.planner.service_state(&key(name), at(0));
        let Some(AllocationResult::Accepted(spec, _)) = state.allocation_result.clone() else {
            panic!("not accepted")
        };
        crate::decide::agent_status(&state, &key(name), &spec, &state.nodes[0])
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_of_a_lease_does_not_affect_services() {
    let mut test = PlannerWithAgent::new(&report("a", 6)).await;
    assert_eq!(test.renew(&report("a", 6), 6).await, [""; 0]);
    // A change of a fact that decisions do not read does not affect the Services.
    assert_eq!(test.renew(&report("a", 7), 7).await, [""; 0]);
    let serving_report = AgentReport { served_count: 2, ..report("a", 7) };
    assert_eq!(test.renew(&serving_report, 8).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn report_affects_only_services_with_changed_readiness() {
    let mut test = PlannerWithAgent::new(&report("a", 4)).await;
    assert_eq!((test.status("web"), test.status("api")), (AgentStatus::Outdated, AgentStatus::Outdated));
    assert_eq!(test.renew(&report("a", 5), 2).await, ["web"]);
    assert_eq!(test.renew(&report("a", 6), 3).await, ["api"]);
    let problem = PortProblem {
        service: "default/web".to_owned(),
        port: "80/TCP".to_owned(),
        owner: PortOwner::Process,
    };
    let report_with_refusal = AgentReport { refused_ports: vec![problem.clone()], ..report("a", 6) };
    assert_eq!(test.renew(&report_with_refusal, 4).await, ["web"]);
    assert_eq!(test.status("web"), AgentStatus::Refusing(vec![problem]));
    let failing_report = AgentReport { error: Some("no nf_tables".to_owned()), ..report("a", 6) };
    assert_eq!(test.renew(&failing_report, 5).await, ["api", "web"]);
}

#[tokio::test(start_paused = true)]
async fn agents_need_not_apply_a_status_write() {
    let mut test = PlannerWithAgent::new(&report("a", 6)).await;
    let mut published_service = shared_service("web", 80, "9");
    published_service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    assert_eq!(test.send(SERVICES_PATH, "MODIFIED", published_service).await, ["web"]);
    assert_eq!(test.status("web"), AgentStatus::Serving);
    // The next allocation does not require the version of the status write either.
    assert_eq!(test.send(SERVICES_PATH, "MODIFIED", shared_service("api", 83, "8")).await, ["api"]);
    assert_eq!((test.status("web"), test.status("api")), (AgentStatus::Serving, AgentStatus::Outdated));
    // A change of the spec requires the new version.
    assert_eq!(test.send(SERVICES_PATH, "MODIFIED", shared_service("web", 82, "10")).await, ["web"]);
    assert_eq!(test.status("web"), AgentStatus::Outdated);
    assert_eq!(test.renew(&report("a", 10), 2).await, ["api", "web"]);
    assert_eq!(test.status("web"), AgentStatus::Serving);
}

#[tokio::test(start_paused = true)]
async fn agent_is_silent_15_seconds_after_its_last_renewal() {
    let mut test = PlannerWithAgent::new(&report("a", 6)).await;
    // The operator does not use the time in a Lease. A change of the time is enough.
    test.renew(&report("a", 6), 50).await;
    let renewed_at = tokio::time::Instant::now();
    let affected_services = loop {
        let affected_services = test.planner.wait_for_changes().await.unwrap();
        if !affected_services.is_empty() {
            break affected_services;
        }
    };
    let elapsed = renewed_at.elapsed();
    assert!(elapsed > Duration::from_secs(4) && elapsed <= Duration::from_secs(15), "{elapsed:?}");
    assert_eq!(affected_services, BTreeSet::from([key("api"), key("web")]));
    assert!(test.is_silent());
    assert_eq!(test.renew(&report("a", 6), 51).await, ["api", "web"]);
    assert!(!test.is_silent());
}

#[tokio::test(start_paused = true)]
async fn report_about_another_node_is_ignored() {
    let mut test = PlannerWithAgent::new(&report("a", 4)).await;
    let mut forged_lease = lease(&report("b", 6), 9);
    forged_lease["metadata"]["name"] = json!(lease_name("akrobateo", "a"));
    assert_eq!(test.send(LEASES_PATH, "MODIFIED", forged_lease).await, ["api", "web"]);
    assert_eq!(test.status("web"), AgentStatus::Absent);
    let state = test.planner.service_state(&key("web"), at(0));
    assert!(!state.agents.contains_key("b"));
}

#[tokio::test(start_paused = true)]
async fn proxies_do_not_get_a_port_that_an_agent_serves() {
    // Service api is older, but the agent already serves Service web on the same port.
    let web = shared_service("web", 80, "5");
    let older_service = with_resource_version(&service("api").tcp(80).created_at(1).build(), "6");
    let problem = PortProblem {
        service: "default/web".to_owned(),
        port: "80/TCP".to_owned(),
        owner: PortOwner::Service("default/api".to_owned()),
    };
    let report_with_refusal = AgentReport { refused_ports: vec![problem], ..report("a", 6) };
    let services = [web, older_service];
    let (nodes, leases) = ([node_a()], [lease(&report("a", 6), 1)]);
    let lists: [(&str, &[Value]); 3] =
        [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (LEASES_PATH, &leases)];
    let (planner, api, watches) = planner_with_lists(&lists).await;
    assert_eq!((owned_nodes(&planner, "web"), owned_nodes(&planner, "api")), (None, Some(Vec::new())));
    // After the agent refuses Service web, only the previous port allocation shows that Service web owned the port.
    let mut test = PlannerWithAgent { planner, api, watches };
    assert_eq!(test.renew(&report_with_refusal, 2).await, ["web"]);
    assert_eq!(owned_nodes(&test.planner, "web"), None);
    let _restart = test.planner.resync();
    assert_eq!(owned_nodes(&test.planner, "web"), Some(Vec::new()));
    assert_eq!(owned_nodes(&test.planner, "api"), None);
}

#[tokio::test(start_paused = true)]
async fn operator_without_dedicated_mode_does_not_list_workloads_and_pods() {
    let (client, mut api) = scripted_api();
    let scope = WatchScope { has_proxies: false, ..WatchScope::ALL };
    let planner = Planner::watch(&client, &scope, &proxy_config(), Arc::new(defaults()), &Metrics::new());
    let mut open_watches = Vec::new();
    while timeout(Duration::from_millis(100), planner.wait_until_synced()).await.is_err() {
        let request = api.next_request().await;
        assert!(
            [SERVICES_PATH, NODES_PATH, LEASES_PATH, "/apis/discovery.k8s.io/v1/endpointslices"]
                .contains(&request.path.as_str()),
            "{}",
            request.path
        );
        if request.is_watch() { open_watches.push(request) } else { request.answer_list(&[]) }
    }
}
