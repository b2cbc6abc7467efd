//! Proxies as a Deployment: they run on some nodes, and only those nodes are published.

use akrobateo_core::annotations::{REPLICAS, WORKLOAD};
use e2e::{Failure, ensure_eq, eventually, service, test};

#[tokio::test]
async fn deployment_publishes_only_the_nodes_of_its_proxies() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let daemonset = service("web").tcp(port).with_ip_mode_proxy();
        let deployment = daemonset.clone().annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "2");
        namespace.apply(&deployment).await?;
        let nodes = eventually("two nodes have a proxy", async || {
            let pod_ips = namespace.proxy_pod_ips(&deployment).await?;
            ensure_eq("number of nodes with a proxy", &pod_ips.len(), &2)?;
            let nodes = namespace.cluster().list_nodes().await?;
            Ok(nodes.into_iter().filter(|node| pod_ips.contains_key(&node.name)).collect::<Vec<_>>())
        })
        .await?;
        let replies = namespace.wait_exposed_on(&deployment, &nodes).await?;
        namespace.ensure_answers_through_proxies(&deployment, &replies).await?;
        ensure_eq("number of DaemonSets", &namespace.list_daemonsets(&deployment).await?.len(), &0)?;

        namespace.expose(&daemonset).await?;
        namespace.delete_service(&daemonset).await?;
        namespace.wait_cleaned_up(&daemonset).await
    })
    .await
}
