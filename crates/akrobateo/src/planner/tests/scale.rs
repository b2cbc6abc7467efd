//! Tests that the cost of a change does not grow with the number of Services and nodes, in shared mode.

use akrobateo_services::agent_report::{
    AGENT_LABEL, AgentReport, AppliedVersions, REPORT_ANNOTATION, lease_name,
};

use super::*;

const LEASES_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const SLICES_PATH: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const SERVICE_COUNT: u16 = 50;
const NODE_COUNT: u16 = 5;

fn node_name(number: u16) -> String {
    format!("node-{number}")
}

fn service_object(number: u16, port: u16, version: &str) -> Value {
    let builder = service(&format!("web-{number}")).tcp(port).annotation("akrobateo.io/workload", "Shared");
    with_resource_version(&builder.build(), version)
}

/// Returns a slice with one endpoint on each of these nodes.
fn slice(service: &str, nodes: &[u16], version: &str) -> Value {
    let endpoints: Vec<_> =
        nodes.iter().map(|node| json!({ "addresses": [], "nodeName": node_name(*node) })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": service, "resourceVersion": version,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints,
    })
}

/// Returns the Lease of a node's agent that has applied these versions.
fn lease(node: u16, services: u64, endpoint_slices: u64) -> Value {
    let node = node_name(node);
    let applied_versions = Some(AppliedVersions { services, endpoint_slices });
    let report = AgentReport { node: node.clone(), applied_versions, ..AgentReport::default() };
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": lease_name("akrobateo", &node), "namespace": "kube-system", "resourceVersion": "1",
            "labels": { AGENT_LABEL: "akrobateo" },
            "annotations": { REPORT_ANNOTATION: report.to_json().unwrap() },
        },
        "spec": { "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15 },
    })
}

/// The work that a change has caused.
#[derive(Debug, PartialEq)]
struct Work {
    affected_services: Vec<String>,
    validated_services: usize,
    /// The number of Services that the planner compared with a report of an agent.
    compared_services: usize,
    has_allocated: bool,
}

fn work(affected_services: &[&str], validated_services: usize, compared_services: usize) -> Work {
    let affected_services = affected_services.iter().map(|&name| name.to_owned()).collect();
    Work { affected_services, validated_services, compared_services, has_allocated: validated_services > 0 }
}

struct Cluster {
    planner: Planner,
    api: ScriptedApi,
    watches: HashMap<String, ReceivedRequest>,
}

impl Cluster {
    /// Returns a cluster with Services that have externalTrafficPolicy Cluster, and the Service `local`, which has
    /// externalTrafficPolicy Local.
    async fn new() -> Self {
        let services = (0..SERVICE_COUNT).map(|number| service_object(number, 1000 + number, "1"));
        let local = service("local").tcp(80).annotation("akrobateo.io/workload", "Shared");
        let local = with_resource_version(&local.traffic_policy_local().build(), "1");
        let services: Vec<_> = services.chain([local]).collect();
        let nodes: Vec<_> = (0..NODE_COUNT)
            .map(|number| node(&node_name(number)).internal_ip(&format!("192.0.2.{number}")).build())
            .map(|node| with_resource_version(&node, "1"))
            .collect();
        let slices: Vec<_> =
            (0..SERVICE_COUNT).map(|number| slice(&format!("web-{number}"), &[0, 1], "1")).collect();
        let leases: Vec<_> = (0..NODE_COUNT).map(|number| lease(number, 1, 1)).collect();
        let lists: [(&str, &[Value]); 4] = [
            (SERVICES_PATH, &services),
            (NODES_PATH, &nodes),
            (LEASES_PATH, &leases),
            (SLICES_PATH, &slices),
        ];
        let (planner, api, watches) = planner_with_lists(&lists).await;
        Self { planner, api, watches }
    }

