//! Proxies of a Deployment. The proxies of a Deployment run on some nodes, and Akrobateo publishes only these nodes.

use akrobateo_core::annotations::{REPLICAS, WORKLOAD};
use e2e::{Failure, ensure_eq, eventually, service, test_in_dedicated_mode};

#[tokio::test]
async fn deployment_publishes_only_the_nodes_of_its_proxies() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let service_with_daemonset = service("web").tcp(port).with_ip_mode_proxy();
        let service_with_deployment =
            service_with_daemonset.clone().annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "2");
        namespace.apply(&service_with_deployment).await?;
        let nodes = eventually("two nodes have a proxy", async || {
            let pod_ips = namespace.proxy_pod_ips(&service_with_deployment).await?;
            ensure_eq("number of nodes with a proxy", &pod_ips.len(), &2)?;
            let nodes = namespace.cluster().list_nodes().await?;
            Ok(nodes.into_iter().filter(|node| pod_ips.contains_key(&node.name)).collect::<Vec<_>>())
        })
        .await?;
        let replies = namespace.wait_exposed_on(&service_with_deployment, &nodes).await?;
        namespace.ensure_answers_through_proxies(&service_with_deployment, &replies).await?;
        ensure_eq(
            "number of DaemonSets",
            &namespace.list_daemonsets(&service_with_deployment).await?.len(),
            &0,
        )?;

        namespace.expose(&service_with_daemonset).await?;
        namespace.delete_service(&service_with_daemonset).await?;
        namespace.wait_cleaned_up(&service_with_daemonset).await
    })
    .await
}
