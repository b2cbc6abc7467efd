//! Measures the cost of 100 Services: time, pods, memory and writes to the API server. Does I/O.

use e2e::audit::{self, ApiRequest};
use e2e::{AGENT_ACCOUNT, Failure, Faults, Namespace, OPERATOR_ACCOUNT, TestMode, service};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use crate::memory;

const SERVICE_COUNT: usize = 100;
/// The label selector for the pods of agents and proxies.
const FORWARDING_POD_SELECTOR: &str = "app.kubernetes.io/name in (akrobateo-agent,akrobateo-lb)";

/// Creates the Services, and returns a text with the measurements. Deletes the Services afterwards.
pub(crate) async fn measure_hundred_services(
    namespace: &Namespace,
    faults: &Faults,
) -> Result<String, Failure> {
    let nodes = namespace.cluster().list_nodes().await?;
    let ports: [u16; SERVICE_COUNT] = namespace.allocate_ports().await?;
    let services = ports.map(|port| service(&format!("many-{port}")).tcp(port));
    let memory_before = memory::read_node_memory(namespace, faults, &nodes[0].name).await?;
    let (started_at, start_time) = (Instant::now(), Timestamp::now());
    try_join_all(services.iter().map(|service| namespace.apply(service))).await?;
    for service in &services {
        namespace.wait_published(service, &nodes).await?;
        namespace.wait_rollouts_ended(service).await?;
    }
    let duration = started_at.elapsed();
    let writes = describe_writes_since(start_time)?;
    let pods: Api<Pod> = Api::all(namespace.cluster().client.clone());
    let pod_count = pods.list(&ListParams::default().labels(FORWARDING_POD_SELECTOR)).await?.items.len();
    let memory_after = memory::read_node_memory(namespace, faults, &nodes[0].name).await?;
    try_join_all(services.iter().map(|service| namespace.delete_service(service))).await?;
    for service in &services {
        namespace.wait_cleaned_up(service).await?;
    }
    let forwarding_program = match namespace.mode() {
        TestMode::Shared => "agent",
        TestMode::Dedicated => "agent and proxies",
    };
    Ok(format!(
        "  {SERVICE_COUNT} Services on {} nodes:\n  \
         {:6} ms  until all addresses are in the status\n  \
         {pod_count:6}  pods that forward\n  \
         {writes}\n  \
         {memory_after} on one node, {forwarding_program}; {memory_before} before",
        nodes.len(),
        duration.as_millis(),
    ))
}

/// Returns the number of write requests since `start` as a text.
fn describe_writes_since(start: Timestamp) -> Result<String, Failure> {
    let is_counted = |request: &ApiRequest| request.is_write() && request.received_at >= start;
    let count = |account: &str| -> Result<(usize, usize), Failure> {
        let writes: Vec<_> =
            audit::read_requests_of_account(account)?.into_iter().filter(is_counted).collect();
        let lease_count = writes.iter().filter(|request| request.resource == "leases").count();
        Ok((writes.len() - lease_count, lease_count))
    };
    let (operator_writes, operator_lease_writes) = count(OPERATOR_ACCOUNT)?;
    let (_, agent_lease_writes) = count(AGENT_ACCOUNT)?;
    Ok(format!(
        "{operator_writes:6}  writes of the operator, {operator_lease_writes} writes of its Lease, {agent_lease_writes} \
         writes of the agents' Leases"
    ))
}