    /// Sends events of a watch, and returns the work that they cause.
    async fn send(&mut self, path: &str, objects: Vec<Value>) -> Work {
        let watch = match self.watches.remove(path) {
            Some(watch) => watch,
            None => self.api.next_request_to(&[path]).await,
        };
        let nodes = self.planner.nodes.clone();
        let validations = self.planner.services.parse_count;
        let comparisons = self.planner.agents.comparison_count.get();
        let events: Vec<_> = objects.into_iter().map(|object| ("MODIFIED", object)).collect();
        watch.answer_watch(&events);
        let mut affected_services = BTreeSet::new();
        // The wait is short, because the agents do not renew their Leases.
        while let Ok(services) = timeout(Duration::from_millis(1), self.planner.wait_for_changes()).await {
            affected_services.extend(services.unwrap().into_iter().map(|key| key.name));
        }
        Work {
            affected_services: affected_services.into_iter().collect(),
            validated_services: self.planner.services.parse_count - validations,
            compared_services: self.planner.agents.comparison_count.get() - comparisons,
            // Each allocation replaces the list of nodes.
            has_allocated: !Arc::ptr_eq(&nodes, &self.planner.nodes),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_change_affects_at_most_its_service() {
    let mut cluster = Cluster::new().await;
    // With externalTrafficPolicy Cluster, no decision reads the endpoints.
    assert_eq!(cluster.send(SLICES_PATH, vec![slice("web-7", &[2], "2")]).await, work(&[], 0, 0));
    assert_eq!(cluster.send(SLICES_PATH, vec![slice("absent", &[2], "3")]).await, work(&[], 0, 0));
    assert_eq!(cluster.send(SLICES_PATH, vec![slice("local", &[0], "4")]).await, work(&["local"], 0, 0));
    // The nodes with endpoints are the same.
    assert_eq!(cluster.send(SLICES_PATH, vec![slice("local", &[0, 0], "5")]).await, work(&[], 0, 0));
    assert_eq!(cluster.send(SLICES_PATH, vec![slice("local", &[0, 1], "6")]).await, work(&["local"], 0, 0));
}

#[tokio::test(start_paused = true)]
async fn service_change_validates_only_its_service() {
    let mut cluster = Cluster::new().await;
    assert_eq!(cluster.send(SERVICES_PATH, vec![service_object(7, 5000, "2")]).await, work(&["web-7"], 1, 0));
    let mut published = service_object(7, 5000, "3");
    published["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    assert_eq!(cluster.send(SERVICES_PATH, vec![published]).await, work(&["web-7"], 0, 0));
}

#[tokio::test(start_paused = true)]
async fn report_is_compared_only_with_services_that_wait_for_it() {
    let mut cluster = Cluster::new().await;
    let leases = |services, slices| (0..NODE_COUNT).map(|node| lease(node, services, slices)).collect();
    // Other Services and endpoints have new versions.
    assert_eq!(cluster.send(LEASES_PATH, leases(2, 2)).await, work(&[], 0, 0));
    cluster.send(SERVICES_PATH, vec![service_object(7, 5000, "3")]).await;
    cluster.send(SLICES_PATH, vec![slice("local", &[3], "4")]).await;
    let comparisons = NODE_COUNT.into();
    assert_eq!(cluster.send(LEASES_PATH, leases(3, 2)).await, work(&["web-7"], 0, comparisons));
    assert_eq!(cluster.send(LEASES_PATH, leases(3, 4)).await, work(&["local"], 0, 1));
    // All Services need the comparison if an agent has an error.
    let mut failing_lease = lease(2, 3, 4);
    let report = failing_lease["metadata"]["annotations"][REPORT_ANNOTATION].as_str().unwrap();
    let report = report.replacen('{', r#"{"error":"no nf_tables","#, 1);
    failing_lease["metadata"]["annotations"][REPORT_ANNOTATION] = json!(report);
    let work = cluster.send(LEASES_PATH, vec![failing_lease]).await;
    let service_count = usize::from(SERVICE_COUNT) + 1;
    assert_eq!((work.compared_services, work.affected_services.len()), (service_count, service_count));
}
