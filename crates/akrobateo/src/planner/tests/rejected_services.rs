//! Tests of rejected Services that the node agents serve. A rejected Service keeps the ports of its last accepted spec,
//! and takes no port of another Service.

use akrobateo_services::agent_report::AgentReport;

use super::agents::{LEASES_PATH, PlannerWithAgent, lease, report};
use super::*;
use crate::decide::fixtures::ServiceBuilder;

/// Returns a published Service that the agent of node `a` serves. The Service is older than all other Services.
fn edited(port: u16) -> ServiceBuilder {
    let service = service("edited").tcp(port).created_at(1).annotation("akrobateo.io/workload", "Shared");
    service.published("192.0.2.1", "Proxy", "akrobateo")
}

fn rejected(service: ServiceBuilder, version: &str) -> Value {
    with_resource_version(&service.annotation("akrobateo.io/ip-mode", "typo").build(), version)
}

/// Returns a planner that has listed these Services, the `DaemonSets`, node `a`, and the agent of this node.
async fn planner_with_services(services: &[Value], daemonsets: &[Value]) -> PlannerWithAgent {
    let (nodes, leases) = ([node_a()], [lease(&report("a", 6), 1)]);
    let lists: [(&str, &[Value]); 4] = [
        (SERVICES_PATH, services),
        (NODES_PATH, &nodes),
        (LEASES_PATH, &leases),
        (DAEMONSETS_PATH, daemonsets),
    ];
    let (planner, api, watches) = planner_with_lists(&lists).await;
    PlannerWithAgent { planner, api, watches }
}

#[tokio::test(start_paused = true)]
async fn rejected_service_does_not_take_the_port_of_another_workload() {
    let web = with_resource_version(&service("web").tcp(80).created_at(2).build(), "5");
    let services = [web, with_resource_version(&edited(81).build(), "6")];
    let mut test = planner_with_services(&services, &[applied_daemonset()]).await;
    assert_eq!(owned_nodes(&test.planner, "web"), None);
    test.send(SERVICES_PATH, "MODIFIED", rejected(edited(80), "7")).await;
    test.renew(&report("a", 7), 2).await;
    assert_eq!(owned_nodes(&test.planner, "web"), None);
    let _restart = test.planner.resync();
    assert_eq!(owned_nodes(&test.planner, "web"), None);
}

#[tokio::test(start_paused = true)]
async fn rejected_service_with_proxies_does_not_take_the_port_of_another_service() {
    let web = |port| service("web").tcp(port).created_at(1).published("192.0.2.1", "VIP", "akrobateo");
    let api = with_resource_version(&service("api").tcp(81).created_at(2).build(), "5");
    let services = [with_resource_version(&web(80).build(), "6"), api];
    let mut test = planner_with_services(&services, &[applied_daemonset()]).await;
    test.send(SERVICES_PATH, "MODIFIED", rejected(web(81), "7")).await;
    test.renew(&report("a", 7), 2).await;
    assert_eq!(owned_nodes(&test.planner, "api"), None);
    let _restart = test.planner.resync();
    assert_eq!(owned_nodes(&test.planner, "api"), None);
}

#[tokio::test(start_paused = true)]
async fn rejected_service_keeps_the_ports_that_its_agent_serves() {
    let waiting = with_resource_version(&service("waiting").tcp(80).created_at(2).build(), "5");
    let services = [waiting, with_resource_version(&edited(80).build(), "6")];
    let mut test = planner_with_services(&services, &[]).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), Some(Vec::new()));
    // The agent has not read the edit yet. The agent keeps the previous port, because the edit is invalid.
    test.send(SERVICES_PATH, "MODIFIED", rejected(edited(81), "7")).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), Some(Vec::new()));
    test.renew(&report("a", 7), 2).await;
    test.renew(&AgentReport { is_paused: true, ..report("a", 7) }, 3).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), Some(Vec::new()));
    let unserved_services = vec!["default/edited".to_owned()];
    test.renew(&AgentReport { unserved_services, ..report("a", 7) }, 4).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), None);
}

#[tokio::test(start_paused = true)]
async fn rejected_service_releases_the_port_of_a_node_that_is_not_published_any_more() {
    let waiting = with_resource_version(&service("waiting").tcp(80).created_at(2).build(), "5");
    let services = [waiting, rejected(edited(80), "6")];
    let mut test = planner_with_services(&services, &[]).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), Some(Vec::new()));
    let mut unpublished_service = rejected(edited(80), "7");
    unpublished_service["status"] = json!({});
    test.send(SERVICES_PATH, "MODIFIED", unpublished_service).await;
    assert_eq!(owned_nodes(&test.planner, "waiting"), None);
}
