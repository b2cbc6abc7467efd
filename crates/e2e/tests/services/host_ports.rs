//! Ports that other pods use on their nodes. A pod with a hostPort keeps its port, and the condition of the Service
//! reports that the port is in use.

use akrobateo_core::Protocol;
use e2e::backend::{EchoPod, backend_pod, echo_pod};
use e2e::{
    Failure, Namespace, NodeAddresses, Target, TestMode, ensure, ensure_eq, eventually, service, test,
    test_in_dedicated_mode,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Checks that the pod was not replaced, and that the pod answers on the port of its node.
async fn ensure_pod_keeps_port(
    namespace: &Namespace,
    other_pod: &Pod,
    nodes: &[NodeAddresses],
    port: u16,
) -> Result<(), Failure> {
    let current_pod = namespace.get_pod(&other_pod.name_any()).await?;
    ensure_eq("UID of the other pod", &current_pod.uid(), &other_pod.uid())?;
    ensure_eq("deletion of the other pod", &current_pod.metadata.deletion_timestamp, &None)?;
    let node_name = other_pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let node = nodes.iter().find(|node| node.name == node_name);
    let node =
        node.ok_or_else(|| Failure::UnexpectedState(format!("the other pod is on node {node_name:?}")))?;
    let target = Target { protocol: Protocol::Tcp, host: node.addresses[0], port };
    // A pod in the network of its node has the host name of the node.
    let is_in_host_network = other_pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let host = if is_in_host_network { node_name } else { other_pod.name_any() };
    eventually("the other pod answers on the port", async || {
        let replies = namespace.cluster().send_requests(&[target]).await?;
        ensure_eq("number of replies", &replies.len(), &1)?;
        ensure_eq("host that answers", &replies[0].answer()?.host, &host)
    })
    .await
}

/// Starts a pod that uses the Service's port on the first node. Checks that the pod keeps the port, and that the other
/// nodes serve the Service.
async fn check_pod_keeps_port_on_one_node(build_pod: impl Fn(u16) -> EchoPod) -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let other_pod = namespace.start_pod(&build_pod(port).on_node(&nodes[0].name)).await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        let parts = [&format!("{port}/TCP"), nodes[0].name.as_str(), "another pod", "use another port"];
        namespace.wait_warning(&web, "PortInUse", &parts).await?;
        namespace.wait_exposed_on(&web, &nodes[1..]).await?;
        namespace.wait_condition(&web, "PartlyExposed", &parts).await?;
        ensure_pod_keeps_port(namespace, &other_pod, &nodes, port).await?;
        namespace.delete_pod(&other_pod.name_any()).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_condition(&web, "Exposed", &[]).await
    })
    .await
}

#[tokio::test]
async fn pod_with_a_host_port_keeps_its_port() -> Result<(), Failure> {
    check_pod_keeps_port_on_one_node(|port| echo_pod("pod-with-port").host_port(port)).await
}

#[tokio::test]
async fn pod_in_the_host_network_keeps_its_declared_port() -> Result<(), Failure> {
    check_pod_keeps_port_on_one_node(|port| echo_pod("pod-with-port").in_host_network(port)).await
}

#[tokio::test]
async fn proxies_that_forward_do_not_evict_a_pod_with_a_host_port() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let other_pod =
            namespace.start_pod(&echo_pod("pod-with-port").host_port(port).on_node(&nodes[0].name)).await?;
        let web = service("web").tcp(port).with_ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "PortInUse", &[&nodes[0].name, "another pod"]).await?;
        namespace.wait_condition(&web, "PortInUse", &[]).await?;
        ensure_pod_keeps_port(namespace, &other_pod, &nodes, port).await?;
        ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &vec![])?;
        namespace.delete_pod("pod-with-port").await?;
        let replies = namespace.wait_exposed_on(&web, &nodes[..1]).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await
    })
    .await
}

#[tokio::test]
async fn backend_keeps_a_host_port_that_its_service_also_uses() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let other_pods =
            namespace.start_pod_on_every_node(&backend_pod().named("agent").host_port(port)).await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        let owner = match namespace.mode() {
            TestMode::Shared => format!("pod {}/agent", namespace.name()),
            TestMode::Dedicated => "another pod".to_owned(),
        };
        namespace.wait_warning(&web, "PortInUse", &[&format!("{port}/TCP"), &owner]).await?;
        namespace.wait_condition(&web, "PortInUse", &[]).await?;
        for other_pod in &other_pods {
            ensure_pod_keeps_port(namespace, other_pod, &nodes, port).await?;
        }
        ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &vec![])?;
        let events = namespace.list_events_about(&other_pods[0]).await?;
        let is_preempted = events.iter().any(|event| event.reason.as_deref() == Some("Preempted"));
        ensure(!is_preempted, || format!("the events of the other pod are {events:?}"))?;
        // The DaemonSet releases the ports.
        namespace.delete_pods_on_every_node("agent").await?;
        namespace.start_backend().await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}
