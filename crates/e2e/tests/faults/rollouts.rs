//! Rollouts of proxies while a node is lost, and changes of a node that restart no proxy on the other nodes.

use std::collections::BTreeMap;
use std::slice;

use akrobateo_core::annotations::{NODE_SELECTOR, REPLICAS, WORKLOAD};
use e2e::backend::echo_pod;
use e2e::{
    Failure, Namespace, NodeAddresses, POOL_LABEL, ServiceBuilder, build_targets, ensure, ensure_eq,
    eventually, fault_test_in_dedicated_mode, is_ready, service,
};
use kube::ResourceExt;

/// A source range that contains no client of the tests.
const SOURCE_RANGE_WITHOUT_CLIENTS: &str = "198.51.100.0/24";

/// Returns the UID of each node's proxy pod.
async fn proxy_uids(
    namespace: &Namespace,
    service: &ServiceBuilder,
) -> Result<BTreeMap<String, String>, Failure> {
    let pods = namespace.list_proxy_pods(service).await?.into_iter();
    let uid = |pod: k8s_openapi::api::core::v1::Pod| Some((pod.spec.clone()?.node_name?, pod.uid()?));
    Ok(pods.filter_map(uid).collect())
}

fn node_names(nodes: &[NodeAddresses]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test]
async fn lost_node_does_not_delay_a_change_on_other_nodes() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let (lost_node, other_nodes) = faults.operator.select_node_without_operator(nodes).await?;
        namespace.start_backend_on(&other_nodes[0].name).await?;
        let [port, added_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).with_ip_mode_proxy();
        namespace.expose(&web).await?;
        faults.disconnect_node(&lost_node.name).await?;
        namespace.wait_exposed_on(&web, &other_nodes).await?;

        let web = web.tcp(added_port);
        let replies = namespace.expose_on(&web, &other_nodes).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        namespace.wait_condition(&web, "PartlyExposed", &["outdated", &lost_node.name]).await?;
        let service_with_denied_clients =
            web.clone().source_ranges(&[SOURCE_RANGE_WITHOUT_CLIENTS.to_owned()]);
        namespace.apply(&service_with_denied_clients).await?;
        let addresses: Vec<_> = replies.iter().map(|reply| reply.target.host).collect();
        namespace.wait_unreachable(&build_targets(&web, &addresses)).await?;
        ensure(!namespace.published_addresses(&web).await?.is_empty(), || "the status is empty".to_owned())?;

        faults.reconnect_node(&lost_node.name).await?;
        namespace.wait_rolled_out(&service_with_denied_clients).await?;
        namespace.expose(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn proxy_that_waits_for_its_port_does_not_delay_other_nodes() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, _| {
        let nodes = namespace.cluster().list_nodes().await?;
        let (blocked_node, other_nodes) = nodes.split_first().expect("the cluster has nodes");
        namespace.start_backend().await?;
        let [port, added_port] = namespace.allocate_ports().await?;
        namespace.start_pod(&echo_pod("pod-with-port").on_node(&blocked_node.name).host_port(port)).await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.expose_on(&web, other_nodes).await?;
        let replies = namespace.expose_on(&web.clone().udp(added_port), other_nodes).await?;
        namespace.ensure_answers_through_proxies(&web.clone().udp(added_port), &replies).await?;
        namespace.delete_pod("pod-with-port").await?;
        namespace.wait_rolled_out(&web).await?;
        namespace.wait_exposed(&web.udp(added_port)).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn other_proxies_keep_running_when_a_port_of_one_node_gets_another_owner() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let (first_node, other_nodes) = nodes.split_first().expect("the cluster has nodes");
        faults.set_pool_label(&first_node.name, Some("a")).await?;
        let owner = service("owner").tcp(port).with_ip_mode_proxy();
        let owner = owner.annotation(NODE_SELECTOR, &format!("{POOL_LABEL}=a"));
        namespace.expose_on(&owner, slice::from_ref(first_node)).await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.apply_younger(&owner, &web).await?;
        namespace.wait_exposed_on(&web, other_nodes).await?;
        let proxy_uids_before = proxy_uids(namespace, &web).await?;
        ensure_eq(
            "nodes with a proxy",
            &proxy_uids_before.keys().map(String::as_str).collect(),
            &node_names(other_nodes),
        )?;

        faults.set_pool_label(&first_node.name, None).await?;
        namespace.wait_exposed(&web).await?;
        let mut proxy_uids_after = proxy_uids(namespace, &web).await?;
        proxy_uids_after.remove(&first_node.name);
        ensure_eq("UIDs of the proxies on the other nodes", &proxy_uids_after, &proxy_uids_before)
    })
    .await
}

