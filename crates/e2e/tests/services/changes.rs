//! Changes of a Service. Akrobateo rolls out new proxies only after a change of the proxies' arguments.

use std::net::IpAddr;

use akrobateo_core::Protocol;
use e2e::{
    Failure, Namespace, NodeAddresses, ServiceBuilder, backend, build_targets, ensure, ensure_eq, eventually,
    exposed_service_test, exposed_service_test_in_dedicated_mode, is_ready, service, test,
};
use k8s_openapi::api::core::v1::Pod;

/// Applies a changed Service, and checks that the proxies' DaemonSet stays the same.
async fn apply_and_ensure_no_rollout(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    namespace.wait_rollouts_ended(service).await?;
    let workload_before = namespace.list_workload_versions(service).await?;
    namespace.apply(service).await?;
    namespace.wait_operator_synced().await?;
    ensure_eq("workload", &namespace.list_workload_versions(service).await?, &workload_before)?;
    namespace.wait_exposed(service).await.map(drop)
}

#[tokio::test]
async fn added_port_answers() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let [added_port] = namespace.allocate_ports().await?;
            namespace.expose(&web.udp(added_port)).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn removed_port_does_not_answer() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [remaining_port, removed_port] = namespace.allocate_ports().await?;
        let service_before_removal = service("web").tcp(remaining_port).tcp(removed_port).udp(removed_port);
        let replies = namespace.expose(&service_before_removal).await?;
        let addresses: Vec<_> = replies.iter().map(|reply| reply.target.host).collect();
        let web = service_before_removal
            .clone()
            .without_port(Protocol::Tcp, removed_port)
            .without_port(Protocol::Udp, removed_port);
        namespace.apply(&web).await?;
        let service_with_only_the_removed_ports = service("web").tcp(removed_port).udp(removed_port);
        namespace.wait_unreachable(&build_targets(&service_with_only_the_removed_ports, &addresses)).await?;
        namespace.wait_rollouts_ended(&web).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn changed_target_port_needs_no_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let port = web.ports()[0].port();
            apply_and_ensure_no_rollout(namespace, &web.port(Protocol::Tcp, port, backend::SECOND_PORT)).await
        },
    )
    .await
}

#[tokio::test]
async fn changed_labels_annotations_selector_and_node_port_need_no_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let spec = namespace.get_service(&web).await?.spec.expect("the Service has a spec");
            let node_port = spec.ports.iter().flatten().find_map(|port| port.node_port);
            let node_port = node_port.expect("the port has a nodePort");
            let web = web
                .label("team", "shop")
                .annotation("example.com/note", "x")
                .add_selector_label("tier", "web");
            apply_and_ensure_no_rollout(namespace, &web).await?;
            let new_node_port = if node_port == 32_767 { 30_000 } else { node_port + 1 };
            let new_node_port = new_node_port.try_into().expect("nodePorts have 16 bits");
            apply_and_ensure_no_rollout(namespace, &web.node_port(new_node_port)).await
        },
    )
    .await
}

/// Checks the published addresses once. No address may be missing. If an address has ipMode Proxy, a proxy must forward
/// on the node of this address.
async fn ensure_proxies_forward(
    namespace: &Namespace,
    service: &ServiceBuilder,
    nodes: &[NodeAddresses],
) -> Result<(), Failure> {
    let ingress = namespace.get_service(service).await?.status.and_then(|status| status.load_balancer);
    let ingress = ingress.and_then(|status| status.ingress).unwrap_or_default();
    ensure_eq("number of published addresses", &ingress.len(), &nodes.len())?;
    // The test reads the status before the pods, because a proxy that has started to forward continues to forward.
    let pods = namespace.list_proxy_pods(service).await?;
    for entry in ingress.iter().filter(|entry| entry.ip_mode.as_deref() == Some("Proxy")) {
        let address: Option<IpAddr> = entry.ip.as_ref().and_then(|ip| ip.parse().ok());
        let node = nodes.iter().find(|node| address.is_some_and(|address| node.addresses.contains(&address)));
        let forwards_on_node = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            let only_reserves_ports = spec.and_then(|spec| spec.host_network).unwrap_or(false);
            let node_name = spec.and_then(|spec| spec.node_name.as_ref());
            node_name.is_some()
                && node_name == node.map(|node| &node.name)
                && is_ready(pod)
                && !only_reserves_ports
        };
        ensure(pods.iter().any(forwards_on_node), || format!("no proxy forwards on the node of {entry:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_published_address_answers_during_a_change_of_the_ip_mode() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let nodes = namespace.cluster().list_nodes().await?;
            let web = web.with_ip_mode_proxy();
            namespace.apply(&web).await?;
            let wait_exposed = async {
                namespace.wait_published(&web, &nodes).await?;
                // kube-proxy may still answer for a moment.
                eventually("the answers come through the proxies", async || {
                    let replies = namespace.wait_exposed(&web).await?;
                    namespace.ensure_answers_through_proxies(&web, &replies).await
                })
                .await
            };
            let ensure_answers = async {
                loop {
                    ensure_proxies_forward(namespace, &web, &nodes).await?;
                }
            };
            tokio::select! {
                result = wait_exposed => result,
                failure = ensure_answers => failure,
            }
        },
    )
    .await
}

#[tokio::test]
async fn status_keeps_its_addresses_during_a_rollout() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let generation_before = namespace.wait_rolled_out(&web).await?.metadata.generation;
            let addresses_before = namespace.published_addresses(&web).await?;
            let [added_port] = namespace.allocate_ports().await?;
            let web = web.tcp(added_port);
            namespace.apply(&web).await?;
            let wait_rollout = async {
                eventually("the operator has changed the DaemonSet", async || {
                    let current_generation = namespace.get_daemonset(&web).await?.metadata.generation;
                    ensure(current_generation > generation_before, || {
                        format!("the DaemonSet's generation is still {current_generation:?}")
                    })
                })
                .await?;
                namespace.wait_rolled_out(&web).await
            };
            let ensure_addresses_stay = async {
                loop {
                    let current_addresses = namespace.published_addresses(&web).await?;
                    ensure_eq("published addresses", &current_addresses, &addresses_before)?;
                }
            };
            tokio::select! {
                result = wait_rollout => result.map(drop),
                failure = ensure_addresses_stay => failure,
            }
        },
    )
    .await
}
