//! Ports that pods with hostPorts, processes of the node, or other Services already use.

use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::backend::{EchoPod, echo_pod};
use e2e::{Failure, Target, consistently, ensure_eq, eventually, service, test_in_shared_mode};
use kube::ResourceExt;

#[tokio::test]
async fn pod_and_process_keep_their_ports() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port, process_port] = namespace.allocate_ports().await?;
        let pod =
            namespace.start_pod(&echo_pod("pod-with-port").host_port(port).on_node(&nodes[0].name)).await?;
        // A pod in the host's network is a process of the node. The agent finds its port by the socket.
        let process = echo_pod("process").in_host_network(process_port).without_declared_ports();
        let process = process.on_node(&nodes[0].name);
        namespace.start_pod(&process).await?;
        let web = service("web").tcp(port);
        let api = service("api").tcp(process_port);
        for (service, port) in [(&web, port), (&api, process_port)] {
            namespace.apply(service).await?;
            let parts = [&format!("{port}/TCP"), nodes[0].name.as_str()];
            namespace.wait_warning(service, "PortInUse", &parts).await?;
            namespace.wait_exposed_on(service, &nodes[1..]).await?;
            namespace.wait_condition(service, "PartlyExposed", &parts).await?;
        }
        let target = Target { protocol: Protocol::Tcp, host: nodes[0].addresses[0], port };
        eventually("the pod answers on its port", async || {
            let replies = namespace.cluster().send_requests(&[target]).await?;
            ensure_eq("host that answers", &replies[0].answer()?.host, &pod.name_any())
        })
        .await?;
        namespace.delete_pod("pod-with-port").await?;
        namespace.delete_pod("process").await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&api).await?;
        namespace.wait_condition(&web, "Exposed", &[]).await
    })
    .await
}

/// Starts another user of the Service's port on a node that serves the Service. Checks that the Service keeps the port,
/// and that the condition has these words.
async fn check_service_keeps_its_port(
    build_pod: impl Fn(u16) -> EchoPod,
    expected_words: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.start_pod(&build_pod(port).on_node(&nodes[0].name)).await?;
        consistently(Duration::from_secs(3), "the Service answers on every node", async || {
            for reply in namespace.cluster().send_requests(&targets).await? {
                ensure_eq("host that answers", &reply.answer()?.host.as_str(), &"backend")?;
            }
            Ok(())
        })
        .await?;
        namespace.wait_condition(&web, "Exposed", &[&expected_words(&nodes[0].name)]).await
    })
    .await
}

#[tokio::test]
async fn service_keeps_its_port_when_a_later_pod_uses_it() -> Result<(), Failure> {
    let build_pod = |port| echo_pod("pod-with-port").host_port(port);
    check_service_keeps_its_port(build_pod, |_| "pod-with-port".to_owned()).await
}

#[tokio::test]
async fn service_keeps_its_port_when_a_later_process_uses_it() -> Result<(), Failure> {
    let build_pod = |port| echo_pod("process").in_host_network(port).without_declared_ports();
    check_service_keeps_its_port(build_pod, |node| format!("process of node {node}")).await
}

#[tokio::test]
async fn older_service_owns_the_port_until_its_deletion() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let older_service = service("older").tcp(port);
        let younger_service = service("younger").tcp(port);
        namespace.expose(&older_service).await?;
        namespace.apply_younger(&older_service, &younger_service).await?;
        namespace.wait_warning(&younger_service, "PortConflict", &[&format!("{port}/TCP"), "older"]).await?;
        ensure_eq("published addresses", &namespace.published_addresses(&younger_service).await?, &vec![])?;
        namespace.delete_service(&older_service).await?;
        namespace.wait_exposed(&younger_service).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn shared_and_dedicated_services_do_not_share_a_port() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let [shared_port, dedicated_port] = namespace.allocate_ports().await?;
        let shared = service("shared").tcp(shared_port);
        let dedicated = service("dedicated").tcp(dedicated_port).with_dedicated_mode();
        namespace.expose(&shared).await?;
        namespace.expose(&dedicated).await?;
        let late_dedicated = service("late-dedicated").tcp(shared_port).with_dedicated_mode();
        let late_shared = service("late-shared").tcp(dedicated_port);
        namespace.apply_younger(&shared, &late_dedicated).await?;
        namespace.apply_younger(&dedicated, &late_shared).await?;
        namespace.wait_warning(&late_dedicated, "PortConflict", &["shared"]).await?;
        namespace.wait_warning(&late_shared, "PortConflict", &["dedicated"]).await?;
        namespace.wait_exposed(&shared).await?;
        namespace.wait_exposed(&dedicated).await.map(drop)
    })
    .await
}