#[tokio::test]
async fn deployment_with_more_replicas_than_nodes_rolls_out() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, _| {
        namespace.start_backend().await?;
        let [port, added_port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let replicas = (nodes.len() + 1).to_string();
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let web = web.annotation(WORKLOAD, "Deployment").annotation(REPLICAS, &replicas);
        namespace.expose(&web).await?;
        let pods = namespace.list_proxy_pods(&web).await?;
        ensure_eq("number of pods", &pods.len(), &nodes.len())?;
        let web = web.udp(added_port);
        let replies = namespace.expose(&web).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        namespace.ensure_no_warnings(&web).await
    })
    .await
}

#[tokio::test]
async fn deployment_with_a_lost_node_rolls_out_on_the_other_nodes() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let (lost_node, other_nodes) = faults.operator.select_node_without_operator(nodes).await?;
        namespace.start_backend_on(&other_nodes[0].name).await?;
        let [port, added_port] = namespace.allocate_ports().await?;
        let replicas = (other_nodes.len() + 1).to_string();
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let web = web.annotation(WORKLOAD, "Deployment").annotation(REPLICAS, &replicas);
        namespace.expose(&web).await?;
        faults.disconnect_node(&lost_node.name).await?;
        namespace.wait_exposed_on(&web, &other_nodes).await?;
        namespace.expose_on(&web.clone().udp(added_port), &other_nodes).await?;
        faults.reconnect_node(&lost_node.name).await?;
        namespace.wait_exposed(&web.udp(added_port)).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn deployment_moves_away_from_a_node_that_is_no_longer_selected() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [first_node, second_node, ..] = &nodes[..] else {
            return Err(Failure::UnexpectedState(format!(
                "the cluster has {} nodes, expected 2",
                nodes.len()
            )));
        };
        for node in [first_node, second_node] {
            faults.set_pool_label(&node.name, Some("edge")).await?;
        }
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let web = web.annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "1");
        let web = web.annotation(NODE_SELECTOR, &format!("{POOL_LABEL}=edge"));
        namespace.apply(&web).await?;
        let (previous_node, new_node) = eventually("one node has a ready proxy", async || {
            let pods = namespace.list_proxy_pods(&web).await?;
            let ready_node =
                pods.iter().find(|pod| is_ready(pod)).and_then(|pod| pod.spec.clone()?.node_name);
            ensure(ready_node.is_some(), || format!("{} pods are not ready", pods.len()))?;
            Ok(if ready_node.as_ref() == Some(&first_node.name) {
                (first_node, second_node)
            } else {
                (second_node, first_node)
            })
        })
        .await?;
        namespace.wait_exposed_on(&web, slice::from_ref(previous_node)).await?;
        faults.set_pool_label(&previous_node.name, None).await?;
        namespace.wait_exposed_on(&web, slice::from_ref(new_node)).await?;
        // The new proxy may be ready before the previous proxy has ended.
        eventually("only the other node has a proxy", async || {
            let nodes_with_proxy: Vec<_> = proxy_uids(namespace, &web).await?.into_keys().collect();
            ensure_eq("nodes with a proxy", &nodes_with_proxy, &vec![new_node.name.clone()])
        })
        .await
    })
    .await
}
