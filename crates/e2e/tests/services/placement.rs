//! The annotations for node selection, workload kind and address types.

use std::slice;

use akrobateo_core::annotations::{ADDRESS_TYPES, REPLICAS, WORKLOAD};
use e2e::{Failure, ensure_eq, eventually, exposed_service_test_in_dedicated_mode, service, test};

#[tokio::test]
async fn node_selector_limits_the_published_nodes() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [first_node, second_node, ..] = &nodes[..] else {
            return Err(Failure::UnexpectedState(format!(
                "the cluster has {} nodes, expected 2",
                nodes.len()
            )));
        };
        let service_on_all_nodes = service("web").tcp(port).with_ip_mode_proxy();
        namespace
            .expose_on(
                &service_on_all_nodes.clone().on_nodes(&[&first_node.name]),
                slice::from_ref(first_node),
            )
            .await?;
        namespace
            .expose_on(
                &service_on_all_nodes.clone().on_nodes(&[&second_node.name]),
                slice::from_ref(second_node),
            )
            .await?;
        namespace.expose(&service_on_all_nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn service_without_a_matching_node_gets_a_warning() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).on_nodes(&["nowhere"]);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoNodes", &["no node matches the node selector"]).await
    })
    .await
}

#[tokio::test]
async fn workload_annotation_switches_between_daemonset_and_deployment() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").tcp(port).udp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let service_with_deployment =
                web.clone().annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "2");
            namespace.apply(&service_with_deployment).await?;
            let nodes = eventually("two nodes have a proxy, and there is no DaemonSet", async || {
                ensure_eq("number of DaemonSets", &namespace.list_daemonsets(&web).await?.len(), &0)?;
                let pod_ips = namespace.proxy_pod_ips(&web).await?;
                ensure_eq("number of nodes with a proxy", &pod_ips.len(), &2)?;
                let nodes = namespace.cluster().list_nodes().await?.into_iter();
                Ok(nodes.filter(|node| pod_ips.contains_key(&node.name)).collect::<Vec<_>>())
            })
            .await?;
            namespace.wait_exposed_on(&service_with_deployment, &nodes).await?;
            namespace.expose(&web).await?;
            eventually("there is no Deployment", async || {
                ensure_eq("number of Deployments", &namespace.list_deployments(&web).await?.len(), &0)
            })
            .await
        },
    )
    .await
}

#[tokio::test]
async fn service_without_addresses_of_the_requested_type_gets_a_warning() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).annotation(ADDRESS_TYPES, "ExternalIP");
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoAddresses", &["IPv4", "ExternalIP"]).await?;
        let web = web.annotation(ADDRESS_TYPES, "ExternalIP,InternalIP");
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &namespace.cluster().list_nodes().await?).await.map(drop)
    })
    .await
}
